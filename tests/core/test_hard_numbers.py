"""Numbers at their limits: many dimensions, far tails, narrow components, both ends, half precision."""

import math

import pytest
import torch
from cases import ALL_SCHEDULES, M1, f64, normal
from scipy.special import log_ndtr

from toydiff import Empirical, GaussianMixture, Linear, Prediction, Rescheduled, chord, jump, mixtures, time_grid
from toydiff.measure import mode_weights, modes, target_variance
from toydiff.mixtures import random_mixture

HALVES = (torch.float16, torch.bfloat16)


# ---- modes


@pytest.mark.parametrize("d", [1, 2, 7])
def test_squared_distances_are_mahalanobis(d):
    for mixture in (random_mixture(3, 4, d), GaussianMixture(normal(4, d), std=0.1 + normal(4, d).abs())):
        x = normal(9, d, seed=1)
        off = x[:, None] - mixture.means
        right = torch.einsum("nki,kij,nkj->nk", off, torch.linalg.inv(mixture.covariances), off)
        torch.testing.assert_close(mixture.squared_distances(x), right, rtol=1e-9, atol=1e-9)


def test_modes_in_many_dimensions():
    """n K d^2 numbers would be 49 GB."""
    mixture = GaussianMixture(normal(10, 784), std=0.5)
    found = modes(mixture, mixture.sample(1000, 0))
    assert found.coverage == 1
    assert found.outside < 0.01
    full = random_mixture(0, 3, 100)
    assert float(mode_weights(full, full.sample(500, 0)).sum()) > 0.98


# ---- the flow in one dimension


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_the_flow_far_out_keeps_the_tail(name):
    """log F_s(x_s) = log F_t(x), at 3 to 1e6 standard deviations, on both sides."""
    S = ALL_SCHEDULES[name]
    for m in (M1, GaussianMixture([[-4.0], [5.0]], std=[0.01, 0.3], weights=[1e-9, 1 - 1e-9])):
        for t, s in ((1.0, 0.0), (0.7, 0.2), (0.2, 0.9)):
            at, to = m.marginal(S, t), m.marginal(S, s)
            size = float(at.std)
            x = f64([-1e6, -60, -41, -30, -3, 0, 3, 30, 41, 60, 1e6])[:, None] * size
            y = m.flow(S, x, t, s)
            assert bool((y.diff(dim=0) >= 0).all())
            for side in (1, -1):
                before, after = (tail(law, z, side) for law, z in ((at, x), (to, y)))
                light = before < math.log(0.5)
                torch.testing.assert_close(after[light], before[light], rtol=1e-8, atol=1e-8)


def tail(mixture, x, side):
    u = side * (x - mixture.means[:, 0]) / (mixture.covariances[:, 0, 0]).sqrt()
    return torch.logsumexp(torch.tensor(log_ndtr(u.numpy())) + mixture.weights.log(), 1)


def test_the_flow_of_what_is_no_number():
    for x in (f64([[1e200]]), f64([[torch.inf]]), f64([[torch.nan]])):
        with pytest.raises(ValueError, match=r"standard deviations|NaN or infinite"):
            M1.flow(Linear(), x, 0.5, 0.1)


# ---- the ends


def test_the_variance_of_a_target_at_its_ends():
    for S in ALL_SCHEDULES.values():
        for references in (1, 8):
            clean, tiny, mid, noise = target_variance(
                mixtures.ring(), S, (0.0, 1e-12, 0.5, 1.0), references, samples=64
            )
            assert max(clean[1:]) < 1e-30
            assert all(math.isfinite(value) for row in (tiny, mid) for value in row)
            assert math.isfinite(noise[1])
            assert noise[1] > 0.1


@pytest.mark.parametrize("std", [1e-90, 1e-20, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_a_narrow_component(std, dtype):
    mixture = GaussianMixture([[0.0, 0.0], [1.0, 1.0]], std=[std, 0.5], labels=[0, 1])
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.3, -2.0], [50.0, 50.0]], dtype=dtype)
    for S in ALL_SCHEDULES.values():
        D = mixture.denoiser(S)
        for cond in (None, torch.tensor([0, 1, 0, 1])):
            clean = D(x, 0.0, cond)
            torch.testing.assert_close(clean.x0, x)
            for t in (0.0, 1e-5, 0.3, 1.0):
                p = D(x, t, cond)
                assert bool((p.x0.isfinite() & p.eps.isfinite()).all()), (S, t)
    assert not bool(mixture.log_prob(x).isnan().any())
    assert not bool(mixture.responsibilities(x).isnan().any())


def test_a_component_too_narrow_to_measure_in():
    with pytest.raises(ValueError, match="std must be at least 1e-100"):
        GaussianMixture([[0.0]], std=1e-200)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_half_precision(name, dtype):
    """What comes out is the float32 result, rounded; and never NaN, at both ends and close to them."""
    S, ring = ALL_SCHEDULES[name], mixtures.ring()
    x = ring.marginal(S, 1.0).sample(8, 0).to(dtype)
    y = ring.sample(8, 1).to(dtype)
    times = (0.0, 1e-4, 0.05, 0.5, 0.999, 1.0)
    for t in times:
        for at in (t, torch.full((8,), t), torch.full((8,), t, dtype=dtype)):
            for D in (
                ring.denoiser(S),
                Empirical(y).denoiser(S),
                Rescheduled(ring.denoiser(ALL_SCHEDULES["vp"]), S),
                Rescheduled(ring.denoiser(S), ALL_SCHEDULES["cosine"]),
            ):
                p = D(x, at)
                assert p.x0.dtype == p.eps.dtype == dtype
                assert bool((p.x0.isfinite() & p.eps.isfinite()).all()), (D, t)
                assert bool(jump(p, 0.5 * t).isfinite().all())
        for s in times:
            if abs(s - t) < 0.03:
                continue
            p = chord(S, x, t, y, torch.full((8,), s))
            assert bool((p.x0.isfinite() & p.eps.isfinite()).all()), (t, s)
            wide = chord(S, x.float(), t, y.float(), torch.full((8,), s))
            torch.testing.assert_close(p.x0.float(), wide.x0.clamp(-6e4, 6e4), rtol=1e-2, atol=1e-2)
    for kind in ("x0", "v", "preconditioned", "eps"):
        p = Prediction.exact(y, y, torch.full((8,), 0.4), S)
        torch.testing.assert_close(Prediction.of(kind, p.read(kind), p.x, p.t, S).x0, y, rtol=0.1, atol=0.3)


def test_times_in_half_precision_are_read_in_float32():
    for S in ALL_SCHEDULES.values():
        t = torch.tensor([0.25, 0.5], dtype=torch.float16)
        assert torch.equal(S.sigma(t), S.sigma(t.float()))
    assert time_grid(Linear(), 3).dtype == torch.float64
