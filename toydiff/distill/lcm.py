"""Latent consistency model, LCM (arXiv 2310.04378, algorithm 1; slides 13 to 15 of the deck).

Consistency distillation with skip steps and a guided teacher, whose guidance scale is an input of the student
(w = g - 1 in the paper):

    1  x_0, c ~ data,  i ~ U{0 ... N-1},  t = (i + 1)/N,  r = i/N,  g ~ U[g_min, g_max]
    2  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    3  x_r = (1 + w) Psi(x_t, t -> r, c) - w Psi(x_t, t -> r, none),  Psi one DDIM step of the teacher      no gradient
    4  y = f_theta-(x_r, c, g, r)                                                                           no gradient
    5  loss = d(f_theta(x_t, c, g, t), y)                              f(x, t) = jump(D(x, t), 0)

A DDIM step is linear in (x_0, eps), so line 3 is one jump of the guided prediction; for another Psi it would not be.
N = 50 skips 20 of Stable Diffusion's 1,000 timesteps. The paper meets the boundary condition by c_skip and c_out, which
are 7e-6 and 1 at the grid's first point; here a jump meets it by itself. Sample with the solver `lcm`, at a guidance
scale in [g_min, g_max].
"""

from dataclasses import dataclass

import torch

from ..prediction import jump
from ..problems.base import Problem
from ..solvers.registry import ORANGE
from ..support.checks import check_count, check_number, check_positive
from .base import Card, Sampler, Training, one_turn
from .consistency import ConsistencyKnobs, consistency_student, target_jump, target_of
from .distances import distance


def lcm_loss(student, target, teacher, N, d, x0, cond, draws, g_min=1.0, g_max=1.0):
    """A scalar. N: intervals; d: a distance; x0 (B, ...); cond (B,) or None; g_min and g_max: as the knobs. With both 1
    there is no guidance, and the student has no input for it."""
    i = draws.integers(len(x0), N)  # 1
    t, r = (i + 1).to(x0.dtype) / N, i.to(x0.dtype) / N  # 1
    g = 1.0 if g_min == g_max == 1 else draws.uniform(len(x0), g_min, g_max)  # 1
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 2
    with torch.no_grad():
        x_r = jump(teacher(x_t, t, cond, g), r)  # 3
    y = target_jump(target, x_r, r, 0.0, cond, g, t=t)  # 4
    return d(jump(student(x_t, t, cond, g), 0.0), y).mean()  # 5


@dataclass(frozen=True)
class GuidedConsistencyKnobs(ConsistencyKnobs):
    """Those of the consistency family, and:"""

    intervals: int = 40
    """N, the intervals of the uniform grid, which is that of a DDIM sampler."""
    g_min: float = 1.0
    """The teacher's least guidance scale, > 0."""
    g_max: float = 1.0
    """The greatest one. g is drawn uniformly between the two; 1 and 1 for no guidance."""
    distance: str = "element-huber"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""

    def check(self, problem: Problem) -> None:
        """`ValueError` unless 0 < g_min <= g_max, and for guidance where there are no classes."""
        check_count(self.intervals, "intervals")
        check_positive(self.g_min, "g_min")
        if check_number(self.g_max, "g_max") < self.g_min:
            raise ValueError(f"g_min must not exceed g_max, got {self.g_min:g} and {self.g_max:g}")
        if self.guidance and not problem.classes:
            raise ValueError(
                f"guidance needs classes to guide towards, and {problem.name} has none; set g_min and g_max to 1"
            )

    @property
    def guidance(self) -> bool:
        """Whether the teacher is guided at all."""
        return (self.g_min, self.g_max) != (1, 1)


@dataclass(frozen=True)
class LCMKnobs(GuidedConsistencyKnobs):
    """Those of guided consistency, and:"""

    intervals: int = 50
    """N, the intervals of the uniform grid, which is that of a DDIM sampler."""
    target_ema: float = 0.95
    """The decay, in [0, 1), of the target's weights; with 0 the target is the student itself, without a gradient."""


def lcm(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, with g as an input where there is guidance, its target, and the one turn of an update."""
    knobs.check(problem)
    d = distance(knobs.distance, knobs.c)
    student = consistency_student(problem, teacher, start, guided=knobs.guidance)
    target, targets = target_of(student, knobs.target_ema)

    def turn(step, draws):
        x0, cond = draws.rows(problem.data, knobs.batch)
        cond = cond if problem.conditional or knobs.guidance else None
        return lcm_loss(student, target, teacher, knobs.intervals, d, x0, cond, draws, knobs.g_min, knobs.g_max)

    return one_turn(
        student,
        turn,
        knobs,
        targets,
        teacher_calls=teacher.calls_at(2.0 if knobs.guidance else 1.0) * knobs.batch,
        guidance_scale=None if knobs.guidance else 1.0,
    )


CARD = Card(
    id="lcm",
    title="Latent consistency model (LCM)",
    paper="arXiv 2310.04378, alg. 1",
    deck="slides 13 to 15",
    equation="d(f(x_t, g, t), f_ema(x_r, g, r)), x_r by one guided DDIM step",
    needs="teacher",
    train=lcm,
    knobs=LCMKnobs,
    sampler=Sampler("lcm"),
    color=ORANGE,
    marker="^",
    dash="dashdot",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 2500, "intervals": 80},
        "images": {"batch": 64, "lr": 1e-3, "updates": 500, "distance": "huber", "c": 0.015},
        "latents": {  # w from 2 to 14
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "distance": "element-huber",
            "c": 1e-3,
            "intervals": 50,
            "g_min": 3.0,
            "g_max": 15.0,
        },
    },
)
