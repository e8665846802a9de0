"""A network whose weights are a single .safetensors file, as the UNets of SDXL-Lightning and Hyper-SD are published."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..support.checks import shape
from .families import Family
from .quiet import one_line
from .weights import read_tensors

ORIGINAL = "model.diffusion_model."
"""How the names of a UNet's weights begin in files of the original code (LDM)."""


def load_network_file(network: Any, family: Family, file: Path, unsafe: bool) -> None:
    """Give a network of diffusers, which keeps its configuration, the weights of a file.

    Their names are those of diffusers, or, of a UNet, those of the original code; a whole checkpoint's file has more
    than a UNet, which is left out. `ValueError` naming the first weight that is missing, has another shape, or is none
    of the network's; the network is then as it was.
    """
    found = read_tensors(file, unsafe)
    if family.single_files and any(name.startswith(ORIGINAL) for name in found):
        found = _converted(found, dict(network.config))
    wanted = network.state_dict()
    if not wanted.keys() & found.keys():
        first = next(iter(sorted(found)), "nothing")
        raise ValueError(
            f"it has no weight of this {family.part}, but {first!r}; a LoRA goes on top of a checkpoint, with --lora"
        )
    for name, value in wanted.items():
        if name not in found:
            raise ValueError(f"it does not fit this checkpoint: it lacks {name!r}, {shape(value)}")
        if found[name].shape != value.shape:
            raise ValueError(
                f"it does not fit this checkpoint: its {name!r} is {shape(found[name])}, not {shape(value)}"
            )
    if more := sorted(found.keys() - wanted.keys()):
        raise ValueError(f"it does not fit this checkpoint, which has no {more[0]!r}, {shape(found[more[0]])}")
    with torch.no_grad():
        network.load_state_dict(found)


def _converted(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The UNet of a file of the original code, in the names of diffusers. `ValueError` where a name has no other."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = {name: value for name, value in tensors.items() if name.startswith(ORIGINAL)}
    try:
        converted: dict[str, Tensor] = convert_ldm_unet_checkpoint(dict(own), config=config)
    except (KeyError, AttributeError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"it does not fit this checkpoint: it lacks {one_line(error)}") from None
    used = {id(value) for value in converted.values()}
    # what has no name in diffusers keeps its own, and the caller says that it is none of the network's
    left = {name: value for name, value in own.items() if id(value) not in used}
    return {name: value for name, value in converted.items() if value is not None} | left
