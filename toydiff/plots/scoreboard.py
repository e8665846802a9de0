"""The scoreboard: every method at every number of steps, and what quality costs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import on_paper, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISTANCE_LABEL = "distance / floor"
ROW = 0.27
"""The height of a method's row, in inches."""


def _by_method(rows: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The rows of each method. `ValueError` for no rows."""
    if not rows:
        raise ValueError("there is nothing to draw: the scoreboard has no rows")
    return {name: [row for row in rows if row["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)}


def _in_floors(row: Mapping) -> tuple[float, float]:
    """A row's distance and its deviation, over the floor; 0 where there is one seed."""
    return row["distance"] / row["floor"], (row["distance_std"] or 0.0) / row["floor"]


@on_paper.styled()
def scoreboard_static(rows: Sequence[Mapping], *, title: str = "") -> "Figure":
    """A panel for each number of steps: every method's distance over its floor, mean and deviation over seeds.

    Rows as `toydiff.studies.scoreboard.summary` makes them. In all panels methods are in the order of the first one,
    the best on top. The dashed line is the floor, the band its own deviation. `ValueError` for no rows.
    """
    methods = _by_method(rows)
    steps = sorted({row["steps"] for row in rows})
    order = sorted(methods, key=lambda name: -min(methods[name], key=lambda row: row["steps"])["distance"])
    figure = on_paper.empty(2.2 + 2.2 * len(steps), 1.3 + ROW * len(order), title)
    panels = figure.subplots(1, len(steps), sharey=True, sharex=True, squeeze=False)[0]
    markings = style.markings(order)
    for axes, count in zip(panels, steps, strict=True):
        for k, name in enumerate(order):
            for row in methods[name]:
                if row["steps"] == count:
                    mean, std = _in_floors(row)
                    color, marker = markings[name].color, markings[name].marker
                    axes.errorbar(mean, k, xerr=[[min(std, 0.99 * mean)], [std]], color=color, marker=marker, capsize=2)
        spread = rows[0]["floor_std"] / rows[0]["floor"]
        axes.axvspan(max(1 - spread, 0.05), 1 + spread, color=style.CONTEXT_COLOR, alpha=0.6, lw=0)
        axes.axvline(1, color=style.FLOOR_COLOR, ls="--")
        axes.set(xscale="log", xlabel=DISTANCE_LABEL, title=f"{count} step{'s' if count > 1 else ''}")
        on_paper.grid(axes)
        on_paper.round_ticks(axes)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    return figure


@on_paper.styled()
def scoreboard_cost_static(rows: Sequence[Mapping], front: Sequence[Mapping], *, title: str = "") -> "Figure":
    """Distance over its floor against calls a sample, a curve a method, and the front that none beats in both.

    rows: as for `scoreboard_static`; front: those of them that are on the front. `ValueError` for no rows.
    """
    methods = _by_method(rows)
    figure = on_paper.empty(9.5, 5.2, title)
    axes = figure.subplots()
    for name, marking in style.markings(methods).items():
        own = sorted(methods[name], key=lambda row: row["nfe"])
        places = [row["nfe"] for row in own], [_in_floors(row)[0] for row in own]
        axes.plot(*places, color=marking.color, marker=marking.marker, ls=marking.line, lw=1.2, label=name)
    axes.step(
        [row["nfe"] for row in front],
        [_in_floors(row)[0] for row in front],
        where="post",
        color=style.INK,
        lw=4,
        alpha=0.35,
        label="nothing is better in both",
    )
    axes.axhline(1, color=style.FLOOR_COLOR, ls="--", label="floor")
    axes.set(xscale="log", yscale="log", xlabel=style.NFE_LABEL, ylabel=DISTANCE_LABEL)
    on_paper.round_ticks(axes)
    levels = style.ticks(*axes.get_ylim())
    axes.set_yticks(levels, [f"{level:g}" for level in levels])
    axes.yaxis.minorticks_off()
    on_paper.grid(axes)
    on_paper.legend_beside(axes, fontsize=7)
    return figure
