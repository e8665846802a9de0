"""Adams-Bashforth on the PF-ODE in angle form, which is finite at both ends of every schedule.

With S^2 = sigma^2 + sigma_d^2 alpha^2 and theta = atan(NSR/sigma_d), the state w = x/S obeys dw/dtheta = -F, where F is
EDM's preconditioned prediction (arXiv 2206.00364, eq. 7); with sigma_d = 1 on a variance-preserving schedule -F is v,
as in TrigFlow (arXiv 2410.11081, eq. 4). For Gaussian data of mean 0 and standard deviation sigma_d, F = 0 and every
step is exact: the error comes only from how the data differ from that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..denoisers import Denoiser
from ..grids import SHIFT, scale_of
from ..prediction import Prediction, jump
from ..schedules import Schedule, combine
from ..support.checks import check_positive
from .base import Solver
from .entry import VERMILLION, Entry
from .quadrature import lagrange_weights


@dataclass(frozen=True)
class Angle:
    """The PF-ODE in the angle on a schedule, for data of one scale: sigma_d, and (a, b) of u = log((sigma + a
    alpha)/(sigma + b alpha)), which is about log NSR between NSR a and b, and finite where alpha = 0 or sigma = 0."""

    schedule: Schedule
    sigma_d: float
    a: float
    b: float

    @classmethod
    def of(cls, D: Denoiser, sigma_data: float = 1.0) -> "Angle":
        """For a model: its schedule, its data's scale, and sigma_d = sigma_data times that."""
        scale, (a, b) = scale_of(D.data_std), SHIFT
        return cls(D.schedule, sigma_data * scale, a * scale, b * scale)

    def step(self, base: Prediction, s: Tensor, values: Sequence[Prediction]) -> Tensor:
        """x at s, from the state of `base`, with F interpolated through `values`. All times have shape ()."""
        here, there, *known = (
            tuple(map(float, self.schedule.levels(t)[:2])) for t in (base.t, s, *(p.t for p in values))
        )
        C = lagrange_weights(self._u(*here), self._u(*there), [self._u(*levels) for levels in known], self._dtheta)
        S_s = self._S(*there)
        terms = [(S_s / self._S(*here), base.x)]
        for C_j, p in zip(C, values, strict=True):
            terms += self.F(p, -S_s * C_j)
        return combine(*terms)

    def F(self, p: Prediction, c: float = 1.0) -> list[tuple[float, Tensor]]:
        """c F, as terms to be combined: F = (sigma x_0/sigma_d - sigma_d alpha eps)/S."""
        alpha, sigma, _ = map(float, self.schedule.levels(p.t))
        c /= self._S(alpha, sigma)
        return [(c * sigma / self.sigma_d, p.x0), (-c * alpha * self.sigma_d, p.eps)]

    def size(self, t: Tensor) -> float:
        """S at t: x/S has about unit variance."""
        alpha, sigma, _ = self.schedule.levels(t)
        return self._S(float(alpha), float(sigma))

    def theta(self, t: Tensor) -> float:
        """theta = atan(NSR/sigma_d) at t."""
        alpha, sigma, _ = self.schedule.levels(t)
        return math.atan2(float(sigma), self.sigma_d * float(alpha))

    def _S(self, alpha: float, sigma: float) -> float:
        return math.hypot(sigma, self.sigma_d * alpha)

    def _u(self, alpha: float, sigma: float) -> float:
        return math.log((sigma + self.a * alpha) / (sigma + self.b * alpha))

    def _dtheta(self, u: np.ndarray) -> np.ndarray:
        # NSR(u) = (b e^u - a)/(1 - e^u), so dtheta/du = sigma_d e^u (b - a) / ((b e^u - a)^2 + sigma_d^2 (1 - e^u)^2)
        e, a, b = np.exp(u), self.a, self.b
        return self.sigma_d * (b - a) * e / ((b * e - a) ** 2 + (self.sigma_d * (1 - e)) ** 2)


@dataclass(frozen=True)
class AdamsBashforth(Solver):
    """w_s = w_t - sum_j C_j F_j, C_j = int L_j (dtheta/du) du, with L_j Lagrange's polynomials in u (`Angle`) through q
    model values.

    A walk of several steps needs no jump, and has order q from pure noise to clean data. The first step knows one value
    only. For q = 3 the next call's value corrects it (Adams-Moulton, as UniPC's corrector does); this costs no call and
    keeps the order. `sigma_data` > 0: sigma_d, the standard deviation of the data, in units of `Denoiser.data_std`.
    """

    q: int = 3
    sigma_data: float = 1.0

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
        here, olds, angle = D(x, t), list(reversed(past)), Angle.of(D, self.sigma_data)
        if not olds and D.schedule.levels(s).sigma == 0:
            return jump(here, s), here  # all the way in one step: the model's own x_0 is the best there is
        if self.q == 3 and len(olds) == 1:
            here = here.at(angle.step(olds[0], t, [here, *olds]))
        return angle.step(here, s, [here, *olds]), here


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
        solver=AdamsBashforth(3, sigma_data=2.0),
        title="Adams-Bashforth 3 in the angle, for data twice as wide",
        paper="arXiv 2206.00364, eq. 7; arXiv 2204.13902",
        color=VERMILLION,
        marker="v",
        dash="dashdot",
    ),
]
