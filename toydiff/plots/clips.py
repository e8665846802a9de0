"""Clips of points as film strips: frames from left to right, steps or samples from top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..support.checks import check_finite, shape
from . import on_paper, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

GAP = 0.08
"""The space between two frames, in widths of a frame."""
INCHES = 0.8
"""The width of a frame in a file."""
MARGIN = 0.15
"""The white inside a frame around all points, in the points' range."""


@dataclass(frozen=True)
class Strip:
    """Where a strip's points lie, (rows, frames, 2), in widths of a frame: the frame of row r and column k has its
    lower left corner at `corner(r, k)`. All frames show the same part of the plane."""

    points: np.ndarray

    @staticmethod
    def corner(row: int, column: int) -> tuple[float, float]:
        return column * (1 + GAP), -row * (1 + GAP)


def strip(rows: Mapping[str, Tensor]) -> Strip:
    """Clips (frames, 2) by the name of their row as a strip. `ValueError` for no rows, rows that are not clips of
    points in the plane, or not as long as the first one, or NaN."""
    if not rows:
        raise ValueError("there is nothing to draw: give at least one clip")
    first = next(iter(rows))
    for name, clip in rows.items():
        if clip.ndim != 2 or clip.shape[1] != 2 or not len(clip):
            raise ValueError(f"the row {name!r} must be a clip of points in the plane (frames, 2), got {shape(clip)}")
        if len(clip) != len(rows[first]):
            raise ValueError(f"all rows must have as many frames as {first!r}, {len(rows[first])}, got {len(clip)}")
        check_finite(clip, f"the row {name!r}")
    places = np.stack([style.numbers(clip) for clip in rows.values()])
    reach = (1 + MARGIN) * max(float(np.abs(places).max()), 1e-9)
    corners = np.array([[Strip.corner(r, k) for k in range(places.shape[1])] for r in range(len(places))])
    return Strip(corners + (places / reach + 1) / 2)


@on_paper.styled()
def film_strip_static(rows: Mapping[str, Tensor], *, title: str = "") -> "Figure":
    """Clips (frames, 2) as rows of frames, each beside its name: the point of a frame, and behind it, in grey, the way
    from the frame before. Frames are columns; rows may be the steps of one sample, numbers of steps, or samples."""
    drawn = strip(rows)
    n, frames = drawn.points.shape[:2]
    figure = on_paper.empty(1.6 + INCHES * frames, 0.9 + INCHES * n, title)
    axes = figure.add_subplot()
    for r in range(n):
        for k in range(frames):
            corner = Strip.corner(r, k)
            axes.add_patch(_frame(corner))
            if k:
                before = drawn.points[r, k - 1] + np.subtract(corner, Strip.corner(r, k - 1))
                axes.plot(*np.stack([before, drawn.points[r, k]]).T, color=style.GREY, lw=1.2)
        axes.plot(*drawn.points[r].T, "o", color=style.BLUE, ms=5)
    middles = [Strip.corner(0, k)[0] + 0.5 for k in range(frames)]
    axes.set_xticks(middles, [str(k + 1) for k in range(frames)])
    axes.set_yticks([Strip.corner(r, 0)[1] + 0.5 for r in range(n)], list(rows))
    axes.set(xlim=(-GAP, frames * (1 + GAP)), ylim=(1 - n * (1 + GAP), 1 + GAP), aspect="equal", xlabel="frame")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _frame(corner: tuple[float, float]) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, facecolor="#F6F6F6", edgecolor="#CCCCCC", lw=0.8, zorder=0)
