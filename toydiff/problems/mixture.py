"""Problems of points: Gaussian mixtures, which have an exact teacher, and sets of points, which have none; ready-made,
or of one's own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import mixtures
from ..measure import Spread, floor, modes, sliced_wasserstein
from ..mixtures import MIXTURES, Empirical, GaussianMixture
from ..nets import MLP
from ..schedules import Schedule, Tabulated, schedule_config
from ..support.checks import as_generator, check_count, check_finite, shape
from .base import Entry, Measured, Problem
from .content import mixture_of
from .data import POINTS
from .data import points as ready_made

KNOWN = 4000
"""How many points of a ready-made set its scale is taken of."""

MOST_COMPARED = 8000
"""A distance and its floor use the first so many samples only: computing them costs far more than sampling."""


def far_from_one(std: float) -> float:
    """A standard deviation for `Problem.sigma_data`: 1 where it is from 0.4 to 2.5, which networks bear as it is."""
    return 1.0 if 0.4 <= std <= 2.5 else std


class MixtureProblem(Problem):
    """A Gaussian mixture in any dimension. Its teacher is its exact denoiser, and its distance is the sliced
    Wasserstein distance."""

    distance_name = "sliced Wasserstein distance"
    ready = False
    """Whether the name is that of a ready-made mixture. If not, a run keeps the mixture itself."""

    def __init__(self, mixture: GaussianMixture, name: str = "a mixture of its own", schedule: Schedule | None = None):
        self.mixture, self.name = mixture, name
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.shape = (mixture.dim,)
        self.classes = 0 if mixture.labels is None else int(mixture.labels.max()) + 1
        self.teacher = mixture.denoiser(self.schedule, "eps")
        self.data_std, self.sigma_data = self.teacher.data_std, far_from_one(mixture.std)
        self._floors: dict[int, Spread] = {}

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        if self.mixture.labels is None:
            return self.mixture.sample(n, generator), None
        return self.mixture.sample_labelled(n, generator)

    def definition(self) -> tuple[dict, dict[str, Tensor]] | None:
        return None if self.ready else (_described("mixture", self.schedule), self.mixture.tensors())

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
    """A set of points. Only samples of it are known: it has no teacher.

    points: the name of a set in the plane, of `toydiff.problems.data.POINTS`, or points (n, d) of one's own, of which
    data and true samples are drawn at random. name: what points of one's own are called in files. `ValueError` for an
    unknown name, or for points that are no finite numbers (n, d), n >= 2.

    Sampling starts from normal noise, which is right for data near the origin: points of one's own whose root mean
    square is not between 0.05 and 20 are refused, and are to be scaled first.
    """

    distance_name = "sliced Wasserstein distance"

    def __init__(self, points: str | Tensor, schedule: Schedule | None = None, *, name: str = "points of its own"):
        self.set: str | Tensor
        if isinstance(points, str):
            ready_made(points, 1)  # says which names there are
            self.set, self.name, self.shape = points, f"points:{points}", (2,)
        else:
            self.set, self.name = checked_points(points), name
            self.shape = (self.set.shape[1],)
        known = ready_made(self.set, KNOWN, 0) if isinstance(self.set, str) else self.set
        self.data_std = Empirical(known).data_std
        self.sigma_data = far_from_one(float(known.double().std(0).square().mean().sqrt()))
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self._floors: dict[int, Spread] = {}

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.set, str):
            return ready_made(self.set, n, generator), None
        check_count(n, "n")
        return self.set[torch.randint(len(self.set), (n,), generator=as_generator(generator))], None

    def definition(self) -> tuple[dict, dict[str, Tensor]] | None:
        return None if isinstance(self.set, str) else (_described("points", self.schedule), {"points": self.set})

    def network(self, *, guided: bool = False) -> nn.Module:
        return MLP(self.shape[0], guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        samples = samples[:MOST_COMPARED].float().cpu()
        distance, lowest = distance_and_floor(samples, lambda n, seed: self.data(n, seed)[0], self._floors)
        return Measured(distance, lowest.mean, lowest.std, None)


NEAR = (0.05, 20.0)
"""The root mean square that points of one's own may have."""


def checked_points(points: Tensor) -> Tensor:
    """Points (n, d) of one's own, in float32; `ValueError` for what is none."""
    if not isinstance(points, Tensor) or points.ndim != 2 or len(points) < 2 or points.shape[1] < 1:
        got = shape(points) if isinstance(points, Tensor) else type(points).__name__
        raise ValueError(f"points are a tensor (n, d) with n >= 2 and d >= 1, got {got}")
    if points.is_complex():
        raise ValueError(f"points are real numbers, got {points.dtype}")
    made = points.detach().to("cpu", torch.float32)
    check_finite(made, "the set of points")
    size = float(made.double().square().mean().sqrt())
    if not NEAR[0] <= size <= NEAR[1]:
        raise ValueError(
            f"points are to lie near the origin, with a root mean square from {NEAR[0]:g} to {NEAR[1]:g}, got "
            f"{size:.3g}: scale them, as in (x - x.mean(0)) / x.std()"
        )
    return made


def _described(what: str, schedule: Schedule) -> dict:
    """The description of a definition: what it is, and its schedule where a file can hold that."""
    try:
        return {"what": what, "schedule": schedule_config(schedule)}
    except ValueError:  # a schedule of a notebook; samples are measured without it
        return {"what": what}


def mixture_again(name: str, tensors: dict[str, Tensor], schedule: Schedule | None) -> MixtureProblem:
    """The mixture of a definition."""
    return MixtureProblem(mixture_of(tensors), name, schedule)


def points_again(name: str, tensors: dict[str, Tensor], schedule: Schedule | None) -> PointsProblem:
    """The points of a definition."""
    return PointsProblem(tensors["points"], schedule, name=name)


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
    found = MixtureProblem(made, f"mixture:{name},{seed}" if name == "random" and seed else f"mixture:{name}", schedule)
    found.ready = True
    return found


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
