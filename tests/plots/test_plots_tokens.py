"""Figures of strings: a token has one colour, the mask is grey, and panels are read back from the drawing."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from toydiff.plots import static
from toydiff.plots.tokens import MASK_COLOR, MOST_STRINGS, cells


def test_a_token_has_one_colour_and_the_mask_is_grey():
    strings = torch.tensor([[0, 1, 3], [3, 2, 0]])
    rgb = cells(strings, 3).rgb
    assert rgb.shape == (2, 3, 3)
    assert np.allclose(rgb[0, 2], to_rgb(MASK_COLOR))
    assert np.allclose(rgb[0, 2], rgb[1, 0])
    assert np.allclose(rgb[0, 0], rgb[1, 2])
    assert len({tuple(color) for color in rgb.reshape(-1, 3)}) == 4


def test_panels_show_the_first_strings():
    a, b = torch.randint(4, (60, 5)), torch.randint(4, (3, 5))
    figure = static.strings({"one": a, "two": b}, 4, title="Strings")
    first, second = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["one", "two"]
    assert np.allclose(first.images[0].get_array(), cells(a, 4).rgb)
    assert len(first.images[0].get_array()) == MOST_STRINGS
    assert len(second.images[0].get_array()) == 3


def test_bad_input_is_named():
    for wrong, message in (
        (lambda: static.strings({}, 4), "at least one panel"),
        (lambda: static.strings({"a": torch.zeros(2, 3)}, 4), "whole numbers"),
        (lambda: static.strings({"a": torch.full((2, 3), 5)}, 4), "symbols 0 ... 4"),
        (lambda: static.strings({"a": torch.zeros(0, 3, dtype=torch.long)}, 4), "at least one string"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
