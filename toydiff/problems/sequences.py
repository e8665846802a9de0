"""Problems of clips: sequences of points (frames, dim), whose exact denoiser is that of a mixture of whole clips. All
frames of a clip share the time; each has its own noise."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..denoisers import Denoiser, Wrapper
from ..measure import floor, sliced_wasserstein
from ..mixtures import GaussianMixture, data_std
from ..nets import ClipMLP
from ..prediction import Prediction
from ..schedules import Schedule, Tabulated
from ..support.checks import as_generator, check_finite, shape, unknown
from .base import Entry, Measured, Part, Problem, Sizes

FRAMES, DIM = 8, 2

HIDDEN = 64
"""The width of a student's network."""

MOST_COMPARED = 2000
"""The measures use the first so many clips only."""


class ClipDenoiser(Wrapper):
    """A denoiser of clips (B, frames, dim) by one of vectors (B, frames dim), guided as that one is."""

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | float = 1.0
    ) -> Prediction:
        p = self.denoiser(x.flatten(1), t, cond, guidance_scale)
        return Prediction(x, t, p.x0.view_as(x), p.eps.view_as(x), self.schedule)


class SequenceProblem(Problem):
    """Clips of `frames` points in `dim` dimensions. The mixture is the law of a clip as a vector, frame by frame, so
    that the teacher is exact. Where its components have labels, a clip is drawn for a given label.

    The distance is the sliced Wasserstein distance of whole clips, which a clip that stands still does not pass. Its
    parts (`Measured.parts`):

    - `frame`: the sliced Wasserstein distance of single frames, a mean over the frames;
    - `lag-1`: the absolute error of the correlation between a frame and the next one (`lag_correlation`);
    - `velocity`: the sliced Wasserstein distance of the differences between a frame and the next one.

    `ValueError` for a mixture in another dimension than frames times dim.
    """

    distance_name = "sliced Wasserstein distance of clips"
    scale = "sequences"
    sizes = Sizes(watched=1000, evaluated=2000)

    def __init__(self, mixture: GaussianMixture, name: str, frames: int = FRAMES, schedule: Schedule | None = None):
        if mixture.dim % frames:
            raise ValueError(f"clips of {frames} frames need a multiple of {frames} dimensions, got {mixture.dim}")
        self.mixture, self.name = mixture, name
        self.shape = (frames, mixture.dim // frames)
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self.classes = 0 if mixture.labels is None else int(mixture.labels.max()) + 1
        self.conditional = self.classes > 0
        self.teacher: Denoiser = ClipDenoiser(mixture.denoiser(self.schedule, "eps"))
        self.data_std = self.teacher.data_std
        self._floors: dict[tuple[str, int], tuple[float, float]] = {}

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        x, labels = self.mixture.sample_labelled(n, generator)
        return x.view(n, *self.shape), labels if self.classes else None

    def single_frames(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, None]:
        """n frames (n, dim), each from a clip of its own, at a random place; without labels, which are of motion."""
        rng = as_generator(generator)
        clips, _ = self.data(n, rng)
        return clips[torch.arange(n), torch.randint(self.shape[0], (n,), generator=rng)], None

    @functools.cached_property
    def frame_std(self) -> float:
        """The scale of single frames, as `mixtures.data_std` has it."""
        frames = self.single_frames(MOST_COMPARED, 0)[0].double()
        cov = (frames - frames.mean(0)).T @ (frames - frames.mean(0)) / len(frames)
        return data_std(cov.diagonal(), cov.mv, torch.ones(len(cov), dtype=torch.float64))

    def flow(self, x: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """The exact PF-ODE map of clips (B, frames, dim) from time t to s. `ValueError` where it has no closed form
        (`GaussianMixture.flow`)."""
        return self.mixture.flow(self.schedule, x.flatten(1), t, s).view_as(x)

    def network(self, *, guided: bool = False) -> nn.Module:
        frames, dim = self.shape
        return ClipMLP(frames, dim, HIDDEN, classes=self.classes, guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        check_finite(samples, "samples")
        if samples.shape[1:] != self.shape:
            raise ValueError(
                f"clips of {self.name} have shape (n, {self.shape[0]}, {self.shape[1]}), got {shape(samples)}"
            )
        samples = samples[:MOST_COMPARED].float().cpu()
        cond = None if cond is None else cond[:MOST_COMPARED].cpu()

        @functools.cache  # all measures compare the same draws
        def truth(n: int, seed: int) -> Tensor:
            return self.mixture.sample(n, seed, cond=cond, dtype=torch.float32).view(n, *self.shape)

        found = {name: self._part(name, samples, truth, cond) for name in MEASURES}
        whole = found.pop("clip")
        accuracy = None if cond is None else self.mixture.accuracy(samples.flatten(1), cond)
        return Measured(whole.value, whole.floor, whole.floor_std, accuracy, parts=found)

    def _part(self, name: str, samples: Tensor, truth: Callable[[int, int], Tensor], cond: Tensor | None) -> Part:
        """One measure of samples, a mean over three draws of true samples, and its floor, which is kept by n where the
        labels are those of every measurement."""
        between, n = MEASURES[name], len(samples)
        asked = self.eval_labels(n)
        usual = cond is None or (asked is not None and torch.equal(cond, asked))
        lowest = self._floors.get((name, n)) if usual else None
        if lowest is None:
            found = floor(between, truth, n, seeds=range(5))
            lowest = found.mean, found.std
            if usual:
                self._floors[name, n] = lowest
        # seeds beyond those of the floor and of anything that was trained with a small seed
        value = sum(between(samples, truth(n, 10**6 + k)) for k in range(3)) / 3
        return Part(value, *lowest)


def lag_correlation(clips: Tensor) -> float:
    """The correlation between a frame and the next one, of clips (n, frames, dim): over all clips and all pairs of
    neighbours, a mean over the coordinates."""
    x = clips.double()
    early, late = (part.flatten(0, 1) for part in (x[:, :-1], x[:, 1:]))
    early, late = early - early.mean(0), late - late.mean(0)
    size = (early.square().mean(0) * late.square().mean(0)).sqrt().clamp(min=1e-12)
    return float(((early * late).mean(0) / size).mean())


def clip_distance(a: Tensor, b: Tensor) -> float:
    """The sliced Wasserstein distance of clips as vectors."""
    return sliced_wasserstein(a.flatten(1), b.flatten(1))


def frame_distance(a: Tensor, b: Tensor) -> float:
    """The sliced Wasserstein distance of single frames, a mean over the frames."""
    frames = range(a.shape[1])
    return sum(sliced_wasserstein(a[:, k], b[:, k], projections=32) for k in frames) / len(frames)


def lag_error(a: Tensor, b: Tensor) -> float:
    """The absolute difference of the correlations between a frame and the next one."""
    return abs(lag_correlation(a) - lag_correlation(b))


def velocity_distance(a: Tensor, b: Tensor) -> float:
    """The sliced Wasserstein distance of the differences between a frame and the next one."""
    return sliced_wasserstein(a.diff(dim=1).flatten(0, 1), b.diff(dim=1).flatten(0, 1), projections=32)


MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "clip": clip_distance,
    "frame": frame_distance,
    "lag-1": lag_error,
    "velocity": velocity_distance,
}
"""The measures between two sets of clips (n, frames, dim), by name; `clip` is the problem's distance."""


def gaussian_clips(frames: int = FRAMES, dim: int = DIM, std: float = 0.8, correlation: float = 0.8) -> GaussianMixture:
    """Clips of an AR(1) process: each coordinate has Cov(x_i, x_j) = std^2 correlation^|i - j| over the frames."""
    lag = torch.arange(frames, dtype=torch.float64)
    cov = std**2 * correlation ** (lag[:, None] - lag).abs()
    return GaussianMixture(torch.zeros(1, frames * dim), cov=torch.kron(cov, torch.eye(dim, dtype=torch.float64)))


SPEEDS = (-2, -1, 1, 2)
"""The speeds of the ring's clips, in places per frame; a clip's label is the index of its speed."""


def ring_clips(frames: int = FRAMES, places: int = 8, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """Clips of a point that turns on a ring of `places` places, at a speed of `SPEEDS`. Every frame alone is the
    mixture `ring`, at every speed: only motion tells the labels apart."""
    start = torch.arange(places, dtype=torch.float64)[:, None, None]
    speed = torch.tensor(SPEEDS, dtype=torch.float64)[None, :, None]
    angle = 2 * math.pi / places * (start + speed * torch.arange(frames, dtype=torch.float64))
    means = radius * torch.stack([angle.cos(), angle.sin()], -1)  # (places, speeds, frames, 2)
    return GaussianMixture(means.flatten(2).flatten(0, 1), std=std, labels=list(range(len(SPEEDS))) * places)


SEQUENCES: dict[str, Callable[[], GaussianMixture]] = {"gaussian": gaussian_clips, "ring": ring_clips}
"""The laws of the ready-made clips by name."""


def sequence(name: str = "ring", schedule: Schedule | None = None) -> SequenceProblem:
    """The problem of ready-made clips, a name of `SEQUENCES`; `ValueError` for another."""
    if name not in SEQUENCES:
        raise unknown("sequence", name, SEQUENCES)
    return SequenceProblem(SEQUENCES[name](), f"sequence:{name}", schedule=schedule)


ENTRY = Entry(
    name="sequence",
    title=f"sequence or sequence:NAME, clips of points with their exact teacher ({', '.join(SEQUENCES)})",
    scale="sequences",
    open=lambda which, seed: sequence(which or "ring"),
)
