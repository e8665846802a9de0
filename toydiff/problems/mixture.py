"""Problems of points: Gaussian mixtures, which have an exact teacher, and sets of points, which have none."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import mixtures
from ..measure import Spread, floor, modes, sliced_wasserstein
from ..mixtures import MIXTURES, GaussianMixture
from ..nets import MLP
from ..schedules import Schedule, Tabulated
from ..support.checks import check_count
from .base import Entry, Measured, Problem
from .data import POINTS, points

MOST_COMPARED = 8000
"""A distance and its floor use the first so many samples only: computing them costs far more than sampling."""


class MixtureProblem(Problem):
    """A Gaussian mixture in any dimension. Its teacher is its exact denoiser, and its distance is the sliced
    Wasserstein distance."""

    distance_name = "sliced Wasserstein distance"

    def __init__(self, mixture: GaussianMixture, name: str = "a mixture of its own", schedule: Schedule | None = None):
        self.mixture, self.name = mixture, name
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.shape = (mixture.dim,)
        self.classes = 0 if mixture.labels is None else int(mixture.labels.max()) + 1
        self.teacher = mixture.denoiser(self.schedule, "eps")
        self._floors: dict[int, Spread] = {}

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        if self.mixture.labels is None:
            return self.mixture.sample(n, generator), None
        return self.mixture.sample_labelled(n, generator)

    def network(self, *, guided: bool = False) -> nn.Module:
        return MLP(self.mixture.dim, classes=self.classes, guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        samples = samples[:MOST_COMPARED]
        cond = None if cond is None else cond[: len(samples)].cpu()
        mixture, dtype = self.mixture, samples.dtype

        def truth(n: int, seed: int) -> Tensor:
            return mixture.sample(n, seed, cond=cond, dtype=dtype)

        known = self._floors if cond is None else {}  # given classes, the samples are of another distribution
        distance, lowest = distance_and_floor(samples, truth, known)
        if cond is not None:
            return Measured(distance, lowest.mean, lowest.std, mixture.accuracy(samples, cond))
        found = modes(mixture, samples)
        fractions, expected = (tuple(values.tolist()) for values in (found.weights, found.expected))
        return Measured(distance, lowest.mean, lowest.std, None, fractions, expected)


class PointsProblem(Problem):
    """A set of points in the plane, of `toydiff.problems.data.POINTS`. Only samples of it are known: it has no
    teacher."""

    distance_name = "sliced Wasserstein distance"

    def __init__(self, name: str, schedule: Schedule | None = None):
        points(name, 1)  # says which names there are
        self.set, self.name = name, f"points:{name}"
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.shape = (2,)
        self._floors: dict[int, Spread] = {}

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        return points(self.set, n, generator), None

    def network(self, *, guided: bool = False) -> nn.Module:
        return MLP(2, guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        samples = samples[:MOST_COMPARED].float().cpu()
        distance, lowest = distance_and_floor(samples, lambda n, seed: points(self.set, n, seed), self._floors)
        return Measured(distance, lowest.mean, lowest.std, None)


def distance_and_floor(
    samples: Tensor, truth: Callable[[int, int], Tensor], floors: dict[int, Spread]
) -> tuple[float, Spread]:
    """The sliced Wasserstein distance of samples (n, d) to true samples, and its floor.

    The distance is the mean over three draws truth(n, seed). The floor takes most of the time, so it is kept in
    `floors`, by n.
    """
    n = len(samples)
    if n not in floors:
        floors[n] = floor(sliced_wasserstein, truth, n, seeds=range(10))
    # seeds beyond those of the floor and of anything that was trained with a small seed
    return sum(sliced_wasserstein(samples, truth(n, 10**6 + k)) for k in range(3)) / 3, floors[n]


def mixture(name: str = "ring", seed: int = 0, schedule: Schedule | None = None) -> MixtureProblem:
    """The problem of a ready-made mixture (`toydiff.mixtures.MIXTURES`). seed: of the mixture `random`. `ValueError`
    for an unknown name."""
    check_count(seed, "seed", 0)
    made = mixtures.random_mixture(seed) if name == "random" else mixtures.mixture(name)
    return MixtureProblem(made, f"mixture:{name},{seed}" if name == "random" and seed else f"mixture:{name}", schedule)


MIXTURE_ENTRY = Entry(
    name="mixture",
    title=f"mixture or mixture:NAME, a Gaussian mixture with its exact teacher ({', '.join(MIXTURES)})",
    scale="points",
    open=lambda which, seed: mixture(which or "ring", seed),
)

POINTS_ENTRY = Entry(
    name="points",
    title=f"points:NAME, a set of points in the plane, no teacher ({', '.join(POINTS)})",
    scale="points",
    open=lambda which, seed: PointsProblem(which),
)
