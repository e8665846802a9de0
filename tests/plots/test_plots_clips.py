"""Clips as film strips: every frame in its place, and the same part of the plane in all."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from toydiff.plots import clips as subject
from toydiff.plots import static

UP = torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]])
STILL = torch.zeros(3, 2)


def test_points_lie_in_their_frames_on_one_scale():
    points = subject.strip({"up": UP, "still": STILL}).points
    assert points.shape == (2, 3, 2)
    for r in range(2):
        for k in range(3):
            inside = points[r, k] - np.array(subject.Strip.corner(r, k))
            assert inside[0] == pytest.approx(0.5)
            assert inside[1] == pytest.approx(0.5 + (0, k - 1)[r == 0] / (2 * 1.15))


def test_the_drawn_strip():
    figure = static.film_strip({"1 step": UP, "4 steps": STILL}, title="A clip")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 step", "4 steps"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert len(axes.patches) == 6
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.allclose(np.stack([line.get_xydata() for line in dots]), subject.strip({"a": UP, "b": STILL}).points)
    assert imread(io.BytesIO(static.png(figure))).ndim == 3


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({}, "nothing to draw"),
        ({"a": torch.zeros(8, 3)}, r"'a' must be a clip of points in the plane \(frames, 2\), got \(8, 3\)"),
        ({"a": UP, "b": torch.zeros(2, 2)}, "as many frames as 'a', 3, got 2"),
        ({"a": torch.full((3, 2), torch.nan)}, "the row 'a'"),
    ],
)
def test_what_is_no_strip(rows, match):
    with pytest.raises(ValueError, match=match):
        static.film_strip(rows)
