"""What messages are made of: a name that is unknown, and what was given, quoted. It imports nothing heavy, so that the
command answers a wrong word at once."""

import difflib
from collections.abc import Iterable

MOST_QUOTED = 200
"""Characters of a value that a message quotes."""


def shortened(text: str, most: int = MOST_QUOTED) -> str:
    """A text of `most` characters at most: of a longer one the middle is left out."""
    if len(text) <= most:
        return text
    gap = f"...({len(text)} characters)..."
    kept = max(0, most - len(gap))
    return text[: kept - kept // 3] + gap + text[len(text) - kept // 3 :]


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey: each is written as its escape, `\\x1b`."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def said(error: object, most: int = MOST_QUOTED) -> str:
    """What another library said, or data that is not ours, as a part of a message: one line, of at most so many
    printable characters."""
    return shortened(printable(" ".join(str(error).split())), most)


def quoted(value: object) -> str:
    """What was given, as Python writes it, in one line and shortened."""
    try:
        return shortened(" ".join(repr(value).splitlines()))
    except ValueError:  # a whole number of more digits than Python prints
        return f"a whole number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__


def with_article(name: str) -> str:
    """A name behind its article: a UNet, an AutoencoderKL."""
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def plural(count: int, what: str) -> str:
    """A count and what is counted: 1 step, 2 steps."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def unknown(what: str, word: object, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not in a registry. It lists what is allowed and suggests the nearest name."""
    allowed = list(allowed)
    # a word much longer than all names is near none of them, and comparing it takes long
    near = difflib.get_close_matches(str(word), allowed, n=1, cutoff=0.5) if len(str(word)) <= MOST_QUOTED else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ValueError(f"unknown {what} {quoted(word)}{hint}; allowed: {', '.join(allowed)}")
