"""The sampler of consistency models: denoise, re-noise (arXiv 2303.01469, alg. 1; LCM's sampler, arXiv 2310.04378)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import Schedule, combine
from .base import Solver, given
from .entry import PURPLE, Entry


@dataclass(frozen=True)
class LCM(Solver):
    """x_s = alpha_s x_0 + sigma_s xi: all of the predicted noise is replaced by fresh noise; at sigma_s = 0 none is
    added.

    Made for a model whose x_0 is where the ODE ends: then every step starts from the right distribution, whatever the
    number of steps. An ordinary denoiser's x_0 is a mean, and more steps never bring it to the data: `order` is 0. In
    one step it is a `jump`, as DDIM is.
    """

    order = 0
    stochastic = True

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        return self.renoise(p, s, D.schedule, given(noise)), p

    def renoise(self, p: Prediction, s: Tensor, schedule: Schedule, noise: Tensor) -> Tensor:
        """alpha_s x_0 + sigma_s xi of a prediction's x_0."""
        alpha, sigma, _ = schedule.levels(s)
        return combine((alpha, p.x0), (sigma, noise))


LCM_ENTRIES = [
    Entry(
        name="lcm",
        solver=LCM(),
        title="Consistency sampling: denoise, re-noise",
        paper="arXiv 2303.01469, alg. 1",
        color=PURPLE,
        marker="^",
        dash="dash",
        elsewhere={"diffusers": "LCMScheduler, CMStochasticIterativeScheduler", "UI": "LCM"},
    ),
]
