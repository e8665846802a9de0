"""Messages for people: every check of an input lives here, so that the same mistake gets the same sentence
(what takes no tensor is in `words`)."""

import math
import numbers

import torch
from torch import Tensor

from .words import quoted
from .words import unknown as unknown


def shape(x: Tensor) -> str:
    """A tensor's shape as it is written in a message: `(4, 2)`."""
    return str(tuple(x.shape))


def known(value: Tensor) -> float | None:
    """The number in a tensor (). None inside `torch.func.vmap`, where no number can be looked at: a check lets it
    pass."""
    try:
        return value.item()
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return None


def check_state(x: Tensor, what: str = "x") -> None:
    """`x` is a floating-point tensor (B, ...) with at least one data dimension."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{what} must be a floating-point tensor, got {got}")
    if x.ndim < 2:
        raise ValueError(f"{what} must have shape (B, ...) with at least one data dimension, got {shape(x)}")


def check_finite(x: Tensor, what: str = "x") -> None:
    """No NaN and no infinity."""
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{what} has {bad} value(s) that are NaN or infinite, out of {x.numel()}")


def check_same(a: Tensor, b: Tensor, names: str) -> None:
    """Two states of the same shape and dtype."""
    for x in (a, b):
        if not isinstance(x, Tensor):
            raise ValueError(f"{names} must be tensors, got {type(x).__name__}")
    if a.shape != b.shape:
        raise ValueError(f"{names} must have the same shape, got {shape(a)} and {shape(b)}")
    if a.dtype != b.dtype:
        raise ValueError(f"{names} must have the same dtype, got {a.dtype} and {b.dtype}")


def check_batch_of_times(t: Tensor, x: Tensor, what: str = "t") -> None:
    """`t` is one time () or one per sample (B,)."""
    if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != x.shape[0]):
        raise ValueError(
            f"{what} must have shape () or ({x.shape[0]},) for x of shape {shape(x)}, got {what} of shape {shape(t)}"
        )


def check_range(t: Tensor, what: str = "t") -> None:
    """Times lie in [0, 1]; NaN does not."""
    if t.requires_grad:
        t = t.detach()
    if t.ndim == 0:  # the common case, checked at every call of a denoiser
        number = known(t)
        inside = number is None or 0 <= number <= 1
    else:
        inside = known(((t >= 0) & (t <= 1)).all()) is not False
    if not inside:
        low, high = float(t.min()), float(t.max())
        raise ValueError(f"{what} must lie in [0, 1], got values from {low:g} to {high:g}")


def check_grid(ts: Tensor) -> None:
    """A time grid is strictly decreasing, inside [0, 1], with one step at least."""
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise ValueError(f"a time grid has shape (N+1,) with N >= 1, got {shape(ts)}")
    check_range(ts, "the time grid")
    rise = torch.nonzero(ts[1:] >= ts[:-1])
    if len(rise):
        i = int(rise[0])
        raise ValueError(
            f"a time grid must be strictly decreasing (t = 1 is noise, t = 0 data), "
            f"but ts[{i}] = {float(ts[i]):g} and ts[{i + 1}] = {float(ts[i + 1]):g}"
        )


def check_count(n: object, what: str, least: int = 1) -> int:
    """A whole number, at least `least`."""
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < least:
        raise ValueError(f"{what} must be a whole number >= {least}, got {quoted(n)}")
    return int(n)


def check_number(value: object, what: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, got {quoted(value)}")
    return float(value)


def check_positive(value: object, what: str) -> float:
    """A finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{what} must be a finite number > 0, got {quoted(value)}")
    return float(value)


def check_fraction(value: object, what: str) -> float:
    """A number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or value < 0 or not value <= 1:
        raise ValueError(f"{what}, a fraction, must lie in [0, 1], got {quoted(value)}")
    return float(value)


def check_edge(value: object) -> float:
    """The fraction of a batch at t = 1: a number in [0, 1)."""
    edge = check_fraction(value, "edge")
    if edge == 1:
        raise ValueError(
            "edge must leave some of the batch below t = 1, got 1; naive distillation trains at t = 1 alone"
        )
    return edge


def as_generator(seed: torch.Generator | int | None, device: torch.device | str = "cpu") -> torch.Generator | None:
    """A `torch.Generator` of a seed. A generator is returned as it is, and so is None, torch's global generator."""
    if seed is None or isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"a seed is a whole number of 64 bits or a torch.Generator, got {quoted(seed)}")
    return torch.Generator(device).manual_seed(int(seed))
