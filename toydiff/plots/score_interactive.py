"""The figures of score distillation in plotly; `toydiff.plots.interactive` has them beside the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from . import score_style, style
from ._plotly import _plane, _slider, _subplots
from .score_style import Scene
from .style import Density

if TYPE_CHECKING:
    import plotly.graph_objects as go


def score_arrows(
    frames: Mapping[int, Scene], background: GaussianMixture | Density, *, color: str = style.BLUE, title: str = ""
) -> "go.Figure":
    """A generator's samples, and arrows of the score difference, with a slider over updates; arguments, errors and
    reading as in `static.score_arrows`."""
    import plotly.graph_objects as go

    drawn = score_style.scenes(frames, background)
    figure = _subplots(1, 1, [""], title, 660)
    _plane(figure, drawn.behind, 1, 1)
    last = list(drawn.samples)[-1]
    looks = [
        {"mode": "markers", "name": score_style.SAMPLE_NAME, "marker": {"size": 4, "color": color, "opacity": 0.6}},
        {"mode": "lines", "name": score_style.ARROW_NAME, "line": {"color": style.INK, "width": 1.4}},
        {"mode": "markers", "marker": {"size": 4, "color": style.INK}, "showlegend": False},
    ]
    for places, look in zip(_places(drawn, last), looks, strict=True):
        figure.add_trace(go.Scatter(**places, **look, hoverinfo="skip"), row=1, col=1)
    figure.frames = [
        go.Frame(name=str(k), traces=[0, 1, 2], data=[go.Scatter(**places) for places in _places(drawn, step)])
        for k, step in enumerate(drawn.samples)
    ]
    _slider(figure, [str(step) for step in drawn.samples], "updates: ", len(drawn.samples) - 1)
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"})
    return figure


def _places(drawn: score_style.Scenes, step: int) -> list[dict[str, np.ndarray]]:
    """Where samples, arrows (as lines with gaps) and their heads are after so many updates."""
    starts, ends = drawn.starts[step], drawn.ends[step]
    lines = np.stack([starts, ends, np.full_like(starts, np.nan)], 1).reshape(-1, 2)
    return [
        {"x": x[:, 0].astype(np.float32), "y": x[:, 1].astype(np.float32)} for x in (drawn.samples[step], lines, ends)
    ]


def mode_fractions(
    curves: Mapping[str, Sequence], expected: Sequence[float] | Tensor, *, title: str = ""
) -> "go.Figure":
    """The share of each mode during training, a panel a method; as `static.mode_fractions`. Hovering a line names its
    mode."""
    import plotly.graph_objects as go

    drawn = score_style.shares(curves, expected)
    figure = _subplots(1, len(drawn.curves), list(drawn.curves), title, 480, horizontal_spacing=0.05, shared_yaxes=True)
    x_range, y_range = drawn.ranges
    for column, (name, (updates, ratio)) in enumerate(drawn.curves.items(), 1):
        for k, values in enumerate(ratio.T):
            figure.add_trace(
                go.Scatter(
                    x=updates, y=values, mode="lines", line={"color": drawn.looks[name].color, "width": 1.6}, opacity=0.8, showlegend=False,
                    hovertemplate=f"{name}, mode {k}: %{{y:.2f}} of its share after %{{x}} updates<extra></extra>",
                ),
                row=1, col=column,
            )  # fmt: skip
        figure.add_hline(y=1, line={"color": style.FLOOR_COLOR, "dash": "dash", "width": 1.5}, row=1, col=column)
        figure.update_xaxes(range=x_range, title_text=score_style.UPDATES_LABEL, zeroline=False, row=1, col=column)
        figure.update_yaxes(range=y_range, zeroline=False, row=1, col=column)
    figure.update_yaxes(title_text=score_style.FRACTION_LABEL, row=1, col=1)
    return figure


def gradients(
    curves: Mapping[str, Sequence],
    exact: Sequence,
    *,
    xlabel: str,
    ylabel: str,
    exact_name: str = "exact",
    title: str = "",
) -> "go.Figure":
    """Gradients of several methods against the exact one; as `static.gradients`. A click on a method hides it."""
    import plotly.graph_objects as go

    drawn = score_style.slopes(curves, exact)
    figure = _subplots(1, 1, [""], title, 520)
    x, y = drawn.exact
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line={"color": style.CONTEXT_COLOR, "width": 8}, name=exact_name)
    )
    for name, (x, values, spread) in drawn.curves.items():
        look = drawn.looks[name]
        figure.add_trace(
            go.Scatter(
                x=x, y=values, mode="lines+markers", line={"color": look.color, "dash": look.dash, "width": 1.8},
                marker={"symbol": look.symbol, "size": 9, "color": look.color}, error_y={"array": spread, "visible": spread is not None, "thickness": 1.2},
                name=name, hovertemplate=f"{name}: %{{y:.3g}} at %{{x:.3g}}<extra></extra>",
            )
        )  # fmt: skip
    x_range, y_range = drawn.ranges
    figure.update_xaxes(range=x_range, title_text=xlabel, zeroline=False)
    figure.update_yaxes(range=y_range, title_text=ylabel)
    figure.update_layout(showlegend=True)
    return figure
