"""Progressive distillation (Salimans and Ho, arXiv 2202.00512, algorithm 2; slide 11 of the deck).

Two steps of the teacher become one of the student, again and again. Their z is our x, their lambda is 2 lambda. A stage
with N steps of the student:

    1  x_0 ~ data,  t = i/N,  i ~ U{1 ... N}
    2  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    3  x_m = the teacher's DDIM step t -> t - 0.5/N,  x_s = its next one -> s = t - 1/N      no gradient
    4  y = (x_s - (sigma_s/sigma_t) x_t)/(alpha_s - (sigma_s/sigma_t) alpha_t):  one DDIM step of it lands on x_s
    5  loss = max(SNR_t, 1) |x_0 student(x_t, t) - y|^2

Then the student becomes the teacher, and N is halved. The result fits the grid of its last stage: sample it with that
many uniform DDIM steps.
"""

from dataclasses import dataclass

import torch

from ..prediction import chord, jump
from ..solvers.registry import GREEN
from ..support.checks import check_count
from ..training import EMA, Turn
from .base import Card, Knobs, Sampler, Training, batch_of, snr_weight, student_like
from .distances import mse


def progressive_loss(student, teacher, N, x0, cond, draws, guidance_scale=1.0):
    """A scalar. N: steps of the student; x0 (B, ...); cond (B,) or None; guidance_scale of the teacher."""
    on = student.schedule
    t = (1 + draws.integers(len(x0), N)).to(x0.dtype) / N  # 1
    x_t = on.mix(x0, draws.normal(*x0.shape), t)  # 2
    m, s = t - 0.5 / N, (t - 1 / N).clamp(min=0)
    with torch.no_grad():
        x_m = jump(teacher(x_t, t, cond, guidance_scale), m)  # 3
        x_s = jump(teacher(x_m, m, cond, guidance_scale), s)  # 3
        y = chord(on, x_t, t, x_s, s).x0  # 4
    return (snr_weight(on, t) * mse(student(x_t, t, cond).x0, y)).mean()  # 5


@dataclass(frozen=True)
class ProgressiveKnobs(Knobs):
    """Those of every method, of which `updates` is divided equally among the stages, and:"""

    first: int = 16
    """Steps of the student in the first stage: `last` times a power of two."""
    last: int = 1
    """Steps of the student in the last stage."""
    guidance_scale: float = 1.0
    """The guidance scale of the first teacher, which all students then have built in; 1 is off."""


def stages(first: int, last: int) -> list[int]:
    """The student's steps, stage by stage: first, first/2, ..., last; `ValueError` if halving does not lead there."""
    check_count(last, "last")
    found = [check_count(first, "first")]
    while found[-1] > last and found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    if found[-1] != last:
        raise ValueError(f"halving {first} steps never gives {last}; first must be last times a power of two")
    return found


def progressive(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """A student, its frozen copy that teaches from the second stage on, and the one turn of an update."""
    plan = stages(knobs.first, knobs.last)
    if knobs.updates % len(plan):
        raise ValueError(f"updates must be a multiple of the {len(plan)} stages {plan}, got {knobs.updates}")
    student = student_like(problem, teacher, start)
    average, frozen = EMA(student, knobs.ema), EMA(student, 0.0)
    period = knobs.updates // len(plan)

    def turn(step, draws):
        stage = step // period
        if stage and step % period == 0:
            student.load_state_dict(average.module.state_dict())
            frozen.reset()  # the student becomes the teacher
            average.reset()
        x0, cond = batch_of(problem, knobs.batch, draws)
        if stage:
            return progressive_loss(student, frozen.module, plan[stage], x0, cond, draws)
        return progressive_loss(student, teacher, plan[0], x0, cond, draws, knobs.guidance_scale)

    return Training(
        student,
        average,
        [Turn(turn, list(student.parameters()), knobs.lr)],
        modules={"teacher": frozen},
        teacher_calls=2 * knobs.batch * teacher.calls_at(knobs.guidance_scale),
        period=period,
        steps=(knobs.last,),
    )


CARD = Card(
    id="progressive",
    title="Progressive distillation",
    paper="arXiv 2202.00512, alg. 2",
    deck="slide 11, algorithm 2",
    equation="max(SNR, 1) |x_0(x_t, t) - chord(x_t, two teacher steps)|^2",
    needs="teacher",
    train=progressive,
    knobs=ProgressiveKnobs,
    sampler=Sampler(steps=(1,)),
    color=GREEN,
    marker="D",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1000},
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "first": 32,
            "last": 4,
            "guidance_scale": 7.5,
        },
    },
)
