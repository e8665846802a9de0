"""Tau-leaping with a midpoint: second order (the theta-trapezoidal method with theta = 1/2, arXiv 2502.00234, alg. 2;
Anderson and Mattingly, arXiv 0906.3475, for diffusions).

With the clock of the jumps, in which every rate is 1, a step from t to s of length H and its middle m, at H/2:

    1  p = p(x_1^i | x_t)
    2  x_m: each position jumps to y != x_t^i at the rate p(y), for H/2, once at most
    3  p* = p(x_1^i | x_m) at the time m
    4  x_s: from x_m each position jumps to y != x_m^i at the rate [2 p*(y) - p(y)]_+, for H/2, once at most;
       p counts only where stage 2 left the position as it was

The plain midpoint, which jumps from x_t again at the rates of x_m, stays at order 1 on a fixed table: two jumps of a
step still do not see one another. Nor can this rule where a rate would have to be negative: tokens that determine one
another, such as two equal bits. There it has order 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..solvers.entry import VERMILLION, Entry
from .base import TokenSampler, jumping, posterior
from .paths import TokenPath


@dataclass(frozen=True)
class TrapezoidalLeaps(TokenSampler):
    """Tau-leaping with a midpoint and extrapolated rates."""

    order = 2

    def times(self, path: TokenPath, t: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        return t, path.middle(t, s)

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        half = -0.5 * torch.log1p(-path.jump(t, s))
        p = posterior(ps[0])  # 1
        if len(xs) == 1:
            return jumping(xs[0], path, half.to(p) * p)  # 2
        p_mid = posterior(ps[1])  # 3
        as_it_was = (xs[1] == xs[0])[..., None]
        rates = (2 * p_mid - as_it_was * p).clamp(min=0)
        return jumping(xs[1], path, half.to(p) * rates)  # 4


LEAP_ENTRIES = [
    Entry("tau-midpoint", TrapezoidalLeaps(), "Tau-leaping with a midpoint", "arXiv 2502.00234, alg. 2", VERMILLION),
]
