"""The command `toydiff`. Each group of subcommands has a file."""

import _signal as signal  # type: ignore[import-not-found]  # without its enums: there at once, before a Ctrl-C
import os
import sys

from .launchers import is_first_process

TYPE_CHECKING = False  # as `typing` has it, which takes a while to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

INTERRUPTED = 130
LINE = "toydiff: interrupted"


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run the command and return its exit code; see `command.main`.

    As a process of its own, without `argv`, it answers an interrupt in one line also while modules are imported.
    """
    try:
        if argv is None:
            signal.signal(signal.SIGINT, _interrupt)
        from .command import main as run

        code = run(argv)
    except KeyboardInterrupt:
        print(LINE, file=sys.stderr)
        code = INTERRUPTED
    if argv is None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process ends; a late Ctrl-C changes nothing
    return code


def _interrupt(number: int, frame: "FrameType | None") -> None:
    """The handler of Ctrl-C. Inside an import the process ends at once: what is being imported may swallow an
    exception, or print it, and nothing is being written yet."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if is_first_process():
                os.write(2, f"{LINE}\n".encode())
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
