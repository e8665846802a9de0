"""The bundled weights: small enough, whole, as good as their files say, and buildable again by one command."""

import pytest
import torch

from toydiff import runs, weights, zoo
from toydiff.catalog import METHODS
from toydiff.problems import problem
from toydiff.zoo import Recipe

MOST_BYTES, MOST_BYTES_OF_ALL = 1.5e6, 15e6
ONE_STEP = ["digits-naive", "digits-rectified-flow", "digits-instaflow", "digits-rectified-diffusion"]
RING_ONE_STEP = ["ring-naive", "ring-rectified-flow", "ring-rectified-flow-2", "ring-rectified-diffusion"]


def row(id_, steps, solver=None):
    """What the file of an id says of a number of steps."""
    found = [
        r for r in weights.read_about(id_)["rows"] if r["steps"] == steps and (solver is None or r["solver"] == solver)
    ]
    return found[0]


def test_everything_that_has_a_recipe_is_bundled_and_nothing_else():
    assert set(weights.bundled()) == set(zoo.ids())


def test_every_method_has_a_digit_student():
    assert {recipe.method for recipe in zoo.RECIPES.values() if recipe.problem == "digits"} == set(METHODS)


def test_files_are_small():
    sizes = {path.name: path.stat().st_size for path in weights.FOLDER.glob("*.safetensors")}
    assert max(sizes.values()) <= MOST_BYTES, sizes
    assert sum(sizes.values()) <= MOST_BYTES_OF_ALL


@pytest.mark.parametrize("id_", zoo.ids())
def test_each_says_how_it_was_made_and_what_it_measures(id_):
    about = weights.read_about(id_)
    assert about["command"] == f"toydiff zoo build {id_}"
    assert about["seconds"] > 0
    assert about["seed"] == 0
    assert about["rows"]
    if id_ in zoo.RECIPES:
        recipe = zoo.RECIPES[id_]
        assert (about["method"], about["teacher"], about["start"]) == (recipe.method, recipe.teacher, recipe.start)
        assert about["knobs"] == vars(runs.knobs(recipe.method, recipe.problem, recipe.changes))
        assert about["updates"] == about["knobs"]["updates"]
        assert [r["steps"] for r in about["rows"]] == list(recipe.steps) * len(recipe.solvers)
        for r in about["rows"]:
            assert r["distance"] > 0
            assert r["floor"] > 0
            assert r["nfe"] >= r["steps"]


@pytest.mark.parametrize("id_", zoo.RECIPES)
def test_each_loads_and_samples(id_):
    model = runs.load(id_)
    on = problem(model.about["problem"])
    path, cond = runs.sample(model, on, 2, 1, solver="ddim")
    assert path.end.shape == (2, *on.shape)
    assert bool(torch.isfinite(path.end).all())
    assert (cond is None) == (not on.conditional)
    assert not any(p.requires_grad for p in model.denoiser.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("id_", [*ONE_STEP, *RING_ONE_STEP])
def test_the_file_tells_the_truth(id_):
    """Measured again here, in one step; another machine rounds differently, no more."""
    model = runs.load(id_)
    [again] = runs.evaluate(model, problem(model.about["problem"]), steps=[1])
    assert again["distance"] == pytest.approx(row(id_, 1)["distance"], rel=0.02)


def test_few_steps_on_digits_stay_near_the_teacher():
    teacher = row("digits-teacher", 25, "dpm++2m")
    assert teacher["distance"] <= 4 * teacher["floor"]
    stochastic = row("digits-teacher", 25, "sde-dpm++2m")
    assert stochastic["distance"] <= 4 * stochastic["floor"]
    assert stochastic["accuracy"] >= 0.97
    for id_, steps in (("digits-rectified-flow", 4), ("digits-rectified-diffusion", 2), ("digits-perflow", 4)):
        assert row(id_, steps)["distance"] <= 4 * teacher["distance"], id_


def test_targets_of_the_ring():
    bounds = {("ring-teacher", 20): 1.5, ("ring-naive", 1): 2.5, ("ring-rectified-flow", 1): 2.5, ("ring-rectified-diffusion", 1): 2.5,
              ("ring-progressive", 4): 1.5, ("ring-perflow", 4): 1.5, ("ring-rectified-diffusion-phased", 4): 1.5}  # fmt: skip
    for (id_, steps), bound in bounds.items():
        assert row(id_, steps)["distance"] <= bound * row(id_, steps)["floor"], (id_, steps)


def test_build_makes_measures_and_stores(tmp_path, monkeypatch):
    tiny = {"updates": 4, "batch": 16, "warmup": 1}
    recipes = [
        Recipe("tiny-teacher", "diffusion", "mixture:ring", changes=tiny, steps=(2,), solvers=(None, "ddim")),
        Recipe("tiny-student", "rectified-diffusion", "mixture:ring", "tiny-teacher", changes=tiny, steps=(1, 2)),
    ]
    monkeypatch.setattr(zoo, "RECIPES", {recipe.id: recipe for recipe in recipes})
    monkeypatch.setattr(zoo, "PAIR_RECIPES", {"tiny-teacher": zoo.PairRecipe(n=50, steps=2)})
    out = tmp_path / "out"
    out.mkdir()
    entries = list(zoo.build(["tiny-student", "tiny-teacher"], tmp_path / "work", out))
    assert [entry["id"] for entry in entries] == ["tiny-teacher", "tiny-student"]
    assert [(r["steps"], r["solver"]) for r in entries[0]["rows"]] == [(2, "dpm++2m"), (2, "ddim")]
    assert [r["steps"] for r in entries[1]["rows"]] == [1, 2]
    tensors, about = weights.load("tiny-student", out)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert about["teacher"] == "tiny-teacher"
    assert about["pair_calls"] == 50 * 2
    # built again from what lies there: the same bits, without training
    again = list(zoo.build(["tiny-student"], tmp_path / "work", out))
    assert again[0]["rows"][0]["distance"] == entries[1]["rows"][0]["distance"]


def test_unknown_id_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'digits-teacher'") as caught:
        list(zoo.build(["digits-teachr"], tmp_path))
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused(tmp_path):
    for suffix in ("json", "safetensors"):
        (tmp_path / f"ring-teacher.{suffix}").write_bytes((weights.FOLDER / f"ring-teacher.{suffix}").read_bytes())
    assert weights.load_denoiser("ring-teacher", tmp_path).kind == "v"
    whole = (tmp_path / "ring-teacher.safetensors").read_bytes()
    (tmp_path / "ring-teacher.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="truncated or was altered"):
        weights.load_denoiser("ring-teacher", tmp_path)
