"""The one contract between models and everything else: a Denoiser maps (x, t, cond, guidance_scale) to a Prediction.

Solvers and losses know nothing else of a model. Here are the wrappers; exact denoisers are in `mixtures`.

Guidance (arXiv 2207.12598): eps = eps_uncond + g (eps_cond - eps_uncond), and x_0 alike, g the `guidance_scale`. 1 is
off and costs no second call; 0 is unconditional. The w of the paper and the omega of guided distillation are g - 1. The
unconditional model is the same denoiser with cond = None.

A model is guided in one of three ways: by a second call (most models), by an input for g (a student of guided
distillation), or by one call on a doubled batch. Whoever calls D(x, t, cond, g) need not know which.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from .prediction import Prediction, check_kind, sigma_data_of
from .schedules import Coefficient, Schedule, as_time, check_schedule, check_slopes, computed_ahead, expand
from .support.checks import (
    check_batch_of_times,
    check_finite,
    check_number,
    check_positive,
    check_range,
    check_state,
    shape,
)
from .support.sealed import digest
from .support.words import quoted

NO_CLASS = -1
"""The label that stands for no label, which classifier-free guidance needs. cond = None gives it to the whole batch."""


class Denoiser(nn.Module):
    """A model of x_0 and eps given x_t. A subclass sets `schedule` and `kind` and writes `forward(x, t, cond)`.

    Called as D(x, t, cond, guidance_scale), it returns a `Prediction` at (x, t):

    - x: states (B, ...);
    - t: times () or (B,) in [0, 1];
    - cond: labels (B,), or whatever else the model takes; None for unconditional;
    - guidance_scale: g, a number or one a sample (B,); 1 is off.

    Shapes, dtypes and times are checked before `forward` is reached; `ValueError` names what is wrong. Where the data's
    standard deviation is not about 1, set `data_std`: the default solver and grid go by it.

    `forward` usually ends with Prediction.of(self.kind, y, x, t, self.schedule), y the model's output. Where g is
    neither 0 nor 1, a forward(x, t, cond) is called twice, with and without the condition (classifier-free guidance).

    A subclass with a guidance of its own writes forward(x, t, cond=None, guidance_scale=1.0). It is given g, a float or
    a tensor () or (B,), where g is neither 0 nor 1. A model that has g as an input also sets
    `scale_conditioned = True`. A wrapper passes g on to the denoiser inside (see `Wrapper`).
    """

    calls = 1
    """Network calls per sample that one evaluation without guidance costs."""
    scale_conditioned = False
    """Whether the guidance scale is an input of the model, so that guidance costs no second call."""

    def __init__(self, schedule: Schedule, kind: str = "x0"):
        super().__init__()
        check_schedule(schedule)
        check_kind(kind)
        if _guidance_of(type(self).forward) is inspect.Parameter.empty:
            raise ValueError(
                f"{type(self).__name__}.forward needs a default for guidance_scale, which is left out where guidance "
                "is off: forward(x, t, cond=None, guidance_scale=1.0)"
            )
        self.schedule, self.kind = schedule, kind

    def without(self, cond: Tensor | None) -> Tensor | None:
        """What guidance leads away from beside a condition: None, no condition, unless a model has another."""
        return None

    def __call__(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        check_state(x)
        t = as_time(t, x)
        check_batch_of_times(t, x)
        if computed_ahead(self.schedule, t) is None:
            check_range(t)
            if t.requires_grad:
                check_slopes(self.schedule, t)
        g = guidance_scale
        if type(g) in (float, int) and g == 1:
            p = super().__call__(x, t, cond)
        else:
            g = check_guidance(g, x)
            if isinstance(g, float) and g in (0, 1):
                p = super().__call__(x, t, cond if g else self.without(cond))
            elif cond is None:
                raise ValueError(f"guidance_scale = {written(g)} needs a condition to guide towards, but cond is None")
            elif _guidance_of(type(self).forward) is not NO_GUIDANCE:
                p = super().__call__(x, t, cond, g)
            else:
                if any(inside.scale_conditioned for inside in self._inside()):
                    raise ValueError(
                        f"{type(self).__name__} holds a model that is conditioned on the guidance scale, and would "
                        "guide it twice: write its forward(x, t, cond, guidance_scale) and pass the scale on"
                    )
                p = guide(super().__call__(x, t, self.without(cond)), super().__call__(x, t, cond), g)
        if not isinstance(p, Prediction):
            raise ValueError(
                f"{type(self).__name__}.forward must return a Prediction, such as "
                f"Prediction.of(kind, y, x, t, schedule), got {type(p).__name__}"
            )
        for value, name in ((p.x0, "x0"), (p.eps, "eps")):
            if not isinstance(value, Tensor) or value.shape != x.shape:
                got = f"shape {shape(value)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"the {name} that {type(self).__name__}.forward predicts must be shaped like x, {shape(x)}, "
                    f"got {got}"
                )
        return p

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The prediction at (x, t)."""
        raise NotImplementedError

    @property
    def data_std(self) -> float:
        """The scale of the data, by which the default solver and grid go: the standard deviation of a coordinate; where
        directions differ, see `mixtures.data_std`. It can be set to a number > 0; else it is that of the denoiser
        inside, and 1 where there is none."""
        own = self.__dict__.get("_data_std")
        if own is not None:
            return own
        return next((inside.data_std for inside in self._inside()), 1.0)

    @data_std.setter
    def data_std(self, value: float) -> None:
        self.__dict__["_data_std"] = check_positive(value, "data_std")

    @property
    def guided_by(self) -> float:
        """The guidance scale that is bound in this denoiser or in the one inside: the largest, where it is one a
        sample; 1 where there is none. The default grid goes by it."""
        return next((inside.guided_by for inside in self._inside()), 1.0)

    def content(self) -> str | None:
        """What identifies the model, whatever it is called: the digest of its weights (`support.sealed.digest`), or
        else the content of the denoiser inside; None where there is neither."""
        tensors = {**self.state_dict(), **dict(self.named_parameters())}
        return digest(tensors) if tensors else next((inside.content() for inside in self._inside()), None)

    def calls_at(self, guidance_scale: Tensor | float = 1.0) -> int:
        """Network calls per sample of one evaluation at a guidance scale."""
        if not isinstance(guidance_scale, Tensor) and guidance_scale in (0, 1):
            return self.calls
        passes_on = _guidance_of(type(self).forward) is not NO_GUIDANCE
        one_call = self.scale_conditioned or (passes_on and any(inside.scale_conditioned for inside in self._inside()))
        return self.calls * (1 if one_call else 2)

    def calls_at_time(self, t: Tensor | float, guidance_scale: Tensor | float = 1.0) -> int:
        """`calls_at` at the time t, () or (B,), where that makes a difference (`GuidanceInterval`)."""
        return self.calls_at(guidance_scale)

    def _inside(self) -> "list[Denoiser]":
        """The denoisers that this one is wrapped around."""
        return [child for child in self.children() if isinstance(child, Denoiser)]


NO_GUIDANCE = object()
"""Stands for the default of guidance_scale in a forward that does not take it."""


@functools.cache
def _guidance_of(forward: Callable[..., Prediction]) -> object:
    """The default of guidance_scale in a class's forward."""
    parameters = inspect.signature(forward).parameters
    return parameters["guidance_scale"].default if "guidance_scale" in parameters else NO_GUIDANCE


def guide(without: Prediction, given: Prediction, guidance_scale: Tensor | float) -> Prediction:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6): y = y_uncond + g (y_cond - y_uncond), for x_0 and for eps.
    Both predictions are at the same (x, t)."""
    g = guidance_scale if isinstance(guidance_scale, float) else expand(guidance_scale, without.x)
    x0 = without.x0 + g * (given.x0 - without.x0)
    eps = without.eps + g * (given.eps - without.eps)
    return Prediction(without.x, without.t, x0, eps, without.schedule)


def check_guidance(guidance_scale: object, x: Tensor) -> Tensor | float:
    """The guidance scale, a finite number or one a sample (B,), as a float or a tensor () or (B,) in x's dtype;
    `ValueError` otherwise."""
    scale = guidance_scale
    if type(scale) is float and math.isfinite(scale):  # the common case, at every call of a denoiser
        return scale
    if isinstance(scale, numbers.Real):
        return check_number(scale, "guidance_scale")
    try:
        scale = torch.as_tensor(np.asarray(scale) if isinstance(scale, list | tuple) else scale)
        if scale.dtype == torch.bool or scale.is_complex():
            raise TypeError
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"guidance_scale must be a finite number, or one a sample ({len(x)},), got {quoted(guidance_scale)}"
        ) from None
    check_batch_of_times(scale, x, "guidance_scale")
    check_finite(scale, "guidance_scale")
    return scale.to(x)


def largest(guidance_scale: Tensor | float) -> float:
    """The largest of the guidance scales of a batch; 1 of an empty one."""
    if isinstance(guidance_scale, Tensor):
        return float(guidance_scale.max()) if guidance_scale.numel() else 1.0
    return float(guidance_scale)


def written(guidance_scale: Tensor | float) -> str:
    """A guidance scale in a message."""
    if isinstance(guidance_scale, Tensor) and guidance_scale.numel() != 1:
        return f"{float(guidance_scale.min()):g} ... {float(guidance_scale.max()):g}"
    return f"{float(guidance_scale):g}"


def check_denoiser(D: object) -> None:
    """`D` is a `Denoiser`: a bare network or function has no schedule and no kind."""
    if not isinstance(D, Denoiser):
        raise ValueError(
            f"a Denoiser is needed, got {type(D).__name__}; wrap a network as NetDenoiser(net, schedule, kind)"
        )


def check_weights(D: Denoiser) -> None:
    """`FloatingPointError` for a model whose weights are not finite: no solver is to blame for what it predicts."""
    for name, value in [*D.named_parameters(), *D.named_buffers()]:
        bad = ~torch.isfinite(value)
        if bool(bad.any()):
            raise FloatingPointError(
                f"the weights of this model are not finite: {int(bad.sum())} of the {value.numel()} numbers in {name} "
                "are NaN or infinite"
            )


class NetDenoiser(Denoiser):
    """A network behind the contract: `net(x, t)`, or `net(x, t, cond)` when a condition is given, predicts `kind`.

    kind: a name of `prediction.KINDS`. EDM's networks, which were made for data of standard deviation 0.5, predict
    "preconditioned:sigma_data=0.5"; "preconditioned" alone means 1.

    data_std: the scale of the data that the network was trained on (`Denoiser.data_std`), > 0.

    The network gets t as (B,), in x's dtype and on its device, and returns (B, ...).
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: str = "eps", *, data_std: float = 1.0):
        super().__init__(schedule, kind)
        self.net, self.data_std = net, data_std

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        times = t.to(x).expand(x.shape[0])
        y = self.net(x, times) if cond is None else self.net(x, times, cond)
        return Prediction.of(self.kind, y, x, t, self.schedule)


class Featured(Protocol):
    """A network that a discriminator can read: features(x, lam, cond) gives (B, feature_width)."""

    @property
    def feature_width(self) -> int: ...

    def features(self, x: Tensor, lam: Coefficient, cond: Tensor | None = None) -> Tensor: ...


class LambdaDenoiser(NetDenoiser):
    """A network conditioned on the noise level instead of the time: net(x/S, lambda, cond, guidance_scale).

    So one network serves every schedule. With S = sqrt(alpha^2 + sigma^2) its input is the same on all schedules
    wherever their NSR is, and several of these denoisers, each with its own schedule and kind, may hold one network.

    A kind with sigma_data = s, "v:sigma_data=0.07", is of data with the standard deviation s. The network then gets
    what it would get of the data divided by s: S = sqrt(s^2 alpha^2 + sigma^2), and lambda + log s.

    The network gets lambda (B,) in x's dtype, -inf where alpha = 0 and +inf where sigma = 0; cond as it was given; and
    guidance_scale (B,), or None where the scale is no input of it. A network with `takes_numbers = True` gets a lambda
    that `solve` knows as a number: of all samples.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: str = "eps", *, data_std: float = 1.0):
        super().__init__(net, schedule, kind, data_std=data_std)
        self._sigma_data = sigma_data_of(kind)
        self._last_doubled: tuple[Tensor, Tensor, int] | None = None

    @property
    def scale_conditioned(self) -> bool:
        return bool(getattr(self.net, "config", {}).get("guided", False))

    def without(self, cond: Tensor | None) -> Tensor | None:
        """What the network says, where it has a method of this name."""
        said = getattr(self.net, "without", None)
        return None if said is None or cond is None else said(cond)

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float | None = None
    ) -> Prediction:
        if guidance_scale is None or self.scale_conditioned:  # in the second case g is an input
            g = None if guidance_scale is None else torch.as_tensor(guidance_scale).to(x).expand(len(x))
            y = self.net(*self._seen(x, t), cond, g)
            return Prediction.of(self.kind, y, x, t, self.schedule)
        if cond is None or not getattr(self.net, "batches_guidance", False):
            return guide(self.forward(x, t, self.without(cond)), self.forward(x, t, cond), guidance_scale)
        seen, lam = self._seen(x, t)
        doubled = lam if isinstance(lam, float) else lam.repeat(2)
        without, given = self.net(torch.cat([seen, seen]), doubled, self._doubled(cond), None).chunk(2)
        # x_0 and eps are linear in the output, so to guide it is to guide both
        scale = guidance_scale if isinstance(guidance_scale, float) else expand(guidance_scale, x)
        return Prediction.of(self.kind, without + scale * (given - without), x, t, self.schedule)

    def _doubled(self, cond: Tensor) -> Tensor:
        """The conditions of a doubled batch: no label for its first half (`without`), cond for its second. The last
        result is kept with a copy of cond, since a sampler needs it at every step, and made anew if either has
        changed."""
        if self._last_doubled is not None:
            own, doubled, version = self._last_doubled
            same = own.device == cond.device and own.dtype == cond.dtype and torch.equal(own, cond)
            if same and doubled._version == version and not cond.requires_grad:
                return doubled
        with torch.inference_mode(False):  # what is kept may be needed in training
            cond = cond if cond.requires_grad else cond.clone()
            none = self.without(cond)
            doubled = torch.cat([torch.full_like(cond, NO_CLASS) if none is None else none, cond])
            self._last_doubled = cond, doubled, doubled._version
        return doubled

    def features(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's features of x (B, ...) at t (B,), (B, net.feature_width): what a discriminator reads."""
        return cast(Featured, self.net).features(*self._seen(x, t), cond)

    def _seen(self, x: Tensor, t: Tensor) -> tuple[Tensor, Coefficient]:
        """What the network sees of (x, t): the scaled state, and lambda, (B,) or a number."""
        alpha, sigma, lam = self.schedule.levels(t)
        if self._sigma_data != 1:
            alpha, lam = self._sigma_data * alpha, lam + math.log(self._sigma_data)
        if isinstance(lam, Tensor):
            lam = lam.to(x).expand(len(x))
        elif not getattr(self.net, "takes_numbers", False):
            lam = x.new_full((len(x),), lam)
        scale = (alpha**2 + sigma**2) ** -0.5
        if isinstance(scale, float) and math.isclose(scale, 1, rel_tol=1e-15):  # variance preserving
            return x, lam
        return expand(scale, x) * x, lam


class Wrapper(Denoiser):
    """A denoiser around another one, `denoiser`, guided as that one is.

    A subclass's forward(x, t, cond=None, guidance_scale=1.0) calls self.denoiser(x, t, cond, guidance_scale).
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule | None = None):
        check_denoiser(denoiser)
        super().__init__(denoiser.schedule if schedule is None else schedule, denoiser.kind)
        self.denoiser = denoiser

    def without(self, cond: Tensor | None) -> Tensor | None:
        return self.denoiser.without(cond)

    @property
    def calls(self) -> int:
        return self.denoiser.calls

    @property
    def scale_conditioned(self) -> bool:
        return self.denoiser.scale_conditioned

    def calls_at(self, guidance_scale: Tensor | float = 1.0) -> int:
        return self.denoiser.calls_at(guidance_scale)

    def calls_at_time(self, t: Tensor | float, guidance_scale: Tensor | float = 1.0) -> int:
        same = type(self).calls_at is Wrapper.calls_at  # it costs what the denoiser inside does
        return self.denoiser.calls_at_time(t, guidance_scale) if same else self.calls_at(guidance_scale)


class Guided(Wrapper):
    """A denoiser with classifier-free guidance built in: Guided(D, g)(x, t, cond) is D(x, t, cond, g).

    `ValueError` for a denoiser that is guided already: one conditioned on the guidance scale, or another `Guided`.
    """

    def __init__(self, denoiser: Denoiser, guidance_scale: float):
        super().__init__(denoiser)
        self.guidance_scale = check_number(guidance_scale, "guidance_scale")
        if denoiser.scale_conditioned:
            raise ValueError(
                "this model is conditioned on the guidance scale, and classifier-free guidance on top would guide it "
                "twice: call it as D(x, t, cond, guidance_scale), or give the scale to solve"
            )
        if isinstance(denoiser, Guided):
            raise ValueError(f"this model is guided by {denoiser.guidance_scale:g} already; guide it once")

    @property
    def guided_by(self) -> float:
        return self.guidance_scale

    @property
    def calls(self) -> int:
        return self.denoiser.calls_at(self.guidance_scale)

    def calls_at(self, guidance_scale: Tensor | float = 1.0) -> int:
        return self.calls

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        if isinstance(guidance_scale, Tensor) or guidance_scale != 1:
            raise ValueError(
                f"this model is guided by {self.guidance_scale:g} already, and cannot be guided by "
                f"{written(guidance_scale)} as well"
            )
        return self.denoiser(x, t, cond, self.guidance_scale)

    def calls_at_time(self, t: Tensor | float, guidance_scale: Tensor | float = 1.0) -> int:
        return self.denoiser.calls_at_time(t, self.guidance_scale)


class GuidanceInterval(Wrapper):
    """A denoiser that is guided between two times only: g where low <= t <= high, and 1 elsewhere (arXiv 2404.07724,
    eq. 6).

    Guidance with much noise costs variety, and with little noise changes next to nothing; outside of the interval the
    second call is saved. A time stands for its noise level on the denoiser's schedule. `ValueError` unless
    0 <= low < high <= 1.
    """

    def __init__(self, denoiser: Denoiser, low: float, high: float):
        super().__init__(denoiser)
        self.low, self.high = check_number(low, "low"), check_number(high, "high")
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"guidance acts between two times in [0, 1], the lower first, got {self.low:g}, {self.high:g}"
            )

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        return self.denoiser(x, t, cond, self._scale(t, guidance_scale))

    def calls_at_time(self, t: Tensor | float, guidance_scale: Tensor | float = 1.0) -> int:
        return self.denoiser.calls_at_time(t, self._scale(torch.as_tensor(t), guidance_scale))

    def _scale(self, t: Tensor, guidance_scale: Tensor | float) -> Tensor | float:
        """The guidance scale at times t, () or (B,)."""
        # the last digit of a time in float32 does not matter
        inside = (t >= self.low - 1e-6) & (t <= self.high + 1e-6)
        if bool(inside.all()):
            return guidance_scale
        if not bool(inside.any()):
            return 1.0
        return torch.where(inside, torch.as_tensor(guidance_scale).to(t), 1.0)


class GuidanceRescale(Wrapper):
    """Guidance whose result is scaled back to the size of the conditional prediction (arXiv 2305.08891, sec. 3.4).

    y = phi (std(y_cond)/std(y_g)) y_g + (1 - phi) y_g, with y_g the guided prediction, and std over the coordinates of
    each sample, of which there must be two. y is of the kind that the model predicts, as published. phi = `rescale` in
    [0, 1]; 0 is off. `ValueError` for a model that has the guidance scale as an input.
    """

    def __init__(self, denoiser: Denoiser, rescale: float):
        super().__init__(denoiser)
        self.rescale = check_number(rescale, "rescale")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got {self.rescale:g}")
        if denoiser.scale_conditioned:
            raise ValueError("this model has the guidance scale as an input: it makes no prediction to be rescaled")

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        given = self.denoiser(x, t, cond)
        if type(guidance_scale) is float and guidance_scale == 1:
            return given
        none = self.denoiser(x, t, self.without(cond))
        y, y_cond = guide(none, given, guidance_scale).read(self.kind), given.read(self.kind)
        if y[0].numel() < 2:
            raise ValueError("guidance is rescaled by the spread of a sample's coordinates, and here there is one only")
        std, std_cond = (expand(each.flatten(1).std(1), x) for each in (y, y_cond))
        ratio = std_cond / torch.where(std > 0, std, torch.inf)
        y = self.rescale * ratio * y + (1 - self.rescale) * y
        return Prediction.of(self.kind, y, x, t, self.schedule)


@dataclass
class Spent:
    """What evaluations cost: `nfe`, network calls per sample, and `rounds`, evaluations that had to wait for one
    another."""

    nfe: int = 0
    rounds: int = 0


class Conditioned(Wrapper):
    """A denoiser with its condition and guidance scale bound: a solver's step calls it as D(x, t).

    cond and guidance_scale: as `Denoiser` takes them. schedule: the denoiser's own, or one with the same levels, such
    as that of `solve`, which has computed them ahead at the times of a grid. `spent` counts the calls.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Tensor | None = None,
        guidance_scale: Tensor | float = 1.0,
        schedule: Schedule | None = None,
    ):
        super().__init__(denoiser, schedule)
        self.cond, self.guidance_scale, self.spent = cond, guidance_scale, Spent()
        # together, since every step reads them, and attributes that are modules are slow to find
        always = type(denoiser).calls_at_time is Denoiser.calls_at_time  # the same number of calls
        self._bound = denoiser, cond, guidance_scale, denoiser.calls_at(guidance_scale), always, self.spent

    @property
    def guided_by(self) -> float:
        return max(self.denoiser.guided_by, largest(self.guidance_scale))

    @property
    def calls(self) -> int:
        return self._bound[3]

    def calls_at(self, guidance_scale: Tensor | float = 1.0) -> int:
        return self.calls

    def __call__(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None = None, guidance_scale: Tensor | float | None = None
    ) -> Prediction:
        if cond is not None or guidance_scale is not None:
            off = not isinstance(guidance_scale, Tensor) and guidance_scale in (None, 1)
            if cond is not None or not off:
                raise ValueError("the condition and the guidance scale are bound already; call it as D(x, t)")
        denoiser, cond, guidance_scale, calls, always, spent = self._bound
        spent.nfe += calls if always else denoiser.calls_at_time(t, guidance_scale)
        spent.rounds += 1
        p = denoiser(x, t, cond, guidance_scale)
        return Prediction(p.x, t if isinstance(t, Tensor) else p.t, p.x0, p.eps, self.schedule)


class Rescheduled(Wrapper):
    """The same model on another schedule: it is evaluated at the time where its own NSR equals the new schedule's.

    With n = sigma/alpha equal on both, x' = x sigma'/sigma has the same x_0 and eps. The new schedule may be noisier
    than the model's own at t = 1 (alpha = 0, say). There x_0 is the model's at its own t = 1, and eps follows from x.
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule):
        check_schedule(schedule)
        super().__init__(denoiser, schedule)

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        p = self.denoiser(*self._own(x, t), cond, guidance_scale)
        return Prediction.of("x0", p.x0, x, t, self.schedule)

    def calls_at_time(self, t: Tensor | float, guidance_scale: Tensor | float = 1.0) -> int:
        t_own = self.denoiser.schedule.t_of_lam(self.schedule.lam(torch.as_tensor(t)))
        return self.denoiser.calls_at_time(t_own, guidance_scale)

    def _own(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The state and time at which the model itself is evaluated."""
        own = self.denoiser.schedule
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        t_own = own.t_of_lam(self.schedule.lam(t))
        # scale by signal or by noise, whichever the level is made of: the other ratio is 0/0 at its end
        a_own, s_own = own.alpha(t_own), own.sigma(t_own)
        return expand(torch.where(alpha > sigma, a_own / alpha, s_own / sigma), x) * x, t_own


class Counted(Wrapper):
    """Counts what is spent: `nfe`, network calls per sample, and `rounds`, calls that had to wait for one another."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.spent = Spent()

    @property
    def nfe(self) -> int:
        return self.spent.nfe

    @property
    def rounds(self) -> int:
        return self.spent.rounds

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        self.spent.nfe += self.denoiser.calls_at_time(t, guidance_scale)
        self.spent.rounds += 1
        return self.denoiser(x, t, cond, guidance_scale)
