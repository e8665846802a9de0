"""What a network is conditioned on, as one vector: the noise level, the class, the guidance scale."""

import math

import torch
from torch import Tensor, nn

from ..denoisers import NO_CLASS
from ..support.checks import check_count

LAM_RANGE = (-7.0, 7.0)
"""The bounds to which lambda is clamped. At the ends of a schedule it may be infinite; beyond these bounds x_t is all
noise or all data anyway."""


def fourier(value: Tensor, frequencies: Tensor) -> Tensor:
    """cos and sin of value (B,) times each frequency (K,): (B, 2K)."""
    angle = value[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], 1)


class Embedding(nn.Module):
    """(lambda, label, guidance scale) -> (B, width): an MLP of lambda's Fourier features, plus a vector a class, plus a
    linear map of features of log g.

    Labels are 0 ... classes - 1, or `NO_CLASS`. `guided` adds the guidance scale g > 0 as an input (guided
    distillation, arXiv 2210.03142, sec. 3.1). The weights of g start at zero, and its features vanish at g = 1: so a
    student starts as its teacher.
    """

    frequencies: Tensor

    def __init__(self, width: int, classes: int = 0, guided: bool = False, features: int = 16):
        super().__init__()
        check_count(classes, "classes", 0)
        # angular frequencies, for what changes slowly with the noise level and for what changes quickly
        frequencies = torch.logspace(math.log10(0.1), math.log10(4.0), features)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.classes = classes
        self.level = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.guidance = nn.Linear(2 * features, width, bias=False) if guided else None
        if self.guidance is not None:
            nn.init.zeros_(self.guidance.weight)

    def forward(self, lam: Tensor, cond: Tensor | None, guidance_scale: Tensor | None) -> Tensor:
        """lam (B,), cond (B,) labels or None, guidance_scale (B,) or None (which is g = 1): (B, width)."""
        out = self.level(fourier(lam.clamp(*LAM_RANGE), self.frequencies))
        if self.label is not None:
            out = out + self.label(self._rows(lam, cond))
        elif cond is not None:
            raise ValueError("this network was made without classes, so that it cannot be conditioned on a label")
        if guidance_scale is not None:
            if self.guidance is None:
                raise ValueError("this network does not see a guidance scale; make it with guided=True")
            if not bool((guidance_scale > 0).all()):
                raise ValueError(
                    f"a network sees guidance scales > 0, got one of {float(guidance_scale.min()):g}; 1 is off"
                )
            off = fourier(torch.log(guidance_scale), self.frequencies)
            out = out + self.guidance(off - fourier(torch.zeros_like(guidance_scale), self.frequencies))
        return out

    def _rows(self, lam: Tensor, cond: Tensor | None) -> Tensor:
        """The row of the table that each sample reads, (B,); the last row is that of no class."""
        if cond is None:
            return torch.full(lam.shape, self.classes, dtype=torch.long, device=lam.device)
        if cond.shape != lam.shape:
            raise ValueError(f"cond must have shape ({len(lam)},), one label a sample, got {tuple(cond.shape)}")
        if not bool(((cond >= NO_CLASS) & (cond < self.classes)).all()):
            raise ValueError(
                f"labels are 0 ... {self.classes - 1}, or {NO_CLASS} for none; "
                f"got values from {int(cond.min())} to {int(cond.max())}"
            )
        return torch.where(cond == NO_CLASS, self.classes, cond.long())
