"""Rectified flow: reflow with a teacher's own pairs, and one-step distillation of the result."""

from dataclasses import dataclass

from ..denoisers import Denoiser
from ..problems.base import Problem
from ..schedules import Linear
from ..training import EMA, Turn
from .base import Knobs, Training, starting_from
from .pairs import Pairs
from .regression import in_own_kind, only_noise, regression, uniform_times


@dataclass(frozen=True)
class ReflowKnobs(Knobs):
    """`edge`, the share of a batch at t = 1, where every sampler begins and one step ends; the papers have 0."""

    edge: float = 0.0


def rectified_flow(
    problem: Problem, knobs: ReflowKnobs, teacher: Denoiser, pairs: Pairs, start: Denoiser | None = None
) -> Training:
    """Algorithm 3, reflow (arXiv 2209.03003, alg. 1): |v(x_t, t) - (eps - x_0)|^2 on x_t = (1 - t) x_0 + t eps, with the paired eps.

    The deck's line that samples eps anew would undo the pairing. The result is k + 1-rectified where the teacher was k-rectified: for more
    rounds, make pairs with the result and run this again. A teacher that predicts something else is re-parameterised: its weights
    start the student's, but their output now has to become a velocity.
    """
    student = problem.student(Linear(), "velocity", start=starting_from(teacher, start))
    coupling = pairs.coupling(student.schedule, knobs.batch)
    loss = regression(student, coupling, uniform_times(knobs.batch, edge=knobs.edge), in_own_kind("velocity"))
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)])


def instaflow(
    problem: Problem, knobs: Knobs, teacher: Denoiser, pairs: Pairs, start: Denoiser | None = None
) -> Training:
    """One-step distillation of a rectified flow (InstaFlow, arXiv 2309.06380, eq. 5): |(eps - v(eps, 1)) - x_0|^2, at t = 1 alone.

    At t = 1 on the linear schedule that is |v - (eps - x_0)|^2: Algorithm 3 with one time. Nothing else is trained, so more steps are worse. The
    teacher should be a 2-rectified flow and the pairs its own. The original uses LPIPS on images.
    """
    student = problem.student(Linear(), "velocity", start=starting_from(teacher, start))
    coupling = pairs.coupling(student.schedule, knobs.batch)
    loss = regression(student, coupling, only_noise(knobs.batch), in_own_kind("velocity"))
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)], steps=(1,))
