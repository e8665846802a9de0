"""What `solve` computes ahead for a whole grid agrees with what solvers compute step by step from tensors."""

import itertools

import pytest
import torch

from toydiff import SCHEDULES, SOLVERS, Guided, Schedule, mixtures, schedule, solve, time_grid
from toydiff.denoisers import Counted


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
