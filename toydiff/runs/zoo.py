"""The bundled weights: what there is, and how each is made again from scratch.

`toydiff zoo build` runs the recipes below, measures what was stored, and writes weights and JSON. A better teacher
later costs only compute.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from .. import runs, weights
from ..denoisers import LambdaDenoiser
from ..problems import DigitsProblem, problem
from ..problems.classifier import Classifier
from ..problems.digits import FEATURES_ID, TEACHER_ID, Features, classifier_turn
from ..problems.pairs import Recipe as PairRecipe
from ..problems.pairs import save_pairs
from ..support.checks import unknown
from ..support.seeds import seeded
from ..training import fit

GUIDANCE = 1.5
"""The guidance scale of the digits' teacher wherever one is built into a student or measured. More makes the digits
more certain and less alike real ones: at 1.5, 1.6 and 1.75 `toydiff evaluate digits-teacher --steps 25
--guidance-scale G` (seed 0) reads 3.5, 3.9 and 4.8 floors, and an accuracy of 0.962, 0.973 and 0.978."""

GUIDED_ID = "digits-guided"
"""The guided student teaches where a method calls its teacher in every update: it has the guidance in one call."""

PAIRS = "pairs"
"""The folder of pairs, inside the working folder, that all students of one teacher share."""

CLASSIFIER_UPDATES = 1200

LARGE = 100_000
"""Bytes of half precision from which on a student's weights are stored as a change."""


@dataclass(frozen=True)
class WeightsRecipe:
    """How one set of weights is made: the method, what it starts from, its knobs, and where it is measured.

    teacher: the id of the weights that teach; where the method needs pairs, they are this teacher's. start: those to
    start with, where not the teacher's. guidance_scale, solvers: at measuring; None is the method's own solver.
    """

    id: str
    method: str
    problem: str = "digits"
    teacher: str | None = None
    start: str | None = None
    changes: Mapping[str, object] = field(default_factory=dict)
    steps: tuple[int, ...] = (1, 2, 4)
    guidance_scale: float = 1.0
    solvers: tuple[str | None, ...] = (None,)
    seed: int = 0


_EULER = {"solver": "ddim", "grid": "uniform"}  # on the linear schedule DDIM is Euler

PAIR_RECIPES = {
    TEACHER_ID: PairRecipe(n=8_000, steps=16, guidance_scale=GUIDANCE),
    "digits-rectified-flow": PairRecipe(n=6_000, steps=8, seed=1, **_EULER),
    "ring-teacher": PairRecipe(n=50_000),
    "ring-flow-matching": PairRecipe(n=50_000, steps=100, **_EULER),
    "ring-rectified-flow": PairRecipe(n=50_000, steps=50, seed=1, **_EULER),
}
"""How the pairs of each teacher are made, by its id; all its students share them."""

_BAKED = {"guidance_scale": GUIDANCE}  # built into the student, which then costs one call a step

_LONG = {"updates": 6000, "edge": 0.5}
"""Half of each batch at t = 1: one step needs it, and few updates do not get there without."""

_RECIPES = [
    WeightsRecipe(TEACHER_ID, "diffusion", steps=(10, 25), guidance_scale=GUIDANCE, solvers=(None, "sde-dpm++2m")),
    WeightsRecipe("digits-flow-matching", "flow-matching", start=TEACHER_ID, changes={"updates": 1500, "lr": 1e-3, "batch": 64, "cycles": 1}, steps=(10, 25), guidance_scale=GUIDANCE),
    WeightsRecipe("digits-naive", "naive", teacher=TEACHER_ID, steps=(1,)),
    WeightsRecipe(GUIDED_ID, "guided", teacher=TEACHER_ID, steps=(10, 25), guidance_scale=GUIDANCE),
    WeightsRecipe("digits-progressive", "progressive", teacher=GUIDED_ID, changes={"first": 16, "last": 4, "updates": 600} | _BAKED, steps=(4,)),
    WeightsRecipe("digits-rectified-flow", "rectified-flow", teacher=TEACHER_ID, changes=_LONG),
    WeightsRecipe("digits-instaflow", "instaflow", teacher="digits-rectified-flow", changes={"updates": 500}),
    WeightsRecipe("digits-rectified-diffusion", "rectified-diffusion", teacher=TEACHER_ID, changes=_LONG),
    WeightsRecipe("digits-perflow", "perflow", teacher=GUIDED_ID, changes=_BAKED, steps=(4, 8)),
    WeightsRecipe("digits-rectified-diffusion-phased", "rectified-diffusion-phased", teacher=GUIDED_ID, changes=_BAKED, steps=(4, 8)),
    WeightsRecipe("digits-cd", "cd", teacher=TEACHER_ID, start="digits-rectified-diffusion", changes=_BAKED),
    WeightsRecipe("digits-ct", "ct", start=TEACHER_ID),
    WeightsRecipe("digits-ect", "ect", teacher=TEACHER_ID),
    WeightsRecipe("digits-sct", "sct", teacher=TEACHER_ID),
    WeightsRecipe("digits-multistep-consistency", "multistep-consistency", teacher=TEACHER_ID, changes=_BAKED, steps=(4,)),
    WeightsRecipe("digits-lcm", "lcm", teacher=TEACHER_ID, changes={"g_min": 1.0, "g_max": 3.0}, guidance_scale=GUIDANCE),
    WeightsRecipe("digits-pcm", "pcm", teacher=TEACHER_ID, start="digits-rectified-diffusion-phased", changes={"g_min": GUIDANCE, "g_max": GUIDANCE}, steps=(4,)),
    *(WeightsRecipe(f"digits-{method}", method, teacher=TEACHER_ID, start="digits-rectified-flow", changes=_BAKED, steps=(1,)) for method in ("vsd", "swiftbrush", "dmd", "dmd2", "sim")),
    WeightsRecipe("digits-adversarial", "adversarial", teacher=TEACHER_ID, start="digits-cd", steps=(1,)),
    WeightsRecipe("ring-teacher", "diffusion", "mixture:ring", steps=(10, 20)),
    WeightsRecipe("ring-flow-matching", "flow-matching", "mixture:ring", steps=(1, 2, 4, 20)),
    WeightsRecipe("ring-naive", "naive", "mixture:ring", "ring-teacher", steps=(1,)),
    WeightsRecipe("ring-progressive", "progressive", "mixture:ring", "ring-teacher", changes={"first": 16, "last": 4}, steps=(4,)),
    WeightsRecipe("ring-rectified-flow", "rectified-flow", "mixture:ring", "ring-flow-matching"),
    WeightsRecipe("ring-rectified-flow-2", "rectified-flow", "mixture:ring", "ring-rectified-flow"),
    WeightsRecipe("ring-rectified-diffusion", "rectified-diffusion", "mixture:ring", "ring-teacher"),
    WeightsRecipe("ring-perflow", "perflow", "mixture:ring", "ring-teacher", steps=(4, 8)),
    WeightsRecipe("ring-rectified-diffusion-phased", "rectified-diffusion-phased", "mixture:ring", "ring-teacher", steps=(4, 8)),
    WeightsRecipe("ring-cd", "cd", "mixture:ring", "ring-teacher"),
    WeightsRecipe("ring-ct", "ct", "mixture:ring", start="ring-teacher"),
    WeightsRecipe("ring-ect", "ect", "mixture:ring", "ring-teacher"),
    WeightsRecipe("ring-sct", "sct", "mixture:ring", "ring-teacher"),
    WeightsRecipe("ring-multistep-consistency", "multistep-consistency", "mixture:ring", "ring-teacher", steps=(4,)),
    WeightsRecipe("ring-lcm", "lcm", "mixture:ring", "ring-teacher", steps=(1, 2, 4, 8)),
    WeightsRecipe("ring-pcm-2", "pcm", "mixture:ring", "ring-teacher", changes={"phases": 2}, steps=(2,)),
    WeightsRecipe("ring-pcm", "pcm", "mixture:ring", "ring-teacher", steps=(4,)),
    WeightsRecipe("ring-pcm-8", "pcm", "mixture:ring", "ring-teacher", changes={"phases": 8}, steps=(8,)),
]  # fmt: skip

RECIPES: dict[str, WeightsRecipe] = {recipe.id: recipe for recipe in _RECIPES}
"""The recipes by id, in the order in which they can be built: a teacher before its students."""


def ids() -> list[str]:
    """Everything that can be built, in order: the features to measure with first."""
    return [FEATURES_ID, *RECIPES]


def listing() -> list[dict]:
    """What is bundled, each with id, title, bytes, seconds (of training), command and rows (measured); nothing is
    loaded."""
    found = {id_: weights.read_about(id_) for id_ in weights.bundled()}
    known = [id_ for id_ in ids() if id_ in found]
    return [_entry(found[id_]) for id_ in [*known, *sorted(set(found) - set(known))]]


def _entry(about: Mapping) -> dict:
    return {key: about[key] for key in ("id", "title", "bytes", "seconds", "command", "rows")}


def build(
    chosen: Sequence[str] | None, work: Path, out: Path = weights.FOLDER, progress: bool = False
) -> Iterator[dict]:
    """Build and measure the weights named, or all, in the order of `ids`; yields each one's entry of `listing` when it
    is done.

    Runs and pairs lie in `work`; an interrupted build continues there. `ValueError` for an unknown id.
    """
    for id_ in chosen or ():
        if id_ not in ids():
            raise unknown("bundled weights", id_, ids())
    for id_ in ids():
        if not chosen or id_ in chosen:
            about = (
                build_features(out, progress) if id_ == FEATURES_ID else build_one(RECIPES[id_], work, out, progress)
            )
            yield _entry(about)


def build_features(out: Path, progress: bool = False) -> dict:
    """The classifier of digits, and the features of real digits that samples are compared with."""
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
        "title": "Classifier of digits, with the features of the real ones", "method": None, "problem": "digits", "seed": 0, "updates": CLASSIFIER_UPDATES,
        "seconds": seconds, "command": f"toydiff zoo build {FEATURES_ID}",
        "rows": [{"accuracy": float((classes == digits.test_labels).double().mean()), "floor": known.floor(len(digits.test)).mean}],
    }  # fmt: skip
    weights.save(FEATURES_ID, known.tensors(), about, out)
    return weights.read_about(FEATURES_ID, out)


def build_one(recipe: WeightsRecipe, work: Path, out: Path, progress: bool = False) -> dict:
    """Train one recipe, store its average (`_stored`), and measure what was stored."""
    the_problem = problem(recipe.problem)
    teacher, pairs = None, None
    start = weights.load_denoiser(recipe.start, out) if recipe.start else None
    if recipe.teacher:
        teacher = weights.load_denoiser(recipe.teacher, out)
        if runs.card(recipe.method).needs == "pairs":
            pairs = save_pairs(
                the_problem, teacher, PAIR_RECIPES[recipe.teacher], work / PAIRS / recipe.teacher, teacher_name=recipe.teacher, progress=progress
            )  # fmt: skip
    run = runs.train(
        recipe.method, the_problem, out=work / recipe.id, seed=recipe.seed, changes=recipe.changes, teacher=teacher, start=start, pairs=pairs,
        resume=True, progress=progress,
    )  # fmt: skip
    run.finish()
    trained = runs.load(work / recipe.id)
    stored, whole, of_base = _stored(recipe, trained.denoiser, out)
    about = {
        "title": f"{runs.card(recipe.method).title} on {the_problem.name}", **trained.about, "command": f"toydiff zoo build {recipe.id}",
        "teacher": recipe.teacher, "start": recipe.start, **of_base,
    }  # fmt: skip
    model = runs.Model(weights.build(about["denoiser"], whole), about)
    about["rows"] = [
        row
        for solver in recipe.solvers
        for row in runs.evaluate(
            model,
            the_problem,
            steps=recipe.steps,
            guidance_scale=recipe.guidance_scale,
            solver=solver,
            progress=progress,
        )
    ]
    weights.save(recipe.id, stored, about, out)
    return weights.read_about(recipe.id, out)


def _stored(recipe: WeightsRecipe, D: LambdaDenoiser, out: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict]:
    """What is written of a denoiser's weights, the weights that come back from it, and what its JSON says of the
    weights that it is a change of.

    Half precision, or, of a large network that started from bundled weights, its change of them.
    """
    tensors = D.net.state_dict()
    base = recipe.start or recipe.teacher
    if base is None or 2 * sum(t.numel() for t in tensors.values()) < LARGE:
        half = {key: value.half() for key, value in tensors.items()}
        return half, half, {"base": None}
    before, about = weights.network_tensors(base, out)
    stored = weights.change(tensors, before)
    return stored, weights.changed(stored, before), {"base": base, "base_sha256": about["sha256"]}
