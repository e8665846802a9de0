"""`solve`: the one loop that runs every solver, and what it returns."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import Conditioned, Denoiser, check_denoiser, check_guidance, check_weights, largest
from ..grids import DEFAULT_GRID, time_grid
from ..prediction import Prediction
from ..schedules import Levels, Schedule, ahead, as_time, check_levels, take_as_checked
from ..support.checks import as_generator, check_finite, check_grid, check_state, unknown
from ..support.words import quoted
from .base import Solver
from .learned import Learned, LearnedTimes, check_for
from .parallel.base import Job, ParallelSolver, Sweep, unstable
from .registry import DEFAULT_SOLVER, solver_by_name
from .trajectory import Trajectory

Noise = torch.Generator | Sequence[torch.Generator] | None
"""Where noise comes from: one stream for the batch, one for each sample, or torch's global one."""
Callback = Callable[[int, float, Tensor], object]
"""What is called with (i, t, x_0) after a step: its number from 0, the time at which it began, and the x_0 (B, ...)
that was predicted there. What it returns is not used."""


class _OnGrid(Schedule):
    """A schedule that knows its levels at the times of a grid: computed ahead, all at once, as plain numbers.

    A step's coefficients are then arithmetic in Python. That is many times cheaper than with tensors of one number, and
    waits for no device. The grid's times are known by identity; at any other time this is the schedule itself.
    """

    def __init__(self, schedule: Schedule, ts: Tensor):
        self.schedule, self.name = schedule, schedule.name
        self.ts, self.times = ts, list(ts.unbind())
        self._levels: dict[int, Levels] = {}
        self._know(ts, self.times)
        self._check()
        self._parts: dict[float, dict[tuple[int, int], Tensor]] = {}
        self._rates: dict[int, tuple[Tensor, Tensor]] = {}
        self._columns: list[Tensor] = []

    def _know(self, ts: Tensor, times: list[Tensor]) -> None:
        exact = ts.cpu().to(torch.float64)  # not every device has float64
        columns = (f(exact).tolist() for f in (self.schedule.alpha, self.schedule.sigma, self.schedule.lam))
        self._levels.update(zip(map(id, times), map(Levels, *columns), strict=True))

    def ahead(self) -> AbstractContextManager[None]:
        """Within the block, the model's own schedule knows these levels too."""
        return ahead(self.schedule, self._levels)

    @contextmanager
    def at(self, *points: Sequence[int] | Tensor) -> Iterator[list[Tensor]]:
        """The times of points of the grid, which are given by number, (rows,) each. While this lasts, their levels are
        known as well."""
        if not self._columns:
            levels = [self._levels[id(t)] for t in self.times]
            self._columns = [torch.tensor(c, dtype=torch.float64) for c in zip(*levels, strict=True)]
        numbers = [torch.as_tensor(point) for point in points]
        times = [self.ts[point.to(self.ts.device)] for point in numbers]
        dtype = torch.float32 if self.ts.device.type == "mps" else torch.float64
        for t, point in zip(times, numbers, strict=True):
            self._levels[id(t)] = Levels(*(c[point].to(t.device, dtype) for c in self._columns))
        try:
            yield times
        finally:
            for t in times:
                del self._levels[id(t)]

    def _check(self) -> None:
        alphas, sigmas, _ = zip(*(self._levels[id(t)] for t in self.times), strict=True)
        check_levels(self.schedule, self.ts.tolist()[::-1], alphas[::-1], sigmas[::-1])
        take_as_checked(self)
        for (t, here), (s, there) in pairwise((stop, self._levels[id(stop)].lam) for stop in self.times):
            if here >= there and math.isfinite(here):
                raise ValueError(
                    f"the times {float(t)!r} and {float(s)!r} of the grid are too close: they have the same noise "
                    f"level on {self!r}"
                )

    def alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)

    def lam(self, t: Tensor) -> Tensor:
        return self.schedule.lam(t)

    def t_of_lam(self, lam: Tensor) -> Tensor:
        return self.schedule.t_of_lam(lam)

    def levels(self, t: Tensor) -> Levels:
        return self._levels.get(id(t)) or self.schedule.levels(t)

    def part_way(self, t: Tensor, s: Tensor, r: float) -> Tensor:
        if r not in self._parts:  # for all steps of the grid at once
            ts = self.schedule.part_way(self.ts[:-1], self.ts[1:], r)
            times = list(ts.unbind())
            self._know(ts, times)
            self._parts[r] = dict(zip(pairwise(map(id, self.times)), times, strict=True))
        time = self._parts[r].get((id(t), id(s)))
        return self.schedule.part_way(t, s, r) if time is None else time

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if not self._rates:
            rates = zip(*(rate.unbind() for rate in self.schedule.rates(self.ts)), strict=True)
            self._rates = dict(zip(map(id, self.times), rates, strict=True))
        return self._rates.get(id(t)) or self.schedule.rates(t)

    def __repr__(self) -> str:
        return repr(self.schedule)


class _Points:
    """The `Points` of one `solve`: many steps in one call, and each step's noise drawn once, in the order of a
    sequential walk."""

    def __init__(self, run: Conditioned, schedule: _OnGrid, x: Tensor, at_once: int, rng: Noise):
        self.run, self.schedule, self.x, self.at_once, self.rng = run, schedule, x, at_once, rng
        self.times, self.steps = schedule.times, len(schedule.times) - 1
        levels = [schedule.levels(t) for t in self.times]
        self.alpha, self.sigma = [float(level.alpha) for level in levels], [float(level.sigma) for level in levels]
        self.noises: list[Tensor] = []

    def _noise(self, i: int) -> Tensor:
        while len(self.noises) <= i:
            self.noises.append(_draw(self.x, self.rng))
        return self.noises[i]

    def step(self, *jobs: Job) -> list[tuple[Tensor, Tensor]]:
        results = {id(job): (job.xs, job.xs) for job in jobs}
        longest, left = 0, [job for job in jobs if len(job.xs)]
        while left:
            solver = left[0].solver
            mine, left = [job for job in left if job.solver == solver], [job for job in left if job.solver != solver]
            # the steps of one solver go into one call
            starts, stops = [i for job in mine for i in job.starts], [i for job in mine for i in job.stops]
            states, x0s, calls = self._together(solver, torch.cat([job.xs for job in mine]), starts, stops)
            sizes = [len(job.xs) for job in mine]
            results |= zip(map(id, mine), zip(states.split(sizes), x0s.split(sizes), strict=True), strict=True)
            longest = max(longest, calls)
        self.run.spent.rounds += longest
        return [results[id(job)] for job in jobs]

    def _together(
        self, solver: Solver, xs: Tensor, starts: Sequence[int], stops: Sequence[int]
    ) -> tuple[Tensor, Tensor, int]:
        """(states, predicted x_0, calls that waited for one another) of steps from xs (n, B, ...)."""
        B, run = len(self.x), self.run
        spent = longest = 0
        point, sample = torch.arange(len(xs)).repeat_interleave(B), torch.arange(B).repeat(len(xs))
        rows, states, x0s = xs.flatten(0, 1), torch.empty_like(xs), torch.empty_like(xs)
        starts_, stops_ = torch.tensor(starts)[point], torch.tensor(stops)[point]
        noise = torch.cat([self._noise(i) for i in starts]) if solver.stochastic else None
        for first in range(0, len(rows), self.at_once):
            part = slice(first, first + self.at_once)
            # row r of the batch is sample r % B at some point of the grid
            cond, scale = (_of(each, sample[part], B) for each in (run.cond, run.guidance_scale))
            D = Conditioned(run.denoiser, cond, scale, self.schedule)
            with self.schedule.at(starts_[part], stops_[part]) as (t, s):
                state, p = solver.step(D, rows[part], t, s, (), None if noise is None else noise[part])
            states.flatten(0, 1)[part], x0s.flatten(0, 1)[part] = state, p.x0
            spent += D.spent.nfe * len(t)
            longest = max(longest, D.spent.rounds)
        run.spent.nfe += -(-spent // max(B, 1))
        return states, x0s, longest

    def spend(self, nfe: int, rounds: int) -> None:
        self.run.spent.nfe += nfe
        self.run.spent.rounds += rounds

    def walk(self, solver: Solver, x: Tensor, stops: Sequence[int]) -> Iterator[tuple[Tensor, Prediction]]:
        return _walk(self.run, solver, x, [self.times[i] for i in stops], self.rng)


def _one_each(each: Any, B: int) -> bool:
    """Whether a condition for B samples, or something in it, is one a sample."""
    if isinstance(each, Tensor | np.ndarray):
        return each.ndim > 0 and len(each) == B
    if isinstance(each, Mapping):
        return any(_one_each(value, B) for value in each.values())
    return isinstance(each, list | tuple) and (len(each) == B or any(_one_each(value, B) for value in each))


def _of(each: Any, samples: Tensor, B: int) -> Any:
    """Of conditions for B samples: those of these samples, with repeats.

    A tensor or array (B, ...) is one a sample. Dictionaries, lists and tuples are looked into; a list or tuple of B in
    which nothing else is one a sample is so itself. What is left is one for all samples, and stays as it is.
    """
    if not _one_each(each, B):
        return each
    if isinstance(each, Tensor | np.ndarray):
        return each[samples.to(each.device) if isinstance(each, Tensor) else samples.numpy()]
    if isinstance(each, Mapping):
        return {key: _of(value, samples, B) for key, value in each.items()}
    inside = any(_one_each(value, B) for value in each)
    parts = [_of(value, samples, B) for value in each] if inside else [each[i] for i in samples.tolist()]
    return type(each)(*parts) if hasattr(each, "_fields") else type(each)(parts)  # a namedtuple takes them one by one


def _draw(x: Tensor, rng: Noise) -> Tensor:
    """Noise shaped like x, drawn where the generator is: one on the processor gives the same numbers for every
    device."""
    if isinstance(rng, Sequence):
        return torch.cat([_draw(row, own) for row, own in zip(x.split(1), rng, strict=True)])
    device = x.device if rng is None else rng.device
    return torch.randn(x.shape, generator=rng, dtype=x.dtype, device=device).to(x.device)


def _walk(
    run: Conditioned, solver: Solver, x: Tensor, times: Sequence[Tensor], rng: Noise
) -> Iterator[tuple[Tensor, Prediction]]:
    """Step by step: (x at the next time, the prediction that led there)."""
    past: deque[Prediction] = deque(maxlen=max(solver.memory, 1))
    for t, s in pairwise(times):
        x, prediction = solver.step(run, x, t, s, past, _draw(x, rng) if solver.stochastic else None)
        past.append(prediction)
        yield x, prediction


@torch.no_grad()
def solve(
    D: Denoiser,
    x: Tensor,
    steps: int = 20,
    *,
    solver: str | Solver | ParallelSolver = DEFAULT_SOLVER,
    grid: str = DEFAULT_GRID,
    ts: Tensor | None = None,
    cond: Tensor | None = None,
    guidance_scale: Tensor | float = 1.0,
    generator: torch.Generator | int | Sequence[torch.Generator] | None = None,
    keep: str = "path",
    progress: bool = False,
    callback: Callback | None = None,
) -> Trajectory:
    """Sample: walk x (B, ...) from the first time of a grid to its last, normally from noise at t = 1 to data at t = 0.

    - x: at the noise level of the first time; `Schedule.prior` draws it;
    - steps, grid: N >= 1, and a name of `GRIDS`, which give the times;
    - ts: the times themselves instead, (N+1,), strictly decreasing in [0, 1];
    - solver: a name of `SOLVERS` or `PARALLEL`, with settings after a colon ("ddim:eta=0.5"), or an object;
    - cond: what the denoiser takes. A parallel solver evaluates many points in one call, and repeats what is one a
      sample: tensors and arrays (B, ...), lists and tuples of B, also inside dictionaries, lists and tuples. Anything
      else is passed on as one for all samples;
    - guidance_scale: a number, or one a sample (B,); 1 is off. The default grid goes by the largest;
    - generator: a torch.Generator or a seed, for stochastic solvers; or a list of B generators, one a sample, whose
      noise then does not depend on the batch that it is in;
    - keep: "path" for all states; "end" for the last only, so that memory does not grow with N;
    - progress: whether to show a bar;
    - callback: what is called with (i, t, x_0) after each step of a sequential solver (`Callback`).

    A parallel solver ("picard", "anderson", "broyden", "parareal") improves the whole path sweep by sweep and returns
    the sweeps as well: fewer rounds, more calls. It computes the path of a one-step solver: ddim, unless its settings
    name another ("picard:solver=ddpm,window=20").

    The defaults are the most accurate general choice, and go by the scale of the data, which the model says
    (`Denoiser.data_std`), and by guidance.

    Runs without gradients. `ValueError` for bad input, `FloatingPointError` if the states overflow on the way,
    or if the model's weights are not finite.
    """
    check_denoiser(D)
    solver = solver_by_name(solver) if isinstance(solver, str) else solver
    if not isinstance(solver, Solver | ParallelSolver):
        raise ValueError(f"solver must be a name or a Solver, such as toydiff.solvers.DDIM(), got {quoted(solver)}")
    check_state(x)
    check_finite(x)
    if keep not in ("path", "end"):
        raise unknown("keep", keep, ("path", "end"))
    guidance_scale = check_guidance(guidance_scale, x)
    if isinstance(solver, Learned | LearnedTimes):
        check_for(solver, D, guidance_scale)
        if ts is not None or grid != DEFAULT_GRID or steps != len(solver.times) - 1:
            given = "ts" if ts is not None else f"{steps} steps, grid {grid!r}"
            raise ValueError(
                f"a learned solver has its own {len(solver.times) - 1} steps and times: give steps = "
                f"{len(solver.times) - 1} and neither ts nor a grid, got {given}"
            )
        ts = torch.tensor(solver.times, dtype=torch.float64)
    if ts is None:
        g = max(D.guided_by, largest(guidance_scale))
        ts = time_grid(D.schedule, steps, grid, data_std=D.data_std, guidance_scale=g)
    ts = as_time(ts).detach().to(x.device, torch.promote_types(x.dtype, torch.float32), copy=True)
    check_grid(ts)
    if isinstance(generator, Sequence) and (
        len(generator) != len(x) or not all(isinstance(own, torch.Generator) for own in generator)
    ):
        raise ValueError(f"a list of generators has one torch.Generator for each of the {len(x)} samples")
    rng = generator if isinstance(generator, Sequence) else as_generator(generator, x.device)
    schedule = _OnGrid(D.schedule, ts)
    run = Conditioned(D, cond, guidance_scale, schedule)

    began = time.perf_counter()
    if isinstance(solver, ParallelSolver):
        if callback is not None:
            raise ValueError(
                f"a callback is called after each sequential step, and {type(solver).__name__} takes all steps "
                "together; take a sequential solver"
            )
        solver.check_steps(len(ts) - 1)
        points = _Points(run, schedule, x, solver.at_once, rng)
        try:
            with schedule.ahead():
                path = _swept(solver.sweeps(points, x), run, x, points.steps, keep, progress)
        except FloatingPointError:
            check_weights(D)
            raise
    else:
        with schedule.ahead():
            walk = _walk(run, solver, x, schedule.times, rng)
            path = _walked(walk if callback is None else _reported(walk, ts, callback), x, len(ts) - 1, keep, progress)
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(path["xs"][-1]).all()):
        check_weights(D)
        raise unstable(solver, len(ts) - 1, x)
    return Trajectory(ts, nfe=run.spent.nfe, rounds=run.spent.rounds, seconds=seconds, **path)


def _reported(
    walk: Iterator[tuple[Tensor, Prediction]], ts: Tensor, callback: Callback
) -> Iterator[tuple[Tensor, Prediction]]:
    """The same walk, whose every step is reported to the callback."""
    for i, (t, (x, prediction)) in enumerate(zip(ts[:-1].tolist(), walk, strict=True)):
        callback(i, t, prediction.x0)
        yield x, prediction


def _walked(walk: Iterator[tuple[Tensor, Prediction]], x: Tensor, steps: int, keep: str, progress: bool) -> dict:
    """A sequential walk to its end: the `xs` and `x0s` of a `Trajectory`."""
    xs, x0s = [x], []
    for x, prediction in tqdm(walk, desc="solve", unit="step", total=steps) if progress else walk:
        if keep == "path":
            xs.append(x)
            x0s.append(prediction.x0)
    if keep == "end":
        return {"xs": x[None], "x0s": x.new_empty(0, *x.shape)}
    return {"xs": torch.stack(xs), "x0s": torch.stack(x0s)}


def _swept(sweeps: Iterator[Sweep], run: Conditioned, x: Tensor, steps: int, keep: str, progress: bool) -> dict:
    """All sweeps of a parallel solver: the fields of a `Trajectory`. The bar shows how much of the path is accepted."""
    path, x0s = x.expand(steps + 1, *x.shape), x.new_zeros(steps if keep == "path" else 0, *x.shape)
    paths, fronts, rounds = [], [], []
    with tqdm(desc="accepted", unit="point", total=steps, disable=not progress) as bar:
        for k, sweep in enumerate(sweeps):
            bar.set_postfix_str(f"sweep {k}", refresh=False)
            bar.update(sweep.front - bar.n)
            fronts.append(sweep.front)
            rounds.append(run.spent.rounds)
            last = sweep.first + len(sweep.xs) - 1
            if keep == "path":
                path = torch.cat([path[: sweep.first], sweep.xs, sweep.xs[-1:].expand(steps - last, *x.shape)])
                x0s[sweep.first : sweep.first + len(sweep.x0s)] = sweep.x0s
                paths.append(path)
    of_sweeps = {"fronts": tuple(fronts), "sweep_rounds": tuple(rounds)}
    if keep == "end":
        return {"xs": sweep.xs[-1:], "x0s": x0s} | of_sweeps
    return {"xs": path, "x0s": x0s, "sweeps": torch.stack(paths)} | of_sweeps
