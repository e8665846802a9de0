"""Maps in one step, the same noise, errors against the noise level: values in their places, the catalog's colours."""

import numpy as np
import pytest
import torch
from cases import RING
from panels import BOTH, legend, panels, refuses

import toydiff
from toydiff.catalog import METHODS
from toydiff.plots import interactive, static, style
from toydiff.plots import training as subject

# ---- maps on the line

NOISE = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
ORDER = [1, 3, 2, 0]
MAPS = {"naive": NOISE**2, "my own": 3 * NOISE}


def test_one_step_maps_are_drawn_in_the_order_of_their_noise():
    exact = NOISE**3
    figure = static.one_step_maps(NOISE, MAPS, exact)
    [panel] = panels(figure)
    behind, naive, own = panel.lines
    assert legend(figure) == [subject.EXACT_MAP_NAME, "naive", "my own"]  # the exact one is behind
    for line, ends in ((behind, exact), (naive, MAPS["naive"]), (own, MAPS["my own"])):
        assert np.array_equal(line.xy, torch.stack([NOISE, ends], 1)[ORDER].numpy())
    assert behind.width > 2 * max(naive.width, own.width)
    assert (naive.color, naive.dash) == (METHODS["naive"].color.upper(), METHODS["naive"].dash)
    assert behind.color == style.INK.upper()
    assert len({line.color for line in panel.lines}) == 3
    assert panel.x == (-2, 1)
    assert panel.y[0] < -8  # the exact map counts
    assert panel.y[1] > 4
    assert panel.names == (subject.NOISE_LABEL, subject.SAMPLE_LABEL)
    assert len(panels(static.one_step_maps(NOISE, MAPS))[0].lines) == 2


@pytest.mark.parametrize(
    ("noise", "maps", "exact", "message"),
    [
        (NOISE, {}, None, "at least one map"),
        (NOISE[:, None], MAPS, None, r"must have shape \(N,\) with N >= 2, got \(4, 1\)"),
        (NOISE, {"naive": NOISE[:3]}, None, r"'naive' must have one sample a noise, \(4,\), got \(3,\)"),
        (NOISE, MAPS, NOISE[:3], r"'exact map of the ODE' must have one sample a noise"),
        (NOISE, {"naive": NOISE.log()}, None, "'naive' has 2 value.s. that are NaN"),
    ],
)
def test_maps_that_cannot_be_drawn(noise, maps, exact, message):
    with refuses(message):
        static.one_step_maps(noise, maps, exact)


# ---- maps in the plane

AROUND = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
QUARTERS = torch.stack([AROUND[:, 1], -AROUND[:, 0]], 1)  # a quarter of a turn to the right


def same_angles(a, b):
    return np.allclose(np.exp(1j * np.radians(a)), np.exp(1j * np.radians(b)), atol=1e-4)


def test_directions_are_seen_from_the_datas_mean():
    away = toydiff.GaussianMixture([[5.0, 1.0]], std=0.5)
    lattice = style.density(away, [torch.tensor([[15.0, 1.0], [-1.0, -8.0]])])  # whose middle is elsewhere
    seen = subject.directions(AROUND + torch.tensor([5.0, 1.0]), lattice)
    assert same_angles(seen, [0, 90, 180, 270])


@pytest.fixture(scope="module")
def planes():
    maps = {"still": AROUND, "turned": QUARTERS}
    return {module: module.one_step_planes(AROUND, maps, RING) for module in (static, interactive)}


@BOTH
def test_a_line_leads_from_each_end_to_the_true_one(module):
    figure = module.one_step_planes(AROUND, {"turned": QUARTERS}, RING, true=AROUND)
    upper, lower = panels(figure)
    lines = [line.xy for line in lower.lines]
    ways = np.concatenate([line[np.isfinite(line).all(1)].reshape(-1, 2, 2) for line in lines])
    assert np.allclose(sorted(ways.tolist()), sorted(torch.stack([QUARTERS, AROUND], 1).tolist()), atol=1e-6)
    assert not upper.lines
    assert [upper.head, lower.head] == ["turned", subject.WAYS_NAME]
    with pytest.raises(ValueError, match="the ends 'true' must be as many as the noise"):
        module.one_step_planes(AROUND, {"turned": QUARTERS}, RING, true=AROUND[:2])


@BOTH
def test_planes_colour_noise_and_end_alike(planes, module):
    found = panels(planes[module])
    upper, turned_upper, lower, turned_lower = found
    [still], [turned] = upper.colors, turned_upper.colors
    assert len(np.unique(still, axis=0)) == 4
    assert np.array_equal(still, lower.colors[0])
    assert np.array_equal(turned, turned_lower.colors[0])
    # noise at 0 degrees, turned by -90, has the colour of what stays at -90, the last of the four
    assert np.allclose(turned[0], still[3], atol=1e-2)
    assert np.array_equal(turned_upper.dots[0].xy, AROUND.numpy())
    assert np.array_equal(turned_lower.dots[0].xy, QUARTERS.numpy())
    assert [panel.head for panel in found] == ["still", "turned", "", ""]
    assert [panel.pictures for panel in found] == [0, 0, 1, 1]
    assert all(panel.equal for panel in found)
    assert upper.x == upper.y == turned_upper.x
    above, below = ("ε₂", "x₂") if module is static else ("the same noise, ε₂", "where it ends, x₂")
    assert [panel.names for panel in found] == [("ε₁", above), ("ε₁", ""), ("x₁", below), ("x₁", "")]


def test_a_point_of_the_plane_names_its_other_end_on_hover(planes):
    _, _, noise, end = planes[interactive].data
    assert same_angles(noise.marker.color, [270, 0, 90, 180])
    assert np.allclose(noise.customdata, QUARTERS)
    assert np.allclose(end.customdata, AROUND)
    assert (noise.marker.cmin, noise.marker.cmax) == (-180, 180)
    assert noise.marker.colorscale[0][1] == noise.marker.colorscale[-1][1]  # a circle
    assert all(planes[interactive].get_subplot(row, col).xaxis.range for row in (1, 2) for col in (1, 2))


@pytest.mark.parametrize(
    ("noise", "ends", "message"),
    [
        (AROUND, {"a": AROUND[:3]}, r"'a' must be as many as the noise, \(4, 2\), got \(3, 2\)"),
        (NOISE, {"a": AROUND}, r"'noise' must have shape \(n, 2\), got \(4,\)"),
        (AROUND, {}, "at least one set of samples"),
    ],
)
def test_planes_that_cannot_be_drawn(noise, ends, message):
    with refuses(message):
        subject.plane_maps(noise, ends, RING)


# ---- the same noise


@pytest.fixture(scope="module")
def clouds():
    one = RING.sample(30, 0)
    return {"lcm": {1: one, 4: one + 0.3}, "pcm": {4: RING.sample(20, 1)}}


@BOTH
def test_the_same_noise_keeps_its_colour(clouds, module):
    found = panels(module.same_noise(clouds, RING, title="T"))
    heads = ["lcm: 1 step<br> ", f"lcm: 4 steps<br>moved by {0.3 * 2**0.5:.2g}", "pcm: 4 steps<br> "]
    assert [panel.head for panel in found] == heads
    assert [len(panel.dots[0].xy) for panel in found] == [30, 30, 20]
    assert np.allclose(found[0].dots[0].xy, clouds["lcm"][1])
    assert np.allclose(found[1].dots[0].xy, clouds["lcm"][4])
    assert np.array_equal(found[0].colors[0], found[1].colors[0])
    assert len(np.unique(found[0].colors[0], axis=0)) > 5
    # the first panel of a row names its axis: a method need not know all numbers of steps
    assert [panel.names[1] for panel in found] == ["x₂", "", "x₂"]


def test_in_plotly_the_lowest_panel_of_a_column_names_its_axis(clouds):
    assert [panel.names[0] for panel in panels(interactive.same_noise(clouds, RING))] == ["x₁", "", "x₁"]


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({}, "nothing to draw"),
        ({"lcm": {}}, "nothing to draw"),
        ({"lcm": {0: torch.zeros(3, 2)}}, "a number of steps of 'lcm'"),
        ({"lcm": {1: torch.zeros(3, 2), 2: torch.zeros(4, 2)}}, "'lcm' must be of the same noise"),
        ({"lcm": {1: torch.zeros(3, 1)}}, r"\(3, 1\)"),
    ],
)
def test_same_noise_refuses(ends, message):
    with refuses(message):
        subject.same_noise_panels(ends, RING)


# ---- curves

CURVES = {
    "ct": [(0.1, 0.5), (10.0, 4.0), (1.0, 1.0)],
    "sct": [(0.1, 0.4, 0.1), (1.0, 0.1, 0.2), (10.0, 0.0, 0.1)],
}


@BOTH
def test_against_noise(module):
    figure = module.against_noise(CURVES, ylabel="variance", note="exact: 0", title="T")
    [panel] = panels(figure)
    assert panel.logs == (True, True)
    assert panel.names == (style.NSR_LABEL, "variance")
    [ct], [sct] = panel.named("ct"), panel.named("sct")
    assert ct.xy.tolist() == [[0.1, 0.5], [1.0, 1.0], [10.0, 4.0]]
    assert sct.xy.tolist() == [[0.1, 0.4], [1.0, 0.1]]  # a logarithm has no 0
    assert [ct.color, sct.color] == [METHODS["ct"].color.upper(), METHODS["sct"].color.upper()]
    if module is static:
        [band] = figure.axes[0].collections
        low, note = band.get_paths()[0].vertices[:, 1].min(), figure.axes[0].get_legend().get_title().get_text()
    else:
        [band] = [trace for trace in figure.data if trace.fill]
        low, note = min(band.y), figure.layout.legend.title.text
    assert low > 0
    assert note == "exact: 0"
    assert legend(figure) == ["ct", "sct"]


def test_jump_errors_run_from_noise_to_data_over_the_edges():
    figure = interactive.jump_errors({"cd": [(0.9, 0.1), (0.1, 0.01), (0.5, 0.0)]}, edges=(0.5,))
    [panel] = panels(figure)
    assert panel.marks[0].xy.tolist() == [[0.1, 0.01], [0.9, 0.1]]
    assert (panel.x, panel.logs) == ((1, 0), (False, True))
    assert [shape.x0 for shape in figure.layout.shapes] == [0.5]


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "nothing to draw"),
        ({"ct": []}, "'ct' must be a table of"),
        ({"ct": [(1.0,)]}, "'ct' must be a table of"),
        ({"ct": [(1.0, 2.0, 3.0, 4.0)]}, "'ct' must be a table of"),
        ({"ct": "abc"}, "'ct' must be a table of"),
        ({"ct": [(1.0, 0.0), (0.0, 1.0)]}, "'ct' has no row whose numbers are finite and above 0"),
        ({"ct": [(1.0, float("nan"))]}, "'ct' has no row whose numbers are finite and above 0"),
    ],
)
def test_curves_that_cannot_be_drawn(curves, message):
    with refuses(message):
        subject.level_curves(curves)
