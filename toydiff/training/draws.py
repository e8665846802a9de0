"""The random numbers of a training: one stream for all its processes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar, overload

import torch
from torch import Tensor

from ..support.checks import check_count

Drawn = TypeVar("Drawn", Tensor, Tensor | None, tuple[Tensor, Tensor | None])
"""What a batch is: samples, labels or None, or the pair of both."""


class Draws:
    """The random numbers of a training run: one stream for all its processes, of which each takes its own rows.

    Each of `world` processes draws the whole batch and keeps rows rank, rank + world, ... So together they see exactly
    the batch that one process would see, and the mean of their gradients is its gradient. Numbers are drawn on the
    processor and moved to `device`, so that a seed gives the same numbers everywhere.
    """

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu", rank: int = 0, world: int = 1):
        self.generator = torch.Generator().manual_seed(check_count(seed, "seed", 0))
        self.device, self.rank, self.world = torch.device(device), rank, world

    @contextlib.contextmanager
    def part(self, k: int, parts: int, since: Tensor) -> Iterator[None]:
        """While this lasts, the rows are the k-th of `parts` parts of this process's own. The batch is drawn from the
        stream's state `since` on."""
        rank, world = self.rank, self.world
        self.generator.set_state(since)
        self.rank, self.world = rank * parts + k, world * parts
        try:
            yield
        finally:
            self.rank, self.world = rank, world

    def own(self, n: int) -> int:
        """How many samples of a batch of n are this process's; `ValueError` if n cannot be divided evenly."""
        check_count(n, "batch")
        if n % self.world:
            raise ValueError(
                f"a batch of {n} cannot be shared evenly by {self.world} processes, or parts that are accumulated"
            )
        return n // self.world

    def rows(self, draw: Callable[[int, torch.Generator], Drawn], n: int) -> Drawn:
        """This process's rows, on the device, of a batch draw(n, generator): a tensor (n, ...), None, or a pair of
        these, as `Problem.data` gives."""
        self.own(n)
        drawn = draw(n, self.generator)
        if not isinstance(drawn, tuple):
            return self._mine(drawn)
        samples, labels = drawn
        return self._mine(samples), self._mine(labels)

    @overload
    def _mine(self, whole: Tensor) -> Tensor: ...
    @overload
    def _mine(self, whole: Tensor | None) -> Tensor | None: ...
    def _mine(self, whole: Tensor | None) -> Tensor | None:
        return None if whole is None else whole[self.rank :: self.world].to(self.device)

    def _numbers(self, draw: Callable[[int, torch.Generator], Tensor], n: int) -> Tensor:
        """n rows for this process, of n * world that are drawn."""
        return self._mine(draw(n * self.world, self.generator))

    def normal(self, n: int, *shape: int) -> Tensor:
        """Standard normal numbers for n samples of this process, (n, *shape)."""
        return self._numbers(lambda m, rng: torch.randn(m, *shape, generator=rng), n)

    def uniform(self, n: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform numbers in [low, high) for n samples of this process, (n, *shape)."""
        return low + (high - low) * self._numbers(lambda m, rng: torch.rand(m, *shape, generator=rng), n)

    def integers(self, n: int, high: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Whole numbers 0 ... high - 1 for n samples of this process, (n, *shape)."""
        return self._numbers(lambda m, rng: torch.randint(high, (m, *shape), generator=rng), n)
