# ruff: noqa: F401
"""The samplers of tokens by name. A file ends with its `Entry`s, in a list whose name ends in _ENTRIES; a line below
offers them everywhere."""

import dataclasses

from ..solvers.entry import Entry
from ..solvers.registry import PARALLEL, SOLVERS, is_learned
from ..support.checks import unknown
from ..support.words import quoted
from .base import TokenSampler

# the table is made from these imports, in this order
from .jumps import JUMP_ENTRIES
from .leaps import LEAP_ENTRIES
from .unmasking import UNMASKING_ENTRIES

SAMPLERS: dict[str, Entry[TokenSampler]] = {
    entry.name: entry for name, entries in list(globals().items()) if name.endswith("_ENTRIES") for entry in entries
}
"""The samplers of tokens by name, in the order in which tables list them."""

DEFAULT_SAMPLER = "jump-exact"


def is_sampler(name: str) -> bool:
    """Whether a name, with or without settings, is that of a sampler of tokens."""
    return str(name).partition(":")[0] in SAMPLERS


def sampler_by_name(name: str) -> TokenSampler:
    """A sampler of tokens from its name, settings after a colon: "jump-corrector:eta=2". `ValueError` names the nearest
    one, or says that the name is of a solver of vectors."""
    word, _, settings = str(name).partition(":")
    if word in SOLVERS or word in PARALLEL or is_learned(word):
        raise ValueError(f"{word} is a solver of vectors, and this model is of tokens; allowed: {', '.join(SAMPLERS)}")
    if word not in SAMPLERS:
        raise unknown("sampler of tokens", word, SAMPLERS)
    sampler = SAMPLERS[word].solver
    fields: list[str] = [f.name for f in dataclasses.fields(sampler)] if dataclasses.is_dataclass(sampler) else []
    changes = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in fields:
            if not fields:
                raise ValueError(f"{word} has no settings, got {quoted(key)}")
            raise unknown(f"setting of {word}", key, fields)
        try:
            changes[key] = float(value)
        except ValueError:
            raise ValueError(f"the setting {key} of {word} is a number, got {quoted(value)}") from None
    return dataclasses.replace(sampler, **changes) if changes else sampler  # type: ignore[type-var]
