"""The order of each solver: how fast its error falls, measured on an exact mixture, beside the order that it
declares."""

from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm

from ..measure import fitted_order, paired_error
from ..mixtures import GaussianMixture, random_mixture
from ..schedules import Schedule, schedule
from ..solvers import SOLVERS, ParallelSolver, Solver, reference, solve, solver_by_name
from ..support.checks import check_count

DEFAULT_SCHEDULES = ("vp", "cosine", "linear", "scaled-linear")
"""The schedules that orders are measured on unless others are named."""

DEFAULT_STEPS = (40, 80, 160)
"""The numbers of steps unless others are given. On the default window the slopes have settled by then, and order 4 is
still far from rounding."""

WINDOW = (0.0, 2.0)
"""The lambdas between which orders are measured unless others are given: NSR 1 to 0.14. There a mixture's modes part,
and eps varies from the first step on.

From noisier levels the flow is almost linear at first, and a start-up step of lower order costs almost nothing. Some
multistep solvers then seem to have an order more until there are thousands of steps: UniPC-3 from lambda = -2 shows 4.0
at 160 to 320 steps, and 3.1 at 1280 to 2560. Others seem to have one less while two errors cancel.
"""

FLOOR = 1e-11
"""Errors at or below this are rounding and the reference's own error. A fit leaves them out."""


def deterministic() -> list[str]:
    """The names of the deterministic solvers. Only their paths have an error against the probability-flow ODE."""
    return [name for name, entry in SOLVERS.items() if not entry.solver.stochastic]


def convergence(
    mixture: GaussianMixture | None = None,
    *,
    solvers: Sequence[str] | None = None,
    schedules: Sequence[str] = DEFAULT_SCHEDULES,
    steps: Sequence[int] = DEFAULT_STEPS,
    lambdas: tuple[float, float] = WINDOW,
    starts: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> list[dict]:
    """Measured orders: a row for each solver on each schedule.

    Every solver starts from the same `starts` draws of the mixture's marginal, in float64. It walks between the two
    `lambdas`, the noisier first, on a grid uniform in lambda of N steps, for each N in `steps`. Both lambdas lie inside
    the schedule's range, where nothing is singular.

    A row has the keys solver, schedule, declared, measured, nfe and error. `declared` is the solver's own order. `nfe`
    is a list, the network calls per sample for each N. `error` is a list too: the root mean square distance over the
    starts to `reference` at the last lambda. `measured` is the p of error = C N^-p by least squares; errors that are
    rounding are left out. It is the order only where the power law holds from the smallest N on: narrow or crowded
    mixtures need more steps.

    mixture: None is `random_mixture(seed)`. seed: also of the starts. solvers: names, with settings where wanted
    ("euler-maruyama:eta=0"); None is all the deterministic ones. progress: show a bar. `ValueError` for an unknown
    name, a stochastic solver, lambdas outside a schedule's range, or fewer than two different numbers of steps.
    """
    mixture = random_mixture(seed) if mixture is None else mixture
    chosen = _chosen(deterministic() if solvers is None else solvers)
    ready = {name: schedule(name) for name in schedules}
    if not chosen or not ready:
        raise ValueError("convergence needs one solver and one schedule at least, got none")
    steps = sorted({check_count(N, "each of the steps") for N in steps})
    if len(steps) < 2:
        raise ValueError(f"an order needs two different numbers of steps at least, got {steps}")
    check_count(starts, "starts")
    check_count(seed, "seed", 0)
    grids = {name: _inner_grids(s, steps, lambdas) for name, s in ready.items()}
    with tqdm(total=len(chosen) * len(ready), desc="convergence", unit="fit", disable=not progress) as bar:
        return [
            row for name, s in ready.items() for row in _rows(mixture, name, s, grids[name], chosen, starts, seed, bar)
        ]


def _chosen(names: Sequence[str]) -> dict[str, Solver | ParallelSolver]:
    chosen = {name: solver_by_name(name) for name in names}
    for name, solver in chosen.items():
        if solver.stochastic:
            raise ValueError(
                f"the solver {name!r} is stochastic, so its samples have no error against the PF-ODE; "
                f"deterministic: {', '.join(deterministic())}"
            )
    return chosen


def _inner_grids(schedule: Schedule, steps: Sequence[int], lambdas: tuple[float, float]) -> dict[int, torch.Tensor]:
    """For each N the times (N + 1,) of a lambda-uniform grid that touches neither end of the schedule."""
    first, last = lambdas
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noisiest, cleanest = schedule.lam(ends).tolist()
    if not noisiest < first < last < cleanest:
        raise ValueError(
            f"lambdas must satisfy {noisiest:g} < first < last < {cleanest:g} on {schedule!r}, "
            f"got {first:g} and {last:g}"
        )
    return {N: schedule.t_of_lam(torch.linspace(first, last, N + 1, dtype=torch.float64)) for N in steps}


def _rows(
    mixture: GaussianMixture,
    schedule_name: str,
    schedule: Schedule,
    grids: Mapping[int, torch.Tensor],
    solvers: Mapping[str, Solver | ParallelSolver],
    starts: int,
    seed: int,
    bar: tqdm,
) -> list[dict]:
    """The rows of one schedule. All its solvers have the same starts and the same reference."""
    D = mixture.denoiser(schedule)
    t, s = (float(end) for end in next(iter(grids.values()))[[0, -1]])
    x = mixture.marginal(schedule, t).sample(starts, seed, dtype=torch.float64)
    exact = reference(D, x, t, s)
    rows = []
    for name, solver in solvers.items():
        bar.set_postfix_str(f"{name} on {schedule_name}")
        runs = [solve(D, x, solver=solver, ts=ts, keep="end") for ts in grids.values()]
        errors = [paired_error(run.end, exact).rms for run in runs]
        rows.append(
            {
                "solver": name,
                "schedule": schedule_name,
                "declared": solver.order,
                "measured": fitted_order(list(grids), errors, floor=FLOOR),
                "nfe": [run.nfe for run in runs],
                "error": errors,
            }
        )
        bar.update()
    return rows
