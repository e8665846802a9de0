"""What a checkpoint is, what runs on it and what memory that takes, from its JSON and the headers of its weights."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .checkpoint import StableDiffusion
from .families.base import named
from .layout import NOT_LOADED, parts_of
from .lora import FACTOR, NUMBER, OTHER
from .names import COMPARABLE
from .network import CheckpointNetwork
from .quiet import quietly
from .reading import (
    OF_MOTION,
    SINGLE,
    check_single,
    lora_file,
    outline,
    parted,
    refuse_flux,
    refuse_motion,
    usual_configuration,
    whole,
)
from .schedulers import OF_LCM, SHIFTED, SPACINGS, like_scheduler, sampler_of, shifted_times
from .weights import Header, header_of

STEPS = 20
"""Steps for which the spacings are tried."""
RANK = 64
COPIES = 5
"""Of each weight of a LoRA that is trained, in float32: itself, its gradient, Adam's two moments, the average."""
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Bytes of a number by safetensors' name of its dtype; of any other 1."""
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def summary(model: str, config: str | None = None, motion_adapter: str | None = None) -> dict[str, Any]:
    """What a checkpoint is, for a table or as JSON. No weight is loaded, and the hub is not used.

    model: a folder in diffusers' layout, or a single .safetensors file. config: for a single file, the folder with the
    JSON and the tokenizers of its kind; without it, only what its header says is there. motion_adapter: the folder of
    one, with which the checkpoint makes clips. A LoRA, a file or its folder, gets a row of its own (`lora_summary`).
    `ValueError` in the words of `StableDiffusion.load` where that would refuse the files; values that are not finite
    are not seen.

    Memory is in bytes: that of the weights alone, without activations. An image holds the network and the text encoders
    in a dtype, and the VAE in float32. An update holds the same, and `COPIES` times a LoRA of rank `RANK` in float32.
    """
    path = Path(model)
    if not path.exists() or not (path.is_dir() or path.suffix in SINGLE):
        raise ValueError(f"there is no checkpoint at {model!r}: neither a folder, nor a .safetensors file")
    if config is None:
        file = path
        if path.is_dir() and not (path / "model_index.json").exists() and any(path.glob("*lora*.safetensors")):
            file = path / lora_file([one.name for one in path.iterdir()], f"the folder {model!r}", False)
        if file.is_file():
            if motion_adapter is not None:
                raise ValueError(
                    "whether a motion adapter fits is told by --config: a folder with the JSON of the file's kind"
                )
            check_single(file, False)
            header = header_of(file)
            return lora_summary(file, header) if any(map(FACTOR.fullmatch, header)) else _of_header(file, header)
    pipe, held = outline(model, config, None if motion_adapter is None else whole(motion_adapter))
    checkpoint = StableDiffusion(pipe, {"model": whole(model)})
    family, scheduler = checkpoint.family, type(pipe.scheduler).__name__
    counts = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters())
        for name in family.networks
        if getattr(pipe, name, None) is not None
    }
    with quietly():
        lora = CheckpointNetwork.of(checkpoint).to_train("lora", RANK)
    trained = sum(p.numel() for p in lora.parameters() if p.requires_grad)
    rest = sum(counts.values()) - counts["vae"]
    image = {dtype: size * rest + 4 * counts["vae"] for dtype, size in (("float32", 4), ("float16", 2))}
    spacings, refused = _spacings(checkpoint)
    return {
        "model": checkpoint.source,
        "family": family.title,
        "pipeline": type(pipe).__name__,
        "scheduler": scheduler,
        "predicts": checkpoint.kind,
        "timesteps": checkpoint.timesteps,
        "flow": checkpoint.flow,
        "takes_mask": checkpoint.takes_mask,
        "resolution": list(checkpoint.resolution),
        "latent": list(checkpoint.latent_shape()),
        "most_frames": family.most_frames(checkpoint.network) if family.clips else None,
        "parameters": counts,
        "weights": _on_disk(held),
        "missing": [name for name in family.texts if name in pipe.components and pipe.components[name] is None],
        "left_out": _left_out(path, model),
        "usual": dict(zip(("solver", "grid"), family.walk, strict=True)),
        "like_scheduler": sampler_of(checkpoint) if scheduler in COMPARABLE else None,
        "spacings": spacings,
        "refused_spacings": refused,
        "memory": {
            "image": image,
            "lora_update": {"bfloat16": image["float16"] + 4 * COPIES * trained},
            "lora_parameters": trained,
            "lora_rank": RANK,
        },
    }


WIDTHS = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}
"""Checkpoints with a UNet by the width of what its cross-attention reads."""


def lora_summary(path: Path, header: Header) -> dict[str, Any]:
    """What the header of a LoRA says: for what it is, by the names and widths of its layers, how many layers of which
    part it changes, and their ranks. `ValueError` for a change that is of another form."""
    layers: dict[str, int] = {}
    reads = set()
    for name, (_, size) in header.items():
        matched = FACTOR.fullmatch(name)
        if matched and matched["side"].endswith(("down", "lora_A")) and len(size) > 1:
            layers[matched["layer"]] = size[0]
            if OF_MOTION not in matched["layer"] and re.search(r"attn2[._](processor[._])?to_k", matched["layer"]):
                reads.add(size[1])
        elif not (matched or NUMBER.fullmatch(name) or OTHER.fullmatch(name)):
            raise ValueError(
                f"the LoRA {str(path)!r} cannot be read: it holds {name[:120]!r}, "
                "which is no low-rank change of a layer"
            )
    if any("single_transformer_blocks" in name or "single_blocks" in name for name in layers):
        of = "FLUX.1"
    elif any("joint_blocks" in name or re.match(r"(lora_)?transformer[._]", name) for name in layers):
        of = "SD3 or SD3.5"
    else:
        of = " or ".join(WIDTHS.get(width, f"a UNet that reads {width} numbers a token") for width in sorted(reads))
    texts = sum(bool(re.match(r"(lora_te|text_encoder)", name)) for name in layers)
    motion = sum(OF_MOTION in name for name in layers)
    if motion == len(layers):
        of = "the layers between frames of AnimateDiff (a motion LoRA)"
    elif motion:
        of = f"clips (AnimateDiff), on {of}" if of else "clips (AnimateDiff)"
    return {
        "model": whole(path),
        "lora": of or "unknown: it changes no cross-attention",
        "layers": {"network": len(layers) - texts - motion, "text encoders": texts}
        | ({"motion modules": motion} if motion else {}),
        "ranks": {str(rank): count for rank, count in sorted(Counter(layers.values()).items())},
        "dora": any("dora_scale" in name or "lora_magnitude_vector" in name for name in header),
        "weights": _on_disk({"LoRA": header}),
    }


def _of_header(path: Path, header: Header) -> dict[str, Any]:
    """What the header of a single file says. `ValueError` where it holds no UNet."""
    refuse_flux(path, header)
    refuse_motion(path, header)
    held = parted(header)
    if not (held.get("unet") or held.get("transformer")):
        raise ValueError(
            f"the file {str(path)!r} cannot be read as a checkpoint: it has no weights of a UNet "
            "(model.diffusion_model), and none of a LoRA; on top of a checkpoint goes a UNet alone, with --unet"
        )
    like = usual_configuration(header)
    return {"model": whole(path), "like": like, "weights": _on_disk(held), "missing": ["config"]}


def _left_out(path: Path, model: str) -> list[str]:
    """The components of a folder that are not read: those that no image needs, and a motion adapter whose weights are
    in the UNet too."""
    if not path.is_dir():
        return []
    family, parts = parts_of(path, model)
    needed = family.needed(parts)
    return [name for name in (*NOT_LOADED, *family.classes) if name in named(parts) and name not in needed]


def _on_disk(held: dict[str, Header]) -> dict[str, dict[str, Any]]:
    """By component, how many numbers its files hold, in which dtypes, and how many bytes these are."""
    found = {}
    for part, header in held.items():
        by_dtype: Counter[str] = Counter()
        for dtype, size in header.values():
            by_dtype[dtype] += math.prod(size)
        found[part] = {
            "numbers": sum(by_dtype.values()),
            "dtypes": [DTYPES.get(dtype, dtype) for dtype, _ in by_dtype.most_common()],
            "bytes": sum(BYTES.get(dtype, 1) * count for dtype, count in by_dtype.items()),
        }
    return found


def _spacings(checkpoint: StableDiffusion) -> tuple[dict[str, str], dict[str, str]]:
    """The solver that is tried on each spacing of its kind, a flow's or a table's, where it runs, and else the reason
    why it does not."""
    solver, D = checkpoint.family.walk[0], checkpoint.denoiser()
    runs, refused = {}, {}
    for spacing in (one for one in SPACINGS if (one == SHIFTED) == checkpoint.flow):
        word = COMPARABLE[OF_LCM[0]] if spacing == "lcm" else solver
        try:
            if spacing == SHIFTED:
                shifted_times(checkpoint, D, word, STEPS, checkpoint.latent_shape())
            else:
                like_scheduler(checkpoint, D, word, STEPS, spacing)
            runs[spacing] = word
        except ValueError as error:
            refused[spacing] = str(error)
    return runs, refused
