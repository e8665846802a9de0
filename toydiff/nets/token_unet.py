"""A UNet for images of tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count
from .unet import UNet


class TokenUNet(nn.Module):
    """net(x, t, cond): images of tokens as strings x (B, side side), row by row, of `symbols` symbols, times t (B,) and
    labels cond (B,) or None, give logits (B, side side, vocab).

    A `UNet` whose channels are the tokens: its input is 1 in the channel of a pixel's token, and 0 in all of them where
    the pixel is masked; its output is the logits. The other arguments are those of `UNet`. timed: the UNet sees
    log((1 - t)/t), the lambda of the linear schedule; without it the logits do not depend on time, as a masked
    posterior does not. The output starts as 0. `ValueError` for sizes that are no whole numbers in range.
    """

    def __init__(
        self,
        vocab: int,
        symbols: int,
        side: int,
        widths: tuple[int, int] = (32, 128),
        middle: int = 1,
        attention: bool = False,
        embedding: int = 128,
        classes: int = 0,
        timed: bool = False,
    ):
        super().__init__()
        self.length = check_count(side, "side") ** 2
        check_count(symbols, "symbols", check_count(vocab, "vocab"))
        self.unet = UNet(vocab, widths, middle=middle, attention=attention, embedding=embedding, classes=classes)
        self.config: dict[str, Any] = {
            "vocab": vocab,
            "symbols": symbols,
            "side": side,
            "widths": list(widths),
            "middle": middle,
            "attention": attention,
            "embedding": embedding,
            "classes": classes,
            "timed": timed,
        }

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        vocab, side = self.config["vocab"], self.config["side"]
        seen = F.one_hot(x, self.config["symbols"])[..., :vocab].to(t)  # (B, L, vocab)
        lam = torch.logit(1 - t) if self.config["timed"] else torch.zeros_like(t)
        image = seen.transpose(1, 2).unflatten(2, (side, side))
        out = self.unet.forward(image, lam, cond)  # not as a network of its own: a pass is counted once (`runs.cost`)
        return out.flatten(2).transpose(1, 2)
