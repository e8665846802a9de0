"""Schedulers of token paths: kappa(t), the probability that a position holds its data token at time t.

Times are the library's: t = 1 is the source, kappa = 0, and t = 0 is data, kappa = 1. The papers' time is 1 - t.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..support.checks import check_positive, unknown


class Scheduler:
    """kappa, which falls from 1 at t = 0 to 0 at t = 1. A subclass writes the three functions; t is a tensor of any
    shape in [0, 1]."""

    name: str
    """What `scheduler` makes it of again."""

    def kappa(self, t: Tensor) -> Tensor:
        """The probability of the data token at t."""
        raise NotImplementedError

    def slope(self, t: Tensor) -> Tensor:
        """dkappa/dt <= 0."""
        raise NotImplementedError

    def time(self, kappa: Tensor) -> Tensor:
        """The t of a kappa: the inverse function."""
        raise NotImplementedError


EXPONENTS = (0.01, 100.0)
"""Beyond these kappa is a step function."""


@dataclass(frozen=True)
class Power(Scheduler):
    """kappa = (1 - t)^a, a from 0.01 to 100 (discrete flow matching, arXiv 2407.15595). a = 1 is linear; a larger one
    reveals later."""

    exponent: float = 1.0

    def __post_init__(self):
        low, high = EXPONENTS
        if not low <= check_positive(self.exponent, "the exponent of kappa") <= high:
            raise ValueError(f"the exponent of kappa must lie from {low:g} to {high:g}, got {self.exponent:g}")

    @property
    def name(self) -> str:  # type: ignore[override]
        return "linear" if self.exponent == 1 else f"power:{self.exponent:g}"

    def kappa(self, t: Tensor) -> Tensor:
        return (1 - t) ** self.exponent

    def slope(self, t: Tensor) -> Tensor:
        return -self.exponent * (1 - t) ** (self.exponent - 1)

    def time(self, kappa: Tensor) -> Tensor:
        return 1 - kappa ** (1 / self.exponent)


@dataclass(frozen=True)
class Cosine(Scheduler):
    """1 - kappa = sin(pi t/2): the fraction of masked tokens in MaskGIT (arXiv 2202.04200, sec. 3.3), which reveals few
    tokens at first."""

    name = "cosine"

    def kappa(self, t: Tensor) -> Tensor:
        return 1 - torch.sin(math.pi / 2 * t)

    def slope(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.cos(math.pi / 2 * t)

    def time(self, kappa: Tensor) -> Tensor:
        return 2 / math.pi * torch.asin(1 - kappa)


NAMES = ("linear", "cosine", "power:A")


def scheduler(name: str) -> Scheduler:
    """The scheduler with this name: "linear", "cosine", or "power:A" with an exponent A. `ValueError` otherwise."""
    word, colon, exponent = str(name).partition(":")
    if name == "linear":
        return Power(1.0)
    if name == "cosine":
        return Cosine()
    if word != "power" or not colon:
        raise unknown("scheduler of tokens", name, NAMES)
    try:
        return Power(float(exponent))
    except ValueError:
        low, high = EXPONENTS
        raise ValueError(f"a power scheduler is power:A with A from {low:g} to {high:g}, got {name!r}") from None
