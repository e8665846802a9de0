"""What training makes of noise: maps in one step, the same noise with more steps, and errors against the noise level or
along a path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..measure import paired_error
from ..mixtures import GaussianMixture
from ..support.checks import check_count, check_finite, shape
from . import on_paper, on_screen, style
from .style import Density, Marking

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

NOISE_LABEL, SAMPLE_LABEL = "noise ε (standard deviations)", "sample x₀ after one step"
EXACT_MAP_NAME = "exact map of the ODE"
NOISE_AXES = "$ε_1$", "$ε_2$"
NOISE_STEP = 3
"""Between ticks of noise: standard deviations."""
WAYS_NAME = "grey: on to the true end"
MOST_MARKERS = 24
"""Markers along a curve on paper; more would run into one another."""


# ---- maps on the line


@on_paper.styled()
def one_step_maps_static(
    noise: Tensor, maps: Mapping[str, Tensor], exact: Tensor | None = None, *, title: str = ""
) -> "Figure":
    """Maps on the line from noise to sample in one step, one curve an entry of `maps` (method: (N,)), against the exact
    one behind them.

    noise (N,), in any order; exact (N,): where the exact ODE ends, on the line the increasing map between the quantiles
    of noise and data. Curves have the colours of the catalog where a name is a method's id. `ValueError` for other
    shapes, and NaN.
    """
    if not maps:
        raise ValueError("there is nothing to draw: give at least one map")
    if noise.ndim != 1 or len(noise) < 2:
        raise ValueError(f"the noise on the line must have shape (N,) with N >= 2, got {shape(noise)}")
    check_finite(noise, "the noise")
    everyone = dict(maps) if exact is None else {EXACT_MAP_NAME: exact, **maps}
    for name, ends in everyone.items():
        if ends.shape != noise.shape:
            raise ValueError(f"the map {name!r} must have one sample a noise, {shape(noise)}, got {shape(ends)}")
        check_finite(ends, f"the map {name!r}")
    order = noise.argsort().cpu()
    x, ys = style.numbers(noise)[order], {name: style.numbers(ends)[order] for name, ends in everyone.items()}
    figure = on_paper.empty(7.6, 5.0 if title else 4.6, title)
    axes = figure.add_subplot()
    if exact is not None:
        axes.plot(x, ys[EXACT_MAP_NAME], color=style.EXACT_COLOR, lw=5, label=EXACT_MAP_NAME)
    for name, seen in style.markings(maps).items():
        axes.plot(x, ys[name], color=seen.color, ls=seen.line, lw=2, label=name)
    values = np.concatenate(list(ys.values()))
    axes.set(xlim=(x[0], x[-1]), ylim=style.padded(values.min(), values.max()))
    axes.set(xlabel=NOISE_LABEL, ylabel=SAMPLE_LABEL)
    on_paper.grid(axes)
    on_paper.legend_beside(axes)
    return figure


# ---- maps in the plane


def directions(ends: Tensor, behind: Density) -> np.ndarray:
    """In which direction from the density's mean each end (B, 2) lies, in degrees from -180 to 180, (B,)."""
    mass = behind.p / behind.p.sum()
    x, y = (style.numbers(ends) - [mass.sum(0) @ behind.x, mass.sum(1) @ behind.y]).T
    return np.degrees(np.arctan2(y, x))


def _directed(degrees: np.ndarray) -> dict[str, Any]:
    """Dots in plotly in the colours of their directions."""
    scale = [[k / (len(style.ANGLE_COLORS) - 1), color] for k, color in enumerate(style.ANGLE_COLORS)]
    return {"size": 4, "color": degrees, "cmin": -180, "cmax": 180, "colorscale": scale}


def plane_maps(
    noise: Tensor, ends: Mapping[str, Tensor], background: GaussianMixture | Density, true: Tensor | None = None
) -> tuple[Density, dict[str, np.ndarray], tuple[float, float]]:
    """What `one_step_planes` draws: the density, the direction of each end by name, and a range that holds all noise.

    `ValueError` for noise that is not (B, 2), and ends, also the true ones, that are not as many.
    """
    style.check_points(ends)
    style.check_points({"noise": noise})
    for name, cloud in (dict(ends) if true is None else {**ends, "true": true}).items():
        if cloud.shape != noise.shape:
            raise ValueError(f"the ends {name!r} must be as many as the noise, {shape(noise)}, got {shape(cloud)}")
    behind = style.as_density(background, [*ends.values(), *([] if true is None else [true])])
    reach = 1.04 * float(noise.detach().abs().max())
    return behind, {name: directions(cloud, behind) for name, cloud in ends.items()}, (-reach, reach)


@on_paper.styled()
def one_step_planes_static(
    noise: Tensor,
    ends: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    true: Tensor | None = None,
    title: str = "",
) -> "Figure":
    """Maps in the plane from noise to sample, a column an entry of `ends` (method: (B, 2)): above the noise, below
    where it is taken.

    The colour of a point is, above and below, the direction of its end from the data's mean: above, one colour is all
    the noise that goes the same way. noise (B, 2). true (B, 2): where each noise ought to end; a thin line leads there
    from where it ends. `ValueError` for other shapes.
    """
    behind, degrees, limits = plane_maps(noise, ends, background, true)
    figure = on_paper.empty(3.6 * len(ends), 7.6 if title else 7.2, title)
    panels = figure.subplots(2, len(ends), squeeze=False)
    for (upper, lower), (name, cloud) in zip(panels.T, ends.items(), strict=True):
        colors = on_paper.angle_colors(degrees[name])
        upper.set(xlim=limits, ylim=limits, aspect="equal", xlabel=NOISE_AXES[0], ylabel=NOISE_AXES[1], title=name)
        upper.scatter(*style.numbers(noise).T, c=colors, s=6, lw=0)
        on_paper.plane(lower, behind)
        if true is not None:
            lower.plot(*np.stack([style.numbers(cloud), style.numbers(true)]).T, color=style.GREY, lw=0.6, zorder=1)
        lower.scatter(*style.numbers(cloud).T, c=colors, s=6, lw=0)
    if true is not None:
        panels[1, min(1, len(ends) - 1)].set_title(WAYS_NAME)
    for axes in panels[:, 1:].flat:
        on_paper.no_y_labels(axes)
    return figure


def one_step_planes_interactive(
    noise: Tensor,
    ends: Mapping[str, Tensor],
    background: GaussianMixture | Density,
    *,
    true: Tensor | None = None,
    title: str = "",
) -> "go.Figure":
    """As `one_step_planes_static`. Hovering a point of noise names its end, and hovering an end its noise."""
    behind, degrees, limits = plane_maps(noise, ends, background, true)
    columns = len(ends)
    spacing = {"horizontal_spacing": 0.06 / (columns + 2), "vertical_spacing": 0.13}
    below = ["" if true is None or k != min(1, columns - 1) else WAYS_NAME for k in range(columns)]
    figure = on_screen.panels(2, columns, [*ends, *below], title, 820, **spacing)
    other_end = "(%{customdata[0]:.3f}, %{customdata[1]:.3f})"
    for k, (name, cloud) in enumerate(ends.items(), 1):
        if true is not None:
            ways = on_screen.joined(np.stack([style.numbers(cloud), style.numbers(true)]))
            thin = {"mode": "lines", "line": {"color": style.GREY, "width": 0.8}, "hoverinfo": "skip"}
            figure.add_scatter(**ways, **thin, showlegend=False, row=2, col=k)
        for row, shown, other, words in (
            (1, noise, cloud, f"noise {on_screen.HERE} → {other_end}"),
            (2, cloud, noise, f"{on_screen.HERE}, from noise {other_end}"),
        ):
            how = {"mode": "markers", "marker": _directed(degrees[name]), "showlegend": False}
            hover = {"customdata": other.detach().float().cpu().numpy(), "hovertemplate": f"{words}<extra></extra>"}
            figure.add_scatter(**on_screen.dots(shown), **how, **hover, row=row, col=k)
        on_screen.square_axes(figure, NOISE_AXES, (limits, limits), 1, k, dtick=NOISE_STEP)
        on_screen.plane(figure, behind, 2, k)
    for row, name in ((1, f"the same noise, {NOISE_AXES[1]}"), (2, f"where it ends, {style.X2}")):
        on_screen.together(figure, [(row, k) for k in range(1, columns + 1)])
        figure.update_yaxes(title_text=on_screen.words(name), row=row, col=1)
    figure.update_xaxes(nticks=6 if columns <= 5 else 4)
    return figure


# ---- the same noise


@dataclass(frozen=True)
class SameNoise:
    """What `same_noise` draws: method: {steps: (ends, head)}, the direction of each noise by method, all numbers of
    steps, and the density."""

    panels: dict[str, dict[int, tuple[Tensor, str]]]
    degrees: dict[str, np.ndarray]
    steps: list[int]
    behind: Density


def same_noise_panels(ends: Mapping[str, Mapping[int, Tensor]], background: GaussianMixture | Density) -> SameNoise:
    """`ValueError` for clouds that are not (B, 2), or not all of one method's of the same size."""
    if not ends or not all(ends.values()):
        raise ValueError("there is nothing to draw: give at least one method, with at least one number of steps")
    for name, by_steps in ends.items():
        for n, cloud in by_steps.items():
            check_count(n, f"a number of steps of {name!r}")
            style.check_points({f"{name}, {_steps(n)}": cloud})
        if len({cloud.shape for cloud in by_steps.values()}) > 1:
            sizes = ", ".join(shape(cloud) for cloud in by_steps.values())
            raise ValueError(f"the ends of {name!r} must be of the same noise, got shapes {sizes}")
    behind = style.as_density(background, [cloud for by_steps in ends.values() for cloud in by_steps.values()])
    panels: dict[str, dict[int, tuple[Tensor, str]]] = {}
    degrees = {}
    for name, by_steps in ends.items():
        fewest = by_steps[min(by_steps)]
        panels[name], degrees[name] = {}, directions(fewest, behind)
        for n in sorted(by_steps):
            moved = f"moved by {style.number(paired_error(by_steps[n], fewest).rms)}" if n > min(by_steps) else " "
            panels[name][n] = by_steps[n], f"{name}: {_steps(n)}\n{moved}"
    return SameNoise(panels, degrees, sorted({n for by_steps in ends.values() for n in by_steps}), behind)


def _steps(n: int) -> str:
    return f"{n} step{'s' if n > 1 else ''}"


@on_paper.styled()
def same_noise_static(
    ends: Mapping[str, Mapping[int, Tensor]], background: GaussianMixture | Density, *, title: str = ""
) -> "Figure":
    """What the same noise becomes, a row an entry of `ends` (method: {steps: (B, 2)}), a column a number of steps.

    A noise keeps its colour along the row: the direction, from the data's mean, of where the fewest steps take it.
    Colours that mix are noise that goes elsewhere with more steps; the title has the root mean square of how far.
    `ValueError` for other shapes.
    """
    drawn = same_noise_panels(ends, background)
    rows, columns = len(drawn.panels), len(drawn.steps)
    figure = on_paper.empty(3.1 * columns, 3.5 * rows + (0.5 if title else 0.1), title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for line, (name, by_steps) in zip(grid, drawn.panels.items(), strict=True):
        colors = on_paper.angle_colors(drawn.degrees[name])
        for axes, n in zip(line, drawn.steps, strict=True):
            if n not in by_steps:
                axes.set_visible(False)
                continue
            cloud, head = by_steps[n]
            on_paper.plane(axes, drawn.behind)
            axes.scatter(*style.numbers(cloud).T, c=colors, s=6, lw=0)
            axes.set_title(head)
            if n > min(by_steps):
                on_paper.no_y_labels(axes)
    return figure


def same_noise_interactive(
    ends: Mapping[str, Mapping[int, Tensor]], background: GaussianMixture | Density, *, title: str = ""
) -> "go.Figure":
    """As `same_noise_static`. Hovering a point names its noise's number."""
    drawn = same_noise_panels(ends, background)
    rows, columns = len(drawn.panels), len(drawn.steps)
    heads = [by_steps[n][1] if n in by_steps else "" for by_steps in drawn.panels.values() for n in drawn.steps]
    spacing = {"horizontal_spacing": 0.2 / (columns + 2), "vertical_spacing": 0.4 / (rows + 1)}
    figure = on_screen.panels(rows, columns, heads, title, 380 * rows + 60, **spacing)
    cells: list[tuple[int, int]] = []
    for row, (name, by_steps) in enumerate(drawn.panels.items(), 1):
        below = list(drawn.panels.values())[row:]
        for column, n in enumerate(drawn.steps, 1):
            at = {"row": row, "col": column}
            if n not in by_steps:
                figure.update_xaxes(visible=False, **at)
                figure.update_yaxes(visible=False, **at)
                continue
            cloud = by_steps[n][0]
            how = {"mode": "markers", "marker": _directed(drawn.degrees[name]), "showlegend": False}
            hover = f"noise %{{customdata}}: {on_screen.HERE}<extra></extra>"
            points = on_screen.dots(cloud) | {"customdata": list(range(len(cloud)))}
            figure.add_scatter(**points, **how, hovertemplate=hover, **at)
            on_screen.plane(figure, drawn.behind, row, column)
            # the lowest panel of a column names its axis
            if any(n in others for others in below):
                figure.update_xaxes(title_text="", showticklabels=False, **at)
            cells.append((row, column))
    on_screen.together(figure, cells)
    return figure


# ---- curves on logarithmic axes


@dataclass(frozen=True)
class Curves:
    """Curves by name, each (x (n,), y (n,), spread (n,) or None), their markings, and the ranges of both axes."""

    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    markings: dict[str, Marking]
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def level_curves(curves: Mapping[str, Sequence]) -> Curves:
    """Rows (x, y) or (x, y, spread) by name, without those that are not above 0: axes are logarithmic.

    `ValueError` for other rows, and curves of which nothing is left.
    """
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    drawn = {}
    for name, rows in curves.items():
        found = style.table(f"the curve {name!r}", rows)
        found = found[np.isfinite(found).all(1) & (found[:, :2] > 0).all(1)]
        if not len(found):
            raise ValueError(f"the curve {name!r} has no row whose numbers are finite and above 0")
        drawn[name] = found[:, 0], found[:, 1], found[:, 2] if found.shape[1] == 3 else None
    points = np.concatenate([np.stack(curve[:2]) for curve in drawn.values()], axis=1)
    x_range, y_range = (style.padded_log(values.tolist()) for values in points)
    return Curves(drawn, style.markings(drawn), x_range, y_range)


def _around(values: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper edge of a band; a logarithmic axis has no 0."""
    return np.maximum(values - spread, values * 1e-3), values + spread


@on_paper.styled()
def against_noise_static(curves: Mapping[str, Sequence], *, ylabel: str, note: str = "", title: str = "") -> "Figure":
    """A quantity against the noise level, one curve an entry of `curves` (method: rows (NSR, value) or (NSR, value,
    spread), the spread pale).

    Both axes are logarithmic; what is not above 0 is left out, and `note` may say so. ylabel: the quantity with its
    unit, such as the variance of a target, or the consistency error along a path. `ValueError` for other tables, and
    curves of which nothing is left.
    """
    drawn = level_curves(curves)
    figure = on_paper.empty(8.2, 5.0 if title else 4.6, title)
    axes = figure.add_subplot()
    for name, (nsr, values, spread) in drawn.curves.items():
        seen = drawn.markings[name]
        if spread is not None:
            axes.fill_between(nsr, *_around(values, spread), color=seen.color, alpha=0.15, lw=0)
        line: dict[str, Any] = {"color": seen.color, "ls": seen.line, "lw": 2, "label": name}
        axes.plot(nsr, values, marker=seen.marker, ms=4.5, markevery=-(-len(nsr) // MOST_MARKERS), **line)
    axes.set(xscale="log", yscale="log", xlim=drawn.x_range, ylim=drawn.y_range)
    axes.set(xlabel=style.NSR_LABEL, ylabel=ylabel)
    on_paper.grid(axes)
    on_paper.legend_beside(axes, title=note or None)
    return figure


def against_noise_interactive(
    curves: Mapping[str, Sequence], *, ylabel: str, note: str = "", title: str = ""
) -> "go.Figure":
    """As `against_noise_static`. A click on a method hides its curve."""
    drawn = level_curves(curves)
    figure = on_screen.panel(title, 520)
    for name, (nsr, values, spread) in drawn.curves.items():
        seen = drawn.markings[name]
        if spread is not None:
            low, high = _around(values, spread)
            x, y = np.concatenate([nsr, nsr[::-1]]), np.concatenate([high, low[::-1]])
            band = {"fill": "toself", "fillcolor": seen.color, "opacity": 0.15, "line": {"width": 0}}
            figure.add_scatter(x=x, y=y, mode="lines", **band, legendgroup=name, showlegend=False, hoverinfo="skip")
        hover = f"{name}: %{{y:.3g}} at NSR %{{x:.3g}}"
        on_screen.curve(figure, nsr, values, seen, hover, 2.5, 7, name=name, legendgroup=name)
    figure.update_xaxes(**on_screen.log_axis(style.NSR_LABEL, drawn.x_range), zeroline=False)
    figure.update_yaxes(**on_screen.log_axis(ylabel, drawn.y_range), zeroline=False)
    return figure.update_layout(legend_title_text=note or None)


def jump_errors_interactive(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, edges: Sequence[float] = (), title: str = ""
) -> "go.Figure":
    """How far jumps from a path miss their target, by the time t they start from: rows (t, error) by method, and
    `edges`, the times where phases meet.

    Errors are on a logarithmic axis; those that are 0 are left out. `ValueError` for other tables.
    """
    drawn = level_curves(curves)
    figure = on_screen.panel(title, 520)
    for name, (t, errors, _) in drawn.curves.items():
        hover = f"{name}: %{{y:.3g}} from t = %{{x:.3f}}"
        on_screen.curve(figure, t, errors, drawn.markings[name], hover, 3, name=name)
    for edge in edges:
        figure.add_vline(x=edge, line={"color": style.GREY, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(range=[1, 0], title_text=style.TIME_LABEL, zeroline=False)
    figure.update_yaxes(**on_screen.log_axis("RMS distance of the jump from its target", drawn.y_range))
    return figure
