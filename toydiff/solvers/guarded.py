"""Adams-Bashforth with a guard: the default solver.

A high order extrapolates from earlier calls. That pays where the model's values change smoothly, and throws samples far
off where they do not, as with few steps under strong guidance. Here each sample takes of every order as much as the
sizes of the terms allow; no sample depends on the others in its batch.

From x at t to s, with the prediction (x_0, eps) at t, the Adams-Bashforth steps x1, x2, x3 of orders 1 to 3, their S
and F (`Angle`), and norms over a sample; what is not trusted falls back to J, a step of DDIM that does not overshoot:

    1. M = alpha_s x_0 + sigma_s eps - (S_s/S_t) x                      the step of DDIM
       d = x/S_t - x'/S_t',  k = -(theta_t - theta_s) (F - F').d/d.d    x', F' of the call before
       J = (S_s/S_t) x + M - (1 - min(1, 1/k)) (M.d/d.d) d              if k > 1 and s > 0; else J is DDIM's
    2. p = min(1, (c |J - (S_s/S_t) x| + e) / |x2 - x1|)                order 2 whole if it changes at most c of a step
    3. p = p min(1, (c |x2 - x1| + e) / |x3 - x2|)                      and if order 3 hardly corrects it
       q = min(1, (c p |x2 - x1| + e) / |x3 - x2|)                      order 3 if at most c of what order 2 did
    4. x_s = J + p (x2 - J) + p q (x3 - x2)
    5. at s = 0: J + min(1, 2 alpha_s |x_0 - x_0'| / |x_s - J|) (x_s - J) instead

c = `trust`; e = `slack` sqrt(n) S_s, n the numbers in a sample: as steps shrink, every term falls below it, so that p
and q are 1 and the order is 3.

The first step knows one value, and is x1, or J at s = 0. The second call's value corrects it: lines 2 and 4, without
line 1, from the first state; x_0 is kept. The second step starts there; it and the correction have no line 3, and no
last term in line 4.

Line 1 takes F.d as linear between two calls, the secant. k > 1 says that the step would pass the secant's root; beyond
k = 2 it would land farther off than it began. Where x_0 has settled, as on the points of a data set, line 5 ends on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import HALF, combine, expand
from ..support.checks import check_positive
from .adams import Angle
from .base import Solver
from .entry import VERMILLION, Entry

SETTLED = 2.0
"""How far from J the last step may end, in multiples of the last change of x_0; 1 would do if it changed evenly."""


@dataclass(frozen=True)
class Guarded(Solver):
    """Adams-Bashforth 3 in the angle (`AdamsBashforth`), of which each sample takes as much as it can trust.

    The first step knows one value only; the next call's value corrects it, under the same guard. `trust`, c > 0: how
    large the change by one order may be, relative to that by the order below. `slack` > 0: a change
    below this is always trusted, as a root mean square over the sample in units of S_s.
    """

    trust: float = 0.35
    slack: float = 0.03

    order = 3
    memory = 2

    def __post_init__(self):
        check_positive(self.trust, "trust")
        check_positive(self.slack, "slack")

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        here, older, angle = D(x, t), list(reversed(past)), Angle.of(D)
        if len(older) == 1:
            here = here.at(self.advance(angle, older[0], t, [older[0], here], []))
        return self.advance(angle, here, s, [here, *older[:2]], older), here

    def advance(
        self, angle: Angle, base: Prediction, s: Tensor, values: Sequence[Prediction], older: Sequence[Prediction]
    ) -> Tensor:
        """x at s from the state of `base`, with the model's `values`, one to three, of which the first is `base`.
        older: all predictions before it, newest first."""
        J, scale, old_scale = jump(base, s), angle.size(s), angle.size(base.t)
        clean = angle.schedule.levels(s).sigma == 0
        if len(values) == 1:
            return J if clean else angle.step(base, s, values)
        carried = (scale / old_scale) * base.x
        moved = J - carried
        if older and not clean:
            moved = moved - _overshoot(angle, base, older[0], s, moved)  # 1
        J = carried + moved
        slack = self.slack * scale * math.sqrt(math.prod(J.shape[1:]))
        x1, x2 = (angle.step(base, s, values[:q]) for q in (1, 2))
        second = _size(x2 - x1)
        p = _fraction(self.trust * _size(moved) + slack, second)  # 2
        if len(values) == 2:
            x_s = J + expand(p, J) * (x2 - J)
        else:
            change = angle.step(base, s, values) - x2
            third = _size(change)
            p = p * _fraction(self.trust * second + slack, third)  # 3
            q = _fraction(self.trust * p * second + slack, third)
            x_s = J + expand(p, J) * (x2 - J) + expand(p * q, J) * change  # 4
        if clean:
            changed = SETTLED * float(angle.schedule.levels(s).alpha) * _size(base.x0 - older[0].x0)
            x_s = J + expand(_fraction(changed, _size(x_s - J)), J) * (x_s - J)  # 5
        return x_s


def _overshoot(angle: Angle, p: Prediction, before: Prediction, s: Tensor, moved: Tensor) -> Tensor:
    """The part of a DDIM step from p to s (`moved`) to take back, (B, ...). Along d, the last change of the state, F is
    taken as linear through p and `before`; the step should not pass the place where its component along d is 0."""
    d = p.x / angle.size(p.t) - before.x / angle.size(before.t)
    change = combine(*angle.F(p), *angle.F(before, -1.0))
    length2 = _dot(d, d).clamp(min=torch.finfo(torch.float32).tiny)
    k = (angle.theta(s) - angle.theta(p.t)) * _dot(change, d) / length2
    return expand((1 - _fraction(torch.ones_like(k), k)) * _dot(moved, d) / length2, d) * d


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The scalar product of each sample, (B,)."""
    dtype = torch.float32 if a.dtype in HALF else a.dtype
    return torch.linalg.vecdot(a.flatten(1).to(dtype), b.flatten(1).to(dtype))


def _size(x: Tensor) -> Tensor:
    """The norm of each sample, (B,)."""
    return torch.linalg.vector_norm(x.float() if x.dtype in HALF else x, dim=tuple(range(1, x.ndim)))


def _fraction(most: Tensor, size: Tensor) -> Tensor:
    """min(1, most/size), and 1 where size = 0."""
    return torch.where(size <= most, 1.0, most / size)


GUARDED_ENTRIES = [
    Entry(
        name="guarded",
        solver=Guarded(),
        title="Adams-Bashforth 3, guarded: each sample keeps the order that it can trust",
        paper="arXiv 2206.00364, eq. 7; arXiv 2204.13902",
        color=VERMILLION,
        marker="D",
        dash="solid",
    ),
]
