"""Clips as film strips: frames from left to right, steps or samples from top to bottom. Clips of points are for files,
clips of images for a page, where they move; in a file, a sheet of digits is their strip."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..support.checks import check_finite, shape
from . import on_paper, on_screen, style
from .digits import GAP as GAP_OF_IMAGES
from .digits import HEIGHT, sheet

if TYPE_CHECKING:
    import plotly.graph_objects as go
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


SPEED = 160
"""Milliseconds of a frame of a clip that is played."""
ROUNDS = 6
"""How often a clip is played."""
MOVING, STRIP = "in motion", "frame by frame"


def film_strip_interactive(
    rows: Mapping[str, Tensor], *, active: int = 0, first: str = "", title: str = ""
) -> "go.Figure":
    """Clips of images (frames, 1, H, W) in [-1, 1], -1 paper and 1 ink, a row each: at the left in motion, beside it
    frame by frame. A slider chooses the frame.

    active: the frame that is shown first, from 0. first: what stands below the first frame in place of its number.
    `ValueError` as `sheet` has it, and for an `active` that is no frame.
    """
    import plotly.graph_objects as go

    drawn = sheet(rows)
    frames, _, _, wide = next(iter(rows.values())).shape
    if not 0 <= active < frames:
        raise ValueError(f"active must be 0 to {frames - 1}, got {active}")
    ink = (127 * drawn.ink).round().astype(np.int8)
    high, every = ink.shape
    scale = HEIGHT / next(iter(rows.values())).shape[2]
    beside = 2.3 * wide  # with paper around the one clip
    widths = [beside / (beside + every), every / (beside + every)]
    height = round(high * scale) + 200
    figure = on_screen.panels(1, 2, [MOVING, STRIP], title, height, column_widths=widths, horizontal_spacing=0.03)
    shown: dict[str, Any] = {
        "name": on_screen.INK_NAME,
        "zmin": -127,
        "zmax": 127,
        "colorscale": [[0, "white"], [1, style.INK]],
        "showscale": False,
        "hoverinfo": "skip",
    }

    def moving(k: int) -> np.ndarray:
        left = k * (wide + GAP_OF_IMAGES)
        return ink[:, left : left + wide]

    def around(k: int) -> dict[str, np.ndarray]:
        left = k * (wide + GAP_OF_IMAGES) - 1
        x, y = np.array([left, left + wide + 1]), np.array([-1, high])
        return {"x": x[[0, 1, 1, 0, 0]], "y": y[[0, 0, 1, 1, 0]]}

    figure.add_heatmap(z=moving(active), **shown, row=1, col=1)
    figure.add_heatmap(z=ink, **shown, row=1, col=2)
    line = {"color": style.ORANGE, "width": 3}
    figure.add_scatter(**around(active), mode="lines", line=line, hoverinfo="skip", row=1, col=2)
    bare = {"showgrid": False, "zeroline": False}
    for column, size in ((1, wide), (2, every)):
        at = {"row": 1, "col": column}
        anchor = figure.get_subplot(1, column).yaxis.anchor
        room = (beside - wide) / 2 if column == 1 else 1.0
        figure.update_xaxes(
            range=[-0.5 - room, size - 0.5 + room], showticklabels=False, constrain="domain", **bare, **at
        )
        figure.update_yaxes(
            range=[high + 0.5, -1.5], scaleanchor=anchor, scaleratio=1, constrain="domain", **bare, **at
        )
        named = {"tickvals": drawn.rows, "ticktext": [on_screen.plain(name) for name in rows]}
        figure.update_yaxes(**named, showticklabels=column == 1, **at)
    numbers = [str(k + 1) for k in range(frames)]
    below = [first or "1", *numbers[1:]]
    figure.update_xaxes(tickvals=drawn.columns, ticktext=below, showticklabels=True, title_text="frame", row=1, col=2)
    figure.frames = [
        go.Frame(name=str(k), traces=[0, 2], data=[go.Heatmap(z=moving(k)), go.Scatter(**around(k))])
        for k in range(frames)
    ]
    on_screen.slider(
        figure,
        numbers,
        "frame ",
        active,
        redraw=True,
        milliseconds=SPEED,
        rounds=ROUNDS,
    )
    figure.update_layout(showlegend=False)
    return figure
