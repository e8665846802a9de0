"""Sweeps of parallel samplers, what is accepted after each and how wrong it is, and what the samplers spend."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..mixtures import GaussianMixture
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, shape
from . import on_paper, on_screen, style
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

POINT_LABEL = "grid point i, and its t (1 noise, 0 data)"
ERROR_LABEL = "median error (distance)"
STEPS_LABEL = "T (steps of the grid)"
SECONDS_LABEL = "wall-clock (s)"

LIMITS = 1e-10, 1e3
"""The errors that colours distinguish: below, only rounding is left; above, an iterate has exploded."""
ACCEPTED_COLOR, MOVING_COLOR, CURSOR_COLOR = style.BLUE, style.ORANGE, style.GREEN
"""The accepted points of a sweep, those that still move, and the row of a heat map that belongs to the sweep on
show."""
GUARANTEED_NAME, GUARANTEED_BLOCKS_NAME, ACCEPTED_NAME = (
    "guaranteed: the first k points",
    "guaranteed: the first k blocks",
    "accepted",
)
MOVING_NAME, TARGET_NAME = "not yet accepted", "end to reach"


# ---- the heat map


def check_sweeps(path: Trajectory, exact: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sweeps (K+1, N+1, B, ...), and the path that they are compared with, (N+1, B, ...): `exact`, or where they
    arrived. `ValueError` if none were kept, or shapes differ."""
    if path.sweeps is None:
        raise ValueError("there are no sweeps to draw: solve with a parallel solver, such as picard, and keep='path'")
    if exact is None:
        return path.sweeps, path.xs
    if not isinstance(exact, Tensor) or exact.shape != path.xs.shape:
        got = shape(exact) if isinstance(exact, Tensor) else type(exact).__name__
        raise ValueError(f"exact must be a path like the trajectory's, {shape(path.xs)}, got {got}")
    return path.sweeps, exact.to(path.xs)


@dataclass(frozen=True)
class Errors:
    """What the heat map shows.

    - logs (K+1, N+1): log10 of the median error after sweep k at point i, within `LIMITS`;
    - limits: the range of the colours;
    - guaranteed, accepted: x and y of two staircases along the borders of cells. Points right of the first may still be
      wrong; points right of the second may still move;
    - guaranteed_name: what the first is called in the legend;
    - points: some of the grid's points, their numbers and their text, number and time t.
    """

    logs: np.ndarray
    limits: tuple[float, float]
    guaranteed: tuple[np.ndarray, np.ndarray]
    accepted: tuple[np.ndarray, np.ndarray]
    guaranteed_name: str
    points: tuple[list[int], list[str]]

    @property
    def x_range(self) -> tuple[float, float]:
        return -0.5, self.logs.shape[1] - 0.5

    @property
    def y_range(self) -> tuple[float, float]:
        """The first sweep is on top."""
        return len(self.logs) - 0.5, -0.5


def errors_of(path: Trajectory, exact: Tensor | None, block: int = 1) -> Errors:
    """The median over the samples of each sweep's distance to a path; block: how many points a sweep certainly makes
    exact. `ValueError` as `check_sweeps`, and for a block below 1."""
    check_count(block, "block")
    _, target = check_sweeps(path, exact)
    medians = np.median(style.numbers(path.errors(target)), axis=2)
    logs = np.log10(np.clip(np.nan_to_num(medians, nan=np.inf), *LIMITS))
    low, high = float(logs.min()), float(logs.max())
    k, last = np.arange(len(logs)), logs.shape[1] - 1
    places = sorted({round(j * last / 5) for j in range(6)})
    points = places, [f"{i}\n{float(path.ts[i]):.2g}" for i in places]
    guaranteed, accepted = _stairs(np.minimum(k * block, last)), _stairs(np.array(path.fronts))
    name = GUARANTEED_NAME if block == 1 else GUARANTEED_BLOCKS_NAME
    return Errors(logs, (low, max(high, low + 1)), guaranteed, accepted, name, points)


def _stairs(fronts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the staircase that runs, in each row k, down the right border of the cell `fronts[k]`."""
    k = np.arange(len(fronts))
    return np.repeat(fronts + 0.5, 2), np.stack([k - 0.5, k + 0.5], 1).ravel()


def error_ticks(low: float, high: float) -> tuple[list[int], list[str]]:
    """At most seven powers of ten between two exponents: the exponents, and their text. The least error of `LIMITS` is
    written as a bound, ≤."""
    first, last = math.ceil(low), math.floor(high)
    places = list(range(first, last + 1, 1 + (last - first) // 7))
    return places, [
        f"{'≤ ' if 10.0**e <= LIMITS[0] else ''}1e{e}" if e < -2 or e > 3 else f"{10.0**e:g}" for e in places
    ]


@on_paper.styled()
def sweep_errors_static(path: Trajectory, exact: Tensor | None = None, *, title: str = "") -> "Figure":
    """How wrong the path is after each sweep of a parallel sampler: a heat map, sweeps downwards, the grid's points
    across.

    Colour is the distance to `exact` (N+1, B, ...), such as the sequential path, the median over the samples; without
    an `exact` it is the distance to where the sweeps arrived. The solid line is the guaranteed staircase: after k
    sweeps the first k points are exact. The dashed line is the staircase of accepted points. With a tolerance these
    are slightly wrong, and stay so; with tolerance=None they are exact. `ValueError` if no sweeps were kept, or the
    shapes differ.
    """
    figure = on_paper.empty(9.0, 4.8 if title else 4.4, title)
    _heat_static(figure, figure.add_subplot(), errors_of(path, exact))
    return figure


def _heat_static(figure: "FigureBase", axes: "Axes", errors: Errors) -> None:
    """The heat map in one panel, its legend above it and its colours beside it."""
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    low, high = errors.limits
    colors: dict[str, Any] = {"cmap": style.SWEEP_COLORS, "vmin": low, "vmax": high}
    image = axes.imshow(errors.logs, aspect="auto", interpolation="nearest", **colors)
    line: dict[str, Any] = {"lw": 1.8, "path_effects": [withStroke(linewidth=4, foreground="white")]}
    axes.plot(*errors.guaranteed, color=style.INK, label=errors.guaranteed_name, **line)
    axes.plot(*errors.accepted, color=ACCEPTED_COLOR, ls="--", label=ACCEPTED_NAME, **line)
    axes.set(xlim=errors.x_range, ylim=errors.y_range, xlabel=POINT_LABEL, ylabel=style.SWEEP_LABEL)
    axes.set_xticks(*errors.points)
    axes.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.3)
    bar = figure.colorbar(image, ax=axes, label=ERROR_LABEL, pad=0.015)
    places, words = error_ticks(low, high)
    bar.set_ticks(places, labels=words)
    bar.outline.set_visible(False)


def _heat_interactive(figure: "go.Figure", errors: Errors, col: int) -> None:
    """The heat map in one panel, its colours beside it."""
    low, high = errors.limits
    places, words = error_ticks(low, high)
    bar = {"title": {"text": ERROR_LABEL, "side": "right"}, "thickness": 18, "outlinewidth": 0}
    figure.add_heatmap(
        z=errors.logs.astype(np.float32),
        zmin=low,
        zmax=high,
        colorscale=style.SWEEP_COLORS,
        colorbar=bar | {"tickvals": places, "ticktext": words},
        hovertemplate="sweep %{y}, point %{x}: error 10<sup>%{z:.1f}</sup><extra></extra>",
        row=1,
        col=col,
    )
    for (x, y), color, dash, name in (
        (errors.guaranteed, style.INK, "solid", errors.guaranteed_name),
        (errors.accepted, ACCEPTED_COLOR, "dash", ACCEPTED_NAME),
    ):
        named = {"name": name, "legendgroup": name, "hoverinfo": "skip", "row": 1, "col": col}
        halo, line = {"color": "white", "width": 5}, {"color": color, "width": 2, "dash": dash}
        figure.add_scatter(x=x, y=y, mode="lines", line=halo, showlegend=False, **named)
        figure.add_scatter(x=x, y=y, mode="lines", line=line, showlegend=True, **named)
    places, words = errors.points
    bare = {"showgrid": False, "zeroline": False, "row": 1, "col": col}
    ticks = {"tickvals": places, "ticktext": [on_screen.words(word) for word in words]}
    figure.update_xaxes(title_text=POINT_LABEL, range=errors.x_range, **ticks, **bare)
    figure.update_yaxes(title_text=style.SWEEP_LABEL, range=errors.y_range, **bare)
    _name_regions(figure, errors, col)


def _name_regions(figure: "go.Figure", errors: Errors, col: int) -> None:
    """What the cells left of the two stairs are, in them: they are pale in any light."""
    last, wide = len(errors.logs) - 1, errors.logs.shape[1]
    note = {"showarrow": False, "font": {"color": "#111111"}, "row": 1, "col": col}
    left = {"x": 0.02 * wide - 0.5, "xanchor": "left", "align": "left"}
    figure.add_annotation(text="exact for certain", y=0.93 * last, **left, **note)
    k = round(0.8 * last)
    figure.add_annotation(text="as good as exact", x=errors.accepted[0][2 * k] - 0.5, y=k, xanchor="right", **note)


# ---- the paths after some sweeps


@dataclass(frozen=True)
class Sweep:
    """The path after sweep k in two parts, both thinned, which share the last accepted point: the accepted points
    (M, B, 2), and those that still move. `color` is that of the samples."""

    k: int
    accepted: np.ndarray
    moving: np.ndarray
    color: str
    head: str


@dataclass(frozen=True)
class Sweeps:
    """Some sweeps over the density, and the ends to reach (B, 2)."""

    shown: list[Sweep]
    behind: Density
    ends: Tensor


def shown_sweeps(last: int, most: int) -> list[int]:
    """Which of the sweeps 0 ... `last` to show: all, or about `most` of them whose numbers grow by one factor, such as
    0, 1, 2, 4, 8, 16."""
    if last < most:
        return list(range(last + 1))
    return sorted({0, last} | {round(last ** (j / (most - 2))) for j in range(most - 2)})


def sweeps_of(
    path: Trajectory,
    background: GaussianMixture | Density,
    exact: Tensor | None,
    most: int,
    samples: int,
    also: Set[int] = frozenset(),
) -> Sweeps:
    """What the figures of paths draw, the sweeps `also` in any case; `ValueError` if no sweeps were kept, states are
    not in the plane, or `most` or `samples` is too small."""
    sweeps, target = check_sweeps(path, exact)
    style.check_planes({"path": path})
    check_count(samples, "samples")
    kept, last, found = style.thin(path), len(path.ts) - 1, []
    for k in sorted({*shown_sweeps(len(sweeps) - 1, check_count(most, "most", 3)), *also}):
        front, xs = path.fronts[k], sweeps[k, :, :samples].cpu()
        at = torch.tensor([front])
        parts = kept[kept <= front], kept[kept >= front]
        accepted, moving = (style.numbers(xs[torch.cat([part, at]).unique()]) for part in parts)
        color = ACCEPTED_COLOR if front == last else MOVING_COLOR
        found.append(Sweep(k, accepted, moving, color, f"k = {k}: {front} of {last} accepted"))
    return Sweeps(found, style.as_density(background, [path.xs]), target[-1, :samples])


@on_paper.styled()
def sweeps_static(
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

    exact (N+1, B, 2): the path to arrive at, whose ends are drawn as rings; None for where the sweeps arrived. most:
    the largest number of panels. samples: how many are drawn. `ValueError` if no sweeps were kept, or states are not
    in the plane.
    """
    drawn = sweeps_of(path, background, exact, most, samples)
    columns = min(3, len(drawn.shown))
    lines = math.ceil(len(drawn.shown) / columns)
    figure = on_paper.empty(4.2 * columns, 4.3 * lines + 0.6, title)
    _panels_static(figure, figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel(), drawn)
    return figure


def _panels_static(figure: "FigureBase", panels: np.ndarray, drawn: Sweeps) -> None:
    """A sweep a panel, all with the same axes, and one legend above them."""
    for axes, sweep in zip(panels, drawn.shown, strict=False):
        on_paper.plane(axes, drawn.behind)
        axes.label_outer()
        for xs, color, name in (
            (sweep.moving, MOVING_COLOR, MOVING_NAME),
            (sweep.accepted, ACCEPTED_COLOR, ACCEPTED_NAME),
        ):
            axes.plot(xs[..., 0], xs[..., 1], color=color, lw=1.3, alpha=0.8)[0].set_label(name)
        axes.plot(*sweep.moving[-1].T, "o", color=sweep.color, ms=4)
        ring = {"mfc": "none", "mec": style.EXACT_COLOR, "ms": 8, "mew": 1}
        axes.plot(*style.numbers(drawn.ends).T, "o", label=TARGET_NAME, **ring)
        axes.set_title(sweep.head)
    for axes in panels[len(drawn.shown) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)


@on_paper.styled()
def staircase_static(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = 5,
    samples: int = 24,
    title: str = "",
) -> "Figure":
    """The paths after some sweeps above the heat map of their errors: `sweeps_static` and `sweep_errors_static` in one
    figure."""
    drawn = sweeps_of(path, background, exact, most, samples)
    columns = len(drawn.shown)
    figure = on_paper.empty(2.95 * columns, 7.8, title)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1), squeeze=False)[:, 0]
    _panels_static(above, above.subplots(1, columns, sharey=True, squeeze=False).ravel(), drawn)
    _heat_static(below, below.subplots(), errors_of(path, exact))
    return figure


def staircase_interactive(
    path: Trajectory,
    background: GaussianMixture | Density,
    *,
    exact: Tensor | None = None,
    most: int = on_screen.MOST_FRAMES,
    samples: int = 24,
    block: int = 1,
    active: int | None = None,
    title: str = "",
) -> "go.Figure":
    """The paths beside the heat map of their errors, with one slider over the sweeps; most: frames. A green box in the
    heat map marks the row of the sweep on show.

    block: how many points a sweep certainly makes exact: the steps of a block of Parareal. active: the sweep that is
    shown first, None for that of the third frame. `ValueError` as `sweep_errors_static`, and for another `active`.
    """
    from matplotlib import colormaps

    sweeps, _ = check_sweeps(path, exact)
    if active is not None and active not in range(len(sweeps)):
        raise ValueError(f"active must be one of the sweeps 0 to {len(sweeps) - 1}, got {active!r}")
    drawn = sweeps_of(path, background, exact, most, samples, set() if active is None else {active})
    errors = errors_of(path, exact, block)
    spacing = {"horizontal_spacing": 0.09, "column_widths": [0.42, 0.58]}
    walk = len(path.ts) - 1
    head = f"{path.rounds} rounds instead of {walk}, {path.nfe / walk:.2g} times the calls"
    figure = on_screen.panels(1, 2, ["", head], title, 680, **spacing)
    _heat_interactive(figure, errors, 2)
    low, high = errors.limits
    cells = colormaps[style.SWEEP_COLORS]((errors.logs - low) / (high - low))[..., :3]
    sharp = on_screen.enlarged((cells * 255).round().astype(np.uint8), *(1000 // n for n in errors.logs.shape))
    on_screen.picture(figure, sharp, (*errors.x_range, *errors.y_range), 1, 2, "heat")
    shown = [sweep.k for sweep in drawn.shown]
    _frames(figure, drawn, errors.x_range, min(2, len(shown) - 1) if active is None else shown.index(active))
    return figure


def _frames(figure: "go.Figure", drawn: Sweeps, row: tuple[float, float], active: int) -> None:
    """The paths in the first panel, and a frame a sweep; it starts at the frame `active`.

    row: from where to where the box around a sweep's row of the heat map runs.
    """
    import plotly.graph_objects as go

    box = len(figure.data)
    line = {"color": CURSOR_COLOR, "width": 3}
    figure.add_scatter(mode="lines", line=line, showlegend=False, hoverinfo="skip", row=1, col=2)
    on_screen.plane(figure, drawn.behind, 1, 1)
    on_screen.rings(figure, drawn.ends, TARGET_NAME, 1, 1)
    first = len(figure.data)
    traces = [first, first + 1, first + 2, box]
    for color, name in ((MOVING_COLOR, MOVING_NAME), (ACCEPTED_COLOR, ACCEPTED_NAME)):
        line = {"color": color, "width": 1.6}
        # the heat map's staircase names the accepted points, in the same colour
        named = {"name": name, "showlegend": name == MOVING_NAME}
        figure.add_scatter(mode="lines", line=line, opacity=0.8, hoverinfo="skip", **named, row=1, col=1)
    hover = {"showlegend": False, "hovertemplate": f"{on_screen.HERE}<extra></extra>"}
    figure.add_scatter(mode="markers", name="sample", **hover, row=1, col=1)
    frames = []
    for j, sweep in enumerate(drawn.shown):
        marker = {"size": 7, "color": sweep.color, "line": {"width": 1, "color": "white"}}
        data = [go.Scatter(**on_screen.joined(xs)) for xs in (sweep.moving, sweep.accepted)]
        data.append(go.Scatter(**on_screen.dots(sweep.moving[-1]), marker=marker))
        (left, right), top, bottom = row, sweep.k - 0.5, sweep.k + 0.5
        data.append(go.Scatter(x=[left, right, right, left, left], y=[top, top, bottom, bottom, top]))
        frames.append(go.Frame(name=str(j), traces=traces, data=data))
    figure.frames = frames
    on_screen.open_at(figure, active)
    on_screen.slider(figure, [str(sweep.k) for sweep in drawn.shown], "after sweep k = ", active)
    figure.update_layout(legend=on_screen.ABOVE | {"x": 0, "xanchor": "left", "y": 1.06})  # above the head


# ---- samplers compared

_KEYS = ("method", "steps", "rounds", "nfe", "seconds", "seconds_with_cost", "cost_per_call", "curve")


def by_method(rows: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The rows of a comparison of parallel samplers by method, each group by T; a row is what `toydiff parallel --json`
    writes.

    `ValueError` for a table without rows, rows that lack something, and two rows of one method and T, which a figure
    cannot distinguish.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the comparison has no rows")
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        missing = [key for key in _KEYS if key not in row]
        missing += [f"curve.{key}" for key in ("rounds", "median", "p95") if "curve" in row and key not in row["curve"]]
        if missing:
            raise ValueError(f"a row of a comparison of parallel samplers lacks {', '.join(missing)}")
        style.parallel_marking(row["method"])
        if len({len(row["curve"][key]) for key in ("rounds", "median", "p95")}) > 1:
            raise ValueError(f"the curve of {row['method']!r} must have as many rounds as errors")
        group = groups.setdefault(row["method"], [])
        if any(other["steps"] == row["steps"] for other in group):
            raise ValueError(
                f"two rows of {row['method']!r} with {row['steps']} steps: "
                "draw one problem, schedule and setting at a time"
            )
        group.append(row)
    return {method: sorted(group, key=lambda row: row["steps"]) for method, group in groups.items()}


def shared_steps(groups: Mapping[str, Sequence[Mapping]]) -> int:
    """Of the T at which the most methods have a curve of errors, the largest. The sequential walk has no curve.
    `ValueError` if no row has one."""
    drawable = [row["steps"] for group in groups.values() for row in group if row["curve"]["rounds"]]
    if not drawable:
        raise ValueError("there is nothing to draw: no row has a curve of errors, so none is of a parallel sampler")
    return max(drawable, key=lambda steps: (drawable.count(steps), steps))


def rounds_needed(row: Mapping, target: float | None, which: str = "median") -> float:
    """The first round after which the error is at most `target`, NaN if there is none. Without a target, and for the
    sequential walk, which reaches its own end last, all rounds."""
    curve = row["curve"]
    if target is None or not curve["rounds"]:
        return row["rounds"]
    return next((n for n, error in zip(curve["rounds"], curve[which], strict=True) if error <= target), math.nan)


def curve(row: Mapping, which: str) -> tuple[np.ndarray, np.ndarray]:
    """The "median" or "p95" error of a row against rounds, as logarithmic axes can show it: from the first round on,
    and within `LIMITS`."""
    n, e = (np.array(row["curve"][key], dtype=float) for key in ("rounds", which))
    return n[n > 0], np.clip(e[n > 0], *LIMITS)


@on_paper.styled()
def rounds_static(rows: Sequence[Mapping], *, target: float | None = None, title: str = "") -> "Figure":
    """What parallel samplers save, from the rows of `toydiff parallel --json`, in three panels.

    1. Rounds against T, the number of steps: those until the median error is at most `target`, and, thin, until the
       95th percentile is. Without a target, all rounds that were spent.
    2. Error, the distance to the sequential end, against rounds, at the largest T that most methods have.
    3. Seconds at this T, as they are, and with a cost added to each call. A method wins where its mark is left of the
       sequential line of the same kind.

    `ValueError` for rows that cannot be drawn.
    """
    groups = by_method(rows)
    steps = shared_steps(groups)
    shown = [row for group in groups.values() for row in group if row["steps"] == steps]
    figure = on_paper.empty(16.0, 5.4 if title else 5.0, title)
    growth, decay, clock = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
    _growth(growth, groups, target)
    _decay(decay, shown, target)
    _clock(clock, shown)
    thin = "(thin: 95th percentile)"
    growth.set_title("Rounds until it stops" if target is None else f"Rounds to an error of {target:g} {thin}")
    decay.set_title(f"T = {steps}: median error {thin}")
    clock.set_title(f"T = {steps}: wall-clock (won: left of its line)")
    for axes in (growth, decay, clock):
        on_paper.grid(axes)
    figure.legend(*growth.get_legend_handles_labels(), loc="outside upper right", ncols=len(groups))
    return figure


def _growth(axes: "Axes", groups: Mapping[str, Sequence[Mapping]], target: float | None) -> None:
    """Rounds against T."""
    places, all_rounds = sorted({row["steps"] for group in groups.values() for row in group}), [1.0]
    for j, (method, group) in enumerate(groups.items(), 1):
        seen, steps = style.parallel_marking(method), [row["steps"] for row in group]
        needed, slower = ([rounds_needed(row, target, which) for row in group] for which in ("median", "p95"))
        ahead = len(groups) - j  # equal curves would hide one another: the first drawn is the widest
        line: dict[str, Any] = {"color": seen.color, "ls": seen.line}
        axes.plot(steps, needed, marker=seen.marker, ms=5 + ahead, lw=1.4 + 0.2 * ahead, label=method, **line)
        if target is not None:
            axes.plot(steps, slower, lw=0.7, **line)
        all_rounds += [*needed, *slower]
    axes.set(xscale="log", yscale="log", xlim=style.padded_log(places), ylim=style.padded_log(all_rounds))
    axes.set(xlabel=STEPS_LABEL, ylabel=style.ROUNDS_LABEL)
    axes.set_xticks(places, [str(n) for n in places])
    axes.xaxis.minorticks_off()


def _decay(axes: "Axes", rows: Sequence[Mapping], target: float | None) -> None:
    """Error against rounds."""
    all_errors = [] if target is None else [target]
    for row in rows:
        seen = style.parallel_marking(row["method"])
        if not row["curve"]["rounds"]:
            axes.axvline(row["rounds"], color=seen.color, lw=1.2)
            continue
        for which, width, marker in (("median", 1.6, seen.marker), ("p95", 0.7, "")):
            rounds, errors = curve(row, which)
            axes.plot(rounds, errors, color=seen.color, ls=seen.line, lw=width, marker=marker, ms=4.5)
            all_errors += errors.tolist()
    if target is not None:
        axes.axhline(target, color=style.FLOOR_COLOR, ls="--", lw=1)
    axes.set(xscale="log", xlim=style.padded_log([1, *(row["rounds"] for row in rows)], 0.04))
    axes.set(yscale="log", ylim=style.padded_log(all_errors))
    axes.set(xlabel=style.ROUNDS_LABEL, ylabel=style.SEQUENTIAL_ERROR_LABEL)
    on_paper.round_ticks(axes)


def _clock(axes: "Axes", rows: Sequence[Mapping]) -> None:
    """Seconds of each method, with and without a cost for each call."""
    cost = f"{1000 * rows[0]['cost_per_call']:g} ms added to each call"
    for key, name, dash in (("seconds", "as it is", ":"), ("seconds_with_cost", cost, "--")):
        for y, row in enumerate(rows):
            color = style.parallel_marking(row["method"]).color
            fill = "white" if key == "seconds" else color
            axes.plot(row[key], y, "o", ms=9, mew=1.8, mec=color, mfc=fill, zorder=3)
            if row["method"] == "sequential":
                axes.axvline(row[key], color=style.INK, ls=dash, lw=1, zorder=1)
        fill = "white" if key == "seconds" else style.INK
        axes.plot([], [], "o", ms=9, mew=1.8, mec=style.INK, mfc=fill, zorder=3, label=name)
    seconds = [row[key] for row in rows for key in ("seconds", "seconds_with_cost")]
    axes.set(xscale="log", xlim=style.padded_log(seconds, 0.12), xlabel=SECONDS_LABEL, ylim=(len(rows) + 0.2, -0.6))
    on_paper.round_ticks(axes)
    axes.set_yticks(range(len(rows)), [f"{row['method']}\n{row['rounds']} rounds" for row in rows])
    axes.legend(loc="lower center", ncols=2, handletextpad=0.2, columnspacing=1.2)


def spent_interactive(rows: Sequence[Mapping], *, cost: float = 0.02, title: str = "") -> "go.Figure":
    """What parallel samplers spend at one T: rounds, network calls, seconds here, and seconds if each round took `cost`
    more. The rows are those of `rounds_static`; `ValueError` for rows that lack something, or are of several T.
    """
    taken = {method: group[0] for method, group in by_method(rows).items()}
    if len({row["steps"] for row in rows}) > 1:
        raise ValueError("what is spent is compared at one number of steps, got rows of several")
    panels = {
        "rounds\n(calls in a row)": [row["rounds"] for row in taken.values()],
        "network calls\na sample": [row["nfe"] for row in taken.values()],
        "seconds\non this machine": [row["seconds"] for row in taken.values()],
        f"seconds, {1000 * cost:g} ms\na round added": [r["seconds"] + cost * r["rounds"] for r in taken.values()],
    }
    spacing = {"horizontal_spacing": 0.03, "shared_yaxes": True}
    figure = on_screen.panels(1, len(panels), list(panels), title, 480, **spacing)
    colors = [style.parallel_marking(method).color for method in taken]
    for column, values in enumerate(panels.values(), 1):
        figure.add_bar(
            x=values,
            y=list(taken),
            orientation="h",
            marker_color=colors,
            showlegend=False,
            text=[f"{value:.3g}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            row=1,
            col=column,
        )
        bare = {"showgrid": False, "showticklabels": False, "zeroline": False}
        figure.update_xaxes(range=[0, 1.35 * max(values)], **bare, row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    return figure
