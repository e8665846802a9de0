"""The problem of handwritten digits: real images, a bundled teacher, and a distance of a small classifier's
features."""

import functools
import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import weights
from ..denoisers import Denoiser
from ..measure import Moments, Spread, frechet_distance, spread
from ..nets import UNet
from ..schedules import Schedule, Tabulated
from ..support.checks import as_generator, check_finite, shape, unknown
from ..training import Draws, Turn
from .base import Entry, Measured, Problem, Sizes
from .classifier import Classifier, moved
from .data import DIGIT_CLASSES, DIGIT_SHAPE, SOURCES, Digits, digits

FEATURES_ID = "digits-features"
TEACHER_ID = "digits-teacher"


class DigitsProblem(Problem):
    """Digits by class, on Stable Diffusion's schedule, with the bundled teacher.

    `source` and `seed` choose the digits and their split (`toydiff.problems.data.digits`). Samples are measured by the
    Fréchet distance of their classifier features to those of the training part. The floor is the distance of the
    held-out part to the training part. More samples than are held out are measured in groups of at most that number,
    and the mean over the groups is taken. Sampling and measuring "digits" need the package's own files only; training
    reads the digits themselves, which another package carries.
    """

    distance_name = "Fréchet distance of classifier features"
    scale = "images"
    sizes = Sizes(watched=1000, evaluated=1000)
    conditional = True
    classes = DIGIT_CLASSES
    shape = DIGIT_SHAPE
    data_std = 2.0  # r = 0.5, l = 4.6: 2.7 by `mixtures.data_std`; 2 serves the bundled teacher at 5 to 20 calls

    def __init__(self, source: str = "embedded", seed: int = 0, schedule: Schedule | None = None):
        self.source, self.seed = source, seed
        self.name = ("digits" if (source, seed) == ("embedded", 0) else f"digits:{source}") + (
            f",{seed}" if seed else ""
        )
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule

    @functools.cached_property
    def digits(self) -> Digits:
        """The digits themselves. They are read when they are first needed."""
        return digits(self.source, seed=self.seed)

    @functools.cached_property
    def teacher(self) -> Denoiser:  # type: ignore[override]  # an attribute, read when it is first needed
        """The bundled teacher."""
        return weights.load_denoiser(TEACHER_ID)

    @functools.cached_property
    def _features(self) -> "Features":
        return Features.bundled() if self.name == "digits" else Features.of(Features.bundled().net, self.digits)

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        i = torch.randint(len(self.digits.train), (n,), generator=as_generator(generator))
        return self.digits.train[i], self.digits.train_labels[i]

    def augmented(self, x0: Tensor, strength: float, draws: Draws) -> Tensor:
        """Digits shifted by up to 1 pixel, turned by up to 0.15 radians and scaled by up to 8 percent, at strength
        1."""
        n, far = len(x0), strength
        shift = torch.stack([draws.uniform(n, -0.07 * far, 0.07 * far) for _ in range(2)], 1)
        angle, scale = draws.uniform(n, -0.15 * far, 0.15 * far), draws.uniform(n, 1 - 0.08 * far, 1 + 0.08 * far)
        return moved(x0, shift, angle, scale)

    def network(self, *, guided: bool = False) -> nn.Module:
        return UNet(widths=(16, 96), middle=2, attention=True, embedding=192, classes=DIGIT_CLASSES, guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        check_finite(samples, "samples")
        if samples.shape[1:] != DIGIT_SHAPE:
            raise ValueError(f"digits have shape (n, 1, 28, 28), got {shape(samples)}")
        known = self._features
        samples = samples.float().cpu()
        requested = self.eval_labels(len(samples)) if cond is None else cond.cpu()
        assert requested is not None  # digits have classes
        found, classes = known.net.features_of(samples)
        # a Fréchet distance is biased upwards by few samples: both sides of the comparison get the same number, so that
        # more samples than there are held-out digits are measured in groups
        groups = found.tensor_split(math.ceil(len(found) / len(known.held_out)))
        distances = [frechet_distance(group, known.reference) for group in groups]
        lowest = known.floor(len(groups[0]))
        accuracy = None if cond is None else float((classes == requested).double().mean())
        got, due = (
            torch.bincount(which, minlength=DIGIT_CLASSES).double() / len(samples) for which in (classes, requested)
        )
        wanted = due > 0
        fractions, expected = (tuple(values[wanted].tolist()) for values in (got, due))
        return Measured(
            statistics.mean(distances),
            lowest.mean,
            lowest.std,
            accuracy,
            fractions,
            expected,
            statistics.stdev(distances) if len(groups) > 1 else None,
        )


def _open(which: str, seed: int) -> DigitsProblem:
    source = which or "embedded"
    if source not in SOURCES:
        raise unknown("source of digits", source, SOURCES)
    return DigitsProblem(source, seed)


ENTRY = Entry(
    name="digits",
    title="digits: 5,000 digits of MNIST with the bundled teacher; digits:openml, all 70,000 from the network",
    scale="images",
    open=_open,
)


class Features:
    """The features that images of digits are compared with.

    `net` is the classifier. `reference` holds the moments of the training digits' features. `held_out` (n, 64) and
    `labels` (n,) are the features and labels of the test digits.
    """

    def __init__(self, net: Classifier, reference: Moments, held_out: Tensor, labels: Tensor):
        self.net, self.reference, self.held_out, self.labels = net.eval(), reference, held_out, labels

    @classmethod
    def of(cls, net: Classifier, digits: Digits) -> "Features":
        """The features of a set of digits."""
        return cls(
            net, Moments.of(net.features_of(digits.train)[0]), net.features_of(digits.test)[0], digits.test_labels
        )

    @classmethod
    @functools.cache
    def bundled(cls) -> "Features":
        """The features that the package carries."""
        tensors, _ = weights.load(FEATURES_ID)
        net = Classifier()
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        moments = Moments(tensors["reference.mean"], tensors["reference.cov"])
        return cls(net, moments, tensors["held_out"].float(), tensors["labels"].long())

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for a file. The held-out features are in half precision."""
        net = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        moments = {"reference.mean": self.reference.mean, "reference.cov": self.reference.cov}
        return net | moments | {"held_out": self.held_out.half(), "labels": self.labels.to(torch.uint8)}

    def floor(self, n: int) -> Spread:
        """The Fréchet distance of n held-out digits, every class in turn, to the training digits.

        It is the mean over ten random draws of n digits, with their spread. Where n takes all held-out digits, there is
        one such set: its distance is the floor, and its spread is that of ten sets resampled from it class by class
        (the bootstrap).
        """
        rng = torch.Generator().manual_seed(0)
        counts = torch.bincount(torch.arange(n) % DIGIT_CLASSES, minlength=DIGIT_CLASSES).tolist()
        own = [torch.nonzero(self.labels == label)[:, 0] for label in range(DIGIT_CLASSES)]
        whole = all(k >= len(i) for k, i in zip(counts, own, strict=True))

        def distance(pick: Callable[[Tensor, int], Tensor]) -> float:
            features = torch.cat([self.held_out[pick(i, k)] for i, k in zip(own, counts, strict=True)])
            return frechet_distance(features, self.reference)

        if whole:
            repeats = [distance(lambda i, k: i[torch.randint(len(i), (len(i),), generator=rng)]) for _ in range(10)]
            return Spread(distance(lambda i, k: i), spread(repeats).std, tuple(repeats))
        return spread([distance(lambda i, k: i[torch.randperm(len(i), generator=rng)[:k]]) for _ in range(10)])


def classifier_turn(net: Classifier, digits: Digits, lr: float = 2e-3, batch: int = 128) -> Turn:
    """How the classifier is trained: by cross-entropy with smoothed labels, on training digits that are shifted, turned
    and scaled a little."""

    def loss(step: int, draws: Draws) -> Tensor:
        n = draws.own(batch)
        i = draws.integers(n, len(digits.train))
        shift = torch.stack([draws.uniform(n, -0.1, 0.1), draws.uniform(n, -0.1, 0.1)], 1)
        images = moved(digits.train[i], shift, draws.uniform(n, -0.2, 0.2), draws.uniform(n, 1 / 1.12, 1.12))
        return F.cross_entropy(net(images), digits.train_labels[i], label_smoothing=0.05)

    return Turn(loss, list(net.parameters()), lr)
