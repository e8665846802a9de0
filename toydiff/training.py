"""The one training loop: `fit` yields a record after each update, and continues from where its state is.

A method says what to minimise (`Turn`) and what to follow by an average (`EMA`); all randomness comes from one stream (`Draws`). The loop saves
nothing: it moves a `State`, which its caller may save after each record (`toydiff.checkpoints`).
"""

import contextlib
import copy
import ctypes
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from .checks import check_count, check_positive, unknown

if TYPE_CHECKING:
    from accelerate import Accelerator

DECAYS = ("cosine", "constant")

Drawn = TypeVar("Drawn", Tensor, tuple[Tensor, Tensor | None])
"""What a batch is drawn as."""


class Draws:
    """The random numbers of a training run: one stream, shared by all its processes, of which each takes its own rows.

    Every process draws the whole batch and keeps rows rank, rank + world, ...; so P processes together see exactly the batch that one
    would, and their mean gradient is its gradient. Numbers are drawn on the processor and moved to `device`, so that a seed gives
    the same ones everywhere.
    """

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu", rank: int = 0, world: int = 1):
        self.generator = torch.Generator().manual_seed(check_count(seed, "seed", 0))
        self.device, self.rank, self.world = torch.device(device), rank, world

    @contextlib.contextmanager
    def part(self, k: int, parts: int, since: Tensor) -> Iterator[None]:
        """For a while, this process's k-th of `parts` parts of its rows, of the batch that is drawn from the stream's state `since` on."""
        rank, world = self.rank, self.world
        self.generator.set_state(since)
        self.rank, self.world = rank * parts + k, world * parts
        try:
            yield
        finally:
            self.rank, self.world = rank, world

    def own(self, n: int) -> int:
        """How many samples of a batch of n are this process's; `ValueError` if they cannot be shared evenly."""
        check_count(n, "batch")
        if n % self.world:
            raise ValueError(
                f"a batch of {n} cannot be shared evenly by {self.world} processes, or parts that are accumulated"
            )
        return n // self.world

    def rows(self, draw: Callable[[int, torch.Generator], Drawn], n: int) -> Drawn:
        """This process's rows of a batch draw(n, generator), on the device: a tensor (n, ...), or a tuple of tensors and None, as `Problem.data` gives."""
        self.own(n)
        drawn = draw(n, self.generator)
        return tuple(map(self._mine, drawn)) if isinstance(drawn, tuple) else self._mine(drawn)

    def _mine(self, whole: Tensor | None) -> Tensor | None:
        return None if whole is None else whole[self.rank :: self.world].to(self.device)

    def _numbers(self, draw: Callable[[int, torch.Generator], Tensor], n: int) -> Tensor:
        """n rows for this process, of n times as many as there are processes."""
        return self._mine(draw(n * self.world, self.generator))

    def normal(self, n: int, *shape: int) -> Tensor:
        """Standard normal numbers for n samples of this process, (n, *shape)."""
        return self._numbers(lambda m, rng: torch.randn(m, *shape, generator=rng), n)

    def uniform(self, n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high) for n samples of this process, (n,)."""
        return low + (high - low) * self._numbers(lambda m, rng: torch.rand(m, generator=rng), n)

    def integers(self, n: int, high: int) -> Tensor:
        """Whole numbers 0 ... high - 1 for n samples of this process, (n,)."""
        return self._numbers(lambda m, rng: torch.randint(high, (m,), generator=rng), n)


Loss = Callable[[int, Draws], Tensor]
"""loss(step, draws) -> a scalar; step counts from 0."""


@dataclass
class Turn:
    """One player of an update: what it minimises, and what it moves. `repeats`: how many of its own updates an update of the run holds.

    Most methods have one turn. Where a second model is trained beside the student, each has its turn, in the order given, and
    touches only its own parameters.
    """

    loss: Loss
    params: Sequence[nn.Parameter]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    repeats: int = 1
    name: str = "loss"

    def __post_init__(self):
        self.params = [p for p in self.params if p.requires_grad]
        if not self.params:
            raise ValueError(f"the turn {self.name!r} has no parameters to train")
        check_positive(self.lr, "lr")
        check_count(self.repeats, "repeats")


class EMA(AveragedModel):
    """An exponential moving average of a module's parameters: a = d a + (1 - d) theta, d = min(decay, (1 + n)/(10 + n)) at update n.

    Its `module` is a copy of the source with the averaged weights. The decay starts low, so that the first, bad weights are forgotten
    in short runs too; without `warm` it is d = decay from the start, as a target network's is. decay in [0, 1); 0 is the source
    itself, a stop-gradient copy.
    """

    def __init__(self, source: nn.Module, decay: float = 0.999, *, warm: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average lies in [0, 1), got {decay!r}")
        super().__init__(source)
        self._source = [source]  # in a list: the source is not part of the average's own state
        self.decay, self.warm = decay, warm
        self.requires_grad_(False)
        # the parameters themselves: tensors detached from them would stay behind when a model moves to another device
        pairs = zip(self.module.parameters(), source.parameters(), strict=True)
        # what a copy shares with its source, as frozen weights may be, is its average already
        own = [(mine, theirs) for mine, theirs in pairs if mine is not theirs]
        self._averaged, self._current = [mine for mine, _ in own], [theirs for _, theirs in own]

    @torch.no_grad()
    def follow(self) -> None:
        """One more update of the average; `fit` calls it after each step of the optimizer."""
        n = float(self.n_averaged)
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warm else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        self.n_averaged += 1

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the past: the average is the source as it is now."""
        self.module.load_state_dict(self._source[0].state_dict())
        self.n_averaged.zero_()


Look = Callable[[nn.Module], dict[str, float | None]]
"""look(average) -> figures by name: "distance", smaller is better, and, where they are known, "spread" and "coverage" of the samples."""


class Diverged(FloatingPointError):
    """A training that cannot go on: a loss or a gradient is not finite. what: what happened, and when; saved: what is left to go back to, where
    a caller that saves says so.
    """

    ADVICE = "try a smaller learning rate"

    def __init__(self, what: str, saved: str | None = None):
        super().__init__(what, saved)
        self.what, self.saved = what, saved

    def __str__(self) -> str:
        return "; ".join(part for part in (self.what, self.saved, self.ADVICE) if part is not None)


class Collapse(Diverged):
    """A training whose samples fell together or lost their modes: it fails as one whose numbers are not finite does."""

    ADVICE = f"{Diverged.ADVICE}, and, where there is a second model, more updates of it in each of the student"


class Watch(nn.Module):
    """Looks at an average every `every` updates: keeps the best weights that it saw, ends a training that gets no better, and stops one that collapsed.

    best: a copy of the average at its smallest distance, `distance`, at update `step`. patience: how many looks in a row may be no better before
    the training ends, None for no end. last: the update of the last look. A collapse is a spread, over the data's, of at most half of
    the largest one seen (or of 1, where that was more), or at most half as many modes as the most that were found.
    All that it knows is in its state, so that a continued run goes on as if it had not been interrupted.
    """

    LEAST = 0.5

    def __init__(self, average: EMA, look: Look, every: int, patience: int | None = None):
        super().__init__()
        self.best, self._average, self.look = copy.deepcopy(average.module), [average], look
        self.every = check_count(every, "every")
        self.patience = None if patience is None else check_count(patience, "patience")
        for name, value in (
            ("distance", math.inf),
            ("spread", 0.0),
            ("coverage", 0.0),
            ("step", 0),
            ("missed", 0),
            ("last", 0),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    @property
    def over(self) -> bool:
        """Whether the last `patience` looks were no better."""
        return self.patience is not None and int(self.missed) >= self.patience

    def __call__(self, step: int) -> dict[str, float | None]:
        """The figures at update `step`, from 0; `Collapse` where there is nothing left to train."""
        figures = {"step": step, **self.look(self._average[0].module)}
        for name in ("spread", "coverage"):
            value, most = figures.get(name), getattr(self, name)
            if value is None:
                continue
            if float(most) and not value > self.LEAST * min(float(most), 1.0):
                what = {"spread": "the spread of the samples", "coverage": "the part of the modes that were found"}[
                    name
                ]
                raise Collapse(
                    f"the training collapsed: at update {step} {what} is {value:.3g}, and was {float(most):.3g}"
                )
            most.clamp_(min=value)
        distance = figures["distance"]
        if distance < float(self.distance):
            self.best.load_state_dict(self._average[0].module.state_dict())
            for mark, value in ((self.distance, distance), (self.step, step), (self.missed, 0)):
                mark.fill_(value)
        else:
            self.missed += 1
        self.last.fill_(step)
        return figures


@dataclass(frozen=True)
class Record:
    """What one update did. `losses` and `grad_norms` by turn, the latter before clipping; `lr` as a share of each turn's own; `seconds` of this step;
    `measured`, the figures of a `Watch`, where it looked; `last`, whether the training ends with it.
    """

    step: int
    losses: dict[str, float]
    grad_norms: dict[str, float]
    lr: float
    seconds: float
    measured: dict[str, float | None] | None = None
    last: bool = False

    @property
    def loss(self) -> float:
        """The loss of the first turn."""
        return next(iter(self.losses.values()))


def lr_share(step: int, steps: int, warmup: int = 0, decay: str = "cosine") -> float:
    """The learning rate of update `step` (from 0) of a period of `steps`, as a share: linear warm-up, then to 1 percent by a cosine, or constant."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if decay == "constant":
        return 1.0
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@dataclass
class State:
    """All that makes an update what it is, as far as a training has come: what `fit` moves, and what a checkpoint holds.

    modules: everything that has a state and that the losses use, by name, the averages and a `Watch` included; a checkpoint holds what is named here, and its tensors
    are loaded in place. optimizers: one a turn. history and measured: rows of the loss curve, and of a watch's figures.
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

        averages follow their sources after each update. accelerator: an `accelerate.Accelerator`; a batch is then shared by its processes, whose
        gradients are averaged. `ValueError` where there is nothing to train, or two turns have one name.
        """
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


def fit(
    turns: Turn | Sequence[Turn] | State,
    steps: int,
    *,
    averages: Sequence[EMA] = (),
    seed: int = 0,
    clip: float | None = 1.0,
    warmup: int = 0,
    decay: str = "cosine",
    period: int | None = None,
    watch: Watch | None = None,
    accumulate: int = 1,
    progress: bool = False,
) -> Iterator[Record]:
    """Train: a generator of one `Record` an update, yielded after the optimizers' steps and the averages' updates.

    turns: what to minimise, one after the other; each loss gets (step, draws) and takes all its randomness from draws. steps: updates
    in all. averages follow their sources after each update. clip: the largest norm of a turn's gradient, None for no limit. The
    learning rate warms up over `warmup` updates and decays, "cosine" or "constant", over each `period` (by default the whole run).

    watch: looks at an average before the first update, every so many updates and after the last; it may end the training early.

    accumulate: the batch is drawn whole, and its gradient computed in so many parts, one after the other: less memory, the same update where a loss is a mean over
    samples (a statistic over the batch, such as DMD's bound or SCT's reference batch, is then one over a part, as it is with several processes).

    A run that is saved, continued, or shared by several processes gives a `State` in the place of its turns; averages and seed are then the state's. It
    goes on after update `state.step`, and, from a state that a checkpoint restored, repeats the uninterrupted run bit for bit. Nothing is saved here:

        state = State.of(turns, averages=averages, modules=modules, seed=seed)
        checkpoints.load(state)
        for record in fit(state, steps):
            checkpoints.after(record, state, steps)

    Stopping early is leaving the loop. Raises `Diverged`, a `FloatingPointError` that names the update, if a loss or gradient is not finite, before any weight
    of that turn is touched, and its subclass `Collapse` if the watch says so. `ValueError` for bad input.
    """
    if isinstance(turns, State) and (averages or seed):
        raise ValueError("a state has its averages and its seed already: give them to State.of")
    state = turns if isinstance(turns, State) else State.of(turns, averages=averages, seed=seed)
    check_count(steps, "steps")
    check_count(warmup, "warmup", 0)
    check_count(accumulate, "accumulate")
    period = steps if period is None else check_count(period, "period")
    if decay not in DECAYS:
        raise unknown("decay", decay, DECAYS)
    if clip is not None:
        check_positive(clip, "clip")
    if state.draws.device.type == "cpu":
        _keep_memory()
    silent = not progress or state.draws.rank > 0
    bar = tqdm(desc="train", unit="update", total=steps, initial=state.step, disable=silent, mininterval=0.5)
    with bar:
        if watch is not None and state.step == 0:
            state.measured.append(watch(0))
        while state.step < steps and not (watch is not None and watch.over):
            began = time.perf_counter()
            share = lr_share(state.step % period, period, warmup, decay)
            losses, norms = {}, {}
            for turn, optimizer in zip(state.turns, state.optimizers, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = turn.lr * share
                for _ in range(turn.repeats):
                    losses[turn.name], norms[turn.name] = _update(turn, optimizer, state, clip, accumulate)
            for average in state.averages:
                average.follow()
            state.step += 1
            seconds = time.perf_counter() - began
            measured = _look(watch, state, steps, norms)
            last = state.step == steps or (watch is not None and watch.over)
            record = Record(state.step, losses, norms, share, seconds, measured, last)
            state.seconds += record.seconds
            bar.update()
            best = {} if watch is None else {"best": f"{float(watch.distance):.3g}"}
            bar.set_postfix(loss=f"{record.loss:.3g}", **best, refresh=False)
            yield record


def _look(watch: Watch | None, state: State, steps: int, norms: Mapping[str, float]) -> dict[str, float | None] | None:
    """What the watch sees, where it is time to look, kept with the norms of the gradients."""
    if watch is None or (state.step % watch.every and state.step < steps):
        return None
    figures = watch(state.step) | {f"gradient_{name}": norm for name, norm in norms.items()}
    state.measured.append(figures)
    return figures


@functools.cache
def _keep_memory() -> None:
    """Tell glibc to keep what is freed, up to 1 GiB: otherwise each update's activations go back to the system and are faulted in again, page by page.

    For the whole process, once; elsewhere than on glibc nothing happens.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**28)
        libc.mallopt(trim_threshold, 2**30)


def _update(
    turn: Turn, optimizer: torch.optim.Optimizer, state: State, clip: float | None, accumulate: int
) -> tuple[float, float]:
    """One step of one turn's optimizer: its loss and the norm of its gradient before clipping."""
    # a loss may reach parameters of other turns; what it leaves there is not theirs to use
    gradients = _accumulated(turn, state, accumulate)
    norm = torch.nn.utils.get_total_norm(gradients[1])
    loss, size = float(gradients[0]), float(norm)
    if not (math.isfinite(loss) and math.isfinite(size)):
        raise Diverged(
            f"the loss {turn.name!r} at update {state.step + 1} is {loss:g}, with a gradient of norm {size:g}"
        )
    for p, gradient in zip(turn.params, gradients[1], strict=True):
        p.grad = gradient
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(turn.params, clip, norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, size


def _accumulated(turn: Turn, state: State, parts: int) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradient over the whole batch, computed in parts."""
    since = state.draws.generator.get_state()
    total, gradients = None, []
    for k in range(parts):
        with state.draws.part(k, parts, since):
            loss, found = _gradients(turn, state)
        if total is None:
            total, gradients = loss / parts, [g / parts for g in found] if parts > 1 else found
        else:
            total = total + loss / parts
            torch._foreach_add_(gradients, found, alpha=1 / parts)
    return total, gradients


def _gradients(turn: Turn, state: State) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradient by the turn's parameters, averaged over the processes."""
    accelerator = state.accelerator
    if accelerator is None:
        loss = turn.loss(state.step, state.draws)
        return loss.detach(), _grad(loss, turn.params)
    with accelerator.autocast():
        loss = turn.loss(state.step, state.draws)
    gradients = _grad(loss, turn.params)
    flat = torch.cat([loss.detach().reshape(1), *(g.reshape(-1) for g in gradients)])
    flat = accelerator.reduce(flat, reduction="mean")
    parts = flat[1:].split([g.numel() for g in gradients])
    return flat[0], [laid_out_as(p, part.view_as(p)) for part, p in zip(parts, turn.params, strict=True)]


def _grad(loss: Tensor, params: Sequence[nn.Parameter]) -> list[Tensor]:
    if loss.ndim:
        raise ValueError(f"a loss is a scalar, got shape {tuple(loss.shape)}")
    found = torch.autograd.grad(loss, params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else laid_out_as(p, g) for p, g in zip(params, found, strict=True)]


def laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    """value in p's memory layout: a fused optimizer walks the raw memory of weights, gradients and moments side by side."""
    return value if value.stride() == p.stride() else torch.empty_like(p).copy_(value)
