"""Models by name (a run's folder or bundled weights), a method's card and knobs, and the problem that a model was
trained on."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import weights
from ..catalog import METHODS, TOKEN_METHODS, Card
from ..denoisers import Denoiser
from ..discrete import Posterior
from ..distill.base import Knobs
from ..problems import CheckpointProblem, Problem, content_of_problem, defined, problem, scale_of
from ..problems.base import TOKEN_SCALES
from ..support.checks import check_count, check_positive, unknown
from ..support.files import inside, read_bytes
from ..support.forms import check_form, count, number, place, word
from ..support.sealed import contradicts
from ..support.words import said
from ..training.checkpoints import CONTENT, INDEX, check_weights, read_run, read_tensors
from ..weights.networks import NETS, make_net

ABOUT = {
    "method": word,
    "problem": place,
    "seed": count(0, 2**63),
    "denoiser": {"net": word, "config": {}, "schedule": {}, "kind": word},
    "sampler": {"solver": word, "grid": word, "steps": [count(1, 100_000)]},
    "pair_calls": count(),
    "calls_per_update": count(),
}
"""The form of what the file of a run says at least of how it was made."""

KEPT = "problem"
"""The name of the module of a run that holds `Model.data`."""
PROBLEM = "a problem"
"""The key of the problem's digest in what identifies a run by content."""
USERS = ("cache", "model")
"""Settings of a checkpoint that no run has: a folder to write into is the user's to name."""


def card(method: str) -> Card:
    """The card of the method with this name. `ValueError`, with the nearest name, if there is none."""
    everyone = METHODS | TOKEN_METHODS
    if method not in everyone:
        raise unknown("method", method, everyone)
    return everyone[method]


def knobs(method: str, on: Problem | str, changes: Mapping[str, object] | None = None) -> Knobs:
    """The knobs of a method on a problem: its recipe for the problem's scale, with changes.

    on: a problem, or its name. changes: values by the name of a knob; a value may be text, as on a command line.
    `ValueError` for a knob that the method does not have, a value of another type, or a value out of range, and for a
    method of vectors on a problem of tokens, or the reverse.
    """
    chosen = card(method)
    name, scale = (on.name, on.scale) if isinstance(on, Problem) else (on, scale_of(on))
    if not chosen.fits(scale):
        if chosen.tokens != (scale in TOKEN_SCALES):
            states, others = ("tokens", METHODS) if chosen.tokens else ("vectors", TOKEN_METHODS)
            raise ValueError(
                f"{method} trains models of {states}, and {said(name)} is no problem of {states}; methods that fit it: "
                f"{', '.join(others)}"
            )
        for_example = "tokens:markov" if chosen.tokens else "sequence:ring"
        raise ValueError(f"{method} is for {chosen.only}, such as {for_example}, and not for {said(name)}")
    settings: dict[str, Any] = dict(chosen.recipe(scale))
    fields = {f.name: f for f in dataclasses.fields(chosen.knobs)}
    for name, value in (changes or {}).items():
        if name not in fields:
            raise unknown(f"knob of {method}", name, fields)
        settings[name] = _typed(value, fields[name].type, f"the knob {name} of {method}")
    made = chosen.knobs(**settings)
    for name in fields:
        _check_size(name, getattr(made, name), method)
    check_count(made.updates, "updates")
    check_count(made.batch, "batch")
    check_count(made.warmup, "warmup", 0)
    check_count(made.cycles, "cycles")
    check_positive(made.lr, "lr")
    check_positive(made.clip, "clip")
    return made


LONGEST = {"updates": 10**8, "warmup": 10**8, "cycles": 10**8, "batch": 10**6}
MOST_COUNT, MOST_NUMBER = 10**5, 1e6
"""The largest whole number, and the largest size of another number, that a knob may be, but for those above and for
`clip`, which may be as large as no clipping. What is beyond them overflows in training, or never ends."""


def _check_size(name: str, value: object, method: str) -> None:
    """`ValueError` for a knob that is known to lead nowhere, before anything is trained."""
    if isinstance(value, int | float) and name != "clip":
        most = LONGEST.get(name, MOST_COUNT) if isinstance(value, int) else MOST_NUMBER
        if abs(value) > most:
            raise ValueError(f"the knob {name} of {method} must lie within {most:g}, got {said(value, 40)}")


def _typed(value: object, kind: Any, what: str) -> object:
    """A value as `kind`, int, float or str; `what` is its name in an error."""
    try:
        made = kind(value) if isinstance(value, str) or kind is float else value
    except (OverflowError, TypeError, ValueError):
        made = None
    if not isinstance(made, kind) or isinstance(value, bool) or (kind is float and not math.isfinite(made)):
        names = {int: "a whole number", float: "a finite number", str: "a word"}
        raise ValueError(f"{what} is {names[kind]}, got {said(repr(value))}")
    return made


@dataclass(frozen=True)
class Model:
    """A trained model."""

    denoiser: Denoiser | Posterior
    """What is sampled."""
    about: Mapping[str, Any]
    """How the model was made, as JSON. Its keys are method, problem, seed, updates, teacher_calls and sampler among
    others."""
    data: Mapping[str, Tensor] = field(default_factory=dict)
    """What the run keeps of a problem of one's own (`Problem.definition`)."""


def load(source: str | Path, *, unsafe: bool = False) -> Model:
    """The trained model of a run's folder, or of bundled weights.

    source: the folder, or the id of the weights. The model has the averaged weights (`training.EMA`), frozen. A run
    that is not finished gives the weights that were saved last. A run with a watch (`training.Watch`) measures its
    average on the way, and gives the weights with the smallest distance; `about["best"]` is their update. unsafe: for a
    run on a checkpoint of Stable Diffusion, also read pickled weights of it, which can run code. What the run itself
    says of that does not count.

    A run may be a stranger's: nothing is read or written by a path that it names, but for the checkpoint and the data
    of a run on Stable Diffusion. `ValueError` in one line for a folder without a run, for damaged files, and for an
    unknown id.
    """
    folder = Path(source)
    if os.path.exists(folder / INDEX):
        return _of_run(folder, unsafe)
    if str(source) in weights.bundled():
        return Model(weights.load_model(str(source)), weights.read_about(str(source)))
    if folder.is_dir():
        raise ValueError(f"the folder {str(folder)!r} holds no run of toydiff: it has no {INDEX}")
    raise unknown("run or bundled weights", str(source), weights.bundled())


def _of_run(folder: Path, unsafe: bool) -> Model:
    """The model of a run's folder."""
    index = read_run(folder)
    what = f"the run in {str(folder)!r}"
    about = index["about"]
    check_form(about, ABOUT, what)
    if "guidance_scale" in about["sampler"]:
        check_form(about["sampler"]["guidance_scale"], number, what, "sampler.guidance_scale")
    if not about["sampler"]["steps"]:
        raise ValueError(f"{what} is damaged: it names no number of steps to sample with")
    about = _trusted(about, unsafe, what)
    tensors = read_tensors(inside(folder, index["file"]), index["sha256"])
    watched = bool(about.get("watch"))
    prefix = "module.watch.best.net." if watched else "module.average.module.net."
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    check_weights(own, what)
    done = {
        "updates": index["step"],
        "teacher_calls": about["pair_calls"] + index["step"] * about["calls_per_update"],
    }
    try:
        if watched:
            done["best"] = int(tensors["module.watch.step"])
        D = weights.build(_sized(about["denoiser"], own), own)
    except (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, RuntimeError, TypeError) as error:
        raise ValueError(f"{what} cannot be loaded: {said(error) or type(error).__name__}") from None
    prefix = f"module.{KEPT}."
    data = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return Model(D, about | done | {"seconds": index["seconds"]}, data)


def _trusted(about: dict, unsafe: bool, what: str) -> dict:
    """What a run says of itself, without what only a user may say: whether pickled weights are read, and where files
    are written."""
    settings, config = about.get("settings"), about["denoiser"]["config"]
    if settings is not None:
        if not isinstance(settings, dict):
            raise ValueError(f"{what} is damaged: settings is no object")
        for name in USERS:
            if name in settings:
                raise ValueError(f"{what} has the setting {name!r}, which is the user's to give")
        about = about | {"settings": settings | {"unsafe": unsafe}}
    if isinstance(config.get("checkpoint"), dict):
        config = config | {"checkpoint": config["checkpoint"] | {"unsafe": unsafe}}
        about = about | {"denoiser": about["denoiser"] | {"config": config}}
    return about


def _sized(description: dict, own: Mapping[str, Tensor]) -> dict:
    """The description as it is, once the network that it describes is known to have the sizes of these weights, so that
    making it takes no more memory than they do."""
    if description["net"] in NETS:
        most = max([len(own), *(size for tensor in own.values() for size in tensor.shape)], default=0)
        sizes = [size for value in description["config"].values() for size in _sizes(value)]
        if max(sizes, default=0) > most:
            raise ValueError(
                f"the weights do not fit their description: a size of {max(sizes):,}, and {most:,} in them"
            )
        with torch.device("meta"):
            shapes = {
                name: value.shape
                for name, value in make_net(description["net"], description["config"]).state_dict().items()
            }
        if shapes != {name: value.shape for name, value in own.items()}:
            wrong = sorted(
                {*shapes, *own}, key=lambda name: name in shapes and name in own and shapes[name] == own[name].shape
            )
            raise ValueError(f"the weights do not fit their description, at {said(wrong[0])}")
    return description


def _sizes(value: object) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [size for size in values if isinstance(size, int) and not isinstance(size, bool)]


def problem_of(model: Model, *, with_data: bool = True) -> Problem:
    """The problem that a model was trained on.

    with_data: with its data and prompts. Sampling does not need them, and they may be gone.
    """
    definition = model.about.get("definition")
    if definition is not None:
        check_form(definition, {}, "what the run keeps of its problem")
        return defined(model.about["problem"], definition, model.data)
    settings = model.about.get("settings")
    if settings and not with_data:
        settings = settings | {"data": None, "prompts": []}
    prompts = (settings or {}).get("prompts")
    if isinstance(prompts, str):
        with contextlib.suppress(FileNotFoundError):  # the problem says so itself
            read_bytes(prompts)  # a pipe or a device is refused
    return problem(model.about["problem"], settings=settings)


def of_vectors(D: Denoiser | Posterior, what: str) -> Denoiser:
    """The model as it is; `ValueError` for one of tokens. what: "pairs are", for an error."""
    if isinstance(D, Posterior):
        raise ValueError(f"{what} of a model of vectors, and this one is of tokens")
    return D


def teacher_of(the_problem: Problem, name: str | None, role: str = "teacher") -> tuple[str, Denoiser | Posterior]:
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
    settings = the_problem.settings() if isinstance(the_problem, CheckpointProblem) else {}
    found = load(name, unsafe=bool(settings.get("unsafe")))
    content = found.about.get(CONTENT)
    of = content.get(PROBLEM) if isinstance(content, dict) else None
    same_problem(f"the {role} {name!r} is", found.about["problem"], of, the_problem)
    return name, found.denoiser


def same_problem(what: str, name: str, content: object, the_problem: Problem) -> None:
    """`ValueError` unless what is of the problem of this name and content is of this problem: by its content where both
    have one, and by its name otherwise. what: "the pairs are", for an error."""
    own = content_of_problem(the_problem)
    if isinstance(content, str) and own is not None:
        if contradicts(content, own):
            raise ValueError(f"{what} of another problem than {the_problem.name!r}: the data differ")
    elif name != the_problem.name:
        raise ValueError(f"{what} of the problem {said(name)}, not {said(the_problem.name)}")
