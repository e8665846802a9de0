"""What a training costs: its network passes, whatever machine it runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ..denoisers import Denoiser
from ..distill.base import Training
from ..nets import DIFFUSERS, ClipNet
from ..nets.discriminator import Discriminator
from ..prediction import Prediction
from ..training import Draws, Turn
from ..weights.networks import NETS


def passes_of_update(training: Training) -> int:
    """The network passes of one update, in samples: a forward pass of one sample counts 1, and a backward pass 2.

    A backward pass that only crosses a network on its way to another one's weights counts 1: half of its work is the
    gradient by the network's own weights. The networks are the student, the teacher and all others, such as a fake
    model. An exact teacher, which is a formula, counts as a network does. A frame of a clip is a sample. One update's
    losses are computed for it, and nothing is changed. Of turns that have a part of the training each (`Turn.during`),
    it is the mean.
    """
    end = max((turn.during[1] for turn in training.turns if turn.during), default=1)
    shares = [1.0 if turn.during is None else (turn.during[1] - turn.during[0]) / end for turn in training.turns]
    return round(sum(s * turn.repeats * _passes_of(turn) for s, turn in zip(shares, training.turns, strict=True)))


def _passes_of(turn: Turn) -> int:
    draws = Draws(0, turn.params[0].device)
    with _counted({id(p) for p in turn.params}) as count:
        turn.loss(0, draws)
    return count[0]


@contextmanager
def _counted(trained: set[int]) -> Iterator[list[int]]:
    """While this lasts, the first number of the list counts passes, of a turn that trains the parameters with these
    ids."""
    count = [0]

    def hook(module: nn.Module, args: tuple, output: Tensor | Prediction) -> None:
        if not _is_network(module) or isinstance(module, ClipNet):  # its image network is counted
            return
        out = output.x0 if isinstance(output, Prediction) else output
        own = any(id(p) in trained for p in module.parameters())
        count[0] += len(args[0]) * (1 + (0 if not out.requires_grad else 2 if own else 1))

    handle = register_module_forward_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def _is_network(module: nn.Module) -> bool:
    """Whether the module is what one pass goes through: a network, a discriminator (its trunk's pass is not counted
    again), or a denoiser that is a formula."""
    if isinstance(module, Denoiser):
        return next(module.parameters(), None) is None and not module._inside()
    return type(module) in NETS.values() or isinstance(module, Discriminator) or getattr(module, "name", 0) == DIFFUSERS
