"""A part of an image made anew: by a model that knows nothing of masks, where the rest is put back after each step, or
by one that sees the mask and the rest of the image."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..solvers.base import Around
from ..support.checks import check_finite, shape


@dataclass(frozen=True)
class Inpainting(Around):
    """A solver whose every step ends with x_s = m x_s + (1 - m)(alpha(s) z + sigma(s) eps).

    z is the image's own latent, and eps the noise from which the walk began. The last step ends with m x + (1 - m) z,
    so outside the mask the image is kept. (arXiv 2201.09865, eq. 8, with one eps for all steps, as in diffusers'
    StableDiffusionInpaintPipeline.)
    """

    mask: Tensor
    """m, (B, 1, h, w), 0 or 1: 1 is made anew."""
    z: Tensor
    """(B, C, h, w)."""
    eps: Tensor
    """(B, C, h, w)."""
    last: float
    """Steps to a time at or below this one end with z."""

    def part(self, rows: slice, device: torch.device | str) -> "Inpainting":
        """The same for some of the samples."""
        own = {name: getattr(self, name)[rows].to(device) for name in ("mask", "z", "eps")}
        return dataclasses.replace(self, **own)

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        x, p = super().step(D, x, t, s, past, noise)
        kept = self.z if float(s) <= self.last else D.schedule.mix(self.z, self.eps, s)
        return torch.where(self.mask > 0, x, kept), p


def latent_mask(mask: Tensor, n: int, pixels: tuple[int, int], places: tuple[int, int]) -> Tensor:
    """The mask of n latents, (n, 1, h, w), 0 or 1, from one in pixels, (1, H, W) or (n, 1, H, W) in [0, 1].

    A number of at least 1/2 counts as 1. A place of the latent has the mask of the pixel at its upper left corner.
    pixels: the image's (H, W); places: the latent's (h, w). `ValueError` for another shape, for numbers outside [0, 1],
    and where nothing would be made anew.
    """
    if not isinstance(mask, Tensor) or not mask.is_floating_point():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a floating-point tensor, got {got}")
    if mask.shape not in ((1, *pixels), (n, 1, *pixels)):
        one = ", ".join(map(str, (1, *pixels)))
        raise ValueError(f"mask must be ({one}), or ({n}, {one}) for as many images, got {shape(mask)}")
    check_finite(mask, "mask")
    if mask.min() < 0 or mask.max() > 1:
        raise ValueError(f"mask must lie in [0, 1], got {float(mask.min()):g} to {float(mask.max()):g}")
    anew = (mask.reshape(-1, 1, *pixels).cpu() >= 0.5).float()
    anew = torch.nn.functional.interpolate(anew, size=places).expand(n, -1, -1, -1)
    if not bool(anew.flatten(1).any(1).all()):
        raise ValueError(
            f"a mask has nothing white (1/2 or more) at the {places[0]} x {places[1]} places of the latent, so nothing "
            "would be made anew; paint a larger part"
        )
    return anew


def without_masked(image: Tensor, mask: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] that are grey, 1/2, where a mask of theirs, as `latent_mask` takes it, is at least
    1/2: what a model made for inpainting sees of an image. Either may be one for all."""
    anew = mask.reshape(-1, 1, *image.shape[2:]).to(image) >= 0.5
    return torch.where(anew, 0.5, image)
