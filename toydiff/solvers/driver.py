"""`solve`: the one loop that runs every solver, and what it returns."""

import math
import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from ..checks import as_generator, check_finite, check_grid, check_state, unknown
from ..denoisers import Denoiser, Guided, check_denoiser
from ..grids import DEFAULT_GRID, time_grid
from ..prediction import Prediction
from ..schedules import Levels, Schedule, as_time
from .base import Solver
from .registry import DEFAULT_SOLVER, solver_by_name


@dataclass
class Trajectory:
    """What a sampler did. `ts` (N+1,) decreasing; `xs` (N+1, B, ...), the state at each; `x0s` (N, B, ...), the predictions of
    x_0 made on the way. With keep = "end" `xs` holds the last state only, (1, B, ...), and `x0s` none, (0, B, ...).

    `nfe`: network calls per sample, guidance counted; `rounds`: calls that had to wait for one another; `seconds`: wall-clock.
    """

    ts: Tensor
    xs: Tensor
    x0s: Tensor
    nfe: int
    rounds: int
    seconds: float

    @property
    def end(self) -> Tensor:
        """The last state, (B, ...): the samples, where the grid ends at 0."""
        return self.xs[-1]


class _OnGrid(Schedule):
    """A schedule that has computed its levels at the times of a grid ahead, all at once, and gives them as plain numbers.

    A step's coefficients are then arithmetic in Python, many times cheaper than in tensors of one number, and wait for no
    device. It knows the grid's times by identity; at any other time it is the schedule itself.
    """

    def __init__(self, schedule: Schedule, ts: Tensor):
        self.schedule, self.name = schedule, schedule.name
        self.ts, self.times = ts, list(ts.unbind())
        self._levels: dict[int, Levels] = {}
        self._know(ts, self.times)
        self._check()
        self._parts: dict[float, dict[tuple[int, int], Tensor]] = {}
        self._rates: dict[int, tuple[Tensor, Tensor]] = {}

    def _know(self, ts: Tensor, times: list[Tensor]) -> None:
        exact = ts.cpu().to(torch.float64)  # not every device has float64
        columns = (f(exact).tolist() for f in (self.schedule.alpha, self.schedule.sigma, self.schedule.lam))
        self._levels.update(zip(map(id, times), map(Levels, *columns), strict=True))

    def _check(self) -> None:
        for (t, here), (s, there) in pairwise((stop, self._levels[id(stop)].lam) for stop in self.times):
            if here >= there and math.isfinite(here):
                raise ValueError(
                    f"the times {float(t)!r} and {float(s)!r} of the grid are too close: they have the same noise level on {self!r}"
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
        if id(t) not in self._levels:
            return self.schedule.rates(t)
        if not self._rates:
            rates = zip(*(rate.unbind() for rate in self.schedule.rates(self.ts)), strict=True)
            self._rates = dict(zip(map(id, self.times), rates, strict=True))
        return self._rates[id(t)]

    def __repr__(self) -> str:
        return repr(self.schedule)


class _Run:
    """D as a solver sees it during one `solve`: its condition bound, its schedule's levels at hand, its calls counted."""

    def __init__(self, denoiser: Denoiser, schedule: _OnGrid, cond: Tensor | None):
        self.denoiser, self.schedule, self.kind, self.cond = denoiser, schedule, denoiser.kind, cond
        self.calls, self.nfe, self.rounds = denoiser.calls, 0, 0

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        self.nfe += self.calls
        self.rounds += 1
        p = self.denoiser(x, t, self.cond)
        return Prediction(p.x, t, p.x0, p.eps, self.schedule)


@torch.no_grad()
def solve(
    D: Denoiser,
    x: Tensor,
    steps: int = 20,
    *,
    solver: str | Solver = DEFAULT_SOLVER,
    grid: str = DEFAULT_GRID,
    ts: Tensor | None = None,
    cond: Tensor | None = None,
    guidance_scale: float = 1.0,
    generator: torch.Generator | int | None = None,
    keep: str = "path",
    progress: bool = False,
) -> Trajectory:
    """Sample: walk x (B, ...) from the first time of a grid to its last, normally from noise at t = 1 to data at t = 0.

    x must be at the noise level of the first time (`Schedule.prior` draws it). `steps` N >= 1 and `grid` (a name of `GRIDS`) choose
    the times; `ts` (N+1,), strictly decreasing in [0, 1], overrides both. `cond` and `guidance_scale` go to the denoiser (1 is
    off). `generator`: a torch.Generator or a seed for stochastic solvers. keep: "path" for all states, "end" for the last
    only, whose memory does not grow with N. `progress` shows a bar.

    The defaults are the most accurate general choice, also for few steps. But guidance makes a model stiff, and they overshoot with 5 steps
    from a scale of 3, with 10 from 7.5: give it 20 steps, or solver = "ddim", which is the most robust (see tutorial 04).

    Runs without gradients. Raises `ValueError` for bad input, `FloatingPointError` if the states overflow on the way.
    """
    check_denoiser(D)
    solver = solver_by_name(solver) if isinstance(solver, str) else solver
    if not isinstance(solver, Solver):
        raise ValueError(f"solver must be a name or a Solver, such as toydiff.solvers.DDIM(), got {solver!r}")
    check_state(x)
    check_finite(x)
    if keep not in ("path", "end"):
        raise unknown("keep", keep, ("path", "end"))
    if ts is None:
        ts = time_grid(D.schedule, steps, grid)
    ts = as_time(ts).to(x.device, torch.promote_types(x.dtype, torch.float32))
    check_grid(ts)
    rng = as_generator(generator, x.device)
    schedule = _OnGrid(D.schedule, ts)
    run = _Run(Guided(D, guidance_scale) if guidance_scale != 1 else D, schedule, cond)

    xs, x0s, past = [x], [], deque(maxlen=max(solver.memory, 1))
    began = time.perf_counter()
    stops = list(pairwise(schedule.times))
    for t, s in tqdm(stops, desc="solve", unit="step", disable=not progress):
        noise = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device) if solver.stochastic else None
        x, prediction = solver.step(run, x, t, s, past, noise)
        past.append(prediction)
        if keep == "path":
            xs.append(x)
            x0s.append(prediction.x0)
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError(
            f"the samples became NaN or infinite on the way; {type(solver).__name__} with {len(stops)} steps is unstable on this model, or {x.dtype} too narrow for this schedule"
        )
    if keep == "end":
        return Trajectory(ts, x[None], x.new_empty(0, *x.shape), run.nfe, run.rounds, seconds)
    return Trajectory(ts, torch.stack(xs), torch.stack(x0s), run.nfe, run.rounds, seconds)
