"""Solvers: from noise to data in N steps. `solve` runs any of them; `reference` is the truth to compare with."""

from .adams import AdamsBashforth
from .base import Solver
from .ddim import DDIM
from .ddpm import DDPM
from .deis import DEIS
from .dpm import DATA, NOISE, Multistep2, Multistep3, Multistep3Published, SDEMultistep2, Singlestep2, Singlestep3
from .driver import solve
from .euler import Euler, EulerMaruyama
from .guarded import Guarded
from .heun import Heun
from .parallel import ParallelSolver
from .parallel.anderson import Anderson, Broyden
from .parallel.parareal import Parareal, parareal_rounds
from .parallel.picard import Picard
from .plms import PLMS
from .reference import reference
from .registry import DEFAULT_SOLVER, PARALLEL, SOLVERS, Entry, solver_by_name
from .tcd import TCD
from .trajectory import Trajectory
from .unipc import UniPC

__all__ = [
    "DATA",
    "DDIM",
    "DDPM",
    "DEFAULT_SOLVER",
    "DEIS",
    "NOISE",
    "PARALLEL",
    "PLMS",
    "SOLVERS",
    "TCD",
    "AdamsBashforth",
    "Anderson",
    "Broyden",
    "Entry",
    "Euler",
    "EulerMaruyama",
    "Guarded",
    "Heun",
    "Multistep2",
    "Multistep3",
    "Multistep3Published",
    "ParallelSolver",
    "Parareal",
    "Picard",
    "SDEMultistep2",
    "Singlestep2",
    "Singlestep3",
    "Solver",
    "Trajectory",
    "UniPC",
    "parareal_rounds",
    "reference",
    "solve",
    "solver_by_name",
]
