"""Points in the plane, or in any dimension: Gaussian mixtures, whose teacher is exact, and sets of points, which
have none."""

from collections.abc import Callable

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
"""A distance and its floor are taken over the first so many samples: they cost far more than the sampling."""


class MixtureProblem(Problem):
    """A Gaussian mixture, with its exact denoiser as the teacher, measured by the sliced Wasserstein distance."""

    distance_name = "sliced Wasserstein distance"

    def __init__(self, mixture: GaussianMixture, name: str = "a mixture of its own", schedule: Schedule | None = None):
        self.mixture, self.name = mixture, name
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.shape = (mixture.dim,)
        self.classes = 0 if mixture.labels is None else int(mixture.labels.max()) + 1
        self.teacher = mixture.denoiser(self.schedule, "eps")
        self._floors: dict[int, Spread] = {}

    def data(self, n, generator=None):
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

        known = self._floors if cond is None else {}  # the classes asked for are another law
        distance, lowest = distance_and_floor(samples, truth, known)
        if cond is not None:
            return Measured(distance, lowest.mean, lowest.std, mixture.accuracy(samples, cond))
        found = modes(mixture, samples)
        fractions, expected = (tuple(values.tolist()) for values in (found.weights, found.expected))
        return Measured(distance, lowest.mean, lowest.std, None, fractions, expected)


class PointsProblem(Problem):
    """A set of points in the plane (`toydiff.problems.data.POINTS`), known by its samples only."""

    distance_name = "sliced Wasserstein distance"

    def __init__(self, name: str, schedule: Schedule | None = None):
        points(name, 1)  # says which names there are
        self.set, self.name = name, f"points:{name}"
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.shape = (2,)
        self._floors: dict[int, Spread] = {}

    def data(self, n, generator=None):
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
    """The mean sliced Wasserstein distance of samples (n, d) to three draws truth(n, seed), and its floor, kept in
    `floors` by n: most of the time."""
    n = len(samples)
    if n not in floors:
        floors[n] = floor(sliced_wasserstein, truth, n, seeds=range(10))
    # seeds beyond those of the floor and of anything that was trained with a small seed
    return sum(sliced_wasserstein(samples, truth(n, 10**6 + k)) for k in range(3)) / 3, floors[n]


def mixture(name: str = "ring", seed: int = 0, schedule: Schedule | None = None) -> MixtureProblem:
    """The problem of a ready-made mixture by its name; `random` depends on the seed."""
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
