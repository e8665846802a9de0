"""Parareal (Lions, Maday and Turinici 2001) and its use for sampling, SRDS (arXiv 2405.15020): coarse guesses, fine steps in parallel."""

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
    """U^{k+1}_{n+1} = G(U^{k+1}_n) + F(U^k_n) - G(U^k_n) (arXiv 2405.15020, alg. 1): U_n is the state where block n begins.

    F is the fine walk through a block, all steps of the grid there with `fine`; G is one step of `coarse` over the block. U^0 comes from G
    alone. After k iterations the first k blocks are those of the sequential walk. `blocks` B must divide the grid; None takes the
    divisor of T nearest to sqrt(T), SRDS's choice.

    The work is pipelined (SRDS, sec. 3.4): a block's fine walk begins as soon as its U is known, whatever iteration it belongs to, so
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
        return self.blocks or min(divisors(steps), key=lambda b: abs(math.log(b * b / steps)))

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        T, B = points.steps, self.blocks_of(points.steps)
        m = T // B
        U, G, F = {(0, 0): x}, {}, {(0, 0): _Walk(x)}  # by (k, n): iteration and block
        lost = set()
        path, x0s, k = x[None], x.new_empty(T, *x.shape), 0
        while k < B:
            # a round: the next step of every walk, and G wherever U is known
            walking = [key for key, walk in F.items() if not walk.done(m)]
            guessing = [key for key in U if key[1] < B and key not in G]
            at = [n * m + len(F[j, n].x0s) for j, n in walking], [n * m for _, n in guessing]
            (states, predicted), (guesses, _) = points.step(
                Job(self.fine, stacked([F[key].states[-1] for key in walking], x), at[0], [i + 1 for i in at[0]]),
                Job(self.coarse, stacked([U[key] for key in guessing], x), at[1], [i + m for i in at[1]]),
            )
            for key, state, x0 in zip(walking, states, predicted, strict=True):
                F[key].states.append(state)
                F[key].x0s.append(x0)
            G.update(zip(guessing, guesses, strict=True))

            # what that makes known
            for j, n in list(G):
                if (j, n + 1) in U:
                    continue
                if j == 0:
                    U[0, n + 1] = G[0, n]
                elif F[j - 1, n].done(m) and (j - 1, n) in G:
                    U[j, n + 1], whole = finite_or(
                        F[j - 1, n].states[-1] + (G[j, n] - G[j - 1, n]), F[j - 1, n].states[-1], G[j, n], U[j, n]
                    )
                    lost |= set() if whole else {(j, n + 1)}
            for j, n in list(F):
                if j == n and F[j, n].done(m) and (j + 1, n + 1) not in U:
                    U[j + 1, n + 1] = F[j, n].states[-1]  # U_n was already exact
            F |= {key: _Walk(u) for key, u in U.items() if key[1] < B and key not in F}

            if len(path) == 1 and (0, B) in U:
                path = torch.cat([x[None], *(torch.lerp(U[0, n], U[0, n + 1], column(m, x)) for n in range(B))])
                yield Sweep(0, path, x0s[:0], 0, torch.empty(0))
            while (k + 1, B) in U:
                old, path = path, path.clone()
                for n in range(k, B):
                    block = slice(n * m, (n + 1) * m)
                    x0s[block] = torch.stack(F[k, n].x0s)
                    path[block.start + 1 : block.stop + 1] = torch.stack([*F[k, n].states[1:-1], U[k + 1, n + 1]])
                k += 1
                if not bool(torch.isfinite(U[k, k]).all()):
                    raise unstable(self.fine, T, x)
                change = distance(path[1:], old[1:])
                for n in range(k + 1, B + 1):
                    if (k, n) in lost:
                        change[n * m - 1] = math.inf
                fits = (change <= allowed(points, self.tolerance, 1, T + 1))[m - 1 :: m]
                front = T if bool(fits.all()) else k * m
                yield Sweep(0, path, x0s, front, change)
                if front == T:
                    return
                for table in (U, G, F):  # what only earlier iterations needed
                    for key in [key for key in table if key[0] < k]:
                        del table[key]


class _Walk:
    """A fine walk through a block, as far as it has come: states, from U on, and the x_0 predicted on the way."""

    def __init__(self, x: Tensor):
        self.states, self.x0s = [x], []

    def done(self, m: int) -> bool:
        return len(self.x0s) == m


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
