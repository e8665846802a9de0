# ruff: noqa: F401, I001 - the order of the imports is that of the tables
"""Problems by name: what `--problem` takes. A new problem is one file, which holds its class and its `Entry`, and
one line here."""

from collections.abc import Mapping

from ..support.checks import check_count, unknown
from .base import CheckpointProblem, Entry, Measured, Problem, Sizes
from .digits import DigitsProblem
from .mixture import MixtureProblem, PointsProblem, mixture

from .mixture import MIXTURE_ENTRY as mixture_entry
from .mixture import POINTS_ENTRY as points_entry
from .digits import ENTRY as digits_entry
from .stable_diffusion import ENTRY as stable_diffusion_entry

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in list(globals().values()) if isinstance(entry, Entry)}
"""The kinds of problem by name: every entry that is imported above."""

PROBLEMS = {name: entry.title for name, entry in ENTRIES.items()}
"""The kinds of problem by name, each with how it is written."""


def entry(name: str) -> Entry:
    """The kind of a problem by the problem's name; `ValueError` with the nearest one otherwise."""
    kind = str(name).partition(":")[0]
    if kind not in ENTRIES:
        raise unknown("problem", name, PROBLEMS)
    return ENTRIES[kind]


def problem(name: str, seed: int = 0, settings: Mapping[str, object] | None = None) -> Problem:
    """A problem by name: "mixture" (the ring), "mixture:spirals", "points:moons", "digits", "digits:openml",
    "sd:CHECKPOINT".

    `seed` matters to the mixture `random` and to the split of digits; a problem's own name has it after a comma unless
    it is 0, as in "mixture:random,3", and gives the problem back. `settings`: those of `StableDiffusionProblem`, which
    the others do not have. `ValueError` with the nearest name otherwise.
    """
    check_count(seed, "seed", 0)
    kind, which = entry(name), str(name).partition(":")[2]
    if kind.checkpoint:
        return kind.open(which, seed, **(settings or {}))
    if settings:
        raise ValueError(f"the problem {name} has no settings, got {', '.join(settings)}")
    which, _, own_seed = which.partition(",")
    if own_seed:
        seed = check_count(int(own_seed) if own_seed.isdecimal() else own_seed, "the seed in a problem's name", 0)
    return kind.open(which, seed)


__all__ = [
    "ENTRIES",
    "PROBLEMS",
    "CheckpointProblem",
    "DigitsProblem",
    "Entry",
    "Measured",
    "MixtureProblem",
    "PointsProblem",
    "Problem",
    "Sizes",
    "entry",
    "mixture",
    "problem",
]
