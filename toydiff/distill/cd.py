"""Consistency distillation, CD (arXiv 2303.01469, algorithm 2; slide 12 of the deck).

A jump from x_t to data should land where a jump from its neighbour x_r on the teacher's trajectory lands:

    1  x_0 ~ data,  n ~ U{0 ... N-1},  t = t_{n+1},  r = t_n
    2  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    3  x_r = Phi(x_t, t -> r)                 one step of an ODE solver with the (guided) teacher, no gradient
    4  y = f_theta-(x_r, r)                   the target network, no gradient; x_r itself where r = 0
    5  loss = d(f_theta(x_t, t), y)           f(x, t) = jump(D(x, t), 0)
    6  theta- <- mu theta- + (1 - mu) theta   after the update of theta

In the paper Phi is Heun's step, the times are Karras's grid, and the weight is 1. At the fixed point f(x_t, t) is where
the solver's steps on this grid end.
"""

from dataclasses import dataclass

import torch

from ..denoisers import Conditioned
from ..grids import time_grid
from ..prediction import jump
from ..solvers.base import Solver
from ..solvers.registry import VERMILLION, solver_by_name
from .base import Card, Sampler, Training, batch_of, one_turn
from .consistency import ConsistencyKnobs, consistency_student, target_jump, target_of
from .distances import distance


def cd_loss(student, target, teacher, solver, times, d, x0, cond, draws, guidance_scale=1.0):
    """A scalar. solver: a one-step solver, Phi; times (N+1,), rising from data to noise; d: a distance; x0 (B, ...);
    cond (B,) or None; guidance_scale of the teacher."""
    n = draws.integers(len(x0), len(times) - 1)  # 1
    t, r = times[n + 1], times[n]
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 2
    with torch.no_grad():
        x_r, _ = solver.step(Conditioned(teacher, cond, guidance_scale), x_t, t, r)  # 3
    y = target_jump(target, x_r, r, 0.0, cond, t=t)  # 4
    return d(jump(student(x_t, t, cond), 0.0), y).mean()  # 5


@dataclass(frozen=True)
class CDKnobs(ConsistencyKnobs):
    """Those of the consistency family, and:"""

    intervals: int = 40
    """N, the intervals of the time grid."""
    grid: str = "karras"
    """The time grid, a name of `GRIDS`."""
    solver: str = "heun"
    """The teacher's one-step solver Phi: "heun" (the paper's), "ddim" or "dpm2"."""
    guidance_scale: float = 1.0
    """The teacher's guidance scale, which the student then has built in; 1 is off."""
    target_ema: float = 0.95
    """mu in [0, 1), the decay of the target's weights; with 0 the target is the student itself, without a gradient."""


def one_step_solver(name: str) -> Solver:
    """A deterministic one-step solver by its name; `ValueError` for another."""
    solver = solver_by_name(name)
    if not isinstance(solver, Solver) or solver.memory or solver.stochastic:
        raise ValueError(
            f"a teacher's step is that of a deterministic one-step solver such as heun, ddim or dpm2, not {name!r}"
        )
    return solver


def consistency_distillation(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its target, and the one turn of an update."""
    solver, d = one_step_solver(knobs.solver), distance(knobs.distance, knobs.c)
    student = consistency_student(problem, teacher, start)
    target, targets = target_of(student, knobs.target_ema)  # 6
    times = time_grid(teacher.schedule, knobs.intervals, knobs.grid, data_std=teacher.data_std).flip(0)

    def turn(step, draws):
        x0, cond = batch_of(problem, knobs.batch, draws)  # 1
        at = times.to(x0)
        return cd_loss(student, target, teacher, solver, at, d, x0, cond, draws, knobs.guidance_scale)

    calls = solver.nfe_per_step * teacher.calls_at(knobs.guidance_scale) * knobs.batch
    return one_turn(student, turn, knobs, targets, teacher_calls=calls)


CARD = Card(
    id="cd",
    title="Consistency distillation (CD)",
    paper="arXiv 2303.01469, alg. 2",
    deck="slide 12, algorithm 2",
    equation="d(f(x_t, t), f_ema(Phi(x_t, t to r), r)), Phi a teacher's step",
    needs="teacher",
    train=consistency_distillation,
    knobs=CDKnobs,
    sampler=Sampler("lcm"),
    color=VERMILLION,
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 2500},
        "images": {
            "batch": 64,
            "lr": 3e-4,
            "updates": 600,
            "ema": 0.99,
            "warmup": 20,
            "distance": "huber",
            "c": 0.015,
            "target_ema": 0.95,
            "solver": "ddim",  # half the calls of Heun's step
        },
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "distance": "element-huber",
            "c": 1e-3,
            "solver": "ddim",
            "grid": "uniform",
            "intervals": 50,
            "guidance_scale": 7.5,
        },
    },
)
