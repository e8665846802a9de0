# ruff: noqa: F401, I001 - the order of the imports is that of the tables
"""Problems by name: what `--problem` takes. A new problem is one file, which holds its class and its `Entry`, and
one line here."""

from collections.abc import Mapping
from typing import Any

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
"""How the problems of each kind are written, by the kind's name."""


def entry(name: str) -> Entry:
    """The kind of the problem with this name. `ValueError`, with the nearest kind, if there is none."""
    kind = str(name).partition(":")[0]
    if kind not in ENTRIES:
        raise unknown("problem", name, PROBLEMS)
    return ENTRIES[kind]


def problem(name: str, seed: int = 0, settings: Mapping[str, Any] | None = None) -> Problem:
    """The problem with this name.

    name: "mixture" (the ring), "mixture:spirals", "points:moons", "digits", "digits:openml" or "sd:CHECKPOINT", or the
    `name` of a problem. seed: of the mixture `random`, and of the split of digits. A problem's `name` holds its seed,
    unless that is 0: "mixture:random,3". A seed in the name wins over `seed`. settings: of a `StableDiffusionProblem`
    only. `ValueError`, with the nearest name, for a name or a setting that there is not.
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
