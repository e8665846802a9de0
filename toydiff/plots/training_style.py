"""What the figures of training and distillation share: checks, words, looks of methods, and numbers to draw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..catalog import METHODS
from ..measure import paired_error, straightness
from ..solvers.registry import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from ..solvers.trajectory import Trajectory
from ..support.checks import check_count, check_finite, check_positive, shape, unknown
from .style import (
    INK,
    LINES,
    PATH_COLORS,
    PLOTLY_MARKERS,
    Density,
    Look,
    check_planes,
    check_points,
    number,
    padded,
    padded_log,
)

UPDATES_LABEL = "updates (optimizer steps)"
LOSS_LABEL = "training loss (each method's own)"
DISTANCE_LABEL = "distance to true samples"
NOISE_LABEL = "noise ε (standard deviations)"
SAMPLE_LABEL = "sample x₀ after one step"
EXACT_MAP_NAME = "exact map of the ODE"
ONE_STEP_NAME = "after one step"
REFLOW_COLOR = METHODS["rectified-flow"].color

ANGLE_COLORS = (BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE, BLUE)
"""A circle of colours, the directions from -180 to 180 degrees."""

STEP_DASHES = ("solid", "dash", "dot", "dashdot")
"""Lines of 1, 2, 4, ... steps, the fewest first."""

DIGIT_GAP = 2
"""White pixels between two digits."""


TEACHER = "teacher"
"""Whom students are compared with: in ink."""


def looks(names: Iterable[str]) -> dict[str, Look]:
    """How each of several methods is drawn: as its card says where the name is a method's id, a teacher in ink,
    others in colours that are still free."""
    names = list(names)
    cards = {name: METHODS[name] for name in names if name in METHODS}
    taken = {card.color for card in cards.values()}
    free = [color for color in PATH_COLORS if color not in taken] or PATH_COLORS
    out = {}
    for name in names:
        if name == TEACHER:
            color, marker, dash = INK, "o", "solid"
        elif name in cards:
            color, marker, dash = cards[name].color, cards[name].marker, cards[name].dash
        else:
            color, marker, dash = free[len(out.keys() - cards.keys() - {TEACHER}) % len(free)], "o", "solid"
        out[name] = Look(color, marker, LINES[dash], PLOTLY_MARKERS[marker], dash)
    return out


# ---- reflow


def reflow_heads(paths: Mapping[str, Trajectory], one_step: Mapping[str, Tensor]) -> list[str]:
    """Each panel's title: the name, and below it the normalised straightness of the paths and the root mean square
    error of one step.

    `ValueError` for paths that are not in the plane, ends of a name that has no path, and ends (B, 2) that are not as
    many as the path's.
    """
    check_planes(paths)
    for name, ends in one_step.items():
        if name not in paths:
            raise unknown("round with ends after one step", name, paths)
        if ends.shape != paths[name].end.shape:
            raise ValueError(
                f"the ends after one step of {name!r} must have the shape of its samples, {shape(paths[name].end)}, got {shape(ends)}"
            )
    heads = []
    for name, path in paths.items():
        words = f"S = {number(straightness(path, normalised=True))} (0: straight)"
        if name in one_step:
            words += f", one-step error {number(paired_error(one_step[name].to(path.end), path.end).rms)}"
        heads.append(f"{name}\n{words}")
    return heads


# ---- one-step maps


@dataclass(frozen=True)
class Maps:
    """Maps on the line in the order of their noise: noise (N,), the ends of each (N,), the exact ends or None; and
    ranges for both axes."""

    noise: np.ndarray
    ends: dict[str, np.ndarray]
    exact: np.ndarray | None
    limits: tuple[tuple[float, float], tuple[float, float]]


def line_maps(noise: Tensor, maps: Mapping[str, Tensor], exact: Tensor | None) -> Maps:
    """Maps noise -> sample on the line, sorted; `ValueError` for shapes other than (N,), N >= 2, and NaN."""
    if not maps:
        raise ValueError("there is nothing to draw: give at least one map")
    if noise.ndim != 1 or len(noise) < 2:
        raise ValueError(f"the noise on the line must have shape (N,) with N >= 2, got {shape(noise)}")
    everyone = dict(maps) | ({} if exact is None else {EXACT_MAP_NAME: exact})
    for name, ends in everyone.items():
        if ends.shape != noise.shape:
            raise ValueError(f"the map {name!r} must have one sample a noise, {shape(noise)}, got {shape(ends)}")
        check_finite(ends, f"the map {name!r}")
    check_finite(noise, "the noise")
    order = noise.argsort()
    sorted_ = {name: ends.detach()[order.to(ends.device)].double().cpu().numpy() for name, ends in everyone.items()}
    at = noise.detach()[order].double().cpu().numpy()
    values = np.concatenate(list(sorted_.values()))
    limits = (float(at[0]), float(at[-1])), padded(float(values.min()), float(values.max()))
    return Maps(at, {name: sorted_[name] for name in maps}, sorted_.get(EXACT_MAP_NAME), limits)


def check_plane_maps(noise: Tensor, ends: Mapping[str, Tensor]) -> None:
    """Noise (B, 2) in the plane and, for each name, as many ends; else `ValueError`."""
    check_points(ends)
    check_points({"noise": noise})
    for name, cloud in ends.items():
        if cloud.shape != noise.shape:
            raise ValueError(f"the ends {name!r} must be as many as the noise, {shape(noise)}, got {shape(cloud)}")


def directions(ends: Tensor, behind: Density) -> np.ndarray:
    """In which direction from the density's mean each end (B, 2) lies, in degrees from -180 to 180, (B,)."""
    mass = behind.p / behind.p.sum()
    x, y = (ends.detach().double().cpu().numpy() - [mass.sum(0) @ behind.x, mass.sum(1) @ behind.y]).T
    return np.degrees(np.arctan2(y, x))


def noise_reach(noise: Tensor) -> float:
    """Half the width of a square about 0 that holds all noise."""
    return 1.04 * float(noise.detach().abs().max())


# ---- training


@dataclass(frozen=True)
class Loss:
    """A loss against updates, in blocks: the middle update of each, the mean, and its 5th and 95th percentile."""

    updates: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Curves:
    """What `training_curves` draws: losses by method, qualities by method and steps as (updates, distance), looks,
    dashes, and log ranges."""

    losses: dict[str, Loss]
    quality: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]]
    looks: dict[str, Look]
    dashes: dict[int, str]
    ranges: dict[str, tuple[float, float]]


def training_numbers(
    runs: Mapping[str, Sequence], quality: Mapping[str, Mapping[int, Sequence]], floor: float | None, most: int = 200
) -> Curves:
    """The numbers of `training_curves`, the losses in at most `most` blocks; `ValueError` for what cannot be drawn."""
    if not runs and not quality:
        raise ValueError("there is nothing to draw: give the losses or the quality of at least one run")
    if floor is not None:
        check_positive(floor, "floor")
    losses = {name: _blocks(*_curve(f"the loss of {name!r}", rows), most) for name, rows in runs.items()}
    good: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for name, by_steps in quality.items():
        if not by_steps:
            raise ValueError(f"the quality of {name!r} holds no number of steps")
        good[name] = {}
        for steps in sorted(check_count(n, f"a number of steps of {name!r}") for n in by_steps):
            updates, distance = _curve(f"the quality of {name!r} at {steps} steps", by_steps[steps])
            good[name][steps] = updates[updates > 0], distance[updates > 0]
    steps = sorted({n for by_steps in good.values() for n in by_steps})
    points = [curve for by_steps in good.values() for curve in by_steps.values()]
    ranges = {}
    if losses:
        last = max(float(loss.updates[-1]) for loss in losses.values())
        ranges["loss updates"] = padded(0.0, last, 0.02)
        ranges["loss"] = padded_log(np.concatenate([np.concatenate([a.low, a.high]) for a in losses.values()]).tolist())
    if points:
        ranges["updates"] = padded_log(np.concatenate([x for x, _ in points]).tolist())
        distances = np.concatenate([y for _, y in points]).tolist()
        ranges["distance"] = padded_log(distances + ([] if floor is None else [floor]))
    dashes = {n: STEP_DASHES[k % len(STEP_DASHES)] for k, n in enumerate(steps)}
    return Curves(losses, good, looks(dict.fromkeys([*runs, *quality])), dashes, ranges)


def _curve(what: str, rows: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """A curve's rows (update, value) as two arrays, by update."""
    try:
        table = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise ValueError(f"{what} must be a table of at least one (updates, value)")
    table = table[table[:, 0].argsort(kind="stable")]
    return table[:, 0], table[:, 1]


def _blocks(updates: np.ndarray, values: np.ndarray, most: int) -> Loss:
    parts = np.array_split(np.arange(len(updates)), min(most, len(updates)))
    at, mean = (np.array([a[part].mean() for part in parts]) for a in (updates, values))
    low, high = (np.array([np.quantile(values[part], q) for part in parts]) for q in (0.05, 0.95))
    return Loss(at, mean, low, high)


def steps_name(steps: int) -> str:
    """1 step, 2 steps."""
    return f"{steps} step{'s' if steps > 1 else ''}"


# ---- against the noise level


@dataclass(frozen=True)
class LevelCurves:
    """Curves against NSR by name, each (NSR (n,), value (n,), spread (n,) or None), positive values only; looks, and
    log ranges of both axes."""

    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    looks: dict[str, Look]
    ranges: tuple[tuple[float, float], tuple[float, float]]


def level_curves(curves: Mapping[str, Sequence]) -> LevelCurves:
    """Rows (NSR, value) or (NSR, value, spread) by name; `ValueError` for others, and where no NSR and value is
    above 0 and finite."""
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    drawn = {}
    for name, rows in curves.items():
        try:
            table = np.asarray(rows, dtype=float)
        except (TypeError, ValueError):
            table = np.empty(0)
        if table.ndim != 2 or table.shape[1] not in (2, 3) or not len(table):
            raise ValueError(f"the curve {name!r} must be a table of (NSR, value) or (NSR, value, spread)")
        table = table[np.isfinite(table).all(1) & (table[:, :2] > 0).all(1)]
        if not len(table):
            raise ValueError(f"the curve {name!r} has no NSR and value above 0, and both axes are logarithmic")
        table = table[table[:, 0].argsort(kind="stable")]
        drawn[name] = table[:, 0], table[:, 1], table[:, 2] if table.shape[1] == 3 else None
    ranges = tuple(padded_log(np.concatenate([curve[k] for curve in drawn.values()]).tolist()) for k in (0, 1))
    return LevelCurves(drawn, looks(drawn), ranges)


# ---- the same noise


@dataclass(frozen=True)
class SameNoise:
    """What `same_noise` draws: method: {steps: (ends, title)}, the colour of each noise by method, and all numbers
    of steps."""

    panels: dict[str, dict[int, tuple[np.ndarray, str]]]
    colors: dict[str, np.ndarray]
    steps: list[int]


def check_same_noise(ends: Mapping[str, Mapping[int, Tensor]]) -> None:
    """Clouds (B, 2) by number of steps, all of one method's of the same size; else `ValueError`."""
    if not ends or not all(ends.values()):
        raise ValueError("there is nothing to draw: give at least one method, with at least one number of steps")
    for name, by_steps in ends.items():
        for n, cloud in by_steps.items():
            check_count(n, f"a number of steps of {name!r}")
            check_points({f"{name}, {steps_name(n)}": cloud})
        if len({cloud.shape for cloud in by_steps.values()}) > 1:
            sizes = ", ".join(shape(cloud) for cloud in by_steps.values())
            raise ValueError(f"the ends of {name!r} must be of the same noise, got shapes {sizes}")


def same_noise_panels(ends: Mapping[str, Mapping[int, Tensor]], behind: Density) -> SameNoise:
    """Titles and colours of `same_noise`."""
    panels, colors = {}, {}
    for name, by_steps in ends.items():
        fewest = min(by_steps)
        panels[name] = {}
        for n in sorted(by_steps):
            moved = f"moved by {number(paired_error(by_steps[n], by_steps[fewest]).rms)}" if n > fewest else " "
            panels[name][n] = by_steps[n].detach().double().cpu().numpy(), f"{name}: {steps_name(n)}\n{moved}"
        colors[name] = directions(by_steps[fewest], behind)
    return SameNoise(panels, colors, sorted({n for by_steps in ends.values() for n in by_steps}))


# ---- digits


def digit_sheet(rows: Mapping[str, Tensor]) -> np.ndarray:
    """Rows of images (k, 1, H, W) as one picture, (rows (H + gap) - gap, k (W + gap) - gap), -1 paper and 1 ink, with
    paper in the gaps.

    `ValueError` for no rows, rows that are not images, or not as many as large as the first one's, or NaN.
    """
    if not rows:
        raise ValueError("there is nothing to draw: give at least one row of digits")
    first = next(iter(rows))
    for name, images in rows.items():
        if images.ndim != 4 or images.shape[1] != 1 or not len(images):
            raise ValueError(f"the row {name!r} must be images (k, 1, H, W) with k >= 1, got {shape(images)}")
        if images.shape != rows[first].shape:
            raise ValueError(
                f"all rows must have the same shape, got {shape(rows[first])} for {first!r} and {shape(images)} for {name!r}"
            )
        check_finite(images, f"the row {name!r}")
    tiles = torch.stack([images.detach().double().cpu()[:, 0] for images in rows.values()])  # (rows, k, H, W)
    tiles = torch.nn.functional.pad(tiles, (0, DIGIT_GAP, 0, DIGIT_GAP), value=-1)
    n, k, high, wide = tiles.shape
    sheet = tiles.transpose(1, 2).reshape(n * high, k * wide)
    return sheet[:-DIGIT_GAP, :-DIGIT_GAP].clamp(-1, 1).numpy()


def digit_middles(images: Tensor, n: int) -> tuple[list[float], list[float]]:
    """Where the middles of the columns and those of n rows are on the sheet, in pixels from its upper left."""
    k, _, high, wide = images.shape
    columns, rows = ([i * (size + DIGIT_GAP) + (size - 1) / 2 for i in range(m)] for m, size in ((k, wide), (n, high)))
    return columns, rows
