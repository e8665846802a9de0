"""The command in this process, and what it wrote."""

import struct
import zlib
from pathlib import Path

from toydiff.cli import command as cli

ROW = (
    "method",
    "problem",
    "steps",
    "distance",
    "floor",
    "accuracy",
    "seed",
    "nfe",
    "rounds",
    "updates",
    "teacher_calls",
    "seconds",
)
"""The keys that a row of `evaluate` and of a scoreboard begins with, in order."""


def run(*words):
    """The exit code of `toydiff` with these words."""
    return cli.main([str(word) for word in words])


def written(folder="."):
    """All that lies in a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def png_text(path):
    """The text fields of a PNG, chunk by chunk."""
    data, at, found = Path(path).read_bytes(), 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            found[key.decode()] = value.decode()
        at += 12 + length
    return found
