"""Time grids: where a sampler of N steps stops on its way from noise to data.

Every grid is a strictly decreasing float64 tensor (N + 1,) from t = 1 to t = 0, both included; N >= 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_count, check_grid, check_positive, unknown
from .schedules import Schedule

FIRST_NSR = 30.0
"""Where a grid in noise levels enters after the jump from alpha = 0, unless told otherwise."""


@dataclass(frozen=True)
class Spacing:
    """A rule for spacing times. `in_time` warps u = 1 ... 0 to t; otherwise the pair (to, back) makes noise levels uniform."""

    title: str
    in_time: Callable[[Tensor], Tensor] | None = None
    to: Callable[[Tensor, float], Tensor] | None = None
    back: Callable[[Tensor, float], Tensor] | None = None


GRIDS = {
    "uniform": Spacing("uniform in t", in_time=lambda u: u),
    "quadratic": Spacing("quadratic in t: t = u^2", in_time=lambda u: u**2),
    "lambda": Spacing("uniform in lambda = -log NSR", to=lambda n, rho: n.log(), back=lambda v, rho: v.exp()),
    "karras": Spacing("uniform in NSR^(1/rho)", to=lambda n, rho: n ** (1 / rho), back=lambda v, rho: v**rho),
}
"""The spacings by name."""

DEFAULT_GRID = "lambda"


def time_grid(
    schedule: Schedule,
    steps: int,
    kind: str = DEFAULT_GRID,
    *,
    first: float | None = None,
    last: float | None = None,
    rho: float = 7.0,
) -> Tensor:
    """The times of N = `steps` steps, (N + 1,), float64, strictly decreasing from 1 to 0.

    `uniform` (t = i/N; on a table, the trailing spacing of other libraries) and `quadratic` (t = (i/N)^2, arXiv 2010.02502, app. D.2) are
    laid out in t. `lambda` (uniform in log NSR, arXiv 2206.00927, sec. 3.4) and `karras` (uniform in NSR^(1/rho), arXiv 2206.00364, eq. 5)
    are laid out in noise levels, N of them and then 0: from NSR(1), or, where that is infinite or `first` is given, by one step from
    t = 1 to NSR `first`, down to NSR `last`, from where the last step jumps to data. They take `first` > `last` > 0.
    `ValueError` for anything else.
    """
    check_count(steps, "steps")
    if kind not in GRIDS:
        raise unknown("time grid", kind, GRIDS)
    spacing = GRIDS[kind]
    if spacing.in_time is not None:
        if first is not None or last is not None:
            raise ValueError(f"first and last are noise levels, but the grid {kind!r} is laid out in t")
        ts = spacing.in_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    else:
        ts = _by_level(schedule, steps, spacing, first, last, check_positive(rho, "rho"))
    check_grid(ts)
    return ts


def last_nsr(steps: int) -> float:
    """The last noise level before the jump, unless told otherwise: the more steps there are, the nearer to data."""
    return 0.5 / steps


def _by_level(
    schedule: Schedule, steps: int, spacing: Spacing, first: float | None, last: float | None, rho: float
) -> Tensor:
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noisiest, cleanest = schedule.nsr(ends).tolist()
    low = check_positive(last, "last") if last is not None else max(last_nsr(steps), 2 * cleanest)
    high = (
        check_positive(first, "first")
        if first is not None
        else min(noisiest, max(FIRST_NSR, 2 * low))
        if math.isinf(noisiest)
        else noisiest
    )
    if not cleanest < low < high <= noisiest:
        raise ValueError(
            f"noise levels must satisfy {cleanest:g} < last < first <= {noisiest:g} on {schedule!r}, got last = {low:g} and first = {high:g}"
        )
    inner = (
        steps - 1 if high == noisiest else steps - 2
    )  # steps between the levels; the rest are jumps from t = 1 and to t = 0
    if inner < 1:
        # too few steps for a spacing: t = 1, then the last level if there is room, then 0
        levels = torch.tensor([low] * (steps - 1), dtype=torch.float64)
        return torch.cat([ends[:1], schedule.t_of_lam(-levels.log()), ends[1:]])
    edge = spacing.to(torch.tensor([high, low], dtype=torch.float64), rho)
    u = torch.linspace(0, 1, inner + 1, dtype=torch.float64)
    levels = spacing.back(edge[0] + u * (edge[1] - edge[0]), rho)
    ts = schedule.t_of_lam(-levels.log())
    return torch.cat([ends[:1], ts[1:] if high == noisiest else ts, ends[1:]])
