"""The page of the scoreboard, on made-up boards: its words are those of the cells, and its code runs."""

import importlib
import sys

import boards
import browser
import pytest

pytest.importorskip("streamlit")
sys.path.insert(0, str(browser.APP))

from streamlit.testing.v1 import AppTest

from toydiff.studies import scoreboard

from lessons import LESSONS


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's module, where a made-up board of the ring is bundled: DMD leads in one step, CD in more."""
    monkeypatch.setattr(scoreboard, "BUNDLED", tmp_path)
    scoreboard.bundle(boards.standard(first="dmd", later="cd"), tmp_path)
    module = importlib.import_module("lessons.scoreboard")
    module.rows_of.cache_clear()
    yield module
    module.rows_of.cache_clear()


def chosen(page, **changes):
    return {c.name: c.value(changes.get(c.name, c.default)) for c in page.LESSON.controls} | {"board": "ring"}


def test_it_is_a_page_where_a_board_has_come_with_the_library():
    ids = [lesson.id for lesson in LESSONS]
    assert ("scoreboard" in ids) == bool(scoreboard.bundled_names())


def test_words_are_those_of_the_steps_that_are_chosen(page):
    for steps, first in ((1, "dmd"), (4, "cd")):
        figure, rows = page.scoreboard(**chosen(page, steps=steps))
        text = page.words(rows)
        assert f"Best in {page.plural(steps)}: **{first}**, 1.50 ± 0.05 floors" in text
        assert "noise cannot tell" not in text
        assert len(text) < 520
        # the figure's grey line goes through it
        line = figure.data[-1]
        assert line.y[list(line.x).index(steps)] == pytest.approx(1.5)
        last = max(
            scoreboard.standard(), key=lambda m: boards.mean(boards.standard("mixture:ring", "dmd", "cd"), m, steps)
        )
        assert f"Last: {last}, " in text


def test_what_noise_cannot_tell_is_said(page, tmp_path):
    board = boards.standard(first="dmd")
    for cell in board["cells"]:
        if cell["method"] in ("vsd", "sim"):
            cell["rows"][0]["distance"] += 1.52 - boards.mean(boards.standard(first="dmd"), cell["method"], 1)
    scoreboard.bundle(board, tmp_path)
    page.rows_of.cache_clear()
    text = page.words(page.scoreboard(**chosen(page))[1])
    assert "noise cannot tell vsd, sim from it" in text


def test_the_front_is_said_with_its_calls(page):
    _, rows = page.scoreboard(**chosen(page, view=page.BY_CALLS))
    assert "On the front, with calls: dmd (1)" in page.words(rows)


@pytest.mark.slow
def test_students_from_the_same_noise(page):
    figure, rows = page.scoreboard(**chosen(page, view=page.NOISE, methods=("naive", scoreboard.RD_CD)))
    assert [row["weights"] for row in rows] == ["digits-teacher", "digits-naive", "digits-cd"]
    assert [row["nfe"] for row in rows] == [50, 1, 1]
    assert list(figure.layout.yaxis.ticktext) == ["teacher · 50", "naive · 1", "rectified-diffusion+cd · 1"]
    assert len(page.words(rows)) < 520
    for method in scoreboard.standard():
        assert page.weights_of(method).startswith("digits-")


@pytest.mark.slow
def test_the_code_of_the_figure_runs(page, monkeypatch):
    import plotly.graph_objects as go

    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    for view in (page.BY_STEPS, page.BY_CALLS, page.NOISE):
        kept = {}
        exec(page.LESSON.code(chosen(page, view=view, methods=("cd",))), kept)
        assert kept["rows"], view


def shown():
    """The page's table alone, as a script of Streamlit."""
    import importlib

    module = importlib.import_module("lessons.scoreboard")
    module.table({"board": "ring", "methods": ("cd", "dmd"), "steps": 1})


@pytest.mark.slow
def test_the_table_is_filtered_by_the_controls(page):
    at = AppTest.from_function(shown, default_timeout=60).run()
    assert not at.exception
    assert len(at.dataframe[0].value) == len(scoreboard.standard())
    assert at.dataframe[0].value["method"][0] == "dmd"  # the best on top
    at = at.toggle(key="scoreboard-only-methods").set_value(True).run()
    assert sorted(at.dataframe[0].value["method"]) == ["cd", "dmd"]
    at = at.toggle(key="scoreboard-only-steps").set_value(False).run()
    assert len(at.dataframe[0].value) == 2 * len(scoreboard.STEPS)
