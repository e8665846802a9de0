"""Light or dark: what the reader chose in the page's menu, or else what the reader's system says."""

import streamlit as st


def is_dark() -> bool:
    """Whether the page is dark."""
    return st.context.theme.type == "dark"
