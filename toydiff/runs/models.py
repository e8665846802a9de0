"""Models by name (a run's folder or bundled weights), a method's card and knobs, and the problem that a model was
trained on."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import weights
from ..catalog import METHODS, Card
from ..denoisers import Denoiser
from ..distill.base import Knobs
from ..problems import Problem, entry, problem
from ..support.checks import check_count, check_positive, unknown
from ..training.checkpoints import INDEX, read_run, read_tensors

ABOUT = ("method", "problem", "seed", "denoiser", "sampler", "pair_calls", "calls_per_update")
"""The keys that the file of a run has at least."""


def card(method: str) -> Card:
    """The card of the method with this name. `ValueError`, with the nearest name, if there is none."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return METHODS[method]


def knobs(method: str, on: Problem | str, changes: Mapping[str, object] | None = None) -> Knobs:
    """The knobs of a method on a problem: its recipe for the problem's scale, with changes.

    on: a problem, or its name. changes: values by the name of a knob; a value may be text, as on a command line.
    `ValueError` for a knob that the method does not have, a value of another type, or a value out of range.
    """
    chosen = card(method)
    settings: dict[str, Any] = dict(chosen.recipes.get(on.scale if isinstance(on, Problem) else entry(on).scale, {}))
    fields = {f.name: f for f in dataclasses.fields(chosen.knobs)}
    for name, value in (changes or {}).items():
        if name not in fields:
            raise unknown(f"knob of {method}", name, fields)
        settings[name] = _typed(value, fields[name].type, f"the knob {name} of {method}")
    made = chosen.knobs(**settings)
    check_count(made.updates, "updates")
    check_count(made.batch, "batch")
    check_count(made.warmup, "warmup", 0)
    check_count(made.cycles, "cycles")
    check_positive(made.lr, "lr")
    check_positive(made.clip, "clip")
    return made


def _typed(value: object, kind: Any, what: str) -> object:
    """A value as `kind`, int, float or str; `what` is its name in an error."""
    try:
        made = kind(value) if isinstance(value, str) or kind is float else value
    except (TypeError, ValueError):
        made = None
    if not isinstance(made, kind) or isinstance(value, bool) or (kind is float and made != made):
        names = {int: "a whole number", float: "a number", str: "a word"}
        raise ValueError(f"{what} is {names[kind]}, got {value!r}")
    return made


@dataclass(frozen=True)
class Model:
    """A trained model."""

    denoiser: Denoiser
    """What is sampled."""
    about: Mapping[str, Any]
    """How the model was made, as JSON. Its keys are method, problem, seed, updates, teacher_calls and sampler among
    others."""


def load(source: str | Path) -> Model:
    """The trained model of a run's folder, or of bundled weights.

    source: the folder, or the id of the weights. The model has the averaged weights (`training.EMA`), frozen. A run
    that is not finished gives the weights that were saved last. A run with a watch (`training.Watch`) measures its
    average on the way, and gives the weights with the smallest distance; `about["best"]` is their update.

    `ValueError` in one line for a folder without a run, for damaged files, and for an unknown id.
    """
    folder = Path(source)
    if (folder / INDEX).exists():
        index = read_run(folder)
        about = index["about"]
        missing = [key for key in ABOUT if key not in about]
        if missing:
            raise ValueError(f"the run in {str(source)!r} does not say its {missing[0]!r}, and cannot be loaded")
        tensors = read_tensors(folder / index["file"], index["sha256"])
        watched = bool(about.get("watch"))
        prefix = "module.watch.best.net." if watched else "module.average.module.net."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        done = {
            "updates": index["step"],
            "teacher_calls": about["pair_calls"] + index["step"] * about["calls_per_update"],
        } | ({"best": int(tensors["module.watch.step"])} if watched else {})
        return Model(weights.build(about["denoiser"], own), about | done | {"seconds": index["seconds"]})
    if str(source) in weights.bundled():
        return Model(weights.load_denoiser(str(source)), weights.read_about(str(source)))
    if folder.is_dir():
        raise ValueError(f"the folder {str(source)!r} holds no run of toydiff: it has no {INDEX}")
    raise unknown("run or bundled weights", str(source), weights.bundled())


def problem_of(model: Model, *, with_data: bool = True) -> Problem:
    """The problem that a model was trained on.

    with_data: with its data and prompts. Sampling does not need them, and they may be gone.
    """
    settings = model.about.get("settings")
    if settings and not with_data:
        settings = settings | {"data": None, "prompts": []}
    return problem(model.about["problem"], settings=settings)


def teacher_of(the_problem: Problem, name: str | None, role: str = "teacher") -> tuple[str, Denoiser]:
    """A teacher, and its name in files.

    name: a run's folder or the id of bundled weights; None is the problem's own teacher, which is "own" in files. role:
    "teacher" or "start", for an error. `ValueError` if there is no such teacher, or if it is another problem's.
    """
    if name is None:
        if the_problem.teacher is None:
            raise ValueError(
                f"the problem {the_problem.name} has no teacher of its own: "
                "train one (toydiff train diffusion) and name its folder with --teacher"
            )
        return "own", the_problem.teacher
    found = load(name)
    if found.about["problem"] != the_problem.name:
        raise ValueError(f"the {role} {name!r} is of the problem {found.about['problem']}, not {the_problem.name}")
    return name, found.denoiser
