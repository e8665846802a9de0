"""The study of clips of digits: teacher and student, a first frame, and a style that is swapped in."""

import pytest
import torch
from tiny import TinyClips

from toydiff import runs
from toydiff.distill.animatelcm import swapped
from toydiff.problems import ClipsProblem, clips
from toydiff.problems.clips import STYLES
from toydiff.studies import moving_digits
from toydiff.studies.moving_digits import found_again, from_first_frame, in_style, judge_of_styles, sampled

TINY = {"updates": 4, "batch": 2, "frames": 1, "warmup": 0, "rank": 2, "intervals": 10, "given": 0.5}


@pytest.fixture(scope="module")
def run():
    made = runs.train("animatelcm", TinyClips(), changes=TINY)
    made.finish()
    return made


@pytest.fixture(scope="module")
def model(run):
    return run.finish()


def test_teacher_and_student_are_measured_alike(run, model, monkeypatch):
    monkeypatch.setattr(clips, "REFERENCE", 20)
    teacher = runs.teacher_of_run(run)
    assert teacher.denoiser is not model.denoiser
    assert teacher.about["sampler"]["solver"] == run.problem.walk[0]
    rows = [sampled(each, TinyClips(), 2, n=4) for each in (teacher, model)]
    assert rows[0]["floor velocity"] == rows[1]["floor velocity"]
    assert rows[0]["velocity"] != rows[1]["velocity"]
    assert {"distance", "frame", "lag-1", "velocity", "turning", "identity", "accuracy"} < set(rows[0])


def test_clips_begin_with_the_frame_that_is_given(model):
    first, labels = TinyClips().single_frames(3, 0)
    made = from_first_frame(model, first, labels, steps=2)
    torch.testing.assert_close(made[:, 0], first, rtol=0, atol=1e-4)
    assert made.shape == (3, 8, 1, 28, 28)


def test_true_clips_are_found_again_and_mixed_ones_are_not():
    x, _ = ClipsProblem().data(40, 3)
    assert found_again(x) > 0.8
    assert found_again(torch.cat([x[:, :4], x.roll(1, 0)[:, 4:]], 1)) < 0.2


def test_a_style_is_swapped_in_under_the_same_adapter_and_layers(model, monkeypatch):
    own = model.denoiser.net
    monkeypatch.setattr(ClipsProblem, "digits", TinyClips().digits)
    base = moving_digits.styled_base(model.denoiser, "inverted", updates=2, batch=4)
    changed = swapped(model.denoiser, base).net
    assert {k for k, v in own.base().state_dict().items() if not torch.equal(v, base.state_dict()[k])}
    before, after = own.state_dict(), changed.state_dict()
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert moved
    assert all(k.startswith("image.") and not k.endswith((".0.up", ".0.down")) for k in moved)
    for name, value in changed.base().state_dict().items():
        assert torch.equal(base.state_dict()[name], value), name


@pytest.mark.slow
def test_the_judge_tells_styles_apart():
    judge = judge_of_styles(updates=120)
    for style in STYLES:
        x, _ = ClipsProblem(style).data(30, 5)
        assert in_style(judge, x, style) > 0.95, style
    with pytest.raises(ValueError, match="unknown style"):
        in_style(judge, x, "italic")
