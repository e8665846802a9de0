"""`solve`: the one loop that runs every solver, and what it returns."""

import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from ..checks import as_generator, check_finite, check_grid, check_state, unknown
from ..denoisers import Counted, Denoiser, Guided
from ..grids import DEFAULT_GRID, time_grid
from ..prediction import Prediction
from ..schedules import Schedule, as_time
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


class _Levels(Schedule):
    """A schedule whose levels at the times of a grid are computed once; it knows those times by identity."""

    def __init__(self, schedule: Schedule, ts: Tensor):
        self.schedule, self.name = schedule, schedule.name
        self.times = list(ts.unbind())
        self._alpha, self._sigma, self._lam = (
            self._by_time(f(ts)) for f in (schedule.alpha, schedule.sigma, schedule.lam)
        )
        self._ts, self._rates = ts, None

    def _by_time(self, values: Tensor) -> dict[int, Tensor]:
        return dict(zip(map(id, self.times), values.unbind(), strict=True))

    def alpha(self, t: Tensor) -> Tensor:
        level = self._alpha.get(id(t))
        return self.schedule.alpha(t) if level is None else level

    def sigma(self, t: Tensor) -> Tensor:
        level = self._sigma.get(id(t))
        return self.schedule.sigma(t) if level is None else level

    def lam(self, t: Tensor) -> Tensor:
        level = self._lam.get(id(t))
        return self.schedule.lam(t) if level is None else level

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if id(t) not in self._alpha:
            return self.schedule.rates(t)
        if self._rates is None:
            alpha_rate, sigma_rate = self.schedule.rates(self._ts)
            self._rates = self._by_time(torch.stack([alpha_rate, sigma_rate], 1))
        return self._rates[id(t)].unbind()

    def t_of_lam(self, lam: Tensor) -> Tensor:
        return self.schedule.t_of_lam(lam)

    def __repr__(self) -> str:
        return repr(self.schedule)


class _Run(Denoiser):
    """D as a solver sees it during one `solve`: its condition bound, its schedule's levels at hand."""

    def __init__(self, denoiser: Denoiser, levels: _Levels, cond: Tensor | None):
        super().__init__(levels, denoiser.kind)
        self.denoiser, self.cond = denoiser, cond

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
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

    Runs without gradients. Raises `ValueError` for bad input, `FloatingPointError` if the states overflow on the way.
    """
    solver = solver_by_name(solver) if isinstance(solver, str) else solver
    check_state(x)
    check_finite(x)
    if keep not in ("path", "end"):
        raise unknown("keep", keep, ("path", "end"))
    if ts is None:
        ts = time_grid(D.schedule, steps, grid)
    ts = as_time(torch.as_tensor(ts)).to(x.device, torch.promote_types(x.dtype, torch.float32))
    check_grid(ts)
    rng = as_generator(generator, x.device)
    counted = Counted(D)
    levels = _Levels(D.schedule, ts)
    run = _Run(Guided(counted, guidance_scale) if guidance_scale != 1 else counted, levels, cond)

    xs, x0s, past = [x], [], deque(maxlen=max(solver.memory, 1))
    began = time.perf_counter()
    stops = list(pairwise(levels.times))
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
            f"the samples became NaN or infinite on the way; {type(solver).__name__} with {len(stops)} steps is unstable on this model"
        )
    if keep == "end":
        return Trajectory(ts, x[None], x.new_empty(0, *x.shape), counted.nfe, counted.rounds, seconds)
    return Trajectory(ts, torch.stack(xs), torch.stack(x0s), counted.nfe, counted.rounds, seconds)
