"""Rectification window by window, without stored pairs: PeRFlow, and the phased form of Rectified Diffusion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_count, check_share
from ..denoisers import Denoiser, Guided
from ..prediction import Prediction, chord, jump
from ..problems.base import Problem
from ..schedules import PiecewiseLinear, Schedule
from ..training import EMA, Draws, Turn
from .base import Knobs, Training, like_teacher
from .distances import pseudo_huber
from .regression import in_own_kind


@dataclass(frozen=True)
class PhasedKnobs(Knobs):
    """`windows`, M, equally long in t; `substeps`, K, DDIM steps of the teacher in a window; `guidance_scale` of the teacher, which the
    student then has built in (1 is off: such a student is guided when it is sampled). `edge`, the share of a batch at its windows' upper
    edges, where a sampler with one step a window calls the student: there the goal jumps from one window's to the next one's, a
    network that is smooth in lambda blurs the two, and the share decides for which. The papers have 0.
    """

    windows: int = 4
    substeps: int = 8
    guidance_scale: float = 1.0
    edge: float = 0.5


def check_knobs(knobs: PhasedKnobs) -> None:
    """Windows and substeps are counts, the edge's share lies in [0, 1]; else `ValueError`."""
    check_count(knobs.windows, "windows")
    check_count(knobs.substeps, "substeps")
    check_share(knobs.edge, "edge")


def window_chord(
    problem: Problem, teacher: Denoiser, schedule: Schedule, knobs: PhasedKnobs, draws: Draws
) -> tuple[Prediction, Tensor, Tensor, Tensor, Tensor | None]:
    """One window's first-order path for each sample: (the belief on both of its ends, upper edge, lower edge, x there, condition).

    The upper end is noised data, the lower end where K DDIM steps of the teacher lead. `schedule` has the teacher's levels at the edges.
    """
    M, K, batch = knobs.windows, knobs.substeps, knobs.batch
    x0, cond = draws.rows(problem.data, batch)
    cond = cond if problem.conditional else None
    m = draws.integers(batch, M)  # the window (s_m, s_m+1]
    low, high = m.to(x0.dtype) / M, (m + 1).to(x0.dtype) / M
    x_high = teacher.schedule.mix(x0, draws.normal(batch, *problem.shape), high)
    x = x_high
    with torch.no_grad():
        for k in range(K):
            x = jump(
                teacher(x, high - k / (K * M), cond), (high - (k + 1) / (K * M)).clamp(min=0) if k < K - 1 else low
            )
    return chord(schedule, x_high, high, x, low), high, low, x, cond


def window_times(high: Tensor, low: Tensor, knobs: PhasedKnobs, draws: Draws) -> Tensor:
    """t ~ U(s_m, s_m+1], (B,), and the window's upper edge for a random share of the batch."""
    t = high - (high - low) * draws.uniform(knobs.batch)
    return torch.where(draws.uniform(knobs.batch) < knobs.edge, high, t)


def perflow(
    problem: Problem, knobs: PhasedKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Piecewise rectified flow (arXiv 2405.07510, alg. 1): x_t on the straight line between a window's ends, the teacher's kind of target.

    A straight line at constant speed in t is first-order on the schedule whose alpha and sigma are linear between the edges
    (`PiecewiseLinear`). There the paper's window velocity and its "ddim_eps" are two kinds of one belief, the `chord` of the
    ends, and an Euler step of the window's velocity is a jump. So this differs from phased Rectified Diffusion in the schedule, as
    rectified flow does from Rectified Diffusion. Sample with as many uniform DDIM steps as windows, or a multiple.
    """
    check_knobs(knobs)
    edges = torch.linspace(0, 1, knobs.windows + 1, dtype=torch.float64)
    student = like_teacher(problem, teacher, start, schedule=PiecewiseLinear(teacher.schedule, edges))
    guide, distance = Guided(teacher, knobs.guidance_scale), in_own_kind(student.kind)

    def loss(step: int, draws: Draws) -> Tensor:
        p, high, low, _, cond = window_chord(problem, guide, student.schedule, knobs, draws)
        t = window_times(high, low, knobs, draws)  # t ~ U(s_m, s_m+1]
        x_t = jump(p, t)  # x_t = x_high + (t - high)/(low - high) (x_low - x_high)
        return distance(student(x_t, t, cond), p).mean()

    turn = Turn(loss, list(student.parameters()), knobs.lr)
    calls = knobs.substeps * guide.calls * knobs.batch
    return Training(student, EMA(student, knobs.ema), [turn], teacher_calls=calls, steps=(knobs.windows,))


def rectified_diffusion_phased(
    problem: Problem,
    knobs: PhasedKnobs,
    teacher: Denoiser,
    pairs: None = None,
    start: Denoiser | None = None,
) -> Training:
    """Rectified Diffusion (phased) (arXiv 2410.07303, sec. 3.4; slide 28): eps = delta z / delta NSR between a window's ends, z = x/alpha.

    The training point is x_t = alpha_t [z_high + (NSR_t - NSR_high) eps]; the original code's loss is the element-wise pseudo-Huber distance
    between the window's end and where the student's jump lands, alpha_low [x_t/alpha_t + (NSR_low - NSR_t) eps_student]. Sample with as
    many uniform DDIM steps as windows, or a multiple.
    """
    check_knobs(knobs)
    student = like_teacher(problem, teacher, start)
    guide = Guided(teacher, knobs.guidance_scale)

    def loss(step: int, draws: Draws) -> Tensor:
        p, high, low, x_low, cond = window_chord(problem, guide, student.schedule, knobs, draws)  # eps = dz/dNSR
        t = window_times(high, low, knobs, draws)  # t ~ U(s_m, s_m+1]
        x_t = jump(p, t)
        return pseudo_huber(jump(student(x_t, t, cond), low), x_low).mean()

    turn = Turn(loss, list(student.parameters()), knobs.lr)
    calls = knobs.substeps * guide.calls * knobs.batch
    return Training(student, EMA(student, knobs.ema), [turn], teacher_calls=calls, steps=(knobs.windows,))
