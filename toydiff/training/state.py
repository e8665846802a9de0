"""What is minimised (`Turn`), and how far a training has come (`State`)."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..support.checks import check_count, check_positive
from .average import EMA
from .draws import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator


Loss = Callable[[int, Draws], Tensor]
"""loss(step, draws) -> a scalar; step counts from 0."""


@dataclass
class Turn:
    """One player of an update: the loss that it minimises, and the parameters that it moves. `repeats`: how many steps
    it takes in one update of the run. `during`: the updates, from 0, the first and the one past the last, in which it
    takes part; None for all.

    Most methods have one turn. If a second model is trained beside the student, each has a turn, in the order given,
    and changes only its own parameters.
    """

    loss: Loss
    params: Sequence[nn.Parameter]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    repeats: int = 1
    name: str = "loss"
    during: tuple[int, int] | None = None

    def takes_part(self, step: int) -> bool:
        """Whether the turn is one of update `step`, from 0."""
        return self.during is None or self.during[0] <= step < self.during[1]

    def __post_init__(self):
        self.params = [p for p in self.params if p.requires_grad]
        if not self.params:
            raise ValueError(f"the turn {self.name!r} has no parameters to train")
        check_positive(self.lr, "lr")
        check_count(self.repeats, "repeats")


@dataclass
class State:
    """Everything that the next update depends on: what `fit` moves, and what a checkpoint holds.

    - modules: everything with a state that the losses use, by name, and also the averages and a `Watch`. A checkpoint
      holds what is named here, and loads its tensors in place;
    - optimizers: one for each turn;
    - history, measured: the rows of the loss curve, and those of a watch's figures.
    """

    turns: Sequence[Turn]
    averages: Sequence[EMA]
    modules: Mapping[str, nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]
    draws: Draws
    accelerator: "Accelerator | None" = None
    step: int = 0
    seconds: float = 0.0
    history: list = field(default_factory=list)
    measured: list = field(default_factory=list)

    @classmethod
    def of(
        cls,
        turns: Turn | Sequence[Turn],
        *,
        averages: Sequence[EMA] = (),
        modules: Mapping[str, nn.Module] | None = None,
        seed: int = 0,
        accelerator: "Accelerator | None" = None,
    ) -> "State":
        """The state before the first update: an Adam for each turn, and a stream of random numbers from the seed.

        averages follow their sources after each update. accelerator: an `accelerate.Accelerator`; a batch is then
        divided among its processes, whose gradients are averaged. `ValueError` if there is nothing to train, if two
        turns have one name, or if the accelerator does not know the other processes (`check_processes`).
        """
        check_processes(accelerator)
        turns = [turns] if isinstance(turns, Turn) else list(turns)
        if not turns:
            raise ValueError("there is nothing to train: give at least one turn")
        if len({turn.name for turn in turns}) < len(turns):
            raise ValueError(f"every turn needs a name of its own, got {', '.join(turn.name for turn in turns)}")
        device = turns[0].params[0].device
        rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
        optimizers = [
            torch.optim.Adam(turn.params, lr=turn.lr, betas=turn.betas, fused=device.type in ("cpu", "cuda"))
            for turn in turns
        ]
        return cls(turns, averages, modules or {}, optimizers, Draws(seed, device, rank, world), accelerator)

    def check_whole(self) -> None:
        """`modules` hold every weight that an update changes; `ValueError` otherwise."""
        saved = {id(p) for module in self.modules.values() for p in module.parameters()}
        changed = {turn.name: turn.params for turn in self.turns} | {
            f"average {i}": average.parameters() for i, average in enumerate(self.averages)
        }
        for name, params in changed.items():
            if any(id(p) not in saved for p in params):
                raise ValueError(
                    f"a checkpoint would lack weights of {name!r}: name the module that holds them in `modules`"
                )


WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""The environment variables in which launchers say how many processes they started, as accelerate reads them."""


def check_processes(accelerator: "Accelerator | None") -> None:
    """`ValueError` where a launcher started several processes and the accelerator found one: each would train the whole
    batch."""
    if accelerator is None or accelerator.num_processes > 1:
        return
    started = [os.environ.get(name, "") for name in WORLD_SIZES]
    most = max([int(number) for number in started if number.isdecimal()], default=1)
    if most > 1:
        raise ValueError(
            f"{most} processes were started, and accelerate found one on the device {accelerator.device.type!r}: "
            "each would train the whole batch; without a GPU for each, run on processors: --device cpu, "
            "or Accelerator(cpu=True)"
        )


def laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    """value in p's memory layout: a fused optimizer walks the raw memory of weights, gradients and moments side by
    side."""
    return value if value.stride() == p.stride() else torch.empty_like(p).copy_(value)
