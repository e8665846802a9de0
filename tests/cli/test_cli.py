"""The command: what it prints and writes, and what it says when its input is wrong."""

import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROW, png_text, run, written

import toydiff
import toydiff.studies.demo
import toydiff.studies.parallel_sampling
from toydiff.cli import command as cli
from toydiff.discrete import SAMPLERS
from toydiff.grids import DEFAULT_GRID
from toydiff.solvers import DEFAULT_SOLVER
from toydiff.studies.orders import DEFAULT_SCHEDULES, DEFAULT_STEPS
from toydiff.support import files

COMMAND = [sys.executable, "-m", "toydiff.cli"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample(*words, n=50, steps=3):
    return run("sample", "--n", n, "--steps", steps, *words)


# ---- what is written


@pytest.mark.slow
def test_npz_holds_samples_start_times_and_settings(capsys):
    assert sample("--solver", "heun", "--grid", "uniform", "--schedule", "linear", "--seed", 4, "--out", "a.npz") == 0
    data = np.load("a.npz")
    assert set(data) == {"samples", "start", "ts", "settings"}
    assert data["samples"].shape == data["start"].shape == (50, 2)
    np.testing.assert_allclose(data["ts"], [1, 2 / 3, 1 / 3, 0], atol=1e-7)
    assert json.loads(str(data["settings"])) == {
        "mixture": "ring", "schedule": "linear", "solver": "heun", "grid": "uniform", "steps": 3, "n": 50, "seed": 4,
        "guidance_scale": 1.0, "label": None,
    }  # fmt: skip
    out = capsys.readouterr()
    assert "4 network calls" in out.out  # Heun: two a step, and one for each jump at an end of the linear schedule
    assert "floor" in out.out
    assert "4 rounds" in out.out
    assert "a.npz" in out.out
    assert out.err == ""


def test_samples_are_what_solve_gives_from_the_marginal_at_1():
    sample("--solver", "ddim", "--mixture", "spirals", "--out", "a.npz", n=20, steps=5)
    data = np.load("a.npz")
    mixture = toydiff.mixture("spirals")
    start = mixture.marginal(toydiff.VP(), 1.0).sample(20, 0)
    end = toydiff.solve(mixture.denoiser(toydiff.VP()), start, 5, solver="ddim").end
    assert torch.equal(torch.from_numpy(data["start"]), start)
    assert torch.equal(torch.from_numpy(data["samples"]), end)


@pytest.mark.parametrize("solver", [DEFAULT_SOLVER, "ddim:eta=1"])
def test_the_same_seed_writes_the_same_file(solver):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample("--solver", solver, "--seed", seed, "--out", f"{name}.npz")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    assert (np.load("a.npz")["samples"] != np.load("c.npz")["samples"]).any()


def test_random_mixture_depends_on_the_seed():
    for seed in (0, 1):
        sample("--mixture", "random", "--seed", seed, "--solver", "ddim", "--out", f"{seed}.npz", n=400, steps=20)
        x = torch.from_numpy(np.load(f"{seed}.npz")["samples"])
        fit = [float(toydiff.mixtures.random_mixture(k).log_prob(x).mean()) for k in (0, 1)]
        assert fit[seed] == max(fit)


@pytest.mark.slow
def test_png_carries_its_settings():
    assert sample("--solver", "unipc2", "--seed", 3, "--label", 2, "--guidance-scale", 2, "--out", "a.png") == 0
    settings = json.loads(png_text("a.png")["toydiff"])
    assert (settings["solver"], settings["seed"], settings["label"], settings["guidance_scale"]) == ("unipc2", 3, 2, 2)
    assert written() == ["a.png"]


def test_json_row(capsys):
    assert sample("--solver", "dpm++2m", "--seed", 5, "--out", "a.npz", "--json", "row.json", n=500, steps=10) == 0
    row = json.loads(Path("row.json").read_text())
    assert set(row) - set(ROW) == {"mixture", "schedule", "solver", "grid", "n", "guidance_scale", "label", "floor_std"}
    assert set(row) >= set(ROW)
    assert (row["method"], row["problem"], row["steps"], row["seed"]) == ("dpm++2m", "mixture:ring", 10, 5)
    assert (row["nfe"], row["rounds"], row["grid"]) == (10, 10, DEFAULT_GRID)
    assert (row["accuracy"], row["updates"], row["teacher_calls"], row["label"]) == (None,) * 4
    assert row["seconds"] > 0
    assert 0 < row["floor"] < 1
    assert f"{row['distance']:.3g}" in capsys.readouterr().out


@pytest.mark.slow
def test_distance_falls_to_the_floor(capsys):
    rows = {}
    for steps in (1, 40):
        sample("--solver", "ddim", "--out", "a.npz", "--json", "-", n=1000, steps=steps)
        rows[steps] = json.loads(capsys.readouterr().out)
    assert rows[1]["distance"] > 8 * rows[1]["floor"]  # one jump lands near the mean of all modes
    assert rows[40]["distance"] < 2 * rows[40]["floor"]


@pytest.mark.slow
def test_label_and_guidance(capsys):
    def row(*words):
        sample("--label", 3, "--out", "a.npz", "--json", "-", *words, n=400, steps=20)
        return json.loads(capsys.readouterr().out)

    plain, guided, off = row(), row("--guidance-scale", 3), row("--guidance-scale", 0)
    assert plain["accuracy"] == 1
    assert guided["nfe"] == 2 * plain["nfe"]
    assert guided["distance"] > 3 * plain["distance"]  # guidance leaves the class's own law
    assert off["accuracy"] == pytest.approx(1 / 8, abs=0.06)
    assert off["nfe"] == plain["nfe"]
    assert off["distance"] < 3 * off["floor"]  # compared with the whole mixture


def test_dash_prints_json_alone(capsys):
    assert sample("--out", "a.npz", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 50
    assert run("methods", "--json", "-") == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "solvers", "parallel", "samplers", "grids", "schedules", "mixtures", "methods", "problems",
    }  # fmt: skip
    assert written() == ["a.npz"]


def test_methods_lists_every_registry(capsys):
    assert run("methods", "--json", "m.json") == 0
    found = json.loads(Path("m.json").read_text())
    text = capsys.readouterr().out
    for kind, registry in (
        ("solvers", toydiff.SOLVERS),
        ("parallel", toydiff.PARALLEL),
        ("samplers", SAMPLERS),
        ("grids", toydiff.GRIDS),
        ("schedules", toydiff.SCHEDULES),
        ("mixtures", toydiff.MIXTURES),
    ):
        assert [row["name"] for row in found[kind]] == list(registry)
        assert all(row["title"] in text for row in found[kind])
    ddpm = next(row for row in found["solvers"] if row["name"] == "ddpm")
    assert ddpm["stochastic"] is True
    assert ddpm["elsewhere"]["diffusers"] in text
    dpm3 = next(row for row in found["solvers"] if row["name"] == "dpm3")
    assert (dpm3["order"], dpm3["calls_per_step"], dpm3["paper"]) == (3, 3, "arXiv 2206.00927, alg. 2")
    assert [row["name"] for row in found["solvers"] if row["default"]] == [DEFAULT_SOLVER]
    assert f"{DEFAULT_SOLVER} *" in text
    section = text[text.index("PARALLEL SAMPLERS (--solver)") : text.index("THE SAME SOLVERS ELSEWHERE")]
    for row in found["parallel"]:
        entry = toydiff.PARALLEL[row["name"]]
        assert row == {
            "name": entry.name,
            "title": entry.title,
            "order": 1,
            "stochastic": False,
            "paper": entry.paper,
            "elsewhere": entry.elsewhere,
        }
        [line] = [line for line in section.splitlines() if line.split()[:1] == [entry.name]]
        assert re.fullmatch(rf"\S+ +1 +{re.escape(entry.title)} +{re.escape(entry.paper)}", line)


@pytest.mark.parametrize("solver", ["picard", "picard:window=5", "anderson", "broyden", "parareal"])
def test_sample_with_a_parallel_sampler(solver, capsys):
    """The samples of DDIM, in fewer rounds and more calls; both are printed."""
    assert sample("--solver", solver, "--out", "a.npz", "--json", "row.json", n=50, steps=20) == 0
    row = json.loads(Path("row.json").read_text())
    sample("--solver", "ddim", "--out", "b.npz", n=50, steps=20)
    assert row["method"] == solver
    assert row["rounds"] <= 20 < row["nfe"]
    text = capsys.readouterr().out
    assert (
        f"{solver} on mixture:ring: 50 samples in {row['nfe']} network calls each (NFE), {row['rounds']} rounds" in text
    )
    np.testing.assert_allclose(np.load("a.npz")["samples"], np.load("b.npz")["samples"], atol=0.02)


@pytest.mark.slow
def test_sample_draws_a_parallel_sampler_too():
    assert sample("--solver", "picard:window=2", "--out", "a.png") == 0
    assert json.loads(png_text("a.png")["toydiff"])["solver"] == "picard:window=2"


def test_sample_shows_how_much_of_the_path_is_accepted(capsys, monkeypatch):
    monkeypatch.setattr(cli, "show_progress", lambda: True)
    assert sample("--solver", "picard", "--out", "a.npz", n=50, steps=20) == 0
    err = capsys.readouterr().err
    assert "accepted" in err
    assert "20/20" in err


@pytest.mark.slow
def test_parallel_prints_the_rows_that_it_writes(capsys):
    words = [
        "--steps",
        "12",
        "--steps",
        "8",
        "--method",
        "sequential",
        "window",
        "--method",
        "broyden:memory=1",
        "--samples",
        20,
        "--cost",
        0,
    ]
    assert run("parallel", *words, "--json", "p.json") == 0
    rows = json.loads(Path("p.json").read_text())
    assert [(row["steps"], row["method"], row["solver"]) for row in rows] == [
        (8, "sequential", "ddim"), (8, "window", "picard:window=2"), (8, "broyden", "broyden:memory=1"),
        (12, "sequential", "ddim"), (12, "window", "picard:window=3"), (12, "broyden", "broyden:memory=1"),
    ]  # fmt: skip
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        name = "sequential" if row["method"] == "sequential" else row["solver"]
        [line] = [line for line in lines if line[:2] == [str(row["steps"]), name]]
        assert line[2:] == [
            "-" if row["sweeps"] is None else str(row["sweeps"]),
            str(row["rounds"]),
            str(row["calls"]),
            str(row["nfe"]),
            f"{row['seconds']:.3g}",
            f"{row['seconds_with_cost']:.3g}",
            *(
                f"{row[key]:.1e}"
                for key in ("error_to_sequential", "error_to_sequential_p95", "error_to_exact", "error_to_exact_p95")
            ),
            str(row["rounds_to_target"]),
            str(row["rounds_to_target_p95"]),
        ]
    assert run("parallel", "--steps", 4, "--samples", 5, "--cost", 0, "--json", "-") == 0
    assert len(json.loads(capsys.readouterr().out)) == 6


def test_parallel_options_reach_the_comparison(monkeypatch):
    called = []
    words = inspect.signature(toydiff.studies.parallel_sampling.compare)

    def fake(*given, **named):
        called.append(words.bind(*given, **named).arguments)
        return [row_of("sequential", 1.0, 1.0), row_of("picard", 2.0, 0.5)]

    monkeypatch.setattr("toydiff.studies.parallel_sampling.compare", fake)
    assert run("parallel") == 0
    assert {key: called[0][key] for key in called[0]} == {
        key: option.default for key, option in words.parameters.items()
    }  # the command's defaults are the function's
    assert (
        run(
            "parallel",
            "--steps",
            7,
            "--method",
            "picard",
            "--mixture",
            "ring",
            "--schedule",
            "ve",
            "--grid",
            "karras",
            "--samples",
            9,
            "--tolerance",
            "none",
            "--window",
            3,
            "--cost",
            0.5,
            "--seed",
            4,
        )
        == 0
    )
    assert called[1] == {
        "mixture": "ring",
        "steps": [7],
        "methods": ["picard"],
        "schedule": "ve",
        "grid": "karras",
        "samples": 9,
        "tolerance": None,
        "window": 3,
        "cost": 0.5,
        "seed": 4,
        "progress": False,
    }


def row_of(method, seconds, with_cost, steps=10):
    """What the text needs of a row."""
    row = dict.fromkeys(
        ("sweeps", "rounds", "calls", "nfe", "samples", "seed", "rounds_to_target", "rounds_to_target_p95"), 1
    )
    row |= dict.fromkeys(
        ("error_to_sequential", "error_to_sequential_p95", "error_to_exact", "error_to_exact_p95"), 0.5
    )
    row |= {"method": method, "solver": method, "steps": steps, "seconds": seconds, "seconds_with_cost": with_cost}
    return row | {"problem": "mixture:x", "schedule": "vp", "grid": "uniform", "target": 0.01, "cost_per_call": 0.02}


def test_what_is_said_about_wall_clock_follows_from_the_rows():
    rows = [
        row_of("sequential", 1.0, 3.0),
        row_of("picard", 2.5, 1.0),
        row_of("parareal", 4.0, 6.0),
        row_of("sequential", 9.0, 9.0, steps=20),
        row_of("picard", 3.0, 2.0, steps=20),
        row_of("parareal", 4.0, 1.0, steps=20),
    ]
    assert cli.parallel_verdicts(rows) == [
        "Wall-clock with the network as it is: T = 10 lost, the fastest (picard) takes 2.5 times as long as the walk; "
        "T = 20 won, 3.0 times faster than the walk with picard.",
        "With 0.02 s more a call: T = 10 won, 3.0 times faster than the walk with picard (but parareal slower); "
        "T = 20 won, 9.0 times faster than the walk with parareal.",
    ]
    assert cli.parallel_verdicts(rows[1:3]) == []
    assert cli.parallel_verdicts(rows[:1]) == []


def test_a_number_that_is_none_is_a_dash(capsys):
    cli.report(
        None, [], cli.parallel_text([row_of("picard", 1.0, 1.0) | {"rounds_to_target": None, "error_to_exact": None}])
    )
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if " picard " in line)
    assert line.count("-") == 2


@pytest.mark.slow
def test_convergence_writes_exactly_the_promised_keys(capsys):
    words = ["--solver", "ddim", "heun", "--schedule", "vp", "--schedule", "linear"]
    assert run("convergence", *words, "--json", "c.json") == 0
    rows = json.loads(Path("c.json").read_text())
    assert [(row["solver"], row["schedule"]) for row in rows] == [
        ("ddim", "vp"), ("heun", "vp"), ("ddim", "linear"), ("heun", "linear"),
    ]  # fmt: skip
    assert all(list(row) == ["solver", "schedule", "declared", "measured", "nfe", "error"] for row in rows)
    assert rows[1]["nfe"] == [2 * N for N in DEFAULT_STEPS]
    text = capsys.readouterr().out
    assert f"{rows[1]['measured']:.2f}" in text
    assert "vp" in text
    assert "linear" in text


def test_convergence_options_reach_the_computation(monkeypatch, capsys):
    called = {}

    def fake(mixture, **settings):
        called.update(settings, mixture=mixture)
        return [{"solver": "x", "schedule": "y", "declared": 1, "measured": 1.0, "nfe": [1, 2], "error": [0.2, 0.1]}]

    monkeypatch.setattr("toydiff.studies.orders.convergence", fake)
    assert run("convergence", "--mixture", "ring", "--seed", 7) == 0
    assert torch.equal(called["mixture"].means, toydiff.mixture("ring").means)
    assert (called["solvers"], called["schedules"], called["seed"]) == (None, DEFAULT_SCHEDULES, 7)
    assert run("convergence", "--seed", 7) == 0
    assert torch.equal(called["mixture"].means, toydiff.mixtures.random_mixture(7).means)


def test_demo_makes_its_folder_and_runs_in_it(monkeypatch, capsys):
    called, words = [], inspect.signature(toydiff.studies.demo.run)
    monkeypatch.setattr(
        "toydiff.studies.demo.run", lambda *given, **named: called.append(words.bind(*given, **named).arguments)
    )
    assert run("demo", "--out", "a/b") == 0
    assert called == [{"out": Path("a/b"), "progress": False}]
    assert Path("a/b").is_dir()
    assert "index.html" in capsys.readouterr().out


# ---- help


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_commands_and_examples(words, capsys):
    with pytest.raises(SystemExit) as left:
        run(*words)
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert "toydiff sample --mixture spirals" in text


def test_the_examples_of_the_help_are_right(capsys, monkeypatch):
    lines = [line.split("  ")[1].strip() for line in cli.EXAMPLES.splitlines()[1:]]
    assert len(lines) >= len(cli.COMMANDS)
    for line in lines:
        name, *words = shlex.split(line)
        assert name == "toydiff"
        cli.parse(words)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_each_command(name, capsys):
    with pytest.raises(SystemExit) as left:
        run(name, "--help")
    assert left.value.code == 0
    assert cli.COMMANDS[name].summary in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        run("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"toydiff {toydiff.__version__}\n"


# ---- bad input

S = ["sample", "--out", "a.npz"]
BAD = [
    (["demmo"], "did you mean 'demo'"),
    (["teach"], "methods, train, pairs, learn-solver, evaluate, scoreboard, score, export, doctor, app, site, zoo"),
    (["--vresion"], "did you mean '--version'"),
    (["sample"], "--out"),
    (["sample", "--otu", "a.npz"], "did you mean '--out'"),
    (["sample", "--out"], "--out"),
    ([*S, "--sovler=heun"], "did you mean '--solver'"),
    ([*S, "--step", "3"], "did you mean '--steps'"),
    ([*S, "-n", "3"], "unknown option"),
    ([*S, "more"], "unknown run or bundled weights 'more'"),
    ([*S, "more", "and more"], "unexpected argument 'and more'"),
    ([*S, "--solver", "huen"], "did you mean 'heun'"),
    ([*S, "--solver", ""], "unknown solver"),
    ([*S, "--solver", "ddim:etta=1"], "allowed: eta"),
    ([*S, "--solver", "ddim:eta=much"], "is a number"),
    ([*S, "--solver", "ddim:eta=2"], "eta must lie in [0, 1]"),
    ([*S, "--solver", "ddim:eta=nan"], "eta must be a finite number, got nan"),
    ([*S, "--grid", "lamda"], "did you mean 'lambda'"),
    ([*S, "--schedule", "cosin"], "did you mean 'cosine'"),
    ([*S, "--mixture", "spiral"], "did you mean 'spirals'"),
    ([*S, "--steps", "0"], "--steps: must be a whole number from 1"),
    ([*S, "--steps", "-3"], "--steps: must be a whole number from 1"),
    ([*S, "--steps", "ten"], "got 'ten'"),
    ([*S, "--steps", "2.5"], "got '2.5'"),
    ([*S, "--steps", "1000000000000"], "to 100000"),
    ([*S, "--n", "0"], "--n: must be a whole number from 1"),
    ([*S, "--n", "1e3"], "got '1e3'"),
    ([*S, "--n", "1000000000000"], "to 100000"),
    ([*S, "--seed", "-1"], "--seed: must be a whole number from 0"),
    ([*S, "--seed", str(2**64)], "--seed: must be a whole number from 0"),
    ([*S, "--label", "99"], "the labels are [0, 1, 2, 3, 4, 5, 6, 7]"),
    ([*S, "--label", "-1"], "--label: must be a whole number"),
    ([*S, "--guidance-scale", "3"], "give --label"),
    ([*S, "--guidance-scale", "nan", "--label", "1"], "finite number"),
    ([*S, "--guidance-scale", "high", "--label", "1"], "got 'high'"),
    (["sample", "--out", "a.gif"], ".png or .npz"),
    (["sample", "--out", "a"], ".png or .npz"),
    (["sample", "--out", ""], ".png or .npz"),
    (["sample", "--out", "missing/a.npz"], "there is no folder 'missing'"),
    (["sample", "--out", "folder.npz"], "it is a folder"),
    (["sample", "--out", "file/a.npz"], "there is no folder 'file'"),
    ([*S, "--json", "missing/a.json"], "there is no folder 'missing'"),
    ([*S, "--json", "."], "it is a folder"),
    ([*S, "--json", "./a.npz"], "the same file"),
    (["convergence", "--solver", "unipc"], "did you mean 'unipc"),
    (["convergence", "--solver", "ddpm"], "stochastic"),
    (["convergence", "--schedule", "vpp"], "did you mean 'vp'"),
    (["convergence", "--solver"], "expected at least one argument"),
    (["convergence", "--mixture", "rin"], "did you mean 'ring'"),
    (["convergence", "--json", "missing/a.json"], "there is no folder 'missing'"),
    ([*S, "--solver", "picrad"], "did you mean 'picard'"),
    ([*S, "--solver", "picard:window=21"], "window must be at most the number of steps, 20"),
    ([*S, "--solver", "picard:window=0"], "window must be a whole number >= 1"),
    ([*S, "--solver", "picard:tolerance=0"], "tolerance must be a finite number > 0"),
    ([*S, "--solver", "picard:tolerance=small"], "is a number or none, got 'small'"),
    ([*S, "--solver", "picard:solver=dpm++2m"], "must be a one-step solver"),
    ([*S, "--solver", "anderson:memry=2"], "did you mean 'memory'"),
    ([*S, "--solver", "parareal:blocks=7"], "blocks must divide the number of steps, 20"),
    (["parallel", "--method", "brodyen"], "did you mean 'broyden'"),
    (["parallel", "--method", "parareal:blocks=7"], "blocks must divide the number of steps, 25"),
    (["parallel", "--method", "picard:solver=ab2"], "must be a one-step solver"),
    (["parallel", "--method"], "expected at least one argument"),
    (["parallel", "--steps", "0"], "--steps: must be a whole number from 1"),
    (["parallel", "--tolerance", "0"], "tolerance must be a finite number > 0"),
    (["parallel", "--tolerance", "-0.1"], "tolerance must be a finite number > 0"),
    (["parallel", "--tolerance", "tiny"], "must be a finite number or none, got 'tiny'"),
    (["parallel", "--window", "0"], "--window: must be a whole number from 1"),
    (["parallel", "--window", "50"], "window must be at most the number of steps, 25"),
    (["parallel", "--window", "5", "--method", "picard"], "window is not among the methods"),
    (["parallel", "--samples", "100000"], "steps x samples must be at most"),
    (["parallel", "--cost", "-1"], "--cost: must be a number from 0 to 10"),
    (["parallel", "--cost", "nan"], "must be a finite number, got 'nan'"),
    (["parallel", "--mixture", "rin"], "did you mean 'ring'"),
    (["parallel", "--schedule", "vpp"], "did you mean 'vp'"),
    (["parallel", "--grid", "unifrom"], "did you mean 'uniform'"),
    (["parallel", "--windw", "5"], "did you mean '--window'"),
    (["parallel", "--json", "missing/a.json"], "there is no folder 'missing'"),
    (["methods", "--json", "missing/a.json"], "there is no folder 'missing'"),
    (["methods", "solvers"], "unexpected argument 'solvers'"),
    (["demo", "--out", "file"], "cannot write into the folder 'file'"),
    (["demo", "--out", "file/inner"], "cannot write into the folder"),
    (["demo", "--fast"], "unknown option"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words)[-40:] for words, _ in BAD])
def test_bad_input_is_one_line_and_code_2(words, said, capsys, monkeypatch):
    Path("folder.npz").mkdir()
    Path("file").write_text("mine")
    before = written()
    for module in (
        toydiff.solvers.driver,
        toydiff.studies.parallel_sampling,
    ):  # nothing is sampled before the mistake is found
        monkeypatch.setattr(module, "tqdm", forbidden)
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("toydiff: error: ")
    assert err.count("\n") == 1
    assert said in err
    assert written() == before
    assert Path("file").read_text() == "mine"


def forbidden(*args, **kwargs):
    raise AssertionError("this must not be reached")


def test_a_folder_that_refuses_is_found_before_the_work(capsys, monkeypatch):
    """As root no folder refuses by its permissions, so the refusal is played."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(cli, "draw", forbidden)
    monkeypatch.setattr("toydiff.studies.orders.convergence", forbidden)
    monkeypatch.setattr("toydiff.studies.parallel_sampling.compare", forbidden)
    monkeypatch.setattr("toydiff.studies.demo.run", forbidden)
    jsons = [[word, "--json", "c.json"] for word in ("convergence", "parallel", "methods")]
    for words in (S, ["demo", "--out", "d"], *jsons):
        assert run(*words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("toydiff: error: cannot write into the folder")
        assert "Permission denied" in err
        assert err.count("\n") == 1


def test_samples_that_overflow_are_one_line(capsys, monkeypatch):
    def overflow(*args, **kwargs):
        raise FloatingPointError("the samples became NaN\nor infinite")

    monkeypatch.setattr("toydiff.solvers.solve", overflow)
    assert sample("--out", "a.npz") == 1
    assert capsys.readouterr().err == "toydiff: error: the samples became NaN or infinite\n"
    assert written() == []


# ---- interruptions


def test_interrupted_while_sampling(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    Path("a.npz").write_text("the old one")
    monkeypatch.setattr("toydiff.solvers.solve", interrupt)
    assert sample("--out", "a.npz", "--json", "row.json") == 130
    assert capsys.readouterr().err == "toydiff: interrupted\n"
    assert written() == ["a.npz"]
    assert Path("a.npz").read_text() == "the old one"


@pytest.mark.slow
def test_interrupted_while_comparing(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    Path("p.json").write_text("the old one")
    monkeypatch.setattr("toydiff.studies.parallel_sampling.solve", interrupt)
    assert run("parallel", "--json", "p.json") == 130
    assert capsys.readouterr().err == "toydiff: interrupted\n"
    assert written() == ["p.json"]
    assert Path("p.json").read_text() == "the old one"


@pytest.mark.parametrize("moment", ["fdopen", "replace"])
def test_interrupted_while_writing(moment, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    Path("a.npz").write_text("the old one")
    monkeypatch.setattr(files.os, moment, interrupt)
    assert sample("--out", "a.npz") == 130
    assert written() == ["a.npz"]
    assert Path("a.npz").read_text() == "the old one"


def test_a_full_disk_is_one_line_and_leaves_the_old_file(capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    Path("a.npz").write_text("the old one")
    monkeypatch.setattr(files.os, "replace", full)
    assert sample("--out", "a.npz") == 2
    assert capsys.readouterr().err == "toydiff: error: cannot write the file 'a.npz': No space left on device\n"
    assert written() == ["a.npz"]
    assert Path("a.npz").read_text() == "the old one"


def test_written_files_are_ordinary_and_whole():
    assert files.write_text("a.txt", "ä") == Path("a.txt")
    assert Path("a.txt").read_bytes() == "ä".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert Path("a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    files.write_json("a.json", {"a": [1, None]})
    assert json.loads(Path("a.json").read_text()) == {"a": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json("a.json", float("nan"))
    assert json.loads(Path("a.json").read_text()) == {"a": [1, None]}
    assert written() == ["a.json", "a.txt"]


# ---- as a process of its own


@pytest.mark.slow
def test_the_package_runs_as_a_module_and_a_wrong_word_ends_it(capsys):
    done = subprocess.run([sys.executable, "-m", "toydiff", "smaple"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "did you mean 'sample'" in done.stderr
    with pytest.raises(SystemExit) as left:
        run("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"toydiff {toydiff.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", ["methods", pytest.param("--help", marks=pytest.mark.slow)])
def test_a_reader_that_leaves_is_no_error(words):
    """`toydiff methods | head -1`: the pipe is closed before anything is written to it."""
    read, write = os.pipe()
    os.close(read)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run([*COMMAND, words], stdout=write, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


LONG = {
    "sequential": "sample --steps 100000 --n 500 --solver dpm3 --out a.npz",
    "in parallel": "sample --steps 2000 --n 500 --solver picard:window=2,tolerance=none --out a.npz",
    "waiting": "parallel --cost 5 --json p.json",
}
"""Minutes of work."""

INTERRUPTED = """
import os, signal, sys, threading
import toydiff.studies.parallel_sampling
from toydiff import cli
from toydiff.cli import command  # an interrupt while modules are imported ends the process at once: test_hard_start.py

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
for line in sys.argv[1:]:
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    code = cli.main(line.split())
    print(code)
sys.exit(code)
"""


@pytest.mark.slow
def test_ctrl_c_leaves_one_line_and_no_file():
    """A second after the start of each: it is in the midst of its work."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *LONG.values()], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stdout.split() == ["130"] * len(LONG)
    assert done.stderr == "toydiff: interrupted\n" * len(LONG)
    assert written() == []


def test_output_that_is_no_ordinary_file(tmp_path):
    """A link keeps its place and its target is written; a device is written to, not replaced."""
    (tmp_path / "real").mkdir()
    Path("link.json").symlink_to(tmp_path / "real" / "x.json")
    assert run("methods", "--json", "link.json") == 0
    assert Path("link.json").is_symlink()
    assert json.loads((tmp_path / "real" / "x.json").read_text())["solvers"]
    assert run("methods", "--json", os.devnull) == 0
    assert not Path(os.devnull).is_file()


def test_demo_into_no_folder_at_all(capsys):
    assert run("demo", "--out", "") == 2
    assert capsys.readouterr().err == "toydiff: error: --out must name a folder, got ''\n"
    assert written() == []


@pytest.mark.slow
def test_process_with_a_closed_stdout():
    words = " ".join([*COMMAND, "sample", "--n", "20", "--steps", "2", "--out", "a.npz"])
    done = subprocess.run(
        words + " >&-",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("a.npz").is_file()


def test_a_stdout_without_our_letters(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert sample("--out", "a.npz") == 0
    shown.seek(0)
    assert "a.npz" in shown.read()
    assert Path("a.npz").is_file()
