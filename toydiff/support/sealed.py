"""Files of JSON that carry a checksum of their own content, and digests that identify tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .files import json_text, read_bytes, write_text
from .forms import parsed
from .words import said

VERSION = 1
"""Of the formats of all files of JSON."""
MOST_JSON = 2**28
"""A larger index is not read."""


def checksum(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


SAMPLED = 4096
"""Of a larger tensor, a digest reads so many of its numbers."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """What identifies named tensors, as "structure:dtypes:values": checksums of their names and shapes, and of their
    numbers. Of a tensor with more than `SAMPLED` numbers it reads that many, at equal distances."""
    structure, values = hashlib.sha256(), hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        structure.update(f"{name} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().reshape(-1)
        part = flat[:: -(-len(flat) // SAMPLED)] if len(flat) > SAMPLED else flat
        values.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    dtypes = "+".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    return f"{structure.hexdigest()[:16]}:{dtypes}:{values.hexdigest()[:32]}"


def rounded_digest(tensors: Mapping[str, Tensor]) -> str:
    """The digest of exact numbers, but for what two machines may round otherwise."""
    return digest({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})


def contradicts(found: object, wanted: object) -> bool:
    """Whether two digests are known to be of different things: of another structure, or of the same dtypes and other
    values. The same weights in another precision are not known to be others."""
    parts = [text.split(":") if isinstance(text, str) else [] for text in (found, wanted)]
    if any(len(part) != 3 for part in parts):
        return False
    (structure, dtypes, values), (other, others, theirs) = parts
    return structure != other or (dtypes == others and values != theirs)


def seal_of(index: dict) -> str:
    """The checksum of a JSON object, whatever the order of its keys."""
    return checksum(json.dumps(index, sort_keys=True).encode())


def write_index(path: Path | str, index: dict) -> None:
    """Write a JSON object for `read_index`, whole or not at all, with a checksum of its own content."""
    write_text(path, json_text(index | {"seal": seal_of(index)}))


def read_index(path: Path | str, format_: str, what: str, keys: Sequence[str] = ()) -> dict:
    """The JSON object in a file, once it is known to be of this format and to have these keys.

    `ValueError` in one line for a file that is truncated or foreign, or was altered. A file without a checksum of its
    own content is accepted.
    """
    path = Path(path)
    try:
        data = read_bytes(path, MOST_JSON)
    except FileNotFoundError:
        raise ValueError(f"there is no {what} at {str(path.parent)!r}: it has no {path.name}") from None
    try:
        index = parsed(data.decode())
    except ValueError:
        raise ValueError(f"{str(path)!r} is truncated or is not JSON: it is not a whole {what}") from None
    if not isinstance(index, dict) or index.get("format") != format_:
        raise ValueError(f"{str(path)!r} is not a {what}: its format is not {format_!r}")
    if index.get("version") != VERSION:
        raise ValueError(
            f"{str(path)!r} has version {said(repr(index.get('version')))} of the format {format_!r}; "
            f"this toydiff reads version {VERSION}"
        )
    seal = index.pop("seal", None)
    try:
        altered = seal is not None and seal != seal_of(index)
    except RecursionError:
        raise ValueError(f"{str(path)!r} is not a whole {what}: it is nested too deep") from None
    if altered:
        raise ValueError(f"{str(path)!r} was altered: its checksum is not the one that was saved")
    missing = [key for key in keys if key not in index]
    if missing:
        raise ValueError(f"{str(path)!r} is not a whole {what}: it has no {missing[0]!r}")
    return index
