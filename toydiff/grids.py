"""Time grids: where a sampler of N steps stops on its way from noise to data.

Every grid is a strictly decreasing float64 tensor (N + 1,) from t = 1 to t = 0, both included; N >= 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .schedules import Schedule, check_schedule
from .support.checks import check_count, check_grid, check_number, check_positive, unknown

FIRST_NSR = 30.0
"""The NSR that the first step jumps to from alpha = 0, on the grids `lambda` and `karras`, unless `first` is given."""


SHIFT = (0.12, 1.4)
"""(a, b) of the shifted-lambda grid, in NSR, for data of standard deviation 1; they grow with the data. Chosen once,
together with the default solver, at 5, 10 and 20 steps on mixtures of many shapes and scales;
`tests/benchmarks/quality.py` and `kinds.py` measure it."""

SHIFTS = {"shifted-lambda": SHIFT, "shifted-lambda-wide": (0.07, 3.5), "shifted-lambda-narrow": (0.056, 0.7)}
"""The shifted-lambda grids: the default, one for data that spread twice as wide as `data_std` says, and one for data
with finer details."""

GUIDED = 1 / 3
"""Under guidance g > 1 predictions spread wider than the data, and the shifted grids are those of data g^(1/3) times as
wide. Chosen once, with the default solver, at 5 to 50 steps and g up to 15; `tests/benchmarks/kinds.py` measures it."""

SCALES = (1e-4, 1e4)
"""The least and the greatest scale of data that a grid is laid out for: beyond, times run together."""


def scale_of(data_std: float) -> float:
    """`Denoiser.data_std` within `SCALES`; `ValueError` unless it is a finite number > 0."""
    least, most = SCALES
    return min(max(check_positive(data_std, "data_std"), least), most)


def grid_scale(data_std: float, guidance_scale: float = 1.0) -> float:
    """What a and b of a shifted grid are multiplied by: `data_std`, and max(g, 1)^(1/3) (`GUIDED`)."""
    return min(scale_of(data_std) * max(guidance_scale, 1.0) ** GUIDED, SCALES[1])


def warp(alpha: Tensor, sigma: Tensor, shift: tuple[float, float] = SHIFT) -> Tensor:
    """u = log((sigma + a alpha)/(sigma + b alpha)): about -lambda between NSR a and b, and finite where alpha or
    sigma is 0."""
    a, b = shift
    return torch.log((sigma + a * alpha) / (sigma + b * alpha))


def warped_times(schedule: Schedule, fractions: Tensor, shift: tuple[float, float] = SHIFT) -> Tensor:
    """The times at these fractions of the way in u (`warp`) from t = 1 to t = 0. fractions (N + 1,): rising from 0 to
    1, float64; the shifted grids have them even."""
    a, b = shift
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    u_noise, u_data = warp(schedule.alpha(ends), schedule.sigma(ends), shift).tolist()
    e = torch.exp(u_noise + (u_data - u_noise) * fractions[1:-1])
    inner = schedule.t_of_lam(torch.log((1 - e) / (b * e - a)))  # NSR = (b e - a)/(1 - e)
    return torch.cat([ends[:1], inner, ends[1:]])


GRIDS: dict[str, str] = {
    "shifted-lambda": "uniform in log((NSR + a)/(NSR + b)): lambda in the middle, finite at both ends",
    "shifted-lambda-wide": "the same, with a and b for data that spread twice as wide",
    "shifted-lambda-narrow": "the same, with a and b for data with finer details",
    "lambda": "uniform in lambda = -log NSR between two noise levels, then 0",
    "karras": "uniform in NSR^(1/rho) between two noise levels, then 0",
    "uniform": "uniform in t (the trailing spacing, on a table)",
    "quadratic": "quadratic in t: t = u^2, u uniform",
}
"""The time grids by name."""

DEFAULT_GRID = "shifted-lambda"


def time_grid(
    schedule: Schedule,
    steps: int,
    kind: str = DEFAULT_GRID,
    *,
    first: float | None = None,
    last: float | None = None,
    rho: float = 7.0,
    data_std: float = 1.0,
    guidance_scale: float = 1.0,
) -> Tensor:
    """The times of N = `steps` steps, (N + 1,), float64, strictly decreasing from 1 to 0.

    - `shifted-lambda`, also `-wide` and `-narrow`: uniform in log((NSR + a)/(NSR + b)), (a, b) of `SHIFTS` times
      `data_std`, the scale of the data (`Denoiser.data_std`), so that the grid of larger data lies at more noise; and,
      under guidance g > 1, times g^(1/3) (`GUIDED`);
    - `uniform`: t = i/N;
    - `quadratic`: t = (i/N)^2 (arXiv 2010.02502, app. D.2);
    - `lambda`: uniform in log NSR (arXiv 2206.00927, sec. 3.4);
    - `karras`: uniform in NSR^(1/rho), rho > 0 (arXiv 2206.00364, eq. 5).

    `lambda` and `karras` are laid out in noise levels. They begin at NSR(1); where that is infinite, or `first` is
    given, one step goes from t = 1 to NSR `first`. They end at NSR `last`, from where the last step jumps to data. Only
    these two take `first` > `last` > 0, only `karras` uses `rho`, and only the shifted grids use `data_std` and
    `guidance_scale`.
    `ValueError` for anything else.
    """
    check_schedule(schedule)
    check_count(steps, "steps")
    if not isinstance(kind, str) or kind not in GRIDS:
        raise unknown("time grid", kind, GRIDS)
    if kind not in ("lambda", "karras") and (first, last) != (None, None):
        raise ValueError(f"first and last are noise levels of the grids lambda and karras; the grid {kind!r} has none")
    scale = grid_scale(data_std, check_number(guidance_scale, "guidance_scale"))
    if kind in SHIFTS:
        a, b = SHIFTS[kind]
        ts = warped_times(schedule, torch.linspace(0, 1, steps + 1, dtype=torch.float64), (a * scale, b * scale))
    elif kind in ("uniform", "quadratic"):
        ts = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** (1 if kind == "uniform" else 2)
    elif kind == "lambda":
        ts = _between_levels(schedule, steps, torch.log, torch.exp, first, last)
    else:
        power = check_positive(rho, "rho")
        ts = _between_levels(schedule, steps, lambda n: n ** (1 / power), lambda v: v**power, first, last)
    check_grid(ts)
    return ts


def last_nsr(steps: int) -> float:
    """The last noise level before the jump, unless `last` is given: the more steps, the nearer to data."""
    return 0.5 / steps


def _between_levels(
    schedule: Schedule,
    steps: int,
    to: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    first: float | None,
    last: float | None,
) -> Tensor:
    """Levels uniform in `to`(NSR), whose inverse is `back`, between the two steps that touch t = 1 and t = 0."""
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noisiest, cleanest = schedule.nsr(ends).tolist()
    low = max(last_nsr(steps), 2 * cleanest) if last is None else check_positive(last, "last")
    if first is not None:
        high = check_positive(first, "first")
    else:
        high = max(FIRST_NSR, 2 * low) if math.isinf(noisiest) else noisiest
    if not cleanest < low < high <= noisiest:
        raise ValueError(
            f"noise levels must satisfy {cleanest:g} < last < first <= {noisiest:g} on {schedule!r}, "
            f"got last = {low:g} and first = {high:g}"
        )
    from_top = high == noisiest
    levels_left = steps if from_top else steps - 1  # how many are spaced: that of t = 1 too, if it is the highest
    if levels_left < 2:
        # too few for a spacing: the last level, if there is room for it
        levels = torch.full((steps - 1,), low, dtype=torch.float64)
    else:
        edges = to(torch.tensor([high, low], dtype=torch.float64))
        u = torch.linspace(0, 1, levels_left, dtype=torch.float64)
        levels = back(edges[0] + u * (edges[1] - edges[0]))[1 if from_top else 0 :]
    return torch.cat([ends[:1], schedule.t_of_lam(-levels.log()), ends[1:]])
