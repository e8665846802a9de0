"""What is kept for speed is never handed out, never trusted after its owner changed it, and never of inference mode."""

import numpy as np
import pytest
import torch
from cases import ALL_SCHEDULES

from toydiff import MIXTURES, GaussianMixture, Linear, Schedule, Tabulated, mixture, mixtures, solve
from toydiff.denoisers import LambdaDenoiser
from toydiff.schedules import PiecewiseLinear

EVERY = [*ALL_SCHEDULES.values(), PiecewiseLinear(Linear(), [0.0, 0.5, 1.0])]


class Plain(Schedule):
    """A user's schedule whose sigma is its argument itself."""

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t


@pytest.mark.parametrize("S", [*EVERY, Plain()], ids=repr)
def test_a_level_belongs_to_who_asked_for_it(S):
    t = torch.tensor([0.3, 0.5, 0.9])
    for level in (S.alpha, S.sigma):
        right = level(t).clone()
        for _ in range(3):  # the first result, and those that are kept
            level(t).fill_(7.0)
        assert torch.equal(level(t), right)
        assert t.tolist() == torch.tensor([0.3, 0.5, 0.9]).tolist()
        once = level(torch.tensor(0.4))
        once += 1
        torch.testing.assert_close(level(torch.tensor(0.4)), once - 1)


@pytest.mark.parametrize("S", EVERY, ids=repr)
def test_times_that_others_hold(S):
    memory = np.full(3, 0.1)
    t = torch.from_numpy(memory)
    S.alpha(t), S.sigma(t)
    memory[:] = 0.9
    later = torch.full((3,), 0.9, dtype=torch.float64)
    assert torch.equal(S.alpha(t), S.alpha(later))
    assert torch.equal(S.sigma(t), S.sigma(later))
    t.data.fill_(0.2)
    assert torch.equal(S.sigma(t), S.sigma(torch.full((3,), 0.2, dtype=torch.float64)))


def test_a_derivative_is_not_lost_to_what_was_kept():
    S, t = Tabulated.scaled_linear(), torch.rand(3)
    S.alpha(t)
    t.requires_grad_()
    S.alpha(t).sum().backward()
    assert bool((t.grad < 0).all())


def test_nothing_of_inference_mode_is_kept():
    t, x = torch.rand(4), torch.randn(4, 2)
    with torch.inference_mode():
        made = [Tabulated.scaled_linear(), PiecewiseLinear(Linear(), [0.0, 0.5, 1.0])]
        mixture_ = GaussianMixture([[0.0, 1.0], [1.0, 0.0]], cov=[[0.3, 0.1], [0.1, 0.2]])
        for S in [*EVERY, *made]:
            S.alpha(t), S.sigma(t), S.t_of_lam(torch.zeros(2)), mixture_.denoiser(S)(x, t)
    for S in [*EVERY, *made]:
        states = x.clone().requires_grad_()
        weight = torch.ones(4, requires_grad=True)
        (S.alpha(t) * S.sigma(t) * weight).sum().backward()
        times = t.clone().requires_grad_()
        mixture_.denoiser(S)(states, times).x0.sum().backward()
        assert bool(states.grad.isfinite().all())
        assert bool(times.grad.isfinite().all())


def test_a_mixture_follows_its_means_and_not_its_makers_memory():
    means, x = np.array([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    m = GaussianMixture(means, std=0.5)
    before = m.log_prob(x), m.log_prob(x.double())
    means += 5
    assert torch.equal(m.log_prob(x), before[0])
    assert torch.equal(m.log_prob(x.double()), before[1])
    m.means += 5
    moved = GaussianMixture(means, std=0.5)
    for y in (x, x.double()):
        assert torch.equal(m.log_prob(y), moved.log_prob(y))


def test_edges_and_grids_are_the_librarys_own():
    edges = np.array([0.0, 0.5, 1.0])
    S = PiecewiseLinear(Plain(), edges)
    edges[1] = 0.1
    assert S.edges.tolist() == [0.0, 0.5, 1.0]
    ts = torch.tensor([1.0, 0.5, 0.0])
    path = solve(mixture("ring").denoiser(Plain()), torch.randn(2, 2), ts=ts)
    ts.zero_()
    assert path.ts.tolist() == [1.0, 0.5, 0.0]


class Doubling(torch.nn.Module):
    """A network that takes both sides of guidance in one call, and writes into the labels it was given."""

    batches_guidance = True

    def forward(self, x, lam, cond, g=None):
        out = x * (1 + cond)[:, None]
        cond += 100
        return out


def test_doubled_conditions_follow_the_conditions():
    D, x = LambdaDenoiser(Doubling(), Linear(), "velocity"), torch.ones(2, 2)
    labels = np.array([1, 2])
    cond = torch.from_numpy(labels)
    first = D(x, 0.5, cond, 3.0).x0
    assert torch.equal(D(x, 0.5, cond, 3.0).x0, first)  # although the network wrote into them
    labels[:] = 5
    assert torch.equal(D(x, 0.5, cond, 3.0).x0, D(x, 0.5, torch.tensor([5, 5]), 3.0).x0)
    with torch.inference_mode():
        D(x, 0.5, cond, 3.0)
    assert not D(x, 0.5, cond, 3.0).x0.is_inference()
    assert not D._last_doubled[1].is_inference()


def test_every_mixture_is_exact_after_sampling_in_inference_mode():
    for name in MIXTURES:
        D, x = mixtures.mixture(name).denoiser(Linear()), torch.randn(2, 2)
        with torch.inference_mode():
            inside = D(x, 0.5).x0
        assert torch.equal(D(x.requires_grad_(), 0.5).x0, inside)
