"""Confidence-ordered parallel unmasking, the practitioners' rule (MaskGIT, arXiv 2202.04200, sec. 3.2).

In a step from t to s:

    1  x_1^i ~ p(x_1^i | x_t) at every masked position; its confidence is p(x_1^i)
    2  n = ceil((1 - kappa_s) L), the number of positions that are to be masked at s
    3  the n least certain of the masked positions stay masked, and the others keep what they drew

It never takes back a token. That the certain ones come first is no step of the chain: the law that it reaches in many
steps is another one than the data's, so its order is 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..solvers.entry import PURPLE, Entry
from .base import TokenSampler, posterior, staying
from .paths import TokenPath


@dataclass(frozen=True)
class ConfidenceUnmasking(TokenSampler):
    """MaskGIT's rule, without noise on the confidence. Between equals the first position is revealed first."""

    order = 0
    sources = ("mask",)

    def times(self, path: TokenPath, t: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        return t, None

    def stage(self, path: TokenPath, t: Tensor, s: Tensor, xs: Sequence[Tensor], ps: Sequence[Tensor | None]) -> Tensor:
        p = posterior(ps[0])
        if len(xs) == 1:
            return p  # 1
        x, drawn = xs
        masked = x == path.mask
        confidence = torch.where(masked, p.gather(2, drawn[..., None])[..., 0], -torch.inf)
        left = math.ceil(float(1 - path.kappa(s)) * x.shape[1] - 1e-9)  # 2
        order = torch.sort(confidence, dim=1, descending=True, stable=True).indices
        rank = torch.argsort(order, 1)
        keeps = rank < masked.sum(1, keepdim=True) - left
        return staying(torch.where(masked & ~keeps, path.mask, drawn), path, p)  # 3


UNMASKING_ENTRIES = [
    Entry("maskgit", ConfidenceUnmasking(), "Most certain first", "arXiv 2202.04200", PURPLE, "D", "dot"),
]
