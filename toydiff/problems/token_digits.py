"""The problem of digits in a few grey levels: images of tokens, by class."""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..discrete import DEFAULT_SAMPLER, TokenPath
from ..nets import TokenUNet
from ..support.checks import check_count
from .base import TOKEN_IMAGES, Measured, Sizes, TokenProblem
from .data import DIGIT_CLASSES, DIGIT_SHAPE, Digits, digits
from .digits import DigitsProblem

LEVELS = 4
"""Grey levels, from paper, 0, to ink."""
SIDE = DIGIT_SHAPE[-1]


def tokens_of(images: Tensor) -> Tensor:
    """The nearest grey level of each pixel, row by row: images (n, 1, 28, 28) in [-1, 1], what is beyond clamped, give
    tokens (n, 784)."""
    return ((images.clamp(-1, 1) + 1) / 2 * (LEVELS - 1)).round().long().flatten(1)


def images_of(tokens: Tensor) -> Tensor:
    """The images (n, 1, 28, 28) in [-1, 1] of tokens (n, 784)."""
    return (tokens * 2 / (LEVELS - 1) - 1).view(-1, *DIGIT_SHAPE)


class GreyDigits(DigitsProblem):
    """Digits whose pixels have `LEVELS` grey levels, as images: what images of tokens are compared with. Any model of
    digits can be measured here, once its samples are `images_of(tokens_of(samples))`."""

    def __init__(self, seed: int = 0):
        super().__init__(seed=seed)
        self.name = f"tokens:digits,{seed}" if seed else "tokens:digits"

    @functools.cached_property
    def digits(self) -> Digits:
        found = digits(self.source, seed=self.seed)
        grey: dict[str, Any] = {part: images_of(tokens_of(getattr(found, part))) for part in ("train", "test")}
        return dataclasses.replace(found, **grey)


class TokenDigitsProblem(TokenProblem):
    """Digits by class as strings of 784 tokens, their pixels' grey levels, row by row.

    seed: of the split of the digits. Samples are measured as digits are: by the Fréchet distance of the same
    classifier's features to those of the training part, both in these grey levels, and by how many are of the class
    that was asked for. The floor is the distance of the held-out part. Measuring reads the digits themselves, which
    another package carries. There is no teacher before one is trained.
    """

    scale = TOKEN_IMAGES
    distance_name = DigitsProblem.distance_name
    sizes = Sizes(at_once=500, watched=500, watched_steps=16, evaluated=1000)  # of one step nothing is learnt
    conditional = True
    classes = DIGIT_CLASSES
    vocab = LEVELS
    shape = (SIDE * SIDE,)
    walk = (DEFAULT_SAMPLER, "cosine")

    def __init__(self, seed: int = 0):
        self.images = GreyDigits(seed)
        self.name = self.images.name

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        images, labels = self.images.data(n, generator)
        return tokens_of(images), labels

    def pictures(self, samples: Tensor) -> Tensor:
        """The images (n, 1, 28, 28) in [-1, 1] of strings (n, 784). `ValueError` for other strings, or masks."""
        TokenPath(self.vocab, "uniform").check(samples, "samples")
        if samples.shape[1:] != self.shape:
            raise ValueError(f"samples must hold strings of {self.shape[0]} tokens, got {samples.shape[1]}")
        return images_of(samples)

    def string_network(self, path: TokenPath, *, latents: int = 1) -> nn.Module:
        if check_count(latents, "latents") > 1:
            raise ValueError(f"the network of {self.name} is one product of positions and no mixture, got {latents}")
        return TokenUNet(
            path.vocab,
            path.size,
            SIDE,
            widths=(16, 96),
            middle=2,
            attention=True,
            embedding=192,
            classes=DIGIT_CLASSES,
            timed=not path.masked,
        )

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        return self.images.measure(self.pictures(samples), cond)
