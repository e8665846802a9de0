# ruff: noqa: F401, I001
"""The solvers by name: what the command, the app and `solve` offer.

A solver's file ends with its `Entry`, in a list whose name ends in _ENTRIES; a line below offers it everywhere.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..support.checks import unknown
from .base import Solver
from .learned import bundled, file_of, read_solver
from .entry import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, Entry
from .parallel import ParallelSolver

# the tables are made from these imports, in this order: a solver is its file and its line here
from .euler import EULER_ENTRIES
from .ddim import DDIM_ENTRIES
from .heun import HEUN_ENTRIES
from .dpm import DPM_ENTRIES
from .unipc import UNIPC_ENTRIES
from .deis import DEIS_ENTRIES
from .plms import PLMS_ENTRIES
from .adams import ADAMS_ENTRIES
from .guarded import GUARDED_ENTRIES
from .ddpm import DDPM_ENTRIES
from .euler import EULER_MARUYAMA_ENTRIES
from .dpm import SDE_DPM_ENTRIES
from .lcm import LCM_ENTRIES
from .tcd import TCD_ENTRIES
from .parallel.picard import PICARD_ENTRIES
from .parallel.anderson import ANDERSON_ENTRIES
from .parallel.parareal import PARAREAL_ENTRIES

_ALL = [entry for name, entries in list(globals().items()) if name.endswith("_ENTRIES") for entry in entries]

SOLVERS: dict[str, Entry[Solver]] = {entry.name: entry for entry in _ALL if isinstance(entry.solver, Solver)}
"""The solvers by name, in the order in which tables and figures list them."""

PARALLEL: dict[str, Entry[ParallelSolver]] = {
    entry.name: entry for entry in _ALL if isinstance(entry.solver, ParallelSolver)
}
"""The parallel samplers by name. They compute the path of a one-step solver in fewer rounds: that of ddim, unless their
settings name another."""

DEFAULT_SOLVER = "guarded"

LEARNED = "learned"
"""The word before a learned solver: "learned:FILE.json", or "learned:NAME" for one of the library's own."""


def is_learned(name: str) -> bool:
    """Whether a name is that of a learned solver, which has its own times."""
    return name.partition(":")[0] == LEARNED


def solver_by_name(name: str) -> Solver | ParallelSolver:
    """A solver from its name, settings after a colon: "ddim:eta=0.5", "heun:gamma=0.2,s_noise=1.003",
    "picard:window=20,tolerance=none,solver=ddpm"; or one that was learned for a model, "learned:FILE.json".

    `ValueError` names the nearest solver, or the settings that the solver has.
    """
    word, _, settings = str(name).partition(":")
    everyone: dict[str, Entry] = SOLVERS | PARALLEL
    if is_learned(word):
        if not settings:
            raise ValueError(
                f"a learned solver is named with its file, learned:FILE.json, or is one of the library's: "
                f"{', '.join(f'{LEARNED}:{own}' for own in bundled())}"
            )
        return read_solver(file_of(settings), _unlearned)
    if word not in everyone:
        raise unknown("solver", word, everyone)
    solver: Solver | ParallelSolver = everyone[word].solver
    fields: Sequence[dataclasses.Field] = ()  # what is no dataclass has no settings
    if dataclasses.is_dataclass(solver):
        fields = dataclasses.fields(solver)
    readers = {f.name: reader for f in fields if (reader := _reader(solver, f))}
    changes: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in readers:
            raise unknown(f"setting of {word}", key, readers)
        changes[key] = readers[key](value, f"the setting {key} of {word}")
    return dataclasses.replace(solver, **changes) if changes and dataclasses.is_dataclass(solver) else solver


def _reader(solver: Solver | ParallelSolver, f: dataclasses.Field) -> Callable[[str, str], object] | None:
    """How a setting is read from text; None for a field that cannot be set. A sequential solver's whole numbers cannot:
    they are in its name."""
    if isinstance(getattr(solver, f.name), Solver):
        return lambda text, _: _unlearned(text)
    kind = str(f.type)
    if "float" in kind:
        return lambda text, what: _number(text, what, float, "None" in kind)
    if "int" in kind and isinstance(solver, ParallelSolver):
        return lambda text, what: _number(text, what, int, "None" in kind)
    return None


def _unlearned(name: str) -> Solver | ParallelSolver:
    """A solver by name. `ValueError` for a learned one, whose times belong to a walk of its own."""
    if is_learned(name):
        raise ValueError(f"a learned solver cannot be a part of another one, got {name!r}")
    return solver_by_name(name)


def _number(text: str, what: str, kind: type, or_none: bool) -> float | None:
    if or_none and text == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        name = "a number" if kind is float else "a whole number"
        raise ValueError(f"{what} is {name}{' or none' if or_none else ''}, got {text!r}") from None
