"""What a later page needs and takes seconds to import is imported in the background, once the first page is drawn."""

import functools
import gc
import importlib.util
import threading
import time

AFTER = 4.0
"""Seconds until then."""


@functools.cache
def fetch() -> None:
    """Once a process, in the background."""
    threading.Thread(target=_fetch, daemon=True).start()


def _fetch() -> None:
    time.sleep(AFTER)
    import ot  # noqa: F401

    if importlib.util.find_spec("diffusers") is not None:
        from toydiff.adapters import tiny  # noqa: F401
    # what was imported stays anyway, and Streamlit runs the garbage collector after every script: over all of it that
    # would take a third of a second each time
    gc.collect()
    gc.freeze()
