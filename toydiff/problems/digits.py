"""Handwritten digits: real images, a trained teacher, and the features of a small classifier to measure with."""

import functools

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
    """Digits by class, on Stable Diffusion's table, with the bundled teacher, measured by the Fréchet distance of
    classifier features.

    `source` and `seed` choose the digits and their split (`toydiff.problems.data.digits`). The reference is the
    training part; the floor is what the held-out digits show against it. Without the package that carries the digits,
    everything but training works.
    """

    distance_name = "Fréchet distance of classifier features"
    scale = "images"
    sizes = Sizes(watched=1000, evaluated=1000)
    conditional = True
    classes = DIGIT_CLASSES
    shape = DIGIT_SHAPE

    def __init__(self, source: str = "embedded", seed: int = 0, schedule: Schedule | None = None):
        self.source, self.seed = source, seed
        self.name = ("digits" if (source, seed) == ("embedded", 0) else f"digits:{source}") + (
            f",{seed}" if seed else ""
        )
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule

    @functools.cached_property
    def digits(self) -> Digits:
        """The digits themselves, read when they are first needed."""
        return digits(self.source, seed=self.seed)

    @functools.cached_property
    def teacher(self) -> Denoiser:
        """The bundled teacher."""
        return weights.load_denoiser(TEACHER_ID)

    @functools.cached_property
    def _features(self) -> "Features":
        return Features.bundled() if self.name == "digits" else Features.of(Features.bundled().net, self.digits)

    def data(self, n, generator=None):
        i = torch.randint(len(self.digits.train), (n,), generator=as_generator(generator))
        return self.digits.train[i], self.digits.train_labels[i]

    def network(self, *, guided: bool = False) -> nn.Module:
        return UNet(classes=DIGIT_CLASSES, guided=guided)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        check_finite(samples, "samples")
        if samples.shape[1:] != DIGIT_SHAPE:
            raise ValueError(f"digits have shape (n, 1, 28, 28), got {shape(samples)}")
        known = self._features
        # a Fréchet distance is biased upwards by few samples: both sides of the comparison get the same number
        samples = samples[: len(known.held_out)].float().cpu()
        found, classes = known.net.features_of(samples)
        lowest = known.floor(len(samples))
        asked = self.eval_labels(len(samples)) if cond is None else cond[: len(samples)].cpu()
        accuracy = None if cond is None else float((classes == asked).double().mean())
        got, due = (
            torch.bincount(which, minlength=DIGIT_CLASSES).double() / len(samples) for which in (classes, asked)
        )
        wanted = due > 0
        fractions, expected = (tuple(values[wanted].tolist()) for values in (got, due))
        return Measured(
            frechet_distance(found, known.reference), lowest.mean, lowest.std, accuracy, fractions, expected
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
    """The classifier, the moments of the training digits' features, and the features (n, 64) and labels (n,) of the
    held-out ones."""

    def __init__(self, net: Classifier, reference: Moments, held_out: Tensor, labels: Tensor):
        self.net, self.reference, self.held_out, self.labels = net.eval(), reference, held_out, labels

    @classmethod
    def of(cls, net: Classifier, digits: Digits) -> "Features":
        """Those of a set of digits."""
        return cls(
            net, Moments.of(net.features_of(digits.train)[0]), net.features_of(digits.test)[0], digits.test_labels
        )

    @classmethod
    @functools.cache
    def bundled(cls) -> "Features":
        """Those that ship with the package."""
        tensors, _ = weights.load(FEATURES_ID)
        net = Classifier()
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        moments = Moments(tensors["reference.mean"], tensors["reference.cov"])
        return cls(net, moments, tensors["held_out"].float(), tensors["labels"].long())

    def tensors(self) -> dict[str, Tensor]:
        """As named tensors, for a file; the held-out features in half precision."""
        net = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        moments = {"reference.mean": self.reference.mean, "reference.cov": self.reference.cov}
        return net | moments | {"held_out": self.held_out.half(), "labels": self.labels.to(torch.uint8)}

    def floor(self, n: int) -> Spread:
        """The distance that n held-out digits, every class in turn as a measurement asks for them, have to the training
        digits; over ten draws.

        Of all held-out digits there is one set: its distance, with the spread of sets resampled from it class by class
        (the bootstrap).
        """
        rng = torch.Generator().manual_seed(0)
        asked = torch.bincount(torch.arange(n) % DIGIT_CLASSES, minlength=DIGIT_CLASSES).tolist()
        own = [torch.nonzero(self.labels == label)[:, 0] for label in range(DIGIT_CLASSES)]
        whole = all(k >= len(i) for k, i in zip(asked, own, strict=True))

        def distance(pick) -> float:
            return frechet_distance(
                torch.cat([self.held_out[pick(i, k)] for i, k in zip(own, asked, strict=True)]), self.reference
            )

        if whole:
            repeats = [distance(lambda i, k: i[torch.randint(len(i), (len(i),), generator=rng)]) for _ in range(10)]
            return Spread(distance(lambda i, k: i), spread(repeats).std, tuple(repeats))
        return spread([distance(lambda i, k: i[torch.randperm(len(i), generator=rng)[:k]]) for _ in range(10)])


def classifier_turn(net: Classifier, digits: Digits, lr: float = 2e-3, batch: int = 128) -> Turn:
    """The classifier's recipe: cross-entropy with smoothed labels on training digits moved, turned and scaled a
    little."""

    def loss(step: int, draws: Draws) -> Tensor:
        n = draws.own(batch)
        i = draws.integers(n, len(digits.train))
        shift = torch.stack([draws.uniform(n, -0.1, 0.1), draws.uniform(n, -0.1, 0.1)], 1)
        images = moved(digits.train[i], shift, draws.uniform(n, -0.2, 0.2), draws.uniform(n, 1 / 1.12, 1.12))
        return F.cross_entropy(net(images), digits.train_labels[i], label_smoothing=0.05)

    return Turn(loss, list(net.parameters()), lr)
