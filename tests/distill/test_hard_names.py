"""The same name is not the same thing: teachers, starts and pairs are known by their weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyDigits, TinyMixture

from toydiff import runs
from toydiff.problems.pairs import Recipe, load_pairs, save_pairs
from toydiff.support.sealed import contradicts, digest

FEW = {"updates": 2, "batch": 8}
RECIPE = Recipe(n=6, steps=1)


def teach(folder, seed):
    """A teacher, trained anew in its folder."""
    for file in folder.glob("*"):
        file.unlink()
    runs.train("diffusion", TinyMixture(), out=folder, changes=FEW | {"lr": 0.1, "warmup": 0}, seed=seed).finish()
    return str(folder)


def test_a_teacher_that_was_trained_anew_is_another(tmp_path):
    on, teacher = TinyMixture(), teach(tmp_path / "teacher", 0)
    old = runs.load(teacher).denoiser
    save_pairs(on, old, RECIPE, tmp_path / "pairs", teacher_name=teacher)
    how = {"teacher": teacher, "pairs": tmp_path / "pairs", "changes": FEW}
    runs.train("naive", on, **how, out=tmp_path / "run").finish()
    runs.train("cd", on, teacher=teacher, changes=FEW, out=tmp_path / "cd").finish()
    runs.train("diffusion", on, start=teacher, changes=FEW, out=tmp_path / "started").finish()
    runs.train("naive", on, **how, out=tmp_path / "run", resume=True).finish()

    teach(tmp_path / "teacher", 1)
    with pytest.raises(ValueError, match=r"of another teacher than .* its weights differ"):
        save_pairs(on, runs.load(teacher).denoiser, RECIPE, tmp_path / "pairs", teacher_name=teacher)
    for out in (tmp_path / "run", None):
        with pytest.raises(ValueError, match="which has other weights now"):
            runs.train("naive", on, **how, out=out, resume=out is not None)
    with pytest.raises(ValueError, match="was begun with a teacher of another content"):
        runs.train("cd", on, teacher=teacher, changes=FEW, out=tmp_path / "cd", resume=True).finish()
    with pytest.raises(ValueError, match="was begun with a start of another content"):
        runs.train("diffusion", on, start=teacher, changes=FEW, out=tmp_path / "started", resume=True).finish()


def test_pairs_of_another_teacher_than_the_named_one_are_refused(tmp_path):
    on, teacher = TinyMixture(), teach(tmp_path / "teacher", 0)
    own = save_pairs(on, on.teacher, RECIPE, tmp_path / "own", teacher_name="own")
    trained = save_pairs(on, runs.load(teacher).denoiser, RECIPE, tmp_path / "trained", teacher_name=teacher)
    for pairs, named in ((own, teacher), (trained, on.teacher), (trained, None)):
        with pytest.raises(ValueError, match="of another teacher"):
            runs.train("naive", on, teacher=named, pairs=pairs, changes=FEW)
    for pairs, named in ((own, on.teacher), (own, None), (trained, teacher)):
        runs.train("naive", on, teacher=named, pairs=pairs, changes=FEW)
    del own.about["teacher_content"]  # of an earlier version
    with pytest.raises(ValueError, match="of the problem's own teacher, not of"):
        runs.train("naive", on, teacher=teacher, pairs=own, changes=FEW)


def test_other_pairs_of_the_same_recipe_are_others(tmp_path):
    on = TinyMixture()
    pairs = save_pairs(on, on.teacher, RECIPE, tmp_path / "pairs", teacher_name="own")
    runs.train("naive", on, pairs=pairs.shuffled(0), changes=FEW, out=tmp_path / "run").finish()
    with pytest.raises(ValueError, match="was begun with pairs of another content"):
        runs.train("naive", on, pairs=pairs.shuffled(1), changes=FEW, out=tmp_path / "run", resume=True).finish()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t | {"x0": t["x0"] * float("nan")}, "NaN or infinite"),
        (lambda t: t | {"noise": t["noise"] + 1}, "of another seed"),
        (lambda t: t | {"noise": t["noise"][:2], "x0": t["x0"][:2], "cond": t["cond"][:2]}, "of another seed"),
        (lambda t: t | {"cond": (t["cond"] + 1) % 10}, "of another seed"),
        (lambda t: {k: v for k, v in t.items() if k != "cond"}, "has nfe, noise, x0"),
        (lambda t: t | {"x0": t["x0"][:2]}, "has noise .* and samples"),
        (lambda t: t | {"nfe": torch.tensor(-1)}, "does not say what its samples cost"),
    ],
)
def test_a_shard_of_an_unfinished_set_is_checked(tmp_path, change, said):
    on = TinyDigits()
    save_pairs(on, on.teacher, RECIPE, tmp_path / "pairs", teacher_name="own")
    (tmp_path / "pairs" / "pairs.json").unlink()
    shard = tmp_path / "pairs" / "pairs-00000.safetensors"
    good = load_file(shard)
    save_file(change(good), shard)
    with pytest.raises(ValueError, match=said):
        save_pairs(on, on.teacher, RECIPE, tmp_path / "pairs", teacher_name="own")
    save_file(good, shard)
    save_pairs(on, on.teacher, RECIPE, tmp_path / "pairs", teacher_name="own")
    assert len(load_pairs(tmp_path / "pairs")) == 6


def test_digests_tell_weights_and_not_precisions():
    a = {"w": torch.randn(100, 100, generator=torch.Generator().manual_seed(0))}
    assert not contradicts(digest(a), digest({"w": a["w"].clone()}))
    assert not contradicts(digest(a), digest({"w": a["w"].half()}))
    assert contradicts(digest(a), digest({"w": a["w"] + 1e-6}))
    assert contradicts(digest(a), digest({"w": a["w"][:50]}))
    assert contradicts(digest(a), digest({"v": a["w"]}))
    assert not contradicts(digest(a), None)


def test_a_run_is_made_longer_by_a_start(tmp_path):
    runs.train("diffusion", TinyMixture(), out=tmp_path / "run", changes=FEW).finish()
    longer = FEW | {"updates": 5}
    with pytest.raises(
        ValueError, match=r"has updates = 2, not 5; resume .*, or train on .*--start .*run --out ANOTHER"
    ):
        runs.train("diffusion", TinyMixture(), out=tmp_path / "run", changes=longer, resume=True).finish()
