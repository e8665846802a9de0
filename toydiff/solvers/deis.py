"""DEIS (arXiv 2204.13902) in log NSR, the exponential Adams-Bashforth family; with uniform steps in n it would be iPNDM."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import Schedule, combine
from .base import InnerStep
from .dpm import NOISE, second_order, third_order, usable


@dataclass(frozen=True)
class DEIS(InnerStep):
    """z_s = z_t + sum_j C_j eps_j, C_j = int_{n_t}^{n_s} L_j dn, with L_j Lagrange's polynomials in log n through q model values.

    z = x/alpha, n = NSR (arXiv 2204.13902, eq. 14 and 15). The first q - 1 steps are singlestep: DPM-Solver-2 for q = 3, DPM-Solver-3 for
    q = 4 (two calls more on each), then q - 1 values are enough for an Adams-Bashforth step of one order less, whose single
    error does no harm. So the order is q.
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
    """The step through p and `olds` (newest first). In u = (lambda - lambda_t)/h: C_j = -n_t h int_0^1 e^(-uh) L_j(u) du."""
    (alpha_t, sigma_t, lam_t), (alpha_s, _, lam_s) = schedule.levels(p.t), schedule.levels(s)
    lams = [lam_s, lam_t, *(schedule.levels(old.t).lam for old in olds)]
    if isinstance(lam_t, float):
        lams = torch.tensor(lams, dtype=torch.float64)
    h = lams[0] - lams[1]
    nodes, weights = gauss_legendre(h.dtype, h.device)
    integrand = weights * torch.exp(-nodes * h[..., None])  # quadrature does not lose digits at small h, unlike phi_4
    basis = lagrange(nodes, [(lam - lams[1]) / h for lam in lams[1:]])
    scale = -alpha_s * (sigma_t / alpha_t) * h
    values = [p, *olds]
    terms = [(scale * (integrand * L).sum(-1), value.eps) for L, value in zip(basis, values, strict=True)]
    return combine((alpha_s / alpha_t, p.x), *terms)


def lagrange(u: Tensor, places: Sequence[Tensor]) -> list[Tensor]:
    """Lagrange's polynomials at u (..., m): L_j is 1 at places[j] (...) and 0 at the others."""
    basis = []
    for j, own in enumerate(places):
        others = [place for k, place in enumerate(places) if k != j]
        basis.append(
            math.prod(((u - place[..., None]) / (own - place)[..., None] for place in others), start=torch.ones_like(u))
        )
    return basis


@cache
def gauss_legendre(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]; 16 of them integrate e^(-uh) times a cubic to 1e-15 for h up to 10."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    return torch.tensor((nodes + 1) / 2, dtype=dtype, device=device), torch.tensor(
        weights / 2, dtype=dtype, device=device
    )
