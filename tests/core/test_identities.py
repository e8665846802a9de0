"""The identities that hold exactly: between parameterizations, between the processes, and between methods under several
names.

Numbers in the names of tests are the slides' themes: the Markov chain, the SDE and its ODE, the exact solution, the
samplers.
"""

import itertools
import math

import pytest
import torch
from cases import (
    ALL_SCHEDULES,
    M1,
    N1,
    R2,
    VARIANCE_PRESERVING,
    ConstantX0,
    affine_moments,
    affine_step,
    close,
    derivative,
    draw,
    f64,
    gauss,
    inner,
    normal,
)
from torch.distributions import Normal

from toydiff import SOLVERS, GaussianMixture, Prediction, Rescheduled, chord, jump, solve
from toydiff.solvers import (
    DATA,
    DDIM,
    DDPM,
    NOISE,
    AdamsBashforth,
    EulerMaruyama,
    Guarded,
    Heun,
    SDEMultistep2,
    Singlestep2,
    Singlestep3,
)

M, C = 0.7, 0.5  # N1 is N(M, C^2)
# middles of a thousandth, clear of the kinks of the tables, where a rate has two values
T, S = f64(0.7235), f64(0.3145)


def size2(schedule, t, c=C):
    """S^2 = alpha^2 c^2 + sigma^2."""
    return (schedule.alpha(t) * c) ** 2 + schedule.sigma(t) ** 2


def sde(schedule, t):
    """(f, g^2) of dx = f x dt + g dW by numerical differences: f = d log alpha/dt, g^2 = d sigma^2/dt - 2 f sigma^2."""
    f = derivative(lambda u: schedule.alpha(u).log(), t)
    return f, derivative(lambda u: schedule.sigma(u) ** 2, t) - 2 * f * schedule.sigma(t) ** 2


def mixed_predictions(schedule, t):
    """Two predictions about the same states at the same time: the truth, and another."""
    x0, eps, other = normal(2, 2, seed=1), normal(2, 2, seed=2), normal(2, 2, seed=3)
    truth = Prediction(schedule.mix(x0, eps, t), t, x0, eps, schedule)
    return truth, Prediction.of("x0", other, truth.x, t, schedule)


def squared(a, b):
    return ((a - b) ** 2).sum(1)


# ---- Gaussian data


def test_gaussian_denoiser_by_its_formula(schedule):
    x = normal(4, 1)
    alpha, sigma, size = schedule.alpha(T), schedule.sigma(T), size2(schedule, T)
    p = N1.denoiser(schedule)(x, T)
    close(p.eps, sigma * (x - alpha * M) / size, 1e-13)
    close(p.x0, (alpha * C**2 * x + sigma**2 * M) / size, 1e-13)


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_ddim_is_affine_on_gaussian_data(schedule, c):
    D = GaussianMixture([[0.0]], std=c).denoiser(schedule)
    A, B, _ = affine_step(DDIM(), D, T, S)
    alpha_t, alpha_s, sigma_t, sigma_s = schedule.alpha(T), schedule.alpha(S), schedule.sigma(T), schedule.sigma(S)
    close(A, (alpha_s * alpha_t * c**2 + sigma_s * sigma_t) / size2(schedule, T, c), 1e-13)
    close(B, f64(0.0), 0.0)


@pytest.mark.parametrize("N", [1, 2, 4, 8, 16])
def test_ddim_shrinks_a_standard_normal_by_a_power_of_a_cosine(N):
    """cos(pi/2N)^N on the cosine schedule: 0, 0.5, 0.729, 0.856, 0.926 at N = 1, 2, 4, 8, 16."""
    x = normal(5, 1)
    D = GaussianMixture([[0.0]], std=1.0).denoiser(ALL_SCHEDULES["cosine"])
    end = solve(D, x, N, solver="ddim", grid="uniform").end
    close(end, math.cos(math.pi / (2 * N)) ** N * x, 1e-13)


IN_NOISE_LEVEL = [n for n, e in SOLVERS.items() if not e.solver.stochastic and n != "euler"]
"""Deterministic solvers that do not see how a schedule runs through t: all but Euler in t."""

IN_ANGLE = [n for n in IN_NOISE_LEVEL if isinstance(SOLVERS[n].solver, AdamsBashforth | Guarded)]
"""Those that are exact on a Gaussian of the data's scale instead of on one point."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in IN_NOISE_LEVEL if n not in IN_ANGLE])
def test_one_data_point_is_solved_in_one_step(name, schedule):
    """eps is then constant along a path, and a jump exact; so is all that is built from jumps."""
    point = normal(1, 2, seed=9)
    D = ConstantX0(schedule, point)
    eps = normal(3, 2)
    x = schedule.mix(point.expand_as(eps), eps, 1.0)
    for N in (1, 4):
        close(solve(D, x, N, solver=name).end, point.expand_as(eps), 1e-9)


@pytest.mark.parametrize("name", IN_ANGLE)
@pytest.mark.parametrize("std", [1.0, 0.05, 7.0])
def test_the_angle_form_is_exact_on_its_own_gaussian(name, std, schedule):
    """Data N(0, sigma_d^2) have F = 0, with sigma_d in units of the data's scale: any steps follow the exact flow.

    One step all the way is the model's own x_0 instead.
    """
    data = GaussianMixture([[0.0]], std=std)
    D, x = data.denoiser(schedule), draw(data, schedule, 1.0, 3)
    assert D.data_std == pytest.approx(std)
    D.data_std = std / getattr(SOLVERS[name].solver, "sigma_data", 1.0)
    for N in (2, 4):
        close(solve(D, x, N, solver=name).end, data.flow(schedule, x, 1.0, 0.0), 1e-9)
    close(solve(D, x, 1, solver=name).end, D(x, 1.0).x0, 1e-12)


# ---- the Markov chain and its likelihood


def test_ddpm_posterior_is_bayes_rule(schedule):
    """q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0)/q(x_t | x_0): densities, point by point."""
    x0, x_t, x_s = f64(0.8), f64([-0.6, 0.1, 1.3]), f64([0.2, -0.9, 0.7])
    alpha_t, alpha_s, sigma_t, sigma_s = schedule.alpha(T), schedule.alpha(S), schedule.sigma(T), schedule.sigma(S)
    alpha_ts = alpha_t / alpha_s
    sigma_ts = torch.sqrt(sigma_t**2 - (alpha_ts * sigma_s) ** 2)
    bayes = (
        Normal(alpha_ts * x_s, sigma_ts).log_prob(x_t)
        + Normal(alpha_s * x0, sigma_s).log_prob(x_s)
        - Normal(alpha_t * x0, sigma_t).log_prob(x_t)
    )
    A, B, noise = affine_step(DDPM("small"), ConstantX0(schedule, x0), T, S)
    close(Normal(A * x_t + B, noise).log_prob(x_s), bayes, 1e-11)
    # the large variance is that of the forward step
    close(affine_step(DDPM("large"), ConstantX0(schedule, x0), T, S)[2], sigma_ts, 1e-12)


def test_posterior_divergence_is_a_weighted_error(schedule):
    """KL(q(x_s|x_t,x_0) || p(x_s|x_t)) = (SNR_s - SNR_t)/2 |x_0 - x_0^|^2 = (e^(2h) - 1)/2 |eps - eps^|^2."""
    truth, prediction = mixed_predictions(schedule, T)
    noise = torch.zeros_like(truth.x)
    means = [DDPM("small").step(answering(p), p.x, T, S, (), noise)[0] for p in (truth, prediction)]
    beta = affine_step(DDPM("small"), ConstantX0(schedule, f64(0.0)), T, S)[2] ** 2
    divergence = squared(*means) / (2 * beta)
    snr_t, snr_s = schedule.nsr(T) ** -2, schedule.nsr(S) ** -2
    close(divergence, 0.5 * (snr_s - snr_t) * squared(truth.x0, prediction.x0), 1e-11)
    h = schedule.lam(S) - schedule.lam(T)
    close(divergence, 0.5 * torch.expm1(2 * h) * squared(truth.eps, prediction.eps), 1e-11)


def answering(prediction):
    """A denoiser that answers with this prediction."""

    class Fixed(ConstantX0):
        def forward(self, x, t, cond=None):
            return prediction

    return Fixed(prediction.schedule, prediction.x0)


def test_loss_weights_hold_point_by_point(schedule):
    for t in (f64([0.2345, 0.7235]), T):
        truth, prediction = mixed_predictions(schedule, t)
        rate = derivative(schedule.lam, t)
        velocity = squared(truth.read("velocity"), prediction.read("velocity"))
        eps, x0 = squared(truth.eps, prediction.eps), squared(truth.x0, prediction.x0)
        close(velocity, (schedule.sigma(t) * rate) ** 2 * eps, 1e-7)
        close(velocity, (schedule.alpha(t) * rate) ** 2 * x0, 1e-7)
        close(eps, torch.exp(2 * schedule.lam(t)) * x0, 1e-12)


def test_loss_weights_of_flow_matching():
    truth, prediction = mixed_predictions(ALL_SCHEDULES["linear"], T)
    velocity = squared(truth.read("velocity"), prediction.read("velocity"))
    close(velocity, squared(truth.eps, prediction.eps) / (1 - T) ** 2, 1e-12)
    close(velocity, squared(truth.x0, prediction.x0) / T**2, 1e-12)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_v_on_a_circle(name):
    """On alpha^2 + sigma^2 = 1: x_0 = alpha x - sigma v, eps = sigma x + alpha v; on cosine dx/dt = (pi/2) v."""
    schedule = ALL_SCHEDULES[name]
    p, _ = mixed_predictions(schedule, T)
    v, alpha, sigma = p.read("v"), schedule.alpha(T), schedule.sigma(T)
    close(alpha * p.x - sigma * v, p.x0, 1e-13)
    close(sigma * p.x + alpha * v, p.eps, 1e-13)
    if name == "cosine":
        close(p.read("velocity"), math.pi / 2 * v, 1e-13)


# ---- the SDE and the probability-flow ODE


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [N1, M1], ids=["N1", "M1"])
def test_velocity_is_the_derivative_of_the_exact_flow(mixture, schedule):
    for t, r in ((T, S), (S, T), (T, T)):
        x = draw(mixture, schedule, t, 4)
        at_r = mixture.flow(schedule, x, t, r)
        slope = derivative(lambda u, x=x, t=t: mixture.flow(schedule, x, t, u), r)
        close(mixture.denoiser(schedule)(at_r, r).read("velocity"), slope, 1e-7)


def test_velocity_is_the_drift_less_half_the_score(schedule):
    x = draw(R2, schedule, T, 4)
    p = R2.denoiser(schedule)(x, T)
    f, g2 = sde(schedule, T)
    close(p.read("velocity"), f * x - 0.5 * g2 * p.read("score"), 1e-6)


def test_forward_and_reverse_variance_equations(schedule):
    """V = S^2 solves V' = 2 f V + g^2 forwards, and -V' = -2 (f + g^2/S^2) V + g^2 backwards."""
    f, g2 = sde(schedule, T)
    V = size2(schedule, T)
    rate = derivative(lambda t: size2(schedule, t), T)
    close(2 * f * V + g2, rate, 1e-7)
    close(-2 * (f + g2 / V) * V + g2, -rate, 1e-7)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_euler_maruyama_has_the_drift_and_noise_of_the_reverse_family(eta, schedule):
    """dx = [f x - (1 + eta^2)/2 g^2 score] dt + eta g dW: the factor between ODE and SDE is the usual slip."""
    f, g2 = sde(schedule, T)
    V, mean = size2(schedule, T), schedule.alpha(T) * M
    A, B, noise = (
        affine_step(EulerMaruyama(eta), N1.denoiser(schedule), T, S)
        if eta
        else (*affine_step(EulerMaruyama(0.0), N1.denoiser(schedule), T, S)[:2], f64(0.0))
    )
    pull = 0.5 * (1 + eta**2) * g2 / V  # -score = (x - mean)/V
    close(A, 1 + (S - T) * (f + pull), 1e-6)
    close(B, -(S - T) * pull * mean, 1e-6)
    close(noise**2, eta**2 * g2 * (T - S), 1e-6)


def lambda_grid(schedule, N, first=-2.0, last=2.0):
    return schedule.t_of_lam(torch.linspace(first, last, N + 1, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eta", "on"), [*((1.0, on) for on in ALL_SCHEDULES), (0.0, "vp"), (0.5, "ve"), (0.5, "linear"), (0.0, "user")]
)
def test_euler_maruyama_has_the_marginals_with_a_bias_of_first_order(eta, on):
    schedule = ALL_SCHEDULES[on]
    D, biases = N1.denoiser(schedule), []
    for N in (75, 150):
        ts = lambda_grid(schedule, N)
        mean, variance = affine_moments(EulerMaruyama(eta), D, ts, schedule.alpha(ts[0]) * M, size2(schedule, ts[0]))
        biases.append(torch.stack([mean - schedule.alpha(ts[-1]) * M, variance - size2(schedule, ts[-1])]))
    seen = biases[0].abs() > 1e-4  # the mean has hardly any bias on some schedules
    assert seen[1]
    assert ((biases[0] / biases[1] - 2).abs()[seen] < 0.2).all()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_euler_maruyama_samples_within_three_standard_errors(eta):
    schedule, n = ALL_SCHEDULES["cosine"], 4000
    ts = lambda_grid(schedule, 400)
    x = draw(N1, schedule, ts[0], n)
    end = solve(N1.denoiser(schedule), x, ts=ts, solver=EulerMaruyama(eta), generator=1, keep="end").end
    mean, variance = schedule.alpha(ts[-1]) * M, size2(schedule, ts[-1])
    assert abs(end.mean() - mean) < 3 * torch.sqrt(variance / n)
    assert abs(end.var() - variance) < 3 * variance * math.sqrt(2 / n)


# ---- the exact solution in lambda


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [N1, M1], ids=["N1", "M1"])
@pytest.mark.parametrize("on", ["vp", "linear", "ve", "user"])
def test_exact_solution_in_both_forms_by_quadrature(mixture, on):
    schedule = ALL_SCHEDULES[on]
    t, s = inner(schedule, -1.5, 1.5)
    x = draw(mixture, schedule, t, 3)
    exact = mixture.flow(schedule, x, t, s)
    lams, weights = gauss(-1.5, 1.5, nodes=24, pieces=2)
    noise, data = torch.zeros_like(x), torch.zeros_like(x)
    D = mixture.denoiser(schedule)
    for lam, weight in zip(lams, weights, strict=True):
        u = schedule.t_of_lam(lam)
        p = D(mixture.flow(schedule, x, t, u), u)
        noise += weight * torch.exp(-lam) * p.eps
        data += weight * torch.exp(lam) * p.x0
    close(schedule.alpha(s) / schedule.alpha(t) * x - schedule.alpha(s) * noise, exact, 1e-10)
    close(schedule.sigma(s) / schedule.sigma(t) * x + schedule.sigma(s) * data, exact, 1e-10)


# ---- DDPM ancestral sampling


def test_true_reverse_variance(schedule):
    """Var(x_s | x_t) of the joint Gaussian = beta~ + (coefficient of x_0)^2 Var(x_0 | x_t)."""
    D0, D1 = ConstantX0(schedule, f64(0.0)), ConstantX0(schedule, f64(1.0))
    _, at0, small = affine_step(DDPM("small"), D0, T, S)
    to_x0 = affine_step(DDPM("small"), D1, T, S)[1] - at0
    alpha_ts = schedule.alpha(T) / schedule.alpha(S)
    V_t, V_s = size2(schedule, T), size2(schedule, S)
    truth = V_s - (alpha_ts * V_s) ** 2 / V_t
    close(small**2 + to_x0**2 * C**2 * schedule.sigma(T) ** 2 / V_t, truth, 1e-12)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_large_variance_is_exact_for_standard_normal_data(name):
    schedule = ALL_SCHEDULES[name]
    alpha_ts = schedule.alpha(T) / schedule.alpha(S)
    _, _, large = affine_step(DDPM("large"), ConstantX0(schedule, f64(0.0)), T, S)
    close(large**2, 1 - alpha_ts**2, 1e-12)  # Var(x_s | x_t) where both have variance 1 and covariance alpha_ts


def ddpm_ratio(variance, N):
    """Final over true variance of N-step ancestral sampling of N1 on vp, from the exact marginal at 1 to t = 0.001."""
    schedule = ALL_SCHEDULES["vp"]
    ts = torch.linspace(1, 1e-3, N + 1, dtype=torch.float64)
    start, end = size2(schedule, ts[0]), size2(schedule, ts[-1])
    _, final = affine_moments(DDPM(variance), N1.denoiser(schedule), ts, schedule.alpha(ts[0]) * M, start)
    return float(final / end)


def ddpm_ratio_by_hand(variance, N):
    """The same from the formulas of arXiv 2006.11239 in plain floats, for N(0, C^2) data."""
    times = [1e-3 + (1 - 1e-3) * i / N for i in range(N + 1)]
    alpha = [math.exp(-0.25 * t**2 * 19.9 - 0.05 * t) for t in times]
    V = (alpha[N] * C) ** 2 + 1 - alpha[N] ** 2
    for i in range(N, 0, -1):
        a, b = alpha[i], alpha[i - 1]
        step = 1 - (a / b) ** 2  # beta
        shrink = a * C**2 / (a**2 * C**2 + 1 - a**2)  # x_0 = shrink x
        factor = a / b * (1 - b**2) / (1 - a**2) + b * step / (1 - a**2) * shrink
        v = step * ((1 - b**2) / (1 - a**2) if variance == "small" else 1)
        V = factor**2 * V + v
    return V / ((alpha[0] * C) ** 2 + 1 - alpha[0] ** 2)


@pytest.mark.slow
@pytest.mark.parametrize(("variance", "expected"), [("small", (0.445, 0.878, 0.985)), ("large", (1.388, 1.035, 1.003))])
def test_ddpm_variance_ratios(variance, expected):
    for N, ratio in zip((10, 100, 1000), expected, strict=True):
        measured = ddpm_ratio(variance, N)
        assert measured == pytest.approx(ddpm_ratio_by_hand(variance, N), rel=1e-9)
        assert measured == pytest.approx(ratio, abs=1e-3)  # given to three digits
    half, whole = (abs(ddpm_ratio(variance, N) - 1) for N in (200, 400))
    assert half / whole == pytest.approx(2, rel=0.15)


def test_one_stochastic_step_under_three_names(schedule):
    """DDIM with eta = 1, DDPM with the small variance, the first step of SDE-DPM-Solver++."""
    x, noise = draw(R2, schedule, T, 3), normal(3, 2)
    D = R2.denoiser(schedule)
    ddpm, _ = DDPM("small").step(D, x, T, S, (), noise)
    close(DDIM(1.0).step(D, x, T, S, (), noise)[0], ddpm, 1e-12)
    close(SDEMultistep2().step(D, x, T, S, (), noise)[0], ddpm, 1e-12)


# ---- DDIM and its other names


@pytest.mark.parametrize("batch", [2, 5])
def test_ddim_under_all_its_names(schedule, batch):
    D = R2.denoiser(schedule)
    x = draw(R2, schedule, T, batch)
    p = D(x, T)
    h = schedule.lam(S) - schedule.lam(T)
    ddim, _ = DDIM().step(D, x, T, S)
    alpha_t, alpha_s = schedule.alpha(T), schedule.alpha(S)
    names = {
        "jump": jump(p, S),
        "DPM-Solver-1": NOISE.integrate(schedule, p, S, (NOISE.phis(h)[0], p.eps)),
        "DPM-Solver++-1": DATA.integrate(schedule, p, S, (DATA.phis(h)[0], p.x0)),
        "DPM-Solver-1 by hand": alpha_s / alpha_t * x - schedule.sigma(S) * torch.expm1(h) * p.eps,
        "Euler in z over NSR": alpha_s * (x / alpha_t + (schedule.nsr(S) - schedule.nsr(T)) * p.eps),
        "frozen eps in the exact solution": alpha_s / alpha_t * x
        - alpha_s * (torch.exp(-schedule.lam(T)) - torch.exp(-schedule.lam(S))) * p.eps,
    }
    for name, step in names.items():
        assert (step - ddim).abs().max() < 1e-12, name


def test_ddim_is_euler_on_the_flow_velocity_of_the_linear_schedule():
    linear = ALL_SCHEDULES["linear"]
    D = R2.denoiser(linear)
    x = draw(R2, linear, 1.0, 2)
    for N in (1, 2, 7):
        for grid in ("uniform", "quadratic"):
            ddim, euler = (solve(D, x, N, solver=name, grid=grid).xs for name in ("ddim", "euler"))
            assert (ddim - euler).abs().max() < 1e-12
    p = D(x, T)
    close(jump(p, S), x + (S - T) * (p.eps - p.x0), 1e-13)


def test_a_whole_run_of_ddim_is_euler_in_z(schedule):
    D = R2.denoiser(schedule)
    ts = lambda_grid(schedule, 12, -2.0, 3.0)
    x = draw(R2, schedule, ts[0], 2)
    z = x / schedule.alpha(ts[0])
    for t, s in itertools.pairwise(ts):
        z = z + (schedule.nsr(s) - schedule.nsr(t)) * D(schedule.alpha(t) * z, t).eps
    close(solve(D, x, ts=ts, solver="ddim").end, schedule.alpha(ts[-1]) * z, 1e-12)


def test_inverse_ddim_is_the_chord(schedule):
    D = R2.denoiser(schedule)
    x = draw(R2, schedule, T, 2)
    x_s, p = DDIM().step(D, x, T, S)
    ratio = schedule.sigma(S) / schedule.sigma(T)
    x0 = (x_s - ratio * x) / (schedule.alpha(S) - schedule.alpha(T) * ratio)
    close(x0, p.x0, 1e-11)
    close(chord(schedule, x, T, x_s, S).x0, p.x0, 1e-11)


# ---- solvers in the noise level do not see the schedule


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_NOISE_LEVEL)
def test_solvers_in_the_noise_level_do_not_see_the_schedule(name, schedule):
    """The same model wrapped in another schedule, at the same noise levels: the same path of x/alpha."""
    ve = ALL_SCHEDULES["ve"]
    model = R2.denoiser(ve)
    ends = []
    for on, D in ((ve, model), (schedule, Rescheduled(model, schedule))):
        ts = lambda_grid(on, 6)
        z = draw(R2, ve, lambda_grid(ve, 6)[0], 2)
        ends.append(solve(D, on.alpha(ts[0]) * z, ts=ts, solver=name).end / on.alpha(ts[-1]))
    close(ends[1], ends[0], 1e-8)


def test_heun_by_hand_in_z(schedule):
    D = R2.denoiser(schedule)
    x = draw(R2, schedule, T, 2)
    n_t, n_s = schedule.nsr(T), schedule.nsr(S)
    z = x / schedule.alpha(T)
    d = D(x, T).eps
    trial = z + (n_s - n_t) * d
    z = z + (n_s - n_t) / 2 * (d + D(schedule.alpha(S) * trial, S).eps)
    close(Heun().step(D, x, T, S)[0], schedule.alpha(S) * z, 1e-12)


# ---- the singlestep solvers by the printed formulas


def test_singlestep_solvers_by_hand(schedule):
    D = R2.denoiser(schedule)
    t, s = inner(schedule, 0.0, 0.8)
    x, E = draw(R2, schedule, t, 2), torch.expm1
    lam_t, h = schedule.lam(t), schedule.lam(s) - schedule.lam(t)
    r1, r2, half = (schedule.t_of_lam(lam_t + r * h) for r in (1 / 3, 2 / 3, 1 / 2))

    def noise(u, r, *extra):
        first = schedule.alpha(u) / schedule.alpha(t) * x - schedule.sigma(u) * E(r * h) * e
        return first - schedule.sigma(u) * sum(extra)

    def data(u, r, *extra):
        first = schedule.sigma(u) / schedule.sigma(t) * x - schedule.alpha(u) * E(-r * h) * x0
        return first + schedule.alpha(u) * sum(extra)

    e, x0 = D(x, t).eps, D(x, t).x0
    e_half = D(noise(half, 1 / 2), half).eps
    close(Singlestep2(NOISE).step(D, x, t, s)[0], noise(s, 1, E(h) * (e_half - e)), 1e-12)
    x0_half = D(data(half, 1 / 2), half).x0
    close(Singlestep2(DATA).step(D, x, t, s)[0], data(s, 1, -E(-h) * (x0_half - x0)), 1e-12)

    e_1 = D(noise(r1, 1 / 3), r1).eps
    e_2 = D(noise(r2, 2 / 3, 2 * (E(2 * h / 3) / (2 * h / 3) - 1) * (e_1 - e)), r2).eps
    close(Singlestep3(NOISE).step(D, x, t, s)[0], noise(s, 1, 1.5 * (E(h) / h - 1) * (e_2 - e)), 1e-12)
    x0_1 = D(data(r1, 1 / 3), r1).x0
    x0_2 = D(data(r2, 2 / 3, 2 * (E(-2 * h / 3) / (2 * h / 3) + 1) * (x0_1 - x0)), r2).x0
    close(Singlestep3(DATA).step(D, x, t, s)[0], data(s, 1, 1.5 * (E(-h) / h + 1) * (x0_2 - x0)), 1e-12)
