"""Picard iteration that learns from its own sweeps: ParaTAA's triangular Anderson acceleration, and Broyden's
secants point by point."""

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ...support.checks import check_count
from ..entry import ORANGE, VERMILLION, Entry
from .base import Points
from .picard import Picard, picard_sweep

BLUR = 300
"""A difference of two states counts only where it exceeds this many roundings of a state."""


class Differences:
    """The last `memory` differences, from one sweep to the next, of two quantities a and b: (n, B, ...), newest first;
    0 at points that no earlier sweep reached."""

    def __init__(self, memory: int):
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
        self.latest: tuple[int, Tensor, Tensor] | None = None

    def add(self, first: int, a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Record a and b at the points from `first` on; returns the differences at these points."""
        if self.latest is not None:
            before, a_then, b_then = self.latest
            shift, n = first - before, len(a)
            self.pairs = deque(
                ((_shifted(da, shift, n), _shifted(db, shift, n)) for da, db in self.pairs), maxlen=self.pairs.maxlen
            )
            overlap = len(a_then) - shift
            da, db = a[:overlap] - a_then[shift:], b[:overlap] - b_then[shift:]
            self.pairs.appendleft((_shifted(da, 0, n), _shifted(db, 0, n)))
        self.latest = (first, a, b)
        return list(self.pairs)


def _shifted(d: Tensor, shift: int, n: int) -> Tensor:
    """n rows of d from `shift` on: 0 where d has no such row, and where it is not finite."""
    kept = d[shift : shift + n].nan_to_num(0.0, 0.0, 0.0)
    return torch.cat([kept, kept.new_zeros(n - len(kept), *d.shape[1:])])


@dataclass(frozen=True)
class Accelerated(Picard):
    """What both accelerations have: `memory` differences between sweeps, and errors in units of sqrt(alpha^2 +
    sigma^2).

    The unit is the size of a state if the data have variance 1, and an error is carried on in proportion to it, as the
    flow of standard normal data would. So the method is the same on all schedules. Plain Picard is not: on VE, where
    states have size 80, it needs more sweeps.
    """

    memory: int = 2

    def __post_init__(self):
        super().__post_init__()
        check_count(self.memory, "memory")

    def scale(self, points: Points) -> list[float]:
        return [math.hypot(a, s) for a, s in zip(points.alpha, points.sigma, strict=True)]

    def history(self) -> Differences:
        return Differences(self.memory)


@dataclass(frozen=True)
class Anderson(Accelerated):
    """Triangular Anderson acceleration (ParaTAA, arXiv 2402.09970, TAA): each sweep is corrected by the last ones'
    differences.

    With R the change that a Picard sweep would make, and dX, dR (memory columns) the last differences of the path and
    of R,

        gamma_i = argmin |R_{<=i} - dR_{<=i} gamma|^2,    x^{k+1}_i = x_i + R_i - (dX_i + dR_i) gamma_i,

    for each sample by itself. gamma_i depends on the points up to i only, since later points have converged less
    (triangular). The first point after the front is left as Picard gives it, so that it is exact (their safeguard).
    """

    memory: int = 3

    def update(self, past: Differences, first: int, x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        picard, R = picard_sweep(x, phi, S)
        pairs = past.add(first, x[1:] / S[1:], R / S[1:])
        if not pairs:
            return picard, R
        dX, dR = (torch.stack(d) for d in zip(*pairs, strict=True))  # (m, n, B, ...)
        gamma = triangular_least_squares(dR.flatten(3), (R / S[1:]).flatten(2))
        correction = torch.einsum("nba,anbd->nbd", gamma.to(x), (dX + dR).flatten(3)).reshape(R.shape)
        new = picard.clone()
        new[2:] -= (S[1:] * correction)[1:]
        moved = new[1:] - x[1:]
        return new, torch.where(moved.abs() > R.abs(), moved, R)


def triangular_least_squares(dR: Tensor, R: Tensor) -> Tensor:
    """gamma_i = argmin |R_{<=i} - dR_{<=i} gamma|^2 for each sample, (n, B, m), in float64. R (n, B, D), dR (m, n, B,
    D).

    Solved by normal equations with columns of length 1, and a ridge, since columns may be nearly parallel. A column
    that is 0 or not finite gets gamma = 0.
    """
    columns, right_side = dR.double(), R.double()
    gram = torch.einsum("anbd,cnbd->nbac", columns, columns).cumsum(0)
    right = torch.einsum("anbd,nbd->nba", columns, right_side).cumsum(0)
    length = gram.diagonal(dim1=2, dim2=3).sqrt()
    unit = torch.where((length > 0) & torch.isfinite(length), 1 / length, 0.0)
    gram = (unit[..., None] * gram * unit[..., None, :]).nan_to_num(0.0, 0.0, 0.0)
    right = (unit * right).nan_to_num(0.0, 0.0, 0.0)[..., None]
    ridge = 1e-10 * torch.eye(len(dR)).to(gram)
    return unit * torch.linalg.solve(gram + ridge, right)[..., 0]


@dataclass(frozen=True)
class Broyden(Accelerated):
    """Newton's method on the path, with secants for Jacobians: each point learns from its own earlier steps.

        x^{k+1}_{i+1} = Phi_i(x^k_i) + J_i (x^{k+1}_i - x^k_i)

    is Picard if J_i = 1, and Newton if J_i is the derivative of Phi_i. Here J_i dx = dPhi_i holds for the last `memory`
    differences at point i (generalized Broyden: Fang and Saad 2009, doi 10.1002/nla.617). In all other directions J_i
    is S_{i+1}/S_i, the ratio of `scale`. Anderson mixes whole paths; here every point has its own coefficients.

    A secant is trusted no further than it was measured: for a step longer than the longest dx, its part is that of a
    step of that length.
    """

    def update(self, past: Differences, first: int, x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        pairs = past.add(first, x[:-1], phi)
        ratio = S[1:] / S[:-1]
        # rounding must not pass for a slope: what it adds to J_i is multiplied over all the points that follow
        blur = BLUR * torch.finfo(x.dtype).eps * x[:-1].flatten(2).norm(dim=2, keepdim=True)
        basis, reach = secants([(dx, dphi - ratio * dx) for dx, dphi in pairs], blur)
        new = [x[0]]
        for i in range(len(phi)):
            d = new[i] - x[i]
            carried = ratio[i] * d
            if reach is not None and i > 0:  # the first point has not moved
                flat = d.flatten(1)
                length = flat.norm(dim=1, keepdim=True)
                trusted = torch.where(length > reach[i], reach[i] / length, 1.0)
                turned = sum(w[i] * (q[i] * flat).sum(1, keepdim=True) for q, w in basis)
                carried = carried + (trusted * turned).reshape(d.shape)
            new.append(phi[i] + carried)
        path = torch.stack(new)
        return path, path[1:] - x[1:]


def secants(pairs: list[tuple[Tensor, Tensor]], blur: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """W d = sum w (q . d), the linear map of least rank with W dx = dy for all pairs (dx, dy). Returns ([(q, w), ...],
    reach): q orthonormal, w = W q, reach the length of the longest dx (None without pairs).

    pairs: newest first, of (n, B, ...); q and w are flattened, (n, B, D); reach and blur are (n, B, 1). A direction
    that newer pairs (almost) span adds nothing and is left out, and so is one not longer than `blur`.
    """
    basis: list[tuple[Tensor, Tensor]] = []
    lengths = []
    for dx, dy in pairs:
        q, w = dx.flatten(2), dy.flatten(2)
        length = q.norm(dim=2, keepdim=True)
        lengths.append(length)
        for q_before, w_before in basis:
            inner = (q * q_before).sum(2, keepdim=True)
            q, w = q - inner * q_before, w - inner * w_before
        rest = q.norm(dim=2, keepdim=True)
        new = rest > torch.maximum(1e-3 * length, blur)
        size = torch.where(new, rest, 1.0)
        basis.append((torch.where(new, q / size, 0.0), torch.where(new, w / size, 0.0)))
    return basis, torch.stack(lengths).amax(0) if lengths else None


ANDERSON_ENTRIES = [
    Entry(
        name="anderson",
        solver=Anderson(),
        title="Picard with triangular Anderson acceleration",
        paper="arXiv 2402.09970, TAA",
        color=ORANGE,
        marker="^",
        dash="dash",
    ),
    Entry(
        name="broyden",
        solver=Broyden(),
        title="Picard with secants at each point",
        paper="doi 10.1002/nla.617",
        color=VERMILLION,
        marker="D",
        dash="dashdot",
    ),
]
