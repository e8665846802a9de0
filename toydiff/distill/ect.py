"""Easy consistency tuning, ECT (arXiv 2406.14548, algorithm 1; slides 16, 17 of the deck).

Consistency training that begins with a diffusion model's weights. Stage by stage the neighbour r draws nearer to t. At
stage 0, r = 0 where NSR_t < 2, which is diffusion training; elsewhere NSR_r is at most half of NSR_t.

    1  x_0 ~ data,  ln NSR_t ~ N(mean, std^2),  within the schedule's range
    2  NSR_r = NSR_t max(0, 1 - q^-(stage + 1) (1 + k sigmoid(-b NSR_t)))      from data towards t as the stages pass
    3  x_t = alpha_t x_0 + sigma_t eps,  x_r = alpha_r x_0 + sigma_r eps,  the SAME eps ~ N(0, I)
    4  y = f_theta(x_r, r),  x_0 itself where r = 0                            no gradient
    5  loss = d(f_theta(x_t, t), y)/(NSR_t - NSR_r)                            f(x, t) = jump(D(x, t), 0)

The paper's time is the NSR. The teacher gives its weights only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..prediction import jump
from ..solvers.registry import SKY
from ..support.checks import check_count, check_number, check_positive
from .base import Card, Sampler, Training, batch_of, one_turn
from .consistency import ConsistencyKnobs, consistency_student, target_jump, target_of
from .distances import distance


def ect_loss(student, target, d, x0, cond, draws, stage, *, mean=-1.1, std=2.0, q=2.0, k=8.0, b=1.0):
    """A scalar. d: a distance; x0 (B, ...); cond (B,) or None; stage: 0, 1, ...; the rest as the knobs."""
    on = student.schedule
    most = min(float(on.nsr(torch.ones((), dtype=torch.float64))), 80.0)  # the schedule's range, and at most EDM's
    nsr_t = torch.exp(mean + std * draws.normal(len(x0))).clamp(2e-3, most)  # 1
    nsr_r = nearer(nsr_t, stage, q, k, b)  # 2
    t, r = on.t_of_lam(-torch.log(nsr_t)), on.t_of_lam(-torch.log(nsr_r))
    eps = draws.normal(*x0.shape)
    x_t, x_r = on.mix(x0, eps, t), on.mix(x0, eps, r)  # 3
    y = target_jump(target, x_r, r, 0.0, cond, t=t)  # 4
    return (1 / (on.nsr(t) - on.nsr(r)) * d(jump(student(x_t, t, cond), 0.0), y)).mean()  # 5


def nearer(nsr: Tensor, stage: int, q: float, k: float, b: float) -> Tensor:
    """NSR_r of NSR_t at a stage: from 0, the clean sample, towards NSR_t as the stages pass (arXiv 2406.14548, sec.
    3.3, as in its code)."""
    return nsr * (1 - q ** -(stage + 1) * (1 + k * torch.sigmoid(-b * nsr))).clamp(min=0)


@dataclass(frozen=True)
class TuningKnobs(ConsistencyKnobs):
    """Those of the consistency family, and:"""

    distance: str = "huber"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""
    mean: float = -1.1
    """The mean of log NSR_t."""
    std: float = 2.0
    """The standard deviation of log NSR_t, > 0."""
    stages: int = 8
    """The number of stages, which are equally long."""
    q: float = 2.0
    """How fast the neighbour draws nearer, > 1: the gap falls as q^-(stage + 1)."""
    k: float = 8.0
    """How much wider the gap is at small NSR: by the factor 1 + k/2 at NSR = 0."""
    b: float = 1.0
    """What counts as a small NSR: one below about 1/b."""

    def check(self) -> None:
        """`ValueError` for values outside these ranges."""
        check_count(self.stages, "stages")
        check_number(self.mean, "mean")
        check_positive(self.std, "std")
        if self.q <= 1:
            raise ValueError(f"q must exceed 1, so that the neighbours draw nearer, got {self.q:g}")

    def mapping(self) -> dict[str, float]:
        """What `ect_loss` and `sct_loss` take by name."""
        return {name: getattr(self, name) for name in ("mean", "std", "q", "k", "b")}


def easy_consistency_tuning(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its target, and the one turn of an update."""
    knobs.check()
    d = distance(knobs.distance, knobs.c)
    student = consistency_student(problem, teacher, start)
    target, targets = target_of(student, knobs.target_ema)

    def turn(step, draws):
        x0, cond = batch_of(problem, knobs.batch, draws)
        stage = step * knobs.stages // knobs.updates
        return ect_loss(student, target, d, x0, cond, draws, stage, **knobs.mapping())

    return one_turn(student, turn, knobs, targets)


CARD = Card(
    id="ect",
    title="Easy consistency tuning (ECT)",
    paper="arXiv 2406.14548, alg. 1",
    deck="slides 16, 17",
    equation="|f(x_t, t) - f(x_r, r)|/(NSR_t - NSR_r), r from 0 towards t",
    needs="teacher",
    train=easy_consistency_tuning,
    knobs=TuningKnobs,
    sampler=Sampler("lcm"),
    color=SKY,
    marker="^",
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
        },
    },
)
