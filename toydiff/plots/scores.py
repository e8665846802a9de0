"""Score distillation: samples with the score difference that moves them, the modes that they find, and gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..mixtures import GaussianMixture
from ..support.checks import check_count, check_finite, shape
from . import on_paper, on_screen, style
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

SAMPLE_NAME, ARROW_NAME = "generator's samples", "score difference: where a sample is moved"
SHORT_NAME, ARROW_NAMES = "samples", ("where they are moved",)
ARROW_LINES = (style.INK, 5), (style.BLUE, 2), (style.VERMILLION, 2)
"""Colour and width on a screen of what moves a sample, and of its two parts, which are drawn over it."""
ARROW_REACH, HEAD = 0.18, 0.022
"""The longest arrow in a file, and the size of an arrow's head on a screen, as fractions of the plane's width."""

MOST_NUMBERED = 12
"""Modes whose numbers stand in the plane too; more would cover the samples."""

Scene = tuple[Tensor, Tensor, Tensor]
"""Samples (B, 2), and arrows: where they start (A, 2) and by how much they point (A, 2)."""


# ---- arrows


@dataclass(frozen=True)
class Scenes:
    """By number of updates, samples (B, 2) and arrows' starts and ends (A, 2); and the density behind."""

    behind: Density
    samples: dict[int, np.ndarray]
    starts: dict[int, np.ndarray]
    ends: dict[int, np.ndarray]


def scenes(frames: Mapping[int, Scene], background: GaussianMixture | Density, *, reach: float | None = None) -> Scenes:
    """Samples and arrows by number of updates, all arrows on one scale. reach: the longest one as a fraction of the
    plane's width, None for arrows as long as given. `ValueError` for other shapes, and NaN."""
    if not frames:
        raise ValueError("there is nothing to draw: give at least one number of updates")
    found = {}
    for step in sorted(check_count(step, "a number of updates", 0) for step in frames):
        samples, starts, by = frames[step]
        style.check_points({f"the samples after {step} updates": samples, f"the arrows after {step} updates": starts})
        if by.shape != starts.shape:
            raise ValueError(f"each arrow needs a start and a direction, got {shape(starts)} and {shape(by)}")
        check_finite(by, f"the directions after {step} updates")
        found[step] = [style.numbers(x) for x in (samples, starts, by)]
    behind = style.as_density(background, [frames[step][0] for step in found])
    (left, right), _ = behind.limits
    longest = max(float(np.linalg.norm(by, axis=1).max()) for _, _, by in found.values())
    scale = reach * (right - left) / longest if reach and longest else 1.0
    return Scenes(
        behind,
        {step: samples for step, (samples, _, _) in found.items()},
        {step: starts for step, (_, starts, _) in found.items()},
        {step: starts + scale * by for step, (_, starts, by) in found.items()},
    )


@on_paper.styled()
def score_arrows_static(
    frames: Mapping[int, Scene], background: GaussianMixture | Density, *, color: str = style.BLUE, title: str = ""
) -> "Figure":
    """A generator's samples after several numbers of updates, a panel each, and arrows along which the difference of
    two scores moves them.

    frames: updates: (samples (B, 2), arrows' starts (A, 2), their directions (A, 2)). All arrows have one scale: where
    they are short, little is left to do. `ValueError` for other shapes, and NaN.
    """
    drawn = scenes(frames, background, reach=ARROW_REACH)
    columns = len(drawn.samples)
    figure = on_paper.empty(3.9 * columns, 4.9 if title else 4.5, title)
    for axes, step in zip(figure.subplots(1, columns, squeeze=False)[0], drawn.samples, strict=True):
        on_paper.plane(axes, drawn.behind)
        axes.plot(*drawn.samples[step].T, "o", color=color, ms=2.2, alpha=0.5, mew=0, label=SAMPLE_NAME)
        starts, by = drawn.starts[step], drawn.ends[step] - drawn.starts[step]
        as_given = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(*starts.T, *by.T, **as_given, color=style.INK, width=0.006, label=ARROW_NAME)
        axes.set_title(f"{step} updates")
    for axes in figure.axes[1:]:
        on_paper.no_y_labels(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def score_coverage_interactive(
    frames: Mapping[int, Scene],
    fractions: Mapping[int, Sequence[float]],
    background: GaussianMixture | Density,
    *,
    arrows: Sequence[str] = ARROW_NAMES,
    head: str = "",
    color: str = style.BLUE,
    active: int | None = None,
    title: str = "",
) -> "go.Figure":
    """The samples and arrows of `score_arrows_static` beside the fraction of each mode, under one slider over updates;
    few modes of a mixture have their numbers in the plane too.
    fractions: by updates, over what each should be, (K,). arrows: the name of what moves a sample, and
    of its two parts where they are drawn too; a frame's directions are then (3, A, 2), from the same starts. All arrows
    are as long as given; `head` may say in which unit. active: the number of updates that is shown first, None for the
    last.

    `ValueError` as `score_arrows_static`, for directions of another number of kinds, fractions of other updates or of
    another number of modes, and for an `active` that has no frame.
    """
    import plotly.graph_objects as go

    kinds = len(arrows)
    if kinds not in (1, len(ARROW_LINES)):
        raise ValueError(f"arrows must be one name, or three, got {arrows!r}")
    every = {step: (x, starts.repeat(kinds, 1), by.reshape(-1, 2)) for step, (x, starts, by) in frames.items()}
    drawn = scenes(every, background)
    steps = list(drawn.samples)
    sizes = {len(values) for values in fractions.values()}
    if set(fractions) != set(steps) or len(sizes) != 1:
        raise ValueError("the modes' fractions must be given for the updates of the frames, as many modes at each")
    [modes] = sizes
    active = steps[-1] if active is None else active
    if active not in steps:
        raise ValueError(f"active must be one of the frames' numbers of updates, {steps}, got {active!r}")
    spacing = {"horizontal_spacing": 0.08, "column_widths": [0.5, 0.5]}
    heads = [head, "each mode's fraction (1: as in the data), particles between modes count for none"]
    figure = on_screen.panels(1, 2, heads, title, 660, **spacing)
    wide = max(3, min(18, 160 // modes))
    drawn_as: list[dict[str, Any]] = [
        {"mode": "markers", "name": SHORT_NAME, "marker": {"size": 6, "color": color, "opacity": 0.8}},
        *(
            {"mode": "lines", "name": name, "line": {"color": tint, "width": width}}
            for name, (tint, width) in zip(arrows, ARROW_LINES, strict=False)
        ),
    ]
    for how in drawn_as:
        figure.add_scatter(**how, hoverinfo="skip", row=1, col=1)
    stem = {"color": color, "width": wide}
    figure.add_scatter(mode="lines", line=stem, showlegend=False, hoverinfo="y", row=1, col=2)
    frame_data = [[go.Scatter(**places) for places in _places(drawn, step, kinds, fractions[step])] for step in steps]
    traces = list(range(kinds + 2))
    figure.frames = [go.Frame(name=str(k), traces=traces, data=data) for k, data in enumerate(frame_data)]
    on_screen.plane(figure, drawn.behind, 1, 1)
    if isinstance(background, GaussianMixture) and background.components == modes <= MOST_NUMBERED:
        numbers = {"mode": "text", "text": [str(k) for k in range(modes)], "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(**on_screen.dots(background.means), **numbers, row=1, col=1)
    on_screen.level(figure, 1, row=1, col=2)
    most = max(2.0, *(max(values) for values in fractions.values()))
    # a fraction of 8, all particles at one mode, would hide the others
    figure.update_yaxes(range=[0, min(1.05 * most, 4.0)], title_text="fraction / data's", row=1, col=2)
    figure.update_xaxes(title_text="mode", range=[-0.7, modes - 0.3], showgrid=False, zeroline=False, row=1, col=2)
    on_screen.open_at(figure, steps.index(active))
    on_screen.slider(figure, [str(step) for step in steps], "updates: ", steps.index(active))
    figure.update_layout(legend=on_screen.ABOVE | {"x": 0, "xanchor": "left"})
    return figure


def _places(drawn: Scenes, step: int, kinds: int, fractions: Sequence[float]) -> list[dict[str, np.ndarray]]:
    """Where samples, each kind of arrow, and upright lines from 0, one a mode, are after so many updates. Lines, with
    gaps, move with an animation; bars and turned markers do not."""
    (left, right), _ = drawn.behind.limits
    modes = np.arange(len(fractions))
    stems = np.stack([np.stack([modes, np.zeros(len(modes))], 1), np.stack([modes, fractions], 1)])
    arrows = with_heads(drawn.starts[step], drawn.ends[step], HEAD * (right - left))
    return [
        on_screen.dots(drawn.samples[step]),
        *(on_screen.joined(part) for part in np.split(arrows, kinds, axis=1)),
        on_screen.joined(stems),
    ]


def with_heads(starts: np.ndarray, ends: np.ndarray, size: float) -> np.ndarray:
    """Arrows (A, 2) as lines of five places (5, A, 2): start, end, and a head of two strokes of `size`, half the
    arrow's length at most."""
    along = ends - starts
    length = np.linalg.norm(along, axis=1, keepdims=True)
    back = along / np.maximum(length, 1e-12) * np.minimum(size, length / 2)
    across = 0.5 * np.stack([-back[:, 1], back[:, 0]], 1)
    return np.stack([starts, ends, ends - back + across, ends, ends - back - across])


# ---- fractions and gradients


@on_paper.styled()
def mode_fractions_static(
    curves: Mapping[str, Sequence], expected: Sequence[float] | Tensor, *, title: str = ""
) -> "Figure":
    """How much of the samples lies at each mode during training, a panel a method: a line a mode, over what it should
    be, which is dashed.

    curves: method: rows (updates, fractions (K,)), as a run's watch has them; expected (K,). A line at 0 is a mode that
    is lost. `ValueError` for other tables.
    """
    drawn = fractions_of(curves, expected)
    columns = len(drawn)
    figure = on_paper.empty(max(3.9 * columns, 5.5), 4.3 if title else 3.9, title)
    last = max(updates[-1] for updates, _ in drawn.values())
    highest = max(ratio.max() for _, ratio in drawn.values())
    seen = style.markings(drawn)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, (name, (updates, ratio)) in zip(panels, drawn.items(), strict=True):
        axes.plot(updates, ratio, color=seen[name].color, lw=1.3, alpha=0.8)
        axes.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1.2)
        axes.set(xlim=style.padded(0.0, max(last, 1.0), 0.02), ylim=style.padded(0.0, max(highest, 1.2), 0.04))
        axes.set(xlabel="updates of the generator", title=name)
        on_paper.grid(axes)
    panels[0].set_ylabel("fraction of samples / fraction of data")
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    return figure


def fractions_of(
    curves: Mapping[str, Sequence], expected: Sequence[float] | Tensor
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows (updates, fractions (K,)) by method as updates (n,) and fractions over the expected ones (n, K);
    `ValueError` for other tables."""
    due = np.asarray(expected, dtype=float)
    if due.ndim != 1 or not len(due) or not (due > 0).all():
        raise ValueError("the expected fractions must be a list of numbers above 0, one a mode")
    if not curves:
        raise ValueError("there is nothing to draw: give at least one method")
    drawn = {}
    for name, rows in curves.items():
        try:
            updates = np.array([float(step) for step, _ in rows])
            found = np.array([np.asarray(values, dtype=float) for _, values in rows])
        except (TypeError, ValueError):
            updates, found = np.empty(0), np.empty(0)
        if not len(updates) or found.shape != (len(updates), len(due)) or not np.isfinite(found).all():
            raise ValueError(f"the fractions of {name!r} must be rows (updates, {len(due)} finite numbers)")
        order = updates.argsort(kind="stable")
        drawn[name] = updates[order], (found / due)[order]
    return drawn


@on_paper.styled()
def gradients_static(
    curves: Mapping[str, Sequence],
    exact: Sequence,
    *,
    xlabel: str,
    ylabel: str,
    exact_name: str = "exact",
    title: str = "",
) -> "Figure":
    """Gradients, or any quantity, of several methods against the exact one: dots with their spread on a thick curve
    where they agree.

    curves: method: rows (x, value) or (x, value, spread); exact: rows (x, value). `ValueError` for other tables.
    """
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    true, tables = style.table("the exact curve", exact, (2,)), {}
    for name, rows in curves.items():
        tables[name] = style.table(f"the curve {name!r}", rows)
        check_finite(torch.from_numpy(tables[name]), f"the curve {name!r}")
    check_finite(torch.from_numpy(true), "the exact curve")
    figure = on_paper.empty(8.2, 5.0 if title else 4.6, title)
    axes = figure.add_subplot()
    axes.axhline(0, color=style.FLOOR_COLOR, lw=0.8)
    axes.plot(*true.T, color=style.CONTEXT_COLOR, lw=6, label=exact_name, zorder=1)
    for name, seen in style.markings(tables).items():
        line: dict[str, Any] = {"color": seen.color, "ls": seen.line, "lw": 1.2}
        axes.errorbar(*tables[name].T, marker=seen.marker, ms=6, capsize=2, label=name, **line)
    points = np.concatenate([found[:, :2] for found in (true, *tables.values())])
    x_range, y_range = (style.padded(low, high) for low, high in zip(points.min(0), points.max(0), strict=True))
    axes.set(xlim=x_range, ylim=y_range, xlabel=xlabel, ylabel=ylabel)
    on_paper.grid(axes)
    on_paper.legend_beside(axes)
    return figure
