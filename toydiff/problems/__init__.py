# ruff: noqa: F401, I001 - the order of the imports is that of the tables
"""Problems by name: what `--problem` takes. A new problem is one file, which holds its class and its `Entry`, and
one line here."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..schedules import Schedule, schedule_from_config
from ..support.checks import check_count, unknown
from ..support.words import said
from .base import CheckpointProblem, Entry, Measured, Part, Problem, Sizes, TokenProblem
from .digits import DigitsProblem
from .content import content_of_problem
from .mixture import MixtureProblem, PointsProblem, mixture, mixture_again, points_again
from .sequences import SequenceProblem, sequence
from .clips import ClipsProblem
from .token_digits import TokenDigitsProblem
from .tokens import TokensProblem, tokens_again

from .mixture import MIXTURE_ENTRY as mixture_entry
from .mixture import POINTS_ENTRY as points_entry
from .digits import ENTRY as digits_entry
from .tokens import ENTRY as tokens_entry
from .stable_diffusion import ENTRY as stable_diffusion_entry
from .files import ENTRY as file_entry
from .sequences import ENTRY as sequence_entry
from .clips import ENTRY as clips_entry

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in list(globals().values()) if isinstance(entry, Entry)}
"""The kinds of problem by name: every entry that is imported above."""

PROBLEMS = {name: entry.title for name, entry in ENTRIES.items()}
"""How the problems of each kind are written, by the kind's name."""


def entry(name: str) -> Entry:
    """The kind of the problem with this name. `ValueError`, with the nearest kind, if there is none."""
    kind = str(name).partition(":")[0]
    if kind not in ENTRIES:
        raise unknown("problem", name, PROBLEMS)
    return ENTRIES[kind]


def scale_of(name: str) -> str:
    """The `Problem.scale` of the problem with this name, which is not opened. `ValueError` as in `entry`."""
    kind = entry(name)
    return kind.scales.get(str(name).partition(":")[2].partition(",")[0], kind.scale)


def problem(name: str, seed: int = 0, settings: Mapping[str, Any] | None = None) -> Problem:
    """The problem with this name.

    name: "mixture" (the ring), "mixture:spirals", "points:moons", "sequence:ring", "clips", "digits", "digits:openml",
    "tokens:markov", "file:PATH" (`toydiff.problems.files`) or "sd:CHECKPOINT", or the `name` of a problem. seed: of the
    mixture `random`, of the chain `tokens:markov`, and of the split of digits. A problem's `name` holds its seed,
    unless that is 0: "mixture:random,3". A seed in the name wins over `seed`. settings: of a `StableDiffusionProblem`
    only. `ValueError`, with the nearest name, for a name or a setting that there is not.
    """
    check_count(seed, "seed", 0)
    kind, which = entry(name), str(name).partition(":")[2]
    if kind.checkpoint:
        try:
            return kind.open(which, seed, **(settings or {}))
        except TypeError as error:  # a setting that there is not, or one of another type
            raise ValueError(f"the problem {said(name)} cannot be made of its settings: {said(error)}") from None
    if settings:
        raise ValueError(f"the problem {name} has no settings, got {said(', '.join(map(str, settings)))}")
    if kind.path:
        return kind.open(which, seed)
    which, _, own_seed = which.partition(",")
    if own_seed:
        seed = check_count(int(own_seed) if own_seed.isdecimal() else own_seed, "the seed in a problem's name", 0)
    return kind.open(which, seed)


DEFINED: dict[str, Callable[[str, dict[str, Tensor], Schedule | None], Problem]] = {
    "mixture": mixture_again,
    "points": points_again,
    "tokens": tokens_again,
}
"""How a problem is made again of what a run keeps of it (`Problem.definition`), by the description's `what`."""


def defined(name: str, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Problem:
    """The problem of a definition, called `name`. `ValueError` for a description or tensors that are none."""
    what = description.get("what")
    if not isinstance(what, str) or what not in DEFINED:
        raise unknown("kind of a problem of one's own", said(what), DEFINED)
    try:
        schedule = schedule_from_config(description["schedule"]) if "schedule" in description else None
        return DEFINED[what](name, dict(tensors), schedule)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the problem {said(name)!r} cannot be made again of what the run keeps: {said(error)}"
        ) from None


__all__ = [
    "DEFINED",
    "ENTRIES",
    "PROBLEMS",
    "CheckpointProblem",
    "ClipsProblem",
    "DigitsProblem",
    "Entry",
    "Measured",
    "MixtureProblem",
    "Part",
    "PointsProblem",
    "Problem",
    "SequenceProblem",
    "Sizes",
    "TokenDigitsProblem",
    "TokenProblem",
    "TokensProblem",
    "content_of_problem",
    "defined",
    "entry",
    "mixture",
    "problem",
    "scale_of",
    "sequence",
]
