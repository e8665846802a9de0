"""The five figures in plotly, for pages and notebooks: the same arguments as `toydiff.plots.static`, with sliders and hover.

Each returns a `plotly.graph_objects.Figure`. `page(figure)` is a self-contained HTML page that works without a network.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.driver import Trajectory
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


def _subplots(rows: int, columns: int, titles: Sequence[str], title: str, height: int, **spacing: float) -> "go.Figure":
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, **spacing)
    figure.update_layout(
        title={"text": f"<b>{title}</b>", "x": 0.01, "xanchor": "left", "y": 0.985, "yanchor": "top"},
        template="plotly_white",
        font={"size": style.FONT_SIZE + 2, "color": style.INK},
        height=height,
        margin={"l": 60, "r": 20, "t": 90 if title else 50, "b": 60},
        hovermode="closest",
    )
    return figure


def _plane(figure: "go.Figure", background: Density, row: int, column: int) -> None:
    """The density, and axes that stay as they are: equal units, fixed ranges."""
    left, right, bottom, top = background.extent
    # a picture below the traces: a heatmap trace is lost when an animation moves the other traces
    figure.add_layout_image(
        source=_shaded(background), x=left, y=top, sizex=right - left, sizey=top - bottom, sizing="stretch", layer="below",
        row=row, col=column, exclude_empty_subplots=False,
    )  # fmt: skip
    x_range, y_range = background.limits
    anchor = figure.get_subplot(row, column).yaxis.anchor
    figure.update_xaxes(
        title_text="x₁", range=x_range, constrain="domain", showgrid=False, zeroline=False, row=row, col=column
    )
    figure.update_yaxes(
        title_text="x₂", range=y_range, scaleanchor=anchor, scaleratio=1, constrain="domain", showgrid=False, zeroline=False,
        row=row, col=column,
    )  # fmt: skip


def _shaded(background: Density) -> str:
    """The density as a PNG in a data address."""
    from matplotlib.image import imsave

    pale, dark = (np.array([int(shade[k : k + 2], 16) for k in (1, 3, 5)]) for shade in style.DENSITY_SHADES)
    pixels = pale + background.shade[..., None] * (dark - pale)
    out = io.BytesIO()
    imsave(out, pixels.round().astype(np.uint8), format="png", origin="lower")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _joined(xs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths (M, B, 2) as one line with gaps between the paths: x and y, ((M+1) B,), float32."""
    gaps = np.full((1, *xs.shape[1:]), np.nan)
    flat = np.concatenate([xs, gaps]).transpose(1, 0, 2).reshape(-1, 2).astype(np.float32)
    return flat[:, 0], flat[:, 1]


def _slider(figure: "go.Figure", times: Sequence[float]) -> None:
    """A time slider and a play button over the figure's frames; it starts at the last, where the samples are."""
    show = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    play = {"mode": "immediate", "frame": {"duration": 60, "redraw": False}, "transition": {"duration": 0}}
    figure.update_layout(
        margin_b=130,
        sliders=[
            {
                "active": len(times) - 1,
                "currentvalue": {"prefix": "time t = "},
                "pad": {"t": 45},
                "x": 0.12,
                "len": 0.88,
                "steps": [
                    {"method": "animate", "label": f"{t:.3f}", "args": [[str(k)], show]} for k, t in enumerate(times)
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
                    {"method": "animate", "label": "▶ play", "args": [[str(k) for k in range(len(times))], play]}
                ],
            }
        ],
    )


def _frame_times(paths: Mapping[str, Trajectory]) -> list[float]:
    """The times at which any path has a state that is drawn, from noise to data; those of the longest path spread by `thin`."""
    longest = max(paths.values(), key=lambda path: len(path.ts))
    others = [path.ts for path in paths.values() if path is not longest and len(path.ts) <= MOST_FRAMES // 2]
    times = torch.cat([longest.ts[style.thin(longest, MOST_FRAMES)], *others]).double()
    return times.unique().flip(0).tolist()


def _reached(path: Trajectory, t: float) -> int:
    """The last state at or before time t of a walk from noise to data."""
    return max(int((path.ts.double() >= t - 1e-12).sum()) - 1, 0)


def trajectories(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    solvers: Mapping[str, str] | None = None,
    exact: Tensor | None = None,
    title: str = "",
) -> "go.Figure":
    """Paths in the plane over the data's density with a time slider, one panel an entry of `paths` (title: trajectory).

    The slider moves all panels to the same time: a sampler with few steps waits where its last step left it. Arguments and errors
    as in `static.trajectories`. Axes stay fixed in all frames.
    """
    import plotly.graph_objects as go

    style.check_planes(paths)
    behind = style.as_density(background, [path.xs for path in paths.values()])
    figure = _subplots(1, len(paths), list(paths), title, 620, horizontal_spacing=0.06)
    moving = []
    for k, (name, path) in enumerate(paths.items(), 1):
        _plane(figure, behind, 1, k)
        color = style.panel_color(name, solvers)
        x, y = _joined(style.drawn(path)[1])
        few = len(path.ts) <= 16
        figure.add_trace(
            go.Scatter(
                x=x, y=y, mode="lines+markers" if few else "lines", line={"color": color, "width": 1}, marker={"size": 4},
                opacity=0.55, hoverinfo="skip", name="path", legendgroup="path", showlegend=k == 1,
            ),
            row=1, col=k,
        )  # fmt: skip
        if exact is not None:
            ends = exact.double().cpu().numpy()
            figure.add_trace(
                go.Scatter(
                    x=ends[:, 0], y=ends[:, 1], mode="markers", name="exact end", legendgroup="exact", showlegend=k == 1,
marker={"symbol": "circle-open", "size": 14, "color": style.EXACT_COLOR, "line": {"width": 1.2}},
                    hovertemplate="exact end (%{x:.3f}, %{y:.3f})<extra></extra>",
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
    _slider(figure, times)
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.08, "yanchor": "bottom"})
    return figure


def _dots(x: Tensor) -> "go.Scatter":
    import plotly.graph_objects as go

    xy = x.double().cpu().numpy().astype(np.float32)
    return go.Scatter(x=xy[:, 0], y=xy[:, 1])


def rescaled(
    paths: Mapping[str, Trajectory],
    schedule: Schedule,
    backgrounds: Mapping[str, GaussianMixture | Density],
    *,
    reach: float = 3.0,
    title: str = "",
) -> "go.Figure":
    """The same paths in the plane, as x_1 against t, and as y_1 = x_1/sigma against e^lambda = alpha/sigma, with one slider for all panels.

    Arguments, errors and reading as in `static.rescaled`. Once a path has left the frame at alpha/sigma = `reach`, its dot waits there.
    """
    import plotly.graph_objects as go

    style.check_planes(paths)
    style.check_backgrounds(paths, backgrounds)
    heads = [
        word
        for name in paths
        for word in (f"{name}: the plane", "x₁ against t", "y₁ = x₁/σ against α/σ (dashed: straight)")
    ]
    figure = _subplots(
        len(paths), 3, heads, title, 400 * len(paths) + 180, horizontal_spacing=0.07, vertical_spacing=0.24 / len(paths)
    )
    moving = []
    for row, (name, path) in enumerate(paths.items(), 1):
        _plane(figure, style.as_density(backgrounds[name], [path.xs]), row, 1)
        snr, y = style.rescale(path, schedule, reach)
        (ts, xs), kept = style.drawn(path), style.thin(y)
        levels, ys = snr[kept].numpy(), y.xs[kept].numpy()
        guide_x, guide_y = style.extended(levels, ys[..., 0])
        colors = [style.PATH_COLORS[b % len(style.PATH_COLORS)] for b in range(xs.shape[1])]

        def line(x: np.ndarray, y: np.ndarray, column: int, color: str, dash: str = "solid", row: int = row) -> None:
            width = 2 if dash == "solid" else 1
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="lines", line={"color": color, "width": width, "dash": dash}, hoverinfo="skip"),
                row=row, col=column,
            )  # fmt: skip

        for b, color in enumerate(colors):
            line(xs[:, b, 0], xs[:, b, 1], 1, color)
            line(ts, xs[:, b, 0], 2, color)
            line(guide_x, guide_y[:, b], 3, style.GREY, "dash")
            line(levels, ys[:, b, 0], 3, color)
        first = len(figure.data)
        for column, dots in enumerate(_heads(path, y, snr, 0.0), 1):
            dots.update(
                mode="markers",
                marker={"size": 9, "color": colors, "line": {"width": 1, "color": "white"}},
                hoverinfo="x+y",
            )
            figure.add_trace(dots, row=row, col=column)
        moving.append((range(first, first + 3), path, y, snr))
        figure.update_xaxes(title_text=style.TIME_LABEL, range=[1, 0], row=row, col=2)
        figure.update_yaxes(title_text="x₁", range=style.padded(xs[..., 0].min(), xs[..., 0].max()), row=row, col=2)
        low, high = ys[..., 0].min(), ys[..., 0].max()
        figure.update_xaxes(title_text=style.SNR_LABEL, range=[0, reach], row=row, col=3)
        figure.update_yaxes(
            title_text="y₁", range=style.padded(min(low, guide_y.min()), max(high, guide_y.max())), row=row, col=3
        )
    times = _frame_times(paths)
    figure.frames = [
        go.Frame(
            name=str(k),
            traces=[index for indices, *_ in moving for index in indices],
            data=[dots for _, path, y, snr in moving for dots in _heads(path, y, snr, t)],
        )
        for k, t in enumerate(times)
    ]
    _slider(figure, times)
    figure.update_layout(showlegend=False)
    return figure


def _heads(path: Trajectory, y: Trajectory, snr: Tensor, t: float) -> list["go.Scatter"]:
    """Where the paths are at time t in each of the three columns of `rescaled`."""
    import plotly.graph_objects as go

    k, j = _reached(path, t), _reached(y, t)
    x = path.xs[k].double().cpu().numpy()
    scaled = y.xs[j].numpy()
    at = np.ones(len(x))
    return [
        go.Scatter(x=x[:, 0], y=x[:, 1]),
        go.Scatter(x=at * float(path.ts[k]), y=x[:, 0]),
        go.Scatter(x=at * float(snr[j]), y=scaled[:, 0]),
    ]


def convergence(rows: Sequence[Mapping], *, floor: float | None = None, title: str = "") -> "go.Figure":
    """Error against NFE on log-log axes, a panel a declared order, slopes in each panel's legend; as `static.convergence`.

    A click on a legend's line hides a curve; hovering names a point's solver, NFE and error.
    """
    import plotly.graph_objects as go

    groups = style.by_order(rows)
    columns = min(2, len(groups))
    lines = math.ceil(len(groups) / columns)
    x_range, y_range = (np.log10(pair) for pair in style.convergence_ranges(groups))
    heads = [f"Declared order {order}" for order in groups]
    figure = _subplots(
        lines, columns, heads, title, 380 * lines + 110, horizontal_spacing=0.24, vertical_spacing=0.3 / lines
    )
    pale_x, pale_y = _joined_rows(rows)
    for k, (order, group) in enumerate(groups.items()):
        at = {"row": k // columns + 1, "col": k % columns + 1}
        legend = "legend" if k == 0 else f"legend{k + 1}"
        figure.add_trace(
            go.Scatter(
                x=pale_x,
                y=pale_y,
                mode="lines",
                line={"color": style.CONTEXT_COLOR, "width": 1},
                hoverinfo="skip",
                showlegend=False,
            ),
            **at,
        )
        x, y = style.slope_line(group, order)
        figure.add_trace(
            go.Scatter(
                x=x, y=y, mode="lines", line={"color": style.INK, "width": 1.5, "dash": "dash"}, name=f"slope {order}",
                legend=legend, hoverinfo="skip",
            ),
            **at,
        )  # fmt: skip
        for row, name in zip(group, style.curve_names(group), strict=True):
            seen = style.look(row["solver"])
            figure.add_trace(
                go.Scatter(
                    x=row["nfe"], y=row["error"], mode="lines+markers", name=name, legend=legend,
                    line={"color": seen.color, "dash": seen.dash, "width": 2}, marker={"symbol": seen.symbol, "size": 7},
                    hovertemplate=f"{name}<br>%{{x}} NFE, error %{{y:.2e}}<extra></extra>",
                ),
                **at,
            )  # fmt: skip
        figure.update_xaxes(type="log", range=x_range, title_text=style.NFE_LABEL, **_round_ticks(10**x_range), **at)
        figure.update_yaxes(
            type="log", range=y_range, title_text=style.ERROR_LABEL, exponentformat="power", dtick=1, **at
        )
        panel = figure.get_subplot(**at)
        figure.update_layout(
            {
                legend: {
                    "x": panel.xaxis.domain[1] + 0.01,
                    "y": panel.yaxis.domain[1],
                    "xanchor": "left",
                    "yanchor": "top",
                    "font": {"size": style.FONT_SIZE},
                    "title": {"text": "solver: measured slope"},
                }
            }
        )
        _floor(figure, floor, 10 ** y_range[0], at)
    return figure


def _round_ticks(limits: Sequence[float]) -> dict[str, list]:
    """10, 20, 50, 100 along a logarithmic axis of few decades."""
    places = style.ticks(*limits)
    return {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}


def _joined_rows(rows: Sequence[Mapping]) -> tuple[list, list]:
    """All curves as one line with gaps."""
    x = [value for row in rows for value in (*row["nfe"], None)]
    y = [value for row in rows for value in (*row["error"], None)]
    return x, y


def _floor(figure: "go.Figure", floor: float | None, least: float, at: Mapping[str, int]) -> None:
    """The floor as a dashed line, or in words where it lies below the frame."""
    if floor is None:
        return
    if floor >= least:
        figure.add_hline(
            y=floor, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1}, annotation_text="floor", **at
        )
    else:
        figure.add_annotation(
            text=f"floor {style.number(floor)}: below the frame", xref="x domain", yref="y domain", x=0.01, y=0.01,
            xanchor="left", yanchor="bottom", showarrow=False, font={"size": 10, "color": style.GREY}, **at,
        )  # fmt: skip


def time_grids(
    grids: Mapping[str, Tensor],
    schedule: Schedule,
    *,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    floor: float | None = None,
    title: str = "",
) -> "go.Figure":
    """Where each grid's steps lie, in t and in NSR, and the error that each costs; as `static.time_grids`, with the numbers on hover."""
    import plotly.graph_objects as go

    places, nsr_range = style.grid_places(grids, schedule)
    columns = 3 if errors else 2
    heads = ["in time", "in noise level", "what it costs"][:columns]
    figure = _subplots(1, columns, heads, title, 75 * len(grids) + 220, horizontal_spacing=0.05, shared_yaxes=True)
    for name, (ts, nsr) in places.items():
        shown = np.clip(nsr, *nsr_range)
        # a step at NSR 0 or infinity cannot be on the axis: an arrow at its edge
        symbols = np.select([nsr == 0, np.isinf(nsr)], ["triangle-right", "triangle-left"], "line-ns")
        hover = [f"t = {t:.4f}, NSR = {n:.4g}" for t, n in zip(ts, nsr, strict=True)]
        for column, x, marks in ((1, ts, ["line-ns"] * len(ts)), (2, shown, symbols.tolist())):
            figure.add_trace(
                go.Scatter(
                    x=x, y=[name] * len(x), mode="lines+markers", line={"color": style.CONTEXT_COLOR, "width": 1}, name=name,
                    marker={
                        "symbol": marks,
                        "size": 16,
                        "color": style.BLUE,
                        "line": {"width": 2, "color": style.BLUE},
                    },
                    text=hover, hovertemplate="%{text}<extra>%{y}</extra>", showlegend=False, cliponaxis=False,
                ),
                row=1, col=column,
            )  # fmt: skip
    for solver, by_grid in (errors or {}).items():
        seen = style.look(solver)
        figure.add_trace(
            go.Scatter(
                x=list(by_grid.values()), y=list(by_grid), mode="markers", name=solver,
                marker={"symbol": seen.symbol, "size": 11, "color": seen.color},
                hovertemplate=f"{solver}, %{{y}}: error %{{x:.3g}}<extra></extra>",
            ),
            row=1, col=3,
        )  # fmt: skip
    figure.update_xaxes(range=style.padded(0, 1)[::-1], title_text=style.TIME_LABEL, row=1, col=1)
    figure.update_xaxes(
        type="log", range=np.log10(nsr_range)[::-1], title_text=style.NSR_LABEL + " (▸ data)", exponentformat="power",
        dtick=1, row=1, col=2,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    if errors:
        error_range = style.padded_log([e for by_grid in errors.values() for e in by_grid.values()], 0.12)
        figure.update_xaxes(
            type="log",
            range=np.log10(error_range),
            title_text=style.ERROR_LABEL,
            **_round_ticks(error_range),
            row=1,
            col=3,
        )
        if floor is not None and floor >= error_range[0]:
            figure.add_vline(x=floor, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1}, row=1, col=3)
        elif floor is not None:
            figure.add_trace(
                go.Scatter(
                    x=[None], y=[None], mode="lines", line={"color": style.FLOOR_COLOR, "dash": "dash"},
                    name=f"floor {style.number(floor)}: left of the frame",
                ),
                row=1, col=3,
            )  # fmt: skip
        figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.05, "yanchor": "bottom"})
    return figure


def samples(
    points: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    solvers: Mapping[str, str] | None = None,
    title: str = "",
) -> "go.Figure":
    """Samples over the density, one panel an entry of `points` (title: (n, 2)). `ValueError` for points that are not in the plane.

    solvers: the registry's name of each panel's solver, for its colour.
    """

    style.check_points(points)
    behind = style.as_density(background, list(points.values()))
    figure = _subplots(1, len(points), list(points), title, 560, horizontal_spacing=0.06)
    for k, (name, cloud) in enumerate(points.items(), 1):
        _plane(figure, behind, 1, k)
        dots = _dots(cloud)
        color = style.panel_color(name, solvers)
        dots.update(mode="markers", marker={"size": 4, "color": color, "opacity": 0.6}, showlegend=False)
        figure.add_trace(dots, row=1, col=k)
    return figure
