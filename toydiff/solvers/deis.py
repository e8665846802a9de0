"""DEIS (arXiv 2204.13902) in log NSR, the exponential Adams-Bashforth family; with uniform steps in n it would be iPNDM."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import Schedule, expand
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
    x, lam = p.x, schedule.lam(p.t)
    h = schedule.lam(s) - lam
    nodes, weights = _gauss(h.dtype, h.device)
    places = [torch.zeros_like(h)] + [(schedule.lam(old.t) - lam) / h for old in olds]
    integrand = weights * torch.exp(-nodes * h[..., None])  # quadrature does not lose digits at small h, unlike phi_4
    alpha_s = schedule.alpha(s)
    out = expand(alpha_s / schedule.alpha(p.t), x) * x
    scale = -alpha_s * schedule.nsr(p.t) * h
    for j, value in enumerate([p, *olds]):
        basis = torch.ones_like(integrand)
        for k, place in enumerate(places):
            if k != j:
                basis = basis * ((nodes - place[..., None]) / (places[j] - place)[..., None])
        out = out + expand(scale * (integrand * basis).sum(-1), x) * value.eps
    return out


@cache
def _gauss(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]; 16 of them integrate e^(-uh) times a cubic to 1e-15 for h up to 10."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    return torch.tensor((nodes + 1) / 2, dtype=dtype, device=device), torch.tensor(
        weights / 2, dtype=dtype, device=device
    )
