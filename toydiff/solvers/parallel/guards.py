"""What keeps a parallel sampler's iterates finite, and its decisions above rounding. None of it changes a path that
has no need of it."""

import math

import torch
from torch import Tensor

from ..base import Solver
from .base import Points, distance, unstable

ROUNDINGS = 128
"""A change of so many roundings of a state of size sqrt(alpha^2 + sigma^2) cannot be told from none."""


def thresholds(points: Points, tolerance: float | None, i: int, j: int, dtype: torch.dtype) -> Tensor:
    """The change with which the points i ... j - 1 are accepted, (j - i,): tolerance x sigma; at sigma = 0, that of the
    point before.

    Never less than rounding, which no sweep can go below; without a tolerance, nothing.
    """
    if tolerance is None:
        return torch.zeros(j - i, dtype=torch.float64)
    rounding = ROUNDINGS * torch.finfo(dtype).eps
    return torch.tensor(
        [
            max(
                tolerance * (points.sigma[k] or points.sigma[k - 1]),
                rounding * math.hypot(points.alpha[k], points.sigma[k]),
            )
            for k in range(i, j)
        ],
        dtype=torch.float64,
    )


def check_exact(state: Tensor, solver: Solver, steps: int) -> None:
    """A state (B, ...) of the sequential walk that is not finite: `FloatingPointError`, since no sweep will mend it."""
    if not bool(torch.isfinite(state).all()):
        raise unstable(solver, steps, state)


def restarted(new: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """States (n+1, B, ...) and how much all but the first changed, (n,): what overflowed starts anew from the first,
    and is not accepted.

    Beyond the accepted points an iterate may leave the range of numbers, although the path does not.
    """
    overflowed = ~torch.isfinite(new).flatten(2).all(2)
    new = torch.where(overflowed.reshape(*overflowed.shape, *[1] * (new.ndim - 2)), new[0], new)
    return new, change.masked_fill(overflowed[1:].any(1).cpu(), math.inf)


def safeguarded(x: Tensor, new: Tensor, phi: Tensor, S: Tensor, stride: int, limits: Tensor) -> tuple[Tensor, int]:
    """The new states (n+1, B, ...), and how many of them are accepted: `stride`, the last of which has not shown that
    it hardly changes.

    It is as good as those before if it is where Picard's sweep takes it from them. If an acceleration, or a restart,
    put it elsewhere, it is moved there; if there is no number there, it is not accepted. x, phi, S as in
    `Picard.update`; limits (n,): `thresholds`.
    """
    step = phi[stride - 1] + S[stride] / S[stride - 1] * (new[stride - 1] - x[stride - 1])
    if not bool(torch.isfinite(step).all()):
        return new, stride - 1
    if distance(new[stride : stride + 1], step[None]) > limits[stride - 1]:
        new = torch.cat([new[:stride], step[None], new[stride + 1 :]])
    return new, stride


def finite_or(x: Tensor, *others: Tensor) -> tuple[Tensor, bool]:
    """x (B, ...), each sample that is not finite replaced by the first of the others that is; and whether all of x
    was."""
    whole = bool(torch.isfinite(x).all())
    for other in () if whole else others:
        good = torch.isfinite(x).flatten(1).all(1).reshape(-1, *[1] * (x.ndim - 1))
        x = torch.where(good, x, other)
    return x, whole
