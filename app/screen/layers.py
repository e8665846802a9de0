"""What of a figure is seen, switched in the browser, and handles that drag the modes of its mixture."""

from pathlib import Path

import streamlit as st

from .mixtures import REACH

HERE = Path(__file__).parent
SHARED = ("toydiff", "mixtures", "layers", "modes")
"""Scripts of the site that this uses."""
_scripts = [(HERE.parent / "offline" / f"{name}.js").read_text() for name in SHARED]
_layers = st.components.v2.component(
    "toydiff_layers",
    html='<div class="switches"></div>',
    js="\n".join([f"const REACH = {REACH};", *_scripts, (HERE / "layers.js").read_text()]),
    css=".switches { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center }",
)


def show(key: str) -> None:
    """The boxes to tick."""
    _layers(key=key, width="content", height="content")
