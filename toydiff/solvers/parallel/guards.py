"""What keeps a parallel sampler's iterates finite, and its decisions above rounding. None of it changes a path that
has no need of it."""

import math

import torch
from torch import Tensor

from ..base import Solver
from .base import Points, distance, unstable

ROUNDINGS = 128
"""A change of at most this many roundings of a state of size sqrt(alpha^2 + sigma^2) counts as none."""


def thresholds(points: Points, tolerance: float | None, i: int, j: int, dtype: torch.dtype) -> Tensor:
    """The largest change with which each of the points i ... j - 1 is accepted, (j - i,): tolerance * sigma, sigma the
    noise level there; at sigma = 0 that of the point before.

    It is never below rounding, which no sweep can improve on. Without a tolerance it is 0.
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
    """The states (n+1, B, ...), and the changes (n,) of all but the first. A state that overflowed becomes the first
    one, and its change infinite, so that it is not accepted.

    Beyond the accepted points an iterate may overflow although the path does not.
    """
    overflowed = ~torch.isfinite(new).flatten(2).all(2)
    new = torch.where(overflowed.reshape(*overflowed.shape, *[1] * (new.ndim - 2)), new[0], new)
    return new, change.masked_fill(overflowed[1:].any(1).cpu(), math.inf)


def safeguarded(x: Tensor, new: Tensor, phi: Tensor, S: Tensor, stride: int, limits: Tensor) -> tuple[Tensor, int]:
    """The new states (n+1, B, ...), and how many of them are accepted: `stride`, or one fewer.

    The last of the `stride` points may have changed much. It is accepted because it is the Picard step of an accepted
    point. If an acceleration or a restart put it elsewhere, it is moved to that step; if that step is not finite, the
    point is not accepted. x, phi, S as in `Picard.update`; limits (n,): `thresholds`.
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
