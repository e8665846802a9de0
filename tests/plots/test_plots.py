"""Figures show what they are given: the container's numbers, the registry's colours, equal and fixed axes."""

import base64
import dataclasses
import io
import re
import statistics
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pytest
import torch

import toydiff
from toydiff.plots import interactive, static, style
from toydiff.solvers.registry import PARALLEL, SKY, SOLVERS
from toydiff.studies.parallel_sampling import METHODS, compare

VP = toydiff.VP()
RING = toydiff.mixture("ring")
ROWS = [
    {
        "solver": "ddim",
        "schedule": "vp",
        "declared": 1,
        "measured": 1.03,
        "nfe": [10, 20, 40],
        "error": [0.4, 0.2, 0.1],
    },
    {
        "solver": "heun",
        "schedule": "vp",
        "declared": 2,
        "measured": 2.11,
        "nfe": [10, 20, 40],
        "error": [0.4, 0.1, 0.025],
    },
    {
        "solver": "dpm++2m",
        "schedule": "vp",
        "declared": 2,
        "measured": 1.96,
        "nfe": [10, 20, 40],
        "error": [0.3, 0.08, 0.02],
    },
]


@pytest.fixture(scope="module")
def paths():
    x = VP.prior((7, 2), 0, dtype=torch.float64)
    D = RING.denoiser(VP)
    return {"few": toydiff.solve(D, x, 4, solver="ddim"), "many": toydiff.solve(D, x, 300, solver="heun")}


@pytest.fixture(scope="module")
def line():
    """One data point: the ODE is first-order."""
    x = VP.prior((3, 2), 1, dtype=torch.float64)
    D = toydiff.Empirical(torch.tensor([[1.0, 0.5]], dtype=torch.float64)).denoiser(VP)
    return {"point": toydiff.solve(D, x, 200, solver="ddim")}


@pytest.fixture(scope="module")
def walk():
    """Sixteen DDIM steps in a row, which parallel samplers compute at once."""
    return toydiff.solve(RING.denoiser(VP), VP.prior((9, 2), 3, dtype=torch.float64), 16, solver="ddim")


@pytest.fixture(scope="module")
def swept(walk):
    """The same by sweeps, with a tolerance that accepts more than one point a sweep."""
    return toydiff.solve(RING.denoiser(VP), walk.xs[0], 16, solver="picard:tolerance=1e-4")


def row(method, steps, rounds, curve=((), (), ()), seconds=1.0, with_cost=2.0):
    """A row of `toydiff parallel --json`, as far as figures need it."""
    return {
        "method": method,
        "steps": steps,
        "rounds": rounds,
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


def color_of(artist):
    return matplotlib.colors.to_hex(artist.get_color()).upper()


# ---- style


@pytest.mark.parametrize("name", [*SOLVERS, *PARALLEL])
def test_a_solvers_look_is_its_entry(name):
    seen, entry = style.look(name), (SOLVERS | PARALLEL)[name]
    assert (seen.color, seen.marker, seen.dash) == (entry.color, entry.marker, entry.dash)
    assert (
        seen.symbol
        == {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}[entry.marker]
    )


def test_unknown_solver_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'ddim'"):
        style.look("dimm")


def test_methods_of_a_comparison_look_like_their_solvers_and_can_be_told_apart():
    assert style.method_look("sequential") == style.look("ddim")
    assert [style.method_look(name) for name in PARALLEL] == [style.look(name) for name in PARALLEL]
    assert style.method_look("window").color == SKY
    looks = [style.method_look(name) for name in ("sequential", "window", *PARALLEL)]
    for part in ("color", "marker"):
        assert len({getattr(seen, part) for seen in looks}) >= len(looks) - (part == "marker")
    with pytest.raises(ValueError, match="did you mean 'picard'"):
        style.method_look("piccard")


def test_importing_toydiff_loads_no_figures_and_figures_load_their_library_when_drawn():
    code = """
import sys, toydiff
print([name for name in sys.modules if name.startswith("toydiff.plots")])
import toydiff.plots.interactive, toydiff.plots.static
print([name for name in ("plotly", "matplotlib") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "[]"]


def test_thin_keeps_the_ends_and_the_bends(paths):
    many = paths["many"]
    kept = style.thin(many, 40)
    assert kept[0] == 0
    assert kept[-1] == 300
    assert len(kept) <= 40
    assert bool((kept.diff() > 0).all())
    # no state that was left out is further from the drawn polygon than the eye can see
    for b in range(7):
        drawn = np.stack([np.interp(np.arange(301), kept.numpy(), many.xs[kept, b, j].numpy()) for j in range(2)], 1)
        assert np.abs(drawn - many.xs[:, b].numpy()).max() < 0.06


def test_thin_leaves_short_paths_alone(paths):
    assert style.thin(paths["few"]).tolist() == [0, 1, 2, 3, 4]


def test_density_is_the_mixtures_on_a_square_that_holds_everything():
    far = torch.tensor([[5.0, -1.0]])
    lattice = style.density(RING, [far], points=41)
    (left, right), (bottom, top) = lattice.limits
    assert right > 5 > left
    assert right - left == pytest.approx(top - bottom)
    at = torch.tensor([[lattice.x[7], lattice.y[30]], [lattice.x[20], lattice.y[22]]])
    exact = RING.log_prob(at).exp()
    assert lattice.p[30, 7] / lattice.p[22, 20] == pytest.approx(float(exact[0] / exact[1]), rel=1e-12)
    assert lattice.shade.max() == 1
    with pytest.raises(ValueError, match="dimension 3"):
        style.density(toydiff.mixtures.random_mixture(dim=3))


def test_a_first_order_path_is_straight_in_y_and_bent_in_x(line, paths):
    snr, y = style.rescale(line["point"], VP, 3.0)
    _, guide = style.extended(snr.numpy(), y.xs[..., 0].numpy())
    assert float(snr.max()) <= 3
    assert np.allclose(y.xs[0, :, 0], guide[0], atol=1e-9)
    # the middle of the path in x against t is far from the chord; a mixture's path is bent in y too
    x = line["point"].xs[..., 0]
    assert float((x[len(x) // 2] - (x[0] + x[-1]) / 2).abs().max()) > 0.1
    snr, y = style.rescale(paths["many"], VP, 3.0)
    _, guide = style.extended(snr.numpy(), y.xs[..., 0].numpy())
    assert np.abs(y.xs[0, :, 0].numpy() - guide[0]).max() > 0.1


def test_rescale_is_x_over_sigma(paths):
    snr, y = style.rescale(paths["few"], VP, 50.0)
    ts = paths["few"].ts[: len(snr)]
    assert torch.allclose(snr, VP.alpha(ts) / VP.sigma(ts))
    assert torch.allclose(y.xs * VP.sigma(ts)[:, None, None], paths["few"].xs[: len(snr)])
    with pytest.raises(ValueError, match="fewer than two states"):
        style.rescale(paths["few"], VP, 1e-6)


# ---- trajectories


def test_static_trajectories(paths):
    exact = torch.randn(7, 2)
    figure = static.trajectories(paths, RING, solvers={"few": "ddim", "many": "heun"}, exact=exact, title="a title")
    assert len(figure.axes) == 2
    for axes, (name, solver) in zip(figure.axes, {"few": "ddim", "many": "heun"}.items(), strict=True):
        assert axes.get_aspect() == 1
        assert axes.get_title("left") == name
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("$x_1$", "$x_2$")
        assert len(axes.images) == 1
        lines, (sample, ring) = axes.lines[:7], axes.lines[7:]
        assert {color_of(drawn) for drawn in [*lines, sample]} == {SOLVERS[solver].color.upper()}
        assert np.array_equal(sample.get_xydata(), paths[name].end.numpy())
        assert np.allclose(ring.get_xydata(), exact.numpy())
    for b in range(7):
        assert np.array_equal(figure.axes[0].lines[b].get_xydata(), paths["few"].xs[:, b].numpy())
    assert static.png(figure).startswith(b"\x89PNG")


def test_interactive_trajectories_have_fixed_axes_and_every_frame_the_right_states(paths):
    exact = torch.randn(7, 2, dtype=torch.float64)
    figure = interactive.trajectories(paths, RING, solvers={"few": "ddim"}, exact=exact)
    assert len(figure.data) == 2 * 3
    assert len(figure.layout.images) == 2
    assert figure.data[2].marker.color == SOLVERS["ddim"].color
    assert np.allclose(figure.data[1].x, exact[:, 0])
    assert np.allclose(figure.data[2].x, paths["few"].end[:, 0])
    for axis, anchor in (("yaxis", "x"), ("yaxis2", "x2")):
        assert figure.layout[axis].scaleanchor == anchor
        assert figure.layout[axis].scaleratio == 1
    x_range = figure.layout.xaxis.range
    assert all(x_range[0] < float(path.xs.min()) for path in paths.values())
    assert all(x_range[1] > float(path.xs.max()) for path in paths.values())
    steps = figure.layout.sliders[0].steps
    assert 30 < len(figure.frames) == len(steps) <= interactive.MOST_FRAMES + 5
    assert [step.args[0][0] for step in steps] == [frame.name for frame in figure.frames]
    assert figure.layout.sliders[0].active == len(steps) - 1
    times = interactive._frame_times(paths)
    assert times[0] == 1
    assert times[-1] == 0
    for frame, t in zip(figure.frames, times, strict=True):
        assert frame.layout.xaxis.range is None  # a frame that set a range would move the axes
        assert list(frame.traces) == [2, 5]
        few, many = frame.data
        waits_at = int((paths["few"].ts >= t).sum()) - 1
        assert np.allclose(few.x, paths["few"].xs[waits_at, :, 0], atol=1e-6)
        arrived = int((paths["many"].ts >= t).sum()) - 1
        assert np.allclose(many.y, paths["many"].xs[arrived, :, 1], atol=1e-6)


def test_the_background_picture_is_the_density():
    from matplotlib.image import imread

    lopsided = toydiff.mixtures.random_mixture(3)
    figure = interactive.samples({"a": torch.zeros(3, 2)}, lopsided)
    image = figure.layout.images[0]
    pixels = imread(io.BytesIO(base64.b64decode(image.source.split(",")[1])))[..., 0]
    lattice = style.as_density(lopsided, [torch.zeros(3, 2)])
    pale, dark = 1.0, int(style.DENSITY_SHADES[1][1:3], 16) / 255
    assert np.allclose(pixels[::-1], pale + lattice.shade * (dark - pale), atol=1 / 255)
    assert image.layer == "below"
    assert (image.x, image.x + image.sizex) == pytest.approx(lattice.extent[:2])


# ---- the other figures


@pytest.mark.parametrize("module", [static, interactive])
def test_rescaled_panels(module, line):
    figure = module.rescaled(line, VP, {"point": toydiff.GaussianMixture([[1.0, 0.5]], std=0.1)}, reach=3.0)
    xs = line["point"].xs.numpy()
    if module is static:
        plane, time, straight = figure.axes
        assert plane.get_aspect() == 1
        assert time.get_xlim() == (1, 0)
        assert straight.get_xlim() == (0, 3)
        assert "α/σ" in straight.get_xlabel()
        assert time.get_xlabel().startswith("time t")
        assert np.allclose(time.lines[1].get_ydata()[[0, -1]], xs[[0, -1], 1, 0])
        x, y = straight.lines[1].get_data()
    else:
        assert list(figure.layout.xaxis2.range) == [1, 0]
        assert list(figure.layout.xaxis3.range) == [0, 3]
        assert figure.layout.yaxis.scaleanchor == "x"
        assert "α/σ" in figure.layout.xaxis3.title.text
        assert all(len(frame.data) == 3 for frame in figure.frames)
        heads = figure.frames[-1].data[0]
        assert np.allclose(heads.x, xs[-1, :, 0])
        x, y = figure.data[3].x, figure.data[3].y  # the first path: plane, time, guide, y
    assert np.abs(np.diff(y, 2)).max() < 0.1
    assert np.allclose(np.polyval(np.polyfit(x, y, 1), x), y, atol=1e-6)


def test_rescaled_needs_a_background_for_each(line):
    for module in (static, interactive):
        with pytest.raises(ValueError, match="no background for 'point'"):
            module.rescaled(line, VP, {})


def test_static_convergence():
    figure = static.convergence(ROWS, floor=1e-9)
    first, second = figure.axes
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")
    assert first.get_xlabel() == style.NFE_LABEL
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    labelled = {artist.get_label(): artist for artist in second.lines if not artist.get_label().startswith("_")}
    assert list(labelled) == ["slope 2", "dpm++2m: 1.96", "heun: 2.11"]
    assert color_of(labelled["heun: 2.11"]) == SOLVERS["heun"].color.upper()
    assert labelled["heun: 2.11"].get_ydata() == pytest.approx(ROWS[1]["error"])
    x, y = labelled["slope 2"].get_data()
    assert np.log(y[0] / y[1]) / np.log(x[1] / x[0]) == pytest.approx(2)
    assert any("1.0e-09" in text.get_text() for text in second.texts)
    # inside the frame the floor is a dashed line
    inside = static.convergence(ROWS, floor=0.015).axes[0].lines
    assert [drawn.get_linestyle() for drawn in inside if drawn.get_label().startswith("floor")] == ["--"]


def test_interactive_convergence():
    figure = interactive.convergence(ROWS, floor=1e-9)
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert set(named) == {"slope 1", "slope 2", "ddim: 1.03", "heun: 2.11", "dpm++2m: 1.96"}
    assert named["ddim: 1.03"].line.color == SOLVERS["ddim"].color
    assert list(named["dpm++2m: 1.96"].y) == ROWS[2]["error"]
    assert named["ddim: 1.03"].legend != named["heun: 2.11"].legend
    assert figure.layout.xaxis.type == figure.layout.yaxis2.type == "log"
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert any("floor 1.0e-09" in note.text for note in figure.layout.annotations)


def test_a_table_of_several_schedules_names_them():
    rows = [ROWS[0], ROWS[0] | {"schedule": "linear"}]
    assert style.curve_names(rows) == ["ddim on vp: 1.03", "ddim on linear: 1.03"]
    figure = interactive.convergence(rows)
    assert {"ddim on vp: 1.03", "ddim on linear: 1.03"} <= {trace.name for trace in figure.data}


def test_convergence_refuses_tables_that_it_cannot_draw():
    with pytest.raises(ValueError, match="no rows"):
        static.convergence([])
    with pytest.raises(ValueError, match="lacks measured"):
        interactive.convergence([{k: v for k, v in ROWS[0].items() if k != "measured"}])
    with pytest.raises(ValueError, match="as many errors as NFE"):
        static.convergence([ROWS[0] | {"nfe": [1, 2]}])


@pytest.mark.parametrize("schedule", [VP, toydiff.Linear()], ids=["vp", "linear"])
def test_time_grids(schedule):
    grids = {name: toydiff.time_grid(schedule, 6, name) for name in toydiff.GRIDS}
    errors = {"ddim": dict.fromkeys(grids, 0.2), "heun": {name: 0.1 + 0.1 * k for k, name in enumerate(grids)}}
    figure = static.time_grids(grids, schedule, errors=errors, floor=1e-12)
    in_time, in_level, cost = figure.axes
    ticks = [artist for artist in in_time.lines if artist.get_marker() == "|"]
    assert [artist.get_xdata().tolist() for artist in ticks] == [ts.tolist() for ts in grids.values()]
    assert [label.get_text() for label in in_time.get_yticklabels()] == list(grids)
    assert in_level.get_xscale() == "log"
    assert np.diff(in_level.get_xlim()) < 0  # noise left, data right
    dots = [artist for artist in cost.lines if artist.get_label() == "heun"]
    assert dots[0].get_xdata() == pytest.approx(list(errors["heun"].values()))
    assert color_of(dots[0]) == SOLVERS["heun"].color.upper()
    assert "floor" in cost.get_legend().get_texts()[-1].get_text()
    arrows = [artist.get_marker() for artist in in_level.lines if artist.get_marker() in "<>"]
    assert arrows.count(">") == len(grids)  # t = 0
    assert arrows.count("<") == (len(grids) if float(schedule.alpha(torch.ones(()))) == 0 else 0)

    figure = interactive.time_grids(grids, schedule, errors=errors, floor=1e-12)
    assert len(figure.data) == 2 * len(grids) + 2 + 1
    assert figure.data[0].x.tolist() == grids[next(iter(grids))].tolist()
    assert all(np.isfinite(trace.x).all() for trace in figure.data[: 2 * len(grids)])
    assert figure.data[2 * len(grids)].marker.color == SOLVERS["ddim"].color
    assert figure.layout.xaxis2.type == "log"


# ---- sweeps of parallel samplers


def stairs(fronts):
    """The corners of a staircase right of the cells, row by row."""
    return [(front + 0.5, k + half) for k, front in enumerate(fronts) for half in (-0.5, 0.5)]


def medians(swept, exact):
    """The heat map's numbers by another way: an element at a time."""
    K, N = len(swept.sweeps), len(swept.ts)
    return np.array(
        [
            [
                statistics.median(torch.dist(swept.sweeps[k, i, b], exact[i, b]).item() for b in range(9))
                for i in range(N)
            ]
            for k in range(K)
        ]
    )


@pytest.mark.parametrize("against", ["walk", "itself"])
def test_a_heat_map_shows_the_median_errors(swept, walk, against):
    exact = walk.xs if against == "walk" else None
    expected = medians(swept, swept.xs if exact is None else exact)
    assert (expected == 0).any()  # the first point never moves
    shown = np.log10(np.maximum(expected, 1e-10))
    axes = static.sweep_errors(swept, exact).axes[0]
    assert np.allclose(axes.images[0].get_array(), shown, atol=1e-9)
    assert axes.images[0].get_clim() == pytest.approx((-10, shown.max()))
    heat = interactive.sweep_errors(swept, exact).data[0]
    assert np.allclose(heat.z, shown, atol=1e-5)
    assert (heat.zmin, heat.zmax) == pytest.approx((-10, shown.max()))
    # small is light, in both
    assert sum(axes.images[0].cmap(0.0)[:3]) > 2.5 > 0.5 > sum(axes.images[0].cmap(1.0)[:3])
    pale, dark = (heat.colorscale[k][1] for k in (0, -1))
    assert sum(matplotlib.colors.to_rgb(pale)) > 2.5 > 0.5 > sum(matplotlib.colors.to_rgb(dark))


def test_a_heat_map_marks_both_staircases(swept):
    K, N = len(swept.sweeps) - 1, 16
    assert swept.fronts[-1] == N > K  # else the two would be alike
    guaranteed, accepted = stairs(range(K + 1)), stairs(swept.fronts)
    axes = static.sweep_errors(swept).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines[style.GUARANTEED_NAME].get_xydata().tolist() == [list(corner) for corner in guaranteed]
    assert lines[style.ACCEPTED_NAME].get_xydata().tolist() == [list(corner) for corner in accepted]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, N + 0.5), (K + 0.5, -0.5))
    assert (axes.get_xlabel(), axes.get_ylabel()) == (style.POINT_LABEL, style.SWEEP_LABEL)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert (labels[0], labels[-1]) == ("0\nt = 1", "16\nt = 0")
    figure = interactive.sweep_errors(swept)
    named = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert list(zip(named[style.GUARANTEED_NAME].x, named[style.GUARANTEED_NAME].y, strict=True)) == guaranteed
    assert list(zip(named[style.ACCEPTED_NAME].x, named[style.ACCEPTED_NAME].y, strict=True)) == accepted
    assert (figure.layout.xaxis.range, figure.layout.yaxis.range) == ((-0.5, N + 0.5), (K + 0.5, -0.5))


def test_the_guaranteed_staircase_is_where_errors_are_zero(walk):
    exact = toydiff.solve(RING.denoiser(VP), walk.xs[0], 16, solver="picard:tolerance=none")
    errors = style.sweep_errors(exact, walk.xs)
    for k, logs in enumerate(errors.logs):
        right = errors.guaranteed[0][2 * k]
        assert (logs[: int(right + 0.5)] == -10).all()
    assert errors.logs[1, 2] > -10  # the next point is not there yet
    assert errors.guaranteed[0][-1] <= 16.5  # and no staircase leads out of the grid


def test_a_heat_map_is_not_stretched_by_an_iterate_that_explodes(swept):
    sweeps = swept.sweeps.clone()
    sweeps[1, 5:] = 1e30
    sweeps[1, 6] = float("nan")
    wild = dataclasses.replace(swept, sweeps=sweeps)
    errors = style.sweep_errors(wild, None)
    assert np.isfinite(errors.logs).all()
    assert errors.limits == (-10, 3)
    assert errors.logs[1, 5] == errors.logs[1, 6] == 3


def test_a_heat_map_of_a_path_that_is_right_at_once_has_a_scale(swept):
    right = dataclasses.replace(swept, sweeps=swept.xs.expand_as(swept.sweeps))
    assert static.sweep_errors(right).axes[0].images[0].get_clim() == (-10, -9)
    heat = interactive.sweep_errors(right).data[0]
    assert (heat.zmin, heat.zmax) == (-10, -9)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-10, 0.1, ["≤ 1e-10", "1e-8", "1e-6", "1e-4", "0.01", "1"]),
        (-3.6, -2.6, ["1e-3"]),
        (-1, 2, ["0.1", "1", "10", "100"]),
    ],
)
def test_ticks_of_errors_are_powers_of_ten(low, high, words):
    places, text = style.error_ticks(low, high)
    assert text == words
    assert all(low <= place <= high for place in places)


def test_some_of_many_sweeps_are_close_together_at_the_beginning(swept):
    many = dataclasses.replace(swept, sweeps=torch.zeros(33, 17, 9, 2), fronts=tuple(range(33)))
    assert style.shown_sweeps(many, None, 7, 1) == [0, 1, 2, 4, 8, 16, 32]
    assert style.shown_sweeps(many, None, 33, 1) == list(range(33))
    few = style.shown_sweeps(many, None, 32, 1)
    assert (few[0], few[-1]) == (0, 32)
    assert len(few) <= 32


def test_static_sweeps(swept, walk):
    figure = static.sweeps(swept, RING, exact=walk.xs, samples=5)
    shown = style.shown_sweeps(swept, None, 6, 5)
    assert len(figure.axes) == len(shown) <= 6
    for axes, k in zip(figure.axes, shown, strict=True):
        front = swept.fronts[k]
        assert axes.get_title("left") == f"k = {k}: {front} of 16 accepted"
        assert axes.get_aspect() == 1
        assert (axes.get_xlim(), axes.get_ylim()) == (figure.axes[0].get_xlim(), figure.axes[0].get_ylim())
        assert len(axes.images) == 1
        moving, accepted, (dots, rings) = axes.lines[:5], axes.lines[5:10], axes.lines[10:]
        for b in range(5):
            assert np.array_equal(moving[b].get_xydata(), swept.sweeps[k, front:, b])
            assert np.array_equal(accepted[b].get_xydata(), swept.sweeps[k, : front + 1, b])
        assert color_of(moving[0]) == style.MOVING_COLOR
        assert color_of(accepted[0]) == style.ACCEPTED_COLOR
        assert color_of(dots) == (style.ACCEPTED_COLOR if front == 16 else style.MOVING_COLOR)
        assert np.array_equal(dots.get_xydata(), swept.sweeps[k, -1, :5])
        assert np.array_equal(rings.get_xydata(), walk.end[:5])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [style.MOVING_NAME, style.ACCEPTED_NAME, style.GOAL_NAME]
    # without a path to compare with, rings are where the sweeps arrived
    assert np.array_equal(static.sweeps(swept, RING, samples=5).axes[0].lines[-1].get_xydata(), swept.end[:5])


def test_interactive_sweeps_have_a_frame_a_sweep_and_axes_that_stay(swept, walk):
    figure = interactive.sweeps(swept, RING, exact=walk.xs, samples=5)
    K = len(swept.sweeps) - 1
    slider = figure.layout.sliders[0]
    assert len(figure.frames) == len(slider.steps) == K + 1
    assert [step.label for step in slider.steps] == [str(k) for k in range(K + 1)]
    assert [step.args[0][0] for step in slider.steps] == [frame.name for frame in figure.frames]
    assert figure.layout.updatemenus[0].buttons[0].args[0] == tuple(frame.name for frame in figure.frames)
    assert (figure.layout.yaxis.scaleanchor, figure.layout.yaxis.scaleratio) == ("x", 1)
    x_range = figure.layout.xaxis.range
    assert x_range[0] < float(swept.xs[..., 0].min()) < float(swept.xs[..., 0].max()) < x_range[1]
    for k, frame in enumerate(figure.frames):
        assert frame.layout.xaxis.range is None
        moving, accepted, dots = frame.data
        names = [figure.data[trace].name for trace in frame.traces]
        assert names == [style.MOVING_NAME, style.ACCEPTED_NAME, "sample"]
        front = swept.fronts[k]
        for drawn, points in ((moving, slice(front, None)), (accepted, slice(front + 1))):
            expected = swept.sweeps[k, points, :5].numpy()
            gaps = np.isnan(drawn.x)
            assert gaps.sum() == 5  # one after each path
            assert np.allclose(drawn.x[~gaps], expected[..., 0].T.ravel(), atol=1e-6)
            assert np.allclose(drawn.y[~gaps], expected[..., 1].T.ravel(), atol=1e-6)
        assert np.allclose(dots.y, swept.sweeps[k, -1, :5, 1], atol=1e-6)
        assert dots.marker.color == (style.ACCEPTED_COLOR if front == 16 else style.MOVING_COLOR)
    # what is seen first is what the slider says
    at, first = slider.active, figure.frames[slider.active]
    assert at == 2 < K
    for trace, data in zip(first.traces, first.data, strict=True):
        assert np.array_equal(figure.data[trace].x, data.x, equal_nan=True)
        assert figure.data[trace].marker.color == data.marker.color
    assert np.allclose(figure.data[0].x, walk.end[:5, 0])


def test_interactive_sweeps_have_no_more_frames_than_asked_for(swept):
    figure = interactive.sweeps(swept, RING, most=4)
    labels = [step.label for step in figure.layout.sliders[0].steps]
    assert len(figure.frames) == len(labels) <= 4
    assert labels[-1] == str(len(swept.sweeps) - 1)
    for label, frame in zip(labels, figure.frames, strict=True):
        assert np.allclose(frame.data[2].x, swept.sweeps[int(label), -1, :, 0], atol=1e-6)


def test_static_staircase_is_both_figures(swept, walk):
    figure = static.staircase(swept, RING, exact=walk.xs, most=4, samples=5)
    *planes, heat, _ = figure.axes
    shown = style.shown_sweeps(swept, None, 4, 5)
    assert [axes.get_title("left") for axes in planes] == [f"k = {k}: {swept.fronts[k]} of 16 accepted" for k in shown]
    assert np.allclose(heat.images[0].get_array(), style.sweep_errors(swept, walk.xs).logs)
    assert heat.get_ylabel() == style.SWEEP_LABEL


def test_the_slider_marks_the_row_of_the_heat_map(swept, walk):
    figure = interactive.staircase(swept, RING, exact=walk.xs, samples=5)
    plain = interactive.sweeps(swept, RING, exact=walk.xs, samples=5)
    assert len(figure.frames) == len(swept.sweeps)
    for k, (frame, other) in enumerate(zip(figure.frames, plain.frames, strict=True)):
        *paths, mark = frame.data
        for drawn, expected in zip(paths, other.data, strict=True):
            assert np.array_equal(drawn.x, expected.x, equal_nan=True)
        assert figure.data[frame.traces[-1]].line.color == style.CURSOR_COLOR
        assert (min(mark.x), max(mark.x), min(mark.y), max(mark.y)) == (-0.5, 16.5, k - 0.5, k + 0.5)
        assert [figure.data[trace].xaxis for trace in frame.traces] == ["x", "x", "x", "x2"]
    assert (figure.layout.xaxis2.range, figure.layout.yaxis2.range[1]) == ((-0.5, 16.5), -0.5)
    assert figure.data[0].xaxis == "x2"


def test_the_heat_map_lies_below_as_a_picture_too(swept):
    """An animation takes the trace off; the picture stays, cell for cell in the trace's colours."""
    from matplotlib.image import imread

    figure = interactive.staircase(swept, RING)
    [image] = [image for image in figure.layout.images if image.xref == "x2"]
    pixels = imread(io.BytesIO(base64.b64decode(image.source.split(",")[1])))[..., :3]
    K, N = len(swept.sweeps) - 1, 16
    assert (image.x, image.y, image.sizex, image.sizey) == (-0.5, -0.5, N + 1, K + 1)
    high, wide = pixels.shape[0] // (K + 1), pixels.shape[1] // (N + 1)
    assert high > 20 < wide  # browsers blur what they enlarge
    errors = style.sweep_errors(swept, None)
    low, top = errors.limits
    for k, i in ((0, 0), (0, N), (3, 7), (K, 2)):
        expected = matplotlib.colormaps[style.SWEEP_COLORS]((errors.logs[k, i] - low) / (top - low))[:3]
        for y, x in ((0, 0), (high - 1, wide - 1)):
            assert np.allclose(pixels[k * high + y, i * wide + x], expected, atol=2 / 255)


@pytest.mark.parametrize("module", [static, interactive])
def test_sweeps_that_cannot_be_drawn_are_one_sentence(module, swept, walk):
    D, x = RING.denoiser(VP), walk.xs[0]
    for figure in (module.sweep_errors, lambda p: module.sweeps(p, RING), lambda p: module.staircase(p, RING)):
        for path in (walk, toydiff.solve(D, x, 4, solver="picard", keep="end")):
            with pytest.raises(ValueError, match=r"^there are no sweeps to draw[^\n]*keep='path'$"):
                figure(path)
    flat = dataclasses.replace(swept, xs=swept.xs[..., :1], sweeps=swept.sweeps[..., :1])
    for figure in (module.sweeps, module.staircase):
        with pytest.raises(ValueError, match=r"must have states \(N\+1, B, 2\), got \(17, 9, 1\)"):
            figure(flat, RING)
        with pytest.raises(ValueError, match="most must be a whole number >= 3, got 2"):
            figure(swept, RING, most=2)
        with pytest.raises(ValueError, match="samples must be a whole number >= 1, got 0"):
            figure(swept, RING, samples=0)
        with pytest.raises(ValueError, match="a GaussianMixture or a Density"):
            figure(swept, "ring")
        with pytest.raises(ValueError, match=r"exact must be a path .*\(17, 9, 2\), got \(9, 2\)"):
            figure(swept, RING, exact=walk.end)
    module.sweep_errors(flat)  # which needs no plane
    with pytest.raises(ValueError, match=r"exact must be a path .*, got \(9, 2\)"):
        module.sweep_errors(swept, walk.end)
    with pytest.raises(ValueError, match=r"exact must be a path .*, got Trajectory"):
        module.sweep_errors(swept, walk)
    module.sweep_errors(swept, walk.xs.float())  # another dtype is no other path


@pytest.mark.parametrize("solver", ["picard:window=4", "anderson", "broyden", "parareal"])
def test_every_parallel_solver_can_be_drawn(solver, walk):
    path = toydiff.solve(RING.denoiser(VP), walk.xs[0], 16, solver=solver)
    assert len(static.staircase(path, RING).axes) > 3
    assert len(interactive.staircase(path, RING).frames) == len(path.sweeps)


def test_a_grid_of_one_step_can_be_drawn(walk):
    path = toydiff.solve(RING.denoiser(VP), walk.xs[0], 1, solver="picard")
    assert len(static.staircase(path, RING).axes) == 4
    assert len(interactive.staircase(path, RING).frames) == 2


# ---- parallel samplers compared


def test_the_rows_of_a_comparison_are_grouped_and_sorted():
    groups = style.by_method(COMPARED)
    assert {method: [r["steps"] for r in group] for method, group in groups.items()} == {
        "sequential": [25, 100],
        "picard": [25, 100, 1000],
        "window": [25, 100],
    }
    assert style.shared_steps(groups) == 100
    picard = COMPARED[1]
    assert style.rounds_needed(picard, None) == 9
    assert style.rounds_needed(picard, 0.1) == 1  # reached exactly counts
    assert style.rounds_needed(picard, 0.1, "p95") == 2
    assert np.isnan(style.rounds_needed(picard, 1e-4, "p95"))
    assert style.rounds_needed(COMPARED[0], 0.01) == 100


def test_static_rounds():
    figure = static.rounds(COMPARED, target=0.01)
    growth, decay, clock = figure.axes
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    assert (growth.get_xlabel(), growth.get_ylabel()) == (style.STEPS_LABEL, style.ROUNDS_LABEL)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Rounds to an error of 0.01 (thin: 95th percentile)",
        "T = 100: median error (thin: 95th percentile)",
        "T = 100: wall-clock (won: left of its line)",
    ]
    needed = {line.get_label(): line for line in growth.lines if not line.get_label().startswith("_")}
    assert {method: line.get_xydata().tolist() for method, line in needed.items() if method != "window"} == {
        "sequential": [[25, 25], [100, 100]],
        "picard": [[25, 2], [100, 2], [1000, 2]],
    }
    assert needed["window"].get_ydata()[0] == 2
    assert np.isnan(needed["window"].get_ydata()[1])  # it never gets there
    slow = [line for line in growth.lines if line.get_linewidth() < 1]
    assert slow[1].get_ydata().tolist() == [3, 3, 3]
    for method, line in needed.items():
        assert color_of(line) == style.method_look(method).color.upper()

    sequential, picard, picard_p95, window, _, goal = decay.lines
    assert set(sequential.get_xdata()) == {100}
    # the first guess is not on the axis, and what is exact is where the axis ends
    assert picard.get_xydata().tolist() == [[1, 0.1], [2, 0.01], [3, 1e-10]]
    assert picard_p95.get_ydata().tolist() == [0.5, 0.05, 1e-3]
    assert picard_p95.get_linewidth() < picard.get_linewidth() / 2
    assert color_of(window) == SKY.upper()
    assert set(goal.get_ydata()) == {0.01}

    assert [label.get_text() for label in clock.get_yticklabels()] == [
        "sequential\n100 rounds", "picard\n9 rounds", "window\n11 rounds",
    ]  # fmt: skip
    dots = [line for line in clock.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [
        (0.03, 0), (0.08, 1), (0.05, 2), (1.1, 0), (0.2, 1), (0.15, 2),
    ]  # fmt: skip
    assert [line.get_markerfacecolor() == "white" for line in dots] == [True] * 3 + [False] * 3
    assert [line.get_xdata()[0] for line in clock.lines if line.get_marker() != "o"] == [0.03, 1.1]
    assert clock.get_ylim()[0] > clock.get_ylim()[1]  # the first row on top
    assert [text.get_text() for text in clock.get_legend().get_texts()] == ["as it is", "10 ms added to each call"]


def test_interactive_rounds():
    figure = interactive.rounds(COMPARED, target=0.01)
    panels = {axis: [t for t in figure.data if t.xaxis == axis] for axis in ("x", "x2", "x3")}
    growth = {t.name: t for t in panels["x"] if t.showlegend}
    assert list(growth["picard"].x) == [25, 100, 1000]
    assert list(growth["picard"].y) == [2, 2, 2]
    assert list(growth["sequential"].y) == [25, 100]
    assert growth["window"].line.color == SKY
    picard, p95, window, _ = panels["x2"]
    assert (picard.name, window.name) == ("picard", "window")
    assert list(picard.x) == [1, 2, 3]
    assert list(picard.y) == [0.1, 0.01, 1e-10]
    assert list(p95.y) == [0.5, 0.05, 1e-3]
    assert p95.line.width < picard.line.width / 2
    seconds = [(t.x[0], t.y[0], t.marker.color == "white") for t in panels["x3"] if t.x[0] is not None]
    assert seconds == [
        (0.03, "sequential<br>100 rounds", True),
        (0.08, "picard<br>9 rounds", True),
        (0.05, "window<br>11 rounds", True),
        (1.1, "sequential<br>100 rounds", False),
        (0.2, "picard<br>9 rounds", False),
        (0.15, "window<br>11 rounds", False),
    ]
    lines = {(shape.xref, shape.x0, shape.y0) for shape in figure.layout.shapes}
    assert lines == {("x2", 100, 0), ("x2 domain", 0, 0.01), ("x3", 0.03, 0), ("x3", 1.1, 0)}
    for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2", "xaxis3"):
        assert figure.layout[axis].type == "log"
        assert figure.layout[axis].range is not None  # so that hiding a method moves nothing
    assert figure.layout.yaxis3.categoryarray[-1] == "sequential<br>100 rounds"
    # one click hides a method everywhere
    assert {t.legendgroup for axis in ("x", "x2") for t in panels[axis]} == {"sequential", "picard", "window"}


@pytest.mark.parametrize("module", [static, interactive])
def test_without_a_goal_the_rounds_are_those_that_were_spent(module):
    figure = module.rounds(COMPARED)
    if module is static:
        axes = figure.axes[0]
        assert axes.get_title("left") == "Rounds until it stops"
        spent = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    else:
        assert figure.layout.annotations[0].text == "Rounds until it stops"
        spent = {trace.name: list(trace.y) for trace in figure.data if trace.xaxis == "x"}
    assert spent == {"sequential": [25, 100], "picard": [7, 9, 12], "window": [8, 11]}


@pytest.mark.parametrize("module", [static, interactive])
def test_a_comparison_that_cannot_be_drawn_is_one_sentence(module):
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
        with pytest.raises(ValueError, match=message) as error:
            module.rounds(rows)
        assert "\n" not in str(error.value)


def test_the_figure_draws_the_rows_that_are_measured():
    rows = compare(steps=[4, 8], samples=8, cost=0.0)
    figure = static.rounds(rows, target=0.01)
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == len(METHODS)
    assert len(interactive.rounds(rows, target=0.01).layout.yaxis3.categoryarray) == len(METHODS)


# ---- samples


def test_samples():
    cloud = torch.randn(20, 2, dtype=torch.float64)
    drawn = static.samples({"a": cloud}, RING).axes[0]
    assert np.array_equal(drawn.lines[0].get_xydata(), cloud.numpy())
    assert drawn.get_aspect() == 1
    figure = interactive.samples({"a": cloud, "b": cloud + 1}, RING)
    assert np.allclose(figure.data[1].x, cloud[:, 0] + 1, atol=1e-6)
    assert figure.layout.yaxis2.scaleanchor == "x2"


def test_samples_have_the_colour_of_their_solver():
    clouds = {"ours": torch.rand(9, 2), "true": torch.rand(9, 2)}
    axes = static.samples(clouds, RING, solvers={"ours": "ddim"}).axes
    assert [ax.lines[0].get_color() for ax in axes] == [SOLVERS["ddim"].color, style.BLUE]
    dots = [
        trace for trace in interactive.samples(clouds, RING, solvers={"ours": "ddim"}).data if trace.mode == "markers"
    ]
    assert [trace.marker.color for trace in dots] == [SOLVERS["ddim"].color, style.BLUE]


@pytest.mark.parametrize("module", [static, interactive])
def test_what_cannot_be_drawn_is_one_sentence(module, paths):
    with pytest.raises(ValueError, match=r"must have shape \(n, 2\), got \(4, 3\)"):
        module.samples({"a": torch.zeros(4, 3)}, RING)
    with pytest.raises(ValueError, match="a GaussianMixture or a Density"):
        module.samples({"a": torch.zeros(4, 2)}, "ring")
    with pytest.raises(ValueError, match="at least one trajectory"):
        module.trajectories({}, RING)
    with pytest.raises(ValueError, match="at least one time grid"):
        module.time_grids({}, VP)
    end = toydiff.solve(RING.denoiser(VP), paths["few"].xs[0], 4, keep="end")
    with pytest.raises(ValueError, match="keep='path'"):
        module.trajectories({"a": end}, RING)


def test_a_page_needs_no_network_and_waits_for_the_reader(paths):
    html = interactive.page(interactive.trajectories({"few": paths["few"]}, RING))
    assert len(html) > 3_000_000  # plotly.js is inside
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert "Plotly.animate" not in html  # nothing plays on load


def test_a_density_between_the_lattices_points_is_shaded_all_the_same():
    """So narrow that it underflows at each of them."""
    for mixture in (toydiff.GaussianMixture([[0.013, 0.0]], std=1e-4), RING):
        shade = style.density(mixture, [torch.tensor([[240.0, 240.0], [-240.0, -240.0]])]).shade
        assert np.isfinite(shade).all()
        assert shade.max() == 1
