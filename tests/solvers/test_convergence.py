"""Measured orders: the table itself, and that a wrong order, mixture or seed would show."""

import math

import pytest
import torch

from toydiff.mixtures import random_mixture, ring
from toydiff.solvers import DDIM, SOLVERS, registry
from toydiff.studies.orders import DEFAULT_SCHEDULES, convergence, deterministic

KEYS = ["solver", "schedule", "declared", "measured", "nfe", "error"]


def test_rows_are_complete_and_in_order():
    rows = convergence(solvers=["dpm3", "ddim"], schedules=["linear", "vp"], steps=(20, 10))
    assert [(r["schedule"], r["solver"]) for r in rows] == [
        ("linear", "dpm3"), ("linear", "ddim"), ("vp", "dpm3"), ("vp", "ddim"),
    ]  # fmt: skip
    assert all(list(row) == KEYS for row in rows)
    assert [r["nfe"] for r in rows] == [[30, 60], [10, 20]] * 2  # three calls a step, and steps are sorted
    assert [r["declared"] for r in rows] == [3, 1, 3, 1]


def test_two_points_give_the_slope_between_them():
    [row] = convergence(solvers=["heun"], schedules=["cosine"], steps=(16, 64))
    assert row["measured"] == pytest.approx(math.log(row["error"][0] / row["error"][1]) / math.log(4), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "heun", "dpm3"])
def test_single_step_orders(name):
    [row] = convergence(solvers=[name], schedules=["scaled-linear"], steps=(80, 160))
    assert row["measured"] == pytest.approx(row["declared"], abs=0.1)


def test_published_third_order_multistep_is_second_order():
    published, corrected = convergence(random_mixture(3), solvers=["dpm++3m-published", "dpm++3m"], schedules=["vp"])
    assert published["measured"] == pytest.approx(2, abs=0.1)
    assert corrected["measured"] == pytest.approx(3, abs=0.1)


def test_a_solver_that_declares_too_much_shows(monkeypatch):
    class Boast(DDIM):
        order = 2

    entry = SOLVERS["ddim"]
    monkeypatch.setitem(registry.SOLVERS, "boast", registry.Entry("boast", Boast(), "", "", entry.color))
    [row] = convergence(solvers=["boast"], schedules=["vp"], steps=(40, 80))
    assert row["declared"] == 2
    assert row["measured"] < 1.2


def test_solvers_in_lambda_do_not_see_the_schedule():
    """In z = x/alpha against NSR the PF-ODE is the same on every schedule; errors differ by the factor alpha at the end
    alone.
    """
    rows = convergence(ring(), solvers=["dpm2"], schedules=["vp", "linear"], steps=(10, 20))
    vp, linear = (torch.tensor(row["error"], dtype=torch.float64) for row in rows)
    # at lambda = 2: alpha = 1/sqrt(1 + e^-4) on vp, 1/(1 + e^-2) on linear
    ratio = (1 + math.exp(-2)) / math.sqrt(1 + math.exp(-4))
    torch.testing.assert_close(vp / linear, torch.full((2,), ratio, dtype=torch.float64), rtol=1e-6, atol=0)


def test_settings_make_a_stochastic_solver_deterministic():
    as_setting, euler = convergence(solvers=["euler-maruyama:eta=0", "euler"], schedules=["vp"], steps=(10, 20))
    assert as_setting["error"] == pytest.approx(euler["error"], rel=1e-9)


@pytest.mark.slow
def test_seed_draws_the_mixture_and_the_starts():
    def run(mixture, seed):
        return convergence(mixture, solvers=["ddim"], schedules=["vp"], steps=(5, 10), starts=8, seed=seed)

    assert run(None, 0) == run(None, 0) == run(random_mixture(0), 0)
    assert run(ring(), 0) != run(ring(), 1)
    assert run(random_mixture(0), 1) != run(None, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"solvers": ["huen"]}, "did you mean 'heun'"),
        ({"schedules": ["liner"]}, "did you mean 'linear'"),
        ({"solvers": ["ddpm"]}, "stochastic"),
        ({"solvers": ["ddim:eta=0.5"]}, "stochastic"),
        ({"solvers": []}, "one solver"),
        ({"schedules": []}, "one schedule"),
        ({"steps": (10,)}, "two different numbers of steps"),
        ({"steps": (10, 0)}, "whole number >= 1"),
        ({"steps": (10, 20.0)}, "whole number >= 1"),
        ({"starts": 0}, "starts"),
        ({"seed": -1}, "seed"),
        ({"lambdas": (2.0, -2.0)}, "lambdas must satisfy"),
        ({"lambdas": (-2.0, math.nan)}, "lambdas must satisfy"),
        ({"lambdas": (-9.0, 2.0), "schedules": ["scaled-linear"]}, "lambdas must satisfy"),
    ],
)
def test_bad_input(given, said):
    with pytest.raises(ValueError, match=said):
        convergence(**({"solvers": ["ddim"], "schedules": ["vp"]} | given))


def test_progress_is_shown_on_request_only(capsys):
    convergence(solvers=["ddim"], schedules=["vp"], steps=(2, 4), starts=2)
    assert capsys.readouterr().err == ""
    convergence(solvers=["ddim"], schedules=["vp"], steps=(2, 4), starts=2, progress=True)
    assert "1/1" in capsys.readouterr().err


@pytest.mark.slow
def test_every_deterministic_solver_shows_the_order_it_declares():
    rows = convergence(starts=8)
    assert {(r["solver"], r["schedule"]) for r in rows} == {(n, s) for n in deterministic() for s in DEFAULT_SCHEDULES}
    wrong = [
        (r["solver"], r["schedule"], r["declared"], round(r["measured"], 2))
        for r in rows
        if not -(0.15 if r["declared"] < 4 else 0.3) <= r["measured"] - r["declared"] <= 0.3
    ]
    assert wrong == []


@pytest.mark.slow
def test_start_up_errors_hide_where_the_flow_is_all_but_linear():
    """Why orders are not measured from lambda = -2: UniPC-3 shows order 4 there, until its steps number thousands."""

    def order(steps):
        [row] = convergence(solvers=["unipc3"], schedules=["vp"], steps=steps, lambdas=(-2.0, 2.0), starts=32)
        return row["measured"]

    assert order((160, 320)) > 3.7
    assert order((1280, 2560)) < 3.3
