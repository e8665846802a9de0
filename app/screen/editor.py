"""Editing a mixture: a table of its components, a plane where a click adds or removes one, and drags of its modes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

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


@dataclass
class Edits:
    """What the editor makes of a mixture, until its control takes it over.

    When another click comes, Streamlit begins its run in a second thread, and ends the first one where that reads or
    writes `st.session_state` next. So callbacks change this alone, one at a time.
    """

    made: list[str]
    """Mixtures made by clicks and drags, the newest last: one on an older plane finds its place."""
    due: bool = False
    """Whether the control has still to take the newest."""
    said: str | None = None
    """What is wrong with the last edit."""
    drawn: tuple[str, list] = ("", [])
    """The mixture that lines made, and the lines."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: int | None = None
    """That of the newest run."""

    def click(self, use: str, x: float, y: float, on: str) -> None:
        """A click at (x, y), on a plane that shows the mixture `on`: a component is added there, or the nearest taken
        away."""
        if use == ADD:
            new = round(x, 1) + 0.0, round(y, 1) + 0.0
            self._change(on, lambda rows: [*rows, (*new, *rows[-1][2:])])
        elif use == TAKE:
            self._change(on, lambda rows: _without_nearest(rows, x, y))

    def drag(self, k: int, x: float, y: float, on: str) -> None:
        """Component k of the mixture `on` was dragged to (x, y)."""
        self._change(on, lambda rows: [(x, y, *row[2:]) if i == k else row for i, row in enumerate(rows)])

    def _change(self, on: str, changed: Callable[[list], list]) -> None:
        """A click or a drag on a figure that shows the mixture `on`.

        The figure may be older than the last of them: one belongs to the mixture that those before it made of that one.
        """
        with self.lock:
            made = self.made if on in self.made else [on]
            self._take(changed(_rows(made[-1])[0]), made)

    def draw(self, places: list, on: str) -> None:
        """A line drawn on a plane that shows the mixture `on`: a mixture is fitted to it, and to the lines that made
        `on`, if lines did."""
        with self.lock:
            word, before = self.drawn
            lines = [*(before if word == on else []), places][-LINES:]
            self._take(fitted([place for line in lines for place in evenly(line)]), [])
            self.drawn = self.made[-1], lines

    def edit(self, rows: list, change: dict) -> None:
        """A change of the table of these rows, as Streamlit tells it."""
        new = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        for k, cells in change["edited_rows"].items():
            new[int(k)].update(cells)
        new = [row for k, row in enumerate(new) if k not in change["deleted_rows"]]
        usual = dict(zip(COLUMNS, (None, None, rows[-1][2], rows[-1][3]), strict=True))
        added = [usual | {key: v for key, v in row.items() if v is not None} for row in change["added_rows"]]
        # a row that is still being filled in is not yet a component
        new += [row for row in added if row["x"] is not None and row["y"] is not None]
        with self.lock:
            self._take([tuple(row[column] for column in COLUMNS) for row in new], [])

    def _take(self, rows: list, before: list[str]) -> None:
        """The rows become the mixture, made of those before, or a message says why not."""
        try:
            word = word_of(rows)
            mixture_of(word)
        except ValueError as error:
            self.said = line_of(error)
        else:
            self.made, self.due = [*before, word][-KEPT:], True


def _without_nearest(rows: list, x: float, y: float) -> list:
    nearest = min(range(len(rows)), key=lambda k: (rows[k][0] - x) ** 2 + (rows[k][1] - y) ** 2)
    return [row for k, row in enumerate(rows) if k != nearest]


def _key(name: str) -> str:
    return f"{name}-edits"


def take_over(name: str) -> None:
    """Before the control is drawn: it takes what callbacks made."""
    edits = st.session_state.get(_key(name))
    if edits is None:
        return
    with edits.lock:
        edits.thread = threading.get_ident()
        if edits.due:
            st.session_state[name] = edits.made[-1]
            edits.due = False


def edits_of(name: str, word: str) -> Edits:
    """Those of the mixture in `st.session_state[name]`, which is `word` in this run. One that was made otherwise begins
    anew; a run that a newer one has overtaken does not know."""
    edits = st.session_state.setdefault(_key(name), Edits([word]))
    with edits.lock:
        newest = edits.thread in (None, threading.get_ident())
        if newest and word != edits.made[-1] and not edits.due:
            edits.made = [word]
    return edits


def popover(name: str, word: str) -> None:
    """A button that opens the editor of the mixture in `st.session_state[name]`, which is `word`."""
    opened = st.popover("edit", width="stretch", key=f"{name}-edit", on_change="rerun")
    if not opened.open:
        return
    with opened:
        edits = edits_of(name, word)
        edits.said, refused = None, edits.said
        rows, wrong = _rows(word)
        for said in (wrong, refused):
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
                on_click=lambda x, y, on: edits.click(use, x, y, on),
                on_stroke=edits.draw,
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
            on_change=lambda: edits.edit(rows, st.session_state[table]),
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


def evenly(line: list, gap: float = 0.05, most: int = 200) -> list[tuple[float, float]]:
    """Places of a line at equal distances, so that a slow hand is no heavier than a quick one."""
    at = np.array(line)
    gone = np.concatenate([[0.0], np.linalg.norm(np.diff(at, axis=0), axis=1).cumsum()])
    n = min(max(int(gone[-1] / gap), 2), most)
    along = np.linspace(0, gone[-1], n)
    return [(float(np.interp(d, gone, at[:, 0])), float(np.interp(d, gone, at[:, 1]))) for d in along]
