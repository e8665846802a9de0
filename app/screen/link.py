"""The state of a page in its link: an opened link sets the controls, and the controls are written into the address."""

import time
from collections.abc import Iterable, Mapping, Sequence

import streamlit as st
from streamlit.runtime.state import get_session_state
from streamlit.runtime.state.common import user_key_from_element_id

from toydiff.support.words import unknown

from .controls import Control

ECHO = 0.4
"""Seconds within which a browser may still send an address older than the last one that it was given."""
HIDE = "hide"
"""The parameter that names what a page leaves out: `hide=menu,words`, or `hide=menu&hide=words`."""
MOST_SAID = 3
"""Unknown parameters that are named: a link may have any number of them."""


def key_of(page: str, control: Control) -> str:
    """The widget's key: each page has its own."""
    return f"{page}.{control.name}"


def follow(page: str, controls: Sequence[Control]) -> list[str]:
    """Before the widgets are drawn: set the controls from a link that was opened, a preset, or a step back.

    Returns what is wrong with that address, a line for each mistake, as long as no control was moved since. The address
    rules where it is new and no control was moved; otherwise the controls rule, and `write` changes the address. The
    menu's address is empty: the page is as the visitor left it. A page that stayed open while the server was started
    again tells its controls, which rule.
    """
    memory = st.session_state.setdefault(
        f"{page}-link", {"written": None, "stale": (), "at": 0.0, "values": None, "said": [], "opened": False}
    )
    for control in controls:
        control.take_over(key_of(page, control))
    requested = {name: st.query_params.get_all(name) for name in st.query_params}
    if memory["written"] is None and (told := _told(page, controls)):
        memory["written"] = requested
        for control in controls:
            if control in told:
                control.widget(key_of(page, control))  # which takes over what the browser told of it
            else:
                _set(page, control, _read(control, requested, []))
        st.rerun()
    keys = [key_of(page, control) for control in controls]
    lost = any(key not in st.session_state for key in keys)  # another page was open in between
    moved = not lost and memory["values"] is not None and [st.session_state[key] for key in keys] != memory["values"]
    echo = requested in memory["stale"] and time.monotonic() - memory["at"] < ECHO
    if not lost and (moved or requested == memory["written"] or echo):
        memory["said"] = [] if moved else memory["said"]
        return memory["said"]
    if lost and memory["values"] is not None and not requested:
        st.session_state.update(zip(keys, memory["values"], strict=True))
        memory["said"] = []
        return []
    said, known = [], {control.name: control for control in controls}
    # a preset of the page that is open reaches us, but not the browser's address
    memory["said"], memory["opened"] = said, not lost and memory["written"] is not None
    for name in [name for name in requested if name not in (*known, HIDE)][:MOST_SAID]:
        has = f"; this page has {', '.join(known)}" if known else ""
        said.append(f"the link has a parameter {name[:60]!r} that is not known here{has}")
    for control in controls:
        _set(page, control, _read(control, requested, said))
    return said


def _told(page: str, controls: Sequence[Control]) -> list[Control]:
    """The controls whose values the browser told before this session has drawn any."""
    ids = [state.id for state in get_session_state().get_widget_states()]
    keys = {key for id_ in ids if (key := user_key_from_element_id(id_))}
    return [control for control in controls if control.told(key_of(page, control), keys)]


def _read(control: Control, requested: Mapping[str, Sequence[str]], said: list[str]) -> object:
    """A control's value in an address, or its default; what is wrong is added to `said`."""
    try:
        return control.read(requested[control.name]) if requested.get(control.name) else control.default
    except ValueError as error:
        said.append(str(error))
        return control.default


def hidden(controls: Sequence[Control], parts: Iterable[str]) -> tuple[set[str], str | None]:
    """What the address says to leave out, of a page's parts and of its controls by name; and what is wrong with it."""
    words = [word.strip() for text in st.query_params.get_all(HIDE) for word in text.split(",")]
    can = [*parts, *(control.name for control in controls)]
    wrong = next((word for word in words if word not in can), None)
    return set(words) & set(can), wrong and str(unknown(HIDE, wrong[:60], can))


def reset(page: str, controls: Sequence[Control]) -> None:
    """Set the controls to what they are when the page opens."""
    for control in controls:
        _set(page, control, control.default)


def kept(page: str, control: Control) -> object:
    """The value of a control that is not shown now, which Streamlit would forget."""
    key = key_of(page, control)
    st.session_state[key] = st.session_state[key]
    value = st.session_state[key]
    return tuple(value) if isinstance(value, list) else value


def _set(page: str, control: Control, value: object) -> None:
    st.session_state[key_of(page, control)] = list(value) if isinstance(value, tuple) else value


def write(page: str, controls: Sequence[Control], chosen: Mapping[str, object]) -> None:
    """After the widgets: the address names what differs from the defaults."""
    memory = st.session_state[f"{page}-link"]
    memory["values"] = [st.session_state[key_of(page, control)] for control in controls]
    wanted = {c.name: c.texts(chosen[c.name]) for c in controls if chosen[c.name] not in (c.default, ())}
    now = {name: st.query_params.get_all(name) for name in st.query_params}
    wanted |= {HIDE: now[HIDE]} if HIDE in now else {}
    if wanted != now or memory["opened"]:
        st.query_params.from_dict(wanted)
        memory.update(stale=(now, memory["written"]), at=time.monotonic(), opened=False)
    memory["written"] = wanted
