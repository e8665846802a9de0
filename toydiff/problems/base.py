"""What a method is applied to: data, a teacher, students, measures. A method never knows which problem it got."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..schedules import Schedule
from ..support.checks import as_generator


@dataclass(frozen=True)
class Measured:
    """How good samples are. `distance` to true samples, in the problem's own distance; `floor`, what true samples
    show among themselves, with its spread over repetitions `floor_std`; `accuracy`, the share of the samples that
    are of the class asked for, None without classes; `fractions`, the part of the samples that lies at each mode, or is
    of each class that was asked for, and `expected`, what it should be, None where there are no modes.
    """

    distance: float
    floor: float
    floor_std: float
    accuracy: float | None
    fractions: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None

    @property
    def least_fraction(self) -> float | None:
        """The share of the mode that was missed most, over what it should be: 1 is perfect, 0 a mode that is lost."""
        if self.fractions is None:
            return None
        return min(fraction / due for fraction, due in zip(self.fractions, self.expected, strict=True))

    @property
    def coverage(self) -> float | None:
        """The part of the modes that have a tenth of their share at least."""
        if self.fractions is None:
            return None
        return sum(fraction >= 0.1 * due for fraction, due in zip(self.fractions, self.expected, strict=True)) / len(
            self.fractions
        )


@dataclass(frozen=True)
class Sizes:
    """How many samples of a problem are made: `at_once`, in one network call where samples are drawn, at most;
    `watched`, of a measurement during training; `evaluated`, of one afterwards; `pairs`, how pairs are made for a
    method that was given none, where it differs from the usual way (the fields of `toydiff.problems.pairs.Recipe`).
    """

    at_once: int = 1000
    watched: int = 2000
    evaluated: int = 8000
    pairs: Mapping[str, object] = field(default_factory=dict)


class Problem:
    """A problem. A subclass sets `name`, `schedule`, `shape` (of one sample), `distance_name` and, where samples have
    classes, how many, and writes `data`, `network` and `measure`.

    Everything is on the processor; a run moves it.
    """

    name: str
    """What it is called in files and, where `toydiff.problems.problem` opens it, on the command line."""
    schedule: Schedule
    shape: tuple[int, ...]
    scale: str = "points"
    """Which of a method's recipes fits it: "points", "images" or "latents"."""
    classes: int = 0
    """How many classes training samples have; 0 for none."""
    conditional: bool = False
    """Whether samples are asked for by class, as digits are, or drawn from the whole distribution, as points are."""
    distance_name: str | None = None
    """What `measure` measures; None where there is nothing to compare samples with."""
    teacher: Denoiser | None = None
    """The denoiser that a student learns from; None where a method has to train one first."""
    sizes: Sizes = Sizes()
    """How many samples of it are made, and where."""

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        """n training samples (n, *shape) and their labels (n,), or None where there are no classes."""
        raise NotImplementedError

    def network(self, *, guided: bool = False) -> nn.Module:
        """A fresh network of the size that this problem needs, for `LambdaDenoiser`: net(x/S, lambda, cond,
        guidance_scale), with `config`, the arguments that make it again, such as `toydiff.nets.MLP`. guided: it is
        also told the guidance scale."""
        raise NotImplementedError

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        """How good samples (n, *shape) are; cond (n,), the classes that were asked for."""
        raise NotImplementedError

    def eval_labels(self, n: int) -> Tensor | None:
        """What a measurement of n samples asks for, (n,): every class in turn, or None where samples are drawn
        without."""
        return torch.arange(n) % self.classes if self.conditional else None

    def data_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """Labels as the data has them, (n,), or None where it has none: what a student that generates without data
        is asked for in training."""
        return self.data(n, generator)[1]

    def uniform_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """Labels at random, each as likely as another, (n,), or None where samples are drawn without: what samples
        of a teacher are asked for."""
        return torch.randint(self.classes, (n,), generator=as_generator(generator)) if self.conditional else None

    def student(
        self,
        schedule: Schedule | None = None,
        kind: str = "eps",
        *,
        start: Denoiser | None = None,
        guided: bool = False,
    ) -> LambdaDenoiser:
        """A trainable denoiser on a schedule (by default the problem's own), predicting `kind`.

        With `start`, a denoiser of ours with a network, the student's network starts as a copy of that one, whatever
        schedule and kind it had: they are conditioned on the noise level, so only the meaning of the output may change.
        `guided` then adds the guidance input, which does nothing before it is trained. An exact denoiser has no weights
        to start from: the network is fresh.
        """
        net = self.network(guided=guided)
        if isinstance(start, LambdaDenoiser):
            net = _grown(start.net) if guided else copy.deepcopy(start.net)
        net.train().requires_grad_(True)
        return LambdaDenoiser(net, self.schedule if schedule is None else schedule, kind)


class CheckpointProblem(Problem):
    """A problem that is a checkpoint of another library: its own model is the teacher, and prompts are the classes.

    What a run has to know of it beside the rest: settings that make it again, prompts that are encoded before they are
    asked for, and networks that come to a device together with what encodes them. A method without a teacher starts
    from the checkpoint's own weights.
    """

    def settings(self) -> dict:
        """What is needed beside the name to make the problem again (`toydiff.problems.problem`), as JSON."""
        raise NotImplementedError

    def inputs(self) -> dict:
        """What else a run or a set of pairs depends on, as JSON: where it differs, neither is continued."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """The prompts that samples are asked for by, in words."""
        raise NotImplementedError

    def to(self, device: torch.device, *models: Denoiser) -> None:
        """Move the checkpoint to a device, and models of checkpoints with it."""
        raise NotImplementedError

    def ready(self) -> None:
        """Read the data now, and not when they are first drawn; `ValueError` where there are none."""
        raise NotImplementedError

    def accept(self, pairs) -> None:
        """Be ready for `Pairs` of this problem that others made, and for their prompts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Entry:
    """A kind of problem, as it is asked for by name: KIND or KIND:WHICH.

    title: how it is written, and what it is, for people. scale: that of its problems. open(which, seed) makes one; a
    checkpoint's WHICH is a path, taken as it is, and its `open` takes settings by name as well
    (`CheckpointProblem.settings`).
    """

    name: str
    title: str
    scale: str
    open: Callable[..., Problem]
    checkpoint: bool = False


def _grown(start: nn.Module) -> nn.Module:
    """`start`'s weights in a network that also sees the guidance scale."""
    config = start.config | {"guided": True}
    grown = type(start)(**config)
    missing, unexpected = grown.load_state_dict(start.state_dict(), strict=False)
    if unexpected or any("guidance" not in key for key in missing):
        raise ValueError(f"the student cannot start from these weights: {', '.join([*missing, *unexpected])}")
    return grown
