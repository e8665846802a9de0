"""What all figures share: colours, words on axes, how a solver or a method is drawn, the density in grey, and how
much of a path the eye can see.

Colours are Okabe and Ito's, kept in `toydiff.solvers.entry`: a solver has one colour everywhere.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..catalog import METHODS
from ..mixtures import GaussianMixture
from ..solvers.registry import BLUE, GREEN, GREY, ORANGE, PARALLEL, PURPLE, SKY, SOLVERS, VERMILLION
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, shape, unknown

PATH_COLORS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
"""One colour a path, where the paths of one figure must be distinguished."""
INK = "#222222"
EXACT_COLOR = INK
"""Where the exact flow ends: an open ring, so that a sample which gets there is its bull's-eye."""
CONTEXT_COLOR = "#D9D9D9"
"""Curves that are there for comparison only."""
FLOOR_COLOR = GREY
GRID_COLOR = "#EBF0F8"

FONT_SIZE = 11
DENSITY_SHADES = ("#FFFFFF", "#B5B5B5")
"""From no density to the highest: light enough for anything to be drawn on top."""

NFE_LABEL = "NFE (network calls per sample)"
ERROR_LABEL = "RMS distance to the exact end"
X1, X2 = "$x_1$", "$x_2$"
TIME_LABEL = "time t (1 noise, 0 data)"
NSR_LABEL = "NSR = σ/α"
SNR_LABEL = "α/σ (0 noise, ∞ data)"
SWEEP_LABEL = "after sweep k"
ROUNDS_LABEL = "rounds (network calls in a row)"
SEQUENTIAL_ERROR_LABEL = "distance to the sequential end"

ANGLE_COLORS = (BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE, BLUE)
"""A circle of colours, the directions from -180 to 180 degrees."""
SWEEP_COLORS = "magma_r"
"""Errors of sweeps, the small ones light, for matplotlib and plotly. Lightness alone orders them, so that nobody
needs to see red and green."""

TEACHER = "teacher"
"""Whom students are compared with: in ink."""
PLOTLY_MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "P": "cross",
    "X": "x",
}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


@dataclass(frozen=True)
class Marking:
    """How a solver or a method is drawn: its colour; `marker` and `line` as matplotlib calls them, `symbol` and `dash`
    as plotly does."""

    color: str
    marker: str = "o"
    dash: str = "solid"

    @property
    def line(self) -> str:
        return LINES[self.dash]

    @property
    def symbol(self) -> str:
        return PLOTLY_MARKERS.get(self.marker, "circle")


def marking(solver: str) -> Marking:
    """The fixed marking of a solver, step by step or parallel, from its `Entry`; `ValueError` for a name in neither
    registry."""
    everyone = SOLVERS | PARALLEL
    if solver not in everyone:
        raise unknown("solver", solver, everyone)
    entry = everyone[solver]
    return Marking(entry.color, entry.marker, entry.dash)


def panel_color(name: str, solvers: Mapping[str, str] | None) -> str:
    """The colour of a panel's marks: that of its solver, where `solvers` (panel: registry name) gives it one."""
    return marking(solvers[name]).color if solvers and name in solvers else BLUE


def parallel_marking(method: str) -> Marking:
    """The marking of a row's method in a comparison of parallel samplers: its solver's, and two of its own."""
    if method == "sequential":
        return marking("ddim")
    if method == "window":
        return Marking(SKY, "v", "dash")
    if method not in PARALLEL:
        raise unknown("method", method, ("sequential", "window", *PARALLEL))
    return marking(method)


def markings(names: Iterable[str]) -> dict[str, Marking]:
    """How each of several methods is drawn: as its card says where the name is a method's id, a teacher in ink,
    others in colours that are still free."""
    names = list(names)
    cards = {name: METHODS[name] for name in names if name in METHODS}
    others = [name for name in names if name not in cards and name != TEACHER]
    taken = {card.color for card in cards.values()}
    free = [color for color in PATH_COLORS if color not in taken] or PATH_COLORS
    found = {name: Marking(card.color, card.marker, card.dash) for name, card in cards.items()}
    found |= {name: Marking(free[k % len(free)]) for k, name in enumerate(others)}
    return {name: found.get(name, Marking(INK)) for name in names}


# ---- planes


@dataclass(frozen=True)
class Density:
    """A density on a lattice of the plane: x (W,) and y (H,) its coordinates, p (H, W) its values up to a common
    factor, not negative."""

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    @property
    def shade(self) -> np.ndarray:
        """sqrt(p / max p) in [0, 1], (H, W): the square root lets broad components show beside narrow ones."""
        return np.sqrt(self.p / self.p.max())

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """((x_min, x_max), (y_min, y_max))."""
        return (float(self.x[0]), float(self.x[-1])), (float(self.y[0]), float(self.y[-1]))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the picture: the outermost values are the middles of its outermost pixels."""
        dx, dy = (self.x[1] - self.x[0]) / 2, (self.y[1] - self.y[0]) / 2
        (left, right), (bottom, top) = self.limits
        return left - dx, right + dx, bottom - dy, top + dy


def density(mixture: GaussianMixture, states: Sequence[Tensor] = (), points: int = 121) -> Density:
    """A two-dimensional mixture's density on points x points of the smallest square that holds what matters, with some
    air.

    That is three standard deviations about every component, and all `states` (..., 2). `ValueError` for another
    dimension than 2.
    """
    if mixture.dim != 2:
        raise ValueError(f"a density is drawn in the plane, for mixtures of dimension 2, got dimension {mixture.dim}")
    check_count(points, "points", 2)
    spread = 3 * mixture.covariances.diagonal(dim1=1, dim2=2).sqrt()
    all_ = torch.cat(
        [mixture.means - spread, mixture.means + spread, *(s.double().reshape(-1, 2).cpu() for s in states)]
    )
    low, high = all_.amin(0), all_.amax(0)
    centre, reach = ((low + high) / 2).numpy(), 1.04 * float((high - low).max()) / 2
    line = np.linspace(-reach, reach, points)
    x, y = line + centre[0], line + centre[1]
    lattice = torch.as_tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
    log = mixture.log_prob(lattice)
    # a component may lie between the lattice's points, so narrow that its density at all of them underflows
    return Density(x, y, (log - log.max()).exp().reshape(points, points).numpy())


def as_density(background: GaussianMixture | Density, states: Sequence[Tensor] = ()) -> Density:
    """The background of a plane: a `Density` as it is, a mixture's wide enough to hold all `states` (..., 2)."""
    if isinstance(background, Density):
        return background
    if not isinstance(background, GaussianMixture):
        raise ValueError(f"the background is a GaussianMixture or a Density, got {type(background).__name__}")
    return density(background, states)


def check_planes(paths: Mapping[str, Trajectory]) -> None:
    """Named trajectories with their whole paths in the plane, xs (N+1, B, 2); else `ValueError`."""
    if not paths:
        raise ValueError("there is nothing to draw: give at least one trajectory")
    for name, path in paths.items():
        if path.xs.ndim != 3 or path.xs.shape[2] != 2:
            raise ValueError(f"the trajectory {name!r} must have states (N+1, B, 2), got {shape(path.xs)}")
        if len(path.xs) != len(path.ts):
            raise ValueError(
                f"the trajectory {name!r} kept {len(path.xs)} of {len(path.ts)} states; solve with keep='path'"
            )


def check_points(points: Mapping[str, Tensor]) -> None:
    """Named clouds of points (n, 2); else `ValueError`."""
    if not points:
        raise ValueError("there is nothing to draw: give at least one set of samples")
    for name, cloud in points.items():
        if cloud.ndim != 2 or cloud.shape[1] != 2:
            raise ValueError(f"the samples {name!r} must have shape (n, 2), got {shape(cloud)}")


def numbers(x: Tensor) -> np.ndarray:
    """A tensor's values in float64, off its graph and its device."""
    return x.detach().double().cpu().numpy()


def thin(path: Trajectory, most: int = 120) -> Tensor:
    """Which states of a long path to draw: indices (M,), increasing, M <= most, the first and the last state among
    them.

    They are spread evenly over the way that the states cover, in x (relative to its extent) and in t together, so that
    bends keep their points and a stretch where nothing moves keeps few.
    """
    check_count(most, "most", 2)
    n = len(path.ts)
    if n <= most:
        return torch.arange(n)
    flat = path.xs.detach().reshape(n, -1).double().cpu()
    extent = float(flat.max() - flat.min()) or 1.0
    way = flat.diff(dim=0).abs().amax(1) / extent + path.ts.detach().double().cpu().diff().abs()
    way = torch.cat([torch.zeros(1, dtype=torch.float64), way.cumsum(0)])
    picked = torch.searchsorted(way, torch.linspace(0, float(way[-1]), most, dtype=torch.float64)).clamp(max=n - 1)
    picked[0], picked[-1] = 0, n - 1
    return picked.unique()


def drawn(path: Trajectory, most: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """The thinned path as numbers to draw: times (M,), states (M, B, 2)."""
    kept = thin(path, most)
    return numbers(path.ts.cpu()[kept]), numbers(path.xs.cpu()[kept])


# ---- axes and curves


def padded(low: float, high: float, margin: float = 0.05) -> tuple[float, float]:
    """An axis range with some air at both ends."""
    air = margin * ((high - low) or 1.0)
    return low - air, high + air


def padded_log(values: Sequence[float], margin: float = 0.08) -> tuple[float, float]:
    """A range for a logarithmic axis, as values (not exponents), with some air at both ends; non-positive values do
    not count."""
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if not logs:
        raise ValueError("a logarithmic axis needs at least one finite value above 0")
    low, high = padded(min(logs), max(logs), margin)
    return 10**low, 10**high


def ticks(low: float, high: float, finest: float = 100) -> list[float]:
    """Round numbers in a range, for logarithmic axes: 1, 2, 5, 10, ..., and 1, 3, 10, ... where high / low is above
    `finest`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    first = (1, 2, 5) if high <= finest * low else (1, 3)
    return [m * 10.0**d for d in decades for m in first if low <= m * 10.0**d <= high]


def number(value: float) -> str:
    """A measured number as it is written in a figure: 0.0123, 3.4e-07."""
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"


def table(what: str, rows: Sequence, columns: Sequence[int] = (2, 3)) -> np.ndarray:
    """Rows of so many numbers, sorted by the first: (n, columns). `ValueError` for others."""
    try:
        found = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim != 2 or found.shape[1] not in columns or not len(found):
        raise ValueError(f"{what} must be a table of rows with {' or '.join(map(str, columns))} numbers")
    return found[found[:, 0].argsort(kind="stable")]
