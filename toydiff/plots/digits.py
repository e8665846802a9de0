"""Images: sheets of digits, pictures side by side, and how good digits are for what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..support.checks import check_finite, shape
from . import on_paper, on_screen, style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

GAP = 2
"""White pixels between two digits."""
DOTS_PER_PIXEL = 4
"""Each pixel of a digit is so many dots wide and high in a file: a whole number, so that all are alike."""
MARGIN = 0.12
"""White around a sheet in a file, in inches."""
HEIGHT = 64
"""A digit's height on a page."""


@dataclass(frozen=True)
class Sheet:
    """Rows of images as one picture, -1 paper and 1 ink, with paper in the gaps, (rows (H + gap) - gap, k (W + gap) -
    gap); and where the middles of its columns and rows are, in pixels from its upper left."""

    ink: np.ndarray
    columns: list[float]
    rows: list[float]


def sheet(rows: Mapping[str, Tensor]) -> Sheet:
    """Rows of images (k, 1, H, W) as a sheet. `ValueError` for no rows, rows that are not images, or not as many as
    large as the first one's, or NaN."""
    if not rows:
        raise ValueError("there is nothing to draw: give at least one row of digits")
    first = next(iter(rows))
    for name, images in rows.items():
        if images.ndim != 4 or images.shape[1] != 1 or not len(images):
            raise ValueError(f"the row {name!r} must be images (k, 1, H, W) with k >= 1, got {shape(images)}")
        if images.shape != rows[first].shape:
            raise ValueError(
                f"all rows must have the same shape, got {shape(rows[first])} for {first!r} "
                f"and {shape(images)} for {name!r}"
            )
        check_finite(images, f"the row {name!r}")
    tiles = torch.stack([images.detach().double().cpu()[:, 0] for images in rows.values()])  # (rows, k, H, W)
    tiles = torch.nn.functional.pad(tiles, (0, GAP, 0, GAP), value=-1)
    n, k, high, wide = tiles.shape
    ink = tiles.transpose(1, 2).reshape(n * high, k * wide)[:-GAP, :-GAP].clamp(-1, 1).numpy()
    columns, lines = ([i * size + (size - GAP - 1) / 2 for i in range(m)] for m, size in ((k, wide), (n, high)))
    return Sheet(ink, columns, lines)


@on_paper.styled()
def digits_static(rows: Mapping[str, Tensor], *, title: str = "") -> "Figure":
    """Images as black ink on white paper, a row an entry of `rows` (its name at the left: (k, 1, H, W) in [-1, 1], -1
    paper and 1 ink).

    A column is one noise: a row a number of steps, or a method. Values beyond [-1, 1] are drawn as paper and ink.
    `ValueError` for rows that are not images, or not as many of the same size in each, and for NaN.
    """
    drawn = sheet(rows)
    high, wide = (n * DOTS_PER_PIXEL / on_paper.DPI for n in drawn.ink.shape)
    left = 2 * MARGIN + max(_text_width(name, style.FONT_SIZE) for name in rows)
    head, size = (0.5 if title else MARGIN), style.FONT_SIZE + 4
    # bold is about 1.15 times as wide
    width = max(left + wide, _text_width(title, 1.15 * size)) + MARGIN
    height = head + high + MARGIN
    figure = on_paper.empty(width, height, "")
    figure.set_layout_engine("none")  # which would not know that the picture keeps its size
    if title:
        figure.text(MARGIN / width, 1 - MARGIN / height, title, va="top", fontsize=size, fontweight="bold")
    axes = figure.add_axes((left / width, MARGIN / height, wide / width, high / height))
    axes.imshow(drawn.ink, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(drawn.rows, list(rows), fontsize=style.FONT_SIZE)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _text_width(text: str, size: float) -> float:
    """How wide text of a size in points is, in inches."""
    from matplotlib.textpath import TextPath

    lines = [line for line in text.split("\n") if line.strip()]
    return max((float(TextPath((0, 0), line, size=size).get_extents().width) for line in lines), default=0.0) / 72


def digits_interactive(rows: Mapping[str, Tensor], *, title: str = "") -> "go.Figure":
    """As `digits_static`, a picture a row. Hovering a digit names its row and column."""
    drawn = sheet(rows)
    high, wide = drawn.ink.shape
    size = next(iter(rows.values())).shape[2]
    head, scale = (80 if title else 20), HEIGHT / size
    figure = on_screen.panels(1, 1, [""], title, round(high * scale) + head + 20)
    edges = (-0.5, wide - 0.5, high - 0.5, -0.5)
    for middle in drawn.rows:
        top = round(middle - (size - 1) / 2)
        grey = on_screen.enlarged(((1 - drawn.ink[top : top + size]) / 2 * 255).round().astype(np.uint8), 8, 8)
        place = (*edges[:2], top + size - 0.5, top - 0.5)
        on_screen.picture(figure, np.stack([grey] * 3, axis=-1), place, 1, 1, on_screen.INK_NAME)
    figure.add_scatter(
        x=drawn.columns * len(rows),
        y=[middle for middle in drawn.rows for _ in drawn.columns],
        mode="markers",
        marker={"size": 30, "opacity": 0},
        text=[f"{name}, column {k + 1}" for name in rows for k in range(len(drawn.columns))],
        hovertemplate="%{text}<extra></extra>",
        row=1,
        col=1,
    )
    bare = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    figure.update_xaxes(range=edges[:2], showticklabels=False, **bare)
    ticks = {"tickvals": drawn.rows, "ticktext": list(rows)}
    away = {"ticks": "outside", "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"}
    figure.update_yaxes(range=edges[2:], **ticks, **away, scaleanchor="x", scaleratio=1, **bare)
    figure.update_layout(margin={"t": head, "b": 20})
    return figure


def images_interactive(pictures: Mapping[str, Tensor], *, title: str = "") -> "go.Figure":
    """Pictures (3, H, W) with numbers in [0, 1] side by side, each below its name. `ValueError` for other shapes,
    and NaN."""
    if not pictures:
        raise ValueError("there is nothing to draw: give at least one picture")
    for name, picture in pictures.items():
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise ValueError(f"the picture {name!r} must have shape (3, H, W), got {shape(picture)}")
        check_finite(picture, f"the picture {name!r}")
    figure = on_screen.panels(1, len(pictures), list(pictures), title, 520, horizontal_spacing=0.01)
    for column, picture in enumerate(pictures.values(), 1):
        at = {"row": 1, "col": column}
        pixels = (picture.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        high, wide = pixels.shape[:2]
        sharp = on_screen.enlarged(pixels, 512 // high, 512 // high)
        on_screen.picture(figure, sharp, (0, wide, high, 0), **at, name="image")
        corners = {"mode": "markers", "marker": {"opacity": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(x=[0, wide], y=[0, high], **corners, **at)
        bare = {"showgrid": False, "zeroline": False, "showticklabels": False, "constrain": "domain"} | at
        figure.update_xaxes(range=[0, wide], **bare)
        below_head = {"scaleanchor": figure.get_subplot(1, column).yaxis.anchor, "constraintoward": "top"}
        figure.update_yaxes(range=[high, 0], **below_head, **bare)
    return figure


def quality_interactive(rows: Sequence[Mapping], *, title: str = "") -> "go.Figure":
    """Distance over its floor against NFE, both logarithmic: rows {student, steps, nfe, distance_over_floor}, a curve a
    student, the dashed line the floor.

    `ValueError` for a table without rows.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the table of students has no rows")
    figure = on_screen.panel(title, 560)
    for name, seen in style.markings(dict.fromkeys(row["student"] for row in rows)).items():
        own = sorted((row for row in rows if row["student"] == name), key=lambda row: row["nfe"])
        steps = [f"{row['steps']} step{'s' if row['steps'] > 1 else ''}" for row in own]
        nfe, distance = ([row[key] for row in own] for key in ("nfe", "distance_over_floor"))
        hover = f"{name}, %{{text}}, %{{x}} NFE: %{{y:.2f}} floors"
        on_screen.curve(figure, nfe, distance, seen, hover, 2, 11, text=steps, name=name)
    x_range, y_range = (style.padded_log([*(row[key] for row in rows), 1]) for key in ("nfe", "distance_over_floor"))
    on_screen.level(figure, 1, "floor: held-out real ones")
    figure.update_xaxes(**on_screen.log_axis(style.NFE_LABEL, x_range, on_screen.round_ticks(x_range)))
    label = "distance to real digits / floor"
    figure.update_yaxes(**on_screen.log_axis(label, y_range, on_screen.round_ticks(y_range)))
    return figure
