"""Parareal (Lions, Maday and Turinici 2001), as SRDS samples by it (arXiv 2412.08292, algorithm 1).

The path is cut into N blocks. One coarse step G a block guesses, block after block, where the blocks begin; then fine
walks F go through all blocks at once, and what they find corrects the next coarse walk.

    1   U^0_0 = x,  U^0_{n+1} = G_n(U^0_n),  n = 0 ... N-1           the coarse walk
    2   for k = 0 ... N-1:
    3       F_n(U^k_n),  n = 0 ... N-1                               the fine walks, in parallel
    4       U^{k+1}_0 = x
    5       U^{k+1}_{n+1} = G_n(U^{k+1}_n) + F_n(U^k_n) - G_n(U^k_n),  n = 0 ... N-1
    6       if rms(U^{k+1}_n - U^k_n) <= tolerance sigma_n for n = 1 ... N: stop   (sigma = 0: that of the point before)
    7   return U^{k+1}_N

U_n is the state where block n begins, U_N the sample. After k iterations the first k blocks are those of the fine walk:
there G cancels. `parareal` is the recursion alone; the sampler computes the same U, each as soon as what it needs is
known (pipeline.py).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...support.checks import check_count
from ..base import Solver
from ..ddim import DDIM
from ..entry import GREEN, Entry
from .base import AT_ONCE, ParallelSolver, Points, Sweep, check_one_step, check_settings, column, distance
from .guards import check_exact, thresholds
from .pipeline import Pipeline

Propagator = Callable[[int, Tensor], Tensor]
"""(n, u): where block n leads from u."""


def parareal(x: Tensor, blocks: int, G: Propagator, F: Propagator) -> Iterator[list[Tensor]]:
    """The iterates U^0, U^1, ... of Parareal, as many as there are blocks after the first: each the list U_0 ... U_N of
    states like x.

    The two G are subtracted first: their difference is exactly 0 where U_n did not change.
    """
    U = [x]
    for n in range(blocks):
        U.append(G(n, U[n]))  # 1
    yield U
    for _ in range(blocks):  # 2
        fine = [F(n, U[n]) for n in range(blocks)]  # 3
        new = [x]  # 4
        for n in range(blocks):
            new.append(fine[n] + (G(n, new[n]) - G(n, U[n])))  # 5; the last G is known from the iteration before
        U = new
        yield U


@dataclass(frozen=True)
class Parareal(ParallelSolver):
    """U^{k+1}_{n+1} = G(U^{k+1}_n) + F(U^k_n) - G(U^k_n) (SRDS, arXiv 2412.08292, alg. 1): U_n is the state where block
    n begins.

    F is the fine walk through a block, all steps of the grid there with `fine`; G is one step of `coarse` over the
    block. U^0 comes from G alone. After k iterations the first k blocks are those of the sequential walk.

    `blocks` N must divide the number T of steps. None takes the divisor of T nearest to sqrt(T), SRDS's choice; for a
    prime T that is 1, one block, and nothing is parallel. `tolerance`: the iteration ends once it changes every U_n by
    at most tolerance * sigma_n, as in `ParallelSolver`; None goes on until all blocks are exact.

    The work is pipelined, as SRDS proposes: a block's fine walk begins as soon as its U is known, in whatever
    iteration. So k iterations take k T/N + N - k rounds (see `parareal_rounds`), never more than T.
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
        """N for a grid of so many steps."""
        return self.blocks or min(divisors(steps), key=lambda b: abs(b - math.sqrt(steps)))

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        T, N = points.steps, self.blocks_of(points.steps)
        m, pipeline = T // N, Pipeline(points, self.fine, self.coarse, x, N)
        path = straight(pipeline.coarse_walk(), m)  # 1, and lines between the U
        yield Sweep(first=0, xs=path, x0s=x.new_empty(0, *x.shape), front=0, change=torch.empty(0))
        for k in range(N):  # 2
            first, old = k * m, path  # block k is the first that is not exact
            states, x0s, overflowed = pipeline.iteration(k + 1)  # 3 to 5, in pipeline.py
            path = torch.cat([old[:1], states])
            check_exact(path[m], self.fine, T)
            change = distance(path[1:], old[1:]).masked_fill(overflowed, math.inf)
            small = change <= thresholds(points, self.tolerance, first + 1, T + 1, x.dtype)
            front = T if bool(small[m - 1 :: m].all()) else first + m  # 6
            yield Sweep(first, path, x0s, front, change)
            if front == T:
                return  # 7
            path = path[m:]


def straight(U: list[Tensor], m: int) -> Tensor:
    """A path of m steps a block, (N m + 1, B, ...), on straight lines from each of the states U_0 ... U_N to the
    next."""
    fractions = column([i / m for i in range(1, m + 1)], U[0])
    lines = [torch.lerp(U[n], U[n + 1], fractions) for n in range(len(U) - 1)]
    return torch.cat([U[0][None], *lines])


def check_blocks(steps: int, blocks: int) -> None:
    """All blocks are equally long."""
    if steps % blocks:
        allowed = ", ".join(map(str, divisors(steps)))
        raise ValueError(f"blocks must divide the number of steps, {steps}, got {blocks}; allowed: {allowed}")


def divisors(steps: int) -> list[int]:
    """The numbers of blocks that divide a grid of so many steps."""
    return [b for b in range(1, steps + 1) if steps % b == 0]


def parareal_rounds(steps: int, blocks: int, iterations: int, *, pipelined: bool = True) -> int:
    """The rounds of Parareal with one call a step: pipelined, as `Parareal` runs, or with one iteration after the
    other.

    Pipelined, they are the longest chain of calls: k fine walks of T/N steps and N - k coarse steps. One iteration
    after the other: N coarse steps, then T/N + N - 1 - j for iteration j = 0 ... k - 1, whose first j + 1 blocks need
    no new guess. `ValueError` for numbers that do not fit.
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


PARAREAL_ENTRIES = [
    Entry(
        name="parareal",
        solver=Parareal(),
        title="Parareal / SRDS, pipelined",
        paper="arXiv 2412.08292, alg. 1",
        color=GREEN,
        marker="s",
        dash="dot",
    )
]
