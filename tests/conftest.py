"""Fixtures of the core's tests."""

import os
import sys

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


@pytest.fixture(autouse=True)
def same_weights():
    """Fresh weights are the same, whatever ran before in this process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_main():
    """A page under test takes the place of `__main__`, and a process that a later test forks would look for it."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture
def float64():
    """Identities are checked in float64: networks and draws follow torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def float32(float64):
    """The dtype of real trainings, in a module whose tests are of float64."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def few_samples(monkeypatch):
    """Mixtures are measured by few samples, where the figure itself says nothing."""
    from tiny import FEW

    from toydiff.problems import MixtureProblem

    monkeypatch.setattr(MixtureProblem, "sizes", FEW)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders of tiny Stable Diffusion checkpoints by kind, made once: `tiny_sd.KINDS`."""
    import tiny_sd

    tiny_sd.silent()
    return {kind: tiny_sd.save(tmp_path_factory.mktemp("checkpoints") / kind, kind) for kind in tiny_sd.KINDS}


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Folders of tiny checkpoints of other families by kind, made once: `tiny_families.KINDS`."""
    import tiny_families
    import tiny_sd

    tiny_sd.silent()
    return {kind: tiny_families.save(tmp_path_factory.mktemp("families") / kind, kind) for kind in tiny_families.KINDS}


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Folders of tiny checkpoints that make clips, in the published layouts: `tiny_families.save_clips`."""
    import tiny_families
    import tiny_sd

    tiny_sd.silent()
    return tiny_families.save_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def animatediff(tmp_path_factory):
    """A folder of the library's own tiny checkpoint that makes clips."""
    import tiny_sd

    tiny_sd.silent()
    return tiny_sd.save(tmp_path_factory.mktemp("animatediff"), "animatediff")


@pytest.fixture(scope="session")
def moving(tmp_path_factory):
    """A folder of four small clips with captions, GIFs of six frames."""
    import numpy as np
    import tiny_sd
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("moving"), np.random.default_rng(0)
    for i in range(4):
        first, *rest = (Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)) for _ in range(6))
        first.save(folder / f"{i}.gif", save_all=True, append_images=rest)
        (folder / f"{i}.txt").write_text(tiny_sd.PROMPTS[i % 3])
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of eight small images with captions, as training on a checkpoint takes them."""
    import numpy as np
    import tiny_sd
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(tiny_sd.PROMPTS[i % 3])
    return folder
