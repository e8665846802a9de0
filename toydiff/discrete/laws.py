"""Exact laws over all S^L strings, for small tables: what a sampler does, without sampling noise.

Strings are numbered as digits in base S, the first position the highest. A law is (M,), M = S^L, a transition or a
generator (M, M) with a row for each string that is left.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ..support.checks import check_grid
from .base import TokenSampler, at
from .paths import TokenPath
from .posteriors import Posterior, TablePosterior

MOST = 4096
"""The most strings whose laws are computed: a transition has the square of that."""


def strings(size: int, length: int) -> Tensor:
    """All strings of `length` symbols 0 ... size - 1, (size^length, length), in order. `ValueError` for more than
    `MOST`."""
    if size**length > MOST:
        raise ValueError(f"exact laws are of {MOST} strings at most, and there are {size}^{length}")
    return torch.cartesian_prod(*[torch.arange(size)] * length).reshape(-1, length)


def numbers(x: Tensor, size: int) -> Tensor:
    """The number of each string of x (n, L), (n,)."""
    return (x * size ** torch.arange(x.shape[1] - 1, -1, -1)).sum(1)


def joint(probs: Tensor) -> Tensor:
    """The law of a string whose positions draw by themselves: probs (B, L, S) gives (B, S^L)."""
    law = probs[:, 0]
    for i in range(1, probs.shape[1]):
        law = (law[:, :, None] * probs[:, i, None, :]).flatten(1)
    return law


def source_law(path: TokenPath, length: int) -> Tensor:
    """The law of all strings at t = 1, (M,)."""
    return joint(path.source_law().expand(1, length, -1))[0]


def marginal(P: TablePosterior, t: Tensor | float) -> Tensor:
    """p_t of a table, (M,): sum over rows of w_row prod_i p_t(x^i | row^i)."""
    seen = P.path.likelihood(strings(P.path.size, P.length), t)  # (M, L, V)
    positions = torch.arange(P.length)
    of_rows = torch.stack([seen[:, positions, row].prod(1) for row in P.rows], 1)
    return of_rows @ P.weights


def generator(P: Posterior, t: Tensor | float) -> Tensor:
    """Q_t, (M, M), of the exact chain in the clock of its jumps, in which a masked position jumps at rate 1.

    Q[x, y] = p(y^i | x) where x and y differ at position i alone, and rows sum to 0. dp/dt = -a_t p Q_t with
    a_t = -kappa'/(1 - kappa): time runs from 1 to 0.
    """
    S, L = P.path.size, P.length
    X = strings(S, L)
    p, Q = P(X, t).double(), torch.zeros(len(X), len(X), dtype=torch.float64)
    here = torch.arange(len(X))
    for i in range(L):
        for y in range(S):
            moved = X.clone()
            moved[:, i] = y
            Q[here, numbers(moved, S)] += p[:, i, y]
    return Q - torch.diag(Q.sum(1))


def chain_law(P: Posterior, law: Tensor, ts: Tensor) -> Tensor:
    """The law at the last time of the exact chain that has `law` (M,) at the first, by matrix exponentials.

    In each step of ts (N+1,), decreasing and above 0, Q is that of the step's middle. With the mask as source Q does
    not depend on t, so that one step is exact; else the error is of order 2 in N.
    """
    check_grid(ts)
    for t, s in pairwise(ts):
        H = -torch.log1p(-P.path.jump(t, s))
        law = law @ torch.linalg.matrix_exp(H * generator(P, P.path.middle(t, s)))
    return law


def transition(sampler: TokenSampler, P: Posterior, t: Tensor, s: Tensor) -> Tensor:
    """The transition matrix (M, M) of one step of a sampler from t to s: every outcome of every stage, weighed. Of a
    mixture it is the mean over its latents."""
    latents: list[int | None] = [None] if P.latents == 1 else list(range(P.latents))
    return torch.stack([_given_latent(at(sampler, s), P, t, s, latent) for latent in latents]).mean(0)


def _given_latent(sampler: TokenSampler, P: Posterior, t: Tensor, s: Tensor, latent: int | None) -> Tensor:
    X = strings(P.path.size, P.length)
    begun, weight = torch.arange(len(X)), torch.ones(len(X), dtype=torch.float64)
    xs, ps = [X], []
    for time in sampler.times(P.path, t, s):
        each = None if latent is None else torch.full((len(xs[-1]),), latent)
        ps.append(None if time is None else P(xs[-1], time, each))
        law = joint(sampler.stage(P.path, t, s, xs, ps).double()) * weight[:, None]
        row, number = torch.nonzero(law, as_tuple=True)
        weight, begun = law[row, number], begun[row]
        xs, ps = [*(x[row] for x in xs), X[number]], [None if p is None else p[row] for p in ps]
    out = torch.zeros(len(X), len(X), dtype=torch.float64)
    return out.index_put_((begun, numbers(xs[-1], P.path.size)), weight, accumulate=True)


def propagate(sampler: TokenSampler, P: Posterior, law: Tensor, ts: Tensor) -> Tensor:
    """The law (M,) of a sampler's strings at the last of the times ts (N+1,), from `law` at the first."""
    check_grid(ts)
    for t, s in pairwise(ts):
        law = law @ transition(sampler, P, t, s)
    return law


def total_variation(a: Tensor, b: Tensor) -> float:
    """Half the sum of |a - b|, of two laws (M,): in [0, 1]."""
    return float((a - b).abs().sum() / 2)
