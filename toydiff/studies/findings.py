"""Things measured here that we have not found measured elsewhere, each as mean and deviation over seeds.

A finding has a measure: a function of a seed that returns figures by name. They use exact mixtures, exact laws of
tokens, or bundled weights. `tests/benchmarks/findings.py` prints them and writes FINDINGS.md.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from .. import grids, mixtures, runs
from ..denoisers import Wrapper
from ..measure import fitted_order, paired_error
from ..prediction import Prediction
from ..problems import problem
from ..schedules import VE, VP, schedule
from ..solvers import DEFAULT_SOLVER, SOLVERS, reference, solve
from ..solvers.learning import learn_solver
from ..support.words import plural
from ..training import Draws
from .orders import WINDOW, convergence, deterministic
from .parallel_sampling import TARGET, compare
from .tokens import mismatches

Figures = dict[str, float]
TABLE = "scaled-linear"
"""The schedule: Stable Diffusion's table."""


def published_order(seed: int) -> Figures:
    """Fitted orders of third-order multistep solvers on a random mixture, between two inner noise levels."""
    names = ("dpm++3m-published", "dpm++3m", "unipc2")
    rows = convergence(mixtures.random_mixture(seed), solvers=names, schedules=[TABLE], starts=32, seed=seed)
    return {name: row["measured"] for name, row in zip(names, rows, strict=True)}


def whole_walk_order(seed: int) -> Figures:
    """Fitted orders of solvers that declare 3, all the way from noise to data, each on its own kind of grid."""
    mixture, S = mixtures.random_mixture(seed), schedule(TABLE)
    D, steps, found = mixture.denoiser(S), (20, 40, 80), {}
    x = mixture.marginal(S, 1.0).sample(64, seed, dtype=torch.float64)
    exact = reference(D, x)
    for solver, grid in ((DEFAULT_SOLVER, grids.DEFAULT_GRID), ("dpm++3m", "lambda"), ("deis3", "karras")):
        errors = [paired_error(solve(D, x, n, solver=solver, grid=grid).end, exact).median for n in steps]
        found[f"{solver} on {grid}"] = fitted_order(steps, errors)
    return found


class WholeTimesteps(Wrapper):
    """A denoiser that is called at the nearest of 1000 whole timesteps, as a checkpoint's table has them."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: float = 1.0) -> Prediction:
        p = self.denoiser(x, (t * 1000).round() / 1000, cond, guidance_scale)
        return Prediction.of("eps", p.eps, x, t, self.schedule)


def whole_timesteps_order(seed: int) -> Figures:
    """The fitted order of DPM-Solver-3 with exact times, and where the model is called at whole timesteps."""
    mixture, S = mixtures.random_mixture(seed), schedule(TABLE)
    D, found = mixture.denoiser(S), {}
    steps = (40, 80, 160)
    start = S.t_of_lam(torch.tensor(WINDOW[0], dtype=torch.float64))
    x = mixture.marginal(S, float(start)).sample(32, seed, dtype=torch.float64)
    at = {n: S.t_of_lam(torch.linspace(*WINDOW, n + 1, dtype=torch.float64)) for n in steps}
    exact = reference(D, x, float(start), float(at[steps[0]][-1]))
    for name, model in {"exact times": D, "whole timesteps": WholeTimesteps(D)}.items():
        errors = [paired_error(solve(model, x, solver="dpm3", ts=at[n]).end, exact).rms for n in steps]
        found[name] = fitted_order(steps, errors)
    return found


def default_against_schedulers(seed: int) -> Figures:
    """The median error of the default in 5, 10, 20 calls, over that of the best of diffusers' deterministic algorithms
    and all grids, chosen with hindsight for this mixture."""
    mixture, S = mixtures.random_mixture(seed), schedule(TABLE)
    D = mixture.denoiser(S)
    x = mixture.marginal(S, 1.0).sample(128, seed, dtype=torch.float64)
    exact, found = reference(D, x), {}
    theirs = [name for name in deterministic() if "diffusers" in SOLVERS[name].elsewhere]
    for nfe in (5, 10, 20):
        errors = [
            paired_error(path.end, exact).median
            for name in theirs
            for grid in grids.GRIDS
            for path in [solve(D, x, max(nfe // SOLVERS[name].solver.nfe_per_step, 1), solver=name, grid=grid)]
            if path.nfe <= nfe
        ]
        found[f"{nfe} calls"] = paired_error(solve(D, x, nfe).end, exact).median / min(errors)
    return found


def guarded_under_guidance(seed: int) -> Figures:
    """Median errors in 5 steps at guidance scale 7.5 on the ring: order 3 without and with its guard, and DDIM."""
    ring, S = mixtures.ring(), VP()
    D, cond = ring.denoiser(S), torch.arange(256) % 8
    x = ring.marginal(S, 1.0).sample(256, seed, dtype=torch.float64)
    exact = reference(D, x, cond=cond, guidance_scale=7.5, tolerance=1e-8)
    return {
        name: paired_error(
            solve(D, x, 5, solver=solver, grid=grids.DEFAULT_GRID, cond=cond, guidance_scale=7.5).end, exact
        ).median
        for name, solver in {"not guarded (ab3)": "ab3", "guarded": "guarded", "ddim": "ddim"}.items()
    }


def picard_coordinates(seed: int) -> Figures:
    """Rounds until the median sample is within 0.01 of the sequential walk of 100 steps: plain Picard and Anderson's,
    in x, and in x/alpha, where the walk has the same levels and the same samples."""
    mixture, S, Z = mixtures.random_mixture(seed), schedule(TABLE), VE()
    ts = grids.time_grid(S, 100, "uniform", data_std=mixture.data_std).double()
    levels = Z.t_of_lam(S.lam(ts))
    levels[-1] = 0.0
    x = mixture.marginal(S, 1.0).sample(256, seed, dtype=torch.float64)
    found = {}
    for name, on, start, times in (("in x", S, x, ts), ("in x/alpha", Z, x / S.alpha(ts)[0], levels)):
        D = mixture.denoiser(on)
        walk = solve(D, start, solver="ddim", ts=times)
        for method in ("picard", "anderson"):
            path = solve(D, start, solver=f"{method}:tolerance=1e-6", ts=times)
            assert path.sweeps is not None  # a parallel sampler has them
            errors = (path.sweeps[:, -1] - walk.end).norm(dim=2).median(1).values
            found[f"{method} {name}"] = float((errors <= TARGET).nonzero()[0])
    return found


def accelerated_tail(seed: int) -> Figures:
    """Rounds to 0.01 of the sequential walk of 100 steps, by the median sample and by the 95th percentile."""
    rows = compare(steps=(100,), methods=("picard", "broyden"), cost=0, seed=seed)
    return {
        f"{row['solver']}, {which}": float(row[key])
        for row in rows
        for which, key in (("median", "rounds_to_target"), ("95th percentile", "rounds_to_target_p95"))
    }


def sct_bias(seed: int) -> Figures:
    """The mean of (x~_0 - E[x_0 | x_t])·x_t in its standard errors, for SCT's reference batches of n with the source in
    them, and without it."""
    mixture, on, repeats = mixtures.random_mixture(seed), VP(), 4000
    draws, found = Draws(seed), {}
    t = on.t_of_lam(torch.tensor(-math.log(0.6), dtype=torch.float64))
    D = mixture.denoiser(on)
    for n in (2, 8, 32):
        x0 = mixture.sample(repeats * n, 7 * seed + n, dtype=torch.float64).view(repeats, n, -1)
        x = on.mix(x0[:, 0], draws.normal(repeats, x0.shape[2]).double(), t)
        exact = D(x, t).x0
        for name, batch in (("", x0), (" without the source", x0[:, 1:])):
            logits = -(x[:, None] - on.alpha(t) * batch).square().sum(2) / (2 * on.sigma(t) ** 2)
            target = (logits.softmax(1)[..., None] * batch).sum(1)
            off = ((target - exact) * x).sum(1)
            found[f"n = {n}{name}"] = float(off.mean() / (off.std() / math.sqrt(repeats)))
    return found


def learned_solver(seed: int) -> Figures:
    """The median error in 5 steps of a solver learned for the exact ring, over the default's, on noises that it has not
    seen; and how far its first step goes, as a share of the default's, in log NSR."""
    ring, S = mixtures.ring(), schedule(TABLE)
    D = ring.denoiser(S)
    x = ring.marginal(S, 1.0).sample(160, seed, dtype=torch.float64)
    *_, found = islice(learn_solver(D, x, 5, truth_steps=60, seconds=1e6), 12)
    fresh = ring.marginal(S, 1.0).sample(512, 1000 + seed, dtype=torch.float64)
    exact = reference(D, fresh)
    default, learned = solve(D, fresh, 5), solve(D, fresh, 5, solver=found.solver)
    error, base = (paired_error(path.end, exact).median for path in (learned, default))
    spans = [float(S.lam(path.ts[1]) - S.lam(path.ts[0])) for path in (learned, default)]
    return {"error / the default's": error / base, "first step / the default's": spans[0] / spans[1]}


def lcm_goes_elsewhere(seed: int) -> Figures:
    """How far students of the bundled ring's teacher end from its ODE, from the same noise, by their steps."""
    teacher = runs.of_vectors(runs.load("ring-teacher").denoiser, "a teacher is")
    scale = teacher.schedule.sigma(torch.ones(()))
    x = scale * torch.randn(2000, 2, generator=torch.Generator().manual_seed(seed))
    exact = solve(teacher, x, 50, solver="dpm2", keep="end").end
    found = {}
    for id_, steps, solver in (
        ("ring-lcm", 1, "lcm"),
        ("ring-lcm", 8, "lcm"),
        ("ring-pcm-2", 2, "ddim"),
        ("ring-pcm-8", 8, "ddim"),
    ):
        student = runs.of_vectors(runs.load(id_).denoiser, "a student is")
        end = solve(student, x, steps, solver=solver, grid="uniform", generator=seed, keep="end").end
        found[f"{'LCM' if solver == 'lcm' else 'PCM'}, {plural(steps, 'step')}"] = paired_error(end, exact).rms
    return found


def lcm_overshoots(seed: int) -> Figures:
    """How far samples of the ring are out from its middle, over the radius of the modes: the exact denoiser at guidance
    scale 7.5, by LCM's sampler, which takes every step to the end and adds noise, and by the flow's solver."""
    ring, S = mixtures.ring(), VP()
    D, cond = ring.denoiser(S), torch.arange(512) % 8
    x = ring.marginal(S, 1.0).sample(512, seed, dtype=torch.float64)
    radius = float(ring.means.norm(dim=1).mean())
    found = {}
    for name, solver, steps, g in (
        ("LCM, 4 steps, g = 1", "lcm", 4, 1.0),
        ("LCM, 4 steps, g = 7.5", "lcm", 4, 7.5),
        ("the default, 25 steps, g = 7.5", DEFAULT_SOLVER, 25, 7.5),
    ):
        end = solve(D, x, steps, solver=solver, cond=cond, guidance_scale=g, generator=seed, keep="end").end
        found[name] = float(end.norm(dim=1).mean()) / radius
    return found


def two_bits(seed: int) -> Figures:
    """The mismatch of two equal bits times 2N, which is 1 for exact jumps, and the order by which it falls; exact laws,
    so that a seed changes nothing."""
    steps = (8, 16, 32)
    rows = mismatches(steps, samplers=("jump-exact", "tau-midpoint"))
    of = {name: [row["mismatch"] for row in rows if row["sampler"] == name] for name in ("jump-exact", "tau-midpoint")}
    return {
        "2N times the mismatch, exact jumps": 2 * steps[-1] * of["jump-exact"][-1],
        "order of exact jumps": fitted_order(steps, of["jump-exact"]),
        "order of the midpoint": fitted_order(steps, of["tau-midpoint"]),
        "midpoint / exact jumps, 32 steps": of["tau-midpoint"][-1] / of["jump-exact"][-1],
    }


def instaflow_damage(seed: int) -> Figures:
    """The Fréchet distance in floors of the bundled InstaFlow student of digits in 1, 2, 4 steps, of 500 samples."""
    rows = runs.evaluate(runs.load("digits-instaflow"), problem("digits"), steps=(1, 2, 4), n=500, seed=seed)
    return {plural(row["steps"], "step"): row["distance"] / row["floor"] for row in rows}


@dataclass(frozen=True)
class Finding:
    """A measure, and what it says in words, without figures."""

    id: str
    says: str
    measure: Callable[[int], Figures]
    holds: Callable[[Sequence[float]], bool]
    """Whether the words are true of the means, in the order of the figures."""
    seeds: int = 5
    quick: bool = False
    """Whether it takes about a second of the processor or less."""

    @property
    def command(self) -> str:
        return f"python tests/benchmarks/findings.py {self.id}"

    def figures(self, seeds: Sequence[int] | None = None) -> dict[str, tuple[float, float]]:
        """{name: (mean, deviation over seeds)}. `ValueError` for fewer than two seeds, and where the words are not true
        of what was measured."""
        seeds = range(self.seeds) if seeds is None else seeds
        if len(seeds) < 2:
            raise ValueError(f"a spread needs two seeds or more, got {len(seeds)}")
        found = [self.measure(seed) for seed in seeds]
        values = {name: [one[name] for one in found] for name in found[0]}
        means = [statistics.mean(value) for value in values.values()]
        if not self.holds(means):
            raise ValueError(f"the words of {self.id} are not true of {dict(zip(values, means, strict=True))}")
        return {name: (statistics.mean(value), statistics.stdev(value)) for name, value in values.items()}


FINDINGS = {
    finding.id: finding
    for finding in (
        Finding(
            "published-order",
            "The third-order multistep solver as published, and as libraries run it, is of order 2; with the missing "
            "factor 2 it is of order 3, and UniPC-2 is too.",
            published_order,
            lambda f: abs(f[0] - 2) < 0.1 and abs(f[1] - 3) < 0.1 and abs(f[2] - 3) < 0.1,
        ),
        Finding(
            "whole-walk-order",
            "From pure noise to clean data other third-order solvers lose order in the two end steps; the default "
            "keeps it.",
            whole_walk_order,
            lambda f: f[0] > 2.8 > max(f[1:]),
        ),
        Finding(
            "whole-timesteps",
            "A model that is called at whole timesteps, out of 1000, leaves a third-order solver less than order 1.",
            whole_timesteps_order,
            lambda f: f[0] > 2.9 and f[1] < 1,
        ),
        Finding(
            "default",
            "One setting for all mixtures is ahead of the best of diffusers' deterministic algorithms (as they are "
            "here) on the best grid, chosen for each mixture with hindsight: the ratio of median errors.",
            default_against_schedulers,
            lambda f: max(f) < 1,
        ),
        Finding(
            "guard",
            "At guidance scale 7.5 in 5 steps an order-3 solver fails by two orders of magnitude. A guard for each "
            "sample brings it to within twice the error of DDIM.",
            guarded_under_guidance,
            lambda f: f[0] > 50 * f[2] and f[1] < 2 * f[2],
            quick=True,
        ),
        Finding(
            "picard-coordinates",
            "How many rounds Picard iteration needs depends on the coordinates of one and the same walk. Anderson's, "
            "built with the scale of the state, hardly.",
            picard_coordinates,
            lambda f: f[2] > 2 * f[0] and abs(f[3] - f[1]) < 1,
        ),
        Finding(
            "accelerated-tail",
            "Acceleration saves more rounds for the typical sample than for the slowest in twenty.",
            accelerated_tail,
            lambda f: f[0] / f[2] > f[1] / f[3],
        ),
        Finding(
            "sct-unbiased",
            "SCT's mean over a reference batch is unbiased for every batch size, as long as the source is in it; "
            "without the source it is far off. Bias in standard errors of 4,000 batches.",
            sct_bias,
            lambda f: max(map(abs, f[::2])) < 2 and min(map(abs, f[1::2])) > 5,
            quick=True,
        ),
        Finding(
            "learned-solver",
            "A few dozen learned numbers in the place of a solver's leave less than a tenth of the default's error in "
            "5 steps, on an exact model. The first step, in log NSR, stays nearly as long.",
            learned_solver,
            lambda f: f[0] < 0.1 and abs(f[1] - 1) < 0.25,
            seeds=3,
        ),
        Finding(
            "lcm-elsewhere",
            "With more steps LCM's noise ends far from where the teacher's ODE takes it; that of PCM stays. Root mean "
            "square distances.",
            lcm_goes_elsewhere,
            lambda f: f[1] > 10 * f[0] and f[3] < f[0],
        ),
        Finding(
            "lcm-overshoots",
            "Guided as strongly as its teacher, LCM's sampler shoots far beyond the data, since each step goes to the "
            "guided end; the flow at the same scale by much less. Distances from the middle, in radii of the ring.",
            lcm_overshoots,
            lambda f: abs(f[0] - 1) < 0.05 and f[1] - 1 > 4 * (f[2] - 1) > 0,
            quick=True,
        ),
        Finding(
            "two-bits",
            "The error of N steps on tokens can be counted: two equal bits differ with probability 1/(2N). A midpoint "
            "step, two calls, makes it smaller, and leaves the order at about 1.",
            two_bits,
            lambda f: abs(f[0] - 1) < 1e-9 and abs(f[1] - 1) < 1e-9 and abs(f[2] - 1) < 0.15 and f[3] < 1,
            seeds=2,
            quick=True,
        ),
        Finding(
            "instaflow",
            "A student that is trained at t = 1 alone gets worse with every step more: its later calls are at times "
            "that it has never seen. Digits, in floors.",
            instaflow_damage,
            lambda f: f[0] < f[1] < f[2],
            seeds=3,
        ),
    )
}


def written(mean: float, std: float) -> str:
    """A figure with its spread, to the spread's two digits."""
    if std <= 1e-9 * abs(mean):
        return f"{mean:.4g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def table_row(finding: Finding) -> str:
    """The finding as a row of a table in Markdown, measured now."""
    figures = "; ".join(f"{name}: **{written(*pair)}**" for name, pair in finding.figures().items())
    return f"| {finding.says} | {figures} | `{finding.command}` |"
