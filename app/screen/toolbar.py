"""Under each figure: its picture, its page and its numbers as files, and the link to its state."""

import json
from pathlib import Path

import plotly.io
import streamlit as st

from toydiff.plots import interactive

from . import layers

HERE = Path(__file__).parent
FORMATS = ("PNG", "SVG", "PDF")
_save, _save_moving, _copy = (
    st.components.v2.component(
        f"toydiff_{name}",
        html="".join(f'<button type="button">{word}</button>' for word in words),
        js=(HERE / "save.js").read_text(),
        css=(HERE / "button.css").read_text(),
    )
    for name, words in (("save", FORMATS), ("save_moving", (*FORMATS, "GIF")), ("copy", ("Copy link",)))
)


def show(id_: str, figure: str, rows: list[dict], title: str, words: str, *, has_layers: bool) -> None:
    """The row of buttons, for a figure given as its JSON, its claim, and what was measured; and its layers' boxes."""
    moves = '"sliders":' in figure
    with st.container(horizontal=True, key="files", vertical_alignment="center"):
        st.caption("Save as", width="content")
        (_save_moving if moves else _save)(key=f"{id_}-save", width="content", height="content")
        st.download_button(
            "HTML",
            lambda: interactive.page(plotly.io.from_json(figure), title=title, words=words),
            f"toydiff-{id_}.html",
            "text/html",
            key=f"{id_}-html",
            on_click="ignore",
        )
        st.download_button(
            "numbers (JSON)",
            lambda: as_json(rows),
            f"toydiff-{id_}.json",
            "application/json",
            key=f"{id_}-json",
            on_click="ignore",
        )
        _copy(key=f"{id_}-copy", width="content", height="content")
        if has_layers:
            layers.show(f"{id_}-layers")
        if moves:
            touch = " · a click on a dot: its path alone" if '"state at time t"' in figure else ""
            touch += " · modes, where they are shown, are dragged" if has_layers else ""
            st.caption(f"· keys: ← → Home End move the slider, space plays, F presents{touch}", width="content")


def as_json(rows: list[dict]) -> str:
    """Rows as the text of a file; what was not measured is null."""
    return json.dumps([{k: None if v != v else v for k, v in row.items()} for row in rows], indent=1)
