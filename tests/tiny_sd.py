"""Stable Diffusion checkpoints of some 100,000 random weights, in the real layout: what `from_pretrained` reads, and what a single file holds."""

import functools
import json
import re
import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TABLE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "sd": DDIMScheduler(**TABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"),
    "sd-v": DDIMScheduler(
        **TABLE,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "xl": DDIMScheduler(**TABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"),
}
KINDS = tuple(SCHEDULERS)
WIDTHS, TEXT = (16, 32), 16
PROMPTS = ["a cat", "a small dog", "two red houses by the sea"]


def tokenizer(folder):
    """Every printable character a token, in the files that CLIP's tokenizer has."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>"
    )


def encoder(kind, vocabulary, width):
    end = vocabulary - 1
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77,
        projection_dim=width, eos_token_id=end, bos_token_id=end - 1, pad_token_id=end,
    )  # fmt: skip
    return kind(config)


def unet(xl=False, **changes):
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": WIDTHS, "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT, "attention_head_dim": 2,
    }  # fmt: skip
    if xl:
        settings |= {
            "cross_attention_dim": 2 * TEXT, "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True,
            "projection_class_embeddings_input_dim": TEXT + 6 * 8, "transformer_layers_per_block": (1, 1),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }  # fmt: skip
    return UNet2DConditionModel(**settings | changes)


def vae():
    return AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.18215,
    )  # fmt: skip


def pipeline(folder, kind="sd", seed=0, **unet_changes):
    """A pipeline of random weights; its tokenizers' files are under the folder."""
    words = tokenizer(Path(folder) / "words")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "unet": unet(kind == "xl", **unet_changes),
            "vae": vae(),
            "scheduler": SCHEDULERS[kind],
            "tokenizer": words,
        }
        parts["text_encoder"] = encoder(CLIPTextModel, len(words), TEXT)
        if kind == "xl":
            parts |= {"text_encoder_2": encoder(CLIPTextModelWithProjection, len(words), TEXT), "tokenizer_2": words}
            made = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=True, add_watermarker=False)
        else:
            made = StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    made.set_progress_bar_config(disable=True)
    return made


def save(folder, kind="sd", seed=0, **unet_changes):
    """Such a checkpoint in a folder; returns the folder's name as text."""
    pipeline(folder, kind, seed, **unet_changes).save_pretrained(folder)
    return str(folder)


def single_file(folder, path):
    """What a folder of an SD 1.x checkpoint holds, in one file with the names of the original code (CompVis, LDM)."""
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    tensors = {}
    levels = len(pipe.unet.config.block_out_channels)
    for name, value in pipe.unet.state_dict().items():
        tensors["model.diffusion_model." + _unet_name(name, levels, pipe.unet.config.layers_per_block)] = value
    for name, value in pipe.vae.state_dict().items():
        new = _vae_name(name, len(pipe.vae.config.block_out_channels))
        kernel = ".attn_1." in new and new.endswith("weight") and value.ndim == 2
        tensors["first_stage_model." + new] = value[:, :, None, None] if kernel else value
    for name, value in pipe.text_encoder.state_dict().items():
        name = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors["cond_stage_model.transformer." + name] = value
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return str(path)


_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def _unet_name(name, levels, layers):
    for old, new in {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}.items():  # fmt: skip
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
