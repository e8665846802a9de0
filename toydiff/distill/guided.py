"""Guided distillation: two calls become one, and the guidance scale an input of the student."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_positive
from ..denoisers import Denoiser
from ..problems.base import Problem
from ..schedules import expand
from ..training import EMA, Draws, Turn
from .base import Knobs, Training, like_teacher
from .distances import mse
from .regression import snr_weight


@dataclass(frozen=True)
class GuidedKnobs(Knobs):
    """`g_min`, `g_max`: the range of guidance scales that the student learns, uniformly; 1 is off."""

    g_min: float = 1.0
    g_max: float = 5.0


def guided(
    problem: Problem, knobs: GuidedKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Stage one of Meng et al. (arXiv 2210.03142, alg. 1): max(SNR, 1) |x_0 student(x_t, c, g) - x_0 guided(x_t, c)|^2.

    The paper's w is g - 1, drawn from [0, 4]. The student starts as the conditional teacher, its new input at zero.
    """
    check_positive(knobs.g_min, "g_min")
    if not knobs.g_min < knobs.g_max:
        raise ValueError(f"g_min must be below g_max, got {knobs.g_min:g} and {knobs.g_max:g}")
    if not problem.classes:
        raise ValueError(f"guided distillation needs classes to guide towards, and {problem.name} has none")
    student = like_teacher(problem, teacher, start, guided=True)
    schedule, batch = teacher.schedule, knobs.batch

    def loss(step: int, draws: Draws) -> Tensor:
        x0, cond = draws.rows(problem.data, batch)  # x_0, c ~ data
        t = draws.uniform(batch, 1e-3, 1.0)  # t ~ U
        g = draws.uniform(batch, knobs.g_min, knobs.g_max)  # g ~ U[g_min, g_max]
        x_t = schedule.mix(x0, draws.normal(batch, *problem.shape), t)  # x_t = alpha x_0 + sigma eps
        goal = guided_x0(teacher, x_t, t, cond, g)  # (1 - g) x_0(x_t, none) + g x_0(x_t, c)
        p = student.at_guidance(x_t, t, cond, g)
        return (snr_weight(schedule, t) * mse(p.x0, goal)).mean()

    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(student, EMA(student, knobs.ema), [turn], teacher_calls=2 * batch)


@torch.no_grad()
def guided_x0(teacher: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor, g: Tensor) -> Tensor:
    """The guided teacher's x_0 with one scale a sample, (B, ...); `Guided` does the same with one scale for all."""
    without, given = teacher.without_and_with(x_t, t, cond)
    return without.x0 + expand(g, x_t) * (given.x0 - without.x0)
