"""DDPM ancestral sampling (arXiv 2006.11239)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import combine
from ..support.checks import unknown
from .base import Solver, at_least_zero, given, root
from .ddim import posterior_variance
from .entry import PURPLE, Entry


@dataclass(frozen=True)
class DDPM(Solver):
    """x_s ~ N(mu, v I), mu = (alpha_ts sigma_s^2/sigma_t^2) x_t + (alpha_s sigma_ts^2/sigma_t^2) x_0 (arXiv 2006.11239,
    eq. 7, 11).

    alpha_ts = alpha_t/alpha_s, sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2. `variance`: "small", v = beta~ =
    sigma_ts^2 sigma_s^2/sigma_t^2, exact for one data point; "large", v = sigma_ts^2, exact for standard normal data
    (sec. 3.2). No noise is added on the step to sigma = 0.
    """

    variance: str = "small"
    stochastic = True

    def __post_init__(self):
        if self.variance not in ("small", "large"):
            raise unknown("DDPM variance", self.variance, ("small", "large"))

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p, schedule = D(x, t), D.schedule
        (alpha_t, sigma_t, _), (alpha_s, sigma_s, _) = schedule.levels(t), schedule.levels(s)
        alpha_ts = alpha_t / alpha_s
        sigma2_ts = at_least_zero(sigma_t**2 - (alpha_ts * sigma_s) ** 2)
        v = posterior_variance(schedule, t, s) if self.variance == "small" else (sigma_s > 0) * sigma2_ts
        to_x, to_x0 = alpha_ts * (sigma_s / sigma_t) ** 2, alpha_s * sigma2_ts / sigma_t**2
        return combine((to_x, x), (to_x0, p.x0), (root(v), given(noise))), p


DDPM_ENTRIES = [
    Entry(
        name="ddpm",
        solver=DDPM(),
        title="DDPM ancestral, small variance",
        paper="arXiv 2006.11239, eq. 11",
        color=PURPLE,
        marker="o",
        dash="solid",
        elsewhere={
            "diffusers": "DDPMScheduler (fixed_small), EulerAncestralDiscreteScheduler, DDIMScheduler (eta = 1)",
            "k-diffusion": "sample_euler_ancestral",
            "UI": "Euler a, DDPM",
        },
    ),
    Entry(
        name="ddpm-large",
        solver=DDPM("large"),
        title="DDPM ancestral, large variance",
        paper="arXiv 2006.11239, sec. 3.2",
        color=PURPLE,
        marker="s",
        dash="dash",
        elsewhere={"diffusers": "DDPMScheduler (fixed_large)"},
    ),
]
