"""Strings of tokens: what a sampler reveals and when, and how far its law is from the data's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..discrete import SAMPLERS, TokenPath
from ..solvers.registry import YELLOW
from ..support.checks import check_count, shape, unknown
from . import on_paper, on_screen, style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

MOST_STRINGS = 40
"""The strings of a panel; more are left out."""
CELL = 0.14
"""A token's width and height, in inches."""
LEAST_WIDTH = 3.4
"""Of a panel, in inches: its head needs it."""
STEPS_LABEL = "N (steps)"
MISMATCH_LABEL = "probability that the two bits differ"
EXACT_NAME = "1/(2N)"
ROUNDING = 1e-12
"""A smaller mismatch is none."""
MASK_COLOR = style.CONTEXT_COLOR
"""A position that is not yet revealed."""
KINDS = {
    "both masked": MASK_COLOR,
    "one revealed": YELLOW,
    "equal": style.GREEN,
    "different": style.INK,
}
"""What a string of two bits may be on its way, and its colour: none that a sampler has."""


@dataclass(frozen=True)
class Cells:
    """Strings as a picture: rgb (n, L, 3) in [0, 1], each token a hue, the mask grey."""

    rgb: np.ndarray


def cells(strings: Tensor, vocab: int) -> Cells:
    """Strings (n, L) of the tokens 0 ... vocab - 1, and of the mask, vocab. `ValueError` for others."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    TokenPath(check_count(vocab, "vocab", 2)).check(strings, "strings")
    if not len(strings):
        raise ValueError(f"there is nothing to draw: give at least one string, got {shape(strings)}")
    colors = np.array([colormaps["viridis"](k / (vocab - 1))[:3] for k in range(vocab)] + [to_rgb(MASK_COLOR)])
    return Cells(colors[strings[:MOST_STRINGS].cpu().numpy()])


@on_paper.styled()
def strings_static(panels: Mapping[str, Tensor], vocab: int, *, title: str = "") -> "Figure":
    """Strings as rows of coloured cells, a panel an entry of `panels` (its head: (n, L)).

    A token has one colour in all panels, and a masked position is grey. Panels may be samples beside true strings, or
    the states of a walk. At most 40 strings are drawn. `ValueError` for no panels, or for what are no tokens.
    """
    if not panels:
        raise ValueError("there is nothing to draw: give at least one panel of strings")
    drawn = {name: cells(strings, vocab).rgb for name, strings in panels.items()}
    widths = [max(LEAST_WIDTH, rgb.shape[1] * CELL) for rgb in drawn.values()]
    high = max(len(rgb) for rgb in drawn.values()) * CELL
    figure = on_paper.empty(sum(widths) + 0.3 * len(widths), high + (1.1 if title else 0.7), title)
    axes = figure.subplots(1, len(drawn), squeeze=False, width_ratios=widths)[0]
    for panel, (name, rgb) in zip(axes, drawn.items(), strict=True):
        panel.imshow(rgb, interpolation="nearest", aspect="equal")
        panel.set_anchor("W")  # below the beginning of its head
        panel.set_title(name, fontsize=style.FONT_SIZE - 2)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel("position")
        panel.spines[:].set_visible(False)
    axes[0].set_ylabel("string")
    return figure


def sampler_marking(name: str) -> style.Marking:
    """The fixed marking of a sampler of tokens, with or without settings, from its `Entry`; `ValueError` for a name
    that is none."""
    word = name.partition(":")[0]
    if word not in SAMPLERS:
        raise unknown("sampler of tokens", name, SAMPLERS)
    entry = SAMPLERS[word]
    return style.Marking(entry.color, entry.marker, entry.dash)


def mismatch_curves(rows: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """Rows with sampler, steps and mismatch as a curve a sampler, (n, 2), in the order of the steps. `ValueError` for
    no rows."""
    if not rows:
        raise ValueError("there is nothing to draw: give at least one row of mismatches")
    names = dict.fromkeys(row["sampler"] for row in rows)
    return {
        name: style.table("mismatches", [(r["steps"], r["mismatch"]) for r in rows if r["sampler"] == name], (2,))
        for name in names
    }


@on_paper.styled()
def mismatch_static(rows: Sequence[Mapping], *, title: str = "") -> "Figure":
    """The mismatch of two bits against the number of steps, a curve a sampler, and the line 1/(2N) of the exact jump
    rule. Rows as `toydiff.studies.tokens.mismatches` makes them; where there is no mismatch there is no mark on the
    logarithmic axis. `ValueError` for no rows, or an unknown sampler."""
    curves = mismatch_curves(rows)
    figure = on_paper.empty(6.4, 4.2, title)
    axes = figure.subplots()
    steps = np.unique(np.concatenate([curve[:, 0] for curve in curves.values()]))
    axes.plot(steps, 1 / (2 * steps), color=style.FLOOR_COLOR, ls="--", lw=3, label=EXACT_NAME)
    for name, curve in curves.items():
        marking, seen = sampler_marking(name), curve[curve[:, 1] > ROUNDING]
        axes.plot(seen[:, 0], seen[:, 1], color=marking.color, marker=marking.marker, ls=marking.line, label=name)
    axes.set(xscale="log", yscale="log", xlabel=STEPS_LABEL, ylabel=MISMATCH_LABEL)
    axes.set_xticks(steps, [f"{N:g}" for N in steps])
    axes.xaxis.minorticks_off()
    on_paper.grid(axes)
    on_paper.legend_beside(axes)
    return figure


def pair_kinds(states: Tensor) -> np.ndarray:
    """What each of n strings of two bits is after each step, as a place in `KINDS`: states (N+1, n, 2) of the symbols
    0, 1 and the mask, 2, give (n, N+1). The strings that end different come first, and then those that drew both bits
    in one step. `ValueError` for what are no two bits."""
    if states.ndim != 3 or states.shape[2] != 2 or not states.numel():
        raise ValueError(f"two bits over steps are states (N+1, n, 2), got {shape(states)}")
    TokenPath(2).check(states.flatten(0, 1), "states")
    masked = (states == 2).sum(2)
    kinds = np.where(masked == 2, 0, np.where(masked == 1, 1, np.where(states[..., 0] == states[..., 1], 2, 3))).T
    drew_both = (kinds[:, 0] == 0) & ~(kinds == 1).any(1)
    return kinds[np.lexsort((~drew_both, kinds[:, -1] != 3))]


def two_bits_interactive(
    states: Tensor, rows: Sequence[Mapping], *, sampler: str, shown: int, title: str = ""
) -> "go.Figure":
    """Strings of two bits over the steps of one walk, and beside it the mismatch of samplers against the number of
    steps, with the line 1/(2N).

    states (N+1, n, 2): of a walk of `sampler` in `shown` steps, whose place on its curve is marked. Rows as in
    `mismatch_static`. `ValueError` for states that are no two bits, no rows, or an unknown sampler.
    """
    kinds, curves = pair_kinds(states), mismatch_curves(rows)
    spacing = {"horizontal_spacing": 0.13, "column_widths": [0.5, 0.5]}
    figure = on_screen.panels(1, 2, ["", ""], title, 620, **spacing)
    scale = [(k / len(KINDS) + j / len(KINDS), color) for k, color in enumerate(KINDS.values()) for j in (0, 1)]
    figure.add_heatmap(
        z=kinds,
        zmin=-0.5,
        zmax=len(KINDS) - 0.5,
        colorscale=scale,
        showscale=False,
        xgap=1,
        ygap=1,
        customdata=np.array(list(KINDS))[kinds],
        hovertemplate="string %{y}, step %{x}: %{customdata}<extra></extra>",
        row=1,
        col=1,
    )
    for name, color in ((name, color) for k, (name, color) in enumerate(KINDS.items()) if (kinds == k).any()):
        marker = {"symbol": "square", "size": 12, "color": color, "line": {"color": style.GREY, "width": 1}}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legend="legend", row=1, col=1)
    steps = np.unique(np.concatenate([curve[:, 0] for curve in curves.values()]))
    seen: dict[str, Any] = {"row": 1, "col": 2, "legend": "legend2"}
    for name, curve in curves.items():
        above = curve[curve[:, 1] > ROUNDING]
        hover = f"{on_screen.plain(name)}, N = %{{x}}: %{{y:.3g}}"
        on_screen.curve(
            figure, above[:, 0], above[:, 1], sampler_marking(name), hover, 2, 8, name=on_screen.plain(name), **seen
        )
        here = above[above[:, 0] == shown]
        if name == sampler and len(here):
            ring = {"symbol": "circle-open", "size": 20, "color": style.INK, "line": {"width": 2}}
            figure.add_scatter(
                x=here[:, 0],
                y=here[:, 1],
                mode="markers",
                marker=ring,
                hoverinfo="skip",
                showlegend=False,
                row=1,
                col=2,
            )
    exact = style.Marking(style.INK, "o", "dash")  # over the curve that it is
    on_screen.curve(figure, steps, 1 / (2 * steps), exact, "1/(2N) = %{y:.3g}", 3, name=EXACT_NAME, **seen)
    bare = {"showgrid": False, "zeroline": False, "row": 1, "col": 1}
    figure.update_xaxes(title_text=f"step of {on_screen.plain(sampler)}, N = {shown}", **bare)
    figure.update_yaxes(title_text="string", autorange="reversed", **bare)
    found = np.concatenate([1 / (2 * steps), *(curve[:, 1] for curve in curves.values())])
    ticks = {"tickvals": steps, "ticktext": [f"{N:g}" for N in steps]}
    figure.update_xaxes(**on_screen.log_axis(STEPS_LABEL, style.padded_log(steps.tolist()), ticks), row=1, col=2)
    low_high = style.padded_log(found[found > ROUNDING].tolist())
    figure.update_yaxes(**on_screen.log_axis(MISMATCH_LABEL, low_high), row=1, col=2)
    left = figure.get_subplot(1, 1).xaxis.domain[1]
    figure.update_layout(showlegend=True, legend=on_screen.ABOVE | {"x": left}, legend2=on_screen.ABOVE)
    return figure
