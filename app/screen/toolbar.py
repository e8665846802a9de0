"""Under each figure: its picture, its page and its numbers as files, and the arrow keys for its slider."""

import json
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from toydiff.plots import interactive

_keys = st.components.v2.component(
    "toydiff_keys", html='<button type="button">PNG</button>', js=(Path(__file__).parent / "keys.js").read_text(), css=(Path(__file__).parent / "keys.css").read_text()
)  # fmt: skip


def show(id_: str, figure: go.Figure, rows: list[dict]) -> None:
    """The row of buttons."""
    with st.container(horizontal=True, key="files", vertical_alignment="center"):
        st.caption("Save the figure as", width="content")
        _keys(key=f"{id_}-keys", width="content", height="content")
        st.download_button(
            "HTML", lambda: interactive.page(figure), f"toydiff-{id_}.html", "text/html", key=f"{id_}-html", on_click="ignore"
        )  # fmt: skip
        st.download_button(
            "numbers (JSON)", as_json(rows), f"toydiff-{id_}.json", "application/json", key=f"{id_}-json", on_click="ignore"
        )  # fmt: skip
        if figure.frames:
            st.caption("· the keys ← → move the slider", width="content")


def as_json(rows: list[dict]) -> str:
    """Rows as the text of a file; what was not measured is null."""
    return json.dumps([{k: None if v != v else v for k, v in row.items()} for row in rows], indent=1)
