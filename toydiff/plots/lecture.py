"""Figures in plotly for a lecture: one thing in one row. The app draws them, and `toydiff.plots.screen.for_screen`
makes them readable from the back row."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..measure import first_orderness, straightness
from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, check_finite, shape, unknown
from . import score_style, style, training_style
from ._plotly import _joined, _level, _log_ticks, _picture, _plane, _round_ticks, _slider, _subplots
from .score_interactive import score_arrows
from .score_style import Scene
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go

ON_THEIR_WAY = 0.3
"""The part of the data that is found where `score_coverage` starts."""
SPACES = ("x", "y")


def work_precision(
    rows: Sequence[Mapping], *, slopes: bool = True, floor: float | None = None, title: str = ""
) -> "go.Figure":
    """Error against NFE on log-log axes, all solvers in one panel; rows as for `static.convergence`, whose slopes the
    legend tells.

    A slope that is NaN was not measured: too few errors are more than rounding. slopes: False for a legend that does
    not give them away, for readers who are to guess. Errors at or below `floor` are rounding: a dashed line. A click on
    the legend hides a curve. `ValueError` for a table without rows, or rows that lack something.
    """
    import plotly.graph_objects as go

    groups = style.by_order(rows)
    points = [(n, e) for row in rows for n, e in zip(row["nfe"], row["error"], strict=True)]
    x_range, y_range = (style.padded_log([point[k] for point in points], 0.04) for k in (0, 1))
    figure = _subplots(1, 1, [""], title, 560)
    for order, group in groups.items():
        for row in group:
            seen = style.look(row["solver"])
            slope = f"slope {row['measured']:.2f}" if math.isfinite(row["measured"]) else "all rounding"
            name = f"{row['solver']}: {slope}, order {order}" if slopes else row["solver"]
            figure.add_trace(
                go.Scatter(
                    x=row["nfe"], y=row["error"], mode="lines+markers", name=name, line={"color": seen.color, "dash": seen.dash, "width": 3},
                    marker={"symbol": seen.symbol, "size": 10}, hovertemplate=f"{row['solver']}<br>%{{x}} NFE, error %{{y:.2e}}<extra></extra>",
                )
            )  # fmt: skip
    figure.update_xaxes(type="log", range=np.log10(x_range), title_text=style.NFE_LABEL, **_round_ticks(x_range))
    figure.update_yaxes(
        type="log", range=np.log10(y_range), title_text=style.ERROR_LABEL, exponentformat="power", dtick=1
    )
    if floor is not None and floor >= y_range[0]:
        _level(figure, floor, "rounding")
    figure.update_layout(showlegend=True)
    return figure


def lines(
    paths: Mapping[str, Trajectory],
    schedules: Mapping[str, Schedule],
    *,
    space: str = "y",
    reach: float = 4.0,
    samples: int = 24,
    title: str = "",
) -> "go.Figure":
    """The first coordinate of paths, a panel an entry of `paths`: x against t, or y = x/sigma = (alpha/sigma) x_0 + eps
    against alpha/sigma (arXiv 2410.07303).

    In "y" a first-order path is a straight line, whatever the schedule; dashed is the line that each path ends on.
    Panels share their axes. reach: the largest alpha/sigma that is drawn; samples: how many paths are. Heads say how
    far all of them are from straight in x (S) and from first order (C), normalised. `ValueError` for another space,
    paths that are not in the plane or have no schedule, and a reach with fewer than two states.
    """
    import plotly.graph_objects as go

    if space not in SPACES:
        raise unknown("space", space, SPACES)
    style.check_planes(paths)
    check_count(samples, "samples")
    for name in paths:
        if name not in schedules:
            raise unknown("path with a schedule", name, schedules)
    heads = []
    for name, path in paths.items():
        S = straightness(path, normalised=True)
        C = first_orderness(path, schedules[name], normalised=True)
        heads.append(f"{name}<br>S = {style.number(S)}, C = {style.number(C)}")
    figure = _subplots(1, len(paths), heads, title, 560, horizontal_spacing=0.05, shared_yaxes=True)
    drawn = {}
    for name, path in paths.items():
        if space == "x":
            ts, xs = style.drawn(path)
            drawn[name] = ts, xs[:, :samples, 0], None
        else:
            snr, y = style.rescale(path, schedules[name], reach)
            kept = style.thin(y)
            levels, ys = snr[kept].numpy(), y.xs[kept].numpy()[:, :samples, 0]
            drawn[name] = levels, ys, style.extended(levels, ys)
    values = np.concatenate([ys.ravel() for _, ys, _ in drawn.values()])
    for column, (at, ys, guide) in enumerate(drawn.values(), 1):
        for b in range(ys.shape[1]):
            color = style.PATH_COLORS[b % len(style.PATH_COLORS)]
            if guide is not None:
                line = {"color": style.GREY, "width": 1.5, "dash": "dash"}
                figure.add_trace(
                    go.Scatter(x=guide[0], y=guide[1][:, b], mode="lines", line=line, hoverinfo="skip", showlegend=False), row=1, col=column
                )  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=at, y=ys[:, b], mode="lines", line={"color": color, "width": 3}, showlegend=False, hovertemplate="(%{x:.3f}, %{y:.3f})<extra></extra>",
                ),
                row=1, col=column,
            )  # fmt: skip
        where = (
            {"title_text": style.TIME_LABEL, "range": [1, 0]}
            if space == "x"
            else {"title_text": style.SNR_LABEL, "range": [0, reach]}
        )
        figure.update_xaxes(**where, zeroline=False, row=1, col=column)
    figure.update_yaxes(range=style.padded(float(values.min()), float(values.max())), zeroline=False)
    figure.update_yaxes(title_text="x₁" if space == "x" else "y₁ = x₁/σ", row=1, col=1)
    return figure


def pairs(
    couplings: Mapping[str, tuple[Tensor, Tensor]],
    meeting: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    title: str = "",
) -> "go.Figure":
    """The straight lines between pairs (eps (B, 2), x_0 (B, 2)), a panel a coupling; those of `meeting` (B,), true or
    false, stand out.

    Where two lines are at one place at one time, a flow can follow but one of them (arXiv 2209.03003, fig. 2).
    `ValueError` for other shapes.
    """
    import plotly.graph_objects as go

    if not couplings:
        raise ValueError("there is nothing to draw: give at least one coupling")
    for name, (noise, data) in couplings.items():
        style.check_points({f"the noise of {name}": noise, f"the data of {name}": data})
        if noise.shape != data.shape or meeting[name].shape != noise.shape[:1]:
            raise ValueError(
                f"the coupling {name!r} needs as many data and marks as noise, {shape(noise)}, got {shape(data)} and {shape(meeting[name])}"
            )
        check_finite(data, f"the data of {name}")
    behind = style.as_density(background, [x for pair in couplings.values() for x in pair])
    heads = [
        f"{name}<br>{int(marks.sum())} of {len(marks)} lines meet another"
        for name, marks in ((n, meeting[n]) for n in couplings)
    ]
    figure = _subplots(1, len(couplings), heads, title, 640, horizontal_spacing=0.06)
    for column, (name, (noise, data)) in enumerate(couplings.items(), 1):
        _plane(figure, behind, 1, column)
        ends = np.stack([noise.double().cpu().numpy(), data.double().cpu().numpy()])
        marks = meeting[name].cpu().numpy().astype(bool)
        for which, color, width, words in (
            (~marks, style.GREY, 1.0, "a pair's line"),
            (marks, style.VERMILLION, 2.2, "meets another one"),
        ):
            x, y = _joined(ends[:, which])
            line = {"color": color, "width": width}
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="lines", line=line, name=words, legendgroup=words, showlegend=column == 1, hoverinfo="skip"), row=1, col=column
            )  # fmt: skip
        for points, symbol, words in ((ends[0], "circle-open", "noise"), (ends[1], "circle", "data")):
            marker = {"size": 6, "symbol": symbol, "color": style.BLUE}
            figure.add_trace(
                go.Scatter(
                    x=points[:, 0].astype(np.float32), y=points[:, 1].astype(np.float32), mode="markers", marker=marker, name=words, legendgroup=words,
                    showlegend=column == 1, hoverinfo="skip",
                ),
                row=1, col=column,
            )  # fmt: skip
    figure.update_layout(legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.14, "yanchor": "bottom"})
    return figure


def jump_errors(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, edges: Sequence[float] = (), title: str = ""
) -> "go.Figure":
    """How far jumps from a path miss their goal, by the time t they start from: rows (t, error) by method, and `edges`,
    the times where phases meet.

    Errors are on a logarithmic axis; those that are 0 are left out. `ValueError` for other tables.
    """
    import plotly.graph_objects as go

    drawn = training_style.level_curves(curves)
    figure = _subplots(1, 1, [""], title, 520)
    for name, (t, errors, _) in drawn.curves.items():
        look = drawn.looks[name]
        figure.add_trace(
            go.Scatter(
                x=t, y=errors, mode="lines", line={"color": look.color, "dash": look.dash, "width": 3}, name=name,
                hovertemplate=f"{name}: %{{y:.3g}} from t = %{{x:.3f}}<extra></extra>",
            )
        )  # fmt: skip
    for edge in edges:
        figure.add_vline(x=edge, line={"color": style.GREY, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(range=[1, 0], title_text=style.TIME_LABEL, zeroline=False)
    figure.update_yaxes(
        type="log",
        range=np.log10(drawn.ranges[1]),
        title_text="RMS distance of the jump from its target",
        **_log_ticks(drawn.ranges[1]),
    )
    figure.update_layout(showlegend=True)
    return figure


def quality(rows: Sequence[Mapping], *, title: str = "") -> "go.Figure":
    """Distance over its floor against NFE, both logarithmic: rows {student, steps, nfe, distance_over_floor}, a curve a
    student, the dashed line the floor.

    `ValueError` for a table without rows.
    """
    import plotly.graph_objects as go

    if not rows:
        raise ValueError("there is nothing to draw: the table of students has no rows")
    figure = _subplots(1, 1, [""], title, 560)
    names = list(dict.fromkeys(row["student"] for row in rows))
    looks = training_style.looks(names)
    for name in names:
        own = sorted((row for row in rows if row["student"] == name), key=lambda row: row["nfe"])
        look = looks[name]
        figure.add_trace(
            go.Scatter(
                x=[row["nfe"] for row in own], y=[row["distance_over_floor"] for row in own], mode="lines+markers", name=name,
                line={"color": look.color, "dash": look.dash, "width": 2}, marker={"symbol": look.symbol, "size": 11, "color": look.color},
                text=[training_style.steps_name(row["steps"]) for row in own], hovertemplate=f"{name}, %{{text}}, %{{x}} NFE: %{{y:.2f}} floors<extra></extra>",
            )
        )  # fmt: skip
    x_range, y_range = (style.padded_log([*(row[key] for row in rows), 1]) for key in ("nfe", "distance_over_floor"))
    _level(figure, 1, "floor: held-out real ones")
    figure.update_xaxes(type="log", range=np.log10(x_range), title_text=style.NFE_LABEL, **_round_ticks(x_range))
    figure.update_yaxes(
        type="log", range=np.log10(y_range), title_text="distance to real digits / floor", **_round_ticks(y_range)
    )
    figure.update_layout(showlegend=True)
    return figure


def images(pictures: Mapping[str, Tensor], *, title: str = "") -> "go.Figure":
    """Pictures (3, H, W) with numbers in [0, 1] side by side, each below its name. `ValueError` for other shapes,
    and NaN."""
    if not pictures:
        raise ValueError("there is nothing to draw: give at least one picture")
    for name, picture in pictures.items():
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise ValueError(f"the picture {name!r} must have shape (3, H, W), got {shape(picture)}")
        check_finite(picture, f"the picture {name!r}")
    figure = _subplots(1, len(pictures), list(pictures), title, 520, horizontal_spacing=0.03)
    for column, picture in enumerate(pictures.values(), 1):
        pixels = (picture.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        high, wide = pixels.shape[:2]
        sharp = max(1, 512 // high)  # browsers blur what they enlarge
        _picture(figure, pixels.repeat(sharp, 0).repeat(sharp, 1), (0, wide, high, 0), 1, column, "image")
        corners = {"mode": "markers", "marker": {"opacity": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(x=[0, wide], y=[0, high], **corners, row=1, col=column)
        bare = {
            "showgrid": False,
            "zeroline": False,
            "showticklabels": False,
            "constrain": "domain",
            "row": 1,
            "col": column,
        }
        figure.update_xaxes(range=[0, wide], **bare)
        figure.update_yaxes(range=[high, 0], scaleanchor=figure.get_subplot(1, column).yaxis.anchor, **bare)
    return figure


def spent(rows: Sequence[Mapping], *, cost: float = 0.02, title: str = "") -> "go.Figure":
    """What parallel samplers spend at one T: rounds, network calls, seconds here, and seconds if each round took `cost`
    more; rows as `static.rounds` takes them.

    `ValueError` for rows that lack something, or are of several T.
    """
    import plotly.graph_objects as go

    groups = style.by_method(rows)
    if len({row["steps"] for row in rows}) > 1:
        raise ValueError("what is spent is compared at one number of steps, got rows of several")
    taken = {method: group[0] for method, group in groups.items()}
    panels = {
        "rounds: calls in a row": {m: row["rounds"] for m, row in taken.items()},
        "network calls a sample": {m: row["nfe"] for m, row in taken.items()},
        "seconds on this machine": {m: row["seconds"] for m, row in taken.items()},
        f"seconds, {1000 * cost:g} ms a round added": {m: row["seconds"] + cost * row["rounds"] for m, row in taken.items()},
    }  # fmt: skip
    figure = _subplots(1, len(panels), list(panels), title, 480, horizontal_spacing=0.03, shared_yaxes=True)
    for column, values in enumerate(panels.values(), 1):
        figure.add_trace(
            go.Bar(
                x=list(values.values()), y=list(values), orientation="h", marker_color=[style.method_look(m).color for m in values], showlegend=False,
                text=[f"{value:.3g}" for value in values.values()], textposition="outside", cliponaxis=False, hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            ),
            row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(
            range=[0, 1.35 * max(values.values())],
            showgrid=False,
            showticklabels=False,
            zeroline=False,
            row=1,
            col=column,
        )
    figure.update_yaxes(autorange="reversed")
    return figure


def score_coverage(
    frames: Mapping[int, Scene],
    shares: Mapping[int, Sequence[float]],
    background: GaussianMixture | Density,
    *,
    color: str = style.BLUE,
    title: str = "",
) -> "go.Figure":
    """`score_arrows` beside the share of each mode, under one slider over updates; shares: by updates, over what each
    should be, (K,).

    `ValueError` as `score_arrows`, and for shares of other updates, or of another number of modes.
    """
    import plotly.graph_objects as go

    figure = score_arrows(frames, background, color=color, title=title)
    steps = [int(step["label"]) for step in figure.layout.sliders[0].steps]
    sizes = {len(shares[step]) for step in steps if step in shares}
    if set(shares) != set(steps) or len(sizes) != 1:
        raise ValueError("the modes' shares must be given for the updates of the frames, as many modes at each")
    both = _subplots(
        1,
        2,
        ["", "each mode's share (1: as in the data)"],
        title,
        660,
        horizontal_spacing=0.08,
        column_widths=[0.5, 0.5],
    )
    for trace, name in zip(figure.data, score_style.SHORT_NAMES, strict=False):
        trace.name = name
    figure.data[0].marker.update(size=6, opacity=0.8)
    both.add_traces(figure.data, rows=[1] * len(figure.data), cols=[1] * len(figure.data))
    _plane(both, style.as_density(background, [samples for samples, _, _ in frames.values()]), 1, 1)
    line = {"color": color, "width": max(3, min(18, 160 // sizes.copy().pop()))}
    both.add_trace(
        go.Scatter(**_stems(shares[steps[-1]]), mode="lines", line=line, showlegend=False, hoverinfo="y"), row=1, col=2
    )
    both.add_hline(y=1, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1.5}, row=1, col=2)
    most = max(2.0, *(max(values) for values in shares.values()))
    # a share of 8, all particles at one mode, would hide the others
    both.update_yaxes(range=[0, min(1.05 * most, 4.0)], title_text="share / data's", row=1, col=2)
    both.update_xaxes(title_text="mode", range=[-0.7, sizes.pop() - 0.3], showgrid=False, zeroline=False, row=1, col=2)
    both.frames = [
        go.Frame(
            name=frame.name,
            traces=[*frame.traces, len(figure.data)],
            data=[*frame.data, go.Scatter(**_stems(shares[step]))],
        )
        for frame, step in zip(figure.frames, steps, strict=True)
    ]
    # it starts where arrows are still long, and some samples have come to a mode
    come = [np.minimum(shares[step], 1).mean() for step in steps]
    active = next((k for k, share in enumerate(come) if k and share >= ON_THEIR_WAY), len(steps) - 1)
    for trace, data in zip(both.frames[active].traces, both.frames[active].data, strict=True):
        both.data[trace].update(data.to_plotly_json())
    _slider(both, [str(step) for step in steps], "updates: ", active)
    both.update_layout(legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"})
    return both


def _stems(values: Sequence[float]) -> dict[str, np.ndarray]:
    """Upright lines from 0, one a mode: lines move with an animation, and bars do not."""
    modes = np.arange(len(values))
    x = np.repeat(modes.astype(np.float32), 3)
    y = (
        np.stack([np.zeros(len(values)), np.asarray(values), np.full(len(values), np.nan)], 1)
        .ravel()
        .astype(np.float32)
    )
    return {"x": x, "y": y}
