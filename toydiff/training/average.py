"""An exponential moving average of a module's parameters."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class EMA(AveragedModel):
    """An exponential moving average of a module's parameters: a = d a + (1 - d) theta, d = min(decay, (1 + n)/(10 + n))
    at update n.

    `module` is a copy of the source that holds the averaged weights. d starts low, so that the first, bad weights are
    forgotten in short runs too. With warm = False d = decay from the start, as for a target network. decay lies in
    [0, 1), else `ValueError`; with 0 the average is a copy of the source as it is now.
    """

    def __init__(self, source: nn.Module, decay: float = 0.999, *, warm: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average lies in [0, 1), got {decay!r}")
        super().__init__(source)
        self._source = [source]  # in a list: the source is not part of the average's own state
        self.decay, self.warm = decay, warm
        self.requires_grad_(False)
        # the parameters themselves: tensors detached from them would stay behind when a model moves to another device
        pairs = zip(self.module.parameters(), source.parameters(), strict=True)
        # a parameter that is one and the same in both, as frozen weights may be, needs no averaging
        own = [(mine, theirs) for mine, theirs in pairs if mine is not theirs]
        self._averaged: list[Tensor] = [mine for mine, _ in own]
        self._current: list[Tensor] = [theirs for _, theirs in own]

    @torch.no_grad()
    def follow(self) -> None:
        """One more update of the average; `fit` calls it after each step of the optimizer."""
        n = float(self.n_averaged)
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warm else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        self.n_averaged += 1

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the past: the average is the source as it is now."""
        self.module.load_state_dict(self._source[0].state_dict())
        self.n_averaged.zero_()
