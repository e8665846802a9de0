"""What a solver is, with the rule for the two ends of a schedule."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Schedule


class Solver:
    """One way to step from (x, t) to a less noisy s < t.

    `order`: of the global error in the step size in lambda (for stochastic solvers, of the error of moments; tests measure it).
    `nfe_per_step`: denoiser evaluations a step, apart from start-up. `memory`: how many earlier predictions it uses;
    0 makes it a one-step solver, whose t and s may be (B,). `stochastic`: it takes standard normal `noise` shaped like x.
    """

    order = 1
    nfe_per_step = 1
    memory = 0
    stochastic = False

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """(x at s, the prediction at t). x (B, ...); t, s () or (B,), s < t; past: earlier predictions, oldest first."""
        raise NotImplementedError


def between(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """True where the step t -> s has a finite length in lambda: it leaves no alpha = 0 and reaches no sigma = 0."""
    return torch.isfinite(schedule.lam(s) - schedule.lam(t))


class InnerStep(Solver):
    """A solver whose formula lives in lambda or NSR: it writes `advance` for finite steps, and at the two ends it jumps.

    Leaving alpha = 0 or reaching sigma = 0 is a step of infinite length in lambda, where only the jump is defined. It costs
    one evaluation. Where some samples of a batch touch an end and others do not, each gets its own kind of step.
    """

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        inner = between(D.schedule, t, s)
        if bool(inner.all()):
            return self.advance(D, p, s, past, noise), p
        if not bool(inner.any()):
            return jump(p, s), p
        # some samples touch an end: for those any inner pair will do, its result is thrown away (NaN would poison gradients)
        safe = Prediction(x, torch.where(inner, t, 0.6), p.x0, p.eps, p.schedule)
        out = self.advance(D, safe, torch.where(inner, s, 0.4), past, noise)
        return torch.where(inner.reshape(-1, *[1] * (x.ndim - 1)), out, jump(p, s)), p

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        """x at s from the prediction p at (x, t), both at finite lambda."""
        raise NotImplementedError
