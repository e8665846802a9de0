"""The wrappers: networks, guidance, rescheduling, counting."""

import pytest
import torch
from cases import ALL_SCHEDULES, M1, R2, RING, Spy, close, draw, f64, inner, normal
from torch import nn

from toydiff import (
    KINDS,
    SOLVERS,
    VP,
    Conditioned,
    Counted,
    Denoiser,
    GaussianMixture,
    GuidanceInterval,
    GuidanceRescale,
    Guided,
    NetDenoiser,
    Rescheduled,
    Schedule,
    solve,
)

LABELS = torch.tensor([0, 3])


class Exact(nn.Module):
    """A network that has learnt a mixture perfectly, in a given kind, and notes what it is given."""

    def __init__(self, denoiser, kind):
        super().__init__()
        self.denoiser, self.kind, self.seen = denoiser, kind, None

    def forward(self, x, t, cond=None):
        self.seen = (t.shape, t.dtype, cond)
        return self.denoiser(x, t, cond).read(self.kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_any_kind_gives_the_same_prediction(kind, schedule):
    exact = RING.denoiser(schedule)
    D = NetDenoiser(Exact(exact, kind), schedule, kind)
    x = draw(RING, schedule, 0.5, 2)
    for t in (0.5, f64([0.4, 0.6])):
        close(D(x, t).x0, exact(x, t).x0, 1e-9)
        close(D(x, t).eps, exact(x, t).eps, 1e-9)
        assert D.net.seen == ((2,), torch.float64, None)
        close(D(x, t, LABELS).x0, exact(x, t, LABELS).x0, 1e-9)
        assert D.net.seen[2] is LABELS


def test_guidance_is_linear_in_the_scale(schedule):
    D = RING.denoiser(schedule)
    x = draw(RING, schedule, 0.6, 2)
    uncond, given = D(x, 0.6), D(x, 0.6, LABELS)
    for g in (-1.0, 0.0, 0.5, 1.0, 2.0, 7.5):
        p = Guided(D, g)(x, 0.6, LABELS)
        close(p.eps, uncond.eps + g * (given.eps - uncond.eps), 1e-12)
        close(p.x0, uncond.x0 + g * (given.x0 - uncond.x0), 1e-12)
        # still one prediction: both halves belong to x
        close(schedule.mix(p.x0, p.eps, 0.6), x, 1e-11)


@pytest.mark.parametrize(("g", "calls"), [(1, 1), (1.0, 1), (0.0, 1), (2.0, 2), (0.5, 2)])
def test_guidance_calls_the_model_as_often_as_it_says(g, calls):
    spy = Spy(RING.denoiser(ALL_SCHEDULES["vp"]))
    guided = Guided(spy, g)
    guided(normal(2, 2), 0.5, LABELS)
    assert spy.count == guided.calls == calls
    counted = Counted(Guided(spy, g))
    counted(normal(2, 2), 0.5, LABELS)
    assert (counted.nfe, counted.rounds) == (calls, 1)


EACH = f64([2.0, -1.0, 0.5, 1.0])


def test_one_scale_a_sample_is_each_sample_with_its_own(schedule):
    D, labels = RING.denoiser(schedule), torch.tensor([0, 3, 5, 7])
    x = draw(RING, schedule, 0.6, 4)
    other = ALL_SCHEDULES["linear"]
    for model in (D, Counted(D), Rescheduled(D, other), Spy(D)):
        p = model(x, 0.6, labels, EACH)
        for i, g in enumerate(EACH.tolist()):
            alone = model(x[i : i + 1], 0.6, labels[i : i + 1], g)
            close(p.x0[i : i + 1], alone.x0, 1e-10)
            close(p.eps[i : i + 1], alone.eps, 1e-10)
    close(D(x, 0.6, labels, f64(2.0)).x0, D(x, 0.6, labels, 2.0).x0, 1e-12)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "heun", "picard", "parareal:tolerance=none", "sde-dpm++2m"])
def test_a_sampler_takes_one_scale_a_sample(solver):
    D, labels = RING.denoiser(ALL_SCHEDULES["vp"]), torch.tensor([0, 3, 5, 7])
    x, how = normal(4, 2), {"solver": solver, "grid": "uniform", "generator": 0}
    path = solve(D, x, 6, cond=labels, guidance_scale=EACH, **how)
    assert path.nfe == solve(D, x, 6, cond=labels, guidance_scale=2.0, **how).nfe
    if SOLVERS.get(solver) is None or not SOLVERS[solver].solver.stochastic:
        for i, g in enumerate(EACH.tolist()):
            one = slice(i, i + 1)
            close(path.end[one], solve(D, x[one], 6, cond=labels[one], guidance_scale=g, **how).end, 1e-3)


class HandsOn(Denoiser):
    """A wrapper of a user that hands the scale on."""

    def __init__(self, denoiser):
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser, self.scales = denoiser, []

    def forward(self, x, t, cond=None, guidance_scale=1.0):
        self.scales.append(guidance_scale)
        return self.denoiser(x, t, cond, guidance_scale)


def test_a_forward_that_takes_the_scale_is_handed_it():
    inner_ = Spy(RING.denoiser(ALL_SCHEDULES["vp"]))
    D, x = HandsOn(inner_), normal(2, 2)
    close(D(x, 0.5, LABELS, 3.0).x0, Guided(inner_, 3.0)(x, 0.5, LABELS).x0, 1e-12)
    assert D.scales == [3.0]
    D(x, 0.5, LABELS)
    assert D.scales == [3.0, 1.0]
    assert inner_.count == 2 + 2 + 1


class WithoutDefault(Denoiser):
    """A forward that is handed the scale and cannot do without."""

    def forward(self, x, t, cond, guidance_scale):
        raise AssertionError


def test_a_forward_that_takes_the_scale_can_be_called_without():
    with pytest.raises(ValueError, match=r"WithoutDefault\.forward needs a default for guidance_scale"):
        WithoutDefault(ALL_SCHEDULES["vp"])


def test_conditioned_is_the_denoiser_with_both_bound():
    D, x = RING.denoiser(ALL_SCHEDULES["vp"]), normal(2, 2)
    bound = Conditioned(D, LABELS, 3.0)
    p, q = bound(x, 0.5), D(x, 0.5, LABELS, 3.0)
    assert torch.equal(p.x0, q.x0)
    assert torch.equal(p.eps, q.eps)
    assert bound.calls == bound.calls_at(7.0) == 2
    assert (bound.spent.nfe, bound.spent.rounds) == (2, 1)
    for extra in ((LABELS,), (None, 2.0), (None, f64([1.0, 1.0]))):
        with pytest.raises(ValueError, match=r"bound already; call it as D\(x, t\)"):
            bound(x, 0.5, *extra)
    solver = SOLVERS["heun"].solver
    t, s = f64([0.8, 0.5]), f64([0.6, 0.2])
    close(solver.step(bound, x, t, s)[0], solver.step(Labelled(D), x, t, s)[0], 1e-12)
    close(solve(bound, x, 5).end, solve(D, x, 5, cond=LABELS, guidance_scale=3.0).end, 1e-12)


class Labelled(Denoiser):
    """A user's own way to bind a condition: at a scale of its own."""

    def __init__(self, denoiser):
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser = denoiser

    def forward(self, x, t, cond=None):
        return self.denoiser(x, t, LABELS, 3.0)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("2", r"guidance_scale must be a finite number, or one a sample \(2,\), got '2'"),
        (True, "guidance_scale must be a finite number, got True"),
        (float("nan"), "guidance_scale must be a finite number, got nan"),
        ([2.0, 2.0, 2.0], r"guidance_scale must have shape \(\) or \(2,\) for x of shape"),
        (torch.ones(3), r"guidance_scale must have shape \(\) or \(2,\)"),
        (torch.ones(2, 2), r"guidance_scale must have shape \(\) or \(2,\)"),
        (torch.tensor([1.0, torch.inf]), "guidance_scale has 1 value"),
    ],
)
def test_a_wrong_scale_is_one_line(scale, message):
    D, x = RING.denoiser(ALL_SCHEDULES["vp"]), normal(2, 2)
    for call in (lambda: D(x, 0.5, LABELS, scale), lambda: solve(D, x, 3, cond=LABELS, guidance_scale=scale)):
        with pytest.raises(ValueError, match=message):
            call()


def test_guidance_needs_a_condition_and_is_there_once():
    D, x = RING.denoiser(ALL_SCHEDULES["vp"]), normal(2, 2)
    with pytest.raises(ValueError, match="guidance_scale = 2 needs a condition to guide towards, but cond is None"):
        D(x, 0.5, None, 2.0)
    with pytest.raises(ValueError, match=r"guidance_scale = 2 \.\.\. 3 needs a condition"):
        D(x, 0.5, None, f64([2.0, 3.0]))
    with pytest.raises(ValueError, match="guided by 2 already; guide it once"):
        Guided(Guided(D, 2.0), 3.0)
    with pytest.raises(ValueError, match="guided by 2 already, and cannot be guided by 3 as well"):
        solve(Guided(D, 2.0), x, 3, cond=LABELS, guidance_scale=3.0)


def test_guidance_off_needs_no_condition():
    D = RING.denoiser(ALL_SCHEDULES["vp"])
    x = normal(2, 2)
    assert torch.equal(Guided(D, 1.0)(x, 0.5).x0, D(x, 0.5).x0)


def test_counted_counts_calls_per_sample():
    D = Counted(RING.denoiser(ALL_SCHEDULES["vp"]))
    for _ in range(3):
        D(normal(5, 2), 0.5)
    assert (D.nfe, D.rounds) == (3, 3)
    guided = Guided(D, 3.0)
    guided(normal(2, 2), 0.5, LABELS)
    assert D.nfe == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_rescheduled_mixture_is_the_mixture_on_the_other_schedule(name, schedule):
    """Both know the same data, so at any noise level that both reach they predict the same."""
    moved = Rescheduled(R2.denoiser(ALL_SCHEDULES[name]), schedule)
    exact = R2.denoiser(schedule)
    for t in inner(schedule, -2.3, 0.0, 2.0, 6.0):
        x = draw(R2, schedule, t, 2)
        close(moved(x, t).x0, exact(x, t).x0, 1e-9)
        close(moved(x, t).eps, exact(x, t).eps, 1e-6)  # at lambda = 6 eps is x less alpha x_0, over sigma = e^-6
    t = inner(schedule, -1.0, 1.0)
    x = torch.cat([draw(R2, schedule, t[0], 1), draw(R2, schedule, t[1], 1)])
    close(moved(x, t).x0, exact(x, t).x0, 1e-9)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_rescheduled_at_the_ends(name, schedule):
    moved = Rescheduled(M1.denoiser(ALL_SCHEDULES[name]), schedule)
    clean = M1.sample(4, 0, dtype=torch.float64)
    close(moved(clean, 0.0).x0, clean, 1e-9)
    noise = draw(M1, schedule, 1.0, 4)
    p = moved(noise, 1.0)
    close(schedule.mix(p.x0, p.eps, 1.0), noise, 1e-12)
    # as noisy as either schedule gets, the prediction is nearly the mean of the data
    assert (p.x0 - M1.mean).abs().max() < 0.5


def test_rescheduled_passes_condition_and_calls():
    vp, linear = ALL_SCHEDULES["vp"], ALL_SCHEDULES["linear"]
    x = draw(RING, linear, 0.5, 2)
    moved = Rescheduled(Guided(RING.denoiser(vp), 2.0), linear)
    assert moved.calls == 2
    close(moved(x, 0.5, LABELS).x0, Guided(RING.denoiser(linear), 2.0)(x, 0.5, LABELS).x0, 1e-9)


def test_wrappers_are_modules_that_keep_schedule_and_kind():
    D = NetDenoiser(nn.Linear(2, 2), ALL_SCHEDULES["vp"], "v")
    for wrapped in (Guided(D, 2.0), Counted(D)):
        assert wrapped.kind == "v"
        assert wrapped.schedule is D.schedule
        assert len(list(wrapped.parameters())) == 2
    assert isinstance(Rescheduled(D, ALL_SCHEDULES["linear"]).schedule, Schedule)


# ---- guidance on an interval, and rescaled

THREE = torch.tensor([0, 3, 5])


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm3", "lcm"])
def test_guidance_on_an_interval_is_three_walks(solver):
    D = RING.denoiser(VP())
    x, ts = normal(3, 2), f64([1.0, 0.8, 0.6, 0.4, 0.2, 0.05])
    whole = solve(GuidanceInterval(D, 0.3, 0.65), x, ts=ts, solver=solver, cond=THREE, guidance_scale=3.0, generator=0)
    at, rng, nfe = x, torch.Generator().manual_seed(0), 0
    for i, g in enumerate((1.0, 1.0, 3.0, 3.0, 1.0)):
        if solver in ("heun", "dpm3") and i in (1, 3):
            at = whole.xs[i + 1]  # a step whose calls lie on both sides
            continue
        step = solve(D, at, ts=ts[i : i + 2], solver=solver, cond=THREE, guidance_scale=g, generator=rng)
        close(step.end, whole.xs[i + 1], 1e-12)
        at, nfe = step.end, nfe + step.nfe
    assert whole.nfe == nfe or solver in ("heun", "dpm3")


def test_an_interval_for_each_sample_and_what_it_costs():
    D = RING.denoiser(VP())
    inside, x = GuidanceInterval(D, 0.3, 0.6), normal(3, 2)
    t = f64([0.2, 0.5, 0.6])
    p = inside(x, t, THREE, 4.0)
    close(
        p.x0, torch.cat([D(x[i : i + 1], t[i], THREE[i : i + 1], g).x0 for i, g in enumerate((1.0, 4.0, 4.0))]), 1e-12
    )
    settings = {"cond": THREE, "guidance_scale": 4.0, "grid": "uniform"}
    walk = solve(inside, x, 10, solver="ddim", **settings)
    assert walk.nfe == 10 + 4  # at 0.6, 0.5, 0.4 and 0.3
    for wrapped in (Counted(inside), Rescheduled(inside, VP())):
        assert solve(wrapped, x, 10, solver="ddim", **settings).nfe == walk.nfe
    assert solve(Guided(inside, 4.0), x, 10, solver="ddim", cond=THREE, grid="uniform").nfe == walk.nfe
    swept = solve(inside, x, 10, solver="picard:tolerance=none,window=1,at_once=3", **settings)
    close(swept.end, walk.end, 1e-9)
    with pytest.raises(ValueError, match=r"the lower first, got 0\.6, 0\.3"):
        GuidanceInterval(D, 0.6, 0.3)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_rescaled_guidance_has_the_size_of_the_conditional_prediction(kind):
    D = RING.denoiser(VP())
    D.kind = kind
    x, without, given = normal(3, 2), D(normal(3, 2), 0.6), D(normal(3, 2), 0.6, THREE)
    y_0, y_1 = without.read(kind), given.read(kind)
    y = y_0 + 5 * (y_1 - y_0)
    for i, row in enumerate(GuidanceRescale(D, 1.0)(x, 0.6, THREE, 5.0).read(kind)):
        assert float(row.std()) == pytest.approx(float(y_1[i].std()), rel=1e-9)
        half = GuidanceRescale(D, 0.5)(x, 0.6, THREE, 5.0).read(kind)[i]
        close(half, 0.5 * (float(y_1[i].std()) / float(y[i].std()) + 1) * y[i], 1e-9)
    assert torch.equal(GuidanceRescale(D, 0.7)(x, 0.6, THREE).x0, given.x0)
    close(GuidanceRescale(D, 0.0)(x, 0.6, THREE, 5.0).x0, D(x, 0.6, THREE, 5.0).x0, 1e-12)
    both = GuidanceInterval(GuidanceRescale(D, 0.7), 0.5, 1.0)
    path = solve(both, x, 4, cond=THREE, guidance_scale=3.0, solver="ddim", grid="uniform")
    assert path.nfe == 4 + 3
    with pytest.raises(ValueError, match="rescale must lie in"):
        GuidanceRescale(D, 1.5)
    line = GaussianMixture([[-1.0], [1.0]], std=0.5, labels=[0, 1]).denoiser(VP())
    with pytest.raises(ValueError, match="here there is one only"):
        GuidanceRescale(line, 0.5)(normal(3, 1), 0.5, torch.zeros(3, dtype=torch.long), 2.0)
