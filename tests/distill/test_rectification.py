"""Rectification, against exact couplings: reflow, InstaFlow, Rectified Diffusion, PeRFlow, Rectified Diffusion
(phased), and straight pieces of schedules.
"""

import itertools
import math

import pytest
import torch
from cases import ALL_SCHEDULES, M1, N1, RING, close, f64, normal
from students import (
    LEAST,
    Designed,
    FirstOrder,
    Known,
    Spline,
    Table,
    With,
    at_and_beside,
    corners,
    exact_pairs,
    minimise,
    pairs_of,
    rectified,
    train,
    uniforms_for,
    walk,
)

from toydiff import SCHEDULES, Guided, Linear, Prediction, chord, jump, schedule, solve
from toydiff.catalog import METHODS
from toydiff.distill.base import batch_of, uniform_times
from toydiff.distill.perflow import perflow_loss
from toydiff.distill.rectified_diffusion_phased import rectified_diffusion_phased_loss
from toydiff.distill.windows import window_ends
from toydiff.measure import first_orderness, straightness
from toydiff.prediction import row
from toydiff.problems.pairs import Pairs, Recipe, make_pairs
from toydiff.schedules import PiecewiseLinear
from toydiff.training import Draws

KIND_AT_NOISE = {name: "v" if name in ("cosine", "linear") else "eps" for name in SCHEDULES}
"""A kind that can be used at t = 1, for each schedule."""
FOUR = ["vp", "cosine", "linear", "scaled-linear"]


pytestmark = pytest.mark.usefixtures("float64")


def ordered(n):
    """n noises that cover N(0, 1), (n, 1), increasing."""
    return math.sqrt(2) * torch.erfinv(2 * (torch.arange(n) + 0.5) / n - 1)[:, None]


def at_noise(on, noise):
    return on.sigma(torch.ones(())) * noise


# ---- pairs


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_the_path_of_a_pair_runs_from_the_teachers_start_to_its_end(name):
    on = ALL_SCHEDULES[name]
    pairs = pairs_of(normal(16, 2), normal(16, 2, seed=1), torch.arange(16) % 3)
    x0, eps, cond = pairs.draw(on, 16, Designed(indices=torch.arange(16)))
    true = Prediction.exact(x0, eps, 1.0, on)
    close(true.x, at_noise(on, pairs.noise), 1e-12)
    close(jump(true, 1.0), at_noise(on, pairs.noise), 1e-12)
    close(jump(true, 0.0), pairs.x0, 1e-14)
    assert torch.equal(cond, pairs.cond)
    one = torch.ones(())
    close(eps, pairs.noise - on.alpha(one) / on.sigma(one) * pairs.x0, 1e-12)
    if on.alpha(one) == 0:
        close(eps, pairs.noise, 1e-15)


@pytest.mark.parametrize("name", FOUR)
def test_pairs_are_the_teachers(name):
    on = schedule(name)
    problem = With(RING, on, KIND_AT_NOISE[name], conditional=True)
    pairs = make_pairs(
        problem, problem.teacher, Recipe(n=50, solver="ddim", grid="uniform", steps=3, guidance_scale=2.0)
    )
    x, ts, D = at_noise(on, pairs.noise), torch.linspace(1, 0, 4), Guided(problem.teacher, 2.0)
    close(pairs.x0, walk(D, x, ts, pairs.cond), 1e-11)
    assert pairs.teacher_calls == 50 * 6
    assert set(pairs.cond.tolist()) == set(range(8))


def test_shuffled_pairs_keep_everything_but_the_pairing():
    pairs = pairs_of(normal(50, 2), normal(50, 2, seed=1), torch.arange(50))
    other = pairs.shuffled(3)
    assert torch.equal(other.x0, pairs.x0)
    assert torch.equal(other.cond, pairs.cond)
    assert torch.equal(other.noise.sort(0).values, pairs.noise.sort(0).values)
    assert bool((other.noise != pairs.noise).any(1).double().mean() > 0.8)
    assert torch.equal(other.noise, pairs.shuffled(3).noise)
    assert not torch.equal(other.noise, pairs.shuffled(4).noise)


# ---- reflow and Rectified Diffusion


def gaussian_rectified(on, x, t):
    """eps of the rectified model on N1, whose ODE takes sigma(1) noise to m + c (sigma(1) noise - alpha(1) m)/S(1).

    With u the standard score of the start, x_t = alpha m + (alpha c + sigma k) u and eps = k u: methods 2.4 has
    alpha(1) = 0, k = 1.
    """
    one = torch.ones(())
    a1, s1, m, c = on.alpha(one), on.sigma(one), 0.7, 0.5
    k = (torch.sqrt(a1**2 * c**2 + s1**2) - a1 * c) / s1
    alpha, sigma = on.alpha(t)[:, None], on.sigma(t)[:, None]
    return k * (x - alpha * m) / (alpha * c + sigma * k)


TIMES = (0.1, 0.25, 0.5, 0.75, 0.999)


@pytest.mark.parametrize(
    ("method", "name", "kind"),
    [
        ("rectified-flow", "linear", "velocity"),
        ("rectified-diffusion", "vp", "eps"),
        ("rectified-diffusion", "scaled-linear", "eps"),
        ("rectified-diffusion", "cosine", "v"),
        ("rectified-diffusion", "cosine", "eps"),
        ("rectified-diffusion", "linear", "x0"),
        ("rectified-diffusion", "ve", "preconditioned"),
    ],
)
def test_the_closed_form_of_a_gaussian(method, name, kind):
    on = schedule(name)
    problem = With(N1, on, kind, lambda on, kind: Spline(on, kind, TIMES))
    pairs = exact_pairs(N1, on, normal(100, 1, seed=3))
    knobs = {"loss": "own-mse"} if method == "rectified-diffusion" else {}
    training = train(method, problem, problem.teacher, pairs=pairs, batch=100, **knobs)
    for k in range(2):
        draws = Designed(uniforms=[uniforms_for(TIMES)], seed=k)
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    x, t = f64([[-1.0], [0.2], [0.9], [2.0], [3.0]]), f64(TIMES)
    found = training.student(x, t)
    close(found.eps.detach(), gaussian_rectified(on, x, t), 1e-9)
    assert (training.student.kind, training.student.schedule.name) == (kind, name)
    # the model before is another one
    assert float((problem.teacher(x, t).eps - gaussian_rectified(on, x, t)).abs().max()) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [N1, M1], ids=["N1", "M1"])
@pytest.mark.parametrize(
    ("method", "name", "loss"),
    [("rectified-flow", "linear", None), ("instaflow", "linear", None)]
    + [("rectified-diffusion", name, loss) for name in FOUR for loss in ("own-mse", "x0-huber")],
)
def test_with_exact_pairs_the_first_order_model_is_the_optimum(method, name, loss, mixture):
    """In one dimension paths do not cross: each method's loss is 0 at the model that is constant along the path of
    every pair.
    """
    on, noise = schedule(name), ordered(60)
    kind = "velocity" if loss is None else KIND_AT_NOISE[name]
    pairs = exact_pairs(mixture, on, noise)
    knobs = {} if loss is None else {"loss": loss}

    def at_optimum(pairs):
        problem = With(
            mixture, on, kind, lambda on, kind: Known(rectified(exact_pairs(mixture, on, noise), on, kind), kind)
        )
        training = train(method, problem, problem.teacher, pairs=pairs, batch=64, **knobs)
        return at_and_beside(training.turns[0], training.student, lambda: Draws(2))

    here, slope, beside = at_optimum(pairs)
    assert abs(here) < 1e-18
    assert abs(slope) < 1e-8
    assert beside > 1e-4
    # the control: the same noises and samples, paired anew, as the deck's "sample eps" would
    here, _, _ = at_optimum(pairs.shuffled())
    assert here > 0.05


@pytest.mark.parametrize("mixture", [N1, M1], ids=["N1", "M1"])
@pytest.mark.parametrize("name", FOUR)
def test_a_rectified_model_is_first_order(name, mixture):
    on = schedule(name)
    pairs = exact_pairs(mixture, on, ordered(40))
    D = rectified(pairs, on, KIND_AT_NOISE[name])
    x = at_noise(on, pairs.noise)
    one = solve(D, x, 1, solver="ddim", grid="uniform")
    many = solve(D, x, 8, solver="ddim", grid="uniform")
    close(one.end, mixture.flow(on, x, 1.0, 0.0), 1e-12)
    close(many.end, one.end, 1e-12)
    assert first_orderness(many, on, normalised=True) < 1e-24
    # the model before: its ODE has the same ends, and is not of first order
    before = solve(mixture.denoiser(on), x, 8, solver="ddim", grid="uniform")
    assert first_orderness(before, on, normalised=True) > 1e-2
    assert float((solve(mixture.denoiser(on), x, 1, solver="ddim", grid="uniform").end - one.end).abs().max()) > 0.1


@pytest.mark.parametrize("name", FOUR)
def test_noise_that_is_sampled_anew_rectifies_nothing(name):
    """Slide 27 prints "sample eps" after it took the pair: then the optimum is the diffusion model itself."""
    on = schedule(name)
    times = torch.arange(1, 9) / 8
    times[-1] = 1 - 1e-9  # uniform numbers never give 1
    x0, eps = corners(0.7, 0.5)
    one = torch.ones(())
    noise = (on.alpha(one) * x0 + on.sigma(one) * eps) / on.sigma(one)  # such that the pair's eps is the one drawn anew
    problem = With(N1, on, "x0", lambda on, kind: Spline(on, kind, times))
    training = train(
        "rectified-diffusion", problem, problem.teacher, pairs=pairs_of(noise, x0), batch=32, loss="own-mse"
    )
    draws = Designed(uniforms=[uniforms_for(times).repeat_interleave(4)], indices=torch.arange(4))
    for _ in range(2):
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    x = normal(8, 1, seed=4)
    close(training.student(x, times).x0.detach(), N1.denoiser(on)(x, times).x0, 1e-10)


@pytest.mark.parametrize("loss", ["own-mse", "x0-huber"])
def test_the_losses_of_rectified_diffusion_written_out(loss):
    on = schedule("scaled-linear")
    problem = With(RING, on, "eps", lambda on, kind: Table(on, kind, 24, 2))
    pairs = pairs_of(normal(24, 2), normal(24, 2, seed=1))
    training = train("rectified-diffusion", problem, problem.teacher, pairs=pairs, batch=24, loss=loss)
    with torch.no_grad():
        training.student.values.copy_(normal(24, 2, seed=3))
    t = torch.linspace(0.01, 0.99, 24)
    found = training.turns[0].loss(0, Designed(uniforms=[uniforms_for(t)], indices=torch.arange(24))).detach()
    a1, s1 = on.alpha(torch.ones(())), on.sigma(torch.ones(()))
    eps = (s1 * pairs.noise - a1 * pairs.x0) / s1
    alpha, sigma, y = on.alpha(t)[:, None], on.sigma(t)[:, None], training.student.values.detach()
    gap = (alpha * pairs.x0 + sigma * eps - sigma * y) / alpha - pairs.x0
    close(training.student.inputs[0], alpha * pairs.x0 + sigma * eps, 1e-12)
    # the code's loss weighs the error in eps by NSR
    close(gap, sigma / alpha * (eps - y), 1e-11)
    close(found, ((y - eps) ** 2).mean() if loss == "own-mse" else (torch.sqrt(gap**2 + 1e-6) - 1e-3).mean(), 1e-11)


def test_an_unknown_loss_is_refused():
    problem = With(N1, schedule("vp"), "eps")
    with pytest.raises(ValueError, match=r"unknown loss of rectified diffusion 'own-mes'.*did you mean 'own-mse'"):
        train(
            "rectified-diffusion", problem, problem.teacher, pairs=pairs_of(normal(8, 1), normal(8, 1)), loss="own-mes"
        )


def reflowed(pairs, method, pieces):
    """The optimum of a method's loss over piecewise linear velocities in one dimension, as a student with a map at t =
    1 and at 1/2.
    """
    times, knots = (1.0, 0.5), torch.linspace(-2.2, 2.2, pieces + 1)
    problem = With(M1, Linear(), "velocity", lambda on, kind: Spline(on, kind, times, knots))
    training = train(method, problem, problem.teacher, pairs=pairs, batch=2 * len(pairs))
    draws = Designed(uniforms=[uniforms_for(times).repeat_interleave(len(pairs))], indices=torch.arange(len(pairs)))
    if method == "instaflow":
        draws = Designed(indices=torch.arange(len(pairs)))
    minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    return training.student


def test_one_reflow_is_exact_in_one_dimension():
    pairs = exact_pairs(M1, Linear(), ordered(800))
    noise = torch.linspace(-1.8, 1.8, 41)[:, None]
    exact = M1.flow(Linear(), noise, 1.0, 0.0)

    def error(student, steps):
        end = solve(student, noise, steps, solver="ddim", grid="uniform").end
        return float((end - exact).square().mean().sqrt())

    # what is left is that of a piecewise linear function
    fine, coarse = (reflowed(pairs, "rectified-flow", pieces) for pieces in (176, 44))
    for steps in (1, 2):
        assert error(fine, steps) < 0.003
        assert error(fine, steps) < error(coarse, steps) / 10
    assert error(reflowed(pairs, "instaflow", 176), 1) < 0.003
    # the negative control fails the same test, by far: shuffled pairs are flow matching, whose first step goes to the
    # mean
    control = reflowed(pairs.shuffled(), "rectified-flow", 44)
    assert error(control, 1) > 1
    assert error(control, 2) > 0.5
    assert error(M1.denoiser(Linear()), 1) > 1


def test_reflow_straightens():
    pairs = exact_pairs(M1, Linear(), ordered(200))
    x = pairs.noise
    before = straightness(solve(M1.denoiser(Linear()), x, 64, solver="ddim", grid="uniform"))
    after = straightness(solve(rectified(pairs, Linear(), "velocity"), x, 64, solver="ddim", grid="uniform"))
    assert before > 0.05
    assert after < 1e-20


def cost(pairs):
    return float((pairs.x0 - pairs.noise).square().sum(1).mean())


def test_no_reflow_costs_transport():
    independent = pairs_of(normal(2000, 1, seed=1), M1.sample(2000, 2, dtype=torch.float64))
    pairs = exact_pairs(M1, Linear(), ordered(500))
    assert cost(pairs) < 0.5 * cost(independent)
    # the second round's pairs are those of a rectified model: in one dimension they are the first's, and no coupling
    # costs less
    D = rectified(pairs, Linear(), "velocity")
    again = pairs_of(pairs.noise, solve(D, pairs.noise, 4, solver="ddim", grid="uniform").end)
    assert cost(again) == pytest.approx(cost(pairs), rel=1e-12)
    assert cost(pairs.shuffled()) > 1.5 * cost(pairs)
    # in the plane
    problem = With(RING, Linear(), "velocity")
    found = make_pairs(problem, problem.teacher, Recipe(n=1000, steps=20))
    assert cost(found) < 0.8 * cost(Pairs(normal(1000, 2, seed=9), found.x0, None, {}))


# ---- straight pieces of a schedule


EDGES = {
    "even": torch.linspace(0, 1, 5, dtype=torch.float64),
    "uneven": f64([0.0, 0.1, 0.35, 0.8, 1.0]),
    "one": f64([0.0, 1.0]),
}


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_levels_of_straight_pieces(name, edges):
    base = ALL_SCHEDULES[name]
    on = PiecewiseLinear(base, edges)
    close(on.alpha(edges), base.alpha(edges), 1e-15)
    close(on.sigma(edges), base.sigma(edges), 1e-15)
    assert torch.equal(on.alpha(edges) == 0, base.alpha(edges) == 0)
    t = torch.linspace(0, 1, 2001)
    assert bool((on.alpha(t).diff() <= 0).all())
    assert bool((on.sigma(t).diff() >= 0).all())
    assert bool((on.lam(t)[1:-1].diff() < 0).all())
    for low, high in itertools.pairwise(edges):
        w = f64([0.1, 0.25, 0.5, 0.9])
        s = low + w * (high - low)
        for level, rate, of in ((on.alpha, 0, base.alpha), (on.sigma, 1, base.sigma)):
            close(level(s), (1 - w) * of(low) + w * of(high), 1e-13)
            close(on.rates(s)[rate], ((of(high) - of(low)) / (high - low)).expand(4), 1e-12)
    inner = torch.linspace(0.001, 0.999, 997)
    assert float((on.t_of_lam(on.lam(inner)) - inner).abs().max()) < 1e-9
    lam = torch.linspace(-2.5, 8, 101)
    assert float((on.lam(on.t_of_lam(lam)) - lam).abs().max()) < 1e-9
    assert torch.equal(on.t_of_lam(on.lam(f64([0.0, 1.0]))).round(decimals=12), f64([0.0, 1.0]))
    assert torch.equal(
        on.t_of_lam(f64([math.inf, -math.inf, -60.0, 80.0])).round(decimals=9), f64([0.0, 1.0, 1.0, 0.0])
    )
    assert on.alpha(t.float()).dtype == on.t_of_lam(lam.float()).dtype == torch.float32
    assert float((on.t_of_lam(on.lam(inner.float())) - inner.float()).abs().max()) < 1e-3


def test_straight_pieces_of_a_straight_schedule_are_itself():
    t = torch.linspace(0, 1, 101)
    for edges in EDGES.values():
        on = PiecewiseLinear(Linear(), edges)
        close(on.alpha(t), 1 - t, 1e-15)
        close(on.sigma(t), t, 1e-15)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_perflow_is_first_order_on_straight_pieces(name):
    """PeRFlow's path, velocity, "ddim_eps" and the end of a window as its paper has them (methods G4), from the base
    schedule alone.
    """
    base, M = ALL_SCHEDULES[name], 4
    on = PiecewiseLinear(base, torch.linspace(0, 1, M + 1))
    high = (1 + torch.arange(8) % M) / M
    low = high - 1 / M
    x_high, x_low = normal(8, 2, seed=1), normal(8, 2, seed=2)
    p = chord(on, x_high, high, x_low, low)
    t = high - f64([0.05, 0.3, 0.5, 0.7, 0.95, 0.4, 0.6, 0.2]) / M
    column = lambda value: value[:, None]  # noqa: E731
    x_t = x_high + column((t - high) / (low - high)) * (x_low - x_high)
    velocity = (x_low - x_high) / column(low - high)
    close(jump(p, t), x_t, 1e-12)
    a, b = row("velocity", on, t)
    close(column(a) * p.x0 + column(b) * p.eps, velocity, 1e-11)
    a_low, s_low, a_high, s_high = (column(level(s)) for s in (low, high) for level in (base.alpha, base.sigma))
    # multiplied by alpha_high, which is 0 at the noisy end of some
    eps = (a_high * x_low - a_low * x_high) / (a_high * s_low - a_low * s_high)
    close(p.eps, eps, 1e-11)
    # where the model's eps takes x_t: to the window's end
    upper, lower = column(low - high), column(low - t)
    end = (a_low * upper * x_t + (a_high * s_low - a_low * s_high) * lower * eps) / (
        a_low * column(t - high) + a_high * lower
    )
    close(end, x_low, 1e-11)
    close(jump(Prediction.of("velocity", velocity, x_t, t, on), low), x_low, 1e-10)
    if not bool((on.alpha(t) == 0).any()):
        close(jump(Prediction.of("eps", eps, x_t, t, on), low), x_low, 1e-9)
    close((jump(Prediction.of("velocity", velocity, x_t, t, on), low) - x_t) / lower, velocity, 1e-10)


# ---- windows


@pytest.mark.parametrize(("M", "K"), [(1, 4), (3, 1), (4, 5)])
@pytest.mark.parametrize("straight", [False, True], ids=["base", "straight"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_chord_of_a_window(name, straight, M, K):
    on, n = schedule(name), 12
    x0, eps = M1.sample(n, 1, dtype=torch.float64), normal(n, 1, seed=2)
    problem = With(M1, on, KIND_AT_NOISE[name], data=x0)
    path = PiecewiseLinear(on, torch.linspace(0, 1, M + 1)) if straight else on
    draws = Designed(normals=eps, indices=torch.arange(M))
    data, cond = batch_of(problem, n, draws)
    assert torch.equal(data, x0)
    assert cond is None
    x_top, high, x_low, low = window_ends(problem.teacher, M, K, data, cond, draws)
    p = chord(path, x_top, high, x_low, low)
    m = torch.arange(n) % M
    close(high, (m + 1) / M, 1e-15)
    close(low, m / M, 1e-15)
    x_high = on.alpha(high)[:, None] * x0 + on.sigma(high)[:, None] * eps
    close(x_top, x_high, 1e-15)
    close(jump(p, high), x_high, 1e-12)
    close(x_low, walk(problem.teacher, x_high, [high + (low - high) * k / K for k in range(K)] + [low]), 1e-11)
    # from any point of the path, by its eps alone, to the window's lower end
    # eps = dz/dNSR, both multiplied by alpha_high, which may be 0
    a_high, a_low, s_high, s_low = (f(t)[:, None] for f in (path.alpha, path.sigma) for t in (high, low))
    close(p.eps, (x_high - a_high * x_low / a_low) / (s_high - a_high * s_low / a_low), 1e-11)
    for fraction in (1e-3, 0.3, 0.5, 0.99):
        t = high - fraction * (high - low)
        z = jump(p, t) / path.alpha(t)[:, None] + (path.nsr(low) - path.nsr(t))[:, None] * p.eps
        close(path.alpha(low)[:, None] * z, x_low, 1e-10)


def perfect_windows(D, on, M, K):
    """On N1 a window's K steps are affine: the student that has the chord of every path through them. on: the student's
    schedule.
    """
    predictions = []
    for m in range(M):
        high, low = f64((m + 1) / M), f64(m / M)
        x_high = f64([[0.0], [1.0]])
        x_low = walk(D, x_high, torch.linspace(float(high), float(low), K + 1))
        levels = torch.stack([torch.stack([D.schedule.alpha(t), D.schedule.sigma(t)]) for t in (high, low)])
        predictions.append(torch.linalg.solve(levels, torch.stack([x_high[:, 0], x_low[:, 0]])))
    x0, eps = torch.stack(predictions).unbind(1)
    return FirstOrder(on, D.kind, x0, eps)


METHOD_ON = {"perflow": True, "rectified-diffusion-phased": False}


@pytest.mark.parametrize("method", METHOD_ON)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_perfect_student_of_windows(name, method):
    base, M, K = schedule(name), 4, 6
    made = []

    def student(on, kind):
        made.append(Known(perfect_windows(N1.denoiser(base, kind), on, M, K), kind))
        return made[0]

    problem = With(N1, base, KIND_AT_NOISE[name], student)
    training = train(method, problem, problem.teacher, batch=64, windows=M, substeps=K, edge=0.0)
    assert isinstance(training.student.schedule, PiecewiseLinear) == METHOD_ON[method]
    assert (training.steps, training.teacher_calls) == ((M,), K * 64)
    here, slope, beside = at_and_beside(training.turns[0], training.student, lambda: Draws(4))
    assert abs(here) < 1e-18
    assert abs(slope) < 1e-7
    assert beside > 1e-4
    # as many steps as windows give the teacher's edges, and so do twice as many
    with torch.no_grad():
        made[0].shift.zero_()
    x = at_noise(base, normal(16, 1, seed=5))
    teacher = solve(problem.teacher, x, M * K, solver="ddim", grid="uniform")
    for steps in (M, 2 * M):
        path = solve(made[0], x, steps, solver="ddim", grid="uniform")
        close(path.xs[:: steps // M], teacher.xs[::K], 1e-10)
    # the student of other windows is another one
    assert float((solve(made[0], x, 3, solver="ddim", grid="uniform").end - teacher.end).abs().max()) > 1e-4


@pytest.mark.parametrize("name", SCHEDULES)
def test_perflow_learns_the_windows(name):
    base, M, K = schedule(name), 4, 6
    times = torch.arange(1, 2 * M + 1) / (2 * M)
    problem = With(N1, base, KIND_AT_NOISE[name], lambda on, kind: Spline(on, kind, times))
    training = train("perflow", problem, problem.teacher, batch=80, windows=M, substeps=K, edge=0.0)
    # in every window its upper edge and its middle
    for k in range(2):
        draws = Designed(uniforms=[f64([0.0] * M + [0.5] * M)], indices=torch.arange(M), seed=k)
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    x = at_noise(base, normal(16, 1, seed=5))
    teacher = solve(problem.teacher, x, M * K, solver="ddim", grid="uniform")
    for steps in (M, 2 * M):
        path = solve(training.student, x, steps, solver="ddim", grid="uniform")
        close(path.xs[:: steps // M], teacher.xs[::K], 1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_phased_loss_written_out(name):
    """alpha_low [x_t/alpha_t + (NSR_low - NSR_t) eps] against x_low, element by element (methods G6)."""
    on, M, K, n = schedule(name), 2, 3, 24
    x0, eps = RING.sample(n, 1, dtype=torch.float64), normal(n, 2, seed=2)
    problem = With(RING, on, KIND_AT_NOISE[name], lambda on, kind: Table(on, "eps", n, 2), data=x0)
    training = train("rectified-diffusion-phased", problem, problem.teacher, batch=n, windows=M, substeps=K, edge=0.0)
    with torch.no_grad():
        training.student.values.copy_(normal(n, 2, seed=3))
    fraction = torch.linspace(0.02, 0.98, n)
    draws = Designed(normals=eps, indices=torch.arange(M), uniforms=[fraction])
    found = training.turns[0].loss(0, draws).detach()
    high, low = (torch.arange(n) % M + 1) / M, (torch.arange(n) % M) / M
    t = high - fraction * (high - low)
    x_high = on.mix(x0, eps, high)
    x_low = walk(problem.teacher, x_high, [high + (low - high) * k / K for k in range(K)] + [low])
    x_t, y = training.student.inputs[0], training.student.values.detach()
    close(x_t, jump(chord(on, x_high, high, x_low, low), t), 1e-12)
    close(training.student.inputs[1], t, 1e-15)
    end = on.alpha(low)[:, None] * (x_t / on.alpha(t)[:, None] + (on.nsr(low) - on.nsr(t))[:, None] * y)
    close(found, (torch.sqrt((end - x_low) ** 2 + 1e-6) - 1e-3).mean(), 1e-9)


def test_perflow_bends_where_first_order_does_not():
    """The middles of a window's two paths between the same ends, on N1 (methods G4: 0.01 to 0.16 apart on VP)."""
    for name in ("vp", "linear"):
        base, M, K = schedule(name), 4, 10
        D, straight = N1.denoiser(base), PiecewiseLinear(base, torch.linspace(0, 1, M + 1))
        gaps = []
        for m in range(M):
            high, low = f64((m + 1) / M), f64(m / M)
            x = N1.marginal(base, high).sample(200, m, dtype=torch.float64)
            x_low = walk(D, x, torch.linspace(float(high), float(low), K + 1))
            middle = (high + low) / 2
            gap = jump(chord(straight, x, high, x_low, low), middle) - jump(chord(base, x, high, x_low, low), middle)
            gaps.append(float(gap.square().mean().sqrt()))
        if name == "linear":
            assert max(gaps) < 1e-13
        else:
            assert min(gaps) > 5e-3
            assert 0.01 < max(gaps) < 0.16


@pytest.mark.parametrize("loss", [perflow_loss, rectified_diffusion_phased_loss])
@pytest.mark.parametrize("edge", [0.0, 0.25, 1.0])
def test_a_fraction_of_the_batch_is_at_its_windows_upper_edge(edge, loss):
    n, on = 4000, Linear()
    student, draws = Table(on, "velocity", n, 1), Designed(indices=torch.arange(4))
    loss(student, N1.denoiser(on, "velocity"), 4, 1, N1.sample(n, 0, dtype=torch.float64), None, draws, edge)
    m, t = torch.arange(n) % 4, student.inputs[1]
    low, high = m / 4, (m + 1) / 4
    assert bool(((t > low) & (t <= high)).all())
    assert float((t == high).double().mean()) == pytest.approx(edge, abs=0.03)
    inside = ((high - t) * 4)[t < high]
    if edge < 1:
        assert float(inside.mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("method", METHOD_ON)
def test_guidance_in_windows_is_the_teachers(method):
    on, M, K, n = schedule("vp"), 2, 3, 16
    problem = With(RING, on, "eps", lambda on, kind: Table(on, kind, n, 2), conditional=True)
    training = train(method, problem, problem.teacher, batch=n, windows=M, substeps=K, guidance_scale=3.0)
    assert training.teacher_calls == 2 * K * n
    draws = Designed(
        indices=torch.arange(M), uniforms=[torch.zeros(n)]
    )  # at the upper edge, x_t is the noised data itself
    turn, student = training.turns[0], training.student
    turn.loss(0, draws)
    x, high, cond, _ = student.inputs
    low, D = high - 1 / M, Guided(problem.teacher, 3.0)
    x_low = walk(D, x, [high + (low - high) * k / K for k in range(K)] + [low], cond)
    with torch.no_grad():
        student.values.copy_(chord(on, x, high, x_low, low).eps)
    found = []
    for _ in range(2):
        draws = Designed(indices=torch.arange(M), uniforms=[torch.zeros(n)])
        found.append(float(turn.loss(0, draws).detach()))
        with torch.no_grad():
            student.values += 0.1
    assert abs(found[0]) < 1e-16
    assert found[1] > 1e-3
    # without classes in the problem there is nothing to guide towards
    problem = With(RING, on, "eps")
    with pytest.raises(ValueError, match="guidance_scale = 3 needs a condition"):
        train(method, problem, problem.teacher, batch=n, guidance_scale=3.0).turns[0].loss(0, Draws())


@pytest.mark.parametrize("method", METHOD_ON)
@pytest.mark.parametrize("knob", ["windows", "substeps"])
def test_windows_and_substeps_are_counts(method, knob):
    problem = With(N1, schedule("vp"), "eps")
    for value in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"{knob} must be a whole number >= 1"):
            train(method, problem, problem.teacher, **{knob: value})


@pytest.mark.parametrize("method", ["rectified-flow", "rectified-diffusion"])
@pytest.mark.parametrize("edge", [0.0, 0.3])
def test_a_fraction_of_the_batch_is_at_noise(method, edge):
    """The rest stays uniform below, and without a fraction the times are those of before."""
    n = 20_000
    t = uniform_times(n, Draws(0), edge)
    assert float((t == 1).double().mean()) == pytest.approx(edge, abs=0.02)
    below = t[t < 1]
    assert float(below.double().mean()) == pytest.approx(0.5, abs=0.01)
    assert bool((t >= LEAST).all())
    if edge == 0:
        assert torch.equal(t, Draws(0).uniform(n, LEAST, 1.0))
    assert METHODS[method].knobs().edge == 0  # the papers have none
    problem, pairs = With(N1, Linear(), "velocity"), pairs_of(normal(8, 1), normal(8, 1))
    with pytest.raises(ValueError, match="edge must leave some of the batch below t = 1"):
        train(method, problem, problem.teacher, pairs=pairs, edge=1.0)
    with pytest.raises(ValueError, match="edge, a fraction, must lie in"):
        train(method, problem, problem.teacher, pairs=pairs, edge=-0.1)
