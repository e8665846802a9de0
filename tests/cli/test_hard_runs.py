"""Runs and pairs by the command: what it refuses before the work, and what it leaves."""

import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_cli import run

import toydiff
from toydiff.cli import command as cli
from toydiff.cli import launchers
from toydiff.support import files
from toydiff.support.sealed import write_index
from toydiff.training.checkpoints import read_run

TINY = ["--updates", 2, "--batch", 16]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", [["pairs", "--n", 10, "--steps", 1], ["train", "diffusion", *TINY]])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(words, capsys):
    assert run(*words, "--problem", "mixture", "--out", "out", "--json", "/dev/full") == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir() == []
    assert run(*words, "--problem", "mixture", "--out", "out", "--json", "/dev/null") == 0
    assert Path("out").is_dir()


def test_a_run_from_before_the_default_solver_changed_is_continued():
    """How it is sampled and the scale of its data change nothing that is trained; it keeps its own solver."""
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", "run") == 0
    index = read_run("run")
    older = index["about"] | {"sampler": {"solver": "dpm++2m", "grid": "lambda", "steps": [10]}}
    del older["denoiser"]["data_std"]
    write_index("run/run.json", index | {"about": older})
    assert run("sample", "run", "--n", 10, "--steps", 2, "--out", "a.npz") == 0
    assert run("evaluate", "run", "--n", 10, "--json", "rows.json") == 0
    assert [row["solver"] for row in json.loads(Path("rows.json").read_text())] == ["dpm++2m"]
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", "run", "--resume") == 0


def test_nothing_of_a_strangers_run_is_obeyed_by_the_terminal(capsys):
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", "run") == 0
    index = read_run("run")
    for about in ({"problem": "mixture:\x1b]0;owned\x07"}, {"method": "\x9b31m"}, {"sampler": {"solver": "\x1b[2J"}}):
        write_index("run/run.json", index | {"about": index["about"] | about})
        for words in (["evaluate", "run"], ["sample", "run", "--out", "a.png"]):
            assert run(*words) == 2
            assert capsys.readouterr().err.strip().isprintable()
    assert run("evaluate", "\x1b[31mred") == 2
    assert capsys.readouterr().err.strip().isprintable()


def test_unsafe_weights_are_given_with_a_run_of_a_checkpoint_only(capsys):
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", "run") == 0
    assert run("sample", "run", "--unsafe-weights", "--out", "a.png") == 2
    assert "--unsafe-weights is for Stable Diffusion checkpoints" in capsys.readouterr().err


@pytest.mark.slow
def test_files_of_ones_own_go_through_the_command(capsys):
    points = np.random.default_rng(0).normal(size=(50, 2))
    np.save("points.npy", points)
    Path("mixture.json").write_text(json.dumps({"means": [[-1, 0, 0], [1, 0, 0]], "std": 0.2}))
    for name in ("points.npy", "mixture.json"):
        assert run("train", "diffusion", "--problem", f"file:{name}", *TINY, "--out", "run" + name) == 0
        os.rename(name, "gone")  # the run keeps it
        assert run("evaluate", "run" + name, "--steps", 1, "--n", 20) == 0
        assert run("sample", "run" + name, "--n", 20, "--steps", 1, "--out", "a.npz") == 0
        os.rename("gone", name)
    assert run("sample", "runpoints.npy", "--n", 20, "--steps", 1, "--out", "a.png") == 0
    capsys.readouterr()
    assert run("sample", "runmixture.json", "--n", 20, "--steps", 1, "--out", "b.png") == 2
    assert "a picture shows points in the plane" in capsys.readouterr().err
    assert run("pairs", "--problem", "file:mixture.json", "--n", 10, "--steps", 1, "--out", "pairs") == 0
    naive = ["train", "naive", *TINY, "--problem"]
    assert run(*naive, "file:mixture.json", "--pairs", "pairs", "--out", "naive") == 0
    assert run(*naive, "file:points.npy", "--teacher", "runpoints.npy", "--pairs", "pairs", "--out", "other") == 2
    assert "of another problem" in capsys.readouterr().err
    np.save("points.npy", points + 0.1)
    assert run("train", "diffusion", "--problem", "file:points.npy", *TINY, "--out", "runpoints.npy", "--resume") == 2
    assert "of another content" in capsys.readouterr().err
    assert run("train", "diffusion", "--problem", "file:none.npy", *TINY, "--out", "none") == 2
    assert "there is no file 'none.npy'" in capsys.readouterr().err


def test_a_report_goes_into_no_pipe_that_nobody_reads(capsys):
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        for name in ("pipe", "link", "socket"):
            assert cli.main(["methods", "--json", name]) == 2
            line = f"toydiff: error: cannot write the file '{name}': it is a pipe, socket or disk, and no file\n"
            assert capsys.readouterr() == ("", line)


def test_a_report_goes_into_the_pipe_of_a_shell():
    program = [sys.executable, "-m", "toydiff", "methods", "--json", "/dev/stdout"]
    env = os.environ | {"PYTHONPATH": str(Path(toydiff.__file__).parent.parent)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.JSONDecoder().raw_decode(done.stdout)[0]["methods"]


def test_a_temporary_file_of_a_killed_process_is_swept(tmp_path):
    killed, alive, other = (
        tmp_path / f".{name}.part" for name in ("a.json.aaaaaaa1", "a.json.aaaaaaa2", "b.json.aaaaaaa1")
    )
    users, young = tmp_path / ".a.json.my-notes.part", tmp_path / ".a.json.aaaaaaa3.part"
    for part in (killed, alive, other, users, young):
        part.write_text("half")
    for part in (killed, alive, other, users):
        os.utime(part, (0, 0))
    with alive.open("rb+") as held:
        files.take(held.fileno())
        files.write_json(tmp_path / "a.json", {})
        assert (killed.exists(), alive.exists(), other.exists()) == (False, True, True)
        assert (users.exists(), young.exists()) == (True, True)  # no temporary file of ours; and one that begins
    files.write_json(tmp_path / "a.json", {})
    assert not alive.exists()


@pytest.mark.parametrize(
    ("size", "rank"),
    [
        ("WORLD_SIZE", "RANK"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("PMI_SIZE", "PMI_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ],
)
def test_launchers_that_are_known(monkeypatch, size, rank):
    for name in [*launchers.LAUNCHERS, *launchers.LAUNCHERS.values()]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # the shell of a job of four tasks is one process
    monkeypatch.setenv(rank, "0")
    assert not launchers.runs_with_others()
    monkeypatch.setenv(size, "1")
    assert not launchers.runs_with_others()
    monkeypatch.setenv(size, "2")
    assert launchers.runs_with_others()
    assert launchers.is_first_process()
    monkeypatch.setenv(rank, "1")
    assert not launchers.is_first_process()


def test_a_warning_is_one_line(monkeypatch, capsys):
    def run(args):
        warnings.warn("two\nlines", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "methods", cli.COMMANDS["methods"]._replace(run=run))
    assert cli.main(["methods"]) == 0
    assert capsys.readouterr().err == "toydiff: warning: two lines\n"
