"""Methods that are one regression, through their own losses: diffusion, flow matching, naive, guided and progressive
distillation; and every card.
"""

import dataclasses

import pytest
import torch
from cases import ALL_SCHEDULES, M1, N1, R2, RING, close, derivative, f64, normal
from students import (
    ANYWHERE,
    LEAST,
    Designed,
    Small,
    Spline,
    Table,
    With,
    corners,
    ddim,
    minimise,
    pairs_of,
    train,
    uniforms_for,
    walk,
)

from toydiff import (
    KINDS,
    SCHEDULES,
    Denoiser,
    GaussianMixture,
    Guided,
    Linear,
    NetDenoiser,
    Prediction,
    jump,
    runs,
    schedule,
    solve,
)
from toydiff.catalog import METHODS
from toydiff.denoisers import NO_CLASS, LambdaDenoiser, Wrapper
from toydiff.distill.diffusion import diffusion_loss
from toydiff.distill.flow_matching import flow_matching_loss
from toydiff.distill.progressive import stages
from toydiff.distill.rectified_diffusion import own_mse
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.training import Draws, State, fit

LABELLED = GaussianMixture([[-1.2], [0.4], [1.5]], std=[0.3, 0.2, 0.4], labels=[0, 0, 1])
PLAIN = GaussianMixture(normal(3, 2, seed=5).tolist(), std=0.3)
FIVE = GaussianMixture(normal(3, 5, seed=4).tolist(), std=0.4)
FIVE_LABELLED = GaussianMixture(normal(3, 5, seed=4).tolist(), std=0.4, labels=[0, 1, 1])
NOISELESS_END = ["cosine", "linear"]  # alpha(1) = 0
KIND_AT_NOISE = {name: "v" if name in NOISELESS_END else "eps" for name in SCHEDULES}
"""A kind that can be used at t = 1, for each schedule."""


pytestmark = pytest.mark.usefixtures("float64")


def start_for(problem, on, kind):
    """A student's weights that are no special ones: a fresh network answers 0."""
    D = problem.student(on, kind)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in D.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=rng))
    return D


def loss_and_slope(training, draws):
    turn = training.turns[0]
    loss = turn.loss(0, draws)
    return loss, torch.autograd.grad(loss, turn.params, allow_unused=True)


def same_bits(a, b):
    assert torch.equal(a[0], b[0])
    assert bool(a[0] > 0)
    for left, right in zip(a[1], b[1], strict=True):
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)


# ---- four algorithms, one regression


@pytest.mark.parametrize("mixture", [PLAIN, RING], ids=["plain", "labels"])
def test_flow_matching_is_diffusion_on_the_linear_schedule_in_velocity(mixture):
    problem = With(mixture, schedule("vp"), "eps")
    start = start_for(problem, Linear(), "velocity")
    a = train("flow-matching", problem, start=start, batch=64)
    b = train("diffusion", problem, start=start, batch=64, schedule="linear", kind="velocity")
    same_bits(loss_and_slope(a, Draws(5)), loss_and_slope(b, Draws(5)))
    assert not torch.equal(a.turns[0].loss(0, Draws(5)), a.turns[0].loss(0, Draws(6)))


def test_reflow_is_flow_matching_with_pairs():
    # the same (x_0, eps) row by row, once as data and noise, once as pairs
    x0, eps, t = normal(32, 2, seed=1), normal(32, 2, seed=2), torch.linspace(0, 0.99, 32)
    problem = With(R2, schedule("vp"), "eps", data=x0)
    start = start_for(problem, Linear(), "velocity")
    a = train("flow-matching", problem, start=start, batch=32)
    b = train("rectified-flow", problem, teacher=problem.teacher, pairs=pairs_of(eps, x0), start=start, batch=32)
    same_bits(
        loss_and_slope(a, Designed(normals=eps, uniforms=[t])),
        loss_and_slope(b, Designed(uniforms=[t], indices=torch.arange(32))),
    )


def test_rectified_diffusion_is_reflow_on_the_linear_schedule_in_velocity():
    problem = With(R2, Linear(), "velocity")
    pairs = make_pairs(problem, problem.teacher, Recipe(n=100, solver="ddim", steps=4))
    start = start_for(problem, Linear(), "velocity")
    settings = {"teacher": problem.teacher, "pairs": pairs, "start": start, "batch": 64}
    a = train("rectified-flow", problem, **settings)
    b = train("rectified-diffusion", problem, loss="own-mse", **settings)
    same_bits(loss_and_slope(a, Draws(5)), loss_and_slope(b, Draws(5)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_rectified_diffusion_is_diffusion_with_pairs(name):
    on, kind = schedule(name), KIND_AT_NOISE[name]
    x0, eps, t = normal(32, 2, seed=1), normal(32, 2, seed=2), torch.linspace(0.01, 0.99, 32)
    problem = With(R2, on, kind, data=x0)
    start = start_for(problem, on, kind)
    one = torch.ones(())
    # the pair's noise says where its path starts: at alpha x_0 + sigma eps for these x_0 and eps
    pairs = pairs_of(on.mix(x0, eps, one) / on.sigma(one), x0)
    a = train("diffusion", problem, start=start, schedule=name, kind=kind, batch=32)
    b = train(
        "rectified-diffusion", problem, teacher=problem.teacher, pairs=pairs, start=start, loss="own-mse", batch=32
    )
    (left, _), (right, _) = (
        loss_and_slope(a, Designed(normals=eps, uniforms=[t])),
        loss_and_slope(b, Designed(uniforms=[t], indices=torch.arange(32))),
    )
    close(left.detach(), right.detach(), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_diffusion_written_out(name, kind):
    """The loss of Algorithm 2, from the schedule's two levels and the definition of each kind alone."""
    on = schedule(name)
    problem = With(R2, on, kind, lambda on, kind: Table(on, kind, 24, 2))
    x0, eps, u = (
        normal(24, 2, seed=1),
        normal(24, 2, seed=2),
        torch.rand(24, generator=torch.Generator().manual_seed(1)),
    )
    problem.given = x0
    training = train("diffusion", problem, schedule=name, kind=kind, batch=24)
    with torch.no_grad():
        training.student.values.copy_(normal(24, 2, seed=3))
    loss = training.turns[0].loss(0, Designed(normals=eps, uniforms=[u]))
    t = LEAST + (1 - LEAST) * u
    alpha, sigma = on.alpha(t)[:, None], on.sigma(t)[:, None]
    da, ds = (rate[:, None] for rate in on.rates(t))
    S = torch.sqrt(alpha**2 + sigma**2)
    target = {
        "x0": x0,
        "eps": eps,
        "v": alpha * eps - sigma * x0,
        "score": -eps / sigma,
        "velocity": da * x0 + ds * eps,
        "preconditioned": (x0 - alpha / S**2 * (alpha * x0 + sigma * eps)) / (sigma / S),
    }[kind]
    close(training.student.inputs[0], alpha * x0 + sigma * eps, 1e-14)
    close(training.student.inputs[1], t, 0.0)
    close(loss.detach(), ((training.student.values.detach() - target) ** 2).mean(), 1e-8)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_kinds_are_weights_of_one_loss(name):
    on, t = ALL_SCHEDULES[name], f64([0.2345, 0.4565, 0.6785, 0.9015])  # clear of the tables' kinks
    x0, eps = normal(4, 3, seed=1), normal(4, 3, seed=2)
    x = on.mix(x0, eps, t)
    true, found = Prediction.exact(x0, eps, t, on), Prediction.of("x0", normal(4, 3, seed=3), x, t, on)
    loss = {kind: own_mse(found, true, kind) for kind in KINDS}
    alpha, sigma = on.alpha(t), on.sigma(t)
    slope = derivative(on.lam, t, 1e-5)
    close(loss["eps"] / ((alpha / sigma) ** 2 * loss["x0"]), torch.ones(4), 1e-10)
    close(loss["velocity"] / ((sigma * slope) ** 2 * loss["eps"]), torch.ones(4), 1e-6)
    close(loss["velocity"] / ((alpha * slope) ** 2 * loss["x0"]), torch.ones(4), 1e-6)
    close(loss["score"] * sigma**2 / loss["eps"], torch.ones(4), 1e-10)
    close(loss["v"] / ((alpha**2 + sigma**2) ** 2 / sigma**2 * loss["x0"]), torch.ones(4), 1e-10)
    if name == "linear":
        close(loss["velocity"] * (1 - t) ** 2 / loss["eps"], torch.ones(4), 1e-10)
        close(loss["velocity"] * t**2 / loss["x0"], torch.ones(4), 1e-10)


# ---- diffusion and flow matching


TIMES = (0.05, 0.3, 0.5, 0.8, 0.97)


def gaussian_eps(on, x, t):
    """eps*(x, t) of N1, methods 2.1."""
    alpha, sigma = on.alpha(t)[:, None], on.sigma(t)[:, None]
    return sigma * (x - alpha * 0.7) / (alpha**2 * 0.25 + sigma**2)


def fitted_on_corners(method, problem, times, **knobs):
    """The student of diffusion or flow matching at the optimum over affine maps, one a time."""
    x0, eps = corners(0.7, 0.5)
    problem.given = x0
    training = train(method, problem, batch=4 * len(times), **knobs)
    draws = Designed(normals=eps, uniforms=[uniforms_for(times).repeat_interleave(4)])
    for _ in range(2):
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    return training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_diffusion_learns_the_exact_denoiser(name, kind):
    problem = With(N1, schedule("vp"), "eps", lambda on, kind: Spline(on, kind, TIMES))
    student = fitted_on_corners("diffusion", problem, TIMES, schedule=name, kind=kind).student
    assert (student.schedule.name, student.kind) == (name, kind)
    x, t = f64([[-1.0], [0.2], [0.9], [2.0], [3.0]]), f64(TIMES)
    close(student(x, t).eps.detach(), gaussian_eps(student.schedule, x, t), 1e-9)


def test_flow_matching_learns_the_exact_velocity():
    problem = With(N1, schedule("vp"), "eps", lambda on, kind: Spline(on, kind, TIMES))
    student = fitted_on_corners("flow-matching", problem, TIMES).student
    x, t = f64([[-1.0], [0.2], [0.9], [2.0], [3.0]]), f64(TIMES)
    eps = gaussian_eps(Linear(), x, t)
    x0 = (x - t[:, None] * eps) / (1 - t[:, None])
    close(student(x, t).read("velocity").detach(), eps - x0, 1e-10)


@pytest.mark.parametrize("kind", ["eps", "score"])
@pytest.mark.parametrize("name", NOISELESS_END)
def test_pure_noise_is_refused_by_kinds_that_say_nothing_there(name, kind):
    on = schedule(name)
    pairs = pairs_of(normal(8, 2), normal(8, 2, seed=1))
    problem = With(R2, on, kind)
    student = train("diffusion", problem, schedule=name, kind=kind, batch=8).student
    with pytest.raises(ValueError, match=rf"kind '{kind}' cannot be used where alpha = 0"):
        solve(student, normal(4, 2), 4, solver="ddim", grid="uniform")
    for method in ("naive", "progressive"):
        training = train(
            method,
            problem,
            teacher=problem.teacher,
            batch=8,
            **({"pairs": pairs} if method == "naive" else {"first": 1}),
        )
        with pytest.raises(ValueError, match=rf"kind '{kind}' cannot be used where alpha = 0"):
            training.turns[0].loss(0, Draws())


@pytest.mark.parametrize("loss", [diffusion_loss, flow_matching_loss])
def test_labels_are_dropped_in_the_fraction_that_is_requested(loss):
    cond, student = torch.arange(20_000) % 3, Table(Linear(), "velocity", 20_000, 1)

    def given(cond, drop):
        loss(student, torch.zeros(20_000, 1), cond, Draws(), drop)
        return student.inputs[2]

    assert torch.equal(given(cond, 0.0), cond)
    assert bool((given(cond, 1.0) == NO_CLASS).all())
    some = given(cond, 0.1)
    dropped = some == NO_CLASS
    assert torch.equal(some[~dropped], cond[~dropped])
    assert abs(float(dropped.double().mean()) - 0.1) < 5 * (0.1 * 0.9 / 20_000) ** 0.5
    assert given(None, 0.1) is None
    assert torch.equal(given(cond, None), cond)


@pytest.mark.parametrize("method", ["diffusion", "flow-matching"])
def test_labels_belong_to_their_points(method):
    # in this mixture the label is the sign
    signs = GaussianMixture([[-4.0], [4.0]], std=0.1, labels=[0, 1])
    problem = With(signs, Linear(), "velocity", lambda on, kind: Table(on, kind, 64, 1))
    training = train(method, problem, batch=64, drop=0.0)
    training.turns[0].loss(0, Designed(uniforms=[torch.zeros(64)]))  # hardly any noise
    x, _, cond, _ = training.student.inputs
    assert torch.equal(cond, (x[:, 0] > 0).long())
    assert 0 < int(cond.sum()) < 64


# ---- naive distillation


@pytest.mark.parametrize("name", SCHEDULES)
def test_naive_distillation_is_the_whole_path_in_one_step(name):
    on, kind = schedule(name), KIND_AT_NOISE[name]
    problem = With(N1, on, kind, lambda on, kind: Spline(on, kind, [1.0]))
    pairs = make_pairs(problem, problem.teacher, Recipe(n=64, solver="ddim", grid="uniform", steps=8))
    training = train("naive", problem, teacher=problem.teacher, pairs=pairs, batch=64)
    for _ in range(2):
        minimise(training.turns[0].loss(0, Draws(1)), training.turns[0].params)
    x = on.sigma(torch.ones(())) * normal(16, 1, seed=7)
    expected = walk(problem.teacher, x, torch.linspace(1, 0, 9))
    close(solve(training.student, x, 1, solver="ddim", grid="uniform").end, expected, 1e-10)
    # eight steps are not the exact ODE, and it is they that are learnt
    assert float((expected - N1.flow(on, x, 1.0, 0.0)).abs().max()) > 1e-3


@pytest.mark.parametrize("method", ["naive", "instaflow"])
def test_only_the_noisy_end_is_trained(method):
    problem = With(N1, Linear(), "velocity", lambda on, kind: Spline(on, kind, [1.0, 0.75, 0.5, 0.25]))
    pairs = pairs_of(normal(64, 1), normal(64, 1, seed=1))
    training = train(method, problem, teacher=problem.teacher, pairs=pairs, batch=64)
    slope = torch.autograd.grad(training.turns[0].loss(0, Draws()), training.student.values)[0]
    assert bool((slope[0] != 0).all())
    assert bool((slope[1:] == 0).all())


def test_a_student_begins_as_its_teacher():
    problem = With(RING, schedule("vp"), "eps")
    teacher = start_for(problem, schedule("vp"), "v")
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    x, t = normal(8, 2), torch.linspace(0.1, 1, 8)
    pairs = pairs_of(normal(8, 2), normal(8, 2, seed=1))
    settings = {"naive": {"pairs": pairs}, "progressive": {}, "rectified-diffusion": {"pairs": pairs}, "guided": {}}
    settings["rectified-diffusion-phased"] = {}
    for method, given in settings.items():
        training = train(method, problem, teacher=teacher, **given)
        for D in (training.student, training.average.module):
            assert (D.kind, repr(D.schedule)) == ("v", repr(teacher.schedule))
            assert torch.equal(D(x, t).x0, teacher(x, t).x0)
        with torch.no_grad():
            for p in training.student.parameters():
                p += 1
        assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    # the guidance scale is an input that does nothing yet
    student = train("guided", problem, teacher=teacher).student
    cond = torch.arange(8)
    for g in (1.0, 3.0):
        assert torch.equal(student(x, t, cond, g).x0, teacher(x, t, cond).x0)


# ---- guided distillation


@pytest.mark.parametrize("mixture", [LABELLED, RING, FIVE_LABELLED], ids=["1d", "2d", "5d"])
def test_the_target_of_guided_distillation_is_the_guided_teacher(mixture):
    on, d = schedule("vp"), mixture.dim
    problem = With(mixture, on, "eps", lambda on, kind: Table(on, "x0", 12, d))
    training = train("guided", problem, teacher=problem.teacher, batch=12, g_min=1.0, g_max=5.0)
    # scales 1, 2 and 4 at four times each
    uniforms = [torch.linspace(0.02, 0.98, 12), f64([0.0, 0.25, 0.75])]
    minimise(training.turns[0].loss(0, Designed(uniforms=uniforms)), training.turns[0].params)
    x, t, cond, g = training.student.inputs
    assert torch.equal(g, f64([1.0, 2.0, 4.0] * 4))
    target = training.student.values.detach()
    for i in range(12):
        one = slice(i, i + 1)
        exact = Guided(problem.teacher, float(g[i]))(x[one], t[one], cond[one]).x0
        close(target[one], exact, 1e-11)
        close(problem.teacher(x[one], t[one], cond[one], g[one]).x0, exact, 1e-13)
    plain = g == 1
    close(target[plain], problem.teacher(x[plain], t[plain], cond[plain]).x0, 1e-11)
    assert float((target - problem.teacher(x, t, cond).x0)[~plain].abs().max()) > 1e-2
    # an error of 0.1 in x_0 costs 0.01 max(SNR, 1)
    with torch.no_grad():
        training.student.values += 0.1
    weight = ((on.alpha(t) / on.sigma(t)) ** 2).clamp(min=1)
    assert float(weight.max()) > 10
    assert float(weight.min()) == 1
    close(training.turns[0].loss(0, Designed(uniforms=uniforms)).detach(), 0.01 * weight.mean(), 1e-9)


def test_guided_distillation_refuses_what_it_cannot_do():
    problem = With(RING, schedule("vp"), "eps")
    for settings, message in (
        ({"g_min": 2.0, "g_max": 2.0}, "g_min must be below g_max, got 2 and 2"),
        ({"g_min": 0.0}, "g_min must be a finite number > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            train("guided", problem, teacher=problem.teacher, **settings)
    plain = With(PLAIN, schedule("vp"), "eps")
    with pytest.raises(ValueError, match="needs classes to guide towards, and test has none"):
        train("guided", plain, teacher=plain.teacher)


def test_guided_distillation_without_guidance_draws_no_labels():
    """Of a problem that is sampled without them: a teacher may not know any."""

    class Unlabelled(Wrapper):
        def forward(self, x, t, cond=None, guidance_scale=1.0):
            assert cond is None
            assert guidance_scale == 1.0
            return self.denoiser(x, t)

    on = schedule("vp")
    problem = With(RING, on, "eps", lambda on, kind: Table(on, "x0", 8, 2))
    training = train("guided", problem, teacher=Unlabelled(problem.teacher), batch=8, g_min=1.0, g_max=1.0)
    assert training.teacher_calls == 8
    minimise(training.turns[0].loss(0, Designed(uniforms=[torch.linspace(0.02, 0.98, 8)])), training.turns[0].params)
    x, t, cond, g = training.student.inputs
    assert cond is None
    assert g is None  # off
    close(training.student.values.detach(), problem.teacher(x, t).x0, 1e-11)


# ---- progressive distillation


@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_progressive_target_lands_on_the_teachers_grid(name, N):
    on, n = schedule(name), 4 * N
    problem = With(M1, on, KIND_AT_NOISE[name], lambda on, kind: Table(on, "x0", n, 1))
    training = train("progressive", problem, teacher=problem.teacher, batch=n, first=N, last=N)
    minimise(training.turns[0].loss(0, Designed(indices=torch.arange(N))), training.turns[0].params)
    target = training.student.values.detach()
    x, t = training.student.inputs[:2]
    close(t * N, (t * N).round(), 1e-12)
    assert len(t.unique()) == N
    middle, s = t - 0.5 / N, t - 1 / N
    s = torch.where(s.abs() < 1e-12, 0.0, s)
    lands = ddim(problem.teacher, ddim(problem.teacher, x, t, middle), middle, s)
    close(jump(Prediction.of("x0", target, x, t, on), s), lands, 1e-12)
    first = s == 0
    assert int(first.sum()) == 4
    close(target[first], lands[first], 1e-12)  # there the target is the state itself
    if N > 1:  # methods D3, where alpha > 0: in z = x/alpha the target is z_t - n_t (z_s - z_t)/(n_s - n_t)
        some = t < 1
        z_t, z_s = x[some] / on.alpha(t[some])[:, None], lands[some] / on.alpha(s[some])[:, None]
        n_t, n_s = on.nsr(t[some])[:, None], on.nsr(s[some])[:, None]
        close(target[some], z_t - n_t * (z_s - z_t) / (n_s - n_t), 1e-11)
    # one teacher step of twice the length goes elsewhere
    assert float((ddim(problem.teacher, x, t, s) - lands).abs().max()) > 1e-3


@pytest.mark.parametrize("name", SCHEDULES)
def test_progressive_students_repeat_the_first_teacher_at_every_stage(name):
    """Methods 2.4: on N1 everything is affine, so that the student of every stage is the first teacher's DDIM in twice
    `first` steps.
    """
    on, first = schedule(name), 8
    problem = With(N1, on, KIND_AT_NOISE[name], lambda on, kind: Spline(on, kind, torch.arange(1, first + 1) / first))
    plan = stages(first, 1)
    training = train(
        "progressive", problem, teacher=problem.teacher, batch=128, first=first, last=1, updates=3 * len(plan), ema=0.0
    )
    assert (plan, training.period, training.steps) == ([8, 4, 2, 1], 3, (1,))
    turn, draws, student = training.turns[0], Draws(0), training.student
    x = on.sigma(torch.ones(())) * normal(16, 1, seed=7)
    teacher = solve(problem.teacher, x, 2 * first, solver="ddim", grid="uniform")
    for stage, N in enumerate(plan):
        for k in range(3):
            minimise(turn.loss(3 * stage + k, draws), turn.params)
            training.average.follow()
        path = solve(student, x, N, solver="ddim", grid="uniform")
        close(path.xs, teacher.xs[:: 2 * first // N], 1e-10)
    assert float((teacher.end - N1.flow(on, x, 1.0, 0.0)).abs().max()) > 1e-3


def test_a_stage_ends_with_the_average_as_student_and_teacher():
    problem = With(N1, schedule("cosine"), "v", lambda on, kind: Spline(on, kind, [0.5, 1.0]))
    training = train("progressive", problem, teacher=problem.teacher, batch=8, first=2, last=1, updates=4)
    student, average, frozen = training.student, training.average.module, training.modules["teacher"].module
    turn, draws = training.turns[0], Draws(0)
    turn.loss(0, draws)
    turn.loss(1, draws)
    assert bool((frozen.values == 0).all())
    with torch.no_grad():
        student.values.fill_(5.0)
        average.values.fill_(2.0)
        training.average.n_averaged.fill_(7)
    turn.loss(2, draws)
    for D in (student, average, frozen):
        assert bool((D.values == 2).all())
    assert int(training.average.n_averaged) == 0
    with torch.no_grad():
        student.values.fill_(5.0)
    turn.loss(3, draws)  # within a stage nothing is promoted
    assert bool((student.values == 5).all())
    assert bool((frozen.values == 2).all())


def test_guidance_is_in_the_first_teacher():
    on = schedule("vp")
    problem = With(RING, on, "eps", lambda on, kind: Table(on, "x0", 16, 2), conditional=True)
    training = train("progressive", problem, teacher=problem.teacher, batch=16, first=4, last=4, guidance_scale=3.0)
    assert training.teacher_calls == 2 * 2 * 16
    minimise(training.turns[0].loss(0, Draws(0)), training.turns[0].params)
    x, t, cond, _ = training.student.inputs
    D, middle, s = Guided(problem.teacher, 3.0), t - 1 / 8, (t - 1 / 4).clamp(min=0)
    lands = ddim(D, ddim(D, x, t, middle, cond), middle, s, cond)
    close(jump(Prediction.of("x0", training.student.values.detach(), x, t, on), s), lands, 1e-11)


def test_stages():
    assert stages(16, 1) == [16, 8, 4, 2, 1]
    assert stages(12, 3) == [12, 6, 3]
    assert stages(5, 5) == [5]
    for first, last in ((12, 1), (4, 8), (6, 4)):
        with pytest.raises(ValueError, match=f"halving {first} steps never gives {last}"):
            stages(first, last)
    for first, last in ((0, 1), (8, 0), (2.0, 1)):
        with pytest.raises(ValueError, match="must be a whole number >= 1"):
            stages(first, last)
    problem = With(N1, schedule("vp"), "eps")
    with pytest.raises(ValueError, match=r"updates must be a multiple of the 5 stages \[16, 8, 4, 2, 1\], got 4001"):
        train("progressive", problem, teacher=problem.teacher, updates=4001)


# ---- every card


def small_teacher(problem, kind):
    return start_for(problem, problem.schedule, kind).requires_grad_(True)


def settings_of(method, **more):
    knobs = METHODS[method].knobs
    return dataclasses.replace(knobs(), batch=16, updates=5, warmup=0, **more)


MIXTURES = {"1": M1, "1-labels": LABELLED, "2": PLAIN, "2-labels": RING, "5": FIVE, "5-labels": FIVE_LABELLED}


AT_NOISE = ("naive", "progressive", "perflow", "rectified-diffusion-phased", "multistep-consistency",
            "vsd", "swiftbrush", "dmd", "dmd2", "sim", "adversarial")  # fmt: skip
"""Methods that evaluate a student, or a teacher, at t = 1 itself, in its own kind."""

BELOW = ("guided", "rectified-flow", "instaflow", "rectified-diffusion", "cd", "ect", "sct", "lcm", "pcm")
"""Methods that do not, here; of a method in neither list, the test finds out."""


def guides(card):
    """Whether a method guides its teacher by default, for which there must be classes."""
    return any(getattr(card.knobs(), name, 1.0) != 1 for name in ("guidance_scale", "g_max"))


def moved_by_a_copy(card, training):
    """Whether a student is moved by the difference to a second model alone, which starts as its teacher's copy."""
    return set(training.modules) == {"fake"} and card.needs != "pairs"


def asked_in_vain(*modules):
    """A list that grows whenever a denoiser of these modules is evaluated where its kind says nothing about x_0."""
    found = []

    def note(D, args):
        if D.kind in ("eps", "score") and bool((D.schedule.alpha(args[1]) == 0).any()):
            found.append(D)

    for D in {D for module in modules for D in module.modules() if isinstance(D, Denoiser)}:
        D.register_forward_pre_hook(note)
    return found


# every mixture for each method, and one whose labels do not count, under both teachers in turn
CASES = [
    (method, on, conditional, ("exact", "network")[(m + k) % 2])
    for m, (method, card) in enumerate((name, METHODS[name]) for name in ANYWHERE)
    for k, (on, conditional) in enumerate(
        [
            ("1", False),
            ("1-labels", True),
            ("2-labels", False),
            ("2-labels", True),
            ("2", False),
            ("5-labels", True),
            ("5", False),
        ]
    )
    if conditional or not guides(card) or MIXTURES[on].labels is not None
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "on", "conditional", "kind_of_teacher"),
    CASES,
    ids=["-".join((m, on, "by-class" if c else "whole", t)) for m, on, c, t in CASES],
)
@pytest.mark.usefixtures("float32")
def test_every_method_trains_its_student_alone(method, on, conditional, kind_of_teacher):
    mixture = MIXTURES[on]
    torch.manual_seed(0)
    problem = Small(mixture, schedule("scaled-linear"), "eps", conditional=conditional)
    teacher = problem.teacher if kind_of_teacher == "exact" else small_teacher(problem, "eps")
    card = METHODS[method]
    pairs = make_pairs(problem, teacher, Recipe(n=32, solver="ddim", steps=2)) if card.needs == "pairs" else None
    given = None if card.needs == "nothing" else teacher
    training = card.train(problem, settings_of(method), given, pairs, None)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    sides = [training.student, *training.modules.values()]
    for k, turn in enumerate(training.turns):
        loss = turn.loss(0, Draws(1))
        assert loss.ndim == 0
        assert bool(torch.isfinite(loss))
        if k == 0:
            slopes = torch.autograd.grad(loss, turn.params, allow_unused=True)
            # a fake model that is its teacher's copy has no difference to tell yet
            moves = not (moved_by_a_copy(card, training) and kind_of_teacher == "network")
            assert any(g is not None and bool((g.abs() > 1e-6).any()) for g in slopes) == moves
    # whose turn it is moves, and nobody else: not the other side, not the teacher
    own = [{id(p) for p in turn.params} for turn in training.turns]
    assert own[0] == {id(p) for p in training.student.parameters()}
    never = {id(p) for p in [*teacher.parameters(), *training.average.parameters()]}
    assert not own[0] & set().union(*own[1:])
    assert not set().union(*own) & never
    everything = [p for module in sides for p in module.parameters()]
    for turn, mine in zip(training.turns, own, strict=True):
        still = [(p, p.detach().clone()) for p in everything if id(p) not in mine]
        list(fit(turn, 1))
        assert all(torch.equal(p, was) for p, was in still)

    start = [p.detach().clone() for p in training.student.parameters()]
    state = State.of(training.turns, averages=[training.average], modules=training.state())
    state.check_whole()
    assert len(list(fit(state, 3, period=training.period))) == 3
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert any(not torch.equal(p, q) for p, q in zip(training.student.parameters(), start, strict=True))
    # what is sampled is the average, and it can be
    D, x, t = training.average.module, torch.randn(4, mixture.dim), torch.ones(4)
    prediction = D(x, t, torch.zeros(4).long(), 2.0) if D.scale_conditioned else D(x, t, problem.eval_labels(4))
    assert bool(torch.isfinite(prediction.x0).all())


# every schedule and every kind for each method, a third of their pairs: all pairs for three methods together
EVERY_TEACHER = [
    (method, name, kind)
    for m, method in enumerate(name for name, card in METHODS.items() if card.needs != "nothing")
    for s, name in enumerate(SCHEDULES)
    for k, kind in enumerate(KINDS)
    if (m + s + k) % 3 == 0
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name", "kind"), EVERY_TEACHER, ids=["-".join(case) for case in EVERY_TEACHER])
def test_a_teacher_on_every_schedule_of_every_kind(method, name, kind):
    torch.manual_seed(0)
    problem = Small(RING, schedule(name), kind)
    teacher = small_teacher(problem, kind)
    card = METHODS[method]
    pairs = pairs_of(normal(32, 2), 2 * normal(32, 2, seed=1)) if card.needs == "pairs" else None
    training = card.train(problem, settings_of(method), teacher, pairs, None)
    in_vain = asked_in_vain(teacher, *training.state().values())
    refused = None
    try:
        loss = training.turns[0].loss(0, Draws(1))
    except ValueError as error:
        refused = str(error)
    assert (refused is not None) == bool(in_vain)
    if method in AT_NOISE + BELOW:
        assert bool(in_vain) == (method in AT_NOISE and kind in ("eps", "score") and name in NOISELESS_END)
    if in_vain:
        assert f"kind '{kind}' cannot be used where alpha = 0" in refused
        return
    assert bool(torch.isfinite(loss))
    slopes = torch.autograd.grad(loss, training.turns[0].params, allow_unused=True)
    assert all(bool(torch.isfinite(g).all()) for g in slopes if g is not None)
    assert any(g is not None and bool((g.abs() > 1e-12).any()) for g in slopes) != moved_by_a_copy(card, training)


class Bare(torch.nn.Module):
    """A user's network of x and t."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x, t):
        return self.layer(torch.cat([x, t[:, None]], 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for name, card in METHODS.items() if card.needs != "nothing" and not guides(card)]
)
def test_a_users_network_may_teach(method):
    torch.manual_seed(0)
    problem = Small(R2, schedule("vp"), "eps")
    teacher = NetDenoiser(Bare(), schedule("vp"), "eps")
    before = teacher.net.layer.weight.detach().clone()
    pairs = (
        make_pairs(problem, teacher, Recipe(n=32, solver="ddim", steps=2)) if METHODS[method].needs == "pairs" else None
    )
    training = METHODS[method].train(problem, settings_of(method), teacher, pairs, None)
    assert isinstance(training.student, LambdaDenoiser)
    assert len(list(fit(training.turns, 3, averages=[training.average], period=training.period))) == 3
    assert torch.equal(teacher.net.layer.weight, before)
    assert teacher.net.layer.weight.grad is None


@pytest.mark.parametrize("method", ["diffusion", "flow-matching"])
@pytest.mark.parametrize("drop", [-0.1, 7.0])
def test_a_fraction_of_labels_is_a_fraction(method, drop):
    with pytest.raises(ValueError, match=r"drop, a fraction, must lie in \[0, 1\]"):
        runs.train(method, "mixture", changes={"drop": drop})
