"""Fixtures of the core's tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start; see one_thread

import pytest
import torch
from cases import ALL_SCHEDULES


@pytest.fixture(params=list(ALL_SCHEDULES))
def schedule(request):
    """Every ready-made schedule, and one that a user wrote."""
    return ALL_SCHEDULES[request.param]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors: threads only cost time, and sums are the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
