"""Paths of tokens, exact posteriors and exact laws, against enumeration, finite differences and matrix exponentials."""

import itertools
import math

import pytest
import torch
from tables import chain, table

from toydiff.discrete import (
    ChainPosterior,
    Cosine,
    NetPosterior,
    Power,
    TablePosterior,
    TokenPath,
    path_from_config,
    scheduler,
)
from toydiff.discrete.jumps import CorrectedJumps
from toydiff.discrete.laws import chain_law, generator, marginal, numbers, source_law, strings, total_variation

SCHEDULERS = ["linear", "cosine", "power:2", "power:0.5"]
SOURCES = ["mask", "uniform"]
TIMES = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)


# ---- schedulers


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_falls_from_data_to_source_with_its_slope(name):
    kappa = scheduler(name)
    assert kappa.name == name
    ends = kappa.kappa(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([1, 0], abs=1e-15)
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kappa.kappa(t).sum(), t)
    assert torch.allclose(kappa.slope(t.detach()), slope, rtol=1e-10)
    assert bool((slope < 0).all())
    assert torch.allclose(kappa.time(kappa.kappa(t)), t, rtol=1e-10)


def test_what_schedulers_are():
    t = torch.tensor(0.25, dtype=torch.float64)
    assert float(scheduler("linear").kappa(t)) == 0.75
    assert float(scheduler("power:2").kappa(t)) == 0.75**2
    assert float(1 - scheduler("cosine").kappa(t)) == pytest.approx(math.cos(math.pi / 2 * 0.75))  # MaskGIT's r = 1 - t
    assert scheduler("power:1") == scheduler("linear") == Power()
    assert scheduler("cosine") == Cosine()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_jump_is_the_integral_of_the_rate(name):
    path = TokenPath(3, scheduler=scheduler(name))
    t, s = 0.8, 0.3
    grid = torch.linspace(s, t, 20001, dtype=torch.float64)
    integral = torch.trapezoid(path.rate(grid), grid)
    assert float(path.jump(t, s)) == pytest.approx(1 - math.exp(-integral), rel=1e-8)
    middle = path.middle(torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
    assert float(path.jump(t, middle)) == pytest.approx(1 - math.exp(-integral / 2), rel=1e-8)
    assert float(path.jump(t, 0.0)) == 1


def test_the_linear_jump_is_h_over_what_is_left():
    path = TokenPath(2)
    for t, s in ((1.0, 0.75), (0.5, 0.25), (0.2, 0.0)):
        assert float(path.jump(t, s)) == pytest.approx((t - s) / t, rel=1e-12)


# ---- paths


@pytest.mark.parametrize("source", SOURCES)
def test_strings_at_t_hold_data_with_probability_kappa(source):
    path, n = TokenPath(3, source, Power(2.0)), 20_000
    rng = torch.Generator().manual_seed(0)
    data, noise = torch.full((n, 2), 1), path.noise(n, 2, rng)
    x = path.mix(data, noise, torch.rand(n, 2, generator=rng), 0.4)
    law = path.likelihood(strings(path.size, 1), 0.4)[:, 0, 1]
    assert float(law.sum()) == pytest.approx(1)
    assert float(law[1]) == pytest.approx(0.36 + (0.64 / 3 if source == "uniform" else 0))
    for symbol in range(path.size):
        p = float(law[symbol])
        found = float((x == symbol).double().mean())
        assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / (2 * n))


def test_each_string_has_its_own_time():
    path = TokenPath(3)
    data, noise = torch.zeros(2, 4, dtype=torch.long), path.noise(2, 4)
    x = path.mix(data, noise, torch.full((2, 4), 0.5), torch.tensor([0.9, 0.1]))
    assert x.tolist() == [[3] * 4, [0] * 4]


def test_a_path_is_made_again_of_its_config():
    for source, name in itertools.product(SOURCES, SCHEDULERS):
        path = TokenPath(5, source, scheduler(name))
        assert path_from_config(path.config()) == path


# ---- the exact posterior


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", ["linear", "cosine"])
def test_the_posterior_of_a_table_is_bayes_rule(source, kappa):
    P = table(source, kappa, length=3, rows=6)
    X = strings(P.path.size, 3)
    for t in TIMES:
        one = float(P.path.kappa(t))
        p0 = P.path.source_law()
        found = P(X, t)
        for x, p in zip(X.tolist(), found, strict=True):
            expected, total = torch.zeros(3, P.path.size, dtype=torch.float64), 0.0
            for row, weight in zip(P.rows.tolist(), P.weights, strict=True):
                w = float(weight)
                for a, b in zip(x, row, strict=True):
                    w *= one * (a == b) + (1 - one) * float(p0[a])
                total += w
                for i, b in enumerate(row):
                    expected[i, b] += w
            if total > 0:
                assert torch.allclose(p, expected / total, atol=1e-12)


@pytest.mark.parametrize("source", SOURCES)
def test_the_posterior_of_a_chain_is_that_of_the_table_of_all_its_strings(source):
    P = chain(3, 4, source)
    rows = strings(3, 4)
    weights = P.start[rows[:, 0]]
    for i in range(3):
        weights = weights * P.transition[rows[:, i], rows[:, i + 1]]
    assert float(weights.sum()) == pytest.approx(1)
    whole = TablePosterior(P.path, rows, weights)
    X = strings(P.path.size, 4)
    for t in TIMES:
        assert torch.allclose(P(X, t), whole(X, t), atol=1e-12)


def test_a_masked_posterior_does_not_depend_on_time():
    P, Q = table(length=3), chain(3, 3)
    X = strings(4, 3)
    for D in (P, Q):
        assert all(torch.allclose(D(X, t), D(X, 0.5), atol=1e-13) for t in TIMES)
    U = table("uniform", length=3)
    assert not torch.allclose(U(strings(3, 3), 0.2), U(strings(3, 3), 0.8), atol=1e-2)


def test_a_posterior_keeps_what_is_revealed_and_never_gives_the_mask():
    net = torch.nn.Module()
    net.weight = torch.nn.Parameter(torch.zeros(1))
    net.forward = lambda x, t: torch.randn(len(x), 3, 3, generator=torch.Generator().manual_seed(0))
    X = strings(4, 3)
    for D in (table(length=3), chain(3, 3), NetPosterior(net, TokenPath(3), 3)):
        p = D(X, 0.5)
        assert torch.allclose(p.sum(2), torch.ones_like(p.sum(2)))
        assert float(p[..., 3].abs().max()) == 0
        shown = X < 3
        assert bool((p.gather(2, X[..., None])[..., 0][shown] == 1).all())


def test_a_string_that_no_data_leads_to_has_the_posterior_of_the_nearest():
    P = TablePosterior(TokenPath(2), torch.tensor([[0, 0, 0], [1, 1, 1]]), torch.ones(2))
    p = P(torch.tensor([[0, 1, 2], [0, 0, 2]]), 0.5)
    assert torch.allclose(p[0, 2, :2], torch.full((2,), 0.5, dtype=torch.float64))
    assert p[1, 2].tolist() == pytest.approx([1, 0, 0])


# ---- exact laws


def test_strings_are_numbered_in_order():
    X = strings(3, 4)
    assert numbers(X, 3).tolist() == list(range(81))
    assert X.tolist() == [list(x) for x in itertools.product(range(3), repeat=4)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", SCHEDULERS)
def test_the_marginals_solve_the_forward_equation(source, kappa):
    """dp/dt = -a_t p Q_t, by central differences, on three tokens."""
    P, h = table(source, kappa), 1e-5
    assert torch.allclose(marginal(P, 1.0), source_law(P.path, 2))
    for t in TIMES:
        Q = generator(P, t)
        assert float(Q.sum(1).abs().max()) < 1e-13
        slope = (marginal(P, t + h) - marginal(P, t - h)) / (2 * h)
        assert torch.allclose(slope, -P.path.rate(t) * (marginal(P, t) @ Q), atol=1e-8)


@pytest.mark.parametrize("kappa", ["linear", "cosine"])
def test_the_exact_chain_has_the_marginals(kappa):
    """By matrix exponentials: one step is exact with the mask, and the error falls as N^-2 with uniform noise."""
    P = table("mask", kappa)
    ends = torch.tensor([1.0, 0.1], dtype=torch.float64)
    assert torch.allclose(chain_law(P, marginal(P, 1.0), ends), marginal(P, 0.1), atol=1e-12)
    P = table("uniform", kappa)
    errors = [
        total_variation(
            chain_law(P, marginal(P, 0.9), torch.linspace(0.9, 0.1, N + 1, dtype=torch.float64)), marginal(P, 0.1)
        )
        for N in (16, 32, 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


# ---- bad input


def test_bad_input_is_named():
    for wrong, message in (
        (lambda: scheduler("linaer"), "did you mean 'linear'"),
        (lambda: scheduler("power:x"), "power:A with A from 0.01 to 100, got 'power:x'"),
        (lambda: scheduler("power:-1"), "power:A with A from"),
        (lambda: scheduler("power:1e9"), "power:A with A from"),
        (lambda: Power(1e-3), "must lie from 0.01 to 100, got 0.001"),
        (lambda: TokenPath(1), "vocab must be a whole number >= 2, got 1"),
        (lambda: TokenPath(3, "noise"), "unknown source of tokens 'noise'; allowed: mask, uniform"),
        (lambda: table()(torch.zeros(2, 2), 0.5), "whole numbers"),
        (lambda: table()(torch.tensor([[0, 4]]), 0.5), "symbols 0 ... 3, 3 being the mask, got 0 ... 4"),
        (lambda: table()(torch.tensor([[0, 1, 2]]), 0.5), "strings of 2 tokens"),
        (lambda: table()(torch.tensor([0, 1]), 0.5), "shape"),
        (lambda: table()(torch.tensor([[0, 1]]), 1.5), "lie in"),
        (lambda: TablePosterior(TokenPath(2), torch.tensor([[0, 2]]), torch.ones(1)), "tokens 0 ... 1, got 2"),
        (lambda: TablePosterior(TokenPath(2), torch.tensor([[0, 1]]), torch.zeros(1)), "are > 0"),
        (lambda: TablePosterior(TokenPath(2), torch.zeros(0, 2, dtype=torch.long), torch.ones(0)), "at least one row"),
        (lambda: TokenPath(3, "mask", "linear"), "scheduler must be a Scheduler"),
        (lambda: CorrectedJumps("1"), "must lie from 0 to 1000, got '1'"),
        (lambda: TablePosterior(TokenPath(2), torch.tensor([[0, 1]]), torch.ones(2)), "weight for each"),
        (lambda: ChainPosterior(TokenPath(2), torch.ones(2), torch.eye(2), 3), "sum to 1"),
        (lambda: ChainPosterior(TokenPath(2), torch.ones(3) / 3, torch.eye(2), 3), "needs a start"),
        (lambda: strings(9, 16), "4096 strings at most"),
        (lambda: path_from_config({"vocab": 2, "source": "mask"}), "needs name"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            wrong()


def test_a_long_string_does_not_leave_the_range_of_numbers():
    """Either half of the string is evidence of 10^-420 against the other's token."""
    path, L = TokenPath(2, "uniform"), 1400
    x = torch.cat([torch.zeros(1, L // 2, dtype=torch.long), torch.ones(1, L // 2, dtype=torch.long)], 1)
    found = ChainPosterior(path, torch.ones(2) / 2, torch.eye(2), L)(x, 0.4)
    torch.testing.assert_close(found, torch.full_like(found, 0.5))
