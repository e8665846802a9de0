"""DEIS (arXiv 2204.13902) in log NSR, the exponential Adams-Bashforth family; with uniform steps in n it would be
iPNDM."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import Schedule, combine
from .base import InnerStep
from .dpm import NOISE, second_order, third_order, usable
from .entry import ORANGE, Entry
from .quadrature import lagrange_weights


@dataclass(frozen=True)
class DEIS(InnerStep):
    """z_s = z_t + sum_j C_j eps_j, C_j = int_{n_t}^{n_s} L_j dn, with L_j Lagrange's polynomials in log n through q
    model values.

    z = x/alpha, n = NSR (arXiv 2204.13902, eq. 14 and 15). The first steps are singlestep, until q - 1 values are
    known: none for q = 2, one of DPM-Solver-2 for q = 3 (one call more), two of DPM-Solver-3 for q = 4 (two calls more
    each). Then comes one step through q - 1 values, a jump for q = 2. It is of order q - 1, but it happens once: the
    order of the walk is q.
    """

    q: int = 3

    def __post_init__(self):
        if self.q not in (2, 3, 4):
            raise ValueError(f"DEIS has q = 2, 3 or 4, got {self.q!r}")

    @property
    def order(self) -> int:
        return self.q

    @property
    def memory(self) -> int:
        return self.q - 1

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        olds = usable(D.schedule, past)[: self.q - 1]
        if len(olds) < self.q - 2:
            start = second_order if self.q == 3 else third_order
            return start(NOISE, D, p, s)
        return adams_bashforth(D.schedule, p, s, olds)


def adams_bashforth(schedule: Schedule, p: Prediction, s: Tensor, olds: Sequence[Prediction]) -> Tensor:
    """The step through p and `olds` (newest first): C_j = -int e^-lambda L_j dlambda, since n = e^-lambda. Times are
    ()."""
    values = [p, *olds]
    (alpha_t, _, lam_t), (alpha_s, _, lam_s) = (map(float, schedule.levels(time)) for time in (p.t, s))
    C = lagrange_weights(lam_t, lam_s, [float(schedule.levels(v.t).lam) for v in values], lambda lam: -np.exp(-lam))
    terms = [(alpha_s * C_j, value.eps) for C_j, value in zip(C, values, strict=True)]
    return combine((alpha_s / alpha_t, p.x), *terms)


DEIS_ENTRIES = [
    Entry(
        name="deis2",
        solver=DEIS(2),
        title="DEIS / Adams-Bashforth 2 in log NSR",
        paper="arXiv 2204.13902, eq. 15",
        color=ORANGE,
        marker="o",
        dash="solid",
        elsewhere={"diffusers": "DEISMultistepScheduler", "UI": "DEIS"},
    ),
    Entry(
        name="deis3",
        solver=DEIS(3),
        title="DEIS / Adams-Bashforth 3 in log NSR",
        paper="arXiv 2204.13902, eq. 15",
        color=ORANGE,
        marker="^",
        dash="dash",
        elsewhere={"diffusers": "DEISMultistepScheduler (order 3, other start)"},
    ),
    Entry(
        name="deis4",
        solver=DEIS(4),
        title="DEIS / Adams-Bashforth 4 in log NSR",
        paper="arXiv 2204.13902, eq. 15",
        color=ORANGE,
        marker="D",
        dash="dot",
    ),
]
