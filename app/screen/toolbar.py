"""Under each figure: its picture, its page and its numbers as files."""

import json
from pathlib import Path

import plotly.io
import streamlit as st

from toydiff.plots import interactive

HERE = Path(__file__).parent
_png = st.components.v2.component(
    "toydiff_png",
    html='<button type="button">PNG</button>',
    js=(HERE / "png.js").read_text(),
    css=(HERE / "png.css").read_text(),
)


def show(id_: str, figure: str, rows: list[dict], title: str, words: str) -> None:
    """The row of buttons, for a figure given as its JSON, its claim, and what was measured."""
    with st.container(horizontal=True, key="files", vertical_alignment="center"):
        st.caption("Save the figure as", width="content")
        _png(key=f"{id_}-png", width="content", height="content")
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
        if '"sliders":' in figure:
            st.caption("· keys: ← → Home End move the slider, space plays, F presents", width="content")


def as_json(rows: list[dict]) -> str:
    """Rows as the text of a file; what was not measured is null."""
    return json.dumps([{k: None if v != v else v for k, v in row.items()} for row in rows], indent=1)
