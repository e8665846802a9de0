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
    """What one sweep gives.

    - first: the first point of its window;
    - xs (n+1, B, ...): the states at the points `first` ... `first` + n;
    - x0s (n, B, ...): the x_0 that the model predicted on the steps between them;
    - front: the last accepted point; it and all before it will not change;
    - change (n,): the error that this sweep found in the states before it, at the points after `first`, as `rms`.
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
        """Take all jobs in one round. Each job gives the states where its steps lead, (n, B, ...), and the x_0
        predicted on the way, (n, B, ...)."""

    def walk(self, solver: Solver, x: Tensor, stops: Sequence[int]) -> Iterator[tuple[Tensor, Prediction]]:
        """The plain walk through some of the points, one step after the other. Each step yields x at the next stop, and
        the prediction that it was made with."""

    def spend(self, nfe: int, rounds: int) -> None:
        """Add to the count what a path to start from has cost already."""


class ParallelSolver:
    """A sampler over the whole grid: `sweeps` yields better and better paths, and the last one is the result.

    - one_step: the solver whose path it computes. Its steps are evaluated at many points in one call.
    - tolerance: a point is accepted once a sweep changes no sample there by more than tolerance * sigma, root mean
      square over the data; sigma is the noise level at the point. None accepts exact points only. The tolerance bounds
      what a point may still be wrong by, and not the error of the result: later steps may enlarge it, as they do for a
      sample between two modes.
    - at_once: the largest number of states (points x samples) in one network call, which bounds the memory. A sweep
      that needs several calls is still one round, because they do not wait for one another.
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
        """First the guess before any sweep (`front` 0, no `change`), then one sweep after the other until all points
        are accepted. `FloatingPointError` if a state of the sequential walk is not finite.
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
    """(n, B, ...) to (n,): the root mean square over the data, of the sample where it is largest. What is not finite
    counts as infinite."""
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
    """(T+1, B, ...): the path of `steps` DDIM steps over the grid. A point that a step passes over lies where that
    step's jump has it."""
    stops = [round(k * points.steps / steps) for k in range(steps + 1)]
    path = [x]
    for (i, j), (_, p) in zip(pairwise(stops), points.walk(DDIM(), x, stops), strict=True):
        path += [jump(p, points.times[k]) for k in range(i + 1, j + 1)]
    return torch.stack(path)


def resampled(previous: Trajectory, points: Points, x: Tensor) -> Tensor:
    """An earlier path at the times of this grid, (T+1, B, ...): linear in t between its own times, and x at the first
    point. `ValueError` if it does not fit x."""
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
