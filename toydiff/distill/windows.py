"""What PeRFlow and phased Rectified Diffusion share: windows of time, and where the teacher leads in each."""

from dataclasses import dataclass

import torch

from ..prediction import jump
from ..support.checks import check_count, check_fraction
from .base import Knobs


@dataclass(frozen=True)
class WindowKnobs(Knobs):
    """Those of every method, and:"""

    windows: int = 4
    """M, the number of windows, which are equally long in t."""
    substeps: int = 8
    """K, the DDIM steps of the teacher in a window."""
    guidance_scale: float = 1.0
    """The teacher's guidance scale, which the student then has built in. 1 is off; the student is then guided when it
    is sampled."""
    edge: float = 0.5
    """The fraction, in [0, 1], of a batch at the upper edge of its window. A sampler with one step a window evaluates
    the student at these edges only. At an edge the target jumps, from this window's to the next one's. A network that
    is smooth in lambda blurs the two, and this fraction decides which of them it learns there. The papers have 0."""

    def check(self) -> None:
        """`ValueError` unless windows and substeps are whole numbers >= 1 and edge lies in [0, 1]."""
        check_count(self.windows, "windows")
        check_count(self.substeps, "substeps")
        check_fraction(self.edge, "edge")


@torch.no_grad()
def window_ends(teacher, M, K, x0, cond, draws, guidance_scale=1.0):
    """(x_high, high, x_low, low), states (B, ...) and times (B,): the ends of a random window, one of M, for each
    sample.

    x_high is noised data. x_low is where K DDIM steps of the teacher lead from x_high. x0 (B, ...); cond (B,) or None;
    guidance_scale of the teacher.
    """
    m = draws.integers(len(x0), M)
    low, high = m.to(x0.dtype) / M, (m + 1).to(x0.dtype) / M
    x_high = x = teacher.schedule.mix(x0, draws.normal(*x0.shape), high)
    for k in range(K):
        t, s = high - k / (K * M), (high - (k + 1) / (K * M)).clamp(min=0) if k < K - 1 else low
        x = jump(teacher(x, t, cond, guidance_scale), s)
    return x_high, high, x, low
