"""Figures of strings: a token has one colour, the mask is grey, and panels are read back from the drawing."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from toydiff.discrete import SAMPLERS
from toydiff.plots import interactive, screen, static
from toydiff.plots.tokens import KINDS, MASK_COLOR, MOST_STRINGS, cells, pair_kinds
from toydiff.studies.tokens import mismatches


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


def test_two_bits_are_what_they_are_after_each_step():
    """Those that end different come first, and of the others those that drew both bits at once."""
    masked = [2, 2]
    walks = [
        [masked, [0, 2], [0, 0]],
        [masked, masked, [1, 1]],
        [masked, [0, 1], [0, 1]],
        [masked, [2, 1], [0, 1]],
    ]
    kinds = pair_kinds(torch.tensor(walks).transpose(0, 1))
    both, one, equal, different = range(4)
    assert list(KINDS) == ["both masked", "one revealed", "equal", "different"]
    assert kinds.tolist() == [
        [both, different, different],
        [both, one, different],
        [both, both, equal],
        [both, one, equal],
    ]


def test_two_bits_stand_beside_their_curve():
    rows = mismatches((1, 4), samplers=["jump-exact", "maskgit"])
    states = torch.tensor([[[2, 2], [2, 2]], [[0, 2], [2, 2]], [[0, 0], [1, 0]]])
    figure = interactive.two_bits(states, rows, sampler="jump-exact", shown=4)
    [heat] = [trace for trace in figure.data if trace.type == "heatmap"]
    assert np.array_equal(heat.z, pair_kinds(states))
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    assert by_name["1/(2N)"].y.tolist() == [1 / 2, 1 / 8]
    assert np.allclose(by_name["jump-exact"].y, [1 / 2, 1 / 8])
    assert by_name["maskgit"].x.tolist() == [1]  # then there is no mismatch, and no mark
    assert [name for name in KINDS if name in by_name] == list(KINDS)
    assert not set(KINDS.values()) & {entry.color for entry in SAMPLERS.values()}  # a colour has one meaning
    [ring] = [trace for trace in figure.data if trace.type == "scatter" and trace.marker.symbol == "circle-open"]
    assert (ring.x.tolist(), ring.y.tolist()) == ([4], [pytest.approx(1 / 8)])
    for dark in (False, True):  # a square of the legend has the colour of its cells
        screen.for_screen(figure, dark=dark)
        cells_in = [color for _, color in heat.colorscale[::2]]
        assert cells_in == [by_name[name].marker.color for name in KINDS]
    assert cells_in[0] == screen.DARK_SHADE


def test_bad_input_is_named():
    for wrong, message in (
        (lambda: static.strings({}, 4), "at least one panel"),
        (lambda: static.strings({"a": torch.zeros(2, 3)}, 4), "whole numbers"),
        (lambda: static.strings({"a": torch.full((2, 3), 5)}, 4), "symbols 0 ... 4"),
        (lambda: static.strings({"a": torch.zeros(0, 3, dtype=torch.long)}, 4), "at least one string"),
        (lambda: pair_kinds(torch.zeros(2, 3, 3, dtype=torch.long)), r"states \(N\+1, n, 2\), got \(2, 3, 3\)"),
        (lambda: pair_kinds(torch.full((2, 3, 2), 3)), "symbols 0 ... 2"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
