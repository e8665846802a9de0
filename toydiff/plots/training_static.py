"""The figures of training and distillation in matplotlib; `toydiff.plots.static` has them beside the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from ..solvers.trajectory import Trajectory
from . import style, training_style
from ._matplotlib import DPI, _figure, _path_planes, _plane, _round_ticks, _styled
from .style import Density
from .training_style import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_PIXEL = 4
"""Each pixel of a digit is so many dots wide and high in the file: a whole number, so that all are alike."""
MARGIN = 0.12
"""White around a sheet of digits, in inches."""


def reflow(
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
    one_step = one_step or {}
    heads = training_style.reflow_heads(paths, one_step)
    behind = style.as_density(background, [*(path.xs for path in paths.values()), *one_step.values()])
    colors = dict.fromkeys(paths, training_style.REFLOW_COLOR)
    return _path_planes(paths, behind, heads, colors, one_step, training_style.ONE_STEP_NAME, title)


def one_step_maps(
    noise: Tensor, maps: Mapping[str, Tensor], exact: Tensor | None = None, *, title: str = ""
) -> "Figure":
    """Maps on the line from noise to sample in one step, one curve an entry of `maps` (method: (N,)), against the exact
    one behind them.

    noise (N,), in any order; exact (N,): where the exact ODE ends, on the line the increasing map between the quantiles
    of noise and data. Curves have the colours of the catalog where a name is a method's id. `ValueError` for other
    shapes, and NaN.
    """
    drawn = training_style.line_maps(noise, maps, exact)
    with _styled():
        figure = _figure(7.6, 5.0 if title else 4.6, title)
        axes = figure.add_subplot()
        if drawn.exact is not None:
            axes.plot(drawn.noise, drawn.exact, color=style.EXACT_COLOR, lw=5, label=training_style.EXACT_MAP_NAME)
        for name, look in training_style.looks(maps).items():
            axes.plot(drawn.noise, drawn.ends[name], color=look.color, ls=look.line, lw=2, label=name)
        x_range, y_range = drawn.limits
        axes.set(xlim=x_range, ylim=y_range, xlabel=training_style.NOISE_LABEL, ylabel=training_style.SAMPLE_LABEL)
        axes.grid(True, color="#EEEEEE", lw=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def one_step_planes(
    noise: Tensor, ends: Mapping[str, Tensor], background: GaussianMixture | Density, *, title: str = ""
) -> "Figure":
    """Maps in the plane from noise to sample, a column an entry of `ends` (method: (B, 2)): above the noise, below
    where it is taken.

    The colour of a point is, above and below, the direction of its end from the data's mean: above, one colour is all
    the noise that goes the same way. noise (B, 2). `ValueError` for other shapes.
    """
    training_style.check_plane_maps(noise, ends)
    behind = style.as_density(background, list(ends.values()))
    with _styled():
        from matplotlib.colors import LinearSegmentedColormap

        wheel = LinearSegmentedColormap.from_list("directions", training_style.ANGLE_COLORS)
        figure = _figure(3.6 * len(ends), 7.6 if title else 7.2, title)
        above, below = figure.subplots(2, len(ends), squeeze=False)
        reach = training_style.noise_reach(noise)
        starts = noise.detach().double().cpu().numpy()
        for upper, lower, (name, cloud) in zip(above, below, ends.items(), strict=True):
            colors = wheel((training_style.directions(cloud, behind) + 180) / 360)
            upper.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$ε_1$", ylabel="$ε_2$")
            upper.set_title(name)
            upper.scatter(*starts.T, c=colors, s=6, lw=0)
            _plane(lower, behind)
            lower.scatter(*cloud.detach().double().cpu().numpy().T, c=colors, s=6, lw=0)
        for axes in (*above[1:], *below[1:]):
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        return figure


def training_curves(
    runs: Mapping[str, Sequence],
    quality: Mapping[str, Mapping[int, Sequence]],
    *,
    floor: float | None = None,
    distance: str = training_style.DISTANCE_LABEL,
    title: str = "",
) -> "Figure":
    """Training in time: the loss of each run, and how good its samples are at several numbers of steps.

    runs: method: rows (updates, loss), drawn as means over blocks of updates, the 5th to the 95th percentile pale.
    Losses of different methods are different quantities. quality: method: {steps: rows (updates, distance)}, on
    logarithmic axes, so that what is measured before the first update is not seen; colour tells the method (the
    catalog's where the name is an id), the line the number of steps. floor: what true samples show among themselves,
    dashed. distance: what the axis calls the distance. Either of runs and quality may be empty. `ValueError` for rows
    that are not pairs, nothing to draw, and no value above 0.
    """
    drawn = training_style.training_numbers(runs, quality, floor)
    panels = [(panel, numbers) for panel, numbers in ((_losses, drawn.losses), (_quality, drawn.quality)) if numbers]
    with _styled():
        figure = _figure(6.8 * len(panels), 5.2 if title else 4.8, title)
        for axes, (panel, _) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            panel(axes, drawn)
            axes.grid(True, which="major", color="#EEEEEE", lw=0.8)
            axes.set_axisbelow(True)
        if drawn.quality:
            axes.set_ylabel(distance)
            if floor is not None:
                axes.axhline(floor, color=style.FLOOR_COLOR, ls="--", lw=1, label=f"floor {style.number(floor)}")
            axes.legend(loc="upper right")
        from matplotlib.lines import Line2D

        methods = [
            Line2D([], [], color=look.color, marker=look.marker, lw=2, label=name) for name, look in drawn.looks.items()
        ]
        figure.legend(handles=methods, loc="outside lower center", ncols=min(2 * len(panels), len(methods)))
        return figure


def _losses(axes: "Axes", drawn: Curves) -> None:
    for name, loss in drawn.losses.items():
        color = drawn.looks[name].color
        axes.fill_between(loss.updates, loss.low, loss.high, color=color, alpha=0.15, lw=0)
        axes.plot(loss.updates, loss.mean, color=color, lw=1.6)
    axes.set(
        yscale="log", xlim=drawn.ranges["loss updates"], ylim=drawn.ranges["loss"], xlabel=training_style.UPDATES_LABEL,
        ylabel=training_style.LOSS_LABEL, title="Loss",
    )  # fmt: skip


def _quality(axes: "Axes", drawn: Curves) -> None:
    for name, by_steps in drawn.quality.items():
        look = drawn.looks[name]
        for steps, (updates, values) in by_steps.items():
            dash = style.LINES[drawn.dashes[steps]]
            axes.plot(updates, values, color=look.color, ls=dash, marker=look.marker, ms=4.5, lw=1.6)
    for steps, dash in drawn.dashes.items():
        axes.plot([], [], color=style.INK, ls=style.LINES[dash], lw=1.6, label=training_style.steps_name(steps))
    axes.set(
        xscale="log", yscale="log", xlim=drawn.ranges["updates"], ylim=drawn.ranges["distance"], xlabel=training_style.UPDATES_LABEL,
        title="Quality",
    )  # fmt: skip
    _round_ticks(axes)
    axes.yaxis.set_minor_formatter("")


def against_noise(curves: Mapping[str, Sequence], *, ylabel: str, note: str = "", title: str = "") -> "Figure":
    """A quantity against the noise level, one curve an entry of `curves` (method: rows (NSR, value) or (NSR, value,
    spread), the spread pale).

    Both axes are logarithmic; what is not above 0 is left out, and `note` may say so. ylabel: the quantity with its
    unit. Such as the variance of a target, or the consistency error along a path. `ValueError` for other tables, and
    curves of which nothing is left.
    """
    drawn = training_style.level_curves(curves)
    with _styled():
        figure = _figure(8.2, 5.0 if title else 4.6, title)
        axes = figure.add_subplot()
        for name, (nsr, values, spread) in drawn.curves.items():
            look = drawn.looks[name]
            if spread is not None:
                low = np.maximum(values - spread, values * 1e-3)
                axes.fill_between(nsr, low, values + spread, color=look.color, alpha=0.15, lw=0)
            axes.plot(nsr, values, color=look.color, ls=look.line, marker=look.marker, ms=4.5, lw=2, label=name)
        x_range, y_range = drawn.ranges
        axes.set(xscale="log", yscale="log", xlim=x_range, ylim=y_range, xlabel=style.NSR_LABEL, ylabel=ylabel)
        axes.grid(True, which="major", color="#EEEEEE", lw=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title=note or None)
        return figure


def same_noise(
    ends: Mapping[str, Mapping[int, Tensor]], background: GaussianMixture | Density, *, title: str = ""
) -> "Figure":
    """What the same noise becomes, a row an entry of `ends` (method: {steps: (B, 2)}), a column a number of steps.

    A noise keeps its colour along the row: the direction, from the data's mean, of where the fewest steps take it.
    Colours that mix are noise that goes elsewhere with more steps; the title has the root mean square of how far.
    `ValueError` for other shapes.
    """
    training_style.check_same_noise(ends)
    behind = style.as_density(background, [cloud for by_steps in ends.values() for cloud in by_steps.values()])
    drawn = training_style.same_noise_panels(ends, behind)
    with _styled():
        from matplotlib.colors import LinearSegmentedColormap

        wheel = LinearSegmentedColormap.from_list("directions", training_style.ANGLE_COLORS)
        rows, columns = len(drawn.panels), len(drawn.steps)
        figure = _figure(3.1 * columns, 3.5 * rows + (0.5 if title else 0.1), title)
        grid = figure.subplots(rows, columns, squeeze=False)
        for line, (name, by_steps) in zip(grid, drawn.panels.items(), strict=True):
            colors = wheel((drawn.colors[name] + 180) / 360)
            for axes, n in zip(line, drawn.steps, strict=True):
                if n not in by_steps:
                    axes.set_visible(False)
                    continue
                cloud, words = by_steps[n]
                _plane(axes, behind)
                axes.scatter(*cloud.T, c=colors, s=6, lw=0)
                axes.set_title(words)
                if n > min(by_steps):
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
        return figure


def digits(rows: Mapping[str, Tensor], *, title: str = "") -> "Figure":
    """Images as black ink on white paper, a row an entry of `rows` (its name at the left: (k, 1, H, W) in [-1, 1], -1
    paper and 1 ink).

    A column is one noise: a row a number of steps, or a method. Values beyond [-1, 1] are drawn as paper and ink.
    `ValueError` for rows that are not images, or not as many of the same size in each, and for NaN.
    """
    sheet = training_style.digit_sheet(rows)
    with _styled():
        high, wide = (n * DOTS_PER_PIXEL / DPI for n in sheet.shape)
        left = 2 * MARGIN + max(_text_width(name, style.FONT_SIZE) for name in rows)
        head = 0.5 if title else MARGIN
        width = (
            max(left + wide, _text_width(title, 1.15 * (style.FONT_SIZE + 4))) + MARGIN
        )  # bold is about 1.15 times as wide
        height = head + high + MARGIN
        figure = _figure(width, height, "")
        figure.set_layout_engine("none")  # which would not know that the picture keeps its size
        if title:
            figure.text(
                MARGIN / width, 1 - MARGIN / height, title, va="top", fontsize=style.FONT_SIZE + 4, fontweight="bold"
            )
        axes = figure.add_axes((left / width, MARGIN / height, wide / width, high / height))
        axes.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks(
            training_style.digit_middles(next(iter(rows.values())), len(rows))[1], list(rows), fontsize=style.FONT_SIZE
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure


def _text_width(text: str, size: float) -> float:
    """How wide text of a size in points is, in inches."""
    from matplotlib.textpath import TextPath

    return (
        max(
            (float(TextPath((0, 0), line, size=size).get_extents().width) for line in text.split("\n") if line.strip()),
            default=0.0,
        )
        / 72
    )
