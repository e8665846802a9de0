"""Parareal (Lions, Maday and Turinici 2001) and its use for sampling, SRDS (arXiv 2412.08292): coarse guesses, fine steps in parallel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    distance,
    unstable,
)


@dataclass(frozen=True)
class Parareal(ParallelSolver):
    """U^{k+1}_{n+1} = G(U^{k+1}_n) + F(U^k_n) - G(U^k_n) (SRDS, arXiv 2412.08292, alg. 1): U_n is the state where block n begins.

    F is the fine walk through a block, all steps of the grid there with `fine`; G is one step of `coarse` over the block. U^0 comes from G
    alone. After k iterations the first k blocks are those of the sequential walk. `blocks` B must divide the grid; None takes the
    divisor of T nearest to sqrt(T), SRDS's choice.

    The work is pipelined, as SRDS proposes: a block's fine walk begins as soon as its U is known, whatever iteration it belongs to, so
    that k iterations take k T/B + B - k rounds (see `parareal_rounds`), never more than T. `tolerance` holds for the states U.
    """

    fine: Solver = field(default_factory=DDIM)
    coarse: Solver = field(default_factory=DDIM)
    blocks: int | None = None
    tolerance: float | None = 1e-3
    at_once: int = AT_ONCE

    def __post_init__(self):
        check_one_step(self.fine, "fine")
        check_one_step(self.coarse, "coarse")
        if self.coarse.stochastic:
            raise ValueError(
                f"coarse must not be stochastic: it guesses where the fine walk leads; got {self.coarse!r}"
            )
        check_settings(self)
        if self.blocks is not None:
            check_count(self.blocks, "blocks")

    @property
    def one_step(self) -> Solver:
        return self.fine

    def check_steps(self, steps: int) -> None:
        check_blocks(steps, self.blocks or 1)

    def blocks_of(self, steps: int) -> int:
        """B for a grid of so many steps."""
        return self.blocks or min(divisors(steps), key=lambda b: abs(b - math.sqrt(steps)))

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        T, B = points.steps, self.blocks_of(points.steps)
        m, k = T // B, 0
        work, path, x0s = _Work(x, B, m), None, x.new_empty(T, *x.shape)
        while k < B:
            work.round(points, self.fine, self.coarse)
            if path is None and (0, B) in work.U:
                lines = (torch.lerp(work.U[0, n], work.U[0, n + 1], column(m, x)) for n in range(B))
                path = torch.cat([x[None], *lines])
                yield Sweep(0, path, x0s[:0], 0, torch.empty(0))
            while (k + 1, B) in work.U:
                old, path = path, path.clone()
                for n in range(k, B):
                    x0s[n * m : (n + 1) * m] = torch.stack(work.F[k, n].x0s)
                    path[n * m + 1 : (n + 1) * m + 1] = torch.stack([*work.F[k, n].states[1:-1], work.U[k + 1, n + 1]])
                k += 1
                if not bool(torch.isfinite(work.U[k, k]).all()):
                    raise unstable(self.fine, T, x)
                change = distance(path[1:], old[1:])
                change[[n * m - 1 for n in range(k + 1, B + 1) if (k, n) in work.lost]] = math.inf
                fits = (change <= allowed(points, self.tolerance, 1, T + 1, x.dtype))[m - 1 :: m]
                front = T if bool(fits.all()) else k * m
                yield Sweep(0, path, x0s, front, change)
                if front == T:
                    return
                work.forget(k)


class _Work:
    """What is known so far, by (k, n), iteration and block: states U, coarse guesses G(U), fine walks F(U) on their way; `lost`: U that
    overflowed and stand in for themselves."""

    def __init__(self, x: Tensor, blocks: int, fine: int):
        self.x, self.B, self.m = x, blocks, fine
        self.U: dict[tuple[int, int], Tensor] = {}
        self.G: dict[tuple[int, int], Tensor] = {}
        self.F: dict[tuple[int, int], _Walk] = {}
        self.lost: set[tuple[int, int]] = set()
        self._learn(0, 0, x)

    def _learn(self, k: int, n: int, u: Tensor) -> None:
        self.U[k, n] = u
        if n < self.B:
            self.F[k, n] = _Walk(u)

    def round(self, points: Points, fine: Solver, coarse: Solver) -> None:
        """The next step of every walk, and G wherever U is new; then what follows from them."""
        walking = [key for key, walk in self.F.items() if len(walk.x0s) < self.m]
        guessing = [key for key in self.F if key not in self.G]
        at = [n * self.m + len(self.F[k, n].x0s) for k, n in walking]
        edges = [n * self.m for _, n in guessing]
        (states, x0s), (guesses, _) = points.step(
            Job(fine, stacked([self.F[key].states[-1] for key in walking], self.x), at, [i + 1 for i in at]),
            Job(coarse, stacked([self.U[key] for key in guessing], self.x), edges, [i + self.m for i in edges]),
        )
        for key, state, x0 in zip(walking, states, x0s, strict=True):
            self.F[key].states.append(state)
            self.F[key].x0s.append(x0)
        self.G.update(zip(guessing, guesses, strict=True))

        for k, n in list(self.F):
            walked = len(self.F[k, n].x0s) == self.m
            if k == 0 and (0, n + 1) not in self.U:
                self._learn(0, n + 1, self.G[0, n])
            if walked and n == k and (k + 1, n + 1) not in self.U:
                self._learn(k + 1, n + 1, self.F[k, n].states[-1])  # U^k_k was exact: both G are one
            if walked and n > k and (k + 1, n) in self.G and (k + 1, n + 1) not in self.U:
                end = self.F[k, n].states[-1]
                u, whole = finite_or(end + (self.G[k + 1, n] - self.G[k, n]), end, self.G[k + 1, n], self.U[k + 1, n])
                self.lost |= set() if whole else {(k + 1, n + 1)}
                self._learn(k + 1, n + 1, u)

    def forget(self, k: int) -> None:
        """Let go of what only the iterations before k needed."""
        for table in (self.U, self.G, self.F):
            for key in [key for key in table if key[0] < k]:
                del table[key]


class _Walk:
    """A fine walk through a block, as far as it has come: states, from U on, and the x_0 predicted on the way."""

    def __init__(self, x: Tensor):
        self.states, self.x0s = [x], []


def stacked(states: list[Tensor], x: Tensor) -> Tensor:
    """States like x (B, ...) as (n, B, ...), also where there are none."""
    return torch.stack(states) if states else x.new_empty(0, *x.shape)


def column(m: int, x: Tensor) -> Tensor:
    """1/m, 2/m, ..., 1, made to multiply states (m, B, ...) like x (B, ...)."""
    return torch.arange(1, m + 1).to(x).reshape(-1, *[1] * x.ndim) / m


def finite_or(x: Tensor, *others: Tensor) -> tuple[Tensor, bool]:
    """x (B, ...), each sample that is not finite replaced by the first of the others that is; and whether all of x was."""
    whole = bool(torch.isfinite(x).all())
    for other in () if whole else others:
        good = torch.isfinite(x).flatten(1).all(1).reshape(-1, *[1] * (x.ndim - 1))
        x = torch.where(good, x, other)
    return x, whole


def check_blocks(steps: int, blocks: int) -> None:
    """All blocks are equally long."""
    if steps % blocks:
        allowed_ = ", ".join(map(str, divisors(steps)))
        raise ValueError(f"blocks must divide the number of steps, {steps}, got {blocks}; allowed: {allowed_}")


def divisors(steps: int) -> list[int]:
    """The numbers of blocks that divide a grid of so many steps."""
    return [b for b in range(1, steps + 1) if steps % b == 0]


def parareal_rounds(steps: int, blocks: int, iterations: int, *, pipelined: bool = True) -> int:
    """Rounds of Parareal with one call a step: what `Parareal` takes, or would take with all of an iteration before the next.

    Pipelined, the longest chain of calls: k fine walks of T/B steps and B - k coarse steps. One iteration after the other: B coarse steps,
    and T/B + B - 1 - j for iteration j = 0 ... k - 1, whose first j + 1 blocks need no new guess. `ValueError` for numbers that do not fit.
    """
    check_count(steps, "steps")
    check_blocks(steps, check_count(blocks, "blocks"))
    if check_count(iterations, "iterations", 0) > blocks:
        raise ValueError(
            f"iterations must be at most the number of blocks, {blocks}, got {iterations}: then all is exact"
        )
    fine = steps // blocks
    if pipelined:
        return iterations * fine + blocks - iterations
    return blocks + sum(fine + blocks - 1 - j for j in range(iterations))
