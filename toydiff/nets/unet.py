"""A small UNet for images of few channels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count, shape
from .embedding import Embedding

GROUPS = 8
HEAD = 32

After = Callable[[int, Tensor], Tensor]


class Block(nn.Module):
    """x + conv(silu(shift + (1 + scale) conv(silu(norm x)))): a residual block that the embedding modulates (arXiv
    2105.05233, sec. 3)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for p in self.second.parameters():  # every block starts as the identity
            nn.init.zeros_(p)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.first(F.silu(self.norm(x)))
        scale, shift = self.modulation(e)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.silu(torch.addcmul(shift, h, 1 + scale)))


class Attention(nn.Module):
    """x + W softmax(q k^T / sqrt(d)) v: each position of an image reads all of them (arXiv 1706.03762, eq. 1).

    q, k and v are linear maps of norm(x), in heads of d = `HEAD` channels. Where a position lies it knows from what the
    padding of convolutions leaves in x.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        for p in self.out.parameters():  # starts as the identity, as a block does
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, positions, channels)
        q, k, v = self.qkv(h).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # each (B, heads, positions, d)
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(read).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """net(x, lam, cond, guidance_scale) on images (B, channels, H, W), H and W multiples of 4.

    Patches of 2 x 2 pixels become channels, so that the upper level works at H/2 and the lower one at H/4. `widths` are
    the channels of the two (multiples of 8). `blocks` is the number of residual blocks on the way down and on the way
    up, each, and `middle` that in the lower level. `attention` puts an `Attention` after the first of these; the lower
    width is then a multiple of 32. The output is head(h) + s(e) x, as in `MLP`. after: after(k, h) takes the place of h
    (B, channels, H, W) after block k, counted on the way down, in the middle and on the way up (`block_widths`).
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, int] = (32, 128),
        blocks: int = 1,
        middle: int = 1,
        attention: bool = False,
        embedding: int = 128,
        classes: int = 0,
        guided: bool = False,
    ):
        super().__init__()
        for value, what in ((channels, "channels"), (blocks, "blocks"), (middle, "middle"), (embedding, "embedding")):
            check_count(value, what)
        upper, lower = both = tuple(widths)
        if any(check_count(width, "each of the widths") % GROUPS for width in both):
            raise ValueError(f"widths must be multiples of {GROUPS}, got {both}")
        if attention and lower % HEAD:
            raise ValueError(f"with attention the lower width must be a multiple of {HEAD}, got {lower}")
        self.config: dict[str, Any] = {
            "channels": channels,
            "widths": list(both),
            "blocks": blocks,
            "middle": middle,
            "attention": attention,
            "embedding": embedding,
            "classes": classes,
            "guided": guided,
        }
        self.embed = Embedding(embedding, classes, guided)
        self.into = nn.Conv2d(4 * channels, upper, 3, padding=1)
        self.down = nn.ModuleList(Block(upper, embedding) for _ in range(blocks))
        self.lower = nn.Conv2d(upper, lower, 2, stride=2)
        self.middle = nn.ModuleList(Block(lower, embedding) for _ in range(middle))
        self.attention = Attention(lower) if attention else nn.Identity()
        self.lift = nn.Conv2d(lower, 4 * upper, 1)
        self.up = nn.ModuleList(Block(upper, embedding) for _ in range(blocks))
        self.head = nn.Conv2d(upper, 4 * channels, 3, padding=1)
        self.through = nn.Linear(embedding, 1)
        for p in (*self.head.parameters(), *self.through.parameters()):
            nn.init.zeros_(p)
        # convolutions on a processor are faster in this layout, which torch's types of `to` leave out
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Tensor,
        lam: Tensor,
        cond: Tensor | None = None,
        guidance_scale: Tensor | None = None,
        after: After | None = None,
    ) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.config["channels"] or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(
                f"this network takes images (B, {self.config['channels']}, H, W) with H and W multiples of 4, "
                f"got {shape(x)}"
            )
        e = F.silu(self.embed(lam, cond, guidance_scale))
        skip, h = self._lower(x, e, after)
        h = skip + F.pixel_shuffle(self.lift(h), 2)
        for k, block in enumerate(self.up, len(self.down) + len(self.middle)):
            h = _then(after, k, block(h, e))
        return F.pixel_shuffle(self.head(F.silu(h)), 2) + self.through(e)[:, :, None, None] * x

    @property
    def block_widths(self) -> list[int]:
        """The channels of each block, in the order of `after`."""
        upper, lower = self.config["widths"]
        return [upper] * len(self.down) + [lower] * len(self.middle) + [upper] * len(self.up)

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives of an image."""
        return sum(self.config["widths"])

    def features(self, x: Tensor, lam: Tensor, cond: Tensor | None = None, after: After | None = None) -> Tensor:
        """The two levels' channels on the way down, averaged over the image, (B, feature_width)."""
        levels = self._lower(x, F.silu(self.embed(lam, cond, None)), after)
        return torch.cat([h.mean((2, 3)) for h in levels], 1)

    def _lower(self, x: Tensor, e: Tensor, after: After | None) -> tuple[Tensor, Tensor]:
        """The upper and the lower level on the way down."""
        h = self.into(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        for k, block in enumerate(self.down):
            h = _then(after, k, block(h, e))
        skip, h = h, self.lower(h)
        first, *others = self.middle
        h = _then(after, len(self.down), self.attention(first(h, e)))
        for k, block in enumerate(others, len(self.down) + 1):
            h = _then(after, k, block(h, e))
        return skip, h


def _then(after: After | None, k: int, h: Tensor) -> Tensor:
    """What takes the place of h after block k."""
    return h if after is None else after(k, h)
