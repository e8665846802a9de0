"""`solve` and every solver: both ends of every schedule, counts, seeds, precision, guidance, times per sample."""

import itertools
import math

import pytest
import torch
from cases import ALL_SCHEDULES, M1, N1, R2, RING, Spy, close, draw, f64, normal

from toydiff import (
    GRIDS,
    SOLVERS,
    VE,
    Denoiser,
    Empirical,
    Guided,
    NetDenoiser,
    Prediction,
    Schedule,
    reference,
    solve,
    time_grid,
)
from toydiff.grids import DEFAULT_GRID
from toydiff.prediction import jump
from toydiff.solvers import DDIM, DDPM, DEFAULT_SOLVER, EulerMaruyama, Heun, Solver, solver_by_name

ONE_STEP = {n: e.solver for n, e in SOLVERS.items() if e.solver.memory == 0}
ONE_STEP |= {"heun with churn": Heun(gamma=0.3), "ddim, eta = 0.5": DDIM(0.5)}
LABELS = torch.tensor([0, 3, 5])
HALF = [(n, on) for i, n in enumerate(SOLVERS) for j, on in enumerate(ALL_SCHEDULES) if (i + j) % 2 == 0]
"""Half of all pairs of a solver and a schedule: every other one of both."""


# ---- the ends, and what was spent


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("on", ALL_SCHEDULES)
def test_every_solver_runs_from_noise_to_data_and_counts_its_calls(on, grid):
    schedule = ALL_SCHEDULES[on]
    x = draw(R2, schedule, 1.0, 2)  # as many samples as dimensions
    parity = list(ALL_SCHEDULES).index(on) + list(GRIDS).index(grid)
    for k, (name, entry) in enumerate(SOLVERS.items()):
        for N in ((1, 7), (2, 3))[(k + parity) % 2]:
            spy = Spy(R2.denoiser(schedule))
            path = solve(spy, x, N, solver=name, grid=grid, generator=0)
            case = f"{name}, N = {N}"
            assert torch.isfinite(path.xs).all(), case
            assert path.xs.shape == (N + 1, 2, 2), case
            assert path.x0s.shape == (N, 2, 2), case
            assert path.ts[0] == 1, case
            assert path.ts[-1] == 0, case
            assert path.nfe == path.rounds == spy.count, case
            assert N <= spy.count <= N * max(entry.solver.nfe_per_step, 3), case
            # no time beyond the grid, and the first call at its first time
            assert spy.times[0] == 1, case
            assert all(0 < t <= 1 for t in spy.times), case
            assert torch.equal(path.xs[0], x), case
            assert torch.equal(path.end, path.xs[-1]), case


def test_the_last_step_lands_on_the_prediction(schedule):
    """Where a step ends in data by a jump, the sample is what the model last believed."""
    x = draw(R2, schedule, 1.0, 3)
    for name in ("ddim", "heun", "dpm3", "dpm++2m", "deis3", "unipc2"):
        path = solve(R2.denoiser(schedule), x, 5, solver=name)
        assert torch.equal(path.end, path.x0s[-1]), name


@pytest.mark.parametrize(
    ("name", "nfe"),
    [("ddim", 9), ("euler", 9), ("heun", 17), ("dpm2", 17), ("dpm3", 25), ("dpm++2m", 9), ("unipc3", 9), ("ab3", 9)],
)
def test_calls_as_the_papers_count_them(name, nfe):
    """Heun: 2N - 1, since its step to data is a jump; so with the other singlestep solvers. Multistep: N."""
    x = draw(R2, VE(), 1.0, 3)
    assert solve(R2.denoiser(VE()), x, 9, solver=name, grid="karras").nfe == nfe


def test_one_step_from_pure_noise_is_the_mean_of_the_data():
    """Where alpha(1) = 0 one jump gives E[x_0]."""
    for on in ("linear", "cosine", "user"):
        x = draw(R2, ALL_SCHEDULES[on], 1.0, 3)
        close(solve(R2.denoiser(ALL_SCHEDULES[on]), x, 1, solver="ddim").end, R2.mean.expand(3, 2), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "on"), [pair for pair in HALF if not SOLVERS[pair[0]].solver.stochastic])
def test_many_steps_reach_the_exact_flow(name, on):
    schedule = ALL_SCHEDULES[on]
    x = draw(M1, schedule, 1.0, 8)
    exact = M1.flow(schedule, x, 1.0, 0.0)
    errors = [(solve(M1.denoiser(schedule), x, N, solver=name).end - exact).abs().mean() for N in (10, 40)]
    assert errors[1] < errors[0] / 2
    # Euler in t also pays for how fast the levels run through t, t^7 on ve
    assert errors[1] < 0.06 or (name == "euler" and schedule.name == "ve")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, e in SOLVERS.items() if e.solver.stochastic and e.solver.order > 0])
def test_stochastic_solvers_sample_the_distribution(name):
    schedule, n = ALL_SCHEDULES["cosine"], 4000
    x = draw(N1, schedule, 1.0, n)
    end = solve(N1.denoiser(schedule), x, 200, solver=name, grid="lambda", generator=0, keep="end").end
    # three standard errors of the mean; of the variance too, and what 200 steps leave of the bias
    assert abs(end.mean() - 0.7) < 3 * 0.5 / n**0.5
    assert abs(end.var() / 0.25 - 1) < 3 * (2 / n) ** 0.5 + 0.05
    fresh = solve(N1.denoiser(schedule), x, 200, solver=name, grid="lambda", generator=1, keep="end").end
    assert torch.corrcoef(torch.cat([end, fresh], 1).T)[0, 1] < 0.9


# ---- what solve promises


@pytest.mark.parametrize("name", SOLVERS)
def test_keeping_the_end_only_changes_nothing_else(name):
    schedule = ALL_SCHEDULES["vp"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    path, end = (solve(D, x, 6, solver=name, generator=7, keep=keep) for keep in ("path", "end"))
    assert torch.equal(end.end, path.end)
    assert end.xs.shape == (1, 3, 2)
    assert end.x0s.shape == (0, 3, 2)
    assert (end.nfe, end.rounds) == (path.nfe, path.rounds)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_same_seed_gives_the_same_bits(name):
    schedule = ALL_SCHEDULES["linear"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    first, again, as_generator, other = (
        solve(D, x, 6, solver=name, generator=g).xs for g in (7, 7, torch.Generator().manual_seed(7), 8)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, as_generator)
    assert torch.equal(first, other) == (not SOLVERS[name].solver.stochastic)


def test_without_a_seed_the_global_generator_is_used():
    schedule = ALL_SCHEDULES["linear"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    ends = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ends.append(solve(D, x, 4, solver="ddpm").end)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "on"), HALF)
def test_precision_follows_the_state(name, on):
    schedule = ALL_SCHEDULES[on]
    x = draw(R2, schedule, 1.0, 4)
    ends = {}
    for dtype in (torch.float64, torch.float32):
        path = solve(R2.denoiser(schedule), x.to(dtype), 5, solver=name, generator=torch.Generator().manual_seed(0))
        assert path.xs.dtype == path.x0s.dtype == path.ts.dtype == dtype
        assert path.xs.device == x.device
        ends[dtype] = path.end
    if not SOLVERS[name].solver.stochastic:  # noise of another dtype is other noise
        assert (ends[torch.float32] - ends[torch.float64]).abs().max() < 2e-3


@pytest.mark.parametrize("name", SOLVERS)
def test_samples_do_not_see_one_another(name):
    schedule = ALL_SCHEDULES["cosine"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 2)
    if SOLVERS[name].solver.stochastic:
        return
    both = solve(D, x, 5, solver=name).end
    for i in range(2):
        close(solve(D, x[i : i + 1], 5, solver=name).end, both[i : i + 1], 1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_images(name):
    schedule = ALL_SCHEDULES["scaled-linear"]
    data = normal(6, 1, 4, 4, seed=3)
    x = schedule.prior((3, 1, 4, 4), 0, dtype=torch.float64)
    path = solve(Empirical(data).denoiser(schedule), x, 8, solver=name, generator=0)
    assert path.xs.shape == (9, 3, 1, 4, 4)
    # the ideal model of a data set ends near its data, whichever the solver
    flat = torch.cdist(path.end.flatten(1), data.flatten(1))
    assert (flat.min(1).values < 3).all()


def test_guidance_is_counted_and_applied(schedule):
    x = draw(RING, schedule, 1.0, 3)
    spy = Spy(RING.denoiser(schedule))
    guided = solve(spy, x, 6, solver="ddim", cond=LABELS, guidance_scale=3.0)
    assert spy.count == guided.nfe == 12
    assert guided.rounds == 6
    close(guided.end, solve(Guided(RING.denoiser(schedule), 3.0), x, 6, solver="ddim", cond=LABELS).end, 1e-13)
    spy = Spy(RING.denoiser(schedule))
    off = solve(spy, x, 6, solver="ddim", cond=LABELS, guidance_scale=1.0)
    assert spy.count == off.nfe == 6
    free = solve(spy, x, 6, solver="ddim")
    assert not torch.allclose(off.end, free.end)


def test_a_condition_asks_for_its_class():
    schedule = ALL_SCHEDULES["vp"]
    labels = torch.arange(8).repeat(20)
    x = draw(RING, schedule, 1.0, 160)
    end = solve(RING.denoiser(schedule), x, 30, cond=labels).end
    assert torch.equal(RING.responsibilities(end).argmax(1), labels)


def test_own_times_override_the_grid(schedule):
    D = R2.denoiser(schedule)
    ts = f64([0.9, 0.5, 0.45, 0.1])
    x = draw(R2, schedule, 0.9, 3)
    path = solve(D, x, 50, grid="quadratic", ts=ts, solver="ddim")
    assert torch.equal(path.ts, ts)
    by_hand = x
    for t, s in itertools.pairwise(ts):
        by_hand = jump(D(by_hand, t), s)
    close(path.end, by_hand, 1e-12)
    assert torch.equal(solve(D, x, ts=[0.9, 0.5, 0.1]).ts, f64([0.9, 0.5, 0.1]))


def test_defaults():
    schedule = ALL_SCHEDULES["vp"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    plain = solve(D, x)
    assert len(plain.ts) == 21
    assert torch.equal(plain.end, solve(D, x, 20, solver=DEFAULT_SOLVER, grid=DEFAULT_GRID).end)


def test_progress_bar_on_request(capsys):
    D, x = R2.denoiser(ALL_SCHEDULES["vp"]), normal(2, 2)
    solve(D, x, 3)
    assert capsys.readouterr().err == ""
    solve(D, x, 3, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_overflow_is_an_error_not_a_sample():
    class Broken(Denoiser):
        def forward(self, x, t, cond=None):
            return R2.denoiser(self.schedule)(x * torch.nan, t)

    with pytest.raises(FloatingPointError, match=r"NaN or infinite .*DDIM with 3 steps"):
        solve(Broken(ALL_SCHEDULES["vp"]), normal(2, 2), 3, solver="ddim")


def test_solve_keeps_no_graph():
    schedule = ALL_SCHEDULES["vp"]
    D = NetDenoiser(Affine(), schedule, "v")
    assert not solve(D, normal(2, 2).requires_grad_(), 3).xs.requires_grad


def test_a_solver_of_a_user():
    class HalfWay(Solver):
        """Jumps twice a step."""

        nfe_per_step = 2

        def step(self, D, x, t, s, past=(), noise=None):
            middle = (t + s) / 2
            p = D(x, t)
            return jump(D(jump(p, middle), middle), s), p

    schedule = ALL_SCHEDULES["linear"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    path = solve(D, x, 4, solver=HalfWay(), grid="uniform")
    close(path.end, solve(D, x, 8, solver="ddim", grid="uniform").end, 1e-12)
    assert path.nfe == 8


def test_settings_in_a_name():
    assert solver_by_name("ddim:eta=0.5") == DDIM(0.5)
    assert solver_by_name("heun:gamma=0.2,s_noise=1.003") == Heun(gamma=0.2, s_noise=1.003)
    assert solver_by_name("ddim") is SOLVERS["ddim"].solver
    for name in SOLVERS:
        assert solver_by_name(name) is SOLVERS[name].solver


# ---- one step, with a time for each sample


class Affine(torch.nn.Module):
    """A small network that knows its time."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x, t):
        return torch.tanh(self.layer(x)) * (1 - t[:, None])


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STEP)
def test_times_per_sample_equal_a_loop_over_samples(name, schedule):
    solver = ONE_STEP[name]
    D = R2.denoiser(schedule)
    t, s = f64([1.0, 1.0, 0.8, 0.5, 0.3]), f64([0.6, 0.0, 0.0, 0.45, 0.0])
    noise = normal(5, 2, seed=4)
    for rows in (
        slice(0, 5),
        slice(3, 5),
        slice(2, 4),
        slice(3, 4),
        slice(0, 2),
    ):  # mixed ends; two samples in two dimensions
        x = normal(5, 2, seed=3)[rows]
        out, p = solver.step(D, x, t[rows], s[rows], (), noise[rows])
        assert torch.isfinite(out).all()
        assert p.x0.shape == x.shape
        for i in range(len(x)):
            j = range(5)[rows][i]
            alone, q = solver.step(D, x[i : i + 1], t[j], s[j], (), noise[j : j + 1])
            close(out[i : i + 1], alone, 1e-12)
            close(p.x0[i : i + 1], q.x0, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STEP)
def test_gradients_pass_through_a_step_at_the_ends(name, schedule):
    """Score distillation differentiates through steps: no NaN from the ends that other samples touch."""
    D = NetDenoiser(Affine(), schedule, "v")
    t, s = f64([1.0, 0.8, 0.5]), f64([0.6, 0.0, 0.45])
    x = normal(3, 2).requires_grad_()
    out, _ = ONE_STEP[name].step(D, x, t, s, (), normal(3, 2, seed=1))
    out.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(w.grad).all() for w in D.parameters())


# ---- the reference


@pytest.mark.slow
def test_reference_of_a_guided_model_is_where_many_steps_lead():
    schedule = ALL_SCHEDULES["cosine"]
    D, x = RING.denoiser(schedule), draw(RING, schedule, 0.9, 3)
    exact = reference(D, x, 0.9, 0.1, cond=LABELS, guidance_scale=2.0)
    ts = torch.linspace(0.9, 0.1, 401, dtype=torch.float64)
    close(solve(D, x, ts=ts, solver="dpm3", cond=LABELS, guidance_scale=2.0).end, exact, 1e-6)
    assert not torch.allclose(exact, reference(D, x, 0.9, 0.1, cond=LABELS), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["linear", "ve"])
def test_reference_composes(on):
    schedule = ALL_SCHEDULES[on]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    half = reference(D, x, 1.0, 0.4)
    close(reference(D, half, 0.4, 0.0), reference(D, x), 1e-9)
    assert reference(D, x.float()).dtype == torch.float32


# ---- settings that must mean what they say


def test_eta_zero_is_the_deterministic_solver():
    schedule = ALL_SCHEDULES["cosine"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 0.9, 3)
    ts = f64([0.9, 0.6, 0.3, 0.1])
    assert torch.equal(solve(D, x, ts=ts, solver=DDIM(0.0)).xs, solve(D, x, ts=ts, solver="ddim").xs)
    close(solve(D, x, ts=ts, solver=EulerMaruyama(0.0)).end, solve(D, x, ts=ts, solver="euler").end, 1e-12)
    assert not DDIM(0.0).stochastic
    assert not EulerMaruyama(0.0).stochastic
    assert DDIM(0.1).stochastic


def test_ddim_with_eta_one_is_ddpm_on_a_whole_run(schedule):
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    ends = [solve(D, x, 8, solver=solver, generator=3).end for solver in (DDIM(1.0), DDPM("small"))]
    close(ends[0], ends[1], 1e-11)


def test_churn_happens_only_where_it_is_requested():
    schedule = ALL_SCHEDULES["ve"]
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 3)
    ts = time_grid(schedule, 6, "karras")
    plain = solve(D, x, ts=ts, solver=Heun()).end
    outside = solve(D, x, ts=ts, solver=Heun(gamma=0.4, s_min=200.0), generator=0).end
    inside = solve(D, x, ts=ts, solver=Heun(gamma=0.4, s_min=0.01, s_max=50.0), generator=0).end
    close(outside, plain, 1e-12)
    assert (inside - plain).abs().max() > 1e-3


def test_churn_raises_the_noise_level_it_says():
    """Marginal-preserving: z^ = z + sqrt(n^2 ((1 + gamma)^2 - 1)) noise, at the time of NSR n (1 + gamma)."""
    schedule, gamma = ALL_SCHEDULES["cosine"], 0.3
    spy = Spy(R2.denoiser(schedule))
    t, s, x, noise = f64(0.5), f64(0.4), draw(R2, schedule, 0.5, 3), normal(3, 2)
    _, p = Heun(gamma=gamma).step(spy, x, t, s, (), noise)
    n = schedule.nsr(t)
    close(schedule.nsr(spy.times[0]), n * (1 + gamma), 1e-12)
    z = x / schedule.alpha(t) + n * ((1 + gamma) ** 2 - 1) ** 0.5 * noise
    close(p.x / schedule.alpha(spy.times[0]), z, 1e-12)


@pytest.mark.parametrize("name", [n for n, e in SOLVERS.items() if e.solver.stochastic])
def test_no_noise_is_added_to_data(name, schedule):
    D, x = R2.denoiser(schedule), draw(R2, schedule, 0.3, 3)
    ends = [SOLVERS[name].solver.step(D, x, f64(0.3), f64(0.0), (), normal(3, 2, seed=i))[0] for i in (1, 2)]
    assert torch.equal(*ends)
    ends = [SOLVERS[name].solver.step(D, x, f64(0.3), f64(0.1), (), normal(3, 2, seed=i))[0] for i in (1, 2)]
    assert not torch.allclose(*ends)


class PlainCosine(Schedule):
    """As anyone would write it: alpha(1) = cos(pi/2) is 6e-17 in float64, and -4e-8 in float32."""

    def alpha(self, t):
        return torch.cos(t * math.pi / 2)

    def sigma(self, t):
        return torch.sin(t * math.pi / 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plain_cosine_is_the_ready_made_one(name, dtype):
    plain, ready = PlainCosine(), ALL_SCHEDULES["cosine"]
    x = ready.prior((8, 2), 0, dtype=dtype)
    for grid in list(GRIDS)[dtype == torch.float32 :: 2]:
        ends = [solve(R2.denoiser(on), x, 7, solver=name, grid=grid, generator=0).end for on in (plain, ready)]
        # in t, near t = 1, cos loses digits that the ready-made form keeps
        close(*ends, 5e-3 if dtype == torch.float32 else 1e-9)


def test_a_plain_cosine_is_pure_noise_at_its_end():
    one = torch.ones(())
    assert float(PlainCosine().alpha(one)) == 0
    close(torch.stack(PlainCosine().rates(one)), torch.tensor([-math.pi / 2, 0.0]), 1e-6)
    with pytest.raises(ValueError, match="cannot be used where alpha = 0"):
        Prediction.of("eps", torch.zeros(2, 2), torch.zeros(2, 2), one, PlainCosine())


def test_infinite_rates_are_said():
    class Root(Schedule):
        def alpha(self, t):
            return torch.sqrt(1 - t)

        def sigma(self, t):
            return torch.sqrt(t)

    assert [float(r) for r in ALL_SCHEDULES["vp"].rates(torch.zeros(()))][1] == math.inf
    assert [float(r) for r in ALL_SCHEDULES["scaled-linear"].rates(torch.zeros(()))][1] == math.inf
    with pytest.raises(ValueError, match="alpha' or sigma' is infinite; ddim can"):
        solve(R2.denoiser(Root()), torch.zeros(2, 2), 5, solver="euler")


def test_guidance_zero_is_unconditional_and_needs_no_condition():
    D, x = RING.denoiser(ALL_SCHEDULES["vp"]), normal(4, 2)
    assert torch.equal(solve(D, x, 4, guidance_scale=0).end, solve(D, x, 4).end)


def test_tcd_lies_between_ddim_and_consistency_sampling(schedule):
    D, x = R2.denoiser(schedule), draw(R2, schedule, 1.0, 4)
    for tcd, other in (("tcd:eta=0", "ddim"), ("tcd:eta=1", "lcm")):
        ours, theirs = (solve(D, x, 5, solver=name, generator=3) for name in (tcd, other))
        close(ours.xs, theirs.xs, 1e-9)
        assert ours.nfe == theirs.nfe


def test_tcd_keeps_the_law_of_a_model_whose_jumps_are_exact():
    """For one data point every jump ends on the ODE: whatever eta, x_s has the moments of p_s."""
    schedule = ALL_SCHEDULES["cosine"]
    D = Empirical(f64([[0.5, -1.0]])).denoiser(schedule)
    path = solve(D, normal(20000, 2), ts=f64([1.0, 0.8, 0.5, 0.2]), solver="tcd:eta=0.6", generator=1)
    alpha, sigma = (float(each) for each in schedule.alpha_sigma(path.ts[-1]))
    close(path.end.mean(0), alpha * f64([0.5, -1.0]), 0.02)
    close(path.end.std(0), sigma * f64([1.0, 1.0]), 0.02)
