"""UniPC (arXiv 2302.04867): a predictor whose next model call also corrects the step before."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Coefficient, Schedule
from .base import Solver, between, everywhere, expm1
from .dpm import DATA, usable
from .entry import GREEN, Entry


@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC-p in data prediction with B(h) = e^h - 1 (arXiv 2302.04867, alg. 5 to 8).

    Predictor (UniP-p): x_s = (sigma_s/sigma_t) x^c_t - alpha_s (phi1 m_0 + B sum_i a_i (m_i - m_0)/r_i). When the model
    has been called at x_s, the corrector (UniC-p) takes that value in as one more, and x^c_s replaces x_s as the base
    of the next step; it costs no call. Start-up raises p by one each step. The prediction returned carries the
    corrected state.
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
        if olds and everywhere(between(schedule, olds[0].t, t)):
            # UniC: step again from the previous corrected state, now with the value at its end
            here = here.at(_update(schedule, olds[0], t, olds[1 : self.p], here))
        if not everywhere(between(schedule, t, s)):
            return jump(here, s), here
        return _update(schedule, here, s, olds[: self.p - 1], None), here


def _update(
    schedule: Schedule, base: Prediction, s: Tensor, olds: Sequence[Prediction], ahead: Prediction | None
) -> Tensor:
    """One UniP (ahead None) or UniC step from `base` to s, using the model values of `olds`, newest first, and of
    `ahead` at s."""
    lam = schedule.levels(base.t).lam
    h = schedule.levels(s).lam - lam
    values, ratios = [old.x0 for old in olds], [(schedule.levels(old.t).lam - lam) / h for old in olds]
    if ahead is not None:
        values, ratios = [*values, ahead.x0], [*ratios, 1.0]
    B = expm1(-h)  # data prediction: H = -h
    terms = [(B, base.x0)]
    for a, r, value in zip(_weights(-h, B, ratios), ratios, values, strict=True):
        terms.append((B * a / r, value - base.x0))
    return DATA.integrate(schedule, base, s, *terms)


def _weights(H: Coefficient, B: Coefficient, ratios: Sequence[Coefficient]) -> list[Coefficient]:
    """a_i with sum_i a_i r_i^(k-1) = k! phi_k+1(H)/B for k = 1 ... p (arXiv 2302.04867, eq. 11); 1/2 for p = 1 (app.
    F)."""
    p = len(ratios)
    if p == 1:
        return [0.5]
    a, phi, factorial = [], B / H - 1, 1.0
    for k in range(1, p + 1):
        factorial *= k
        a.append(phi * factorial / B)
        phi = phi / H - 1 / (factorial * (k + 1))
    # a Vandermonde system, solved in place by Bjorck and Pereyra's recurrences
    for k in range(p - 1):
        for i in range(p - 1, k, -1):
            a[i] = a[i] - ratios[k] * a[i - 1]
    for k in range(p - 2, -1, -1):
        for i in range(k + 1, p):
            a[i] = a[i] / (ratios[i] - ratios[i - k - 1])
        for i in range(k, p - 1):
            a[i] = a[i] - a[i + 1]
    return a


UNIPC_ENTRIES = [
    Entry(
        name="unipc2",
        solver=UniPC(2),
        title="UniPC-2",
        paper="arXiv 2302.04867, alg. 5",
        color=GREEN,
        marker="o",
        dash="solid",
        elsewhere={"diffusers": "UniPCMultistepScheduler", "UI": "UniPC (order 2, variant bh2)"},
    ),
    Entry(
        name="unipc3",
        solver=UniPC(3),
        title="UniPC-3",
        paper="arXiv 2302.04867, alg. 5",
        color=GREEN,
        marker="^",
        dash="dash",
        elsewhere={"diffusers": "UniPCMultistepScheduler (order 3)", "UI": "UniPC (order 3, variant bh2)"},
    ),
]
