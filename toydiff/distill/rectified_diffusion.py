"""Rectified Diffusion: the pairs of rectified flow, on the teacher's own schedule and in its own kind (slides 26 and 27)."""

from dataclasses import dataclass

from torch import Tensor

from ..checks import unknown
from ..denoisers import Denoiser
from ..prediction import Prediction
from ..problems.base import Problem
from ..training import EMA, Turn
from .base import Training, like_teacher
from .distances import pseudo_huber
from .pairs import Pairs
from .rectified_flow import ReflowKnobs
from .regression import Distance, in_own_kind, regression, uniform_times


def x0_huber(p: Prediction, pair: Prediction) -> Tensor:
    """pseudo-Huber(x_0 student, x_0): the original code's loss, which weighs an error in eps by NSR, and so the noisy end most."""
    return pseudo_huber(p.x0, pair.x0)


@dataclass(frozen=True)
class RectifiedDiffusionKnobs(ReflowKnobs):
    """`loss`: "own-mse", the deck's |eps student - eps|^2 (in the kind that the teacher predicts), or "x0-huber", the original code's."""

    loss: str = "x0-huber"


def rectified_diffusion(
    problem: Problem, knobs: RectifiedDiffusionKnobs, teacher: Denoiser, pairs: Pairs, start: Denoiser | None = None
) -> Training:
    """Algorithm 4 (arXiv 2410.07303): |eps(x_t, t) - eps|^2 on x_t = alpha_t x_0 + sigma_t eps, with the paired eps.

    What must become constant along a path is (x_0, eps), not dx/dt: then a jump between any two times is exact, whatever the schedule, and
    the teacher keeps its schedule and its kind. The deck prints the mean square in eps; the published code has the pseudo-Huber distance
    in x_0. The two differ by the weight NSR^2, which is 213 at t = 1 of Stable Diffusion's table: one-step quality depends on it.
    """
    losses: dict[str, Distance] = {"x0-huber": x0_huber, "own-mse": in_own_kind(teacher.kind)}
    if knobs.loss not in losses:
        raise unknown("loss of rectified diffusion", knobs.loss, losses)
    student = like_teacher(problem, teacher, start)
    coupling = pairs.coupling(student.schedule, knobs.batch)
    loss = regression(student, coupling, uniform_times(knobs.batch, edge=knobs.edge), losses[knobs.loss])
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)])
