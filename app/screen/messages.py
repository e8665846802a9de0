"""What goes wrong, in one line for the reader."""

import re

EXPECTED = (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError)
"""What may go wrong with what a reader requests; anything else is a mistake of the app."""


def line_of(error: Exception) -> str:
    """What an error says, in one line of Markdown: what a reader typed is quoted in it, and stays as it was typed."""
    return plain(" ".join(str(error).split()) or type(error).__name__)


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]$~<>#|:!])", r"\\\1", text)
