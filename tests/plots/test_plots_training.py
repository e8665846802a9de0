"""Figures of training and distillation show what they are given: measured numbers in titles, the catalog's colours, every value in its place."""

import base64
import io

import matplotlib.colors
import numpy as np
import pytest
import torch

import toydiff
from toydiff import measure
from toydiff.catalog import METHODS
from toydiff.plots import interactive, static, style, training_style

RING = toydiff.mixture("ring")
LINEAR = toydiff.Linear()
BOTH = pytest.mark.parametrize("module", [static, interactive])


def hex_of(artist):
    return matplotlib.colors.to_hex(artist.get_color()).upper()


@pytest.fixture(scope="module")
def rounds():
    """An exact flow, whose paths bend, and the straight paths to the same ends."""
    x = LINEAR.prior((6, 2), 0, dtype=torch.float64)
    bent = toydiff.solve(RING.denoiser(LINEAR), x, 40, solver="euler", grid="uniform")
    share = (1 - bent.ts)[:, None, None]
    straight = toydiff.Trajectory(bent.ts, x + share * (bent.end - x), bent.end.expand(40, 6, 2), 40, 40, 0.0)
    return {"round 0": bent, "round 1": straight}


@pytest.fixture(scope="module")
def one_step(rounds):
    off = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.9], dtype=torch.float64)[:, None]
    return {"round 0": torch.zeros(6, 2, dtype=torch.float64), "round 1": rounds["round 1"].end + off}


# ---- looks of methods


def test_a_methods_look_is_its_card_and_others_get_colours_that_are_free():
    looks = training_style.looks(["rectified-diffusion", "mine", "instaflow", "yours"])
    for name in ("rectified-diffusion", "instaflow"):
        card = METHODS[name]
        assert (looks[name].color, looks[name].marker, looks[name].dash) == (card.color, card.marker, card.dash)
        assert looks[name].line == style.LINES[card.dash]
    assert len({look.color for look in looks.values()}) == 4
    everyone = training_style.looks([*METHODS, *"abcdefgh"])
    assert len(everyone) == len(METHODS) + 8  # more than there are colours


# ---- reflow


def test_reflow_titles_hold_what_is_measured(rounds, one_step):
    bent = measure.straightness(rounds["round 0"], normalised=True)
    assert bent > 0.1
    off = float((rounds["round 0"].end ** 2).sum(1).mean().sqrt())
    heads = (
        f"round 0\nS = {bent:.2g} (0: straight), one-step error {off:.2g}",
        # 0.3 and 0.9 in both dimensions, for two of six: sqrt(2 (0.09 + 0.81) / 6)
        f"(0: straight), one-step error {0.3**0.5:.2g}",
    )
    figure = static.reflow(rounds, RING, one_step=one_step)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[0] == heads[0]
    assert titles[1].endswith(heads[1])
    assert float(titles[1].split("S = ")[1].split()[0]) < 1e-20
    page = interactive.reflow(rounds, RING, one_step=one_step)
    assert [note.text for note in page.layout.annotations] == [title.replace("\n", "<br>") for title in titles]
    assert static.reflow(rounds, RING).axes[0].get_title("left") == f"round 0\nS = {bent:.2g} (0: straight)"


def test_static_reflow(rounds, one_step):
    figure = static.reflow(rounds, RING, one_step={"round 1": one_step["round 1"]})
    first, second = figure.axes
    for axes, path in zip((first, second), rounds.values(), strict=True):
        assert axes.get_aspect() == 1
        assert len(axes.images) == 1
        assert {hex_of(drawn) for drawn in axes.lines[:7]} == {METHODS["rectified-flow"].color.upper()}
        for b in range(6):
            assert np.array_equal(axes.lines[b].get_xydata(), path.xs[:, b].numpy())
        assert np.array_equal(axes.lines[6].get_xydata(), path.end.numpy())
    assert len(first.lines) == 7
    assert np.array_equal(second.lines[7].get_xydata(), one_step["round 1"].numpy())
    # rings of the second panel only have their place in the legend all the same
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sample", "after one step"]
    assert first.get_xlim() == second.get_xlim()


def test_the_frame_holds_the_ends_after_one_step(rounds):
    far = {"round 0": torch.full((6, 2), 9.0, dtype=torch.float64)}
    assert static.reflow(rounds, RING, one_step=far).axes[0].get_xlim()[1] > 9
    assert interactive.reflow(rounds, RING, one_step=far).layout.xaxis.range[1] > 9


def test_interactive_reflow_measures_all_and_draws_some(rounds, one_step):
    whole, some = (interactive.reflow(rounds, RING, one_step=one_step, lines=lines) for lines in (None, 2))
    assert [head.text for head in some.layout.annotations] == [head.text for head in whole.layout.annotations]
    path = some.data[0]
    assert np.isnan(path.x).sum() == 2  # a gap after each line
    assert np.isnan(whole.data[0].x).sum() == len(rounds["round 0"].end)
    assert len(some.data[-1].x) == len(rounds["round 1"].end)  # the others are dots
    with pytest.raises(ValueError, match="lines must be a whole number"):
        interactive.reflow(rounds, RING, lines=0)


def test_interactive_reflow_has_a_slider_over_time_and_fixed_axes(rounds, one_step):
    figure = interactive.reflow(rounds, RING, one_step={"round 1": one_step["round 1"]})
    path0, dots0, path1, rings, dots1 = figure.data
    assert {path0.line.color, dots0.marker.color, path1.line.color} == {METHODS["rectified-flow"].color}
    assert np.allclose(rings.y, one_step["round 1"][:, 1])
    assert rings.showlegend
    assert np.allclose(dots1.x, rounds["round 1"].end[:, 0])
    times = interactive._frame_times(rounds)
    assert len(figure.frames) == len(times) == 41
    for frame, t in zip(figure.frames, times, strict=True):
        assert frame.layout.xaxis.range is None
        assert list(frame.traces) == [1, 4]
        k = round(40 * (1 - t))
        for dots, path in zip(frame.data, rounds.values(), strict=True):
            assert np.allclose(dots.x, path.xs[k, :, 0], atol=1e-6)


@BOTH
def test_a_reflow_that_cannot_be_drawn_is_one_sentence(module, rounds):
    bad = torch.zeros(5, 2, dtype=torch.float64)
    for paths, one, message in (
        ({}, {}, "at least one trajectory"),
        (rounds, {"round 2": bad}, "unknown round with ends after one step 'round 2' .did you mean"),
        (rounds, {"round 0": bad}, r"'round 0' must have the shape of its samples, \(6, 2\), got \(5, 2\)"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            module.reflow(paths, RING, one_step=one)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="a GaussianMixture or a Density"):
        module.reflow(rounds, "ring")


# ---- before and after Rectified Diffusion


def test_rescaled_measures_straightness_and_first_order():
    vp = toydiff.VP()
    x = vp.prior((3, 2), 1, dtype=torch.float64)
    point = toydiff.Empirical(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    paths = {
        "before": toydiff.solve(RING.denoiser(vp), x, 50, solver="ddim"),
        "after": toydiff.solve(point.denoiser(vp), x, 50, solver="ddim"),
    }
    backgrounds = dict.fromkeys(paths, RING)
    S, C = measure.straightness, measure.first_orderness
    bent = [S(path, normalised=True) for path in paths.values()]
    varying = [C(path, vp, normalised=True) for path in paths.values()]
    assert varying[0] > 0.01
    assert varying[1] < 1e-20  # one data point: first order, and yet not straight in t
    assert bent[1] > 0.1
    axes = static.rescaled(paths, vp, backgrounds, measured=True).axes
    notes = [note.text for note in interactive.rescaled(paths, vp, backgrounds, measured=True).layout.annotations]
    for row, (s, c) in enumerate(zip(bent, varying, strict=True)):
        for k, words in (
            (3 * row + 1, f"S = {s:.2g} (0: straight)"),
            (3 * row + 2, f"C = {style.number(c)} (0: first-order)"),
        ):
            assert axes[k].get_title("left").split("\n")[1] == words
            assert notes[k].split("<br>")[1] == words
    plain = static.rescaled(paths, vp, backgrounds).axes
    assert [ax.get_title("left") for ax in plain[:3]] == [
        "before", "$x_1$ against t", "$y_1$ against α/σ (dashed: straight)",
    ]  # fmt: skip
    assert all("<br>" not in note.text for note in interactive.rescaled(paths, vp, backgrounds).layout.annotations)


# ---- one-step maps


NOISE = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
ORDER = [1, 3, 2, 0]
MAPS = {"naive": NOISE**2, "my own": 3 * NOISE}


@BOTH
def test_one_step_maps_are_drawn_in_the_order_of_their_noise(module):
    exact = NOISE**3
    figure = module.one_step_maps(NOISE, MAPS, exact)
    if module is static:
        [axes] = figure.axes
        curves = {line.get_label(): line for line in axes.lines}
        xs = {name: line.get_xdata() for name, line in curves.items()}
        ys = {name: line.get_ydata() for name, line in curves.items()}
        widths = [line.get_linewidth() for line in axes.lines]
        colors = {name: hex_of(line) for name, line in curves.items()}
        limits, labels = (axes.get_xlim(), axes.get_ylim()), (axes.get_xlabel(), axes.get_ylabel())
        assert axes.lines[1].get_linestyle() == style.LINES[METHODS["naive"].dash]
    else:
        curves = {trace.name: trace for trace in figure.data}
        xs, ys = ({name: trace[key] for name, trace in curves.items()} for key in "xy")
        widths = [trace.line.width for trace in figure.data]
        colors = {name: trace.line.color.upper() for name, trace in curves.items()}
        limits = figure.layout.xaxis.range, figure.layout.yaxis.range
        labels = figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
        assert curves["naive"].line.dash == METHODS["naive"].dash
    assert list(curves) == [training_style.EXACT_MAP_NAME, "naive", "my own"]  # the exact one is behind
    assert widths[0] > 2 * max(widths[1:])
    for name, ends in {training_style.EXACT_MAP_NAME: exact, **MAPS}.items():
        assert np.array_equal(xs[name], NOISE[ORDER].numpy())
        assert np.array_equal(ys[name], ends[ORDER].numpy())
    assert colors["naive"] == METHODS["naive"].color.upper()
    assert colors[training_style.EXACT_MAP_NAME] == style.INK.upper()
    assert len(set(colors.values())) == 3
    assert limits[0] == (-2, 1)
    assert limits[1][0] < -8  # the exact map counts
    assert limits[1][1] > 4
    assert "standard deviations" in labels[0]
    assert "sample" in labels[1]
    without = module.one_step_maps(NOISE, MAPS)
    assert len(without.axes[0].lines if module is static else without.data) == 2


@BOTH
def test_maps_that_cannot_be_drawn_are_one_sentence(module):
    for noise, maps, exact, message in (
        (NOISE, {}, None, "at least one map"),
        (NOISE[:, None], MAPS, None, r"must have shape \(N,\) with N >= 2, got \(4, 1\)"),
        (NOISE, {"naive": NOISE[:3]}, None, r"'naive' must have one sample a noise, \(4,\), got \(3,\)"),
        (NOISE, MAPS, NOISE[:3], r"'exact map of the ODE' must have one sample a noise"),
        (NOISE, {"naive": NOISE.log()}, None, "'naive' has 2 value.s. that are NaN"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            module.one_step_maps(noise, maps, exact)
        assert "\n" not in str(error.value)


AROUND = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
QUARTERS = torch.stack([AROUND[:, 1], -AROUND[:, 0]], 1)  # a quarter of a turn to the right


def same_angles(a, b):
    return np.allclose(np.exp(1j * np.radians(a)), np.exp(1j * np.radians(b)), atol=1e-4)


def test_directions_are_seen_from_the_datas_mean():
    away = toydiff.GaussianMixture([[5.0, 1.0]], std=0.5)
    lattice = style.density(away, [torch.tensor([[15.0, 1.0], [-1.0, -8.0]])])  # whose middle is elsewhere
    seen = training_style.directions(AROUND + torch.tensor([5.0, 1.0]), lattice)
    assert same_angles(seen, [0, 90, 180, 270])


def test_static_planes_colour_noise_and_end_alike():
    figure = static.one_step_planes(AROUND, {"still": AROUND, "turned": QUARTERS}, RING)
    upper, turned_upper, lower, turned_lower = figure.axes
    still, turned = upper.collections[0].get_facecolor(), turned_upper.collections[0].get_facecolor()
    assert len(np.unique(still, axis=0)) == 4
    assert np.array_equal(still, lower.collections[0].get_facecolor())
    assert np.array_equal(turned, turned_lower.collections[0].get_facecolor())
    # noise at 0 degrees, turned by -90, has the colour of what stays at -90, the last of the four
    assert np.allclose(turned[0], still[3], atol=1e-2)
    assert np.array_equal(turned_upper.collections[0].get_offsets(), AROUND.numpy())
    assert np.array_equal(turned_lower.collections[0].get_offsets(), QUARTERS.numpy())
    assert [axes.get_title("left") for axes in figure.axes] == ["still", "turned", "", ""]
    for axes in figure.axes:
        assert axes.get_aspect() == 1
    assert upper.get_xlim() == upper.get_ylim() == turned_upper.get_xlim()
    assert len(lower.images) == 1
    assert (upper.get_xlabel(), turned_lower.get_xlabel()) == ("$ε_1$", "$x_1$")


def test_interactive_planes_name_the_other_end_on_hover():
    figure = interactive.one_step_planes(AROUND, {"still": AROUND, "turned": QUARTERS}, RING)
    still_noise, still_end, noise, end = figure.data
    assert np.allclose(noise.marker.color, end.marker.color)
    assert same_angles(noise.marker.color, [270, 0, 90, 180])
    assert same_angles(still_noise.marker.color, [0, 90, 180, 270])
    assert np.allclose(noise.customdata, QUARTERS)
    assert np.allclose(end.customdata, AROUND)
    assert np.allclose(np.stack([end.x, end.y], 1), QUARTERS)
    assert (noise.marker.cmin, noise.marker.cmax) == (-180, 180)
    assert noise.marker.colorscale[0][1] == noise.marker.colorscale[-1][1]  # a circle
    for k in range(1, 5):
        axis = figure.layout["yaxis" if k == 1 else f"yaxis{k}"]
        assert axis.scaleanchor == ("x" if k == 1 else f"x{k}")
        assert axis.range is not None
    assert {image.xref for image in figure.layout.images} == {"x3", "x4"}
    assert still_end.xaxis == "x3"


@BOTH
def test_planes_that_cannot_be_drawn_are_one_sentence(module):
    with pytest.raises(ValueError, match=r"'a' must be as many as the noise, \(4, 2\), got \(3, 2\)"):
        module.one_step_planes(AROUND, {"a": AROUND[:3]}, RING)
    with pytest.raises(ValueError, match=r"'noise' must have shape \(n, 2\), got \(4,\)"):
        module.one_step_planes(NOISE, {"a": AROUND}, RING)
    with pytest.raises(ValueError, match="at least one set of samples"):
        module.one_step_planes(AROUND, {}, RING)


# ---- training


LOSSES = {
    "rectified-flow": [[k, 10.0 / k] for k in range(1, 1001)],
    "rectified-diffusion": [[5, 0.5], [1, 2.0], [3, 1.0]],
}
QUALITY = {
    "rectified-flow": {2: [(0, 9.0), (50, 0.4), (100, 0.2)], 1: [(50, 0.8), (100, 0.5)]},
    "instaflow": {1: [(100, 0.3), (50, 0.6)]},
}


def test_losses_are_means_of_blocks():
    drawn = training_style.training_numbers(LOSSES, {}, None, most=100)
    loss = drawn.losses["rectified-flow"]
    values = 10.0 / np.arange(1, 1001).reshape(100, 10)
    assert np.allclose(loss.mean, values.mean(1))
    assert np.allclose(loss.updates, np.arange(1, 1001).reshape(100, 10).mean(1))
    assert np.allclose(loss.low, np.percentile(values, 5, axis=1))
    assert np.allclose(loss.high, np.percentile(values, 95, axis=1))
    short = drawn.losses["rectified-diffusion"]
    assert (short.updates.tolist(), short.mean.tolist()) == ([1, 3, 5], [2.0, 1.0, 0.5])


def test_static_training_curves():
    figure = static.training_curves(LOSSES, QUALITY, floor=0.05, distance="Fréchet distance")
    losses, quality = figure.axes
    assert (losses.get_xscale(), losses.get_yscale()) == ("linear", "log")
    assert (quality.get_xscale(), quality.get_yscale()) == ("log", "log")
    assert losses.get_xlabel() == quality.get_xlabel() == training_style.UPDATES_LABEL
    assert quality.get_ylabel() == "Fréchet distance"
    assert losses.lines[1].get_xydata().tolist() == [[1, 2.0], [3, 1.0], [5, 0.5]]
    assert [hex_of(line) for line in losses.lines] == [METHODS[name].color.upper() for name in LOSSES]
    one, two, instaflow = quality.lines[:3]
    assert one.get_xydata().tolist() == [[50, 0.8], [100, 0.5]]
    assert two.get_xydata().tolist() == [[50, 0.4], [100, 0.2]]  # update 0 is not on a logarithmic axis
    assert instaflow.get_xydata().tolist() == [[50, 0.6], [100, 0.3]]
    assert one.get_linestyle() == instaflow.get_linestyle() == "-"
    assert two.get_linestyle() == "--"
    assert hex_of(one) == hex_of(two) == METHODS["rectified-flow"].color.upper()
    assert (one.get_marker(), instaflow.get_marker()) == ("s", "v")  # they share a colour
    [floor] = [line for line in quality.lines if line.get_label().startswith("floor")]
    assert (set(floor.get_ydata()), floor.get_linestyle()) == ({0.05}, "--")
    low, high = quality.get_ylim()
    assert low < 0.05
    assert high < 9
    assert [text.get_text() for text in quality.get_legend().get_texts()] == ["1 step", "2 steps", "floor 0.05"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*LOSSES, "instaflow"]


def test_interactive_training_curves():
    figure = interactive.training_curves(LOSSES, QUALITY, floor=0.05, distance="Fréchet distance")
    shown = [trace for trace in figure.data if trace.x[0] is not None]
    one, two = [t for t in shown if t.xaxis == "x2" and t.name == "rectified-flow"]
    [instaflow] = [t for t in shown if t.name == "instaflow"]
    assert (list(one.x), list(one.y), one.line.dash) == ([50, 100], [0.8, 0.5], "solid")
    assert (list(two.x), list(two.y), two.line.dash) == ([50, 100], [0.4, 0.2], "dash")
    assert (instaflow.marker.symbol, instaflow.line.color) == ("triangle-down", METHODS["instaflow"].color)
    assert "1 step:" in one.hovertemplate
    [line] = [t for t in shown if t.name == "rectified-diffusion" and t.fill is None]
    assert (list(line.x), list(line.y)) == ([1, 3, 5], [2.0, 1.0, 0.5])
    assert {t.legendgroup for t in shown} == {*LOSSES, "instaflow"}  # one click hides a method in both panels
    legend = [t.name for t in figure.data if t.showlegend]
    assert legend == [*LOSSES, "instaflow", "1 step", "2 steps"]
    for axis in ("yaxis", "xaxis2", "yaxis2"):
        assert figure.layout[axis].type == "log"
    for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2"):
        assert figure.layout[axis].range is not None
    assert figure.layout.yaxis2.title.text == "Fréchet distance"
    [floor] = figure.layout.shapes
    assert (floor.y0, floor.yref, floor.line.dash) == (0.05, "y2", "dash")
    assert 10 ** figure.layout.yaxis2.range[0] < 0.05


@BOTH
def test_either_part_of_training_can_be_drawn_alone(module):
    for runs, quality, label in ((LOSSES, {}, training_style.LOSS_LABEL), ({}, QUALITY, training_style.DISTANCE_LABEL)):
        figure = module.training_curves(runs, quality)
        if module is static:
            [axes] = figure.axes
            assert axes.get_ylabel() == label
        else:
            assert figure.layout.yaxis.title.text == label
            assert "yaxis2" not in figure.layout


@BOTH
def test_training_that_cannot_be_drawn_is_one_sentence(module):
    for runs, quality, floor, message in (
        ({}, {}, None, "the losses or the quality of at least one run"),
        ({"a": []}, {}, None, "the loss of 'a' must be a table of at least one"),
        ({"a": [[1, 2, 3]]}, {}, None, "the loss of 'a' must be a table"),
        ({"a": [[1, "x"]]}, {}, None, "the loss of 'a' must be a table"),
        ({}, {"a": {}}, None, "the quality of 'a' holds no number of steps"),
        ({}, {"a": {0: [(1, 2)]}}, None, "a number of steps of 'a' must be a whole number >= 1, got 0"),
        ({}, {"a": {2: [1, 2]}}, None, "the quality of 'a' at 2 steps must be a table"),
        ({}, {"a": {2: [(0, 2.0)]}}, None, "at least one finite value above 0"),
        ({}, {"a": {2: [(1, 2.0)]}}, 0.0, "floor must be a finite number > 0"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            module.training_curves(runs, quality, floor=floor)
        assert "\n" not in str(error.value)


# ---- digits


def images(*values):
    return torch.stack([torch.full((1, 28, 28), v) for v in values])


def test_a_sheet_of_digits_has_every_pixel_in_its_place():
    rng = torch.Generator().manual_seed(0)
    rows = {"a": torch.rand(3, 1, 28, 28, generator=rng), "b": torch.rand(3, 1, 28, 28, generator=rng) * 4 - 2}
    sheet = training_style.digit_sheet(rows)
    assert sheet.shape == (58, 88)
    paper = np.ones_like(sheet, dtype=bool)
    for r, row in enumerate(rows.values()):
        for k, image in enumerate(row):
            at = slice(30 * r, 30 * r + 28), slice(30 * k, 30 * k + 28)
            assert np.allclose(sheet[at], image[0].clamp(-1, 1))
            paper[at] = False
    assert set(sheet[paper]) == {-1}
    assert training_style.digit_middles(rows["a"], 2) == ([13.5, 43.5, 73.5], [13.5, 43.5])


def test_static_digits_are_black_ink_on_white_and_crisp():
    from matplotlib.image import imread

    dots = images(-1.0, -1.0)
    dots[0, 0, 3, 5] = 1.0
    dots[1, 0, 20:22, 4] = 1.0
    figure = static.digits({"25 steps": dots, "a method with a long name, 1 step": dots})
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["25 steps", "a method with a long name, 1 step"]
    assert len(axes.get_xticks()) == 0
    assert axes.get_yticks().tolist() == [13.5, 43.5]
    assert axes.images[0].get_interpolation() == "nearest"
    pixels = imread(io.BytesIO(static.png(figure)))[..., :3]
    high, wide = pixels.shape[:2]
    assert (pixels[0] == 1).all()
    assert (pixels[:, 0] == 1).all()  # nothing, no name either, is cut off
    left, bottom, width, height = axes.get_position().bounds
    x, y = round(left * wide), round((1 - bottom - height) * high)
    drawn = pixels[y : y + round(height * high), x : x + round(width * wide)]
    assert drawn.shape[:2] == (58 * 4, 58 * 4)
    sheet = training_style.digit_sheet({"a": dots, "b": dots})
    assert np.allclose(drawn[1::4, 1::4], (1 - sheet[..., None]) / 2)
    inked = (drawn < 0.5).all(axis=-1)
    assert inked.sum() == 2 * (1 + 2) * 16  # each pixel 4 x 4 dots, black, without a blur
    assert (drawn[~inked] == 1).all()


def test_a_long_title_is_not_cut_off():
    figure = static.digits({"a": images(0.0)}, title="A title that is much wider than the only digit")
    figure.draw_without_rendering()
    [title] = figure.texts
    assert title.get_window_extent().x1 < figure.bbox.x1


def test_interactive_digits():
    from matplotlib.image import imread

    rows = {"25 steps": images(-1.0, 0.0, 1.0), "1 step": images(0.5, -0.5, 1.0)}
    figure = interactive.digits(rows, title="digits")
    [image] = figure.layout.images
    pixels = imread(io.BytesIO(base64.b64decode(image.source.split(",")[1])))[..., 0]
    sheet = training_style.digit_sheet(rows)
    assert pixels.shape == (8 * 58, 8 * 88)
    assert np.allclose(pixels[3::8, 3::8], (1 - sheet) / 2, atol=1 / 255)
    assert (image.x, image.y, image.sizex, image.sizey) == (-0.5, -0.5, 88, 58)
    assert list(figure.layout.yaxis.ticktext) == ["25 steps", "1 step"]
    assert figure.layout.yaxis.scaleanchor == "x"
    assert figure.layout.yaxis.range == (57.5, -0.5)
    [hover] = figure.data
    assert list(zip(hover.text, hover.x, hover.y, strict=True))[4] == ("1 step, column 2", 43.5, 43.5)


@BOTH
def test_digits_that_cannot_be_drawn_are_one_sentence(module):
    good = images(0.0, 1.0)
    for rows, message in (
        ({}, "at least one row of digits"),
        ({"a": good[:, 0]}, r"'a' must be images \(k, 1, H, W\) with k >= 1, got \(2, 28, 28\)"),
        ({"a": good[:0]}, r"k >= 1, got \(0, 1, 28, 28\)"),
        ({"a": good, "b": good[:1]}, r"same shape, got \(2, 1, 28, 28\) for 'a' and \(1, 1, 28, 28\) for 'b'"),
        ({"a": good / 0 * 0}, "the row 'a' has 1568 value.s. that are NaN"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            module.digits(rows)
        assert "\n" not in str(error.value)


# ---- all of them


def test_both_modules_have_the_same_figures():
    assert set(static.__all__) - {"png"} == set(interactive.__all__) - {"page"}


# ---- against the noise level


CURVES = {
    "ct": [(0.1, 0.5), (10.0, 4.0), (1.0, 1.0)],
    "sct": [(0.1, 0.4, 0.1), (1.0, 0.1, 0.2), (10.0, 0.0, 0.1)],
}


def test_static_against_noise():
    figure = static.against_noise(CURVES, ylabel="variance", note="exact: 0", title="T")
    [axes] = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == (style.NSR_LABEL, "variance")
    ct, sct = axes.lines
    assert list(ct.get_xdata()) == [0.1, 1.0, 10.0]
    assert list(ct.get_ydata()) == [0.5, 1.0, 4.0]
    assert list(sct.get_ydata()) == [0.4, 0.1]  # a logarithm has no 0
    assert [hex_of(ct), hex_of(sct)] == [METHODS["ct"].color, METHODS["sct"].color]
    [band] = axes.collections
    assert float(band.get_paths()[0].vertices[:, 1].min()) > 0
    assert axes.get_legend().get_title().get_text() == "exact: 0"


def test_interactive_against_noise():
    page = interactive.against_noise(CURVES, ylabel="variance", note="exact: 0")
    lines = {trace.name: trace for trace in page.data if trace.fill is None}
    assert list(lines["ct"].y) == [0.5, 1.0, 4.0]
    assert list(lines["sct"].x) == [0.1, 1.0]
    assert lines["ct"].line.color == METHODS["ct"].color
    assert (page.layout.xaxis.type, page.layout.yaxis.type) == ("log", "log")
    assert page.layout.yaxis.title.text == "variance"


@BOTH
@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ({}, "nothing to draw"),
        ({"ct": []}, "'ct' must be a table of"),
        ({"ct": [(1.0,)]}, "'ct' must be a table of"),
        ({"ct": "abc"}, "'ct' must be a table of"),
        ({"ct": [(1.0, 0.0), (0.0, 1.0)]}, "'ct' has no NSR and value above 0"),
        ({"ct": [(1.0, float("nan"))]}, "'ct' has no NSR and value above 0"),
    ],
)
def test_against_noise_refuses(module, curves, words):
    with pytest.raises(ValueError, match=words):
        module.against_noise(curves, ylabel="y")


# ---- the same noise


@pytest.fixture(scope="module")
def clouds():
    one = RING.sample(30, 0)
    return {"lcm": {1: one, 4: one + 0.3}, "pcm": {4: RING.sample(20, 1)}}


def test_static_same_noise(clouds):
    figure = static.same_noise(clouds, RING, title="T")
    seen = [axes for axes in figure.axes if axes.get_visible()]
    assert len(figure.axes) == 4
    assert [axes.get_title("left") for axes in seen] == [
        "lcm: 1 step\n ", f"lcm: 4 steps\nmoved by {0.3 * 2**0.5:.2g}", "pcm: 4 steps\n ",
    ]  # fmt: skip
    first, second = (next(c for c in axes.collections if len(c.get_offsets()) == 30) for axes in seen[:2])
    assert np.allclose(first.get_offsets(), clouds["lcm"][1])
    assert np.array_equal(first.get_facecolors(), second.get_facecolors())  # a noise keeps its colour
    assert len({tuple(color) for color in first.get_facecolors()}) > 5


def test_interactive_same_noise(clouds):
    page = interactive.same_noise(clouds, RING)
    dots = [trace for trace in page.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in dots] == [30, 30, 20]
    assert np.array_equal(dots[0].marker.color, dots[1].marker.color)
    assert np.allclose(dots[1].x, clouds["lcm"][4][:, 0])
    assert page.layout.annotations[0].text == "lcm: 1 step<br> "


@BOTH
@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({}, "nothing to draw"),
        ({"lcm": {}}, "nothing to draw"),
        ({"lcm": {0: torch.zeros(3, 2)}}, "a number of steps of 'lcm'"),
        ({"lcm": {1: torch.zeros(3, 2), 2: torch.zeros(4, 2)}}, "'lcm' must be of the same noise"),
        ({"lcm": {1: torch.zeros(3, 1)}}, r"\(3, 1\)"),
    ],
)
def test_same_noise_refuses(module, ends, words):
    with pytest.raises(ValueError, match=words):
        module.same_noise(ends, RING)


def test_stacked_planes_name_their_axes_once():
    """Below the lowest panel of a column, and beside the first one of a row: a method need not know all numbers of steps."""
    cloud = RING.sample(9, 0)
    figure = interactive.same_noise({"lcm": {1: cloud, 2: cloud}, "pcm": {2: cloud}}, RING)
    named = {}
    for row in (1, 2):
        for column in (1, 2):
            panel = figure.get_subplot(row, column)
            if panel.xaxis.visible is not False:
                named[row, column] = panel.xaxis.title.text, panel.yaxis.title.text
    assert named == {(1, 1): ("x₁", "x₂"), (1, 2): ("", ""), (2, 2): ("x₁", "x₂")}
    figure = interactive.one_step_planes(cloud, {"a": cloud, "b": cloud}, RING)
    assert [figure.get_subplot(2, column).yaxis.title.text for column in (1, 2)] == ["x₂", ""]


def test_a_teacher_is_in_ink_beside_anybody():
    looks = training_style.looks(["mine", "teacher", "cd"])
    assert looks["teacher"].color == style.INK
    assert looks["mine"].color == training_style.looks(["mine", "cd"])["mine"].color
