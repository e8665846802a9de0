"""Adams-Bashforth on the PF-ODE in angle form, which is finite at both ends of every schedule.

With S^2 = sigma^2 + sigma_d^2 alpha^2 and theta = atan(NSR/sigma_d), the state w = x/S obeys dw/dtheta = -F, where F is
EDM's preconditioned prediction (arXiv 2206.00364, eq. 7); for sigma_d = 1 on a variance-preserving schedule this is
v-prediction on TrigFlow (arXiv 2410.11081, eq. 4). For Gaussian data of standard deviation sigma_d, F = 0 and every
step is exact: the error comes only from how the data differ from that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..denoisers import Denoiser
from ..grids import SHIFT
from ..prediction import Prediction, jump
from ..schedules import Schedule, combine
from ..support.checks import check_positive
from .base import Solver
from .entry import VERMILLION, Entry
from .quadrature import lagrange_weights


@dataclass(frozen=True)
class AdamsBashforth(Solver):
    """w_s = w_t - sum_j C_j F_j, C_j = int L_j (dtheta/du) du, with L_j Lagrange's polynomials in u through q model
    values.

    u = log((sigma + a alpha)/(sigma + b alpha)), (a, b) = `grids.SHIFT`, is about log NSR between NSR a and b, and
    finite where alpha = 0 or sigma = 0. So a walk of several steps needs no jump, and has order q from pure noise to
    clean data.

    The first step knows one value only. For q = 3 the next call's value corrects it (Adams-Moulton, as UniPC's
    corrector does); this costs no call and keeps the order. `sigma_data` > 0: sigma_d, the standard deviation of the
    data.
    """

    q: int = 3
    sigma_data: float = 1.25

    def __post_init__(self):
        if self.q not in (2, 3):
            raise ValueError(f"Adams-Bashforth has q = 2 or 3 here, got {self.q!r}")
        check_positive(self.sigma_data, "sigma_data")

    @property
    def order(self) -> int:
        return self.q

    @property
    def memory(self) -> int:
        return self.q - 1

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        here, olds = D(x, t), list(reversed(past))
        if not olds and D.schedule.levels(s).sigma == 0:
            return jump(here, s), here  # all the way in one step: the model's own x_0 is the best there is
        if self.q == 3 and len(olds) == 1:
            here = here.at(self._integrate(D.schedule, olds[0], t, [here, *olds]))
        return self._integrate(D.schedule, here, s, [here, *olds]), here

    def _integrate(self, schedule: Schedule, base: Prediction, s: Tensor, values: Sequence[Prediction]) -> Tensor:
        """x at s, from the state of `base`, with F interpolated through `values`. Times are ()."""
        (a, b), scale = SHIFT, self.sigma_data
        here, there, *known = (tuple(map(float, schedule.levels(t)[:2])) for t in (base.t, s, *(p.t for p in values)))

        def dtheta(u: np.ndarray) -> np.ndarray:
            # NSR(u) = (b e^u - a)/(1 - e^u), so
            # dtheta/du = sigma_d e^u (b - a) / ((b e^u - a)^2 + sigma_d^2 (1 - e^u)^2)
            e = np.exp(u)
            return scale * (b - a) * e / ((b * e - a) ** 2 + (scale * (1 - e)) ** 2)

        C = lagrange_weights(_u(*here), _u(*there), [_u(*levels) for levels in known], dtheta)
        S_s = self._size(*there)
        terms = [(S_s / self._size(*here), base.x)]
        for C_j, (alpha, sigma), p in zip(C, known, values, strict=True):
            # F = (sigma x_0/sigma_d - sigma_d alpha eps)/S
            c = -S_s * C_j / self._size(alpha, sigma)
            terms += [(c * sigma / scale, p.x0), (-c * alpha * scale, p.eps)]
        return combine(*terms)

    def _size(self, alpha: float, sigma: float) -> float:
        """S."""
        return math.hypot(sigma, self.sigma_data * alpha)


def _u(alpha: float, sigma: float) -> float:
    a, b = SHIFT
    return math.log((sigma + a * alpha) / (sigma + b * alpha))


ADAMS_ENTRIES = [
    Entry(
        name="ab2",
        solver=AdamsBashforth(2),
        title="Adams-Bashforth 2 in the angle",
        paper="arXiv 2206.00364, eq. 7; arXiv 2204.13902",
        color=VERMILLION,
        marker="o",
        dash="solid",
    ),
    Entry(
        name="ab3",
        solver=AdamsBashforth(3),
        title="Adams-Bashforth 3 in the angle",
        paper="arXiv 2206.00364, eq. 7; arXiv 2204.13902",
        color=VERMILLION,
        marker="^",
        dash="dash",
    ),
    Entry(
        name="ab3-wide",
        solver=AdamsBashforth(3, sigma_data=2.6),
        title="Adams-Bashforth 3 in the angle, for data twice as wide",
        paper="arXiv 2206.00364, eq. 7; arXiv 2204.13902",
        color=VERMILLION,
        marker="v",
        dash="dashdot",
    ),
]
