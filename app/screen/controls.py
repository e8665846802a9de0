"""Controls: each is a widget and a parameter of the page's link.

A control knows which values it may take, and how a link and Python write them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import streamlit as st

from toydiff.mixtures import MIXTURES
from toydiff.support.checks import unknown

from . import editor
from .mixtures import code_of, mixture_of

FEW = 6
"""Numbers of a long list that a site without a server draws."""


@dataclass(frozen=True)
class Control:
    """What a lesson lets a reader choose: its parameter in the link and its label; each kind adds a default."""

    name: str
    label: str

    def widget(self, key: str) -> object:
        """Draw it, with the value that `st.session_state[key]` holds; what is chosen now."""
        raise NotImplementedError

    def take_over(self, key: str) -> None:
        """Set `st.session_state[key]` to what something else on the page chose, before the page reads it."""

    def told(self, key: str, told: Collection[str]) -> bool:
        """Whether the browser told its value to a session that has drawn nothing; told: the keys of all it told."""
        return key in told

    @property
    def shown(self) -> bool:
        """Whether a page shows it; otherwise only a link sets it."""
        return True

    def read(self, texts: Sequence[str]) -> object:
        """The value of a link's texts, of which the last counts; `ValueError` names what is allowed."""
        return texts[-1]

    def texts(self, chosen: object) -> list[str]:
        """How a link writes it."""
        return [str(chosen)]

    def value(self, chosen: object) -> object:
        """What the figure's function gets; `ValueError` for what cannot be drawn."""
        return chosen

    def code(self, chosen: object) -> str:
        """How Python writes that."""
        return repr(chosen)

    @property
    def extremes(self) -> list:
        """Values that a test tries."""
        raise NotImplementedError

    @property
    def few(self) -> list:
        """Values whose figures a site without a server carries; the default comes with every page."""
        return []


@dataclass(frozen=True)
class Choice(Control):
    """One of several words."""

    options: Sequence[str]
    default: str
    help: str | None = None

    def widget(self, key: str) -> str:
        return st.selectbox(self.label, self.options, key=key, help=self.help)

    def read(self, texts: Sequence[str]) -> str:
        if texts[-1] not in self.options:
            raise unknown(self.name, texts[-1][:60], self.options)
        return texts[-1]

    @property
    def extremes(self) -> list:
        return list(self.options) if len(self.options) <= 5 else [self.options[0], self.options[-1]]

    @property
    def few(self) -> list:
        return list(self.options)


@dataclass(frozen=True)
class Number(Control):
    """A whole number out of a growing list, so that a slider reaches each of them easily."""

    options: Sequence[int]
    default: int
    help: str | None = None

    def widget(self, key: str) -> int:
        return st.select_slider(self.label, self.options, key=key, help=self.help)

    def read(self, texts: Sequence[str]) -> int:
        for option in self.options:
            if texts[-1] == str(option):
                return option
        raise ValueError(f"{self.name} must be one of {', '.join(map(str, self.options))}, got {texts[-1][:60]!r}")

    @property
    def extremes(self) -> list:
        return [self.options[0], self.options[-1]]

    @property
    def few(self) -> list:
        last = min(FEW, len(self.options)) - 1
        return [self.options[round(k * (len(self.options) - 1) / max(last, 1))] for k in range(last + 1)]


@dataclass(frozen=True)
class Several(Control):
    """At least one of several words, in the order in which they are listed."""

    options: Sequence[str]
    default: Sequence[str]
    help: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "default", tuple(word for word in self.options if word in self.default))

    def widget(self, key: str) -> tuple[str, ...]:
        chosen = st.multiselect(self.label, self.options, key=key, help=self.help, placeholder="choose at least one")
        return tuple(word for word in self.options if word in chosen)

    def read(self, texts: Sequence[str]) -> tuple[str, ...]:
        for word in texts:
            if word not in self.options:
                raise unknown(self.name, word[:60], self.options)
        return tuple(word for word in self.options if word in texts)

    def texts(self, chosen: Sequence[str]) -> list[str]:
        return list(chosen)

    def value(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        if not chosen:
            raise ValueError(f"choose at least one under {self.label!r}")
        return chosen

    @property
    def extremes(self) -> list:
        return [(self.options[0],), (self.options[-1],), tuple(self.options)]

    @property
    def few(self) -> list:
        return [(word,) for word in self.options]


@dataclass(frozen=True)
class Text(Control):
    """A text that the reader types."""

    default: str
    help: str | None = None
    most: int = 300

    def widget(self, key: str) -> str:
        return st.text_input(self.label, max_chars=self.most, key=key, help=self.help).strip()

    def read(self, texts: Sequence[str]) -> str:
        return self.value(texts[-1])

    def value(self, chosen: str) -> str:
        if len(chosen) > self.most:  # the browser need not keep to it
            raise ValueError(f"{self.name} has {self.most} characters at most, got {len(chosen)}")
        return chosen

    @property
    def extremes(self) -> list:
        return ["", "x" * self.most, "../no/such/place", 'a "quoted" \\ <b>{}']


@dataclass
class Box:
    """The box of a mixture's words, whose widget has a key of its own, `name`.

    Where anything else chooses the mixture, a new box replaces it: a browser that does not know of that yet still sends
    what the box before said, which does not count.
    """

    key: str
    number: int = 0
    shown: str | None = None
    """What it said last."""

    @property
    def name(self) -> str:
        return f"{self.key}#{self.number}"


def box_of(key: str) -> Box:
    return st.session_state.setdefault(f"{key}-box", Box(key))


@dataclass(frozen=True)
class Mixture(Control):
    """A mixture: a ready-made one, a random one by its seed, or one that is edited, all as a word of `screen.mixtures`.

    Any word is a value: what is wrong with it is said where the figure would be.
    """

    name: str = "mixture"
    label: str = "Mixture"
    default: str = "ring"
    help: str | None = "A ready-made mixture, `random:7`, or your own: press *edit*, or type `x,y,std,weight;…`"

    def take_over(self, key: str) -> None:
        box = box_of(key)
        said = st.session_state.get(box.name) or box.shown
        if said != box.shown:  # the reader chose it there
            st.session_state[key] = said
            box.shown = said
        editor.take_over(key)

    def told(self, key: str, told: Collection[str]) -> bool:
        numbers = [int(name.removeprefix(f"{key}#")) for name in told if name.startswith(f"{key}#")]
        box_of(key).number = max(numbers, default=0)
        return bool(numbers)

    def widget(self, key: str) -> str:
        left, right = st.columns([1.7, 1], vertical_alignment="bottom", gap="small")
        box = box_of(key)
        if key in st.session_state:  # else the browser tells it
            if st.session_state[key] != box.shown:
                box.number, box.shown = box.number + 1, st.session_state[key]
            st.session_state.setdefault(box.name, box.shown)
        with left.container(key=key):
            # a word that the reader typed is listed as well
            options = [*MIXTURES, *({st.session_state.get(key, self.default)} - set(MIXTURES))]
            chosen = st.selectbox(self.label, options, key=box.name, help=self.help, accept_new_options=True)
        st.session_state[key] = box.shown = chosen or self.default
        with right:
            editor.popover(key, box.shown)
        return box.shown

    def read(self, texts: Sequence[str]) -> str:
        if not texts[-1].strip():
            raise ValueError("the link's mixture is empty")
        return texts[-1]

    def value(self, chosen: str) -> object:
        return mixture_of(chosen)

    def code(self, chosen: str) -> str:
        return code_of(chosen)

    @property
    def extremes(self) -> list:
        return ["checkerboard", "0,0,0.02,1", "-20,-20,0.02,0.001;20,20,10,1000"]

    @property
    def few(self) -> list:
        return list(MIXTURES)
