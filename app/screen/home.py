"""The first page: the question, the families of answers with what each costs, and the words that the pages use."""

from collections.abc import Mapping, Sequence

import streamlit as st

from .lesson import STYLE, Lesson
from .visitors import class_address

QUESTION = "How do you get a good sample in fewer, or in parallel, network calls?"
START = (
    "A diffusion model makes a sample by walking from noise to data, one network call after another. Each page is one "
    "way to need fewer of them: it makes a claim, shows it, and measures it."
)
FAMILIES = (
    ("Walk better", "Nothing is trained. Some 5 to 50 calls, one after another.", ("paths", "orders", "grids")),
    ("Walk everywhere at once", "Nothing is trained. Fewer rounds, and more calls in all.", ("picard",)),
    (
        "Straighten the walk",
        "A training on pairs that the teacher has to make first. Then one call, or a few.",
        ("lines", "reflow"),
    ),
    (
        "Jump to the end",
        "A training, with or without a teacher. Then one call; more calls may help.",
        ("halving", "consistency"),
    ),
    (
        "Compare two distributions",
        "A training with one or two networks beside the student. Then one call.",
        ("scores", "adversarial"),
    ),
    (
        "On images, tokens and clips",
        "The same methods on digits and clips, steps on discrete data, and the same solvers on a checkpoint.",
        ("digits", "scoreboard", "tokens", "clips", "stable-diffusion"),
    ),
)
"""Families of pages: name, cost, ids of lessons. Lessons that are in none come last."""
ALSO = ("More", "What is in no family above.")
WORDS = {
    "NFE": "network calls for one sample, those of guidance included",
    "round": "calls that can be made at the same time; rounds wait for one another",
    "schedule": "α(t) and σ(t) in x_t = α x₀ + σ ε: how much data and how much noise there is at time t",
    "NSR": "σ/α, how noisy x_t is; λ = log(α/σ)",
    "PF-ODE": "the differential equation from noise to data without new noise on the way; each noise has one end",
    "order": "p, if half the step divides the error by 2ᵖ",
    "teacher, student": "a model that needs many calls, and one that learned to do with few",
    "score": "the gradient of log p(x_t): towards where data are more probable",
    "coupling": "which noise belongs to which data",
    "floor": "the distance of true samples from other true samples: nothing can be expected below it",
}


def families(lessons: Sequence[Lesson]) -> list[tuple[str, str, list[Lesson]]]:
    """Name, cost and lessons of each family that has some."""
    by_id = {lesson.id: lesson for lesson in lessons}
    placed = {id_ for *_, ids in FAMILIES for id_ in ids}
    rest = [id_ for id_ in by_id if id_ not in placed]
    rows = [*FAMILIES, (*ALSO, rest)] if rest else FAMILIES
    # a page may be taken off the list
    found = [(name, cost, [by_id[id_] for id_ in ids if id_ in by_id]) for name, cost, ids in rows]
    return [row for row in found if row[2]]


def show(lessons: Sequence[Lesson], pages: Mapping[str, st.Page]) -> None:
    """The map of `lessons`, each by its number and claim, which opens its page of `pages`."""
    st.html(f"<style>{STYLE}</style>")
    with st.container(key="head", horizontal=True, vertical_alignment="center"):
        st.header(QUESTION, anchor=False, width="stretch")
        with st.container(key="after", width="content"):
            st.page_link(pages[lessons[0].id], label="Start", icon=":material/chevron_right:")
    if address := class_address():
        st.markdown(f"Open this on your own screen: **{address}**")
    st.markdown(START)
    number = {lesson.id: k for k, lesson in enumerate(lessons, 1)}
    shown = families(lessons)
    for row in range(0, len(shown), 3):
        for column, (name, cost, members) in zip(st.columns(3, gap="medium"), shown[row : row + 3], strict=False):
            with column.container(border=True, height="stretch"):
                st.markdown(f"**{name}**  \n:gray[{cost}]")
                for lesson in members:
                    st.page_link(pages[lesson.id], label=f"{number[lesson.id]}. {lesson.menu}", icon=lesson.icon)
                    st.caption(lesson.title)
    st.caption("Keys: PageDown and PageUp turn the pages, F leaves title, figure and controls only.")
    with st.expander("Words", icon=":material/menu_book:"):
        st.markdown("\n".join(f"- **{word}**: {meaning}" for word, meaning in WORDS.items()))
