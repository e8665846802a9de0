"""What all pages share in the browser: the presenter's mode, a clicker's keys, and on a phone the controls' drawer."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
_frame = st.components.v2.component(
    "toydiff_frame",
    html='<button type="button">Controls</button>',
    js=(HERE / "frame.js").read_text(),
    css=(HERE / "button.css").read_text(),
)


def show() -> None:
    """The button that opens the controls, which is seen on a phone only, and the keys."""
    with st.container(key="drawer"):
        _frame(key="frame", height="content")
