"""Picard iteration over the time of a path (ParaDiGMS, arXiv 2305.16317): all steps at once, again and again."""

import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import check_count
from .base import Solver
from .ddim import DDIM
from .parallel import (
    AT_ONCE,
    Job,
    ParallelSolver,
    Points,
    Sweep,
    allowed,
    check_one_step,
    check_settings,
    coarse_path,
    distance,
    leading,
    resampled,
    unstable,
)

if TYPE_CHECKING:
    from .driver import Trajectory


@dataclass(frozen=True)
class Picard(ParallelSolver):
    """x^{k+1}_{i+1} = x_0 + sum_{j<=i} (Phi_j(x^k_j) - x^k_j), for all points i of the grid at once (arXiv 2305.16317).

    Phi_j is the step of `solver` from point j to j + 1; its noise, where it is stochastic, is drawn once and stays. After k sweeps the
    first k points are those of the sequential walk (the deck's lower bound), so T sweeps always suffice.

    `window`: only so many points are iterated at a time, from the first that is not accepted (alg. 1); None takes the whole grid. The
    window moves on over accepted points, and points that enter it start where its last one is. `start`: the first guess: 0,
    every point where the walk starts; n >= 1, a coarse solve of n DDIM steps; a `Trajectory`, an earlier result, interpolated to this
    grid. Their calls and rounds are counted.
    """

    solver: Solver = field(default_factory=DDIM)
    tolerance: float | None = 1e-3
    window: int | None = None
    start: "int | Trajectory" = 0
    at_once: int = AT_ONCE

    def __post_init__(self):
        check_one_step(self.solver, "solver")
        check_settings(self)
        if self.window is not None:
            check_count(self.window, "window")
        if not hasattr(self.start, "xs"):
            check_count(self.start, "start", 0)

    @property
    def one_step(self) -> Solver:
        return self.solver

    def check_steps(self, steps: int) -> None:
        for value, what in ((self.window, "window"), (self.start, "start")):
            if isinstance(value, numbers.Integral) and value > steps:
                raise ValueError(f"{what} must be at most the number of steps, {steps}, got {value}")

    def scale(self, points: Points) -> list[float]:
        """The size of a state at each point, (T+1,): an error is carried on in proportion to it. Plain Picard carries it unchanged."""
        return [1.0] * (points.steps + 1)

    def guess(self, points: Points, x: Tensor) -> Callable[[int, int], Tensor]:
        """The path before the first sweep: (i, j) gives its states at the points i ... j - 1, (j - i, B, ...)."""
        if not isinstance(self.start, numbers.Integral):
            path = resampled(self.start, points, x)
            points.spend(self.start.nfe, self.start.rounds)
        elif self.start > 0:
            path = coarse_path(points, x, self.start)
        else:
            S = column(self.scale(points), x)
            return lambda i, j: x * (S[i:j] / S[0])
        return lambda i, j: path[i:j]

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        T, S, window = points.steps, self.scale(points), self.window or points.steps
        b, e = 0, window  # the first and the last point of the window
        guess, past = self.guess(points, x), self.history()
        x = guess(b, e + 1)
        yield Sweep(b, x, x[:0], 0, torch.empty(0))
        while b < T:
            [(phi, x0s)] = points.step(Job(self.solver, x[:-1], range(b, e), range(b + 1, e + 1)))
            if not bool(torch.isfinite(phi[0]).all()):
                raise unstable(self.solver, T, phi)
            size = column(S[b : e + 1], phi[0])
            new, wrong = self.update(past, b, x, phi, size)
            # beyond the front an iterate may explode; from there it starts anew, and is not accepted
            lost = ~torch.isfinite(new).flatten(2).all(2)
            change = distance(wrong, torch.zeros_like(wrong)).masked_fill(lost[1:].any(1).cpu(), torch.inf)
            new = torch.where(lost.reshape(*lost.shape, *[1] * (new.ndim - 2)), new[0], new)
            limits = allowed(points, self.tolerance, b + 1, e + 1, phi.dtype)
            settled = leading(change <= limits)
            # one point more is as good as they are (alg. 1), if it is where the plain step from the last of them leads
            j = min(settled + 1, e - b)
            step = phi[j - 1] + size[j] / size[j - 1] * (new[j - 1] - x[j - 1])
            if bool(torch.isfinite(step).all()):
                if distance(new[j : j + 1], step[None]) > limits[j - 1]:
                    new[j] = step
            else:
                j -= 1
            front = b + j
            yield Sweep(b, new, x0s, front, change)
            last, e_new = new[-1], min(front + window, T)
            entering = last + guess(e + 1, e_new + 1) - guess(e, e + 1)
            x, b, e = torch.cat([new[front - b :], entering]), front, e_new

    def history(self) -> object:
        """What `update` remembers of earlier sweeps: nothing here."""

    def update(self, past: object, first: int, x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
        """One sweep over the window. x (n+1, B, ...): its states, the first at point `first`; phi (n, B, ...): where the steps from them
        lead; S (n+1, 1, ...): `scale`. Returns the new states (n+1, B, ...), and how wrong the old ones were, (n, B, ...)."""
        return picard_sweep(x, phi, S)


def picard_sweep(x: Tensor, phi: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """x^{k+1}_{i+1} = Phi_i(x^k_i) + (S_{i+1}/S_i) (x^{k+1}_i - x^k_i), and x^{k+1} - x^k of the points after the first.

    With S = 1 that is Picard's sum, term by term; written so, a point whose predecessor did not move is Phi of it to the last bit.
    """
    moved = S[1:] * ((phi - x[1:]) / S[1:]).cumsum(0)
    carried = torch.cat([torch.zeros_like(moved[:1]), S[2:] / S[1:-1] * moved[:-1]])
    return torch.cat([x[:1], phi + carried]), moved


def column(values: list[float], x: Tensor) -> Tensor:
    """Numbers, one a point, made to multiply states (n, B, ...) like x (B, ...)."""
    return torch.tensor(values, dtype=torch.float64).to(x).reshape(-1, *[1] * x.ndim)
