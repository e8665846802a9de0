"""Clips as film strips: every frame in its place, and the same part of the plane in all."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from toydiff.plots import clips as subject
from toydiff.plots import interactive, screen, static

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


def test_clips_of_images_move_beside_their_strip():
    """Each frame of the slider has its own part of the strip, which is framed; in the dark ink is light."""
    clip = torch.full((3, 1, 4, 4), -1.0)
    for k in range(3):
        clip[k, 0, k, k] = 1.0
    figure = interactive.film_strip({"a": clip, "b": -clip})
    moving, strip, around = figure.data
    assert np.shape(strip.z) == (2 * 4 + 2, 3 * 4 + 2 * 2)
    for k, frame in enumerate(figure.frames):
        left = k * (4 + 2)
        assert np.array_equal(np.array(frame.data[0].z), np.array(strip.z)[:, left : left + 4])
        assert np.array(frame.data[0].z)[k, k] == 127
        assert (min(frame.data[1].x), max(frame.data[1].x)) == (left - 1, left + 4)
    assert np.array_equal(moving.z, figure.frames[0].data[0].z)
    assert np.array_equal(around.x, figure.frames[0].data[1].x)
    slider, menu = figure.layout.sliders[0], figure.layout.updatemenus[0]
    assert [step.label for step in slider.steps] == ["1", "2", "3"]
    assert slider.steps[0].args[1]["frame"]["redraw"], "pictures do not move without"
    assert list(menu.buttons[0].args[0]) == subject.ROUNDS * ["0", "1", "2"]
    assert list(figure.layout.xaxis2.ticktext) == ["1", "2", "3"]
    later = interactive.film_strip({"a": clip, "b": -clip}, active=2, first="given")
    np.testing.assert_array_equal(later.data[0].z, later.frames[2].data[0].z)
    np.testing.assert_array_equal(later.data[2].x, later.frames[2].data[1].x)
    assert later.layout.sliders[0].active == 2
    assert list(later.layout.xaxis2.ticktext) == ["given", "2", "3"]
    with pytest.raises(ValueError, match="active must be 0 to 2, got 3"):
        interactive.film_strip({"a": clip}, active=3)
    dark = screen.for_screen(figure, dark=True).data[1]
    assert [color for _, color in dark.colorscale] == [screen.DARK_PAPER, screen.DARK_INK]
    with pytest.raises(ValueError, match="at least one row"):
        interactive.film_strip({})
