"""Solvers: from noise to data in N steps. `solve` runs any of them; `reference` is the truth to compare with."""

from .adams import AdamsBashforth
from .base import Solver
from .ddim import DDIM
from .ddpm import DDPM
from .deis import DEIS
from .dpm import DATA, NOISE, Multistep2, Multistep3, Multistep3Published, SDEMultistep2, Singlestep2, Singlestep3
from .driver import Trajectory, solve
from .euler import Euler, EulerMaruyama
from .heun import Heun
from .reference import reference
from .registry import DEFAULT_SOLVER, SOLVERS, Entry, solver_by_name
from .unipc import UniPC

__all__ = [
    "DATA",
    "DDIM",
    "DDPM",
    "DEFAULT_SOLVER",
    "DEIS",
    "NOISE",
    "SOLVERS",
    "AdamsBashforth",
    "Entry",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Multistep2",
    "Multistep3",
    "Multistep3Published",
    "SDEMultistep2",
    "Singlestep2",
    "Singlestep3",
    "Solver",
    "Trajectory",
    "UniPC",
    "reference",
    "solve",
    "solver_by_name",
]  # fmt: skip
