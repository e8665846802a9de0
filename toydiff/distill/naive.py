"""Naive distillation: learn, in one step, where a many-step teacher takes each noise (slide 10)."""

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..problems.base import Problem
from ..training import EMA, Turn
from .base import Knobs, Training, like_teacher
from .distances import mse
from .pairs import Pairs
from .regression import only_noise, regression


def in_x0(p: Prediction, pair: Prediction) -> Tensor:
    """|x_0 student - x_0|^2."""
    return mse(p.x0, pair.x0)


def naive(problem: Problem, knobs: Knobs, teacher: Denoiser, pairs: Pairs, start: Denoiser | None = None) -> Training:
    """d(G(eps), ODE(eps)) at t = 1 alone (Luhman and Luhman, arXiv 2101.02388, eq. 7), with the squared distance.

    G is the student's x_0 at t = 1. It starts from the teacher's weights, that is, from the teacher's own one-step guess.
    """
    student = like_teacher(problem, teacher, start)
    loss = regression(student, pairs.coupling(student.schedule, knobs.batch), only_noise(knobs.batch), in_x0)
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)])
