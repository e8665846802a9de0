"""Paths and points in the plane, paths against time, and paths rescaled so that first-order ones are straight."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..catalog import METHODS
from ..measure import first_orderness, paired_error, straightness
from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, check_finite, check_positive, shape, unknown
from . import on_paper, on_screen, style
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

FEW, FEW_ON_SCREEN = 16, 9
"""Up to so many states a path's states are dots on its line: in a file, and on a screen, where a browser takes longer
for dots than for all else."""
EXACT_NAME, ONE_STEP_NAME = "exact end", "after one step"
TIME_HEAD, SCALED_HEAD = "$x_1$ against t", "$y_1$ against α/σ (dashed: straight)"
GUIDE_NAME = "straight: the line that a path ends on"
SCALED_LABEL = "$y_1 = x_1/\\sigma$"


# ---- paths in the plane


@dataclass(frozen=True)
class Planes:
    """Paths in the plane over one density: by panel the path, its head and colour, and, where it has some, rings
    (B, 2), which `ring_name` names."""

    paths: Mapping[str, Trajectory]
    behind: Density
    heads: list[str]
    colors: dict[str, str]
    rings: Mapping[str, Tensor]
    ring_name: str

    @property
    def deepest(self) -> int:
        """How many lines more than one a head has."""
        return max(head.count("\n") for head in self.heads)


def trajectory_planes(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    solvers: Mapping[str, str] | None,
    exact: Tensor | None,
) -> Planes:
    """What `trajectories` draws."""
    style.check_planes(paths)
    behind = style.as_density(background, [path.xs for path in paths.values()])
    colors = {name: style.panel_color(name, solvers) for name in paths}
    rings = {} if exact is None else dict.fromkeys(paths, exact)
    return Planes(paths, behind, list(paths), colors, rings, EXACT_NAME)


def reflow_planes(
    paths: Mapping[str, Trajectory], background: GaussianMixture | Density, one_step: Mapping[str, Tensor] | None
) -> Planes:
    """What `reflow` draws; a head has the paths' normalised straightness, and the root mean square error of one
    step."""
    style.check_planes(paths)
    one_step = one_step or {}
    for name, ends in one_step.items():
        if name not in paths:
            raise unknown("round with ends after one step", name, paths)
        if ends.shape != paths[name].end.shape:
            raise ValueError(
                f"the ends after one step of {name!r} must have the shape of its samples, "
                f"{shape(paths[name].end)}, got {shape(ends)}"
            )
    heads = []
    for name, path in paths.items():
        words = f"S = {style.number(straightness(path, normalised=True))} (0: straight)"
        if name in one_step:
            words += f", one-step error {style.number(paired_error(one_step[name].to(path.end), path.end).rms)}"
        heads.append(f"{name}\n{words}")
    behind = style.as_density(background, [*(path.xs for path in paths.values()), *one_step.values()])
    colors = dict.fromkeys(paths, METHODS["rectified-flow"].color)
    return Planes(paths, behind, heads, colors, one_step, ONE_STEP_NAME)


def trajectories_static(
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
    return _planes_static(trajectory_planes(paths, background, solvers, exact), title)


def trajectories_interactive(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    solvers: Mapping[str, str] | None = None,
    exact: Tensor | None = None,
    lines: int | None = None,
    title: str = "",
) -> "go.Figure":
    """As `trajectories_static`, with a time slider that moves all panels to the same time: a sampler with few steps
    waits where its last step left it. Axes stay fixed in all frames.

    lines: how many samples are drawn, each with its path, its state and its exact end; None for all.
    """
    return _planes_interactive(trajectory_planes(paths, background, solvers, exact), lines, title)


def reflow_static(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    one_step: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> "Figure":
    """Rounds of reflow side by side: paths in the plane over the data's density, a panel an entry of `paths` (title:
    trajectory).

    A title holds the normalised straightness S of the paths (`measure.straightness`, 0 where they are straight and of
    constant speed). one_step: of some or all panels, where one step from the same noise ends, (B, 2), drawn as rings: a
    dot in its ring needs no second step. Their root mean square distance to the paths' ends is in the title.
    `ValueError` for paths that are not in the plane, or kept their ends only, and for ends of another name or shape.
    """
    return _planes_static(reflow_planes(paths, background, one_step), title)


def reflow_interactive(
    paths: Mapping[str, Trajectory],
    background: GaussianMixture | Density,
    *,
    one_step: Mapping[str, Tensor] | None = None,
    lines: int | None = None,
    title: str = "",
) -> "go.Figure":
    """As `reflow_static`, with a time slider. lines: as for `trajectories_interactive`; all samples are measured."""
    return _planes_interactive(reflow_planes(paths, background, one_step), lines, title)


@on_paper.styled()
def _planes_static(drawn: Planes, title: str) -> "Figure":
    columns = len(drawn.paths)
    figure = on_paper.empty(4.4 * columns, (5.0 if title else 4.6) + 0.2 * drawn.deepest, title)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, head, (name, path) in zip(panels, drawn.heads, drawn.paths.items(), strict=True):
        on_paper.plane(axes, drawn.behind)
        color, marker = drawn.colors[name], "." if len(path.ts) <= FEW else ""
        _, xs = style.drawn(path)
        axes.plot(xs[..., 0], xs[..., 1], color=color, lw=1, alpha=0.7, marker=marker, ms=4)
        axes.plot(xs[-1, :, 0], xs[-1, :, 1], "o", color=color, ms=5, label="sample")
        if name in drawn.rings:
            ring = {"mfc": "none", "mec": style.EXACT_COLOR, "ms": 10, "mew": 1.1, "label": drawn.ring_name}
            axes.plot(*style.numbers(drawn.rings[name]).T, "o", **ring)
        axes.set_title(head)
    named = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    labelled = {label: handle for handle, label in named}
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper right", ncols=2)
    return figure


def _planes_interactive(drawn: Planes, lines: int | None, title: str) -> "go.Figure":

    if lines is not None:
        check_count(lines, "lines")
    height, columns = 620 + 20 * drawn.deepest, len(drawn.paths)
    figure = on_screen.panels(1, columns, drawn.heads, title, height, horizontal_spacing=0.01)
    moving, ringed = [], next(iter(drawn.rings), None)
    for k, (name, path) in enumerate(drawn.paths.items(), 1):
        at, color = {"row": 1, "col": k}, drawn.colors[name]
        on_screen.plane(figure, drawn.behind, **at)
        figure.add_scatter(
            **on_screen.joined(style.drawn(path)[1][:, :lines]),
            mode="lines+markers" if len(path.ts) <= FEW_ON_SCREEN else "lines",
            line={"color": color, "width": 1},
            marker={"size": 4},
            opacity=0.55,
            hoverinfo="skip",
            **on_screen.grouped("path", k == 1) | at,
        )
        if name in drawn.rings:
            on_screen.rings(figure, drawn.rings[name][:lines], drawn.ring_name, **at, first=name == ringed)
        end = style.numbers(path.end[:lines])
        figure.add_scatter(
            x=end[:, 0],
            y=end[:, 1],
            mode="markers",
            marker={"size": 8, "color": color, "line": {"width": 1, "color": "white"}},
            hovertemplate=f"{on_screen.HERE}<extra></extra>",
            **on_screen.grouped("state at time t", k == 1) | at,
        )
        moving.append(len(figure.data) - 1)

    def states(t: float) -> list[Mapping]:
        return [on_screen.dots(path.xs[reached(path, t)][:lines]) for path in drawn.paths.values()]

    _time_slider(figure, drawn.paths, moving, states)
    on_screen.together(figure, [(1, k) for k in range(1, columns + 1)])
    figure.layout.legend = on_screen.ABOVE | {"y": 1.08 + 0.06 * drawn.deepest}
    return figure


def frame_times(paths: Mapping[str, Trajectory]) -> list[float]:
    """The times at which any path has a state that is drawn, from noise to data; those of the longest path spread by
    `thin`."""
    longest, most = max(paths.values(), key=lambda path: len(path.ts)), on_screen.MOST_FRAMES
    others = [path.ts for path in paths.values() if path is not longest and len(path.ts) <= most // 2]
    times = torch.cat([longest.ts[style.thin(longest, most)], *others]).double()
    return times.unique().flip(0).tolist()


def reached(path: Trajectory, t: float) -> int:
    """The last state at or before time t of a walk from noise to data."""
    return max(int((path.ts.double() >= t - 1e-12).sum()) - 1, 0)


def _time_slider(
    figure: "go.Figure",
    paths: Mapping[str, Trajectory],
    moving: Sequence[int],
    states: Callable[[float], list[Mapping]],
) -> None:
    """A frame a time, in which the traces `moving` have the places (x, y) of that time, and a slider; it starts at the
    last, where the samples are."""
    times = frame_times(paths)
    figure.frames = [
        {"name": str(k), "traces": moving, "data": [{"type": "scatter", **places} for places in states(t)]}
        for k, t in enumerate(times)
    ]
    on_screen.slider(figure, [f"{t:.3f}" for t in times], "time t = ", len(times) - 1)


# ---- paths rescaled


def at_data_scale(path: Trajectory, schedule: Schedule) -> Trajectory:
    """The path of x / sqrt(alpha^2 + sigma^2), and its sweeps where it has some: noise is as wide as data of size 1 at
    all times, and at t = 0 nothing changes. Without it VE's noise, hundreds of times as wide, makes the data a dot."""
    ts = path.ts.double()
    scale = (schedule.alpha(ts) ** 2 + schedule.sigma(ts) ** 2).sqrt().to(path.xs)[:, None, None]
    sweeps = None if path.sweeps is None else path.sweeps / scale
    return replace(path, xs=path.xs / scale, sweeps=sweeps)


def rescale(path: Trajectory, schedule: Schedule, reach: float) -> tuple[Tensor, Trajectory]:
    """y = x/sigma = (alpha/sigma) x_0 + eps against e^lambda = alpha/sigma (arXiv 2410.07303): where a first-order path
    is straight.

    Returns (e^lambda (M,), the path of those M states whose e^lambda is at most `reach`, with y in the place of x). At
    t = 0 both are infinite, so `reach` cuts the end off. `ValueError` if fewer than two states are left.
    """
    check_positive(reach, "reach")
    ts = path.ts.double().cpu()
    snr = torch.exp(schedule.lam(ts))
    kept = snr <= reach
    if int(kept.sum()) < 2:
        raise ValueError(
            f"fewer than two states of the path have alpha/sigma <= {reach:g}; use a larger reach or more steps"
        )
    y = path.xs.double().cpu()[kept] / schedule.sigma(ts[kept])[:, None, None]
    return snr[kept], Trajectory(ts[kept], y, path.x0s[:0], path.nfe, path.rounds, path.seconds)


def extended(levels: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The straight line that a path (M,), (M, B) ends on, from its first level to its last: levels (2,) and values
    (2, B)."""
    slope = (ys[-1] - ys[-2]) / (levels[-1] - levels[-2])
    return levels[[0, -1]], np.stack([ys[-1] - slope * (levels[-1] - levels[0]), ys[-1]])


@dataclass(frozen=True)
class Scaled:
    """A path's first coordinate y_1 = x_1/sigma, thinned, at levels alpha/sigma: levels (M,), ys (M, B), and the line
    that each path ends on, levels (2,) and ys (2, B). `snr` and `whole` are all levels and states."""

    levels: np.ndarray
    ys: np.ndarray
    guide: tuple[np.ndarray, np.ndarray]
    snr: Tensor
    whole: Trajectory


def scaled(path: Trajectory, schedule: Schedule, reach: float) -> Scaled:
    """A path as the last column of `rescaled` has it; `ValueError` as `rescale`."""
    snr, y = rescale(path, schedule, reach)
    kept = style.thin(y)
    levels, ys = snr[kept].numpy(), y.xs[kept].numpy()[..., 0]
    return Scaled(levels, ys, extended(levels, ys), snr, y)


def path_color(b: int) -> str:
    """The colour of a figure's path number b."""
    return style.PATH_COLORS[b % len(style.PATH_COLORS)]


@dataclass(frozen=True)
class Row:
    """A row of `rescaled`: a path in the plane, its thinned states at times ts (M,), xs (M, B, 2), the same rescaled,
    and the three heads."""

    path: Trajectory
    behind: Density
    ts: np.ndarray
    xs: np.ndarray
    scaled: Scaled
    heads: tuple[str, str, str]


def rescaled_rows(
    paths: Mapping[str, Trajectory],
    schedule: Schedule,
    backgrounds: Mapping[str, GaussianMixture | Density],
    reach: float,
    measured: bool,
) -> list[Row]:
    """What `rescaled` draws."""
    style.check_planes(paths)
    missing = [name for name in paths if name not in backgrounds]
    if missing:
        raise ValueError(f"no background for {', '.join(map(repr, missing))}; give one for each of the paths")
    rows = []
    for name, path in paths.items():
        heads = name, TIME_HEAD, SCALED_HEAD
        if measured:
            S, C = straightness(path, normalised=True), first_orderness(path, schedule, normalised=True)
            bent, varying = f"S = {style.number(S)} (0: straight)", f"C = {style.number(C)} (0: first-order)"
            heads = name, f"{TIME_HEAD}\n{bent}", f"{SCALED_HEAD}\n{varying}"
        behind = style.as_density(backgrounds[name], [path.xs])
        rows.append(Row(path, behind, *style.drawn(path), scaled(path, schedule, reach), heads))
    return rows


@on_paper.styled()
def rescaled_static(
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
    as in `trajectories_static`, or where a background is missing, or nothing can be measured.
    """
    rows = rescaled_rows(paths, schedule, backgrounds, reach, measured)
    figure = on_paper.empty(13.5, 3.9 * len(rows) + 0.4, title)
    grid = figure.add_gridspec(len(rows), 3, width_ratios=(1, 1.35, 1.35))
    for k, row in enumerate(rows):
        plane, time, straight = panels = [figure.add_subplot(grid[k, j]) for j in range(3)]
        on_paper.plane(plane, row.behind)
        for b in range(row.xs.shape[1]):
            line: dict[str, Any] = {"color": path_color(b), "lw": 1.8}
            plane.plot(*row.xs[:, b].T, **line)
            plane.plot(*row.xs[-1, b], "o", color=path_color(b), ms=5)
            time.plot(row.ts, row.xs[:, b, 0], **line)
            straight.plot(row.scaled.guide[0], row.scaled.guide[1][:, b], color=style.GREY, lw=1, ls="--")
            straight.plot(row.scaled.levels, row.scaled.ys[:, b], **line)
        time.set(xlim=(1, 0), xlabel=style.TIME_LABEL, ylabel=style.X1)
        straight.set(xlim=(0, reach), xlabel=style.SNR_LABEL, ylabel=SCALED_LABEL)
        for axes, head in zip(panels, row.heads, strict=True):
            axes.set_title(head)
    return figure


def rescaled_interactive(
    paths: Mapping[str, Trajectory],
    schedule: Schedule,
    backgrounds: Mapping[str, GaussianMixture | Density],
    *,
    reach: float = 3.0,
    measured: bool = False,
    title: str = "",
) -> "go.Figure":
    """As `rescaled_static`, with one time slider for all panels. Once a path has left the frame at alpha/sigma =
    `reach`, its dot waits there."""

    rows = rescaled_rows(paths, schedule, backgrounds, reach, measured)
    spacing = {"horizontal_spacing": 0.07, "vertical_spacing": 0.2 / len(rows)}
    heads = [head for row in rows for head in row.heads]
    figure = on_screen.panels(len(rows), 3, heads, title, 400 * len(rows) + 180, **spacing)
    moving: list[int] = []
    for k, row in enumerate(rows, 1):
        on_screen.plane(figure, row.behind, k, 1)
        ys, (levels, guide) = row.scaled.ys, row.scaled.guide
        colors = [path_color(b) for b in range(row.xs.shape[1])]
        for b, color in enumerate(colors):
            line, dashed = {"color": color, "width": 2}, {"color": style.GREY, "width": 1, "dash": "dash"}
            for column, x, y, how in (
                (1, row.xs[:, b, 0], row.xs[:, b, 1], line),
                (2, row.ts, row.xs[:, b, 0], line),
                (3, levels, guide[:, b], dashed),
                (3, row.scaled.levels, ys[:, b], line),
            ):
                figure.add_scatter(x=x, y=y, mode="lines", line=how, hoverinfo="skip", row=k, col=column)
        marker = {"size": 9, "color": colors, "line": {"width": 1, "color": "white"}}
        for column, places in enumerate(_row_states(row, 0.0), 1):
            moving.append(len(figure.data))
            figure.add_scatter(**places, mode="markers", marker=marker, hoverinfo="x+y", row=k, col=column)
        x_range = style.padded(row.xs[..., 0].min(), row.xs[..., 0].max())
        y_range = style.padded(min(ys.min(), guide.min()), max(ys.max(), guide.max()))
        figure.update_xaxes(title_text=style.TIME_LABEL, range=[1, 0], row=k, col=2)
        figure.update_yaxes(title_text=on_screen.words(style.X1), range=x_range, row=k, col=2)
        figure.update_xaxes(title_text=style.SNR_LABEL, range=[0, reach], row=k, col=3)
        figure.update_yaxes(title_text=on_screen.words(SCALED_LABEL), range=y_range, row=k, col=3)

    def states(t: float) -> list[Mapping]:
        return [places for row in rows for places in _row_states(row, t)]

    _time_slider(figure, paths, moving, states)
    figure.update_layout(showlegend=False)
    return figure


def _row_states(row: Row, t: float) -> list[dict[str, np.ndarray]]:
    """Where the paths are at time t in each of the three columns of `rescaled`."""
    k, j = reached(row.path, t), reached(row.scaled.whole, t)
    x, y = style.numbers(row.path.xs[k]), row.scaled.whole.xs[j].numpy()
    at = np.ones(len(x))
    return [
        {"x": x[:, 0], "y": x[:, 1]},
        {"x": at * float(row.path.ts[k]), "y": x[:, 0]},
        {"x": at * float(row.scaled.snr[j]), "y": y[:, 0]},
    ]


def lines_interactive(
    paths: Mapping[str, Trajectory],
    schedules: Mapping[str, Schedule],
    *,
    reach: float = 4.0,
    samples: int = 24,
    title: str = "",
) -> "go.Figure":
    """The first coordinate of paths, a column an entry of `paths`: x against t above, and below y = x/sigma =
    (alpha/sigma) x_0 + eps against alpha/sigma (arXiv 2410.07303).

    In y a first-order path is a straight line, whatever the schedule; dashed is the line that each path ends on.
    Panels of a row share their axes. reach: the largest alpha/sigma that is drawn; samples: how many paths are. Heads
    say how far all of them are from straight in x (S) and from first order (C), normalised. `ValueError` for paths
    that are not in the plane or have no schedule, and a reach with fewer than two states.
    """
    style.check_planes(paths)
    check_count(samples, "samples")
    for name in paths:
        if name not in schedules:
            raise unknown("path with a schedule", name, schedules)
    heads: tuple[list[str], list[str]] = ([], [])
    rows: tuple[list[tuple[np.ndarray, ...]], ...] = ([], [])
    for name, path in paths.items():
        S, C = straightness(path, normalised=True), first_orderness(path, schedules[name], normalised=True)
        heads[0].append(f"{name}\nin x: S = {style.number(S)}")
        heads[1].append(f"in y: C = {style.number(C)}")
        ts, xs = style.drawn(path)
        rows[0].append((ts, xs[:, :samples, 0]))
        found = scaled(path, schedules[name], reach)
        rows[1].append((found.levels, found.ys[:, :samples], *found.guide))
    spacing = {"horizontal_spacing": 0.05, "vertical_spacing": 0.2, "shared_yaxes": True}
    figure = on_screen.panels(2, len(paths), [*heads[0], *heads[1]], title, 820, **spacing)
    grey = {"color": style.GREY, "width": 1.5, "dash": "dash"}
    for row, (drawn, label, limits, name) in enumerate(
        ((rows[0], style.TIME_LABEL, [1, 0], style.X1), (rows[1], style.SNR_LABEL, [0, reach], SCALED_LABEL)), 1
    ):
        values = np.concatenate([ys.ravel() for _, ys, *_ in drawn])
        for col, (at, ys, *guide) in enumerate(drawn, 1):
            here = {"mode": "lines", "row": row, "col": col}
            for b in range(ys.shape[1]):
                if guide:
                    named = on_screen.grouped(GUIDE_NAME, b == 0 and col == 1)
                    figure.add_scatter(x=guide[0], y=guide[1][:, b], line=grey, hoverinfo="skip", **named, **here)
                line = {"color": path_color(b), "width": 3}
                hover = f"{on_screen.HERE}<extra></extra>"
                figure.add_scatter(x=at, y=ys[:, b], line=line, hovertemplate=hover, showlegend=False, **here)
            figure.update_xaxes(title_text=label, range=limits, zeroline=False, row=row, col=col)
        figure.update_yaxes(range=style.padded(float(values.min()), float(values.max())), zeroline=False, row=row)
        figure.update_yaxes(title_text=on_screen.words(name), row=row, col=1)
    return figure.update_layout(showlegend=True, legend=on_screen.ABOVE | {"y": 1.08})


# ---- points in the plane


@on_paper.styled()
def samples_static(
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
    figure = on_paper.empty(4.4 * len(points), 5.0 if title else 4.6, title)
    for axes, (name, cloud) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        on_paper.plane(axes, behind)
        axes.plot(*style.numbers(cloud).T, ".", color=style.panel_color(name, solvers), ms=3, alpha=0.6)
        axes.set_title(name)
    return figure


def samples_interactive(
    points: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    colors: Sequence[str] | None = None,
    prefix: str = "",
    active: int = 0,
    title: str = "",
) -> "go.Figure":
    """As `samples_static`, in one panel, with a slider over the entries of `points`; `prefix` stands before a name.

    colors: one a point, the same in all entries. active: the entry that is seen first. `ValueError` for points that are
    not in the plane, or no colour or not one a point, and for another `active`.
    """
    import plotly.graph_objects as go

    style.check_points(points)
    if active not in range(len(points)):
        raise ValueError(f"active must be one of the entries 0 to {len(points) - 1}, got {active!r}")
    for name, cloud in points.items():
        if colors is not None and len(colors) != len(cloud):
            raise ValueError(f"{name!r} has {len(cloud)} points, got {len(colors)} colors")
    figure = on_screen.panels(1, 1, [""], title, 620)
    on_screen.plane(figure, style.as_density(background, list(points.values())), 1, 1)
    marker = {"size": 5, "color": style.BLUE if colors is None else list(colors)}
    hover = {"showlegend": False, "hovertemplate": f"{on_screen.HERE}<extra></extra>"}
    figure.add_scatter(mode="markers", marker=marker, **hover, row=1, col=1)
    last = len(figure.data) - 1
    figure.frames = [
        go.Frame(name=str(k), traces=[last], data=[go.Scatter(**on_screen.dots(cloud))])
        for k, cloud in enumerate(points.values())
    ]
    on_screen.open_at(figure, active)
    on_screen.slider(figure, [on_screen.words(name) for name in points], prefix, active)
    return figure


def pairs_interactive(
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
    if not couplings:
        raise ValueError("there is nothing to draw: give at least one coupling")
    for name, (noise, data) in couplings.items():
        style.check_points({f"the noise of {name}": noise, f"the data of {name}": data})
        if noise.shape != data.shape or meeting[name].shape != noise.shape[:1]:
            raise ValueError(
                f"the coupling {name!r} needs as many data and marks as noise, {shape(noise)}, "
                f"got {shape(data)} and {shape(meeting[name])}"
            )
        check_finite(data, f"the data of {name}")
    behind = style.as_density(background, [x for pair in couplings.values() for x in pair])
    heads = [f"{n}\n{int(meeting[n].sum())} of {len(meeting[n])} lines meet" for n in couplings]
    figure = on_screen.panels(1, len(couplings), heads, title, 640, horizontal_spacing=0.03)
    for column, (name, pair) in enumerate(couplings.items(), 1):
        on_screen.plane(figure, behind, 1, column)
        ends = np.stack([style.numbers(x) for x in pair])
        marks = meeting[name].cpu().numpy().astype(bool)
        at = {"hoverinfo": "skip", "row": 1, "col": column}
        for which, color, width, words in (
            (~marks, style.GREY, 1.0, "pair"),
            (marks, style.VERMILLION, 2.2, "meets another"),
        ):
            line = {"color": color, "width": width}
            named = on_screen.grouped(words, column == 1)
            figure.add_scatter(**on_screen.joined(ends[:, which]), mode="lines", line=line, **named, **at)
        for points, symbol, words in ((ends[0], "circle-open", "noise"), (ends[1], "circle", "data")):
            marker = {"size": 6, "symbol": symbol, "color": style.BLUE}
            named = on_screen.grouped(words, column == 1)
            figure.add_scatter(**on_screen.dots(points), mode="markers", marker=marker, **named, **at)
    on_screen.together(figure, [(1, k) for k in range(1, len(couplings) + 1)])
    figure.update_layout(legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.14, "yanchor": "bottom"})
    return figure
