"""Convergence tables as figures: every error in its place, the registry's colours, slopes in legends, floors."""

import numpy as np
import pytest
from panels import BOTH, legend, panels, refuses

from toydiff.plots import interactive, style
from toydiff.plots import orders as subject
from toydiff.solvers.registry import SOLVERS


def row(solver, declared, measured, errors):
    about = {"solver": solver, "schedule": "vp", "declared": declared, "measured": measured}
    return about | {"nfe": [10, 20, 40], "error": errors}


ROWS = [
    row("ddim", 1, 1.03, [0.4, 0.2, 0.1]),
    row("heun", 2, 2.11, [0.4, 0.1, 0.025]),
    row("dpm++2m", 2, 1.96, [0.3, 0.08, 0.02]),
]


@BOTH
def test_a_panel_an_order(module):
    figure = module.convergence(ROWS, floor=1e-9)
    first, second = panels(figure)
    assert (first.head, second.head) == ("Declared order 1", "Declared order 2")
    assert first.logs == second.logs == (True, True)
    assert first.names == (style.NFE_LABEL, style.ERROR_LABEL)
    assert (first.x, first.y) == (second.x, second.y)
    assert [mark.name for mark in second.marks if mark.name] == ["slope 2", "dpm++2m: 1.96", "heun: 2.11"]
    [heun], [slope] = second.named("heun: 2.11"), second.named("slope 2")
    assert heun.color == SOLVERS["heun"].color.upper()
    assert heun.xy.tolist() == [[10, 0.4], [20, 0.1], [40, 0.025]]
    (x0, y0), (x1, y1) = slope.xy
    assert np.log(y0 / y1) / np.log(x1 / x0) == pytest.approx(2)
    pale = [mark.xy[:, 1].tolist() for mark in first.lines if mark.color == style.CONTEXT_COLOR]
    assert pale == [one["error"] for one in ROWS]  # the others stand behind
    # out of the frame the floor is a note, inside a dashed line
    texts = [note.text for note in figure.layout.annotations] if module is interactive else [
        text.get_text() for axes in figure.axes for text in axes.texts
    ]  # fmt: skip
    assert texts.count("floor 1.0e-09: below the frame") == 2
    inside = module.convergence(ROWS[:1], floor=0.15)
    if module is interactive:
        assert [(shape.y0, shape.line.dash) for shape in inside.layout.shapes] == [(0.15, "dash")]
    else:
        assert [(line.dash, *line.xy[:, 1]) for line in panels(inside)[0].named("floor 0.15")] == [("dash", 0.15, 0.15)]


def test_each_order_has_its_own_legend():
    named = {trace.name: trace.legend for trace in interactive.convergence(ROWS).data if trace.name}
    assert named["heun: 2.11"] == named["dpm++2m: 1.96"] == named["slope 2"] != named["ddim: 1.03"]


@BOTH
def test_a_table_of_several_schedules_names_them(module):
    figure = module.convergence([ROWS[0], ROWS[0] | {"schedule": "linear"}])
    assert {"ddim on vp: 1.03", "ddim on linear: 1.03"} <= set(legend(figure))


def test_work_precision_has_all_in_one_panel_and_tells_slopes_or_keeps_them():
    figure = interactive.work_precision([*ROWS, row("unipc2", 2, float("nan"), [1e-9] * 3)], floor=0.015)
    [panel] = panels(figure)
    names = ["ddim: slope 1.03, order 1", "unipc2: all rounding, order 2"]
    assert [mark.name for mark in panel.marks][:2] == names
    assert panel.marks[2].xy[:, 1].tolist() == ROWS[2]["error"]
    assert panel.marks[0].color == style.marking("ddim").color
    # on a logarithmic axis an annotation stands at an exponent
    assert figure.layout.shapes[0].y0 == 0.015
    *slopes, floor = [note for note in figure.layout.annotations if note.text]
    assert floor.y == pytest.approx(np.log10(0.015))
    assert [note.text for note in slopes] == ["slope 1.03", "slope 1.96", "slope 2.11"]
    assert (slopes[1].x, slopes[2].x) == pytest.approx((np.log10(40), np.log10(20)))  # heun's would lie on dpm++2m's
    assert (slopes[0].x, slopes[0].y) == pytest.approx((np.log10(40), -1))
    assert slopes[0].font.color == style.marking("ddim").color
    hidden = interactive.work_precision(ROWS, slopes=False, floor=1e-9)
    [kept] = panels(hidden)
    assert [mark.name for mark in kept.marks] == ["ddim", "dpm++2m", "heun"]
    assert {note.text for note in hidden.layout.annotations if note.text} == {"slope ?"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{k: v for k, v in ROWS[0].items() if k != "measured"}], "lacks measured"),
        ([ROWS[0] | {"nfe": [1, 2]}], "as many errors as NFE"),
        ([ROWS[0] | {"solver": "dimm"}], "did you mean 'ddim'"),
    ],
)
def test_tables_that_cannot_be_drawn(rows, message):
    with refuses(message):
        subject.orders(rows)
