"""Adding a LoRA to a checkpoint's weights for good: all of what its file holds, or nothing.

diffusers and peft find the layers that a file's names mean. What they injected is compared with the file, tensor by
tensor: a layer that was left out is an error, and every layer's scale is the one that the file says.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .families import Family
from .weights import read_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FACTOR = re.compile(
    r"(?P<layer>.+?)[._](?P<side>lora_down|lora_A|lora\.down|lora_linear_layer\.down"
    r"|lora_up|lora_B|lora\.up|lora_linear_layer\.up)(\.\w+)?\.weight"
)
"""The names of the two factors of a layer's change, by kohya, peft and diffusers."""
NUMBER = re.compile(r"(?P<layer>.+?)([._]lora)?\.(?P<what>alpha|dora_scale)")
OTHER = re.compile(r"(?P<layer>.+?)\.(lora_magnitude_vector(\.\w+)*|lora_B(\.\w+)?\.bias)")
ORIGINAL = ("input_blocks", "middle_block", "output_blocks")
"""Blocks of the UNet in the names of SDXL's original code, which kohya's LoRAs of SDXL have; diffusers knows them."""
ADAPTER = "given"


@dataclass
class Layer:
    """What a file says of one layer: W becomes W + (alpha/rank) up down, and where it has `dora` (DoRA, arXiv
    2402.09353) that, over its norm along one axis, times `dora`."""

    down: list[Tensor] = field(default_factory=list)
    up: list[Tensor] = field(default_factory=list)
    alpha: float | None = None
    dora: Tensor | None = None
    kohya: bool = False

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / len(self.down[0])


def with_strength(lora: str | Path) -> tuple[str, float]:
    """(place, strength) of "place:strength", as "style.safetensors:0.8"; the strength is 1 where none is written. What
    there is a file or folder of this name of is a place."""
    place, colon, strength = str(lora).rpartition(":")
    if not colon or Path(lora).exists():
        return str(lora), 1.0
    try:
        number = float(strength)
    except ValueError:
        return str(lora), 1.0
    if not math.isfinite(number):
        raise ValueError(f"the strength of a LoRA is a finite number, got {strength!r} of {place!r}")
    if not place:
        raise ValueError(f"a LoRA is PATH or PATH:STRENGTH, and {str(lora)!r} has no path")
    return place, number


def add_lora(
    pipe: "DiffusionPipeline", family: Family, file: Path, lora: str, unsafe: bool, strength: float = 1.0
) -> None:
    """Add `strength` times the LoRA of a file to the weights of the network and the text encoders.

    lora: how it is called in messages. `ValueError` where the file cannot be read, is not a LoRA, or has a layer that
    this checkpoint has not; the pipeline is then of no use.
    """
    try:
        tensors = read_tensors(file, unsafe)
        layers = _layers(tensors)
        if strength != 1 and any(layer.dora is not None for layer in layers.values()):
            raise ValueError("it is a DoRA, whose magnitudes replace those of the weights: it has no strength but 1")
        _inject(pipe, file, _renamed(pipe, family, tensors, layers), unsafe)
        places = _places(pipe, family, layers)
        for name, place in places.items():
            if layers[name].kohya or layers[name].alpha is not None:
                place.scaling[ADAPTER] = layers[name].scale
        pipe.fuse_lora(adapter_names=[ADAPTER], lora_scale=strength)
        for name, place in places.items():
            _decompose(place.get_base_layer().weight, layers[name].dora, name)
        pipe.unload_lora_weights()
    except ValueError as error:
        raise ValueError(f"the LoRA {lora!r} does not fit this checkpoint, or cannot be read: {error}") from None


def _layers(tensors: dict[str, Tensor]) -> dict[str, Layer]:
    """The layers of a file by their names there; `ValueError` for anything in it that is not understood."""
    found: dict[str, Layer] = {}
    others = []
    for name, value in tensors.items():
        if not bool(torch.isfinite(value.float()).all()):
            raise ValueError(f"its {name!r} has numbers that are not finite")
        if matched := FACTOR.fullmatch(name):
            layer = found.setdefault(matched["layer"], Layer())
            layer.kohya = matched["side"] in ("lora_down", "lora_up")
            down = matched["side"].endswith(("down", "lora_A"))
            (layer.down if down else layer.up).append(value)
        elif matched := NUMBER.fullmatch(name):
            layer = found.setdefault(matched["layer"], Layer())
            if matched["what"] == "dora_scale":
                layer.dora = value.float()
            elif value.numel() == 1:
                layer.alpha = float(value)
            else:
                raise ValueError(f"its {name!r} is no number")
        elif not OTHER.fullmatch(name):
            others.append(name)
    if others:
        raise ValueError(
            f"it holds {others[0][:120]!r}, which is no low-rank change of a layer "
            "(LoHa, LoKr, OFT, Tucker factors and whole differences are not supported)"
        )
    for name, layer in found.items():
        if len(layer.down) != 1 or len(layer.up) != 1:
            raise ValueError(f"its layer {name[:120]!r} has not both factors, down (A) and up (B)")
        if layer.down[0].ndim < 2 or layer.up[0].ndim < 2 or layer.up[0].shape[1] != len(layer.down[0]):
            shapes = f"{tuple(layer.up[0].shape)} and {tuple(layer.down[0].shape)}"
            raise ValueError(f"the factors of its layer {name[:120]!r} do not fit each other: {shapes}")
    if not found:
        raise ValueError("it holds nothing")
    return found


def _networks(pipe: "DiffusionPipeline", family: Family) -> dict[str, nn.Module]:
    parts = {name: getattr(pipe, name, None) for name in family.lora_parts}
    return {name: network for name, network in parts.items() if network is not None}


def _renamed(
    pipe: "DiffusionPipeline", family: Family, tensors: dict[str, Tensor], layers: dict[str, Layer]
) -> dict[str, Tensor] | None:
    """The factors by names that diffusers knows, where all names are kohya's of diffusers' layers. Elsewhere the file's
    own without `dora_scale`, of which peft has another kind; None for the file as it is."""
    prefixes = {"text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}
    there: dict[str, str] = {}
    for part, network in _networks(pipe, family).items():
        for name, _ in network.named_modules():
            inside = not part.startswith("text_encoder") or name.startswith("text_model.")
            full = name if inside else f"text_model.{name}"
            for prefix in prefixes.get(part, (f"lora_{part}_",)):
                there[prefix + full.replace(".", "_")] = f"{part}.{full}"
    lost = [name for name in layers if name not in there]
    if all(layer.kohya for layer in layers.values()) and not any(word in name for name in lost for word in ORIGINAL):
        if lost:
            raise _absent(lost, layers)
        return {
            f"{there[name]}.{factor}.weight": value
            for name, layer in layers.items()
            for factor, value in zip(_sides(there[name]), (layer.down[0], layer.up[0]), strict=True)
        }
    if any(layer.dora is not None for layer in layers.values()):
        return {name: value for name, value in tensors.items() if not name.endswith(".dora_scale")}
    return None


def _sides(layer: str) -> tuple[str, str]:
    """What the factors are called: of text encoders, diffusers knows all layers by its own names only."""
    if layer.startswith("text_encoder"):
        return "lora_linear_layer.down", "lora_linear_layer.up"
    return "lora_A", "lora_B"


def _inject(pipe: "DiffusionPipeline", file: Path, tensors: dict[str, Tensor] | None, unsafe: bool) -> None:
    """Let diffusers and peft find the layers. tensors: what to take in place of the file's. `ValueError` where they
    cannot."""
    where = (
        {"pretrained_model_name_or_path_or_dict": str(file.parent), "weight_name": file.name}
        if tensors is None
        else {"pretrained_model_name_or_path_or_dict": tensors}
    )
    try:
        pipe.load_lora_weights(
            **where, adapter_name=ADAPTER, local_files_only=True, use_safetensors=None if unsafe else True
        )
    except Exception as error:  # of many kinds, some of safetensors and peft alone
        if "size mismatch" in str(error):
            raise ValueError("its layers have other sizes, so it was made for another kind of checkpoint") from None
        raise ValueError(
            "its layers are not named as those of this checkpoint are by kohya, peft or diffusers"
        ) from None


def _print_of(*factors: Tensor) -> tuple[bytes, ...]:
    return tuple(factor.detach().float().cpu().contiguous().numpy().tobytes() for factor in factors)


def _places(pipe: "DiffusionPipeline", family: Family, layers: dict[str, Layer]) -> dict[str, Any]:
    """The layers of the networks, peft's, that those of the file were injected into.

    They are found by their numbers, and where those are the same by their names. `ValueError` where one was not
    injected.
    """
    injected: dict[tuple[bytes, ...], dict[str, Any]] = {}
    for network in _networks(pipe, family).values():
        module: Any
        for place, module in network.named_modules():
            if ADAPTER in getattr(module, "lora_A", ()):
                key = _print_of(module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight)
                injected.setdefault(key, {})[place.replace(".", "_")] = module
    found: dict[str, Any] = {}
    lost = []
    for name, layer in layers.items():
        same = injected.get(_print_of(layer.down[0], layer.up[0]))
        if same:
            plain = name.replace(".", "_").replace("_processor", "")
            found[name] = same.pop(max(same, key=lambda place: plain.endswith(place)))
        else:
            lost.append(name)
    if lost:
        raise _absent(lost, layers)
    return found


def _absent(lost: list[str], layers: dict[str, Layer]) -> ValueError:
    return ValueError(f"{len(lost)} of its {len(layers)} layers are not in this checkpoint, {lost[0][:120]!r} for one")


def _decompose(weight: Tensor, dora: Tensor | None, name: str) -> None:
    """Give a weight (out, in, ...) the magnitudes of DoRA: (1, in, ...), the norms of its columns as kohya's have them,
    or (out, 1, ...), those of its rows."""
    if dora is None:
        return
    rows = dora.numel() == dora.shape[0] == weight.shape[0]
    columns = not rows and dora.ndim > 1 and dora.numel() == dora.shape[1] == weight.shape[1]
    if not rows and not columns:
        raise ValueError(f"the dora_scale of its layer {name[:120]!r} has the shape {tuple(dora.shape)}")
    axis = 0 if rows else 1
    flat = weight.data.movedim(axis, 0).flatten(1)
    shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
    weight.data *= (dora.flatten().to(weight) / flat.norm(dim=1)).reshape(shape)
