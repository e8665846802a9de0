"""The app: `toydiff app`, or `streamlit run app/main.py`. One page a lesson; `lessons/__init__.py` lists them."""

import streamlit as st
import torch
from lessons import LESSONS
from screen.lesson import Lesson, show

torch.set_num_threads(1)  # the tensors are small, and many people may be here at once


def page_of(lesson: Lesson) -> st.Page:
    return st.Page(
        lambda: show(lesson), title=lesson.menu, icon=lesson.icon, url_path=lesson.id, default=lesson is LESSONS[0]
    )


st.set_page_config(page_title="toydiff", layout="wide", initial_sidebar_state=260)
pages = {lesson.id: page_of(lesson) for lesson in LESSONS}
chosen = st.navigation(list(pages.values()), expanded=True)
with st.sidebar:
    st.caption("For a lecture")
    for lesson in LESSONS:
        for title, state in lesson.presets.items():
            st.page_link(
                pages[lesson.id],
                label=title,
                icon=":material/bookmark:",
                query_params={k: str(v) for k, v in state.items()},
            )
chosen.run()
