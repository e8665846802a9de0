"""`toydiff train`, `sample` and `evaluate` of models of tokens, and what they refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ROW, png_text, run, written

from toydiff import runs
from toydiff.training.checkpoints import read_run, read_tensors

TRAIN = ["train", "discrete-flow-matching", "--problem", "tokens:markov", "--batch", 16]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the runs `run`, of strings, and `bits`."""
    folder = tmp_path_factory.mktemp("tokens")
    assert run(*TRAIN, "--updates", 3, "--out", folder / "run") == 0
    bits = ["train", "discrete-flow-matching", "--problem", "tokens:bits", "--updates", 3, "--batch", 16]
    assert run(*bits, "--set", "source=uniform", "--out", folder / "bits") == 0
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_sample_writes_strings_with_their_settings(made):
    words = ["sample", made / "run", "--steps", 4, "--n", 60, "--seed", 3]
    assert run(*words, "--solver", "tau-midpoint", "--out", "a.npz", "--json", "row.json") == 0
    arrays, row = np.load("a.npz"), json.loads(Path("row.json").read_text())
    assert arrays["samples"].shape == (60, 16)
    assert arrays["samples"].dtype == np.int64
    assert (arrays["samples"] >= 0).all()
    assert (arrays["samples"] < 8).all()
    assert arrays["ts"].tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert json.loads(str(arrays["settings"]))["solver"] == "tau-midpoint"
    assert tuple(row)[: len(ROW)] == ROW
    assert (row["nfe"], row["steps"], row["accuracy"]) == (7, 4, None)
    assert row["distance"] > row["floor"]
    model = runs.load(made / "run")
    path, _ = runs.sample(model, runs.problem_of(model), 60, 4, solver="tau-midpoint", seed=3)
    assert np.array_equal(path.end.numpy(), arrays["samples"])


@pytest.mark.parametrize("name", ["run", "bits"])
def test_sample_draws_strings(made, name):
    assert run("sample", made / name, "--n", 50, "--steps", 2, "--out", "a.png") == 0
    assert json.loads(png_text("a.png")["toydiff"])["problem"] == {"run": "tokens:markov", "bits": "tokens:bits"}[name]


@pytest.mark.slow
def test_sample_draws_digits_of_the_class_asked_for(tmp_path):
    runs.train(
        "discrete-flow-matching", "tokens:digits", out=tmp_path / "run", changes={"updates": 1, "batch": 2}
    ).finish()
    words = ["sample", tmp_path / "run", "--n", 12, "--steps", 1, "--guidance-scale", 2, "--label", 3]
    assert run(*words, "--out", "a.png", "--json", "row.json") == 0
    row = json.loads(Path("row.json").read_text())
    assert (row["nfe"], row["rounds"], row["guidance_scale"]) == (2, 1, 2)
    assert row["accuracy"] is not None
    assert json.loads(png_text("a.png")["toydiff"])["label"] == 3


def test_evaluate_gives_rows_with_all_n_grams(made, capsys):
    assert run("evaluate", made / "run", "--steps", "1,2,4", "--n", 100, "--json", "rows.json") == 0
    rows = json.loads(Path("rows.json").read_text())
    assert [(row["steps"], row["nfe"], row["rounds"]) for row in rows] == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    for row in rows:
        assert tuple(row)[: len(ROW)] == ROW
        assert set(row["parts"]) == {"1-grams", "2-grams", "3-grams"}
        assert all(part["floor"] > 0 and part["floor_std"] > 0 for part in row["parts"].values())
    text = capsys.readouterr().out
    assert "100 samples by jump-exact on the grid uniform" in text
    assert "distance: total variation of 4-grams" in text
    [line] = [line for line in text.splitlines() if line.startswith("steps")]
    head = "steps NFE distance floor distance/floor excess 1-grams 2-grams 3-grams accuracy s"
    assert line.split() == head.split()


@pytest.mark.slow
def test_a_run_that_is_killed_continues_and_ends_with_the_same_bits():
    command = [sys.executable, "-m", "toydiff", *map(str, TRAIN), "--updates", "60", "--every", "5", "--out", "cut"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    began = time.monotonic()
    while not Path("cut/run.json").exists() and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < read_run("cut")["step"] <= 60
    assert run(*TRAIN, "--updates", 60, "--every", 5, "--out", "cut", "--resume") == 0
    assert run(*TRAIN, "--updates", 60, "--out", "whole") == 0
    a, b = (read_tensors(f"{name}/step-00000060.safetensors") for name in ("cut", "whole"))
    assert [key for key in a if key != "global_random" and not a[key].equal(b[key])] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "diffusion", "--problem", "tokens:bits", "--out", "x"], "diffusion trains models of vectors"),
        (["train", "discrete-flow-matching", "--problem", "mixture", "--out", "x"], "is no problem of tokens"),
        (["train", "discrete-flow-matching", "--problem", "sd", "--model", "x", "--out", "x"], "no problem of tokens"),
        (["train", "discrete-flow-matchin", "--problem", "tokens:bits", "--out", "x"], "mean 'discrete-flow-matching'"),
        (["train", "discrete-flow-matching", "--problem", "tokens:bit", "--out", "x"], "did you mean 'tokens:bits'"),
        (["train", "discrete-flow-matching", "--problem", "tokens:bits,2", "--out", "x"], "has no seed"),
        ([*TRAIN, "--set", "source=x", "--out", "x"], "unknown source of tokens 'x'; allowed: mask, uniform"),
        ([*TRAIN, "--teacher", "ring-teacher", "--out", "x"], "of the problem mixture:ring, not tokens:markov"),
        ([*TRAIN, "--start", "ring-teacher", "--out", "x"], "of the problem mixture:ring, not tokens:markov"),
        ([*TRAIN, "--pairs", "x", "--out", "x"], "discrete-flow-matching uses no pairs"),
        (["pairs", "--problem", "tokens:markov", "--out", "x"], "pairs are of a model of vectors"),
        (["learn-solver", "--problem", "tokens:markov", "--steps", 4, "--out", "x.json"], "a solver is of a model of"),
        (["sample", "RUN", "--solver", "heun", "--out", "x.png"], "heun is a solver of vectors"),
        (["sample", "RUN", "--solver", "picard:window=2", "--out", "x.png"], "picard is a solver of vectors"),
        (["sample", "RUN", "--solver", "learned:digits-teacher-5", "--out", "x.png"], "learned is a solver of vectors"),
        (["sample", "RUN", "--solver", "jump-exat", "--out", "x.png"], "did you mean 'jump-exact'"),
        (["sample", "RUN", "--solver", "jump-corrector:eta=-1", "--out", "x.png"], "must lie from 0"),
        (["sample", "RUN", "--grid", "karras", "--out", "x.png"], "unknown grid of tokens 'karras'; allowed: uniform"),
        (["sample", "RUN", "--label", 1, "--out", "x.png"], "tokens:markov has no classes"),
        (["sample", "RUN", "--guidance-scale", 2, "--out", "x.png"], "needs a class"),
        (["sample", "RUN", "--prompt", "a fox", "--out", "x.png"], "tokens:markov"),
        (["evaluate", "RUN", "--guidance-scale", 2], "this model of tokens has no classes, and so neither labels"),
        (["evaluate", "RUN", "--solver", "dpm++2m"], "dpm++2m is a solver of vectors"),
        (
            ["evaluate", "BITS", "--solver", "maskgit"],
            "starts from the source mask, and this model",
        ),
        (["evaluate", "ring-teacher", "--solver", "jump-exact"], "jump-exact is a sampler of tokens"),
        (["sample", "ring-teacher", "--solver", "maskgit", "--out", "x.png"], "maskgit is a sampler of tokens"),
        (
            ["sample", "--mixture", "ring", "--solver", "maskgit", "--out", "x.png"],
            "maskgit samples tokens, and a mixture is of vectors",
        ),
        (["export", "RUN", "--out", "x"], "an export is of a model of vectors"),
    ],
)
def test_what_does_not_fit_is_one_line(made, words, message, capsys):
    names = {"RUN": made / "run", "BITS": made / "bits"}
    assert run(*(names.get(word, word) for word in words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert written() == []
