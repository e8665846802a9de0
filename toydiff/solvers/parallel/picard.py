"""Picard iteration over the time of a path (ParaDiGMS, arXiv 2305.16317, algorithm 1).

All steps of a window of the path are taken at once, each from the last guess of its state. The next guess adds up their
moves, from the window's first state on. The leading points that hardly changed are accepted, and with them the next
point, whose new state is one step from an accepted one. Then the window slides on over what is accepted.

    1   b, e = 0, W                                      the window: the points b ... e of a grid of T steps
    2   xi_i ~ N(0, I),  i = 0 ... T-1                   the noise of a stochastic step, drawn once, when first needed
    3   x_i = x_0,  i = 1 ... e                          the first guess
    4   while b < T:
    5       phi_i = Phi_i(x_i, xi_i),  i = b ... e-1     all steps in one round
    6       x'_{i+1} = x_b + sum_{j=b..i} (phi_j - x_j),  i = b ... e-1,  x'_b = x_b      Picard: where their moves lead
    7       change_i = rms(x'_i - x_i),  i = b+1 ... e
    8       stride = 1 + leading points with change_i <= tolerance sigma_i,  at most e - b
    9       x'_{e+j} = x'_e,  j = 1 ... stride,  e + j <= T     points that enter start where the window ends
    10      b, x = b + stride, x'
    11      e = min(b + W, T)
    12  return x_T

x_i is the state at grid point i, so x_0 is the noise and x_T the sample. (The data that a model predicts is x_0
elsewhere, and x0s here.) Phi_i is the solver's step from point i to i + 1.

The paper writes t for b. In line 8 it bounds the squared change by tau^2 times the variance of a DDPM step. Here the
change is bounded by tolerance times sigma_i, the noise level of the schedule at point i.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...support.checks import check_count
from ..base import Solver
from ..ddim import DDIM
from ..entry import BLUE, Entry
from ..trajectory import Trajectory
from .base import (
    AT_ONCE,
    Job,
    ParallelSolver,
    Points,
    Sweep,
    check_one_step,
    check_settings,
    coarse_path,
    column,
    leading,
    resampled,
    rms,
)
from .guards import check_exact, restarted, safeguarded, thresholds


@dataclass(frozen=True)
class Picard(ParallelSolver):
    """x^{k+1}_{i+1} = x_0 + sum_{j<=i} (Phi_j(x^k_j) - x^k_j), for all points i of the grid at once (arXiv 2305.16317).

    k counts sweeps. Phi_j is the step of `solver` from point j to j + 1; if it is stochastic, its noise is drawn once
    and is the same in every sweep. After k sweeps the first k points are those of the sequential walk, so T sweeps
    always suffice.

    - solver: the one-step solver whose path is computed;
    - tolerance: a point is accepted once a sweep changes no sample there by more than tolerance * sigma, root mean
      square over the data. sigma is the noise level at the point; at the last point, where it is 0, that of the point
      before. A smaller tolerance costs more sweeps; None accepts exact points only;
    - window: how many points are iterated at a time, from the first that is not accepted; None takes the whole grid.
      The window moves on over accepted points. A point that enters it starts from the window's last state, moved as the
      first guess moves between these two points;
    - start: the first guess. 0 puts every point where the walk starts; n >= 1 is a coarse solve of n DDIM steps; a
      `Trajectory` is an earlier result, interpolated to this grid. Their calls and rounds are counted;
    - at_once: the largest number of states (points x samples) in one network call.
    """

    solver: Solver = field(default_factory=DDIM)
    tolerance: float | None = 1e-3
    window: int | None = None
    start: int | Trajectory = 0
    at_once: int = AT_ONCE

    def __post_init__(self):
        check_one_step(self.solver, "solver")
        check_settings(self)
        if self.window is not None:
            check_count(self.window, "window")
        if not isinstance(self.start, Trajectory):
            check_count(self.start, "start", 0)

    @property
    def one_step(self) -> Solver:
        return self.solver

    def check_steps(self, steps: int) -> None:
        for value, what in ((self.window, "window"), (self.start, "start")):
            if value is not None and not isinstance(value, Trajectory) and value > steps:
                raise ValueError(f"{what} must be at most the number of steps, {steps}, got {value}")

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        T, W = points.steps, self.window or points.steps
        guess, S, past = self.guess(points, x), column(self.scale(points), x), self.history()
        b, e = 0, W  # 1; `points` draw the noise, 2
        x = guess(b, e + 1)  # 3
        yield Sweep(b, x, x[:0], 0, torch.empty(0))
        while b < T:  # 4
            [(phi, x0s)] = points.step(Job(self.solver, x[:-1], range(b, e), range(b + 1, e + 1)))  # 5
            check_exact(phi[0], self.solver, T)
            new, moved = self.update(past, b, x, phi, S[b : e + 1])  # 6
            new, change = restarted(new, rms(moved))  # 7
            limits = thresholds(points, self.tolerance, b + 1, e + 1, x.dtype)
            stride = min(1 + leading(change <= limits), e - b)  # 8
            new, stride = safeguarded(x, new, phi, S[b : e + 1], stride, limits)
            yield Sweep(b, new, x0s, b + stride, change)
            entering = new[-1] + guess(e + 1, e + 1 + stride) - guess(e, e + 1)  # 9, none beyond T
            b, x = b + stride, torch.cat([new[stride:], entering])  # 10
            e = min(b + W, T)  # 11

    def guess(self, points: Points, x: Tensor) -> Callable[[int, int], Tensor]:
        """The path before the first sweep: (i, j) gives its states at the points i ... j - 1, (j - i, B, ...)."""
        if isinstance(self.start, Trajectory):
            path = resampled(self.start, points, x)
            points.spend(self.start.nfe, self.start.rounds)
        elif self.start > 0:
            path = coarse_path(points, x, self.start)
        else:
            S = column(self.scale(points), x)
            return lambda i, j: x * (S[i:j] / S[0])
        return lambda i, j: path[i:j]

    def scale(self, points: Points) -> list[float]:
        """S_i, (T+1,), how errors are expected to grow along the path: from e at point i to e S_j/S_i at point j. Plain
        Picard has S = 1: errors stay as they are. anderson.py has another S."""
        return [1.0] * (points.steps + 1)

    def history(self) -> Any:
        """What `update` remembers of earlier sweeps: nothing here, differences in anderson.py."""

    def update(self, past: Any, first: int, x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        """One sweep over the window. Returns the new states (n+1, B, ...), and the error (n, B, ...) that the sweep
        found in the old states, at the points after the first.

        x (n+1, B, ...): the window's states, the first at point `first`; phi (n, B, ...): where the steps from them
        lead; S (n+1, 1, ...): `scale`.
        """
        return picard_sweep(x, phi, S)


def picard_sweep(x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """x'_{i+1} = phi_i + (S_{i+1}/S_i) (x'_i - x_i), and x' - x of the points after the first.

    With S = 1 that is line 6, rearranged: x'_i - x_i = sum_{j=b..i-1} (phi_j - x_{j+1}). In this form a point whose
    predecessor did not move becomes Phi of that predecessor to the last bit.
    """
    moved = S[1:] * ((phi - x[1:]) / S[1:]).cumsum(0)  # 6
    carried = torch.cat([torch.zeros_like(moved[:1]), S[2:] / S[1:-1] * moved[:-1]])
    return torch.cat([x[:1], phi + carried]), moved


PICARD_ENTRIES = [
    Entry(
        name="picard",
        solver=Picard(),
        title="Picard iteration, ParaDiGMS' window",
        paper="arXiv 2305.16317, alg. 1",
        color=BLUE,
        marker="o",
        dash="solid",
    )
]
