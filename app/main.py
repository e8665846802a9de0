"""The app: `toydiff app`, or `streamlit run app/main.py`. One page a lesson; `lessons/__init__.py` lists them."""

import sys
from pathlib import Path

import streamlit as st
import torch

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # Streamlit's own command puts it there, its tests do not
    sys.path.insert(0, str(HERE))

from lessons import LESSONS  # noqa: E402
from screen import frame, home, later  # noqa: E402
from screen.lesson import show  # noqa: E402
from screen.visitors import is_open  # noqa: E402

torch.set_num_threads(1)  # the tensors are small, and many people may be here at once


def page_of(k: int) -> st.Page:
    lesson = LESSONS[k]
    title = f"{k + 1}. {lesson.menu}"
    return st.Page(lambda: show(lesson, *beside(k)), title=title, icon=lesson.icon, url_path=lesson.id)


def beside(k: int) -> tuple[st.Page, st.Page | None]:
    """The pages before and after lesson k: before the first is the map, after the last nothing."""
    row = [first, *pages.values(), None]
    return row[k], row[k + 2]


def at_home() -> None:
    if st.query_params:  # a link of the time when the first lesson stood here
        st.switch_page(pages[LESSONS[0].id], query_params=st.query_params.to_dict())
    home.show(LESSONS, pages)


if is_open():  # strangers see no paths of this machine
    st.set_option("client.showErrorDetails", "none")
    st.set_option("client.toolbarMode", "viewer")
st.set_page_config(
    page_title="toydiff",
    page_icon=str(HERE / "screen" / "icon.png"),
    layout="wide",
    initial_sidebar_state="collapsed",  # the whole width is the figure's
)
first = st.Page(at_home, title="The map", icon=":material/map:", default=True)
pages = {lesson.id: page_of(k) for k, lesson in enumerate(LESSONS)}
chosen = st.navigation([first, *pages.values()], expanded=True)
frame.show()
chosen.run()
with st.sidebar:  # after the figure, which is waited for
    st.caption("For a lecture")
    here, others = st.container(), st.expander("On the other pages")
    for lesson in LESSONS:
        page = pages[lesson.id]
        place = here if page.title == chosen.title else others
        for title, state in lesson.presets.items():
            place.page_link(page, label=title, icon=lesson.icon, query_params=state)
later.fetch()
