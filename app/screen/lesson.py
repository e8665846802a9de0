"""A lesson and its page: a claim, at most five controls, the figure, a few words, the equation, and the code."""

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from toydiff.plots.screen import for_screen

from . import chart, editor, link, toolbar
from .controls import Control, Mixture, Several
from .messages import EXPECTED, line_of, plain
from .snippet import snippet
from .theme import is_dark

MOST_CONTROLS = 5
REMEMBERED = 96
"""Figures that are kept, of all lessons and sessions together: one is a megabyte or so."""

PICTURE_FIRST = 0.8
"""Seconds that the first page of a visit leaves the browser for its figure alone.

Words, equation and buttons come after them, and make the browser fetch what they need.
"""

PARTS = {
    "menu": ".stSidebar, .stAppHeader, .st-key-before, .st-key-after",
    "title": ".st-key-head",
    "question": ".st-key-ask",
    "controls": ".st-key-controls, .st-key-drawer",
    "words": ".st-key-words",
    "files": ".st-key-files",
    "training": ".st-key-train",
    "code": ".stMain .stExpander",
}
"""What `hide=` in a link can leave out of a page, and where it is."""
ROOM = {"title": 2.4, "controls": 4.6}
"""The height in rem that the figure gains where a part is left out."""

Rows = list[dict]
STYLE = (Path(__file__).parent / "page.css").read_text()


@dataclass(frozen=True, eq=False)
class Lesson:
    """One page. `figure(**values)` returns (figure, rows): what is drawn, and the numbers behind it.

    - uses: functions and classes that `figure` needs, shown above it in the code.
    - words(rows): two or three sentences, with what was measured.
    - presets: named states for a lecture, {title: {control: value}}.
    - idle: controls without effect while another has a certain value, {(control, value): names}: they are not shown.
    - ask: a question to answer before the figure is looked at, and its answer.
    - live(values): draws what else is on the page, below the figure.
    - there: whether what the page shows has come with the library; else it is no page.
    - long(values): why the figure takes so long that it is made on request only; None where it does not.
    - together: controls of which a site without a server has all combinations (`Control.few`); of the others it has one
      at a time.
    - layers(**values): from what the browser draws layers over the figure, handles of the mixture's modes, and a dot's
      exact path (`layers.js`): {"mixture": `mixtures.parts_of`, "schedule": its name, "size": the data's std, "levels":
      {alpha, sigma} of each frame, "wide": whether x is drawn over sqrt(alpha^2 + sigma^2)}; None where there are none.
    - in_app: what only the app can do here, said on such a site.
    """

    id: str
    menu: str
    icon: str
    title: str
    equation: str
    source: str
    controls: Sequence[Control]
    figure: Callable[..., tuple[go.Figure, Rows]]
    words: Callable[[Rows], str]
    uses: Sequence[Callable] = ()
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    idle: Mapping[tuple[str, object], Sequence[str]] = field(default_factory=dict)
    ask: tuple[str, str] | None = None
    live: Callable[[Mapping], None] | None = None
    there: bool = True
    long: Callable[[Mapping], str | None] | None = None
    together: Sequence[str] = ()
    layers: Callable[..., Mapping] | None = None
    in_app: str = ""

    def __post_init__(self):
        if len(self.controls) > MOST_CONTROLS:
            raise ValueError(
                f"the lesson {self.id} has {len(self.controls)} controls; a page has {MOST_CONTROLS} at most"
            )

    def resting(self, chosen: Mapping) -> set[str]:
        """The controls that have no effect while these values are chosen."""
        return {name for (control, value), names in self.idle.items() if chosen[control] == value for name in names}

    def code(self, chosen: Mapping) -> str:
        """The Python that makes the figure of these values, and prints its numbers."""
        return snippet([*self.uses, self.figure], {c.name: c.code(chosen[c.name]) for c in self.controls})


def remember(function: Callable) -> Callable:
    """Keep a function's last results, for all sessions: for what several figures need, and for what takes longest.

    Who asks for what is being computed already waits for it. Streamlit's own cache would do the same, but any visitor
    can clear that one.
    """
    kept = functools.lru_cache(maxsize=REMEMBERED)(function)
    lock, under_way = threading.Lock(), {}

    @functools.wraps(function)
    def remembered(*args):
        with lock:
            own = under_way.setdefault(args, threading.Lock())
        try:
            with own:
                return kept(*args)
        finally:
            with lock:
                under_way.pop(args, None)

    remembered.cache_clear, remembered.cache_info = kept.cache_clear, kept.cache_info
    return remembered


@remember
def _picture(lesson: Lesson, chosen: tuple, dark: bool) -> tuple[str, Rows]:
    """A lesson's figure as it is shown, as JSON, and its rows; shared by all sessions, so nobody changes it."""
    values = {c.name: c.value(value) for c, value in zip(lesson.controls, chosen, strict=True)}
    figure, rows = lesson.figure(**values)
    return for_screen(figure, dark=dark).to_json(), rows


def _layers(lesson: Lesson, chosen: Mapping) -> dict:
    """What the chart of a lesson that has layers takes besides: they are those of its first control, a mixture."""
    if lesson.layers is None:
        return {}
    first = lesson.controls[0]
    return {
        "layers": lesson.layers(**{c.name: c.value(chosen[c.name]) for c in lesson.controls}),
        "on_drag": editor.edits_of(link.key_of(lesson.id, first), chosen[first.name]).drag,
        "made_of": chosen[first.name],
    }


def show(lesson: Lesson, before: st.Page | None = None, after: st.Page | None = None) -> None:
    """The page; before, after: the pages beside it, which the keys PageUp and PageDown open."""
    dark = is_dark()
    hidden, wrong = link.hidden(lesson.controls, PARTS)
    st.html(f"<style>{STYLE}{_left_out(hidden)}</style>")
    _head(lesson, before, after)
    for text in [*link.follow(lesson.id, lesson.controls), *filter(None, [wrong])]:
        st.warning(f"The link does not fit: {plain(text)}", icon=":material/link_off:")
    resting = lesson.resting({c.name: st.session_state[link.key_of(lesson.id, c)] for c in lesson.controls})
    resting |= {c.name for c in lesson.controls if c.name in hidden or not c.shown}
    shown = [c for c in lesson.controls if c.name not in resting]
    widths = [1.7 if isinstance(c, Mixture | Several) else 1 for c in shown]
    columns = st.container(key="controls").columns(widths, vertical_alignment="bottom") if shown else []
    place = st.container(key="picture")
    ahead = place.empty()
    first = "seen" not in st.session_state
    if first:
        st.session_state["seen"] = True
        with ahead:
            chart.fetch_ahead()
    chosen = {control.name: link.kept(lesson.id, control) for control in lesson.controls if control.name in resting}
    for column, control in zip(columns, shown, strict=True):
        with column:
            chosen[control.name] = control.widget(link.key_of(lesson.id, control))
    chosen = {control.name: chosen[control.name] for control in lesson.controls}
    link.write(lesson.id, lesson.controls, chosen)
    reason = lesson.long(chosen) if lesson.long else None
    if reason and not _wanted(lesson, chosen, place, reason):
        return
    try:
        figure, rows = _picture(lesson, tuple(chosen.values()), dark)
        layers = _layers(lesson, chosen)
    except EXPECTED as error:
        place.error(line_of(error), icon=":material/error:")
        return
    with place:
        said = lesson.words(rows)
        alt = f"{lesson.title}. {said.replace('*', '')}"
        chart.show(
            figure,
            key=f"{lesson.id}-figure",
            alt=alt,
            file=f"toydiff-{lesson.id}",
            title=lesson.title,
            keys=True,
            **layers,
        )
    if first:
        time.sleep(PICTURE_FIRST)
    left, right = st.container(key="words").columns([8, 5], gap="medium")
    left.markdown(said)
    right.latex(lesson.equation)
    right.caption(lesson.source)
    toolbar.show(lesson.id, figure, rows, lesson.title, said, has_layers=bool(layers))
    if lesson.live is not None:
        lesson.live(chosen)
    # what colours code is large, and is fetched when it is wanted
    code = st.expander("The code of this figure", icon=":material/code:", key=f"{lesson.id}-code", on_change="rerun")
    if code.open:
        code.code(lesson.code(chosen), language="python")


def _left_out(hidden: set[str]) -> str:
    """The style that takes parts off the page, whose height is the figure's then."""
    gained = sum(ROOM.get(name, 0) for name in hidden)
    parts = ", ".join(PARTS[name] for name in PARTS if name in hidden)
    return f"{parts} {{ display: none !important }} :root {{ --gained: {gained}rem }}" if parts else ""


def _head(lesson: Lesson, before: st.Page | None, after: st.Page | None) -> None:
    """The claim, and beside it the question, the way back to the first view, and the pages before and after."""
    with st.container(key="head", horizontal=True, vertical_alignment="center"):
        st.header(lesson.title, anchor=False, width="stretch")
        if lesson.ask:
            question, answer = lesson.ask
            with (
                st.container(key="ask", width="content"),
                st.popover("Predict first", icon=":material/psychology_alt:"),
            ):
                st.markdown(f"**{question}**")
                st.expander("The answer").markdown(answer)
        st.button(
            "Reset",
            icon=":material/restart_alt:",
            key=f"{lesson.id}-reset",
            on_click=link.reset,
            args=(lesson.id, lesson.controls),
        )
        for name, page, icon, words in (
            ("before", before, ":material/chevron_left:", "Previous page (PageUp)"),
            ("after", after, ":material/chevron_right:", "Next page (PageDown)"),
        ):
            if page is not None:
                with st.container(key=name, width="content"):
                    st.page_link(page, label="Previous" if name == "before" else "Next", icon=icon, help=words)


def _wanted(lesson: Lesson, chosen: Mapping, place: DeltaGenerator, reason: str) -> bool:
    """Whether the reader has requested this figure; until then a button stands in its place."""
    key = f"{lesson.id}-wanted"
    if st.session_state.get(key) == chosen:
        return True
    with place:
        st.info(reason, icon=":material/hourglass_empty:")
        st.button(
            "Make it",
            type="primary",
            key=f"{lesson.id}-make",
            on_click=lambda: st.session_state.update({key: dict(chosen)}),
        )
    return False
