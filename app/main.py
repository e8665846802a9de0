"""The app: `toydiff app`, or `streamlit run app/main.py`. One page a lesson; `lessons/__init__.py` lists them."""

import sys
from pathlib import Path

import streamlit as st
import torch

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # Streamlit's own command puts it there, its tests do not
    sys.path.insert(0, str(HERE))

from lessons import LESSONS  # noqa: E402
from screen import later  # noqa: E402
from screen.lesson import Lesson, show  # noqa: E402
from screen.visitors import is_open  # noqa: E402

torch.set_num_threads(1)  # the tensors are small, and many people may be here at once


def page_of(lesson: Lesson, **how) -> st.Page:
    return st.Page(lambda: show(lesson), title=lesson.menu, icon=lesson.icon, **({"url_path": lesson.id} | how))


if is_open():  # strangers see no paths of this machine
    st.set_option("client.showErrorDetails", "none")
    st.set_option("client.toolbarMode", "viewer")
st.set_page_config(
    page_title="toydiff",
    page_icon=str(HERE / "screen" / "icon.png"),
    layout="wide",
    initial_sidebar_state=260,
)
first = LESSONS[0]
pages = {lesson.id: page_of(lesson) for lesson in LESSONS}
# the first page is at /, and also where its name says, as the others are
pages[first.id] = page_of(first, default=True, url_path="first")
chosen = st.navigation([*pages.values(), page_of(first, visibility="hidden")], expanded=True)
shown = next((lesson for lesson in LESSONS if lesson.menu == chosen.title), first)
with st.sidebar:
    st.caption("For a lecture")
    here, others = st.container(), st.expander("On the other pages")
    for lesson in LESSONS:
        place = here if lesson is shown else others
        for title, state in lesson.presets.items():
            place.page_link(pages[lesson.id], label=title, icon=lesson.icon, query_params=state)
chosen.run()
later.fetch()
