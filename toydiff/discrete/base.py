"""What a sampler of tokens is: a step has one or two stages, in which each position draws its next token by itself."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .paths import TokenPath


class TokenSampler:
    """One way to step from strings at t to strings at a time s < t that is nearer to data.

    A stage is a pure function of the states and posteriors so far. It says how each position draws its next token, so
    that the law of a step is known exactly (`laws.transition`), and not only its samples.

    The last step of a walk, to s = 0, is the same for all samplers: each position outputs x_1 ~ p(x_1^i | x_t).
    """

    order = 1
    """The order of the error of the law, its total variation, in the number of steps. Tests measure it. 0: the law has
    a limit, and it is not the data's."""
    sources: tuple[str, ...] = ("mask", "uniform")
    """The sources that it can start from."""

    def times(self, path: TokenPath, t: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        """One entry a stage: the time at which the posterior of its state is evaluated, or None where it needs none."""
        return (t,)

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        """The law of each position of the next state, (B, L, S).

        xs: the state at t and those of the earlier stages of this step, (B, L) each. ps: the posteriors (B, L, S) at
        xs, None where `times` has none.
        """
        raise NotImplementedError


class LastStep(TokenSampler):
    """x_1 ~ p(x_1^i | x_t) at every position."""

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        return posterior(ps[0])


def at(sampler: TokenSampler, s: Tensor) -> TokenSampler:
    """The sampler that steps to s: the last step is the same for all."""
    return LastStep() if float(s) == 0 else sampler


def posterior(p: Tensor | None) -> Tensor:
    """A posterior that was evaluated."""
    assert p is not None
    return p


def staying(x: Tensor, path: TokenPath, like: Tensor) -> Tensor:
    """The law of positions that keep their symbols, (B, L, S)."""
    return F.one_hot(x, path.size).to(like)


def jumping(x: Tensor, path: TokenPath, rates: Tensor) -> Tensor:
    """The law of positions that jump once at most: with probability 1 - exp(-sum of rates), to a symbol in proportion
    to its rate. rates (B, L, S) >= 0, integrated over the stage; that of the own symbol does not count."""
    here = staying(x, path, rates)
    rates = rates * (1 - here)
    total = rates.sum(2, keepdim=True)
    leaves = -torch.expm1(-total)
    share = torch.where(total > 0, leaves / torch.where(total > 0, total, 1.0), 0.0)
    return share * rates + (1 - leaves) * here
