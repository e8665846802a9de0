"""Multistep consistency distillation (arXiv 2403.06807, algorithm 1; slide 32 and reference 12 of the deck).

Consistency within each of M phases; M = 1 is a consistency model. Their z is our x.

    1  x_0 ~ data,  a phase's lower edge ~ U{0, 1/M ... 1 - 1/M},  t ~ U(edge, edge + 1/M],  s = max(t - 1/(M N), edge)
    2  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    3  x_s = the teacher's DDIM step t -> s                            no gradient
    4  x_ref = DDIM(x_0 student-(x_s, s), s -> edge),  x_s itself where s = edge       no gradient
    5  y = invDDIM(x_ref, x_t): the x_0 whose DDIM step from x_t lands on x_ref
    6  loss = max(SNR_t, 1) d(x_0 student(x_t, t), y)

N, the teacher's steps in a phase, rises log-linearly during the training, so the gap t - s falls. The paper's aDDIM
correction of the teacher's step is left out: it assumes that x_0 and eps are orthogonal, which holds in high dimensions
only. Sample with M uniform DDIM steps.
"""

from dataclasses import dataclass

import torch

from ..prediction import chord, jump
from ..solvers.registry import PURPLE
from ..support.checks import check_count, check_fraction
from .base import Card, Sampler, Training, batch_of, one_turn, snr_weight
from .consistency import ConsistencyKnobs, consistency_student, target_jump, target_of
from .distances import distance

LEAST = 1e-5
"""The least distance of a time from its phase's lower edge, as a fraction of the phase. Nearer, the two could round to
one noise level, and then there is no chord."""


def multistep_loss(student, target, teacher, M, N, d, x0, cond, draws, upper=0.0, guidance_scale=1.0):
    """A scalar. M: phases; N: the teacher's steps in each; d: a distance; x0 (B, ...); cond (B,) or None; upper: the
    probability of t = edge + 1/M; guidance_scale of the teacher."""
    on, B = student.schedule, len(x0)
    edge = draws.integers(B, M).to(x0.dtype) / M  # 1
    part = torch.where(draws.uniform(B) < upper, 1.0, (1 - draws.uniform(B)).clamp(min=LEAST))
    t = (edge + part / M).clamp(max=1)  # 1
    s = torch.maximum(t - 1 / (M * N), edge)  # 1
    x_t = on.mix(x0, draws.normal(*x0.shape), t)  # 2
    with torch.no_grad():
        x_s = jump(teacher(x_t, t, cond, guidance_scale), s)  # 3
    x_ref = target_jump(target, x_s, s, edge, cond, t=t)  # 4
    y = chord(on, x_t, t, x_ref, edge).x0  # 5
    return (snr_weight(on, t) * d(student(x_t, t, cond).x0, y)).mean()  # 6


@dataclass(frozen=True)
class MultistepKnobs(ConsistencyKnobs):
    """Those of the consistency family, and:"""

    phases: int = 4
    """M, the number of phases, which are equally long in t."""
    first: int = 8
    """N, the teacher's steps in a phase, at the start of the training."""
    last: int = 64
    """N at the end of the training."""
    edge: float = 0.25
    """The fraction, in [0, 1], of a batch at the upper edge of its phase. A sampler with one step a phase evaluates the
    student at these edges only. The paper has 0."""
    guidance_scale: float = 1.0
    """The teacher's guidance scale, which the student then has built in; 1 is off."""
    distance: str = "huber"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""
    c: float = 0.03
    """c > 0 of the pseudo-Huber distances."""


def multistep_consistency(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its target, and the one turn of an update."""
    M = check_count(knobs.phases, "phases")
    check_count(knobs.first, "first")
    check_count(knobs.last, "last")
    check_fraction(knobs.edge, "edge")
    d = distance(knobs.distance, knobs.c)
    student = consistency_student(problem, teacher, start)
    target, targets = target_of(student, knobs.target_ema)

    def turn(step, draws):
        N = round(knobs.first * (knobs.last / knobs.first) ** (step / knobs.updates))
        x0, cond = batch_of(problem, knobs.batch, draws)
        return multistep_loss(student, target, teacher, M, N, d, x0, cond, draws, knobs.edge, knobs.guidance_scale)

    return one_turn(
        student, turn, knobs, targets, teacher_calls=teacher.calls_at(knobs.guidance_scale) * knobs.batch, steps=(M,)
    )


CARD = Card(
    id="multistep-consistency",
    title="Multistep consistency",
    paper="arXiv 2403.06807, alg. 1",
    deck="slide 32, reference 12",
    equation="max(SNR, 1) |x_0(z_t, t) - invDDIM(z_ref, z_t)|^2, z_ref at the phase's edge",
    needs="teacher",
    train=multistep_consistency,
    knobs=MultistepKnobs,
    sampler=Sampler(steps=(4,)),
    color=PURPLE,
    marker="D",
    dash="dash",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 2500},
        "images": {"batch": 64, "lr": 1e-3, "updates": 500, "distance": "huber", "c": 0.015},
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "distance": "element-huber",
            "c": 1e-3,
            "guidance_scale": 7.5,
        },
    },
)
