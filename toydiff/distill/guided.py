"""Guided distillation, stage one (Meng et al., arXiv 2210.03142, algorithm 1; slide 6 of the deck).

The teacher's two calls become one, and the guidance scale g an input of the student (w = g - 1 in the paper):

    1  x_0, c ~ data
    2  t ~ U(0, 1),  g ~ U[g_min, g_max]
    3  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    4  y = (1 - g) x_0(x_t, t, none) + g x_0(x_t, t, c)   of the teacher, no gradient: two calls
    5  loss = max(SNR_t, 1) |x_0 student(x_t, t, c, g) - y|^2: one call

The student starts as the conditional teacher, its new input at zero.
"""

from dataclasses import dataclass

import torch

from ..solvers.registry import PURPLE
from ..support.checks import check_positive
from .base import Card, Knobs, Sampler, Training, one_turn, snr_weight, student_like
from .distances import mse


def guided_loss(student, teacher, x0, cond, draws, g_min=1.0, g_max=5.0):
    """A scalar. x0 (B, ...); cond (B,), or None where there is no guidance, g = 1; g_min and g_max: as the knobs."""
    t = draws.uniform(len(x0), 1e-3, 1.0)  # 2
    g = 1.0 if cond is None else draws.uniform(len(x0), g_min, g_max)  # 2
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 3
    with torch.no_grad():
        y = teacher(x_t, t, cond, g).x0  # 4
    return (snr_weight(teacher.schedule, t) * mse(student(x_t, t, cond, g).x0, y)).mean()  # 5


@dataclass(frozen=True)
class GuidedKnobs(Knobs):
    """Those of every method, and:"""

    g_min: float = 1.0
    """The least guidance scale that the student learns, > 0; 1 is off."""
    g_max: float = 5.0
    """The greatest one, above g_min. g is drawn uniformly between the two. With both 1 there is no guidance to learn,
    and labels are drawn only where the problem is sampled with them."""


def guided(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """A student with g as an input, and its one turn."""
    check_positive(knobs.g_min, "g_min")
    unguided = knobs.g_min == knobs.g_max == 1
    if not (knobs.g_min < knobs.g_max or unguided):
        raise ValueError(f"g_min must be below g_max, got {knobs.g_min:g} and {knobs.g_max:g}")
    if not problem.classes:
        raise ValueError(f"guided distillation needs classes to guide towards, and {problem.name} has none")
    student = student_like(problem, teacher, start, guided=True)

    def turn(step, draws):
        x0, cond = draws.rows(problem.data, knobs.batch)  # 1
        cond = None if unguided and not problem.conditional else cond
        return guided_loss(student, teacher, x0, cond, draws, knobs.g_min, knobs.g_max)

    calls = teacher.calls_at(1.0 if unguided else 2.0)
    return one_turn(student, turn, knobs, teacher_calls=calls * knobs.batch, guidance_scale=None)


CARD = Card(
    id="guided",
    title="Guided distillation",
    paper="arXiv 2210.03142, alg. 1",
    deck="slide 6",
    equation="max(SNR, 1) |x_0(x_t, c, g) - x_0^g(x_t, c)|^2",
    needs="teacher",
    train=guided,
    knobs=GuidedKnobs,
    sampler=Sampler(None, None, (10, 20, 25)),
    color=PURPLE,
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1002},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "g_min": 1.0, "g_max": 14.0},
    },
)
