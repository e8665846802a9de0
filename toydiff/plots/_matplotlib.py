"""What all figures in matplotlib share: the house style, the plane with its density, and a file's bytes."""

import io
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from ..solvers.trajectory import Trajectory
from . import style
from .style import Density

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@contextmanager
def _styled():
    """The house style, for the time in which a figure is made."""
    import matplotlib

    settings = {
        "font.size": style.FONT_SIZE,
        "axes.titlesize": style.FONT_SIZE + 1,
        "axes.labelsize": style.FONT_SIZE,
        "legend.fontsize": style.FONT_SIZE - 2,
        "figure.titlesize": style.FONT_SIZE + 4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": style.GREY,
        "text.color": style.INK,
        "axes.labelcolor": style.INK,
        "legend.frameon": False,
        "axes.titlelocation": "left",
    }
    with matplotlib.rc_context(settings):
        yield


def _figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file's bytes, at 160 dots an inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def _plane(axes: "Axes", background: Density) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    (left, right), (bottom, top) = background.limits
    axes.imshow(
        background.shade,
        origin="lower",
        extent=background.extent,
        cmap=LinearSegmentedColormap.from_list("density", style.DENSITY_SHADES),
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        zorder=0,
    )
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")


def _path_planes(
    paths: Mapping[str, Trajectory],
    behind: Density,
    heads: Iterable[str],
    colors: Mapping[str, str],
    rings: Mapping[str, Tensor],
    ring_name: str,
    title: str,
) -> "Figure":
    """Paths in the plane, a panel each with its head, colour and, where it has some, rings (B, 2). States are dots
    while there are few."""
    heads = list(heads)
    lines = max(head.count("\n") for head in heads)
    with _styled():
        figure = _figure(4.4 * len(paths), (5.0 if title else 4.6) + 0.2 * lines, title)
        for k, (name, path) in enumerate(paths.items()):
            axes = figure.add_subplot(1, len(paths), k + 1)
            _plane(axes, behind)
            color = colors[name]
            _, xs = style.drawn(path)
            few = len(path.ts) <= 16
            axes.plot(xs[..., 0], xs[..., 1], color=color, lw=1, alpha=0.7, marker="." if few else "", ms=4)
            axes.plot(xs[-1, :, 0], xs[-1, :, 1], "o", color=color, ms=5, label="sample")
            if name in rings:
                ends = rings[name].double().cpu().numpy()
                axes.plot(
                    ends[:, 0], ends[:, 1], "o", mfc="none", mec=style.EXACT_COLOR, ms=10, mew=1.1, label=ring_name
                )
            axes.set_title(heads[k])
        labelled = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(labelled.values(), labelled.keys(), loc="outside upper right", ncols=2)
        return figure


def _round_ticks(axes: "Axes") -> None:
    """10, 20, 50, 100 instead of powers along a logarithmic axis of few decades."""
    places = style.ticks(*axes.get_xlim())
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.minorticks_off()
