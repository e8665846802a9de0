"""A student as a generator: what it is labelled for, what it starts from, and what it learns by in several steps."""

import torch

from ..denoisers import Conditioned, LambdaDenoiser
from .consistency import consistency_student


def generator_of(problem, teacher, start=None) -> LambdaDenoiser:
    """A student to generate with: a copy of `start` on its own schedule and in its own kind, where one is given;
    otherwise of the teacher.

    A fresh network, where there are no weights, says v.
    """
    if isinstance(start, LambdaDenoiser):
        return problem.student(start.schedule, start.kind, start=start)
    return consistency_student(problem, teacher, None)


def noise_for(problem, student, batch, draws, *, labelled):
    """z at t = 1, (B, ...), and the labels of the samples, (B,), drawn as the data has them; None if not `labelled`."""
    cond = draws.rows(problem.data_labels, batch) if labelled else None
    one = torch.ones((), device=draws.device)
    return student.schedule.sigma(one) * draws.normal(draws.own(batch), *problem.shape), cond


@torch.no_grad()
def own_state(student, solver, ts, z, cond, draws):
    """Where a random one of the student's N steps starts, from what its own steps before it made of noise z (DMD2's
    backward simulation, arXiv 2405.14867, sec. 4.5).

    ts (N+1,), falling from 1 to 0. (x, t, s): the state (B, ...) and its time (B,), and where its sample is: of a
    solver that noises again (`lcm`) at s = 0, of another, such as `ddim`, at the step's end (B,).
    """
    x, k = z, draws.integers(len(z), len(ts) - 1)
    for i in range(len(ts) - 2):
        noise = draws.normal(*z.shape) if solver.stochastic else None
        x_next, _ = solver.step(Conditioned(student, cond), x, ts[i], ts[i + 1], noise=noise)
        x = torch.where((k > i).reshape(-1, *[1] * (x.ndim - 1)), x_next, x)
    return x, ts[k], torch.zeros_like(ts[k]) if solver.stochastic else ts[k + 1]
