"""The figures of training and distillation in plotly; `toydiff.plots.interactive` has them beside the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count
from . import style, training_style
from ._plotly import _dots, _level, _log_ticks, _path_planes, _picture, _plane, _subplots
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go

PIXELS = 8
"""A digit's pixel as so many of the picture's, since browsers blur what they enlarge."""
DIGIT_SIZE = 64
"""A digit's height on the page."""


def reflow(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    one_step: Mapping[str, Tensor] | None = None,
    lines: int | None = None,
    title: str = "",
) -> "go.Figure":
    """Rounds of reflow side by side with one time slider; arguments, errors and reading as in `static.reflow`.

    lines: of how many samples the path and the end after one step are drawn, None for all; the others are dots, and all
    are measured.
    """
    if lines is not None:
        check_count(lines, "lines")
    one_step = one_step or {}
    heads = training_style.reflow_heads(paths, one_step)
    behind = style.as_density(background, [*(path.xs for path in paths.values()), *one_step.values()])
    colors = dict.fromkeys(paths, training_style.REFLOW_COLOR)
    return _path_planes(paths, behind, heads, colors, one_step, training_style.ONE_STEP_NAME, title, lines)


def one_step_maps(
    noise: Tensor, maps: Mapping[str, Tensor], exact: Tensor | None = None, *, title: str = ""
) -> "go.Figure":
    """Maps on the line from noise to sample in one step, against the exact one; as `static.one_step_maps`. A click
    on a method hides its curve."""
    import plotly.graph_objects as go

    drawn = training_style.line_maps(noise, maps, exact)
    figure = _subplots(1, 1, [""], title, 520)
    if drawn.exact is not None:
        figure.add_trace(
            go.Scatter(
                x=drawn.noise, y=drawn.exact, mode="lines", line={"color": style.EXACT_COLOR, "width": 7},
                name=training_style.EXACT_MAP_NAME, hovertemplate="exact: %{x:.3f} → %{y:.3f}<extra></extra>",
            )
        )  # fmt: skip
    for name, look in training_style.looks(maps).items():
        figure.add_trace(
            go.Scatter(
                x=drawn.noise, y=drawn.ends[name], mode="lines", line={"color": look.color, "dash": look.dash, "width": 2.5},
                name=name, hovertemplate=f"{name}: %{{x:.3f}} → %{{y:.3f}}<extra></extra>",
            )
        )  # fmt: skip
    x_range, y_range = drawn.limits
    figure.update_xaxes(range=x_range, title_text=training_style.NOISE_LABEL, zeroline=False)
    figure.update_yaxes(range=y_range, title_text=training_style.SAMPLE_LABEL, zeroline=False)
    figure.update_layout(showlegend=True)
    return figure


def one_step_planes(
    noise: Tensor, ends: Mapping[str, Tensor], background: GaussianMixture | Density, *, title: str = ""
) -> "go.Figure":
    """Maps in the plane from noise to sample, above the noise, below where it is taken; as `static.one_step_planes`.

    Hovering a point of noise names its end, and hovering an end its noise.
    """
    training_style.check_plane_maps(noise, ends)
    behind = style.as_density(background, list(ends.values()))
    columns = len(ends)
    figure = _subplots(
        2, columns, [*ends, *[""] * columns], title, 820, horizontal_spacing=0.12 / (columns + 2), vertical_spacing=0.18
    )
    reach = training_style.noise_reach(noise)
    scale = [[k / (len(training_style.ANGLE_COLORS) - 1), color] for k, color in enumerate(training_style.ANGLE_COLORS)]
    for k, cloud in enumerate(ends.values(), 1):
        marker = {
            "size": 4, "color": training_style.directions(cloud, behind), "cmin": -180, "cmax": 180, "colorscale": scale,
        }  # fmt: skip
        for row, shown, other, words in ((1, noise, cloud, "noise %s → %s"), (2, cloud, noise, "%s, from noise %s")):
            dots = _dots(shown.detach())
            text = words % ("(%{x:.3f}, %{y:.3f})", "(%{customdata[0]:.3f}, %{customdata[1]:.3f})")
            dots.update(
                mode="markers", marker=marker, customdata=other.detach().float().cpu().numpy(), showlegend=False,
                hovertemplate=text + "<extra></extra>",
            )  # fmt: skip
            figure.add_trace(dots, row=row, col=k)
        anchor = figure.get_subplot(1, k).yaxis.anchor
        at = {"range": [-reach, reach], "constrain": "domain", "zeroline": False, "row": 1, "col": k}
        figure.update_xaxes(title_text="ε₁", **at)
        figure.update_yaxes(title_text="ε₂", scaleanchor=anchor, scaleratio=1, **at)
        _plane(figure, behind, 2, k)
        if k > 1:  # the first panel names the axis of its row
            figure.update_yaxes(title_text="", showticklabels=False, col=k)
    figure.update_xaxes(nticks=6 if columns <= 5 else 4)
    return figure


def training_curves(
    runs: Mapping[str, Sequence],
    quality: Mapping[str, Mapping[int, Sequence]],
    *,
    floor: float | None = None,
    distance: str = training_style.DISTANCE_LABEL,
    title: str = "",
) -> "go.Figure":
    """Training in time, the loss of each run and how good its samples are; as `static.training_curves`.

    A click on a method in the legend hides it in both panels.
    """
    import plotly.graph_objects as go

    drawn = training_style.training_numbers(runs, quality, floor)
    heads = [head for head, numbers in (("Loss", drawn.losses), ("Quality", drawn.quality)) if numbers]
    figure = _subplots(1, len(heads), heads, title, 560, horizontal_spacing=0.12)

    def add(column: int, method: str, x: np.ndarray, y: np.ndarray, hover: str = "", **how: object) -> None:
        seen = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
        how = {"name": method, "legendgroup": method, "showlegend": False, "mode": "lines"} | seen | how
        figure.add_trace(go.Scatter(x=x, y=y, **how), row=1, col=column)

    for method, look in drawn.looks.items():
        marker = {"symbol": look.symbol, "size": 8, "color": look.color}
        key = {"line": {"color": look.color, "width": 2}, "marker": marker, "mode": "lines+markers", "showlegend": True}
        add(1, method, [None], [None], **key)
        if method in drawn.losses:
            loss = drawn.losses[method]
            around = np.concatenate([loss.updates, loss.updates[::-1]]), np.concatenate([loss.low, loss.high[::-1]])
            add(1, method, *around, fill="toself", fillcolor=look.color, opacity=0.15, line={"width": 0})
            hover = f"{method}: loss %{{y:.3g}} at %{{x:.0f}} updates"
            add(1, method, loss.updates, loss.mean, hover, line={"color": look.color, "width": 2})
        for steps, (updates, values) in drawn.quality.get(method, {}).items():
            line = {"color": look.color, "dash": drawn.dashes[steps], "width": 2}
            hover = f"{method}, {training_style.steps_name(steps)}: %{{y:.3g}} after %{{x}} updates"
            add(len(heads), method, updates, values, hover, mode="lines+markers", line=line, marker=marker)
    if drawn.losses:
        figure.update_xaxes(range=drawn.ranges["loss updates"], title_text=training_style.UPDATES_LABEL, row=1, col=1)
        figure.update_yaxes(
            type="log", range=np.log10(drawn.ranges["loss"]), title_text=training_style.LOSS_LABEL,
            row=1, col=1, **_log_ticks(drawn.ranges["loss"]),
        )  # fmt: skip
    if drawn.quality:
        at = {"row": 1, "col": len(heads)}
        for steps, dash in drawn.dashes.items():
            line = {"color": style.INK, "dash": dash, "width": 2}
            name = training_style.steps_name(steps)
            add(len(heads), name, [None], [None], line=line, showlegend=True, legend="legend2")
        if floor is not None:
            _level(figure, floor, f"floor {style.number(floor)}", 1, len(heads))
        for update, which, words in (
            (figure.update_xaxes, "updates", training_style.UPDATES_LABEL),
            (figure.update_yaxes, "distance", distance),
        ):
            limits = drawn.ranges[which]
            update(type="log", range=np.log10(limits), title_text=words, **_log_ticks(limits), **at)
    beside = {"orientation": "h", "x": 1, "xanchor": "right", "yanchor": "bottom"}
    figure.update_layout(legend=beside | {"y": 1.1}, legend2=beside | {"y": -0.28}, margin_t=120, margin_b=100)
    return figure


def against_noise(curves: Mapping[str, Sequence], *, ylabel: str, note: str = "", title: str = "") -> "go.Figure":
    """A quantity against the noise level; as `static.against_noise`. A click on a method hides its curve."""
    import plotly.graph_objects as go

    drawn = training_style.level_curves(curves)
    figure = _subplots(1, 1, [""], title, 520)
    for name, (nsr, values, spread) in drawn.curves.items():
        look = drawn.looks[name]
        if spread is not None:
            low = np.maximum(values - spread, values * 1e-3)
            around = {"x": np.concatenate([nsr, nsr[::-1]]), "y": np.concatenate([values + spread, low[::-1]])}
            figure.add_trace(
                go.Scatter(
                    **around, mode="lines", fill="toself", fillcolor=look.color, opacity=0.15, line={"width": 0}, legendgroup=name,
                    showlegend=False, hoverinfo="skip",
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=nsr, y=values, mode="lines+markers", line={"color": look.color, "dash": look.dash, "width": 2.5},
                marker={"symbol": look.symbol, "size": 7, "color": look.color}, name=name, legendgroup=name,
                hovertemplate=f"{name}: %{{y:.3g}} at NSR %{{x:.3g}}<extra></extra>",
            )
        )  # fmt: skip
    (x_range, y_range), log = drawn.ranges, {"type": "log", "zeroline": False}
    figure.update_xaxes(range=np.log10(x_range), title_text=style.NSR_LABEL, **log, **_log_ticks(x_range))
    figure.update_yaxes(range=np.log10(y_range), title_text=ylabel, **log, **_log_ticks(y_range))
    figure.update_layout(showlegend=True, legend_title_text=note or None)
    return figure


def same_noise(
    ends: Mapping[str, Mapping[int, Tensor]], background: GaussianMixture | Density, *, title: str = ""
) -> "go.Figure":
    """What the same noise becomes, a row a method, a column a number of steps; as `static.same_noise`. Hovering a
    point names its noise's number."""
    training_style.check_same_noise(ends)
    behind = style.as_density(background, [cloud for by_steps in ends.values() for cloud in by_steps.values()])
    drawn = training_style.same_noise_panels(ends, behind)
    rows, columns = len(drawn.panels), len(drawn.steps)
    heads = [
        by_steps[n][1].replace("\n", "<br>") if n in by_steps else ""
        for by_steps in drawn.panels.values()
        for n in drawn.steps
    ]
    figure = _subplots(
        rows,
        columns,
        heads,
        title,
        380 * rows + 60,
        horizontal_spacing=0.2 / (columns + 2),
        vertical_spacing=0.4 / (rows + 1),
    )
    scale = [[k / (len(training_style.ANGLE_COLORS) - 1), color] for k, color in enumerate(training_style.ANGLE_COLORS)]
    for row, (name, by_steps) in enumerate(drawn.panels.items(), 1):
        for column, n in enumerate(drawn.steps, 1):
            if n not in by_steps:
                figure.update_xaxes(visible=False, row=row, col=column)
                figure.update_yaxes(visible=False, row=row, col=column)
                continue
            dots = _dots(Tensor(by_steps[n][0]))
            dots.update(
                mode="markers", marker={"size": 4, "color": drawn.colors[name], "cmin": -180, "cmax": 180, "colorscale": scale},
                showlegend=False, customdata=list(range(len(by_steps[n][0]))),
                hovertemplate="noise %{customdata}: (%{x:.3f}, %{y:.3f})<extra></extra>",
            )  # fmt: skip
            figure.add_trace(dots, row=row, col=column)
            _plane(figure, behind, row, column)
            # the lowest panel of a column names its axis, and the first one of a row that of its row
            if any(n in below for below in list(drawn.panels.values())[row:]):
                figure.update_xaxes(title_text="", showticklabels=False, row=row, col=column)
            if any(m in by_steps for m in drawn.steps[: column - 1]):
                figure.update_yaxes(title_text="", showticklabels=False, row=row, col=column)
    return figure


def digits(rows: Mapping[str, Tensor], *, title: str = "") -> "go.Figure":
    """Images as black ink on white paper, a row an entry of `rows`; as `static.digits`. Hovering a digit names its
    row and column."""
    import plotly.graph_objects as go

    sheet = training_style.digit_sheet(rows)
    high, wide = sheet.shape
    images = next(iter(rows.values()))
    columns, middles = training_style.digit_middles(images, len(rows))
    head, scale = (80 if title else 20), DIGIT_SIZE / images.shape[2]
    figure = _subplots(1, 1, [""], title, round(high * scale) + head + 20)
    grey = ((1 - sheet) / 2 * 255).round().astype(np.uint8).repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)
    _picture(figure, np.stack([grey] * 3, axis=-1), (-0.5, wide - 0.5, high - 0.5, -0.5), 1, 1, "ink")
    figure.add_trace(
        go.Scatter(
            x=columns * len(rows), y=np.repeat(middles, len(columns)), mode="markers", marker={"size": 30, "opacity": 0},
            text=[f"{name}, column {k + 1}" for name in rows for k in range(len(columns))],
            hovertemplate="%{text}<extra></extra>",
        ),
        row=1, col=1,
    )  # fmt: skip
    bare = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    figure.update_xaxes(range=[-0.5, wide - 0.5], showticklabels=False, **bare)
    figure.update_yaxes(
        range=[high - 0.5, -0.5],
        tickvals=middles,
        ticktext=list(rows),
        ticks="outside",
        ticklen=8,
        tickcolor="rgba(0,0,0,0)",
        scaleanchor="x",
        scaleratio=1,
        **bare,
    )
    figure.update_layout(margin={"t": head, "b": 20})
    return figure
