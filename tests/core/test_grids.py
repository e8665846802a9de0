"""Time grids: from 1 to 0, strictly decreasing, spaced as their names say."""

import itertools
import math

import pytest
import torch
from cases import ALL_SCHEDULES, f64
from hypothesis import given, settings
from hypothesis import strategies as st

from toydiff import GRIDS, VE, Linear, time_grid
from toydiff.grids import DEFAULT_GRID, warp

PAIRS = list(itertools.product(ALL_SCHEDULES, GRIDS))


@given(pair=st.sampled_from(PAIRS), steps=st.integers(1, 300))
@settings(deadline=None, max_examples=200)
def test_every_grid_runs_strictly_from_one_to_zero(pair, steps):
    ts = time_grid(ALL_SCHEDULES[pair[0]], steps, pair[1])
    assert ts.shape == (steps + 1,)
    assert ts.dtype == torch.float64
    assert ts[0] == 1
    assert ts[-1] == 0
    assert (ts.diff() < 0).all()
    # a solver in float32 sees the same grid: no two times fall together
    assert (ts.float().diff() < 0).all()


def test_grids_in_time():
    assert torch.allclose(time_grid(Linear(), 8, "uniform"), torch.arange(8, -1, -1).double() / 8, atol=1e-15)
    assert torch.allclose(time_grid(Linear(), 8, "quadratic").sqrt(), torch.arange(8, -1, -1).double() / 8, atol=1e-15)


def _evenly(values):
    gaps = values.diff()
    return bool((gaps - gaps.mean()).abs().max() < 1e-9 * gaps.abs().mean())


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_grids_in_noise_levels_are_even_between_first_and_last(name):
    schedule = ALL_SCHEDULES[name]
    for kind, place in (("lambda", torch.log), ("karras", lambda n: n ** (1 / 5))):
        ts = time_grid(schedule, 10, kind, first=9.0, last=0.01, rho=5.0)
        nsr = schedule.nsr(ts)[1:-1]
        assert nsr[0] == pytest.approx(9.0, rel=1e-9)
        assert nsr[-1] == pytest.approx(0.01, rel=1e-9)
        assert _evenly(place(nsr))


def test_karras_on_ve_is_the_grid_of_edm():
    n, rho, high, low = 18, 7.0, 80.0, 0.002
    edm = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)] + [0.0]
    ts = time_grid(VE(), n, "karras", last=low)
    assert torch.allclose(VE().sigma(ts), f64(edm), rtol=1e-9, atol=1e-15)


def test_the_default_is_one_of_the_grids():
    assert DEFAULT_GRID in GRIDS
    schedule = Linear()
    assert torch.equal(time_grid(schedule, 9), time_grid(schedule, 9, DEFAULT_GRID))


def test_shifted_lambda_is_even_in_a_warp_that_is_finite_at_both_ends():
    for name, schedule in ALL_SCHEDULES.items():
        ends = f64([0.0, 1.0])
        u = warp(schedule.alpha(ends), schedule.sigma(ends))
        assert torch.isfinite(u).all(), name
        ts = time_grid(schedule, 10, "shifted-lambda")
        assert _evenly(warp(schedule.alpha(ts), schedule.sigma(ts))), name
    # between its two shifts it is -lambda, but for a constant
    a, b = 1e-6, 1e6
    lam = torch.linspace(-3, 3, 7, dtype=torch.float64)
    ts = ALL_SCHEDULES["cosine"].t_of_lam(lam)
    u = warp(ALL_SCHEDULES["cosine"].alpha(ts), ALL_SCHEDULES["cosine"].sigma(ts), (a, b))
    assert torch.allclose(u, -lam - math.log(b), atol=1e-4)
