"""What a method is applied to: data, a teacher, students, measures. A method never knows which problem it got."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..checks import as_generator, shape
from ..denoisers import Denoiser, LambdaDenoiser
from ..schedules import Schedule

if TYPE_CHECKING:
    from ..distill.pairs import Pairs


@dataclass(frozen=True)
class Measured:
    """How good samples are. `distance` to true samples, in the problem's own distance; `floor`, what true samples show among themselves,
    with its spread over repetitions `floor_std`; `accuracy`, the share of the samples that are of the class asked for, None without classes;
    `shares`, the part of the samples that lies at each mode, or is of each class that was asked for, and `expected`, what it should be, None where
    there are no modes.
    """

    distance: float
    floor: float
    floor_std: float
    accuracy: float | None
    shares: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None

    @property
    def least_share(self) -> float | None:
        """The share of the mode that was missed most, over what it should be: 1 is perfect, 0 a mode that is lost."""
        if self.shares is None:
            return None
        return min(share / due for share, due in zip(self.shares, self.expected, strict=True))

    @property
    def coverage(self) -> float | None:
        """The part of the modes that have a tenth of their share at least."""
        if self.shares is None:
            return None
        return sum(share >= 0.1 * due for share, due in zip(self.shares, self.expected, strict=True)) / len(self.shares)


class Problem:
    """A problem. A subclass sets `name`, `schedule`, `shape` (of one sample) and `classes` (0: none), and writes the methods below.

    `teacher`: the denoiser that a student learns from, or None where a method has to train one first. `distance_name` says what `measure`
    measures. Everything is on the processor; a run moves it.
    """

    name: str
    schedule: Schedule
    shape: tuple[int, ...]
    classes: int = 0
    conditional: bool = False
    """Whether samples are asked for by class, as digits are, or drawn from the whole distribution, as points are."""
    distance_name: str
    teacher: Denoiser | None = None
    start: Denoiser | None = None
    """What a method without a teacher starts from; None for fresh weights."""
    kind: str = "eps"
    """The kind of prediction that a diffusion model of it has, unless told otherwise."""
    measurable: bool = True
    """Whether there is anything to compare samples with."""
    at_once: int = 1000
    """Samples in one network call where samples are drawn, at most."""
    looked_at: int | None = None
    """Samples of a look during training and of a measurement; None for what is usual."""
    recipe: Mapping[str, object] = {}
    """How pairs are made for a method that was given none, where it differs from the usual way."""

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        """n training samples (n, *shape) and their labels (n,), or None where there are no classes."""
        raise NotImplementedError

    def network(self, *, guided: bool = False) -> nn.Module:
        """A fresh network of the size that this problem needs; `guided`: it also sees the guidance scale."""
        raise NotImplementedError

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        """How good samples (n, *shape) are; cond (n,), the classes that were asked for."""
        raise NotImplementedError

    def labels(self, n: int) -> Tensor | None:
        """The classes to ask for in a measurement of n samples, (n,): every class in turn, or None where none are asked for."""
        return torch.arange(n) % self.classes if self.conditional else None

    def conditions(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """What a student that generates without data is asked for in training, (n,): classes as the data has them, or None where there are none."""
        return self.data(n, generator)[1]

    def asked(self, n: int, generator: torch.Generator | int | None = None) -> Tensor | None:
        """What n samples of a teacher are asked for, (n,): classes or prompts at random, each as likely as another, or None where samples are drawn without."""
        return torch.randint(self.classes, (n,), generator=as_generator(generator)) if self.conditional else None

    def to(self, device: torch.device, *models: Denoiser) -> None:
        """Move models to a device, and be ready for them; most problems are, wherever they are."""
        for D in models:
            D.to(device)

    def accept(self, pairs: "Pairs") -> None:
        """Be ready for pairs of this problem that others made; `ValueError` where they are not of its samples."""
        if pairs.x0.shape[1:] != self.shape:
            raise ValueError(f"the pairs have samples {shape(pairs.x0[0])}, and {self.name} has {tuple(self.shape)}")

    def inputs(self) -> dict:
        """What else a run or a set of pairs depends on, as JSON: where it differs, neither is continued."""
        return {}

    def ready(self) -> None:
        """Read or make the data now, and not when they are first drawn; `ValueError` where there are none."""

    def texts(self) -> list[str]:
        """The prompts that samples are asked for by, in words; none where they are not."""
        return []

    def settings(self) -> dict:
        """What is needed beside the name to make the problem again (`toydiff.problems.problem`), as JSON."""
        return {}

    def student(
        self,
        schedule: Schedule | None = None,
        kind: str = "eps",
        *,
        start: Denoiser | None = None,
        guided: bool = False,
    ) -> LambdaDenoiser:
        """A trainable denoiser on a schedule (by default the problem's own), predicting `kind`.

        With `start`, a denoiser of ours with a network, the student's network starts as a copy of that one, whatever schedule and kind it
        had: they are conditioned on the noise level, so only the meaning of the output may change. `guided` then adds the guidance input,
        which does nothing before it is trained. An exact denoiser has no weights to start from: the network is fresh.
        """
        net = self.network(guided=guided)
        if isinstance(start, LambdaDenoiser):
            net = _grown(start.net) if guided else copy.deepcopy(start.net)
        net.train().requires_grad_(True)
        return LambdaDenoiser(net, self.schedule if schedule is None else schedule, kind)


def _grown(start: nn.Module) -> nn.Module:
    """`start`'s weights in a network that also sees the guidance scale."""
    config = start.config | {"guided": True}
    grown = type(start)(**config)
    missing, unexpected = grown.load_state_dict(start.state_dict(), strict=False)
    if unexpected or any("guidance" not in key for key in missing):
        raise ValueError(f"the student cannot start from these weights: {', '.join([*missing, *unexpected])}")
    return grown
