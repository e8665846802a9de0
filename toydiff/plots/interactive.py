"""The figures in plotly, for pages and notebooks: the same arguments as `toydiff.plots.static`, with sliders and hover.

Each returns a `plotly.graph_objects.Figure`. `page(figure)` is a self-contained HTML page that works without a network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count
from . import style
from ._plotly import (
    MOST_FRAMES,
    _dots,
    _frame_times,
    _joined,
    _level,
    _path_planes,
    _picture,
    _plane,
    _reached,
    _round_ticks,
    _slider,
    _subplots,
    _time_slider,
    page,
)
from .score_interactive import gradients, mode_fractions, score_arrows
from .style import Density, SweepErrors
from .training_interactive import (
    against_noise,
    digits,
    one_step_maps,
    one_step_planes,
    reflow,
    same_noise,
    training_curves,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "against_noise",
    "convergence",
    "digits",
    "gradients",
    "mode_fractions",
    "one_step_maps",
    "one_step_planes",
    "page",
    "reflow",
    "rescaled",
    "rounds",
    "same_noise",
    "samples",
    "score_arrows",
    "staircase",
    "sweep_errors",
    "sweeps",
    "time_grids",
    "training_curves",
    "trajectories",
]


def trajectories(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    solvers: Mapping[str, str] | None = None,
    exact: Tensor | None = None,
    lines: int | None = None,
    title: str = "",
) -> "go.Figure":
    """Paths in the plane over the data's density with a time slider, one panel an entry of `paths` (title: trajectory).

    The slider moves all panels to the same time: a sampler with few steps waits where its last step left it. lines: of
    how many samples the path and the exact end are drawn, None for all; the others are dots. Other arguments and errors
    as in `static.trajectories`. Axes stay fixed in all frames.
    """
    style.check_planes(paths)
    if lines is not None:
        check_count(lines, "lines")
    behind = style.as_density(background, [path.xs for path in paths.values()])
    colors = {name: style.panel_color(name, solvers) for name in paths}
    rings = {} if exact is None else dict.fromkeys(paths, exact)
    return _path_planes(paths, behind, paths, colors, rings, "exact end", title, lines)


def rescaled(
    paths: Mapping[str, Trajectory],
    schedule: Schedule,
    backgrounds: Mapping[str, GaussianMixture | Density],
    *,
    reach: float = 3.0,
    measured: bool = False,
    title: str = "",
) -> "go.Figure":
    """The same paths in the plane, as x_1 against t, and as y_1 = x_1/sigma against e^lambda = alpha/sigma, with one
    slider for all panels.

    Arguments, errors and reading as in `static.rescaled`. Once a path has left the frame at alpha/sigma = `reach`, its
    dot waits there.
    """
    import plotly.graph_objects as go

    style.check_planes(paths)
    style.check_backgrounds(paths, backgrounds)
    heads = []
    for name, path in paths.items():
        bent, varying = style.path_numbers(path, schedule) if measured else ("", "")
        heads += [
            f"{name}: the plane",
            f"x₁ against t<br>{bent}".removesuffix("<br>"),
            f"y₁ = x₁/σ against α/σ (dashed: straight)<br>{varying}".removesuffix("<br>"),
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
    _time_slider(figure, times)
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
    """Error against NFE on log-log axes, a panel a declared order, slopes in each panel's legend; as
    `static.convergence`.

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
        _level(figure, floor, "floor", at["row"], at["col"])
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
    """Where each grid's steps lie, in t and in NSR, and the error that each costs; as `static.time_grids`, with the
    numbers on hover."""
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
    """Samples over the density, one panel an entry of `points` (title: (n, 2)). `ValueError` for points that are not in
    the plane.

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


def sweep_errors(path: Trajectory, exact: Tensor | None = None, *, title: str = "") -> "go.Figure":
    """How wrong the path is after each sweep: a heat map, iteration against time; as `static.sweep_errors`, with the
    numbers on hover."""
    figure = _subplots(1, 1, [""], title, 560)
    _heat(figure, path, exact, 1)
    return figure


def _heat(figure: "go.Figure", path: Trajectory, exact: Tensor | None, column: int) -> SweepErrors:
    """The heat map of `sweep_errors` in one panel, its legend above it and its colours beside it."""
    import plotly.graph_objects as go

    errors = style.sweep_errors(path, exact)
    low, high = errors.limits
    sweeps, points = errors.logs.shape
    places, words = style.error_ticks(low, high)
    figure.add_trace(
        go.Heatmap(
            z=errors.logs.astype(np.float32), zmin=low, zmax=high, colorscale=style.SWEEP_COLORS,
            colorbar={
                "title": {"text": style.SWEEP_ERROR_LABEL, "side": "right"}, "tickvals": places, "ticktext": words,
                "thickness": 18, "outlinewidth": 0,
            },
            hovertemplate="sweep %{y}, point %{x}: error 10<sup>%{z:.1f}</sup><extra></extra>",
        ),
        row=1, col=column,
    )  # fmt: skip
    for (x, y), color, dash, name in (
        (errors.guaranteed, style.INK, "solid", style.GUARANTEED_NAME),
        (errors.accepted, style.ACCEPTED_COLOR, "dash", style.ACCEPTED_NAME),
    ):
        for line, legend in (
            ({"color": "white", "width": 5}, False),
            ({"color": color, "width": 2, "dash": dash}, True),
        ):
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, mode="lines", line=line, name=name, showlegend=legend, legendgroup=name, legend="legend2",
                    hoverinfo="skip",
                ),
                row=1, col=column,
            )  # fmt: skip
    places, words = style.point_ticks(path.ts)
    figure.update_xaxes(
        title_text=style.POINT_LABEL, range=[-0.5, points - 0.5], tickvals=places,
        ticktext=[word.replace("\n", "<br>") for word in words], showgrid=False, zeroline=False, row=1, col=column,
    )  # fmt: skip
    figure.update_yaxes(
        title_text=style.SWEEP_LABEL, range=[sweeps - 0.5, -0.5], showgrid=False, zeroline=False, row=1, col=column
    )
    right = figure.get_subplot(1, column).xaxis.domain[1]
    figure.update_layout(legend2={"orientation": "h", "x": right, "xanchor": "right", "y": 1.01, "yanchor": "bottom"})
    return errors


def _colored(errors: SweepErrors) -> np.ndarray:
    """The heat map as pixels, many a cell, since browsers blur what they enlarge."""
    from matplotlib import colormaps

    low, high = errors.limits
    cells = (colormaps[style.SWEEP_COLORS]((errors.logs - low) / (high - low))[..., :3] * 255).round().astype(np.uint8)
    sharp = [max(1, 1000 // n) for n in errors.logs.shape]
    return cells.repeat(sharp[0], axis=0).repeat(sharp[1], axis=1)


def sweeps(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = MOST_FRAMES,
    samples: int = 24,
    title: str = "",
) -> "go.Figure":
    """The paths of a parallel sampler over the data's density, with a slider over its sweeps; as `static.sweeps`.
    most: frames."""
    shown = style.shown_sweeps(path, exact, most, samples)
    figure = _subplots(1, 1, [""], title, 680)
    _sweep_frames(figure, path, background, exact, shown, samples)
    return figure


def staircase(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = MOST_FRAMES,
    samples: int = 24,
    title: str = "",
) -> "go.Figure":
    """The paths beside the heat map of their errors, with one slider over the sweeps: `sweeps` and `sweep_errors` in
    one figure.

    A frame in the heat map marks the row of the sweep on show.
    """
    import plotly.graph_objects as go

    shown = style.shown_sweeps(path, exact, most, samples)
    figure = _subplots(1, 2, ["", ""], title, 680, horizontal_spacing=0.09, column_widths=[0.42, 0.58])
    errors = _heat(figure, path, exact, 2)
    _picture(figure, _colored(errors), (-0.5, errors.logs.shape[1] - 0.5, len(errors.logs) - 0.5, -0.5), 1, 2, "heat")
    cursor = go.Scatter(
        mode="lines", line={"color": style.CURSOR_COLOR, "width": 3}, showlegend=False, hoverinfo="skip"
    )
    figure.add_trace(cursor, row=1, col=2)
    _sweep_frames(figure, path, background, exact, shown, samples, cursor=len(figure.data) - 1)
    return figure


def _sweep_frames(
    figure: "go.Figure",
    path: Trajectory,
    background: GaussianMixture | Density,
    exact: Tensor | None,
    shown: Sequence[int],
    samples: int,
    *,
    cursor: int | None = None,
) -> None:
    """The paths in the first panel, and a frame a sweep; it starts at the third, where the samples have begun to find
    their places.

    cursor: the trace that marks a sweep's row in the heat map, where there is one.
    """
    import plotly.graph_objects as go

    _plane(figure, style.as_density(background, [path.xs]), 1, 1)
    ends = style.check_sweeps(path, exact)[-1, :samples].double().cpu().numpy()
    figure.add_trace(
        go.Scatter(
            x=ends[:, 0], y=ends[:, 1], mode="markers", name=style.GOAL_NAME,
            marker={"symbol": "circle-open", "size": 14, "color": style.EXACT_COLOR, "line": {"width": 1.2}},
            hovertemplate=style.GOAL_NAME + " (%{x:.3f}, %{y:.3f})<extra></extra>",
        ),
        row=1, col=1,
    )  # fmt: skip
    first = len(figure.data)
    for color, name in ((style.MOVING_COLOR, style.MOVING_NAME), (style.ACCEPTED_COLOR, style.ACCEPTED_NAME)):
        figure.add_trace(
            go.Scatter(mode="lines", line={"color": color, "width": 1.6}, opacity=0.8, name=name, hoverinfo="skip"),
            row=1, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(mode="markers", name="sample", showlegend=False, hovertemplate="(%{x:.3f}, %{y:.3f})<extra></extra>"),
        row=1, col=1,
    )  # fmt: skip
    figure.frames = [
        go.Frame(name=str(j), traces=list(range(first, first + 3)), data=_sweep_traces(path, k, samples))
        for j, k in enumerate(shown)
    ]
    if cursor is not None:
        for frame, k in zip(figure.frames, shown, strict=True):
            frame.traces, frame.data = [*frame.traces, cursor], [*frame.data, _row_frame(path, k)]
    active = min(2, len(shown) - 1)
    for trace, data in zip(figure.frames[active].traces, figure.frames[active].data, strict=True):
        figure.data[trace].update(data.to_plotly_json())
    _slider(figure, [str(k) for k in shown], "after sweep k = ", active)
    middle = sum(figure.layout.xaxis.domain) / 2
    figure.update_layout(legend={"orientation": "h", "x": middle, "xanchor": "center", "y": 1.01, "yanchor": "bottom"})


def _sweep_traces(path: Trajectory, k: int, samples: int) -> list["go.Scatter"]:
    """What moves in the plane: the points not yet accepted, the accepted ones, and the samples."""
    import plotly.graph_objects as go

    accepted, moving = style.sweep_paths(path, k, samples)
    lines = [go.Scatter(x=x, y=y) for x, y in map(_joined, (moving, accepted))]
    end = moving[-1].astype(np.float32)
    marker = {"size": 7, "color": style.end_color(path, k), "line": {"width": 1, "color": "white"}}
    return [*lines, go.Scatter(x=end[:, 0], y=end[:, 1], marker=marker)]


def _row_frame(path: Trajectory, k: int) -> "go.Scatter":
    """A frame around row k of the heat map."""
    import plotly.graph_objects as go

    left, right = -0.5, len(path.ts) - 0.5
    return go.Scatter(x=[left, right, right, left, left], y=[k - 0.5, k - 0.5, k + 0.5, k + 0.5, k - 0.5])


def rounds(rows: Sequence[Mapping], *, target: float | None = None, title: str = "") -> "go.Figure":
    """Rounds against T, error against rounds, and wall-clock beside rounds; as `static.rounds`, with the numbers on
    hover.

    A click on a method in the legend hides it in all panels.
    """
    import plotly.graph_objects as go

    groups = style.by_method(rows)
    steps = style.shared_steps(groups)
    ranges = {name: np.log10(pair) for name, pair in style.rounds_ranges(groups, steps, target).items()}
    timed, names = style.clock(groups, steps)
    figure = _subplots(1, 3, style.rounds_heads(target, steps), title, 560, horizontal_spacing=0.11)

    def add(column: int, method: str, x: Sequence, y: Sequence, hover: str = "", **how: object) -> None:
        seen = {"hovertemplate": f"{method}: {hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
        how = {"name": method, "legendgroup": method, "showlegend": False} | how
        figure.add_trace(go.Scatter(x=x, y=y, **seen, **how), row=1, col=column)

    for j, (method, group) in enumerate(groups.items(), 1):
        thick, thin = _method_lines(method, ahead=len(groups) - j)
        at = [row["steps"] for row in group]
        needed, slower = ([style.rounds_needed(row, target, which) for row in group] for which in ("median", "p95"))
        add(1, method, at, needed, "%{y} rounds of %{x}", **thick | {"showlegend": True})
        if target is not None:
            add(1, method, at, slower, **thin)
    for row in timed:
        method = row["method"]
        thick, thin = _method_lines(method)
        if row["curve"]["rounds"]:
            median, p95 = (style.curve(row, which) for which in ("median", "p95"))
            add(2, method, median.rounds, median.errors, "error %{y:.2e} after %{x} rounds", **thick)
            add(2, method, p95.rounds, p95.errors, **thin)
        else:
            line = {"color": style.method_look(method).color, "width": 1.5}
            figure.add_vline(x=row["rounds"], line=line, row=1, col=2, exclude_empty_subplots=False)
    if target is not None:
        figure.add_hline(y=target, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1}, row=1, col=2)

    names = [name.replace("\n", "<br>") for name in names]
    for key, (kind, dash) in style.clock_kinds(timed).items():
        for row, name in zip(timed, names, strict=True):
            method = row["method"]
            marker = _ring(style.method_look(method).color, filled=key != "seconds")
            add(3, method, [row[key]], [name], f"%{{x:.3g}} s, {kind}", mode="markers", marker=marker)
            if method == "sequential":
                figure.add_vline(x=row[key], line={"color": style.INK, "dash": dash, "width": 1}, row=1, col=3)
        marker = _ring(style.INK, filled=key != "seconds")
        add(3, kind, [None], [None], mode="markers", marker=marker, showlegend=True, legend="legend2")

    places = sorted({row["steps"] for row in rows})
    ticks = (
        {"tickvals": places, "ticktext": [str(n) for n in places]},
        *(_round_ticks(10 ** ranges[name]) for name in ("rounds", "seconds")),
    )
    titles = (style.STEPS_LABEL, style.ROUNDS_LABEL, style.SECONDS_LABEL)
    for column, (title_, name, tick) in enumerate(zip(titles, ("T", "rounds", "seconds"), ticks, strict=True), 1):
        figure.update_xaxes(type="log", title_text=title_, range=ranges[name], **tick, row=1, col=column)
    figure.update_yaxes(type="log", title_text=style.ROUNDS_LABEL, range=ranges["growth"], dtick=1, row=1, col=1)
    figure.update_yaxes(
        type="log",
        title_text=style.SEQUENTIAL_ERROR_LABEL,
        range=ranges["errors"],
        exponentformat="power",
        row=1,
        col=2,
    )
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], row=1, col=3)
    beside = {"orientation": "h", "x": 1, "xanchor": "right", "yanchor": "bottom"}
    figure.update_layout(legend=beside | {"y": 1.12}, legend2=beside | {"y": -0.32}, margin_t=130, margin_b=110)
    return figure


def _method_lines(method: str, *, ahead: int = 0) -> tuple[dict, dict]:
    """How a method's median is drawn, and its 95th percentile. Equal curves would hide one another: one with others
    `ahead` is wider."""
    seen = style.method_look(method)
    line = {"color": seen.color, "dash": seen.dash}
    return (
        {
            "mode": "lines+markers",
            "line": line | {"width": 2 + 0.4 * ahead},
            "marker": {"symbol": seen.symbol, "size": 8 + 1.5 * ahead},
        },
        {"mode": "lines", "line": line | {"width": 0.8}},
    )


def _ring(color: str, *, filled: bool) -> dict:
    """A marker that is open, or filled."""
    return {"size": 13, "color": color if filled else "white", "line": {"color": color, "width": 2.5}}
