"""Drawing on paper, with matplotlib: the house style, the plane with its density, and a file's bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import style
from .style import Density

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@contextmanager
def styled() -> Iterator[None]:
    """The house style for the time in which a figure is made; `@styled()` above the function that makes it."""
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
        "axes.axisbelow": True,
        "text.color": style.INK,
        "axes.labelcolor": style.INK,
        "legend.frameon": False,
        "axes.titlelocation": "left",
    }
    with matplotlib.rc_context(settings):
        yield


def empty(width: float, height: float, title: str) -> "Figure":
    """A white figure of so many inches, with its title and without panels."""
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


def plane(axes: "Axes", behind: Density) -> None:
    """The density, and axes of equal units."""
    from matplotlib.colors import LinearSegmentedColormap

    axes.imshow(
        behind.shade,
        origin="lower",
        extent=behind.extent,
        cmap=LinearSegmentedColormap.from_list("density", style.DENSITY_SHADES),
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        zorder=0,
    )
    x_range, y_range = behind.limits
    axes.set(xlim=x_range, ylim=y_range, aspect="equal", xlabel=style.X1, ylabel=style.X2)


def no_y_labels(axes: "Axes") -> None:
    """For a panel beside one that has the same axis."""
    axes.set_ylabel("")
    axes.tick_params(labelleft=False)


def grid(axes: "Axes") -> None:
    """Pale lines at the ticks, below everything that is drawn."""
    axes.grid(True, color="#EEEEEE", lw=0.8)


def legend_beside(axes: "Axes", **more: Any) -> None:
    """The panel's legend at its right."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **more)


def angle_colors(degrees: np.ndarray) -> np.ndarray:
    """The colours of directions from -180 to 180 degrees, (n, 4)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("directions", style.ANGLE_COLORS)((degrees + 180) / 360)


def round_ticks(axes: "Axes") -> None:
    """10, 20, 50, 100 instead of powers along a logarithmic axis of few decades."""
    places = style.ticks(*axes.get_xlim())
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.minorticks_off()
