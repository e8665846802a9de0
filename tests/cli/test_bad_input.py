"""Bad input: a `ValueError` that names what was given and what is allowed, and never a wrong answer."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import ALL_SCHEDULES, N1, R2, RING, UserSchedule, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from toydiff import (
    GRIDS,
    KINDS,
    MIXTURES,
    PARALLEL,
    SCHEDULES,
    SOLVERS,
    VE,
    VP,
    Counted,
    Denoiser,
    Empirical,
    GaussianMixture,
    Guided,
    Linear,
    NetDenoiser,
    Prediction,
    Rescheduled,
    Solver,
    Tabulated,
    chord,
    jump,
    mixture,
    mixtures,
    reference,
    schedule,
    solve,
    time_grid,
)
from toydiff.solvers import (
    DDIM,
    DDPM,
    DEIS,
    AdamsBashforth,
    Anderson,
    Broyden,
    EulerMaruyama,
    Heun,
    Parareal,
    Picard,
    UniPC,
    parareal_rounds,
    solver_by_name,
)
from toydiff.solvers.entry import Entry

vp = VP()
D, G = R2.denoiser(vp), RING.denoiser(vp)
E = Empirical(normal(6, 2), labels=[0, 0, 1, 1, 2, 2]).denoiser(vp)
x, y = normal(3, 2), normal(3, 2, seed=1)
p = D(x, 0.5)
COND = torch.tensor([0, 1, 2])


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


CASES = {
    # states
    "a state without data dimensions": (lambda: D(normal(3), 0.5), r"x must have shape \(B, \.\.\.\).*got \(3,\)"),
    "a state of whole numbers": (
        lambda: D(torch.ones(3, 2, dtype=torch.long), 0.5),
        "x must be a floating-point tensor, got torch.int64",
    ),
    "a list": (lambda: D([[1.0, 2.0]], 0.5), "x must be a floating-point tensor, got list"),
    "an array": (lambda: solve(D, np.ones((3, 2)), 3), "x must be a floating-point tensor, got ndarray"),
    "another dimension": (lambda: D(normal(3, 5), 0.5), r"x must have shape \(B, 2\) for this mixture, got \(3, 5\)"),
    "another dimension, data set": (
        lambda: E(normal(3, 3), 0.5),
        r"x must have shape \(B, 2\) for this data set, got \(3, 3\)",
    ),
    "images for a mixture": (lambda: D(normal(3, 1, 2), 0.5), r"got \(3, 1, 2\)"),
    "density of another dimension": (lambda: R2.log_prob(normal(3, 5)), r"\(B, 2\).*got \(3, 5\)"),
    "NaN in the start": (
        lambda: solve(D, torch.tensor([[math.nan, 0.0]]), 3),
        r"x has 1 value\(s\) that are NaN or infinite, out of 2",
    ),
    "infinity in the start": (lambda: solve(D, x / 0, 3), r"x has 6 value\(s\)"),
    "NaN, reference": (lambda: reference(D, x * math.nan), "NaN or infinite"),
    # times
    "time above 1": (lambda: D(x, 1.5), r"t must lie in \[0, 1\], got values from 1\.5"),
    "time below 0 for one sample": (lambda: D(x, times(0.1, -0.1, 0.5)), "got values from -0.1 to 0.5"),
    "time NaN": (lambda: D(x, math.nan), r"\[0, 1\], got values from nan"),
    "time text": (lambda: D(x, "a"), "a time must be a number or a tensor, got 'a'"),
    "time None": (lambda: D(x, None), "a time must be a number or a tensor, got None"),
    "a column of times": (
        lambda: D(x, times(0.1, 0.2, 0.3)[:, None]),
        r"t must have shape \(\) or \(3,\).*got t of shape \(3, 1\)",
    ),
    "times for another batch": (lambda: D(x, times(0.1, 0.2)), r"shape \(3, 2\), got t of shape \(2,\)"),
    "jump outside": (lambda: jump(p, 1.5), r"\[0, 1\], got values from 1\.5"),
    "jump to NaN": (lambda: jump(p, math.nan), "got values from nan"),
    "jump, another batch": (
        lambda: jump(p, times(0.1, 0.2)),
        r"s must have shape \(\) or \(3,\).*got s of shape \(2,\)",
    ),
    "prediction outside": (lambda: Prediction.of("x0", y, x, 1.5, vp), r"\[0, 1\], got values from 1\.5"),
    "mix outside": (lambda: vp.mix(x, y, 2.0), r"\[0, 1\], got values from 2"),
    "mix, another batch": (lambda: vp.mix(x, y, times(0.1, 0.2)), r"got t of shape \(2,\)"),
    "mix, would broadcast": (lambda: vp.mix(x[:1], y[:1], times(0.1, 0.2)), r"\(\) or \(1,\).*got t of shape \(2,\)"),
    "chord outside": (lambda: chord(vp, x, 1.5, y, 0.5), r"t must lie in \[0, 1\]"),
    "chord to outside": (lambda: chord(vp, x, 0.5, y, -0.5), r"s must lie in \[0, 1\], got values from -0\.5"),
    "chord of one time": (lambda: chord(vp, x, 0.5, y, 0.5), "a chord needs two different noise levels"),
    "marginal outside": (lambda: R2.marginal(vp, 2.0), r"t must lie in \[0, 1\]"),
    "marginals at several times": (lambda: R2.marginal(vp, times(0.1, 0.2)), r"one time, got t of shape \(2,\)"),
    # two tensors that must match
    "prediction of another shape": (
        lambda: Prediction.of("x0", y[:2], x, 0.5, vp),
        r"the prediction \(x0\) and x must have the same shape, got \(2, 2\) and \(3, 2\)",
    ),
    "prediction of another dtype": (
        lambda: Prediction.of("x0", y.float(), x, 0.5, vp),
        "same dtype, got torch.float32 and torch.float64",
    ),
    "prediction from a list": (
        lambda: Prediction.of("x0", [1.0], x, 0.5, vp),
        r"the prediction \(x0\) must be a floating-point tensor, got list",
    ),
    "network of another shape": (lambda: NetDenoiser(lambda x, t: x[:, :1], vp)(x, 0.5), r"got \(3, 1\) and \(3, 2\)"),
    "mix of two dtypes": (
        lambda: vp.mix(x, y.float(), 0.5),
        "x0 and eps must have the same dtype, got torch.float64 and torch.float32",
    ),
    "mix of two shapes": (
        lambda: vp.mix(x, y[:1], 0.5),
        r"x0 and eps must have the same shape, got \(3, 2\) and \(1, 2\)",
    ),
    "chord of two dtypes": (lambda: chord(vp, x, 0.7, y.float(), 0.5), "x_t and x_s must have the same dtype"),
    "chord of two shapes": (lambda: chord(vp, x, 0.7, y[:2], 0.5), "x_t and x_s must have the same shape"),
    # names
    "solver": (
        lambda: solve(D, x, 3, solver="huen"),
        r"unknown solver 'huen' \(did you mean 'heun'\?\); allowed: euler, ddim",
    ),
    "grid": (lambda: solve(D, x, 3, grid="lamda"), r"unknown time grid 'lamda' \(did you mean 'lambda'\?\)"),
    "grid, directly": (lambda: time_grid(vp, 3, "Karras"), r"unknown time grid 'Karras' \(did you mean 'karras'\?\)"),
    "schedule": (lambda: schedule("liner"), r"unknown schedule 'liner' \(did you mean 'linear'\?\)"),
    "mixture": (lambda: mixture("rng"), r"unknown mixture 'rng' \(did you mean 'ring'\?\)"),
    "kind": (lambda: Prediction.of("epz", y, x, 0.5, vp), r"unknown kind of prediction 'epz' \(did you mean 'eps'\?\)"),
    "kind to read": (lambda: p.read("velocty"), r"did you mean 'velocity'"),
    "kind of a network": (lambda: NetDenoiser(nn.Linear(2, 2), vp, "epsilon"), "unknown kind of prediction 'epsilon'"),
    "keep": (lambda: solve(D, x, 3, keep="pth"), r"unknown keep 'pth' \(did you mean 'path'\?\)"),
    "nothing near": (lambda: schedule("qqqq"), r"unknown schedule 'qqqq'; allowed: vp"),
    "variance": (lambda: DDPM("lrge"), r"unknown DDPM variance 'lrge' \(did you mean 'large'\?\)"),
    "setting": (lambda: solver_by_name("ddim:et=1"), r"unknown setting of ddim 'et' \(did you mean 'eta'\?\)"),
    "setting that is no number": (lambda: solver_by_name("ddim:eta=x"), "the setting eta of ddim is a number, got 'x'"),
    # counts and numbers
    "no steps": (lambda: solve(D, x, 0), "steps must be a whole number >= 1, got 0"),
    "negative steps": (lambda: solve(D, x, -3), "got -3"),
    "half steps": (lambda: solve(D, x, 5.0), "steps must be a whole number >= 1, got 5.0"),
    "steps True": (lambda: solve(D, x, True), "got True"),
    "steps text": (lambda: time_grid(vp, "5"), "steps must be a whole number >= 1, got '5'"),
    "no samples": (lambda: R2.sample(0), "n must be a whole number >= 1, got 0"),
    "half a sample": (lambda: R2.sample(2.5), "got 2.5"),
    "no chunk": (lambda: Empirical(normal(6, 2)).denoiser(vp, chunk=0), "chunk must be a whole number >= 1, got 0"),
    "seed of halves": (
        lambda: solve(D, x, 3, generator=1.5),
        "a seed is a whole number of 64 bits or a torch.Generator, got 1.5",
    ),
    "seed True": (lambda: R2.sample(3, True), "got True"),
    "seed too large": (lambda: R2.sample(3, 2**80), "64 bits"),
    "seed of a mixture": (lambda: mixtures.random_mixture(-1), "seed must be a whole number >= 0, got -1"),
    # grids
    "increasing times": (
        lambda: solve(D, x, ts=times(0.1, 0.5)),
        r"strictly decreasing .* but ts\[0\] = 0.1 and ts\[1\] = 0.5",
    ),
    "a time twice": (lambda: solve(D, x, ts=times(0.9, 0.5, 0.5, 0.1)), r"ts\[1\] = 0.5 and ts\[2\] = 0.5"),
    "times outside": (
        lambda: solve(D, x, ts=times(1.5, 0.5)),
        r"the time grid must lie in \[0, 1\], got values from 0.5 to 1.5",
    ),
    "times NaN": (lambda: solve(D, x, ts=times(0.9, math.nan, 0.1)), r"\[0, 1\]"),
    "one time": (lambda: solve(D, x, ts=times(0.5)), r"a time grid has shape \(N\+1,\) with N >= 1, got \(1,\)"),
    "times in a table": (lambda: solve(D, x, ts=torch.rand(3, 2)), r"got \(3, 2\)"),
    "times in words": (lambda: solve(D, x, ts=["a", "b"]), "a time must be a number or a tensor"),
    "times too close for float32": (lambda: solve(D, x.float(), ts=times(0.5, 0.5 - 1e-12)), "strictly decreasing"),
    "reference upwards": (lambda: reference(D, x, 0.1, 0.5), "strictly decreasing"),
    "reference outside": (lambda: reference(D, x, 1.5, 0.5), r"\[0, 1\]"),
    "levels for a grid in time": (lambda: time_grid(vp, 5, "uniform", first=3.0), "the grid 'uniform' has none"),
    "levels in the wrong order": (
        lambda: time_grid(vp, 5, "lambda", first=0.1, last=1.0),
        "last < first .*got last = 1 and first = 0.1",
    ),
    "level beyond the schedule": (
        lambda: time_grid(vp, 5, "lambda", first=1e9),
        r"first <= 152.167 on VP.*first = 1e\+09",
    ),
    "negative level": (lambda: time_grid(vp, 5, "karras", last=-1.0), "last must be a finite number > 0, got -1.0"),
    "level infinite": (
        lambda: time_grid(Linear(), 5, "lambda", first=math.inf),
        "first must be a finite number > 0, got inf",
    ),
    "rho": (lambda: time_grid(vp, 5, "karras", rho=0.0), "rho must be a finite number > 0, got 0.0"),
    # models
    "a function for a model": (
        lambda: solve(lambda x, t: x, x, 3),
        r"a Denoiser is needed, got function; wrap a network as NetDenoiser",
    ),
    "a network for a model": (lambda: reference(nn.Linear(2, 2), x), "a Denoiser is needed, got Linear"),
    "guided function": (lambda: Guided(3, 2.0), "a Denoiser is needed, got int"),
    "rescheduled nothing": (lambda: Rescheduled(None, vp), "a Denoiser is needed, got NoneType"),
    "counted function": (lambda: Counted(print), "a Denoiser is needed"),
    "a schedule by name": (
        lambda: NetDenoiser(nn.Linear(2, 2), "vp"),
        r"schedule must be a Schedule, such as toydiff.VP\(\), got 'vp'",
    ),
    "rescheduled by name": (lambda: Rescheduled(D, "linear"), "schedule must be a Schedule"),
    "a number for a solver": (lambda: solve(D, x, 3, solver=3), "solver must be a name or a Solver.*got 3"),
    "a class for a solver": (lambda: solve(D, x, 3, solver=Heun), "solver must be a name or a Solver.*Heun"),
    # guidance and conditions
    "guidance without a condition": (
        lambda: solve(G, x, 3, guidance_scale=2.0),
        "guidance_scale = 2 needs a condition",
    ),
    "guidance NaN": (
        lambda: solve(G, x, 3, guidance_scale=math.nan, cond=COND),
        "guidance_scale must be a finite number, got nan",
    ),
    "guidance text": (lambda: Guided(G, "2"), "guidance_scale must be a finite number, got '2'"),
    "guidance True": (lambda: Guided(G, True), "guidance_scale must be a finite number, got True"),
    "condition without labels": (lambda: N1.denoiser(vp)(x[:, :1], 0.5, COND), "this mixture has no labels"),
    "condition without labels, data set": (
        lambda: Empirical(normal(6, 2)).denoiser(vp)(x, 0.5, COND),
        "this data set has no labels",
    ),
    "no such label": (
        lambda: G(x, 0.5, torch.tensor([0, 1, 99])),
        r"no component has the label 99; the labels are \[0, 1, 2",
    ),
    "no such label, data set": (
        lambda: E(x, 0.5, torch.tensor([0, 1, 9])),
        r"no point has the label 9; the labels are \[0, 1, 2\]",
    ),
    "no such label to sample": (lambda: RING.sample(3, cond=torch.tensor([0, 1, 99])), "no component has the label 99"),
    "condition of another batch": (
        lambda: G(x, 0.5, COND[:2]),
        r"cond must be whole numbers of shape \(\) or \(3,\), got shape \(2,\)",
    ),
    "condition of another batch, data set": (
        lambda: E(x, 0.5, COND[:2]),
        r"cond must be whole numbers of shape \(\) or \(3,\), got shape \(2,\)",
    ),
    "condition of halves": (lambda: G(x, 0.5, torch.rand(3)), "cond must be whole numbers.*got torch.float32"),
    "condition of truths": (
        lambda: E(x, 0.5, torch.tensor([True, False, True])),
        "cond must be whole numbers.*got torch.bool",
    ),
    "condition in words": (lambda: G(x, 0.5, "cat"), "cond must be whole numbers.*got 'cat'"),
    # mixtures
    "means in a row": (lambda: GaussianMixture([1.0, 2.0], std=1.0), r"means must have shape \(K, d\).*got \(2,\)"),
    "no means": (lambda: GaussianMixture(torch.zeros(0, 2), std=1.0), r"got \(0, 2\)"),
    "ragged means": (lambda: GaussianMixture([[1.0, 2.0], [3.0]], std=1.0), "means must be an array of numbers"),
    "means NaN": (lambda: GaussianMixture([[math.nan]], std=1.0), "means must be finite"),
    "no spread": (lambda: GaussianMixture([[0.0]]), "exactly one of std and cov"),
    "two spreads": (lambda: GaussianMixture([[0.0]], std=1.0, cov=[[1.0]]), "exactly one of std and cov"),
    "std 0": (lambda: GaussianMixture([[0.0]], std=0.0), "std must be positive.*got a least value of 0"),
    "std negative": (lambda: GaussianMixture([[0.0], [1.0]], std=[1.0, -1.0]), "least value of -1"),
    "std of another shape": (
        lambda: GaussianMixture([[0.0], [1.0]], std=[1.0, 1.0, 1.0]),
        r"std must have shape \(\), \(2,\) or \(2, 1\), got \(3,\)",
    ),
    "indefinite": (
        lambda: GaussianMixture([[0.0, 0.0]], cov=[[1.0, 2.0], [2.0, 1.0]]),
        "positive definite; that of component 0 has the eigenvalue -1",
    ),
    "singular": (lambda: GaussianMixture([[0.0, 0.0]], cov=[[1.0, 1.0], [1.0, 1.0]]), "positive definite"),
    "one of two singular": (
        lambda: GaussianMixture([[0.0, 0.0]] * 2, cov=[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]),
        "component 1 has the eigenvalue 0",
    ),
    "not symmetric": (
        lambda: GaussianMixture([[0.0, 0.0]], cov=[[1.0, 0.5], [0.2, 1.0]]),
        "every covariance must be symmetric",
    ),
    "covariance of another shape": (
        lambda: GaussianMixture([[0.0, 0.0]], cov=[1.0, 1.0]),
        r"cov must have shape \(2, 2\) or \(1, 2, 2\), got \(2,\)",
    ),
    "weights above 1": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, weights=[0.5, 0.6]),
        "sum to 1, got a sum of 1.1",
    ),
    "negative weight": (lambda: GaussianMixture([[0.0], [1.0]], std=1.0, weights=[-0.5, 1.5]), "least weight of -0.5"),
    "weights of another shape": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, weights=[1.0]),
        r"weights must have shape \(2,\).*got \(1,\)",
    ),
    "weights in words": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, weights=["a", "b"]),
        "weights must be an array of numbers",
    ),
    "too few labels": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, labels=[0]),
        r"labels must be 2 whole numbers >= 0, got shape \(1,\)",
    ),
    "negative label": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, labels=[0, -1]),
        "labels must be 2 whole numbers >= 0, got a least of -1",
    ),
    "labels of halves": (
        lambda: GaussianMixture([[0.0], [1.0]], std=1.0, labels=[0.0, 1.5]),
        "labels must be 2 whole numbers >= 0, got torch.float32",
    ),
    "labels in words": (lambda: Empirical(normal(2, 2), labels=["a", "b"]), "labels must be 2 whole numbers >= 0"),
    "too many labels": (lambda: Empirical(normal(2, 2), labels=[0, 1, 2]), r"got shape \(3,\)"),
    "flow without a closed form": (lambda: R2.flow(vp, x, 0.5, 0.1), "K = 5 and d = 2; use toydiff.solvers.reference"),
    "no data": (lambda: Empirical(torch.zeros(0, 2)), r"one point at least, got points of shape \(0, 2\)"),
    "data NaN": (lambda: Empirical(normal(4, 2) * math.nan), r"points has 8 value\(s\)"),
    "too few points to fit": (lambda: mixtures.fit(normal(3, 2)), r"N >= modes = 30, got \(3, 2\)"),
    "points on a line": (
        lambda: mixtures.fit(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 3.0]]), modes=2),
        "must not be all the same along a coordinate",
    ),
    "a ring of none": (lambda: mixtures.ring(modes=0), "modes must be a whole number >= 1, got 0"),
    # schedules and solvers
    "beta 0": (lambda: VP(0.0, 1.0), "beta0 must be a finite number > 0, got 0.0"),
    "betas swapped": (lambda: VP(2.0, 1.0), "beta1 must exceed beta0, got beta0 = 2 and beta1 = 1"),
    "sigma negative": (lambda: VE(-1.0), "sigma_max must be a finite number > 0, got -1.0"),
    "table rising": (lambda: Tabulated(times(0.9, 0.95)), "strictly decreasing"),
    "table with one entry": (lambda: Tabulated(times(0.9)), r"shape \(K,\) with K >= 2, got \(1,\)"),
    "table at 0 before its end": (lambda: Tabulated(times(0.9, 0.0, 0.0)), "only the last may be 0"),
    "table below 0": (lambda: Tabulated(times(0.9, -0.1)), "strictly between 0 and 1"),
    "eta above 1": (lambda: DDIM(1.5), r"eta must lie in \[0, 1\], got 1.5"),
    "eta NaN": (lambda: DDIM(math.nan), "eta must be a finite number, got nan"),
    "eta in a name": (lambda: solver_by_name("ddim:eta=3"), r"eta must lie in \[0, 1\], got 3.0"),
    "eta negative": (lambda: EulerMaruyama(-1.0), "eta must be >= 0, got -1.0"),
    "eta infinite": (lambda: EulerMaruyama(math.inf), "eta must be a finite number, got inf"),
    "churn": (lambda: Heun(gamma=1.0), r"gamma must lie in \[0, sqrt\(2\) - 1\], got 1.0"),
    "DEIS 5": (lambda: DEIS(5), "q = 2, 3 or 4, got 5"),
    "UniPC 7": (lambda: UniPC(7), "p = 1, 2 or 3, got 7"),
    "Adams-Bashforth 9": (lambda: AdamsBashforth(9), "got 9"),
    "sigma_data 0": (lambda: AdamsBashforth(3, sigma_data=0.0), "sigma_data must be a finite number > 0, got 0.0"),
    # parallel solvers
    "tolerance 0": (lambda: Picard(tolerance=0.0), "tolerance must be a finite number > 0, got 0.0"),
    "tolerance 0 of Anderson": (lambda: Anderson(tolerance=0), "tolerance must be a finite number > 0, got 0"),
    "tolerance 0 of Broyden": (lambda: Broyden(tolerance=0), "tolerance must be a finite number > 0, got 0"),
    "tolerance 0 of Parareal": (lambda: Parareal(tolerance=0), "tolerance must be a finite number > 0, got 0"),
    "tolerance negative": (
        lambda: solve(D, x, 4, solver="picard:tolerance=-1e-3"),
        "tolerance must be a finite number > 0, got -0.001",
    ),
    "tolerance NaN": (lambda: Picard(tolerance=math.nan), "tolerance must be a finite number > 0, got nan"),
    "tolerance infinite": (lambda: Parareal(tolerance=math.inf), "tolerance must be a finite number > 0, got inf"),
    "tolerance text": (
        lambda: solver_by_name("picard:tolerance=small"),
        "the setting tolerance of picard is a number or none, got 'small'",
    ),
    "window 0": (lambda: Picard(window=0), "window must be a whole number >= 1, got 0"),
    "window 0 in a name": (
        lambda: solve(D, x, 4, solver="broyden:window=0"),
        "window must be a whole number >= 1, got 0",
    ),
    "window True": (lambda: Anderson(window=True), "window must be a whole number >= 1, got True"),
    "half a window": (
        lambda: solver_by_name("picard:window=2.5"),
        "the setting window of picard is a whole number or none, got '2.5'",
    ),
    "window above T": (
        lambda: solve(D, x, 4, solver="picard:window=5"),
        "window must be at most the number of steps, 4, got 5",
    ),
    "window above T of own times": (
        lambda: solve(D, x, 50, ts=times(1.0, 0.5, 0.0), solver=Broyden(window=3)),
        "window must be at most the number of steps, 2, got 3",
    ),
    "window above T, of numpy": (
        lambda: solve(D, x, 4, solver=Picard(window=np.int64(5))),
        "window must be at most the number of steps, 4, got",
    ),
    "start negative": (lambda: Picard(start=-1), "start must be a whole number >= 0, got -1"),
    "start above T": (
        lambda: solve(D, x, 4, solver="anderson:start=5"),
        "start must be at most the number of steps, 4, got 5",
    ),
    "start in words": (lambda: Picard(start="coarse"), "start must be a whole number >= 0, got 'coarse'"),
    "start none": (
        lambda: solver_by_name("picard:start=none"),
        "the setting start of picard is a whole number, got 'none'",
    ),
    "start of one state": (
        lambda: solve(D, x, 4, solver=Picard(start=solve(D, x, 4, keep="end"))),
        "needs all its states: solve it with keep='path'",
    ),
    "start of another batch": (
        lambda: solve(D, x, 4, solver=Anderson(start=solve(D, x[:2], 4))),
        r"the trajectory to start from has states \(2, 2\), but x has shape \(3, 2\)",
    ),
    "start of another dimension": (
        lambda: solve(D, x, 4, solver=Broyden(start=solve(N1.denoiser(vp), x[:, :1], 4))),
        r"has states \(3, 1\), but x has shape \(3, 2\)",
    ),
    "at_once 0": (lambda: Picard(at_once=0), "at_once must be a whole number >= 1, got 0"),
    "at_once 0 of Parareal": (
        lambda: solver_by_name("parareal:at_once=0"),
        "at_once must be a whole number >= 1, got 0",
    ),
    "memory 0": (lambda: Anderson(memory=0), "memory must be a whole number >= 1, got 0"),
    "memory 0 in a name": (lambda: solver_by_name("broyden:memory=0"), "memory must be a whole number >= 1, got 0"),
    "blocks 0": (lambda: Parareal(blocks=0), "blocks must be a whole number >= 1, got 0"),
    "blocks that do not divide": (
        lambda: solve(D, x, 12, solver="parareal:blocks=5"),
        "blocks must divide the number of steps, 12, got 5; allowed: 1, 2, 3, 4, 6, 12",
    ),
    "more blocks than steps": (
        lambda: solve(D, x, 4, solver=Parareal(blocks=8)),
        "blocks must divide the number of steps, 4, got 8; allowed: 1, 2, 4",
    ),
    "a multistep solver at once": (
        lambda: Picard(SOLVERS["dpm++2m"].solver),
        r"solver must be a one-step solver such as ddim, .*Multistep2 uses 1 earlier prediction\(s\)",
    ),
    "a multistep solver in a name": (
        lambda: solve(D, x, 4, solver="broyden:solver=ab3"),
        "solver must be a one-step solver .*AdamsBashforth uses 2 earlier",
    ),
    "a multistep fine solver": (
        lambda: Parareal(SOLVERS["unipc2"].solver),
        "fine must be a one-step solver.*UniPC uses",
    ),
    "a multistep coarse solver": (
        lambda: solver_by_name("parareal:coarse=deis2"),
        "coarse must be a one-step solver.*DEIS uses",
    ),
    "a stochastic coarse solver": (lambda: Parareal(coarse=DDPM()), "coarse must not be stochastic.*got DDPM"),
    "a stochastic coarse solver, by eta": (lambda: Parareal(coarse=DDIM(0.1)), "coarse must not be stochastic"),
    "parallel in parallel": (
        lambda: Picard(Picard()),
        r"solver must be a Solver such as toydiff.solvers.DDIM\(\), got Picard",
    ),
    "parallel in parallel, by name": (
        lambda: solver_by_name("parareal:fine=anderson"),
        "fine must be a Solver such as .* got Anderson",
    ),
    "a name for a solver of a solver": (lambda: Broyden("ddim"), "solver must be a Solver such as .* got 'ddim'"),
    "a class for a parallel solver": (
        lambda: solve(D, x, 3, solver=Picard),
        "solver must be a name or a Solver.*Picard",
    ),
    "parallel solver, misspelt": (
        lambda: solve(D, x, 3, solver="picrad"),
        r"unknown solver 'picrad' \(did you mean 'picard'\?\); allowed: .*broyden, parareal",
    ),
    "setting of a parallel solver": (
        lambda: solver_by_name("picard:windw=3"),
        r"unknown setting of picard 'windw' \(did you mean 'window'\?\); allowed: solver, tolerance, window, start, "
        "at_once",
    ),
    "setting of another parallel solver": (
        lambda: solver_by_name("parareal:window=3"),
        "unknown setting of parareal 'window'",
    ),
    "solver of a parallel solver, misspelt": (
        lambda: solver_by_name("picard:solver=dimm"),
        r"unknown solver 'dimm' \(did you mean 'ddim'",
    ),
    "errors of a sequential walk": (
        lambda: solve(D, x, 3).errors(),
        "this trajectory has no sweeps: solve with a parallel solver, such as picard, and keep='path'",
    ),
    "errors of the end alone": (
        lambda: solve(D, x, 3, solver="picard", keep="end").errors(),
        "this trajectory has no sweeps",
    ),
    "errors to another path": (
        lambda: solve(D, x, 3, solver="picard").errors(solve(D, x, 4).xs),
        r"exact and xs must have the same shape, got \(5, 3, 2\) and \(4, 3, 2\)",
    ),
    "rounds of blocks that do not divide": (
        lambda: parareal_rounds(12, 5, 1),
        "blocks must divide the number of steps, 12, got 5",
    ),
    "rounds of more iterations than blocks": (
        lambda: parareal_rounds(12, 3, 4),
        "iterations must be at most the number of blocks, 3, got 4",
    ),
    "rounds of fewer than no iterations": (
        lambda: parareal_rounds(12, 3, -1),
        "iterations must be a whole number >= 0, got -1",
    ),
    "rounds of no steps": (lambda: parareal_rounds(0, 1, 1), "steps must be a whole number >= 1, got 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named(name):
    call, said = CASES[name]
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value).strip()


def test_a_misspelt_option_is_an_error():
    with pytest.raises(TypeError, match="stepz"):
        solve(D, x, stepz=3)
    with pytest.raises(TypeError, match="guidence_scale"):
        solve(D, x, 3, guidence_scale=2.0)


def test_numbers_of_numpy_are_numbers():
    assert len(solve(D, x, np.int64(3)).ts) == 4
    assert VE(np.float32(80)).sigma_max == 80
    assert torch.equal(R2.sample(3, np.int64(5)), R2.sample(3, 5))
    assert Guided(G, np.float64(2.0)).calls == 2
    by_numpy = Picard(tolerance=np.float32(0.5), window=np.int64(2), start=np.int64(3))
    assert torch.equal(solve(D, x, 4, solver=by_numpy).xs, solve(D, x, 4, solver=Picard(DDIM(), 0.5, 2, 3)).xs)
    assert torch.equal(solve(D, x, 4, solver=Parareal(blocks=np.int64(2))).xs, solve(D, x, 4, solver="parareal").xs)


# ---- properties: over schedules, kinds, shapes and grids, good input works and bad input is refused

schedules = st.sampled_from(list(ALL_SCHEDULES.values()))
kinds = st.sampled_from(list(KINDS))
shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64])
inner_times = st.floats(0.05, 0.95)
outside = st.one_of(st.floats(max_value=-1e-6), st.floats(min_value=1 + 1e-6), st.just(math.nan))
quick = settings(deadline=None, max_examples=60)


def states(shape, dtype, seed=0):
    return normal(*shape, seed=seed).to(dtype)


@given(schedules, kinds, shapes, dtypes, st.data())
@quick
def test_any_prediction_is_the_same_in_any_kind(on, kind, shape, dtype, data):
    per_sample = data.draw(st.booleans())
    t = torch.tensor(
        [data.draw(inner_times) for _ in range(shape[0])] if per_sample else data.draw(inner_times), dtype=dtype
    )
    x0, eps = states(shape, dtype, 1), states(shape, dtype, 2)
    x = on.mix(x0, eps, t)
    assert x.shape == shape
    assert x.dtype == dtype
    truth = Prediction(x, t, x0, eps, on)
    prediction = Prediction.of(kind, truth.read(kind), x, t, on)
    assert (jump(prediction, t) - x).abs().max() <= 1e-3 * x.abs().max().clamp(min=1)
    if dtype == torch.float64:  # at t = 0.05 on ve and 0.95 on vp one half of a prediction is a millionth of the other
        assert (on.sigma(t).max() * (prediction.eps - eps).abs()).max() < 1e-6
        assert (on.alpha(t).min() * (prediction.x0 - x0).abs()).max() < 1e-6
    assert prediction.x0.shape == prediction.eps.shape == shape
    assert prediction.x0.dtype == dtype


@given(schedules, kinds, shapes, outside, st.booleans())
@quick
def test_no_time_outside_is_accepted(on, kind, shape, t, per_sample):
    x = states(shape, torch.float64)
    time = torch.full((shape[0],) if per_sample else (), t, dtype=torch.float64)
    prediction = Prediction(x, torch.tensor(0.5).double(), x, x, on)
    for call in (
        lambda: on.mix(x, x, time),
        lambda: Prediction.of(kind, x, x, time, on),
        lambda: jump(prediction, time),
        lambda: chord(on, x, time, x, 0.5),
        lambda: NetDenoiser(lambda x, t: x, on, kind)(x, time),
    ):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            call()


@given(schedules, kinds, shapes, shapes)
@quick
def test_no_two_shapes_are_mixed(on, kind, one, other):
    if one == other:
        return
    a, b = states(one, torch.float64), states(other, torch.float64)
    for call in (
        lambda: on.mix(a, b, 0.5),
        lambda: Prediction.of(kind, b, a, 0.5, on),
        lambda: chord(on, a, 0.7, b, 0.5),
    ):
        with pytest.raises(ValueError, match="must have the same shape") as caught:
            call()
        assert str(one) in str(caught.value)
        assert str(other) in str(caught.value)


@given(schedules, kinds, shapes, st.integers(1, 6))
@quick
def test_no_times_of_another_batch_are_accepted(on, kind, shape, batch):
    if batch == shape[0]:
        return
    x, t = states(shape, torch.float64), torch.full((batch,), 0.5, dtype=torch.float64)
    prediction = Prediction(x, t[0], x, x, on)
    for call in (
        lambda: on.mix(x, x, t),
        lambda: Prediction.of(kind, x, x, t, on),
        lambda: jump(prediction, t),
        lambda: chord(on, x, t, x, 0.5),
    ):
        with pytest.raises(ValueError, match=r"must have shape \(\) or"):
            call()


@given(schedules, st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=6))
@quick
def test_a_grid_is_accepted_exactly_if_it_is_one(on, ts):
    good = len(ts) > 1 and all(0 <= t <= 1 for t in ts) and all(a - b > 1e-4 for a, b in itertools.pairwise(ts))
    bad = len(ts) < 2 or any(not 0 <= t <= 1 for t in ts) or any(a <= b for a, b in itertools.pairwise(ts))
    x = states((2, 2), torch.float64)
    if good:
        assert torch.isfinite(
            solve(R2.denoiser(on), x, ts=torch.tensor(ts, dtype=torch.float64), solver="ddim").xs
        ).all()
    if bad:
        with pytest.raises(ValueError, match="grid"):
            solve(R2.denoiser(on), x, ts=torch.tensor(ts, dtype=torch.float64), solver="ddim")


@pytest.mark.slow
@given(schedules, st.sampled_from(list(GRIDS)), st.sampled_from(list(SOLVERS)), shapes, dtypes, st.integers(1, 6))
@settings(deadline=None, max_examples=150)
def test_any_solver_on_any_grid_schedule_shape_and_precision(on, grid, solver, shape, dtype, steps):
    data = Empirical(states((3, *shape[1:]), dtype, 5))
    x = on.prior(shape, 0, dtype=dtype)
    path = solve(data.denoiser(on), x, steps, solver=solver, grid=grid, generator=0)
    assert path.xs.shape == (steps + 1, *shape)
    assert path.xs.dtype == dtype
    assert torch.isfinite(path.xs).all()


@given(
    st.floats(),
    st.integers(-2, 9),
    st.integers(-2, 9),
    st.integers(-2, 9),
    st.integers(-2, 9),
    st.sampled_from([Picard, Anderson, Broyden]),
)
@quick
def test_a_parallel_solver_runs_exactly_if_its_settings_fit(tolerance, window, start, at_once, steps, method):
    steps = max(steps, 1)
    good = 0 < tolerance < math.inf and 1 <= window <= steps and 0 <= start <= steps and at_once >= 1

    def run():
        return solve(D, x, steps, solver=method(DDIM(), tolerance, window, start, at_once))

    if good:
        assert torch.isfinite(run().sweeps).all()
    else:
        with pytest.raises(ValueError, match="must be"):
            run()


@given(st.integers(1, 24), st.integers(-1, 30))
@quick
def test_blocks_are_accepted_exactly_if_they_divide_the_grid(steps, blocks):
    if blocks >= 1 and steps % blocks == 0:
        assert solve(D, x, steps, solver=Parareal(blocks=blocks)).fronts[-1] == steps
    else:
        with pytest.raises(ValueError, match=r"blocks must (be|divide)"):
            solve(D, x, steps, solver=Parareal(blocks=blocks))


@pytest.mark.slow
@given(st.text(max_size=12), st.sampled_from([schedule, mixture, solver_by_name, lambda name: time_grid(vp, 3, name)]))
@quick
def test_any_unknown_word_is_one_sentence_that_lists_what_is_allowed(word, lookup):
    if word.partition(":")[0] in {*SCHEDULES, *MIXTURES, *SOLVERS, *PARALLEL, *GRIDS}:
        return
    if lookup is schedule and ":" in word and all(part.isidentifier() for part in word.split(":")):
        return  # an import path
    with pytest.raises(ValueError, match=r"unknown .*; allowed: "):
        lookup(word)


@given(st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.text(max_size=3), st.none()))
@quick
def test_no_count_but_a_whole_number_is_accepted(steps):
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got"):
        time_grid(UserSchedule(), steps)


@given(st.integers(1, 5), st.floats(-1, 1), st.data())
@quick
def test_weights_must_be_a_distribution(K, shift, data):
    weights = np.array([data.draw(st.floats(0.1, 1)) for _ in range(K)])
    weights = weights / weights.sum()
    means = np.arange(K)[:, None]
    assert GaussianMixture(means, std=1.0, weights=weights).components == K
    if abs(shift) > 1e-5:
        with pytest.raises(ValueError, match="weights must be positive and sum to 1"):
            GaussianMixture(means, std=1.0, weights=weights + np.eye(K)[0] * shift)


@given(st.integers(1, 4), st.floats(-2, 2), st.integers(0, 99))
@quick
def test_covariances_must_be_positive_definite(d, least, seed):
    if abs(least) < 1e-6:
        return
    axes = torch.linalg.qr(normal(d, d, seed=seed)).Q
    cov = (axes * torch.tensor([least] + [1.0] * (d - 1), dtype=torch.float64)) @ axes.T
    cov = (cov + cov.T) / 2
    if least > 0:
        assert torch.allclose(GaussianMixture(torch.zeros(1, d), cov=cov).covariances[0], cov, atol=1e-12)
    else:
        with pytest.raises(ValueError, match="must be positive definite"):
            GaussianMixture(torch.zeros(1, d), cov=cov)


def test_a_schedule_is_no_name_and_a_model_returns_a_prediction():
    with pytest.raises(ValueError, match=r"schedule must be a Schedule, such as toydiff.VP\(\), got 'vp'"):
        time_grid("vp", 5)
    with pytest.raises(ValueError, match="alphas_bar must be numbers"):
        Tabulated("a")

    class Bare(Denoiser):
        def forward(self, x, t, cond=None):
            return x

    with pytest.raises(ValueError, match=r"Bare\.forward must return a Prediction.*got Tensor"):
        solve(Bare(Linear()), torch.zeros(2, 2), 2)


class Plain(Solver):
    """A solver without settings, which is no dataclass."""


def test_a_solver_without_settings_has_a_name(monkeypatch):
    plain = Entry(name="plain", solver=Plain(), title="", paper="", color="#000000")
    monkeypatch.setitem(SOLVERS, "plain", plain)
    assert solver_by_name("plain") is plain.solver
    with pytest.raises(ValueError, match=r"unknown setting of plain 'eta'; allowed: "):
        solver_by_name("plain:eta=1")
