"""The default: it goes by the data's scale, keeps its order, and does not throw samples off under guidance."""

import pytest
import torch
from cases import ALL_SCHEDULES, draw

import toydiff
from toydiff import Empirical, GaussianMixture, NetDenoiser, mixtures, reference, solve, time_grid
from toydiff.denoisers import Conditioned, Guided, Rescheduled
from toydiff.grids import SCALES, warp
from toydiff.solvers import DEFAULT_SOLVER, Guarded

pytestmark = pytest.mark.usefixtures("float64")


def scaled(mixture, by):
    return GaussianMixture(
        mixture.means * by, cov=mixture.covariances * by**2, weights=mixture.weights, labels=mixture.labels
    )


def sizes(a, b):
    return (a - b).flatten(1).norm(dim=1)


# ---- the scale of the data


def test_the_scale_of_a_mixture():
    """r^(1/4) l^(3/4), and the standard deviation where all directions are alike."""
    ring = mixtures.ring()
    assert ring.data_std == pytest.approx(ring.std)
    long = GaussianMixture([[5.0, 0.0, 0.0]], std=[[8.0, 1.0, 1.0]])
    assert long.data_std == pytest.approx((66 / 3) ** 0.125 * 8**0.75)
    turned = mixtures.random_mixture(3, modes=4, dim=7)
    off = turned.means - turned.mean
    cov = torch.einsum("k,kij->ij", turned.weights, turned.covariances + off[:, :, None] * off[:, None])
    r, largest = cov.diagonal().mean().sqrt(), torch.linalg.eigvalsh(cov)[-1].sqrt()
    assert turned.data_std == pytest.approx(float(r**0.25 * largest**0.75), rel=1e-3)
    for by in (1e-90, 0.05, 20.0, 1e90):
        assert scaled(turned, by).data_std == pytest.approx(by * turned.data_std, rel=1e-9)


def test_the_scale_of_points():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([6.0, 1.0, 1.0]) + 40
    assert Empirical(points).data_std == pytest.approx((38 / 3) ** 0.125 * 6**0.75, rel=0.1)
    assert Empirical(torch.full((4, 2), 3.0)).data_std == 1  # one point has no scale


def test_a_denoiser_says_its_scale():
    """Its own, or that of the denoiser inside."""
    S = ALL_SCHEDULES["vp"]
    D = mixtures.ring(std=0.5).denoiser(S)
    for around in (Guided(D, 2.0), Conditioned(D), Rescheduled(D, ALL_SCHEDULES["linear"])):
        assert around.data_std == D.data_std
    assert NetDenoiser(torch.nn.Identity(), S).data_std == 1
    net = NetDenoiser(torch.nn.Identity(), S, data_std=0.5)
    assert Conditioned(net).data_std == 0.5
    net.data_std = 3
    assert Conditioned(net).data_std == 3
    for bad in (0, -1, float("nan"), float("inf"), "wide"):
        with pytest.raises(ValueError, match="data_std must be a finite number > 0"):
            net.data_std = bad


def test_the_grid_grows_with_the_data(schedule):
    a, b = 0.12, 1.4
    for scale in (0.05, 1.0, 20.0):
        ts = time_grid(schedule, 9, data_std=scale)
        u = warp(schedule.alpha(ts), schedule.sigma(ts), (a * scale, b * scale))
        assert u.diff().std() < 1e-6 * u.diff().mean().abs()
    for scale in (1e-300, 1e300):  # beyond what a schedule can tell apart: the nearest that it can
        edge = min(max(scale, SCALES[0]), SCALES[1])
        assert torch.equal(time_grid(schedule, 5, data_std=scale), time_grid(schedule, 5, data_std=edge))


@pytest.mark.parametrize("on", ["ve", "vp", "linear", "scaled-linear"])
@pytest.mark.parametrize("steps", [5, 10])
def test_the_relative_error_is_the_same_at_every_scale(on, steps):
    """Where the schedule reaches it: a table ends at NSR 15, so that data of standard deviation 4 are no pure noise
    there, and a part of the way is not walked."""
    S, base = ALL_SCHEDULES[on], mixtures.ring()
    found, noisiest = [], float(S.nsr(torch.ones(())))
    for by in (0.05, 0.3, 1.0, 3.0):
        mixture = scaled(base, by)
        if noisiest < 10 * mixture.data_std:
            continue
        D, x = mixture.denoiser(S), draw(mixture, S, 1.0, 200)
        found.append(float(sizes(solve(D, x, steps).end, reference(D, x, tolerance=1e-7)).median()) / by)
    assert len(found) > 2
    assert max(found) < 1.2 * min(found), found


# ---- the guard


@pytest.mark.parametrize("by", [0.05, 1.0, 20.0])
def test_smooth_paths_keep_the_order(by):
    """On fine grids no sample is held back: the default and AB3 are the same."""
    mixture = scaled(mixtures.random_mixture(1), by)
    S = ALL_SCHEDULES["vp"]
    D, x = mixture.denoiser(S), draw(mixture, S, 1.0, 64)
    default, plain = (solve(D, x, 80, solver=name).end for name in (DEFAULT_SOLVER, "ab3"))
    assert sizes(default, plain).max() < 1e-12 * by


def spread(error):
    """Median, root mean square and 95th percentile."""
    return torch.stack([error.median(), error.square().mean().sqrt(), error.quantile(0.95)])


@pytest.mark.parametrize("steps", [5, 6, 8, 10])
@pytest.mark.parametrize("scale", [3.0, 7.5, 15.0])
def test_guidance_throws_no_sample_off(scale, steps):
    """AB3 leaves by tens of the data's size. The default is nearer than DDIM as diffusers runs it, on even timesteps,
    in the median and the tail; single samples on the border between two modes may go to the other one."""
    S = ALL_SCHEDULES["scaled-linear"]
    for mixture in (mixtures.ring(std=0.3), mixtures.mixture("spirals")):
        cond = mixture.sample_labelled(160, 1)[1]
        D, x = mixture.denoiser(S), draw(mixture, S, 1.0, 160)
        truth = reference(D, x, cond=cond, guidance_scale=scale, tolerance=1e-7)
        default, ddim, ab3 = (
            spread(sizes(solve(D, x, steps, cond=cond, guidance_scale=scale, **how).end, truth))
            for how in ({}, {"solver": "ddim", "grid": "uniform"}, {"solver": "ab3"})
        )
        assert (default < torch.tensor([1.05, 2.5, 1.05]) * ddim).all(), (mixture, default, ddim)
        if steps == 5 and scale > 3:
            assert ab3[1] > 4 * default[1]  # what is held back


def test_a_step_does_not_overshoot():
    """A stiff pull to 0, F = -12 w: DDIM swings out farther at each step, the default ends near 0, as the exact flow
    does."""
    S = ALL_SCHEDULES["vp"]

    class Stiff(toydiff.Denoiser):
        def forward(self, x, t, cond=None):
            size = torch.sqrt(S.alpha(t) ** 2 + S.sigma(t) ** 2)
            return toydiff.Prediction.of("preconditioned", -12 * x / size, x, t, S)

    D, x = Stiff(S), torch.tensor([[1.0]])
    ends = {solver: float(solve(D, x, 6, solver=solver).end.abs()) for solver in (DEFAULT_SOLVER, "ddim")}
    assert ends["ddim"] > 2
    assert ends[DEFAULT_SOLVER] < 0.1


def test_the_grid_goes_by_guidance_however_it_is_given():
    mixture, S = mixtures.ring(), ALL_SCHEDULES["vp"]
    D, x, cond = mixture.denoiser(S), draw(mixture, S, 1.0, 4), torch.arange(4)
    given = solve(D, x, 5, cond=cond, guidance_scale=8.0)
    assert torch.equal(given.ts, time_grid(S, 5, data_std=2 * D.data_std).to(given.ts))
    for again in (
        solve(Guided(D, 8.0), x, 5, cond=cond),
        solve(Conditioned(D, cond, 8.0), x, 5),
        solve(D, x, 5, cond=cond, guidance_scale=torch.tensor([1.0, 8.0, 0.0, 3.0])),
    ):
        assert torch.equal(again.ts, given.ts)
    for none in (0.0, 0.5, 1.0):
        assert torch.equal(solve(D, x, 5, cond=cond, guidance_scale=none).ts, solve(D, x, 5).ts)


def test_a_sample_does_not_depend_on_its_batch():
    mixture, S = mixtures.ring(), ALL_SCHEDULES["vp"]
    D, x, cond = mixture.denoiser(S), draw(mixture, S, 1.0, 16), torch.arange(16) % 8
    together = solve(D, x, 6, cond=cond, guidance_scale=9.0).end
    alone = torch.cat([solve(D, x[i : i + 1], 6, cond=cond[i : i + 1], guidance_scale=9.0).end for i in range(16)])
    assert sizes(together, alone).max() < 1e-9


def test_the_points_of_a_data_set_are_met_exactly():
    """Where x_0 has settled, the last step ends on it: without line 5 this is 1e-2 off."""
    points = 3 * torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    S = ALL_SCHEDULES["vp"]
    path = solve(Empirical(points).denoiser(S), S.prior((30, 6), 0, dtype=torch.float64), 10)
    assert torch.cdist(path.end, points).min(1).values.median() < 1e-9


@pytest.mark.parametrize("steps", [5, 10])
def test_a_settled_sample_ends_on_its_point_however_stiff_the_pull_was(steps):
    """No step to clean data is cut, though many samples have k > 1 there."""
    S = ALL_SCHEDULES["vp"]
    D = Empirical(torch.tensor([[-3.0], [3.0]])).denoiser(S)
    path = solve(D, S.prior((2000, 1), 0, dtype=torch.float64), steps)
    settled = sizes(path.x0s[-1], path.x0s[-2]) < 1e-9
    assert settled.sum() > 1000
    assert sizes(path.end, path.x0s[-1])[settled].max() < 1e-8


def test_it_costs_no_more_calls_and_bad_settings_are_refused():
    D = toydiff.mixture("ring").denoiser(ALL_SCHEDULES["vp"])
    x = torch.zeros(3, 2)
    assert [solve(D, x, N).nfe for N in (1, 2, 7)] == [1, 2, 7]
    for setting in ("trust", "slack"):
        with pytest.raises(ValueError, match=f"{setting} must be a finite number > 0"):
            Guarded(**{setting: 0.0})
    loose = solve(D, x + 1, 5, solver="guarded:trust=100,slack=100").end
    assert sizes(loose, solve(D, x + 1, 5, solver="ab3").end).max() < 1e-2  # the last step is still held to x_0
