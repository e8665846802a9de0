"""Low-rank adapters, LoRA (arXiv 2106.09685): a network's own weights are frozen, and a change of low rank in each of
its matrices is trained."""

import math
from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..support.checks import check_count


class LowRank(nn.Module):
    """W -> W + B A. At first A (rank, columns) is random and B (rows, rank) is zero, so that nothing is changed.

    A convolution's kernel is taken as a matrix whose columns are all its axes but the first.
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
    """Freeze a network and put an adapter of this rank on each of its linear layers and convolutions. Returns the
    network itself.

    A network with a method `low_rank`, as that of a Stable Diffusion checkpoint has, makes adapters of its own kind.
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


def stored_name(name: str, names: Container[str]) -> str:
    """The name of a network's own weight `name` among the `names` of its state dictionary once it has adapters."""
    layer, _, what = name.rpartition(".")
    return name if name in names else f"{layer}.parametrizations.{what}.original"
