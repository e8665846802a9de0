"""Clips of real digits that move and turn, made on the fly, whose network is that of single digits with temporal layers
between its own. All frames of a clip share the time; each has its own noise."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import weights
from ..measure import Moments, frechet_distance, sliced_wasserstein, spread
from ..nets import ClipUNet
from ..schedules import Schedule, Tabulated
from ..support.checks import as_generator, check_finite, shape, unknown
from .base import Entry, Measured, Part, Problem, Sizes
from .classifier import Classifier, moved
from .data import DIGIT_CLASSES, DIGIT_SHAPE, Digits, digits
from .digits import TEACHER_ID, Features

FRAMES = 8
SPEEDS = (0.5, 1.0)
"""The least and the greatest speed of a clip, in pixels a frame, drawn uniformly; its direction is any."""
TURNING = 0.08
"""The greatest turning rate of a clip, in radians a frame, drawn uniformly from -TURNING to TURNING."""
REFERENCE = 1000
"""The clips of training digits that samples are compared with."""
REPEATS = 3
"""The sets of clips of held-out digits of which the floors are means."""


_embedded = functools.cache(digits)


def _plain(images: Tensor) -> Tensor:
    return images


def _inverted(images: Tensor) -> Tensor:
    return -images


def _bold(images: Tensor) -> Tensor:
    return F.max_pool2d(images, 3, 1, 1)


def _outlined(images: Tensor) -> Tensor:
    return _bold(images) - images - 1  # the ink that bold digits have more


STYLES: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": _plain,
    "inverted": _inverted,
    "bold": _bold,
    "outlined": _outlined,
}
"""How frames (n, 1, H, W) look: as they are, white on black, a pixel thicker on all sides, or only that pixel."""


class ClipsProblem(Problem):
    """Clips of a digit that moves and turns at a constant velocity and rate, (8, 1, 28, 28), by the digit's class.

    The velocity (`SPEEDS`, in any direction) and the turning rate (`TURNING`) are drawn for each clip, whose digit is
    in the middle of the picture halfway, as it is in the data. `style`: how the frames look, a name of `STYLES`.

    The distance is the Fréchet distance of clips: of the classifier features of the first and the last frame together,
    which a clip that stands still does not pass. Its parts (`Measured.parts`), each against clips of training digits:

    - `frame`: the Fréchet distance of the features of single frames;
    - `lag-1`: the absolute error of the correlation between a frame and the next one (`lag_correlation`);
    - `velocity`: the sliced Wasserstein distance of how far the ink's middle moves in a frame, in pixels;
    - `turning`: the Wasserstein distance of the clips' turning rates, in radians a frame (`turning_rate`);
    - `identity`: the fraction of frames that the classifier takes for another digit than the frame before.

    The floors are those of clips of held-out digits. The digits themselves, which another package carries, are needed
    to measure as to train. `ValueError` for another style.
    """

    distance_name = "Fréchet distance of clips' features"
    scale = "clips"
    sizes = Sizes(at_once=100, watched=200, evaluated=500)
    conditional = True
    classes = DIGIT_CLASSES
    shape = (FRAMES, *DIGIT_SHAPE)
    data_std = 2.0  # as digits have it

    def __init__(self, style: str = "plain", schedule: Schedule | None = None):
        if style not in STYLES:
            raise unknown("style of digits", style, STYLES)
        self.style = style
        self.name = "clips" if style == "plain" else f"clips:{style}"
        self.schedule = Tabulated.scaled_linear() if schedule is None else schedule
        self._floors: dict[int, dict[str, Part]] = {}

    @functools.cached_property
    def digits(self) -> Digits:
        """The digits that move. They are read when they are first needed."""
        return _embedded()

    @functools.cached_property
    def reference(self) -> "Seen":
        """What is seen of the clips that samples are compared with."""
        return Seen.of(self.data(REFERENCE, 10**6)[0], Features.bundled().net)

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor]:
        return self._clips(n, self.digits.train, self.digits.train_labels, as_generator(generator))

    def single_frames(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor]:
        """n frames (n, 1, 28, 28), each from a clip of its own, at a random place, and their labels (n,)."""
        rng = as_generator(generator)
        clips, labels = self.data(n, rng)
        return clips[torch.arange(n), torch.randint(FRAMES, (n,), generator=rng)], labels

    def network(self, *, guided: bool = False) -> nn.Module:
        """The bundled teacher of digits with temporal layers, which add nothing at first."""
        base = weights.load_denoiser(TEACHER_ID).net
        net = ClipUNet(**base.config | {"frames": FRAMES, "guided": guided})  # type: ignore[operator]
        net.image.load_state_dict(base.state_dict(), strict=not guided)
        return net

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        check_finite(samples, "samples")
        if samples.shape[1:] != self.shape:
            raise ValueError(f"clips of digits have shape (n, 8, 1, 28, 28), got {shape(samples)}")
        n = len(samples)
        requested = self.eval_labels(n) if cond is None else cond.cpu()
        assert requested is not None  # clips have classes
        seen = Seen.of(samples.float().cpu(), Features.bundled().net)
        if n not in self._floors:
            self._floors[n] = self._floor(n)
        lowest = self._floors[n]
        parts = {
            name: Part(between(seen, self.reference), lowest[name].floor, lowest[name].floor_std)
            for name, between in MEASURES.items()
        }
        whole = parts.pop("clip")
        right = (seen.classes == requested[:, None]).double().mean()
        accuracy = None if cond is None else float(right)
        return Measured(whole.value, whole.floor, whole.floor_std, accuracy, parts=parts)

    def _clips(self, n: int, images: Tensor, labels: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """n clips of these digits and their labels."""
        i = torch.randint(len(images), (n,), generator=rng)
        low, high = SPEEDS
        speed, direction, turning = torch.rand(3, n, generator=rng, dtype=images.dtype)
        speed, direction = low + (high - low) * speed, 2 * math.pi * direction
        velocity = speed[:, None] * torch.stack([direction.cos(), direction.sin()], 1)
        clips = moving(images[i], velocity, TURNING * (2 * turning - 1))
        return STYLES[self.style](clips.flatten(0, 1)).view_as(clips), labels[i]

    def _floor(self, n: int) -> dict[str, Part]:
        """The measures of n clips of held-out digits, as parts whose value is their mean."""
        own = self.digits.test, self.digits.test_labels
        held_out = [Seen.of(self._clips(n, *own, as_generator(k))[0], Features.bundled().net) for k in range(REPEATS)]
        found = {}
        for name, between in MEASURES.items():
            lowest = spread([between(seen, self.reference) for seen in held_out])
            found[name] = Part(lowest.mean, lowest.mean, lowest.std)
        return found


def moving(images: Tensor, velocity: Tensor, turning: Tensor, frames: int = FRAMES) -> Tensor:
    """Clips (n, frames, 1, H, W) of images (n, 1, H, W), H = W, that move and turn and are in their own place halfway.

    velocity (n, 2), in pixels a frame, to the right and down; turning (n,), in radians a frame, clockwise.
    """
    n, side = len(images), images.shape[-1]
    time = torch.arange(frames, dtype=images.dtype) - (frames - 1) / 2
    angle = -turning[:, None] * time
    right, down = (2 / side * velocity[:, :, None] * time).unbind(1)  # in half widths, (n, frames)
    cos, sin = angle.cos(), angle.sin()
    # `moved` looks up, for each place, where it comes from
    shift = -torch.stack([cos * right - sin * down, sin * right + cos * down], -1)
    each = images.repeat_interleave(frames, 0)
    return moved(each, shift.flatten(0, 1), angle.flatten(), images.new_ones(n * frames)).unflatten(0, (n, frames))


@dataclass(frozen=True)
class Seen:
    """What is seen of n clips: features (n, frames, 64) and classes (n, frames) by the classifier, how far the ink's
    middle moves from each frame to the next, (n, frames - 1, 2), in pixels, turning rates (n,), and the correlation of
    neighbouring frames."""

    features: Tensor
    classes: Tensor
    velocity: Tensor
    turning: Tensor
    lag: float

    @classmethod
    def of(cls, clips: Tensor, net: Classifier) -> "Seen":
        """What is seen of clips (n, frames, 1, 28, 28)."""
        features, classes = (each.unflatten(0, clips.shape[:2]) for each in net.features_of(clips.flatten(0, 1)))
        mass = ink(clips)
        return cls(features, classes, middle(mass).diff(dim=1), turning_rate(mass), lag_correlation(clips))


def ink(clips: Tensor) -> Tensor:
    """How far each pixel is from paper, (n, frames, H, W), in [0, 1], of clips (n, frames, 1, H, W). Paper is the mean
    of a frame's border, and what differs from it by less than a fifth is paper too."""
    x = clips[:, :, 0]
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1).mean(-1)
    far = (x - border[..., None, None]).abs() / 2
    return torch.where(far > 0.2, far, 0).clamp(max=1)


def middle(mass: Tensor) -> Tensor:
    """The middle of the ink (n, frames, H, W), (n, frames, 2): its mean column and row, in pixels; that of the picture
    where there is no ink."""
    mass = mass + 1e-6
    across, along = mass.sum(-2), mass.sum(-1)
    places = torch.arange(mass.shape[-1], dtype=mass.dtype)
    return torch.stack([(across * places).sum(-1), (along * places).sum(-1)], -1) / across.sum(-1, keepdim=True)


def turning_rate(mass: Tensor) -> Tensor:
    """How fast the ink (n, frames, H, W) turns, (n,), in radians a frame, clockwise.

    m = sum over the ink of (u + iv)^2, (u, v) from its middle, turns by twice the angle and is larger the longer the
    ink is: the rate is half the angle of the sum over the frames of m_k+1 conj(m_k).
    """
    side = torch.arange(mass.shape[-1], dtype=mass.dtype)
    column, row = (m[..., None, None] for m in middle(mass).unbind(-1))
    m = (mass * torch.complex(side - column, side[:, None] - row).square()).sum((-1, -2))
    return (m[:, 1:] * m[:, :-1].conj()).sum(1).angle() / 2


def lag_correlation(clips: Tensor) -> float:
    """The correlation between a frame and the next one, of clips (n, frames, ...): the covariance over all clips and
    all pairs of neighbours, summed over the pixels, against the variances likewise."""
    x = clips.flatten(2).double()
    early, late = (part.flatten(0, 1) for part in (x[:, :-1], x[:, 1:]))
    early, late = early - early.mean(0), late - late.mean(0)
    return float((early * late).sum() / (early.square().sum() * late.square().sum()).sqrt().clamp(min=1e-12))


def ends_distance(a: Seen, b: Seen) -> float:
    """The Fréchet distance of the features of the first and the last frame together."""
    ends = [seen.features[:, [0, -1]].flatten(1) for seen in (a, b)]
    return frechet_distance(ends[0], Moments.of(ends[1]))


def frame_distance(a: Seen, b: Seen) -> float:
    """The Fréchet distance of the features of single frames."""
    return frechet_distance(a.features.flatten(0, 1), Moments.of(b.features.flatten(0, 1)))


def lag_error(a: Seen, b: Seen) -> float:
    """The absolute difference of the correlations between a frame and the next one."""
    return abs(a.lag - b.lag)


def velocity_distance(a: Seen, b: Seen) -> float:
    """The sliced Wasserstein distance of how far the ink's middle moves in a frame."""
    return sliced_wasserstein(a.velocity.flatten(0, 1), b.velocity.flatten(0, 1), projections=32)


def turning_distance(a: Seen, b: Seen) -> float:
    """The Wasserstein distance of the turning rates."""
    return sliced_wasserstein(a.turning[:, None], b.turning[:, None], projections=1)


def changed_identity(a: Seen, b: Seen) -> float:
    """The fraction of frames of a that are taken for another digit than the frame before."""
    return float((a.classes.diff(dim=1) != 0).double().mean())


MEASURES: dict[str, Callable[[Seen, Seen], float]] = {
    "clip": ends_distance,
    "frame": frame_distance,
    "lag-1": lag_error,
    "velocity": velocity_distance,
    "turning": turning_distance,
    "identity": changed_identity,
}
"""The measures of clips against others, by name; `clip` is the problem's distance."""


ENTRY = Entry(
    name="clips",
    title=f"clips or clips:STYLE, digits that move and turn, 8 frames ({', '.join(STYLES)})",
    scale="clips",
    open=lambda which, seed: ClipsProblem(which or "plain"),
)
