"""Figures show what they are given: the container's numbers, the registry's colours, equal and fixed axes."""

import base64
import io
import re
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pytest
import torch

import toydiff
from toydiff.plots import interactive, static, style
from toydiff.solvers.registry import SOLVERS

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


def color_of(artist):
    return matplotlib.colors.to_hex(artist.get_color()).upper()


# ---- style


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_solvers_look_is_its_entry(name):
    seen, entry = style.look(name), SOLVERS[name]
    assert (seen.color, seen.marker, seen.dash) == (entry.color, entry.marker, entry.dash)
    assert (
        seen.symbol
        == {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}[entry.marker]
    )


def test_unknown_solver_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'ddim'"):
        style.look("dimm")


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
    at = torch.tensor([[lattice.x[7], lattice.y[30]]])
    assert lattice.p[30, 7] == pytest.approx(float(RING.log_prob(at).exp()), rel=1e-12)
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
