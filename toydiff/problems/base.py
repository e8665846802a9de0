"""What a method is applied to: data, a teacher, students, a measure. A method never knows which problem it got."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..discrete import DEFAULT_SAMPLER, NetPosterior, Posterior, TokenPath
from ..grids import DEFAULT_GRID
from ..prediction import sigma_data_of, with_sigma_data
from ..schedules import Schedule
from ..solvers.registry import DEFAULT_SOLVER
from ..support.checks import as_generator
from ..training import Draws

TOKENS, TOKEN_IMAGES = "tokens", "token-images"
TOKEN_SCALES = (TOKENS, TOKEN_IMAGES)
"""The scales of problems of tokens: strings, and images."""


@dataclass(frozen=True)
class Part:
    """One measure among several of the same samples."""

    value: float
    """Of the samples against true samples."""
    floor: float
    """Of true samples against other true samples."""
    floor_std: float
    """The standard deviation of the floor over repetitions."""


@dataclass(frozen=True)
class Measured:
    """How good samples are."""

    distance: float
    """The distance of the samples to true samples, in the problem's own distance (`Problem.distance_name`)."""
    floor: float
    """The distance of true samples to other true samples: no sampler can be expected below it."""
    floor_std: float
    """The standard deviation of the floor over repetitions."""
    accuracy: float | None
    """The fraction of the samples, 0 to 1, that are of the class requested for them; None without classes."""
    fractions: tuple[float, ...] | None = None
    """The fraction of the samples at each mode, or of each requested class; None where there are no modes."""
    expected: tuple[float, ...] | None = None
    """What `fractions` should be; None where they are None."""
    distance_std: float | None = None
    """The standard deviation of the distance over the groups in which many samples are measured; None for one group."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Other measures by name, such as those of a clip's motion."""

    @property
    def least_fraction(self) -> float | None:
        """The smallest of fraction/expected over the modes: 1 is perfect, 0 means that a mode is lost."""
        if self.fractions is None or self.expected is None:
            return None
        return min(fraction / due for fraction, due in zip(self.fractions, self.expected, strict=True))

    @property
    def coverage(self) -> float | None:
        """The fraction of the modes, 0 to 1, that are found: those with a tenth of the samples expected, or more."""
        if self.fractions is None or self.expected is None:
            return None
        found = [fraction >= 0.1 * due for fraction, due in zip(self.fractions, self.expected, strict=True)]
        return sum(found) / len(found)


@dataclass(frozen=True)
class Sizes:
    """How many samples of a problem are made."""

    at_once: int = 1000
    """The most samples in one network call while sampling."""
    watched: int = 2000
    """The samples of a measurement during training."""
    evaluated: int = 8000
    """The samples of a measurement after training."""
    pairs: Mapping[str, Any] = field(default_factory=dict)
    """How pairs are made for a method that was given none: the fields of `toydiff.problems.pairs.Recipe` that differ
    from their defaults."""
    watched_steps: int = 1
    """A measurement during training takes the fewest steps of the method's that are at least so many."""


class Problem:
    """A problem: what a method is applied to.

    A subclass sets `name`, `schedule`, `shape` and `distance_name`, and `classes` where samples have classes. It writes
    `data`, `network` and `measure`. Its tensors and networks are on the processor; a run moves them.
    """

    name: str
    """What the problem is called in files, and on the command line where `toydiff.problems.problem` opens it."""
    schedule: Schedule
    """The schedule of the teacher, and of a student unless its method has another one."""
    shape: tuple[int, ...]
    """The shape of one sample."""
    scale: str = "points"
    """Which of a method's recipes, its settings by kind of problem, fits: "points", "images", "latents", "sequences",
    "clips", "tokens" or "token-images"."""
    classes: int = 0
    """How many classes the training samples have; 0 for none."""
    conditional: bool = False
    """Whether a sample is drawn for a given class, as digits are. If not, it is drawn from the whole distribution, as
    points are, even where training samples have classes."""
    distance_name: str | None = None
    """What `measure` measures; None where there is nothing to compare samples with."""
    compared_with: str = "true samples"
    """What it measures the distance to."""
    teacher: Denoiser | None = None
    """The denoiser that a student learns from; None where a teacher has to be trained first."""
    sizes: Sizes = Sizes()
    """How many samples are made at once, in a measurement and as pairs."""
    data_std: float = 1.0
    """The scale of the data, by which students are sampled: see `Denoiser.data_std`."""
    sigma_data: float = 1.0
    """The root mean square deviation of the data where it is far from 1, by which the kinds of students go
    (`prediction.SIGMA_DATA`): so a network sees and predicts numbers of about unit size."""
    walk: tuple[str, str] = (DEFAULT_SOLVER, DEFAULT_GRID)
    """The solver and time grid of models that may take any number of steps, by name."""

    def definition(self) -> tuple[dict, dict[str, Tensor]] | None:
        """What `toydiff.problems.defined` makes the problem again from, where its name is not enough; otherwise None.

        (description, tensors): a description as JSON, whose `what` is a key of `toydiff.problems.DEFINED`, and tensors
        by name. A run keeps both.
        """
        return None

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        """n training samples (n, *shape), and their labels (n,) or None where there are no classes."""
        raise NotImplementedError

    def augmented(self, x0: Tensor, strength: float, draws: Draws) -> Tensor:
        """Training samples (n, *shape), each changed a little into another that might be in the data. strength in (0,
        1]: how much. `ValueError` where the problem knows no such changes."""
        raise ValueError(f"the data of {self.name} cannot be augmented; set augment to 0")

    def network(self, *, guided: bool = False) -> nn.Module:
        """A fresh network of the size that this problem needs, such as `toydiff.nets.MLP`.

        `LambdaDenoiser` calls it as net(x/S, lambda, cond, guidance_scale). Its attribute `config` holds the arguments
        that it was made with. guided: the guidance scale is one of its inputs.
        """
        raise NotImplementedError

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        """How good samples (n, *shape) are. cond (n,): the labels that they were conditioned on, or None."""
        raise NotImplementedError

    def eval_labels(self, n: int) -> Tensor | None:
        """The labels (n,) that the n samples of a measurement are conditioned on: 0, 1, ..., every class in turn.

        None where the problem is not `conditional`.
        """
        return torch.arange(n) % self.classes if self.conditional else None

    def data_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """n random labels (n,), each class as often as in the data; None where the data has no labels.

        A student that is trained without data is conditioned on these.
        """
        return self.data(n, generator)[1]

    def uniform_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """n random labels (n,), each class equally likely; None where the problem is not `conditional`.

        The samples that a teacher makes for training, such as pairs, are conditioned on these.
        """
        return torch.randint(self.classes, (n,), generator=as_generator(generator)) if self.conditional else None

    def student(
        self,
        schedule: Schedule | None = None,
        kind: str = "eps",
        *,
        start: Denoiser | None = None,
        guided: bool = False,
    ) -> LambdaDenoiser:
        """A trainable denoiser that predicts `kind` on a schedule, by default the problem's own.

        start: a denoiser whose network the student's network starts as a copy of, if it is a `LambdaDenoiser`. Its
        schedule and kind may differ from the student's: a network is conditioned on the noise level, so only the
        meaning of its output changes. Any other denoiser, such as an exact one, has no weights to copy, and the
        student's network is fresh. The kind gets the `sigma_data` of start's, or the problem's, unless it has one.
        guided: the network has the guidance scale as an input. In a copy that input does
        nothing before it is trained. `ValueError` where the weights of `start` do not fit.
        """
        net = self.network(guided=guided)
        if isinstance(start, LambdaDenoiser):
            net = _grown(start.net) if guided else copy.deepcopy(start.net)
        net.train().requires_grad_(True)
        kind = with_sigma_data(
            kind, sigma_data_of(start.kind) if isinstance(start, LambdaDenoiser) else self.sigma_data
        )
        return LambdaDenoiser(net, self.schedule if schedule is None else schedule, kind, data_std=self.data_std)


class TokenProblem(Problem):
    """A problem of strings of tokens, `shape` = (L,). Its models are posteriors, not denoisers: it has no schedule, and
    `toydiff.discrete.TokenPath` says how strings become noise."""

    scale = TOKENS
    walk = (DEFAULT_SAMPLER, "uniform")
    vocab: int
    """How many tokens there are."""
    teacher: Posterior | None = None  # type: ignore[assignment]

    def string_network(self, path: TokenPath, *, latents: int = 1) -> nn.Module:
        """A fresh network for strings on a path, such as `toydiff.nets.StringGRU`. Its attribute `config` holds the
        arguments that it was made with. latents: K products of a mixture, each an input of the network. `ValueError`
        where the problem's network cannot be one."""
        raise NotImplementedError

    def posterior(self, path: TokenPath, *, start: Posterior | None = None, latents: int = 1) -> NetPosterior:
        """A trainable posterior on a path.

        start: a posterior whose network the student's starts as a copy of, if it is a `NetPosterior`; any other, such
        as an exact one, has no weights to copy. latents: K > 1 makes it a mixture. What its network has beyond that of
        start, such as the vectors of its latents, starts fresh. `ValueError` where its network is of another path.
        """
        net = self.string_network(path, latents=latents)
        if isinstance(start, NetPosterior):
            if start.path.source != path.source or start.latents not in (1, latents):
                raise ValueError(
                    f"the student cannot start from these weights: they have the source {start.path.source} and "
                    f"{start.latents} latents, and it has {path.source} and {latents}"
                )
            net.load_state_dict(start.net.state_dict(), strict=start.latents == latents)
        return NetPosterior(net.train().requires_grad_(True), path, self.shape[0])


class CheckpointProblem(Problem):
    """A problem that is a checkpoint of another library. Its own model is the teacher, and prompts are the classes.

    A run needs more of it than of other problems: settings that make it again, and prompts that are encoded before
    samples are conditioned on them. Its networks and its text encoders move to a device together. A method without a
    teacher starts from the checkpoint's own weights.
    """

    walk = ("dpm++2m", "lambda")  # which the checkpoint's own library has as well

    def settings(self) -> dict:
        """What makes the problem again, beside its name (`toydiff.problems.problem`), as JSON."""
        raise NotImplementedError

    def inputs(self) -> dict:
        """What else a run or a set of pairs depends on, as JSON. Neither is continued where this differs."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """The prompts that samples are conditioned on, as text."""
        raise NotImplementedError

    def to(self, device: torch.device, *models: Denoiser) -> None:
        """Move the checkpoint to a device, and with it the models that are made of checkpoints."""
        raise NotImplementedError

    def ready(self) -> None:
        """Read the data now, and not when samples are first drawn; `ValueError` where there is no data."""
        raise NotImplementedError

    def accept(self, pairs: Any) -> None:
        """Prepare for `toydiff.problems.pairs.Pairs` of this problem that were made elsewhere: encode their prompts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Entry:
    """A kind of problem by name. A problem of it is written KIND or KIND:WHICH."""

    name: str
    """KIND."""
    title: str
    """How its problems are written, and what they are, for people."""
    scale: str
    """The `scale` of its problems, but for those of `scales`."""
    open: Callable[..., Problem]
    """open(which, seed) makes a problem; which is "" where only KIND was written."""
    checkpoint: bool = False
    """Whether its problems are checkpoints. Then WHICH is a path or hub id, taken as it is, and `open` also takes
    settings by name (`CheckpointProblem.settings`)."""
    path: bool = False
    """Whether WHICH is a path, and no name with a seed."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """The `scale` of its problems that have another one, by WHICH."""


def _grown(start: nn.Module) -> nn.Module:
    """`start`'s weights in a network that also has the guidance scale as an input."""
    config = cast("dict[str, Any]", start.config)  # torch says that any attribute is a tensor or a module
    grown = type(start)(**config | {"guided": True})
    missing, unexpected = grown.load_state_dict(start.state_dict(), strict=False)
    if unexpected or any("guidance" not in key for key in missing):
        raise ValueError(f"the student cannot start from these weights: {', '.join([*missing, *unexpected])}")
    return grown
