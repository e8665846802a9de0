"""What all figures share: colours, words on axes, the grey density, and how much of a path the eye can see.

Colours are Okabe and Ito's, kept in `toydiff.solvers.entry`, so that a solver looks the same everywhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..measure import first_orderness, straightness
from ..mixtures import GaussianMixture
from ..schedules import Schedule
from ..solvers.registry import BLUE, GREEN, GREY, ORANGE, PARALLEL, PURPLE, SKY, SOLVERS, VERMILLION, Entry
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, check_positive, shape, unknown

PATH_COLORS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
"""One colour a path, where the paths of one figure must be told apart."""
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
TIME_LABEL = "time t (1 noise, 0 data)"
NSR_LABEL = "NSR = σ/α"
SNR_LABEL = "α/σ = e^λ (0 noise, ∞ data)"
POINT_LABEL = "point i of the grid (noise left, data right)"
SWEEP_LABEL = "after sweep k"
SWEEP_ERROR_LABEL = "median error (distance)"
ROUNDS_LABEL = "rounds (network calls in a row)"
STEPS_LABEL = "T (steps of the grid)"
SECONDS_LABEL = "wall-clock (s)"
SEQUENTIAL_ERROR_LABEL = "distance to the sequential end"

SWEEP_COLORS = "magma_r"
"""Errors of sweeps, the small ones light. Its lightness alone tells it, with or without red and green; matplotlib
and plotly know it."""
SWEEP_ERRORS = 1e-10, 1e3
"""What their colours tell apart at most: below, rounding has all but equalled the paths; above, an iterate has
exploded."""
ACCEPTED_COLOR, MOVING_COLOR, CURSOR_COLOR = BLUE, ORANGE, GREEN
"""The accepted points of a sweep, those that still move, and the row of a heat map that belongs to the sweep on
show."""
GUARANTEED_NAME, ACCEPTED_NAME, MOVING_NAME, GOAL_NAME = (
    "guaranteed: the first k points", "accepted", "not yet accepted", "end to reach",
)  # fmt: skip

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
class Look:
    """How a solver is drawn: its colour, and its marker and line as matplotlib and plotly call them."""

    color: str
    marker: str
    line: str
    symbol: str
    dash: str


def panel_color(name: str, solvers: Mapping[str, str] | None) -> str:
    """The colour of a panel's marks: that of its solver, where `solvers` (panel: registry name) gives it one."""
    return look(solvers[name]).color if solvers and name in solvers else BLUE


def look(solver: str) -> Look:
    """The fixed look of a solver, step by step or parallel, from its `Entry`; `ValueError` for a name in neither
    registry."""
    everyone = SOLVERS | PARALLEL
    if solver not in everyone:
        raise unknown("solver", solver, everyone)
    entry: Entry = everyone[solver]
    return Look(entry.color, entry.marker, LINES[entry.dash], PLOTLY_MARKERS.get(entry.marker, "circle"), entry.dash)


def method_look(method: str) -> Look:
    """The look of a row's method in a comparison of parallel samplers: its solver's, and two of its own."""
    if method == "sequential":
        return look("ddim")
    if method == "window":
        return replace(
            look("picard"), color=SKY, marker="v", line=LINES["dash"], symbol=PLOTLY_MARKERS["v"], dash="dash"
        )
    if method not in PARALLEL:
        raise unknown("method", method, ("sequential", "window", *PARALLEL))
    return look(method)


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
    """Named trajectories with their whole paths in the plane, xs (N+1, B, 2), the same B in all; else `ValueError`."""
    if not paths:
        raise ValueError("there is nothing to draw: give at least one trajectory")
    for name, path in paths.items():
        if path.xs.ndim != 3 or path.xs.shape[2] != 2:
            raise ValueError(f"the trajectory {name!r} must have states (N+1, B, 2), got {shape(path.xs)}")
        if len(path.xs) != len(path.ts):
            raise ValueError(
                f"the trajectory {name!r} kept {len(path.xs)} of {len(path.ts)} states; solve with keep='path'"
            )


def check_backgrounds(paths: Mapping[str, Trajectory], backgrounds: Mapping) -> None:
    """Every path has a background; else `ValueError`."""
    missing = [name for name in paths if name not in backgrounds]
    if missing:
        raise ValueError(f"no background for {', '.join(map(repr, missing))}; give one for each of the paths")


def check_points(points: Mapping[str, Tensor]) -> None:
    """Named clouds of points (n, 2); else `ValueError`."""
    if not points:
        raise ValueError("there is nothing to draw: give at least one set of samples")
    for name, cloud in points.items():
        if cloud.ndim != 2 or cloud.shape[1] != 2:
            raise ValueError(f"the samples {name!r} must have shape (n, 2), got {shape(cloud)}")


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
    return path.ts.cpu()[kept].double().numpy(), path.xs.cpu()[kept].double().numpy()


def rescale(path: Trajectory, schedule: Schedule, reach: float) -> tuple[Tensor, Trajectory]:
    """y = x/sigma = (alpha/sigma) x_0 + eps against e^lambda = alpha/sigma (arXiv 2410.07303): where a first-order path
    is straight.

    Returns (e^lambda (M,), the path of those M states whose e^lambda is at most `reach`, with y in the place of x). At
    t = 0 both are infinite, so `reach` cuts the end off. `ValueError` if fewer than two states are left.
    """
    check_positive(reach, "reach")
    ts = path.ts.double().cpu()
    snr = torch.exp(schedule.lam(ts))
    kept = snr <= reach
    if int(kept.sum()) < 2:
        raise ValueError(
            f"fewer than two states of the path have alpha/sigma <= {reach:g}; use a larger reach or more steps"
        )
    y = path.xs.double().cpu()[kept] / schedule.sigma(ts[kept])[:, None, None]
    return snr[kept], Trajectory(ts[kept], y, path.x0s[:0], path.nfe, path.rounds, path.seconds)


def path_numbers(path: Trajectory, schedule: Schedule) -> tuple[str, str]:
    """How straight a path is in x (S) and how near to first order (C), normalised, in words; `ValueError` where that
    cannot be measured."""
    bent = straightness(path, normalised=True)
    varying = first_orderness(path, schedule, normalised=True)
    return f"S = {number(bent)} (0: straight)", f"C = {number(varying)} (0: first-order)"


def extended(levels: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The straight line that a path (M,), (M, B) ends on, from its first level to its last: levels (2,) and values
    (2, B)."""
    slope = (ys[-1] - ys[-2]) / (levels[-1] - levels[-2])
    return levels[[0, -1]], np.stack([ys[-1] - slope * (levels[-1] - levels[0]), ys[-1]])


def padded(low: float, high: float, share: float = 0.05) -> tuple[float, float]:
    """An axis range with some air at both ends."""
    air = share * ((high - low) or 1.0)
    return low - air, high + air


def padded_log(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """A range for a logarithmic axis, as values (not exponents), with some air at both ends; non-positive values do
    not count."""
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if not logs:
        raise ValueError("a logarithmic axis needs at least one finite value above 0")
    low, high = padded(min(logs), max(logs), share)
    return 10**low, 10**high


def by_order(rows: Sequence[Mapping]) -> dict[int, list[Mapping]]:
    """The rows of a convergence table by declared order, each group from the smallest last error to the largest.

    A row is {solver, declared, measured, nfe: [...], error: [...]} as `toydiff convergence --json` writes it.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the convergence table has no rows")
    for row in rows:
        missing = {"solver", "declared", "measured", "nfe", "error"} - set(row)
        if missing:
            raise ValueError(f"a row of a convergence table lacks {', '.join(sorted(missing))}")
        if len(row["nfe"]) != len(row["error"]) or not row["nfe"]:
            raise ValueError(
                f"the row of {row['solver']!r} must have as many errors as NFE, got {len(row['error'])} and {len(row['nfe'])}"
            )
    orders = sorted({row["declared"] for row in rows})
    return {p: sorted((r for r in rows if r["declared"] == p), key=lambda r: r["error"][-1]) for p in orders}


def curve_names(rows: Sequence[Mapping]) -> list[str]:
    """What a legend calls each row: its solver and measured slope, with the schedule where the table has several."""
    several = len({row.get("schedule") for row in rows}) > 1
    return [f"{r['solver']}{' on ' + r['schedule'] if several else ''}: {r['measured']:.2f}" for r in rows]


def slope_line(rows: Sequence[Mapping], order: int) -> tuple[list[float], list[float]]:
    """A straight line of slope -order below the ends of a group's curves: NFE (2,) and error (2,)."""
    scale = min(row["error"][-1] * row["nfe"][-1] ** order for row in rows) / 3
    longest = max((row["nfe"] for row in rows), key=lambda nfe: nfe[-1])
    ends = [longest[len(longest) // 2], longest[-1]]
    return ends, [scale / n**order for n in ends]


def convergence_ranges(groups: Mapping[int, Sequence[Mapping]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The range of NFE and that of errors, for all panels alike; the lines of `slope_line` are inside."""
    rows = [row for group in groups.values() for row in group]
    guides = [e for order, group in groups.items() for e in slope_line(group, order)[1]]
    return (
        padded_log([n for row in rows for n in row["nfe"]], 0.04),
        padded_log([e for row in rows for e in row["error"]] + guides, 0.04),
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2, 5, 10, ... in a range, for logarithmic axes of few decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]


def grid_places(
    grids: Mapping[str, Tensor], schedule: Schedule
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[float, float]]:
    """Where each grid's steps lie, name: (times (N+1,), NSR (N+1,)), and a range of NSR for a logarithmic axis.

    NSR is 0 at t = 0 and infinite where alpha = 0; such steps do not count for the range.
    """
    if not grids:
        raise ValueError("there is nothing to draw: give at least one time grid")
    times = {name: torch.as_tensor(ts).double().cpu() for name, ts in grids.items()}
    places = {name: (ts.numpy(), schedule.nsr(ts).numpy()) for name, ts in times.items()}
    return places, padded_log(np.concatenate([nsr for _, nsr in places.values()]).tolist())


def check_sweeps(path: Trajectory, exact: Tensor | None) -> Tensor:
    """The path that sweeps are compared with, (N+1, B, ...): `exact`, or where they arrived. `ValueError` if none
    were kept, or shapes differ."""
    if path.sweeps is None:
        raise ValueError("there are no sweeps to draw: solve with a parallel solver, such as picard, and keep='path'")
    if exact is None:
        return path.xs
    if not isinstance(exact, Tensor) or exact.shape != path.xs.shape:
        got = shape(exact) if isinstance(exact, Tensor) else type(exact).__name__
        raise ValueError(f"exact must be a path like the trajectory's, {shape(path.xs)}, got {got}")
    return exact.to(path.xs)


@dataclass(frozen=True)
class SweepErrors:
    """log10 of the median error after sweep k at point i, (K+1, N+1), not below the least that is told apart; and the
    colours' range.

    `guaranteed` and `accepted`, each x and y along a staircase between cells: right of its steps points may still be
    wrong, and may still move.
    """

    logs: np.ndarray
    limits: tuple[float, float]
    guaranteed: tuple[np.ndarray, np.ndarray]
    accepted: tuple[np.ndarray, np.ndarray]


def sweep_errors(path: Trajectory, exact: Tensor | None) -> SweepErrors:
    """The median over the samples of each sweep's distance to a path; `ValueError` as `check_sweeps`."""
    medians = np.median(path.errors(check_sweeps(path, exact)).double().cpu().numpy(), axis=2)
    logs = np.log10(np.clip(np.nan_to_num(medians, nan=np.inf), *SWEEP_ERRORS))
    low, high = float(logs.min()), float(logs.max())
    k, last = np.arange(len(logs)), logs.shape[1] - 1
    return SweepErrors(logs, (low, max(high, low + 1)), _stairs(np.minimum(k, last)), _stairs(np.array(path.fronts)))


def _stairs(fronts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The right edge of the cell `fronts[k]` in row k, from the row's upper edge to its lower one."""
    k = np.arange(len(fronts))
    return np.repeat(fronts + 0.5, 2), np.stack([k - 0.5, k + 0.5], 1).ravel()


def error_ticks(low: float, high: float) -> tuple[list[int], list[str]]:
    """Powers of ten on a scale of logarithms, not more than seven, as exponents and as text; the least of all says
    that it is a bound."""
    first, last = math.ceil(low), math.floor(high)
    places = list(range(first, last + 1, 1 + (last - first) // 7))
    return places, [
        f"{'≤ ' if 10.0**e <= SWEEP_ERRORS[0] else ''}1e{e}" if e < -2 or e > 3 else f"{10.0**e:g}" for e in places
    ]


def point_ticks(ts: Tensor, most: int = 5) -> tuple[list[int], list[str]]:
    """Some of a grid's points, evenly spread: their numbers, and text with their times."""
    last = len(ts) - 1
    places = sorted({round(j * last / most) for j in range(most + 1)})
    return places, [f"{i}\nt = {float(ts[i]):.2g}" for i in places]


def shown_sweeps(path: Trajectory, exact: Tensor | None, most: int, samples: int) -> list[int]:
    """Which sweeps to show: all of 0 ... K, or about `most` of them, each a like factor after the one before: 0, 1, 2,
    4, 8, 16.

    `ValueError` if no sweeps were kept, states are not in the plane, or a number does not fit.
    """
    check_sweeps(path, exact)
    check_planes({"path": path})
    check_count(samples, "samples")
    last, parts = len(path.sweeps) - 1, check_count(most, "most", 3) - 2
    if last < most:
        return list(range(last + 1))
    return sorted({0, last} | {round(last ** (j / parts)) for j in range(parts)})


def sweep_paths(path: Trajectory, k: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The path after sweep k, cut at its front: the accepted points (M, B, 2) and those that still move, thinned;
    both have the front."""
    kept = thin(path)
    front = path.fronts[k]
    xs = path.sweeps[k, :, :samples].double().cpu()
    accepted, moving = kept[kept <= front], kept[kept >= front]
    at = torch.tensor([front])
    return xs[torch.cat([accepted, at]).unique()].numpy(), xs[torch.cat([at, moving]).unique()].numpy()


def end_color(path: Trajectory, k: int) -> str:
    """The colour of the samples after sweep k."""
    return ACCEPTED_COLOR if path.fronts[k] == len(path.ts) - 1 else MOVING_COLOR


def sweep_title(path: Trajectory, k: int) -> str:
    """What is to be known of a sweep: its number, and how much of the path is accepted."""
    return f"k = {k}: {path.fronts[k]} of {len(path.ts) - 1} accepted"


_ROW_KEYS = ("method", "steps", "rounds", "seconds", "seconds_with_cost", "cost_per_call", "curve")


def by_method(rows: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The rows of a comparison of parallel samplers by method, each group by T; a row is what `toydiff parallel --json`
    writes.

    `ValueError` for a table without rows, rows that lack something, and two rows of one method and T, which a figure
    cannot tell apart.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the comparison has no rows")
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        missing = [key for key in _ROW_KEYS if key not in row]
        missing += [f"curve.{key}" for key in ("rounds", "median", "p95") if "curve" in row and key not in row["curve"]]
        if missing:
            raise ValueError(f"a row of a comparison of parallel samplers lacks {', '.join(missing)}")
        method_look(row["method"])
        lengths = {len(row["curve"][key]) for key in ("rounds", "median", "p95")}
        if len(lengths) > 1:
            raise ValueError(f"the curve of {row['method']!r} must have as many rounds as errors")
        group = groups.setdefault(row["method"], [])
        if any(other["steps"] == row["steps"] for other in group):
            raise ValueError(
                f"two rows of {row['method']!r} with {row['steps']} steps: draw one problem, schedule and setting at a time"
            )
        group.append(row)
    return {method: sorted(group, key=lambda row: row["steps"]) for method, group in groups.items()}


def shared_steps(groups: Mapping[str, Sequence[Mapping]]) -> int:
    """The largest T at which most methods have a curve of errors; the sequential walk has none. `ValueError` if no
    row has one."""
    drawable = [row["steps"] for group in groups.values() for row in group if row["curve"]["rounds"]]
    if not drawable:
        raise ValueError("there is nothing to draw: no row has a curve of errors, so none is of a parallel sampler")
    return max(drawable, key=lambda steps: (drawable.count(steps), steps))


def rounds_needed(row: Mapping, target: float | None, which: str = "median") -> float:
    """The rounds after which the error first is `target` or less, NaN if never; without a target those of the whole
    run.

    A sequential walk reaches its own end when it is over.
    """
    curve = row["curve"]
    if target is None or not curve["rounds"]:
        return row["rounds"]
    return next((n for n, error in zip(curve["rounds"], curve[which], strict=True) if error <= target), math.nan)


def rounds_heads(target: float | None, steps: int) -> tuple[str, str, str]:
    """The titles of the three panels of `rounds`."""
    thin_ = "(thin: 95th percentile)"
    return (
        "Rounds until it stops" if target is None else f"Rounds to an error of {target:g} {thin_}",
        f"T = {steps}: median error {thin_}",
        f"T = {steps}: wall-clock (won: left of its line)",
    )


def rounds_ranges(
    groups: Mapping[str, Sequence[Mapping]], steps: int, target: float | None
) -> dict[str, tuple[float, float]]:
    """The ranges of the logarithmic axes of `rounds`: T and the rounds of the first panel, rounds and errors of the
    second, seconds."""
    rows = [row for group in groups.values() for row in group]
    shown = [row for row in rows if row["steps"] == steps]
    kinds = ("median",) if target is None else ("median", "p95")
    errors = [e for row in shown for which in ("median", "p95") for e in curve(row, which).errors]
    return {
        "T": padded_log([row["steps"] for row in rows]),
        "growth": padded_log([1, *(rounds_needed(row, target, which) for row in rows for which in kinds)]),
        "rounds": padded_log([1, *(row["rounds"] for row in shown)], 0.04),
        "errors": padded_log([*errors, *([] if target is None else [target])]),
        "seconds": padded_log([row[key] for row in shown for key in ("seconds", "seconds_with_cost")], 0.12),
    }


@dataclass(frozen=True)
class Curve:
    """An error against rounds, as a logarithmic plot can show it: from the first round on, and not below what is
    told apart."""

    rounds: np.ndarray
    errors: np.ndarray


def curve(row: Mapping, which: str) -> Curve:
    """The "median" or "p95" curve of a row."""
    n, e = (np.array(row["curve"][key], dtype=float) for key in ("rounds", which))
    return Curve(n[n > 0], np.clip(e[n > 0], *SWEEP_ERRORS))


def clock(groups: Mapping[str, Sequence[Mapping]], steps: int) -> tuple[list[Mapping], list[str]]:
    """The rows of one T, and what the axis calls each: its method and rounds."""
    rows = [row for group in groups.values() for row in group if row["steps"] == steps]
    return rows, [f"{row['method']}\n{row['rounds']} rounds" for row in rows]


def clock_kinds(rows: Sequence[Mapping]) -> dict[str, tuple[str, str]]:
    """The two runs whose seconds are shown: their key, what they are called, and the dash of the sequential one's
    line."""
    cost = f"{1000 * rows[0]['cost_per_call']:g} ms added to each call"
    return {"seconds": ("as it is", "dot"), "seconds_with_cost": (cost, "dash")}


def number(value: float) -> str:
    """A measured number as it is written in a figure: 0.0123, 3.4e-07."""
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"
