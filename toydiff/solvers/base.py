"""What a solver is, with the rule for the two ends of a schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Coefficient, Schedule, finite


class Solver:
    """One way to step from (x, t) to a less noisy s < t.

    A subclass writes `step`, and says what differs from the defaults below: `order = 2` in its body, or a property.
    """

    order = 1
    """The order of the global error in the step size in lambda. For a stochastic solver: of the error of moments. Tests
    measure it."""
    nfe_per_step = 1
    """Evaluations of the denoiser in a step, apart from start-up."""
    memory = 0
    """How many earlier predictions a step uses. 0 makes it a one-step solver, whose t and s may be (B,)."""
    stochastic = False
    """Whether a step takes standard normal `noise` shaped like x."""

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """(x at s, the prediction at t). x (B, ...); t, s () or (B,), s < t; past: earlier predictions, oldest
        first."""
        raise NotImplementedError


def given(noise: Tensor | None) -> Tensor:
    """The noise of a stochastic step; `ValueError` where it was left out."""
    if noise is None:
        raise ValueError("a stochastic step needs noise: standard normal numbers shaped like x")
    return noise


def everywhere(condition: Tensor | bool) -> bool:
    """Whether a condition, () or (B,), holds for all samples."""
    return condition if isinstance(condition, bool) else bool(condition.all())


def expm1(c: Coefficient) -> Coefficient:
    """e^c - 1, inf where that is too large to write."""
    return torch.expm1(c) if isinstance(c, Tensor) else math.expm1(c) if c < 700 else math.inf


def at_least_zero(c: Coefficient) -> Coefficient:
    """c, and 0 where rounding has left less."""
    return c.clamp(min=0) if isinstance(c, Tensor) else max(c, 0.0)


def root(c: Coefficient) -> Coefficient:
    """The square root of c, and 0 where rounding has left less."""
    c = at_least_zero(c)
    return torch.sqrt(c) if isinstance(c, Tensor) else math.sqrt(c)


def between(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor | bool:
    """True where the step t -> s has a finite length in lambda: it leaves no alpha = 0 and reaches no sigma = 0."""
    return finite(schedule.levels(s).lam - schedule.levels(t).lam)


class InnerStep(Solver):
    """A solver whose formula is in lambda or NSR. It writes `advance` for finite steps; at the two ends it jumps.

    A step that leaves alpha = 0 or reaches sigma = 0 has infinite length in lambda. There only the jump is defined, at
    one evaluation. If some samples of a batch touch an end and others do not, each takes its own kind of step.
    """

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        inner = between(D.schedule, t, s)
        if everywhere(inner):
            return self.advance(D, p, s, past, noise), p
        if isinstance(inner, bool) or not bool(inner.any()):
            return jump(p, s), p
        # samples that touch an end step between two inner times instead, and the result is discarded: a NaN would
        # spoil the gradients of the others
        safe = Prediction(x, torch.where(inner, t, 0.6), p.x0, p.eps, p.schedule)
        out = self.advance(D, safe, torch.where(inner, s, 0.4), past, noise)
        return torch.where(inner.reshape(-1, *[1] * (x.ndim - 1)), out, jump(p, s)), p

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        """x at s from the prediction p at (x, t), both at finite lambda."""
        raise NotImplementedError


@dataclass(frozen=True)
class Around(Solver):
    """A solver around another one, whose step, order and cost it has unless a subclass says otherwise."""

    solver: Solver

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def nfe_per_step(self) -> int:
        return self.solver.nfe_per_step

    @property
    def memory(self) -> int:
        return self.solver.memory

    @property
    def stochastic(self) -> bool:
        return self.solver.stochastic

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        return self.solver.step(D, x, t, s, past, noise)
