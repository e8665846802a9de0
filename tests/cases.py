"""What the tests share: exact problems, every schedule (with one that a user wrote), and denoisers written as a user
would.
"""

import collections
import itertools

import numpy as np
import torch

from toydiff import SCHEDULES, Denoiser, GaussianMixture, Prediction, Schedule
from toydiff.mixtures import random_mixture, ring


class UserSchedule(Schedule):
    """Two lines of a user: neither variance preserving nor linear, with alpha(1) = 0 and sigma(0) = 0."""

    def alpha(self, t):
        return (1 - t) ** 2

    def sigma(self, t):
        return 1.5 * t


ALL_SCHEDULES = {**{name: make() for name, make in SCHEDULES.items()}, "user": UserSchedule()}
VARIANCE_PRESERVING = ["vp", "cosine", "scaled-linear", "linear-table"]

N1 = GaussianMixture([[0.7]], std=0.5)
M1 = GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
R2 = random_mixture(3)
RING = ring()


def f64(values):
    """A float64 tensor of decimals (by way of float32, 0.3 would be another number)."""
    return torch.tensor(values, dtype=torch.float64)


def inner(schedule, *lams):
    """Times at given lambdas, float64: the same noise levels on every schedule."""
    return schedule.t_of_lam(f64(lams))


def draw(mixture, schedule, t, n=16, seed=0):
    """Exact samples of x_t, (n, d), float64."""
    return mixture.marginal(schedule, t).sample(n, seed, dtype=torch.float64)


def normal(*shape, seed=0):
    """Standard normal draws, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def derivative(f, t, h=1e-4):
    """f'(t) by a fourth-order central difference, for a smooth f of a float64 tensor."""
    return (f(t - 2 * h) - 8 * f(t - h) + 8 * f(t + h) - f(t + 2 * h)) / (12 * h)


def close(a, b, tolerance):
    """Largest difference relative to the size of b (absolute below 1)."""
    gap = float(((a - b).abs() / b.abs().clamp(min=1)).max())
    assert gap <= tolerance, f"differs by {gap:.2e}, allowed {tolerance:.0e}"
    return True


def gauss(low, high, nodes=60, pieces=20):
    """Nodes and weights of a composite Gauss-Legendre rule on [low, high]."""
    u, w = np.polynomial.legendre.leggauss(nodes)
    edges = np.linspace(low, high, pieces + 1)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    centre = (edges[1:] + edges[:-1])[:, None] / 2
    return torch.tensor((centre + half * u).ravel()), torch.tensor((half * w).ravel())


class Spy(Denoiser):
    """A denoiser of a user that keeps its own count of calls and the times that it was evaluated at."""

    def __init__(self, denoiser):
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser, self.count, self.times = denoiser, 0, []

    def forward(self, x, t, cond=None):
        self.count += 1
        self.times.append(t)
        return self.denoiser(x, t, cond)


class ConstantX0(Denoiser):
    """A model that predicts one clean point, whatever it sees."""

    def __init__(self, schedule, x0):
        super().__init__(schedule, "x0")
        self.x0 = x0

    def forward(self, x, t, cond=None):
        return Prediction.of("x0", self.x0.expand_as(x).clone(), x, t, self.schedule)


def affine_step(solver, D, t, s):
    """(A, B, C) of a solver's step on one-dimensional Gaussian data, where it is x_s = A x + B + C noise exactly."""
    out, _ = solver.step(D, f64([[0.0], [1.0], [0.0]]), t, s, (), f64([[0.0], [0.0], [1.0]]))
    B = out[0, 0]
    return out[1, 0] - B, B, out[2, 0] - B


def affine_moments(solver, D, ts, mean, variance):
    """Mean and variance at the end of the grid ts, started from N(mean, variance), on one-dimensional Gaussian data:
    exact.

    Every step is affine there, multistep ones too. So the end is affine in the start and in each step's noise: one run
    with the start 0, one with the start 1, and one for the noise of each step give all coefficients, without any
    sampling.
    """
    steps = len(ts) - 1
    x = torch.zeros(steps + 2, 1, dtype=torch.float64)
    x[1] = 1
    past = collections.deque(maxlen=max(solver.memory, 1))
    for i, (t, s) in enumerate(itertools.pairwise(ts)):
        noise = torch.zeros_like(x)
        noise[i + 2] = 1
        x, p = solver.step(D, x, t, s, past, noise)
        past.append(p)
    B, (A, *C) = x[0, 0], x[1:, 0] - x[0, 0]
    return A * mean + B, A**2 * variance + sum(c**2 for c in C)
