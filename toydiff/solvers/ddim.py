"""DDIM (arXiv 2010.02502): the jump, and its stochastic relatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Schedule, expand
from .base import Solver


def posterior_variance(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """beta~ of q(x_s | x_t, x_0) (arXiv 2006.11239, eq. 7): (sigma_s^2/sigma_t^2) (sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2)."""
    alpha_ts = schedule.alpha(t) / schedule.alpha(s)
    sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
    return (sigma_s / sigma_t) ** 2 * (sigma_t**2 - (alpha_ts * sigma_s) ** 2).clamp(min=0)


@dataclass(frozen=True)
class DDIM(Solver):
    """x_s = alpha_s x_0 + sigma_s eps: a jump (arXiv 2010.02502, eq. 12). Also DPM-Solver-1 and EDM's Euler.

    eta > 0 replaces part of the predicted noise by fresh noise: x_s = alpha_s x_0 + sqrt(sigma_s^2 - v^2) eps + v xi,
    v^2 = eta^2 beta~ (eq. 16); eta = 1 is DDPM ancestral sampling with the small variance.
    """

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        if self.eta == 0:
            return jump(p, s), p
        sigma_s = D.schedule.sigma(s)
        v2 = self.eta**2 * posterior_variance(D.schedule, t, s)
        mean = expand(D.schedule.alpha(s), x) * p.x0 + expand(torch.sqrt((sigma_s**2 - v2).clamp(min=0)), x) * p.eps
        return mean + expand(torch.sqrt(v2), x) * noise, p
