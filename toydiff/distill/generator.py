"""A student as a generator: its weights at the start, its noise and labels, and the states of its own sampling."""

import torch

from ..denoisers import Conditioned, LambdaDenoiser
from .consistency import consistency_student


def generator_of(problem, teacher, start=None) -> LambdaDenoiser:
    """A student to generate with: a copy of `start`, on its schedule and in its kind; without a `start`, of the
    teacher.

    If neither has weights, it is a fresh network that predicts v.
    """
    if isinstance(start, LambdaDenoiser):
        return problem.student(start.schedule, start.kind, start=start)
    return consistency_student(problem, teacher, None)


def noise_for(problem, student, batch, draws, *, labelled):
    """(z, cond): noise at t = 1, (B, ...), and labels (B,) as frequent as in the data; None if not `labelled`."""
    cond = draws.rows(problem.data_labels, batch) if labelled else None
    one = torch.ones((), device=draws.device)
    return student.schedule.sigma(one) * draws.normal(draws.own(batch), *problem.shape), cond


@torch.no_grad()
def own_state(student, solver, ts, z, cond, draws):
    """The state before a random one of the student's N steps, made from noise z by its own steps before that one
    (DMD2's backward simulation, arXiv 2405.14867, sec. 4.5).

    ts (N+1,): falling from 1 to 0. Returns (x, t, s): the state (B, ...), its time (B,), and the time s (B,) to jump to
    for a sample. For a solver that noises again, `lcm`, s = 0; for another, such as `ddim`, s is the step's end.
    """
    x, k = z, draws.integers(len(z), len(ts) - 1)
    for i in range(len(ts) - 2):
        noise = draws.normal(*z.shape) if solver.stochastic else None
        x_next, _ = solver.step(Conditioned(student, cond), x, ts[i], ts[i + 1], noise=noise)
        x = torch.where((k > i).reshape(-1, *[1] * (x.ndim - 1)), x_next, x)
    return x, ts[k], torch.zeros_like(ts[k]) if solver.stochastic else ts[k + 1]
