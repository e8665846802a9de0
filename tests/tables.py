"""Small exact posteriors of tokens: tables and chains."""

import torch

from toydiff.discrete import ChainPosterior, TablePosterior, TokenPath, scheduler
from toydiff.discrete.laws import strings


def table(source="mask", kappa="linear", vocab=3, length=2, rows=4, seed=0):
    """A table of a few random strings."""
    rng = torch.Generator().manual_seed(seed)
    chosen = strings(vocab, length)[torch.randperm(vocab**length, generator=rng)[:rows]]
    weights = torch.rand(rows, generator=rng, dtype=torch.float64) + 0.2
    return TablePosterior(TokenPath(vocab, source, scheduler(kappa)), chosen, weights)


def chain(vocab, length, source="mask", kappa="linear", seed=0):
    """A chain with random laws."""
    rng = torch.Generator().manual_seed(seed)
    laws = torch.rand(vocab + 1, vocab, generator=rng, dtype=torch.float64)
    laws = laws / laws.sum(1, keepdim=True)
    return ChainPosterior(TokenPath(vocab, source, scheduler(kappa)), laws[0], laws[1:], length)
