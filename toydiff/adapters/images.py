"""Pictures to train on, a folder of images with captions, which are encoded once into latents; and pictures to look at,
sheets of images with their settings inside."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..support.files import writable_folder, write_bytes
from ..training.checkpoints import read_tensors, tensor_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CAPTIONS = "metadata.jsonl"
SHARD = 64
"""Images that are encoded together, and kept in one file."""
GAP = 4
"""Pixels between the images of a sheet."""


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
    """The images in a folder and in the folders inside it, sorted, each with its caption.

    A caption is the "text" of the line of metadata.jsonl that has the image's "file_name", or else the content of a
    .txt file of the image's name. `ValueError` if there is no image, or one without a caption.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder of images at {str(folder)!r}")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"the folder {str(folder)!r} holds no images ({', '.join(SUFFIXES)})")
    said = {}
    for index in sorted(path for path in folder.rglob(CAPTIONS) if path.is_file()):
        for number, line in enumerate(read_text(index).split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row["text"], str):
                    raise TypeError
                said[(index.parent / row["file_name"]).resolve()] = row["text"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f'line {number} of {str(index)!r} is not like {{"file_name": "a.png", "text": "a caption"}}'
                ) from None
    captioned = []
    for path in found:
        beside = path.with_suffix(".txt")
        caption = said.get(path.resolve())
        if caption is None and beside.is_file():
            caption = read_text(beside).strip()
        if caption is None:
            raise ValueError(
                f"the image {str(path)!r} has no caption: give it a line in {CAPTIONS}, or a file {beside.name}; "
                "an empty one is allowed"
            )
        captioned.append((path, caption))
    return captioned


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) in [0, 1] of size = (height, width): it is scaled until it covers that, and its middle is cut
    out. `ValueError` if the file cannot be read as an image."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width = size
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits of grey, which a conversion would clip
                image = Image.fromarray(
                    (np.asarray(image).astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8)
                )
            image = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {' '.join(str(error).split())[:120]}") from None
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def stamps(paths: Sequence[Path]) -> list[list]:
    """Path, size and time of the last change of files: where these are the same, the files count as unchanged."""
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def encoded(
    checkpoint: Encoder,
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
    cache: Path | None = None,
    at_once: int = 8,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of images, (n, C, h, w) each, in half precision.

    paths: of the images; size: (height, width) in pixels. cache: a folder that keeps the latents, shard by shard, for
    the next run. at_once: images in one call. progress: show a bar.
    """
    means, stds = [], []
    for i in tqdm(range(0, len(paths), SHARD), desc="encode", unit="shard", disable=not progress):
        part = paths[i : i + SHARD]
        file = None
        if cache is not None:
            made_of = json.dumps([checkpoint.stamp("vae"), list(size), stamps(part)])
            key = hashlib.sha256(made_of.encode()).hexdigest()[:24]
            file = writable_folder(cache) / f"latents-{key}.safetensors"
        if file is not None and file.exists():
            found = read_tensors(file)
            mean, std = found["mean"], found["std"]
        else:
            mean, std = (
                part.half().contiguous()  # as they come from a file: a layout decides how a convolution rounds
                for part in checkpoint.encode(torch.stack([read_image(path, size) for path in part]), at_once=at_once)
            )
            if file is not None:
                write_bytes(file, tensor_bytes({"mean": mean, "std": std}))
        means.append(mean)
        stds.append(std)
    return torch.cat(means), torch.cat(stds)


def as_bytes(images: Tensor) -> np.ndarray:
    """Images (n, 3, H, W) in [0, 1] as bytes (n, H, W, 3), rounded as diffusers rounds them."""
    return (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


def sheet_png(images: np.ndarray, columns: int, settings: dict) -> bytes:
    """A PNG of images (n, H, W, 3) in rows of `columns`. The PNG's text field `toydiff` holds the settings as JSON."""
    from PIL import Image, PngImagePlugin

    n, height, width, _ = images.shape
    rows = -(-n // columns)
    gap = GAP if n > 1 else 0
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(Image.fromarray(image), ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("toydiff", json.dumps(settings))
    out = io.BytesIO()
    sheet.save(out, "PNG", pnginfo=info)
    return out.getvalue()
