"""Parareal's iterations, pipelined (SRDS, arXiv 2412.08292): nothing waits for an iteration to end, only for what it
needs itself.

The recursion U^{k+1}_{n+1} = G_n(U^{k+1}_n) + F_n(U^k_n) - G_n(U^k_n) (line 5 of parareal.py's box, whose numbers are
here too) needs three states, and each begins when its U is known. In a round, all walks F that are under way take their
next step, and all new U their coarse step G; then follows every U for which all is there. So the first fine walks are
under way while the coarse walk still goes from block to block, and later iterations while earlier ones do.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..base import Solver
from .base import Job, Points
from .guards import finite_or


@dataclass
class Walk:
    """A fine walk through a block, as far as it has come: its states (B, ...), from U on, and the x_0 predicted on
    the way."""

    states: list[Tensor]
    x0s: list[Tensor] = field(default_factory=list)


class Pipeline:
    """What is known so far, by (k, n), iteration and block: the states U, the coarse steps G from them, and the fine
    walks F.

    A U that overflowed is replaced by a state that did not, and noted in `overflowed`.
    """

    def __init__(self, points: Points, fine: Solver, coarse: Solver, x: Tensor, blocks: int):
        self.points, self.fine, self.coarse, self.x, self.blocks = points, fine, coarse, x, blocks
        self.m = points.steps // blocks
        self.U: dict[tuple[int, int], Tensor] = {}
        self.G: dict[tuple[int, int], Tensor] = {}
        self.F: dict[tuple[int, int], Walk] = {}
        self.overflowed: set[tuple[int, int]] = set()
        self._begin(0, 0, x)  # 1

    def coarse_walk(self) -> list[Tensor]:
        """U^0_0 ... U^0_B, by rounds until they are known."""
        self._run(0)
        return [self.U[0, n] for n in range(self.blocks + 1)]

    def iteration(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The path of iteration k >= 1, by rounds until it is known, from the first block that was not exact before it.

        Its states after U_{k-1}, (n, B, ...), the x_0 (n, B, ...) predicted to get there, and which of the states
        overflowed, (n,).
        """
        self._forget(k - 1)
        self._run(k)
        states, x0s, overflowed = [], [], []
        for n in range(k - 1, self.blocks):
            walk = self.F[k - 1, n]
            states += [*walk.states[1:-1], self.U[k, n + 1]]
            x0s += walk.x0s
            overflowed += [False] * (self.m - 1) + [(k, n + 1) in self.overflowed]
        return torch.stack(states), torch.stack(x0s), torch.tensor(overflowed)

    def _run(self, k: int) -> None:
        while (k, self.blocks) not in self.U:
            self._round()
            for key in list(self.F):
                self._follow(*key)

    def _round(self) -> None:
        """The next step of every walk F (line 3), and G wherever U is new."""
        walking = [key for key, walk in self.F.items() if not self._arrived(*key)]
        guessing = [key for key in self.F if key not in self.G]
        at = [n * self.m + len(self.F[k, n].x0s) for k, n in walking]
        edges = [n * self.m for _, n in guessing]
        (states, x0s), (guesses, _) = self.points.step(
            Job(self.fine, self._stacked([self.F[key].states[-1] for key in walking]), at, [i + 1 for i in at]),
            Job(self.coarse, self._stacked([self.U[key] for key in guessing]), edges, [i + self.m for i in edges]),
        )
        for key, state, x0 in zip(walking, states, x0s, strict=True):
            self.F[key].states.append(state)
            self.F[key].x0s.append(x0)
        self.G.update(zip(guessing, guesses, strict=True))

    def _follow(self, k: int, n: int) -> None:
        """U^0_{n+1} = G(U^0_n), and U^{k+1}_{n+1} by the recursion, as soon as all that they need is known."""
        G, F, U = self.G, self.F, self.U
        if k == 0 and (0, n + 1) not in U:
            self._begin(0, n + 1, G[0, n])  # 1
        if (k + 1, n + 1) in U or not self._arrived(k, n):
            return
        end = F[k, n].states[-1]
        if n == k:  # U^k_k was exact, so that both G are one
            self._begin(k + 1, n + 1, end)  # 5
        elif (k + 1, n) in G:
            u, whole = finite_or(end + (G[k + 1, n] - G[k, n]), end, G[k + 1, n], U[k + 1, n])  # 5
            self.overflowed |= set() if whole else {(k + 1, n + 1)}
            self._begin(k + 1, n + 1, u)

    def _begin(self, k: int, n: int, u: Tensor) -> None:
        """U^k_n is known: its block's walk can begin."""
        self.U[k, n] = u
        if n < self.blocks:
            self.F[k, n] = Walk([u])

    def _arrived(self, k: int, n: int) -> bool:
        return len(self.F[k, n].x0s) == self.m

    def _stacked(self, states: list[Tensor]) -> Tensor:
        """States as (n, B, ...), also where there are none."""
        return torch.stack(states) if states else self.x.new_empty(0, *self.x.shape)

    def _forget(self, k: int) -> None:
        """Let go of what only the iterations before k needed."""
        for table in (self.U, self.G, self.F):
            for key in [key for key in table if key[0] < k]:
                del table[key]
