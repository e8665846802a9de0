"""The sampler of trajectory consistency distillation (arXiv 2402.19159), and of Hyper-SD."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump, noise_travel
from ..support.checks import check_number
from .base import Solver, given
from .entry import PURPLE, Entry


@dataclass(frozen=True)
class TCD(Solver):
    """A jump beyond the step's end, to r = (1 - eta) s, and noise from r back to s (arXiv 2402.19159, alg. 2; gamma
    there): x_s = (alpha_s/alpha_r) x_r + sqrt(sigma_s^2 - (alpha_s/alpha_r)^2 sigma_r^2) xi.

    eta = 0 is DDIM, and eta = 1 is `lcm`. As there, it is made for a model whose jumps end on the ODE. With an ordinary
    denoiser jumps of eta > 0 do not get shorter with more steps, and `order` is 0.
    """

    eta: float = 0.3

    def __post_init__(self):
        if not 0 <= check_number(self.eta, "eta") <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}")

    @property
    def order(self) -> int:
        return 0 if self.eta > 0 else 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p, r = D(x, t), self.beyond(s)
        x_r = jump(p, r)
        return (noise_travel(D.schedule, x_r, r, s, given(noise)) if self.stochastic else x_r), p

    def beyond(self, s: Tensor) -> Tensor:
        """r of a step that ends at s."""
        return (1 - self.eta) * s if self.stochastic else s


TCD_ENTRIES = [
    Entry(
        name="tcd",
        solver=TCD(),
        title="Trajectory consistency sampling: a jump beyond, and noise back (eta = 0.3)",
        paper="arXiv 2402.19159, alg. 2",
        color=PURPLE,
        marker="D",
        dash="dot",
        elsewhere={"diffusers": "TCDScheduler", "UI": "TCD"},
    ),
]
