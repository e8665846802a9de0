"""The figures of score distillation, in both libraries: what is drawn where, scales, colours of the catalog, bad input."""

import numpy as np
import pytest
import torch
from cases import RING

from toydiff.catalog import METHODS
from toydiff.plots import interactive, score_style, static

FRAMES = {
    100: (RING.sample(50, 1), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.3, 0.4], [0.0, 0.1]])),
    0: (0.1 * RING.sample(50, 2), torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])),
}
SHARES = {
    "vsd": [(0, [0.1] * 8), (50, [0.125] * 8), (100, [0.1, 0.15] * 4)],
    "dmd": [(0, [0.0] * 8), (100, [0.125] * 8)],
}
SLOPES = {"vsd": [(0.5, 0.1, 0.02), (0.2, -0.3, 0.01)], "sim": [(0.2, -0.1), (0.5, 0.2)]}
EXACT = [(0.1, -0.4), (0.6, 0.3)]


def test_arrows_have_one_scale_and_point_where_they_should():
    drawn = score_style.scenes(FRAMES, RING)
    (left, right), _ = drawn.behind.limits
    assert list(drawn.samples) == [0, 100]  # in order
    assert drawn.longest == pytest.approx(1.0)
    scale = score_style.ARROW_REACH * (right - left)
    np.testing.assert_allclose(drawn.ends[0] - drawn.starts[0], [[0, scale]], atol=1e-6)
    np.testing.assert_allclose(drawn.ends[100] - drawn.starts[100], scale * np.array([[0.3, 0.4], [0, 0.1]]), atol=1e-6)


def test_arrows_in_both_libraries():
    figure = static.score_arrows(FRAMES, RING, title="a title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["0 updates", "100 updates"]
    assert all(axes.get_aspect() == 1 for axes in figure.axes)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert len(static.png(figure)) > 10_000
    page = interactive.score_arrows(FRAMES, RING)
    assert [step.label for step in page.layout.sliders[0].steps] == ["0", "100"]
    assert len(page.frames) == 2
    np.testing.assert_allclose(page.frames[1].data[0].x, FRAMES[100][0][:, 0], rtol=1e-5)
    assert len(page.frames[1].data[1].x) == 6  # two arrows as lines with a gap each
    np.testing.assert_array_equal(page.data[0].x, page.frames[1].data[0].x)  # it opens at the last


def test_samples_that_are_told_nothing_have_arrows_of_no_length():
    still = {0: (RING.sample(5, 0), torch.zeros(2, 2), torch.zeros(2, 2))}
    drawn = score_style.scenes(still, RING)
    np.testing.assert_array_equal(drawn.ends[0], drawn.starts[0])
    static.png(static.score_arrows(still, RING))


def test_shares_are_over_what_they_should_be():
    drawn = score_style.shares(SHARES, [0.125] * 8)
    updates, ratio = drawn.curves["vsd"]
    np.testing.assert_allclose(updates, [0, 50, 100])
    np.testing.assert_allclose(ratio[2], [0.8, 1.2] * 4)
    figure = static.mode_fractions(SHARES, [0.125] * 8)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["vsd", "dmd"]
    for axes, name in zip(figure.axes, SHARES, strict=True):
        assert len(axes.lines) == 8 + 1
        assert axes.lines[0].get_color() == METHODS[name].color
    page = interactive.mode_fractions(SHARES, torch.full((8,), 0.125))
    assert len(page.data) == 16
    assert {trace.line.color for trace in page.data} == {METHODS["vsd"].color, METHODS["dmd"].color}


def test_gradients_in_both_libraries():
    figure = static.gradients(SLOPES, EXACT, xlabel="b", ylabel="slope", exact_name="KL")
    [axes] = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["KL", "vsd", "sim"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("b", "slope")
    page = interactive.gradients(SLOPES, EXACT, xlabel="b", ylabel="slope", exact_name="KL")
    assert [trace.name for trace in page.data] == ["KL", "vsd", "sim"]
    np.testing.assert_allclose(page.data[1].x, [0.2, 0.5])  # sorted
    np.testing.assert_allclose(page.data[1].error_y.array, [0.01, 0.02])
    assert page.data[2].error_y.visible is False
    assert page.data[1].line.color == METHODS["vsd"].color


@pytest.mark.parametrize("module", [static, interactive])
def test_bad_input_is_named(module):
    points = torch.zeros(3, 2)
    for frames, message in (
        ({}, "at least one"),
        ({0: (points, points, points[:2])}, "a start and a direction"),
        ({0: (points, points, points / 0)}, "NaN or infinite"),
        ({0: (torch.zeros(3, 3), points, points)}, r"must have shape \(n, 2\)"),
        ({-1: (points, points, points)}, "a number of updates must be a whole number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            module.score_arrows(frames, RING)
    for curves, expected, message in (
        ({}, [1.0], "at least one method"),
        ({"vsd": [(0, [0.5])]}, [0.5, 0.5], "rows .updates, 2 finite numbers"),
        ({"vsd": []}, [1.0], "rows"),
        ({"vsd": [(0, [float("nan")])]}, [1.0], "finite"),
        ({"vsd": [(0, [1.0])]}, [0.0], "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            module.mode_fractions(curves, expected)
    for curves, exact, message in (
        ({}, EXACT, "at least one curve"),
        ({"vsd": [(1, 2, 3, 4)]}, EXACT, "'vsd' must be a table"),
        ({"vsd": SLOPES["vsd"]}, [(1, 2, 3)], "the exact curve must be a table"),
        ({"vsd": [(float("inf"), 2)]}, EXACT, "finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            module.gradients(curves, exact, xlabel="x", ylabel="y")
