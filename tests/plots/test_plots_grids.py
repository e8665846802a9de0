"""Time grids as figures: steps in their places, the two ends as arrows, the error that each costs."""

import numpy as np
import pytest
import torch
from panels import BOTH, legend, panels, refuses

import toydiff
from toydiff.plots import interactive, style
from toydiff.solvers.registry import SOLVERS


@BOTH
@pytest.mark.parametrize("schedule", [toydiff.VP(), toydiff.Linear()], ids=["vp", "linear"])
def test_time_grids(schedule, module):
    grids = {name: toydiff.time_grid(schedule, 4, name) for name in ("karras", "uniform")}
    errors = {"ddim": dict.fromkeys(grids, 0.2), "heun": {"karras": 0.1, "uniform": 0.4}}
    figure = module.time_grids(grids, schedule, errors=errors, floor=1e-12)
    in_time, in_level, cost = panels(figure)
    assert (in_time.head, in_level.head, cost.head) == ("in time", "in noise level", "the error that is left")
    steps = [mark.xy[:, 0] for mark in in_time.marks if len(mark.xy) == 5]
    assert all(np.array_equal(x, ts) for x, ts in zip(steps, grids.values(), strict=True))
    assert in_level.logs[0]
    assert in_level.x[0] > in_level.x[1]  # noise left, data right
    places = [mark.xy[:, 0] for mark in in_level.marks if len(mark.xy) == 5]
    for x, ts in zip(places, grids.values(), strict=True):
        assert np.allclose(x[1:-1], schedule.nsr(ts)[1:-1])
        assert np.isfinite(x).all()
        assert x[-1] == pytest.approx(min(in_level.x))  # t = 0
    infinite = float(schedule.alpha(torch.ones(()))) == 0
    symbols = " ".join(mark.symbol for mark in in_level.marks).split()
    assert set(symbols) - {"None"} <= {"|", "line-ns", ">", "triangle-right", "<", "triangle-left"}
    assert symbols.count(">") + symbols.count("triangle-right") == 2
    assert symbols.count("<") + symbols.count("triangle-left") == (2 if infinite else 0)
    [dots] = cost.named("heun")
    assert dots.xy[:, 0].tolist() == [0.1, 0.4]
    assert dots.color == SOLVERS["heun"].color.upper()
    assert legend(figure)[-1] == "floor 1.0e-12: left of the frame"
    assert cost.names[0] == style.ERROR_LABEL


@BOTH
def test_a_floor_in_the_frame_is_a_line_and_without_errors_there_is_no_panel_for_them(module):
    grids = {"uniform": toydiff.time_grid(toydiff.VP(), 4, "uniform")}
    figure = module.time_grids(grids, toydiff.VP(), errors={"ddim": {"uniform": 0.2}}, floor=0.2)
    assert not [name for name in legend(figure) if "left of the frame" in name]
    found = panels(module.time_grids(grids, toydiff.VP()))
    assert [panel.head for panel in found] == ["in time", "in noise level"]
    with refuses("at least one time grid"):
        module.time_grids({}, toydiff.VP())


def test_the_narrow_axis_of_errors_has_as_many_numbers_as_it_has_room_for():
    grids = {"uniform": toydiff.time_grid(toydiff.VP(), 4, "uniform")}
    found = {}
    for least in (0.02, 0.005, 2e-5):
        errors = {"ddim": {"uniform": 0.2}, "heun": {"uniform": least}}
        axis = interactive.time_grids(grids, toydiff.VP(), errors=errors).layout.xaxis3
        found[least] = axis.ticktext or axis.dtick
    assert found == {0.02: ("0.02", "0.05", "0.1", "0.2"), 0.005: ("0.01", "0.03", "0.1", "0.3"), 2e-5: 1}
