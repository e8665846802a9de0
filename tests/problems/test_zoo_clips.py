"""Bundled weights of clips: a student and its video teacher, stored as changes of an image model."""

import pytest
import torch
from tiny import TinyClips

from toydiff import runs, weights
from toydiff.nets import ClipUNet, UNet
from toydiff.problems import clips
from toydiff.problems.base import Sizes
from toydiff.runs import zoo
from toydiff.runs.cost import passes_of_update
from toydiff.runs.zoo import WeightsRecipe

TINY = {"updates": 4, "batch": 2, "frames": 2, "warmup": 0, "rank": 2, "intervals": 10, "given": 0.5}
SIZES = {"widths": (8, 16), "embedding": 16, "classes": 10}


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.setattr(clips, "REFERENCE", 20)
    monkeypatch.setattr(TinyClips, "sizes", Sizes(watched=8, evaluated=8))
    on = TinyClips()
    made = [
        WeightsRecipe("t", "animatelcm", "clips", changes=TINY, steps=(3,), guidance_scale=1.5, taught=True),
        WeightsRecipe("s", "animatelcm", "clips", changes=TINY, steps=(1, 2), guidance_scale=1.5, start="t"),
    ]
    monkeypatch.setattr(zoo, "RECIPES", {recipe.id: recipe for recipe in made})
    monkeypatch.setattr(zoo, "problem", lambda name: on)
    monkeypatch.setattr(zoo, "LARGE", 1000)
    return made


def test_a_trained_teacher_is_stored_and_its_student_as_a_change_of_it(recipes, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    run = runs.train("animatelcm", TinyClips(), out=work / "t" / "0", changes=TINY)
    run.finish()  # a run that has ended is stored, and not trained again
    at = (work / "t" / "0" / "run.json").read_bytes()
    entries = list(zoo.build(["s", "t"], work, out))
    assert (work / "t" / "0" / "run.json").read_bytes() == at
    assert [entry["id"] for entry in entries] == ["t", "s"]
    assert [row["steps"] for entry in entries for row in entry["rows"]] == [3, 1, 2]
    assert all(set(row["parts"]) >= {"frame", "velocity", "identity"} for e in entries for row in e["rows"])
    assert [row["nfe"] for entry in entries for row in entry["rows"]] == [6, 1, 2]  # the student is told g
    assert not zoo.is_missing("s", out)
    taught = run.training.targets["teacher average"].module
    x, lam, cond = torch.randn(2, 8, 1, 28, 28), torch.randn(2), torch.tensor([1, 2])
    for id_, D in (("t", taught), ("s", runs.load(work / "s" / "0").denoiser)):
        back = weights.load_denoiser(id_, out)
        assert {k: v.shape for k, v in back.state_dict().items()} == {k: v.shape for k, v in D.state_dict().items()}
        wanted, made = (each.net(x, lam, cond, *extra) for each in (D, back) for extra in [_scale(each)])
        assert float((made - wanted).abs().max()) < 0.02 * float(wanted.abs().max()), id_
    t, s = (weights.load_denoiser(id_, out).net for id_ in "ts")
    below = s.base().state_dict()
    same = {k for k, v in t.image.state_dict().items() if torch.equal(v, below[k])}
    assert same >= {k for k, v in t.image.state_dict().items() if v.ndim == 4}
    twice = [name for name in weights.load("s", out)[0] if name.endswith(".original")]
    assert twice == ["image.embed.guidance.parametrizations.weight.original"], "the teacher has all others"


def _scale(D):
    return (torch.full((2,), 1.5),) if D.scale_conditioned else ()


def test_a_network_of_clips_is_a_change_of_its_image_network_and_a_new_base_is_kept():
    torch.manual_seed(0)
    image, net = UNet(1, **SIZES), ClipUNet(8, rank=2, **SIZES)
    base = image.state_dict()
    own = net.state_dict() | {f"image.{k}": v + 1e-3 for k, v in base.items() if f"image.{k}" in net.state_dict()}
    stored = weights.change(own, base)
    assert stored["image.embed.label.weight"].dtype == torch.int8
    assert stored["embed.level.0.weight"].dtype == torch.float16  # of the motion, though the base has such a name
    back = weights.changed(stored, base)
    assert back.keys() == own.keys()
    assert all(float((back[k] - own[k]).abs().max()) < 0.01 for k in own)
    # a frozen matrix that is another's is no rounding, and is kept
    name = "image.into.parametrizations.weight.original"
    assert name in stored
    same = weights.change(own | {name: base["into.weight"]}, base)
    assert name not in same
    assert torch.equal(weights.changed(same, base)[name], base["into.weight"])


def test_an_image_network_is_a_change_of_the_one_inside_a_network_of_clips():
    torch.manual_seed(0)
    net = ClipUNet(8, **SIZES)
    personal = {k: v + 1e-3 * torch.randn_like(v) for k, v in net.image.state_dict().items()}
    stored = weights.change(personal, net.state_dict())
    assert {stored[k].dtype for k, v in personal.items() if v.ndim > 1} == {torch.int8}
    back = weights.changed(stored, net.state_dict())
    assert back.keys() == personal.keys()
    assert all(float((back[k] - personal[k]).abs().max()) < 1e-3 for k in back)


def test_a_teacher_is_asked_of_a_run_that_has_one():
    with pytest.raises(ValueError, match="cd trains no teacher of its own"):
        runs.teacher_of_run(runs.train("cd", "mixture:ring"))


def test_passes_of_stages_by_hand():
    """Each takes a quarter of the updates; a frame is a sample, and a temporal layer's gradient crosses the image."""
    training = runs.train("animatelcm", TinyClips(), changes=TINY | {"given": 0.0, "g_max": 2.0}).training
    singles, frames = 4, 16
    base, teacher = singles * 3, frames * 2
    image, motion = singles * (3 + 1 + 2), frames * (2 + 1 + 2)
    assert passes_of_update(training) == round((base + teacher + image + motion) / 4)


def test_the_bundled_clips_are_as_good_as_they_are_meant_to_be():
    """Of the 25 steps of the video teacher, 4 steps keep frames and motion; so does another image network, motion."""
    (teacher,) = weights.read_about(zoo.CLIPS_TEACHER_ID)["rows"]
    four = next(row for row in weights.read_about(zoo.CLIPS_ID)["rows"] if row["steps"] == 4)
    for name in ("frame", "velocity"):
        assert four["parts"][name]["value"] <= 1.5 * teacher["parts"][name]["value"], name
    assert four["accuracy"] >= 0.9
    for id_ in zoo.STYLES:
        (row,) = weights.read_about(id_)["rows"]
        assert row["parts"]["velocity"]["value"] <= 1.3 * four["parts"]["velocity"]["value"], id_
        assert not zoo.is_missing(id_)
