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
    """M, equally long in t."""
    substeps: int = 8
    """K, DDIM steps of the teacher in a window."""
    guidance_scale: float = 1.0
    """That of the teacher, which the student then has built in (1 is off: such a student is guided when it is
    sampled)."""
    edge: float = 0.5
    """The fraction of a batch at its windows' upper edges, where a sampler with one step a window calls the student:
    there the target jumps from one window's to the next one's, a network that is smooth in lambda blurs the two, and
    this fraction decides for which. The papers have 0."""

    def check(self) -> None:
        """`ValueError` for windows or substeps that are no counts, and an edge that is no fraction."""
        check_count(self.windows, "windows")
        check_count(self.substeps, "substeps")
        check_fraction(self.edge, "edge")


@torch.no_grad()
def window_ends(teacher, M, K, x0, cond, draws, guidance_scale=1.0):
    """A random window (low, high] of M for each sample, its upper end noised data, its lower end where K DDIM steps of
    the teacher lead.

    Returns (x_high, high, x_low, low): states (B, ...) and times (B,). x0 (B, ...); cond (B,) or None; guidance_scale
    of the teacher.
    """
    m = draws.integers(len(x0), M)
    low, high = m.to(x0.dtype) / M, (m + 1).to(x0.dtype) / M
    x_high = x = teacher.schedule.mix(x0, draws.normal(*x0.shape), high)
    for k in range(K):
        t, s = high - k / (K * M), (high - (k + 1) / (K * M)).clamp(min=0) if k < K - 1 else low
        x = jump(teacher(x, t, cond, guidance_scale), s)
    return x_high, high, x, low
