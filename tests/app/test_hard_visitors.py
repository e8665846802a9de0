"""The app on an open address, and pages that keep their controls."""

import importlib
import itertools
import json
import threading
import time
import types

import pytest

pytest.importorskip("streamlit")

import browser
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_app import figures, opened, said

from toydiff.cli import command as cli

pytestmark = pytest.mark.slow

frame = importlib.import_module("screen.lesson")
mixtures = importlib.import_module("screen.mixtures")
visitors = importlib.import_module("screen.visitors")
controls = importlib.import_module("screen.controls")


@pytest.fixture
def served(monkeypatch, own_address):
    """Serve the pages at an address, which `toydiff app` was started with, with checkpoints that it names."""

    def serve(address, *checkpoints):
        st.config.set_option("server.address", address)
        monkeypatch.setenv(visitors.CHECKPOINTS, json.dumps(checkpoints))

    return serve


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_own_addresses(served, address):
    served(address)
    assert not visitors.is_open()


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.168.0.7", "lecture.example.org"])
def test_open_addresses(served, address):
    served(address)
    assert visitors.is_open()


def test_an_open_address_loads_nothing_that_a_visitor_names(served, tmp_path, monkeypatch):
    served("0.0.0.0", "offered/one")
    lesson = importlib.import_module("lessons.stable_diffusion")
    loaded = []

    def load(model):
        loaded.append(model)
        raise ValueError("loaded")

    monkeypatch.setattr(lesson, "checkpoint", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    words = {}
    for word in ("here", "missing", "/etc", "org/model", "a.safetensors", ""):
        at = opened("stable-diffusion", model=word)
        assert not at.exception
        [words[word]] = [text.replace(repr(word), "X") for text in said(at.warning)]
        assert at.selectbox(key="stable-diffusion.model").options == ["digits", "tiny", "offered/one"]
        with pytest.raises(ValueError, match="unknown checkpoint"):  # a widget's state that no browser sends
            lesson.LESSON.controls[0].value(word)
    assert len(set(words.values())) == 1  # there or not, the answer is the same
    assert not loaded  # each fell back to the digits' own network
    assert lesson.LESSON.controls[0].value("offered/one") == "offered/one"


def test_a_class_chooses_no_checkpoint(served, monkeypatch):
    served("0.0.0.0", "offered/one")
    monkeypatch.setenv(visitors.CLASS, "http://192.0.2.7:8501")
    at = opened("stable-diffusion", steps=1)
    assert not at.exception
    assert figures(at)
    assert [box.key for box in at.selectbox] == ["stable-diffusion.a", "stable-diffusion.b"]
    at = opened("stable-diffusion", steps=1, model="/etc")  # nor does a link
    assert "unknown checkpoint '/etc'" in said(at.warning)[0]
    assert at.session_state["stable-diffusion.model"] == "digits"
    home = AppTest.from_file(str(browser.APP / "main.py"), default_timeout=60).run()
    assert any("http://192.0.2.7:8501" in text.value for text in home.markdown)


def test_no_cache_is_one_that_a_visitor_can_clear():
    """The browser's message to clear it reaches `st.cache_data` and `st.cache_resource`."""
    for path in browser.APP.rglob("*.py"):
        assert "cache_data" not in path.read_text(), path
        assert "cache_resource" not in path.read_text(), path


def test_who_asks_at_the_same_time_waits_for_one_computation():
    made, started = [], threading.Event()

    @frame.remember
    def slow(x):
        made.append(x)
        started.set()
        time.sleep(0.1)
        if x < 0:
            raise ValueError("below 0")
        return [x]

    found = []
    threads = [threading.Thread(target=lambda: found.append(slow(1))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert all(one is found[0] for one in found)
    for _ in range(2):
        with pytest.raises(ValueError, match="below 0"):
            slow(-1)
    assert made == [1, -1, -1]  # what went wrong is not kept


def test_a_busy_checkpoint_is_one_line(monkeypatch):
    lesson = importlib.import_module("lessons.stable_diffusion")
    monkeypatch.setattr(lesson, "PATIENCE", 0.01)
    with lesson.ONE, pytest.raises(ValueError, match="other readers are using the checkpoint"):
        lesson.images("tiny", "a", "ddim", "ddim", 1)


def test_sizes_in_links_have_bounds():
    words = ["0,0,0.2,1;" * 100_000, "random:" + "1" * 100_000, "x" * 100_000]
    for word in words:
        for function in (mixtures.mixture_of, mixtures.components_of):
            with pytest.raises(ValueError, match=r".{10,300}$") as error:
                function(word)
            assert len(str(error.value)) < 400
    with pytest.raises(ValueError, match="300 characters at most"):
        controls.Text("prompt", "Prompt", "").value("x" * 301)
    at = opened("paths", **{f"p{k}": 1 for k in range(50)})
    assert len(at.warning) == 3
    assert figures(at)


def test_a_training_on_the_page_ends(monkeypatch):
    lesson = importlib.import_module("lessons.reflow")
    monkeypatch.setattr(lesson, "LONGEST", 0.01)
    endless = (types.SimpleNamespace(step=time.sleep(0.001) or 1, loss=1.0) for _ in itertools.count())
    state = {"run": endless, "done": 0, "loss": 0.0, "going": True}
    lesson._train(state)
    assert (state["going"], state["done"]) == (False, 1)


def test_the_command_passes_the_checkpoints_on(monkeypatch, tmp_path, capsys):
    from streamlit.web import cli as streamlit

    monkeypatch.setenv(visitors.CHECKPOINTS, "")
    monkeypatch.setattr(streamlit, "main", lambda words, standalone_mode: capsys)
    words = [
        "app",
        "--no-browser",
        "--port",
        str(browser.free_port()),
        "--checkpoint",
        str(tmp_path),
        "--checkpoint",
        "org/model",
    ]
    assert cli.main(words) == 0
    assert visitors.offered() == [str(tmp_path), "org/model"]


# ---- pages keep their controls


def two_pages():
    import streamlit as st

    from lessons import LESSONS
    from screen.lesson import show

    show(next(lesson for lesson in LESSONS if lesson.id == st.session_state.get("page", "paths")))


def by_menu(at, id_, **link):
    """Open another page in the same session: the menu's address is empty."""
    at.session_state["page"] = id_
    at.query_params.clear()
    for name, value in link.items():
        at.query_params[name] = value
    at = at.run()
    assert not at.exception
    assert not at.warning
    return at


def test_a_page_is_as_it_was_left():
    edited = "0,0,0.2,1;1,1,0.3,2"
    at = AppTest.from_function(two_pages, default_timeout=60)
    at.query_params["mixture"] = edited
    at = at.run().select_slider(key="paths.steps").set_value(8).run()
    at = by_menu(at, "lines")
    assert at.query_params == {}
    at = by_menu(at, "paths")
    assert at.select_slider(key="paths.steps").value == 8
    assert at.session_state["paths.mixture"] == edited
    assert at.query_params == {"steps": "8", "mixture": edited}
    at = by_menu(by_menu(at, "lines"), "paths", a="heun")  # a link, or a preset, wins, and the rest is as usual
    assert at.selectbox(key="paths.a").value == "heun"
    assert at.select_slider(key="paths.steps").value == 5
    assert at.session_state["paths.mixture"] == "ring"
