"""The scoreboard on a page: chosen methods in colour, all others pale, the best of all, and the floor."""

import boards
import numpy as np
import pytest

from toydiff.plots import interactive, style
from toydiff.plots import scoreboard as subject
from toydiff.studies import scoreboard


@pytest.fixture(scope="module")
def rows():
    return scoreboard.summary(boards.standard(first="dmd", later="cd"))


def test_chosen_methods_are_in_colour_with_their_deviation(rows):
    figure = interactive.scoreboard(rows, [], shown=("dmd", "cd"))
    named = [trace for trace in figure.data if trace.showlegend is not False and trace.name != "best of all"]
    assert [trace.name for trace in named] == ["dmd", "cd"]
    assert [trace.line.color for trace in named] == [seen.color for seen in style.markings(("dmd", "cd")).values()]
    assert list(named[0].x) == list(scoreboard.STEPS)
    board = boards.standard(first="dmd", later="cd")
    assert named[0].y == pytest.approx([boards.mean(board, "dmd", n) for n in scoreboard.STEPS])
    assert named[0].error_y.array == pytest.approx([0.05] * 5)
    others = [trace for trace in figure.data if trace.showlegend is False]
    assert len(others) == len(scoreboard.standard()) - 2
    assert {(trace.mode, trace.marker.color) for trace in others} == {("markers", style.CONTEXT_COLOR)}


def test_the_best_of_all_and_the_floor_are_drawn(rows):
    front = scoreboard.pareto(rows)
    figure = interactive.scoreboard(rows, front, shown=("cd",), cost="nfe")
    line = figure.data[-1]
    assert line.line.shape == "hv"  # so many calls or fewer
    assert list(zip(line.x, line.y, strict=True)) == [(row["nfe"], row["distance"]) for row in front]
    [floor] = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert (floor.y0, floor.y1, floor.name, floor.showlegend) == (1, 1, "floor: true samples", True)
    low, _ = figure.layout.yaxis.range
    for note, row in zip(figure.layout.annotations, front, strict=True):  # below all curves
        assert (note.text.replace("<br>", ""), 10**note.x) == (f"best:{row['method']}", pytest.approx(row["nfe"]))
        assert (note.yref, note.y) == ("paper", 0.01)
        assert low < np.log10(subject.ROOM) < np.log10(row["distance"])
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.y0, band.y1) == pytest.approx((0.9, 1.1))
    low, high = 10 ** np.array(figure.layout.yaxis.range)
    assert low < 1 < max(row["distance"] for row in rows) < high


def test_what_cannot_be_drawn_is_said(rows):
    for arguments, message in (
        ({"rows": [], "front": [], "shown": ()}, "no rows"),
        ({"rows": rows, "front": [], "shown": ("cd",), "cost": "seconds"}, "unknown cost 'seconds'"),
        ({"rows": rows, "front": [], "shown": ("cdd",)}, "unknown method of the scoreboard 'cdd'"),
    ):
        with pytest.raises(ValueError, match=message):
            interactive.scoreboard(arguments.pop("rows"), arguments.pop("front"), **arguments)
