"""PLMS, the pseudo linear multistep method of PNDM (arXiv 2202.09778), the default sampler of Stable Diffusion 1.x."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import combine
from .base import Solver, everywhere
from .dpm import usable
from .entry import GREEN, Entry

ADAMS = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""The coefficients of Adams-Bashforth on equal steps, the newest value first."""


@dataclass(frozen=True)
class PLMS(Solver):
    """A jump with eps' = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3)/24, eps_0 the newest (arXiv 2202.09778,
    sec. 3.3).

    The first step takes the mean of eps at its two ends, the second reached by a jump (one call more); the next ones
    take Adams-Bashforth's coefficients of order 2 and 3. All are those of equal steps, whatever the grid is. The jump
    multiplies eps' by the change of NSR as a whole, and the mean of a product is not the product of the means: unless
    the steps are equal in NSR, the order is 2.

    kind: what is averaged. In "eps" it is the paper's; diffusers averages what the network predicts.
    """

    kind: str = "eps"
    order = 2
    memory = 3

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p, olds = D(x, t), usable(D.schedule, past)[:3]
        at_an_end = everywhere(D.schedule.levels(t).alpha == 0) or everywhere(D.schedule.levels(s).sigma == 0)
        if at_an_end and not olds:
            return jump(p, s), p
        if olds:
            values, weights = [p, *olds], ADAMS[1 + len(olds)]
        else:
            values, weights = [p, D(jump(p, s), s)], (1 / 2, 1 / 2)
        y = combine(*((w, value.read(self.kind)) for w, value in zip(weights, values, strict=True)))
        return jump(Prediction.of(self.kind, y, x, t, D.schedule), s), p


PLMS_ENTRIES = [
    Entry(
        name="plms",
        solver=PLMS(),
        title="PLMS, the multistep form of PNDM",
        paper="arXiv 2202.09778, sec. 3.3",
        color=GREEN,
        marker="s",
        dash="dashdot",
        elsewhere={"diffusers": "PNDMScheduler (skip_prk_steps)", "UI": "PLMS"},
    ),
]
