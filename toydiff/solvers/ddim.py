"""DDIM (arXiv 2010.02502): the jump, and its stochastic relatives."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Coefficient, Schedule, combine
from ..support.checks import check_number
from .base import Solver, at_least_zero, given, root
from .entry import BLACK, Entry


def posterior_variance(schedule: Schedule, t: Tensor, s: Tensor) -> Coefficient:
    """beta~ of q(x_s | x_t, x_0) (arXiv 2006.11239, eq. 7): (sigma_s^2/sigma_t^2) (sigma_t^2 - (alpha_t/alpha_s)^2
    sigma_s^2)."""
    (alpha_t, sigma_t, _), (alpha_s, sigma_s, _) = schedule.levels(t), schedule.levels(s)
    return (sigma_s / sigma_t) ** 2 * at_least_zero(sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2)


@dataclass(frozen=True)
class DDIM(Solver):
    """x_s = alpha_s x_0 + sigma_s eps: a jump (arXiv 2010.02502, eq. 12). Also DPM-Solver-1 and EDM's Euler.

    eta > 0 replaces part of the predicted noise by fresh noise: x_s = alpha_s x_0 + sqrt(sigma_s^2 - v^2) eps + v xi,
    v^2 = eta^2 beta~ (eq. 16); eta = 1 is DDPM ancestral sampling with the small variance.
    """

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= check_number(self.eta, "eta") <= 1:
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
        alpha_s, sigma_s, _ = D.schedule.levels(s)
        v2 = self.eta**2 * posterior_variance(D.schedule, t, s)
        return combine((alpha_s, p.x0), (root(sigma_s**2 - v2), p.eps), (root(v2), given(noise))), p


DDIM_ENTRIES = [
    Entry(
        name="ddim",
        solver=DDIM(),
        title="DDIM = DPM-Solver-1 = Euler in NSR",
        paper="arXiv 2010.02502, eq. 12",
        color=BLACK,
        marker="o",
        dash="solid",
        elsewhere={
            "diffusers": "DDIMScheduler, EulerDiscreteScheduler",
            "k-diffusion": "sample_euler",
            "UI": "DDIM, Euler",
        },
    ),
]
