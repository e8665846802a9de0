"""Files of weights: reading them without running code, and naming what is wrong with them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .quiet import one_line

PICKLES = (b"\x80", b"PK\x03\x04")
"""How the pickles of PyTorch begin: bare ones, and those in an archive, as of TorchScript."""


def pickle_error(file: Path, called: str) -> ValueError:
    """The error for a file that is no .safetensors file by its name, where pickles are not read. By its first bytes it
    may be none of PyTorch's either. called: its name in the message."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if not start.startswith(PICKLES):
        return ValueError(f"{called} holds no weights: it is neither a .safetensors file, nor one of PyTorch's")
    return ValueError(
        f"{called} is a pickle, which can run code; use a .safetensors file, or allow it (--unsafe-weights)"
    )


def read_tensors(file: Path, unsafe: bool) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or, with unsafe, of a pickle. `ValueError` for what cannot be read."""
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if not unsafe:
            raise pickle_error(file, repr(str(file)))
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
        while isinstance(found, dict) and "state_dict" in found:
            found = found["state_dict"]
        if isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values()):
            return found
        raise ValueError(f"{str(file)!r} holds something else than tensors")
    except ValueError:
        raise
    except Exception as error:  # of many kinds, some of safetensors and pickle alone
        raise ValueError(
            f"{str(file)!r} cannot be read: it is truncated, or is not what its name says ({one_line(error)[:120]})"
        ) from None


Header = dict[str, tuple[str, tuple[int, ...]]]
"""What a file of weights says that it holds: the dtype, as safetensors calls it, and the shape of each tensor."""


def header_of(file: Path) -> Header:
    """The header of a .safetensors file; `ValueError` where it cannot be read."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except Exception as error:
        raise _not_readable(file, error) from None


def metadata_of(file: Path) -> dict[str, str]:
    """The text fields of a .safetensors file; `ValueError` where its header cannot be read."""
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except Exception as error:
        raise _not_readable(file, error) from None


def _not_readable(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{str(file)!r} is truncated or is not a safetensors file ({one_line(error)[:120]})")


def check_weights(network: nn.Module, what: str) -> None:
    """`ValueError` where a network has weights that no file gave (on the device "meta"), or that are not finite."""
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if value.is_meta:
            raise ValueError(
                f"{what} lacks weights, {name!r} for one: they are of another model, or of another version"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value.sum()) or torch.isfinite(value).all()):
            raise ValueError(
                f"{what} has weights that are not finite, {name!r} for one: its file is damaged, or was rounded to "
                "a type too narrow for it"
            )
