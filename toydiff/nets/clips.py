"""An image network with temporal layers between its own: frame by frame, and across the frames (arXiv 2307.04725)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count, shape
from .embedding import Embedding
from .low_rank import low_rank
from .mlp import MLP

HEADS = 4
"""The heads of the attention over frames, by which `hidden` is divisible."""


class TemporalLayer(nn.Module):
    """h + W_out silu(W_a a + W_h h + W_e e), a the attention of each frame over all frames.

    h (B, frames, width) gets a learned vector for each place of a frame before the attention. W_out starts at zero: the
    layer adds nothing at first.
    """

    def __init__(self, frames: int, width: int):
        super().__init__()
        self.place = nn.Parameter(torch.randn(frames, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(2 * width, width)
        self.embedded = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h (B, frames, width) and the clip's embedding e (B, width): (B, frames, width)."""
        own = self.norm(h) + self.place
        q, k, v = self.attention(own).view(*own.shape[:2], HEADS, -1).transpose(1, 2).chunk(3, -1)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return h + self.out(F.silu(self.mix(torch.cat([a, own], -1)) + self.embedded(e)[:, None]))


class ClipMLP(nn.Module):
    """net(x, lam, cond, guidance_scale) on clips of points: x (B, frames, dim) gives (B, frames, dim).

    `image` is an `MLP` that sees every frame alone, with the clip's lam (B,), and neither label nor guidance scale: a
    single frame has none. `temporal` is a `TemporalLayer` after each of its residual layers, told lam, cond (B,) and
    guidance_scale (B,) by an `Embedding` of their own, `embed`. As temporal layers start at zero, each frame's output
    is the image network's at first, bit for bit.

    rank: of a low-rank adapter on each linear layer of `image` (`toydiff.nets.low_rank`), whose own weights are then
    frozen; 0 for none. `ValueError` for sizes that are no whole numbers >= 1, a
    `hidden` that is no multiple of 4, and for a rank that is none >= 0.
    """

    def __init__(
        self,
        frames: int = 8,
        dim: int = 2,
        hidden: int = 128,
        depth: int = 3,
        classes: int = 0,
        guided: bool = False,
        rank: int = 0,
    ):
        super().__init__()
        check_count(frames, "frames")
        check_count(rank, "rank", 0)
        if check_count(hidden, "hidden") % HEADS:
            raise ValueError(f"hidden must be a multiple of {HEADS}, the heads of the attention, got {hidden}")
        self.image = MLP(dim, hidden, depth)
        if rank:
            low_rank(self.image, rank)
        self.config = {
            "frames": frames,
            **{name: self.image.config[name] for name in ("dim", "hidden", "depth")},
            "classes": classes,
            "guided": guided,
            "rank": rank,
        }
        self.embed = Embedding(hidden, classes, guided)
        self.temporal = nn.ModuleList(TemporalLayer(frames, hidden) for _ in range(depth))

    def forward(
        self, x: Tensor, lam: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | None = None
    ) -> Tensor:
        frames, levels = self._frames(x, lam)
        return self.image(frames, levels, after=self._across(lam, cond, guidance_scale)).view_as(x)

    @property
    def motion(self) -> list[nn.Parameter]:
        """The parameters that a clip has and a frame has not: those of the temporal layers and of their embedding."""
        return [*self.embed.parameters(), *self.temporal.parameters()]

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives of a clip."""
        return self.config["hidden"]

    def features(self, x: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        """What the head reads, a mean over the frames, (B, feature_width)."""
        frames, levels = self._frames(x, lam)
        h = self.image.features(frames, levels, after=self._across(lam, cond, None))
        return h.view(len(x), self.config["frames"], -1).mean(1)

    def _frames(self, x: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """All frames of all clips (B frames, dim), and the noise level of each."""
        frames, dim = self.config["frames"], self.config["dim"]
        if x.shape[1:] != (frames, dim):
            raise ValueError(f"this network takes clips (B, {frames}, {dim}), got {shape(x)}")
        return x.flatten(0, 1), lam.repeat_interleave(frames)

    def _across(
        self, lam: Tensor, cond: Tensor | None, guidance_scale: Tensor | None
    ) -> Callable[[int, Tensor], Tensor]:
        """What the image network does after each of its layers: the temporal layer of the same number."""
        e = F.silu(self.embed(lam, cond, guidance_scale))

        def after(k: int, h: Tensor) -> Tensor:
            return self.temporal[k](h.view(len(lam), self.config["frames"], -1), e).flatten(0, 1)

        return after
