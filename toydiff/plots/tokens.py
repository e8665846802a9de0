"""Strings of tokens: what a sampler reveals and when, and how far its law is from the data's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..discrete import SAMPLERS, TokenPath
from ..support.checks import check_count, shape, unknown
from . import on_paper, style

if TYPE_CHECKING:
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
