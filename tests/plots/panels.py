"""A figure as plain numbers and words, whoever drew it, so that one test reads both renderers."""

import base64
import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from toydiff.plots import interactive, on_screen, static, style

BOTH = pytest.mark.parametrize("module", [static, interactive], ids=["static", "interactive"])
"""For tests that call `module.figure(...)`."""
DASHES = {line: dash for dash, line in style.LINES.items()}


@dataclass
class Mark:
    """A line, or a set of dots: its name in the legend, points (n, 2), and how it is drawn."""

    name: str
    xy: np.ndarray
    color: str
    dash: str
    width: float
    symbol: str
    line: bool
    open: bool


@dataclass
class Panel:
    """A panel: its head, both axes' names, scales and ranges, whether their units are equal, how many pictures lie
    behind, and marks from back to front. `colors`: of each set of dots that has a colour a dot."""

    head: str
    names: tuple[str, str]
    logs: tuple[bool, bool]
    x: tuple[float, float]
    y: tuple[float, float]
    equal: bool
    pictures: int
    marks: list[Mark] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)

    def named(self, *names: str) -> list[Mark]:
        return [mark for mark in self.marks if mark.name in names]

    @property
    def lines(self) -> list[Mark]:
        return [mark for mark in self.marks if mark.line]

    @property
    def dots(self) -> list[Mark]:
        return [mark for mark in self.marks if not mark.line]


def panels(figure) -> list[Panel]:
    """The panels that are seen, row by row; in plotly as they are before anybody moves the slider."""
    if isinstance(figure, Figure):
        return [_on_paper(axes) for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.get_visible()]
    grid = [(row + 1, column + 1) for row, places in enumerate(figure._grid_ref) for column in range(len(places))]
    places = [figure.get_subplot(*at) for at in grid]
    return [_on_screen(figure, place) for place in places if place.xaxis.visible is not False]


def _on_paper(axes) -> Panel:
    found = Panel(
        head=on_screen.words(axes.get_title("left")),
        names=(on_screen.words(axes.get_xlabel()), on_screen.words(axes.get_ylabel())),
        logs=(axes.get_xscale() == "log", axes.get_yscale() == "log"),
        x=axes.get_xlim(),
        y=axes.get_ylim(),
        equal=axes.get_aspect() == 1,
        pictures=len(axes.images),
    )
    for line in axes.lines:
        name, dash, marker = line.get_label(), line.get_linestyle(), line.get_marker()
        color = to_hex(line.get_color()).upper()
        how = {"symbol": style.PLOTLY_MARKERS.get(marker, marker), "open": line.get_markerfacecolor() == "none"}
        name = "" if name.startswith("_") else name
        width, xy = line.get_linewidth(), np.asarray(line.get_xydata(), dtype=float)
        found.marks.append(Mark(name, xy, color, DASHES.get(dash, dash), width, line=dash != "None", **how))
    for dots in axes.collections:
        if len(dots.get_facecolors()) > 1:
            found.marks.append(Mark("", np.asarray(dots.get_offsets()), "", "", 0, "", line=False, open=False))
            found.colors.append(dots.get_facecolors())
    return found


def _on_screen(figure, place) -> Panel:
    x, y = place.xaxis, place.yaxis
    heads = [
        note.text
        for note in figure.layout.annotations
        if abs(note.x - sum(x.domain) / 2) < 1e-9 and abs(note.y - y.domain[1]) < 1e-9
    ]
    logs = x.type == "log", y.type == "log"
    limits = [
        tuple(10**v for v in axis.range or ()) if log else axis.range for axis, log in zip((x, y), logs, strict=True)
    ]
    of_panel = y.anchor
    found = Panel(
        head=heads[0] if heads else "",
        names=(x.title.text or "", y.title.text or ""),
        logs=logs,
        x=limits[0],
        y=limits[1],
        equal=y.scaleanchor == of_panel and y.scaleratio == 1,
        pictures=sum(image.xref == of_panel for image in figure.layout.images),
    )
    for trace in figure.data:
        if trace.type == "scatter" and (trace.xaxis or "x") == of_panel:
            found.marks += marks(trace)
            if isinstance(trace.marker.color, tuple | list | np.ndarray):
                found.colors.append(np.asarray(trace.marker.color))
    return found


def marks(trace) -> list[Mark]:
    """What a trace of plotly draws: lines end where there are gaps."""
    line, marker = "lines" in trace.mode, trace.marker
    color = trace.line.color if line else marker.color
    color = color.upper() if isinstance(color, str) else ""  # or one a dot
    x, y = np.array([as_floats(trace.x), as_floats(trace.y)])
    gaps = np.isnan(x)
    pieces = np.split(np.arange(len(x)), np.flatnonzero(gaps)) if line else [np.arange(len(x))]
    pieces = [piece[~gaps[piece]] for piece in pieces]
    symbol = marker.symbol or ""
    symbol = symbol if isinstance(symbol, str) else " ".join(symbol)  # one a dot
    how = {"symbol": symbol, "line": line, "open": symbol.endswith("-open")}
    dash, width = trace.line.dash or "solid", trace.line.width or 0
    return [
        Mark(trace.name or "", np.stack([x[k], y[k]], 1), color, dash, width, **how)
        for k in pieces
        if len(k) or not line
    ]


def as_floats(values) -> np.ndarray:
    """Numbers, with NaN for gaps; words as their ranks."""
    rank = {word: k for k, word in enumerate(dict.fromkeys(v for v in values if isinstance(v, str)))}
    return np.array([np.nan if v is None else rank.get(v, v) for v in values], dtype=float)


def legend(figure) -> list[str]:
    """What all legends say; in plotly once a group."""
    if isinstance(figure, Figure):
        above = [one for part in (figure, *figure.subfigs) for one in part.legends]
        beside = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
        return [text.get_text() for one in (*above, *beside) for text in one.get_texts()]
    return [trace.name for trace in figure.data if trace.showlegend is not False and trace.name]


def pixels(figure, k: int = 0) -> np.ndarray:
    """A picture of a plotly figure, (H, W, 3) in [0, 1]."""
    return imread(io.BytesIO(base64.b64decode(figure.layout.images[k].source.partition(",")[2])))[..., :3]


def refuses(message: str):
    """A context in which a ValueError of one line must be raised."""
    return pytest.raises(ValueError, match=rf"\A(?=[^\n]*\Z).*(?:{message})")
