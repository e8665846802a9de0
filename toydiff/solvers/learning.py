"""How a solver is learned: Levenberg and Marquardt's method on the ends of its walks.

The parameters v are a few dozen numbers: shifts of the times, and a, b of `Learned`. The search begins at v = 0: the
default, or the solver given, on the default's grid.

    1. ends of the exact flow, x_0*, from many steps of the default; half of the noises are held out
    2. e(v) = solve(D, x_1; v) - x_0*, for each sample, and J = de/dv by differences: a run more for each parameter
    3. weights W = 1/(|e|^2 + m^2), m half the median of |e|: least squares with them lowers the sum of
       log(|e|^2 + m^2), in which a few far samples do not decide
    4. solve (A + mu diag A) d = -J^T W e, A = J^T W J; take v + d if the sum falls, and divide mu; else multiply mu,
       and try again
    5. keep the v with the least median on the held-out noises whose root mean square is not above the start's

Only runs of `solve` are needed: no gradient goes through the model. A parameter of step i leaves the steps before i as
they were; their calls are not made again. Memory is that of sampling, the predictions of one walk, and the ends of all
samples once for each parameter.
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser, Wrapper, check_denoiser, check_guidance
from ..grids import SHIFT, grid_scale, warped_times
from ..prediction import Prediction
from ..schedules import schedule_config
from ..support.checks import check_count, check_positive, check_state
from .driver import solve
from .learned import Learned, LearnedTimes, in_force
from .parallel import ParallelSolver
from .registry import DEFAULT_SOLVER, solver_by_name

MOST_TRIED = 8
"""How often mu is multiplied before the search ends."""
PATIENCE = 8
"""The search ends after more than so many steps in which the median fell by less than 0.5 %."""


@dataclass(frozen=True)
class Found:
    """Where the search stands: the best solver so far, and its error on the held-out noises over that of the start."""

    solver: Learned | LearnedTimes
    step: int
    median: float
    """The median distance to the exact end, over that of the start; at most 1."""
    rms: float
    """The root mean square of it, over that of the start; at most 1."""
    seconds: float


def learn_solver(
    D: Denoiser,
    x: Tensor,
    steps: int,
    *,
    cond: Tensor | None = None,
    guidance_scale: float = 1.0,
    solver: str = DEFAULT_SOLVER,
    times_only: bool = False,
    name: str = "a model",
    truth_steps: int = 100,
    at_once: int = 1000,
    seconds: float = 60.0,
) -> Iterator[Found]:
    """Learn a solver of `steps` steps for a model; the last that is yielded is the result.

    - x: noise at t = 1, (n, ...), n >= 4; the second half is held out. cond (n,) and guidance_scale: as in `solve`;
    - solver: a deterministic solver by name, with which the search begins. Coefficients are learned for the default
      only, and not with times_only; for other solvers the times alone;
    - name: what the model is called in the file; truth_steps: steps of the default whose end stands for the exact one;
    - at_once: the most samples in one call; seconds: about how long to search.

    `ValueError`, as the first one is asked for: bad input, a stochastic solver, or times_only with one step.
    """
    check_denoiser(D)
    check_state(x)
    check_count(steps, "steps")
    check_positive(seconds, "seconds")
    if len(x) < 4:
        raise ValueError(f"learning needs 4 noises at least, half of them to be held out, got {len(x)}")
    if not isinstance(check_guidance(guidance_scale, x), float):
        raise ValueError("a solver is learned for one guidance scale, a number")
    base = solver_by_name(solver)
    if isinstance(base, ParallelSolver | Learned | LearnedTimes) or base.stochastic:
        raise ValueError(f"a deterministic solver that walks step by step can be learned from, got {solver!r}")
    times_only = times_only or solver != DEFAULT_SOLVER
    if times_only and steps == 1:
        raise ValueError("one step has no times to learn")
    about: dict[str, Any] = {
        "schedule": schedule_config(D.schedule),
        "data_std": D.data_std,
        "guidance_scale": float(in_force(D, guidance_scale)),
        "learned_on": name,
        "content": D.content(),
    }
    walks = _Walks(D, steps, base if times_only else None, guidance_scale, at_once, x.dtype)
    began = time.perf_counter()
    truth = walks.end(DEFAULT_SOLVER, truth_steps, x, cond)  # 1
    half = len(x) // 2
    parts = [(x[i], truth[i], None if cond is None else cond[i]) for i in (slice(half), slice(half, None))]
    (mine, ends, its), (held, held_ends, held_its) = parts

    def measured(v: Tensor) -> tuple[float, float]:
        try:
            size = _sizes(walks(v, held, held_its) - held_ends)
        except FloatingPointError:  # the walk left
            return math.inf, math.inf
        return float(size.median()), float(size.square().mean().sqrt())

    v, mu = walks.start, 1e-2
    first = best = measured(v)

    def found(v: Tensor, step: int) -> Found:
        says = {"median": [first[0], best[0]], "rms": [first[1], best[1]], "samples": len(held)}
        made = replace(walks.solver(v), about=about | {"solver": solver, "steps": steps, "measured": says})
        median, rms = (new / old if old else 1.0 for new, old in zip(best, first, strict=True))
        return Found(made, step, median, rms, time.perf_counter() - began)

    yield found(v, 0)
    e, since = walks.remembered(v, mine, its) - ends, 0
    for step in itertools.count(1):
        columns = []  # 2
        for shift in walks.h * torch.eye(len(v), dtype=v.dtype):
            if time.perf_counter() - began > seconds:
                return
            columns.append(walks.slope(v, shift, e + ends, mine, its))
        J = torch.stack(columns)
        m2 = (0.5 * float(_sizes(e).median())) ** 2 + 1e-30
        root = (_sizes(e).square() + m2).rsqrt().to(e)[:, None]  # 3: the root of the weights
        rows, right = (J.flatten(2) * root).flatten(1).cpu().double(), (e.flatten(1) * root).flatten().cpu().double()
        A, g = rows @ rows.T, rows @ right
        v, e, mu, moved = walks.better(v, e, A, g, mu, m2, mine, its, ends)  # 4
        now = measured(v)
        since += 1
        if now[0] < best[0] and now[1] <= first[1]:  # 5
            since = since if now[0] > 0.995 * best[0] else 0
            best = now
            yield found(v, step)
        if not moved or since > PATIENCE or time.perf_counter() - began > seconds:
            return


class _Walks:
    """Walks of a solver that depends on parameters v, and the search's own steps on them."""

    def __init__(self, D: Denoiser, steps: int, base: Any, guidance_scale: float, at_once: int, dtype: torch.dtype):
        self.D, self.steps, self.base, self.guidance_scale, self.at_once = D, steps, base, guidance_scale, at_once
        self.memory = _Remembered(D)
        self.h = 1e-5 if dtype == torch.float64 else 1e-3  # differences above the dtype's rounding
        scale = grid_scale(D.data_std, max(D.guided_by, guidance_scale))
        self.shift = (SHIFT[0] * scale, SHIFT[1] * scale)
        coefficients = 0 if base is not None else steps + steps * (steps + 1) // 2
        self.start = torch.zeros(steps - 1 + coefficients, dtype=torch.float64)

    def solver(self, v: Tensor) -> Learned | LearnedTimes:
        """The solver of parameters v: shifts of the inner times, in units of the default's spacing in u, then a and b.
        `ValueError` where two times are nearer than a fiftieth of that."""
        N = self.steps
        shifts = torch.nn.functional.pad(v[: N - 1], (1, 1))
        fractions = (torch.arange(N + 1, dtype=torch.float64) + shifts) / N
        if not bool((fractions.diff() > 0.02 / N).all()):
            raise ValueError("two times are too near")
        times = tuple(warped_times(self.D.schedule, fractions, self.shift).tolist())
        if self.base is not None:
            return LearnedTimes(self.base, times)
        rest = v[N - 1 :].tolist()
        rows = [rest[N + i * (i + 1) // 2 : N + (i + 1) * (i + 2) // 2] for i in range(N)]
        return Learned(times=times, a=tuple(rest[:N]), b=tuple(map(tuple, rows)))

    def __call__(self, v: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        return self.end(self.solver(v), self.steps, x, cond)

    def remembered(self, v: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        """The ends of v, whose walk is remembered."""
        self.memory.begin(anew=True)
        return self.end(self.solver(v), self.steps, x, cond, self.memory)

    def near(self, v: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        """The ends of v, whose walk begins as the one that is remembered."""
        self.memory.begin(anew=False)
        return self.end(self.solver(v), self.steps, x, cond, self.memory)

    def slope(self, v: Tensor, shift: Tensor, here: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        """The change of the ends `here` of v along a shift, over h; backwards where that way leads out."""
        try:
            return (self.near(v + shift, x, cond) - here) / self.h
        except (FloatingPointError, ValueError):
            return (here - self.near(v - shift, x, cond)) / self.h

    def end(self, solver: Any, steps: int, x: Tensor, cond: Tensor | None, denoiser: Denoiser | None = None) -> Tensor:
        D = self.D if denoiser is None else denoiser
        ends = []
        for i in range(0, len(x), self.at_once):
            part = slice(i, i + self.at_once)
            own = None if cond is None else cond[part]
            path = solve(D, x[part], steps, solver=solver, cond=own, guidance_scale=self.guidance_scale, keep="end")
            ends.append(path.end)
        return torch.cat(ends)

    def better(
        self,
        v: Tensor,
        e: Tensor,
        A: Tensor,
        g: Tensor,
        mu: float,
        m2: float,
        x: Tensor,
        cond: Tensor | None,
        ends: Tensor,
    ) -> tuple[Tensor, Tensor, float, bool]:
        """(v + d, its errors, mu, True) once the sum falls; (v, e, mu, False) where no mu makes it fall."""
        diagonal = A.diagonal()
        damping = torch.diag(diagonal + 0.01 * diagonal.mean() + 1e-12)

        def total(e: Tensor) -> float:
            return float((_sizes(e).square() + m2).log().mean())

        before = total(e)
        for _ in range(MOST_TRIED):
            d = torch.linalg.solve(A + mu * damping, -g)
            d = d / max(1.0, float(d.abs().max()))
            try:
                new = self.remembered(v + d, x, cond) - ends
                if total(new) < before:
                    return v + d, new, max(mu / 3, 1e-5), True
            except (FloatingPointError, ValueError):
                pass  # the walk left, or its times are too near: try a larger mu
            mu *= 4
        return v, e, mu, False


class _Remembered(Wrapper):
    """A denoiser that remembers the predictions of one walk, and gives them to another as long as the two are the same:
    a parameter of step i changes nothing before it, so on average half of the calls are spared."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.begin(anew=True)

    def begin(self, *, anew: bool) -> None:
        """A walk begins, which is remembered instead of the last one (anew), or which is like it at first."""
        if anew:
            self.walk: list[tuple[Tensor, Tensor, Prediction]] = []
        self.anew, self.known = anew, iter([] if anew else self.walk)

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        known = next(self.known, None)
        if known is not None and torch.equal(known[0], x) and torch.equal(known[1], t):
            return known[2]
        prediction = self.denoiser(x, t, cond, guidance_scale)
        if self.anew:
            self.walk.append((x, t, prediction))
        return prediction


def _sizes(e: Tensor) -> Tensor:
    """The norm of each sample's error, (n,)."""
    return torch.linalg.vector_norm(e.flatten(1), dim=1).nan_to_num(nan=math.inf)
