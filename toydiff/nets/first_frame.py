"""Clips whose first frame is given: image to video (as AnimateLCM-I2V, arXiv 2402.00769, sec. 4.3)."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..denoisers import LambdaDenoiser, Wrapper
from ..prediction import Prediction
from ..schedules import expand
from ..support.checks import check_same
from .embedding import LAM_RANGE


class FirstFrame(Wrapper):
    """A denoiser of clips x (B, frames, ...) whose first frame is known to be `first` (B, ...).

    The network of `denoiser`, a `LambdaDenoiser` of a `ClipNet`, sees that frame without noise, at the largest lambda,
    beside the others as they are; it has no weights for it. x_0 of the frame is then `first` itself, and its eps what
    x_t leaves. given (B,): for which clips the frame is known; None for all. `ValueError` for another denoiser.
    """

    def __init__(self, denoiser: LambdaDenoiser, first: Tensor, given: Tensor | None = None):
        super().__init__(denoiser)
        if not isinstance(denoiser, LambdaDenoiser):
            raise ValueError(f"a first frame is given to a LambdaDenoiser of clips, got {type(denoiser).__name__}")
        given = torch.ones(len(first), dtype=torch.bool, device=first.device) if given is None else given
        self.first, self.given = first, given
        told = _Told(denoiser.net, first, given)
        self.told = LambdaDenoiser(told, denoiser.schedule, denoiser.kind, data_std=denoiser.data_std)

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        check_same(x[:, 0], self.first, "the first frames of x and those that are given")
        p = self.told(x, t, cond, guidance_scale)
        known = Prediction.of("x0", _placed(p.x0, self.first, self.given), x, t, self.schedule)
        return Prediction(x, p.t, known.x0, _placed(p.eps, known.eps[:, 0], self.given), self.schedule)


class _Told(nn.Module):
    """A network of clips that sees the given frames in their places."""

    def __init__(self, net: nn.Module, first: Tensor, given: Tensor):
        super().__init__()
        self.net, self.first, self.given = net, first, given
        self.config = cast("dict[str, Any]", net.config)

    def forward(
        self, x: Tensor, lam: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | None = None
    ) -> Tensor:
        lam = lam[:, None].repeat(1, x.shape[1])
        clean = torch.full_like(lam[:, 0], LAM_RANGE[1])
        lam[:, 0] = torch.where(self.given, clean, lam[:, 0])
        return self.net(_placed(x, self.first, self.given), lam, cond, guidance_scale)


def _placed(x: Tensor, first: Tensor, given: Tensor) -> Tensor:
    """Clips x (B, frames, ...) with other first frames (B, ...) where they are given (B,)."""
    own = torch.where(expand(given, first).bool(), first, x[:, 0])
    return torch.cat([own[:, None], x[:, 1:]], 1)
