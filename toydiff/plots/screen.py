"""A figure on a screen in front of people: letters that the back row can read, and the same figure in the dark."""

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ..support.checks import check_count
from . import style
from .on_screen import INK_NAME, put, source

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDE = 110
"""Letters that a line above the panels has room for, all panels together."""
PAPER, DARK_PAPER = "#FFFFFF", "#14161A"
DARK_INK, DARK_SHADE, DARK_GRID = "#EDEDED", "#5A5F69", "#2E323A"

DARK = {
    style.INK: DARK_INK,
    "#000000": "#FFFFFF",
    "white": DARK_PAPER,
    style.CONTEXT_COLOR: DARK_SHADE,
    style.GREY: "#A0A0A0",
}
"""What is ink or paper changes places; a method's colour stays."""


def for_screen(figure: "go.Figure", *, dark: bool = False, size: int = 17) -> "go.Figure":
    """The figure for a projected page, changed in place and returned: letters of `size` points, as high as its place on
    the page, and dark if wanted.

    In the dark ink is white, densities are light where they are high, and digits are white ink on black. `ValueError`
    for a size below 1.
    """
    check_count(size, "size")
    paper, ink = (DARK_PAPER, DARK_INK) if dark else (PAPER, style.INK)
    legends = [f"legend{k or ''}" for k in (0, *range(2, 10)) if f"legend{k or ''}" in figure.layout]
    lines = _break_heads(figure, size)
    put(
        figure.layout,
        height=None,
        autosize=True,
        font={"size": size, "color": ink},
        hoverlabel_font_size=size,
        paper_bgcolor=paper,
        plot_bgcolor=paper,
        margin={"l": 60, "r": 20, "t": 10 + int(1.35 * size * lines), "b": 3 * size},
        **{f"{name}_font_size": size - 2 for name in legends},
    )
    grid = {"gridcolor": DARK_GRID, "zerolinecolor": DARK_GRID} if dark else {}
    for name in figure.layout:
        if name.startswith(("xaxis", "yaxis")):
            put(figure.layout[name], title_standoff=2 if name[0] == "x" else 6, **grid)
    if figure.layout.sliders:
        _flatten(figure, size, ink)
    if dark:
        _darken(figure)
    return figure


def _flatten(figure: "go.Figure", size: int, ink: str) -> None:
    """A slider and its button in as little height as can be, below the axes' names: its ticks go, its value stays."""
    below = int(2.6 * size)
    figure.layout.margin.b = below + 3 * size
    for slider in figure.layout.sliders:
        slider.pad.t = below
        slider.ticklen = slider.minorticklen = 0
        slider.font = {"size": 1, "color": "rgba(0,0,0,0)"}
        slider.currentvalue.font = {"size": size, "color": ink}
        slider.currentvalue.offset = 4
    for menu in figure.layout.updatemenus:
        menu.pad.t = below + size // 2


def _break_heads(figure: "go.Figure", size: int) -> int:
    """Break the panels' heads where they would run into one another; how many lines there are above the panels, a
    legend's among them."""
    heads = [
        note
        for note in figure.layout.annotations
        if note.yanchor == "bottom" and note.showarrow is False and note.xref == "paper"
    ]
    columns = max(1, len({round(head.x, 3) for head in heads}))
    most = 0
    for note in figure.layout.annotations:
        note.font.size = size
    for head in heads:
        lines = []
        for line in (head.text or "").split("<br>"):
            parts = line.split(", ")
            while parts:
                taken = parts.pop(0)
                while parts and len(taken) + len(parts[0]) + 2 <= WIDE // columns:
                    taken += ", " + parts.pop(0)
                lines.append(taken + ("," if parts else ""))
        head.text = "<br>".join(lines)
        most = max(most, len(lines) if any(lines) else 0)
    legend = figure.layout.legend
    above = legend.orientation == "h" and legend.y is not None and legend.y > 1
    if above:  # just above the heads, from the left: on the right the figure's buttons appear
        figure.update_layout(legend={"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"})
    return most + bool(above)


def _darken(figure: "go.Figure") -> None:
    for part in (*figure.data, *(trace for frame in figure.frames for trace in frame.data), *figure.layout.shapes):
        _repaint(part)
    figure.for_each_annotation(_repaint)
    for image in figure.layout.images:
        if image.name in ("density", INK_NAME):
            image.source = source(_turned(image.source, image.name))
    for part in (*figure.layout.updatemenus, *figure.layout.sliders):
        part.bgcolor = part.bordercolor = DARK_SHADE
    for menu in figure.layout.updatemenus:
        menu.font.color = DARK_INK


def _repaint(part: Any) -> None:
    """Ink and paper of a trace, a shape or an annotation."""
    for path in ("line", "marker", "marker.line", "font"):
        try:
            color = part[f"{path}.color"]
        except (KeyError, ValueError):  # this kind of part has none
            continue
        if isinstance(color, str) and color in DARK:
            part[f"{path}.color"] = DARK[color]
        elif isinstance(color, tuple | list) and any(isinstance(one, str) for one in color):  # a colour a bar
            part[f"{path}.color"] = [DARK.get(one, one) for one in color]
    if getattr(part, "type", "") == "heatmap":
        ink = [[0, DARK_PAPER], [1, DARK_INK]]
        kept = [[at, DARK.get(color, color)] for at, color in part.colorscale or ()]
        part.colorscale = ink if part.name == INK_NAME else kept or None
    if "fillcolor" in part and part["fillcolor"] in DARK:
        part["fillcolor"] = DARK[part["fillcolor"]]


def _turned(source: str, name: str) -> np.ndarray:
    """The pixels of a picture of a density, or of ink, for a dark page."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))[..., :3]
    full = 0.0 if name == INK_NAME else _channel(style.DENSITY_SHADES[1])
    covered = np.clip((1 - pixels) / (1 - full), 0, 1)
    paper, ink = (
        np.array([_channel(color[k : k + 2]) for k in (1, 3, 5)])
        for color in (DARK_PAPER, DARK_INK if name == INK_NAME else DARK_SHADE)
    )
    return ((paper + covered * (ink - paper)) * 255).round().astype(np.uint8)


def _channel(shade: str) -> float:
    """A channel of a colour in hexadecimal, 0 to 1: the first, of a whole colour."""
    return int(shade.removeprefix("#")[:2], 16) / 255
