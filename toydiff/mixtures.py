"""Distributions whose diffusion is known exactly: Gaussian mixtures in any dimension, and finite data sets.

With x_t = alpha x_0 + sigma eps and x_0 ~ sum_k pi_k N(m_k, C_k), every marginal is again a mixture, with means alpha
m_k and covariances alpha^2 C_k + sigma^2 I, so the score, the best denoiser and the density are closed forms.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .denoisers import Denoiser
from .prediction import Prediction
from .schedules import HALF, Schedule, as_time, check_schedule, fitted
from .support.checks import (
    as_generator,
    check_count,
    check_finite,
    check_positive,
    check_range,
    check_state,
    shape,
    unknown,
)
from .support.sealed import rounded_digest
from .support.words import quoted

Seed = torch.Generator | int | None
"""A generator, a whole number, or None for torch's global generator."""


LEAST_STD = 1e-100
"""The least standard deviation of a mixture's component."""

NARROW = 1e-12
"""Below this standard deviation of a component, distances in units of it are computed in float64."""


def _rows(values: object, what: str) -> Tensor:
    try:
        out = torch.as_tensor(np.asarray(values) if isinstance(values, list | tuple) else values, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be an array of numbers: {error}") from None
    if not torch.isfinite(out).all():
        raise ValueError(f"{what} must be finite")
    return out.detach().cpu().clone()  # what a caller holds may change


def data_std(variances: Tensor, covariance_times: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """The scale of data by which the default solver and grid go: r^(1/4) l^(3/4).

    r^2 is the mean of the coordinates' variances (d,), and l^2 the greatest variance in any direction; r = l where all
    directions are alike. Where they differ, r alone loses samples and l alone costs accuracy, on mixtures in 2 to 64
    dimensions and on digits (`tests/benchmarks/kinds.py --exponent 0`, and 1). l is found by 30 power iterations, from
    `start` (d,); covariance_times multiplies by the covariance. 1 for data that are one point.
    """
    r, direction, l2 = math.sqrt(float(variances.mean())), start, 0.0
    for _ in range(30):
        size = float(direction.norm())
        if size == 0:
            return r or 1.0
        direction = direction / size
        product = covariance_times(direction)
        l2, direction = float(direction @ product), product
    return r**0.25 * max(math.sqrt(l2), r) ** 0.75


class GaussianMixture:
    """sum_k pi_k N(m_k, C_k) in d dimensions.

    - means: (K, d);
    - std or cov, exactly one: standard deviations () or (K,) (isotropic), or (K, d) (diagonal), all > 0; or covariances
      (d, d) or (K, d, d), symmetric positive definite;
    - weights: (K,), positive, with sum 1; equal by default;
    - labels: (K,) whole numbers >= 0, the class of each component; without them the mixture has no classes.

    `ValueError` says which of these does not hold. Parameters are kept in float64; results follow the dtype and device
    of x.
    """

    @torch.inference_mode(False)  # so that a mixture made while sampling serves in training too
    def __init__(
        self,
        means: Tensor | Sequence,
        *,
        std: Tensor | Sequence | float | None = None,
        cov: Tensor | Sequence | None = None,
        weights: Tensor | Sequence | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ):
        self.means = _rows(means, "means")
        if self.means.ndim != 2 or 0 in self.means.shape:
            raise ValueError(f"means must have shape (K, d) with K, d >= 1, got {shape(self.means)}")
        K, d = self.means.shape
        if (std is None) == (cov is None):
            raise ValueError("give the components' spread as exactly one of std and cov")
        # C_k = U_k diag(scales_k^2) U_k^T; U is None where the axes are the coordinates
        self._axes: Tensor | None = None
        if std is None:
            self._axes, self._scales = _axes_of_cov(_rows(cov, "cov"), K, d)
        else:
            self._scales = _scales_of_std(_rows(std, "std"), K, d)
        self.weights = torch.full((K,), 1 / K, dtype=torch.float64) if weights is None else _rows(weights, "weights")
        if self.weights.shape != (K,):
            raise ValueError(f"weights must have shape ({K},), one a component, got {shape(self.weights)}")
        self._narrow = float(self._scales.min()) < NARROW
        if float(self._scales.min()) < LEAST_STD:
            raise ValueError(
                f"std must be at least {LEAST_STD:g}, so that distances in units of it are numbers, got "
                f"{float(self._scales.min()):g}"
            )
        if not bool((self.weights > 0).all()) or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueError(
                f"weights must be positive and sum to 1, got a sum of {float(self.weights.sum()):g} "
                f"and a least weight of {float(self.weights.min()):g}"
            )
        self.weights = self.weights / self.weights.sum()
        self.labels = None if labels is None else _labels(labels, K)
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[list, tuple]] = {}

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.means.shape[1]

    @property
    def components(self) -> int:
        """The number of components K."""
        return self.means.shape[0]

    @property
    def covariances(self) -> Tensor:
        """The covariances C_k, (K, d, d), float64."""
        if self._axes is None:
            return torch.diag_embed(self._scales**2)
        return (self._axes * self._scales[:, None, :] ** 2) @ self._axes.mT

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that make the mixture again, by the names of its arguments, in float64. The axes of a covariance
        are not kept."""
        cov = self.covariances
        diagonal = cov.diagonal(dim1=1, dim2=2)
        alone = torch.equal(torch.diag_embed(diagonal), cov)
        spread = {"std": diagonal.sqrt()} if alone else {"cov": (cov + cov.mT) / 2}
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"means": self.means, "weights": self.weights, **spread, **labels}

    @property
    def mean(self) -> Tensor:
        """The mixture's mean, (d,), float64."""
        return self.weights @ self.means

    @property
    def std(self) -> float:
        """Root mean variance per coordinate: the sigma_data of this distribution."""
        off = self.means - self.mean
        return math.sqrt(float((self.weights * ((off**2).sum(1) + (self._scales**2).sum(1))).sum()) / self.dim)

    @functools.cached_property
    def data_std(self) -> float:
        """The scale of this distribution, by which the default solver and grid go: see `mixtures.data_std`."""
        off = self.means - self.mean
        unit = float(max(off.abs().max(), self._scales.max()))  # so that squares are numbers at any scale
        off, scales, weights = off / unit, self._scales / unit, self.weights[:, None]
        inside = scales**2 if self._axes is None else (self._axes**2 * scales[:, None, :] ** 2).sum(2)

        def covariance_times(v: Tensor) -> Tensor:
            if self._axes is None:
                spread = scales**2 * v
            else:
                spread = torch.einsum("kij,kj->ki", self._axes, scales**2 * torch.einsum("kij,i->kj", self._axes, v))
            return (weights * (spread + off * (off @ v)[:, None])).sum(0)

        start = torch.randn(self.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return unit * data_std((weights * (inside + off**2)).sum(0), covariance_times, start)

    def sample(
        self, n: int, generator: Seed = None, *, cond: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """n independent draws, (n, d); with `cond` (n,) each from its class. dtype: torch's default unless given."""
        return self._draw(n, generator, cond, dtype)[0]

    def sample_labelled(
        self, n: int, generator: Seed = None, *, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """n draws and their labels, (n, d) and (n,); a mixture without labels gives the component's index."""
        x, k = self._draw(n, generator, None, dtype)
        return x, k if self.labels is None else self.labels[k]

    def _draw(self, n: int, seed: Seed, cond: Tensor | None, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        check_count(n, "n")
        rng = as_generator(seed)
        if cond is None:
            k = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        else:
            k = torch.multinomial(self._log_weights(cond, n).exp(), 1, generator=rng).squeeze(1)
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=rng) * self._scales[k]
        if self._axes is not None:
            z = torch.einsum("nij,nj->ni", self._axes[k], z)
        return (self.means[k] + z).to(dtype or torch.get_default_dtype()), k

    def marginal(self, schedule: Schedule, t: Tensor | float) -> "GaussianMixture":
        """The law of x_t, itself a mixture: means alpha m_k, covariances alpha^2 C_k + sigma^2 I. t () in [0, 1]."""
        check_schedule(schedule)
        t = as_time(t).to(torch.float64)
        if t.ndim:
            raise ValueError(f"a marginal has one time, got t of shape {shape(t)}")
        check_range(t)
        alpha, sigma = schedule.alpha(t).cpu(), schedule.sigma(t).cpu()
        out = GaussianMixture(
            alpha * self.means,
            std=torch.sqrt((alpha * self._scales) ** 2 + sigma**2),
            weights=self.weights,
            labels=self.labels,
        )
        out._axes = self._axes
        return out

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """log density at x (B, d), natural logarithm, (B,); of the class `cond` (B,) where given. At time t:
        `marginal(schedule, t).log_prob`."""
        log_prob = torch.logsumexp(self._log_joint_clean(x, cond), 1) - 0.5 * self.dim * math.log(2 * math.pi)
        return log_prob.to(x.dtype)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Posterior probability of each component given the clean x (B, d): (B, K)."""
        return torch.softmax(self._log_joint_clean(x, None), 1).to(x.dtype)

    def squared_distances(self, x: Tensor) -> Tensor:
        """The squared Mahalanobis distance (x - m_k)^T C_k^-1 (x - m_k) of x (B, d) to each component: (B, K)."""
        self._check(x)
        wide = self._wide(x)
        means, scales, axes, _ = self._parameters(wide)
        off = wide[:, None, :] - means
        if axes is not None:
            off = torch.einsum("kij,bki->bkj", axes, off)
        return (off / scales).square().sum(2).to(x.dtype)

    def accuracy(self, x: Tensor, cond: Tensor) -> float:
        """The fraction, in [0, 1], of clean samples x (B, d) whose most probable class is the requested one, cond."""
        self._log_weights(cond, len(x))  # says what is wrong with cond
        labels = self._own_labels()
        classes = labels.unique()
        own = (labels == classes[:, None]).to(x.dtype)  # (classes, K)
        best = classes[(self.responsibilities(x).cpu() @ own.T).argmax(1)]
        return float((best == cond.cpu()).double().mean())

    def denoiser(self, schedule: Schedule, kind: str = "x0") -> "MixtureDenoiser":
        """The exact denoiser of this mixture on a schedule: E[x_0 | x_t] and E[eps | x_t]. cond: labels (B,), or
        None."""
        return MixtureDenoiser(self, schedule, kind)

    def flow(self, schedule: Schedule, x: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """The exact PF-ODE map from time t to s, (B, d): closed form for one Gaussian, by quantiles in one dimension.

        One Gaussian: x_s = alpha_s m + (S_s/S_t)(x - alpha_t m) along each axis of C, S^2 = alpha^2 c^2 + sigma^2. In
        one dimension x_s = F_s^-1(F_t(x)), with F the marginal's distribution function. `ValueError` for a mixture in
        several dimensions: its flow has no closed form, see `toydiff.solvers.reference`.
        """
        self._check(x)
        check_finite(x)
        if self.components > 1 and self.dim > 1:
            raise ValueError(
                f"the flow of a mixture has a closed form for K = 1 or d = 1 only, got K = {self.components} and "
                f"d = {self.dim}; use toydiff.solvers.reference"
            )
        at, to = self.marginal(schedule, t), self.marginal(schedule, s)
        return (
            _gaussian_flow(at, to, x.to(torch.float64).cpu())
            if self.components == 1
            else _quantile_flow(at, to, x.to(torch.float64).cpu())
        ).to(x)

    def _check(self, x: Tensor) -> None:
        check_state(x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (B, {self.dim}) for this mixture, got {shape(x)}")

    def _own_labels(self) -> Tensor:
        if self.labels is None:
            raise ValueError("this mixture has no labels, so it cannot be conditioned; give labels=... when making it")
        return self.labels

    def _log_weights(self, cond: Tensor, n: int) -> Tensor:
        labels = self._own_labels()
        cond = _cond(cond, n)
        own = cond.cpu().reshape(-1, 1) == labels
        if not bool(own.any(1).all()):
            missing = cond.cpu().reshape(-1)[~own.any(1)][0]
            raise ValueError(
                f"no component has the label {int(missing)}; the labels are {sorted(set(labels.tolist()))}"
            )
        log_weights = torch.where(own, self.weights.log(), -math.inf)
        return (log_weights - torch.logsumexp(log_weights, 1, keepdim=True)).expand(n, -1)

    def _parameters(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """The means, scales, axes and log weights in x's dtype, on its device: kept for as long as they are as they
        were."""
        own = (self.means, self._scales, self._axes, self.weights)
        versions = [(id(value), 0 if value is None else value._version) for value in own]
        key = (x.dtype, x.device)
        if key not in self._cast or self._cast[key][0] != versions:
            with torch.inference_mode(False):
                axes = None if self._axes is None else self._axes.to(x)
                self._cast[key] = versions, (self.means.to(x), self._scales.to(x), axes, self.weights.log().to(x))
        return self._cast[key][1]

    def _wide(self, x: Tensor) -> Tensor:
        """x in the dtype in which distances to the components are computed."""
        if self._narrow:
            return x.double()
        return x.float() if x.dtype in HALF else x

    def _log_joint_clean(self, x: Tensor, cond: Tensor | None) -> Tensor:
        self._check(x)
        alpha, sigma = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
        return self._log_joint(self._wide(x), alpha, sigma, cond)[0]

    def _log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> tuple[Tensor, tuple]:
        """log[pi_k N(x; alpha m_k, V_k)] up to (d/2) log 2pi, (B, K), and the terms that the denoiser uses too."""
        means, scales, axes, log_weights = self._parameters(x)
        if cond is not None:
            log_weights = self._log_weights(cond, len(x)).to(x)
        alpha, sigma = alpha.to(x.dtype).reshape(-1, 1, 1), sigma.to(x.dtype).reshape(-1, 1, 1)
        V = (alpha * scales) ** 2 + sigma**2  # (B or 1, K, d), along each component's axes
        off = x[:, None, :] - alpha * means  # (B, K, d)
        if axes is not None:
            off = torch.einsum("kij,bki->bkj", axes, off)
        return log_weights - 0.5 * (off**2 / V + V.log()).sum(2), (alpha, sigma, V, off)


class MixtureDenoiser(Denoiser):
    """The exact denoiser of a `GaussianMixture`, class-conditional where labels are given as cond.

    With r_k = softmax_k[log pi_k + log N(x; alpha m_k, V_k)] and V_k = alpha^2 C_k + sigma^2 I: x_0 = sum_k r_k [m_k +
    alpha C_k V_k^-1 (x - alpha m_k)], eps = sigma sum_k r_k V_k^-1 (x - alpha m_k). Both are finite at both ends.
    """

    def __init__(self, mixture: GaussianMixture, schedule: Schedule, kind: str = "x0"):
        super().__init__(schedule, kind)
        self.mixture, self.data_std = mixture, mixture.data_std

    def content(self) -> str | None:
        return rounded_digest(self.mixture.tensors())

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        mixture = self.mixture
        mixture._check(x)
        wide = mixture._wide(x)
        log_joint, (alpha, sigma, V, off) = mixture._log_joint(
            wide, self.schedule.alpha(t), self.schedule.sigma(t), cond
        )
        r = torch.softmax(log_joint, 1)[:, :, None]
        means, scales, axes, _ = mixture._parameters(wide)
        pull = off / V
        shrunk = alpha * scales**2 * pull
        if axes is not None:
            pull = torch.einsum("kij,bkj->bki", axes, pull)
            shrunk = torch.einsum("kij,bkj->bki", axes, shrunk)
        x0, eps = (r * (means + shrunk)).sum(1), (r * sigma * pull).sum(1)
        return Prediction(x, t, fitted(x0, x), fitted(eps, x), self.schedule)


def _scales_of_std(std: Tensor, K: int, d: int) -> Tensor:
    if not bool((std > 0).all()):
        raise ValueError(
            f"std must be positive (a covariance must be positive definite), got a least value of {float(std.min()):g}"
        )
    if std.shape in ((), (K,)):
        return std.reshape(-1, 1).expand(K, d)
    if std.shape == (K, d):
        return std
    raise ValueError(f"std must have shape (), ({K},) or ({K}, {d}), got {shape(std)}")


def _axes_of_cov(cov: Tensor, K: int, d: int) -> tuple[Tensor, Tensor]:
    if cov.shape not in ((d, d), (K, d, d)):
        raise ValueError(f"cov must have shape ({d}, {d}) or ({K}, {d}, {d}), got {shape(cov)}")
    cov = cov.expand(K, d, d)
    if not torch.allclose(cov, cov.mT, rtol=1e-8, atol=1e-12):
        raise ValueError("every covariance must be symmetric")
    variances, axes = torch.linalg.eigh(cov)
    # below this an eigenvalue is rounding error of a singular matrix
    worst = int((variances[:, 0] / variances[:, -1].abs()).argmin())
    if not bool((variances[:, 0] > 1e-14 * variances[:, -1].abs()).all()):
        raise ValueError(
            f"every covariance must be positive definite; that of component {worst} has the eigenvalue "
            f"{float(variances[worst, 0]):g}"
        )
    return axes, variances.sqrt()


def _labels(labels: Tensor | Sequence[int], K: int) -> Tensor:
    out = _whole(labels, f"labels must be {K} whole numbers >= 0").cpu()
    if out.shape != (K,):
        raise ValueError(f"labels must be {K} whole numbers >= 0, got shape {shape(out)}")
    if bool((out < 0).any()):
        raise ValueError(f"labels must be {K} whole numbers >= 0, got a least of {int(out.min())}")
    return out.long()


def _cond(cond: Tensor | Sequence[int], n: int) -> Tensor:
    out = _whole(cond, f"cond must be whole numbers of shape () or ({n},)")
    if out.shape not in ((), (n,)):
        raise ValueError(f"cond must be whole numbers of shape () or ({n},), got shape {shape(out)}")
    return out


def _whole(values: object, must: str) -> Tensor:
    try:
        out = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{must}, got {quoted(values)}") from None
    if out.is_floating_point() or out.is_complex() or out.dtype == torch.bool:
        raise ValueError(f"{must}, got {out.dtype} of shape {shape(out)}")
    return out


def _gaussian_flow(at: GaussianMixture, to: GaussianMixture, x: Tensor) -> Tensor:
    off, ratio = x - at.means[0], to._scales[0] / at._scales[0]
    if at._axes is None:
        return to.means[0] + ratio * off
    axes = at._axes[0]
    return to.means[0] + (ratio * (off @ axes)) @ axes.T


def _quantile_flow(at: GaussianMixture, to: GaussianMixture, x: Tensor) -> Tensor:
    def tails(mixture: GaussianMixture, y: Tensor) -> tuple[Tensor, Tensor]:
        """log F(y) and log(1 - F(y)): they keep their digits where F itself is 0 or 1."""
        u = (y - mixture.means[:, 0]) / mixture._scales[:, 0]
        below, above = (torch.logsumexp(torch.special.log_ndtr(side) + mixture.weights.log(), 1) for side in (u, -u))
        return below, above

    below, above = tails(at, x)
    far = ((x - at.means[:, 0]) / at._scales[:, 0]).abs().amax(1, keepdim=True)
    if not bool((far < 1e100).all()):  # the logarithm of a tail is -far^2/2
        raise ValueError(f"x lies {float(far.max()):.3g} standard deviations from a component; the flow knows 1e100")
    # beyond `reach` standard deviations of all components the tail is lighter than at x
    reach = far + math.sqrt(-2 * float(to.weights.log().min())) + 1
    low = (to.means[:, 0] - reach * to._scales[:, 0]).amin(1, keepdim=True)
    high = (to.means[:, 0] + reach * to._scales[:, 0]).amax(1, keepdim=True)
    for _ in range(200):  # bisection to the last bit
        mid = (low + high) / 2
        mass_below, mass_above = tails(to, mid)
        # compare the smaller tail: the larger one, near 1, has lost its digits
        too_high = torch.where(below <= above, mass_below > below, mass_above < above)[:, None]
        low, high = torch.where(too_high, low, mid), torch.where(too_high, mid, high)
    return (low + high) / 2


class Empirical:
    """A finite data set as a distribution: each of its points with the same probability.

    points: (N, ...) of any shape; labels: (N,) whole numbers, optional.
    """

    def __init__(self, points: Tensor, labels: Tensor | Sequence[int] | None = None):
        check_state(points, "points")
        check_finite(points, "points")
        if len(points) == 0:
            raise ValueError(f"a data set has one point at least, got points of shape {shape(points)}")
        self.points = points
        self.labels = None if labels is None else _labels(labels, len(points))

    @property
    def data_std(self) -> float:
        """The scale of these points, by which the default solver and grid go: see `mixtures.data_std`."""
        off = self.points.flatten(1).to(torch.float64)
        off = off - off.mean(0)
        unit = float(off.abs().max()) or 1.0
        off = off / unit
        start = off[off.square().sum(1).argmax()]
        return unit * data_std(off.square().mean(0), lambda v: off.T @ (off @ v) / len(off), start)

    def sample(self, n: int, generator: Seed = None) -> Tensor:
        """n draws with replacement, (n, ...)."""
        return self.points[self._pick(check_count(n, "n"), generator)]

    def _pick(self, n: int, seed: Seed) -> Tensor:
        return torch.randint(len(self.points), (n,), generator=as_generator(seed))

    def denoiser(self, schedule: Schedule, kind: str = "x0", chunk: int = 4096) -> "EmpiricalDenoiser":
        """The ideal denoiser of this data set. `chunk`: how many points a sample is compared with at once, which bounds
        the memory."""
        return EmpiricalDenoiser(self, schedule, kind, chunk)


class EmpiricalDenoiser(Denoiser):
    """The denoiser that a network trained on a finite data set would become if it could memorise it (arXiv 2206.00364,
    app. B.3).

    x_0 = sum_i w_i x_0^(i), w = softmax_i(-|x - alpha x_0^(i)|^2 / (2 sigma^2)); at sigma = 0, the nearest point. The
    sum runs over chunks of `chunk` points, so memory is O(B chunk) for distances, whatever the size of the data set.
    """

    def __init__(self, data: Empirical, schedule: Schedule, kind: str = "x0", chunk: int = 4096):
        super().__init__(schedule, kind)
        self.data, self.chunk, self.data_std = data, check_count(chunk, "chunk"), data.data_std

    def content(self) -> str | None:
        return rounded_digest({"points": self.data.points})

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        points, labels = self.data.points.to(x.device), self.data.labels
        if x.shape[1:] != points.shape[1:]:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, points.shape[1:]))}) for this data set, got {shape(x)}"
            )
        if cond is not None:
            if labels is None:
                raise ValueError("this data set has no labels, so it cannot be conditioned")
            cond = _cond(cond, len(x)).to(x.device).expand(len(x))
            absent = ~torch.isin(cond.cpu(), labels)
            if bool(absent.any()):
                raise ValueError(
                    f"no point has the label {int(cond.cpu()[absent][0])}; "
                    f"the labels are {sorted(set(labels.tolist()))}"
                )
            labels = labels.to(x.device)
        # float64: the softmax sees differences of squared distances divided by sigma^2
        flat = x.flatten(1).to(torch.float64)
        alpha = self.schedule.alpha(t).to(torch.float64).expand(len(x))[:, None]
        sigma = self.schedule.sigma(t).to(torch.float64).expand(len(x))[:, None]
        best = torch.full((len(x), 1), -math.inf, dtype=torch.float64, device=x.device)
        mass, total = torch.zeros_like(best), torch.zeros_like(flat)
        for start in range(0, len(points), self.chunk):
            part = points[start : start + self.chunk].flatten(1).to(torch.float64)
            # -|x - alpha y|^2/2 up to |x|^2/2, which is the same for all points
            closeness = alpha * (flat @ part.T) - 0.5 * alpha**2 * (part**2).sum(1)
            if cond is not None and labels is not None:
                closeness = torch.where(cond[:, None] == labels[start : start + self.chunk], closeness, -math.inf)
            new = torch.maximum(best, closeness.max(1, keepdim=True).values)
            # a running softmax: weights relative to the best point so far
            keep, weights = _relative(best - new, sigma), _relative(closeness - new, sigma)
            mass, total, best = keep * mass + weights.sum(1, keepdim=True), keep * total + weights @ part, new
        x0 = (total / mass).reshape(x.shape).to(x.dtype)
        return Prediction.of("x0", x0, x, t, self.schedule)


def _relative(gap: Tensor, sigma: Tensor) -> Tensor:
    """exp(gap/sigma^2) for gap <= 0; at sigma = 0: 1 where gap = 0, else 0. A gap of -inf is that of no point, and NaN,
    from -inf - (-inf), means that there was none yet: 0, whose derivative is 0 as well."""
    one, noisy = gap > -math.inf, sigma > 0  # false for NaN
    weight = torch.exp(torch.where(one, gap, 0) / torch.where(noisy, sigma, 1) ** 2)
    return torch.where(one & (noisy | (gap == 0)), weight, 0)


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """Equal Gaussians on a circle; label = component."""
    check_count(modes, "modes")
    angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    means = check_positive(radius, "radius") * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(means, std=check_positive(std, "std"), labels=torch.arange(modes))


def grid(side: int = 5, spacing: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """side x side equal Gaussians on a square lattice centred at 0; label = component."""
    check_count(side, "side")
    line = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * check_positive(spacing, "spacing")
    means = torch.cartesian_prod(line, line)
    return GaussianMixture(means, std=check_positive(std, "std"), labels=torch.arange(side**2))


def spirals(modes: int = 40, turns: float = 1.5, std: float = 0.08) -> GaussianMixture:
    """Two interleaved spirals, each a chain of `modes` small Gaussians at equal arc length; label = arm."""
    check_count(modes, "modes")
    check_positive(turns, "turns")
    # r grows with the angle; equal arc length means angle ~ sqrt
    angle = 2 * math.pi * turns * torch.sqrt(torch.linspace(0.06, 1, modes, dtype=torch.float64))
    arm = (2.2 / (2 * math.pi * turns)) * angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(torch.cat([arm, -arm]), std=check_positive(std, "std"), labels=[0] * modes + [1] * modes)


def checkerboard(cells: int = 4, fill: int = 4) -> GaussianMixture:
    """The dark squares of a cells x cells board of side 4, each filled with fill x fill small Gaussians; label =
    square."""
    check_count(cells, "cells", 2)
    check_count(fill, "fill")
    side = 4 / cells
    inner = ((torch.arange(fill, dtype=torch.float64) + 0.5) / fill) * side
    dots = torch.cartesian_prod(inner, inner)
    corners = [(i, j) for i in range(cells) for j in range(cells) if (i + j) % 2 == 0]
    means = torch.cat([dots + side * torch.tensor(corner, dtype=torch.float64) - 2 for corner in corners])
    labels = torch.arange(len(corners)).repeat_interleave(fill**2)
    return GaussianMixture(means, std=0.3 * side / fill, labels=labels)


def random_mixture(seed: int = 0, modes: int = 5, dim: int = 2) -> GaussianMixture:
    """A mixture with random means, full covariances and weights; label = component. The same seed gives the same
    mixture."""
    check_count(modes, "modes")
    check_count(dim, "dim")
    rng = as_generator(check_count(seed, "seed", 0))
    means = 1.5 * torch.randn(modes, dim, dtype=torch.float64, generator=rng)
    axes = torch.linalg.qr(torch.randn(modes, dim, dim, dtype=torch.float64, generator=rng)).Q
    scales = 0.15 + 0.35 * torch.rand(modes, dim, dtype=torch.float64, generator=rng)
    weights = 0.3 + torch.rand(modes, dtype=torch.float64, generator=rng)
    cov = (axes * scales[:, None, :] ** 2) @ axes.mT
    return GaussianMixture(means, cov=(cov + cov.mT) / 2, weights=weights / weights.sum(), labels=torch.arange(modes))


def fit(points: Tensor | np.ndarray | Sequence, modes: int = 30, seed: int = 0) -> GaussianMixture:
    """A mixture of full Gaussians fitted to points (N, d) by scikit-learn's expectation maximisation; label =
    component."""
    from sklearn.mixture import GaussianMixture as Fitted

    data = _rows(points, "points").numpy()
    check_count(modes, "modes")
    if data.ndim != 2 or len(data) < max(2, modes):
        raise ValueError(f"points must have shape (N, d) with N >= modes = {modes}, got {data.shape}")
    if not (data.std(0) > 0).all():
        raise ValueError("points must not be all the same along a coordinate")
    # the least variance is a small part of the data's own, so that coinciding points do not give a singular component
    fitted = Fitted(modes, random_state=seed, reg_covar=1e-4 * float(data.var(0).min())).fit(data)
    return GaussianMixture(fitted.means_, cov=fitted.covariances_, weights=fitted.weights_, labels=range(modes))


def moons(modes: int = 30, seed: int = 0) -> GaussianMixture:
    """Two half moons (scikit-learn's), standardised to unit variance, as a fitted mixture."""
    from sklearn.datasets import make_moons

    return fit(_standardised(make_moons(4000, noise=0.06, random_state=seed)[0]), modes, seed)


def swiss_roll(modes: int = 40, seed: int = 0) -> GaussianMixture:
    """The swiss roll seen along its axis (scikit-learn's), standardised to unit variance, as a fitted mixture."""
    from sklearn.datasets import make_swiss_roll

    return fit(_standardised(make_swiss_roll(4000, noise=0.3, random_state=seed)[0][:, [0, 2]]), modes, seed)


def _standardised(points: np.ndarray) -> np.ndarray:
    return (points - points.mean(0)) / points.std()


MIXTURES: dict[str, Callable[[], GaussianMixture]] = {
    "ring": ring,
    "grid": grid,
    "spirals": spirals,
    "checkerboard": checkerboard,
    "moons": moons,
    "swiss-roll": swiss_roll,
    "random": random_mixture,
}
"""The ready-made mixtures by name; `random` also takes a seed."""


def mixture(name: str) -> GaussianMixture:
    """A ready-made mixture by its name, with its default settings; `ValueError` with the nearest name otherwise."""
    if not isinstance(name, str) or name not in MIXTURES:
        raise unknown("mixture", name, MIXTURES)
    return MIXTURES[name]()
