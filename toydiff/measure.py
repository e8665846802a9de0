"""Measures: how fast an error falls, how far two sets of samples are apart, which modes were found, how straight a path
is.

Tensors and trajectories go in, Python numbers come out. Everything is computed in float64 on the CPU, whatever the
dtype of the input. A distance between two finite sets is not 0 even if both come from the same distribution: report its
`floor` beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoisers import Denoiser, check_denoiser
from .mixtures import Empirical, GaussianMixture
from .prediction import jump
from .schedules import Schedule, check_schedule, expand
from .solvers import Trajectory
from .support.checks import check_count, check_finite, check_positive, check_same, check_state, shape, unknown
from .support.words import quoted

ENTRIES = 2**22
"""Float64 numbers in the largest intermediate of a chunked computation (32 MiB)."""


# ---- error against work


def fitted_order(steps: Sequence[float] | Tensor, errors: Sequence[float] | Tensor, *, floor: float = 0.0) -> float:
    """The p of error = C steps^-p by least squares: minus the slope of log(error) against log(steps). Positive where
    errors fall.

    steps (n,): numbers of steps, or of network calls, > 0; errors (n,): >= 0. All points weigh the same; the caller
    gives those at which the power law holds.

    Points whose error is at or below `floor` are left out: rounding made them, not the method. For float64, data of
    size 1 and a reference solved to 1e-12, a fair floor is 1e-11. With floor = 0, the default, no point is left out,
    and an error of 0 is refused, since it has no logarithm.

    `ValueError` for numbers that are negative, NaN or infinite, for lengths that differ, and for fewer than two points,
    or two different numbers of steps, above the floor.
    """
    steps, errors = _numbers(steps, "steps"), _numbers(errors, "errors")
    if steps.shape != errors.shape:
        raise ValueError(f"steps and errors must have the same length, got {len(steps)} and {len(errors)}")
    if not math.isfinite(floor) or floor < 0:
        raise ValueError(f"floor must be a finite number >= 0, got {quoted(floor)}")
    if not bool((steps > 0).all()):
        raise ValueError(f"steps must be > 0, got a least value of {float(steps.min()):g}")
    if bool((errors < 0).any()):
        raise ValueError(f"errors must be >= 0, got a least value of {float(errors.min()):g}")
    if floor == 0 and bool((errors == 0).any()):
        raise ValueError("an error of 0 has no logarithm; give a floor > 0 to leave out what is rounding")
    above = errors > floor
    x, y = steps[above].log(), errors[above].log()
    if len(x.unique()) < 2:
        raise ValueError(
            f"an order needs errors above the floor {floor:g} at two different numbers of steps at least, "
            f"got {int(above.sum())} such error(s)"
        )
    x = x - x.mean()
    return -float((x * y).sum() / (x**2).sum())


@dataclass(frozen=True)
class PairedError:
    """Distances |a_i - b_i| of paired samples: their median, mean, 95th percentile and root mean square."""

    median: float
    mean: float
    p95: float
    rms: float


def paired_error(a: Tensor, b: Tensor) -> PairedError:
    """Euclidean distances |a_i - b_i| between sample i of a and sample i of b, summarised. With b the end of the exact
    flow, they are the errors of a.

    a, b: (B, ...), of the same shape and dtype, B >= 1; a sample's distance is over all its dimensions. The median
    describes the typical sample. The root mean square is dominated by the few samples that an unstable or coarse solver
    throws to another mode. `ValueError` for shapes or dtypes that differ, NaN and infinity.
    """
    for x, name in ((a, "a"), (b, "b")):
        _check_samples(x, name)
    check_same(a, b, "a and b")
    off = (_double(a) - _double(b)).flatten(1).norm(dim=1)
    return PairedError(
        median=float(off.quantile(0.5)),
        mean=float(off.mean()),
        p95=float(off.quantile(0.95)),
        rms=float((off**2).mean().sqrt()),
    )


# ---- distances between two sets of samples


def wasserstein2(a: Tensor, b: Tensor, *, limit: int = 5000) -> float:
    """The exact Wasserstein-2 distance of two sets of points: sqrt(min over couplings of sum_ij pi_ij |a_i - b_j|^2).

    a (n, d) and b (m, d), every point with equal weight; in the unit of the data. The coupling is found by POT's
    network simplex (`ot.emd2`; Bonneel et al. 2011). It takes memory for n m numbers. Its time grows about as n^2: less
    than a second for n = m = 2000, several for 5000.

    `ValueError` for a set larger than `limit` (raise the limit, or use `sliced_wasserstein`), for dimensions or dtypes
    that differ, empty sets and NaN. `RuntimeError` if the simplex stops before it has found the optimum.
    """
    _check_sets(a, b)
    check_count(limit, "limit")
    if max(len(a), len(b)) > limit:
        raise ValueError(
            f"exact Wasserstein-2 of {len(a)} and {len(b)} points exceeds the limit of {limit}; take fewer, raise the "
            "limit or use sliced_wasserstein"
        )
    import ot
    from scipy.spatial.distance import cdist

    # by differences: the expansion |a|^2 - 2ab + |b|^2 would lose the digits of small distances
    cost = cdist(_double(a).numpy(), _double(b).numpy(), "sqeuclidean")
    squared, log = ot.emd2([], [], cost, numItermax=10**7, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"the optimal coupling was not found: {log['warning']}")
    return math.sqrt(max(float(squared), 0.0))


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 128, seed: int = 0) -> float:
    """The sliced Wasserstein-2 distance: sqrt(mean over directions u of W2^2 of the points' projections on u) (Bonneel
    et al. 2015).

    a (n, d) and b (m, d), equal weights; in the unit of the data. A shift by c has the value |c|/sqrt(d). A projection
    costs a sort, so n = 10^4 takes about a second; memory is bounded by chunks. The directions are `projections` random
    unit vectors that depend on `seed` and d alone: methods measured with one seed are compared along the same
    directions. Computed by POT. `ValueError` as for `wasserstein2`.
    """
    _check_sets(a, b)
    check_count(projections, "projections")
    check_count(seed, "seed", 0)
    import ot

    points, others = _double(a).numpy(), _double(b).numpy()
    directions = ot.sliced.get_random_projections(a.shape[1], projections, seed)
    columns = max(1, ENTRIES // (len(a) + len(b)))
    squares = 0.0
    for start in range(0, projections, columns):
        part = directions[:, start : start + columns]
        squares += part.shape[1] * float(ot.sliced_wasserstein_distance(points, others, p=2, projections=part)) ** 2
    return math.sqrt(squares / projections)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """The energy distance D = sqrt(2 E|a - b| - E|a - a'| - E|b - b'|), a metric (Szekely and Rizzo 2013).

    a (n, d) and b (m, d), equal weights. The means run over all pairs, a point with itself included, so that D >= 0,
    and D = 0 exactly when the two multisets are equal (the root turns rounding of 1e-16 into 1e-8). In one dimension
    this is `scipy.stats.energy_distance`. Time n m, memory bounded by chunks. `ValueError` as for `wasserstein2`.
    """
    _check_sets(a, b)
    a, b = _double(a), _double(b)
    return math.sqrt(max(2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b), 0.0))


def _mean_distance(a: Tensor, b: Tensor) -> float:
    rows = max(1, ENTRIES // len(b))
    # by differences, not by matrix products, for the sake of small distances
    total = sum(
        float(torch.cdist(part, b, compute_mode="donot_use_mm_for_euclid_dist").sum()) for part in a.split(rows)
    )
    return total / (len(a) * len(b))


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (d,) and covariance (d, d) of features, float64: what a Fréchet distance knows of a set."""

    mean: Tensor
    cov: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Of features (n, d), n >= 2; the covariance has n - 1 in its denominator."""
        _check_samples(features, "features")
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features must have shape (n, d) with n >= 2, got {shape(features)}")
        f = _double(features)
        return cls(f.mean(0), torch.atleast_2d(torch.cov(f.T)))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): the squared Fréchet distance of two Gaussians with these
    moments (Heusel et al., arXiv 1706.08500, eq. 6).

    a, b: features (n, d), or their `Moments`. In the squared unit of the features. With features of a classifier this
    is what FID measures. Its value depends on the features, and for finite sets it is biased upwards by about d^2/n: so
    compare sets of one size, and with a floor. `ValueError` for dimensions that differ, NaN, and sets of fewer than
    two.
    """
    a, b = (x if isinstance(x, Moments) else Moments.of(x) for x in (a, b))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"a and b must have the same dimension, got {len(a.mean)} and {len(b.mean)}")
    # tr (C_a C_b)^(1/2) = tr (R C_b R)^(1/2) with R = C_a^(1/2): a symmetric matrix, whose eigenvalues are real
    values, axes = torch.linalg.eigh(a.cov)
    root = (axes * values.clamp(min=0).sqrt()) @ axes.T
    overlap = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    gap = (a.mean - b.mean).square().sum()
    return max(float(gap + a.cov.trace() + b.cov.trace() - 2 * overlap), 0.0)


def nearest(samples: Tensor, data: Tensor) -> Tensor:
    """The Euclidean distance of each sample (n, d) to the nearest of the data (m, d): (n,) in float64.

    A model that copies its training data has samples nearer to them than true samples that it has not seen are: compare
    with the distances of held-out data. `ValueError` for sets of different dimensions, empty ones, and NaN.
    """
    _check_sets(samples, data)
    data = _double(data)
    return torch.cat([torch.cdist(part, data).min(1).values for part in _double(samples).split(500)])


# ---- floors


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: their mean, their standard deviation (n - 1 in the denominator) and themselves."""

    mean: float
    std: float
    values: tuple[float, ...]


def spread(values: Sequence[float] | Tensor) -> Spread:
    """Mean and standard deviation of two or more repetitions; `ValueError` for fewer, and for NaN or infinity."""
    numbers = _numbers(values, "values")
    if len(numbers) < 2:
        raise ValueError(f"a spread needs at least 2 values, got {len(numbers)}")
    return Spread(float(numbers.mean()), float(numbers.std()), tuple(numbers.tolist()))


def floor(
    distance: Callable[[Tensor, Tensor], float],
    draw: Callable[[int, int], Tensor],
    n: int,
    *,
    seeds: Sequence[int] = range(5),
) -> Spread:
    """The value of a distance between two sets of n true samples. No difference below it can be seen.

    `draw(n, seed)` returns n true samples, (n, d), such as `mixture.sample`; each s in `seeds` gives one value, between
    the independent draws of seeds 2s and 2s + 1. `distance` is any function of two sets; set its options with a lambda
    or functools.partial. `ValueError` for fewer than two seeds, or seeds that repeat or are not whole numbers >= 0.
    """
    check_count(n, "n")
    seeds = [check_count(seed, "each of the seeds", 0) for seed in seeds]
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"a floor needs two different seeds at least, each once, got {seeds}")
    return spread([distance(draw(n, 2 * seed), draw(n, 2 * seed + 1)) for seed in seeds])


# ---- modes


@dataclass(frozen=True, eq=False)
class Modes:
    """Which modes of a mixture a set of samples found, and how often.

    weights, expected: (K,) float64, the fraction of the samples at each mode and the mode's true weight. outside: the
    fraction of the samples at no mode, so that weights sum to 1 - outside. coverage: the fraction of the modes that
    were found. total_variation: (sum_k |weights_k - expected_k| + outside)/2, in [0, 1].
    """

    weights: Tensor
    expected: Tensor
    outside: float
    coverage: float
    total_variation: float


def modes(
    mixture: GaussianMixture,
    samples: Tensor,
    *,
    by: str = "component",
    fraction: float = 0.1,
    tail: float = 1e-3,
) -> Modes:
    """Which modes of a mixture the samples (n, d) found, and how often, against its weights.

    A sample is near a component if its Mahalanobis distance is below the one that the component's own samples exceed
    with probability `tail` in [0, 1) (chi-squared, d degrees of freedom). Of the components near it, a sample counts
    for the one with the greatest posterior probability. A sample near none adds to `outside`; of true samples at most a
    fraction `tail` does, and with tail = 0 none. A mode is found, and counts as covered, if it has at least `fraction`
    in (0, 1] of the samples that its weight promises. by: "component", or "label" for the classes of a labelled
    mixture, sorted.

    Where components overlap, this assignment moves some samples from one to another even if they are true: compare the
    total variation with its value for true samples, or use labels. `ValueError` for samples of another dimension, NaN,
    and options out of range.
    """
    if by not in ("component", "label"):
        raise unknown("by", by, ("component", "label"))
    labels = mixture.labels if by == "label" else None
    if by == "label" and labels is None:
        raise ValueError("this mixture has no labels; count by component, or give labels=... when making it")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {quoted(fraction)}")
    counts = _mode_counts(mixture, samples, tail)
    weights, expected = counts.double() / len(samples), mixture.weights
    outside = (len(samples) - int(counts.sum())) / len(samples)
    if labels is not None:
        own = (labels.unique()[:, None] == labels).to(torch.float64)
        weights, expected = own @ weights, own @ expected
    # a fraction that meets its threshold exactly must not fail it by rounding
    threshold = fraction * expected * (1 - 1e-12)
    return Modes(
        weights=weights,
        expected=expected,
        outside=outside,
        coverage=float((weights >= threshold).to(torch.float64).mean()),
        total_variation=0.5 * (float((weights - expected).abs().sum()) + outside),
    )


def mode_weights(mixture: GaussianMixture, samples: Tensor, *, tail: float = 1e-3) -> Tensor:
    """The fraction of samples (n, d) at each component, (K,) float64; `modes` says when a sample counts. The sum is 1
    where none is outside."""
    return _mode_counts(mixture, samples, tail).double() / len(samples)


def mode_coverage(
    mixture: GaussianMixture,
    samples: Tensor,
    *,
    by: str = "component",
    fraction: float = 0.1,
    tail: float = 1e-3,
) -> float:
    """The fraction of a mixture's modes that samples (n, d) found, in [0, 1]: `modes(...).coverage`."""
    return modes(mixture, samples, by=by, fraction=fraction, tail=tail).coverage


def _mode_counts(mixture: GaussianMixture, samples: Tensor, tail: float) -> Tensor:
    _check_samples(samples, "samples")
    if samples.ndim != 2 or samples.shape[1] != mixture.dim:
        raise ValueError(f"samples must have shape (n, {mixture.dim}) for this mixture, got {shape(samples)}")
    if not 0 <= tail < 1:
        raise ValueError(f"tail must lie in [0, 1), got {quoted(tail)}")
    from scipy.stats import chi2

    radius2 = float(chi2.isf(tail, mixture.dim))
    counts = torch.zeros(mixture.components, dtype=torch.int64)
    for part in _double(samples).split(max(1, ENTRIES // mixture.means.numel())):
        near = mixture.squared_distances(part) <= radius2
        best = torch.where(near, mixture.responsibilities(part), -1.0).argmax(1)
        counts += torch.bincount(best[near.any(1)], minlength=mixture.components)
    return counts


# ---- paths


def straightness(trajectory: Trajectory, *, normalised: bool = False) -> float:
    """Rectified flow's straightness S = int_0^1 E|(x_end - x_start) - dx/du|^2 du (arXiv 2209.03003, sec. 2.2): 0 for a
    straight path at constant speed.

    u = (t_first - t)/(t_first - t_last) runs from 0 to 1 along the trajectory. The integral is that of the polygon
    through its states, exactly: S = sum_i w_i E|(x_end - x_start) - (x_{i+1} - x_i)/w_i|^2 with w_i the step in u. It
    never exceeds that of the smooth path through the same states, and approaches it as steps are added. For a single
    step it is 0. `normalised` divides by E|x_end - x_start|^2, which makes it free of the data's unit.

    S measures x against the schedule's own time: off the linear schedule even an exact first-order path is curved. Its
    `first_orderness` is 0 on every schedule.

    `ValueError` for a trajectory without its states (solve with keep = "path"), for NaN, and for normalised = True
    where every path ends where it starts.
    """
    ts, xs, _ = _path(trajectory)
    w = expand((ts[:-1] - ts[1:]) / (ts[0] - ts[-1]), xs)
    whole = xs[-1] - xs[0]
    S = float((w * (whole - (xs[1:] - xs[:-1]) / w) ** 2).sum((0, 2)).mean())
    if not normalised:
        return S
    length2 = float((whole**2).sum(1).mean())
    if length2 == 0:
        raise ValueError("every path ends where it starts, so that its straightness cannot be normalised")
    return S / length2


def meeting(noise: Tensor, data: Tensor, *, within: float) -> Tensor:
    """Which pairs have a line x_t = (1 - t) x_0 + t eps that meets another pair's: (B,), true or false. Two lines meet
    if at some time they are at most `within` apart.

    noise, data: (B, D). Where lines meet, a velocity field can follow only one of them, so regression takes their mean
    (arXiv 2209.03003, sec. 2.1). The distance of two lines is smallest at t* = -<a, b>/|b|^2, with a the difference of
    their x_0 and b that of their velocities. Only 0 < t* < 1 counts: lines that are nearest at an end do not meet.
    `ValueError` for shapes that differ, NaN, and `within` that is not above 0.
    """
    for x, name in ((noise, "noise"), (data, "data")):
        _check_samples(x, name)
    check_same(noise, data, "noise and data")
    check_positive(within, "within")
    e, x = _double(noise).flatten(1), _double(data).flatten(1)
    a = x[:, None] - x
    b = (e[:, None] - e) - a
    t = -(a * b).sum(2) / (b * b).sum(2).clamp(min=1e-300)
    near = (a + t[..., None] * b).norm(dim=2) <= within
    return (near & (t > 0) & (t < 1)).any(1)


def first_orderness(
    trajectory: Trajectory, schedule: Schedule, *, kind: str = "eps", normalised: bool = False
) -> float:
    """How far a path is from first order: C = E mean_i |eps_i - mean_j eps_j|^2 over its N predictions (arXiv
    2410.07303, sec. 3.3).

    eps_i = (x_{t_i} - alpha x_0,i)/sigma, from the states and the predictions of x_0 of a trajectory on `schedule`. C
    is 0 exactly when the model's (x_0, eps) are constant along each path. Then the ODE is first-order, z = x/alpha is a
    straight line in NSR, and one jump is exact. With N = 1 it is always 0, which says nothing.

    kind = "x0" measures the predictions of x_0 instead. These are the velocity of y = x/sigma = eps + x_0/NSR, which is
    straight in 1/NSR for the same paths. `normalised` divides by the mean square, E mean_i |eps_i|^2: what is left is
    the fraction, in [0, 1], of the prediction that varies along the path.

    The mean weighs the grid's points alike, so compare on the same grid. Rounding is divided by sigma: float32 shows
    about 1e-4 in eps at sigma = 1e-3. A path with noise added on the way (eta, churn, SDE solvers) is not the ODE's.
    `ValueError` for a trajectory without its states (solve with keep = "path"), for NaN, for another `kind`, and for
    normalised = True where all predictions are 0.
    """
    check_schedule(schedule)
    if kind not in ("eps", "x0"):
        raise unknown("kind to compare along a path", kind, ("eps", "x0"))
    ts, xs, values = _path(trajectory)
    if kind == "eps":
        # times decrease, so all but the last are > 0, where sigma > 0
        alpha, sigma = expand(schedule.alpha(ts[:-1]), xs), expand(schedule.sigma(ts[:-1]), xs)
        values = (xs[:-1] - alpha * values) / sigma
    C = float((values - values.mean(0)).square().sum(2).mean())
    if not normalised:
        return C
    size2 = float(values.square().sum(2).mean())
    if size2 == 0:
        raise ValueError(f"all predictions of {kind} are 0, so that their variation cannot be normalised")
    return C / size2


def target_variance(
    mixture: GaussianMixture,
    schedule: Schedule,
    ts: Sequence[float] | Tensor,
    references: int = 1,
    *,
    samples: int = 4096,
    seed: int = 0,
) -> list[tuple[float, float, float]]:
    """How much the x_0 in a target of consistency training varies: a row (NSR, E|x~_0 - E[x_0 | x_t]|^2, its standard
    error) for each time t in ts.

    x~_0 is the softmax-weighted mean over a batch of `references` draws, one of which is the source of x_t (arXiv
    2410.18958; `distill.sct`). references = 1 is consistency training, whose x~_0 is that source; with the exact score
    the variance would be 0. About `samples` x_t are drawn, in 16 batches or more. `ValueError` for counts below 1.
    """
    check_schedule(schedule)
    check_count(references, "references")
    batches = max(check_count(samples, "samples") // references, 16)
    rng = torch.Generator().manual_seed(check_count(seed, "seed", 0))
    rows, at_once = [], max(ENTRIES // references**2, 1)
    for t in _numbers(ts, "ts"):
        squares = []
        for first in range(0, batches, at_once):
            shape_ = (min(at_once, batches - first), references, mixture.dim)
            x0 = mixture.sample(shape_[0] * references, rng, dtype=torch.float64)
            x = schedule.mix(x0, torch.randn(x0.shape, generator=rng, dtype=torch.float64), t)
            mean, alpha, sigma = mixture.denoiser(schedule)(x, t).x0, schedule.alpha(t), schedule.sigma(t)
            x0, x = x0.view(shape_), x.view(shape_)
            # -|x - alpha x0|^2/(2 sigma^2) up to what is the same for all x0
            closeness = alpha * (x @ x0.mT - 0.5 * alpha * x0.square().sum(2)[:, None])
            gap = closeness - closeness.amax(2, keepdim=True)
            # without noise, the nearest alone counts: 0/0 for that one
            weights = torch.softmax(torch.where(gap == 0, 0.0, gap / sigma**2), 2)
            squares.append((weights @ x0 - mean.view(shape_)).square().sum(2).mean(1))
        each = torch.cat(squares)
        rows.append((float(schedule.nsr(t)), float(each.mean()), float(each.std() / math.sqrt(batches))))
    return rows


def score_error(
    D: Denoiser,
    samples: Tensor,
    *,
    cond: Tensor | None = None,
    ts: Sequence[float] | Tensor = (0.1, 0.3, 0.5, 0.7, 0.9),
    seed: int = 0,
) -> float:
    """The root mean square of eps_D - eps*, over samples and times: how far D is from the ideal denoiser of the
    distribution that samples (n, ...) come from. Returns a number; D with eps = 0 everywhere has about 1.

    eps* is the ideal denoiser's of the samples themselves (`mixtures.Empirical`). Each sample is noised once at every
    time in ts, and is itself among the points, so that eps* is unbiased. eps* is noisy where few samples are near: take
    thousands of them, in few dimensions. cond (n,) or None: the labels of the samples, given to D.
    """
    check_denoiser(D)
    _check_samples(samples, "samples")
    if len(_numbers(ts, "ts")) == 0:
        raise ValueError("ts must hold one time at least")
    best = Empirical(samples, cond).denoiser(D.schedule)
    rng = torch.Generator().manual_seed(check_count(seed, "seed", 0))
    squares = []
    with torch.no_grad():
        for t in torch.as_tensor(ts, dtype=samples.dtype):
            noise = torch.randn(samples.shape, generator=rng, dtype=samples.dtype).to(samples.device)
            x = D.schedule.mix(samples, noise, t.to(samples.device))
            squares.append((D(x, t, cond).eps - best(x, t, cond).eps).square().mean())
    return math.sqrt(float(torch.stack(squares).mean()))


def consistency_error(D: Denoiser, trajectory: Trajectory, cond: Tensor | None = None) -> list[float]:
    """|jump(D(x_t, t, cond), t_end) - x_end|, root mean square over samples: how far from a trajectory's end the jumps
    from its states land. A list of N numbers, one for each time but the last.

    All are 0 for the trajectory's exact consistency function (arXiv 2303.01469, eq. 1). The trajectory, a teacher's or
    an exact one, lies on D's schedule. cond (B,) or None is D's condition. `ValueError` for a trajectory without its
    states.
    """
    check_denoiser(D)
    _path(trajectory)
    last = float(trajectory.ts[-1])
    with torch.no_grad():
        landed = [
            jump(D(x, t, cond), last)
            for x, t in zip(trajectory.xs[:-1], trajectory.ts[:-1].to(trajectory.xs), strict=True)
        ]
    return [paired_error(x, trajectory.end).rms for x in landed]


def _path(trajectory: Trajectory) -> tuple[Tensor, Tensor, Tensor]:
    """Its times (N+1,), states (N+1, B, D) and predictions of x_0 (N, B, D), checked, in float64."""
    if not isinstance(trajectory, Trajectory):
        raise ValueError(f"a Trajectory is needed, such as toydiff.solve returns, got {type(trajectory).__name__}")
    ts, xs, x0s = trajectory.ts, trajectory.xs, trajectory.x0s
    if len(xs) != len(ts) or len(x0s) != len(ts) - 1:
        raise ValueError(
            f"a path needs the states at its {len(ts)} times and a prediction at all but the last, got {len(xs)} and "
            f"{len(x0s)}; solve with keep='path'"
        )
    for x, name in ((xs, "the trajectory's states"), (x0s, "the trajectory's predictions")):
        check_finite(x, name)
    return _double(ts), _double(xs).flatten(2), _double(x0s).flatten(2)


# ---- input


def _double(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def _numbers(values: Sequence[float] | Tensor, what: str) -> Tensor:
    try:
        out = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what} must be a list of numbers, got {quoted(values)}") from None
    if out.ndim != 1:
        raise ValueError(f"{what} must have shape (n,), got {shape(out)}")
    check_finite(out, what)
    return out


def _check_samples(x: Tensor, what: str) -> None:
    check_state(x, what)
    if x.numel() == 0:
        raise ValueError(f"{what} must hold at least one sample, got shape {shape(x)}")
    check_finite(x, what)


def _check_sets(a: Tensor, b: Tensor) -> None:
    for x, name in ((a, "a"), (b, "b")):
        _check_samples(x, name)
        if x.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d), got {shape(x)}; flatten(1) makes points of images")
    # the numbers of samples may differ, what a sample is may not
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must have the same dimension, got shapes {shape(a)} and {shape(b)}")
    if a.dtype != b.dtype:
        raise ValueError(f"a and b must have the same dtype, got {a.dtype} and {b.dtype}")
