"""Paths and points in the plane: states in their places, measured numbers in heads, fixed axes."""

import json
import re

import numpy as np
import pytest
import torch
from cases import RING
from panels import BOTH, legend, marks, panels, pixels, refuses

import toydiff
from toydiff import measure
from toydiff.catalog import METHODS
from toydiff.plots import interactive, on_screen, static, style
from toydiff.plots import paths as subject
from toydiff.solvers.registry import SOLVERS

VP, LINEAR = toydiff.VP(), toydiff.Linear()
FLOW = METHODS["rectified-flow"].color


@pytest.fixture(scope="module")
def paths():
    x = VP.prior((5, 2), 0, dtype=torch.float64)
    D = RING.denoiser(VP)
    return {"few": toydiff.solve(D, x, 4, solver="ddim"), "many": toydiff.solve(D, x, 150, solver="heun")}


@pytest.fixture(scope="module")
def exact(paths):
    return paths["many"].end + 0.1


@pytest.fixture(scope="module")
def drawn(paths, exact):
    """Both figures of the same paths; `few` is solved by ddim, of `many` nothing is said."""
    figures = {}
    for module in (static, interactive):
        figures[module] = module.trajectories(paths, RING, solvers={"few": "ddim"}, exact=exact, title="a title")
    return figures


@pytest.fixture(scope="module")
def rounds():
    """An exact flow, whose paths bend, and the straight paths to the same ends."""
    x = LINEAR.prior((6, 2), 0, dtype=torch.float64)
    bent = toydiff.solve(RING.denoiser(LINEAR), x, 20, solver="euler", grid="uniform")
    part = (1 - bent.ts)[:, None, None]
    straight = toydiff.Trajectory(bent.ts, x + part * (bent.end - x), bent.end.expand(20, 6, 2), 20, 20, 0.0)
    return {"round 0": bent, "round 1": straight}


@pytest.fixture(scope="module")
def one_step(rounds):
    off = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.9], dtype=torch.float64)[:, None]
    return {"round 0": torch.zeros(6, 2, dtype=torch.float64), "round 1": rounds["round 1"].end + off}


def are_paths(lines, path):
    xs = style.drawn(path)[1]
    return len(lines) == xs.shape[1] and all(np.allclose(a.xy, xs[:, b], atol=1e-6) for b, a in enumerate(lines))


def moves_with_its_slider(figure, paths, traces):
    """Every frame has the states of its time, and none an axis' range, which would move the axes."""
    steps, times = figure.layout.sliders[0].steps, subject.frame_times(paths)
    assert (times[0], times[-1]) == (1, 0)
    assert len(figure.frames) == len(steps) == len(times)
    assert [step.args[0][0] for step in steps] == [frame.name for frame in figure.frames]
    assert figure.layout.sliders[0].active == len(steps) - 1
    for frame, t in list(zip(figure.frames, times, strict=True))[:: max(1, len(times) // 8)]:
        assert frame.layout.xaxis.range is None
        assert list(frame.traces) == traces
        for data, path in zip(frame.data, paths.values(), strict=True):
            k = int((path.ts >= t).sum()) - 1
            assert np.allclose(np.stack([data.x, data.y], 1), path.xs[k], atol=1e-6)


# ---- trajectories


@BOTH
def test_trajectories_are_where_the_states_are(drawn, paths, exact, module):
    found = panels(drawn[module])
    assert [panel.head for panel in found] == list(paths)
    for panel, path, color in zip(found, paths.values(), (SOLVERS["ddim"].color, style.BLUE), strict=True):
        assert panel.equal
        assert panel.pictures == 1
        # on a screen the first panel names the upright axis for all
        assert panel.names == ("x₁", "x₂" if panel is found[0] or module is static else "")
        assert panel.x == found[0].x
        assert panel.x[0] < float(path.xs.min()) < float(path.xs.max()) < panel.x[1]
        assert are_paths(panel.lines, path)
        ring, sample = sorted(panel.dots, key=lambda mark: not mark.open)
        assert ring.color not in {panel.lines[0].color, sample.color}  # else an end in its ring is not seen
        assert {mark.color for mark in [*panel.lines, sample]} == {color.upper()}
        assert np.allclose(sample.xy, path.end)
        assert np.allclose(ring.xy, exact)
        assert ring.name == "exact end"
    assert legend(drawn[module]).count("exact end") == 1


def test_trajectories_move_in_time(drawn, paths):
    moves_with_its_slider(drawn[interactive], paths, [2, 5])
    assert 30 < len(drawn[interactive].frames) <= on_screen.MOST_FRAMES + 5


def test_a_sample_has_its_line_its_ring_and_its_dot(paths, exact):
    figure = interactive.trajectories({"a": paths["few"]}, RING, exact=exact, lines=2)
    [panel] = panels(figure)
    rings, dots = panel.dots
    assert (len(panel.lines), len(rings.xy), len(dots.xy)) == (2, 2, 2)
    assert {len(frame.data[0].x) for frame in figure.frames} == {2}
    with refuses("lines must be a whole number"):
        interactive.trajectories(paths, RING, lines=0)


def test_planes_that_are_compared_are_zoomed_together(drawn, rounds):
    for figure in (drawn[interactive], interactive.reflow(rounds, RING)):
        assert (figure.layout.xaxis2.matches, figure.layout.yaxis2.matches) == ("x", "y")
        assert figure.layout.xaxis.matches is None


def test_noise_as_wide_as_the_data_at_all_times():
    ve = toydiff.schedule("ve")
    path = toydiff.solve(RING.denoiser(ve), ve.prior((8, 2), 0, dtype=torch.float64), 4)
    seen = subject.at_data_scale(path, ve)
    assert torch.equal(seen.end, path.end)
    assert float(path.xs.abs().max()) > 50
    assert float(seen.xs.abs().max()) < 5
    # where alpha^2 + sigma^2 = 1 nothing changes
    torch.testing.assert_close(subject.at_data_scale(path, VP).xs, path.xs, rtol=1e-9, atol=0)


@BOTH
def test_trajectories_that_cannot_be_drawn(paths, module):
    with refuses("at least one trajectory"):
        module.trajectories({}, RING)
    end = toydiff.solve(RING.denoiser(VP), paths["few"].xs[0], 4, keep="end")
    with refuses("keep='path'"):
        module.trajectories({"a": end}, RING)
    with refuses("a GaussianMixture or a Density"):
        module.trajectories(paths, "ring")


def test_a_page_needs_no_network_and_waits_for_the_reader(drawn):
    html = interactive.page(drawn[interactive])
    assert len(html) > 3_000_000  # plotly.js is inside
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", html)
    assert html.count("Plotly.animate") == on_screen.PAGE_KEYS.count("Plotly.animate") == 1  # nothing plays on load
    assert '"showSendToCloud": false' in html  # and nothing offers to upload it


def test_a_saved_page_has_its_claim_and_its_words(drawn):
    html = interactive.page(drawn[interactive], title="a < b", words="**One step** ends *there*, x < 1.")
    before, _, after = re.split(r"(<div.*</div>)", html.partition("<body>")[2], flags=re.DOTALL)
    assert before.strip() == "<h1>a &lt; b</h1>"
    assert "<p><b>One step</b> ends <i>there</i>, x &lt; 1.</p>" in after
    assert "<title>a &lt; b</title>" in html
    assert "ArrowRight" in after


def test_an_embedded_piece_is_small_and_has_all_frames(drawn):
    html = interactive.embedded(drawn[interactive], "paths")
    assert len(html) < 300_000  # plotly.js is not inside
    before, _, after = html.partition("<script>")
    assert 'id="paths"' in before
    assert "JavaScript" in before  # what is seen where nothing runs
    figure = json.loads(re.search(r"newPlot\(place, (.*)\);", after)[1])
    assert len(figure["frames"]) == len(drawn[interactive].frames)
    assert len(figure["data"]) == len(drawn[interactive].data)
    assert not figure["config"]["showSendToCloud"]
    assert "</b>" not in after  # nothing in the figure can end the script


def test_a_slider_runs_over_clouds_of_samples():
    clouds = {"1": torch.zeros(3, 2), "2": torch.ones(3, 2)}
    figure = interactive.samples(clouds, RING, colors=["red"] * 3, prefix="g = ", active=1)
    assert [float(frame.data[0].x[0]) for frame in figure.frames] == [0, 1]
    assert float(figure.data[-1].x[0]) == 1
    assert [step.label for step in figure.layout.sliders[0].steps] == list(clouds)
    assert figure.layout.sliders[0].active == 1
    with refuses("3 points, got 1 colors"):
        interactive.samples(clouds, RING, colors=["red"])
    with refuses("0 to 1, got 2"):
        interactive.samples(clouds, RING, active=2)


def test_the_background_picture_is_the_density(paths):
    lopsided = toydiff.mixtures.random_mixture(3)
    figure = interactive.trajectories({"a": paths["few"]}, lopsided)
    lattice = style.as_density(lopsided, [paths["few"].xs])
    pale, dark = 1.0, int(style.DENSITY_SHADES[1][1:3], 16) / 255
    assert np.allclose(pixels(figure)[::-1, :, 0], pale + lattice.shade * (dark - pale), atol=1 / 255)
    [image] = figure.layout.images
    assert image.layer == "below"
    assert (image.x, image.x + image.sizex) == pytest.approx(lattice.extent[:2])


# ---- reflow


@BOTH
def test_reflow_measures_in_its_heads(rounds, one_step, module):
    figure = module.reflow(rounds, RING, one_step={"round 1": one_step["round 1"]})
    first, second = panels(figure)
    bent = measure.straightness(rounds["round 0"], normalised=True)
    assert bent > 0.1
    assert first.head == f"round 0<br>S = {bent:.2g} (0: straight)"
    # 0.3 and 0.9 in both dimensions, for two of six: sqrt(2 (0.09 + 0.81) / 6)
    assert second.head.endswith(f"(0: straight), one-step error {0.3**0.5:.2g}")
    assert float(second.head.split("S = ")[1].split()[0]) < 1e-20
    for panel, path in zip((first, second), rounds.values(), strict=True):
        assert panel.equal
        assert panel.pictures == 1
        assert are_paths(panel.lines, path)
        assert {mark.color for mark in panel.lines} == {FLOW.upper()}
        [sample] = [mark for mark in panel.dots if not mark.open]
        assert np.allclose(sample.xy, path.end)
    # rings of the second panel only have their place in the legend all the same
    assert not [mark for mark in first.dots if mark.open]
    [ring] = [mark for mark in second.dots if mark.open]
    assert np.allclose(ring.xy, one_step["round 1"])
    assert legend(figure).count("after one step") == 1
    assert first.x == second.x


@BOTH
def test_the_frame_holds_the_ends_after_one_step(rounds, module):
    far = {"round 0": torch.full((6, 2), 9.0, dtype=torch.float64)}
    assert panels(module.reflow(rounds, RING, one_step=far))[0].x[1] > 9


def test_reflow_moves_in_time_measures_all_and_draws_some(rounds, one_step):
    whole, some = (interactive.reflow(rounds, RING, one_step=one_step, lines=lines) for lines in (None, 2))
    moves_with_its_slider(whole, rounds, [2, 5])
    assert len(whole.frames) == 21
    for all_, few in zip(panels(whole), panels(some), strict=True):
        assert few.head == all_.head
        assert (len(all_.lines), len(few.lines)) == (6, 2)
        assert len(few.dots[-1].xy) == 2
    with refuses("lines must be a whole number"):
        interactive.reflow(rounds, RING, lines=0)


@BOTH
def test_a_reflow_that_cannot_be_drawn(rounds, module):
    bad = torch.zeros(5, 2, dtype=torch.float64)
    for paths, one, message in (
        ({}, {}, "at least one trajectory"),
        (rounds, {"round 2": bad}, "unknown round with ends after one step 'round 2' .did you mean"),
        (rounds, {"round 0": bad}, r"'round 0' must have the shape of its samples, \(6, 2\), got \(5, 2\)"),
    ):
        with refuses(message):
            module.reflow(paths, RING, one_step=one)


# ---- rescaled


@pytest.fixture(scope="module")
def before_and_after():
    """Many modes, and one data point, for which the ODE is first-order."""
    x = VP.prior((3, 2), 1, dtype=torch.float64)
    point = toydiff.Empirical(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    return {
        "before": toydiff.solve(RING.denoiser(VP), x, 20, solver="ddim"),
        "after": toydiff.solve(point.denoiser(VP), x, 20, solver="ddim"),
    }


def test_a_first_order_path_is_straight_in_y_and_bent_in_x(before_and_after):
    after = before_and_after["after"]
    snr, y = subject.rescale(after, VP, 3.0)
    _, guide = subject.extended(snr.numpy(), y.xs[..., 0].numpy())
    assert float(snr.max()) <= 3
    assert np.allclose(y.xs[0, :, 0], guide[0], atol=1e-9)
    # the middle of the path in x against t is far from the chord; a mixture's path is bent in y too
    x = after.xs[..., 0]
    assert float((x[len(x) // 2] - (x[0] + x[-1]) / 2).abs().max()) > 0.1
    snr, y = subject.rescale(before_and_after["before"], VP, 3.0)
    _, guide = subject.extended(snr.numpy(), y.xs[..., 0].numpy())
    assert np.abs(y.xs[0, :, 0].numpy() - guide[0]).max() > 0.1


def test_rescale_is_x_over_sigma(paths):
    snr, y = subject.rescale(paths["few"], VP, 50.0)
    ts = paths["few"].ts[: len(snr)]
    assert torch.allclose(snr, VP.alpha(ts) / VP.sigma(ts))
    assert torch.allclose(y.xs * VP.sigma(ts)[:, None, None], paths["few"].xs[: len(snr)])
    with refuses("fewer than two states"):
        subject.rescale(paths["few"], VP, 1e-6)


@BOTH
def test_rescaled_panels_and_what_they_measure(before_and_after, module):
    S, C = measure.straightness, measure.first_orderness
    bent = [S(path, normalised=True) for path in before_and_after.values()]
    varying = [C(path, VP, normalised=True) for path in before_and_after.values()]
    assert varying[0] > 0.01
    assert varying[1] < 1e-20  # one data point: first order, and yet not straight in t
    assert bent[1] > 0.1
    figure = module.rescaled(before_and_after, VP, dict.fromkeys(before_and_after, RING), measured=True)
    found = panels(figure)
    for (name, path), s, c in zip(before_and_after.items(), bent, varying, strict=True):
        plane, time, straight = found[:3]
        found = found[3:]
        assert plane.head == name
        assert plane.equal
        assert time.head == f"x₁ against t<br>S = {s:.2g} (0: straight)"
        assert straight.head.endswith(f"(dashed: straight)<br>C = {style.number(c)} (0: first-order)")
        assert (time.x, straight.x) == ((1, 0), (0, 3))
        assert (time.names, straight.names) == ((style.TIME_LABEL, "x₁"), (style.SNR_LABEL, "y₁ = x₁/σ"))
        assert are_paths(plane.lines, path)
        assert len({line.color for line in plane.lines}) == 3
        second = [line for line in time.lines if line.color == plane.lines[1].color]
        assert np.allclose(second[0].xy[[0, -1]], [[1, path.xs[0, 1, 0]], [0, path.end[1, 0]]])
        guide, curve = straight.lines[:2]
        assert guide.dash == "dash"
        off = np.abs(np.interp(curve.xy[:, 0], *guide.xy.T) - curve.xy[:, 1]).max()
        assert (off < 1e-6) == (name == "after")


def test_rescaled_moves_in_time(before_and_after):
    after = {"after": before_and_after["after"]}
    figure = interactive.rescaled(after, VP, {"after": RING})
    assert [panel.head.count("<br>") for panel in panels(figure)] == [0, 0, 0]  # nothing is measured
    assert all(len(frame.data) == len(frame.traces) == 3 for frame in figure.frames)
    plane, time, straight = figure.frames[-1].data
    assert np.allclose(plane.x, after["after"].end[:, 0])
    assert np.allclose(time.y, after["after"].end[:, 0])
    assert max(straight.x) <= 3  # it waits where it left the frame


@BOTH
def test_rescaled_needs_a_background_for_each(paths, module):
    with refuses("no background for 'few', 'many'"):
        module.rescaled(paths, VP, {})


# ---- lines


def test_lines_are_the_first_coordinate_in_x_and_in_y(before_and_after):
    path = before_and_after["before"]
    figure = interactive.lines({"a": path}, {"a": VP}, samples=2, reach=5.0)
    above, below = panels(figure)
    assert len(above.lines) == 2
    assert np.allclose(above.lines[1].xy, np.stack([path.ts, path.xs[:, 1, 0]], 1))
    assert f"S = {style.number(measure.straightness(path, normalised=True))}" in above.head
    curves = [line for line in below.lines if line.dash == "solid"]
    assert (len(curves), len(below.lines)) == (2, 4)  # each with the line that it ends on
    assert legend(figure) == [subject.GUIDE_NAME]
    kept = torch.exp(VP.lam(path.ts)) <= 5
    assert np.allclose(curves[1].xy[:, 1], (path.xs[:, 1, 0] / VP.sigma(path.ts))[kept])
    assert f"C = {style.number(measure.first_orderness(path, VP, normalised=True))}" in below.head


def test_a_first_order_path_is_on_its_guide_in_y(before_and_after):
    _, below = panels(interactive.lines({"a": before_and_after["after"]}, {"a": VP}))
    guide, curve = below.lines[:2]
    assert np.allclose(np.interp(curve.xy[:, 0], *guide.xy.T), curve.xy[:, 1], atol=1e-9)


def test_lines_refuse(paths):
    for changes, message in (
        ({"schedules": {}}, "unknown path with a schedule"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"reach": 1e-9}, "fewer than two states"),
        ({"paths": {}}, "at least one trajectory"),
    ):
        settings = {"paths": {"a": paths["few"]}, "schedules": {"a": VP}} | changes
        with refuses(message):
            interactive.lines(**settings)


# ---- points


def test_samples_have_the_colour_of_their_solver():
    cloud = torch.randn(20, 2, dtype=torch.float64)
    ours, true = panels(static.samples({"ours": cloud, "true": cloud + 1}, RING, solvers={"ours": "ddim"}))
    assert np.array_equal(ours.marks[0].xy, cloud.numpy())
    assert np.array_equal(true.marks[0].xy, cloud.numpy() + 1)
    assert ours.equal
    assert [panel.marks[0].color for panel in (ours, true)] == [SOLVERS["ddim"].color, style.BLUE]
    with refuses(r"must have shape \(n, 2\), got \(4, 3\)"):
        static.samples({"a": torch.zeros(4, 3)}, RING)
    with refuses("a GaussianMixture or a Density"):
        static.samples({"a": torch.zeros(4, 2)}, "ring")


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
    which = torch.tensor([True, False, True, False, False])
    figure = interactive.pairs({"a": (noise, data)}, {"a": which}, RING)
    quiet, loud = (marks(trace) for trace in figure.data[:2])
    assert (len(quiet), len(loud)) == (3, 2)
    assert np.allclose(loud[0].xy, torch.stack([noise[0], data[0]]))
    assert panels(figure)[0].head == "a<br>2 of 5 lines meet"
    with refuses("as many data and marks"):
        interactive.pairs({"a": (noise, data[:4])}, {"a": which}, RING)
    with refuses("at least one coupling"):
        interactive.pairs({}, {}, RING)
