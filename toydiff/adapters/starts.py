"""Where a walk begins: noise, a stream of it for each image, and the latents of an image, drawn as diffusers draws
them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..support.checks import check_count, check_finite, check_state, shape
from ..support.words import plural
from .checkpoint import StableDiffusion
from .inpainting import latent_mask, without_masked

Streams = torch.Generator | list[torch.Generator]
"""One stream of noise for all images, or one for each."""


def streams(seed: int | torch.Generator | Sequence[int | torch.Generator], n: int) -> Streams:
    """The streams of `seed` of n images; see `sampling.sample_images`."""
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != n:
            raise ValueError(f"there are {len(seed)} seeds for {plural(n, 'image')}; give one for each")
        seeds = list(seed)
    else:
        first = check_count(seed, "seed", 0)
        seeds = [first + k for k in range(n)]
    for one in seeds:
        if not isinstance(one, torch.Generator) and check_count(one, "seed", 0) >= 2**63:
            raise ValueError(f"seed must be below 2^63, and image k has seed + k; got {one}")
    return [one if isinstance(one, torch.Generator) else torch.Generator().manual_seed(int(one)) for one in seeds]


def noise_of(shape: tuple[int, ...], rng: Streams) -> Tensor:
    """Standard normal noise for n images, shape = (n, C, h, w)."""
    if isinstance(rng, torch.Generator):
        return torch.randn(shape, generator=rng, device=rng.device).cpu()
    return torch.cat([torch.randn(1, *shape[1:], generator=one, device=one.device).cpu() for one in rng])


class ImageStart(NamedTuple):
    """What a walk from n images begins with, (n, ..., h, w) each."""

    z: Tensor | None
    """Latents of the images, (n, C, h, w); None where none are needed."""
    noise: Tensor
    """(n, C, h, w)."""
    anew: Tensor | None
    """The mask, (n, 1, h, w), 0 or 1, of what is made anew; None without one."""
    kept: Tensor | None
    """What a model made for inpainting sees, (n, 1 + C, h, w): the mask, and the latents of the images without what is
    masked."""


def checked_image(image: Tensor, n: int) -> Tensor:
    """An image as (1, 3, H, W), or n images (n, 3, H, W). `ValueError` for another shape, or numbers outside [0, 1]."""
    check_state(image, "image")
    image = image[None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[1] != 3 or len(image) not in (1, n):
        raise ValueError(f"image must be (3, H, W), or ({n}, 3, H, W) for as many images, got {shape(image)}")
    check_finite(image, "image")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must lie in [0, 1], got {float(image.min()):g} to {float(image.max()):g}")
    return image


def from_image(
    checkpoint: StableDiffusion,
    image: Tensor,
    mask: Tensor | None,
    size: int | tuple[int, int] | None,
    n: int,
    rng: Streams,
    at_once: int,
    from_noise: bool,
) -> ImageStart:
    """The start of n images from an image (1, 3, H, W), or from n of them. The draws are those of diffusers' pipelines,
    in their order: of the image's latent, of noise, of the latent of what is kept.

    from_noise: the walk begins in noise alone. The other arguments, and the errors, are those of
    `sampling.sample_images`.
    """
    own = int(image.shape[2]), int(image.shape[3])
    latent = checkpoint.latent_shape(own)
    if latent != checkpoint.latent_shape(own if size is None else size):
        raise ValueError(f"image is {own[0]} x {own[1]} pixels, and size is {size}; leave size out, or scale the image")
    anew = None if mask is None else latent_mask(mask, n, own, (latent[-2], latent[-1]))
    z, drawn = None, 0
    if not (checkpoint.takes_mask and from_noise):
        z, drawn = _latents(checkpoint, image, n, rng, at_once)
    noise = noise_of((n, *latent), rng)
    if mask is None or anew is None:
        return ImageStart(z, noise, None, None)
    if checkpoint.takes_mask:
        seen, _ = _latents(checkpoint, without_masked(image, mask), n, rng, at_once)
        return ImageStart(z, noise, anew, torch.cat([anew, seen], 1))
    if drawn:  # here diffusers draws a latent of what is kept, for models that take it as input
        noise_of((drawn, *latent), rng)
    return ImageStart(z, noise, anew, None)


def _latents(checkpoint: StableDiffusion, image: Tensor, n: int, rng: Streams, at_once: int) -> tuple[Tensor, int]:
    """The n latents of an image, or of n images, and how many were drawn."""
    mean, std = checkpoint.encode(image, at_once=at_once)
    if not isinstance(rng, torch.Generator):
        mean, std = mean.expand(n, -1, -1, -1), std.expand(n, -1, -1, -1)
    drawn = len(mean) if bool(std.any()) else 0
    if drawn:  # the small VAE of TAESD gives a latent, not a distribution: nothing is drawn then
        mean = mean + std * noise_of(tuple(mean.shape), rng)
    return mean.expand(n, -1, -1, -1).contiguous(), drawn
