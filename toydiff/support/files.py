"""Writing files whole or not at all: a temporary file in the same folder, then a rename.

An interrupted run leaves the old file, or none, never half a file. What cannot be written is a `ValueError` with one
sentence.
"""

import contextlib
import glob
import json
import os
import re
import stat
import sys
import tempfile
import time
from pathlib import Path

from .words import quoted

PART = ".part"
"""How the name of a temporary file ends."""


def seen(path: Path | str) -> Path:
    """The path, whether or not anything is there. `ValueError` where that cannot be found out: it lies in a folder that
    may not be entered, its links lead in a circle, or it is no path at all."""
    place = Path(path)
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ValueError(f"cannot look at {quoted(str(place))}: {getattr(error, 'strerror', error)}") from None
    return place


def writable_folder(path: Path | str) -> Path:
    """The folder `path`. It is made where it is missing, its parents too. `ValueError` if it cannot be written."""
    folder = seen(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write into the folder {quoted(str(folder))}: it is a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # permission bits say little on network drives and to an administrator: try it
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b" " * 4096)  # a full disk takes a name, and no bytes
    except OSError as error:
        raise ValueError(f"cannot write into the folder {quoted(str(folder))}: {error.strerror or error}") from None
    return folder


def check_folder(path: Path | str) -> Path:
    """The folder `path`. `ValueError` if it cannot be written, or, where it is missing, be made. Makes nothing."""
    folder = seen(path)
    writable_folder(next(place for place in (folder, *folder.parents) if place.exists()))
    return folder


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """The bytes of a file that others may have put there.

    `ValueError` in one line for what is no file, such as a pipe, which may never end, or a device; for a file of more
    than `most` bytes; and for one that cannot be read. `FileNotFoundError` where there is nothing.
    """
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "Is a directory" if stat.S_ISDIR(found.st_mode) else "it is no file"
            raise ValueError(f"cannot read {str(path)!r}: {what}")
        if most is not None and found.st_size > most:
            raise ValueError(f"cannot read {str(path)!r}: it has {found.st_size:,} bytes, more than {most:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def inside(folder: Path | str, name: str) -> Path:
    """The path of a file in a folder, by a name that others wrote. `ValueError` for a name that leads out of the
    folder, by its path or by a link."""
    folder = Path(folder)
    try:
        leads_to = (folder / name).resolve()
        leaves = leads_to.parent != folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
        leaves = True
    if leaves:
        raise ValueError(f"the folder {str(folder)!r} names the file {name!r}, which is not in it")
    return folder / name


def writable_file(path: Path | str) -> Path:
    """A path where a file can be written. `ValueError` if it is a folder, is read-only, or lies in no writable folder.

    A link is resolved: the file that it leads to is returned. A device that takes no bytes, such as /dev/full, is
    refused too, and so is what is no file by its nature: a named pipe, whose reader may never come, a socket, a disk.
    """
    file = seen(path)
    if file.is_dir():
        raise ValueError(f"cannot write the file {quoted(str(file))}: it is a folder")
    if file.exists() and not os.access(file, os.W_OK):
        raise ValueError(f"cannot write the file {quoted(str(file))}: it is read-only")
    if _is_device(file):
        # the pipe behind /dev/stdout has no name of its own, and its reader is there
        if not (file.is_char_device() or (file.is_fifo() and not os.path.exists(os.path.realpath(file)))):
            raise ValueError(f"cannot write the file {quoted(str(file))}: it is a pipe, socket or disk, and no file")
        _try_device(file)
        return file
    if file.is_symlink():
        file = file.resolve()  # a link stays a link: its target is written
    if not file.parent.is_dir():
        raise ValueError(f"cannot write the file {quoted(str(file))}: there is no folder {quoted(str(file.parent))}")
    writable_folder(file.parent)
    return file


def _is_device(file: Path) -> bool:
    """A pipe, terminal or device: there is nothing to replace, only something to write to."""
    return file.exists() and not file.is_file()


def _try_device(file: Path) -> None:
    """`ValueError` where a device does not take a space, which nothing that is written minds. A terminal would show it
    and a pipe's reader get it, so that they are not tried."""
    if not file.is_char_device():
        return
    try:
        with file.open("wb", buffering=0) as device:
            if not device.isatty():
                device.write(b" ")
    except OSError as error:
        raise ValueError(f"cannot write the file {str(file)!r}: {error.strerror or error}") from None


YOUNG = 1.0
"""Seconds for which a temporary file is taken for that of a living process."""


def take(handle: int) -> None:
    """Lock an open file for this process, for as long as it is open, or raise an `OSError`."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(file: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote this file: those that none holds, and
    that are older than the moment between a file's making and its locking."""
    form = re.compile(re.escape(f".{file.name}.") + r"[a-z0-9_]{8}" + re.escape(PART))  # as `mkstemp` names them
    for part in file.parent.glob(f".{glob.escape(file.name)}.*{PART}"):
        with contextlib.suppress(OSError):
            if not form.fullmatch(part.name) or time.time() - part.stat().st_mtime < YOUNG:
                continue
            handle = os.open(part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                take(handle)
                part.unlink()
            finally:
                os.close(handle)


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write `data` to the file `path`, whole or not at all, and return the path; `ValueError` if it cannot be
    written."""
    file = writable_file(path)
    temporary = None
    try:
        if _is_device(file):
            file.write_bytes(data)
            return file
        _sweep(file)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=PART)
        umask = os.umask(0)
        os.umask(umask)
        with os.fdopen(handle, "wb") as out:
            with contextlib.suppress(OSError):  # some file systems have no locks; there nothing is swept either
                take(handle)
            out.write(data)
            out.flush()
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes a private file; an ordinary one is meant
            if (
                sys.platform != "win32"
            ):  # held until it has its name, so that no other process takes it for a dead one's
                os.replace(temporary, file)
        if sys.platform == "win32":
            os.replace(temporary, file)
    except OSError as error:
        raise ValueError(f"cannot write the file {quoted(str(file))}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return file


def write_text(path: Path | str, text: str) -> Path:
    """Write `text`, in UTF-8, to the file `path`, whole or not at all; see `write_bytes`."""
    return write_bytes(path, text.encode())


def json_text(obj: object) -> str:
    """`obj` as JSON, indented; NaN and infinity are not JSON and raise `ValueError`."""
    return json.dumps(obj, indent=2, allow_nan=False) + "\n"


def write_json(path: Path | str, obj: object) -> Path:
    """Write `obj` as JSON to the file `path`, whole or not at all; `ValueError` for NaN or infinity, or see
    `write_bytes`."""
    return write_text(path, json_text(obj))
