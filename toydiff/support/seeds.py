"""Fresh weights from a seed: torch draws them from its one global generator, which several threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch's global generator on the processor starts from `seed`. Afterwards it is where it was.

    One thread at a time enters the block. So two trainings that start together in one process draw what each alone
    would; two readers of the app's live training start such a pair. A thread that draws from the global generator
    without this block does not wait.
    """
    with _ONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
