"""Euler's method in t: on the probability-flow ODE, and Euler-Maruyama on the reverse SDE family (arXiv 2011.13456)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import Schedule, expand
from ..support.checks import check_number
from .base import InnerStep, Solver, given
from .entry import GREY, PURPLE, Entry


def _finite_rates(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    rates = schedule.rates(t)
    if not all(bool(torch.isfinite(rate).all()) for rate in rates):
        raise ValueError(
            f"a step in t cannot leave t = {float(t.max()):g} on {schedule!r}, where alpha' or sigma' is infinite; "
            "ddim can"
        )
    return rates


@dataclass(frozen=True)
class Euler(Solver):
    """x_s = x_t + (s - t) dx/dt, dx/dt = alpha' x_0 + sigma' eps = f x - g^2 score/2 (arXiv 2011.13456, eq. 13).

    On the linear schedule this is DDIM. Elsewhere it depends on how the schedule runs through t, which DDIM does not.
    """

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        alpha_rate, sigma_rate = _finite_rates(D.schedule, t)
        return x + expand((s - t) * alpha_rate, x) * p.x0 + expand((s - t) * sigma_rate, x) * p.eps, p


@dataclass(frozen=True)
class EulerMaruyama(InnerStep):
    """x_s = x_t + (s - t) [f x - (1 + eta^2)/2 g^2 score] + eta g sqrt(t - s) xi.

    All eta have the same marginals (arXiv 2206.00364, eq. 6; arXiv 2011.13456, eq. 6 is eta = 1); eta = 0 is Euler on
    the PF-ODE. f x - g^2 score/2 = alpha' x_0 + sigma' eps and g^2 = -2 sigma^2 lambda'. The steps from alpha = 0,
    where g is infinite, and to sigma = 0 are jumps without noise.
    """

    eta: float = 1.0

    def __post_init__(self):
        if check_number(self.eta, "eta") < 0:
            raise ValueError(f"eta must be >= 0, got {self.eta!r}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        x, t, schedule = p.x, p.t, D.schedule
        alpha_rate, sigma_rate = _finite_rates(schedule, t)
        alpha, sigma, _ = schedule.levels(t)
        dt = s - t  # negative: time runs backwards
        g2 = 2 * sigma * (sigma_rate - sigma * alpha_rate / alpha)
        drift = (
            expand(dt * alpha_rate, x) * p.x0 + expand(dt * (sigma_rate + 0.5 * self.eta**2 * g2 / sigma), x) * p.eps
        )
        if self.eta == 0:
            return x + drift
        return x + drift + expand(self.eta * torch.sqrt(g2 * -dt), x) * given(noise)


EULER_ENTRIES = [
    Entry(
        name="euler",
        solver=Euler(),
        title="Euler on the PF-ODE, in t",
        paper="arXiv 2011.13456, eq. 13",
        color=GREY,
        marker="s",
        dash="dot",
        elsewhere={"diffusers": "FlowMatchEulerDiscreteScheduler (on the linear schedule)"},
    ),
]

EULER_MARUYAMA_ENTRIES = [
    Entry(
        name="euler-maruyama",
        solver=EulerMaruyama(),
        title="Euler-Maruyama on the reverse SDE",
        paper="arXiv 2011.13456, eq. 6",
        color=PURPLE,
        marker="v",
        dash="dot",
        elsewhere={"diffusers": "ScoreSdeVpScheduler (VP; deprecated there)"},
    ),
]
