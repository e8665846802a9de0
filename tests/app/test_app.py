"""The app's pages without a browser: every control at its extremes, links, the code under a figure, mixtures as words,
and many sessions at once.
"""

import collections
import dataclasses
import importlib
import json
import random
import re
import subprocess
import sys
import threading
import time
import types

import browser
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

pytest.importorskip("streamlit")
sys.path.insert(0, str(browser.APP))

from streamlit.testing.v1 import AppTest

import toydiff
from toydiff import weights
from toydiff.cli import app as cli_app
from toydiff.cli import command as cli

from lessons import LESSONS
from screen import lesson as frame
from screen import turns, visitors
from screen.controls import Mixture, Number
from screen.mixtures import MOST, code_of, components_of, mixture_of, word_of

BY_ID = {lesson.id: lesson for lesson in LESSONS}
CHART = "toydiff_chart"
frame.PICTURE_FIRST = 0.0


@pytest.fixture(autouse=True)
def main_module():
    """Streamlit's tests put the page in the place of __main__, from which other tests start processes."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


def page(id_):
    from lessons import LESSONS
    from screen.lesson import show

    show(next(lesson for lesson in LESSONS if lesson.id == id_))


def opened(id_, **parameters):
    """A page as a link with these parameters opens it."""
    at = AppTest.from_function(page, kwargs={"id_": id_}, default_timeout=120)
    for name, value in parameters.items():
        at.query_params[name] = list(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return at.run()


def drawn(at):
    """Whether there is a figure, and nothing that should not be there."""
    assert not at.exception, at.exception[0].value
    assert not at.warning, at.warning[0].value
    return bool(figures(at))


def said(alerts):
    """What alerts say, as a reader reads it."""
    return [re.sub(r"\\(?=[^\w\s])", "", alert.value) for alert in alerts]


def figures(at):
    """The figures on the page, as the browser gets them."""
    sent = [json.loads(part.proto.bytes) for part in at.get("bidi_component") if part.proto.component_name == CHART]
    return [one["figure"] for one in sent if one["figure"]]


# ---- the lessons as they are described


def test_lessons_keep_to_the_plan():
    assert len(BY_ID) == len(LESSONS)
    for lesson in LESSONS:
        assert 1 <= len(lesson.controls) <= 5
        assert len(lesson.title) <= 75  # one line on a projector
        assert lesson.equation
        assert lesson.source
        names = {control.name: control for control in lesson.controls}
        assert len(names) == len(lesson.controls)
        for title, state in lesson.presets.items():
            for name, value in state.items():
                texts = [str(v) for v in value] if isinstance(value, list) else [str(value)]
                assert names[name].texts(names[name].read(texts)) == texts, title
    with pytest.raises(ValueError, match="6 controls; a page has 5 at most"):
        dataclasses.replace(LESSONS[0], controls=(*LESSONS[0].controls, LESSONS[1].controls[2]))


@pytest.mark.slow
@pytest.mark.parametrize("id_", BY_ID)
def test_default_view_is_complete(id_):
    at = opened(id_)
    lesson = BY_ID[id_]
    assert drawn(at)
    assert at.header[0].value == lesson.title
    assert not at.error
    assert at.latex[0].value
    asked = {f"**{lesson.ask[0]}**", lesson.ask[1]}
    texts = [m.value for m in at.markdown]
    assert asked <= set(texts)
    words = [text for text in texts if len(text) > 60 and text not in asked]
    assert len(words) == 1
    assert len(re.findall(r"[.?!](?= |$)", words[0])) >= 2  # sentences
    assert len(words[0]) < 520


ABSURD = ("model", "prompt")
"""Controls that take any text, and whose extremes no model is called."""


def extreme_or_random(control, k, rng):
    """The k-th extreme; where there are fewer, some options. A number stays small then: large ones take long."""
    if k < len(control.extremes):
        return control.extremes[k]
    if isinstance(control, Number):
        return control.options[0]
    options = list(toydiff.MIXTURES if isinstance(control, Mixture) else control.options)
    return tuple(rng.sample(options, 2)) if isinstance(control.default, tuple) else rng.choice(options)


def cannot_be(id_, state):
    """Whether the page says, in one line, that these values do not go together."""
    return id_ == "tokens" and state["source"] == "uniform" and state["samplers"] == ("maskgit",)


@pytest.fixture
def few_steps(monkeypatch):
    """The lesson on orders with short runs: all solvers at once are one of its extremes."""
    lesson = importlib.import_module("lessons.orders")
    kept = lesson.truth, lesson.curve, frame._picture
    monkeypatch.setattr(lesson, "STEPS", (5, 10, 20))
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("id_", BY_ID)
def test_every_control_at_its_extremes(id_, few_steps):
    """All at their smallest, then all at their largest, then what is left beside options drawn at random."""
    lesson, rng = BY_ID[id_], random.Random(id_)
    together = [control for control in lesson.controls if control.name not in ABSURD]
    for k in range(max(len(control.extremes) for control in together)):
        state = {control.name: extreme_or_random(control, k, rng) for control in together}
        at = opened(id_, **state)
        assert drawn(at) != cannot_be(id_, state), state
        assert len(at.error) == cannot_be(id_, state)
    for control in lesson.controls:
        for value in control.extremes if control.name in ABSURD else ():
            at = opened(id_, steps=2, **{control.name: value})
            assert drawn(at) or at.error or at.info, (control.name, value)
        if isinstance(control.default, tuple):
            at = opened(id_).multiselect(key=f"{id_}.{control.name}").set_value([]).run()
            assert not at.exception
            assert "choose at least one" in said(at.error)[0]


def test_what_draws_in_the_browser_is_what_plotly_itself_carries():
    """Another plotly in constraints.txt needs its own file beside the app."""
    from plotly.offline import get_plotlyjs_version

    text = (browser.APP / "screen" / "plotly" / "plotly-cartesian.min.js").read_text()
    assert re.search(r"plotly\.js \(cartesian - minified\) v(\S+)", text)[1] == get_plotlyjs_version()


@pytest.mark.slow
def test_as_many_figures_are_kept_as_are_said():
    """The oldest goes when there are more; the newest is there for everyone."""
    made = []
    lesson = dataclasses.replace(
        BY_ID["paths"],
        id="counted",
        controls=BY_ID["paths"].controls[-1:],
        figure=lambda steps: (made.append(steps), (go.Figure(), [{"steps": steps}]))[1],
    )
    frame._picture.cache_clear()
    many = range(frame.REMEMBERED + 5)
    for steps in [*many, many[-1], many[0]]:
        frame._picture(lesson, (steps,), False)
    assert made == [*many, 0]
    frame._picture.cache_clear()


@pytest.mark.slow
def test_words_say_what_was_measured():
    """Of states in which the lesson is another one than at first."""

    def words(id_, **changes):
        lesson = BY_ID[id_]
        chosen = {c.name: c.value(changes.get(c.name, c.default)) for c in lesson.controls}
        rows = lesson.figure(**chosen)[1]
        return rows, lesson.words(rows)

    assert "times as far" in words("paths")[1]
    assert "times" not in words("paths", a="ddim", b="ddim")[1]
    assert "nothing to decide" in words("paths", mixture="0,0,1,1")[1]
    assert "The noise added by ddpm on the way makes another sample" in words("paths", a="ddpm")[1]
    rows, text = words("reflow", mixture="moons", paths=192)
    assert rows[0]["own_pairs_that_meet"] > 0
    assert f"of which {rows[0]['own_pairs_that_meet']} meet" in text
    rows, text = words("picard", view="cost", steps=2)
    assert "**sequential** needs" not in text
    assert "nothing is gained" in text
    rows, text = words("picard", sampler="parareal", steps=64)
    assert "all 8 blocks" in text
    assert "8 sweeps always suffice" in text
    rows, text = words("consistency", view="variance")
    assert min(abs(row["nsr"] - 1) for row in rows) < 1e-6
    assert "Beside each name" not in words("digits", view="quality", students=("cd",))[1]
    assert "none meets another" in words("reflow", paths=6)[1]
    ends = BY_ID["orders"].presets["The ends of the grid lower the order"]
    assert (
        "Below their order here"
        in words("orders", **{k: v if isinstance(v, str) else tuple(v) for k, v in ends.items()})[1]
    )
    rows, text = words("tokens")
    assert rows[0]["mismatch"] == pytest.approx(1 / 16, abs=1e-12)
    assert f"{rows[0]['drew_both_at_once']} drew both bits in one step, and {rows[0]['differ']} end different" in text
    assert "probability **0**, exactly" in words("tokens", samplers=("maskgit",), steps=2)[1]
    assert "may jump again" in words("tokens", source="uniform")[1]
    with pytest.raises(ValueError, match="maskgit cannot start from the source uniform"):
        words("tokens", samplers=("maskgit",), source="uniform")
    rows, text = words("grids", grids=("uniform", "lambda"), g=3, steps=3)
    assert f"**{min(row['error'] for row in rows):.2g}**" in text
    assert "Set guidance to 1" in text
    rows, text = words("halving", models=("teacher",), steps=2, noises=200)
    assert f"**teacher** in 2 calls ends {rows[0]['rms_from_exact']:.2g} from" in text
    assert "million" not in text
    rows, text = words("clips", steps=("1", "4"))
    [teacher], stored = (weights.read_about(id_)["rows"] for id_ in ("clips-teacher", "clips-animatelcm"))
    four = next(row for row in stored if row["steps"] == 4)
    assert rows[2]["nfe"] == four["nfe"] == 4
    assert (
        rows[2]["velocity_times_teacher"] == four["parts"]["velocity"]["value"] / teacher["parts"]["velocity"]["value"]
    )
    assert f"**{rows[2]['frame_times_teacher']:.2f}** times the teacher's" in text
    assert "makes 50 calls, the student 1 or 4" in text
    assert "trained on single frames alone" in words("clips", steps=("1",), style="outlined")[1]
    rows, text = words("lines", mixture="0,0,0.02,1", schedule="linear")
    assert f"C = {rows[1]['C']:.2g}" in text


def test_without_the_second_score_each_particle_is_moved_by_its_own_noise():
    lesson = importlib.import_module("lessons.scores")
    on, places, z = toydiff.VP(), torch.randn(16, 2).double(), torch.randn(16, 2).double()
    particles, psi = lesson.Particles(places, on), toydiff.mixture("ring").denoiser(on)
    t, eps = torch.linspace(0.1, 0.9, 16).double(), torch.randn(16, 2).double()
    draws = types.SimpleNamespace(uniform=lambda *_: t, normal=lambda *_: eps)
    lesson.loss_of("sds: no second score", particles, psi, None, z, draws).backward()
    moved = (on.alpha(t) / on.sigma(t))[:, None] * (psi(on.mix(places, eps, t), t).eps - eps)
    torch.testing.assert_close(16 * particles.theta.grad, moved, rtol=0, atol=1e-9)


# ---- what a page says of what it shows


def chosen_of(id_, **changes):
    lesson = BY_ID[id_]
    return {c.name: c.value(changes.get(c.name, c.default)) for c in lesson.controls}


def opening(figure):
    """The label of the frame that a figure opens with, after a check that the figure shows this frame's states."""
    slider = figure.layout.sliders[0]
    frame = figure.frames[slider.active]
    for trace, data in zip(frame.traces, frame.data, strict=True):
        for axis in "xy":
            assert as_floats(figure.data[trace][axis]) == pytest.approx(as_floats(data[axis]), abs=1e-5, nan_ok=True)
    return slider.steps[slider.active].label


def as_floats(values):
    return [float("nan") if v is None else float(v) for v in values]


def points(trace):
    return torch.tensor([as_floats(trace.x), as_floats(trace.y)]).T


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id_", "changes"),
    [
        ("paths", {}),
        ("paths", {"schedule": "ve", "b": "heun"}),
        ("reflow", {"paths": 192}),
        ("picard", {}),
        ("picard", {"sampler": "parareal", "steps": 64}),
        ("scores", {"updates": 80}),
        ("scores", {"updates": 20, "method": "sds: no second score"}),
        ("adversarial", {}),
        ("adversarial", {"fault": "shifted", "size": 20}),
    ],
)
def test_the_words_hold_for_the_frame_that_the_page_opens_with(id_, changes):
    """Numbers of the words, found again in the marks of that frame."""
    lesson = BY_ID[id_]
    figure, rows = lesson.figure(**chosen_of(id_, **changes))
    at, text = opening(figure), lesson.words(rows)
    marked = [t for t in figure.data if t.type == "scatter" and "markers" in (t.mode or "")]
    rings = [t for t in marked if "open" in str(t.marker.symbol)]
    for ring in rings:  # a ring without a dot would read as an error
        on = [t for t in marked if t.mode == "markers" and t.xaxis == ring.xaxis and t not in rings]
        assert {len(t.x) for t in on} == {len(ring.x)}, ring.name
    if id_ in ("paths", "reflow"):
        assert float(at) == 0
        dots = [t for t in figure.data if (t.name or "").startswith("state")]
        off = [float((points(a) - points(b)).square().sum(1).mean().sqrt()) for a, b in zip(dots, rings, strict=True)]
        if id_ == "paths":
            for row, error in zip(rows, off, strict=True):
                assert row["rms_error"] == pytest.approx(error, rel=1e-3)
                assert f"{error:.2g}" in text
        else:  # of 256 particles, of which 192 are drawn
            assert [row["one_step_error"] for row in rows] == pytest.approx(off, rel=0.3)
            assert text.startswith(f"**One step** ends {rows[0]['one_step_error']:.2g}")
    elif id_ == "picard":
        assert f"after sweep {at}," in text
        median = 10 ** float(figure.data[0].z[int(at)][-1])
        assert (median <= 0.01) == ("is within" in text)
    elif id_ == "adversarial":
        assert text.startswith(f"On show: NSR {at}.")
        _, generator, _, average = (points(trace) for trace in figure.data)
        slope = torch.gradient(average[:, 1], spacing=float(average[1, 0] - average[0, 0]))[0]
        moved = float(generator[slope.abs() > 0.05, 1].sum() / generator[:, 1].sum())
        assert f"**{moved:.0%}** of the generator's samples" in text
    else:
        assert f"after {at} updates" in text
        found = toydiff.measure.modes(toydiff.mixture("ring"), points(figure.data[0]).double())
        assert f"{found.coverage:.0%} of the modes are found, and {found.outside:.0%} of the particles" in text


@pytest.mark.slow
def test_the_stairs_of_parareal_are_its_blocks():
    figure, rows = BY_ID["picard"].figure(**chosen_of("picard", sampler="parareal", steps=64))
    [stairs] = [t for t in figure.data if t.showlegend and "guaranteed" in (t.name or "")]
    assert stairs.name == "guaranteed: the first k blocks"
    assert list(stairs.x[::2][:3]) == [0.5, 8.5, 16.5]
    assert "8 blocks of 8 steps" in BY_ID["picard"].words(rows)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4, 25])
def test_the_words_on_digits_hold_for_every_student(steps):
    """How near each is to the teacher's digits, found again in the images; who adds noise between steps is far off."""
    lesson = importlib.import_module("lessons.digits")
    _, rows = BY_ID["digits"].figure(**chosen_of("digits", steps=steps, students=lesson.STUDENTS))
    text, teacher = BY_ID["digits"].words(rows), lesson.sample("teacher", 25, 0)[0].numpy().ravel()
    near = {
        name: float(np.corrcoef(teacher, lesson.sample(name, steps, 0)[0].numpy().ravel())[0, 1])
        for name in lesson.STUDENTS
    }
    first, last = max(near, key=near.get), min(near, key=near.get)
    assert f"by {near[first]:.2f} ({first}) down to {near[last]:.2f} ({last})" in text
    noisy = {row["student"] for row in rows if row["adds_noise"]}
    assert noisy == (
        set()
        if steps == 1
        else {"cd", "ct", "ect", "sct", "lcm", "vsd", "swiftbrush", "dmd", "dmd2"} | {"sim", "adversarial"}
    )
    assert ("they draw other digits" in text) == bool(noisy)
    if steps >= 4:
        assert max(near[name] for name in noisy) < min(near[name] for name in near if name not in noisy)


def test_the_grids_on_show_are_those_that_are_solved_on():
    """Guidance spreads predictions, and the shifted grids go by it."""
    chosen = chosen_of("grids", g=8, grids=("shifted-lambda",))
    figure, _ = BY_ID["grids"].figure(**chosen)
    lesson = importlib.import_module("lessons.grids")
    D, x, cond, _ = lesson.exact_ends(chosen["mixture"], chosen["schedule"], 8)
    path = toydiff.solve(D, x, chosen["steps"], grid="shifted-lambda", cond=cond, guidance_scale=8.0)
    assert as_floats(figure.data[0].x) == pytest.approx(path.ts.tolist(), abs=1e-9)


@pytest.mark.parametrize("schedule", ["vp", "ve"])
def test_layers_are_drawn_at_the_times_of_the_slider(schedule):
    """In each frame stands x_t, for VE at the scale of data, with this alpha and sigma."""
    values = chosen_of("paths", schedule=schedule, steps=9)
    figure, _ = BY_ID["paths"].figure(**values)
    D = values["mixture"].denoiser(toydiff.schedule(schedule))
    noise = values["mixture"].marginal(D.schedule, 1.0).sample(64, 0, dtype=torch.float64)
    path = toydiff.solve(D, noise, 9, solver="ddim")
    layers = BY_ID["paths"].layers(**values)
    assert (layers["wide"], layers["schedule"]) == (schedule == "ve", schedule)
    for level, seen, t, x in zip(layers["levels"], figure.frames, path.ts, path.xs, strict=True):
        assert level["alpha"] == pytest.approx(float(D.schedule.alpha(t)))
        assert level["sigma"] == pytest.approx(float(D.schedule.sigma(t)))
        scale = 1 / torch.hypot(D.schedule.alpha(t), D.schedule.sigma(t)) if layers["wide"] else 1.0
        assert torch.allclose(points(seen.data[0]), (scale * x).float(), atol=1e-3)


@pytest.mark.slow
def test_noise_of_ve_is_drawn_as_wide_as_data():
    for id_ in ("paths", "picard"):
        figure, _ = BY_ID[id_].figure(**chosen_of(id_, schedule="ve"))
        low, high = figure.layout.xaxis.range
        assert high - low < 15
        assert all(
            points(t).nan_to_num().abs().max() < 8 for t in figure.data if t.type == "scatter" and t.xaxis == "x"
        )


def test_every_page_asks_before_it_shows():
    for question, answer in (lesson.ask for lesson in LESSONS):
        assert question.endswith("?")
        assert len(answer) > 20
    at = opened("paths")
    assert any(BY_ID["paths"].ask[0] in part.value for part in at.markdown)
    assert any(part.value == BY_ID["paths"].ask[1] for part in at.markdown)


def test_a_control_without_effect_is_not_shown():
    at = opened("picard", sampler="parareal", steps=2)
    assert at.selectbox(key="picard.sampler").value == "parareal"
    at = at.selectbox(key="picard.view").set_value("cost").run()
    assert drawn(at)
    assert [box.key for box in at.selectbox] == ["picard.mixture#1", "picard.schedule", "picard.view"]
    assert at.query_params["sampler"] == "parareal"
    at = at.selectbox(key="picard.view").set_value("sweeps").run()
    assert at.selectbox(key="picard.sampler").value == "parareal"  # and it is as it was


@pytest.mark.slow
def test_what_is_not_shown_has_no_effect():
    """Each such control of each page: the same rows for its extremes."""
    for lesson in LESSONS:
        for (name, value), resting in lesson.idle.items():
            small = {"steps": 2} if lesson.id == "picard" else {}
            states = [{c.name: c.extremes[k] for c in lesson.controls if c.name in resting} for k in (0, -1)]
            found = [lesson.figure(**chosen_of(lesson.id, **small, **{name: value}, **s))[1] for s in states]
            assert numbers(found[0]) == numbers(found[1]), (lesson.id, name, value)


def test_reset_gives_the_first_view_back():
    at = opened("paths", steps=7, a="heun", mixture="0,0,0.2,1;1,1,0.3,1")
    at = at.button(key="paths-reset").click().run()
    assert drawn(at)
    assert at.query_params == {}
    assert at.select_slider(key="paths.steps").value == 5
    assert [box.value for box in at.selectbox][:3] == ["ring", "vp", "ddim"]


def test_a_reader_who_does_not_see_the_figure_is_told_what_it_shows():
    [sent] = [
        json.loads(p.proto.bytes) for p in opened("orders").get("bidi_component") if p.proto.component_name == CHART
    ][-1:]
    assert sent["alt"].startswith(BY_ID["orders"].title)
    assert "slope" in sent["alt"]
    assert "*" not in sent["alt"]


def test_no_figure_offers_to_upload_itself():
    [sent] = [
        json.loads(p.proto.bytes) for p in opened("orders").get("bidi_component") if p.proto.component_name == CHART
    ][-1:]
    assert sent["config"]["showSendToCloud"] is False


# ---- links


@pytest.mark.slow
def test_a_link_sets_every_control():
    at = opened("paths", mixture="spirals", schedule="linear", a="heun", b="dpm++2m", steps=7)
    assert drawn(at)
    assert [box.value for box in at.selectbox] == ["spirals", "linear", "heun", "dpm++2m"]
    assert at.select_slider(key="paths.steps").value == 7
    at.select_slider(key="paths.steps").set_value(9).run()
    assert at.query_params["steps"] == "9"
    assert at.query_params["mixture"] == "spirals"
    at.query_params.clear()  # as a preset, or a step back
    at.query_params["a"] = "dpm2"
    memory = at.session_state["paths-link"]
    memory["at"] -= 10
    at.run()
    assert [box.value for box in at.selectbox] == ["ring", "vp", "dpm2", "guarded"]
    assert at.select_slider(key="paths.steps").value == 5


@pytest.mark.slow
def test_an_address_that_is_late_does_not_undo_a_control():
    """A browser tells the address that it knows, which may be older than the last that it was given."""
    at = opened("paths")
    at.select_slider(key="paths.steps").set_value(7).run()
    at.query_params.clear()
    at.session_state["paths-link"]["at"] -= 60  # not by the clock: the control moved
    at.select_slider(key="paths.steps").set_value(8).run()
    assert at.select_slider(key="paths.steps").value == 8
    assert at.query_params == {"steps": "8"}
    at.query_params["steps"] = "7"  # nothing moved, an echo
    at.session_state["paths-link"]["at"] += 60
    at.run()
    assert at.select_slider(key="paths.steps").value == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id_", "link", "key", "value"),
    [
        ("paths", {"steps": "6", "mixture": "0,0,0.3,1;1,1,0.3,1"}, "paths.steps", 7),
        ("paths", {"steps": "6"}, "paths.mixture#1", "moons"),
        ("paths", {"mixture": "0,0,0.3,1;1,1,0.3,1"}, "paths.mixture#1", "moons"),
        ("picard", {"sampler": "parareal", "view": "cost"}, "picard.view", "sweeps"),
    ],
)
def test_after_a_restart_of_the_server_a_moved_control_wins_over_the_link(id_, link, key, value):
    """The browser's page stayed open: the new session is told its link, and all of its controls, one of them moved."""
    before = opened(id_, **link)
    box = before.select_slider(key=key) if key.endswith("steps") else before.selectbox(key=key)
    box.set_value(value)
    at = AppTest.from_function(page, kwargs={"id_": id_}, default_timeout=120)
    at.query_params.update(link)
    at = at._run(widget_state=before._tree.get_widget_states())
    assert drawn(at)
    key = key.partition("#")[0]
    name = key.split(".")[1]
    assert at.session_state[key] == value
    rest = {control: texts for control, texts in link.items() if control != name}
    assert at.query_params == rest | ({} if value == chosen_of(id_)[name] else {name: str(value)})
    assert at.run().session_state[key] == value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": "1000"}, "steps must be one of"),
        ({"steps": "abc"}, "got 'abc'"),
        ({"a": "ddimm"}, "did you mean 'ddim'"),
        ({"colour": "red"}, "'colour' that is not known here; this page has mixture, schedule, a, b, steps"),
        ({"schedule": "<script>"}, "unknown schedule"),
        ({"mixture": ""}, "mixture is empty"),
        ({"a": "x" * 5000}, "unknown a"),
    ],
)
def test_a_wrong_parameter_is_said_and_the_default_is_shown(parameters, message):
    at = opened("paths", **parameters)
    assert not at.exception
    assert message in said(at.warning)[0]
    assert at.select_slider(key="paths.steps").value == 5
    assert figures(at)
    assert at.query_params == {}
    assert at.run().warning  # it can still be read after a rerun
    assert not at.select_slider(key="paths.steps").set_value(8).run().warning
    assert at.query_params == {"steps": "8"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nan,0,0.2,1", "x of component 1 is a number from -20 to 20, got 'nan'"),
        ("0,0,0,1", "std of component 1 is a number from 0.02 to 10, got '0'"),
        ("0,0,1e308,1", "std of component 1"),
        ("0,0,0.2,-1", "weight of component 1"),
        ("0,0,0.2", "component 1 needs 4 numbers"),
        (";".join(["0,0,0.2,1"] * (MOST + 1)), f"1 to {MOST} components, got {MOST + 1}"),
        ("1e999,0,1,1", "x of component 1"),
        ("rong", "did you mean 'ring'"),
        ("random:-1", "seed of a random mixture"),
        ("random:99999999999", "seed of a random mixture"),
        ("0,0,0.2,1;", "component 2 needs 4 numbers"),
    ],
)
def test_an_absurd_mixture_is_one_line_on_the_page(word, message):
    for id_ in ("paths", "picard"):
        at = opened(id_, mixture=word)
        assert not at.exception
        assert message in said(at.error)[0]
        assert not figures(at)


@pytest.mark.slow
def test_a_missing_weight_file_is_one_line_on_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "bundled", lambda: ["digits-teacher"])
    importlib.import_module("lessons.digits").sample.cache_clear()
    frame._picture.cache_clear()
    at = opened("digits")
    assert not at.exception
    assert "unknown run or bundled weights 'digits-naive'" in said(at.error)[0]
    frame._picture.cache_clear()


def test_stable_diffusion_without_its_packages(monkeypatch):
    lesson = importlib.import_module("lessons.stable_diffusion")
    lesson.checkpoint.cache_clear()
    lesson.warm.cache_clear()
    frame._picture.cache_clear()
    for name in list(sys.modules):
        if name == "toydiff.adapters.tiny":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delattr("toydiff.adapters.tiny", raising=False)
    assert drawn(opened("stable-diffusion"))  # the digits' own network needs none
    at = opened("stable-diffusion", model="tiny")
    assert not at.exception
    assert "pip install 'toydiff[sd]'" in said(at.error)[0]
    lesson.checkpoint.cache_clear()
    lesson.warm.cache_clear()
    frame._picture.cache_clear()


@pytest.mark.slow
def test_a_real_checkpoint_waits_for_a_click(checkpoints):
    at = opened("stable-diffusion", model=str(checkpoints["sd"]), steps=2)
    assert not drawn(at)
    assert "seconds a step" in at.info[0].value
    at = at.button(key="stable-diffusion-make").click().run()
    assert drawn(at)
    at = at.select_slider(key="stable-diffusion.steps").set_value(4).run()
    assert not drawn(at)  # another figure has to be requested again


def test_what_a_figure_cannot_do_is_one_line_on_the_page(monkeypatch):
    def fails(**values):
        raise RuntimeError("the network\nis out of order")

    frame._picture.cache_clear()
    monkeypatch.setattr(frame, "for_screen", lambda figure, dark: fails())
    at = opened("paths")
    assert not at.exception
    assert said(at.error)[0] == "the network is out of order"
    frame._picture.cache_clear()


def test_numbers_that_were_not_measured_are_null_in_a_file():
    toolbar = importlib.import_module("screen.toolbar")
    assert json.loads(toolbar.as_json([{"a": float("nan"), "b": 1.5, "c": None, "d": [1, 2]}])) == [
        {"a": None, "b": 1.5, "c": None, "d": [1, 2]}
    ]


def test_solvers_without_a_slope_say_so():
    words = importlib.import_module("lessons.orders").words
    row = {"solver": "ddim", "declared": 1, "measured": float("nan"), "guess": "2", "grid": "inner times"}
    assert "rounding" in words([row])
    assert "nan" not in words([row, row | {"solver": "heun", "declared": 2, "measured": 2.0}])


@pytest.mark.slow
def test_what_a_reader_typed_is_not_read_as_markdown():
    at = opened("paths", mixture="[click](http://evil.example) **x** $y$")
    assert "'[click](http://evil.example) **x** $y$'" in said(at.error)[0]
    assert "\\[click\\]" in at.error[0].value
    assert "\\*\\*x\\*\\*" in at.error[0].value
    at = opened("paths", steps="`a`")
    assert "\\`a\\`" in at.warning[0].value


@pytest.mark.slow
def test_a_link_leaves_parts_of_a_page_out():
    at = opened("paths", hide="menu,words", steps="7")
    assert drawn(at)
    style = at.get("html")[0].proto.body
    assert ".stSidebar, .stAppHeader, .st-key-before, .st-key-after, .st-key-words { display: none" in style
    at = at.select_slider(key="paths.steps").set_value(8).run()  # and it stays so
    assert at.query_params == {"steps": "8", "hide": "menu,words"}
    at = opened("paths", hide=["schedule", "mixture"], schedule="linear")  # controls by their names
    assert drawn(at)
    assert [box.key for box in at.selectbox] == ["paths.a", "paths.b"]
    assert at.session_state["paths.schedule"] == "linear"
    assert "display: none !important" not in at.get("html")[0].proto.body
    assert opened("paths", hide="mixture,schedule,a,b,steps").get("bidi_component")
    at = opened("paths", hide="wrods")
    assert not at.exception
    assert "did you mean 'words'" in said(at.warning)[0]


# ---- the code under a figure


def numbers(rows):
    """Rows without what a clock measured."""
    return json.loads(json.dumps([{k: v for k, v in row.items() if "seconds" not in k} for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("id_", BY_ID)
def test_the_code_makes_the_figure_on_show(id_):
    lesson = BY_ID[id_]
    chosen = {c.name: c.default for c in lesson.controls}
    for name, value in next(iter(lesson.presets.values())).items():
        chosen[name] = tuple(value) if isinstance(value, list) else value
    if "mixture" in chosen:
        chosen["mixture"] = "1,1,0.3,1;-1,-0.5,0.2,2.5"
    code = lesson.code(chosen)
    assert "screen" not in code
    assert "streamlit" not in code
    assert not re.search(r"^@", code, re.MULTILINE)
    names = {"shown": [], "print": lambda *_: None}
    exec(code.replace("figure.show()", "shown.append(figure)"), names)
    figure, rows = lesson.figure(**{c.name: c.value(chosen[c.name]) for c in lesson.controls})
    assert numbers(names["rows"]) == numbers(rows)
    if id_ != "stable-diffusion" and "cost" not in chosen.values():
        assert json.loads(names["shown"][0].to_json())["data"] == json.loads(figure.to_json())["data"]


def test_code_of_a_mixture_is_that_mixture():
    for word in ("ring", "random:7", "1,2,0.3,1;-1,0,0.5,3"):
        made, known = eval(code_of(word), {"toydiff": toydiff}), mixture_of(word)
        assert torch.equal(made.means, known.means)
        assert torch.equal(made.weights, known.weights)
        assert torch.equal(made.covariances, known.covariances)


# ---- mixtures as words


def test_words_of_mixtures():
    rows = [(1.0, 2.0, 0.3, 1.0), (-1.5, 0.0, 0.5, 3.0)]
    word = word_of(rows)
    assert word == "1,2,0.3,1;-1.5,0,0.5,3"
    assert components_of(word) == rows
    made = mixture_of(word)
    assert made.weights.tolist() == [0.25, 0.75]
    assert mixture_of(word) is made  # so that what is remembered by it is found
    assert len(components_of("checkerboard")) == mixture_of("checkerboard").components
    assert components_of("ring")[0] == (2.0, 0.0, 0.15, 1.0)
    for name in toydiff.MIXTURES:  # each can be edited
        assert mixture_of(word_of(components_of(name))).components == mixture_of(name).components


# ---- the editor


def test_the_editor_takes_and_refuses():
    editor = importlib.import_module("screen.editor")

    def take(change, rows):
        edits = editor.Edits(["ring"])
        edits.edit(rows, change)
        assert edits.due == (edits.said is None)
        return edits

    rows = [(0.0, 0.0, 0.2, 1.0), (1.0, 1.0, 0.3, 2.0)]
    none = {"edited_rows": {}, "deleted_rows": [], "added_rows": []}
    assert take(none | {"edited_rows": {0: {"x": 3.0}}}, rows).made == ["3,0,0.2,1;1,1,0.3,2"]
    assert take(none | {"deleted_rows": [0]}, rows).made == ["1,1,0.3,2"]
    assert take(none | {"added_rows": [{"x": 2.0, "y": -1.0}]}, rows).made[0].endswith(";2,-1,0.3,2")
    assert take(none | {"added_rows": [{"x": 2.0}]}, rows).made == [word_of(rows)]  # still being filled in
    for change, message in (
        (none | {"edited_rows": {1: {"std": -1.0}}}, "std of component 2"),
        (none | {"edited_rows": {0: {"x": None}}}, "x of component 1 is a number from -20 to 20, got nothing"),
        (none | {"deleted_rows": [0, 1]}, f"1 to {MOST} components, got 0"),
    ):
        edits = take(change, rows)
        assert edits.made == ["ring"]
        assert message in edits.said.replace("\\", "")


def test_a_click_belongs_to_the_mixture_it_was_made_on():
    """Three clicks in a row on the same plane, however late they arrive, and one on the plane that they made; drags of
    modes likewise."""
    editor = importlib.import_module("screen.editor")
    edits = editor.Edits(["0,0,0.2,1"])
    for x in (1, 2, 3):
        edits.click(editor.ADD, x, 0, "0,0,0.2,1")
    four = "0,0,0.2,1;1,0,0.2,1;2,0,0.2,1;3,0,0.2,1"
    assert edits.made[-1] == four
    edits.click(editor.TAKE, 1, 0, four)
    assert edits.made[-1] == "0,0,0.2,1;2,0,0.2,1;3,0,0.2,1"
    edits = editor.Edits(["ring"])  # another mixture, chosen in between
    edits.click(editor.TAKE, 2, 0, "1,1,0.2,1;2,0,0.2,1")
    assert edits.made[-1] == "1,1,0.2,1"
    edits.click(editor.DRAW, 2, 0, "1,1,0.2,1")
    assert edits.made[-1] == "1,1,0.2,1", "a click is no line"
    edits = editor.Edits(["ring"])
    edits.drag(0, 2.5, 0.5, "ring")  # two drags of the ring's modes, however late they arrive
    edits.drag(2, 0.0, 1.0, "ring")
    rows = components_of("ring")
    rows[0], rows[2] = (2.5, 0.5, *rows[0][2:]), (0.0, 1.0, *rows[2][2:])
    assert components_of(edits.made[-1]) == rows
    edits = editor.Edits(["moons"])
    edits.drag(0, 0.0, 0.0, "ring")  # the ring is still on show: its mode is dragged, and no older one
    assert components_of(edits.made[-1])[2] == components_of("ring")[2]


class Interrupted(collections.UserDict):
    """A session's state in which the next run begins at the access that is the `at`-th from now."""

    at = None

    def _access(self):
        if self.at is not None:
            self.at -= 1
            if self.at < 0:
                raise InterruptedError

    def __getitem__(self, key):
        self._access()
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self._access()
        super().__setitem__(key, value)


def test_no_click_is_lost_where_the_next_run_begins_in_the_midst_of_it(monkeypatch):
    """The control has all clicks in the end, wherever the runs that told of the first two were ended."""
    editor, chart = (importlib.import_module(f"screen.{name}") for name in ("editor", "chart"))
    first, ends = "0,0,0.2,1", 0
    for at in range(5):
        edits, told = editor.Edits([first]), types.SimpleNamespace(clicks=[])
        state = Interrupted({"mixture": first, "mixture-edits": edits, "plane": told, "plane-seen": chart.Seen()})
        for module in (editor, chart):
            monkeypatch.setattr(module, "st", types.SimpleNamespace(session_state=state))

        def add(x, y, on, edits=edits):
            edits.click(editor.ADD, x, y, on)

        for k in (1, 2, 3):
            state.at = None
            state["mixture"] = first  # what the browser still sends
            told.clicks.append([k, k, 0, first])
            state.at = at if k < 3 else None
            try:
                chart._told("plane", "clicks", add)
                editor.take_over("mixture")
            except InterruptedError:
                ends += 1
        assert state["mixture"] == "0,0,0.2,1;1,0,0.2,1;2,0,0.2,1;3,0,0.2,1", at
    assert ends == 8  # each of the four accesses, twice


def test_a_run_that_was_overtaken_begins_no_mixture_anew(monkeypatch):
    editor = importlib.import_module("screen.editor")
    edits = editor.Edits(["ring", "0,0,0.2,1"])
    monkeypatch.setattr(editor, "st", types.SimpleNamespace(session_state={"mixture-edits": edits}))
    editor.take_over("mixture")
    older = threading.Thread(target=editor.edits_of, args=("mixture", "ring"))
    older.start()
    older.join()
    assert edits.made == ["ring", "0,0,0.2,1"]
    assert editor.edits_of("mixture", "ring").made == ["ring"]  # the newest run's mixture was chosen


def test_two_runs_that_tell_of_clicks_at_once_keep_their_order(monkeypatch):
    editor, chart = (importlib.import_module(f"screen.{name}") for name in ("editor", "chart"))
    edits, told = editor.Edits(["0,0,0.2,1"]), types.SimpleNamespace(clicks=[])
    state = {"plane": told, "plane-seen": chart.Seen()}
    monkeypatch.setattr(chart, "st", types.SimpleNamespace(session_state=state))

    def add(x, y, on):
        time.sleep(0.05 if x == 1 else 0)
        edits.click(editor.ADD, x, y, on)

    threads = [threading.Thread(target=chart._told, args=("plane", "clicks", add)) for _ in range(3)]
    for k, thread in enumerate(threads, 1):
        told.clicks = [*told.clicks, [k, k, 0, "0,0,0.2,1"]]
        thread.start()
    for thread in threads:
        thread.join()
    assert [x for x, *_ in components_of(edits.made[-1])] == [0, 1, 2, 3]


def test_a_drawn_line_becomes_a_mixture():
    """Its components lie along it, as dense as it is long, whatever the hand's speed; a second line joins it."""
    editor = importlib.import_module("screen.editor")
    edits = editor.Edits(["ring"])
    quick, slow = np.linspace(-2, 0, 5), np.linspace(0, 2, 200)
    edits.draw([(x, 1.0) for x in (*quick, *slow)], "ring")
    one = np.array(components_of(edits.made[-1]))
    weights = one[:, 3] / one[:, 3].sum()
    assert np.allclose(one[:, 1], 1, atol=1e-3)
    assert abs(weights @ one[:, 0]) < 0.05
    assert weights @ (one[:, 0] ** 2 + one[:, 2] ** 2) == pytest.approx(4 / 3, rel=0.05)
    edits.draw([(0.0, -1.0), (2.0, -1.0)], edits.made[-1])
    both = np.array(components_of(edits.made[-1]))
    below = both[both[:, 1] < 0]
    assert below[:, 3].sum() / both[:, 3].sum() == pytest.approx(1 / 3, rel=0.1)
    for k in range(editor.LINES + 2):  # the last lines count; a dot is a line, too
        edits.draw([(-3.0, 2.0), (3.0, 2.0)] if k else [(0.0, -3.0)] * 5, edits.made[-1])
    assert edits.said is None
    assert len(edits.drawn[1]) == editor.LINES
    # another mixture, chosen in between: a line begins anew
    edits.draw([(-1.0, 0.0), (1.0, 0.0)], "moons")
    assert np.allclose(np.array(components_of(edits.made[-1]))[:, 1], 0, atol=1e-3)


# ---- live training


@pytest.mark.slow
def test_live_reflow_trains_and_says_what_it_measured(monkeypatch):
    lesson = importlib.import_module("lessons.reflow")
    monkeypatch.setattr(lesson, "UPDATES", 40)
    at = opened("reflow", mixture="0,1,0.3,1;1,-1,0.3,1")
    assert drawn(at)
    before = len(figures(at))
    at = at.button(key="reflow-start").click().run()
    assert not at.exception
    assert len(figures(at)) == before + 1
    assert "round 1: 40 updates" in json.dumps(figures(at)[-1])
    assert lesson.AT_ONCE.free == 2  # both places are free again


@pytest.mark.slow
@pytest.mark.parametrize("step", ["begin", "_train"])
def test_what_goes_wrong_in_live_reflow_is_one_line(monkeypatch, step):
    lesson = importlib.import_module("lessons.reflow")

    def fails(*_):
        raise RuntimeError("the network\nis out of order")

    monkeypatch.setattr(lesson, step, fails)
    at = opened("reflow").button(key="reflow-start").click().run()
    assert not at.exception
    assert said(at.error) == ["the network is out of order"]
    assert not at.run().error
    assert lesson.AT_ONCE.free == 2


@pytest.mark.slow
def test_live_reflow_waits_its_turn_and_begins_by_itself(monkeypatch):
    lesson = importlib.import_module("lessons.reflow")
    line = turns.Turns(1)
    monkeypatch.setattr(lesson, "AT_ONCE", line)
    monkeypatch.setattr(lesson, "UPDATES", 10)
    assert line.ahead("another") == 0
    notes = []

    def pause(seconds):
        if seconds == lesson.PAUSE:
            notes.append(line.free)
            if len(notes) == 3:
                line.leave("another")

    monkeypatch.setattr(lesson, "time", types.SimpleNamespace(sleep=pause, monotonic=lambda: 0.0))
    at = opened("reflow", mixture="0,1,0.3,1").button(key="reflow-start").click().run()
    assert not at.exception
    assert notes == [0, 0, 0]
    assert "round 1: 10 updates" in json.dumps(figures(at)[-1])
    assert line.free == 1


def test_turns_come_in_order_and_who_left_is_passed_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(turns, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    line = turns.Turns(2)
    assert [line.ahead(who) for who in "abcde"] == [0, 0, 1, 2, 3]
    assert line.free == 0
    line.leave("a")
    assert [line.ahead(who) for who in "edc"] == [3 - 1, 1, 0]  # not by who asks first now
    now[0] += turns.GONE + 1  # d does not ask any more
    assert line.ahead("e") == 1
    line.leave("b")
    assert line.ahead("e") == 0
    line.leave("c")
    line.leave("e")
    assert line.free == 2


# ---- the checkpoint's page


def test_a_first_call_counts_for_no_solver(monkeypatch):
    lesson, calls = importlib.import_module("lessons.stable_diffusion"), []

    def sampled(sd, prompt, steps, **how):
        calls.append(steps)
        path = types.SimpleNamespace(nfe=steps, seconds=9.0 if len(calls) == 1 else 1.0)
        return types.SimpleNamespace(images=torch.zeros(1, 3, 8, 8), latents=torch.ones(1, 4, 1, 1), trajectory=path)

    sd = types.SimpleNamespace(
        family=types.SimpleNamespace(clips=False), prompts=types.SimpleNamespace(forget=lambda all_: None)
    )
    monkeypatch.setattr(lesson, "sample_images", sampled)
    monkeypatch.setattr(lesson, "checkpoint", lambda model: sd)
    lesson.warm.cache_clear()
    _, rows = lesson.images("tiny", "", "ddim", "heun", 4)
    assert [row["seconds"] for row in rows] == [1.0, 1.0]
    assert calls == [1, 4, 4]
    lesson.images("tiny", "", "ddim", "heun", 4)
    assert calls == [1, 4, 4, 4, 4]  # once a checkpoint
    lesson.warm.cache_clear()


def test_a_missing_checkpoint_is_said_before_its_cost(tmp_path):
    long = importlib.import_module("lessons.stable_diffusion").long
    assert long({"model": str(tmp_path / "missing"), "steps": 8}) is None
    assert "16 network calls" in long({"model": str(tmp_path), "steps": 8})
    assert "16 network calls" in long({"model": "org/name", "steps": 8})
    at = opened("stable-diffusion", model=str(tmp_path / "missing"))
    assert not at.info
    assert "missing" in said(at.error)[0]


# ---- the command


@pytest.fixture
def started(monkeypatch, capsys):
    """started(*words) -> what `toydiff app` prints, and the settings that it gives Streamlit."""
    from streamlit.web import cli as streamlit

    given = {}
    monkeypatch.setattr(
        streamlit,
        "main",
        lambda words, standalone_mode: given.update(w[2:].split("=", 1) for w in words if w.startswith("--")),
    )
    for name in ("TOYDIFF_CHECKPOINTS", "TOYDIFF_CLASS"):
        monkeypatch.setenv(name, "")

    def start(*words):
        given.clear()
        port = browser.free_port()
        assert cli.main(["app", "--no-browser", "--port", str(port), *words]) == 0
        return capsys.readouterr().out.replace(str(port), "PORT"), dict(given)

    return start


@pytest.mark.parametrize(
    ("words", "said_"),
    [(["--host", "0.0.0.0"], True), (["--class"], True), ([], False), (["--host", "localhost"], False)],
)
def test_a_class_is_told_the_address(started, words, said_):
    out, given = started(*words)
    found = re.findall(r"For the class: http://([\w.-]+):PORT\n", out)
    assert bool(found) == said_
    assert not {"0.0.0.0", "localhost"} & set(found)
    assert given["server.address"] == ("0.0.0.0" if said_ else "localhost")
    address = visitors.class_address()
    assert bool(address) == (words == ["--class"])
    assert not address or address.startswith(f"http://{found[0]}:")


def test_a_terminal_shows_the_address_as_a_qr_code(started, monkeypatch):
    """Where the package is there; it is told how far the terminal goes."""
    codes = []

    class Code:
        def __init__(self, border):
            self.data = ""

        def add_data(self, text):
            self.data += text

        def print_ascii(self, tty):
            assert tty
            codes.append(self.data)

    monkeypatch.setitem(sys.modules, "qrcode", None)
    assert "toydiff[qr]" in started("--class")[0]
    monkeypatch.setitem(sys.modules, "qrcode", types.SimpleNamespace(QRCode=Code))
    assert "toydiff[qr]" not in started("--class")[0]
    assert not codes  # a file is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    started("--class")
    started()
    [code] = codes
    assert re.fullmatch(r"http://[\w.-]+:\d+", code)


def test_below_a_path_of_a_proxy(started, capsys):
    out, given = started("--host", "0.0.0.0", "--base", "/user/ann/lessons/")
    assert given["server.baseUrlPath"] == "user/ann/lessons"
    assert ":PORT/user/ann/lessons\n" in out
    assert started()[1]["server.baseUrlPath"] == ""
    for wrong in ("", "a//b", "a b", "http://x/y", "a?b"):
        assert cli.main(["app", "--base", wrong]) == 2
        assert "--base: must be a path such as" in capsys.readouterr().err


def test_the_command_says_at_once_that_it_starts():
    """Before the packages are loaded, which takes seconds."""
    command = "import sys; from toydiff.cli import main; main(sys.argv[1:])"
    words = [
        sys.executable,
        "-X",
        "importtime",
        "-c",
        command,
        "app",
        "--no-browser",
        "--port",
        str(browser.free_port()),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.kill()
        loaded = {row.rpartition("|")[2].strip() for row in process.stderr}
    assert line == "Starting the app ...\n"
    assert "toydiff.cli.app" in loaded
    assert not loaded & {"torch", "streamlit", "plotly"}


def test_app_command_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli_app.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["app"]) == 2
    assert "pip install 'toydiff[app]'" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(cli_app, "__file__", str(tmp_path / "toydiff" / "cli" / "app.py"))
    assert cli.main(["app"]) == 2
    assert "the app's files are missing" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(["app", "--port", "0"]) == 2
    assert "--port" in capsys.readouterr().err


def test_app_command_says_that_a_port_is_taken(capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["app", "--no-browser", "--port", str(port)]) == 2
    assert f"cannot serve at localhost:{port}" in capsys.readouterr().err


def test_app_files_are_found_in_a_clone():
    assert cli_app.folder() == browser.APP.resolve()
