"""Fresh weights from a seed: torch draws them from its one global generator, which several threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch's global generator on the processor starts from `seed`; afterwards it is where it was.

    One thread at a time: two trainings that start together in one process, as two readers of the app's live training
    do, draw what each alone would. A thread that draws from the global generator without this is not held back.
    """
    with _ONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
