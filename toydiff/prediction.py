"""Parameterizations of one prediction, and the two verbs that every method is built from: jump and chord.

Whatever a network predicts, it is a row (a, b): y = a x_0 + b eps. Together with x_t = alpha x_0 + sigma eps it is a
2x2 linear system whose solution (x_0, eps) is all that a solver or a loss needs to know.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedules import HALF, Coefficient, Schedule, as_time, check_schedule, combine, expand, finite, fitted
from .support.checks import (
    check_batch_of_times,
    check_positive,
    check_range,
    check_same,
    check_state,
    known,
    unknown,
)

Row = tuple[Coefficient, Coefficient]
"""(a, b) in y = a x_0 + b eps."""


def _row_x0(schedule: Schedule, t: Tensor) -> Row:
    return torch.ones_like(t), torch.zeros_like(t)


def _row_eps(schedule: Schedule, t: Tensor) -> Row:
    return torch.zeros_like(t), torch.ones_like(t)


def _row_v(schedule: Schedule, t: Tensor) -> Row:
    # arXiv 2202.00512, sec. 4
    alpha, sigma = schedule.alpha_sigma(t)
    return -sigma, alpha


def _row_score(schedule: Schedule, t: Tensor) -> Row:
    # grad log p = -eps/sigma (arXiv 2011.13456)
    return torch.zeros_like(t), -1 / schedule.sigma(t)


def _row_velocity(schedule: Schedule, t: Tensor) -> Row:
    # dx/dt (arXiv 2210.02747), pointing to noise
    return schedule.rates(t)


def _row_preconditioned(schedule: Schedule, t: Tensor, sigma_data: float = 1.0) -> Row:
    # EDM's F (arXiv 2206.00364, eq. 7) for any schedule: x_0 = c_skip x + c_out F with c_skip = alpha sigma_d^2/S^2,
    # c_out = sigma sigma_d/S, S^2 = alpha^2 sigma_d^2 + sigma^2, solved for F
    alpha, sigma = schedule.alpha_sigma(t)
    S = ((alpha * sigma_data) ** 2 + sigma**2) ** 0.5
    return sigma / (S * sigma_data), -alpha * sigma_data / S


KINDS = {
    "x0": _row_x0,
    "eps": _row_eps,
    "v": _row_v,
    "score": _row_score,
    "velocity": _row_velocity,
    "preconditioned": _row_preconditioned,
}
"""Kinds of prediction: each maps (schedule, t) to its row (a, b) in y = a x_0 + b eps."""

SIGMA_DATA = "sigma_data"
"""The setting of a kind: the standard deviation s of the data. "preconditioned:sigma_data=0.5" is EDM's F of such data.
For every other kind it is the kind of the data divided by s, y = a x_0/s + b eps, which is of about unit size."""


@functools.cache
def _parsed(kind: str) -> tuple[str, float]:
    """The name of a kind, and its sigma_data, 1 where it is not set."""
    name, colon, settings = str(kind).partition(":")
    if name not in KINDS:
        raise unknown("kind of prediction", kind, KINDS)
    if not colon:
        return name, 1.0
    key, _, value = settings.partition("=")
    try:
        sigma_data = check_positive(float(value), f"{SIGMA_DATA} of the kind {name}")
    except ValueError:
        sigma_data = None
    if key.strip() != SIGMA_DATA or sigma_data is None:
        raise ValueError(f"the kind {name} has one setting, {name}:{SIGMA_DATA}=0.5, a number > 0; got {kind!r}")
    return name, sigma_data


def _known(kind: object) -> tuple[str, float]:
    if not isinstance(kind, str):
        raise unknown("kind of prediction", kind, KINDS)
    return _parsed(kind)


def check_kind(kind: object) -> str:
    """A kind of prediction: a name of `KINDS`, or one with its setting, such as "preconditioned:sigma_data=0.5" for
    EDM's F of data with another standard deviation than 1. `ValueError` names the allowed kinds."""
    _known(kind)
    return str(kind)


def sigma_data_of(kind: str) -> float:
    """The standard deviation of the data that a kind is for, 1 unless it is set; `ValueError` for no kind."""
    return _known(kind)[1]


def with_sigma_data(kind: str, sigma_data: float) -> str:
    """The kind for data of this standard deviation; a kind that has the setting already keeps it."""
    return kind if sigma_data == 1 or ":" in kind else f"{kind}:{SIGMA_DATA}={sigma_data!r}"


def row(kind: str, schedule: Schedule, t: Tensor) -> Row:
    """The coefficients (a, b) of a kind at time t; `ValueError` names the allowed kinds."""
    name, sigma_data = _known(kind)
    if name == "preconditioned":
        return _row_preconditioned(schedule, t, sigma_data)
    a, b = KINDS[name](schedule, t)
    return (a, b) if sigma_data == 1 else (a / sigma_data, b)


def _somewhere(condition: Tensor | bool) -> bool:
    """Whether a condition holds for a sample. False inside vmap, where no value can be looked at."""
    return condition if isinstance(condition, bool) else known(condition.any()) is True


@dataclass(frozen=True)
class Prediction:
    """What a denoiser predicts at (x, t), in any kind: x = alpha(t) x_0 + sigma(t) eps.

    x, x0, eps: (B, ...); t: () or (B,) in [0, 1].
    """

    x: Tensor
    t: Tensor
    x0: Tensor
    eps: Tensor
    schedule: Schedule

    @classmethod
    def of(cls, kind: str, y: Tensor, x: Tensor, t: Tensor | float, schedule: Schedule) -> "Prediction":
        """The prediction behind a network's output `y` of the given kind, at state `x` and time `t`.

        Solves a x_0 + b eps = y, alpha x_0 + sigma eps = x. At sigma = 0 the state says nothing about the noise. There
        x_0 = x/alpha, for every kind but `x0` itself; and eps is its mean, 0, where the kind leaves it open.

        `ValueError` where the system has no unique x_0: for `eps` and `score` where alpha = 0; for `velocity` where the
        rates are infinite or both 0 (at t = 0 of VP, of tables and of VE).
        """
        check_schedule(schedule)
        check_state(x)
        check_state(y, f"the prediction ({kind})")
        check_same(y, x, f"the prediction ({kind}) and x")
        if x.dtype in HALF:
            p = cls.of(kind, y.float(), x.float(), t, schedule)
            return cls(x, p.t, fitted(p.x0, x), fitted(p.eps, x), schedule)
        t = as_time(t, x)
        check_batch_of_times(t, x)
        alpha, sigma = schedule.alpha_sigma(t)
        a_x, s_x = expand(alpha, x), expand(sigma, x)
        name, sigma_data = _parsed(kind) if type(kind) is str else _known(kind)
        if name == "x0":
            y = y if sigma_data == 1 else sigma_data * y
            # eps = (x - alpha x0)/sigma; the clean end carries no noise to speak of
            noise = torch.where(s_x == 0, torch.inf, s_x) if isinstance(s_x, Tensor) else s_x or torch.inf
            eps = (x - a_x * y) / noise
            return cls(x, t, y, eps, schedule)
        if name in ("eps", "score"):
            if _somewhere(alpha == 0):
                raise ValueError(
                    f"kind {kind!r} cannot be used where alpha = 0 (t = {float(t.max()):g} on {schedule!r}): x_t is "
                    "pure noise there, and its eps says nothing about x_0; predict x0, v, velocity or preconditioned, "
                    "or start below"
                )
            # the score's row, -1/sigma, is infinite at t = 0: its multiple is not
            eps = y if name == "eps" else -s_x * y
            return cls(x, t, (x - s_x * eps) / a_x, eps, schedule)
        a, b = row(kind, schedule, t)
        det = alpha * b - sigma * a
        if _somewhere(det == 0) or _somewhere(finite(det) == 0):
            raise ValueError(
                f"kind {kind!r} cannot be used at t = {float(t.min()):g} ... {float(t.max()):g} on {schedule!r}: "
                "alpha' or sigma' is infinite or both vanish there, so dx/dt does not determine x_0"
            )
        a, b, det = expand(a, x), expand(b, x), expand(det, x)
        return cls(x, t, (b * x - s_x * y) / det, (a_x * y - a * x) / det, schedule)

    @classmethod
    def exact(cls, x0: Tensor, eps: Tensor, t: Tensor | float, schedule: Schedule) -> "Prediction":
        """The prediction of a model that knows (x_0, eps), at x_t = alpha(t) x_0 + sigma(t) eps: the target of a
        regression, in any kind.

        x0, eps (B, ...); t () or (B,). `ValueError` for what does not fit together.
        """
        check_schedule(schedule)
        check_state(x0, "x0")
        check_same(x0, eps, "x0 and eps")
        t = as_time(t, x0)
        check_batch_of_times(t, x0)
        alpha, sigma, _ = schedule.levels(t)
        return cls(combine((alpha, x0), (sigma, eps)), t, x0, eps, schedule)

    def at(self, x: Tensor) -> "Prediction":
        """The same x_0 at a corrected state x, (B, ...): eps = (x - alpha x_0)/sigma. Needs sigma > 0."""
        alpha, sigma, _ = self.schedule.levels(self.t)
        return Prediction(x, self.t, self.x0, combine((1 / sigma, x), (-alpha / sigma, self.x0)), self.schedule)

    def read(self, kind: str) -> Tensor:
        """The same prediction in any kind: a x0 + b eps, (B, ...). `ValueError` where the row is infinite (score at
        sigma = 0)."""
        if self.x.dtype in HALF:
            x, x0, eps = self.x.float(), self.x0.float(), self.eps.float()
            return fitted(Prediction(x, self.t, x0, eps, self.schedule).read(kind), self.x)
        a, b = row(kind, self.schedule, self.t)
        if _somewhere(finite(a) == 0) or _somewhere(finite(b) == 0):
            raise ValueError(
                f"kind {kind!r} is infinite at t = {float(self.t.min()):g} on {self.schedule!r}; x0, eps and v are "
                "finite there"
            )
        return expand(a, self.x) * self.x0 + expand(b, self.x) * self.eps


def jump(prediction: Prediction, s: Tensor | float) -> Tensor:
    """x_s = alpha(s) x_0 + sigma(s) eps with x_0 and eps held fixed.

    s: () or (B,) in [0, 1]; returns (B, ...). This is the DDIM step (arXiv 2010.02502, eq. 12 with eta = 0),
    DPM-Solver-1 (arXiv 2206.00927, eq. 3.7), the Euler step of a flow on the linear schedule, and a consistency
    function (s = 0). It is exact if and only if x_0 and eps stay constant along the ODE, which is then called
    first-order (arXiv 2410.07303).
    """
    s = as_time(s, prediction.x)
    check_batch_of_times(s, prediction.x, "s")
    levels = prediction.schedule.levels(s)
    return combine((levels.alpha, prediction.x0), (levels.sigma, prediction.eps))


def noise_travel(schedule: Schedule, x_s: Tensor, s: Tensor | float, u: Tensor | float, noise: Tensor) -> Tensor:
    """Forward from s to a noisier u: x_u = (alpha_u/alpha_s) x_s + sqrt(sigma_u^2 - (alpha_u/alpha_s)^2 sigma_s^2)
    noise, q(x_u | x_s).

    Keeps the marginals: x_s of p_s becomes x_u of p_u. x_s and noise (B, ...), s and u () or (B,), s <= u, alpha_s > 0.
    `ValueError` otherwise.
    """
    check_schedule(schedule)
    check_state(x_s, "x_s")
    check_same(x_s, noise, "x_s and noise")
    s, u = as_time(s, x_s), as_time(u, x_s)
    for time, name in ((s, "s"), (u, "u")):
        check_batch_of_times(time, x_s, name)
        check_range(time, name)
    if known((u < s).any()):
        raise ValueError("noise travels from s to a noisier u: u must not be below s")
    if known((schedule.alpha(s) == 0).any()):
        raise ValueError("at s the state is pure noise (alpha = 0), and nothing is left to travel from")
    kept = schedule.alpha(u) / schedule.alpha(s)
    added = (schedule.sigma(u) ** 2 - (kept * schedule.sigma(s)) ** 2).clamp(min=0).sqrt()
    return expand(kept, x_s) * x_s + expand(added, x_s) * noise


def chord(schedule: Schedule, x_t: Tensor, t: Tensor | float, x_s: Tensor, s: Tensor | float) -> Prediction:
    """The one prediction (x_0, eps) that lies on both states: the inverse of `jump`, placed at (x_t, t).

    Solves alpha_t x_0 + sigma_t eps = x_t and alpha_s x_0 + sigma_s eps = x_s. In z = x/alpha its eps is delta z /
    delta NSR (arXiv 2410.07303, sec. 3.3); its x_0 is progressive distillation's target (arXiv 2202.00512, alg. 2).
    x_t, x_s: (B, ...); t, s: () or (B,), at different noise levels, else `ValueError`.
    """
    check_schedule(schedule)
    check_state(x_t, "x_t")
    check_same(x_t, x_s, "x_t and x_s")
    if x_t.dtype in HALF:
        p = chord(schedule, x_t.float(), t, x_s.float(), s)
        return Prediction(x_t, p.t, fitted(p.x0, x_t), fitted(p.eps, x_t), schedule)
    t, s = as_time(t, x_t), as_time(s, x_t)
    for time, name in ((t, "t"), (s, "s")):
        check_batch_of_times(time, x_t, name)
        check_range(time, name)
    alpha_t, sigma_t = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
    alpha_s, sigma_s = expand(schedule.alpha(s), x_t), expand(schedule.sigma(s), x_t)
    det = alpha_t * sigma_s - sigma_t * alpha_s
    if known((det == 0).any()):
        raise ValueError(
            "a chord needs two different noise levels, but t and s have the same (or both are pure data or pure noise)"
        )
    x0 = (sigma_s * x_t - sigma_t * x_s) / det
    eps = (alpha_t * x_s - alpha_s * x_t) / det
    return Prediction(x_t, t, x0, eps, schedule)
