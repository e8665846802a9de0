"""Tiny checkpoints for tests: the library's own, and what a single file holds."""

import functools
import re

from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from toydiff.adapters import tiny
from toydiff.adapters.tiny import KINDS, TABLE, encoder, pipeline, save, tokenizer, unet  # noqa: F401

SCHEDULERS = {kind: DDIMScheduler(**TABLE, **settings) for kind, settings in tiny.SCHEDULERS.items()}
PROMPTS = ["a cat", "a small dog", "two red houses by the sea"]


def single_file(folder, path):
    """What a folder of an SD 1.x checkpoint holds, in one file with the names of the original code (CompVis, LDM)."""
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    tensors = original_unet(pipe.unet)
    for name, value in pipe.vae.state_dict().items():
        new = _vae_name(name, len(pipe.vae.config.block_out_channels))
        kernel = ".attn_1." in new and new.endswith("weight") and value.ndim == 2
        tensors["first_stage_model." + new] = value[:, :, None, None] if kernel else value
    for name, value in pipe.text_encoder.state_dict().items():
        name = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors["cond_stage_model.transformer." + name] = value
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return str(path)


def original_unet(network):
    """The weights of a UNet of SD 1.x or SDXL with the names of the original code."""
    levels, layers = len(network.config.block_out_channels), network.config.layers_per_block
    return {
        "model.diffusion_model." + _unet_name(name, levels, layers): value
        for name, value in network.state_dict().items()
    }


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet_name(name, levels, layers):
    for old, new in {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]

    def resnet(rest):
        part, _, leaf = rest.partition(".")
        return f"{_RESNET[part]}.{leaf}"

    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, i, rest = found.groups()
        return f"middle_block.{2 * int(i)}.{resnet(rest)}" if kind == "resnets" else f"middle_block.1.{rest}"
    side, level, kind, i, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    level, i = int(level), int(i)
    if side == "down":
        block = 1 + level * (layers + 1) + i
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{block}.0.{resnet(rest)}" if kind == "resnets" else f"input_blocks.{block}.1.{rest}"
    block = level * (layers + 1) + i
    if kind == "upsamplers":
        last = level * (layers + 1) + layers
        return f"output_blocks.{last}.{1 if level == 0 else 2}.{rest}"
    return f"output_blocks.{block}.0.{resnet(rest)}" if kind == "resnets" else f"output_blocks.{block}.1.{rest}"


def _vae_name(name, levels):
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for old, new in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            name = name.replace(f"attn_1.{old}.", f"attn_1.{new}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)


@functools.cache
def silent():
    """diffusers' own complaints belong to no test."""
    import logging

    import diffusers

    diffusers.logging.set_verbosity(logging.CRITICAL)
