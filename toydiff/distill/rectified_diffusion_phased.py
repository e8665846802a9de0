"""Rectified Diffusion (phased) (arXiv 2410.07303, sec. 3.4; slide 28 of the deck).

Rectification window by window, without stored pairs: in each window the student learns the one eps that leads from its
upper end to its lower one. With z = x/alpha,

    1  x_0 ~ data,  a window (low, high] of M,  x_high = alpha x_0 + sigma eps at its upper edge
    2  x_low = K DDIM steps of the teacher, high -> low                                      no gradient
    3  eps = (z_low - z_high)/(NSR_low - NSR_high)
    4  t ~ U(low, high],  t = high with probability `edge`,  x_t = alpha_t [z_high + (NSR_t - NSR_high) eps]
    5  loss = pseudo-Huber(alpha_low [z_t + (NSR_low - NSR_t) eps_theta(x_t, t)], x_low): where the student's jump lands

Line 5 is the original code's; slide 28 has |eps_theta - eps|^2. Sample with as many uniform DDIM steps as windows, or a
multiple.
"""

import torch

from ..prediction import chord, jump
from ..solvers.registry import BLUE
from .base import Card, Sampler, Training, batch_of, one_turn, student_like
from .distances import pseudo_huber
from .windows import WindowKnobs, window_ends


def rectified_diffusion_phased_loss(student, teacher, M, K, x0, cond, draws, edge=0.0, guidance_scale=1.0):
    """A scalar. M: windows; K: DDIM steps of the teacher in each, at guidance_scale; x0 (B, ...); cond (B,) or None;
    edge: the probability of t = high."""
    x_high, high, x_low, low = window_ends(teacher, M, K, x0, cond, draws, guidance_scale)  # 1, 2
    line = chord(student.schedule, x_high, high, x_low, low)  # 3
    t = high - (high - low) * draws.uniform(len(x0))  # 4
    t = torch.where(draws.uniform(len(x0)) < edge, high, t)
    x_t = jump(line, t)  # 4
    return pseudo_huber(jump(student(x_t, t, cond), low), x_low).mean()  # 5


def rectified_diffusion_phased(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """A student on the teacher's schedule and in its kind, and its one turn."""
    knobs.check()
    student = student_like(problem, teacher, start)

    def turn(step, draws):
        x0, cond = batch_of(problem, knobs.batch, draws)
        return rectified_diffusion_phased_loss(
            student, teacher, knobs.windows, knobs.substeps, x0, cond, draws, knobs.edge, knobs.guidance_scale
        )

    calls = knobs.substeps * teacher.calls_at(knobs.guidance_scale) * knobs.batch
    return one_turn(student, turn, knobs, teacher_calls=calls, steps=(knobs.windows,))


CARD = Card(
    id="rectified-diffusion-phased",
    title="Rectified Diffusion (phased)",
    paper="arXiv 2410.07303, sec. 3.4",
    deck="slide 28",
    equation="|jump(eps(x_t, t), s) - x_s|, eps = delta z / delta NSR of a window",
    needs="teacher",
    train=rectified_diffusion_phased,
    knobs=WindowKnobs,
    sampler=Sampler(steps=(4,)),
    color=BLUE,
    marker="D",
    dash="dash",
    recipes={  # each update calls the teacher K times
        "points": {"batch": 512, "lr": 1e-3, "updates": 2000},
        "images": {"batch": 64, "lr": 1e-3, "updates": 400, "substeps": 5},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "guidance_scale": 7.5},
    },
)
