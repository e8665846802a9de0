"""A student as a generator: what it makes of noise in few steps, with the gradient of the last of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_count
from ..denoisers import Denoiser, LambdaDenoiser
from ..grids import time_grid
from ..prediction import jump
from ..problems.base import Problem
from ..solvers.base import Solver
from ..training import Draws
from .consistency import Asked, student_of


@dataclass(frozen=True)
class Made:
    """Samples x (B, ...) at time s (B,), with their gradient: a jump from `state` at t (B,), asked for cond, (B,) or None."""

    x: Tensor
    s: Tensor
    cond: Tensor | None
    state: Tensor
    t: Tensor


Generator = Callable[[Draws], Made]
"""generator(draws) -> a batch of samples, with their gradient by the student's weights."""


def generator_of(problem: Problem, teacher: Denoiser, start: Denoiser | None) -> Denoiser:
    """A student to generate with: a copy of `start` on its own schedule and in its own kind, where one is given; otherwise of the teacher.

    A fresh network, where there are no weights, says v.
    """
    if isinstance(start, LambdaDenoiser):
        return problem.student(start.schedule, start.kind, start=start)
    return student_of(problem, teacher, None)


def asked(problem: Problem, batch: int, draws: Draws, guidance_scale: float = 1.0) -> Tensor | None:
    """The conditions of a batch, (batch,), or None where samples are asked for without one and nothing is guided."""
    wanted = problem.conditional or guidance_scale != 1
    return draws.rows(problem.conditions, batch) if wanted else None


def generator(
    problem: Problem, student: Denoiser, solver: Solver, steps: int, batch: int, guidance_scale: float = 1.0
) -> Generator:
    """Samples by a random one of the student's N uniform steps, from what its own steps before it made of noise (arXiv 2405.14867, sec. 4.5).

    For one step, x = g_theta(z), the student's x_0 at t = 1. Of a solver that noises again (`lcm`), each step's sample is its x_0; of another, such
    as `ddim`, the state x_s that it steps to. Gradients flow through the chosen step alone.
    """
    ts = time_grid(student.schedule, check_count(steps, "steps"), "uniform").to(torch.get_default_dtype())

    def make(draws: Draws) -> Made:
        at = ts.to(draws.device)
        cond = asked(problem, batch, draws, guidance_scale)
        x = student.schedule.sigma(at[0]) * draws.normal(batch, *problem.shape)  # z
        k = draws.integers(batch, steps)
        with torch.no_grad():
            for i in range(steps - 1):
                noise = draws.normal(batch, *problem.shape) if solver.stochastic else None
                x_next, _ = solver.step(Asked(student, cond), x, at[i], at[i + 1], noise=noise)
                x = torch.where((k > i).reshape(-1, *[1] * (x.ndim - 1)), x_next, x)
        t, s = at[k], torch.zeros_like(at[k]) if solver.stochastic else at[k + 1]
        return Made(jump(student(x, t, cond), s), s, cond, x, t)

    return make
