"""The study of AnimateLCM's claims: its rows and what it compares, at tiny sizes."""

import pytest
import torch

from toydiff.problems import sequence
from toydiff.studies.clips import GUIDANCE, MEASURES, STEPS, TRAININGS, advice, compare, trained

TINY = {"batch": 8, "warmup": 0}


@pytest.fixture(scope="module")
def models():
    return trained(updates=2, **TINY)


def test_the_students_have_one_teacher_and_equal_updates(models):
    assert tuple(models) == TRAININGS
    assert models["decoupled"].about["updates"] == 4  # two stages of the teacher's, two of the student's own
    assert models["joint"].about["updates"] == models["nothing"].about["updates"] == 2
    content = [models[name].about["content"]["a teacher"] for name in ("joint", "nothing")]
    assert content == [models["teacher"].denoiser.content()] * 2
    x, t = torch.randn(2, 8, 2), torch.tensor(0.5)
    ends = [models[name].denoiser(x, t).x0 for name in TRAININGS]
    assert not any(torch.equal(ends[0], other) for other in ends[1:])


def test_rows(models):
    on = sequence("ring")
    rows = compare([models, models], n=40, on=on)
    assert [row["training"] for row in rows] == list(TRAININGS)
    assert all(len(row[name]) == 2 and row[name][0] == row[name][1] for row in rows for name in MEASURES)
    rows = advice([models["decoupled"]], n=40, on=on)
    assert [(row["steps"], row["guidance_scale"]) for row in rows] == [(n, g) for n in STEPS for g in GUIDANCE]


def test_odd_updates_are_refused():
    with pytest.raises(ValueError, match="must be even, got 3"):
        trained(updates=3)
