"""Samplers that freeze the posterior for a step (arXiv 2407.15595).

A position of the exact chain jumps at the rate a_t = -kappa'_t/(1 - kappa_t) to x_1^i ~ p(x_1^i | x_t). In a step from
t to s = t - h, by the posterior at t:

    1  p = p(x_1^i | x_t)
    2  q = 1 - exp(-h a_t)                            Euler: the rate is frozen, too
       q = (kappa_s - kappa_t)/(1 - kappa_t)          exact jumps: the rate is integrated; h/t for kappa = 1 - t
    3  x_s^i ~ p with probability q, and else x_t^i   each position by itself

Jumps within a step do not see one another, which leaves an error of order 1: two equal bits differ with probability
1/(2N) after N steps of exact jumps. The corrector adds a flow without divergence, which leaves p_t as it is and lets
tokens be drawn again: at the rate eta |kappa'_t| a position is drawn from p_t(x^i | x_1^i), x_1^i ~ p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..solvers.entry import BLUE, ORANGE, SKY, Entry
from .base import TokenSampler, posterior, staying
from .paths import TokenPath


@dataclass(frozen=True)
class EulerJumps(TokenSampler):
    """The Euler step, its jumps by the rate at t. Where that is infinite, as at t = 1 for power:A with A < 1, it draws
    every position at once."""

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        p = posterior(ps[0])  # 1
        q = -torch.expm1(-(t - s) * path.rate(t)).to(p)  # 2
        return q * p + (1 - q) * staying(xs[0], path, p)  # 3


@dataclass(frozen=True)
class ExactJumps(TokenSampler):
    """The exact jump rule: what one position does by itself is exact in any number of steps. t and s may be (B,)."""

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        p = posterior(ps[0])  # 1
        q = path.jump(t, s).to(p).reshape(-1, 1, 1)  # 2
        return q * p + (1 - q) * staying(xs[0], path, p)  # 3


MOST_ETA = 1e3


@dataclass(frozen=True)
class CorrectedJumps(TokenSampler):
    """Exact jumps with the divergence-free corrector.

    In a step both together resample a position with probability 1 - exp(-(J + C)), J = int a dt the jumps' and
    C = eta (kappa_s - kappa_t) the corrector's: over a whole walk, it draws each position eta times.
    """

    eta: float = 1.0
    """How often a walk draws a position anew, from 0 to 1000."""

    def __post_init__(self):
        if not isinstance(self.eta, int | float) or not 0 <= self.eta <= MOST_ETA:
            raise ValueError(f"the setting eta of jump-corrector must lie from 0 to {MOST_ETA:g}, got {self.eta!r}")

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        p = posterior(ps[0])
        kappa = path.kappa(t).to(p)
        of_t = kappa * p + (1 - kappa) * path.source_law(p.dtype).to(p.device)  # p_t(x^i | x_1^i), x_1^i ~ p
        J, C = -torch.log1p(-path.jump(t, s)), self.eta * (path.kappa(s) - path.kappa(t))
        q, w = -torch.expm1(-(J + C)).to(p), torch.where(J > 0, J / (J + C), 1.0).to(p)
        return q * (w * p + (1 - w) * of_t) + (1 - q) * staying(xs[0], path, p)


JUMP_ENTRIES = [
    Entry("jump-exact", ExactJumps(), "Exact jump rule", "arXiv 2407.15595", BLUE),
    Entry("jump-euler", EulerJumps(), "Euler, exponential jumps", "arXiv 2407.15595", SKY, "s", "dash"),
    Entry("jump-corrector", CorrectedJumps(), "Exact jumps and a corrector", "arXiv 2407.15595", ORANGE, "^"),
]
