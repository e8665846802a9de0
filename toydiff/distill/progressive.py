"""Progressive distillation: two teacher steps become one of the student, again and again (slide 11, Algorithm 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_count
from ..denoisers import Denoiser, Guided
from ..prediction import chord, jump
from ..problems.base import Problem
from ..training import EMA, Draws, Turn
from .base import Knobs, Training, like_teacher
from .distances import mse
from .regression import snr_weight


@dataclass(frozen=True)
class ProgressiveKnobs(Knobs):
    """`first`, `last`: steps of the student in the first and last stage, powers of two times one another; `updates` are shared equally by
    the stages. `guidance_scale` of the first teacher, which all students then have built in; 1 is off.
    """

    first: int = 16
    last: int = 1
    guidance_scale: float = 1.0


def stages(first: int, last: int) -> list[int]:
    """The student's steps, stage by stage: first, first/2, ..., last; `ValueError` if halving does not lead there."""
    check_count(last, "last")
    found = [check_count(first, "first")]
    while found[-1] > last and found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    if found[-1] != last:
        raise ValueError(f"halving {first} steps never gives {last}; first must be last times a power of two")
    return found


def progressive(
    problem: Problem, knobs: ProgressiveKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Algorithm 2 of Salimans and Ho (arXiv 2202.00512), on the grid t = i/N: the student's DDIM step lands where two of the teacher's do.

    Their z is our x, their lambda is 2 lambda, their weight max(SNR, 1) as here. A student is for its own last stage's grid: sample it
    with that many uniform DDIM steps.
    """
    plan = stages(knobs.first, knobs.last)
    if knobs.updates % len(plan):
        raise ValueError(f"updates must be a multiple of the {len(plan)} stages {plan}, got {knobs.updates}")
    student = like_teacher(problem, teacher, start)
    average = EMA(student, knobs.ema)
    first_teacher = Guided(teacher, knobs.guidance_scale)
    frozen = EMA(student, 0.0)  # T, from the second stage on
    schedule, batch, period = student.schedule, knobs.batch, knobs.updates // len(plan)

    def promote() -> None:
        student.load_state_dict(average.module.state_dict())
        frozen.reset()  # T <- S
        average.reset()

    def loss(step: int, draws: Draws) -> Tensor:
        stage = step // period
        if stage and step % period == 0:
            promote()
        N, T = plan[stage], frozen.module if stage else first_teacher
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional else None
        t = (1 + draws.integers(batch, N)).to(x0.dtype) / N  # t = i/N
        x_t = schedule.mix(x0, draws.normal(batch, *problem.shape), t)  # x_t = alpha x_0 + sigma eps
        with torch.no_grad():
            x_m = jump(T(x_t, t, cond), t - 0.5 / N)  # one DDIM step of T, and
            x_s = jump(T(x_m, t - 0.5 / N, cond), (t - 1 / N).clamp(min=0))  # another
            goal = chord(schedule, x_t, t, x_s, (t - 1 / N).clamp(min=0)).x0  # the x_0 whose one DDIM step is both
        return (snr_weight(schedule, t) * mse(student(x_t, t, cond).x0, goal)).mean()

    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(
        student,
        average,
        [turn],
        modules={"teacher": frozen},
        teacher_calls=2 * batch * first_teacher.calls,
        period=period,
        steps=(knobs.last,),
    )
