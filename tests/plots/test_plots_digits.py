"""Images as figures: every pixel in its place, black on white and crisp; and what digits cost."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from panels import panels, pixels, refuses

from toydiff.plots import digits as subject
from toydiff.plots import interactive, static


def images(*values):
    return torch.stack([torch.full((1, 28, 28), v) for v in values])


def test_a_sheet_of_digits_has_every_pixel_in_its_place():
    rng = torch.Generator().manual_seed(0)
    rows = {"a": torch.rand(3, 1, 28, 28, generator=rng), "b": torch.rand(3, 1, 28, 28, generator=rng) * 4 - 2}
    sheet = subject.sheet(rows)
    assert sheet.ink.shape == (58, 88)
    paper = np.ones_like(sheet.ink, dtype=bool)
    for r, row in enumerate(rows.values()):
        for k, image in enumerate(row):
            at = slice(30 * r, 30 * r + 28), slice(30 * k, 30 * k + 28)
            assert np.allclose(sheet.ink[at], image[0].clamp(-1, 1))
            paper[at] = False
    assert set(sheet.ink[paper]) == {-1}
    assert (sheet.columns, sheet.rows) == ([13.5, 43.5, 73.5], [13.5, 43.5])


def test_digits_in_a_file_are_black_ink_on_white_and_crisp():
    dots = images(-1.0, -1.0)
    dots[0, 0, 3, 5] = 1.0
    dots[1, 0, 20:22, 4] = 1.0
    figure = static.digits({"25 steps": dots, "a method with a long name, 1 step": dots})
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["25 steps", "a method with a long name, 1 step"]
    assert len(axes.get_xticks()) == 0
    assert axes.get_yticks().tolist() == [13.5, 43.5]
    assert axes.images[0].get_interpolation() == "nearest"
    seen = imread(io.BytesIO(static.png(figure)))[..., :3]
    high, wide = seen.shape[:2]
    assert (seen[0] == 1).all()
    assert (seen[:, 0] == 1).all()  # nothing, no name either, is cut off
    left, bottom, width, height = axes.get_position().bounds
    x, y = round(left * wide), round((1 - bottom - height) * high)
    drawn = seen[y : y + round(height * high), x : x + round(width * wide)]
    assert drawn.shape[:2] == (58 * 4, 58 * 4)
    sheet = subject.sheet({"a": dots, "b": dots}).ink
    assert np.allclose(drawn[1::4, 1::4], (1 - sheet[..., None]) / 2)
    inked = (drawn < 0.5).all(axis=-1)
    assert inked.sum() == 2 * (1 + 2) * 16  # each pixel 4 x 4 dots, black, without a blur
    assert (drawn[~inked] == 1).all()


def test_a_long_title_is_not_cut_off():
    figure = static.digits({"a": images(0.0)}, title="A title that is much wider than the only digit")
    figure.draw_without_rendering()
    [title] = figure.texts
    assert title.get_window_extent().x1 < figure.bbox.x1


def test_digits_on_a_page_name_their_place_on_hover():
    rows = {"25 steps": images(-1.0, 0.0, 1.0), "1 step": images(0.5, -0.5, 1.0)}
    figure = interactive.digits(rows, title="digits")
    for k, image in enumerate(figure.layout.images):
        seen = pixels(figure, k)[..., 0]
        assert seen.shape == (8 * 28, 8 * 88)
        ink = subject.sheet(rows).ink[30 * k : 30 * k + 28]
        assert np.allclose(seen[3::8, 3::8], (1 - ink) / 2, atol=1 / 255)
        assert (image.x, image.y, image.sizex, image.sizey) == (-0.5, 30 * k - 0.5, 88, 28)
    assert k == 1
    assert list(figure.layout.yaxis.ticktext) == ["25 steps", "1 step"]
    [panel] = panels(figure)
    assert panel.equal
    assert panel.y == (57.5, -0.5)
    [hover] = figure.data
    assert list(zip(hover.text, hover.x, hover.y, strict=True))[4] == ("1 step, column 2", 43.5, 43.5)


def test_digits_that_cannot_be_drawn():
    good = images(0.0, 1.0)
    for rows, message in (
        ({}, "at least one row of digits"),
        ({"a": good[:, 0]}, r"'a' must be images \(k, 1, H, W\) with k >= 1, got \(2, 28, 28\)"),
        ({"a": good[:0]}, r"k >= 1, got \(0, 1, 28, 28\)"),
        ({"a": good, "b": good[:1]}, r"same shape, got \(2, 1, 28, 28\) for 'a' and \(1, 1, 28, 28\) for 'b'"),
        ({"a": good / 0 * 0}, "the row 'a' has 1568 value.s. that are NaN"),
    ):
        with refuses(message):
            subject.sheet(rows)


def test_images_are_side_by_side():
    left = torch.rand(3, 8, 6)
    figure = interactive.images({"a": left, "b": torch.zeros(3, 8, 6)})
    assert [panel.head for panel in panels(figure)] == ["a", "b"]
    assert np.allclose(pixels(figure, 0)[::64, ::64], left.permute(1, 2, 0), atol=1 / 255)
    assert pixels(figure, 1).max() == 0
    for bad, message in (
        ({}, "at least one picture"),
        ({"a": torch.rand(8, 6)}, r"shape \(3, H, W\)"),
        ({"a": torch.full((3, 2, 2), float("nan"))}, "NaN"),
    ):
        with refuses(message):
            interactive.images(bad)


def test_quality_is_in_floors():
    rows = [{"student": "cd", "steps": n, "nfe": n, "distance_over_floor": 8 / n} for n in (2, 1)]
    figure = interactive.quality(rows)
    [floor] = figure.layout.annotations
    assert floor.text.startswith("floor")
    assert floor.y == 0  # at 1: on a logarithmic axis an annotation stands at an exponent
    assert figure.layout.shapes[0].y0 == 1
    [panel] = panels(figure)
    assert panel.marks[0].xy.tolist() == [[1, 8], [2, 4]]
    assert list(figure.data[0].text) == ["1 step", "2 steps"]
    with pytest.raises(ValueError, match="no rows"):
        interactive.quality([])
