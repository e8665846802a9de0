"""Noise schedules.

One convention everywhere: `x_t = alpha(t) x_0 + sigma(t) eps` with t in [0, 1], t = 0 data and t = 1 noise.
`lambda = log(alpha/sigma)` (half the log signal-to-noise ratio) falls with t; `NSR = sigma/alpha` rises.
"""

import bisect
import functools
import importlib
import json
import math
import operator
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple, overload

import torch
from torch import Tensor

from .support.checks import (
    as_generator,
    check_batch_of_times,
    check_positive,
    check_range,
    check_same,
    check_state,
    known,
    shape,
    unknown,
)
from .support.words import quoted

HALF = (torch.float16, torch.bfloat16)
"""The dtypes that are too coarse for times, and for what is divided by a small difference."""

Coefficient = Tensor | float
"""What multiplies a state: a number, one tensor (), or one a sample (B,)."""


@overload
def expand(c: Tensor, x: Tensor) -> Tensor: ...
@overload
def expand(c: float, x: Tensor) -> float: ...
def expand(c: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient shaped to multiply x (B, ...): (B,) becomes (B, 1, ...) in x's dtype; a number and () stay as they
    are."""
    if isinstance(c, float) or c.ndim == 0:  # neither a number nor a 0-dim tensor of any float dtype promotes x
        return c
    return c.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def combine(*terms: tuple[Coefficient, Tensor]) -> Tensor:
    """The sum of coefficient * value over the terms; the values have one shape (B, ...).

    A number and a tensor of that number give the same bits: a step at many times in one call equals a step at each.
    """
    (first, value), *rest = terms
    total = expand(first, value) * value
    for c, value in rest:
        # scaling and adding are one operation, rounded once, of a number and of a tensor alike
        total = (
            torch.add(total, value, alpha=c) if isinstance(c, float) else torch.addcmul(total, expand(c, value), value)
        )
    return total


def fitted(value: Tensor, x: Tensor) -> Tensor:
    """A value that was computed in a wider dtype, in x's: what is beyond becomes the largest that it has."""
    if value.dtype == x.dtype:
        return value
    most = torch.finfo(x.dtype).max
    return value.clamp(-most, most).to(x.dtype)


class Levels(NamedTuple):
    """alpha, sigma and lambda at one time."""

    alpha: Coefficient
    sigma: Coefficient
    lam: Coefficient


_AHEAD: ContextVar[Mapping["Schedule", Mapping[int, Levels]]] = ContextVar("levels that were computed ahead")


@contextmanager
def ahead(schedule: "Schedule", levels: Mapping[int, Levels]) -> Iterator[None]:
    """Within the block, the levels of a schedule are known at the times whose identities are keys of `levels`. Whoever
    opens it holds these times, so that no other tensor has their identity. It holds in one thread."""
    token = _AHEAD.set({**_AHEAD.get({}), schedule: levels})
    try:
        yield
    finally:
        _AHEAD.reset(token)


def computed_ahead(schedule: "Schedule", t: Tensor) -> Levels | None:
    """The levels of a schedule at t where they are known (`ahead`); t lies in [0, 1] then."""
    known = _AHEAD.get({}).get(schedule)
    return None if known is None else known.get(id(t))


def finite(c: Coefficient) -> Tensor | bool:
    """Where a coefficient is neither infinite nor NaN."""
    return math.isfinite(c) if isinstance(c, float) else torch.isfinite(c)


def as_time(t: Tensor | float, like: Tensor | None = None) -> Tensor:
    """A time as a tensor: on x's device, in x's dtype but never below float32 (half precision cannot tell times
    apart)."""
    if isinstance(t, Tensor):
        if t.is_floating_point():
            return t.float() if t.dtype in HALF else t
        if t.is_complex():
            raise ValueError(f"a time must be a real number, got {t.dtype}")
        return t.to(torch.get_default_dtype())
    try:
        if like is None:
            return torch.as_tensor(t, dtype=torch.float64)
        return torch.as_tensor(t, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"a time must be a number or a tensor, got {quoted(t)}") from None


class _Kept(NamedTuple):
    """The levels at the last times (n,) that were asked for."""

    t: Tensor
    """The times themselves, by whose identity they are found again."""
    values: Tensor
    """What they were: whoever holds a tensor may change it, by ways that leave no trace."""
    levels: Tensor


_KEPT: "weakref.WeakKeyDictionary[Schedule, dict[Callable, _Kept]]" = weakref.WeakKeyDictionary()
"""For each schedule, the last levels alpha and sigma."""


def _exact_at_its_end(level: Callable, name: str, end: float) -> Callable:
    """A user's alpha or sigma as the library calls it: times are tensors, a level that rounds to 0 at its end is 0
    there, and what is no level is refused.

    cos(pi/2) is 6e-17 in float64 and -4e-8 in float32, which would hide that the state is pure noise. The last levels
    are kept with their times: one update of a training needs them at the same tensor of times up to five times.
    Callers get copies. Levels that know how they depend on t, or belong to inference mode, are not kept.
    """

    @functools.wraps(level)
    def exact(self, t: Tensor) -> Tensor:
        t = as_time(t)
        if t.ndim and not t.requires_grad:
            last = _KEPT.get(self, {}).get(level)
            if last is not None and last.t is t and torch.equal(last.values, t):
                return last.levels.clone()
        value = level(self, t)
        if not isinstance(value, Tensor) or value.shape != t.shape or value is t or not value.is_floating_point():
            value = _checked(value, t, self, name)
        some = known(t) if t.ndim == 0 else known((t == end).any())
        if t.ndim == 0 and some is not None:
            some = some == end
        if some or some is None:  # inside vmap, no value can be looked at
            rounding = (t == end) & (value.abs() <= 4 * torch.finfo(value.dtype).eps)
            # the difference is 0 and keeps the derivative, which `rates` needs
            value = torch.where(rounding, value - value.detach(), value)
        if t.ndim and some is not None and not (value.requires_grad or t.requires_grad or value.is_inference()):
            _KEPT.setdefault(self, {})[level] = _Kept(t, t.clone(), value.clone())
        return value

    return exact


def _checked(value: object, t: Tensor, schedule: "Schedule", name: str) -> Tensor:
    """A level as a schedule returned it: a floating-point tensor shaped like t, and not t itself."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"{name}(t) of {schedule!r} must return a floating-point tensor shaped like t, got {got}; a constant is "
            "torch.full_like(t, value)"
        )
    if value.shape != t.shape:
        raise ValueError(f"{name}(t) of {schedule!r} must be shaped like t, {shape(t)}, got shape {shape(value)}")
    return value.clone() if value is t else value


class Schedule:
    """A noise schedule. A subclass writes `alpha(t)` and `sigma(t)` only; the rest follows from these two.

    `alpha` must not increase and `sigma` must not decrease with t in [0, 1], so that lambda strictly falls. Both map
    times of any shape to levels of that shape, and are differentiable. `alpha(1) = 0` (flow matching) and
    `sigma(0) = 0` are allowed.

    `__init_subclass__` wraps both. An alpha(1) or sigma(0) that rounds to 0 becomes exactly 0: cos(pi/2) is 6e-17 in
    floating point, which would hide that nothing but noise is left. And the levels at the last tensor of times are
    kept, because one update of a training needs them up to five times; each caller gets a copy. `ValueError` for what
    is no tensor shaped like t; a model or a grid on a schedule whose alpha rises, sigma falls, or whose levels are
    negative, NaN or both 0 is refused as well.
    """

    name = "custom"

    def __init_subclass__(cls, **settings):
        super().__init_subclass__(**settings)
        for name, end in (("alpha", 1.0), ("sigma", 0.0)):
            if name in cls.__dict__:
                setattr(cls, name, _exact_at_its_end(cls.__dict__[name], name, end))

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level alpha(t)."""
        raise NotImplementedError(f"the schedule {self!r} has no alpha: write alpha(t) and sigma(t)")

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level sigma(t)."""
        raise NotImplementedError(f"the schedule {self!r} has no sigma: write alpha(t) and sigma(t)")

    def lam(self, t: Tensor) -> Tensor:
        """lambda(t) = log(alpha/sigma): half the log signal-to-noise ratio; +inf where sigma = 0, -inf where alpha =
        0."""
        t = as_time(t)
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def nsr(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma/alpha = exp(-lambda); inf where alpha = 0."""
        t = as_time(t)
        return self.sigma(t) / self.alpha(t)

    def levels(self, t: Tensor) -> Levels:
        """alpha, sigma and lambda at t: tensors like t. Inside `solve`, at the times of its grid: plain numbers."""
        if (known := computed_ahead(self, t)) is not None:
            return known
        check_range(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        own = type(self).lam is not Schedule.lam
        return Levels(alpha, sigma, self.lam(t) if own else torch.log(alpha) - torch.log(sigma))

    def alpha_sigma(self, t: Tensor) -> tuple[Coefficient, Coefficient]:
        """alpha and sigma at t, as `levels` gives them."""
        if (known := computed_ahead(self, t)) is not None:
            return known.alpha, known.sigma
        check_range(t)
        return self.alpha(t), self.sigma(t)

    def part_way(self, t: Tensor, s: Tensor, r: float) -> Tensor:
        """The time at lambda_t + r (lambda_s - lambda_t): a fraction r of the way from t to s in lambda. From an end,
        whose lambda is infinite, every part of the way is that end itself."""
        lam_t = self.lam(t)
        lam = lam_t + r * (self.lam(s) - lam_t)
        return self.t_of_lam(torch.where(lam_t.isinf(), lam_t, lam))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha'(t), sigma'(t)): the derivatives with respect to t, exact, by automatic differentiation, and
        differentiable once more. Infinite where a slope is vertical, as that of a square root at 0."""
        t = as_time(t)
        # the chain rule through a root at 0 makes inf * 0 of a vertical slope
        return (
            _slope(self.alpha, t).nan_to_num(-math.inf, math.inf, -math.inf),
            _slope(self.sigma, t).nan_to_num(math.inf, math.inf, -math.inf),
        )

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """The time of a lambda, by bisection in float64. Values beyond the schedule's range give its end, 0 or 1."""
        target = torch.as_tensor(lam).to(torch.float64)
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(80):
            mid = (low + high) / 2
            noisy = self.lam(mid) < target  # too noisy: the time sought is below
            low, high = torch.where(noisy, low, mid), torch.where(noisy, mid, high)
        # the bracket never closes onto an end of [0, 1] by halving alone
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=target.device)
        lam_clean, lam_noisy = self.lam(ends)
        t = torch.where(target >= lam_clean, ends[0], torch.where(target <= lam_noisy, ends[1], (low + high) / 2))
        return t.to(lam.dtype) if isinstance(lam, Tensor) and lam.is_floating_point() else t

    def mix(self, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
        """x_t = alpha(t) x_0 + sigma(t) eps. x0 and eps (B, ...), t () or (B,) in [0, 1]; returns (B, ...)."""
        check_state(x0, "x0")
        check_same(x0, eps, "x0 and eps")
        t = as_time(t, x0)
        check_batch_of_times(t, x0)
        check_range(t)
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def prior(
        self, shape: Sequence[int], generator: torch.Generator | int | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Noise to start from at t = 1: sigma(1) times standard normal draws of the given shape (B, ...).

        generator: a torch.Generator, in whose memory the noise is drawn, a seed, or None; dtype: torch's default unless
        given. `ValueError` for what is no shape, seed or floating-point dtype.
        """
        sizes = list(shape) if isinstance(shape, Sequence) else []
        if len(sizes) < 2 or not all(type(n) is int and n >= 0 for n in sizes):
            raise ValueError(f"shape must be whole numbers >= 0, (B, ...), got {quoted(shape)}")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype must be a floating-point dtype of torch, got {quoted(dtype)}")
        rng = as_generator(generator)
        noise = torch.randn(sizes, dtype=dtype, generator=rng, device=None if rng is None else rng.device)
        return expand(self.sigma(torch.ones((), dtype=torch.float64)), noise) * noise

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value:g}" for key, value in vars(self).items() if isinstance(value, int | float))
        return f"{type(self).__name__}({settings})"


def _slope(level: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """level'(t), elementwise."""
    further = t.requires_grad and torch.is_grad_enabled()
    with torch.inference_mode(False):
        t = t.clone()
        try:
            t.requires_grad_()
        except RuntimeError:  # inside vmap, jvp or grad of torch.func, which differentiate by themselves
            return torch.func.grad(lambda u: level(u).sum())(t)
        with torch.enable_grad():
            value = level(t)
            if not value.requires_grad:  # a constant, such as the alpha = 1 of a variance-exploding schedule
                return torch.zeros_like(value)
            return torch.autograd.grad(value.sum(), t, create_graph=further)[0]


def check_slopes(schedule: Schedule, t: Tensor) -> None:
    """`ValueError` for times that want a gradient where a slope is vertical, as that of sigma at t = 0 of VP and of
    tables: the chain rule would make NaN of it."""
    if torch.is_grad_enabled() and known((t == 0).any()):
        rates = torch.stack(schedule.rates(torch.zeros((), dtype=torch.float64)))
        if not torch.isfinite(rates).all():
            raise ValueError(
                f"there is no derivative with respect to t at t = 0 on {schedule!r}, where sigma' is infinite; "
                "take times above 0, or t.detach()"
            )


def check_schedule(schedule: object) -> None:
    """`schedule` is a `Schedule`, not its name, and keeps its promises at some times (looked at once)."""
    if not isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be a Schedule, such as toydiff.VP(), got {quoted(schedule)}")
    if schedule not in _SOUND:
        ts = torch.linspace(0, 1, 33, dtype=torch.float64)
        try:
            with torch.no_grad():
                levels = schedule.alpha(ts).tolist(), schedule.sigma(ts).tolist()
        except NotImplementedError as error:
            raise ValueError(str(error)) from None
        check_levels(schedule, ts.tolist(), *levels)
        take_as_checked(schedule)


def take_as_checked(schedule: Schedule) -> None:
    """`check_schedule` need not look at this one."""
    _SOUND.add(schedule)


_SOUND: "weakref.WeakSet[Schedule]" = weakref.WeakSet()
"""The schedules that were looked at."""


def check_levels(schedule: Schedule, ts: Sequence[float], alphas: Sequence[float], sigmas: Sequence[float]) -> None:
    """Levels at rising times: finite, not negative, not both 0; alpha never rises and sigma never falls, but by
    rounding. `ValueError` otherwise."""
    for t, alpha, sigma in zip(ts, alphas, sigmas, strict=True):
        if not (0 <= alpha < math.inf and 0 <= sigma < math.inf) or alpha == sigma == 0:
            raise ValueError(
                f"alpha and sigma of {schedule!r} must be finite, not negative and not both 0, got alpha = {alpha:g} "
                f"and sigma = {sigma:g} at t = {t:g}"
            )
    for name, verb, levels in (("alpha", "rises", alphas), ("sigma", "falls", [-sigma for sigma in sigmas])):
        for i, (before, after) in enumerate(pairwise(levels)):
            if after > before and after - before > 1e-6 * max(abs(after), abs(before)):
                t, s = ts[i], ts[i + 1]
                raise ValueError(
                    f"{name} of {schedule!r} {verb} with t, from {abs(before):g} at t = {t:g} to {abs(after):g} at "
                    f"t = {s:g}: here t = 0 is data and t = 1 noise; for the other convention of time, take 1 - t"
                )


class VP(Schedule):
    """Variance preserving (arXiv 2011.13456, eq. 11): alpha = exp(-(beta1 - beta0) t^2/4 - beta0 t/2), alpha^2 +
    sigma^2 = 1.

    The defaults beta0 = 0.1, beta1 = 20 give alpha(1) = 0.00657: never 0, so every kind of prediction works at t = 1.
    """

    name = "vp"

    def __init__(self, beta0: float = 0.1, beta1: float = 20.0):
        self.beta0, self.beta1 = check_positive(beta0, "beta0"), check_positive(beta1, "beta1")
        if beta1 <= beta0:
            raise ValueError(f"beta1 must exceed beta0, got beta0 = {beta0:g} and beta1 = {beta1:g}")

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * (self.beta1 - self.beta0) * t**2 - 0.5 * self.beta0 * t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(as_time(t)))

    def sigma(self, t: Tensor) -> Tensor:
        # expm1 keeps the digits that 1 - alpha^2 would lose near t = 0; 0 - 0 is 0, where -0 is not
        return torch.sqrt(0.0 - torch.expm1(2 * self._log_alpha(as_time(t))))

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Closed form: q = 2 (beta1 - beta0) log(1 + e^(-2 lambda)); t = q / ((sqrt(beta0^2 + q) + beta0)(beta1 -
        beta0))."""
        lam = torch.as_tensor(lam)
        q = 2 * (self.beta1 - self.beta0) * torch.nn.functional.softplus(-2 * lam, threshold=1e6)
        t = q / ((torch.sqrt(self.beta0**2 + q) + self.beta0) * (self.beta1 - self.beta0))
        return torch.where(q.isinf(), torch.ones_like(t), t).clamp(0, 1)


class Cosine(Schedule):
    """Cosine (arXiv 2102.09672 without its offset): alpha = cos(pi t/2), sigma = sin(pi t/2); alpha(1) = 0 exactly."""

    name = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        # cos(pi/2) is 6e-17 in floating point; sin of the complement is 0 where it should be
        return torch.sin((1 - as_time(t)) * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(as_time(t) * (math.pi / 2))

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Closed form: t = (2/pi) atan(e^(-lambda))."""
        return torch.atan(torch.exp(-torch.as_tensor(lam))) * (2 / math.pi)


class Linear(Schedule):
    """Linear, the schedule of flow matching and rectified flow (arXiv 2209.03003): alpha = 1 - t, sigma = t."""

    name = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Tensor) -> Tensor:
        return as_time(t).clone()

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Closed form: t = 1/(1 + e^lambda)."""
        return torch.sigmoid(-torch.as_tensor(lam))


class VE(Schedule):
    """Variance exploding in the time of Karras et al. (EDM, arXiv 2206.00364, eq. 5): alpha = 1, sigma = sigma_max
    t^rho.

    This is their map with sigma_min = 0, so that t = 0 is data, as on every schedule. Their last noise level 0.002 is a
    setting of the time grid, `time_grid(..., "karras", last=0.002)`, which then appends 0 as they do. Noise at t = 1
    has standard deviation sigma_max: start from `sigma_max * randn`.
    """

    name = "ve"

    def __init__(self, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_max, self.rho = check_positive(sigma_max, "sigma_max"), check_positive(rho, "rho")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * as_time(t) ** self.rho

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Closed form: t = (e^(-lambda)/sigma_max)^(1/rho)."""
        return torch.exp((-torch.as_tensor(lam) - math.log(self.sigma_max)) / self.rho).clamp(0, 1)


class Tabulated(Schedule):
    """A discrete variance-preserving schedule made continuous: log alpha interpolated linearly between its K steps.

    Step k = 0 ... K-1 of the table sits at t = (k + 1)/K, so t = 1 is the table's last step; t = 0, one step before its
    first, is clean data (alpha = 1). This is the interpolation of DPM-Solver (arXiv 2206.00927, app. D.4).

    `alphas_bar` (K,): the products of (1 - beta), called `alphas_cumprod` in other libraries; strictly decreasing in
    (0, 1). The last may be 0 (zero terminal SNR, arXiv 2305.08891); over the last interval alpha itself is then linear.
    `ValueError` otherwise.
    """

    name = "tabulated"

    @torch.inference_mode(False)  # so that a table made while sampling serves in training too
    def __init__(self, alphas_bar: Tensor):
        try:
            table = torch.as_tensor(alphas_bar, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"alphas_bar must be numbers of shape (K,), got {quoted(alphas_bar)}") from None
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(f"alphas_bar must have shape (K,) with K >= 2, got {tuple(table.shape)}")
        if not bool(((table[:-1] > 0) & (table[:-1] < 1)).all() & (table[-1] >= 0)) or not bool(
            (table[1:] < table[:-1]).all()
        ):
            raise ValueError(
                "alphas_bar must be strictly decreasing and lie strictly between 0 and 1; only the last may be 0"
            )
        self._log_alpha = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * table.log()])
        self._rising = (-2 * self._log_alpha).tolist()
        self._ends_in_zero = bool(table[-1] == 0)
        self._tables: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._inverses: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def equals(self, other: "Tabulated", *, last: bool = True) -> bool:
        """Whether two tables have the same levels, up to the rounding of a logarithm; last: the noisiest level too."""
        mine, its = self._log_alpha, other._log_alpha
        mine, its = (mine, its) if last else (mine[:-1], its[:-1])
        return len(mine) == len(its) and torch.allclose(mine, its, rtol=1e-9, atol=0.0)

    def __len__(self) -> int:
        """K, the steps of the table."""
        return len(self._rising) - 1

    @classmethod
    def scaled_linear(cls, beta_start: float = 8.5e-4, beta_end: float = 1.2e-2, steps: int = 1000) -> "Tabulated":
        """Stable Diffusion's table: sqrt(beta) linear in k. alpha_bar at t = 1 is 4.66e-3 (NSR 14.6)."""
        schedule = cls(_products(torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2))
        schedule.name = "scaled-linear"
        return schedule

    @classmethod
    def linear(cls, beta_start: float = 8.5e-4, beta_end: float = 1.2e-2, steps: int = 1000) -> "Tabulated":
        """beta linear in k. alpha_bar at t = 1 is 1.58e-3 (NSR 25.2); DDPM's own table is `linear(1e-4, 0.02)`."""
        schedule = cls(_products(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)))
        schedule.name = "linear-table"
        return schedule

    def _table(self, t: Tensor) -> Tensor:
        key = (t.dtype, t.device)
        if key not in self._tables:
            with torch.inference_mode(False):
                self._tables[key] = self._log_alpha.to(t)
        return self._tables[key]

    def _inverse(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(u, a, b) of the table's intervals, (K,) each: from u = -2 log alpha on, t = a + b u."""
        key = (like.dtype, like.device)
        if key not in self._inverses:
            with torch.inference_mode(False):
                u, k = -2 * self._log_alpha, torch.arange(len(self), dtype=torch.float64)
                b = 1 / (len(self) * u.diff())
                self._inverses[key] = u[:-1].to(like), (k / len(self) - b * u[:-1]).to(like), b.to(like)
        return self._inverses[key]

    def _interpolate(self, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """(log alpha between the table's steps, a factor of alpha). The factor is 1 but over the last interval of a
        table that ends in 0, where it falls to 0; None for a table that does not."""
        table = self._table(t)
        place = t * (len(table) - 1)
        # clamped as whole numbers, among which there is no NaN
        k = place.detach().floor().long().clamp(0, len(table) - 2)
        left, fraction = _entries(table, k), place - k
        if not self._ends_in_zero:
            return left + fraction * (_entries(table, k + 1) - left), None
        last = k == len(table) - 2
        return left + fraction * torch.where(last, 0.0, _entries(table, k + 1) - left), torch.where(
            last, 1 - fraction, 1.0
        )

    def alpha(self, t: Tensor) -> Tensor:
        log_alpha, falling = self._interpolate(as_time(t))
        return torch.exp(log_alpha) if falling is None else torch.exp(log_alpha) * falling

    def sigma(self, t: Tensor) -> Tensor:
        log_alpha, falling = self._interpolate(as_time(t))
        variance = 0.0 - torch.expm1(2 * log_alpha)
        if falling is not None:
            variance = variance + torch.exp(2 * log_alpha) * (1 - falling**2)
        return torch.sqrt(variance)

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Exact inverse of the interpolation: -2 log alpha = log(1 + e^(-2 lambda)), then its place in the table."""
        lam = torch.as_tensor(lam)
        table, a, b = self._inverse(lam)
        u = torch.nn.functional.softplus(-2 * lam, threshold=1e6).contiguous()
        k = (torch.searchsorted(table, u, right=True) - 1).clamp(0, len(table) - 1)
        t = torch.addcmul(_entries(a, k), _entries(b, k), u)
        if self._ends_in_zero:  # alpha is linear over the last interval
            alpha = torch.exp((table[-1] - u) / 2)
            t = torch.where(k == len(table) - 1, 1 - alpha / len(table), t)
        return t.clamp(0, 1)

    def time_of(self, lam: float) -> float:
        """`t_of_lam` of one number, as a number."""
        u = max(-2 * lam, 0.0) + math.log1p(math.exp(-2 * abs(lam)))
        k = min(bisect.bisect_right(self._rising, u), len(self)) - 1
        left, right = self._rising[k], self._rising[k + 1]
        fraction = (u - left) / (right - left) if math.isfinite(right) else 1 - math.exp((left - u) / 2)
        return min((k + fraction) / len(self), 1.0)

    def __repr__(self) -> str:
        return f"Tabulated({self.name!r}, steps={len(self._log_alpha) - 1})"


class PiecewiseLinear(Schedule):
    """A schedule made of straight pieces: alpha and sigma of `base` at the edges, linear in t between them.

    On it x_t = alpha x_0 + sigma eps moves on a straight line at constant speed within each piece, whatever the base:
    PeRFlow's path (arXiv 2405.07510, sec. 3) is first-order on this schedule, with one (x_0, eps) a piece, and an Euler
    step in t is a jump.

    `edges` (M + 1,): increasing times, from 0 to 1. Raises `ValueError` otherwise.
    """

    name = "piecewise-linear"

    @torch.inference_mode(False)  # so that a schedule made while sampling serves in training too
    def __init__(self, base: Schedule, edges: Tensor | Sequence[float]):
        check_schedule(base)
        try:
            times = torch.as_tensor(edges, dtype=torch.float64).detach().cpu().clone()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"edges must be numbers of shape (M + 1,), got {quoted(edges)}") from None
        if times.ndim != 1 or len(times) < 2 or times[0] != 0 or times[-1] != 1 or bool((times.diff() <= 0).any()):
            raise ValueError(f"edges must increase from 0 to 1, shape (M + 1,), got {times.tolist()}")
        self.base, self.edges = base, times
        self._levels_at_edges = base.alpha(times), base.sigma(times)

    def _between(self, level: Tensor, t: Tensor) -> Tensor:
        edges, level = self.edges.to(t), level.to(t)
        k = (torch.searchsorted(edges, t.detach().contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        left, right = _entries(edges, k), _entries(edges, k + 1)
        return torch.lerp(_entries(level, k), _entries(level, k + 1), (t - left) / (right - left))

    def alpha(self, t: Tensor) -> Tensor:
        return self._between(self._levels_at_edges[0], as_time(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self._between(self._levels_at_edges[1], as_time(t))

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """Exact: a piece from levels (a, s) to (a', s') has sigma/alpha = n at its fraction
        w = (n a - s)/((s' - s) - n (a' - a))."""
        lam = torch.as_tensor(lam)
        alpha, sigma = (level.to(lam) for level in self._levels_at_edges)
        edges, n = self.edges.to(lam), torch.exp(-lam)
        k = (torch.searchsorted(sigma / alpha, n.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        rise = (sigma[k + 1] - sigma[k]) - n * (alpha[k + 1] - alpha[k])
        fraction = torch.where(n.isinf(), torch.ones_like(n), (n * alpha[k] - sigma[k]) / rise)
        return edges[k] + fraction.clamp(0, 1) * (edges[k + 1] - edges[k])

    def __repr__(self) -> str:
        return f"PiecewiseLinear({self.base!r}, {len(self.edges) - 1} pieces)"


def _entries(table: Tensor, k: Tensor) -> Tensor:
    """table[k], also for a k of shape () inside vmap."""
    try:
        return table[k]
    except RuntimeError:
        return table[k[None]][0]


def _products(betas: Tensor) -> Tensor:
    return torch.cumprod(1 - betas, 0)


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "vp": VP,
    "cosine": Cosine,
    "linear": Linear,
    "ve": VE,
    "scaled-linear": Tabulated.scaled_linear,
    "linear-table": Tabulated.linear,
}
"""The ready-made schedules by name."""


IMPORTED = "import"
"""The name, in a file, of a schedule that a user wrote. Its import path and its settings stand beside it."""


def schedule_config(schedule: Schedule) -> dict:
    """A schedule as JSON: its name among the ready-made ones, and its settings.

    A schedule that a user wrote is named by the import path of its class, "module:Class"; its settings are its
    attributes, from which the class makes it again. `ValueError` where that gives another schedule, or where the class
    cannot be imported.
    """
    if type(schedule) is PiecewiseLinear:
        return {"name": schedule.name, "base": schedule_config(schedule.base), "edges": schedule.edges.tolist()}
    if type(schedule) is Tabulated:
        ready = SCHEDULES[schedule.name]() if schedule.name in SCHEDULES else None
        if isinstance(ready, Tabulated) and schedule.equals(ready):
            return {"name": schedule.name}
        return {"name": "tabulated", "alphas_bar": torch.exp(2 * schedule._log_alpha[1:]).tolist()}
    if type(schedule) in (VP, Cosine, Linear, VE):
        return {"name": schedule.name, **vars(schedule)}
    return {"name": IMPORTED, "path": _import_path(schedule), "settings": _settings(schedule)}


def _import_path(schedule: Schedule) -> str:
    """Where the class of a user's schedule is imported from."""
    cls = type(schedule)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        where = "in a notebook or the script that runs" if cls.__module__ == "__main__" else "inside a function"
        raise ValueError(
            f"a file cannot hold the schedule {schedule!r}, whose class is written {where}: put it at the top of "
            "a module, my_module.py, and import it from there"
        )
    path = f"{cls.__module__}:{cls.__qualname__}"
    if _imported(path) is not cls:
        raise ValueError(f"a file cannot hold the schedule {schedule!r}: its import path {path!r} gives another class")
    return path


def _settings(schedule: Schedule) -> dict:
    """The attributes of a user's schedule, once its class is known to make the same schedule from them."""
    cannot = (
        f"a file cannot hold the schedule {schedule!r}, which is made again from its attributes: its __init__ must "
        "take each under its name, and each must be a JSON value"
    )
    try:
        settings = json.loads(json.dumps(vars(schedule), allow_nan=False))
        again = type(schedule)(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{cannot}; {' '.join(str(error).split())[:200]}") from None
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    levels = ((schedule.alpha, again.alpha), (schedule.sigma, again.sigma))
    if not all(torch.equal(own(t), other(t)) for own, other in levels):
        raise ValueError(f"{cannot}; what is made of {settings} has other levels")
    return settings


def _is_import_path(text: object) -> bool:
    """Whether this is written as module:Class."""
    module, _, name = str(text).partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def _imported(path: str) -> type[Schedule]:
    """The class of an import path "module:Class" on Python's path; `ValueError` for what is no such path, or no
    `Schedule`."""
    if not _is_import_path(path):
        raise ValueError(f"the import path of a schedule is module:Class, got {path!r}")
    module, _, name = path.partition(":")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module))
    except Exception as error:  # a module that is imported runs, and may fail in any way
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the schedule {path!r} cannot be imported: {type(error).__name__}: {reason[:200]}; of a schedule that a "
            "file names, the module is looked for on Python's path and not in the current folder: import it first, or "
            "set PYTHONPATH"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Schedule) and found is not Schedule):
        raise ValueError(f"{path!r} is no noise schedule: that is a subclass of toydiff.Schedule")
    return found


def _made(path: str, settings: Mapping) -> Schedule:
    """The schedule of an import path with these settings."""
    cls = _imported(path)
    try:
        return cls(**settings)
    except TypeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the schedule {path!r} cannot be made of the settings {settings}: {reason[:200]}") from None


def schedule_from_config(config: Mapping) -> Schedule:
    """The inverse of `schedule_config`; `ValueError` for what it never writes. A user's schedule is imported from
    Python's path: a file may come from a stranger, with a module beside it that would run."""
    settings = dict(config)
    name = settings.pop("name", None)
    try:
        if name == PiecewiseLinear.name:
            return PiecewiseLinear(schedule_from_config(settings["base"]), settings["edges"])
        if name == "tabulated":
            return Tabulated(settings["alphas_bar"])
        if name == IMPORTED:
            return _made(str(settings["path"]), settings["settings"])
        if name in SCHEDULES:
            return SCHEDULES[name](**settings)
    except (TypeError, KeyError) as error:
        raise ValueError(f"the schedule {name!r} has wrong settings: {error}") from None
    raise unknown("schedule", name, [*SCHEDULES, "tabulated", PiecewiseLinear.name, IMPORTED])


def schedule(name: str) -> Schedule:
    """A ready-made schedule by its name, or a user's by its import path, "module:Class", with its default settings.

    `ValueError` with the nearest name otherwise, or for a path that leads to no `Schedule`; a module in the current
    folder is found.
    """
    if isinstance(name, str) and name in SCHEDULES:
        return SCHEDULES[name]()
    if isinstance(name, str) and _is_import_path(name):
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # the command's own search path has the folder of the command instead
        return _made(name, {})
    raise unknown("schedule", name, [*SCHEDULES, "MODULE:CLASS"])
