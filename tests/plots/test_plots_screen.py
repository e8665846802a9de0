"""A dark page turns ink and paper around, a method's colour stays, and letters can be read from the back row."""

import numpy as np
import pytest
import torch
from cases import RING
from panels import pixels

import toydiff
from toydiff.plots import interactive, on_screen, screen, style

VP = toydiff.VP()


@pytest.fixture(scope="module")
def path():
    return toydiff.solve(RING.denoiser(VP), VP.prior((4, 2), 0, dtype=torch.float64), 6)


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
            color = screen.DARK.get(entry.color, entry.color) if dark else entry.color
            assert contrast(color, screen.DARK_PAPER if dark else screen.PAPER) > 2, (entry.name, dark)
    assert contrast(screen.DARK_INK, screen.DARK_PAPER) > 7
    assert contrast(style.INK, screen.PAPER) > 7


def test_figures_of_as_many_panels_share_nothing():
    first = on_screen.panels(1, 2, ["a", "b"], "title", 500, horizontal_spacing=0.1)
    first.layout.annotations[0].text = first.layout.xaxis.title.text = "changed"
    first.add_scatter(x=[0], y=[0], row=1, col=2)
    second = on_screen.panels(1, 2, ["c", "b"], "", 500, horizontal_spacing=0.1)
    assert [note.text for note in second.layout.annotations] == ["c", "b"]
    assert second.layout.xaxis.title.text is None
    assert not second.data
    assert len(on_screen.panels(1, 2, ["", "b"], "", 500, horizontal_spacing=0.1).layout.annotations) == 1


def test_a_dark_figure_turns_ink_and_paper_around(path):
    def made(dark):
        figure = interactive.trajectories({"a": path}, RING, solvers={"a": "ddim"}, exact=path.end)
        return screen.for_screen(figure, dark=dark)

    light, dark = made(False), made(True)
    assert light.layout.paper_bgcolor == screen.PAPER
    assert dark.layout.paper_bgcolor == screen.DARK_PAPER
    assert light.data[0].line.color == "#000000"
    assert dark.data[0].line.color == "#FFFFFF"
    assert dark.data[2].marker.color == "#FFFFFF"
    assert dark.data[1].marker.color == light.data[1].marker.color == on_screen.RING_COLOR  # seen on both
    # high density: dark on white paper, light on a dark page
    bright, dim = pixels(light).sum(2), pixels(dark).sum(2)
    assert np.corrcoef(bright.ravel(), dim.ravel())[0, 1] < -0.99
    assert [round(255 * v) for v in pixels(dark)[0, 0]] == [int(screen.DARK_PAPER[k : k + 2], 16) for k in (1, 3, 5)]
    assert light.layout.font.size == dark.layout.font.size == 17
    assert light.layout.height is None


def test_a_methods_colour_stays_in_the_dark(path):
    figure = interactive.trajectories({"a": path}, RING, solvers={"a": "dpm++2m"})
    before = figure.data[0].line.color
    assert screen.for_screen(figure, dark=True).data[0].line.color == before


def test_a_band_of_ink_is_turned_around():
    figure = interactive.against_noise({style.TEACHER: [(1.0, 2.0, 0.1), (2.0, 3.0, 0.1)]}, ylabel="y")
    assert screen.for_screen(figure, dark=True).data[0].fillcolor == screen.DARK_INK


def test_of_bars_of_several_colours_ink_is_turned_around():
    curve = {"rounds": [], "median": [], "p95": []}
    row = {
        "steps": 4,
        "rounds": 4,
        "nfe": 4,
        "seconds": 0.1,
        "seconds_with_cost": 1.0,
        "cost_per_call": 0.0,
        "curve": curve,
    }
    figure = interactive.spent([row | {"method": method} for method in ("sequential", "picard")])
    bars = screen.for_screen(figure, dark=True).data[0].marker.color
    assert list(bars) == ["#FFFFFF", style.parallel_marking("picard").color]  # black would not be seen


def test_heads_are_broken_where_they_would_meet(path):
    names = [f"{k}: a long name of a panel, with a number 0.123, and another one 4.56" for k in range(3)]
    figure = screen.for_screen(interactive.trajectories(dict.fromkeys(names, path), RING))
    lines = [note.text.split("<br>") for note in figure.layout.annotations]
    assert all(len(head) == 3 for head in lines)
    assert [" ".join(head) for head in lines] == names
    alone = screen.for_screen(interactive.trajectories({names[0]: path}, RING))
    assert alone.layout.annotations[0].text == names[0]
    assert alone.layout.margin.t < figure.layout.margin.t


def test_letters_have_a_size(path):
    with pytest.raises(ValueError, match="size must be a whole number"):
        screen.for_screen(interactive.trajectories({"a": path}, RING), size=0)
