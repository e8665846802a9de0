"""EDM's Heun sampler (arXiv 2206.00364), deterministic and with churn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import combine, expand
from ..support.checks import check_number
from .base import InnerStep, given
from .entry import GREY, Entry


@dataclass(frozen=True)
class Heun(InnerStep):
    """Heun's method on dz/dn = eps, z = x/alpha, n = NSR (arXiv 2206.00364, alg. 1 and 2).

    d = eps(x_t, t); x' = the jump to s; d' = eps(x', s); z_s = z_t + (n_s - n_t)(d + d')/2. The step to n = 0 is a
    jump, as theirs is.

    Churn (alg. 2, lines 5 and 6) first raises the noise level to n' = n (1 + gamma), where s_min <= n <= s_max. The
    noise that it adds to z has standard deviation s_noise sqrt(n'^2 - n^2). gamma lies in [0, sqrt(2) - 1]; their
    S_churn is gamma times the number of steps.
    """

    gamma: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0
    order = 2
    nfe_per_step = 2

    def __post_init__(self):
        if not 0 <= check_number(self.gamma, "gamma") <= math.sqrt(2) - 1:
            raise ValueError(f"gamma must lie in [0, sqrt(2) - 1], got {self.gamma!r}")
        if check_number(self.s_noise, "s_noise") < 0:
            raise ValueError(f"s_noise must be >= 0, got {self.s_noise!r}")
        if not self.s_min <= self.s_max:
            raise ValueError(f"s_min must not exceed s_max, got {self.s_min!r} and {self.s_max!r}")

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        if self.gamma > 0:
            x, t = self._churn(D, x, t, given(noise))
        return super().step(D, x, t, s, past, noise)

    def _churn(self, D: Denoiser, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        n = D.schedule.nsr(t)
        within = torch.isfinite(n) & (n >= self.s_min) & (n <= self.s_max)
        # a schedule has no time noisier than its t = 1
        t_hat = torch.where(within, D.schedule.t_of_lam(-torch.log(n * (1 + self.gamma))), t)
        n_hat = D.schedule.nsr(t_hat)
        ratio = torch.where(within, D.schedule.alpha(t_hat) / D.schedule.alpha(t), 1.0)
        extra = torch.where(within, self.s_noise * torch.sqrt((n_hat**2 - n**2).clamp(min=0)), 0.0)
        return expand(ratio, x) * x + expand(D.schedule.alpha(t_hat) * extra, x) * noise, t_hat

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        trial = D(jump(p, s), s)
        (alpha_t, sigma_t, _), (alpha_s, sigma_s, _) = D.schedule.levels(p.t), D.schedule.levels(s)
        half = 0.5 * alpha_s * (sigma_s / alpha_s - sigma_t / alpha_t)
        return combine((alpha_s / alpha_t, p.x), (half, p.eps + trial.eps))


HEUN_ENTRIES = [
    Entry(
        name="heun",
        solver=Heun(),
        title="EDM's Heun",
        paper="arXiv 2206.00364, alg. 1",
        color=GREY,
        marker="o",
        dash="solid",
        elsewhere={"diffusers": "HeunDiscreteScheduler", "k-diffusion": "sample_heun", "UI": "Heun"},
    ),
]
