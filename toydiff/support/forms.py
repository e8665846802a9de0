"""The form of data that others wrote: which keys an object of JSON has, and what their values are."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .words import said

Form = Any
"""What a value is to be: a condition of this module, [form] for a list, or {key: form} for an object with these keys,
which may have others."""


DEEPEST = 64
"""An object of JSON is nested less deep than this."""


def word(value: object) -> bool:
    """Text that a terminal shows as it is."""
    return isinstance(value, str) and value.isprintable()


def place(value: object) -> bool:
    """A word that may hold a path, whose characters need not be known ones."""
    return isinstance(value, str) and all(c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF for c in value)


def file_name(value: object) -> bool:
    """The name of a file in the same folder: no path."""
    return word(value) and value not in ("", ".", "..") and not set("/\\:") & set(str(value))


def number(value: object) -> bool:
    """A finite number, which a float can hold."""
    try:
        return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(float(value))
    except OverflowError:
        return False


def count(least: int = 0, most: int = 2**53) -> Callable[[object], bool]:
    """A whole number from `least` to `most`."""

    def holds(value: object) -> bool:
        return not isinstance(value, bool) and isinstance(value, int) and least <= value <= most

    return holds


def check_form(value: object, form: Form, what: str, name: str = "") -> None:
    """`ValueError` with the name of the first value in `what` that has not its form."""
    if isinstance(form, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{what} is damaged: {name or 'what it holds'} is no object, but {_shown(value)}")
        for key, part in form.items():
            if key not in value:
                raise ValueError(f"{what} is damaged: it has no {f'{name}.{key}' if name else key!r}")
            check_form(value[key], part, what, f"{name}.{key}" if name else key)
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{what} is damaged: {name} is no list, but {_shown(value)}")
        for item in value:
            check_form(item, form[0], what, f"each of {name}")
    elif not form(value):
        raise ValueError(f"{what} is damaged: {name} is {_shown(value)}")


def _shown(value: object) -> str:
    return said(repr(value) if not isinstance(value, dict | list) else f"{type(value).__name__} of {len(value)}", 80)


def parsed(text: str) -> Any:
    """JSON, and JSON alone: `ValueError` for NaN and infinity, and for what is nested too deep."""

    def never(constant: str) -> float:
        raise ValueError(f"{constant} is no number of JSON")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else never(digits)

    try:
        value = json.loads(text, parse_constant=never, parse_float=real)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level, depth = [value], 0
    while level:
        level = [
            part for v in level if isinstance(v, dict | list) for part in (v.values() if isinstance(v, dict) else v)
        ]
        depth += 1
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")
    return value
