"""One regression, four algorithms: what differs is where the pairs (x_0, eps) come from, the schedule and the kind.

| algorithm of the deck | pairs | schedule | kind |
|---|---|---|---|
| 1, flow matching | independent | linear | velocity |
| 2, diffusion | independent | any | any |
| 3, rectified flow | (eps, ODE(eps)) of a teacher | linear | velocity |
| 4, Rectified Diffusion | (eps, ODE(eps)) of a teacher | the teacher's | the teacher's |
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_share, unknown
from ..denoisers import Denoiser
from ..prediction import KINDS, Prediction, jump
from ..problems.base import Problem
from ..schedules import Linear, Schedule, schedule
from ..training import EMA, Draws, Loss, Turn
from .base import Knobs, Training, drop_labels
from .distances import mse

Pair = tuple[Prediction, Tensor | None]
"""A pair (x_0, eps) as the belief that a perfect first-order model has along its path, and the condition (B,) or None."""

Coupling = Callable[[Draws], Pair]
"""coupling(draws) -> one batch of pairs."""


def independent(problem: Problem, schedule: Schedule, batch: int, drop: float) -> Coupling:
    """Data and noise drawn independently: the coupling of diffusion and of flow matching. `ValueError` if `drop` is no share."""
    check_share(drop, "drop")

    def coupling(draws: Draws) -> Pair:
        x0, cond = draws.rows(problem.data, batch)
        eps = draws.normal(batch, *problem.shape)
        anywhere = torch.ones(
            (), dtype=x0.dtype, device=x0.device
        )  # what is used of the pair is (x_0, eps), not its place
        return Prediction(eps, anywhere, x0, eps, schedule), drop_labels(cond, drop, draws, batch)

    return coupling


def snr_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """max(SNR, 1), SNR = alpha^2/sigma^2, (B,): progressive distillation's weight of errors in x_0 (arXiv 2202.00512, sec. 4)."""
    return (schedule.alpha(t) / schedule.sigma(t)).square().clamp(min=1)


Distance = Callable[[Prediction, Prediction], Tensor]
"""distance(student's belief, pair) -> (B,)."""


def in_own_kind(kind: str) -> Distance:
    """|y_student - y|^2 of the kind that the student predicts: the loss of Algorithms 1 to 4 as the deck prints them."""

    def distance(p: Prediction, pair: Prediction) -> Tensor:
        return mse(p.read(kind), _read(pair, p.t, kind))

    return distance


def _read(pair: Prediction, t: Tensor, kind: str) -> Tensor:
    """The pair's own value of a kind at time t."""
    return Prediction(pair.x, t, pair.x0, pair.eps, pair.schedule).read(kind)


def regression(student: Denoiser, coupling: Coupling, times: Callable[[Draws], Tensor], distance: Distance) -> Loss:
    """E d(D(x_t, t), (x_0, eps)) with x_t = alpha x_0 + sigma eps: Algorithms 1 to 4 of the deck, line by line."""

    def loss(step: int, draws: Draws) -> Tensor:
        pair, cond = coupling(draws)  # (x_0, eps) ~ coupling
        t = times(draws)  # t ~ p(t)
        x_t = jump(pair, t)  # x_t = alpha_t x_0 + sigma_t eps, with the pair's own eps
        return distance(student(x_t, t, cond), pair).mean()

    return loss


def uniform_times(batch: int, least: float = 1e-3, edge: float = 0.0) -> Callable[[Draws], Tensor]:
    """t uniform between `least` and 1, and a share `edge` of the batch at t = 1 itself, (batch,). `ValueError` if `edge` is no share below 1.

    At t = 0 there is nothing to learn, and some kinds are infinite there.
    """
    if check_share(edge, "edge") == 1:
        raise ValueError(
            "edge must leave some of the batch below t = 1, got 1; naive distillation trains at t = 1 alone"
        )
    beyond = least + (1 - least) / (1 - edge)  # what would lie beyond t = 1 is the share at the edge
    return lambda draws: draws.uniform(batch, least, beyond).clamp(max=1.0)


def only_noise(batch: int) -> Callable[[Draws], Tensor]:
    """t = 1, (batch,): for a student that will only ever be called there."""
    return lambda draws: draws.uniform(batch, 1.0, 1.0)


@dataclass(frozen=True)
class DiffusionKnobs(Knobs):
    """`schedule`, a name, empty for the problem's own; `kind` of prediction, empty for that of the model it starts from, or the problem's; `drop`, share of labels dropped for guidance."""

    schedule: str = ""
    kind: str = "eps"
    drop: float = 0.1


def diffusion(
    problem: Problem, knobs: DiffusionKnobs, teacher: None = None, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Algorithm 2: train a diffusion model on data, on any schedule, predicting any kind (arXiv 2006.11239, alg. 1).

    The loss is the plain mean square in the predicted kind; which kind is which weight of the same loss: |v - v'|^2 = (sigma lambda')^2
    |eps - eps'|^2 = (alpha lambda')^2 |x_0 - x_0'|^2.
    """
    kind = knobs.kind or (problem.kind if start is None else start.kind)
    if kind not in KINDS:
        raise unknown("kind of prediction", kind, KINDS)
    own = schedule(knobs.schedule) if knobs.schedule else problem.schedule
    student = problem.student(own, kind, start=start)
    coupling = independent(problem, own, knobs.batch, knobs.drop)
    loss = regression(student, coupling, uniform_times(knobs.batch), in_own_kind(kind))
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)])


@dataclass(frozen=True)
class FlowMatchingKnobs(Knobs):
    """`drop`, share of labels dropped for guidance."""

    drop: float = 0.1


def flow_matching(
    problem: Problem, knobs: FlowMatchingKnobs, teacher: None = None, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Algorithm 1: flow matching (arXiv 2210.02747, eq. 23; arXiv 2209.03003, eq. 1), x_t = (1 - t) x_0 + t eps, |v - (eps - x_0)|^2.

    The deck prints x_0 - eps, the same with time reversed. It is Algorithm 2 on the linear schedule with kind velocity.
    """
    student = problem.student(Linear(), "velocity", start=start)
    coupling = independent(problem, student.schedule, knobs.batch, knobs.drop)
    loss = regression(student, coupling, uniform_times(knobs.batch), in_own_kind("velocity"))
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)])
