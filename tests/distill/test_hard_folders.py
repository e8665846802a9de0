"""One process at a time works in a folder, and several processes share a batch, or none begins."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TinyMixture

from toydiff import runs
from toydiff.problems.pairs import Recipe, save_pairs
from toydiff.runs import zoo
from toydiff.support.locks import Lock
from toydiff.training import check_processes
from toydiff.training.checkpoints import read_run

FEW = {"updates": 3, "batch": 8}

HOLDER = """
import sys, time
from toydiff.support.locks import Lock
lock = Lock(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def elsewhere():
    """elsewhere(folder): another process that holds the folder."""
    held = []

    def hold(folder):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
        held.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in held:
        process.kill()
        process.wait()


def train(folder, **options):
    return runs.train("diffusion", TinyMixture(), out=folder, changes=FEW, every=1, **options)


def make(folder, n=4):
    problem = TinyMixture()
    return save_pairs(problem, problem.teacher, Recipe(n=n, steps=1), folder, teacher_name="own")


def test_another_process_in_the_folder_is_refused_until_it_is_dead(tmp_path, elsewhere):
    work = {
        "run": lambda folder: train(folder).finish(),
        "resumed": lambda folder: train(folder, resume=True).finish(),
        "pairs": make,
        "zoo": lambda folder: next(zoo.build(["digits-naive"], folder, folder / "out")),
        "shelf": lambda folder: next(zoo.build(["digits-naive"], folder / "work", folder)),
    }
    holders = {name: elsewhere(tmp_path / name) for name in work}
    for name, begin in work.items():
        with pytest.raises(ValueError, match="another process is at work in the folder"):
            begin(tmp_path / name)
        assert os.listdir(tmp_path / name) == [".lock"]
    (tmp_path / "run" / ".run.json.abc.part").write_text("half")
    for name, process in holders.items():
        process.send_signal(signal.SIGKILL)
        process.wait()
        if name in ("run", "resumed", "pairs"):
            work[name](tmp_path / name)
    assert sorted(os.listdir(tmp_path / "run")) == ["run.json", "step-00000003.safetensors"]
    assert sorted(os.listdir(tmp_path / "pairs")) == ["pairs-00000.safetensors", "pairs.json", "plan.json"]


def test_the_own_pairs_of_a_run_are_not_made_while_another_process_makes_them(tmp_path, elsewhere):
    elsewhere(tmp_path / "run" / "pairs")
    with pytest.raises(ValueError, match="another process is at work"):
        runs.train("rectified-flow", TinyMixture(), out=tmp_path / "run", changes=FEW)


def test_of_two_runs_of_one_process_one_has_the_folder(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "a")
    first.finish()
    with pytest.raises(ValueError, match="already holds a run"):
        second.finish()

    begun = iter(train(tmp_path / "b"))
    next(begun)
    with pytest.raises(ValueError, match=r"already holds a run|has not finished"):
        train(tmp_path / "b")
    train(tmp_path / "b", resume=True).finish()
    with pytest.raises(ValueError, match="is over"):
        next(begun)
    assert read_run(tmp_path / "b")["step"] == 3


def test_a_loop_that_was_left_before_it_saved_holds_nothing(tmp_path):
    for _ in runs.train("diffusion", TinyMixture(), out=tmp_path / "a", changes=FEW):
        break
    train(tmp_path / "a").finish()


@pytest.mark.parametrize(
    ("settings", "said"), [({"batch": 7}, "accumulated"), ({"edge": 2.0}, "edge"), ({"updates": 0}, "updates")]
)
def test_a_refused_training_leaves_no_folder(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        runs.train(
            "rectified-flow", TinyMixture(), out=tmp_path / "a" / "b", changes=FEW | settings, accumulate=2
        ).finish()
    assert not (tmp_path / "a").exists()


def test_a_training_that_fails_in_its_first_update_leaves_no_folder(tmp_path):
    run = train(tmp_path / "a" / "b")
    run.training.turns[0].loss = lambda step, draws: (
        sum(p.sum() for p in run.training.student.parameters()) * float("nan")
    )
    with pytest.raises(FloatingPointError):
        run.finish()
    assert not (tmp_path / "a").exists()


def test_parts_of_killed_pairs_are_removed_and_links_are_not_followed(tmp_path):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / ".pairs-00000.safetensors.xyz.part").write_text("half")
    make(tmp_path / "pairs")
    assert not list((tmp_path / "pairs").glob(".*"))

    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="cannot lock the folder"):
        make(tmp_path / "linked")
    assert not (tmp_path / "victim").exists()
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / ".lock")
    with pytest.raises(ValueError, match="cannot lock the folder"):
        Lock(tmp_path / "piped")


def test_finished_pairs_are_read_by_many(tmp_path, elsewhere):
    make(tmp_path / "pairs")
    elsewhere(tmp_path / "pairs")
    assert len(make(tmp_path / "pairs")) == 4


class One:
    """An accelerator that found one process."""

    num_processes, process_index, is_main_process, mixed_precision = 1, 0, True, "no"

    class device:
        type = "cpu"


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_that_accelerate_does_not_see_are_refused(tmp_path, monkeypatch, name):
    check_processes(One())
    monkeypatch.setenv(name, "2")
    for begin in (lambda: check_processes(One()), lambda: train(tmp_path / "run", accelerator=One())):
        with pytest.raises(ValueError, match="2 processes were started, and accelerate found one"):
            begin()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_without_a_gpu_shares_the_batch_or_refuses_it(tmp_path):
    """As the README has it, and no variable that makes accelerate use processors."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "toydiff"]
    words = ["train", "diffusion", "--problem", "mixture", "--updates", "2", "--out"]
    how = {
        "capture_output": True,
        "text": True,
        "env": environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        "timeout": 300,
    }
    odd = subprocess.run([*torchrun, *words, tmp_path / "odd", "--batch", "63"], **how)
    assert odd.returncode
    assert "a batch of 63 cannot be shared evenly by 2 processes" in odd.stderr
    assert not (tmp_path / "odd").exists()
    two = subprocess.run([*torchrun, *words, tmp_path / "two", "--batch", "64"], **how)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("it is in") == 1
    one = runs.train("diffusion", "mixture", changes={"updates": 2, "batch": 64}, out=tmp_path / "one")
    one.finish()
    a, b = (read_run(tmp_path / name)["history"] for name in ("one", "two"))
    assert a[-1][1] == pytest.approx(b[-1][1], rel=1e-4)
    assert not [path for path in Path(tmp_path / "two").iterdir() if path.name.startswith(".")]
