"""Where the steps of time grids lie, and what each grid costs in error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..schedules import Schedule
from . import on_paper, on_screen, style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

HEADS = "in time", "in noise level", "the error that is left"
LEVEL_LABEL = f"{style.NSR_LABEL} (▸ data)"
FINEST, ROUND = 30, 300
"""What the narrow axis of errors has room for on a page, by the ratio of its ends: 1, 2, 5, 10 up to the first, 1, 3,
10 up to the second, then powers of 10. Numbers without room turn, and plotly draws twice."""


@dataclass(frozen=True)
class Grids:
    """Where each grid's steps lie, name: (times (N+1,), NSR (N+1,)), the errors by solver and grid, and the logarithmic
    ranges of NSR and errors.

    NSR is 0 at t = 0 and infinite where alpha = 0; such steps do not count for the range.
    """

    places: dict[str, tuple[np.ndarray, np.ndarray]]
    errors: Mapping[str, Mapping[str, float]]
    nsr_range: tuple[float, float]
    error_range: tuple[float, float]

    @property
    def heads(self) -> tuple[str, ...]:
        return HEADS if self.errors else HEADS[:2]


def placed(grids: Mapping[str, Tensor], schedule: Schedule, errors: Mapping[str, Mapping[str, float]] | None) -> Grids:
    """What `time_grids` draws; `ValueError` without a grid."""
    if not grids:
        raise ValueError("there is nothing to draw: give at least one time grid")
    times = {name: torch.as_tensor(ts).double().cpu() for name, ts in grids.items()}
    places = {name: (ts.numpy(), schedule.nsr(ts).numpy()) for name, ts in times.items()}
    nsr_range = style.padded_log(np.concatenate([nsr for _, nsr in places.values()]).tolist())
    values = [error for by_grid in (errors or {}).values() for error in by_grid.values()]
    return Grids(places, errors or {}, nsr_range, style.padded_log(values, 0.12) if values else (0.1, 1.0))


def _outside(floor: float) -> str:
    return f"floor {style.number(floor)}: left of the frame"


@on_paper.styled()
def time_grids_static(
    grids: Mapping[str, Tensor],
    schedule: Schedule,
    *,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    floor: float | None = None,
    title: str = "",
) -> "Figure":
    """Where each grid's steps lie, one row a grid: against t, against NSR = sigma/alpha, and what it costs in error.

    grids: name: times (N+1,). errors: solver: {grid: error}, drawn in the solver's colour. NSR is 0 at t = 0 and
    infinite where alpha = 0: such steps sit at the frame's edge as arrows. floor: the error of the reference itself, a
    dashed line, or a note in the legend where it lies left of the frame.
    """
    drawn = placed(grids, schedule, errors)
    rows = {name: len(grids) - 1 - k for k, name in enumerate(grids)}
    columns = len(drawn.heads)
    figure = on_paper.empty(4.6 * columns, 0.62 * len(grids) + (2.2 if title else 1.8), title)
    panels = figure.subplots(1, columns, sharey=True)
    in_time, in_level, *rest = panels
    for axes, head in zip(panels, drawn.heads, strict=True):
        axes.set_title(head)
        for row in rows.values():
            axes.axhline(row, color=style.CONTEXT_COLOR, lw=1, zorder=0)
    low, high = drawn.nsr_range
    for name, (ts, nsr) in drawn.places.items():
        row = rows[name]
        for axes, x in ((in_time, ts), (in_level, np.clip(nsr, low, high))):
            axes.plot(x, np.full(len(x), row), "|", color=style.BLUE, ms=16, mew=1.8)
        for edge, mark, out in ((low, ">", nsr == 0), (high, "<", np.isinf(nsr))):
            if out.any():
                in_level.plot(edge, row, mark, color=style.BLUE, ms=8, clip_on=False)
    in_time.set(xlim=style.padded(0, 1)[::-1], xlabel=style.TIME_LABEL)
    in_time.set_yticks(list(rows.values()), list(rows))
    in_time.set_ylim(-0.7, len(grids) - 0.3)
    in_level.set(xscale="log", xlim=(high, low), xlabel=LEVEL_LABEL)  # from noise to data, so that clean is right
    for cost in rest:
        cost.set(xscale="log", xlim=drawn.error_range, xlabel=style.ERROR_LABEL)
        on_paper.round_ticks(cost)
        for solver, by_grid in drawn.errors.items():
            seen, y = style.marking(solver), [rows[name] for name in by_grid]
            cost.plot(list(by_grid.values()), y, seen.marker, color=seen.color, ms=8, label=solver)
        line = {"color": style.FLOOR_COLOR, "ls": "--", "lw": 1}
        if floor is not None and floor >= drawn.error_range[0]:
            cost.axvline(floor, label="floor", **line)
        elif floor is not None:
            cost.plot([], [], label=_outside(floor), **line)
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.1), "columnspacing": 1, "handletextpad": 0.4}
        cost.legend(ncols=len(drawn.errors) + 1, **above)
    return figure


def time_grids_interactive(
    grids: Mapping[str, Tensor],
    schedule: Schedule,
    *,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    floor: float | None = None,
    title: str = "",
) -> "go.Figure":
    """As `time_grids_static`, with the numbers on hover."""
    drawn = placed(grids, schedule, errors)
    spacing = {"horizontal_spacing": 0.05, "shared_yaxes": True}
    figure = on_screen.panels(1, len(drawn.heads), drawn.heads, title, 75 * len(grids) + 220, **spacing)
    for name, (ts, nsr) in drawn.places.items():
        # a step at NSR 0 or infinity cannot be on the axis: an arrow at its edge
        symbols = np.select([nsr == 0, np.isinf(nsr)], ["triangle-right", "triangle-left"], "line-ns").tolist()
        hover = [f"t = {t:.4f}, NSR = {n:.4g}" for t, n in zip(ts, nsr, strict=True)]
        for column, x, marks in ((1, ts, "line-ns"), (2, np.clip(nsr, *drawn.nsr_range), symbols)):
            figure.add_scatter(
                x=x,
                y=[name] * len(x),
                mode="lines+markers",
                name=name,
                line={"color": style.CONTEXT_COLOR, "width": 1},
                marker={"symbol": marks, "size": 16, "color": style.BLUE, "line": {"width": 2, "color": style.BLUE}},
                text=hover,
                hovertemplate="%{text}<extra>%{y}</extra>",
                showlegend=False,
                cliponaxis=False,
                row=1,
                col=column,
            )
    inner = {"automargin": "height"}  # a number at the edge of such a panel would move the right margin
    figure.update_xaxes(range=style.padded(0, 1)[::-1], title_text=style.TIME_LABEL, row=1, col=1, **inner)
    levels = on_screen.log_axis(LEVEL_LABEL, drawn.nsr_range[::-1], on_screen.POWERS)
    figure.update_xaxes(**levels, row=1, col=2, **inner)
    figure.update_yaxes(autorange="reversed")
    if not errors:
        return figure
    at = {"row": 1, "col": 3}
    for solver, by_grid in errors.items():
        seen = style.marking(solver)
        marker = {"symbol": seen.symbol, "size": 11, "color": seen.color}
        words = f"{solver}, %{{y}}: error %{{x:.3g}}<extra></extra>"
        x, y = list(by_grid.values()), list(by_grid)
        figure.add_scatter(x=x, y=y, mode="markers", name=solver, marker=marker, hovertemplate=words, **at)
    low, high = drawn.error_range
    ticks = on_screen.round_ticks((low, high), FINEST) if high <= ROUND * low else on_screen.POWERS
    figure.update_xaxes(**on_screen.log_axis(style.ERROR_LABEL, drawn.error_range, ticks), **at)
    line = {"color": style.FLOOR_COLOR, "dash": "dash"}
    if floor is not None and floor >= drawn.error_range[0]:
        figure.add_vline(x=floor, line=line | {"width": 1}, **at)
    elif floor is not None:
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=_outside(floor), **at)
    figure.update_layout(legend=on_screen.ABOVE | {"y": 1.05})
    return figure
