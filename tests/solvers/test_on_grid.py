"""What `solve` computes ahead for a whole grid agrees with what solvers compute step by step from tensors."""

import itertools
import threading

import pytest
import torch

from toydiff import SCHEDULES, SOLVERS, VP, Guided, Schedule, mixtures, schedule, solve, time_grid
from toydiff.denoisers import Counted, NetDenoiser
from toydiff.nets import MLP
from toydiff.schedules import Levels, ahead


def by_hand(D, x, ts, solver, seed):
    """The loop of `solve`, without anything computed ahead."""
    rng, past = torch.Generator().manual_seed(seed), []
    with torch.no_grad():
        for t, s in itertools.pairwise(ts.unbind()):
            noise = torch.randn(x.shape, generator=rng, dtype=x.dtype) if solver.stochastic else None
            x, prediction = solver.step(D, x, t, s, past[-solver.memory :] if solver.memory else [], noise)
            past.append(prediction)
    return x


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("on", SCHEDULES)
def test_numbers_agree_with_tensors(on, name):
    S = schedule(on)
    D, solver = mixtures.ring().denoiser(S), SOLVERS[name].solver
    x = mixtures.ring().marginal(S, 1.0).sample(8, 1, dtype=torch.float64)
    ts = time_grid(S, 7, "uniform")
    torch.testing.assert_close(
        solve(D, x, ts=ts, solver=solver, generator=5).end, by_hand(D, x, ts, solver, 5), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_calls_are_counted(name):
    S = schedule("vp")
    D = Counted(mixtures.ring().denoiser(S))
    path = solve(D, mixtures.ring().sample(3, 0), steps=6, solver=name, generator=0)
    assert (path.nfe, path.rounds) == (D.nfe, D.rounds)


def test_both_calls_of_guidance_are_one_round():
    S = schedule("vp")
    D = Counted(mixtures.ring().denoiser(S))
    cond = torch.zeros(3, dtype=torch.long)
    for path in (
        solve(D, mixtures.ring().sample(3, 0), steps=6, solver="ddim", cond=cond, guidance_scale=2.0),
        solve(Guided(D, 2.0), mixtures.ring().sample(3, 0), steps=6, solver="ddim", cond=cond),
    ):
        assert (path.nfe, path.rounds) == (12, 6)


class Steps(Schedule):
    """A schedule that breaks its promise: it is flat between tenths."""

    def alpha(self, t):
        return 1 - self.sigma(t)

    def sigma(self, t):
        return torch.round(10 * t) / 10


def test_times_of_one_noise_level_are_refused():
    ts = torch.tensor([1.0, 0.51, 0.49, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"0.51 and 0.49 .* same noise level"):
        solve(mixtures.ring().denoiser(Steps()), torch.zeros(3, 2, dtype=torch.float64), ts=ts, solver="dpm++2m")


class Asked(VP):
    """Counts how often its levels are computed."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def alpha(self, t):
        self.times += 1
        return super().alpha(t)


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "preconditioned"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "unipc2"])
def test_a_networks_schedule_is_asked_once_for_the_whole_grid(kind, solver):
    S = Asked()
    D, x = NetDenoiser(MLP(), S, kind), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    counts = []
    for steps in (5, 50):
        S.times = 0
        solve(D, x, steps, solver=solver)
        counts.append(S.times)
    assert counts[0] == counts[1]


def test_levels_known_ahead_are_of_one_block_one_schedule_and_one_thread():
    S, other, t = schedule("vp"), schedule("vp"), torch.tensor(0.5)
    wrong, right = Levels(0.25, 0.5, 3.0), S.levels(t)
    with ahead(S, {id(t): wrong}):
        assert S.levels(t) == wrong
        assert S.alpha_sigma(t) == wrong[:2]
        assert other.levels(t) == right
        assert S.levels(t.clone()) == right
        with ahead(other, {id(t): wrong}):
            assert S.levels(t) == other.levels(t) == wrong
        assert other.levels(t) == right
        found = []
        thread = threading.Thread(target=lambda: found.append(S.levels(t)))
        thread.start()
        thread.join()
        assert found == [right]
    assert S.levels(t) == right


class Nested(NetDenoiser):
    """A model that samples on its own schedule at every call."""

    def forward(self, x, t, cond=None):
        inner = solve(NetDenoiser(self.net, self.schedule, self.kind), x, 3, solver="ddim").end
        return super().forward(x + 0 * inner, t, cond)


def test_a_sampler_inside_a_sampler_changes_nothing():
    torch.manual_seed(0)
    net, S, x = MLP(), schedule("vp"), torch.randn(4, 2)
    ends = [solve(kind(net, S, "v"), x, 6, solver="dpm++2m").end for kind in (NetDenoiser, Nested)]
    assert torch.equal(*ends)
