"""A single file of SD3, with the names of the original code, of a tiny checkpoint.

Such a file has no projection of the first CLIP encoder, which is the identity, and the two CLIP encoders are told apart
by their widths; so `save` makes a checkpoint with other sizes than `tiny_families`.
"""

from pathlib import Path

import pytest
import tiny_families
import tiny_sd
import torch
from safetensors.torch import load_file, save_file

CLIP = {
    "text_encoder": {"hidden_size": 16, "projection_dim": 16},
    "text_encoder_2": {"hidden_size": 24, "projection_dim": 24},
}
ENCODERS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
OUTSIDE = {
    "pos_embed": "",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
IN_BLOCKS = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
TOGETHER = {"x_block.attn": "attn.to_{}", "context_block.attn": "attn.add_{}_proj", "x_block.attn2": "attn2.to_{}"}
"""Queries, keys and values, which are one matrix in the file."""


def save(folder, kind="sd3"):
    """Write the checkpoint into a folder, and return its name."""
    transformers = {
        name: settings | {"pooled_projection_dim": 40}
        for name, settings in tiny_families.TRANSFORMERS.items()
        if name.startswith("sd3")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_families, "CLIP", CLIP)
        patch.setattr(tiny_families, "TRANSFORMERS", transformers)
        tiny_families.save(folder, kind)
    weights = Path(folder) / "text_encoder" / "model.safetensors"
    identity = {"text_projection.weight": torch.eye(16)}
    save_file(load_file(weights) | identity, weights, metadata={"format": "pt"})
    return str(folder)


def single_file(folder, path):
    """What the folder holds, in one file; its path."""
    pipe = tiny_families.pipeline(folder)
    state = pipe.transformer.state_dict()
    tensors = {f"model.diffusion_model.{name}": value for name, value in _transformer(state).items()}
    for name, value in pipe.vae.state_dict().items():
        new = tiny_sd._vae_name(name, len(pipe.vae.config.block_out_channels))
        kernel = ".attn_1." in new and new.endswith("weight") and value.ndim == 2
        tensors["first_stage_model." + new] = value[:, :, None, None] if kernel else value
    for part, called in ENCODERS.items():
        encoder = getattr(pipe, part)
        for name, value in {} if encoder is None else encoder.state_dict().items():
            plain = called == "t5xxl" or name.startswith(("text_model.", "text_projection."))
            tensors[f"text_encoders.{called}.transformer.{'' if plain else 'text_model.'}{name}"] = value
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return str(path)


def _transformer(state):
    """The transformer's weights by their names in the file."""
    found = {"pos_embed": state["pos_embed.pos_embed"]}
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks"))
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        if OUTSIDE.get(layer):
            found[f"{OUTSIDE[layer]}.{leaf}"] = _swapped(value) if layer == "norm_out.linear" else value
        elif name.startswith("transformer_blocks"):
            _, i, layer = layer.split(".", 2)
            if layer in IN_BLOCKS:
                last = layer == "norm1_context.linear" and int(i) == blocks - 1
                found[f"joint_blocks.{i}.{IN_BLOCKS[layer]}.{leaf}"] = _swapped(value) if last else value
    for i in range(blocks):
        for theirs, ours in TOGETHER.items():
            for leaf in ("weight", "bias"):
                names = [f"transformer_blocks.{i}.{ours.format(side)}.{leaf}" for side in "qkv"]
                if names[0] in state:
                    found[f"joint_blocks.{i}.{theirs}.qkv.{leaf}"] = torch.cat([state[name] for name in names])
    return found


def _swapped(value):
    """Scale and shift stand in the other order there."""
    return torch.cat(value.chunk(2)[::-1])
