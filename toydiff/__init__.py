"""toydiff: how to get a good sample from a diffusion model in fewer, or in parallel, network calls.

x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 data and t = 1 noise, everywhere. See the README and `tutorials/`.
"""

from . import mixtures
from .denoisers import Conditioned, Counted, Denoiser, Guided, NetDenoiser, Rescheduled
from .grids import GRIDS, time_grid
from .mixtures import MIXTURES, Empirical, GaussianMixture, mixture
from .prediction import KINDS, Prediction, chord, jump
from .schedules import SCHEDULES, VE, VP, Cosine, Linear, Schedule, Tabulated, schedule
from .solvers import PARALLEL, SOLVERS, ParallelSolver, Solver, Trajectory, reference, solve

__version__ = "0.1.0"

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
