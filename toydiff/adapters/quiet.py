"""What diffusers and transformers say: nothing while they work, and one line where they fail."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within the block, diffusers and transformers print nothing.

    Their warnings are of what is intended here: no safety checker, the CPU, a prompt that is cut. Their bars are for
    files that take a second each.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub", "peft")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    bars = [lib.is_progress_bar_enabled() for lib in (of_diffusers, of_transformers)]
    try:
        for logger in loggers:  # setting their levels would make all loggers of the process forget theirs
            logger.handlers, logger.propagate = [logging.NullHandler()], False
        of_diffusers.disable_progress_bar()
        of_transformers.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        for lib, shown in zip((of_diffusers, of_transformers), bars, strict=True):
            if shown:
                lib.enable_progress_bar()


def one_line(error: BaseException) -> str:
    """An error's text in one line of 300 characters at most, or its type where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def naming(place: Path, what: str | None = None) -> Iterator[None]:
    """Within the block, whatever goes wrong is a `ValueError` of one line that names the folder or file.

    The errors of diffusers, transformers and their tokenizers are of many kinds; some are no `Exception` at all.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        name = repr(str(place)) if what is None else what
        raise ValueError(f"{name} cannot be read: {type(error).__name__}, {one_line(error)}") from None
