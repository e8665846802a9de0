"""Piecewise rectified flow, PeRFlow (arXiv 2405.07510, algorithm 1; slides 29 to 31 of the deck).

Time is cut into windows, and in each the student learns the straight line between its ends; no pairs are stored:

    1  x_0 ~ data,  a window (low, high] of M,  x_high = alpha x_0 + sigma eps at its upper edge
    2  x_low = K DDIM steps of the teacher, high -> low                                      no gradient
    3  t ~ U(low, high],  t = high with probability `edge`,  x_t = x_high + (t - high)/(low - high) (x_low - x_high)
    4  loss = |y_theta(x_t, t) - y|^2,  y the line's velocity, or its eps, in the student's kind

The student's schedule is `PiecewiseLinear`: its alpha and sigma are linear between the edges. On it a straight line at
constant speed in t is first-order. So the paper's window velocity and its "ddim_eps" are two kinds of one prediction,
the `chord` of the ends, and an Euler step of the window's velocity is a jump.

PeRFlow differs from phased Rectified Diffusion only in the schedule, as rectified flow does from Rectified Diffusion.
Sample with as many uniform DDIM steps as windows, or a multiple.
"""

import torch

from ..prediction import Prediction, chord
from ..schedules import PiecewiseLinear
from ..solvers.registry import VERMILLION
from .base import Card, Sampler, Training, batch_of, one_turn, student_like
from .distances import mse
from .windows import WindowKnobs, window_ends


def perflow_loss(student, teacher, M, K, x0, cond, draws, edge=0.0, guidance_scale=1.0):
    """A scalar. M: windows; the student's schedule is the teacher's, `PiecewiseLinear` with their edges. K: DDIM steps
    of the teacher in a window, at guidance_scale; x0 (B, ...); cond (B,) or None; edge: the probability of t = high."""
    x_high, high, x_low, low = window_ends(teacher, M, K, x0, cond, draws, guidance_scale)  # 1, 2
    t = high - (high - low) * draws.uniform(len(x0))  # 3
    t = torch.where(draws.uniform(len(x0)) < edge, high, t)
    line = chord(student.schedule, x_high, high, x_low, low)
    true = Prediction.exact(line.x0, line.eps, t, student.schedule)  # 3
    return mse(student(true.x, t, cond).read(student.kind), true.read(student.kind)).mean()  # 4


def perflow(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """A student on the teacher's schedule with straight pieces, in the teacher's kind, and its one turn."""
    knobs.check()
    edges = torch.linspace(0, 1, knobs.windows + 1, dtype=torch.float64)
    student = student_like(problem, teacher, start, schedule=PiecewiseLinear(teacher.schedule, edges))

    def turn(step, draws):
        x0, cond = batch_of(problem, knobs.batch, draws)
        return perflow_loss(
            student, teacher, knobs.windows, knobs.substeps, x0, cond, draws, knobs.edge, knobs.guidance_scale
        )

    calls = knobs.substeps * teacher.calls_at(knobs.guidance_scale) * knobs.batch
    return one_turn(student, turn, knobs, teacher_calls=calls, steps=(knobs.windows,))


CARD = Card(
    id="perflow",
    title="Piecewise rectified flow (PeRFlow)",
    paper="arXiv 2405.07510, alg. 1",
    deck="slides 29 to 31",
    equation="|eps(x_t, t) - eps_chord|^2, x_t straight between a window's ends",
    needs="teacher",
    train=perflow,
    knobs=WindowKnobs,
    sampler=Sampler(steps=(4,)),
    color=VERMILLION,
    marker="s",
    dash="dash",
    recipes={  # each update calls the teacher K times
        "points": {"batch": 512, "lr": 1e-3, "updates": 2000},
        "images": {"batch": 64, "lr": 1e-3, "updates": 400, "substeps": 5},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "guidance_scale": 7.5},
    },
)
