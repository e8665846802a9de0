"""A recurrent network for strings of tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count
from .embedding import fourier


class StringGRU(nn.Module):
    """net(x, t): strings x (B, length) of `symbols` symbols, and times t (B,), give logits (B, length, vocab).

    Two GRUs (arXiv 1406.1078) of width `hidden` read the string from both ends, as the forward and backward recursions
    of a Markov chain do, and an MLP reads their states at each position. A symbol and its place have a vector each.
    timed: t is an input; without it the logits do not depend on time, as a masked posterior does not. latents: K > 1
    adds an input, the latent (B,) of 0 ... K - 1, with a vector each. The output starts as 0. `ValueError` for sizes
    that are no whole numbers >= 1.
    """

    frequencies: Tensor

    def __init__(self, vocab: int, symbols: int, length: int, hidden: int = 64, timed: bool = False, latents: int = 1):
        super().__init__()
        sizes = {"vocab": vocab, "symbols": symbols, "length": length, "hidden": hidden, "latents": latents}
        for what, value in sizes.items():
            check_count(value, what)
        self.config, self.length = {**sizes, "timed": timed}, length
        self.symbol, self.place = nn.Embedding(symbols, hidden), nn.Parameter(torch.zeros(length, hidden))
        self.time = nn.Linear(16, hidden) if timed else None
        self.latent = nn.Embedding(latents, hidden) if latents > 1 else None
        self.register_buffer("frequencies", torch.logspace(0, 1.5, 8), persistent=False)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.mix, self.head = nn.Linear(2 * hidden, 2 * hidden), nn.Linear(2 * hidden, vocab)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, latent: Tensor | None = None) -> Tensor:
        h = self.symbol(x) + self.place
        if self.time is not None:
            h = h + self.time(fourier(t.to(h), self.frequencies))[:, None]
        if self.latent is not None:
            h = h + self.latent(latent)[:, None]
        return self.head(F.gelu(self.mix(self.gru(h)[0])))
