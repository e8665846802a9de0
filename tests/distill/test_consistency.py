"""The consistency family through its own losses: fixed points against closed forms, where neighbours come from, edges,
guidance, the sampler.
"""

import itertools
import math

import pytest
import torch
from cases import ALL_SCHEDULES, M1, N1, R2, RING, close, f64, normal
from students import Designed, Spline, Table, With, corners, ddim, minimise, train, walk
from torch import nn

from toydiff import (
    KINDS,
    SCHEDULES,
    Denoiser,
    GaussianMixture,
    Linear,
    Prediction,
    chord,
    jump,
    runs,
    schedule,
    solve,
    time_grid,
)
from toydiff.denoisers import Conditioned, LambdaDenoiser
from toydiff.distill.base import batch_of
from toydiff.distill.consistency import target_jump
from toydiff.distill.ct import CURRICULA, ct_loss, lognormal_mass
from toydiff.distill.distances import DISTANCES, distance, mse
from toydiff.distill.ect import ect_loss, nearer
from toydiff.distill.lcm import lcm_loss
from toydiff.distill.pcm import phase_neighbours
from toydiff.distill.sct import sct_loss
from toydiff.measure import consistency_error, fitted_order, target_variance
from toydiff.nets.discriminator import Discriminator
from toydiff.prediction import noise_travel
from toydiff.solvers.ddim import DDIM
from toydiff.solvers.heun import Heun
from toydiff.solvers.lcm import LCM
from toydiff.solvers.trajectory import Trajectory
from toydiff.training import Draws, fit

FAMILY = ["cd", "ct", "ect", "sct", "multistep-consistency", "lcm", "pcm"]
STARTS = f64([[-1.3], [-0.2], [0.9], [1.37], [2.4]])


pytestmark = pytest.mark.usefixtures("float64")


# ---- fixed points: a student that is one affine map at each time of the grid, on Gaussian data


def fitted(method, on, times, N, *, kind="v", rounds=None, normals=None, **knobs):
    """The student at the fixed point of a loss whose target it is itself: a round settles one more time of the grid."""
    x0, eps = corners(0.7, 0.5)
    problem = With(N1, on, kind, lambda on, kind: Spline(on, kind, times), data=x0)
    teacher = None if method == "ct" else problem.teacher
    training = train(method, problem, teacher, batch=4 * N, distance="l2", target_ema=0.0, **knobs)
    index = torch.arange(N).repeat_interleave(4)
    fraction = (index + 0.5) / N
    uniforms = [fraction] if method == "ct" else []
    for _ in range(N if rounds is None else rounds):
        draws = Designed(normals=eps if normals is None else normals, indices=index, uniforms=uniforms)
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
        for average in training.averages():
            average.follow()
    return training.student, problem


def landed(student, x, t=1.0, s=0.0):
    """Where one jump lands."""
    return jump(student(x, torch.full((len(x),), t)), s).detach()


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm2"])
@pytest.mark.parametrize("name", ["vp", "linear", "scaled-linear"])
def test_cd_becomes_the_n_step_solution_of_its_teachers_solver(name, solver):
    on = schedule(name)
    ts = time_grid(on, 12, "karras")
    student, _ = fitted("cd", on, ts[:-1], 12, intervals=12, solver=solver)
    target = solve(N1.denoiser(on, "v"), STARTS, ts=ts, solver=solver).end
    close(landed(student, STARTS), target, 1e-9)
    for i in (3, 8):  # and from every time on the way
        close(
            landed(student, STARTS, float(ts[i])),
            solve(N1.denoiser(on, "v"), STARTS, ts=ts[i:], solver=solver).end,
            1e-9,
        )


@pytest.mark.parametrize("name", ["vp", "linear", "scaled-linear"])
def test_ct_with_l2_becomes_the_n_step_ddim_solution(name):
    """Whatever the data's own noise did to the target: the same numbers as CD with DDIM steps, which is not the exact
    flow.
    """
    on = schedule(name)
    ts = time_grid(on, 12, "karras")
    student, _ = fitted("ct", on, ts[:-1], 12, first=13, last=13, curriculum="cm")  # s0 = 13 counts points
    D = N1.denoiser(on, "v")
    found = landed(student, STARTS)
    close(found, walk(D, STARTS, ts), 1e-9)
    assert float((found - N1.flow(on, STARTS, 1.0, 0.0)).abs().max()) > 0.01


def test_a_huber_target_of_ct_is_not_the_mean():
    """A negative control: with small c the loss finds medians of a skewed target, so the fixed point above needs the
    squared distance.
    """
    a = torch.tensor([[0.0], [0.0], [3.0]]).double()
    y = torch.zeros(1, 1, requires_grad=True)
    slopes = {
        name: float(torch.autograd.grad(distance(name, 1e-3)(y.expand(3, 1), a).mean(), y)[0]) for name in DISTANCES
    }
    assert slopes["l2"] == pytest.approx(-2.0)
    assert slopes["huber"] == slopes["element-huber"] == pytest.approx(-1 / 3, abs=1e-3)


@pytest.mark.parametrize("phases", [1, 2, 4])
@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_pcm_becomes_ddim_within_each_phase(name, phases):
    on, N = schedule(name), 12
    ts = torch.linspace(1, 0, N + 1).double()
    student, _ = fitted("pcm", on, ts[:-1], N, rounds=N // phases, intervals=N, phases=phases)
    D = N1.denoiser(on, "v")
    length = N // phases
    for m in range(phases):
        part = ts[m * length : (m + 1) * length + 1]
        close(landed(student, STARTS, float(part[0]), float(part[-1])), walk(D, STARTS, part), 1e-9)
    # all phases one after the other: the whole walk, by the sampler with one step a phase
    close(solve(student, STARTS, phases, solver="ddim", grid="uniform").end, walk(D, STARTS, ts), 1e-8)


def test_lcm_is_pcm_with_one_phase():
    on, N = schedule("scaled-linear"), 10
    ts = torch.linspace(1, 0, N + 1).double()
    a, _ = fitted("lcm", on, ts[:-1], N, intervals=N)
    b, _ = fitted("pcm", on, ts[:-1], N, intervals=N, phases=1)
    assert torch.equal(a.values, b.values)


def test_multistep_consistency_becomes_ddim_within_each_phase():
    """With n teacher steps in a phase and times on its grid; the distance in x_0 is another weight of the same fixed
    point.
    """
    on, M, n = schedule("cosine"), 2, 5
    times = torch.linspace(1, 0, M * n + 1).double()[:-1]
    x0, eps = corners(0.7, 0.5)
    problem = With(N1, on, "v", lambda on, kind: Spline(on, kind, times), data=x0)
    training = train(
        "multistep-consistency",
        problem,
        problem.teacher,
        batch=4 * M * n,
        phases=M,
        first=n,
        last=n,
        edge=0.0,
        distance="l2",
    )
    which = torch.arange(M * n)
    phase, inside = (which // n).repeat_interleave(4), (which % n).repeat_interleave(4).double()
    never = torch.full((4 * M * n,), 0.5).double()
    for _ in range(n):
        draws = Designed(normals=eps, indices=phase, uniforms=[never, 1 - (inside + 1) / n])
        minimise(training.turns[0].loss(0, draws), training.turns[0].params)
    student = training.student
    close(
        solve(student, STARTS, M, solver="ddim", grid="uniform").end,
        walk(N1.denoiser(on, "v"), STARTS, [*times, 0.0 * times[0]]),
        1e-8,
    )


# on ve sigma^2 itself is below the smallest float32 number there, and the weight max(SNR, 1) infinite
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "ve"])
def test_multistep_consistency_survives_the_smallest_step_above_an_edge(name):
    """A uniform number in float32 is as near to 1 as 2^-24, once in some millions of samples."""
    torch.set_default_dtype(torch.float32)
    on = schedule(name)
    problem = With(R2, on, "v")
    training = train("multistep-consistency", problem, problem.teacher, batch=8, edge=0.0)
    draws = Designed(indices=torch.arange(4), uniforms=[torch.tensor([0.5]), torch.tensor([1 - 2.0**-24])])
    assert bool(torch.isfinite(training.turns[0].loss(0, draws)))


# ---- how far the exact consistency function is from agreeing


class Exact(Denoiser):
    """The exact consistency function on the line: x_0 is where the ODE ends."""

    def __init__(self, mixture, on):
        super().__init__(on)
        self.mixture = mixture

    def forward(self, x, t, cond=None):
        times = t.expand(len(x))
        ends = torch.cat([self.mixture.flow(self.schedule, x[times == s], s, 0.0) for s in times.unique(sorted=True)])
        back = torch.argsort(torch.argsort(times, stable=True))
        return Prediction.of("x0", ends[back], x, t, self.schedule)


@pytest.mark.parametrize(("solver", "order"), [(DDIM(), 2), (Heun(), 3)], ids=["ddim", "heun"])
def test_residual_of_the_exact_function_falls_with_the_solvers_local_order(solver, order):
    on, errors, gaps = schedule("vp"), [], (16, 32, 64, 128)
    x = torch.linspace(-2, 2, 41)[:, None].double()
    f, D = Exact(M1, on), M1.denoiser(on)
    for N in gaps:
        t, r = (on.t_of_lam(f64(v)) for v in (0.3, 0.3 + 3.2 / N))
        x_r, _ = solver.step(D, x, t.expand(41), r.expand(41))
        errors.append(float((jump(f(x, t), 0.0) - jump(f(x_r, r), 0.0)).abs().mean()))
    assert fitted_order(gaps, errors) == pytest.approx(order, abs=0.25)


def test_bias_of_the_sampled_target_is_of_second_order():
    """E[f(x_r)|x_t] - f(E[x_r|x_t]) for the exact f: a quarter when the gap is halved (methods E2).

    Posterior by a fine quadrature.
    """
    on = schedule("vp")
    f = Exact(M1, on)
    t = on.t_of_lam(f64(0.0))
    x = f64([[-0.6]])
    x0 = torch.linspace(-4, 4, 4001)[:, None].double()
    density = M1.log_prob(x0) - (x - on.alpha(t) * x0).square()[:, 0] / (2 * on.sigma(t) ** 2)
    w = torch.softmax(density, 0)[:, None]
    eps = (x - on.alpha(t) * x0) / on.sigma(t)
    bias = []
    for h in (0.04, 0.02, 0.01):
        r = on.t_of_lam(f64(h))
        x_r = on.alpha(r) * x0 + on.sigma(r) * eps
        mean = (w * x_r).sum(0, keepdim=True)
        bias.append(float((w * jump(f(x_r, r), 0.0)).sum() - jump(f(mean, r), 0.0)[0, 0]))
    ratios = [a / b for a, b in itertools.pairwise(bias)]
    assert ratios == pytest.approx([4, 4], abs=0.5)


# ---- where neighbours come from


class Both:
    """A student and its target, which keep what they were given, and the distance between what they say, which keeps
    that.
    """

    def __init__(self, on, *shape):
        self.student, self.target = Table(on, "x0", *shape), Table(on, "x0", *shape)
        with torch.no_grad():
            for k, D in enumerate((self.student, self.target)):
                D.values.copy_(normal(*shape, seed=10 + k))
        self.compared = None

    def __iter__(self):
        return iter((self.student, self.target))

    def between(self, a, b):
        self.compared = a, b
        return mse(a, b)


def levels(nsr, r_of_t):
    """The knobs with which the tuning methods draw one level for all of a batch, NSR, and its neighbour at r_of_t times
    as much.
    """
    return {"mean": math.log(nsr), "std": 0.0, "stage": 0, "k": 0.0, "q": 1 / (1 - r_of_t)}


@pytest.mark.parametrize("method", ["ct", "ect"])
def test_neighbours_of_training_share_sample_and_noise(method):
    on, x0, eps = schedule("vp"), normal(32, 2, seed=1), normal(32, 2, seed=2)
    both, another = Both(on, 32, 2), normal(32, 2, seed=3)
    if method == "ct":
        times = torch.linspace(0.1, 1, 33).double()
        upto = torch.linspace(1 / 32, 1, 32)
        draws = Designed(normals=[eps, another], uniforms=[(torch.arange(32) + 0.5) / 32])
        loss = ct_loss(*both, times, upto, torch.linspace(1, 2, 32), both.between, x0, None, draws)
        t, r, weight = times[1:], times[:-1], torch.linspace(1, 2, 32)
    else:
        logs = torch.linspace(-2, 2, 32)
        loss = ect_loss(*both, both.between, x0, None, Designed(normals=[logs, eps, another]), 3, mean=0.0, std=1.0)
        t, r = (on.t_of_lam(-torch.log(nsr)) for nsr in (logs.exp(), nearer(logs.exp(), 3, 2.0, 8.0, 1.0)))
        weight = 1 / (on.nsr(t) - on.nsr(r))
    close(both.student.inputs[0], on.mix(x0, eps, t), 0.0)
    close(both.target.inputs[0], on.mix(x0, eps, r), 0.0)
    close(both.student.inputs[1], t, 0.0)
    close(both.target.inputs[1], r, 0.0)
    # both jump to the data
    found = [D.values.detach() for D in both]
    close(torch.stack(both.compared).detach(), torch.stack(found), 0.0)
    close(loss.detach(), (weight * (found[0] - found[1]).square().mean(1)).mean(), 1e-12)


LEVELS = (0.25, 0.6, 1.0, 2.0, 5.0)  # NSR


def stable_targets(nsr, n, repeats, *, leave_out=False):
    """(x~_0, the source, the exact mean, x_t) of SCT's own neighbours over many reference batches of n, (repeats, n, 1)
    each.
    """
    on = schedule("vp")
    problem = With(M1, on, "v")
    rng = Draws(7)
    t = on.t_of_lam(-torch.log(f64(nsr)))
    both = Both(on, n, 1)
    rows = []
    for _ in range(repeats):
        x0 = rng.rows(problem.data, n)[0]
        if leave_out:
            x = on.mix(x0, rng.normal(n, 1), t)
            others = torch.stack([torch.cat([x0[:i], x0[i + 1 :]]) for i in range(n)])  # (n, n - 1, 1)
            logw = -(x[:, None] - on.alpha(t) * others).square().sum(2) / (2 * on.sigma(t) ** 2)
            target = (torch.softmax(logw, 1)[..., None] * others).sum(1)
        else:
            sct_loss(*both, both.between, x0, None, rng, **levels(nsr, 0.5))
            (x, at, *_), (x_r, r, *_) = (D.inputs for D in both)
            target = chord(on, x, at, x_r, r).x0
        rows.append((target, x0, x))
    target, source, x = (torch.stack(part) for part in zip(*rows, strict=True))  # (repeats, n, 1)
    mean = M1.denoiser(on)(x.flatten(0, 1), t).x0.view_as(x)
    return target, source, mean, x


def standardised(values):
    """The mean over batches in units of its standard error; values (repeats, n, 1), batches independent."""
    each = values.mean((1, 2))
    return float(each.mean() / (each.std() / len(each) ** 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nsr", "n"), [*((nsr, 8) for nsr in LEVELS), (LEVELS[0], 32), (LEVELS[-1], 32), (LEVELS[0], 2), (LEVELS[-1], 2)]
)
def test_target_of_sct_is_unbiased_and_varies_less_than_that_of_ct(nsr, n):
    target, source, mean, x = stable_targets(nsr, n, 400)
    for weight in (torch.ones_like(x), x, (x > 0).double(), torch.cos(2 * x)):
        assert abs(standardised((target - mean) * weight)) < 4
    gain = (source - mean).square() - (target - mean).square()
    assert standardised(gain) > 4


def test_target_of_sct_is_biased_without_its_source():
    target, _, mean, x = stable_targets(0.6, 2, 1000, leave_out=True)
    assert abs(standardised((target - mean) * x)) > 8


def test_sct_with_a_batch_of_one_is_ect():
    on, x0, draws = schedule("vp"), normal(1, 2, seed=1), [f64([0.7]), normal(1, 2, seed=2)]
    stable, easy = Both(on, 1, 2), Both(on, 1, 2)
    a = sct_loss(*stable, stable.between, x0, None, Designed(normals=draws), 3)
    b = ect_loss(*easy, easy.between, x0, None, Designed(normals=draws), 3)
    close(stable.target.inputs[0], easy.target.inputs[0], 1e-12)
    close(a.detach(), b.detach(), 1e-12)


def test_sct_takes_references_of_the_same_class_only():
    on = schedule("vp")
    nsr = float(on.nsr(f64(0.9)))

    def reference(conditional):
        draws, both = Draws(0), Both(on, 256, 2)
        x0, cond = batch_of(With(RING, on, "v", conditional=conditional), 256, draws)
        sct_loss(*both, both.between, x0, cond, draws, **levels(nsr, 0.02))
        (x, t, given, _), (x_r, r, *_) = (D.inputs for D in both)
        return chord(on, x, t, x_r, r).x0, given

    x0, cond = reference(True)
    # at this level everything but the class is all but lost: the mean of the class is what is left
    assert float((x0 - RING.means[cond].to(x0)).norm(dim=1).max()) < 0.75
    x0, cond = reference(False)
    assert float(x0.norm(dim=1).mean()) < 1.5
    assert cond is None


def test_tuning_draws_nearer():
    nsr = torch.logspace(-2.5, 1.8, 200).double()
    before = torch.zeros_like(nsr)
    for stage in range(12):
        now = nearer(nsr, stage, 2.0, 8.0, 1.0)
        assert bool((now <= nsr).all())
        assert bool((now >= before).all())
        before = now
    assert not bool(nearer(nsr, 0, 2.0, 8.0, 1.0)[nsr < 2].any())
    assert bool((before / nsr > 0.995).all())


def test_tuning_at_stage_0_is_diffusion_training_near_data():
    """Where r = 0 the target is the clean sample, and the loss that of a denoiser."""
    on, x0, eps = schedule("vp"), normal(16, 2, seed=1), normal(16, 2, seed=2)
    both = Both(on, 16, 2)
    logs = torch.log(torch.linspace(0.05, 1.5, 16))
    loss = ect_loss(*both, both.between, x0, None, Designed(normals=[logs, eps]), 0, mean=0.0, std=1.0)
    close(both.compared[1], x0, 1e-12)
    close(loss.detach(), (mse(both.student.values.detach(), x0) / logs.exp()).mean(), 1e-10)


def test_curricula_as_their_papers_have_them():
    cm, ict = CURRICULA["cm"], CURRICULA["ict"]
    assert [cm(k, 2, 150) for k in (0.0, 1.0)] == [1, 150]
    found = [ict(k / 800, 10, 1280) for k in range(800)]
    assert sorted(set(found)) == [10 * 2**i for i in range(8)]
    assert {found.count(n) for n in set(found)} == {100}
    assert ict(1.0, 10, 1280) == 1280


@pytest.mark.parametrize(("curriculum", "decays"), [("cm", (0.9025, 0.9993)), ("ict", (0.0, 0.0))])
def test_the_target_of_training_follows_by_its_curriculum(curriculum, decays):
    """From 1 interval to 150."""
    problem = With(R2, schedule("vp"), "v")
    training = train("ct", problem, batch=8, updates=10, curriculum=curriculum, first=2, last=150, target_ema=0.95)
    for step, decay in zip((0, 10), decays, strict=True):
        training.turns[0].loss(step, Draws(0))
        assert training.targets["target"].decay == pytest.approx(decay, abs=1e-4)


def test_ict_draws_intervals_by_their_noise():
    on = schedule("vp")
    times = time_grid(on, 40, "karras").flip(0)
    mass = lognormal_mass(on, times, -1.1, 2.0)
    assert len(mass) == 40
    middle = float(on.nsr(times[1:])[(mass.cumsum(0) / mass.sum() > 0.5).nonzero()[0, 0]])
    assert 0.2 < middle < 0.6  # e^-1.1 = 0.33


# ---- boundary and edges


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("x0", "score", "velocity")])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_network_is_the_identity_at_the_edge(name, kind):
    on = schedule(name)
    D = With(R2, on, kind).student(on, kind)
    with torch.no_grad():
        for p in D.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    x = normal(6, 2, seed=4)
    for edge in (0.0, 0.25, 0.5, 0.75):
        close(jump(D(x, edge), edge).detach(), x, 1e-12)


def test_a_neighbour_at_the_edge_is_the_target():
    on = Linear()
    D = With(R2, on, "velocity").student(on, "velocity")
    x_r = normal(4, 2, seed=2)
    y = target_jump(D, x_r, f64([0.0, 0.25, 0.3, 0.25]), f64([0.0, 0.25, 0.25, 0.0]), t=f64([0.5] * 4))
    assert torch.equal(y[:2], x_r[:2])
    close(
        y[2:],
        torch.stack([ddim(D, x_r[2:3], f64(0.3), f64(0.25))[0], ddim(D, x_r[3:], f64(0.25), f64(0.0))[0]]).detach(),
        1e-12,
    )
    assert not y.requires_grad


def test_the_sampler_of_phases_has_no_noise():
    D = With(R2, schedule("vp"), "v").student(schedule("vp"), "v")
    a, b = (solve(D, normal(8, 2), 4, solver="ddim", grid="uniform", generator=seed).end for seed in (0, 1))
    assert torch.equal(a, b)


@pytest.mark.parametrize("phases", [1, 2, 4, 8])
def test_neighbours_stay_within_their_phase(phases):
    problem = With(R2, schedule("vp"), "v")
    draws = Draws(0)
    x0, cond = batch_of(problem, 512, draws)
    _, t, _, r, edge = phase_neighbours(problem.teacher, 40, phases, x0, cond, draws)
    assert bool((edge <= r + 1e-12).all())
    assert bool((t <= edge + 1 / phases + 1e-12).all())
    close(t - r, torch.full_like(t, 1 / 40), 1e-12)


def test_phases_must_divide_the_grid():
    problem = With(R2, schedule("vp"), "v")
    with pytest.raises(
        ValueError, match="intervals must be a multiple of the 4 phases, or no sampler meets the edges, got 50"
    ):
        train("pcm", problem, problem.teacher, intervals=50, phases=4)


# ---- guidance


def psi(D, x, t, r, cond, guidance_scale=1.0):
    return jump(D(x, t, cond, guidance_scale), r)


def test_the_augmented_step_is_linear_in_the_guidance_scale():
    on = schedule("vp")
    problem = With(RING, on, "eps")
    x, t, r = normal(16, 2, seed=3), torch.linspace(0.3, 1, 16).double(), torch.linspace(0.1, 0.8, 16).double()
    cond, D = torch.arange(16) % 8, problem.teacher
    steps = [psi(D, x, t, r, cond, torch.full((16,), g).double()) for g in (1.0, 2.0, 4.0)]
    close(steps[2] - steps[0], 3 * (steps[1] - steps[0]), 1e-10)
    close(steps[0], psi(D, x, t, r, cond), 1e-10)
    w = 3.0  # g - 1
    close(steps[2], (1 + w) * psi(D, x, t, r, cond) - w * psi(D, x, t, r, None), 1e-10)
    each = torch.linspace(0.5, 6, 16).double()
    close(
        psi(D, x, t, r, cond, each),
        psi(D, x, t, r, None) + each[:, None] * (psi(D, x, t, r, cond) - psi(D, x, t, r, None)),
        1e-10,
    )


def test_heuns_step_is_not_linear_in_the_guidance_scale():
    """A negative control: of a second-order step the combination of results is not the step of the combination."""
    on = schedule("vp")
    D = RING.denoiser(on)
    x, t, r, cond = (
        normal(16, 2, seed=3),
        torch.full((16,), 0.8).double(),
        torch.full((16,), 0.5).double(),
        torch.arange(16) % 8,
    )
    both, given, without = (
        Heun().step(D, x, t, r)[0] for D in (Conditioned(D, cond, 4.0), Conditioned(D, cond), Conditioned(D, None))
    )
    assert float((both - (4 * given - 3 * without)).abs().max()) > 0.05


def test_lcm_is_conditioned_on_the_scale_that_its_teacher_was_guided_by():
    problem = With(RING, schedule("vp"), "eps", conditional=True)
    both, draws = Both(problem.schedule, 256, 2), Draws(0)
    x0, cond = batch_of(problem, 256, draws)
    lcm_loss(*both, problem.teacher, 50, both.between, x0, cond, draws, 1.5, 4.0)
    (x, t, given, g), (x_r, r, given_to_target, g_of_target) = (D.inputs for D in both)
    assert float(g.min()) >= 1.5
    assert float(g.max()) <= 4.0
    assert g.shape == (256,)
    assert torch.equal(g, g_of_target)
    assert torch.equal(given, cond)
    assert torch.equal(given_to_target, cond)
    r = torch.where(t < 1.5 / 50, 0.0, r)  # of a neighbour at 0 the target is evaluated at t
    close(t - r, torch.full_like(t, 1 / 50), 1e-12)
    close(x_r, psi(problem.teacher, x, t, r, cond, g), 0.0)
    training = train("lcm", problem, problem.teacher, batch=8, g_min=1.5, g_max=4.0)
    assert training.student.scale_conditioned
    assert training.teacher_calls == 16
    assert not train("lcm", problem, problem.teacher, batch=8).student.scale_conditioned


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"g_min": 3.0, "g_max": 2.0}, "g_min must not exceed g_max, got 3 and 2"),
        ({"g_min": 0.0}, "g_min"),
        ({"g_min": 2.0, "g_max": 2.0}, "guidance needs classes to guide towards, and test has none"),
        ({"distance": "l3"}, "unknown distance 'l3'"),
        ({"c": 0.0}, "c must be"),
        ({"target_ema": 1.0}, "the decay of an average"),
        ({"phases": 0}, "phases"),
        ({"adversarial": -1.0}, "adversarial, a weight, must be >= 0"),
    ],
)
def test_bad_knobs_are_one_line(changes, words):
    problem = With(GaussianMixture([[0.0, 0.0], [1.0, 1.0]], std=0.3), schedule("vp"), "v")
    with pytest.raises(ValueError, match=words) as caught:
        train("pcm", problem, problem.teacher, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("cd", {"solver": "dpm++2m"}, "a deterministic one-step solver such as heun, ddim or dpm2, not 'dpm\\+\\+2m'"),
        ("cd", {"solver": "ddpm"}, "not 'ddpm'"),
        ("cd", {"solver": "picard"}, "not 'picard'"),
        ("cd", {"grid": "karas"}, "karras"),
        ("ct", {"curriculum": "cn"}, "unknown curriculum 'cn'"),
        ("ct", {"first": 20, "last": 10}, "first must not exceed last, got 20 and 10"),
        ("ect", {"stages": 0}, "stages"),
        ("ect", {"q": 1.0}, "q must exceed 1"),
        ("sct", {"std": 0.0}, "std"),
        ("multistep-consistency", {"edge": 1.5}, "edge, a fraction, must lie in"),
    ],
)
def test_bad_knobs_of_the_others_are_one_line(method, changes, words):
    problem = With(R2, schedule("vp"), "v")
    with pytest.raises(ValueError, match=words):
        train(method, problem, None if method == "ct" else problem.teacher, **changes)


# ---- training


@pytest.mark.parametrize("method", FAMILY)
def test_every_method_trains_from_a_network_and_from_an_exact_teacher(method):
    for teacher in ("ring-teacher", None):
        torch.set_default_dtype(torch.float32)
        start = {"start": "ring-teacher"} if method == "ct" and teacher else {}
        given = {} if method == "ct" else {"teacher": teacher}
        run = runs.train(method, "mixture:ring", changes={"updates": 3, "batch": 16, "warmup": 1}, **given, **start)
        before = [p.detach().clone() for p in run.training.student.parameters()]
        model = run.finish()
        assert any(not torch.equal(a, b) for a, b in zip(before, run.training.student.parameters(), strict=True))
        assert model.about["teacher_calls"] == 3 * run.training.teacher_calls
        sampler = model.about["sampler"]
        path = solve(model.denoiser, torch.randn(4, 2), 2, solver=sampler["solver"], grid=sampler["grid"], generator=0)
        assert bool(torch.isfinite(path.end).all())


def test_a_target_average_follows_with_its_decay_from_the_first_update():
    problem = With(R2, schedule("vp"), "v")
    training = train("cd", problem, problem.teacher, batch=8, target_ema=0.75)
    target = training.targets["target"]
    assert "target" in training.state()
    first = [p.clone() for p in target.module.parameters()]
    for _ in fit(training.turns, 1, averages=training.averages()):
        pass
    for a, b, now in zip(first, training.student.parameters(), target.module.parameters(), strict=True):
        close(now, 0.75 * a + 0.25 * b.detach(), 1e-12)


def test_the_adversarial_turns_touch_their_own_parameters_only():
    problem = With(RING, schedule("vp"), "v")
    training = train("pcm", problem, problem.teacher, batch=16, adversarial=0.1)
    D, student = training.modules["discriminator"], training.student
    generator, critic = training.turns
    slopes = torch.autograd.grad(generator.loss(0, Draws(0)), generator.params, allow_unused=True)
    assert {id(p) for p in generator.params} == {id(p) for p in student.parameters()}
    assert {id(p) for p in critic.params} <= {id(p) for p in D.parameters()}
    assert any(g is not None and bool(g.any()) for g in slopes)
    found = torch.autograd.grad(critic.loss(0, Draws(0)), list(student.parameters()), allow_unused=True)
    assert all(g is None for g in found)
    assert training.teacher_calls == 2 * train("pcm", problem, problem.teacher, batch=16).teacher_calls


def test_the_adversarial_loss_is_the_hinge():
    """Where D says b of everything, the generator pays lambda relu(1 - b) and the discriminator relu(1 + b) + relu(1 -
    b).
    """
    problem = With(RING, schedule("vp"), "v")
    plain = train("pcm", problem, problem.teacher, batch=16)
    training = train("pcm", problem, problem.teacher, batch=16, adversarial=0.5)
    training.student.load_state_dict(plain.student.state_dict())
    D = training.modules["discriminator"]
    nn.init.zeros_(D.head[-1].weight)
    for b in (0.0, 0.4, 3.0):
        nn.init.constant_(D.head[-1].bias, b)
        losses = [float(turn.loss(0, Draws(3)).detach()) for turn in training.turns]
        assert losses[0] == pytest.approx(float(plain.turns[0].loss(0, Draws(3)).detach()) + 0.5 * max(1 - b, 0))
        assert losses[1] == pytest.approx(1 + b + max(1 - b, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "digits"])
def test_discriminator_learns_to_tell(name):
    torch.set_default_dtype(torch.float32)
    from tiny import TinyDigits, TinyMixture

    from toydiff.training import Turn

    problem = TinyMixture() if name == "mixture" else TinyDigits()
    D = Discriminator.on(problem, problem.teacher, problem.schedule)
    frozen = isinstance(problem.teacher, LambdaDenoiser)
    assert all(p.requires_grad != frozen for p in D.denoiser.parameters())

    def loss(step, draws):
        x = draws.normal(32, *problem.shape)
        t = draws.uniform(32, 0.1, 0.9)
        return (torch.relu(1 + D(x, t)) + torch.relu(1 - D(0.3 * x + 0.7, t))).mean()

    records = [r.loss for r in fit(Turn(loss, list(D.parameters()), 5e-3), 60)]
    assert records[0] == pytest.approx(2, abs=0.5)
    assert records[-1] < 1.2


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_noise_travel_keeps_the_marginals(name):
    on = ALL_SCHEDULES[name]
    for s, u in ((0.0, 0.4), (0.3, 0.8), (0.5, 0.5)):
        mean, noise = torch.zeros(2, 1).double(), f64([[1.0], [-1.0]])
        added = noise_travel(on, mean, s, u, noise)[0, 0]
        kept = noise_travel(on, mean + 1, s, u, 0 * noise)[0, 0]
        S_s, S_u = (on.alpha(f64(v)) ** 2 * 0.25 + on.sigma(f64(v)) ** 2 for v in (s, u))
        close(kept**2 * S_s + added**2, S_u, 1e-10)
    with pytest.raises(ValueError, match="u must not be below s"):
        noise_travel(on, mean, 0.5, 0.4, noise)


# ---- the sampler


def test_the_sampler_of_a_consistency_function_keeps_the_law_in_any_number_of_steps():
    """On Gaussian data, exactly: each step's law is that of the schedule, whatever the steps before."""
    on = schedule("vp")
    f = Exact(N1, on)
    x = N1.marginal(on, f64(1.0)).sample(40_000, 0)
    for N in (1, 2, 5):
        end = solve(f, x, N, solver="lcm", grid="uniform", generator=1).end
        assert float(end.mean()) == pytest.approx(0.7, abs=4 * 0.5 / 200)
        assert float(end.std()) == pytest.approx(0.5, abs=4 * 0.5 / 283)


def test_the_sampler_brings_no_ordinary_denoiser_to_the_data():
    """order 0: the spread of x_0's mean stays too small, however many steps there are."""
    on = schedule("vp")
    x = N1.marginal(on, f64(1.0)).sample(4000, 0)
    spreads = [
        float(solve(N1.denoiser(on), x, N, solver="lcm", grid="uniform", generator=1).end.std()) for N in (4, 64)
    ]
    assert max(spreads) < 0.45
    assert LCM().order == 0


def test_one_step_is_a_jump():
    D = R2.denoiser(schedule("vp"))
    x = normal(8, 2)
    a, b = (solve(D, x, 1, solver=name, grid="uniform", generator=3).end for name in ("lcm", "ddim"))
    assert torch.equal(a, b)
    assert not torch.equal(*(solve(D, x, 2, solver="lcm", grid="uniform", generator=seed).end for seed in (0, 1)))


# ---- measures


def test_variance_of_a_target_is_that_of_its_posterior_and_falls_with_references():
    """One reference: E Var(x_0 | x_t), known for Gaussian data; in pure noise n of them divide it by n."""
    on = schedule("vp")
    for t in (0.2, 0.6):
        [(nsr, found, error)] = target_variance(N1, on, [t], 1, samples=20_000)
        alpha, sigma = float(on.alpha(f64(t))), float(on.sigma(f64(t)))
        assert nsr == pytest.approx(sigma / alpha)
        assert found == pytest.approx(0.25 * sigma**2 / (alpha**2 * 0.25 + sigma**2), abs=4 * error)
    [(_, one, _)], [(_, eight, error)] = (target_variance(N1, on, [1.0], n, samples=20_000) for n in (1, 8))
    assert eight == pytest.approx(one / 8, abs=4 * error + 0.002)
    with pytest.raises(ValueError, match="references"):
        target_variance(N1, on, [0.5], 0)


@pytest.mark.slow
def test_variance_of_a_target_is_that_of_the_methods_own_pairing():
    on, n = schedule("vp"), 16
    [(_, measured, error)] = target_variance(M1, on, [float(on.t_of_lam(f64(0.0)))], n, samples=40_000)
    target, _, mean, _ = stable_targets(1.0, n, 500)
    assert float((target - mean).square().mean()) == pytest.approx(measured, abs=6 * error)


def test_consistency_error_is_0_for_the_exact_function_and_its_own_path():
    on = schedule("vp")
    f = Exact(M1, on)
    ts = torch.linspace(1, 0, 9)
    states = torch.stack([M1.flow(on, STARTS, 1.0, float(t)) for t in ts])
    path = Trajectory(ts, states, states[1:], 8, 8, 0.0)
    assert max(consistency_error(f, path)) < 1e-8
    errors = consistency_error(M1.denoiser(on), path)
    assert len(errors) == 8
    gaps = M1.denoiser(on)(states[3], ts[3]).x0 - states[-1]
    assert errors[3] == pytest.approx(float(gaps.square().sum(1).mean().sqrt()))
    with pytest.raises(ValueError, match="keep='path'"):
        consistency_error(f, Trajectory(ts, states[-1:], states[:0], 8, 8, 0.0))
