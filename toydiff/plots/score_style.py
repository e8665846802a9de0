"""What the figures of score distillation share, whoever draws them: checked numbers, arrows to scale, words on axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..mixtures import GaussianMixture
from ..support.checks import check_count, check_finite, shape
from .style import Density, Look, as_density, check_points, padded
from .training_style import looks

FRACTION_LABEL = "share of the samples / share of the data"
UPDATES_LABEL = "updates of the generator"
SAMPLE_NAME, ARROW_NAME = "generator's samples", "score difference: where a sample is moved"
SHORT_NAMES = "samples", "where they are moved"
ARROW_REACH = 0.12
"""The longest arrow of a figure, as a part of the plane's width."""

Scene = tuple[Tensor, Tensor, Tensor]
"""Samples (B, 2), and arrows: where they start (A, 2) and by how much they point (A, 2)."""


@dataclass(frozen=True)
class Scenes:
    """What `score_arrows` draws: the density behind; by number of updates, samples (B, 2), and arrows' starts and
    ends (A, 2) on one scale; how long the longest one is.
    """

    behind: Density
    samples: dict[int, np.ndarray]
    starts: dict[int, np.ndarray]
    ends: dict[int, np.ndarray]
    longest: float


def scenes(frames: Mapping[int, Scene], background: GaussianMixture | Density) -> Scenes:
    """Samples and arrows by number of updates; `ValueError` for other shapes, and NaN."""
    if not frames:
        raise ValueError("there is nothing to draw: give at least one number of updates")
    found = {}
    for step in sorted(check_count(step, "a number of updates", 0) for step in frames):
        samples, starts, by = frames[step]
        check_points({f"the samples after {step} updates": samples, f"the arrows after {step} updates": starts})
        if by.shape != starts.shape:
            raise ValueError(f"each arrow needs a start and a direction, got {shape(starts)} and {shape(by)}")
        check_finite(by, f"the directions after {step} updates")
        found[step] = [x.detach().double().cpu().numpy() for x in (samples, starts, by)]
    behind = as_density(background, [frames[step][0] for step in found])
    (left, right), _ = behind.limits
    longest = max(float(np.linalg.norm(by, axis=1).max()) for _, _, by in found.values())
    scale = ARROW_REACH * (right - left) / longest if longest else 0.0
    return Scenes(
        behind,
        {step: samples for step, (samples, _, _) in found.items()},
        {step: starts for step, (_, starts, _) in found.items()},
        {step: starts + scale * by for step, (_, starts, by) in found.items()},
        longest,
    )


@dataclass(frozen=True)
class Shares:
    """What `mode_fractions` draws: by method, updates (n,) and each mode's share over what it should be (n, K); looks,
    and ranges of both axes."""

    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    looks: dict[str, Look]
    ranges: tuple[tuple[float, float], tuple[float, float]]


def shares(curves: Mapping[str, Sequence], expected: Sequence[float] | Tensor) -> Shares:
    """Rows (updates, shares (K,)) by method, over the expected shares (K,) > 0; `ValueError` for other tables."""
    due = np.asarray(expected, dtype=float)
    if due.ndim != 1 or not len(due) or not (due > 0).all():
        raise ValueError("the expected shares must be a list of numbers above 0, one a mode")
    if not curves:
        raise ValueError("there is nothing to draw: give at least one method")
    drawn = {}
    for name, rows in curves.items():
        try:
            updates = np.array([float(step) for step, _ in rows])
            found = np.array([np.asarray(values, dtype=float) for _, values in rows])
        except (TypeError, ValueError):
            updates, found = np.empty(0), np.empty(0)
        if not len(updates) or found.shape != (len(updates), len(due)) or not np.isfinite(found).all():
            raise ValueError(f"the shares of {name!r} must be rows (updates, {len(due)} finite numbers)")
        order = updates.argsort(kind="stable")
        drawn[name] = updates[order], (found / due)[order]
    last = max(float(updates[-1]) for updates, _ in drawn.values())
    highest = max(float(ratio.max()) for _, ratio in drawn.values())
    return Shares(drawn, looks(drawn), (padded(0.0, max(last, 1.0), 0.02), padded(0.0, max(highest, 1.2), 0.04)))


@dataclass(frozen=True)
class Slopes:
    """What `gradients` draws: by name, (x, value, spread or None), the exact curve, looks, and ranges of both axes."""

    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    exact: tuple[np.ndarray, np.ndarray]
    looks: dict[str, Look]
    ranges: tuple[tuple[float, float], tuple[float, float]]


def slopes(curves: Mapping[str, Sequence], exact: Sequence) -> Slopes:
    """Rows (x, value) or (x, value, spread) by name, and rows (x, value) of the exact curve; `ValueError` for other
    tables."""
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    drawn = {name: _table(f"the curve {name!r}", rows, (2, 3)) for name, rows in curves.items()}
    true = _table("the exact curve", exact, (2,))
    everything = [true, *drawn.values()]
    ranges = tuple(
        padded(
            min(float(table[:, k].min()) for table in everything), max(float(table[:, k].max()) for table in everything)
        )
        for k in (0, 1)
    )
    return Slopes(
        {
            name: (table[:, 0], table[:, 1], table[:, 2] if table.shape[1] == 3 else None)
            for name, table in drawn.items()
        },
        (true[:, 0], true[:, 1]),
        looks(drawn),
        ranges,
    )


def _table(what: str, rows: Sequence, columns: tuple[int, ...]) -> np.ndarray:
    try:
        table = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] not in columns or not len(table) or not np.isfinite(table).all():
        raise ValueError(f"{what} must be a table of finite numbers with {' or '.join(map(str, columns))} columns")
    return table[table[:, 0].argsort(kind="stable")]
