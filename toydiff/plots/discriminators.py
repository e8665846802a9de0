"""The best discriminator on a line, and what a generator can climb, at several noise levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..mixtures import GaussianMixture
from ..support.checks import check_positive
from . import on_screen, style

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINTS, REACH = 601, 3.5
DATA, GENERATOR = "data", "generator"
BEST, AVERAGE = "best discriminator", "its average over the noise"


@dataclass(frozen=True)
class Level:
    """What is drawn at NSR r, on points y: the densities of data and generator with noise, the best discriminator of
    the hinge loss, and its average over the noise of a sample at y, each (N,); the slope of that average, (N,)."""

    r: float
    y: Tensor
    p: Tensor
    q: Tensor
    best: Tensor
    average: Tensor
    slope: Tensor


def level(data: GaussianMixture, generator: GaussianMixture, r: float) -> Level:
    """The best discriminator of data + r eps against generator + r eps on the line, in units of data:
    D* = sign(p_r - q_r), and E[D*(y + r eps)], eps ~ N(0, 1). `ValueError` for r <= 0 and other dimensions than 1."""
    check_positive(r, "r")
    for mixture in (data, generator):
        if mixture.dim != 1:
            raise ValueError(f"the data and the generator must be on the line, got dimension {mixture.dim}")
    # 6 r beyond the frame, so that the average is right at its edges
    y = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    step = float(y[1] - y[0])
    beyond = min(int(6 * r / step) + 1, 20 * POINTS)
    wide = torch.arange(-beyond, POINTS + beyond, dtype=torch.float64) * step - REACH
    p, q = (_with_noise(mixture, r).log_prob(wide[:, None]).exp() for mixture in (data, generator))
    best = torch.sign(p - q)
    # the weight of each cell of `wide` for a sample at y, from the normal distribution's own integral
    edges = torch.cat([wide - step / 2, wide[-1:] + step / 2])
    below = torch.special.ndtr((edges[None] - y[:, None]) / r)
    average = (below[:, 1:] - below[:, :-1]) @ best
    inner = slice(beyond, beyond + POINTS)
    slope = torch.gradient(average, spacing=step)[0]
    return Level(r, y, p[inner], q[inner], best[inner], average, slope)


def _with_noise(mixture: GaussianMixture, r: float) -> GaussianMixture:
    cov = mixture.covariances + r**2 * torch.eye(1, dtype=torch.float64)
    return GaussianMixture(mixture.means, cov=cov, weights=mixture.weights)


def discriminators_interactive(levels: Sequence[Level], *, active: int = 0, title: str = "") -> "go.Figure":
    """Above the densities over the highest value of both, below the best discriminator, which jumps where they cross,
    and its average over the noise, under a slider over NSR.

    active: the number of the level that is shown first. `ValueError` without a level, and for an `active` that is none.
    """
    import plotly.graph_objects as go

    if not levels:
        raise ValueError("there is nothing to draw: give at least one level")
    if not 0 <= active < len(levels):
        raise ValueError(f"active must be 0 to {len(levels) - 1}, got {active}")

    def highest(one: Level) -> Tensor:
        """Of both densities, so that they cross where D jumps."""
        return torch.maximum(one.p, one.q).max()

    spacing = {"vertical_spacing": 0.08, "shared_xaxes": True}
    figure = on_screen.panels(2, 1, ["", ""], title, 660, **spacing)
    drawn = (
        (1, DATA, style.BLUE, "solid", lambda one: one.p / highest(one)),
        (1, GENERATOR, style.VERMILLION, "solid", lambda one: one.q / highest(one)),
        (2, BEST, style.GREY, "dot", lambda one: one.best),
        (2, AVERAGE, style.INK, "solid", lambda one: one.average),
    )
    x = np.asarray(levels[0].y, dtype=np.float32)
    for row, name, color, dash, of in drawn:
        line = {"color": color, "width": 3 if dash == "solid" else 1.5, "dash": dash}
        fill = {"fill": "tozeroy"} if name == DATA else {}
        y = of(levels[active]).float().numpy()
        figure.add_scatter(x=x, y=y, mode="lines", name=name, line=line, **fill, row=row, col=1)
    figure.frames = [
        go.Frame(
            name=str(k),
            traces=list(range(len(drawn))),
            data=[go.Scatter(x=x, y=of(one).float().numpy()) for *_, of in drawn],
        )
        for k, one in enumerate(levels)
    ]
    figure.update_xaxes(range=[-REACH, REACH], zeroline=False)
    figure.update_xaxes(title_text="x", row=2, col=1)
    figure.update_yaxes(title_text="density / highest", range=[0, 1.05], row=1, col=1)
    figure.update_yaxes(title_text="D", range=[-1.1, 1.1], row=2, col=1)
    on_screen.slider(figure, [style.number(one.r) for one in levels], "noise, NSR: ", active)
    figure.update_layout(legend=on_screen.ABOVE | {"x": 0, "xanchor": "left"})
    return figure
