"""What all figures in plotly share: panels, the plane with its density, sliders, and the page that holds a figure."""

import base64
import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..solvers.trajectory import Trajectory
from . import style
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_FRAMES = 60
"""Frames of a time slider: finer steps than these are not seen."""


def page(figure: "go.Figure") -> str:
    """A whole HTML page with plotly.js inside: it needs no network."""
    return figure.to_html(
        full_html=True, include_plotlyjs=True, auto_play=False, config={"responsive": True, "displaylogo": False}
    )


@functools.cache
def _template() -> "go.layout.Template":
    """What plotly_white says of such figures; plotly's own is many times as long, and copied into each."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": style.GRID_COLOR,
        "linecolor": style.GRID_COLOR,
        "zerolinecolor": style.GRID_COLOR,
        "zerolinewidth": 2,
        "ticks": "",
        "automargin": True,
        "title_standoff": 15,
    }
    return go.layout.Template(
        layout={
            "autotypenumbers": "strict", "hovermode": "closest", "hoverlabel_align": "left", "paper_bgcolor": "white", "plot_bgcolor": "white",
            "xaxis": axis, "yaxis": axis, "annotationdefaults": {"arrowhead": 0, "arrowwidth": 1},
        }
    )  # fmt: skip


def _subplots(rows: int, columns: int, titles: Sequence[str], title: str, height: int, **spacing: float) -> "go.Figure":
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, **spacing)
    figure.update_layout(
        title={"text": f"<b>{title}</b>", "x": 0.01, "xanchor": "left", "y": 0.985, "yanchor": "top"},
        template=_template(),
        font={"size": style.FONT_SIZE + 2, "color": style.INK},
        height=height,
        margin={"l": 60, "r": 20, "t": 90 if title else 50, "b": 60},
        hovermode="closest",
    )
    return figure


def _plane(figure: "go.Figure", background: Density, row: int, column: int) -> None:
    """The density, and axes that stay as they are: equal units, fixed ranges."""
    _picture(figure, _shaded(background), background.extent, row, column, "density")
    x_range, y_range = background.limits
    anchor = figure.get_subplot(row, column).yaxis.anchor
    figure.update_xaxes(
        title_text="x₁", range=x_range, constrain="domain", showgrid=False, zeroline=False, row=row, col=column
    )
    figure.update_yaxes(
        title_text="x₂", range=y_range, scaleanchor=anchor, scaleratio=1, constrain="domain", showgrid=False, zeroline=False,
        row=row, col=column,
    )  # fmt: skip


def _picture(
    figure: "go.Figure", pixels: np.ndarray, extent: tuple[float, float, float, float], row: int, column: int, name: str
) -> None:
    """Pixels (H, W, 3), the first row on top, below a panel's traces: a heatmap trace is lost when an animation moves
    other traces.

    name: "density", "ink", "heat" or "image", what the pixels mean: `for_screen` turns the first two around in the
    dark.
    """
    left, right, bottom, top = extent
    figure.add_layout_image(
        name=name, source=_source(pixels), x=left, y=top, sizex=right - left, sizey=abs(top - bottom), sizing="stretch", layer="below",
        row=row, col=column, exclude_empty_subplots=False,
    )  # fmt: skip


def _source(pixels: np.ndarray) -> str:
    """Pixels as the address of a picture."""
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _shaded(background: Density) -> np.ndarray:
    """The density as pixels, (H, W, 3), the highest x_2 on top."""
    pale, dark = (np.array([int(shade[k : k + 2], 16) for k in (1, 3, 5)]) for shade in style.DENSITY_SHADES)
    pixels = pale + background.shade[..., None] * (dark - pale)
    return pixels.round().astype(np.uint8)[::-1]


def _joined(xs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths (M, B, 2) as one line with gaps between the paths: x and y, ((M+1) B,), float32."""
    gaps = np.full((1, *xs.shape[1:]), np.nan)
    flat = np.concatenate([xs, gaps]).transpose(1, 0, 2).reshape(-1, 2).astype(np.float32)
    return flat[:, 0], flat[:, 1]


def _round_ticks(limits: Sequence[float]) -> dict[str, list]:
    """10, 20, 50, 100 along a logarithmic axis of few decades."""
    places = style.ticks(*limits)
    return {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}


def _level(figure: "go.Figure", y: float, words: str, row: int = 1, column: int = 1) -> None:
    """A dashed line at a level of a logarithmic axis, with its words at the right end. Plotly's own label of such a
    line stands at 10^y."""
    figure.add_hline(y=y, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1.5}, row=row, col=column)
    figure.add_annotation(
        text=words, xref="x domain", x=1, xanchor="right", y=np.log10(y), yanchor="bottom", showarrow=False, row=row, col=column
    )  # fmt: skip


def _log_ticks(limits: Sequence[float]) -> dict:
    """Powers of 10 along a logarithmic axis, and 1, 2, 5, 10 where there are fewer than two decades."""
    if np.log10(limits[1] / limits[0]) < 2:
        return _round_ticks(limits)
    return {"dtick": 1, "exponentformat": "power"}


def _slider(figure: "go.Figure", labels: Sequence[str], prefix: str, active: int) -> None:
    """A slider and a play button over the figure's frames, at the frame `active`."""
    show = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    play = show | {"frame": {"duration": max(60, 3600 // len(labels)), "redraw": False}}
    figure.update_layout(
        margin_b=130,
        sliders=[
            {
                "active": active,
                "currentvalue": {"prefix": prefix},
                "pad": {"t": 45},
                "x": 0.12,
                "len": 0.88,
                "steps": [
                    {"method": "animate", "label": label, "args": [[str(k)], show]} for k, label in enumerate(labels)
                ],
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "x": 0.0,
                "y": 0,
                "xanchor": "left",
                "yanchor": "top",
                "pad": {"t": 62},
                "showactive": False,
                # a list of all frames plays from the first one, wherever the slider stands
                "buttons": [
                    {"method": "animate", "label": "▶ play", "args": [[str(k) for k in range(len(labels))], play]}
                ],
            }
        ],
    )


def _time_slider(figure: "go.Figure", times: Sequence[float]) -> None:
    """A slider over times; it starts at the last, where the samples are."""
    _slider(figure, [f"{t:.3f}" for t in times], "time t = ", len(times) - 1)


def _frame_times(paths: Mapping[str, Trajectory]) -> list[float]:
    """The times at which any path has a state that is drawn, from noise to data; those of the longest path spread by
    `thin`."""
    longest = max(paths.values(), key=lambda path: len(path.ts))
    others = [path.ts for path in paths.values() if path is not longest and len(path.ts) <= MOST_FRAMES // 2]
    times = torch.cat([longest.ts[style.thin(longest, MOST_FRAMES)], *others]).double()
    return times.unique().flip(0).tolist()


def _reached(path: Trajectory, t: float) -> int:
    """The last state at or before time t of a walk from noise to data."""
    return max(int((path.ts.double() >= t - 1e-12).sum()) - 1, 0)


def _path_planes(
    paths: Mapping[str, Trajectory],
    behind: Density,
    heads: Iterable[str],
    colors: Mapping[str, str],
    rings: Mapping[str, Tensor],
    ring_name: str,
    title: str,
    most: int | None = None,
) -> "go.Figure":
    """Paths in the plane with a time slider, a panel each with its head, colour and, where it has some, rings (B,
    2); `most` lines and rings."""
    import plotly.graph_objects as go

    heads = [head.replace("\n", "<br>") for head in heads]
    lines = max(head.count("<br>") for head in heads)
    figure = _subplots(1, len(paths), heads, title, 620 + 20 * lines, horizontal_spacing=0.06)
    moving, first_ring = [], next(iter(rings), None)
    for k, (name, path) in enumerate(paths.items(), 1):
        _plane(figure, behind, 1, k)
        color = colors[name]
        x, y = _joined(style.drawn(path)[1][:, :most])
        few = len(path.ts) <= 16
        figure.add_trace(
            go.Scatter(
                x=x, y=y, mode="lines+markers" if few else "lines", line={"color": color, "width": 1}, marker={"size": 4},
                opacity=0.55, hoverinfo="skip", name="path", legendgroup="path", showlegend=k == 1,
            ),
            row=1, col=k,
        )  # fmt: skip
        if name in rings:
            ends = rings[name][:most].double().cpu().numpy()
            figure.add_trace(
                go.Scatter(
                    x=ends[:, 0], y=ends[:, 1], mode="markers", name=ring_name, legendgroup="ring",
                    showlegend=name == first_ring,
                    marker={"symbol": "circle-open", "size": 14, "color": style.EXACT_COLOR, "line": {"width": 1.2}},
                    hovertemplate=ring_name + " (%{x:.3f}, %{y:.3f})<extra></extra>",
                ),
                row=1, col=k,
            )  # fmt: skip
        end = path.end.double().cpu().numpy()
        figure.add_trace(
            go.Scatter(
                x=end[:, 0], y=end[:, 1], mode="markers", name="state at time t", legendgroup="state", showlegend=k == 1,
                marker={"size": 8, "color": color, "line": {"width": 1, "color": "white"}},
                hovertemplate="(%{x:.3f}, %{y:.3f})<extra></extra>",
            ),
            row=1, col=k,
        )  # fmt: skip
        moving.append((len(figure.data) - 1, path))
    times = _frame_times(paths)
    figure.frames = [
        go.Frame(
            name=str(k),
            traces=[index for index, _ in moving],
            data=[_dots(path.xs[_reached(path, t)]) for _, path in moving],
        )
        for k, t in enumerate(times)
    ]
    _time_slider(figure, times)
    figure.update_layout(
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.08 + 0.06 * lines, "yanchor": "bottom"}
    )
    return figure


def _dots(x: Tensor) -> "go.Scatter":
    import plotly.graph_objects as go

    xy = x.double().cpu().numpy().astype(np.float32)
    return go.Scatter(x=xy[:, 0], y=xy[:, 1])
