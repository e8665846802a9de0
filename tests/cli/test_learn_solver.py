"""`toydiff learn-solver`: a file for one model, and one line for what cannot be learned."""

import json

import pytest
import torch
from commands import run

from toydiff import runs
from toydiff.solvers import solver_by_name
from toydiff.solvers.learned import Learned, LearnedTimes


@pytest.fixture
def fine(capsys):
    def ran(words):
        code = run(*words.split())
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return ran


@pytest.fixture
def refused(capsys):
    def ran(words):
        code = run(*words.split())
        err = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line and line.strip()]
        assert code == 2, err
        assert len(err) == 1, err
        return err[0]

    return ran


QUICK = "--n 16 --truth-steps 20 --seconds 1"


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mixture_and_what_samples_with_it(somewhere, fine, refused):
    said = fine(f"learn-solver --problem mixture:ring --steps 4 {QUICK} --out four.json --json row.json")
    assert "four.json: guarded in 4 steps, learned for mixture:ring at guidance scale 1" in said
    row = json.loads((somewhere / "row.json").read_text())
    assert 0 < row["median"] <= 1
    assert 0 < row["rms"] <= 1
    assert isinstance(solver_by_name("learned:four.json"), Learned)
    sample = "sample --mixture ring --schedule scaled-linear --solver learned:four.json --n 50"
    assert "in 4 network calls each" in fine(f"{sample} --steps 4 --out a.npz")
    assert "has its own 4 steps" in refused(f"{sample} --steps 5 --out b.npz")
    assert "on the schedule" in refused(f"{sample.replace('scaled-linear', 'vp')} --steps 4 --out b.npz")
    assert "another model" in refused(f"{sample.replace('ring', 'grid')} --steps 4 --out b.npz")
    assert not (somewhere / "b.npz").exists()


@pytest.mark.slow
def test_bundled_weights_under_guidance_and_the_times_of_another_solver(fine, refused):
    fine(f"learn-solver ring-teacher --steps 3 --guidance-scale 2 {QUICK} --out a.json")
    assert solver_by_name("learned:a.json").about["guidance_scale"] == 2
    model = runs.load("ring-teacher")
    x = torch.randn(5, 2)
    from toydiff import solve

    assert solve(model.denoiser, x, 3, solver="learned:a.json", cond=torch.arange(5), guidance_scale=2.0).nfe == 6
    assert "guidance scale" in refused("sample ring-teacher --solver learned:a.json --steps 3 --out b.npz")
    fine(f"learn-solver ring-teacher --steps 3 --solver dpm++2m {QUICK} --out b.json")
    assert isinstance(solver_by_name("learned:b.json"), LearnedTimes)
    assert "in 3 network calls" in fine("sample ring-teacher --solver learned:b.json --steps 3 --n 20 --out b.npz")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--steps 3 --out a.txt", "must name a .json file"),
        ("--steps 0 --out a.json", "--steps"),
        ("--steps 3 --out no/a.json", "no"),
        ("--steps 3 --solver ddpm --out a.json", "a deterministic solver"),
        ("--steps 3 --solver heunn --out a.json", "did you mean 'heun'"),
        ("--steps 1 --times-only --out a.json", "no times to learn"),
        ("--steps 3 --n 3 --out a.json", "--n"),
        ("--steps 3 --seconds -1 --out a.json", "seconds"),
        ("--steps 3 --problem mixture:rng --out a.json", "ring"),
        ("ring-teacher --problem mixture:ring --steps 3 --out a.json", "not both"),
        ("nothing --steps 3 --out a.json", "nothing"),
        ("--problem points:moons --steps 3 --out a.json", "teacher"),
        ("--steps 3 --prompt fox --out a.json", "--prompt"),
    ],
)
def test_what_cannot_be_learned(somewhere, refused, words, says):
    assert says in refused(f"learn-solver {words}")
    assert not list(somewhere.glob("*.json"))


def test_an_interrupt_keeps_the_best_so_far(capsys, monkeypatch):
    """The first thing that is found is the start itself."""
    from toydiff.solvers import learning

    def search(*args, **how):
        yield from (found for found, _ in zip(real(*args, **how), range(1), strict=False))
        raise KeyboardInterrupt

    real = learning.learn_solver
    monkeypatch.setattr(learning, "learn_solver", search)
    assert run(*f"learn-solver --problem mixture:ring --steps 3 {QUICK} --out a.json".split()) == 130
    assert "the best solver so far is in 'a.json'" in capsys.readouterr().err
    assert isinstance(solver_by_name("learned:a.json"), Learned)
