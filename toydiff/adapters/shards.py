"""Files that hold many pictures with their captions: tar shards as webdataset has them, and parquet files."""

import functools
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..support.forms import parsed
from .quiet import one_line
from .text import check_text

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
TEXTS = ("text", "caption")
"""How a table, or an object of JSON, calls a caption: one of these."""
IMAGES = ("image", "jpg", "jpeg", "png", "webp")
"""How a parquet file calls the column of pictures: one of these."""
MOST_TEXT = 2**20
"""Bytes of a caption, or of the JSON that has it."""
BLOCK = 512
"""A tar file has its members at multiples of this, and ends with such a block of zeros."""


class Inside(NamedTuple):
    """A picture inside a file of many."""

    file: Path
    name: str
    at: int
    """The first byte in a tar file, or the group of rows in a parquet file."""
    size: int
    """How many bytes, or the row in that group."""

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


Picture = Path | Inside


def leave_out(message: str, bad: list[str] | None) -> None:
    """A picture is left out, and `bad` gets why; where that is None it is a `ValueError`."""
    if bad is None:
        raise ValueError(message)
    bad.append(message)


def opened(picture: Picture) -> Path | io.BytesIO:
    """What the bytes of a picture are read from; `ValueError` where its file has changed or cannot be read."""
    if isinstance(picture, Path):
        return picture
    if picture.file.suffix.lower() == ".parquet":
        return io.BytesIO(_row_group(str(picture.file), picture.file.stat().st_mtime_ns, picture.at)[picture.size])
    with open(picture.file, "rb") as file:
        file.seek(picture.at)
        return io.BytesIO(file.read(picture.size))


# ---- tar


def tar_shard(file: Path, bad: list[str] | None = None) -> list[tuple[Picture, str]]:
    """The pictures in a tar file, each with its caption.

    A sample is the members that follow one another with one name up to its first dot: a picture, and its caption in
    KEY.txt, or else as "text" or "caption" of KEY.json. What other members hold is not read. `ValueError` for a file
    that is no tar file, is compressed or cut off, and for a sample without a picture or a caption, or with two
    pictures. bad: gets these, but the first, and the sample is left out.
    """
    found: list[tuple[Picture, str]] = []
    for key, members in _samples(file, bad):
        what = f"the sample {key!r} in {str(file)!r}"
        pictures = [member for kind, member in members.items() if f".{kind}" in SUFFIXES]
        if len(pictures) != 1:
            several = f"{len(pictures)} pictures" if pictures else f"no picture ({', '.join(SUFFIXES)})"
            leave_out(f"{what} has {several}", bad)
            continue
        try:
            text = _caption(members, what)
        except ValueError as error:
            leave_out(str(error), bad)
            continue
        found.append((pictures[0], text))
    return found


def _samples(file: Path, bad: list[str] | None) -> Iterator[tuple[str, dict[str, Inside]]]:
    """(key, {kind: member}) of each sample of a tar file; a kind is the name after its first dot, in small letters."""
    key, end = None, 0
    members: dict[str, Inside] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith((".", "__")):
                    continue
                stem, _, kind = name.partition(".")
                if (own := f"{folder}/{stem}" if folder else stem) != key:
                    if key is not None:
                        yield key, members
                    key, members = own, {}
                if kind.lower() in members:
                    leave_out(f"the tar file {str(file)!r} has {member.name!r} twice", bad)
                elif member.offset_data + member.size <= file.stat().st_size:
                    members[kind.lower()] = Inside(file, member.name, member.offset_data, member.size)
            whole = _ends(file, end)
    except (tarfile.TarError, OSError) as error:
        if isinstance(error, OSError) or not end:
            raise ValueError(
                f"{str(file)!r} cannot be read as a tar file: {one_line(error)[:120]}; "
                "one that is compressed must be unpacked"
            ) from None
        whole = False
    if not whole:
        leave_out(f"the tar file {str(file)!r} is cut off after {'nothing' if key is None else repr(key)}", bad)
    if key is not None:
        yield key, members


def _ends(file: Path, end: int) -> bool:
    """Whether a tar file has the block of zeros that it ends with."""
    with open(file, "rb") as raw:
        raw.seek(end)
        return raw.read(BLOCK) == bytes(BLOCK)


def _caption(members: dict[str, Inside], what: str) -> str:
    """The caption of a sample of a tar file."""
    kind = next((kind for kind in ("txt", "json") if kind in members), None)
    if kind is None:
        raise ValueError(f"{what} has no caption: a member .txt, or .json with {' or '.join(TEXTS)}")
    if members[kind].size > MOST_TEXT:
        raise ValueError(f"{what} has a caption of {members[kind].size:,} bytes")
    data = opened(members[kind])
    assert isinstance(data, io.BytesIO)
    try:
        text = data.read().decode("utf-8-sig")
    except UnicodeError as error:
        raise ValueError(f"{what} has a caption that is no text in UTF-8: {error}") from None
    if kind == "txt":
        return text.strip()
    try:
        about = parsed(text)
        [text] = [about[name] for name in TEXTS if about.get(name) is not None]
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{what} has no caption: its .json has no {' or '.join(TEXTS)}, or both") from None
    return check_text(text, f"the caption of {what}")


# ---- parquet


def parquet_file(file: Path) -> "ParquetFile":
    """An open parquet file; `ValueError` where it cannot be read, or pyarrow is missing."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"reading {file.name!r} needs the extra data: pip install 'toydiff[data]'") from None
    try:
        return ParquetFile(file)
    except Exception as error:  # of many kinds
        raise ValueError(f"{str(file)!r} cannot be read as a parquet file: {one_line(error)}") from None


def parquet_rows(file: Path, names: tuple[str, ...]) -> Iterator[dict]:
    """The rows of a parquet file, as far as these columns go."""
    table = parquet_file(file)
    try:
        for batch in table.iter_batches(columns=[name for name in table.schema_arrow.names if name in names]):
            yield from batch.to_pylist()
    except Exception as error:
        raise ValueError(f"{str(file)!r} cannot be read as a parquet file: {one_line(error)}") from None


def parquet_shard(file: Path, bad: list[str] | None = None) -> list[tuple[Picture, str]]:
    """The pictures in a parquet file, each with its caption.

    It has a column of pictures (`IMAGES`), of bytes or, as the library datasets has them, of {bytes, path}; and a
    column of captions (`TEXTS`). `ValueError` where one is missing or there are two, and for a row without a caption.
    """
    table = parquet_file(file)
    columns = table.schema_arrow.names
    _column(file, columns, IMAGES, "pictures")
    column, count = _column(file, columns, TEXTS, "captions"), 0
    found: list[tuple[Picture, str]] = []
    for group in range(table.num_row_groups):
        try:
            texts = table.read_row_group(group, [column])[column].to_pylist()
        except Exception as error:
            raise ValueError(f"{str(file)!r} cannot be read as a parquet file: {one_line(error)}") from None
        for row, text in enumerate(texts):
            name, count = f"row {count}", count + 1
            try:
                if text is None:
                    raise ValueError(f"{name} of {str(file)!r} has no caption")
                found.append((Inside(file, name, group, row), check_text(text, f"the caption in {name} of {file}")))
            except ValueError as error:
                leave_out(str(error), bad)
    return found


def _column(file: Path, columns: list[str], names: tuple[str, ...], what: str) -> str:
    """The one column that has one of these names."""
    found = [name for name in columns if name in names]
    if len(found) != 1:
        raise ValueError(
            f"the parquet file {str(file)!r} has {len(found) or 'no'} columns of {what}: it has "
            f"{', '.join(columns)[:120]}, and one of {', '.join(names)} is needed"
        )
    return found[0]


@functools.lru_cache(maxsize=1)
def _row_group(file: str, changed: int, group: int) -> list[bytes]:
    """The pictures in a group of rows, as bytes; of one without any, none. `changed` makes a new file another one."""
    table = parquet_file(Path(file))
    column = _column(Path(file), table.schema_arrow.names, IMAGES, "pictures")
    values = table.read_row_group(group, [column])[column].to_pylist()
    return [(value.get("bytes") if isinstance(value, dict) else value) or b"" for value in values]
