"""The solvers by name: what the command, the app and `solve` offer, and the colours that figures use."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from ..checks import unknown
from .adams import AdamsBashforth
from .anderson import Anderson, Broyden
from .base import Solver
from .ddim import DDIM
from .ddpm import DDPM
from .deis import DEIS
from .dpm import DATA, NOISE, Multistep2, Multistep3, Multistep3Published, SDEMultistep2, Singlestep2, Singlestep3
from .euler import Euler, EulerMaruyama
from .heun import Heun
from .lcm import LCM
from .parallel import ParallelSolver
from .parareal import Parareal
from .picard import Picard
from .unipc import UniPC

# Okabe and Ito's palette, which the colour-blind can tell apart: one colour a family, one marker and dash a member
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A solver in the registry. `elsewhere`: the names that other libraries and user interfaces use for it."""

    name: str
    solver: Solver | ParallelSolver
    title: str
    paper: str
    color: str
    marker: str = "o"
    dash: str = "solid"
    elsewhere: dict[str, str] = field(default_factory=dict)


_ENTRIES = [
    Entry("euler", Euler(), "Euler on the PF-ODE, in t", "arXiv 2011.13456, eq. 13", GREY, "s", "dot", {"diffusers": "FlowMatchEulerDiscreteScheduler (on the linear schedule)"}),
    Entry("ddim", DDIM(), "DDIM = DPM-Solver-1 = Euler in NSR", "arXiv 2010.02502, eq. 12", BLACK, "o", "solid", {"diffusers": "DDIMScheduler, EulerDiscreteScheduler", "k-diffusion": "sample_euler", "UI": "DDIM, Euler"}),
    Entry("heun", Heun(), "EDM's Heun", "arXiv 2206.00364, alg. 1", GREY, "o", "solid", {"diffusers": "HeunDiscreteScheduler", "k-diffusion": "sample_heun", "UI": "Heun"}),
    Entry("dpm2", Singlestep2(NOISE), "DPM-Solver-2, singlestep", "arXiv 2206.00927, alg. 1", SKY, "o", "solid", {"diffusers": "KDPM2DiscreteScheduler; DPMSolverSinglestepScheduler (dpmsolver, order 2)", "k-diffusion": "sample_dpm_2; inner step of sample_dpm_fast", "UI": "DPM2"}),
    Entry("dpm3", Singlestep3(NOISE), "DPM-Solver-3, singlestep", "arXiv 2206.00927, alg. 2", SKY, "^", "dash", {"diffusers": "DPMSolverSinglestepScheduler (dpmsolver, order 3; other inner node)", "k-diffusion": "inner step of sample_dpm_fast, sample_dpm_adaptive", "UI": "DPM fast, DPM adaptive (inner step)"}),
    Entry("dpm2m", Multistep2(NOISE), "DPM-Solver multistep 2", "arXiv 2206.00927", SKY, "s", "dot", {"diffusers": "DPMSolverMultistepScheduler (dpmsolver, order 2, final_sigmas_type=sigma_min)"}),
    Entry("dpm3m", Multistep3(NOISE), "DPM-Solver multistep 3, corrected", "arXiv 2206.00927", SKY, "D", "dashdot"),
    Entry("dpm++2s", Singlestep2(DATA), "DPM-Solver++ 2S", "arXiv 2211.01095, alg. 1", BLUE, "s", "dot", {"diffusers": "DPMSolverSinglestepScheduler (order 2)", "k-diffusion": "sample_dpmpp_2s_ancestral (eta = 0)", "UI": "DPM++ 2S a (eta = 0)"}),
    Entry("dpm++3s", Singlestep3(DATA), "DPM-Solver++ 3S", "arXiv 2211.01095", BLUE, "D", "dot", {"diffusers": "DPMSolverSinglestepScheduler (order 3; other inner node)"}),
    Entry("dpm++2m", Multistep2(DATA), "DPM-Solver++ 2M", "arXiv 2211.01095, alg. 2", BLUE, "o", "solid", {"diffusers": "DPMSolverMultistepScheduler", "k-diffusion": "sample_dpmpp_2m", "UI": "DPM++ 2M (with grid karras: DPM++ 2M Karras)"}),
    Entry("dpm++3m", Multistep3(DATA), "DPM-Solver++ 3M, corrected", "arXiv 2211.01095", BLUE, "^", "dash"),
    Entry("dpm++3m-published", Multistep3Published(DATA), "DPM-Solver++ 3M as published", "arXiv 2211.01095", BLUE, "v", "dashdot", {"diffusers": "DPMSolverMultistepScheduler (order 3)", "k-diffusion": "sample_dpmpp_3m_sde (eta = 0; its second step differs)", "UI": "DPM++ 3M SDE (eta = 0)"}),
    Entry("unipc2", UniPC(2), "UniPC-2", "arXiv 2302.04867, alg. 5", GREEN, "o", "solid", {"diffusers": "UniPCMultistepScheduler", "UI": "UniPC (order 2, variant bh2)"}),
    Entry("unipc3", UniPC(3), "UniPC-3", "arXiv 2302.04867, alg. 5", GREEN, "^", "dash", {"diffusers": "UniPCMultistepScheduler (order 3)", "UI": "UniPC (order 3, variant bh2)"}),
    Entry("deis2", DEIS(2), "DEIS / Adams-Bashforth 2 in log NSR", "arXiv 2204.13902, eq. 15", ORANGE, "o", "solid", {"diffusers": "DEISMultistepScheduler", "UI": "DEIS"}),
    Entry("deis3", DEIS(3), "DEIS / Adams-Bashforth 3 in log NSR", "arXiv 2204.13902, eq. 15", ORANGE, "^", "dash", {"diffusers": "DEISMultistepScheduler (order 3, other start)"}),
    Entry("deis4", DEIS(4), "DEIS / Adams-Bashforth 4 in log NSR", "arXiv 2204.13902, eq. 15", ORANGE, "D", "dot"),
    Entry("ab2", AdamsBashforth(2), "Adams-Bashforth 2 in the angle", "arXiv 2206.00364, eq. 7; arXiv 2204.13902", VERMILLION, "o", "solid"),
    Entry("ab3", AdamsBashforth(3), "Adams-Bashforth 3 in the angle", "arXiv 2206.00364, eq. 7; arXiv 2204.13902", VERMILLION, "^", "dash"),
    Entry("ab3-wide", AdamsBashforth(3, sigma_data=2.6), "Adams-Bashforth 3 in the angle, for data twice as wide", "arXiv 2206.00364, eq. 7; arXiv 2204.13902", VERMILLION, "v", "dashdot"),
    Entry("ddpm", DDPM(), "DDPM ancestral, small variance", "arXiv 2006.11239, eq. 11", PURPLE, "o", "solid", {"diffusers": "DDPMScheduler (fixed_small), EulerAncestralDiscreteScheduler, DDIMScheduler (eta = 1)", "k-diffusion": "sample_euler_ancestral", "UI": "Euler a, DDPM"}),
    Entry("ddpm-large", DDPM("large"), "DDPM ancestral, large variance", "arXiv 2006.11239, sec. 3.2", PURPLE, "s", "dash", {"diffusers": "DDPMScheduler (fixed_large)"}),
    Entry("euler-maruyama", EulerMaruyama(), "Euler-Maruyama on the reverse SDE", "arXiv 2011.13456, eq. 6", PURPLE, "v", "dot", {"diffusers": "ScoreSdeVpScheduler (VP; deprecated there)"}),
    Entry("sde-dpm++2m", SDEMultistep2(), "SDE-DPM-Solver++ 2M", "arXiv 2211.01095, eq. 18", PURPLE, "D", "dashdot", {"diffusers": "DPMSolverMultistepScheduler (sde-dpmsolver++)", "k-diffusion": "sample_dpmpp_2m_sde", "UI": "DPM++ 2M SDE"}),
    Entry("lcm", LCM(), "Consistency sampling: denoise, re-noise", "arXiv 2303.01469, alg. 1", PURPLE, "^", "dash", {"diffusers": "LCMScheduler, CMStochasticIterativeScheduler", "UI": "LCM"}),
]  # fmt: skip

SOLVERS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""The solvers by name, in the order in which tables and figures list them."""

_PARALLEL = [
    Entry("picard", Picard(), "Picard iteration, ParaDiGMS' window", "arXiv 2305.16317, alg. 1", BLUE, "o", "solid"),
    Entry("anderson", Anderson(), "Picard with triangular Anderson acceleration", "arXiv 2402.09970, TAA", ORANGE, "^", "dash"),
    Entry("broyden", Broyden(), "Picard with secants at each point", "doi 10.1002/nla.617", VERMILLION, "D", "dashdot"),
    Entry("parareal", Parareal(), "Parareal / SRDS, pipelined", "arXiv 2412.08292, alg. 1", GREEN, "s", "dot"),
]  # fmt: skip

PARALLEL: dict[str, Entry] = {entry.name: entry for entry in _PARALLEL}
"""The parallel samplers by name: they compute the path of a one-step solver, ddim unless told otherwise, in fewer rounds."""

DEFAULT_SOLVER = "ab3"


def solver_by_name(name: str) -> Solver | ParallelSolver:
    """A solver from its name, settings after a colon: "ddim:eta=0.5", "heun:gamma=0.2,s_noise=1.003", "picard:window=20,tolerance=none,solver=ddpm".

    `ValueError` names the nearest solver, or the settings that the solver has.
    """
    word, _, settings = str(name).partition(":")
    everyone = SOLVERS | PARALLEL
    if word not in everyone:
        raise unknown("solver", word, everyone)
    solver = everyone[word].solver
    readers = {f.name: reader for f in dataclasses.fields(solver) if (reader := _reader(solver, f))}
    changes = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in readers:
            raise unknown(f"setting of {word}", key, readers)
        changes[key] = readers[key](value, f"the setting {key} of {word}")
    return dataclasses.replace(solver, **changes) if changes else solver


def _reader(solver: Solver | ParallelSolver, f: dataclasses.Field) -> Callable[[str, str], object] | None:
    """How a setting is read from text; None for a field that a name cannot set. A solver's other whole numbers are part of its name."""
    if isinstance(getattr(solver, f.name), Solver):
        return lambda text, _: solver_by_name(text)
    kind = str(f.type)
    if "float" in kind:
        return lambda text, what: _number(text, what, float, "None" in kind)
    if "int" in kind and isinstance(solver, ParallelSolver):
        return lambda text, what: _number(text, what, int, "None" in kind)
    return None


def _number(text: str, what: str, kind: type, or_none: bool) -> float | None:
    if or_none and text == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        name = "a number" if kind is float else "a whole number"
        raise ValueError(f"{what} is {name}{' or none' if or_none else ''}, got {text!r}") from None
