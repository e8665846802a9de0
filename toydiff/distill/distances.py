"""Distances between predictions, of which losses are made: each takes two tensors (B, ...) and gives (B,)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..support.checks import check_positive, unknown

HUBER = 1e-3
"""c of the element-wise pseudo-Huber distance in the code of LCM, PCM and Rectified Diffusion."""


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance, (B,): the mean over a sample's numbers."""
    return (a - b).square().flatten(1).mean(1)


def pseudo_huber(a: Tensor, b: Tensor, c: float = HUBER) -> Tensor:
    """mean_i [sqrt((a_i - b_i)^2 + c^2) - c], (B,): the element-wise form of LCM, PCM and Rectified Diffusion's
    code."""
    return (torch.sqrt((a - b).square() + c**2) - c).flatten(1).mean(1)


def vector_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c, (B,): the form of iCT (arXiv 2310.14189, eq. 7), with c = 0.00054 sqrt(d) there; ECT
    has c = 0.

    The best prediction of a random target is its geometric median as c -> 0, and its mean as c -> infinity.
    """
    return torch.sqrt((a - b).square().flatten(1).sum(1) + c**2) - c


Between = Callable[[Tensor, Tensor], Tensor]
"""A distance: two tensors (B, ...) -> (B,)."""

DISTANCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "l2": lambda a, b, c: mse(a, b),
    "huber": vector_huber,
    "element-huber": pseudo_huber,
}
"""The distances by name: the squared one, which takes no c, and the two forms of pseudo-Huber."""


def distance(name: str, c: float = HUBER) -> Between:
    """A distance by name. `ValueError` for an unknown name, and for c <= 0 (at 0 the slope would be infinite)."""
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    check_positive(c, "c")
    return lambda a, b: DISTANCES[name](a, b, c)
