"""Drawing for a screen, with plotly: panels, the plane with its density, sliders, and the page that holds a figure."""

import base64
import functools
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from . import style
from .style import Density, Marking

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_FRAMES = 60
"""Frames of a slider: finer steps than these are not seen."""
RING_COLOR = style.GREEN
"""Rings on a page, where dots are ink or paper: DDIM's colour."""
INK_NAME = "ink"
"""What pictures of black ink on white paper are called, which are turned around in the dark."""
HERE = "(%{x:.3f}, %{y:.3f})"
"""What hovering a point says: where it is."""
ABOVE = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
"""A legend in one row above the panels, at the right."""


QUIET = {"displaylogo": False, "showSendToCloud": False}
"""Plotly's settings for every figure: without its logo, and without the button that uploads a figure."""
PAGE_KEYS = """<script>
addEventListener("keydown", (event) => {
  const place = document.querySelector(".js-plotly-plot"), slider = place?.layout.sliders?.[0];
  const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6 }[event.key];
  if (!slider || !by) return;
  event.preventDefault();
  const next = Math.min(Math.max((slider.active ?? 0) + by, 0), slider.steps.length - 1);
  Plotly.animate(place, ...slider.steps[next].args);
});
</script>"""


EMBEDDED = """<div style="overflow-x: auto"><div id="%(name)s" style="height: %(height)dpx; min-width: 640px">
<p>The figure above, with a slider, stands here where JavaScript runs and the network reaches cdn.plot.ly.</p>
</div></div>
<script>
(() => {
  const source = "https://cdn.plot.ly/plotly-%(version)s.min.js";
  const draw = (plotly) => {
    const place = document.getElementById("%(name)s");
    place.textContent = "";
    plotly.newPlot(place, %(figure)s);
  };
  if (window.Plotly) return draw(window.Plotly);
  if (typeof define === "function" && define.amd) return require([source.replace(/[.]js$/, "")], draw);
  const script = document.createElement("script");
  script.src = source;
  script.onload = () => draw(window.Plotly);
  document.head.appendChild(script);
})();
</script>"""
"""A figure for a notebook's output. A notebook's page may have a loader of its own (`define`, `require`)."""


def embedded(figure: "go.Figure", name: str, *, height: int = 520) -> str:
    """A piece of HTML for a notebook's output, small as plotly.js is fetched from the network. Where it cannot run, a
    line of words is seen instead: show the static figure above it.

    name: the piece's id, one of its own on a page. height: in pixels.
    """
    from plotly.offline import get_plotlyjs_version

    shown = json.loads(figure.to_json()) | {"config": QUIET | {"responsive": True}}
    shown["layout"] |= {"height": None, "autosize": True}  # that of the piece
    text = json.dumps(shown, separators=(",", ":")).replace("</", "<\\/")
    return EMBEDDED % {"name": name, "height": height, "version": get_plotlyjs_version(), "figure": text}


def page(figure: "go.Figure", *, title: str = "", words: str = "") -> str:
    """A whole HTML page with plotly.js inside: it needs no network. The keys left, right, Home and End move its slider.

    title, words: what stands above and below the figure; in `words`, `**` and `*` mark bold and italic.
    """
    config = QUIET | {"responsive": True}
    text = figure.to_html(full_html=True, include_plotlyjs=True, auto_play=False, config=config, default_height="75vh")
    said = re.sub(r"\*(.+?)\*", r"<i>\1</i>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", plain(words)))
    style_ = "<style>body { font: 18px sans-serif; margin: 1rem auto; max-width: 1500px; padding: 0 1rem; }</style>"
    head = f"<title>{plain(title or 'toydiff')}</title>{style_}</head>"
    above = f"<body><h1>{plain(title)}</h1>" if title else "<body>"
    below = f"<p>{said}</p>{PAGE_KEYS}</body>" if words else f"{PAGE_KEYS}</body>"
    start, _, end = text.rpartition("</body>")
    return (start + below + end).replace("</head>", head, 1).replace("<body>", above, 1)


@functools.cache
def _template() -> "go.layout.Template":
    """What plotly_white says of such figures; plotly's own is many times as long, and copied into each."""
    import plotly.graph_objects as go

    lines = dict.fromkeys(("gridcolor", "linecolor", "zerolinecolor"), style.GRID_COLOR)
    axis = lines | {"zerolinewidth": 2, "ticks": "", "automargin": True, "title_standoff": 15}
    axis |= {"ticklabeloverflow": "allow"}  # margins leave room; else the browser measures each label, and hides some
    paper = {"paper_bgcolor": "white", "plot_bgcolor": "white"}
    notes = {"annotationdefaults": {"arrowhead": 0, "arrowwidth": 1}, "hoverlabel_align": "left"}
    layout = {"autotypenumbers": "strict", "hovermode": "closest", "xaxis": axis, "yaxis": axis}
    return go.layout.Template(layout=layout | paper | notes)


def plain(text: str) -> str:
    """A name for plotly, which reads HTML: a run may be called `<b>` or be a stranger's."""
    return html.escape(text, quote=False)


def words(text: str) -> str:
    """Words as matplotlib takes them, for plotly: `$x_1$` is x₁, a line's end is `<br>`."""

    def subscript(math: re.Match) -> str:
        return math[1].replace("_1", "₁").replace("_2", "₂").replace("\\sigma", "σ")

    return re.sub(r"\$(.*?)\$", subscript, plain(text)).replace("\n", "<br>")


def put(part: Any, **values: Any) -> None:
    """Set these of a layout or an axis, each as a whole: several times as quick as plotly's `update`, which merges."""
    for name, value in values.items():
        part[name] = value


def panels(rows: int, columns: int, heads: Sequence[str], title: str, height: int, **spacing: Any) -> "go.Figure":
    """Empty panels below their heads, `words` for matplotlib, and the figure's title."""
    import plotly.graph_objects as go

    figure = go.Figure(_empty(rows, columns, tuple(map(bool, heads)), json.dumps(spacing)))
    for note, head in zip(figure.layout.annotations, filter(None, heads), strict=True):
        note.text = words(head)
    put(
        figure.layout,
        title={"text": f"<b>{plain(title)}</b>", "x": 0.01, "xanchor": "left", "y": 0.985, "yanchor": "top"},
        height=height,
        margin={"l": 60, "r": 20, "t": 90 if title else 50, "b": 60},
    )
    return figure


@functools.lru_cache(maxsize=64)
def _empty(rows: int, columns: int, headed: tuple[bool, ...], spacing: str) -> "go.Figure":
    """What figures of as many panels share: plotly takes several times as long to make it as to copy it."""
    from plotly.subplots import make_subplots

    heads = ["head" if one else "" for one in headed]
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=heads, **json.loads(spacing))
    font = {"size": style.FONT_SIZE + 2, "color": style.INK}
    put(figure.layout, template=_template(), font=font, hovermode="closest")
    return figure


def panel(title: str, height: int) -> "go.Figure":
    """A figure of one panel, with a legend."""
    return panels(1, 1, [""], title, height).update_layout(showlegend=True)


# ---- what is in a panel


def plane(figure: "go.Figure", behind: Density, row: int, col: int) -> None:
    """The density, and axes that stay as they are: equal units, fixed ranges."""
    picture(figure, _shaded(behind), behind.extent, row, col, "density")
    square_axes(figure, (style.X1, style.X2), behind.limits, row, col, showgrid=False)


def square_axes(
    figure: "go.Figure", names: Sequence[str], limits: Sequence[Sequence[float]], row: int, col: int, **more: Any
) -> None:
    """Axes of equal units with fixed ranges."""
    (x_name, y_name), (x_range, y_range) = names, limits
    how = {"constrain": "domain", "zeroline": False} | more
    x, y = figure.get_subplot(row, col)
    put(x, title_text=words(x_name), range=x_range, **how)
    put(y, title_text=words(y_name), range=y_range, scaleanchor=y.anchor, scaleratio=1, **how)


def together(figure: "go.Figure", cells: Sequence[tuple[int, int]]) -> None:
    """Panels (row, column) that have the same two axes: what zooms one zooms all, and the first of a row names the
    upright axis."""
    first = figure.get_subplot(*cells[0])
    named: set[int] = set()
    x, y = (axis.plotly_name.replace("axis", "") for axis in (first.xaxis, first.yaxis))
    for row, col in cells:
        bare = {"title_text": "", "showticklabels": False} if row in named else {}
        linked = (row, col) != cells[0]
        across, up = figure.get_subplot(row, col)
        put(across, matches=x if linked else None)
        put(up, matches=y if linked else None, **bare)
        named.add(row)


def picture(figure: "go.Figure", pixels: np.ndarray, extent: Sequence[float], row: int, col: int, name: str) -> None:
    """Pixels (H, W, 3), the first row on top, below a panel's traces: a heatmap trace is lost when an animation moves
    other traces.

    name: "density", "ink", "heat" or "image", what the pixels mean: `for_screen` turns the first two around in the
    dark.
    """
    left, right, bottom, top = extent
    at = {"row": row, "col": col, "exclude_empty_subplots": False}
    place = {"x": left, "y": top, "sizex": right - left, "sizey": abs(top - bottom)}
    figure.add_layout_image(name=name, source=source(pixels), **place, sizing="stretch", layer="below", **at)


def enlarged(pixels: np.ndarray, down: int, across: int) -> np.ndarray:
    """Each pixel as so many, once at least, since browsers blur what they enlarge."""
    return pixels.repeat(max(1, down), axis=0).repeat(max(1, across), axis=1)


def source(pixels: np.ndarray) -> str:
    """Pixels as the address of a picture."""
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _shaded(behind: Density) -> np.ndarray:
    """The density as pixels, (H, W, 3), the highest x_2 on top."""
    pale, dark = (np.array([int(shade[k : k + 2], 16) for k in (1, 3, 5)]) for shade in style.DENSITY_SHADES)
    pixels = pale + behind.shade[..., None] * (dark - pale)
    return pixels.round().astype(np.uint8)[::-1]


def dots(x: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """Points (n, 2) as plotly takes them, in float32."""
    xy = np.asarray(style.numbers(x) if isinstance(x, Tensor) else x, dtype=np.float32)
    return {"x": xy[:, 0], "y": xy[:, 1]}


def joined(xs: np.ndarray) -> dict[str, np.ndarray]:
    """Paths (M, B, 2) as one line with gaps between the paths, ((M+1) B,)."""
    gaps = np.full((1, *xs.shape[1:]), np.nan)
    return dots(np.concatenate([xs, gaps]).transpose(1, 0, 2).reshape(-1, 2))


def rings(figure: "go.Figure", points: Tensor, name: str, row: int, col: int, first: bool = True) -> None:
    """Open rings (n, 2), wide enough for a dot inside. first: whether they are the first of their name."""
    x, y = style.numbers(points).T
    marker = {"symbol": "circle-open", "size": 14, "color": RING_COLOR, "line": {"width": 1.8}}
    named = grouped(name, first) | {"hovertemplate": f"{plain(name)} {HERE}<extra></extra>"}
    figure.add_scatter(x=x, y=y, mode="markers", marker=marker, **named, row=row, col=col)


def curve(
    figure: "go.Figure",
    x: Sequence | np.ndarray,
    y: Sequence | np.ndarray,
    seen: Marking,
    hover: str,
    width: float = 2,
    size: float = 0,
    **more: Any,
) -> None:
    """A method's line, with markers of `size` where it is not 0. hover: what a point says."""
    if size:
        more = {"marker": {"symbol": seen.symbol, "size": size}} | more
    line = {"color": seen.color, "dash": seen.dash, "width": width}
    mode = "lines+markers" if size else "lines"
    figure.add_scatter(x=x, y=y, mode=mode, line=line, hovertemplate=f"{hover}<extra></extra>", **more)


def grouped(name: str, first: bool) -> dict[str, Any]:
    """A name that stands in the legend once, for all the panels where it is drawn."""
    return {"name": plain(name), "legendgroup": name, "showlegend": first}


# ---- axes


def log_axis(label: str, limits: Sequence[float], ticks: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A logarithmic axis with a fixed range, given as values. ticks: None for `log_ticks`."""
    ticks = log_ticks(limits) if ticks is None else ticks
    return {"type": "log", "range": np.log10(limits), "title_text": words(label), **ticks}


POWERS = {"dtick": 1, "exponentformat": "power"}
"""Ticks at the powers of 10."""


def round_ticks(limits: Sequence[float], finest: float = 100) -> dict[str, Any]:
    """10, 20, 50, 100 along a logarithmic axis of few decades; `finest` as `style.ticks` has it."""
    low, high = limits
    places = style.ticks(low, high, finest)
    return {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}


def log_ticks(limits: Sequence[float]) -> dict[str, Any]:
    """Powers of 10 along a logarithmic axis, and 1, 2, 5, 10 where there are fewer than two decades."""
    return round_ticks(limits) if np.log10(limits[1] / limits[0]) < 2 else POWERS


def level(figure: "go.Figure", y: float, text: str = "", row: int = 1, col: int = 1) -> None:
    """A dashed line at a level; with words at its right end where the axis is logarithmic: plotly's own label of such a
    line stands at 10^y."""
    line = {"color": style.FLOOR_COLOR, "dash": "dash", "width": 1.5}
    figure.add_hline(y=y, line=line, row=row, col=col)
    if text:
        place = {"xref": "x domain", "x": 1, "xanchor": "right", "y": np.log10(y), "yanchor": "bottom"}
        figure.add_annotation(text=text, **place, showarrow=False, row=row, col=col)


# ---- what moves


def slider(
    figure: "go.Figure",
    labels: Sequence[str],
    prefix: str,
    active: int,
    *,
    redraw: bool = False,
    milliseconds: int | None = None,
    rounds: int = 1,
) -> None:
    """A slider and a play button over the figure's frames, at the frame `active`, whose data are shown first.

    redraw: whether the frames move more than lines and dots. milliseconds: of a frame that is played; by default all
    take 3.6 s. rounds: how often all are played.
    """
    still = {"duration": 0, "redraw": redraw}
    show = {"mode": "immediate", "frame": still, "transition": {"duration": 0}}
    play = show | {"frame": still | {"duration": milliseconds or max(60, 3600 // len(labels))}}
    # a list of all frames plays from the first one, wherever the slider stands
    every = [str(k) for k in range(len(labels))]
    steps = [{"method": "animate", "label": label, "args": [[k], show]} for k, label in zip(every, labels, strict=True)]
    button = {"method": "animate", "label": "▶ play", "args": [rounds * every, play]}
    bar = {"currentvalue": {"prefix": prefix}, "pad": {"t": 45}, "x": 0.12, "len": 0.88}
    menu = {"type": "buttons", "x": 0.0, "y": 0, "xanchor": "left", "yanchor": "top", "pad": {"t": 62}}
    # set, which is twenty times as quick as `update_layout`, which merges each step
    figure.layout.margin.b = 130
    figure.layout.sliders = [bar | {"active": active, "steps": steps}]
    figure.layout.updatemenus = [menu | {"showactive": False, "buttons": [button]}]


def open_at(figure: "go.Figure", active: int) -> None:
    """What is seen first is the frame `active`."""
    for trace, data in zip(figure.frames[active].traces, figure.frames[active].data, strict=True):
        figure.data[trace].update(data.to_plotly_json())
