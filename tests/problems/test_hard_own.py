"""Points and mixtures of one's own, from memory and from files: trained, sampled, measured, and kept in the run."""

import json
import os

import numpy as np
import pytest
import torch

from toydiff import GaussianMixture, runs
from toydiff.problems import MixtureProblem, PointsProblem, problem
from toydiff.problems.pairs import Recipe, save_pairs
from toydiff.schedules import Linear

FEW = {"updates": 2, "batch": 8}
MEANS = [[-1.0, 0.0, 0.5], [1.0, 0.5, 0.0]]
MIXTURES = {
    "diagonal": {"means": MEANS, "std": [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], "weights": [0.3, 0.7], "labels": [0, 1]},
    "nearly": {"means": MEANS, "std": [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1001]], "weights": [0.3, 0.7], "labels": [0, 1]},
    "isotropic": {"means": MEANS, "std": 0.3},
    "covariance": {"means": MEANS, "cov": [[0.2, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.1]]},
}


def made(name):
    given = dict(MIXTURES[name])
    return GaussianMixture(given.pop("means"), **given)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_ones_own_is_kept_in_its_run(tmp_path, name):
    on = MixtureProblem(made(name), schedule=Linear())
    runs.train("diffusion", on, out=tmp_path / "run", changes=FEW).finish()
    model = runs.load(tmp_path / "run")
    again = runs.problem_of(model)
    assert isinstance(again, MixtureProblem)
    assert again.name == on.name
    assert isinstance(again.schedule, Linear)
    for ours, theirs in ((on.mixture.means, again.mixture.means), (on.mixture.weights, again.mixture.weights)):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(on.mixture.covariances, again.mixture.covariances, rtol=0, atol=1e-12)
    assert (on.mixture.labels is None) == (again.mixture.labels is None)
    [a] = runs.evaluate(model, on, steps=[2], n=50)
    [b] = runs.evaluate(model, again, steps=[2], n=50)
    assert a["distance"] == pytest.approx(b["distance"], rel=1e-6)


def test_points_of_ones_own_are_kept_in_their_run(tmp_path):
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    on = PointsProblem(points)
    drawn, labels = on.data(1000, 0)
    assert labels is None
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in points.tolist()}
    run = runs.train("diffusion", on, out=tmp_path / "run", changes=FEW)
    in_memory = runs.problem_of(run.finish())
    for again in (in_memory, runs.problem_of(runs.load(tmp_path / "run"))):
        assert torch.equal(again.set, points)
    assert on.measure(drawn).distance < 0.3 < on.measure(drawn + 1).distance


def write(folder, name):
    """A file of the kind that its ending says, with 20 points, or a mixture."""
    path = folder / name
    points = np.random.default_rng(0).normal(size=(20, 2))
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".npz":
        np.savez(path, points=points, other=np.zeros(3))
    elif path.suffix == ".csv":
        path.write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in points.tolist()))
    else:
        path.write_text(json.dumps({"means": [[-1, 0], [1, 0]], "std": 0.2, "labels": [0, 1]}))
    return path


@pytest.mark.parametrize("name", ["points.npy", "points.npz", "points.csv", "mix,ture.json"])
def test_a_file_is_a_problem(tmp_path, name):
    path = write(tmp_path, name)
    on = problem(f"file:{path}")
    assert on.name == f"file:{path}"
    if path.suffix == ".json":
        assert on.teacher is not None
        assert on.classes == 2
    else:
        assert on.set.shape == (20, 2)
        assert on.set[0, 0] == pytest.approx(0.12573022)
    assert runs.knobs("diffusion", on.name).batch == runs.knobs("diffusion", "mixture").batch


BAD = {
    "points.npy": [
        b"",
        b"x" * 100,
        b"\x93NUMPY\x01\x00\xff\xff",
        np.zeros(3),
        np.zeros((1, 2)),
        np.full((4, 2), np.nan),
    ],
    "big.npy": [
        np.full((4, 2), 1e6),
        np.zeros((4, 2)),
        np.ones((4, 2), complex),
        np.array([["a", "b"]] * 3),
        np.ones((3, 0)),
    ],
    "points.npz": [b"PK\x03\x04", {"a": np.ones((4, 2)), "b": np.ones((4, 2))}, {}, {"points": np.array([{}, {}])}],
    "points.csv": [b"", b"x,y\n", b"1,2\n3\n4,5", b"1;2\n3;4", b"\xff\xfe", b"1,nan\n2,3"],
    "mixture.json": [
        b"",
        b"[1]",
        b"{}",
        b'{"means": [[0, 0]]}',
        b'{"means": [[0, 0]], "std": 0}',
        b'{"means": [[0]], "std": 1, "sdt": 2}',
        b'{"means": [[NaN, 0]], "std": 1}',
        b'{"means": "x", "std": 1}',
        b'{"means": [[0], [1, 2]], "std": 1}',
        b"[" * 10000,
        b'{"means": [[0, 0]], "std": {"a": 1}}',
        b'{"means": [[0, 0]], "std": 1, "weights": "\x1b"}',
        b'{"means": null, "std": 1}',
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, k) for name, bad in BAD.items() for k in range(len(bad))])
def test_bad_files_are_one_line_with_their_name(tmp_path, name, number):
    path, bad = tmp_path / name, BAD[name][number]
    if isinstance(bad, bytes):
        path.write_bytes(bad)
    elif isinstance(bad, dict):
        np.savez(path, **bad)
    else:
        np.save(path, bad)
    with pytest.raises(ValueError, match=r"the file .* holds no problem: ") as error:
        problem(f"file:{path}")
    assert str(error.value).isprintable()
    assert path.name in str(error.value)


def test_pickles_pipes_and_other_endings_are_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "folder.csv").mkdir()
    for name, said in (
        ("evil.npy", "allow_pickle=False"),
        ("pipe.npy", "it is no file"),
        ("folder.csv", "Is a directory"),
        ("none.npy", "there is no file"),
        ("a.txt", "ends in"),
        ("", "ends in"),
    ):
        with pytest.raises(ValueError, match=said):
            problem(f"file:{tmp_path / name if name else ''}")


@pytest.mark.parametrize(
    "points", ["nothing", torch.zeros(3), torch.full((3, 2), float("inf")), [[1, 2]], torch.ones(3, 2) * 1e5]
)
def test_what_are_no_points_is_one_line(points):
    with pytest.raises(ValueError, match=r"points") as error:
        PointsProblem(points)
    assert "tensor([" not in str(error.value)


@pytest.mark.slow
def test_two_problems_of_one_name_are_told_apart(tmp_path):
    mine, other = MixtureProblem(made("diagonal")), MixtureProblem(made("nearly"))
    runs.train("diffusion", mine, out=tmp_path / "run", changes=FEW).finish()
    with pytest.raises(ValueError, match="of another content"):
        runs.train("diffusion", other, out=tmp_path / "run", changes=FEW, resume=True).finish()
    with pytest.raises(ValueError, match="of another problem"):
        runs.train("naive", other, teacher=str(tmp_path / "run"), changes=FEW)
    save_pairs(mine, mine.teacher, Recipe(n=4, steps=1), tmp_path / "pairs", teacher_name="own")
    with pytest.raises(ValueError, match="of another problem"):
        runs.train("naive", other, pairs=tmp_path / "pairs", changes=FEW)
    with pytest.raises(ValueError, match="of another"):
        save_pairs(other, other.teacher, Recipe(n=4, steps=1), tmp_path / "pairs", teacher_name="own")
    same = MixtureProblem(made("diagonal"), "another name")
    runs.train("naive", same, teacher=str(tmp_path / "run"), pairs=None, changes=FEW)


def test_a_damaged_definition_is_one_line(tmp_path):
    on = MixtureProblem(made("isotropic"))
    model = runs.train("diffusion", on, changes=FEW).finish()
    for about, data in (
        ({"what": "evil"}, model.data),
        ({"what": ["x"]}, model.data),
        ({"what": "mixture"}, {}),
        ({"what": "mixture"}, {"means": torch.ones(3)}),
        ({"what": "mixture"}, dict(model.data) | {"evil": torch.ones(1)}),
        ({"what": "points"}, {"points": torch.ones(1)}),
        ({"what": "mixture", "schedule": {"name": "evil"}}, model.data),
        (3, model.data),
    ):
        with pytest.raises(ValueError, match=r"problem|keeps"):
            runs.problem_of(runs.Model(model.denoiser, dict(model.about) | {"definition": about}, data))
