"""Samplers of tokens. Their orders are measured on exact laws: there is no sampling noise in a slope."""

import dataclasses
import math

import pytest
import torch
from tables import chain, table

from toydiff.discrete import SAMPLERS, TablePosterior, TokenPath, sampler_by_name, scheduler, solve_tokens, token_grid
from toydiff.discrete.base import TokenSampler, jumping
from toydiff.discrete.driver import draw
from toydiff.discrete.jumps import ExactJumps
from toydiff.discrete.laws import joint, marginal, propagate, source_law, strings, total_variation, transition
from toydiff.measure import fitted_order
from toydiff.problems import problem

ALL = {name: entry.solver for name, entry in SAMPLERS.items()}
ORDERED = {name: sampler for name, sampler in ALL.items() if sampler.order}
BITS = TablePosterior(TokenPath(2), torch.tensor([[0, 0], [1, 1]]), torch.ones(2))


def uniform(N, first=1.0, last=0.0):
    return torch.linspace(first, last, N + 1, dtype=torch.float64)


def mismatch(law, size=3):
    X = strings(size, 2)
    return float(law[X[:, 0] != X[:, 1]].sum())


def full_table(source, kappa, seed=0):
    """Every string of three bits, none with much less weight than another: no rate of tau-midpoint is negative."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.rand(8, generator=rng, dtype=torch.float64) + 0.5
    return TablePosterior(TokenPath(2, source, scheduler(kappa)), strings(2, 3), weights)


@pytest.mark.parametrize("N", [1, 4, 9])
@pytest.mark.parametrize("grid", ["uniform", "cosine"])
def test_two_bits_count_the_steps_of_a_grid(grid, N):
    """Both bits jump in the step from t to s with probability (t - s)^2, and differ then in half of the cases."""
    ts = token_grid(N, grid)
    assert (float(ts[0]), float(ts[-1])) == (1.0, 0.0)
    law = propagate(ExactJumps(), BITS, source_law(BITS.path, 2), ts)
    assert mismatch(law) == pytest.approx(0.5 * float(ts.diff().square().sum()), abs=1e-12)
    assert (mismatch(law) > 1 / (2 * N) + 1e-3) == (grid == "cosine" and N > 1)
    walk = solve_tokens(BITS, BITS.path.noise(4, 2, 0), N, grid=grid, generator=0)
    assert torch.equal(walk.ts, ts)


# ---- orders


def measured_order(sampler, P, counts):
    """Between two inner times, where no rate is infinite."""
    errors = [
        total_variation(propagate(sampler, P, marginal(P, 0.9), uniform(N, 0.9, 0.1)), marginal(P, 0.1)) for N in counts
    ]
    return fitted_order(counts, errors)


@pytest.mark.parametrize("kappa", ["linear", "cosine"])
@pytest.mark.parametrize(("name", "source"), [(n, s) for n, sampler in ORDERED.items() for s in sampler.sources])
def test_a_sampler_has_its_order(name, source, kappa):
    sampler = ORDERED[name]
    counts = (128, 256) if sampler.order == 1 else (64, 128)
    assert abs(measured_order(sampler, full_table(source, kappa), counts) - sampler.order) <= 0.1


def test_order_0_is_another_law_in_the_limit():
    P = table(length=3, rows=6)
    errors = [
        total_variation(propagate(ALL["maskgit"], P, source_law(P.path, 3), uniform(N)), marginal(P, 0.0))
        for N in (3, 6, 24)
    ]
    assert errors[0] == pytest.approx(errors[1], abs=1e-12) == pytest.approx(errors[2], abs=1e-12)
    assert errors[0] > 0.01


class PlainMidpoint(TokenSampler):
    """From x_t again, at the rates of the midpoint."""

    def times(self, path, t, s):
        return t, path.middle(t, s)

    def stage(self, path, t, s, xs, ps):
        half = -0.5 * torch.log1p(-path.jump(t, s))
        return jumping(xs[0], path, half * ps[0] if len(xs) == 1 else 2 * half * ps[1])


def test_the_plain_midpoint_has_order_1_and_the_extrapolated_one_2():
    P = full_table("mask", "linear")
    assert abs(measured_order(PlainMidpoint(), P, (32, 64)) - 1) <= 0.1
    assert abs(measured_order(ALL["tau-midpoint"], P, (64, 128)) - 2) <= 0.1
    # where one token determines another, a rate would have to be negative
    assert abs(measured_order(ALL["tau-midpoint"], BITS, (32, 64)) - 1) <= 0.1


# ---- exactness


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("N", [1, 2, 5])
def test_one_position_is_exact_at_any_number_of_steps(name, N):
    P = TablePosterior(
        TokenPath(3, "mask", scheduler("cosine")), torch.tensor([[0], [1], [2]]), torch.tensor([1, 2, 5])
    )
    law = propagate(ALL[name], P, source_law(P.path, 1), uniform(N))
    assert torch.allclose(law, torch.tensor([1, 2, 5, 0], dtype=torch.float64) / 8, atol=1e-14)


@pytest.mark.parametrize("N", [1, 2, 3, 4, 8, 16, 32])
def test_two_equal_bits_differ_with_probability_1_over_2n_exactly(N):
    law = propagate(ALL["jump-exact"], BITS, source_law(BITS.path, 2), uniform(N))
    assert mismatch(law) == pytest.approx(1 / (2 * N), abs=1e-14)
    # a little more often where the rate is frozen, too
    euler = mismatch(propagate(ALL["jump-euler"], BITS, source_law(BITS.path, 2), uniform(N)))
    assert euler == pytest.approx(1 / (2 * N), abs=1e-14) if N == 1 else 1 < 2 * N * euler < 1.05


@pytest.mark.parametrize("N", [1, 2, 4, 8])
def test_two_equal_bits_by_sampling(N):
    n, p = 40_000, 1 / (2 * N)
    x = solve_tokens(BITS, BITS.path.noise(n, 2), N, generator=N, keep="end").end
    found = float((x[:, 0] != x[:, 1]).double().mean())
    assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / n)


def test_no_product_of_positions_holds_two_equal_bits_in_one_step():
    """Its total variation to the law of the bits is at least sqrt(2) - 1, and 1/2, all of it mismatch, for any product
    with the right marginals."""
    p = torch.linspace(0, 1, 401, dtype=torch.float64)
    a, b = torch.cartesian_prod(p, p).unbind(1)
    laws = joint(torch.stack([torch.stack([1 - a, a], 1), torch.stack([1 - b, b], 1)], 1))
    tv = 0.5 * (laws - torch.tensor([0.5, 0, 0, 0.5])).abs().sum(1)
    assert float(tv.min()) == pytest.approx(math.sqrt(2) - 1, abs=2e-3)
    assert float(tv.min()) >= math.sqrt(2) - 1
    calibrated = (a == 0.5) & (b == 0.5)
    assert tv[calibrated].tolist() == [0.5]
    law = propagate(ALL["jump-exact"], BITS, source_law(BITS.path, 2), uniform(1))
    assert mismatch(law) == pytest.approx(0.5)


@pytest.mark.parametrize("eta", [0.5, 3.0])
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_the_corrector_leaves_the_marginals_as_they_are(source, eta):
    """Its flow alone, the difference of a short corrected step and a plain one, changes p_t by nothing."""
    P, t = table(source, length=2), torch.tensor(0.5, dtype=torch.float64)
    sampler = dataclasses.replace(ALL["jump-corrector"], eta=eta)
    moved = []
    for h in (1e-3, 1e-4):
        T, plain = (transition(each, P, t, t - h) for each in (sampler, ExactJumps()))
        assert float((T - plain).abs().max()) > 0.1 * eta * h
        moved.append(total_variation(marginal(P, t) @ T, marginal(P, t) @ plain))
    assert moved[1] < 0.02 * moved[0]  # of second order in h
    assert torch.allclose(
        transition(dataclasses.replace(sampler, eta=0.0), P, t, t / 2), transition(ExactJumps(), P, t, t / 2)
    )


# ---- walks


@pytest.mark.parametrize("name", ALL)
def test_samples_have_the_law_that_is_propagated(name):
    P, n = table(length=3, rows=6), 20_000
    path = solve_tokens(P, P.path.noise(n, 3), 3, solver=name, generator=0)
    law = propagate(ALL[name], P, source_law(P.path, 3), uniform(3))
    found = torch.bincount((path.end * torch.tensor([16, 4, 1])).sum(1), minlength=64).double() / n
    assert bool(((found - law).abs() <= 4.5 * (law * (1 - law) / n).sqrt() + 1e-12).all())
    assert (path.xs.shape, path.x0s.shape, path.ts.tolist()) == ((4, n, 3), (3, n, 3), uniform(3).tolist())
    calls = {"tau-midpoint": 5}.get(name, 3)  # the last step is one call
    assert (path.nfe, path.rounds) == (calls, calls)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("N", [1, 2, 7])
def test_the_last_step_outputs_tokens_everywhere_and_never_the_mask(name, N):
    P = chain(4, 6)
    end = solve_tokens(P, P.path.noise(500, 6), N, solver=name, generator=1).end
    assert int(end.max()) < 4
    law = propagate(ALL[name], BITS, source_law(BITS.path, 2), uniform(N))
    X = strings(3, 2)
    assert float(law[(X == 2).any(1)].sum()) == 0
    assert float(law.sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", ALL)
def test_the_last_step_is_a_draw_of_the_posterior_at_every_position(name):
    P, t = full_table("mask", "cosine"), torch.tensor(0.3, dtype=torch.float64)
    found = transition(ALL[name], P, t, torch.tensor(0.0))
    assert torch.allclose(found, joint(P(strings(3, 3), t)), atol=1e-14)


def test_maskgit_reveals_as_many_as_the_scheduler_says_and_the_certain_ones_first():
    P = chain(4, 8, kappa="cosine", seed=2)
    path = solve_tokens(P, P.path.noise(50, 8), 4, solver="maskgit", generator=0)
    masked = (path.xs == 4).sum(2)
    wanted = [math.ceil(8 * math.sin(math.pi / 2 * t) - 1e-9) for t in (1, 0.75, 0.5, 0.25, 0)]
    assert masked.tolist() == [[n] * 50 for n in wanted]
    # of four masked positions, two are to be shown: those whose tokens were drawn with 0.9 and 0.6
    sampler, x = ALL["maskgit"], torch.tensor([[4, 0, 4, 4, 4]])
    sure = torch.tensor([0.5, 1.0, 0.9, 0.6, 0.3])
    p = torch.zeros(1, 5, 5)
    p[0, :, 1], p[0, :, 2] = sure, 1 - sure
    t, s = torch.tensor(0.9), torch.tensor(0.4)
    law = sampler.stage(TokenPath(4), t, s, [x, torch.tensor([[1, 0, 1, 1, 1]])], [p, None])
    assert law.argmax(2).tolist() == [[4, 0, 1, 1, 4]]
    assert bool((law.amax(2) == 1).all())


def test_a_symbol_of_probability_zero_is_never_drawn():
    probs = torch.tensor([0.0, 1e-30, 0.0, 1.0]).expand(200, 500, 4)
    x = draw(probs, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) <= {1, 3}


def test_a_seed_gives_the_same_strings_and_another_gives_others():
    P = chain(3, 5)
    a, b, c = (solve_tokens(P, P.path.noise(20, 5), 4, generator=seed).xs for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_end_alone_is_that_of_the_whole_path():
    P = chain(3, 5, "uniform")
    x = P.path.noise(20, 5, 0)
    whole, end = (solve_tokens(P, x, 4, generator=3, keep=keep) for keep in ("path", "end"))
    assert torch.equal(whole.end, end.end)
    assert (len(end.xs), len(end.x0s)) == (1, 0)


def test_a_model_that_is_not_finite_is_refused():
    D = problem("tokens:bits").posterior(TokenPath(2))
    with torch.no_grad():
        D.net.head.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match="not finite at t = 1"):
        solve_tokens(D, D.path.noise(3, 2), 2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kappa", ["power:100", "power:0.01"])
def test_extreme_schedulers_give_laws(name, kappa):
    """Where next to nothing is due in a step, and where all is."""
    P = TablePosterior(TokenPath(2, scheduler=scheduler(kappa)), BITS.rows, torch.ones(2))
    law = propagate(ALL[name], P, source_law(P.path, 2), torch.tensor([1, 1 - 1e-5, 0.5, 1e-4, 0], dtype=torch.float64))
    assert bool((law >= 0).all())
    assert float(law.sum()) == pytest.approx(1)
    assert float(law[(strings(3, 2) == 2).any(1)].sum()) == 0


def test_bad_input_is_named():
    x = BITS.path.noise(3, 2)
    uniform_bits = table("uniform")
    for wrong, message in (
        (lambda: sampler_by_name("jump-exat"), "did you mean 'jump-exact'"),
        (
            lambda: sampler_by_name("heun"),
            "heun is a solver of vectors, and this model is of tokens; allowed: jump-exact",
        ),
        (lambda: sampler_by_name("picard:window=3"), "picard is a solver of vectors"),
        (lambda: sampler_by_name("learned:digits-teacher-5"), "learned is a solver of vectors"),
        (lambda: sampler_by_name("jump-corrector:et=2"), "did you mean 'eta'"),
        (lambda: sampler_by_name("jump-corrector:eta=x"), "is a number, got 'x'"),
        (lambda: sampler_by_name("jump-corrector:eta=-1"), "must lie from 0 to 1000"),
        (lambda: sampler_by_name("jump-corrector:eta=inf"), "must lie from 0 to 1000, got inf"),
        (lambda: sampler_by_name("maskgit:eta=2"), "maskgit has no settings, got 'eta'"),
        (lambda: solve_tokens(BITS, x, 0), "steps must be a whole number >= 1"),
        (lambda: solve_tokens(BITS, x, 4, grid="karras"), "unknown grid of tokens 'karras'; allowed: uniform, cosine"),
        (lambda: solve_tokens(BITS, x, ts=torch.tensor([0.0, 1.0])), "strictly decreasing"),
        (lambda: solve_tokens(BITS, x.double()), "whole numbers"),
        (lambda: solve_tokens(BITS, x, keep="all"), "unknown keep"),
        (lambda: solve_tokens(BITS, x, solver=None), "a name or a TokenSampler"),
        (lambda: solve_tokens(None, x), "a Posterior is needed"),
        (lambda: solve_tokens(uniform_bits, torch.zeros(3, 2, dtype=torch.long), solver="maskgit"), "source mask"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
