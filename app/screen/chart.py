"""A figure of plotly on a page, which redraws only what differs.

Streamlit's own chart is made anew, three times over, at each change of its figure.
"""

import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st
import streamlit.components.v1 as components

from toydiff.plots.on_screen import QUIET

HERE = Path(__file__).parent
CONFIG = QUIET | {"modeBarButtonsToRemove": ["toImage"]}
"""Plotly's settings of a page: its own button for pictures leaves the slider out."""
_chart = st.components.v2.component(
    "toydiff_chart",
    html='<div class="figure"></div>',
    js=(HERE / "chart.js").read_text(),
    css=(HERE / "chart.css").read_text(),
    isolate_styles=False,
)


def show(
    figure: str,
    *,
    key: str,
    alt: str,
    height: str | int = "stretch",
    file: str = "toydiff",
    title: str = "",
    keys: bool = False,
    on_click: Callable[[float, float, str], None] | None = None,
    on_stroke: Callable[[list[tuple[float, float]], str], None] | None = None,
    on_drag: Callable[[int, float, float, str], None] | None = None,
    draws: bool = False,
    layers: Mapping | None = None,
    made_of: str = "",
) -> None:
    """Draw a figure, given as its JSON.

    alt: what a screen reader says. file, title: the name of the picture that is saved, and the claim above it. keys:
    whether keys move its slider. on_click(x, y, made_of) is called before the page is made again, with a place on the
    figure's first axes, and with `made_of` as it was given when the figure that was clicked was made; it leaves
    `st.session_state` alone (see `_told`). on_stroke(places, made_of) likewise, for a line drawn with the button held
    or with a finger, where draws; on_drag(k, x, y, made_of) for the mode k of a mixture that was let go at (x, y).
    layers: what layers.js draws over the figure from.
    """
    config = CONFIG
    has = {"keys": keys, "clicks": on_click is not None, "draws": draws, "file": file, "title": title}
    callbacks = {"on_turned_change": lambda: None}  # the page is made again, which is enough
    if on_click is not None:
        config = CONFIG | {"doubleClick": False}  # two quick clicks are two, and do not change the axes
        callbacks["on_clicks_change"] = lambda: _told(key, "clicks", on_click)
    if on_stroke is not None:
        callbacks["on_strokes_change"] = lambda: _told(key, "strokes", on_stroke)
    if on_drag is not None:
        callbacks["on_drags_change"] = lambda: _told(key, "drags", on_drag)
    seen = st.session_state.get(f"{key}-seen")
    has |= {"madeOf": made_of, "layers": layers, "seen": seen.last.get("drags", 0) if seen else 0}
    state = _chart(key=key, data=_data(figure, has=has, config=config, alt=alt), height=height, **callbacks)
    # what the browser told a server that was here before is not new
    last = {what: values[-1][0] for what in ("clicks", "strokes", "drags") if (values := getattr(state, what, None))}
    st.session_state.setdefault(f"{key}-seen", Seen(last))


@dataclass
class Seen:
    """The clicks, strokes and drags of a chart that were told on: the number of the last of each."""

    last: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _told(key: str, what: str, then: Callable) -> None:
    """Call `then` for each new click, stroke or drag.

    When a later click comes, Streamlit begins its run in a second thread, and ends this one where it reads or writes
    `st.session_state` next. Nothing has changed by then, and the later click brings this one with it.
    """
    seen, told = st.session_state.setdefault(f"{key}-seen", Seen()), getattr(st.session_state[key], what)
    with seen.lock:
        for number, *values in told:
            if number > seen.last.get(what, 0):
                seen.last[what] = number
                then(*values)


def fetch_ahead() -> None:
    """Make the browser fetch what draws figures, while the first one is computed."""
    _chart(key="ahead", data=_data("null"), height=1)


def _data(figure: str, **more: object) -> bytes:
    return f'{{"figure": {figure}, {json.dumps(more | {"url": _address()})[1:]}'.encode()


@functools.cache
def _address() -> str:
    """Where the server hands out plotly.js, in the folder of a component that is declared for this only.

    It is below the app's own address, which a proxy may have changed: the browser knows it. It is plotly's own build
    for figures with axes, a third as large as the whole one that the package plotly carries.
    """
    folder = components.declare_component("plotly", path=str(HERE / "plotly"))
    return f"component/{folder.name}/plotly-cartesian.min.js"
