"""Low-rank adapters, LoRA (arXiv 2106.09685): a trained network is frozen, and what is trained is a change of low
rank in each of its matrices."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..support.checks import check_count


class LowRank(nn.Module):
    """W -> W + B A, with A (rank, columns) random and B (rows, rank) zero at first, so that nothing is changed before
    training.

    Of a convolution's kernel, the columns are all but the first axis.
    """

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.down = nn.Parameter(
            torch.randn(rank, columns, dtype=weight.dtype, device=weight.device) / math.sqrt(columns)
        )
        self.up = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view(weight.shape)


def low_rank(net: nn.Module, rank: int) -> nn.Module:
    """Freeze a network, and put an adapter of this rank on each of its linear layers and convolutions; returns the
    network itself.

    One that has adapters of its own kind (`low_rank`), as that of a Stable Diffusion checkpoint has, says itself what
    it becomes.
    """
    check_count(rank, "rank")
    own = getattr(net, "low_rank", None)
    if own is not None:
        return own(rank)
    net.requires_grad_(False)
    for layer in list(net.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return net
