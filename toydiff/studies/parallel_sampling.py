"""Parallel samplers beside the sequential walk: rounds, network calls, seconds and errors in one table."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import Counted, Denoiser, check_denoiser
from ..grids import time_grid
from ..mixtures import GaussianMixture, random_mixture
from ..mixtures import mixture as mixture_by_name
from ..prediction import Prediction
from ..schedules import schedule as schedule_by_name
from ..solvers import DDIM, PARALLEL, ParallelSolver, Solver, Trajectory, reference, solve, solver_by_name
from ..solvers.parallel import Points, Sweep
from ..support.checks import check_count, check_number, check_positive, unknown

METHODS = ("sequential", "picard", "window", "anderson", "broyden", "parareal")
"""What is compared: "sequential" is the walk step by step, and the others compute the same path in fewer rounds.
"window" is Picard iteration on a quarter of the grid at a time."""

DEFAULT_STEPS = (25, 100, 1000)

TARGET = 1e-2
"""The distance to the end of the sequential walk at which `rounds_to_target` stops counting."""

REPEATS, LONG = 5, 0.2
"""A method is run up to REPEATS times, until its runs took LONG seconds together; the median time counts. Short runs
vary more, and so are repeated."""

MOST_STATES = 4_000_000
"""The most steps x samples. Several paths of so many states are in memory at a time."""


class FixedCost(Denoiser):
    """A denoiser whose every call takes `seconds` longer, whatever the size of the batch.

    That is a device with room to spare, where parallel sampling pays. The other extreme is a processor that is busy
    with one sample already: a call on n points takes n times as long there.
    """

    def __init__(self, denoiser: Denoiser, seconds: float):
        check_denoiser(denoiser)
        super().__init__(denoiser.schedule, denoiser.kind)
        if check_number(seconds, "the cost per call") < 0:
            raise ValueError(f"the cost per call must be >= 0 seconds, got {seconds!r}")
        self.denoiser, self.seconds = denoiser, seconds

    @property
    def calls(self) -> int:
        return self.denoiser.calls

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        time.sleep(self.seconds)
        return self.denoiser(x, t, cond)


@dataclass(frozen=True)
class Watched(ParallelSolver):
    """A parallel solver that notes the last point (B, ...) of each sweep in `ends`, so that not all paths are kept."""

    solver: ParallelSolver
    ends: list[Tensor] = field(default_factory=list)

    @property
    def at_once(self) -> int:
        return self.solver.at_once

    @property
    def one_step(self) -> Solver:
        return self.solver.one_step

    def sweeps(self, points: Points, x: Tensor) -> Iterator[Sweep]:
        for sweep in self.solver.sweeps(points, x):
            self.ends.append(sweep.xs[-1])
            yield sweep


@dataclass(frozen=True)
class _Case:
    """A method at a number of steps, which gives one row; the name that `solve` takes, and the solver of that name."""

    method: str
    steps: int
    name: str
    solver: Solver | ParallelSolver

    @property
    def one_step(self) -> Solver:
        """The solver whose sequential walk this method is compared with."""
        return self.solver.one_step if isinstance(self.solver, ParallelSolver) else self.solver


def compare(
    mixture: str | GaussianMixture = "random",
    *,
    steps: Sequence[int] = DEFAULT_STEPS,
    methods: Sequence[str] = METHODS,
    schedule: str = "scaled-linear",
    grid: str = "uniform",
    samples: int = 256,
    tolerance: float | None = 1e-3,
    window: int | None = None,
    cost: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> list[dict]:
    """Parallel samplers against the sequential walk on an exact mixture, in float64. The result is a row for each
    method at each number of steps.

    Every run starts from the same draws of the mixture's marginal at t = 1. The sequential walk takes the same steps
    one by one, with the same noise; its one-step solver is DDIM unless a method's settings name another. All errors are
    Euclidean distances of the samples at t = 0. A row has these keys among others:

    - `error_to_sequential`, with `_p95` and `_max`: the median distance to the end of the sequential walk, the 95th
      percentile and the largest one.
    - `error_to_exact`, with `_p95`: likewise to the end of the exact flow; None for a stochastic solver.
    - `sweeps`: iterations. `rounds`: calls that waited for one another. `nfe`: calls per sample.
    - `calls`: batches through the network. They are more than `rounds` where a batch is larger than the solver's
      `at_once`, or where fine and coarse solver differ.
    - `curve`: the rounds spent up to each sweep, from the first guess on, and the error to the sequential walk there.
    - `rounds_to_target`, with `_p95`: the rounds after which the median, and the 95th percentile, was first at most
      `target`; None if it never was.
    - `seconds`: the median of a few runs. `seconds_with_cost`: one run in which every network call takes `cost` seconds
      longer (`FixedCost`).

    mixture: a name in `MIXTURES`, where "random" depends on the seed, or a mixture. methods: names in `METHODS`, with
    settings where wanted ("parareal:blocks=10"). tolerance: of all parallel methods; None goes on to the exact end.
    window: the points that the method "window" takes at a time; None is a quarter of the steps. progress: show a bar.
    `ValueError` for an unknown name, and for settings that do not fit the numbers of steps, before anything is
    computed.
    """
    name, mixture = _named(mixture, check_count(seed, "seed", 0))
    ready = schedule_by_name(schedule)
    check_count(samples, "samples")
    steps = sorted({check_count(T, "each of the steps") for T in steps})
    cases = [_case(method, T, tolerance, window) for T, method in product(steps, dict.fromkeys(methods))]
    if not cases:
        raise ValueError("a comparison needs one method and one number of steps at least, got none")
    if window is not None and not any(str(method).startswith("window") for method in methods):
        raise ValueError("a window was given, but the method window is not among the methods")
    if samples * steps[-1] > MOST_STATES:
        raise ValueError(f"steps x samples must be at most {MOST_STATES}, got {steps[-1]} x {samples}")
    grids = {T: time_grid(ready, T, grid, data_std=mixture.data_std) for T in steps}
    D = mixture.denoiser(ready)
    costly = FixedCost(D, cost)

    with tqdm(cases, desc="parallel", unit="run", disable=not progress) as bar:
        x = mixture.marginal(ready, 1.0).sample(samples, seed, dtype=torch.float64)
        exact = reference(D, x)
        walks: dict[tuple[Solver, int], Trajectory] = {}
        rows = []
        for case in bar:
            bar.set_postfix_str(f"{case.method}, {case.steps} steps")
            ts, one_step = grids[case.steps], case.one_step
            if (one_step, case.steps) not in walks:
                walks[one_step, case.steps] = solve(D, x, solver=one_step, ts=ts, generator=seed, keep="end")
            rows.append(
                {
                    "method": case.method,
                    "solver": case.name,
                    "problem": name,
                    "schedule": schedule,
                    "grid": grid,
                    "steps": case.steps,
                    "samples": samples,
                    "seed": seed,
                    "tolerance": getattr(case.solver, "tolerance", None),
                }
                | _measured(
                    D,
                    costly,
                    x,
                    ts,
                    case,
                    walks[one_step, case.steps].end,
                    None if one_step.stochastic else exact,
                    seed,
                )
            )
        return rows


def _named(mixture: str | GaussianMixture, seed: int) -> tuple[str, GaussianMixture]:
    if isinstance(mixture, GaussianMixture):
        return "mixture", mixture
    return f"mixture:{mixture}", random_mixture(seed) if mixture == "random" else mixture_by_name(mixture)


def _case(method: str, steps: int, tolerance: float | None, window: int | None) -> _Case:
    """A method with its settings, checked against the number of steps. Settings in the method's own name come last, and
    so win."""
    word, _, given = str(method).partition(":")
    if word not in METHODS:
        raise unknown("method", word, METHODS)
    if word == "sequential":
        if given:
            raise ValueError(f"sequential is DDIM and has no settings, got {method!r}")
        return _Case(word, steps, "ddim", DDIM())
    settings = []
    name = "picard" if word == "window" else word
    if word == "window":
        settings.append(f"window={max(steps // 4, 1) if window is None else check_count(window, 'window')}")
    if tolerance is not None:
        check_positive(tolerance, "tolerance")
    if tolerance != PARALLEL[name].solver.tolerance:
        settings.append(f"tolerance={'none' if tolerance is None else repr(tolerance)}")
    settings += filter(None, [given])
    name += ":" + ",".join(settings) if settings else ""
    solver = solver_by_name(name)
    assert isinstance(solver, ParallelSolver)  # all of `METHODS` but sequential are
    solver.check_steps(steps)
    return _Case(word, steps, name, solver)


def _measured(
    D: Denoiser, costly: FixedCost, x: Tensor, ts: Tensor, case: _Case, walked: Tensor, exact: Tensor | None, seed: int
) -> dict[str, Any]:
    """What one method did: its counts, its times, and the distances of its end to those of the walk and of the flow."""

    def run(D: Denoiser, solver: Solver | ParallelSolver) -> Trajectory:
        return solve(D, x, solver=solver, ts=ts, generator=seed, keep="end")

    watched = Watched(case.solver) if isinstance(case.solver, ParallelSolver) else None
    counted = Counted(D)
    path = run(counted, case.solver if watched is None else watched)  # it also warms up
    timed: list[float] = []
    while len(timed) < REPEATS and sum(timed) < LONG:
        timed.append(run(D, case.solver).seconds)
    off = _distances(path.end, walked)
    curve: dict[str, list] = {"rounds": [], "median": [], "p95": []}
    if watched is not None:
        errors = [_distances(end, walked) for end in watched.ends]
        curve = {
            "rounds": list(path.sweep_rounds),
            "median": [_quantile(each, 0.5) for each in errors],
            "p95": [_quantile(each, 0.95) for each in errors],
        }
    return {
        "sweeps": None if watched is None else len(path.sweep_rounds) - 1,
        "rounds": path.rounds,
        "nfe": path.nfe,
        "calls": counted.rounds,
        "seconds": statistics.median(timed),
        "cost_per_call": costly.seconds,
        "seconds_with_cost": run(costly, case.solver).seconds,
        "error_to_sequential": _quantile(off, 0.5),
        "error_to_sequential_p95": _quantile(off, 0.95),
        "error_to_sequential_max": float(off.max()),
        "error_to_exact": None if exact is None else _quantile(_distances(path.end, exact), 0.5),
        "error_to_exact_p95": None if exact is None else _quantile(_distances(path.end, exact), 0.95),
        "target": TARGET,
        "rounds_to_target": path.rounds if watched is None else _first(curve["rounds"], curve["median"]),
        "rounds_to_target_p95": path.rounds if watched is None else _first(curve["rounds"], curve["p95"]),
        "curve": curve,
    }


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """The Euclidean distance of each sample, (B,)."""
    return (a - b).flatten(1).norm(dim=1)


def _quantile(values: Tensor, fraction: float) -> float:
    """The quantile of values (B,)."""
    return float(values.quantile(fraction))


def _first(rounds: Sequence[int], errors: Sequence[float]) -> int | None:
    """The rounds that were spent when the error was first at most `TARGET`; None if it never was."""
    return next((spent for spent, error in zip(rounds, errors, strict=True) if error <= TARGET), None)
