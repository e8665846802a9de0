"""The figures of the app: the numbers that are drawn are those that were given, and a dark page turns ink and paper around."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import toydiff
from toydiff import measure
from toydiff.plots import interactive, lecture, screen, style

RING = toydiff.mixtures.ring()
VP = toydiff.VP()


@pytest.fixture(scope="module")
def path():
    x = VP.prior((12, 2), 0, dtype=torch.float64)
    return toydiff.solve(RING.denoiser(VP), x, 30)


def row(solver, declared, measured, errors):
    return {"solver": solver, "declared": declared, "measured": measured, "nfe": [5, 10, 20], "error": errors}


def test_work_precision_tells_slopes_or_keeps_them():
    rows = [row("ddim", 1, 0.98, [0.1, 0.05, 0.025]), row("dpm++2m", 2, 2.04, [0.02, 0.005, 0.00125])]
    told = lecture.work_precision(rows)
    assert [trace.name for trace in told.data] == ["ddim: slope 0.98, order 1", "dpm++2m: slope 2.04, order 2"]
    assert list(told.data[1].y) == rows[1]["error"]
    assert told.data[0].line.color == style.look("ddim").color
    kept = lecture.work_precision(rows, slopes=False)
    assert [trace.name for trace in kept.data] == ["ddim", "dpm++2m"]
    rounding = lecture.work_precision(rows, floor=0.01).layout
    assert (rounding.shapes[0].y0, rounding.annotations[-1].y) == (0.01, -2)
    with pytest.raises(ValueError, match="no rows"):
        lecture.work_precision([])


@pytest.mark.parametrize("space", ["x", "y"])
def test_lines_are_the_first_coordinate(path, space):
    figure = lecture.lines({"a": path}, {"a": VP}, space=space, samples=3, reach=5.0)
    curves = [trace for trace in figure.data if trace.line.dash is None]
    assert len(curves) == 3
    if space == "x":
        assert np.allclose(curves[1].y, path.xs[:, 1, 0])
        assert np.allclose(curves[1].x, path.ts)
        assert len(figure.data) == 3
    else:
        kept = torch.exp(VP.lam(path.ts)) <= 5
        assert np.allclose(curves[1].y, (path.xs[:, 1, 0] / VP.sigma(path.ts))[kept])
        assert len(figure.data) == 6  # each with the line that it ends on
    S = measure.straightness(path, normalised=True)
    assert f"S = {style.number(S)}" in figure.layout.annotations[0].text


def test_a_first_order_path_is_on_its_guide_in_y():
    point = toydiff.Empirical(torch.tensor([[1.4, 1.4]], dtype=torch.float64)).denoiser(VP)
    path = toydiff.solve(point, VP.prior((2, 2), 0, dtype=torch.float64), 40, solver="ddim")
    figure = lecture.lines({"a": path}, {"a": VP})
    guide, curve = figure.data[0], figure.data[1]
    assert np.allclose(np.interp(curve.x, guide.x, guide.y), curve.y, atol=1e-9)


def test_lines_refuse(path):
    for changes, said in (
        ({"space": "z"}, "unknown space 'z'"),
        ({"schedules": {}}, "unknown path with a schedule"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"reach": 1e-9}, "fewer than two states"),
        ({"paths": {}}, "at least one trajectory"),
    ):
        settings = {"paths": {"a": path}, "schedules": {"a": VP}} | changes
        with pytest.raises(ValueError, match=said):
            lecture.lines(**settings)


def test_meeting_lines():
    """Two that cross at one time, two that cross in the plane at different times, and parallel ones."""
    data = torch.tensor([[-1.0, 0], [1, 0]], dtype=torch.float64)
    assert measure.meeting(-data, data, within=1e-9).tolist() == [True, True]
    noise = torch.tensor([[1.0, 0], [0, -3.0]], dtype=torch.float64)
    data = torch.tensor([[-1.0, 0], [0, 1.0]], dtype=torch.float64)  # at 0 at times 1/2 and 1/4
    assert measure.meeting(noise, data, within=0.1).tolist() == [False, False]
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    nearest = float(((1 - t) * (data[0] - data[1]) + t * (noise[0] - noise[1])).norm(dim=1).min())
    assert measure.meeting(noise, data, within=nearest + 1e-6).all()
    assert not measure.meeting(noise, data, within=nearest - 1e-6).any()
    assert not measure.meeting(data + 5, data, within=1.0).any()  # parallel
    assert not measure.meeting(data * 1.0, data * 1e-12, within=1.0).any()  # nearest at an end
    with pytest.raises(ValueError, match="within must be a finite number > 0"):
        measure.meeting(noise, data, within=0)
    with pytest.raises(ValueError, match="same shape"):
        measure.meeting(noise[:1], data, within=1)


def test_pairs_mark_the_lines_that_meet():
    noise, data = torch.randn(5, 2), torch.randn(5, 2)
    marks = torch.tensor([True, False, True, False, False])
    figure = lecture.pairs({"a": (noise, data)}, {"a": marks}, RING)
    quiet, loud, *_ = figure.data
    assert np.isfinite(quiet.x).sum() == 6
    assert np.isfinite(loud.x).sum() == 4
    assert np.allclose(loud.x[:2], [noise[0, 0], data[0, 0]])
    assert "2 of 5 lines meet another" in figure.layout.annotations[0].text
    with pytest.raises(ValueError, match="as many data and marks"):
        lecture.pairs({"a": (noise, data[:4])}, {"a": marks}, RING)
    with pytest.raises(ValueError, match="at least one coupling"):
        lecture.pairs({}, {}, RING)


def test_jump_errors_quality_spent_and_images():
    figure = lecture.jump_errors({"cd": [(0.9, 0.1), (0.1, 0.01)]}, edges=(0.5,))
    assert list(figure.data[0].x) == [0.1, 0.9]
    assert len(figure.layout.shapes) == 1
    rows = [{"student": "cd", "steps": n, "nfe": n, "distance_over_floor": 8 / n} for n in (2, 1)]
    figure = lecture.quality(rows)
    [floor] = figure.layout.annotations
    assert floor.text.startswith("floor")
    assert floor.y == 0  # at 1: on a logarithmic axis an annotation stands at an exponent
    assert figure.layout.shapes[0].y0 == 1
    assert list(figure.data[0].x) == [1, 2]
    assert list(figure.data[0].y) == [8, 4]
    with pytest.raises(ValueError, match="no rows"):
        lecture.quality([])
    curve = {"rounds": [1], "median": [0.1], "p95": [0.2]}
    rows = [
        {"method": m, "steps": 10, "rounds": r, "nfe": n, "seconds": 0.1, "seconds_with_cost": 1.0, "cost_per_call": 0.0, "curve": curve}
        for m, r, n in (("sequential", 10, 10), ("picard", 4, 30))
    ]  # fmt: skip
    figure = lecture.spent(rows, cost=0.5)
    assert [list(bar.x) for bar in figure.data] == [[10, 4], [10, 30], [0.1, 0.1], [5.1, 2.1]]
    bars = screen.for_screen(lecture.spent(rows), dark=True).data[0].marker.color
    assert list(bars) == ["#FFFFFF", style.method_look("picard").color]  # black would not be seen
    with pytest.raises(ValueError, match="one number of steps"):
        lecture.spent([*rows, rows[0] | {"steps": 20}])
    figure = lecture.images({"a": torch.rand(3, 8, 6), "b": torch.zeros(3, 8, 6)})
    assert pixels(figure, 1).max() == 0
    for bad, said in ((torch.rand(8, 6), "shape \\(3, H, W\\)"), (torch.full((3, 2, 2), float("nan")), "NaN")):
        with pytest.raises(ValueError, match=said):
            lecture.images({"a": bad})


def scene(n):
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(n))
    return x, x[:5], 0.1 * x[:5]


def test_score_coverage_moves_both_panels():
    shares = {0: [0.0, 0.0], 5: [1.0, 0.5], 9: [1.1, 0.9]}
    figure = lecture.score_coverage({k: scene(k) for k in shares}, shares, RING)
    assert figure.layout.sliders[0].active == 1  # the first with enough at a mode
    stems = figure.data[figure.frames[0].traces[-1]]
    assert np.allclose(stems.y[[1, 4]], [1.0, 0.5])
    assert np.allclose(figure.frames[2].data[-1].y[[1, 4]], [1.1, 0.9])
    assert np.allclose(figure.data[0].x, scene(5)[0][:, 0])
    with pytest.raises(ValueError, match="shares must be given for the updates of the frames"):
        lecture.score_coverage({k: scene(k) for k in shares}, {0: [1.0, 1.0]}, RING)


def test_trajectories_draw_some_lines_and_all_dots(path):
    figure = interactive.trajectories({"a": path}, RING, exact=path.end, lines=4)
    line, rings, dots = figure.data
    assert np.isnan(line.x).sum() == 4
    assert len(rings.x) == 4
    assert len(dots.x) == 12
    with pytest.raises(ValueError, match="lines must be a whole number"):
        interactive.trajectories({"a": path}, RING, lines=0)


# ---- on a screen


def pixels(figure, k=0):
    source = figure.layout.images[k].source.partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def luminance(color):
    channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_solver_is_seen_on_light_and_dark():
    for entry in (toydiff.SOLVERS | toydiff.PARALLEL).values():
        for dark in (False, True):
            color = screen._DARK.get(entry.color, entry.color) if dark else entry.color
            assert contrast(color, screen.DARK_PAPER if dark else screen.PAPER) > 2, (entry.name, dark)
    assert contrast(screen.DARK_INK, screen.DARK_PAPER) > 7
    assert contrast(style.INK, screen.PAPER) > 7


def test_a_dark_figure_turns_ink_and_paper_around(path):
    def made(dark):
        figure = interactive.trajectories({"a": path}, RING, solvers={"a": "ddim"}, exact=path.end)
        return screen.for_screen(figure, dark=dark)

    light, dark = made(False), made(True)
    assert light.layout.paper_bgcolor == screen.PAPER
    assert dark.layout.paper_bgcolor == screen.DARK_PAPER
    assert light.data[0].line.color == "#000000"
    assert dark.data[0].line.color == "#FFFFFF"
    assert dark.data[1].marker.color == screen.DARK_INK
    # high density: dark on white paper, light on a dark page
    bright, dim = pixels(light).astype(int).sum(2), pixels(dark).astype(int).sum(2)
    assert np.corrcoef(bright.ravel(), dim.ravel())[0, 1] < -0.99
    assert (pixels(dark)[0, 0] == [int(screen.DARK_PAPER[k : k + 2], 16) for k in (1, 3, 5)]).all()
    assert light.layout.font.size == dark.layout.font.size == 17
    assert light.layout.height is None


def test_a_methods_colour_stays_in_the_dark(path):
    figure = interactive.trajectories({"a": path}, RING, solvers={"a": "dpm++2m"})
    before = figure.data[0].line.color
    assert screen.for_screen(figure, dark=True).data[0].line.color == before


def test_heads_are_broken_where_they_would_meet():
    cloud = torch.randn(5, 2)
    names = [f"{k}: a long name of a panel, with a number 0.123, and another one 4.56" for k in range(3)]
    figure = screen.for_screen(interactive.samples(dict.fromkeys(names, cloud), RING))
    lines = [note.text.split("<br>") for note in figure.layout.annotations]
    assert all(len(head) == 3 for head in lines)
    assert [" ".join(head) for head in lines] == names
    alone = screen.for_screen(interactive.samples({names[0]: cloud}, RING))
    assert alone.layout.annotations[0].text == names[0]
    assert alone.layout.margin.t < figure.layout.margin.t


def test_letters_have_a_size(path):
    with pytest.raises(ValueError, match="size must be a whole number"):
        screen.for_screen(interactive.samples({"a": RING.sample(9, 0)}, RING), size=0)
