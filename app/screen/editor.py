"""Editing a mixture without dragging: a table of its components, and a plane where a click adds or removes one."""

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from toydiff.plots.screen import for_screen
from toydiff.plots.style import BLUE, GRID_COLOR

from . import chart
from .messages import line_of
from .mixtures import COLUMNS, MOST, components_of, fitted, mixture_of, word_of
from .theme import is_dark

ADD, TAKE, DRAW = USES = "a click adds a component", "takes one away", "a line draws the mixture"
LINES = 8
"""Lines, at most, that a drawn mixture is fitted to: the last ones."""
KEPT = 50
"""Mixtures made by clicks and drags that are known, so that one on an older plane finds its place."""


def popover(name: str) -> None:
    """A button that opens the editor of the mixture in `st.session_state[name]`."""
    opened = st.popover("edit", width="stretch", key=f"{name}-edit", on_change="rerun")
    if not opened.open:
        return
    with opened:
        word = st.session_state[name]
        _begin(name)
        rows, wrong = _rows(word)
        for said in (wrong, st.session_state.pop(f"{name}-said", None)):
            if said:
                st.error(said)
        use = st.segmented_control("In the plane", USES, default=USES[0], key=f"{name}-click", required=True)
        left, right = st.columns(2)
        with left:
            chart.show(
                _plane(rows).to_json(),
                key=f"{name}-plane",
                alt="The components' means",
                height=340,
                on_click=lambda x, y, on: _clicked(name, use, x, y, on),
                on_stroke=lambda places, on: _drawn(name, places, on),
                draws=use == DRAW,
                made_of=word,
            )
        columns = [list(column) for column in zip(*rows, strict=True)]
        # each mixture has its own key: an edited cell belongs to the mixture that it was edited in
        table = f"{name}-{abs(hash(word))}-table"
        right.data_editor(
            dict(zip(COLUMNS, columns, strict=True)),
            num_rows="dynamic",
            hide_index=True,
            key=table,
            height=340,
            on_change=lambda: _edited(name, rows, table),
        )
        st.caption(
            f"Up to {MOST} round Gaussians; weights are relative. Those of a ready-made mixture start with the mean "
            "width of its own components."
        )


def _rows(word: str) -> tuple[list, str | None]:
    """A mixture's components, or the ring's and what is wrong."""
    try:
        return components_of(word), None
    except ValueError as error:
        return components_of("ring"), line_of(error)


def _plane(rows: list) -> go.Figure:
    centres = np.array(rows)
    reach = max(3.0, 1.15 * float(np.abs(centres[:, :2]).max()))
    marker = {"size": 12, "color": BLUE, "line": {"width": 1, "color": "white"}}
    figure = go.Figure(go.Scatter(x=centres[:, 0], y=centres[:, 1], mode="markers", marker=marker))
    figure.update_traces(hovertemplate="(%{x:.2f}, %{y:.2f})<extra></extra>")
    figure.update_layout(showlegend=False, dragmode=False)
    figure.update_xaxes(range=[-reach, reach], constrain="domain", gridcolor=GRID_COLOR)
    figure.update_yaxes(range=[-reach, reach], constrain="domain", gridcolor=GRID_COLOR, scaleanchor="x")
    for_screen(figure, dark=is_dark(), size=13)
    return figure.update_layout(margin={"l": 30, "r": 5, "t": 5, "b": 25})


def dragging(name: str) -> Callable[[int, float, float, str], None]:
    """What a drag of a mode of the mixture in `st.session_state[name]` does: (k, x, y, on) moves component k of the
    mixture `on` to (x, y)."""
    _begin(name)
    return lambda k, x, y, on: _moved(name, k, x, y, on)


def _begin(name: str) -> None:
    """A mixture that was not made by clicks or drags: they begin anew."""
    word = st.session_state[name]
    if word not in st.session_state.get(f"{name}-made", [])[-1:]:
        st.session_state[f"{name}-made"] = [word]


def _clicked(name: str, use: str, x: float, y: float, on: str) -> None:
    """A click at (x, y), on a plane that shows the mixture `on`: a component is added there, or the nearest taken
    away."""

    def changed(rows: list) -> list:
        if use == ADD:
            return [*rows, (round(x, 1) + 0.0, round(y, 1) + 0.0, rows[-1][2], rows[-1][3])]
        if use == TAKE:
            nearest = min(range(len(rows)), key=lambda k: (rows[k][0] - x) ** 2 + (rows[k][1] - y) ** 2)
            return [row for k, row in enumerate(rows) if k != nearest]
        return rows

    _change(name, on, changed)


def _moved(name: str, k: int, x: float, y: float, on: str) -> None:
    """Component k of the mixture `on` was dragged to (x, y)."""
    _change(name, on, lambda rows: [(x, y, *row[2:]) if i == k else row for i, row in enumerate(rows)])


def _change(name: str, on: str, changed: Callable[[list], list]) -> None:
    """A click or a drag on a figure that shows the mixture `on`.

    The figure may be older than the last of them: one belongs to the mixture that those before it made of that one.
    """
    made = st.session_state.get(f"{name}-made", [])
    made = made if on in made else [on]
    st.session_state[name] = made[-1]
    rows = _rows(made[-1])[0]
    if (new := changed(rows)) != rows:
        _take(name, new)
    st.session_state[f"{name}-made"] = [*made, st.session_state[name]][-KEPT:]


def _drawn(name: str, places: list, on: str) -> None:
    """A line drawn on a plane that shows the mixture `on`: a mixture is fitted to it, and to the lines that made `on`,
    if lines did."""
    word, before = st.session_state.get(f"{name}-lines", (None, []))
    lines = [*(before if word == on else []), places][-LINES:]
    _take(name, fitted([place for line in lines for place in evenly(line)]))
    st.session_state[f"{name}-lines"] = st.session_state[name], lines


def evenly(line: list, gap: float = 0.05, most: int = 200) -> list[tuple[float, float]]:
    """Places of a line at equal distances, so that a slow hand is no heavier than a quick one."""
    at = np.array(line)
    gone = np.concatenate([[0.0], np.linalg.norm(np.diff(at, axis=0), axis=1).cumsum()])
    n = min(max(int(gone[-1] / gap), 2), most)
    along = np.linspace(0, gone[-1], n)
    return [(float(np.interp(d, gone, at[:, 0])), float(np.interp(d, gone, at[:, 1]))) for d in along]


def _edited(name: str, rows: list, table: str) -> None:
    change = st.session_state[table]
    new = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    for k, cells in change["edited_rows"].items():
        new[int(k)].update(cells)
    new = [row for k, row in enumerate(new) if k not in change["deleted_rows"]]
    usual = dict(zip(COLUMNS, (None, None, rows[-1][2], rows[-1][3]), strict=True))
    added = [usual | {key: value for key, value in row.items() if value is not None} for row in change["added_rows"]]
    # a row that is still being filled in is not yet a component
    new += [row for row in added if row["x"] is not None and row["y"] is not None]
    _take(name, [tuple(row[column] for column in COLUMNS) for row in new])


def _take(name: str, rows: list) -> None:
    """The edited rows become the mixture, or a message says why not."""
    try:
        word = word_of(rows)
        mixture_of(word)
    except ValueError as error:
        st.session_state[f"{name}-said"] = line_of(error)
    else:
        st.session_state[name] = word
