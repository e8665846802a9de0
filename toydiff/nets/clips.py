"""An image network with temporal layers between its own: frame by frame, and across the frames (arXiv 2307.04725)."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count, shape
from .embedding import Embedding
from .low_rank import low_rank, stored_name
from .mlp import MLP
from .unet import UNet

HEADS = 4
"""The heads of the attention over frames, by which the widths of layers are divisible."""


class TemporalLayer(nn.Module):
    """W_out silu(W_a a + W_h h + W_e e), a the attention of each frame over all frames, at each place alone.

    h (B, places, frames, width) gets a learned vector for each number of a frame before the attention. W_out starts at
    zero: what is added to h is nothing at first.
    """

    def __init__(self, frames: int, width: int, embedding: int):
        super().__init__()
        self.place = nn.Parameter(torch.randn(frames, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(2 * width, width)
        self.embedded = nn.Linear(embedding, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h (B, places, frames, width) and the clip's embedding e (B, embedding): (B, places, frames, width)."""
        own = self.norm(h) + self.place
        rows = self.attention(own).flatten(0, 1)  # (B places, frames, 3 width)
        q, k, v = rows.view(*rows.shape[:2], HEADS, -1).transpose(1, 2).chunk(3, -1)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(own.shape)
        return self.out(F.silu(self.mix(torch.cat([a, own], -1)) + self.embedded(e)[:, None, None]))


class ClipNet(nn.Module):
    """net(x, lam, cond, guidance_scale) on clips x (B, frames, ...), an image network with temporal layers.

    `image` is a network that sees every frame alone. `temporal` is a `TemporalLayer` after each of its layers, told
    lam, cond (B,) and guidance_scale (B,) by an `Embedding` of their own, `embed`. As temporal layers start at zero,
    each frame's output is the image network's at first, bit for bit.

    lam is (B,), that of all frames of a clip, or (B, frames): of a clip whose first frame is given, and so has no noise
    (`FirstFrame`). Temporal layers are then told that of the last frame.

    A subclass makes the image network, and says how its states become (B, places, frames, width). rank: of a low-rank
    adapter on each linear layer and convolution of `image` (`toydiff.nets.low_rank`), whose own weights are then
    frozen; 0 for none.
    """

    config: dict[str, Any]
    embed: Embedding
    labelled = False
    """Whether the image network is told the clip's label and guidance scale too."""

    def __init__(self, frames: int, image: nn.Module, widths: list[int], embedding: int, rank: int):
        super().__init__()
        check_count(frames, "frames")
        check_count(rank, "rank", 0)
        for width in widths:
            if width % HEADS:
                raise ValueError(f"widths must be multiples of {HEADS}, the heads of the attention, got {width}")
        of_image = cast("dict[str, Any]", image.config)
        self.image = low_rank(image, rank) if rank else image
        self.config = {"frames": frames, **of_image, "rank": rank}
        self.temporal = nn.ModuleList(TemporalLayer(frames, width, embedding) for width in widths)

    def forward(
        self, x: Tensor, lam: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | None = None
    ) -> Tensor:
        frames, *told = self._frames(x, lam, cond, guidance_scale)
        return self.image(frames, *told, after=self._across(lam, cond, guidance_scale)).view_as(x)

    @property
    def motion(self) -> list[nn.Parameter]:
        """The parameters that a clip has and a frame has not: those of the temporal layers and of their embedding."""
        return [*self.embed.parameters(), *self.temporal.parameters()]

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives of a clip."""
        return cast(int, self.image.feature_width)

    def features(self, x: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        """The image network's features, a mean over the frames, (B, feature_width)."""
        frames, levels, labels, _ = self._frames(x, lam, cond, None)
        image = cast(Any, self.image)
        h = image.features(frames, levels, labels, after=self._across(lam, cond, None))
        return h.view(len(x), self.config["frames"], -1).mean(1)

    def base(self) -> nn.Module:
        """A copy of the image network without its low-rank adapters."""
        net, own = type(self.image)(**cast("dict[str, Any]", self.image.config)), self.image.state_dict()
        net.load_state_dict({name: own[stored_name(name, own)] for name in net.state_dict()})
        return net

    def _check(self, x: Tensor) -> None:
        """`ValueError` for what are no clips of this network."""
        raise NotImplementedError

    def _apart(self, h: Tensor) -> Tensor:
        """The image network's states of all frames of all clips as (B, places, frames, width)."""
        raise NotImplementedError

    def _together(self, h: Tensor, like: Tensor) -> Tensor:
        """The inverse of `_apart`, in the shape of `like`."""
        raise NotImplementedError

    def _frames(
        self, x: Tensor, lam: Tensor, cond: Tensor | None, guidance_scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """All frames of all clips (B frames, ...), and what the image network is told of each."""
        self._check(x)
        frames = self.config["frames"]
        levels = lam.flatten() if lam.ndim == 2 else lam.repeat_interleave(frames)
        labels, scales = (
            None if one is None or not self.labelled else one.repeat_interleave(frames)
            for one in (cond, guidance_scale)
        )
        return x.flatten(0, 1), levels, labels, scales

    def _across(
        self, lam: Tensor, cond: Tensor | None, guidance_scale: Tensor | None
    ) -> Callable[[int, Tensor], Tensor]:
        """What the image network does after each of its layers: it adds the temporal layer of the same number."""
        e = F.silu(self.embed(lam[:, -1] if lam.ndim == 2 else lam, cond, guidance_scale))

        def after(k: int, h: Tensor) -> Tensor:
            return h + self._together(self.temporal[k](self._apart(h), e), h)

        return after


class ClipMLP(ClipNet):
    """A `ClipNet` of points: x (B, frames, dim) gives (B, frames, dim).

    Its image network is an `MLP`, which sees neither label nor guidance scale: a single frame has none. `ValueError`
    for sizes that are no whole numbers >= 1, a `hidden` that is no multiple of 4, and for a rank that is none >= 0.
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
        if check_count(hidden, "hidden") % HEADS:
            raise ValueError(f"hidden must be a multiple of {HEADS}, the heads of the attention, got {hidden}")
        super().__init__(frames, MLP(dim, hidden, depth), [hidden] * depth, hidden, rank)
        self.config |= {"classes": classes, "guided": guided}
        self.embed = Embedding(hidden, classes, guided)

    def _check(self, x: Tensor) -> None:
        frames, dim = self.config["frames"], self.config["dim"]
        if x.shape[1:] != (frames, dim):
            raise ValueError(f"this network takes clips (B, {frames}, {dim}), got {shape(x)}")

    def _apart(self, h: Tensor) -> Tensor:
        return h.unflatten(0, (-1, 1, self.config["frames"]))

    def _together(self, h: Tensor, like: Tensor) -> Tensor:
        return h.view_as(like)


class ClipUNet(ClipNet):
    """A `ClipNet` of images: x (B, frames, channels, H, W) gives the same shape.

    Its image network is a `UNet`, which is told the clip's label and guidance scale with each frame. The other
    arguments are those of the `UNet`. A place is a position of a level, so that a temporal layer joins what the frames
    have there; what moves further is met by the convolutions of the layers between.
    """

    labelled = True

    def __init__(
        self,
        frames: int = 8,
        channels: int = 1,
        widths: tuple[int, int] = (32, 128),
        blocks: int = 1,
        middle: int = 1,
        attention: bool = False,
        embedding: int = 128,
        classes: int = 0,
        guided: bool = False,
        rank: int = 0,
    ):
        image = UNet(channels, widths, blocks, middle, attention, embedding, classes, guided)
        super().__init__(frames, image, image.block_widths, embedding, rank)
        self.embed = Embedding(embedding, classes, guided)

    def _check(self, x: Tensor) -> None:
        frames, channels = self.config["frames"], self.config["channels"]
        if x.ndim != 5 or x.shape[1:3] != (frames, channels):
            raise ValueError(f"this network takes clips (B, {frames}, {channels}, H, W), got {shape(x)}")

    def _apart(self, h: Tensor) -> Tensor:
        return h.unflatten(0, (-1, self.config["frames"])).permute(0, 3, 4, 1, 2).flatten(1, 2)

    def _together(self, h: Tensor, like: Tensor) -> Tensor:
        return h.unflatten(1, like.shape[2:]).permute(0, 3, 4, 1, 2).flatten(0, 1)
