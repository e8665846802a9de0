"""The bundled weights: which there are, and how each is made from scratch.

`toydiff zoo build` trains by the recipes below, measures the weights that were stored, and writes weights and JSON.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from .. import runs, weights
from ..denoisers import Denoiser, LambdaDenoiser
from ..discrete import Posterior
from ..distill.animatelcm import personal_base, swapped
from ..nets import ClipNet
from ..problems import ClipsProblem, DigitsProblem, problem
from ..problems.classifier import Classifier
from ..problems.digits import FEATURES_ID, TEACHER_ID, Features, classifier_turn
from ..problems.pairs import Recipe as PairRecipe
from ..problems.pairs import save_pairs
from ..support.checks import unknown
from ..support.files import read_bytes, write_json
from ..support.locks import Lock
from ..support.seeds import seeded
from ..training import fit
from .cost import passes_of_update

GUIDANCE = 1.5
"""The guidance scale of the digits' teacher, wherever guidance is built into a student or a model is measured."""

TOKENS_GUIDANCE = 1.15
"""The same of the digits' tokens."""

MEASURED = 5000
"""How many digits a row is measured on, in groups (`DigitsProblem`), whose spread it has as well."""

GUIDED_ID = "digits-guided"
"""The guided student. It teaches where a method calls its teacher in every update: its guidance costs one call."""

CLIPS_ID, CLIPS_TEACHER_ID = "clips-animatelcm", "clips-teacher"
"""The fast model of clips of digits, and its video teacher."""

TOKENS_ID = "markov-discrete-flow-matching"
"""The posterior of strings, the teacher of the methods of tokens."""

DIGIT_TOKENS_ID = "grey-digits-discrete-flow-matching"
"""The posterior of digits in grey levels."""

POINTS = 8
"""How often a training is measured on its way, in the fewest steps of its method, on `Sizes.watched` samples."""

PAIRS = "pairs"
"""The folder of all pairs, inside the working folder. The students of one teacher have their pairs in common."""

CLASSIFIER_UPDATES = 1200

LARGE = 100_000
"""A student whose weights have this many bytes in half precision, or more, is stored as a change of its start."""


@dataclass(frozen=True)
class WeightsRecipe:
    """How one set of weights is trained and measured."""

    id: str
    method: str
    problem: str = "digits"
    teacher: str | None = None
    """The id of the weights that teach. A method that needs pairs has this teacher's."""
    start: str | None = None
    """The id of the weights to start with; None is the teacher's."""
    changes: Mapping[str, object] = field(default_factory=dict)
    """Knobs that differ from the method's recipe."""
    steps: tuple[int, ...] = (1, 2, 4)
    """The numbers of steps to measure at."""
    guidance_scale: float = 1.0
    """At measuring."""
    solvers: tuple[str | None, ...] = (None,)
    """At measuring, by name; None is the method's own."""
    seed: int = 0
    """The seed of the weights that are stored."""
    seeds: int = 1
    """How many trainings are measured: with `seed` and the next ones. Only the first one's weights are stored."""
    base: str | None = None
    """The id of the weights that these are stored as a change of; None is the start, or the teacher."""
    taught: bool = False
    """Whether these are the weights of the teacher that the training makes first, and not those of its student."""


_EULER: dict[str, Any] = {"solver": "ddim", "grid": "uniform"}  # on the linear schedule DDIM is Euler

PAIR_RECIPES = {
    TEACHER_ID: PairRecipe(n=30_000, steps=10, guidance_scale=GUIDANCE),
    "digits-rectified-flow": PairRecipe(n=20_000, steps=8, seed=1, **_EULER),
    "ring-teacher": PairRecipe(n=50_000),
    "ring-flow-matching": PairRecipe(n=50_000, steps=100, **_EULER),
    "ring-rectified-flow": PairRecipe(n=50_000, steps=50, seed=1, **_EULER),
}
"""How the pairs of each teacher are made, by the teacher's id."""

_BAKED: dict[str, Any] = {"guidance_scale": GUIDANCE}  # built into the student, which then costs one call a step

_LONG = {"updates": 5000, "edge": 0.5}
"""Half of each batch is at t = 1. Sampling in one step starts there, and so few updates do not suffice without it."""

_TUNED: dict[str, Any] = {"stages": 4, "mean": 0.5}
"""Of consistency tuning: more of each batch in noise, where one step starts, and fewer stages, for few updates."""

_RECIPES = [
    WeightsRecipe(
        id=TEACHER_ID,
        method="diffusion",
        changes={"updates": 20_000, "ema": 0.9995, "augment": 1.0},
        steps=(10, 25),
        guidance_scale=GUIDANCE,
        solvers=(None, "sde-dpm++2m"),
    ),
    WeightsRecipe(
        id="digits-flow-matching",
        method="flow-matching",
        start=TEACHER_ID,
        changes={"updates": 4000, "lr": 1e-3, "batch": 64, "cycles": 1},
        steps=(10, 25),
        guidance_scale=GUIDANCE,
    ),
    WeightsRecipe(
        id="digits-naive",
        method="naive",
        teacher=TEACHER_ID,
        changes={"updates": 6000},
        steps=(1,),
    ),
    WeightsRecipe(
        id=GUIDED_ID,
        method="guided",
        teacher=TEACHER_ID,
        changes={"updates": 2500, "g_max": 3.0},
        steps=(10, 25),
        guidance_scale=GUIDANCE,
    ),
    WeightsRecipe(
        id="digits-progressive",
        method="progressive",
        teacher=GUIDED_ID,
        changes={"first": 16, "last": 4, "updates": 2100} | _BAKED,
        steps=(4,),
    ),
    WeightsRecipe(
        id="digits-rectified-flow",
        method="rectified-flow",
        teacher=TEACHER_ID,
        changes=_LONG,
    ),
    WeightsRecipe(
        id="digits-instaflow",
        method="instaflow",
        teacher="digits-rectified-flow",
        changes={"updates": 2000},
    ),
    WeightsRecipe(
        id="digits-rectified-diffusion",
        method="rectified-diffusion",
        teacher=TEACHER_ID,
        changes=_LONG,
    ),
    WeightsRecipe(
        id="digits-perflow",
        method="perflow",
        teacher=GUIDED_ID,
        changes={"updates": 1200} | _BAKED,
        steps=(4, 8),
    ),
    WeightsRecipe(
        id="digits-rectified-diffusion-phased",
        method="rectified-diffusion-phased",
        teacher=GUIDED_ID,
        changes={"updates": 1200} | _BAKED,
        steps=(4, 8),
    ),
    WeightsRecipe(
        id="digits-cd",
        method="cd",
        teacher=TEACHER_ID,
        start="digits-rectified-diffusion",
        changes={"updates": 2500, "ema": 0.998} | _BAKED,
    ),
    WeightsRecipe(
        id="digits-ct",
        method="ct",
        start=TEACHER_ID,
        changes={"updates": 3500, "mean": 0.5, "last": 80},
    ),
    WeightsRecipe(
        id="digits-ect",
        method="ect",
        teacher=TEACHER_ID,
        changes={"updates": 3500} | _TUNED,
    ),
    WeightsRecipe(
        id="digits-sct",
        method="sct",
        teacher=TEACHER_ID,
        changes={"updates": 2800} | _TUNED,
    ),
    WeightsRecipe(
        id="digits-multistep-consistency",
        method="multistep-consistency",
        teacher=TEACHER_ID,
        changes={"updates": 1200} | _BAKED,
        steps=(4,),
    ),
    WeightsRecipe(
        id="digits-lcm",
        method="lcm",
        teacher=TEACHER_ID,
        changes={"updates": 1200, "g_min": 1.0, "g_max": 3.0},
        guidance_scale=GUIDANCE,
    ),
    WeightsRecipe(
        id="digits-pcm",
        method="pcm",
        teacher=TEACHER_ID,
        start="digits-rectified-diffusion-phased",
        changes={"updates": 1000, "g_min": GUIDANCE, "g_max": GUIDANCE},
        steps=(4,),
    ),
    *(
        WeightsRecipe(
            id=f"digits-{method}",
            method=method,
            teacher=TEACHER_ID,
            start="digits-naive",
            changes={"ema": 0.99} | _BAKED | changes,
            steps=(1,),
        )
        for method, changes in (
            ("vsd", {"updates": 600}),
            ("swiftbrush", {"updates": 300}),
            ("dmd", {"updates": 800}),
            ("dmd2", {"updates": 200, "lr_fake": 1e-3}),
            ("sim", {"updates": 300, "lr_fake": 1e-3}),
        )
    ),
    WeightsRecipe(
        id="digits-adversarial",
        method="adversarial",
        teacher=TEACHER_ID,
        start="digits-dmd",
        changes={"updates": 250},
        steps=(1,),
    ),
    WeightsRecipe(
        id="ring-teacher",
        method="diffusion",
        problem="mixture:ring",
        steps=(10, 20),
    ),
    WeightsRecipe(
        id="ring-flow-matching",
        method="flow-matching",
        problem="mixture:ring",
        steps=(1, 2, 4, 20),
    ),
    WeightsRecipe(
        id="ring-naive",
        method="naive",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(1,),
    ),
    WeightsRecipe(
        id="ring-progressive",
        method="progressive",
        problem="mixture:ring",
        teacher="ring-teacher",
        changes={"first": 16, "last": 4},
        steps=(4,),
    ),
    WeightsRecipe(
        id="ring-rectified-flow",
        method="rectified-flow",
        problem="mixture:ring",
        teacher="ring-flow-matching",
    ),
    WeightsRecipe(
        id="ring-rectified-flow-2",
        method="rectified-flow",
        problem="mixture:ring",
        teacher="ring-rectified-flow",
    ),
    WeightsRecipe(
        id="ring-rectified-diffusion",
        method="rectified-diffusion",
        problem="mixture:ring",
        teacher="ring-teacher",
    ),
    WeightsRecipe(
        id="ring-perflow",
        method="perflow",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(4, 8),
    ),
    WeightsRecipe(
        id="ring-rectified-diffusion-phased",
        method="rectified-diffusion-phased",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(4, 8),
    ),
    WeightsRecipe(
        id="ring-cd",
        method="cd",
        problem="mixture:ring",
        teacher="ring-teacher",
    ),
    WeightsRecipe(
        id="ring-ct",
        method="ct",
        problem="mixture:ring",
        start="ring-teacher",
    ),
    WeightsRecipe(
        id="ring-ect",
        method="ect",
        problem="mixture:ring",
        teacher="ring-teacher",
    ),
    WeightsRecipe(
        id="ring-sct",
        method="sct",
        problem="mixture:ring",
        teacher="ring-teacher",
    ),
    WeightsRecipe(
        id="ring-multistep-consistency",
        method="multistep-consistency",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(4,),
    ),
    WeightsRecipe(
        id="ring-lcm",
        method="lcm",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(1, 2, 4, 8),
    ),
    WeightsRecipe(
        id="ring-pcm-2",
        method="pcm",
        problem="mixture:ring",
        teacher="ring-teacher",
        changes={"phases": 2},
        steps=(2,),
    ),
    WeightsRecipe(
        id="ring-pcm",
        method="pcm",
        problem="mixture:ring",
        teacher="ring-teacher",
        steps=(4,),
    ),
    WeightsRecipe(
        id="ring-pcm-8",
        method="pcm",
        problem="mixture:ring",
        teacher="ring-teacher",
        changes={"phases": 8},
        steps=(8,),
    ),
    WeightsRecipe(
        id=TOKENS_ID,
        method="discrete-flow-matching",
        problem="tokens:markov",
        steps=(1, 2, 4, 8, 16, 32),
        solvers=(None, "tau-midpoint"),
    ),
    WeightsRecipe(
        id="markov-di4c",
        method="di4c",
        problem="tokens:markov",
        teacher=TOKENS_ID,
        steps=(1, 2, 4, 8),
    ),
    WeightsRecipe(
        id=DIGIT_TOKENS_ID,
        method="discrete-flow-matching",
        problem="tokens:digits",
        steps=(4, 8, 16, 32, 64),
        guidance_scale=TOKENS_GUIDANCE,
    ),
    WeightsRecipe(
        id=CLIPS_TEACHER_ID,
        method="animatelcm",
        problem="clips",
        changes={"updates": 6000, "fast_updates": 0, "fast_lr": 0.0},
        steps=(25,),
        guidance_scale=GUIDANCE,
        base=TEACHER_ID,
        taught=True,
    ),
    WeightsRecipe(
        id=CLIPS_ID,
        method="animatelcm",
        problem="clips",
        start=CLIPS_TEACHER_ID,
        changes={"updates": 400},
        steps=(1, 2, 4, 8),
        guidance_scale=GUIDANCE,
    ),
]

STYLES = {f"clips-{style}": style for style in ("outlined",)}
"""Personal image networks, by id: each is the video teacher's image network, trained further on single frames in a
style (`personal_base`)."""
STYLE_UPDATES = 400

RECIPES: dict[str, WeightsRecipe] = {recipe.id: recipe for recipe in _RECIPES}
"""The recipes by id, in an order in which they can be built: a teacher comes before its students."""


def ids() -> list[str]:
    """The ids of all that can be built, in an order in which it can: first the features that measuring needs."""
    return [FEATURES_ID, *RECIPES, *STYLES]


def listing() -> list[dict]:
    """The bundled weights, a dictionary each: id, title, bytes, seconds of training, passes_in_all, the command that
    makes them, and rows, what they measured. passes_in_all: the network passes of the training, of its pairs and of
    the students that it began with (`passes_of_update`), None for the classifier. No weights are loaded."""
    found = {id_: weights.read_about(id_) for id_ in weights.bundled()}
    known = [id_ for id_ in ids() if id_ in found]
    return [_entry(found[id_]) for id_ in [*known, *sorted(set(found) - set(known))]]


def _entry(about: Mapping) -> dict:
    return {key: about.get(key) for key in ("id", "title", "bytes", "seconds", "passes_in_all", "command", "rows")}


def build(
    chosen: Sequence[str] | None,
    work: Path,
    out: Path = weights.FOLDER,
    progress: bool = False,
    *,
    missing: bool = False,
    device: str = "cpu",
) -> Iterator[dict]:
    """Build and measure weights, in the order of `ids`. Yields each one's entry of `listing` when it is done.

    chosen: ids; None is all. work: a folder for runs and pairs, where an interrupted build continues. out: the folder
    for weights and JSON. progress: show bars. missing: leave out what is there and still follows from its recipe and
    from the weights that it was made with (`is_missing`). device: of torch, for the training. `ValueError` for an
    unknown id, or where another process builds into one of the folders.
    """
    for id_ in chosen or ():
        if id_ not in ids():
            raise unknown("bundled weights", id_, ids())
    with Lock(work), Lock(out) if out.resolve() != work.resolve() else contextlib.nullcontext():
        for id_ in ids():
            if (not chosen or id_ in chosen) and not (missing and not is_missing(id_, out)):
                if id_ == FEATURES_ID:
                    build_features(out, progress)
                elif id_ in STYLES:
                    build_style(id_, out)
                else:
                    build_one(RECIPES[id_], work, out, progress, device=device, missing=missing)
                yield _entry(weights.read_about(id_, out))


def is_missing(id_: str, out: Path = weights.FOLDER) -> bool:
    """Whether weights are not in the folder, are damaged, were made by another recipe or of other weights than those
    that are there now, or are not measured as the recipe says."""
    if id_ == FEATURES_ID:
        return not _is_whole(id_, out)
    if id_ in STYLES:
        made_of = _shas(CLIPS_TEACHER_ID, CLIPS_ID, out=out)
        return not _is_whole(id_, out) or weights.read_about(id_, out)["of"] != made_of
    recipe = RECIPES[id_]
    return not (_is_trained(recipe, out) and _is_measured(recipe, out)) or bool(_seeds_left(recipe, out))


def _is_whole(id_: str, out: Path) -> bool:
    try:
        weights.load(id_, out)
    except ValueError:
        return False
    return True


def _is_trained(recipe: WeightsRecipe, out: Path) -> bool:
    """Whether the weights are there, made as the recipe says and of those that are there now."""
    made = {
        "knobs": vars(runs.knobs(recipe.method, recipe.problem, recipe.changes)),
        "teacher": recipe.teacher,
        "start": recipe.start,
        "of": _made_of(recipe, out),
    }
    if not _is_whole(recipe.id, out):
        return False
    about = weights.read_about(recipe.id, out)
    return all(about.get(name) == value for name, value in made.items())


def _is_measured(recipe: WeightsRecipe, out: Path) -> bool:
    """Whether the rows of stored weights are those of the recipe, on as many samples."""
    rows = weights.read_about(recipe.id, out)["rows"]
    n = _samples(recipe)
    return [row["steps"] for row in rows] == list(recipe.steps) * len(recipe.solvers) and all(
        (row["n"], row["guidance_scale"]) == (n, recipe.guidance_scale) for row in rows
    )


def _seeds_left(recipe: WeightsRecipe, out: Path) -> list[int]:
    """The seeds of the trainings that are still to be measured."""
    known = {row["seed_of_training"] for row in weights.read_about(recipe.id, out)["repeats"]}
    return [seed for seed in range(recipe.seed + 1, recipe.seed + recipe.seeds) if seed not in known]


def _samples(recipe: WeightsRecipe) -> int:
    """The samples that a row is measured on."""
    return MEASURED if recipe.problem == "digits" else problem(recipe.problem).sizes.evaluated


def _made_of(recipe: WeightsRecipe, out: Path) -> dict[str, str | None]:
    """The checksums of the weights that a recipe begins with, by id; None for those that are not there."""
    of = dict.fromkeys(id_ for id_ in (recipe.teacher, recipe.start, recipe.base) if id_ is not None)
    return _shas(*of, out=out)


def build_features(out: Path, progress: bool = False) -> dict:
    """Train the classifier of digits, and store it with the features of real digits. Returns its JSON."""
    digits = DigitsProblem().digits
    began = time.perf_counter()
    with seeded(0):
        net = Classifier().train()
        for _ in fit(classifier_turn(net, digits), CLASSIFIER_UPDATES, warmup=50, progress=progress):
            pass
    seconds = time.perf_counter() - began
    _, classes = net.features_of(digits.test)
    known = Features.of(net, digits)
    about = {
        "title": "Classifier of digits, with the features of the real ones",
        "method": None,
        "problem": "digits",
        "seed": 0,
        "updates": CLASSIFIER_UPDATES,
        "seconds": seconds,
        "command": f"toydiff zoo build {FEATURES_ID}",
        "rows": [
            {
                "accuracy": float((classes == digits.test_labels).double().mean()),
                "floor": known.floor(len(digits.test)).mean,
            }
        ],
    }
    weights.save(FEATURES_ID, known.tensors(), about, out)
    return weights.read_about(FEATURES_ID, out)


def build_style(id_: str, out: Path = weights.FOLDER) -> dict:
    """Train a personal image network, store it as its change of the video teacher's, and measure the student above it
    in 4 steps, on clips in its style. Returns its JSON."""
    on, teacher = ClipsProblem(STYLES[id_]), weights.load_denoiser(CLIPS_TEACHER_ID, out)
    image = LambdaDenoiser(cast(ClipNet, teacher.net).base(), teacher.schedule, teacher.kind)
    began = time.perf_counter()
    personal = personal_base(image, on, STYLE_UPDATES)
    before, of_base = weights.network_tensors(CLIPS_TEACHER_ID, out)
    about = {
        "title": f"Personal image network of clips, {STYLES[id_]}",
        "method": None,
        "problem": on.name,
        "seed": 0,
        "updates": STYLE_UPDATES,
        "seconds": time.perf_counter() - began,
        "command": f"toydiff zoo build {id_}",
        "denoiser": weights.describe(personal),
        "base": CLIPS_TEACHER_ID,
        "base_sha256": of_base["sha256"],
        "of": _shas(CLIPS_TEACHER_ID, CLIPS_ID, out=out),
        "rows": [],
    }
    weights.save(id_, weights.change(personal.net.state_dict(), before), about, out)
    kept, student = weights.load_denoiser(id_, out), weights.read_about(CLIPS_ID, out)
    above = runs.Model(swapped(weights.load_denoiser(CLIPS_ID, out), kept.net), student)
    weights.change_about(id_, {"rows": runs.evaluate(above, on, steps=(4,), guidance_scale=GUIDANCE)}, out)
    return weights.read_about(id_, out)


def _shas(*chosen: str, out: Path) -> dict[str, str | None]:
    """The checksums of weights by id; None for those that are not there."""
    known = {id_ for id_ in chosen if (out / f"{id_}.json").exists()}
    return {id_: weights.read_about(id_, out)["sha256"] if id_ in known else None for id_ in chosen}


def build_one(
    recipe: WeightsRecipe,
    work: Path,
    out: Path,
    progress: bool = False,
    *,
    device: str = "cpu",
    missing: bool = False,
) -> None:
    """Train by one recipe, store the average, measure the weights that were stored, and train with the further seeds.

    Each of these steps is written when it is done. missing: leave out those that are done. Trainings with further
    seeds are measured as they are, and not stored.
    """

    def trained(seed: int) -> tuple[runs.Model, int]:
        return _trained(recipe, seed, work, out, progress, device)

    if not (missing and _is_trained(recipe, out)):
        model, passes = trained(recipe.seed)
        stored, of_base = _stored(recipe, model.denoiser, out)
        about = {
            "title": _title(recipe),
            **model.about,
            "command": f"toydiff zoo build {recipe.id}",
            "teacher": recipe.teacher,
            "start": recipe.start,
            "of": _made_of(recipe, out),
            "device": device,
            "passes": passes * model.about["updates"] + model.about["pair_calls"],
            **of_base,
            "rows": [],
            "repeats": [],
        }
        about["passes_in_all"] = about["passes"] + sum(_passes_before(recipe, out).values())
        weights.save(recipe.id, stored, about, out)
    if not _is_measured(recipe, out):
        kept = runs.Model(weights.load_model(recipe.id, out), weights.read_about(recipe.id, out))
        weights.change_about(recipe.id, {"rows": _rows(recipe, kept, progress)}, out)
    for seed in _seeds_left(recipe, out):
        again = [row | {"seed_of_training": seed} for row in _rows(recipe, trained(seed)[0], progress)]
        weights.change_about(recipe.id, {"repeats": weights.read_about(recipe.id, out)["repeats"] + again}, out)


def _title(recipe: WeightsRecipe) -> str:
    title = f"{runs.card(recipe.method).title} on {problem(recipe.problem).name}"
    return f"The teacher of {title}" if recipe.taught else title


def _trained(
    recipe: WeightsRecipe, seed: int, work: Path, out: Path, progress: bool, device: str
) -> tuple[runs.Model, int]:
    """The result of a training with a seed, and the network passes of one of its updates."""
    the_problem = problem(recipe.problem)
    teacher = weights.load_model(recipe.teacher, out) if recipe.teacher else None
    pairs = None
    if recipe.teacher and teacher and runs.card(recipe.method).needs == "pairs":
        pairs = save_pairs(
            the_problem,
            runs.of_vectors(teacher, "pairs are"),
            PAIR_RECIPES[recipe.teacher],
            work / PAIRS / recipe.teacher,
            teacher_name=recipe.teacher,
            progress=progress,
        )
    folder = work / recipe.id / str(seed)
    run = runs.train(
        recipe.method,
        the_problem,
        out=folder,
        seed=seed,
        changes=recipe.changes,
        teacher=teacher,
        start=weights.load_model(recipe.start, out) if recipe.start else None,
        pairs=pairs,
        resume=True,
        device=device,
        progress=progress,
    )
    passes = passes_of_update(run.training)
    curve = _followed(run, folder.with_name(f"{seed}.curve.json"))
    run.finish()
    model = runs.load(folder)
    about, D = dict(model.about), model.denoiser
    if recipe.taught:
        taught = runs.teacher_of_run(run, *recipe.steps)
        about, D = about | {name: taught.about[name] for name in ("denoiser", "sampler")}, taught.denoiser
    about |= {
        # with those before an interruption; a run that had ended before has no curve
        "seconds": max([model.about["seconds"], *(point["seconds"] for point in curve)]),
        "curve": [point | {"passes": passes * point["updates"]} for point in curve],
    }
    return runs.Model(D, about, model.data), passes


def _followed(run: runs.Run, path: Path) -> list[dict]:
    """Train, and measure the average on the way, `POINTS` times: updates, distance, accuracy and seconds since the
    start. The points are kept in a file, for a build that goes on."""
    known = {point["updates"]: point for point in (json.loads(read_bytes(path)) if path.exists() else [])}
    before = max((point["seconds"] for point in known.values()), default=0.0)
    measure = runs.evaluator(run.problem, run.about, run.training)
    every = -(-run.knobs.updates // POINTS)

    def keep(updates: int) -> None:
        found = measure(run.training.average.module)
        known[updates] = {"updates": updates, "seconds": before + run.seconds} | {
            name: found[name] for name in ("distance", "accuracy")
        }
        write_json(path, list(known.values()))

    for record in run:
        if record.step % every == 0 or record.last:
            keep(record.step)
    if run.knobs.updates not in known:  # it ended before, without its last point
        keep(run.knobs.updates)
    return sorted(known.values(), key=lambda point: point["updates"])


def _rows(recipe: WeightsRecipe, model: runs.Model, progress: bool) -> list[dict]:
    """What a model measures, with each solver and number of steps of its recipe."""
    return [
        row
        for solver in recipe.solvers
        for row in runs.evaluate(
            model,
            problem(recipe.problem),
            steps=recipe.steps,
            n=_samples(recipe),
            guidance_scale=recipe.guidance_scale,
            solver=solver,
            progress=progress,
        )
    ]


def _passes_before(recipe: WeightsRecipe, out: Path) -> dict[str, int]:
    """The network passes of the weights that a recipe begins with, and of those that these began with, by id. A model
    that was trained from nothing, as a teacher is, is not counted: all students have one."""
    found: dict[str, int] = {}
    for id_ in (recipe.teacher, recipe.start):
        if id_ is None:
            continue
        before = RECIPES[id_]
        if before.teacher is not None or before.start is not None:
            found |= {id_: weights.read_about(id_, out)["passes"]} | _passes_before(before, out)
    return found


def _stored(recipe: WeightsRecipe, D: Denoiser | Posterior, out: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors that are written for a denoiser, and what its JSON says of their base.

    A large network that started from bundled weights is stored as its change of that base, any other in half precision.
    """
    tensors = weights.storable(D).net.state_dict()
    base = recipe.base or recipe.start or recipe.teacher
    if base is None or 2 * sum(t.numel() for t in tensors.values()) < LARGE:
        return {key: value.half() for key, value in tensors.items()}, {"base": None}
    before, about = weights.network_tensors(base, out)
    return weights.change(tensors, before), {"base": base, "base_sha256": about["sha256"]}
