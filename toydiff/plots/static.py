"""The figures in matplotlib, for files and papers. Each returns a `matplotlib.figure.Figure` that belongs to nobody
else.

Arguments are those of `toydiff.plots.interactive`, which draws the same with sliders. Save with `png(figure)` or
`figure.savefig`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.trajectory import Trajectory
from . import style
from ._matplotlib import _figure, _path_planes, _plane, _round_ticks, _styled, png
from .score_static import gradients, mode_fractions, score_arrows
from .style import Density
from .training_static import against_noise, digits, one_step_maps, one_step_planes, reflow, same_noise, training_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "against_noise",
    "convergence",
    "digits",
    "gradients",
    "mode_fractions",
    "one_step_maps",
    "one_step_planes",
    "png",
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
    title: str = "",
) -> "Figure":
    """Paths in the plane over the data's density, one panel an entry of `paths` (title: trajectory).

    solvers: the registry's name of each panel's solver, for its colour. exact (B, 2): where the exact flow ends from
    the same noise, drawn as rings. States are dots while there are few. `ValueError` if a trajectory is not in the
    plane or kept its end only.
    """
    style.check_planes(paths)
    behind = style.as_density(background, [path.xs for path in paths.values()])
    colors = {name: style.panel_color(name, solvers) for name in paths}
    rings = {} if exact is None else dict.fromkeys(paths, exact)
    return _path_planes(paths, behind, paths, colors, rings, "exact end", title)


def rescaled(
    paths: Mapping[str, Trajectory],
    schedule: Schedule,
    backgrounds: Mapping[str, GaussianMixture | Density],
    *,
    reach: float = 3.0,
    measured: bool = False,
    title: str = "",
) -> "Figure":
    """The same paths three times, a row an entry of `paths`: in the plane, x_1 against t, and y_1 = x_1/sigma against
    e^lambda = alpha/sigma.

    y = (alpha/sigma) x_0 + eps is a straight line in alpha/sigma exactly where x_0 and eps stay constant, i.e. where
    the ODE is first-order; dashed is the straight line that each path ends on. The last column ends at alpha/sigma =
    `reach`, since t = 0 is at infinity. backgrounds: a mixture or density for each name. measured: the second column's
    title holds the straightness of each row's paths, the third's their first-orderness, both normalised. `ValueError`
    as in `trajectories`, or where a background is missing, or nothing can be measured.
    """
    style.check_planes(paths)
    style.check_backgrounds(paths, backgrounds)
    with _styled():
        figure = _figure(13.5, 3.9 * len(paths) + 0.4, title)
        grid = figure.add_gridspec(len(paths), 3, width_ratios=(1, 1.35, 1.35))
        for k, (name, path) in enumerate(paths.items()):
            plane, time, straight = (figure.add_subplot(grid[k, j]) for j in range(3))
            _plane(plane, style.as_density(backgrounds[name], [path.xs]))
            plane.set_title(name)
            snr, y = style.rescale(path, schedule, reach)
            (ts, xs), kept = style.drawn(path), style.thin(y)
            levels, ys = snr[kept].numpy(), y.xs[kept].numpy()
            guide_x, guide_y = style.extended(levels, ys[..., 0])
            for b in range(xs.shape[1]):
                color = style.PATH_COLORS[b % len(style.PATH_COLORS)]
                plane.plot(xs[:, b, 0], xs[:, b, 1], color=color, lw=1.8)
                plane.plot(*xs[-1, b], "o", color=color, ms=5)
                time.plot(ts, xs[:, b, 0], color=color, lw=1.8)
                straight.plot(guide_x, guide_y[:, b], color=style.GREY, lw=1, ls="--")
                straight.plot(levels, ys[:, b, 0], color=color, lw=1.8)
            time.set(xlim=(1, 0), xlabel=style.TIME_LABEL, ylabel="$x_1$")
            straight.set(xlim=(0, reach), xlabel=style.SNR_LABEL, ylabel="$y_1 = x_1/\\sigma$")
            numbers = style.path_numbers(path, schedule) if measured else ("", "")
            for axes, head, number in zip(
                (time, straight), ("$x_1$ against t", "$y_1$ against α/σ (dashed: straight)"), numbers, strict=True
            ):
                axes.set_title(f"{head}\n{number}".rstrip())
        return figure


def convergence(rows: Sequence[Mapping], *, floor: float | None = None, title: str = "") -> "Figure":
    """Error against NFE on log-log axes: a panel for each declared order, the fitted slopes in its legend.

    rows: a table {solver, declared, measured, nfe: [...], error: [...]} as `toydiff convergence --json` writes it.
    Behind each panel's curves are all the others, pale; dashed, a line of the declared slope. floor: the error of the
    reference itself, a dashed line, or a note where it lies below the frame.
    """
    groups = style.by_order(rows)
    columns = min(2, len(groups))
    lines = math.ceil(len(groups) / columns)
    x_range, y_range = style.convergence_ranges(groups)
    with _styled():
        figure = _figure(7.2 * columns, 3.9 * lines + 0.5, title)
        for k, (order, group) in enumerate(groups.items()):
            axes = figure.add_subplot(lines, columns, k + 1)
            for row in rows:
                axes.plot(row["nfe"], row["error"], color=style.CONTEXT_COLOR, lw=0.8, zorder=1)
            axes.plot(
                *style.slope_line(group, order),
                color=style.INK,
                lw=1.2,
                ls=(0, (4, 3)),
                zorder=2,
                label=f"slope {order}",
            )
            for j, (row, name) in enumerate(zip(group, style.curve_names(group), strict=True)):
                seen = style.look(row["solver"])
                axes.plot(
                    row["nfe"],
                    row["error"],
                    color=seen.color,
                    ls=seen.line,
                    marker=seen.marker,
                    ms=4.5
                    + 0.5 * (len(group) - j),  # equal curves would hide one another: the first drawn is the widest
                    lw=1.2 + 0.15 * (len(group) - j - 1),
                    label=name,
                    zorder=3,
                )
            axes.set(
                xscale="log", yscale="log", xlim=x_range, ylim=y_range, xlabel=style.NFE_LABEL, ylabel=style.ERROR_LABEL
            )
            _round_ticks(axes)
            axes.grid(True, which="major", color="#EEEEEE", lw=0.8)
            axes.set_title(f"Declared order {order}")
            _floor(axes, floor, y_range)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="solver: measured", alignment="left")
        return figure


def _floor(axes: "Axes", floor: float | None, y_range: tuple[float, float]) -> None:
    """The floor as a dashed line, or in words where it is out of the frame."""
    if floor is None:
        return
    if y_range[0] <= floor <= y_range[1]:
        axes.axhline(floor, color=style.FLOOR_COLOR, ls="--", lw=1, label=f"floor {style.number(floor)}")
    else:
        axes.text(
            0.02,
            0.02,
            f"floor {style.number(floor)}: below the frame",
            transform=axes.transAxes,
            fontsize=8,
            color=style.GREY,
        )


def time_grids(
    grids: Mapping[str, Tensor],
    schedule: Schedule,
    *,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    floor: float | None = None,
    title: str = "",
) -> "Figure":
    """Where each grid's steps lie, one row a grid: against t, against NSR = sigma/alpha, and what it costs in error.

    grids: name: times (N+1,). errors: solver: {grid: error}, drawn in the solver's colour. NSR is 0 at t = 0 and
    infinite where alpha = 0: such steps sit at the frame's edge as arrows. floor: as in `convergence`.
    """
    places, nsr_range = style.grid_places(grids, schedule)
    rows = {name: len(grids) - 1 - k for k, name in enumerate(grids)}
    with _styled():
        columns = 3 if errors else 2
        figure = _figure(4.6 * columns, 0.62 * len(grids) + (2.2 if title else 1.8), title)
        in_time, in_level, *rest = figure.subplots(1, columns, sharey=True)
        for name, (ts, nsr) in places.items():
            row = rows[name]
            for axes, places_ in ((in_time, ts), (in_level, np.clip(nsr, *nsr_range))):
                axes.axhline(row, color=style.CONTEXT_COLOR, lw=1, zorder=0)
                axes.plot(places_, np.full(len(places_), row), "|", color=style.BLUE, ms=16, mew=1.8)
            for edge, mark, out in ((nsr_range[0], ">", nsr == 0), (nsr_range[1], "<", np.isinf(nsr))):
                if out.any():  # the axis runs from noise to data, so that clean is right
                    in_level.plot(edge, row, mark, color=style.BLUE, ms=8, clip_on=False)
        in_time.set(xlim=style.padded(0, 1)[::-1], xlabel=style.TIME_LABEL, title="in time")
        in_time.set_yticks(list(rows.values()), list(rows))
        in_time.set_ylim(-0.7, len(grids) - 0.3)
        in_level.set(xscale="log", xlim=nsr_range[::-1], xlabel=style.NSR_LABEL + " (▸ data)", title="in noise level")
        for axes in rest:
            _errors_by_grid(axes, errors, rows, floor)
        return figure


def _errors_by_grid(axes: "Axes", errors: Mapping, rows: Mapping[str, int], floor: float | None) -> None:
    values = [error for by_grid in errors.values() for error in by_grid.values()]
    axes.set(xscale="log", xlim=style.padded_log(values, 0.12), xlabel=style.ERROR_LABEL, title="what it costs")
    _round_ticks(axes)
    for row in rows.values():
        axes.axhline(row, color=style.CONTEXT_COLOR, lw=1, zorder=0)
    for solver, by_grid in errors.items():
        seen = style.look(solver)
        axes.plot(
            list(by_grid.values()), [rows[name] for name in by_grid], seen.marker, color=seen.color, ms=8, label=solver
        )
    if floor is not None:
        low, high = axes.get_xlim()
        if low <= floor <= high:
            axes.axvline(floor, color=style.FLOOR_COLOR, ls="--", lw=1, label="floor")
        else:
            axes.plot(
                [], [], color=style.FLOOR_COLOR, ls="--", lw=1, label=f"floor {style.number(floor)}: left of the frame"
            )
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=len(errors) + 1, columnspacing=1, handletextpad=0.4
    )


def samples(
    points: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    solvers: Mapping[str, str] | None = None,
    title: str = "",
) -> "Figure":
    """Samples over the density, one panel an entry of `points` (title: (n, 2)). `ValueError` for points that are not in
    the plane.

    solvers: the registry's name of each panel's solver, for its colour.
    """
    style.check_points(points)
    behind = style.as_density(background, list(points.values()))
    with _styled():
        figure = _figure(4.4 * len(points), 5.0 if title else 4.6, title)
        for k, (name, cloud) in enumerate(points.items()):
            axes = figure.add_subplot(1, len(points), k + 1)
            _plane(axes, behind)
            xy = cloud.double().cpu().numpy()
            axes.plot(xy[:, 0], xy[:, 1], ".", color=style.panel_color(name, solvers), ms=3, alpha=0.6)
            axes.set_title(name)
        return figure


def sweep_errors(path: Trajectory, exact: Tensor | None = None, *, title: str = "") -> "Figure":
    """How wrong the path is after each sweep of a parallel sampler: a heat map, iteration against time.

    Colour is the median over the samples of the distance to `exact` (N+1, B, ...), such as the sequential path; None:
    to where the sweeps arrived. Lines: the staircase that is guaranteed, the first k points exact after k sweeps, and
    the points that were accepted. A tolerance accepts points that are slightly wrong, and they stay so: only with
    tolerance=None is all left of the staircase exact. `ValueError` if no sweeps were kept, or the shapes differ.
    """
    with _styled():
        figure = _figure(9.0, 4.8 if title else 4.4, title)
        _heat(figure, figure.add_subplot(), path, exact)
        return figure


def _heat(figure: "Figure", axes: "Axes", path: Trajectory, exact: Tensor | None) -> None:
    """The heat map of `sweep_errors` in one panel, its legend above it and its colours beside it."""
    from matplotlib.patheffects import withStroke

    errors = style.sweep_errors(path, exact)
    low, high = errors.limits
    sweeps, points = errors.logs.shape
    image = axes.imshow(
        errors.logs, aspect="auto", cmap=style.SWEEP_COLORS, vmin=low, vmax=high, interpolation="nearest"
    )
    halo = [withStroke(linewidth=4, foreground="white")]
    axes.plot(*errors.guaranteed, color=style.INK, lw=1.8, path_effects=halo, label=style.GUARANTEED_NAME)
    axes.plot(
        *errors.accepted, color=style.ACCEPTED_COLOR, lw=1.8, ls="--", path_effects=halo, label=style.ACCEPTED_NAME
    )
    axes.set(xlim=(-0.5, points - 0.5), ylim=(sweeps - 0.5, -0.5), xlabel=style.POINT_LABEL, ylabel=style.SWEEP_LABEL)
    axes.set_xticks(*style.point_ticks(path.ts))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.3)
    bar = figure.colorbar(image, ax=axes, label=style.SWEEP_ERROR_LABEL, pad=0.015)
    places, words = style.error_ticks(low, high)
    bar.set_ticks(places, labels=words)
    bar.outline.set_visible(False)


def sweeps(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = 6,
    samples: int = 24,
    title: str = "",
) -> "Figure":
    """The paths of a parallel sampler after some of its sweeps, over the data's density: what is accepted, and what
    still moves.

    exact (N+1, B, 2): the path to arrive at, its ends drawn as rings; None: where the sweeps arrived. most: panels.
    samples: how many are drawn. `ValueError` if no sweeps were kept, or states are not in the plane.
    """
    shown = style.shown_sweeps(path, exact, most, samples)
    behind = style.as_density(background, [path.xs])
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    with _styled():
        figure = _figure(4.2 * columns, 4.3 * lines + 0.6, title)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        _sweep_panels(figure, panels, path, behind, exact, shown, samples)
        return figure


def _sweep_panels(
    figure: "Figure",
    panels: Sequence["Axes"],
    path: Trajectory,
    behind: Density,
    exact: Tensor | None,
    shown: Sequence[int],
    samples: int,
) -> None:
    """A sweep a panel, all with the same axes, and one legend above them."""
    ends = style.check_sweeps(path, exact)[-1, :samples].double().cpu()
    for axes, k in zip(panels, shown, strict=False):
        _plane(axes, behind)
        axes.label_outer()
        accepted, moving = style.sweep_paths(path, k, samples)
        for xs, color, name in (
            (moving, style.MOVING_COLOR, style.MOVING_NAME),
            (accepted, style.ACCEPTED_COLOR, style.ACCEPTED_NAME),
        ):
            axes.plot(xs[..., 0], xs[..., 1], color=color, lw=1.3, alpha=0.8)[0].set_label(name)
        axes.plot(moving[-1, :, 0], moving[-1, :, 1], "o", color=style.end_color(path, k), ms=4)
        axes.plot(ends[:, 0], ends[:, 1], "o", mfc="none", mec=style.EXACT_COLOR, ms=8, mew=1, label=style.GOAL_NAME)
        axes.set_title(style.sweep_title(path, k))
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)


def staircase(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = 5,
    samples: int = 24,
    title: str = "",
) -> "Figure":
    """The paths after some sweeps above the heat map of their errors: `sweeps` and `sweep_errors` in one figure."""
    shown = style.shown_sweeps(path, exact, most, samples)
    behind = style.as_density(background, [path.xs])
    with _styled():
        figure = _figure(2.95 * len(shown), 7.8, title)
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
        panels = above.subplots(1, len(shown), sharey=True, squeeze=False).ravel()
        _sweep_panels(above, panels, path, behind, exact, shown, samples)
        _heat(below, below.subplots(), path, exact)
        return figure


def rounds(rows: Sequence[Mapping], *, target: float | None = None, title: str = "") -> "Figure":
    """What parallel samplers save, from the rows of `toydiff parallel --json`: rounds against T, error against rounds,
    and seconds.

    target: the first panel shows the rounds after which the median error is so small, thin the 95th percentile's; None:
    all that were spent. The other panels are of the largest T that all methods have. Errors are distances to the
    sequential end. In the last panel a method wins where its mark is left of the sequential line of its kind.
    `ValueError` for rows that cannot be drawn.
    """
    groups = style.by_method(rows)
    steps = style.shared_steps(groups)
    heads, ranges = style.rounds_heads(target, steps), style.rounds_ranges(groups, steps, target)
    with _styled():
        figure = _figure(16.0, 5.4 if title else 5.0, title)
        growth, decay, clock = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
        growth.set(xscale="log", yscale="log", xlim=ranges["T"], ylim=ranges["growth"])
        decay.set(xscale="log", yscale="log", xlim=ranges["rounds"], ylim=ranges["errors"])
        clock.set(xscale="log", xlim=ranges["seconds"])
        _growth(growth, groups, target)
        _decay(decay, groups, steps, target)
        _clock(clock, groups, steps)
        for axes, head in zip((growth, decay, clock), heads, strict=True):
            axes.set_title(head)
            axes.grid(True, which="major", color="#EEEEEE", lw=0.8)
        figure.legend(*growth.get_legend_handles_labels(), loc="outside upper right", ncols=len(groups))
        return figure


def _growth(axes: "Axes", groups: Mapping[str, Sequence[Mapping]], target: float | None) -> None:
    """Rounds against T."""
    for j, (method, group) in enumerate(groups.items(), 1):
        seen, steps = style.method_look(method), [row["steps"] for row in group]
        needed, slower = ([style.rounds_needed(row, target, which) for row in group] for which in ("median", "p95"))
        ahead = len(groups) - j  # equal curves would hide one another: the first drawn is the widest
        line = {"color": seen.color, "ls": seen.line}
        axes.plot(steps, needed, marker=seen.marker, ms=5 + ahead, lw=1.4 + 0.2 * ahead, label=method, **line)
        if target is not None:
            axes.plot(steps, slower, lw=0.7, **line)
    places = sorted({row["steps"] for group in groups.values() for row in group})
    axes.set(xlabel=style.STEPS_LABEL, ylabel=style.ROUNDS_LABEL)
    axes.set_xticks(places, [str(n) for n in places])
    axes.xaxis.minorticks_off()


def _decay(axes: "Axes", groups: Mapping[str, Sequence[Mapping]], steps: int, target: float | None) -> None:
    """Error against rounds."""
    for row in (row for group in groups.values() for row in group if row["steps"] == steps):
        seen = style.method_look(row["method"])
        if not row["curve"]["rounds"]:
            axes.axvline(row["rounds"], color=seen.color, lw=1.2)
            continue
        for which, width, marker in (("median", 1.6, seen.marker), ("p95", 0.7, "")):
            shown = style.curve(row, which)
            axes.plot(shown.rounds, shown.errors, color=seen.color, ls=seen.line, lw=width, marker=marker, ms=4.5)
    if target is not None:
        axes.axhline(target, color=style.FLOOR_COLOR, ls="--", lw=1)
    axes.set(xlabel=style.ROUNDS_LABEL, ylabel=style.SEQUENTIAL_ERROR_LABEL)
    _round_ticks(axes)


def _clock(axes: "Axes", groups: Mapping[str, Sequence[Mapping]], steps: int) -> None:
    """Seconds of each method, with and without a cost for each call."""
    rows, names = style.clock(groups, steps)

    def dot(key: str, x: Sequence[float], y: Sequence[float], color: str, label: str | None = None) -> None:
        fill = "white" if key == "seconds" else color
        axes.plot(x, y, "o", ms=9, mew=1.8, mec=color, mfc=fill, zorder=3, label=label)

    for key, (name, dash) in style.clock_kinds(rows).items():
        for y, row in enumerate(rows):
            dot(key, [row[key]], [y], style.method_look(row["method"]).color)
            if row["method"] == "sequential":
                axes.axvline(row[key], color=style.INK, ls=style.LINES[dash], lw=1, zorder=1)
        dot(key, [], [], style.INK, name)
    axes.set(xlabel=style.SECONDS_LABEL, ylim=(len(rows) + 0.2, -0.6))
    _round_ticks(axes)
    axes.set_yticks(range(len(rows)), names)
    axes.legend(loc="lower center", ncols=2, handletextpad=0.2, columnspacing=1.2)
