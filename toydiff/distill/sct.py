"""Stable consistency tuning, SCT (arXiv 2410.18958; slide 17 of the deck).

ECT with the neighbour from a reference batch, not from one sample. The target has the same mean and less variance.

    1  {x_0^(i)} ~ data,  ln NSR_t ~ N(mean, std^2),  within the schedule's range
    2  NSR_r = NSR_t max(0, 1 - q^-(stage + 1) (1 + k sigmoid(-b NSR_t)))
    3  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    4  w_i = softmax_i(-|x_t - alpha_t x_0^(i)|^2/(2 sigma_t^2))  over the batch, within a label where there are labels
    5  x~_0 = sum_i w_i x_0^(i),  eps~ = (x_t - alpha_t x~_0)/sigma_t,  x_r = alpha_r x~_0 + sigma_r eps~
    6  y = f_theta(x_r, r),  x~_0 itself where r = 0                           no gradient
    7  loss = d(f_theta(x_t, t), y)/(NSR_t - NSR_r)                            f(x, t) = jump(D(x, t), 0)

The batch is drawn first and then noised, so that it holds the source of x_t. Therefore E[x~_0 | x_t] = E[x_0 | x_t] for
every batch size n, and the variance is smaller than that of one sample. Slide 17 has 1/n in front of the weights, which
is a slip: they already sum to one.
"""

import torch

from ..mixtures import Empirical
from ..prediction import jump
from ..solvers.registry import GREEN
from .base import Card, Sampler, Training, batch_of, one_turn
from .consistency import consistency_student, target_jump, target_of
from .distances import distance
from .ect import TuningKnobs, nearer


def sct_loss(student, target, d, x0, cond, draws, stage, *, mean=-1.1, std=2.0, q=2.0, k=8.0, b=1.0):
    """A scalar. d: a distance; x0 (B, ...): the samples, which are also the reference batch; cond (B,) or None; stage:
    0, 1, ...; the rest as the knobs."""
    on = student.schedule
    most = min(float(on.nsr(torch.ones((), dtype=torch.float64))), 80.0)  # the schedule's range, and at most EDM's
    nsr_t = torch.exp(mean + std * draws.normal(len(x0))).clamp(2e-3, most)  # 1
    nsr_r = nearer(nsr_t, stage, q, k, b)  # 2
    t, r = on.t_of_lam(-torch.log(nsr_t)), on.t_of_lam(-torch.log(nsr_r))
    x_t = on.mix(x0, draws.normal(*x0.shape), t)  # 3
    x_r = jump(Empirical(x0, cond).denoiser(on)(x_t, t, cond), r)  # 4, 5: x~_0 is the ideal denoiser's of the batch
    y = target_jump(target, x_r, r, 0.0, cond, t=t)  # 6
    return (1 / (on.nsr(t) - on.nsr(r)) * d(jump(student(x_t, t, cond), 0.0), y)).mean()  # 7


def stable_consistency_tuning(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its target, and the one turn of an update."""
    knobs.check()
    d = distance(knobs.distance, knobs.c)
    student = consistency_student(problem, teacher, start)
    target, targets = target_of(student, knobs.target_ema)

    def turn(step, draws):
        x0, cond = batch_of(problem, knobs.batch, draws)
        stage = step * knobs.stages // knobs.updates
        return sct_loss(student, target, d, x0, cond, draws, stage, **knobs.mapping())

    return one_turn(student, turn, knobs, targets)


CARD = Card(
    id="sct",
    title="Stable consistency tuning (SCT)",
    paper="arXiv 2410.18958",
    deck="slide 17",
    equation="|f(x_t, t) - f(x_r, r)|/(NSR_t - NSR_r), x_r by the reference batch's mean of x_0",
    needs="teacher",
    train=stable_consistency_tuning,
    knobs=TuningKnobs,
    sampler=Sampler("lcm"),
    color=GREEN,
    marker="^",
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
