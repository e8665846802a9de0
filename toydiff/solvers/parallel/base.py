"""What a parallel-in-time sampler is: it improves a whole path sweep by sweep, and pays in calls for fewer rounds."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...prediction import Prediction, jump
from ...support.checks import check_count, check_positive
from ..base import Solver
from ..ddim import DDIM
from ..trajectory import Trajectory

AT_ONCE = 16_384
"""States (points x samples) in one network call, unless a solver's `at_once` is set: this bounds the memory."""


class Sweep(NamedTuple):
    """One sweep: the states xs (n+1, B, ...) of the points from `first` on, and the x_0 (n, B, ...) predicted to get
    there.

    `front`: all points up to this one are accepted, and will not change. `change` (n,): the error that this sweep found
    in the states before it, at the points after `first`: root mean square over the data, the largest of the samples.
    """

    first: int
    xs: Tensor
    x0s: Tensor
    front: int
    change: Tensor


class Job(NamedTuple):
    """n steps that do not depend on one another: from the states xs (n, B, ...) at the points `starts` to the points
    `stops`."""

    solver: Solver
    xs: Tensor
    starts: Sequence[int]
    stops: Sequence[int]


class Points(Protocol):
    """The points of a grid as a parallel sampler sees them during one `solve`."""

    steps: int
    times: list[Tensor]
    alpha: list[float]
    sigma: list[float]

    def step(self, *jobs: "Job") -> list[tuple[Tensor, Tensor]]:
        """All jobs in one round. Each gives the states where its steps lead and the x_0 predicted on the way, (n, B,
        ...) both."""

    def walk(self, solver: Solver, x: Tensor, stops: Sequence[int]) -> Iterator[tuple[Tensor, Prediction]]:
        """The plain walk through some of the points, a round or more a step: (x at the next stop, the prediction
        before it)."""

    def spend(self, nfe: int, rounds: int) -> None:
        """Count what was spent elsewhere, on a path to start from."""


class ParallelSolver:
    """A sampler over the whole grid: `sweeps` yields better and better paths, the last of them the result.

    `one_step`: the solver whose path it computes; its steps are evaluated at many points in one call.

    `tolerance`: a point is accepted once a sweep changes every sample there by at most tolerance * sigma, sigma the
    noise level at the point, the change being a root mean square over the data. None accepts exact points only. The
    tolerance bounds the error at a point, not that of the result: later steps may enlarge it, as they do for a sample
    between two modes.

    `at_once`: the largest number of states (points x samples) in one network call, which bounds the memory. A sweep
    that is split so is still one round, because its parts do not wait for one another.
    """

    tolerance: float | None
    at_once: int

    @property
    def one_step(self) -> Solver:
        raise NotImplementedError

    @property
    def stochastic(self) -> bool:
        return self.one_step.stochastic

    @property
    def order(self) -> int:
        return self.one_step.order

    @property
    def nfe_per_step(self) -> int:
        return self.one_step.nfe_per_step

    def check_steps(self, steps: int) -> None:
        """`ValueError` where the settings do not fit a grid of so many steps."""

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        """The path that is guessed before the first sweep (`front` 0, no `change`), and then sweeps until all points
        are accepted.

        `FloatingPointError` if a state of the sequential walk is not finite.
        """
        raise NotImplementedError


def check_one_step(solver: object, what: str) -> None:
    """`solver` is a one-step solver: all points are stepped at once, so a step cannot use earlier ones."""
    if not isinstance(solver, Solver):
        raise ValueError(f"{what} must be a Solver such as toydiff.solvers.DDIM(), got {solver!r}")
    if solver.memory:
        raise ValueError(
            f"{what} must be a one-step solver such as ddim, ddpm, heun or dpm2; "
            f"{type(solver).__name__} uses {solver.memory} earlier prediction(s), which are not known when all points "
            "are stepped at once"
        )


def check_settings(solver: ParallelSolver) -> None:
    """The settings that all parallel samplers have."""
    if solver.tolerance is not None:
        check_positive(solver.tolerance, "tolerance")
    check_count(solver.at_once, "at_once")


def rms(d: Tensor) -> Tensor:
    """The root mean square over the data, the largest of the samples: (n, B, ...) gives (n,). What is not finite counts
    as infinite."""
    if d.shape[1] == 0:  # no sample has changed
        return torch.zeros(len(d), dtype=torch.float64)
    square = d.flatten(2).square().mean(2).amax(1).cpu().double()  # few numbers, for decisions that Python takes
    return torch.where(torch.isfinite(square), square, math.inf).sqrt()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """`rms` of a - b: (n, B, ...) and (n, B, ...) give (n,)."""
    return rms(a - b)


def unstable(solver: "Solver | ParallelSolver", steps: int, x: Tensor) -> FloatingPointError:
    """The error where a walk overflows."""
    return FloatingPointError(
        f"the samples became NaN or infinite on the way; {type(solver).__name__} with {steps} steps is unstable on "
        f"this model, or {x.dtype} too narrow for this schedule"
    )


def leading(condition: Tensor) -> int:
    """How many of the conditions (n,) hold before the first that does not."""
    return int(condition.long().cumprod(0).sum())


def column(values: Sequence[float], x: Tensor) -> Tensor:
    """Numbers, one a point, made to multiply states (n, B, ...) like x (B, ...)."""
    return torch.tensor(values, dtype=torch.float64).to(x).reshape(-1, *[1] * x.ndim)


def coarse_path(points: Points, x: Tensor, steps: int) -> Tensor:
    """`steps` DDIM steps over the grid's points, and the points between them on each step's jump: (T+1, B, ...)."""
    stops = [round(k * points.steps / steps) for k in range(steps + 1)]
    path = [x]
    for (i, j), (_, p) in zip(pairwise(stops), points.walk(DDIM(), x, stops), strict=True):
        path += [jump(p, points.times[k]) for k in range(i + 1, j + 1)]
    return torch.stack(path)


def resampled(previous: Trajectory, points: Points, x: Tensor) -> Tensor:
    """A path on another grid, linear between its times, (T+1, B, ...), beginning at x. `ValueError` if it does not
    fit x."""
    if len(previous.xs) != len(previous.ts):
        raise ValueError("a trajectory to start from needs all its states: solve it with keep='path'")
    if previous.xs.shape[1:] != x.shape:
        raise ValueError(
            f"the trajectory to start from has states {tuple(previous.xs.shape[1:])}, but x has shape {tuple(x.shape)}"
        )
    ts = torch.stack(points.times).to(previous.ts)
    k = torch.searchsorted(-previous.ts, -ts).clamp(1, len(previous.ts) - 1)  # -ts rises
    left, right = previous.ts[k - 1], previous.ts[k]
    fraction = ((left - ts) / (left - right)).clamp(0, 1).to(x).reshape(-1, *[1] * x.ndim)
    xs = previous.xs.to(x)
    path = torch.lerp(xs[k - 1], xs[k], fraction)
    path[0] = x
    return path
