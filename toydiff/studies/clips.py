"""AnimateLCM's claims on clips of points: image first and motion second beside other trainings, and how to sample."""

import functools
from collections.abc import Sequence
from typing import Any

from ..denoisers import Denoiser
from ..problems import Problem, sequence
from ..runs import Model, evaluate, train
from ..support.checks import check_count

TRAININGS = ("teacher", "decoupled", "joint", "nothing")
"""What is compared: the video teacher in 20 steps; `animatelcm`'s student; `lcm` of all of the teacher's weights; `lcm`
from fresh weights. The three students have the same teacher and equally many updates."""

MEASURES = ("distance", "frame", "lag-1", "velocity", "accuracy")
STEPS, GUIDANCE = (1, 2, 4, 8), (1.0, 1.5, 2.0)


@functools.cache
def ring() -> Problem:
    """The clips of all models here; the problem keeps its floors."""
    return sequence("ring")


def trained(seed: int = 0, updates: int = 2000, on: Problem | None = None, **changes: object) -> dict[str, Model]:
    """The models of `TRAININGS` by name, each student after `updates` updates of an LCM, an even number.

    The decoupled one spends half of them on single frames and half on clips. The teacher has two stages of half as many
    updates each before that. changes: knobs of all trainings, such as batch.
    """
    on = ring() if on is None else on
    if check_count(updates, "updates") % 2:
        raise ValueError(f"updates are shared by two stages, and must be even, got {updates}")
    animate = train("animatelcm", on, seed=seed, changes=changes | {"updates": 2 * updates})
    models = {"decoupled": animate.finish()}
    teacher = animate.training.targets["teacher average"].module.eval()
    assert isinstance(teacher, Denoiser)
    about = dict(models["decoupled"].about)
    models["teacher"] = Model(
        teacher, about | {"method": "teacher", "sampler": {"solver": "guarded", "grid": "uniform"}}
    )
    start = on.student(teacher.schedule, teacher.kind)
    for name, weights in (("joint", teacher), ("nothing", start)):
        settings = {"lr": animate.knobs.lr, "batch": animate.knobs.batch} | changes | {"updates": updates}
        models[name] = train("lcm", on, seed=seed, teacher=teacher, start=weights, changes=settings).finish()
    return {name: models[name] for name in TRAININGS}


def measured(model: Model, steps: int, guidance_scale: float = 1.0, n: int = 1000, on: Problem | None = None) -> dict:
    """`MEASURES` of n samples of a model, and their floors by `floor NAME`."""
    on = ring() if on is None else on
    (row,) = evaluate(model, on, steps=[steps], n=n, guidance_scale=guidance_scale)
    parts = {"distance": {"value": row["distance"], "floor": row["floor"]}} | row["parts"]
    values = {name: part["value"] for name, part in parts.items()} | {"accuracy": row["accuracy"]}
    return values | {f"floor {name}": part["floor"] for name, part in parts.items()}


def compare(models: Sequence[dict[str, Model]], n: int = 1000, on: Problem | None = None) -> list[dict[str, Any]]:
    """A row for each of `TRAININGS`: the students in 4 steps, the teacher in 20. Each measure is a list, over the seeds
    in `models`."""
    rows = []
    for name in TRAININGS:
        found = [measured(of[name], 20 if name == "teacher" else 4, n=n, on=on) for of in models]
        rows.append({"training": name, **{key: [row[key] for row in found] for key in found[0]}})
    return rows


def advice(models: Sequence[Model], n: int = 1000, on: Problem | None = None) -> list[dict[str, Any]]:
    """A row for each number of steps in `STEPS` and guidance scale in `GUIDANCE`, sampled by `lcm`: each measure is a
    mean over the models."""
    rows = []
    for steps in STEPS:
        for g in GUIDANCE:
            found = [measured(model, steps, g, n, on) for model in models]
            means = {key: sum(row[key] for row in found) / len(found) for key in MEASURES}
            rows.append({"steps": steps, "guidance_scale": g, **means})
    return rows
