"""Error against network calls on log-log axes, where a solver is a line and its order the slope."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import on_paper, on_screen, style
from .style import Marking

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_TITLE = "solver: slope"
APART, AIR = np.array([0.28, 0.07]), 0.08
"""Slopes in words, each left below a point of its curve: how far apart two such points are at least, in one direction,
and the room below the lowest one, as parts of the axes."""


@dataclass(frozen=True)
class Order:
    """The curves of one declared order: rows, each with its name in the legend and its marking, the smallest last error
    first; and a line of that slope below their ends, NFE (2,) and error (2,)."""

    order: int
    rows: list[tuple[Mapping, str, Marking]]
    slope: tuple[list[float], list[float]]

    @property
    def head(self) -> str:
        return f"Declared order {self.order}"


def orders(rows: Sequence[Mapping]) -> list[Order]:
    """A convergence table by declared order; a name has its schedule where the table has several.

    A row is {solver, declared, measured, nfe: [...], error: [...]} as `toydiff convergence --json` writes it.
    `ValueError` for a table without rows, and rows that lack something.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the convergence table has no rows")
    for row in rows:
        missing = {"solver", "declared", "measured", "nfe", "error"} - set(row)
        if missing:
            raise ValueError(f"a row of a convergence table lacks {', '.join(sorted(missing))}")
        if len(row["nfe"]) != len(row["error"]) or not row["nfe"]:
            raise ValueError(
                f"the row of {row['solver']!r} must have as many errors as NFE, "
                f"got {len(row['error'])} and {len(row['nfe'])}"
            )
    found = []
    for order in sorted({row["declared"] for row in rows}):
        group = sorted((row for row in rows if row["declared"] == order), key=lambda row: row["error"][-1])
        several = len({row.get("schedule") for row in group}) > 1
        names = [f"{r['solver']}{' on ' + r['schedule'] if several else ''}: {r['measured']:.2f}" for r in group]
        drawn = [(row, name, style.marking(row["solver"])) for row, name in zip(group, names, strict=True)]
        found.append(Order(order, drawn, _slope_line(group, order)))
    return found


def _slope_line(rows: Sequence[Mapping], order: int) -> tuple[list[float], list[float]]:
    scale = min(row["error"][-1] * row["nfe"][-1] ** order for row in rows) / 3
    longest = max((row["nfe"] for row in rows), key=lambda nfe: nfe[-1])
    ends = [longest[len(longest) // 2], longest[-1]]
    return ends, [scale / n**order for n in ends]


def error_ranges(
    rows: Sequence[Mapping], more: Sequence[float] = (), air: float = 0.04
) -> tuple[tuple[float, float], ...]:
    """The ranges of NFE and of errors, `more` among these, for logarithmic axes; air: above and below errors, as a part
    of theirs."""
    nfe, errors = ([value for row in rows for value in row[key]] for key in ("nfe", "error"))
    return style.padded_log(nfe, 0.04), style.padded_log([*errors, *more], air)


@on_paper.styled()
def convergence_static(rows: Sequence[Mapping], *, floor: float | None = None, title: str = "") -> "Figure":
    """Error against NFE on log-log axes: a panel for each declared order, the fitted slopes in its legend.

    rows: a table {solver, declared, measured, nfe: [...], error: [...]} as `toydiff convergence --json` writes it.
    Behind each panel's curves are all the others, pale; dashed, a line of the declared slope. floor: the error of the
    reference itself, a dashed line, or a note where it lies below the frame.
    """
    groups = orders(rows)
    columns = min(2, len(groups))
    lines = math.ceil(len(groups) / columns)
    x_range, y_range = error_ranges(rows, [error for group in groups for error in group.slope[1]])
    figure = on_paper.empty(7.2 * columns, 3.9 * lines + 0.5, title)
    for k, group in enumerate(groups, 1):
        axes = figure.add_subplot(lines, columns, k)
        for row in rows:
            axes.plot(row["nfe"], row["error"], color=style.CONTEXT_COLOR, lw=0.8, zorder=1)
        dashed: dict[str, Any] = {"color": style.INK, "lw": 1.2, "ls": (0, (4, 3)), "zorder": 2}
        axes.plot(*group.slope, label=f"slope {group.order}", **dashed)
        # equal curves would hide one another: the first drawn is the widest
        for ahead, (row, name, seen) in zip(range(len(group.rows), 0, -1), group.rows, strict=True):
            line: dict[str, Any] = {"color": seen.color, "ls": seen.line, "lw": 1.2 + 0.15 * (ahead - 1)}
            axes.plot(row["nfe"], row["error"], **line, marker=seen.marker, ms=4.5 + 0.5 * ahead, label=name, zorder=3)
        axes.set(xscale="log", yscale="log", xlim=x_range, ylim=y_range)
        axes.set(xlabel=style.NFE_LABEL, ylabel=style.ERROR_LABEL, title=group.head)
        on_paper.round_ticks(axes)
        on_paper.grid(axes)
        _floor(axes, floor, y_range)
        on_paper.legend_beside(axes, title=LEGEND_TITLE, alignment="left")
    return figure


def _floor(axes: "Axes", floor: float | None, y_range: tuple[float, float]) -> None:
    """The floor as a dashed line, or in words where it lies below the frame."""
    if floor is None:
        return
    if floor >= y_range[0]:
        axes.axhline(floor, color=style.FLOOR_COLOR, ls="--", lw=1, label=f"floor {style.number(floor)}")
    else:
        words = f"floor {style.number(floor)}: below the frame"
        axes.text(0.02, 0.02, words, transform=axes.transAxes, fontsize=8, color=style.GREY)


def convergence_interactive(rows: Sequence[Mapping], *, floor: float | None = None, title: str = "") -> "go.Figure":
    """As `convergence_static`. A click on a legend's line hides a curve; hovering names a point's solver, NFE and
    error."""
    groups = orders(rows)
    columns = min(2, len(groups))
    lines = math.ceil(len(groups) / columns)
    x_range, y_range = error_ranges(rows, [error for group in groups for error in group.slope[1]])
    spacing = {"horizontal_spacing": 0.24, "vertical_spacing": 0.3 / lines}
    figure = on_screen.panels(lines, columns, [group.head for group in groups], title, 380 * lines + 110, **spacing)
    # all curves as one line with gaps
    pale = {
        axis: [value for row in rows for value in (*row[key], None)] for axis, key in (("x", "nfe"), ("y", "error"))
    }
    for k, group in enumerate(groups):
        at = {"row": k // columns + 1, "col": k % columns + 1}
        legend = f"legend{k + 1}" if k else "legend"
        context = {"color": style.CONTEXT_COLOR, "width": 1}
        figure.add_scatter(**pale, mode="lines", line=context, hoverinfo="skip", showlegend=False, **at)
        (x, y), name = group.slope, f"slope {group.order}"
        dashed = {"color": style.INK, "width": 1.5, "dash": "dash"}
        figure.add_scatter(x=x, y=y, mode="lines", line=dashed, name=name, hoverinfo="skip", legend=legend, **at)
        for row, name, seen in group.rows:
            hover = f"{on_screen.plain(name)}<br>%{{x}} NFE, error %{{y:.2e}}"
            on_screen.curve(figure, row["nfe"], row["error"], seen, hover, size=7, name=name, legend=legend, **at)
        figure.update_xaxes(**on_screen.log_axis(style.NFE_LABEL, x_range, on_screen.round_ticks(x_range)), **at)
        figure.update_yaxes(**on_screen.log_axis(style.ERROR_LABEL, y_range, on_screen.POWERS), **at)
        panel = figure.get_subplot(**at)
        place = {"x": panel.xaxis.domain[1] + 0.01, "y": panel.yaxis.domain[1], "xanchor": "left", "yanchor": "top"}
        words = {"font": {"size": style.FONT_SIZE}, "title": {"text": LEGEND_TITLE}}
        figure.update_layout({legend: place | words})
        if floor is not None and floor >= y_range[0]:
            on_screen.level(figure, floor, "floor", **at)
        elif floor is not None:
            text, font = f"floor {style.number(floor)}: below the frame", {"size": 10, "color": style.GREY}
            corner = {"xref": "x domain", "yref": "y domain", "x": 0.01, "y": 0.01, "xanchor": "left"}
            figure.add_annotation(text=text, font=font, **corner, yanchor="bottom", showarrow=False, **at)
    return figure


def work_precision_interactive(
    rows: Sequence[Mapping], *, slopes: bool = True, floor: float | None = None, title: str = ""
) -> "go.Figure":
    """Error against NFE on log-log axes, all solvers in one panel; rows as for `convergence_static`, whose slopes the
    legend names.

    Beside a curve, at the last of its points that has room, stands its slope. One that is NaN was not measured: too few
    errors are more than rounding. slopes: False for words that do not give them away, for readers who are to guess.
    Errors at or below `floor` are rounding: a dashed line. A click on the legend hides a curve. `ValueError` for a
    table without rows, or rows that lack something.
    """
    figure = on_screen.panel(title, 560)
    x_range, y_range = error_ranges(rows, air=AIR)
    reach = np.log10([x_range[1] / x_range[0], y_range[1] / y_range[0]])
    placed: list[np.ndarray] = []
    for group in orders(rows):
        for row, _, seen in group.rows:
            slope = f"slope {row['measured']:.2f}" if math.isfinite(row["measured"]) else "all rounding"
            name = f"{row['solver']}: {slope}, order {group.order}" if slopes else row["solver"]
            hover = f"{on_screen.plain(row['solver'])}<br>%{{x}} NFE, error %{{y:.2e}}"
            on_screen.curve(figure, row["nfe"], row["error"], seen, hover, 3, 10, name=name)
            places = np.log10([row["nfe"], np.maximum(row["error"], y_range[0])]).T[::-1]
            free = [at for at in places if all((abs(at - one) / reach > APART).any() for one in placed)]
            if math.isfinite(row["measured"]) and free:
                placed.append(free[0])
                text = f"slope {row['measured']:.2f}" if slopes else "slope ?"
                note = {"x": free[0][0], "y": free[0][1], "xanchor": "right", "yanchor": "top", "showarrow": False}
                figure.add_annotation(text=text, font_color=seen.color, **note)
    figure.update_xaxes(**on_screen.log_axis(style.NFE_LABEL, x_range, on_screen.round_ticks(x_range)))
    figure.update_yaxes(**on_screen.log_axis(style.ERROR_LABEL, y_range, on_screen.POWERS))
    if floor is not None and floor >= y_range[0]:
        on_screen.level(figure, floor, "rounding")
    return figure
