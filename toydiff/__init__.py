"""toydiff: how to get a good sample from a diffusion model in fewer, or in parallel, network calls.

x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 data and t = 1 noise, everywhere. See the README and `tutorials/`.

The names below, and the subpackages, are imported when they are first used: torch takes seconds to import, and a page
of help or a wrong word should not wait for it.
"""

TYPE_CHECKING = False  # as `typing` has it, which takes a while to import
if TYPE_CHECKING:
    from . import mixtures
    from .denoisers import (
        Conditioned,
        Counted,
        Denoiser,
        GuidanceInterval,
        GuidanceRescale,
        Guided,
        NetDenoiser,
        Rescheduled,
    )
    from .grids import GRIDS, time_grid
    from .mixtures import MIXTURES, Empirical, GaussianMixture, mixture
    from .prediction import KINDS, Prediction, chord, jump
    from .schedules import SCHEDULES, VE, VP, Cosine, Linear, Schedule, Tabulated, schedule
    from .solvers import PARALLEL, SOLVERS, ParallelSolver, Solver, Trajectory, solve
    from .solvers.reference import reference

__version__ = "0.1.0"

_NAMES = {
    "denoisers": (
        "Conditioned",
        "Counted",
        "Denoiser",
        "GuidanceInterval",
        "GuidanceRescale",
        "Guided",
        "NetDenoiser",
        "Rescheduled",
    ),
    "grids": ("GRIDS", "time_grid"),
    "mixtures": ("MIXTURES", "Empirical", "GaussianMixture", "mixture"),
    "prediction": ("KINDS", "Prediction", "chord", "jump"),
    "schedules": ("SCHEDULES", "VE", "VP", "Cosine", "Linear", "Schedule", "Tabulated", "schedule"),
    "solvers": ("PARALLEL", "SOLVERS", "ParallelSolver", "Solver", "Trajectory", "solve"),
    "solvers.reference": ("reference",),
}
"""The names of each module that stand here: the imports above, as `__getattr__` reads them."""

__all__ = [
    "GRIDS",
    "KINDS",
    "MIXTURES",
    "PARALLEL",
    "SCHEDULES",
    "SOLVERS",
    "VE",
    "VP",
    "Conditioned",
    "Cosine",
    "Counted",
    "Denoiser",
    "Empirical",
    "GaussianMixture",
    "GuidanceInterval",
    "GuidanceRescale",
    "Guided",
    "Linear",
    "NetDenoiser",
    "ParallelSolver",
    "Prediction",
    "Rescheduled",
    "Schedule",
    "Solver",
    "Tabulated",
    "Trajectory",
    "chord",
    "jump",
    "mixture",
    "mixtures",
    "reference",
    "schedule",
    "solve",
    "time_grid",
]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name for one of ours

    def __getattr__(name: str) -> object:
        """A name of `__all__`, or a module or package inside this one, imported now."""
        from importlib import import_module
        from importlib.util import find_spec

        for module, names in _NAMES.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f".{module}", __name__), name)
                return found
        if name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=__import__(__name__))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
