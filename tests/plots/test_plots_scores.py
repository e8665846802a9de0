"""Score distillation as figures: arrows on one scale, fractions over the data's, gradients with their spread."""

import numpy as np
import pytest
import torch
from cases import RING
from panels import legend, marks, panels, refuses

import toydiff
from toydiff.catalog import METHODS
from toydiff.plots import interactive, static, style
from toydiff.plots import scores as subject

FRAMES = {
    100: (RING.sample(50, 1), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.3, 0.4], [0.0, 0.1]])),
    0: (0.1 * RING.sample(50, 2), torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])),
    50: (RING.sample(50, 3), torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.5]])),
}
FRACTIONS = {
    "vsd": [(0, [0.1] * 8), (100, [0.1, 0.15] * 4), (50, [0.125] * 8)],
    "dmd": [(0, [0.0] * 8), (100, [0.125] * 8)],
}


# ---- arrows


def test_arrows_have_one_scale_and_point_where_they_should():
    drawn = subject.scenes(FRAMES, RING, reach=subject.ARROW_REACH)
    (left, right), _ = drawn.behind.limits
    assert list(drawn.samples) == [0, 50, 100]  # in order
    scale = subject.ARROW_REACH * (right - left)  # the longest one is 1 long
    np.testing.assert_allclose(drawn.ends[0] - drawn.starts[0], [[0, scale]], atol=1e-6)
    np.testing.assert_allclose(drawn.ends[100] - drawn.starts[100], scale * np.array([[0.3, 0.4], [0, 0.1]]), atol=1e-6)


def test_a_panel_a_number_of_updates():
    figure = static.score_arrows(FRAMES, RING, title="a title")
    found, drawn = panels(figure), subject.scenes(FRAMES, RING, reach=subject.ARROW_REACH)
    assert [panel.head for panel in found] == ["0 updates", "50 updates", "100 updates"]
    for panel, axes, step in zip(found, figure.axes, (0, 50, 100), strict=True):
        assert panel.equal
        assert panel.x == found[0].x
        assert np.allclose(panel.marks[0].xy, FRAMES[step][0])
        [arrows] = axes.collections
        assert np.allclose(np.stack([arrows.U, arrows.V], 1), drawn.ends[step] - drawn.starts[step])
        assert (arrows.angles, arrows.scale_units, arrows.scale) == ("xy", "xy", 1)
    assert set(legend(figure)) == {subject.SAMPLE_NAME, subject.ARROW_NAME}


def test_samples_with_nowhere_to_go_have_arrows_of_no_length():
    still = {0: (RING.sample(5, 0), torch.zeros(2, 2), torch.zeros(2, 2))}
    drawn = subject.scenes(still, RING)
    np.testing.assert_array_equal(drawn.ends[0], drawn.starts[0])
    static.score_arrows(still, RING).draw_without_rendering()


def test_score_coverage_moves_both_panels():
    fractions = {0: [0.0, 0.0], 50: [1.0, 0.5], 100: [1.1, 0.9]}
    figure = interactive.score_coverage(FRAMES, fractions, RING, active=50)
    drawn = subject.scenes(FRAMES, RING)
    slider = figure.layout.sliders[0]
    assert [step.label for step in slider.steps] == ["0", "50", "100"]
    assert slider.active == 1
    for trace, data in zip(figure.data, figure.frames[1].data, strict=True):
        np.testing.assert_array_equal(trace.x, data.x)  # it opens there
    for frame, step in zip(figure.frames, drawn.samples, strict=True):
        assert list(frame.traces) == [0, 1, 2]
        for data, trace in zip(frame.data, figure.data, strict=True):
            data.mode = trace.mode
        [samples], arrows, stems = (marks(data) for data in frame.data)
        np.testing.assert_allclose(samples.xy, FRAMES[step][0], rtol=1e-5)
        ends = np.stack([drawn.starts[step], drawn.ends[step]], 1)
        np.testing.assert_allclose([arrow.xy[:2] for arrow in arrows], ends, rtol=1e-5, atol=1e-6)
        upright = [[[k, 0], [k, value]] for k, value in enumerate(fractions[step])]
        np.testing.assert_allclose([stem.xy for stem in stems], upright, rtol=1e-5)
    plane, bars = panels(figure)
    assert plane.equal
    assert plane.pictures == 1
    assert bars.names == ("mode", "fraction / data's")
    for bad in ({0: [1.0, 1.0]}, fractions | {100: [1.0]}):
        with refuses("fractions must be given for the updates of the frames"):
            interactive.score_coverage(FRAMES, bad, RING)
    assert interactive.score_coverage(FRAMES, fractions, RING).layout.sliders[0].active == 2
    with refuses("active must be one of the frames' numbers of updates"):
        interactive.score_coverage(FRAMES, fractions, RING, active=60)


def test_few_modes_have_their_numbers_in_the_plane():
    fractions = {step: [1.0] * 8 for step in FRAMES}
    [numbers] = [trace for trace in interactive.score_coverage(FRAMES, fractions, RING).data if trace.mode == "text"]
    assert list(numbers.text) == [str(k) for k in range(8)]
    assert np.allclose(np.stack([numbers.x, numbers.y], 1), RING.means, atol=1e-6)
    board = toydiff.mixture("checkerboard")
    for behind, modes in ((style.density(RING), 8), (RING, 2), (board, board.components)):  # whose modes? and too many
        figure = interactive.score_coverage(FRAMES, {step: [1.0] * modes for step in FRAMES}, behind)
        assert not [trace for trace in figure.data if trace.mode == "text"]


def test_arrows_are_as_long_as_given_and_what_moves_a_sample_is_drawn_heavy_below_its_parts():
    parts = torch.tensor([[[1.0, 0.0]], [[0.0, -0.5]]])
    frames = {0: (RING.sample(5, 0), torch.tensor([[0.5, 0.0]]), torch.cat([parts.sum(0, keepdim=True), parts]))}
    names = ("sum", "towards", "away")
    figure = interactive.score_coverage(frames, {0: [1.0]}, RING, arrows=names, head="in x")
    moved, one, other = (trace for trace in figure.data if trace.name in names)  # in the order of drawing
    assert [trace.name for trace in (moved, one, other)] == list(names)
    assert len({trace.line.color for trace in (moved, one, other)}) == 3
    assert moved.line.width > 2 * one.line.width == 2 * other.line.width
    assert panels(figure)[0].head == "in x"
    (left, right), _ = subject.scenes({0: (frames[0][0], *[torch.zeros(1, 2)] * 2)}, RING).behind.limits
    head = subject.HEAD * (right - left)
    for trace, end in ((moved, (1.5, -0.5)), (one, (1.5, 0)), (other, (0.5, -0.5))):
        np.testing.assert_allclose([trace.x[:2], trace.y[:2]], [[0.5, end[0]], [0, end[1]]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(one.x[2:5], [1.5 - head, 1.5, 1.5 - head], rtol=1e-5)
    np.testing.assert_allclose(one.y[2:5], [head / 2, 0, -head / 2], rtol=1e-5, atol=1e-7)
    for wrong, by in ((("a", "b"), frames[0][2]), (names, frames[0][2][0])):
        with refuses("arrows must be one name, or three|a start and a direction"):
            interactive.score_coverage({0: (*frames[0][:2], by)}, {0: [1.0]}, RING, arrows=wrong)


POINTS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "at least one"),
        ({0: (POINTS, POINTS, POINTS[:2])}, "a start and a direction"),
        ({0: (POINTS, POINTS, POINTS / 0)}, "NaN or infinite"),
        ({0: (torch.zeros(3, 3), POINTS, POINTS)}, r"must have shape \(n, 2\)"),
        ({-1: (POINTS, POINTS, POINTS)}, "a number of updates must be a whole number >= 0"),
    ],
)
def test_scenes_that_cannot_be_drawn(frames, message):
    with refuses(message):
        subject.scenes(frames, RING)


# ---- fractions and gradients


def test_fractions_are_over_what_they_should_be():
    updates, ratio = subject.fractions_of(FRACTIONS, torch.full((8,), 0.125))["vsd"]
    np.testing.assert_allclose(updates, [0, 50, 100])
    np.testing.assert_allclose(ratio[2], [0.8, 1.2] * 4)
    found = panels(static.mode_fractions(FRACTIONS, [0.125] * 8))
    assert [panel.head for panel in found] == ["vsd", "dmd"]
    for panel, name in zip(found, FRACTIONS, strict=True):
        assert len(panel.lines) == 8 + 1
        assert panel.lines[0].color == METHODS[name].color
        assert set(panel.lines[-1].xy[:, 1]) == {1}
        assert (panel.x, panel.y) == (found[0].x, found[0].y)
    assert found[0].lines[1].xy[:, 1].tolist() == pytest.approx([0.8, 1.0, 1.2])


@pytest.mark.parametrize(
    ("curves", "expected", "message"),
    [
        ({}, [1.0], "at least one method"),
        ({"vsd": [(0, [0.5])]}, [0.5, 0.5], "rows .updates, 2 finite numbers"),
        ({"vsd": []}, [1.0], "rows"),
        ({"vsd": [(0, [float("nan")])]}, [1.0], "finite"),
        ({"vsd": [(0, [1.0])]}, [0.0], "above 0"),
    ],
)
def test_fractions_that_cannot_be_drawn(curves, expected, message):
    with refuses(message):
        static.mode_fractions(curves, expected)


EXACT = [(0.1, -0.4), (0.6, 0.3)]
SLOPES = {"vsd": [(0.5, 0.1, 0.02), (0.2, -0.3, 0.01)], "sim": [(0.2, -0.1), (0.5, 0.2)]}


def test_gradients():
    figure = static.gradients(SLOPES, EXACT, xlabel="b", ylabel="slope", exact_name="KL")
    [panel] = panels(figure)
    assert legend(figure) == ["KL", "vsd", "sim"]
    assert panel.names == ("b", "slope")
    vsd, sim = (bars for bars in figure.axes[0].containers)
    assert vsd.lines[0].get_xydata().tolist() == [[0.2, -0.3], [0.5, 0.1]]  # sorted
    assert vsd.lines[0].get_color() == METHODS["vsd"].color
    spread = [segment[:, 1] for segment in vsd.lines[2][0].get_segments()]
    np.testing.assert_allclose(spread, [[-0.31, -0.29], [0.08, 0.12]])
    assert not sim.has_yerr


@pytest.mark.parametrize(
    ("curves", "exact", "message"),
    [
        ({}, EXACT, "at least one curve"),
        ({"vsd": [(1, 2, 3, 4)]}, EXACT, "'vsd' must be a table"),
        ({"vsd": SLOPES["vsd"]}, [(1, 2, 3)], "the exact curve must be a table"),
        ({"vsd": [(float("inf"), 2)]}, EXACT, "'vsd' has 1 value.s. that are NaN or infinite"),
        ({"vsd": SLOPES["vsd"]}, [(1, float("nan"))], "the exact curve has 1 value.s. that are NaN"),
    ],
)
def test_gradients_that_cannot_be_drawn(curves, exact, message):
    with refuses(message):
        static.gradients(curves, exact, xlabel="x", ylabel="y")
