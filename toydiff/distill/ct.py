"""Consistency training, CT (arXiv 2303.01469, algorithm 3), and improved, iCT (arXiv 2310.14189; slide 16 of the deck).

Consistency without a teacher: both neighbours are one x_0 with one noise. The sample x_0 stands in for the teacher's
mean E[x_0 | x_t].

    1  x_0 ~ data,  n ~ p(n) on Karras's grid of N(k) intervals at update k,  t = t_{n+1},  r = t_n
    2  x_t = alpha_t x_0 + sigma_t eps,  x_r = alpha_r x_0 + sigma_r eps,  the SAME eps ~ N(0, I)
    3  y = f_theta-(x_r, r)                                            no gradient
    4  loss = w_n d(f_theta(x_t, t), y)                                f(x, t) = jump(D(x, t), 0)

CT: N grows slowly, n is uniform, w = 1, and theta- is an average with mu = exp(s0 log mu0/N). iCT: N doubles, n has the
log-normal density of its NSR, w = 1/(NSR_t - NSR_r), and theta- = theta. Slide 16 has an integral of eps: it is this
Euler step, with the sample x_0 as the denoiser's. The target is unbiased to first order in the gap, and noisy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grids import time_grid
from ..prediction import jump
from ..schedules import Schedule
from ..solvers.registry import GREY
from ..support.checks import check_count, check_positive, unknown
from ..training import EMA
from .base import Card, Sampler, Training, batch_of, one_turn
from .consistency import ConsistencyKnobs, target_jump
from .distances import distance


def ct_loss(student, target, times, upto, weights, d, x0, cond, draws):
    """A scalar. times (N+1,), rising from data to noise; upto (N,): P(n' <= n), by which n is drawn; weights (N,): w_n;
    d: a distance; x0 (B, ...); cond (B,) or None."""
    n = torch.searchsorted(upto, draws.uniform(len(x0)).to(upto)).clamp(max=len(upto) - 1)  # 1
    t, r = times[n + 1], times[n]
    eps = draws.normal(*x0.shape)
    x_t, x_r = student.schedule.mix(x0, eps, t), student.schedule.mix(x0, eps, r)  # 2
    y = target_jump(target, x_r, r, 0.0, cond, t=t)  # 3
    return (weights[n] * d(jump(student(x_t, t, cond), 0.0), y)).mean()  # 4


@dataclass(frozen=True)
class CTKnobs(ConsistencyKnobs):
    """Those of the consistency family, of which `target_ema` is mu0 of "cm" and without effect in "ict", and:"""

    curriculum: str = "ict"
    """How the grid gets finer: "cm" (CT) or "ict" (iCT)."""
    first: int = 10
    """s0. At the start "ict" has s0 intervals, and "cm", whose paper counts points, s0 - 1."""
    last: int = 160
    """s1 >= s0, the intervals at the end."""
    mean: float = -1.1
    """The mean of log NSR, by which "ict" draws its intervals."""
    std: float = 2.0
    """The standard deviation of log NSR there, > 0."""
    distance: str = "huber"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""
    c: float = 0.01
    """c > 0 of the pseudo-Huber distances."""


def cm_intervals(k: float, s0: int, s1: int) -> int:
    """N(k) - 1 with N(k) = ceil(sqrt(k ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1, k from 0 to 1 (arXiv 2303.01469, app. C).
    N counts points, the result intervals."""
    return max(math.ceil(math.sqrt(k * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1)


def ict_intervals(k: float, s0: int, s1: int) -> int:
    """min(s0 2^floor(k/K'), s1), K' = 1/(log2(s1/s0) + 1) of the training, k in [0, 1]: arXiv 2310.14189, sec. 3.4."""
    stages = math.floor(math.log2(s1 / s0)) + 1
    return min(s0 * 2 ** math.floor(min(k, 1 - 1e-9) * stages), s1)


CURRICULA = {"cm": cm_intervals, "ict": ict_intervals}
"""How many intervals there are, by name of the curriculum."""


def lognormal_mass(schedule: Schedule, times: Tensor, mean: float, std: float) -> Tensor:
    """The mass of a normal distribution of log NSR in each interval of rising times, (N,): arXiv 2310.14189, eq. 10."""
    log_nsr = -schedule.lam(times)
    return torch.erf((log_nsr - mean) / (math.sqrt(2) * check_positive(std, "std"))).diff().clamp(min=1e-12)


def intervals(schedule: Schedule, N: int, knobs: CTKnobs) -> tuple[Tensor, Tensor, Tensor]:
    """(times, upto, weights) of `ct_loss` on a grid of N intervals."""
    times = time_grid(schedule, N, "karras").flip(0)
    at = times.to(torch.get_default_dtype())
    if knobs.curriculum == "cm":
        return at, torch.ones(N).cumsum(0) / N, torch.ones(N)
    mass = lognormal_mass(schedule, times, knobs.mean, knobs.std)
    return at, mass.cumsum(0) / mass.sum(), 1 / schedule.nsr(at).diff()


def consistency_training(problem, knobs, teacher=None, pairs=None, start=None) -> Training:
    """The student, its target, and the one turn of an update on a grid that gets finer."""
    if knobs.curriculum not in CURRICULA:
        raise unknown("curriculum", knobs.curriculum, CURRICULA)
    if not 1 <= check_count(knobs.first, "first") <= check_count(knobs.last, "last"):
        raise ValueError(f"first must not exceed last, got {knobs.first} and {knobs.last} intervals")
    d, grids = distance(knobs.distance, knobs.c), {}
    student = problem.student(problem.schedule, "v" if start is None else start.kind, start=start)
    target = EMA(student, knobs.target_ema, warm=False)

    def turn(step, draws):
        N = CURRICULA[knobs.curriculum](step / knobs.updates, knobs.first, knobs.last)
        target.decay = knobs.target_ema ** (knobs.first / N) if knobs.curriculum == "cm" else 0.0
        if N not in grids:
            times, upto, weights = intervals(student.schedule, N, knobs)
            grids[N] = times.to(draws.device), upto, weights.to(draws.device)
        x0, cond = batch_of(problem, knobs.batch, draws)
        return ct_loss(student, target.module, *grids[N], d, x0, cond, draws)

    return one_turn(student, turn, knobs, {"target": target})


CARD = Card(
    id="ct",
    title="Consistency training (CT, iCT)",
    paper="arXiv 2303.01469, alg. 3; arXiv 2310.14189",
    deck="slide 16",
    equation="d(f(x_t, t), f(x_r, r)), the same x_0 and eps at t and r",
    needs="nothing",
    train=consistency_training,
    knobs=CTKnobs,
    sampler=Sampler("lcm"),
    color=GREY,
    marker="^",
    dash="dot",
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
