"""Strings of tokens: what a sampler reveals and when, and how far its law is from the data's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..discrete import TokenPath
from ..support.checks import check_count, shape
from . import on_paper, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STRINGS = 40
"""The strings of a panel; more are left out."""
CELL = 0.14
"""A token's width and height, in inches."""
LEAST_WIDTH = 2.6
"""Of a panel, in inches: its head needs it."""
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
        panel.set_title(name, fontsize=style.FONT_SIZE - 2)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel("position")
        panel.spines[:].set_visible(False)
    axes[0].set_ylabel("string")
    return figure
