"""Pictures to train on, which are encoded once into latents; and pictures to look at, sheets of images with their
settings inside."""

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..support.words import plural
from .quiet import one_line
from .shards import Picture, leave_out, opened
from .sizes import Six
from .store import Store

if TYPE_CHECKING:
    from PIL.Image import Image

SHARD = 64
"""Images that are encoded, and kept, together."""
GAP = 4
"""Pixels between the images of a sheet."""
READ_AS = 2
"""Grows when `read_image` gives other pixels for a file: latents that were kept then count no more."""

TURNED = 0x0112
"""The field of a photo that says how it is to be turned."""
SIDEWAYS = (5, 6, 7, 8)
"""Its values where height and width change places."""


class Encoder(Protocol):
    """What encodes images, a `toydiff.adapters.checkpoint.StableDiffusion`."""

    def encode(self, images: Tensor, *, at_once: int) -> tuple[Tensor, Tensor]: ...

    def stamp(self, *parts: str) -> list: ...


def read_image(path: Picture, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) in [0, 1] of size = (height, width): it is scaled until it covers that, and its middle is cut
    out. What is transparent shows white. `ValueError` if the file cannot be read as one image."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of damage that does not matter
            with Image.open(opened(path)) as file:
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


def read_clip(path: Picture, size: tuple[int, int], frames: int) -> Tensor:
    """A clip (F, 3, H, W) in [0, 1] from an animated picture (GIF, WebP, PNG), of size = (height, width).

    Of its n frames, F = `frames` are taken, evenly from the first to the last; each is scaled until it covers the size,
    and its middle is cut out. `ValueError` if the file cannot be read, or holds fewer frames.
    """
    from PIL import Image, ImageOps

    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that does not matter
            with Image.open(opened(path)) as file:
                n = getattr(file, "n_frames", 1)
                if n < frames:
                    raise ValueError(f"it holds {plural(n, 'frame')}, and a clip has {frames} here (--frames)")
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


def sizes_of_picture(path: Picture, size: tuple[int, int]) -> Six:
    """The six numbers of a picture that `read_image` scales and cuts to size = (height, width). Its header is
    read; a corner is a whole number of pixels. `ValueError` for a file that is no picture."""
    from PIL import Image

    try:
        with Image.open(opened(path)) as file:
            width, height = file.size
            turned = file.getexif().get(TURNED, 1)
    except Exception as error:  # of many kinds: decoders meet damaged files where they do not expect them
        raise ValueError(f"{str(path)!r} cannot be read as an image: {one_line(error)[:120]}") from None
    if turned in SIDEWAYS:
        width, height = height, width
    scale = max(size[0] / height, size[1] / width)
    top, left = (round((own * scale - cut) / 2) for own, cut in zip((height, width), size, strict=True))
    return height, width, top, left, size[0], size[1]


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


class Kept:
    """What was computed of pictures: rows by name, memory-mapped."""

    def __init__(self, store: Store, places: np.ndarray, kept: Sequence[int], folder: object = None):
        self._store, self._places, self._folder = store, places, folder
        self.kept = kept
        """Which of the pictures these are of, in order: all of them, but for those that were left out."""

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, i: Tensor) -> dict[str, Tensor]:
        """The rows of the pictures i (n,) of those that were kept, (n, ...) by name."""
        return self._store.rows(self._places[i.numpy()])


def computed(
    compute: Callable[[Tensor], dict[str, Tensor]],
    name: str,
    made_by: object,
    pictures: Sequence[Picture],
    size: tuple[int, int],
    *,
    frames: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    bad: list[str] | None = None,
) -> Kept:
    """What `compute` makes of pictures: tensors (n, ...) by name of images (n, 3, H, W) in [0, 1], or of clips (n, F,
    3, H, W).

    name, made_by: of what is computed, and what it depends on beside the pictures, as JSON. size: (height, width) in
    pixels. frames: F, where the pictures are clips. cache: a folder that keeps the rows for the next run; what an
    interrupted run has computed is not computed again. None is a temporary folder. progress: show a bar. bad: gets what
    is wrong with each picture that cannot be read; with None the first such is a `ValueError`.
    """
    folder = None
    if cache is None:
        folder = tempfile.TemporaryDirectory(prefix="toydiff-")
        cache = Path(folder.name)
    how, shard = ([], SHARD) if frames is None else ([frames], max(1, SHARD // frames))
    store = Store(cache / f"{name}-{digest([READ_AS, made_by, list(size), *how]).hex()[:24]}")
    keys = np.array([int.from_bytes(digest(_stamp(one))[:8], "big") >> 1 for one in pictures], np.int64)
    missing = np.flatnonzero(store.places(keys) < 0)
    for i in tqdm(range(0, len(missing), shard), desc="encode", unit="shard", disable=not progress):
        read: dict[int, Tensor] = {}
        for k in missing[i : i + shard].tolist():
            try:
                read[k] = read_image(pictures[k], size) if frames is None else read_clip(pictures[k], size, frames)
            except ValueError as error:
                leave_out(str(error), bad)
        if read:
            store.add(keys[list(read)], compute(torch.stack(list(read.values()))))
    places = store.places(keys)
    kept = np.flatnonzero(places >= 0)
    if not len(kept):
        raise ValueError(f"none of the {len(pictures)} pictures can be read; the first: {(bad or ['none'])[0]}")
    return Kept(store, places[kept], kept.tolist(), folder)


def encoded(
    checkpoint: Encoder,
    pictures: Sequence[Picture],
    size: tuple[int, int],
    *,
    frames: int | None = None,
    cache: Path | None = None,
    at_once: int = 8,
    progress: bool = False,
    bad: list[str] | None = None,
) -> Kept:
    """The latents of pictures: rows `mean` and `std` (C, h, w), in half precision.

    at_once: images in one call. frames: the pictures are clips, of which so many frames are read, and the latents are
    (C, F, h, w). The other arguments are those of `computed`.
    """

    def compute(images: Tensor) -> dict[str, Tensor]:
        mean, std = checkpoint.encode(images, at_once=at_once)
        return {"mean": mean.half(), "std": std.half()}

    return computed(
        compute,
        "latents",
        checkpoint.stamp("vae"),
        pictures,
        size,
        frames=frames,
        cache=cache,
        progress=progress,
        bad=bad,
    )


def digest(made_of: object) -> bytes:
    """The SHA-256 of something that can be written as JSON."""
    return hashlib.sha256(json.dumps(made_of).encode()).digest()


def _stamp(picture: Picture) -> list:
    """What a picture is known by: its file as it is now, and its place there."""
    return stamps([picture])[0] if isinstance(picture, Path) else [*stamps([picture.file])[0], *picture[1:]]


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
