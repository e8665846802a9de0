"""Controls: each is a widget that is bound to a parameter of the link, knows what it may be, and how Python writes its value."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import streamlit as st

from toydiff.checks import unknown
from toydiff.mixtures import MIXTURES, GaussianMixture

from . import editor
from .mixtures import code_of, mixture_of

BOUND = "query-params"


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    name: str
    label: str
    options: Sequence[str]
    default: str
    help: str | None = None

    def widget(self) -> str:
        """The widget; its value."""
        return st.selectbox(
            self.label, self.options, self.options.index(self.default), key=self.name, help=self.help, bind=BOUND
        )  # fmt: skip

    def check(self, given: Sequence[str]) -> None:
        """`ValueError` for texts of a link that are no value of this control."""
        if given[-1] not in self.options:
            raise unknown(self.name, given[-1][:60], self.options)

    def value(self, chosen: str) -> object:
        """What the figure's function gets."""
        return chosen

    def code(self, chosen: str) -> str:
        """How Python writes it."""
        return repr(chosen)

    @property
    def extremes(self) -> list:
        """Values that a test tries: all of a few, the ends of many."""
        return list(self.options) if len(self.options) <= 5 else [self.options[0], self.options[-1]]


@dataclass(frozen=True)
class Number:
    """A whole number, one of some that grow, so that a slider reaches all of them well."""

    name: str
    label: str
    options: Sequence[int]
    default: int
    help: str | None = None

    def widget(self) -> int:
        return st.select_slider(self.label, self.options, self.default, key=self.name, help=self.help, bind=BOUND)

    def check(self, given: Sequence[str]) -> None:
        if given[-1] not in map(str, self.options):
            raise ValueError(f"{self.name} must be one of {', '.join(map(str, self.options))}, got {given[-1][:60]!r}")

    def value(self, chosen: int) -> int:
        return chosen

    def code(self, chosen: int) -> str:
        return repr(chosen)

    @property
    def extremes(self) -> list:
        return [self.options[0], self.options[-1]]


@dataclass(frozen=True)
class Several:
    """Some of several words, in the order in which they are listed; none is not allowed."""

    name: str
    label: str
    options: Sequence[str]
    default: Sequence[str]
    help: str | None = None

    def widget(self) -> tuple[str, ...]:
        chosen = st.multiselect(
            self.label, self.options, list(self.default), key=self.name, help=self.help, bind=BOUND, placeholder="choose one at least"
        )  # fmt: skip
        return tuple(word for word in self.options if word in chosen)

    def check(self, given: Sequence[str]) -> None:
        for word in given:
            if word not in self.options:
                raise unknown(self.name, word[:60], self.options)

    def value(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        if not chosen:
            raise ValueError(f"choose one at least under {self.label!r}")
        return chosen

    def code(self, chosen: tuple[str, ...]) -> str:
        return repr(chosen)

    @property
    def extremes(self) -> list:
        return [[], [self.options[0]], [self.options[-1]], list(self.options)]


@dataclass(frozen=True)
class Text:
    """Words of the reader's own."""

    name: str
    label: str
    default: str
    help: str | None = None
    most: int = 300

    def widget(self) -> str:
        return st.text_input(self.label, self.default, self.most, key=self.name, help=self.help, bind=BOUND).strip()

    def check(self, given: Sequence[str]) -> None:
        if len(given[-1]) > self.most:
            raise ValueError(f"{self.name} has {self.most} characters at most, got {len(given[-1])}")

    def value(self, chosen: str) -> str:
        return chosen

    def code(self, chosen: str) -> str:
        return repr(chosen)

    @property
    def extremes(self) -> list:
        return ["", "x" * self.most, "../no/such/place", "\\ ' \" <b>{}"]


@dataclass(frozen=True)
class Mixture:
    """A mixture: a ready-made one, a random one by its seed, or one that is edited, all as a word of `screen.mixtures`."""

    name: str = "mixture"
    label: str = "Mixture"
    default: str = "ring"
    help: str | None = "A ready-made mixture, `random:7`, or your own: press *edit*, or type `x,y,std,weight;…`"
    options: Sequence[str] = field(default=tuple(MIXTURES))

    def widget(self) -> str:
        left, right = st.columns([1.7, 1], vertical_alignment="bottom", gap="small")
        with right:
            editor.popover(self.name, self.default)
        with left:
            asked = st.session_state.get(self.name) or st.query_params.get(self.name) or self.default
            options = [*self.options, *({asked} - set(self.options))]  # a word of the reader's own is listed as well
            return st.selectbox(
                self.label, options, options.index(self.default), key=self.name, help=self.help, bind=BOUND, accept_new_options=True
            )  # fmt: skip

    def check(self, given: Sequence[str]) -> None:
        """Any word is a value: what is wrong with it is said where the figure would be."""

    def value(self, chosen: str) -> GaussianMixture:
        return mixture_of(chosen)

    def code(self, chosen: str) -> str:
        return code_of(chosen)

    @property
    def extremes(self) -> list:
        return ["ring", "checkerboard", "random:999", "0,0,0.02,1", "-20,-20,0.02,0.001;20,20,10,1000"]


Control = Choice | Number | Several | Text | Mixture
