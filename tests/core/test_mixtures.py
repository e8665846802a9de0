"""Exact distributions: densities, scores, denoisers and flows against oracles that share no code with them."""

import math

import pytest
import torch
from cases import ALL_SCHEDULES, M1, N1, R2, RING, close, draw, f64, gauss, inner, normal
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from toydiff import MIXTURES, VP, Empirical, GaussianMixture, Linear, mixture, reference
from toydiff.mixtures import fit, random_mixture

FULL5 = random_mixture(7, modes=3, dim=5)
DIAGONAL = GaussianMixture([[0.0, 1.0], [2.0, -1.0]], std=[[0.3, 0.6], [0.5, 0.2]], weights=[0.3, 0.7], labels=[0, 1])
PROBLEMS = {"N1": N1, "M1": M1, "full 2-D": R2, "full 5-D": FULL5, "diagonal": DIAGONAL, "ring": RING}


def as_torch(mixture, alpha=1.0, sigma=0.0):
    """The law of alpha x_0 + sigma eps by torch.distributions."""
    cov = alpha**2 * mixture.covariances + sigma**2 * torch.eye(mixture.dim).double()
    return MixtureSameFamily(Categorical(mixture.weights), MultivariateNormal(alpha * mixture.means, cov))


@pytest.mark.parametrize("name", PROBLEMS)
def test_density_at_any_time(name, schedule):
    mixture = PROBLEMS[name]
    for t in (0.0, 0.3, 1.0):
        x = draw(mixture, schedule, t, 7)
        time = f64(t)
        oracle = as_torch(mixture, schedule.alpha(time), schedule.sigma(time))
        close(mixture.marginal(schedule, t).log_prob(x), oracle.log_prob(x), 1e-10)


# as many samples as dimensions: coefficients along the wrong axis would pass a check of shapes
@pytest.mark.parametrize("name", PROBLEMS)
def test_score_and_denoiser_follow_from_the_density(name, schedule):
    mixture = PROBLEMS[name]
    times = torch.linspace(0.2, 0.8, mixture.dim, dtype=torch.float64)
    x = torch.cat([draw(mixture, schedule, float(t), 1, seed=i) for i, t in enumerate(times)])
    p = mixture.denoiser(schedule)(x, times)
    for i, t in enumerate(times):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        here = x[i : i + 1].clone().requires_grad_()
        (score,) = torch.autograd.grad(as_torch(mixture, alpha, sigma).log_prob(here).sum(), here)
        close(p.eps[i : i + 1], -sigma * score, 1e-9)
        close(p.x0[i : i + 1], (x[i : i + 1] + sigma**2 * score) / alpha, 1e-8)
        close(p.read("score")[i : i + 1], score, 1e-9)


def test_denoiser_is_the_posterior_mean_by_quadrature(schedule):
    """E[x_0 | x_t] by integrating Bayes' rule over x_0, without any formula for Gaussians."""
    x0, weights = gauss(-5, 5)
    prior = as_torch(M1).log_prob(x0[:, None]).exp() * weights
    for t in inner(schedule, -1.5, 0.0, 1.5):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        for x in (-1.0, 0.4):
            posterior = prior * torch.exp(-0.5 * ((x - alpha * x0) / sigma) ** 2)
            mean = (posterior * x0).sum() / posterior.sum()
            close(M1.denoiser(schedule)(f64([[x]]), t).x0[0, 0], mean, 1e-10)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_ends_are_finite_and_right(name, schedule):
    mixture = PROBLEMS[name]
    D = mixture.denoiser(schedule)
    clean = mixture.sample(5, 0, dtype=torch.float64)
    p = D(clean, 0.0)
    close(p.x0, clean, 1e-12)
    assert (p.eps == 0).all()
    noise = draw(mixture, schedule, 1.0, 5)
    p = D(noise, 1.0)
    assert torch.isfinite(p.x0).all()
    close(schedule.mix(p.x0, p.eps, 1.0), noise, 1e-9)
    if schedule.alpha(torch.ones(()).double()) == 0:  # pure noise tells nothing about the data
        close(p.x0, mixture.mean.expand_as(p.x0), 1e-12)


def test_conditional_model_is_the_mixture_restricted_to_the_class():
    labelled = GaussianMixture(R2.means, cov=R2.covariances, weights=R2.weights, labels=[0, 0, 1, 1, 1])
    schedule = VP()
    x, cond = draw(labelled, schedule, 0.5, 4), torch.tensor([0, 1, 1, 0])
    given = labelled.denoiser(schedule)(x, 0.5, cond)
    log_prob = labelled.log_prob(x, cond)
    for i, label in enumerate(cond.tolist()):
        own = labelled.labels == label
        part = GaussianMixture(R2.means[own], cov=R2.covariances[own], weights=R2.weights[own] / R2.weights[own].sum())
        close(given.x0[i : i + 1], part.denoiser(schedule)(x[i : i + 1], 0.5).x0, 1e-12)
        close(log_prob[i : i + 1], part.log_prob(x[i : i + 1]), 1e-12)
    close(labelled.denoiser(schedule)(x, 0.5, torch.tensor(1)).x0[1:3], given.x0[1:3], 1e-12)
    # labels are classes, drawn with their components' weights
    draws = labelled.sample(20000, 0, cond=torch.ones(20000, dtype=torch.long), dtype=torch.float64)
    own = labelled.labels == 1
    weights = R2.weights[own] / R2.weights[own].sum()
    spread = draws.std(0) / math.sqrt(20000)
    assert ((draws.mean(0) - weights @ R2.means[own]).abs() < 4 * spread).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_samples_have_the_moments(name):
    mixture, n = PROBLEMS[name], 40000
    x = mixture.sample(n, 0, dtype=torch.float64)
    off = mixture.means - mixture.mean
    cov = torch.einsum("k,kij->ij", mixture.weights, mixture.covariances) + (off.T * mixture.weights) @ off
    assert ((x.mean(0) - mixture.mean).abs() < 4 * cov.diagonal().sqrt() / math.sqrt(n)).all()
    scale = torch.outer(cov.diagonal(), cov.diagonal()).sqrt()
    assert ((x.T.cov().reshape(mixture.dim, -1) - cov).abs() < 0.03 * scale).all()
    assert mixture.std == pytest.approx(float(cov.diagonal().mean().sqrt()), rel=1e-12)


def test_samples_and_labels():
    x, labels = RING.sample_labelled(500, 3)
    assert x.dtype == torch.get_default_dtype()
    assert torch.equal(x, RING.sample_labelled(500, 3)[0])
    assert not torch.equal(x, RING.sample_labelled(500, 4)[0])
    nearest = torch.cdist(x.double(), RING.means).argmin(1)
    assert torch.equal(nearest, labels)
    close(RING.responsibilities(x).sum(1), torch.ones(500), 1e-5)
    assert torch.equal(RING.responsibilities(x).argmax(1), labels)


# ---- flows


ROUND, OBLIQUE = N1, GaussianMixture([[1.0, -2.0]], cov=[[0.5, 0.3], [0.3, 0.4]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mixture", "on"), [*((OBLIQUE, on) for on in ALL_SCHEDULES if on != "user"), (ROUND, "user"), (ROUND, "linear")]
)
def test_flow_of_one_gaussian(mixture, on):
    schedule = ALL_SCHEDULES[on]
    x = draw(mixture, schedule, 1.0, mixture.dim + 1)
    # from pure noise at the end itself, and between inner times both ways
    close(mixture.flow(schedule, x, 1.0, 0.0), reference(mixture.denoiser(schedule), x, 1.0, 0.0), 1e-9)
    x = draw(mixture, schedule, 0.7, mixture.dim)
    y = mixture.flow(schedule, x, 0.7, 0.2)
    close(y, reference(mixture.denoiser(schedule), x, 0.7, 0.2), 1e-10)
    close(mixture.flow(schedule, y, 0.2, 0.7), x, 1e-10)


def test_flow_of_one_gaussian_by_its_formula(schedule):
    m, c, t, s = 0.7, 0.5, f64(0.8), f64(0.3)
    x = normal(1, 1)
    size = [torch.sqrt(schedule.alpha(u) ** 2 * c**2 + schedule.sigma(u) ** 2) for u in (t, s)]
    close(N1.flow(schedule, x, t, s), schedule.alpha(s) * m + size[1] / size[0] * (x - schedule.alpha(t) * m), 1e-13)


@pytest.mark.slow
def test_quantile_flow_of_a_one_dimensional_mixture(schedule):
    """x_s = F_s^-1(F_t(x)) and the PF-ODE integrated by DOP853 share nothing but the mixture."""
    t, s = inner(schedule, -2.2, 2.5)
    x = draw(M1, schedule, t, 12)
    close(M1.flow(schedule, x, t, s), reference(M1.denoiser(schedule), x, float(t), float(s)), 1e-10)


@pytest.mark.slow
def test_quantile_flow_over_the_whole_range(schedule):
    x = draw(M1, schedule, 1.0, 12)
    close(M1.flow(schedule, x, 1.0, 0.0), reference(M1.denoiser(schedule), x), 1e-8)


def test_quantile_flow_keeps_far_tails():
    schedule = Linear()
    x = f64([[-9.0], [9.0]])
    y = M1.flow(schedule, x, 0.9, 0.1)
    close(M1.flow(schedule, y, 0.1, 0.9), x, 1e-9)


# ---- finite data sets


def brute_force(points, x, alpha, sigma):
    distance = ((x[:, None] - alpha * points[None]) ** 2).flatten(2).sum(2)
    weights = torch.softmax(-distance / (2 * sigma**2), 1)
    return torch.einsum("bn,n...->b...", weights, points)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_empirical_denoiser_is_a_softmax_over_the_data(shape, schedule):
    points, x = normal(23, *shape, seed=1), normal(5, *shape, seed=2)
    labels = torch.arange(23) % 3
    cond = torch.tensor([0, 2, 1, 1, 0])
    for t in inner(schedule, -1.0, 0.0, 1.0):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        expected = brute_force(points, x, alpha, sigma)
        for chunk in (1, 7, 23, 4096):
            p = Empirical(points).denoiser(schedule, chunk=chunk)(x, t)
            close(p.x0, expected, 1e-11)
            close(alpha * p.x0 + sigma * p.eps, x, 1e-11)
            given = Empirical(points, labels).denoiser(schedule, chunk=chunk)(x, t, cond)
            for i, label in enumerate(cond):
                close(given.x0[i], brute_force(points[labels == label], x[i : i + 1], alpha, sigma)[0], 1e-11)


def test_empirical_denoiser_with_a_time_per_sample(schedule):
    points, x = normal(9, 2, seed=1), normal(2, 2, seed=2)
    t = f64([0.3, 0.7])
    D = Empirical(points).denoiser(schedule, chunk=4)
    both = D(x, t).x0
    for i in range(2):
        close(both[i], D(x[i : i + 1], t[i]).x0[0], 1e-14)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_empirical_denoiser_at_the_clean_end_is_the_nearest_point(chunk):
    points = f64([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    x = f64([[0.4, 0.1], [0.6, 0.0], [0.0, 2.0]])
    p = Empirical(points).denoiser(Linear(), chunk=chunk)(x, 0.0)
    assert torch.equal(p.x0, points)
    # and at hardly any noise, where exp underflows
    assert torch.equal(Empirical(points).denoiser(Linear(), chunk=chunk)(x, 1e-9).x0, points)


def test_empirical_is_a_mixture_of_ever_smaller_gaussians():
    points, schedule = normal(6, 2, seed=1), VP()
    x = normal(4, 2, seed=2)
    narrow = GaussianMixture(points, std=1e-6)
    close(Empirical(points).denoiser(schedule)(x, 0.5).x0, narrow.denoiser(schedule)(x, 0.5).x0, 1e-9)


def test_empirical_samples_are_data():
    points = torch.arange(12.0).reshape(6, 2)
    drawn = Empirical(points).sample(600, 0)
    counts = (drawn[:, 0] / 2).long().bincount(minlength=6)
    assert (counts - 100).abs().max() < 5 * 10
    assert torch.equal(points[(drawn[:, 0] / 2).long()], drawn)


# ---- ready-made


@pytest.mark.parametrize("name", MIXTURES)
def test_ready_made_mixtures(name):
    made = mixture(name)
    assert made.dim == 2
    assert float(made.weights.sum()) == pytest.approx(1, abs=1e-12)
    assert 0.5 < made.std < 3
    x, labels = made.sample_labelled(50, 0)
    assert x.shape == (50, 2)
    assert set(labels.tolist()) <= set(made.labels.tolist())
    assert torch.equal(x, mixture(name).sample_labelled(50, 0)[0])


def test_random_mixtures_differ_by_seed():
    assert torch.equal(random_mixture(4).means, random_mixture(4).means)
    assert not torch.equal(random_mixture(4).means, random_mixture(5).means)
    assert random_mixture(1, modes=3, dim=6).means.shape == (3, 6)


def test_fit_finds_a_mixture_again():
    truth = GaussianMixture(
        [[-2.0, 0.0], [2.0, 1.0]], cov=[[[0.2, 0.1], [0.1, 0.3]], [[0.4, 0], [0, 0.1]]], weights=[0.3, 0.7]
    )
    found = fit(truth.sample(6000, 0, dtype=torch.float64), modes=2)
    order = found.means[:, 0].argsort()
    assert (found.means[order] - truth.means).abs().max() < 0.06
    assert (found.weights[order] - truth.weights).abs().max() < 0.03
    assert (found.covariances[order] - truth.covariances).abs().max() < 0.04
    assert torch.equal(found.means, fit(truth.sample(6000, 0, dtype=torch.float64), modes=2).means)


def test_fit_survives_coinciding_points():
    points = torch.cat([torch.zeros(50, 2), torch.ones(50, 2), torch.tensor([[0.0, 1.0]])])
    assert torch.isfinite(fit(points, modes=3).log_prob(points)).all()


def test_results_follow_the_dtype():
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(3, 2, dtype=dtype)
        p = R2.denoiser(VP())(x, 0.5)
        assert p.x0.dtype == p.eps.dtype == R2.log_prob(x).dtype == dtype
        assert Empirical(torch.randn(5, 2)).denoiser(VP())(x, 0.5).x0.dtype == dtype
