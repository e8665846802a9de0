"""The scoreboard: every method at every number of steps, and what quality costs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..support.checks import unknown
from . import on_paper, on_screen, style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

DISTANCE_LABEL = "distance / floor"
STEPS_LABEL = "steps"
BEST, FRONT = "best of all", "nothing is better"
COSTS = {"steps": STEPS_LABEL, "nfe": style.NFE_LABEL}
"""What a figure on a page may have along its axis, and its label."""
ROOM = 0.75
"""The lowest distance over floor that a figure on a page has room for: there stand the names of the best."""
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


def scoreboard_interactive(
    rows: Sequence[Mapping],
    front: Sequence[Mapping],
    *,
    shown: Sequence[str],
    cost: str = "steps",
    title: str = "",
) -> "go.Figure":
    """Distance over its floor against steps or calls, both logarithmic: some methods in their colours with deviations
    over seeds, all others pale dots, the front that none beats, and its names along the axis.

    rows: as for `scoreboard_static`. front: those of them that are best, by rising cost. shown: the methods in colour.
    cost: "steps" or "nfe". `ValueError` for no rows, another cost, or a method that has no row.
    """
    methods = _by_method(rows)
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    for name in shown:
        if name not in methods:
            raise unknown("method of the scoreboard", name, methods)
    figure, marked = on_screen.panel(title, 620), style.markings(methods)
    for name in [*(name for name in methods if name not in shown), *shown]:  # the pale ones below
        own = sorted(methods[name], key=lambda row: row[cost])
        mean, std = zip(*map(_in_floors, own), strict=True)
        text = [f"{row['steps']} step{'s' if row['steps'] > 1 else ''}, {row['nfe']} NFE" for row in own]
        hover = f"{on_screen.plain(name)}, %{{text}}: %{{y:.2f}} ± %{{customdata:.2f}} floors"
        more: dict[str, Any] = {"text": text, "customdata": std, "name": on_screen.plain(name)}
        places = [row[cost] for row in own]
        if name in shown:
            down = [min(s, 0.99 * m) for m, s in zip(mean, std, strict=True)]
            more["error_y"] = {"array": std, "arrayminus": down, "symmetric": False, "thickness": 1.2}
            on_screen.curve(figure, places, mean, marked[name], hover, 2, 10, **more)
        else:
            dot = {"color": style.CONTEXT_COLOR, "size": 7}
            more |= {"hovertemplate": f"{hover}<extra></extra>", "showlegend": False}
            figure.add_scatter(x=places, y=mean, mode="markers", marker=dot, **more)
    best = [_in_floors(row)[0] for row in front]
    figure.add_scatter(
        x=[row[cost] for row in front],
        y=best,
        mode="lines",
        line={"color": style.INK, "width": 7, "shape": "hv" if cost == "nfe" else "linear"},
        opacity=0.3,
        hoverinfo="skip",
        name=FRONT if cost == "nfe" else BEST,
    )
    spread = rows[0]["floor_std"] / rows[0]["floor"]
    x_range = style.padded_log([row[cost] for row in rows])
    y_range = style.padded_log([*(_in_floors(row)[0] for row in rows), ROOM])
    low = {"y": 0.01, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    for row in front:
        name = on_screen.plain(row["method"]).replace("-", "-<br>")
        figure.add_annotation(text=f"best:<br>{name}", x=np.log10(row[cost]), **low)
    figure.add_hrect(
        y0=max(1 - spread, y_range[0]),
        y1=1 + spread,
        fillcolor=style.CONTEXT_COLOR,
        opacity=0.35,
        line_width=0,
        layer="below",
    )
    floor = {"color": style.FLOOR_COLOR, "dash": "dash", "width": 1.5}
    figure.add_hline(y=1, line=floor, name="floor: true samples", showlegend=True)
    counts = sorted({row[cost] for row in rows})
    ticks = {"tickvals": counts, "ticktext": [f"{count:g}" for count in counts]}
    figure.update_xaxes(**on_screen.log_axis(COSTS[cost], x_range, ticks))
    figure.update_yaxes(**on_screen.log_axis(DISTANCE_LABEL, y_range, on_screen.log_ticks(y_range)))
    return figure
