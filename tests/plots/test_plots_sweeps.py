"""Sweeps of parallel samplers as figures: medians in their cells, both staircases, frames, and what samplers spend."""

import dataclasses
import statistics

import matplotlib
import numpy as np
import pytest
import torch
from cases import RING
from panels import BOTH, legend, marks, panels, pixels, refuses

import toydiff
from toydiff.plots import interactive, static, style
from toydiff.plots import sweeps as subject
from toydiff.solvers.registry import SKY
from toydiff.studies.parallel_sampling import METHODS, compare

VP = toydiff.VP()
N, B = 16, 5


@pytest.fixture(scope="module")
def walk():
    """Sixteen DDIM steps in a row, which parallel samplers compute at once."""
    return toydiff.solve(RING.denoiser(VP), VP.prior((B, 2), 3, dtype=torch.float64), N, solver="ddim")


@pytest.fixture(scope="module")
def swept(walk):
    """The same by sweeps, with a tolerance that accepts more than one point a sweep."""
    path = toydiff.solve(RING.denoiser(VP), walk.xs[0], N, solver="picard:tolerance=1e-4")
    assert path.fronts[-1] == N > len(path.sweeps) - 1  # else both staircases would be alike
    return path


@pytest.fixture(scope="module")
def staircases(swept, walk):
    """Both figures of the same sweeps, of three samples."""
    return {module: module.staircase(swept, RING, exact=walk.xs, samples=3) for module in (static, interactive)}


# ---- the heat map


def heat_of(figure):
    """The numbers of a heat map, and the range of its colours."""
    if isinstance(figure, matplotlib.figure.Figure):
        [image] = figure.axes[-2].images
        return image.get_array(), image.get_clim(), image.cmap
    [heat] = [trace for trace in figure.data if trace.type == "heatmap"]
    return heat.z, (heat.zmin, heat.zmax), None


@BOTH
def test_a_heat_map_shows_the_median_errors(swept, walk, staircases, module):
    """By another way: an element at a time."""
    expected = np.array(
        [
            [statistics.median(float(torch.dist(sweep[i, b], walk.xs[i, b])) for b in range(B)) for i in range(N + 1)]
            for sweep in swept.sweeps
        ]
    )
    assert (expected == 0).any()  # the first point never moves
    shown = np.log10(np.maximum(expected, 1e-10))
    found, limits, _ = heat_of(staircases[module])
    assert np.allclose(found, shown, atol=1e-5)
    assert limits == pytest.approx((-10, shown.max()))
    # without a path to compare with, errors are distances to where the sweeps arrived
    last = subject.errors_of(swept, None)
    assert (last.logs[-1] == -10).all()
    assert (last.logs[0] > -10).any()


def test_small_errors_are_light():
    colors = matplotlib.colormaps[style.SWEEP_COLORS]
    assert sum(colors(0.0)[:3]) > 2.5 > 0.5 > sum(colors(1.0)[:3])


def test_the_heat_map_of_both_renderers_has_these_colours(staircases):
    pale, dark = (staircases[interactive].data[0].colorscale[k][1] for k in (0, -1))
    colors = heat_of(staircases[static])[2]
    for shade, at in ((pale, 0.0), (dark, 1.0)):
        assert matplotlib.colors.to_rgb(shade) == pytest.approx(colors(at)[:3], abs=1 / 200)


@BOTH
def test_a_heat_map_marks_both_staircases(swept, staircases, module):
    K = len(swept.sweeps) - 1
    panel = panels(staircases[module])[-1]
    for name, fronts in ((subject.GUARANTEED_NAME, range(K + 1)), (subject.ACCEPTED_NAME, swept.fronts)):
        corners = [[front + 0.5, k + half] for k, front in enumerate(fronts) for half in (-0.5, 0.5)]
        assert panel.named(name)[-1].xy.tolist() == corners
    assert (panel.x, panel.y) == ((-0.5, N + 0.5), (K + 0.5, -0.5))
    assert panel.names == (subject.POINT_LABEL, style.SWEEP_LABEL)
    assert {subject.GUARANTEED_NAME, subject.ACCEPTED_NAME} <= set(legend(staircases[module]))
    if module is interactive:
        certain, good = (note for note in staircases[module].layout.annotations if note.xref == "x2")
        assert swept.fronts[int(good.y)] == good.x == int(good.x)  # left of the dashed stairs
        assert (certain.text, good.text) == ("exact for certain", "as good as exact")
        head = f"{swept.rounds} rounds instead of {N}, {swept.nfe / N:.2g} times the calls"
        assert panel.head == head


def test_points_are_named_with_their_times(swept):
    places, words = subject.errors_of(swept, None).points
    assert (places[0], words[0]) == (0, "0\n1")
    assert (places[-1], words[-1]) == (16, "16\n0")


def test_the_guaranteed_staircase_is_where_errors_are_zero(walk):
    exact = toydiff.solve(RING.denoiser(VP), walk.xs[0], N, solver="picard:tolerance=none")
    errors = subject.errors_of(exact, walk.xs)
    for k, logs in enumerate(errors.logs):
        right = errors.guaranteed[0][2 * k]
        assert (logs[: int(right + 0.5)] == -10).all()
    assert errors.logs[1, 2] > -10  # the next point is not there yet
    assert errors.guaranteed[0][-1] <= 16.5  # and no staircase leads out of the grid


def test_what_parareal_guarantees_are_blocks(walk):
    """Of N = 16 steps in 4 blocks: four points a sweep, and the errors there are zero."""
    path = toydiff.solve(RING.denoiser(VP), walk.xs[0], N, solver="parareal:tolerance=none", grid="uniform")
    exact = toydiff.solve(RING.denoiser(VP), walk.xs[0], N, solver="ddim", grid="uniform").xs
    errors = subject.errors_of(path, exact, block=4)
    for k, logs in enumerate(errors.logs):
        assert errors.guaranteed[0][2 * k] == min(4 * k, N) + 0.5
        assert (logs[: min(4 * k, N) + 1] == -10).all()
    assert "blocks" in errors.guaranteed_name
    with refuses("block must be a whole number"):
        subject.errors_of(path, exact, block=0)


def test_a_heat_map_is_not_stretched_by_an_iterate_that_explodes(swept):
    sweeps = swept.sweeps.clone()
    sweeps[1, 5:] = 1e30
    sweeps[1, 6] = float("nan")
    errors = subject.errors_of(dataclasses.replace(swept, sweeps=sweeps), None)
    assert np.isfinite(errors.logs).all()
    assert errors.limits == (-10, 3)
    assert errors.logs[1, 5] == errors.logs[1, 6] == 3


def test_a_heat_map_of_a_path_that_is_right_at_once_has_a_scale(swept):
    right = dataclasses.replace(swept, sweeps=swept.xs.expand_as(swept.sweeps))
    assert heat_of(static.sweep_errors(right))[1] == (-10, -9)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-10, 0.1, ["≤ 1e-10", "1e-8", "1e-6", "1e-4", "0.01", "1"]),
        (-3.6, -2.6, ["1e-3"]),
        (-1, 2, ["0.1", "1", "10", "100"]),
    ],
)
def test_ticks_of_errors_are_powers_of_ten(low, high, words):
    places, text = subject.error_ticks(low, high)
    assert text == words
    assert all(low <= place <= high for place in places)


def test_the_heat_map_lies_below_as_a_picture_too(swept, walk, staircases):
    """An animation takes the trace off; the picture stays, cell for cell in the trace's colours."""
    [image] = [image for image in staircases[interactive].layout.images if image.xref == "x2"]
    seen = pixels(staircases[interactive])
    K = len(swept.sweeps) - 1
    assert (image.x, image.y, image.sizex, image.sizey) == (-0.5, -0.5, N + 1, K + 1)
    high, wide = seen.shape[0] // (K + 1), seen.shape[1] // (N + 1)
    assert high > 20 < wide  # browsers blur what they enlarge
    errors = subject.errors_of(swept, walk.xs)
    low, top = errors.limits
    for k, i in ((0, 0), (0, N), (3, 7), (K, 2)):
        expected = matplotlib.colormaps[style.SWEEP_COLORS]((errors.logs[k, i] - low) / (top - low))[:3]
        for y, x in ((0, 0), (high - 1, wide - 1)):
            assert np.allclose(seen[k * high + y, i * wide + x], expected, atol=2 / 255)


# ---- the paths


def test_some_of_many_sweeps_are_close_together_at_the_beginning():
    assert subject.shown_sweeps(32, 7) == [0, 1, 2, 4, 8, 16, 32]
    assert subject.shown_sweeps(32, 33) == list(range(33))
    few = subject.shown_sweeps(32, 32)
    assert (few[0], few[-1]) == (0, 32)
    assert len(few) <= 32


def is_sweep(moving, accepted, dots, swept, k):
    """Paths of three samples after sweep k, cut at its front."""
    front = swept.fronts[k]
    for lines, points in ((moving, slice(front, None)), (accepted, slice(front + 1))):
        assert len(lines) == 3
        for b, line in enumerate(lines):
            assert np.allclose(line.xy, swept.sweeps[k, points, b], atol=1e-6)
    assert np.allclose(dots.xy, swept.sweeps[k, -1, :3], atol=1e-6)
    assert dots.color == (subject.ACCEPTED_COLOR if front == N else subject.MOVING_COLOR)


@pytest.mark.parametrize("name", ["sweeps", "staircase"])
def test_a_panel_a_sweep(swept, walk, staircases, name):
    figure = staircases[static] if name == "staircase" else static.sweeps(swept, RING, exact=walk.xs, samples=3)
    found = panels(figure)[: -1 if name == "staircase" else None]
    shown = subject.shown_sweeps(len(swept.sweeps) - 1, 5 if name == "staircase" else 6)
    assert [panel.head for panel in found] == [f"k = {k}: {swept.fronts[k]} of 16 accepted" for k in shown]
    for panel, k in zip(found, shown, strict=True):
        assert panel.equal
        assert panel.pictures == 1
        assert (panel.x, panel.y) == (found[0].x, found[0].y)
        moving, accepted = (panel.lines[:3], panel.lines[3:])
        assert (moving[0].color, accepted[0].color) == (subject.MOVING_COLOR, subject.ACCEPTED_COLOR)
        dots, rings = panel.dots
        is_sweep(moving, accepted, dots, swept, k)
        assert np.array_equal(rings.xy, walk.end[:3])
    assert {subject.MOVING_NAME, subject.ACCEPTED_NAME, subject.TARGET_NAME} <= set(legend(figure))


def test_without_a_path_to_compare_with_rings_are_where_the_sweeps_arrived(swept):
    drawn = subject.sweeps_of(swept, RING, None, 6, 3)
    assert torch.equal(drawn.ends, swept.end[:3])


def test_a_frame_a_sweep_and_axes_that_stay(swept, walk, staircases):
    made = staircases[interactive]
    K, slider = len(swept.sweeps) - 1, made.layout.sliders[0]
    assert [step.label for step in slider.steps] == [str(k) for k in range(K + 1)]
    assert [step.args[0][0] for step in slider.steps] == [frame.name for frame in made.frames]
    assert made.layout.updatemenus[0].buttons[0].args[0] == tuple(frame.name for frame in made.frames)
    plane = panels(made)[0]
    assert plane.equal
    assert plane.x[0] < float(swept.xs[..., 0].min()) < float(swept.xs[..., 0].max()) < plane.x[1]
    assert np.allclose(plane.named(subject.TARGET_NAME)[0].xy, walk.end[:3])
    for k, frame in enumerate(made.frames):
        assert frame.layout.xaxis.range is None
        shown = [made.data[trace] for trace in frame.traces]
        assert [trace.name for trace in shown[:3]] == [subject.MOVING_NAME, subject.ACCEPTED_NAME, "sample"]
        assert [trace.line.color for trace in shown[:2]] == [subject.MOVING_COLOR, subject.ACCEPTED_COLOR]
        for data, trace in zip(frame.data, shown, strict=True):
            data.mode = trace.mode
        moving, accepted, [dots] = (marks(data) for data in frame.data[:3])
        is_sweep(moving, accepted, dots, swept, k)
        box = frame.data[3]  # the row of the sweep on show
        assert (min(box.x), max(box.x), min(box.y), max(box.y)) == (-0.5, 16.5, k - 0.5, k + 0.5)
        assert shown[3].line.color == subject.CURSOR_COLOR
        assert [trace.xaxis for trace in shown] == ["x", "x", "x", "x2"]
    # what is seen first is what the slider says
    assert slider.active == 2 < K
    wanted = interactive.staircase(swept, RING, most=3, active=K - 1)
    [at] = [k for k, step in enumerate(wanted.layout.sliders[0].steps) if step.label == str(K - 1)]
    assert wanted.layout.sliders[0].active == at
    with refuses(f"active must be one of the sweeps 0 to {K}, got {K + 1}"):
        interactive.staircase(swept, RING, active=K + 1)
    for trace, data in zip(made.frames[2].traces, made.frames[2].data, strict=True):
        assert np.array_equal(made.data[trace].x, data.x, equal_nan=True)
        assert made.data[trace].marker.color == data.marker.color


def test_no_more_frames_than_requested(swept):
    figure = interactive.staircase(swept, RING, most=4)
    labels = [step.label for step in figure.layout.sliders[0].steps]
    assert len(figure.frames) == len(labels) <= 4
    assert labels[-1] == str(len(swept.sweeps) - 1)
    for label, frame in zip(labels, figure.frames, strict=True):
        assert np.allclose(frame.data[2].x, swept.sweeps[int(label), -1, :, 0], atol=1e-6)


def test_sweeps_that_cannot_be_drawn(swept, walk):
    for path in (walk, toydiff.solve(RING.denoiser(VP), walk.xs[0], 4, solver="picard", keep="end")):
        with refuses("there are no sweeps to draw[^\n]*keep='path'$"):
            subject.errors_of(path, None)
        with refuses("there are no sweeps to draw"):
            subject.sweeps_of(path, RING, None, 6, 3)
    flat = dataclasses.replace(swept, xs=swept.xs[..., :1], sweeps=swept.sweeps[..., :1])
    subject.errors_of(flat, None)  # which needs no plane
    subject.errors_of(swept, walk.xs.float())  # another dtype is no other path
    for changes, message in (
        ({"path": flat}, r"must have states \(N\+1, B, 2\), got \(17, 5, 1\)"),
        ({"most": 2}, "most must be a whole number >= 3, got 2"),
        ({"samples": 0}, "samples must be a whole number >= 1, got 0"),
        ({"background": "ring"}, "a GaussianMixture or a Density"),
        ({"exact": walk.end}, r"exact must be a path .*\(17, 5, 2\), got \(5, 2\)"),
        ({"exact": walk}, r"exact must be a path .*, got Trajectory"),
    ):
        settings = {"path": swept, "background": RING, "exact": None, "most": 6, "samples": 3} | changes
        with refuses(message):
            subject.sweeps_of(**settings)
        if "exact" in changes:
            with refuses(message):
                subject.errors_of(swept, changes["exact"])


@pytest.mark.parametrize(("solver", "steps"), [("picard:window=4", 8), ("anderson", 8), ("parareal", 8), ("picard", 1)])
def test_every_kind_of_sweep_can_be_drawn(solver, steps, walk):
    path = toydiff.solve(RING.denoiser(VP), walk.xs[0], steps, solver=solver)
    assert len(subject.sweeps_of(path, RING, None, 60, 3).shown) == len(path.sweeps)
    assert np.isfinite(subject.errors_of(path, None).logs).all()
    if steps == 1:  # the smallest grid, with two sweeps
        assert len(panels(static.staircase(path, RING))) == 3
        assert len(interactive.staircase(path, RING).frames) == 2


# ---- samplers compared


def row(method, steps, rounds, curve=((), (), ()), seconds=1.0, with_cost=2.0):
    """A row of `toydiff parallel --json`, as far as figures need it."""
    return {
        "method": method,
        "steps": steps,
        "rounds": rounds,
        "nfe": 3 * rounds,
        "seconds": seconds,
        "seconds_with_cost": with_cost,
        "cost_per_call": 0.01,
        "curve": {key: list(values) for key, values in zip(("rounds", "median", "p95"), curve, strict=True)},
    }


FALL = ([0, 1, 2, 3], [1.0, 0.1, 0.01, 0.0], [2.0, 0.5, 0.05, 1e-3])
COMPARED = [
    row("sequential", 100, 100, seconds=0.03, with_cost=1.1),
    row("picard", 100, 9, FALL, seconds=0.08, with_cost=0.2),
    row("sequential", 25, 25, seconds=0.01, with_cost=0.3),
    row("picard", 25, 7, FALL, seconds=0.03, with_cost=0.1),
    row("window", 25, 8, FALL),
    row("window", 100, 11, ([0, 4, 8], [1.0, 0.5, 0.02], [1.0, 0.9, 0.1]), seconds=0.05, with_cost=0.15),
    row("picard", 1000, 12, FALL),
]
"""At T = 1000 there is one method only, so that the figure's second and third panels are of T = 100."""


def test_the_rows_of_a_comparison_are_grouped_and_sorted():
    groups = subject.by_method(COMPARED)
    assert {method: [r["steps"] for r in group] for method, group in groups.items()} == {
        "sequential": [25, 100],
        "picard": [25, 100, 1000],
        "window": [25, 100],
    }
    assert subject.shared_steps(groups) == 100
    picard = COMPARED[1]
    assert subject.rounds_needed(picard, None) == 9
    assert subject.rounds_needed(picard, 0.1) == 1  # reached exactly counts
    assert subject.rounds_needed(picard, 0.1, "p95") == 2
    assert np.isnan(subject.rounds_needed(picard, 1e-4, "p95"))
    assert subject.rounds_needed(COMPARED[0], 0.01) == 100


def test_rounds():
    figure = static.rounds(COMPARED, target=0.01)
    growth, decay, clock = panels(figure)
    assert all(panel.logs[0] for panel in (growth, decay, clock))
    assert growth.names == (subject.STEPS_LABEL, style.ROUNDS_LABEL)
    assert [panel.head for panel in (growth, decay, clock)] == [
        "Rounds to an error of 0.01 (thin: 95th percentile)",
        "T = 100: median error (thin: 95th percentile)",
        "T = 100: wall-clock (won: left of its line)",
    ]
    needed = {mark.name: mark for mark in growth.marks if mark.name}
    assert needed["sequential"].xy.tolist() == [[25, 25], [100, 100]]
    assert needed["picard"].xy.tolist() == [[25, 2], [100, 2], [1000, 2]]
    assert needed["window"].xy[0].tolist() == [25, 2]
    assert np.isnan(needed["window"].xy[1, 1])  # it never gets there
    slow = [line for line in growth.lines if line.width < 1]
    assert slow[1].xy[:, 1].tolist() == [3, 3, 3]
    for method, line in needed.items():
        assert line.color == style.parallel_marking(method).color.upper()

    sequential, picard, picard_p95, window, _, target = decay.lines
    assert set(sequential.xy[:, 0]) == {100}
    # the first guess is not on the axis, and what is exact is where the axis ends
    assert picard.xy.tolist() == [[1, 0.1], [2, 0.01], [3, 1e-10]]
    assert picard_p95.xy[:, 1].tolist() == [0.5, 0.05, 1e-3]
    assert picard_p95.width < picard.width / 2
    assert window.color == SKY.upper()
    assert set(target.xy[:, 1]) == {0.01}

    axes = figure.axes[2]
    names = ["sequential\n100 rounds", "picard\n9 rounds", "window\n11 rounds"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    dots = [mark.xy[0].tolist() for mark in clock.dots if len(mark.xy)]
    assert dots == [[0.03, 0], [0.08, 1], [0.05, 2], [1.1, 0], [0.2, 1], [0.15, 2]]
    filled = [line.get_markerfacecolor() != "white" for line in axes.lines if len(line.get_xdata()) == 1]
    assert filled == [False] * 3 + [True] * 3
    assert [line.xy[0, 0] for line in clock.lines] == [0.03, 1.1]
    assert clock.y[0] > clock.y[1]  # the first row on top
    assert set(legend(figure)) == {"sequential", "picard", "window", "as it is", "10 ms added to each call"}


def test_without_a_target_the_rounds_are_those_that_were_spent():
    growth = panels(static.rounds(COMPARED))[0]
    assert growth.head == "Rounds until it stops"
    spent = {line.name: line.xy[:, 1].tolist() for line in growth.lines}
    assert spent == {"sequential": [25, 100], "picard": [7, 9, 12], "window": [8, 11]}


def test_a_comparison_that_cannot_be_drawn():
    sequential, picard = COMPARED[:2]
    for rows, message in (
        ([], "the comparison has no rows"),
        ([picard, {k: v for k, v in picard.items() if k != "seconds"}], "lacks seconds$"),
        ([{k: v for k, v in picard.items() if k != "curve"}], "lacks curve$"),
        ([picard | {"curve": {"rounds": []}}], r"lacks curve\.median, curve\.p95$"),
        ([picard | {"curve": picard["curve"] | {"median": [1.0]}}], "as many rounds as errors"),
        ([picard | {"method": "picar"}], "unknown method 'picar' .did you mean 'picard'"),
        ([picard, picard], "two rows of 'picard' with 100 steps"),
        ([sequential], "no row has a curve"),
    ):
        with refuses(message):
            static.rounds(rows)
    with refuses("one number of steps"):
        interactive.spent(COMPARED)
    with refuses("the comparison has no rows"):
        interactive.spent([])


def test_the_figures_draw_the_rows_that_are_measured():
    mixture, some = toydiff.GaussianMixture([[0.5, 0.0]], std=0.9), ("sequential", "picard")
    rows = compare(mixture, steps=[2], samples=2, cost=0.0, methods=some)
    assert {"sequential", "picard"} < set(legend(static.rounds(rows, target=0.01)))
    assert list(interactive.spent(rows).data[0].y) == list(some)
    assert all(style.parallel_marking(method) for method in METHODS)  # which the others need


def test_what_is_spent_is_a_bar_a_method():
    figure = interactive.spent(COMPARED[:2], cost=0.5)
    bars = [[100, 9], [300, 27], [0.03, 0.08], [50.03, 4.58]]
    for bar, values in zip(figure.data, bars, strict=True):
        assert list(bar.y) == ["sequential", "picard"]
        assert list(bar.x) == pytest.approx(values)
    assert list(figure.data[0].marker.color) == [style.parallel_marking(m).color for m in ("sequential", "picard")]
