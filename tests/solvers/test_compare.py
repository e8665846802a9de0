"""The comparison of parallel samplers: its rows against an independent count, and that wrong settings are found before
the work.
"""

import pytest
import torch

import toydiff.studies.parallel_sampling
from toydiff import Counted, reference, schedule, solve
from toydiff.mixtures import random_mixture, ring
from toydiff.studies.parallel_sampling import METHODS, FixedCost, compare

KEYS = [
    "method",
    "solver",
    "problem",
    "schedule",
    "grid",
    "steps",
    "samples",
    "seed",
    "tolerance",
    "sweeps",
    "rounds",
    "nfe",
    "calls",
    "seconds",
    "cost_per_call",
    "seconds_with_cost",
    "error_to_sequential",
    "error_to_sequential_p95",
    "error_to_sequential_max",
    "error_to_exact",
    "error_to_exact_p95",
    "target",
    "rounds_to_target",
    "rounds_to_target_p95",
    "curve",
]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_reference_a_start(monkeypatch):
    """DOP853 from the same start, on the same schedule, gives the same end: once."""
    monkeypatch.setattr(toydiff.studies.parallel_sampling, "reference", remembered)


ENDS = {}


def remembered(D, x):
    key = repr(D.schedule), str(D.mixture.means), str(x[:, 0])
    if key not in ENDS:
        ENDS[key] = reference(D, x)
    return ENDS[key]


def small(*methods, **settings):
    return compare(**({"steps": (12,), "samples": 20, "cost": 0, "methods": methods or METHODS} | settings))


def start(n=20, seed=0, name="scaled-linear"):
    """The exact denoiser and the draws at t = 1 that the comparison is about."""
    mixture, s = random_mixture(seed), schedule(name)
    return mixture.denoiser(s), mixture.marginal(s, 1.0).sample(n, seed, dtype=torch.float64)


def test_rows_are_complete_and_in_order():
    rows = small(steps=(12, 6, 12))
    assert [(row["steps"], row["method"]) for row in rows] == [(T, method) for T in (6, 12) for method in METHODS]
    assert all(list(row) == KEYS for row in rows)
    assert [row["solver"] for row in rows[6:]] == [
        "ddim",
        "picard",
        "picard:window=3",
        "anderson",
        "broyden",
        "parareal",
    ]
    assert [row["solver"] for row in rows[:6] if row["method"] == "window"] == ["picard:window=1"]
    assert {(row["problem"], row["schedule"], row["grid"], row["samples"], row["seed"]) for row in rows} == {
        ("mixture:random", "scaled-linear", "uniform", 20, 0)
    }
    assert [row["tolerance"] for row in rows[:6]] == [None, *[1e-3] * 5]


def test_errors_and_curve_are_those_of_a_run_that_keeps_its_path():
    D, x = start()
    walk = solve(D, x, 12, solver="ddim", grid="uniform")
    exact = remembered(D, x)
    for row in small():
        path = solve(D, x, 12, solver=row["solver"], grid="uniform")
        off, flow = (path.end - walk.end).norm(dim=1), (path.end - exact).norm(dim=1)
        assert row["error_to_sequential"] == pytest.approx(float(off.quantile(0.5)), abs=1e-12)
        assert row["error_to_sequential_p95"] == pytest.approx(float(off.quantile(0.95)), abs=1e-12)
        assert row["error_to_sequential_max"] == pytest.approx(float(off.max()), abs=1e-12)
        assert row["error_to_exact"] == pytest.approx(float(flow.quantile(0.5)), rel=1e-9)
        assert row["error_to_exact_p95"] == pytest.approx(float(flow.quantile(0.95)), rel=1e-9)
        assert (row["rounds"], row["nfe"]) == (path.rounds, path.nfe)
        if row["method"] == "sequential":
            assert row["curve"] == {"rounds": [], "median": [], "p95": []}
            assert row["sweeps"] is None
            continue
        ends = path.errors(walk.xs)[:, -1]
        assert row["sweeps"] == len(ends) - 1
        assert row["curve"]["rounds"] == list(path.sweep_rounds)
        assert row["curve"]["median"] == pytest.approx(ends.quantile(0.5, dim=1).tolist(), abs=1e-12)
        assert row["curve"]["p95"] == pytest.approx(ends.quantile(0.95, dim=1).tolist(), abs=1e-12)


def test_rounds_to_the_target():
    walk, *others = small()
    assert (walk["rounds_to_target"], walk["rounds_to_target_p95"]) == (12, 12)
    for row in others:
        curve = row["curve"]
        for key, errors in (("rounds_to_target", curve["median"]), ("rounds_to_target_p95", curve["p95"])):
            k = curve["rounds"].index(row[key])
            assert errors[k] <= row["target"] == 1e-2
            assert all(error > row["target"] for error in errors[:k])
    [picard] = small("picard", tolerance=1e3)  # satisfied with the first sweep
    assert (picard["sweeps"], picard["rounds_to_target"], picard["rounds_to_target_p95"]) == (1, None, None)


def test_the_promise_on_the_five_mode_mixture():
    """A median of 1e-2 within 6 rounds at T = 100, where plain Picard is given the same count."""
    rows = {row["method"]: row for row in compare(steps=(100,), cost=0, methods=("picard", "anderson", "broyden"))}
    assert rows["broyden"]["rounds_to_target"] <= rows["anderson"]["rounds_to_target"] <= 6
    assert all(row["rounds_to_target"] < row["rounds_to_target_p95"] < row["rounds"] < 100 for row in rows.values())
    assert all(row["error_to_sequential"] < 0.01 * row["error_to_exact"] for row in rows.values())


def test_without_a_tolerance_all_end_where_the_walk_does():
    rows = small(tolerance=None)
    assert [row["tolerance"] for row in rows] == [None] * 6
    assert rows[1]["solver"] == "picard:tolerance=none"
    assert rows[2]["solver"] == "picard:window=3,tolerance=none"
    assert all(row["error_to_sequential_max"] < 1e-10 for row in rows)
    assert all(row["rounds"] <= 12 for row in rows)


def test_tolerance_window_and_own_settings_reach_the_solvers():
    rows = small("picard", "window", "anderson:memory=1,tolerance=none", "parareal:blocks=4", tolerance=0.1, window=5)
    assert [row["solver"] for row in rows] == [
        "picard:tolerance=0.1",
        "picard:window=5,tolerance=0.1",
        "anderson:tolerance=0.1,memory=1,tolerance=none",
        "parareal:tolerance=0.1,blocks=4",
    ]
    assert [row["method"] for row in rows] == ["picard", "window", "anderson", "parareal"]
    assert [row["tolerance"] for row in rows] == [0.1, 0.1, None, 0.1]


def test_cost_is_paid_once_a_call_and_only_where_it_is_requested():
    cost = 0.01
    for row in small("sequential", "picard", "picard:at_once=30", "parareal", cost=cost):
        assert row["cost_per_call"] == cost
        assert row["seconds_with_cost"] >= row["calls"] * cost
        assert row["seconds"] < row["calls"] * cost


def test_calls_are_the_batches_that_went_through_the_network():
    """In parts where a sweep is too large, and twice a round where fine and coarse steps are of different solvers."""
    D, x = start()
    walk, whole, parts, parareal = small("sequential", "picard", "picard:at_once=30", "parareal:coarse=euler")
    assert walk["calls"] == walk["rounds"] == 12
    assert whole["calls"] == whole["rounds"]
    assert parts["rounds"] == whole["rounds"]
    for row in (parts, parareal):
        counted = Counted(D)
        solve(counted, x, 12, solver=row["solver"], grid="uniform")
        assert row["calls"] == counted.rounds > row["rounds"]


def test_stochastic_solvers_meet_the_same_noise():
    [row] = small("picard:solver=ddpm", tolerance=None)
    assert row["error_to_sequential_max"] < 1e-10
    assert row["error_to_exact"] is row["error_to_exact_p95"] is None


def test_each_method_is_held_against_its_own_walk():
    for row in small("sequential", "picard:solver=heun", "parareal:fine=dpm2,coarse=ddim", tolerance=None):
        assert row["error_to_sequential_max"] < 1e-10
    D, x = start()
    off = (solve(D, x, 12, solver="heun", grid="uniform").end - remembered(D, x)).norm(dim=1)
    [heun] = small("picard:solver=heun", tolerance=None)
    assert heun["error_to_exact"] == pytest.approx(float(off.quantile(0.5)), rel=1e-6)


def test_seed_mixture_schedule_and_grid():
    def error(**settings):
        [row] = small("sequential", **settings)
        return row["error_to_exact"], row["problem"]

    assert error() == error(seed=0) != error(seed=1)
    assert error(mixture=random_mixture(1), seed=1) == (error(seed=1)[0], "mixture")
    assert error(mixture="ring") != error(mixture="ring", seed=1)
    assert error(mixture="ring") == (error(mixture=ring())[0], "mixture:ring")
    assert len({error()[0], error(schedule="ve")[0], error(grid="karras")[0]}) == 3


def test_fixed_cost_changes_the_time_only():
    D, x = start(4)
    slow = FixedCost(D, 0.02)
    path = solve(slow, x, 3, solver="ddim")
    assert torch.equal(path.end, solve(D, x, 3, solver="ddim").end)
    assert path.seconds >= 0.06
    assert slow.calls == D.calls


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["picrad"]}, "did you mean 'picard'"),
        ({"methods": ["ddim"]}, "allowed: sequential, picard, window"),
        ({"methods": []}, "one method"),
        ({"methods": ["sequential:eta=1"]}, "has no settings"),
        ({"methods": ["picard:windw=3"]}, "did you mean 'window'"),
        ({"methods": ["picard:solver=dpm++2m"]}, "one-step solver"),
        ({"methods": ["picard:window=13"]}, "at most the number of steps, 12"),
        ({"methods": ["parareal:blocks=5"]}, "allowed: 1, 2, 3, 4, 6, 12"),
        ({"methods": ["sequential"], "window": 3}, "window is not among the methods"),
        ({"steps": []}, "one number of steps"),
        ({"steps": [0]}, "whole number >= 1"),
        ({"steps": [2.5]}, "whole number >= 1"),
        ({"steps": [100, 12], "window": 50}, "window must be at most the number of steps, 12"),
        ({"window": 0}, "window must be a whole number >= 1"),
        ({"window": 13}, "window must be at most"),
        ({"tolerance": 0}, "tolerance must be a finite number > 0"),
        ({"tolerance": -1e-3}, "tolerance must be a finite number > 0"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number > 0"),
        ({"tolerance": "none"}, "tolerance must be a finite number > 0"),
        ({"samples": 0}, "samples"),
        ({"samples": 10**6}, "steps x samples must be at most"),
        ({"cost": -1}, "cost per call must be >= 0"),
        ({"cost": float("inf")}, "cost per call must be a finite number"),
        ({"seed": -1}, "seed"),
        ({"mixture": "rin"}, "did you mean 'ring'"),
        ({"schedule": "vpp"}, "did you mean 'vp'"),
        ({"grid": "unifrom"}, "did you mean 'uniform'"),
    ],
)
def test_bad_input_is_found_before_the_work(given, said, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("nothing may be computed")

    for name in ("solve", "reference", "tqdm"):
        monkeypatch.setattr(toydiff.studies.parallel_sampling, name, forbidden)
    with pytest.raises(ValueError, match=said):
        small(**given)


def test_progress_is_shown_on_request_only(capsys):
    small("sequential")
    assert capsys.readouterr().err == ""
    small("sequential", "picard", progress=True)
    assert "2/2" in capsys.readouterr().err
