"""Every solver walks every grid of every schedule, at every small number of steps, and inside the parallel samplers."""

import itertools

import pytest
import torch
from cases import UserSchedule

from toydiff import GRIDS, SOLVERS, VE, VP, Cosine, Linear, Tabulated, mixtures, solve, time_grid
from toydiff.schedules import PiecewiseLinear
from toydiff.solvers import Parareal, Picard

ZERO_SNR = Tabulated(torch.linspace(0.99, 0.0, 1000, dtype=torch.float64))
"""A table that ends in 0: zero terminal SNR, as of Stable Diffusion 2.x with its betas rescaled."""

SCHEDULES = {
    "zero-snr": ZERO_SNR,
    "zero-snr in pieces": PiecewiseLinear(ZERO_SNR, [0.0, 0.25, 0.5, 0.75, 1.0]),
    "table": Tabulated.scaled_linear(),
    "vp": VP(),
    "cosine": Cosine(),
    "linear": Linear(),
    "ve": VE(),
    "user": UserSchedule(),
}
RING = mixtures.ring(3)


def starts(S, dtype):
    return RING.marginal(S, 1.0).sample(2, 1, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_on_every_grid(name):
    """Each pair of a solver and a grid meets every schedule, and numbers of steps from 1 to 14 in turn."""
    k = 3 * list(SOLVERS).index(name)
    for S, kind in itertools.product(SCHEDULES.values(), GRIDS):
        k += 1
        steps, dtype = 1 + k % 14, torch.float32 if k % 2 else torch.float64
        try:
            path = solve(RING.denoiser(S), starts(S, dtype), steps, grid=kind, solver=name, generator=2)
        except ValueError as error:  # the one refusal there is: a step in t along a vertical slope
            if "euler" not in name or "a step in t cannot leave t = 1" not in str(error):
                raise
            continue
        assert bool(path.xs.isfinite().all()), (S, kind, steps)
        if steps > 8 and "euler" not in name and kind != "quadratic":
            assert bool((path.end.norm(dim=1) < 4).all()), (S, kind, steps, path.end)  # the modes are at radius 2


ONE_STEP = [name for name, entry in SOLVERS.items() if not entry.solver.memory and name not in ("lcm", "euler")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STEP)
def test_inside_the_parallel_samplers(name):
    """Without a tolerance they end at the sequential walk's samples, noise and all, from alpha = 0 too."""
    inner = SOLVERS[name].solver
    cases = zip(SCHEDULES.values(), itertools.cycle(GRIDS), itertools.cycle((4, 9, 6)), strict=False)
    for k, (S, kind, steps) in enumerate(cases):
        D, ts, x = RING.denoiser(S), time_grid(S, steps, kind), starts(S, torch.float64)
        walk = solve(D, x, ts=ts, solver=inner, generator=2).end
        outer = Parareal(fine=inner, tolerance=None) if k % 2 else Picard(inner, tolerance=None)
        found = solve(D, x, ts=ts, solver=outer, generator=2).end
        torch.testing.assert_close(found, walk, rtol=1e-7, atol=1e-7, msg=f"in {outer} on {S}, {kind}, {steps}")


def test_no_time_is_an_index():
    """NaN is no time of a table, and says so as NaN, as on the other schedules."""
    nan = torch.tensor([torch.nan, 0.5])
    for S in SCHEDULES.values():
        assert S.sigma(nan).isnan().tolist() == [True, False]
    assert float(ZERO_SNR.part_way(torch.tensor(1.0), torch.tensor(0.5), 0.5)) == 1
