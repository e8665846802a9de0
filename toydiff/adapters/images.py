"""Pictures to train on, a folder of images with captions, which are encoded once into latents; and pictures to look at,
sheets of images with their settings inside."""

import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..support.files import check_folder, writable_folder, write_bytes
from ..training.checkpoints import read_tensors, tensor_bytes
from .quiet import one_line
from .text import check_text

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
OTHERS = (
    ".heic .heif .jxl .jp2 .j2k .jpx .svg .psd .xcf .tga .ico .icns .pnm .ppm .pgm .pbm .dds .exr .hdr .qoi .pcx .apng "
    ".raw .dng .cr2 .cr3 .nef .arw"
)
"""Pictures too, which are not read. They are refused, so that none is left out in silence."""
CAPTIONS = ("metadata.jsonl", "metadata.csv")
"""The files in which a folder of images says their captions."""
TEXTS = ("text", "caption")
"""How they call a caption: one of these."""
SHARD = 64
"""Images that are encoded together, and kept in one file."""
GAP = 4
"""Pixels between the images of a sheet."""
READ_AS = 2
"""Grows when `read_image` gives other pixels for a file: latents that were kept then count no more."""


class Encoder(Protocol):
    """What encodes images, a `toydiff.adapters.checkpoint.StableDiffusion`."""

    def encode(self, images: Tensor, *, at_once: int) -> tuple[Tensor, Tensor]: ...

    def stamp(self, *parts: str) -> list: ...


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


def image_folder(folder: Path | str) -> list[tuple[Path, str]]:
    """The images in a folder and in the folders inside it, sorted, each with its caption. Links are followed.

    A caption is the "text" or "caption" of the line of metadata.jsonl, or of metadata.csv, that has the image's
    "file_name"; or else the content of a .txt file of the image's name. Only files whose name begins with a dot, and
    what is no picture by its name, are left out. `ValueError` if there is no image, for one without a caption or with
    two, for a line without its image, and for a picture of a format that is not read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder of images at {str(folder)!r}")
    files = _files(folder)
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    for path in files:
        if path.suffix.lower() in OTHERS.split():
            raise ValueError(
                f"the picture {str(path)!r} is of a format that is not read; "
                f"convert it, or take it out of the folder; read are {', '.join(SUFFIXES)}"
            )
    if not found:
        raise ValueError(f"the folder {str(folder)!r} holds no images ({', '.join(SUFFIXES)})")
    said = _captions(path for path in files if path.name in CAPTIONS)
    captioned = []
    for path in found:
        if not path.is_file():
            raise ValueError(f"the picture {str(path)!r} is a link that leads nowhere, or no file")
        beside = path.with_suffix(".txt")
        text, line = said.get(_place(path), (None, ""))
        if beside.is_file():
            own = read_text(beside).strip()
            if text is not None and text.strip() != own:
                raise ValueError(f"the image {str(path)!r} has two captions, one in {line} and one in {beside.name!r}")
            text = own if text is None else text
        if text is None:
            raise ValueError(
                f"the image {str(path)!r} has no caption: give it a line in {CAPTIONS[0]}, or a file {beside.name}; "
                "an empty one is allowed"
            )
        captioned.append((path, text))
    pictures, texts = ({path.with_suffix("") for path in some} for some in (found, _texts(files)))
    captions_in = {picture.parent for picture in pictures & texts}
    for lone in sorted(texts - pictures):
        if lone.parent in captions_in:
            raise ValueError(f"there is no picture of the caption {str(lone) + '.txt'!r}; take it away")
    for place in said.keys() - {_place(path) for path in found}:
        raise ValueError(f"{said[place][1]} is of {place!r}, and there is no such picture in the folder")
    return captioned


def _texts(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix == ".txt"]


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


def _captions(indices: Iterable[Path]) -> dict[str, tuple[str, str]]:
    """By an image's `_place`, its caption in files `CAPTIONS`, and the words for that line."""
    said: dict[str, tuple[str, str]] = {}
    for index in indices:
        for number, row in _rows(index):
            line = f"line {number} of {str(index)!r}"
            try:
                about = row if isinstance(row, dict) else json.loads(row)
                name, [text] = about["file_name"], [about[key] for key in TEXTS if about.get(key) is not None]
                if not isinstance(text, str):
                    raise TypeError
                place = _place(index.parent / name)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
                like = '{"file_name": "a.png", "text": "a caption"}'
                if index.suffix == ".csv":
                    like = 'a.png,"a caption" below the names file_name,text'
                raise ValueError(f"{line} is not like {like}; a caption is {' or '.join(TEXTS)}") from None
            check_text(text, f"the caption in {line}")
            if place in said:
                raise ValueError(f"{line} is of {name!r}, which {said[place][1]} has described already")
            said[place] = text, line
    return said


def _rows(index: Path) -> Iterator[tuple[int, str | dict]]:
    """The rows of a file of captions that are not empty, each with the number of its line."""
    text = read_text(index)
    if index.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise ValueError(f"line {rows.reader.line_num} of {str(index)!r} cannot be read as CSV: {error}") from None
    else:
        yield from ((number, row) for number, row in enumerate(text.split("\n"), 1) if row.strip())


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) in [0, 1] of size = (height, width): it is scaled until it covers that, and its middle is cut
    out. What is transparent shows white. `ValueError` if the file cannot be read as one image."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of damage that does not matter
            with Image.open(path) as file:
                frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)  # MPO: a photo, and its other eye
                if frames > 1:
                    raise ValueError(f"it holds {frames} pictures; give each a file of its own")
                if file.mode == "F":
                    raise ValueError("its numbers are fractions of an unknown range; convert it to 8 or 16 bits")
                image = _on_white(ImageOps.exif_transpose(file))
                image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds: decoders meet damaged files where they do not expect them
        raise ValueError(f"{str(path)!r} cannot be read as an image: {one_line(error)[:120]}") from None
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def read_clip(path: Path, size: tuple[int, int], frames: int) -> Tensor:
    """A clip (F, 3, H, W) in [0, 1] from an animated picture (GIF, WebP, PNG), of size = (height, width).

    Of its n frames, F = `frames` are taken, evenly from the first to the last; each is scaled until it covers the size,
    and its middle is cut out. `ValueError` if the file cannot be read, or holds fewer frames.
    """
    from PIL import Image, ImageOps

    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that does not matter
            with Image.open(path) as file:
                n = getattr(file, "n_frames", 1)
                if n < frames:
                    raise ValueError(f"it holds {n} frame(s), and a clip has {frames} here (--frames)")
                taken = []
                for k in np.linspace(0, n - 1, frames).round().astype(int).tolist():
                    file.seek(k)
                    image = ImageOps.fit(_on_white(file.copy()), (width, height), Image.Resampling.LANCZOS)
                    taken.append(torch.from_numpy(np.array(image)))
    except MemoryError:
        raise
    except Exception as error:  # of many kinds: decoders meet damaged files where they do not expect them
        raise ValueError(f"{str(path)!r} cannot be read as a clip: {one_line(error)[:120]}") from None
    return torch.stack(taken).permute(0, 3, 1, 2).float() / 255


def _on_white(image: "Image") -> "Image":
    """A picture in RGB, of 8 bits, on a white ground."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which a conversion would clip
        grey = np.asarray(image).astype(np.float64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its numbers have more than 16 bits; convert it to 8 or 16")
        if (clear := image.info.get("transparency")) is not None:
            grey[grey == clear] = 65535
        image = Image.fromarray((grey / 257).round().astype(np.uint8))
    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def stamps(paths: Sequence[Path]) -> list[list]:
    """Path, size and time of the last change of files: where these are the same, the files count as unchanged."""
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def encoded(
    checkpoint: Encoder,
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
    frames: int | None = None,
    cache: Path | None = None,
    at_once: int = 8,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of images, (n, C, h, w) each, in half precision.

    paths: of the images; size: (height, width) in pixels. frames: the images are clips, of which so many frames are
    read, and the latents are (n, C, F, h, w). cache: a folder that keeps the latents, shard by shard, for
    the next run. at_once: images in one call. progress: show a bar.
    """
    means, stds = [], []
    shard = SHARD if frames is None else max(1, SHARD // frames)
    for i in tqdm(range(0, len(paths), shard), desc="encode", unit="shard", disable=not progress):
        part = paths[i : i + shard]
        file = None
        if cache is not None:
            how = [READ_AS, checkpoint.stamp("vae"), list(size), *([] if frames is None else [frames])]
            made_of = json.dumps([*how, stamps(part)])
            key = hashlib.sha256(made_of.encode()).hexdigest()[:24]
            file = check_folder(cache) / f"latents-{key}.safetensors"
        if file is not None and file.exists():
            found = read_tensors(file)
            mean, std = found["mean"], found["std"]
        else:
            read = [read_image(path, size) if frames is None else read_clip(path, size, frames) for path in part]
            mean, std = (
                part.half().contiguous()  # as they come from a file: a layout decides how a convolution rounds
                for part in checkpoint.encode(torch.stack(read), at_once=at_once)
            )
            if file is not None:
                writable_folder(file.parent)  # made with what comes into it: a refusal leaves no folder
                write_bytes(file, tensor_bytes({"mean": mean, "std": std}))
        means.append(mean)
        stds.append(std)
    return torch.cat(means), torch.cat(stds)


def as_bytes(images: Tensor) -> np.ndarray:
    """Images (..., 3, H, W) in [0, 1] as bytes (..., H, W, 3), rounded as diffusers rounds them."""
    return (images.movedim(-3, -1).numpy() * 255).round().astype(np.uint8)


def sheet(images: np.ndarray, columns: int) -> "Image":
    """Images (n, H, W, 3) in rows of `columns`."""
    from PIL import Image

    n, height, width, _ = images.shape
    rows = -(-n // columns)
    gap = GAP if n > 1 else 0
    whole = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        whole.paste(Image.fromarray(image), ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return whole


def sheet_png(images: np.ndarray, columns: int, settings: dict) -> bytes:
    """A PNG of images (n, H, W, 3) in rows of `columns`. The PNG's text field `toydiff` holds the settings as JSON."""
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_itxt("toydiff", json.dumps(settings))
    out = io.BytesIO()
    sheet(images, columns).save(out, "PNG", pnginfo=info)
    return out.getvalue()
