"""Which pictures there are to train on, and their captions: a folder of images, tar shards, or parquet files."""

import csv
import glob
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..support import words
from .shards import SUFFIXES, TEXTS, Picture, leave_out, parquet_rows, parquet_shard, tar_shard
from .text import check_text

OTHERS = (
    ".heic .heif .jxl .jp2 .j2k .jpx .svg .psd .xcf .tga .ico .icns .pnm .ppm .pgm .pbm .dds .exr .hdr .qoi .pcx .apng "
    ".raw .dng .cr2 .cr3 .nef .arw"
)
"""Pictures too, which are not read. They are refused, so that none is left out in silence."""
CAPTIONS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The files in which a folder of images says their captions."""
TABLES = (".tar", ".parquet")
"""Files of many pictures."""
COMPRESSED = (".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; `ValueError` if it cannot be read so."""
    try:
        text = path.read_text("utf-8-sig")
        text.encode()
        return text
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"the file {str(path)!r} cannot be read as text in UTF-8: {getattr(error, 'strerror', None) or error}"
        ) from None


def pictures(data: Path | str, bad: list[str] | None = None) -> list[tuple[Picture, str]]:
    """The pictures in `data`, each with its caption.

    data: a folder of images (`image_folder`); a tar shard (`shards.tar_shard`) or parquet file
    (`shards.parquet_shard`), a folder of those, or a pattern of their names, such as "shards/{000000..000099}.tar" or
    "shards/*.tar". bad: gets what is wrong with each picture that is left out; with None the first such is a
    `ValueError`.
    """
    where = Path(data)
    if where.is_dir():
        files = _files(where)
        found = [path for path in files if path.suffix.lower() in TABLES and path.name not in CAPTIONS]
        tars = {path.with_suffix("") for path in found if path.suffix.lower() == ".tar"}
        # a table beside a tar shard, of the same name, says of its samples what they say themselves
        found = [path for path in found if path.suffix.lower() == ".tar" or path.with_suffix("") not in tars]
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if found and images:
            raise ValueError(f"the folder {str(where)!r} holds pictures and {found[0].name!r} too; give one of the two")
        packed = [path.name for path in files if path.name.lower().endswith(COMPRESSED)]
        if packed and not images:
            raise ValueError(
                f"{packed[0]!r} in {str(where)!r} is compressed, and its pictures have no place; unpack it"
            )
        if not found:
            return list(image_folder(where, bad))
    else:
        found = _named(str(data))
    out: list[tuple[Picture, str]] = []
    for path in found:
        if path.suffix.lower() not in TABLES:
            raise ValueError(f"{str(path)!r} is none of: a folder of images, {', '.join(TABLES)}")
        try:
            out += (tar_shard if path.suffix.lower() == ".tar" else parquet_shard)(path, bad)
        except ValueError as error:
            leave_out(str(error), bad)
    if not out:
        raise ValueError(f"there are no pictures in {str(data)!r}" + (f"; the first left out: {bad[0]}" if bad else ""))
    return out


def is_pattern(data: Path | str) -> bool:
    """Whether `data` stands for the names of several files."""
    return not Path(data).exists() and bool(re.search(r"[*?\[{]", str(data)))


def _named(data: str) -> list[Path]:
    """The files that a name or a pattern of names stands for."""
    if not is_pattern(data):
        if not Path(data).exists():
            raise ValueError(f"there is no folder of images at {data!r}, and no tar shard or parquet file")
        return [Path(data)]
    found = []
    for name in _braces(data):
        files = sorted(glob.glob(name)) if re.search(r"[*?\[]", name) else [name]
        if not files or not Path(files[0]).is_file():
            raise ValueError(f"there is no file {name!r}, of the pattern {data!r}")
        found += [Path(file) for file in files]
    return found


MOST_FILES = 10**6


def _braces(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for: {000..012} counts with as many digits, {a,b} lists words."""
    hit = re.search(r"\{([^{}]*)\}", pattern)
    if hit is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", hit[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < MOST_FILES:
            raise ValueError(f"the pattern {pattern!r} counts from {first} to {last}: up, to {MOST_FILES:,} files")
        words = [f"{k:0{len(numbers[1])}d}" for k in range(first, last + 1)]
    else:
        words = hit[1].split(",")
    return [name for word in words for name in _braces(pattern[: hit.start()] + word + pattern[hit.end() :])]


def image_folder(folder: Path | str, bad: list[str] | None = None) -> list[tuple[Path, str]]:
    """The images in a folder and in the folders inside it, sorted, each with its caption. Links are followed.

    A caption is the "text" or "caption" of the line of metadata.jsonl, or of the row of metadata.csv or
    metadata.parquet, that has the image's "file_name"; or else the content of a .txt file of the image's name. Only
    files whose name begins with a dot, and what is no picture by its name, are left out. `ValueError` if there is no
    image, for one without a caption or with two, for a line without its image, and for a picture of a format that is
    not read. bad: gets these, but the first, and what they are of is left out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder of images at {str(folder)!r}")
    files = _files(folder)
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    for path in files:
        if path.suffix.lower() in OTHERS.split():
            leave_out(
                f"the picture {str(path)!r} is of a format that is not read; "
                f"convert it, or take it out of the folder; read are {', '.join(SUFFIXES)}",
                bad,
            )
    if not found:
        raise ValueError(f"the folder {str(folder)!r} holds no images ({', '.join(SUFFIXES)})")
    said = _captions((path for path in files if path.name in CAPTIONS), bad)
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    captioned = []
    for path in found:
        try:
            captioned.append((path, _caption_of(path, said, texts)))
        except ValueError as error:
            leave_out(str(error), bad)
    pictures = {path.with_suffix("") for path in found}
    captions_in = {picture.parent for picture in pictures & texts.keys()}
    for lone in sorted(texts.keys() - pictures):
        if lone.parent in captions_in:
            leave_out(f"there is no picture of the caption {str(texts[lone])!r}; take it away", bad)
    for place in said.keys() - {_place(path) for path in found}:
        leave_out(f"{said[place][1]} is of {place!r}, and there is no such picture in the folder", bad)
    if not captioned:
        raise ValueError(
            f"the folder {str(folder)!r} holds no images with captions; the first left out: {(bad or [''])[0]}"
        )
    return captioned


def _caption_of(path: Path, said: dict[str, tuple[str, str]], texts: dict[Path, Path]) -> str:
    """The caption of an image; `ValueError` where it has none, or two, or is no file."""
    if not path.is_file():
        raise ValueError(f"the picture {str(path)!r} is a link that leads nowhere, or no file")
    text, line = said.get(_place(path), (None, ""))
    beside = texts.get(path.with_suffix(""))
    if beside is not None and beside.is_file():
        own = read_text(beside).strip()
        if text is not None and text.strip() != own:
            raise ValueError(f"the image {str(path)!r} has two captions, one in {line} and one in {beside.name!r}")
        text = own if text is None else text
    if text is None:
        raise ValueError(
            f"the image {str(path)!r} has no caption: give it a line in {CAPTIONS[0]}, or a file "
            f"{path.with_suffix('.txt').name}; an empty one is allowed"
        )
    return text


def _files(folder: Path) -> list[Path]:
    """All files in a folder and in those inside it, sorted, without those whose names begin with a dot. A folder that
    several links lead to counts once."""

    def refuse(error: OSError) -> None:
        raise ValueError(f"the folder {error.filename!r} cannot be read: {error.strerror or error}")

    seen: set[str] = set()
    found = []
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders.sort()
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _place(path: Path) -> str:
    """A file's absolute path, by which it is known whatever links lead to its folder. It may be a link itself: two of
    one picture are two."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _captions(indices: Iterable[Path], bad: list[str] | None) -> dict[str, tuple[str, str]]:
    """By an image's `_place`, its caption in files `CAPTIONS`, and the words for that line."""
    said: dict[str, tuple[str, str]] = {}
    for index in indices:
        for number, row in _rows(index):
            line = f"line {number} of {str(index)!r}"
            try:
                name, place, text = _line(index, row, line)
                if place in said:
                    raise ValueError(f"{line} is of {name!r}, which {said[place][1]} has described already")
                said[place] = text, line
            except ValueError as error:
                leave_out(str(error), bad)
    return said


def _line(index: Path, row: str | dict, line: str) -> tuple[str, str, str]:
    """(name, place, caption) of an image, by a row of a file of captions."""
    try:
        about = row if isinstance(row, dict) else json.loads(row)
        name, [text] = about["file_name"], [about[key] for key in TEXTS if about.get(key) is not None]
        if not isinstance(text, str):
            raise TypeError
        place = _place(index.parent / name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        like = '{"file_name": "a.png", "text": "a caption"}'
        if index.suffix != ".jsonl":
            like = 'a.png,"a caption" below the names file_name,text'
        raise ValueError(f"{line} is not like {like}; a caption is {' or '.join(TEXTS)}") from None
    return name, place, check_text(text, f"the caption in {line}")


def _rows(index: Path) -> Iterator[tuple[int, str | dict]]:
    """The rows of a file of captions that are not empty, each with its number or that of its line."""
    if index.suffix == ".parquet":
        yield from enumerate(parquet_rows(index, ("file_name", *TEXTS)), 1)
        return
    text = read_text(index)
    if index.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            names = rows.fieldnames or ()
            lacks = "file_name" if "file_name" not in names else "" if {*TEXTS} & {*names} else " or ".join(TEXTS)
            if lacks:
                has = words.said(", ".join(names)) or "none"
                raise ValueError(f"the header of {str(index)!r} lacks the column {lacks}; it has {has}")
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise ValueError(f"line {rows.reader.line_num} of {str(index)!r} cannot be read as CSV: {error}") from None
    else:
        yield from ((number, row) for number, row in enumerate(text.split("\n"), 1) if row.strip())
