"""The one training loop: `fit` yields a record after each update, and continues from where its state is.

A method says what to minimise (`Turn`) and what to follow by an average (`EMA`); all randomness comes from one stream
(`Draws`). The loop saves nothing: it moves a `State`, which its caller may save after each record
(`toydiff.training.checkpoints`).
"""

import contextlib
import ctypes
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..support.checks import check_count, check_positive, unknown
from .average import EMA
from .state import State, Turn, laid_out_as
from .watch import Diverged, Watch

DECAYS = ("cosine", "constant")


@dataclass(frozen=True)
class Record:
    """What one update did.

    - losses, grad_norms: by turn; norms are those before clipping;
    - lr: the learning rate, as a fraction of each turn's own;
    - seconds: of this update;
    - measured: the figures of a `Watch`, None where it did not evaluate;
    - last: whether the training ends with this update.
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


def lr_factor(step: int, steps: int, warmup: int = 0, decay: str = "cosine") -> float:
    """The learning rate of update `step` (from 0) in a period of `steps`, as a fraction of the full one: a linear
    warm-up, then a cosine down to 1 percent, or a constant."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if decay == "constant":
        return 1.0
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


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

    - turns: what to minimise, one after the other; a loss(step, draws) takes all its randomness from draws;
    - steps: the number of updates in all;
    - averages: follow their sources after each update;
    - clip: the largest norm of a turn's gradient, None for no limit;
    - warmup, decay, period: the learning rate rises over `warmup` updates and then decays, "cosine" or "constant"; this
      repeats with each `period` of updates (None: the whole run). A turn that has a part of the run (`Turn.during`)
      rises and decays within it;
    - watch: evaluates an average before the first update, every so many updates, and after the last; it may end the
      training early;
    - accumulate: in how many parts the gradient of a batch is computed, one after the other, to take less memory. The
      update is the same if the loss is a mean over samples. A statistic of the batch, such as DMD's bound or SCT's
      reference batch, is then one of a part, as it is with several processes;
    - progress: whether to show a bar.

    A run that is saved, continued, or divided among processes gives a `State` in the place of its turns; averages and
    seed are then the state's. `fit` goes on after update `state.step`. From a state that a checkpoint restored, it
    repeats the uninterrupted run bit for bit. Nothing is saved here:

        state = State.of(turns, averages=averages, modules=modules, seed=seed)
        checkpoints.load(state)
        for record in fit(state, steps):
            checkpoints.after(record, state, steps)

    To stop early, leave the loop. Raises `Diverged`, a `FloatingPointError` that names the update, if a loss or
    gradient is not finite; the weights of that turn are then unchanged. Raises its subclass `Collapse` if the watch
    finds one. `ValueError` for bad input.
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
            start, factor = state.step - state.step % period, 0.0
            losses, norms = {}, {}
            for turn, optimizer in zip(state.turns, state.optimizers, strict=True):
                if not turn.takes_part(state.step):
                    continue
                begin, end = turn.during or (start, start + period)
                factor = lr_factor(state.step - begin, end - begin, warmup, decay)
                for group in optimizer.param_groups:
                    group["lr"] = turn.lr * factor
                for _ in range(turn.repeats):
                    losses[turn.name], norms[turn.name] = _update(turn, optimizer, state, clip, accumulate)
            for average in state.averages:
                average.follow()
            state.step += 1
            seconds = time.perf_counter() - began
            measured = _evaluated(watch, state, steps, norms)
            last = state.step == steps or (watch is not None and watch.over)
            record = Record(state.step, losses, norms, factor, seconds, measured, last)
            state.seconds += record.seconds
            bar.update()
            best = {} if watch is None else {"best": f"{float(watch.distance):.3g}"}
            bar.set_postfix(loss=f"{record.loss:.3g}", **best, refresh=False)
            yield record


def _evaluated(
    watch: Watch | None, state: State, steps: int, norms: Mapping[str, float]
) -> dict[str, float | None] | None:
    """The figures of the watch, if it is time for an evaluation, recorded with the norms of the gradients."""
    if watch is None or (state.step % watch.every and state.step < steps):
        return None
    figures = watch(state.step) | {f"gradient_{name}": norm for name, norm in norms.items()}
    state.measured.append(figures)
    return figures


@functools.cache
def _keep_memory() -> None:
    """Make glibc keep freed memory, up to 1 GiB. Otherwise each update's activations go back to the system and are
    faulted in again, page by page.

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
    for k in range(parts):
        with state.draws.part(k, parts, since):
            loss, found = _gradients(turn, state)
        if k == 0:
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
