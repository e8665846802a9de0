"""UniPC (arXiv 2302.04867): a predictor whose next model call also corrects the step before."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Schedule, expand
from .base import Solver, between
from .dpm import DATA, usable


@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC-p in data prediction with B(h) = e^h - 1 (arXiv 2302.04867, alg. 5 to 8).

    Predictor (UniP-p): x_s = (sigma_s/sigma_t) x^c_t - alpha_s (phi1 m_0 + B sum_i a_i (m_i - m_0)/r_i). When the model has been called at
    x_s, the corrector (UniC-p) takes that value in as one more, and x^c_s replaces x_s as the base of the next step; it costs no
    call. Start-up raises p by one each step. The prediction returned carries the corrected state.
    """

    p: int = 2

    def __post_init__(self):
        if self.p not in (1, 2, 3):
            raise ValueError(f"UniPC has p = 1, 2 or 3, got {self.p!r}")

    @property
    def order(self) -> int:
        return min(self.p + 1, 3)

    @property
    def memory(self) -> int:
        return self.p

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        here, schedule = D(x, t), D.schedule
        olds = usable(schedule, past)
        if olds and bool(between(schedule, olds[0].t, t).all()):
            # UniC: step again from the previous corrected state, now with the value at its end
            x = _update(schedule, olds[0], t, olds[1 : self.p], here)
            sigma = expand(schedule.sigma(t), x)
            here = Prediction(x, t, here.x0, (x - expand(schedule.alpha(t), x) * here.x0) / sigma, here.schedule)
        if not bool(between(schedule, t, s).all()):
            return jump(here, s), here
        return _update(schedule, here, s, olds[: self.p - 1], None), here


def _update(
    schedule: Schedule, base: Prediction, s: Tensor, olds: Sequence[Prediction], ahead: Prediction | None
) -> Tensor:
    """One UniP (ahead None) or UniC step from `base` to s, using the model values of `olds`, newest first, and of `ahead` at s."""
    lam = schedule.lam(base.t)
    h = schedule.lam(s) - lam
    H = -h  # data prediction
    values = [*olds, *([ahead] if ahead is not None else [])]
    phi = torch.expm1(H)
    B = phi
    terms = [(phi, base.x0)]
    if values:
        ratios = [(schedule.lam(old.t) - lam) / h for old in olds] + ([torch.ones_like(h)] if ahead is not None else [])
        if len(values) == 1:
            coefficients = [torch.full_like(h, 0.5)]  # the paper's choice for one value, arXiv 2302.04867, app. F
        else:
            # sum_i a_i r_i^(k-1) = k! phi_k+1(H)/B, k = 1 ... p: eq. 11
            rows, right, factorial = [], [], 1.0
            phi_k = phi / H - 1
            for k in range(1, len(values) + 1):
                factorial *= k
                rows.append(torch.stack([r ** (k - 1) for r in ratios], -1))
                right.append(phi_k * factorial / B)
                phi_k = phi_k / H - 1 / (factorial * (k + 1))
            coefficients = torch.linalg.solve(torch.stack(rows, -2), torch.stack(right, -1)).unbind(-1)
        terms += [(B * a / r, value.x0 - base.x0) for a, r, value in zip(coefficients, ratios, values, strict=True)]
    return DATA.integrate(schedule, base, s, *terms)
