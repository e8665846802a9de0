"""One process at a time works in a folder.

The lock is one of the operating system on the file `.lock` in the folder, so that a process that died, however it did,
holds none. The file is removed when the work is over.
"""

import contextlib
import gc
import os
import stat
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path

from .files import PART, check_folder, take

NAME = ".lock"
TRIES, PAUSE = 5, 0.05
"""A look at a lock (`check_free`) holds it for an instant, so that taking it is tried again."""

_ONE = threading.RLock()
_OWN: "weakref.WeakValueDictionary[tuple[int, int], Lock]" = weakref.WeakValueDictionary()
"""The locks of this process, by the device and the number of their folder."""


@dataclass
class _Held:
    """What is given back at the end of a lock."""

    file: Path
    handle: int | None
    made: list[Path]
    process: int = field(default_factory=os.getpid)

    def release(self) -> None:
        handle, self.handle = self.handle, None
        if handle is None:
            return
        if self.process == os.getpid():  # a forked process has the handle, and not the work
            with contextlib.suppress(OSError):
                self.file.unlink()  # while it is locked: nobody else holds the same file
            for folder in self.made:  # a work that came to nothing leaves nothing
                with contextlib.suppress(OSError):
                    folder.rmdir()
        os.close(handle)


class Lock:
    """The right to write into a folder, from now until `release`, the end of the `with` block or that of the process.

    The folder is made where it is missing, its parents too; what is still empty at the end is removed again. Temporary
    files of a process that was killed there are removed. takeover: work of this same process that was left unfinished
    in the folder loses its right (`check`). `ValueError` in one line where another process works in the folder, or this
    one and takeover is False, or where the folder cannot be written.
    """

    _held: _Held

    def __init__(self, folder: Path | str, *, takeover: bool = False):
        self.folder = check_folder(folder)
        with _ONE:
            older = _own(self.folder, takeover)
            if older is not None:
                self._held = _Held(older._held.file, older._held.handle, older._held.made)
                older._held.handle = None
            else:
                made = _make(self.folder)
                try:
                    handle = _locked(self.folder)
                except ValueError:
                    for place in made:
                        with contextlib.suppress(OSError):
                            place.rmdir()
                    raise
                self._held = _Held(self.folder / NAME, handle, made)
            _OWN[_identity(self.folder)] = self
            weakref.finalize(self, self._held.release)
        for part in self.folder.glob(f".*{PART}"):
            with contextlib.suppress(OSError):
                part.unlink()

    def check(self) -> None:
        """`ValueError` if the lock was released, or this process began other work in the folder."""
        if self._held.handle is None:
            raise ValueError(f"this work in the folder {str(self.folder)!r} is over: other work was begun there since")

    def release(self) -> None:
        self._held.release()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def check_free(folder: Path | str, *, takeover: bool = False) -> None:
    """`ValueError` where `Lock` would refuse the folder because of other work. Takes no lock, and makes nothing."""
    folder = Path(folder)
    with _ONE:
        if _own(folder, takeover) is None and (folder / NAME).exists():
            handle = _locked(folder)
            os.close(handle)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _own(folder: Path, takeover: bool) -> Lock | None:
    """The lock that this process itself holds on the folder; `ValueError` if there is one and it may not be taken."""

    def found() -> Lock | None:
        lock = _OWN.get(_identity(folder)) if folder.is_dir() else None
        handle = None if lock is None else lock._held.handle
        # a folder that was removed may have left its number to this one
        return None if handle is None or not os.fstat(handle).st_nlink else lock

    if found() is not None and not takeover:
        gc.collect()  # a loop that was left, and that nothing can go on with
        if found() is not None:
            raise ValueError(
                f"this process is at work in the folder {str(folder)!r} and has not finished; "
                "continue that work, or choose another folder"
            )
    return found()


def _make(folder: Path) -> list[Path]:
    """Make the folder; which folders were made, the innermost first."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write into the folder {str(folder)!r}: {error.strerror or error}") from None
    return made


def _locked(folder: Path) -> int:
    """The handle of the folder's lock; `ValueError` where another process holds it."""
    for _ in range(TRIES):
        try:
            handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise ValueError(f"cannot lock the folder {str(folder)!r}: {error.strerror or error}") from None
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ValueError(f"cannot lock the folder {str(folder)!r}: its {NAME} is no file")
            take(handle)
            # the process that held it has removed the file: the lock is that of no file then
            if _identity(folder / NAME) == (os.fstat(handle).st_dev, os.fstat(handle).st_ino):
                return handle
        except (BlockingIOError, PermissionError, FileNotFoundError):
            pass
        except OSError as error:
            os.close(handle)
            raise ValueError(f"cannot lock the folder {str(folder)!r}: {error.strerror or error}") from None
        except ValueError:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(PAUSE)
    raise ValueError(
        f"another process is at work in the folder {str(folder)!r}; wait for its end, or choose another folder"
    )
