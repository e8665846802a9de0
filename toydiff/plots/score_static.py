"""The figures of score distillation in matplotlib; `toydiff.plots.static` has them beside the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..mixtures import GaussianMixture
from . import score_style, style
from ._matplotlib import _figure, _plane, _styled
from .score_style import Scene
from .style import Density

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_arrows(
    frames: Mapping[int, Scene], background: GaussianMixture | Density, *, color: str = style.BLUE, title: str = ""
) -> "Figure":
    """A generator's samples after several numbers of updates, a panel each, and arrows along which the difference of
    two scores moves them.

    frames: updates: (samples (B, 2), arrows' starts (A, 2), their directions (A, 2)). All arrows have one scale: where
    they are short, little is left to do. `ValueError` for other shapes, and NaN.
    """
    drawn = score_style.scenes(frames, background)
    with _styled():
        columns = len(drawn.samples)
        figure = _figure(3.9 * columns, 4.9 if title else 4.5, title)
        for axes, step in zip(figure.subplots(1, columns, squeeze=False)[0], drawn.samples, strict=True):
            _plane(axes, drawn.behind)
            axes.plot(*drawn.samples[step].T, "o", color=color, ms=2.2, alpha=0.5, mew=0, label=score_style.SAMPLE_NAME)
            by = drawn.ends[step] - drawn.starts[step]
            axes.quiver(
                *drawn.starts[step].T, *by.T, angles="xy", scale_units="xy", scale=1, color=style.INK, width=0.006, label=score_style.ARROW_NAME
            )  # fmt: skip
            axes.set_title(f"{step} updates")
        for axes in figure.axes[1:]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
        return figure


def mode_fractions(curves: Mapping[str, Sequence], expected: Sequence[float] | Tensor, *, title: str = "") -> "Figure":
    """How much of the samples lies at each mode during training, a panel a method: a line a mode, over what it should
    be, which is dashed.

    curves: method: rows (updates, shares (K,)), as a run's watch has them; expected (K,). A line at 0 is a mode that is
    lost. `ValueError` for other tables.
    """
    drawn = score_style.shares(curves, expected)
    with _styled():
        columns = len(drawn.curves)
        figure = _figure(max(3.9 * columns, 5.5), 4.3 if title else 3.9, title)
        x_range, y_range = drawn.ranges
        for axes, (name, (updates, ratio)) in zip(
            figure.subplots(1, columns, squeeze=False)[0], drawn.curves.items(), strict=True
        ):
            axes.plot(updates, ratio, color=drawn.looks[name].color, lw=1.3, alpha=0.8)
            axes.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1.2)
            axes.set(xlim=x_range, ylim=y_range, xlabel=score_style.UPDATES_LABEL, title=name)
            axes.grid(True, color="#EEEEEE", lw=0.8)
            axes.set_axisbelow(True)
        figure.axes[0].set_ylabel(score_style.FRACTION_LABEL)
        for axes in figure.axes[1:]:
            axes.tick_params(labelleft=False)
        return figure


def gradients(
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
    drawn = score_style.slopes(curves, exact)
    with _styled():
        figure = _figure(8.2, 5.0 if title else 4.6, title)
        axes = figure.add_subplot()
        axes.axhline(0, color=style.FLOOR_COLOR, lw=0.8)
        axes.plot(*drawn.exact, color=style.CONTEXT_COLOR, lw=6, label=exact_name, zorder=1)
        for name, (x, values, spread) in drawn.curves.items():
            look = drawn.looks[name]
            axes.errorbar(
                x,
                values,
                spread,
                color=look.color,
                marker=look.marker,
                ls=look.line,
                ms=6,
                lw=1.2,
                capsize=2,
                label=name,
            )
        x_range, y_range = drawn.ranges
        axes.set(xlim=x_range, ylim=y_range, xlabel=xlabel, ylabel=ylabel)
        axes.grid(True, color="#EEEEEE", lw=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure
