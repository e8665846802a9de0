"""A Stable Diffusion checkpoint of some 100,000 random weights in the real layout, to try code on without gigabytes.

`python -m toydiff.adapters.tiny FOLDER [sd | sd-v | xl | animatediff]` writes one. Its images are noise. Its files,
schedule, tokenizer and text encoders are read like those of a real checkpoint.
"""

import argparse
import json
import shutil
import string
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..support.checks import unknown
from ..support.files import check_folder, writable_folder
from ..support.seeds import seeded
from .layout import NOT_LOADED
from .reading import quietly

with quietly():  # both speak of a package for image processing that nothing here uses
    from diffusers import (
        AnimateDiffPipeline,
        AutoencoderKL,
        DDIMScheduler,
        DiffusionPipeline,
        MotionAdapter,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TABLE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
_LEADING: dict[str, Any] = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_TRAILING: dict[str, Any] = {
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
SCHEDULERS = {"sd": _LEADING, "sd-v": _TRAILING, "xl": _LEADING}
"""The scheduler's settings by the kind of checkpoint: SD 1.x (eps), SD 2.x (v, zero terminal SNR), SDXL (two text
encoders)."""
KINDS = tuple(SCHEDULERS)
CLIPS = "animatediff"
"""The kind whose samples are clips."""
TITLES = """\
KIND is one of:
  sd           SD 1.x: images, predicts noise
  sd-v         SD 2.x: images, predicts v, zero terminal SNR
  xl           SDXL: images, two text encoders
  animatediff  AnimateDiff: clips"""
LINEAR: dict[str, Any] = TABLE | {
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""The scheduler's settings of AnimateDiff."""
WIDTHS, TEXT = (16, 32), 16
"""Channels of the UNet's two levels, and width of the text encoder."""


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A tokenizer whose tokens are the printable characters. Its files, in the folder, are those of CLIP's."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>"
    )


def encoder(
    kind: type[CLIPTextModel] | type[CLIPTextModelWithProjection], vocabulary: int, width: int
) -> torch.nn.Module:
    """A text encoder of two layers."""
    end = vocabulary - 1
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        eos_token_id=end,
        bos_token_id=end - 1,
        pad_token_id=end,
    )
    return kind(config)


def unet(xl: bool = False, **changes: object) -> UNet2DConditionModel:
    """A UNet of two levels. xl: as SDXL has it. changes: to its configuration."""
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT,
        "attention_head_dim": 2,
    }
    if xl:
        settings |= {
            "cross_attention_dim": 2 * TEXT,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "use_linear_projection": True,
            "projection_class_embeddings_input_dim": TEXT + 6 * 8,
            "transformer_layers_per_block": (1, 1),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }
    return UNet2DConditionModel(**settings | changes)


def vae() -> AutoencoderKL:
    """A VAE whose latents are half as wide as its images."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.18215,
    )


def pipeline(folder: Path | str, kind: str = "sd", seed: int = 0, **changes: object) -> DiffusionPipeline:
    """A pipeline of random weights, drawn from the seed. Its tokenizer's files are put into the folder.

    kind: one of `KINDS`. changes: to the UNet's configuration. `ValueError` for an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("kind of checkpoint", kind, (*KINDS, CLIPS))
    words = tokenizer(Path(folder) / "words")
    with seeded(seed), quietly():
        parts = {
            "unet": unet(kind == "xl", **changes),
            "vae": vae(),
            "scheduler": DDIMScheduler(**TABLE, **SCHEDULERS[kind]),
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


def clips(folder: Path | str, seed: int = 0) -> AnimateDiffPipeline:
    """A pipeline of clips, as `pipeline` makes those of images. Its layers between frames are normalised in 32 groups
    of channels, whatever the configuration says."""
    parts = pipeline(folder, "sd", seed, block_out_channels=(32, 32)).components
    with seeded(seed), quietly():
        parts |= {
            "motion_adapter": MotionAdapter(
                block_out_channels=(32, 32), motion_layers_per_block=1, motion_num_attention_heads=2
            ),
            "scheduler": DDIMScheduler(**LINEAR),
        }
        made = AnimateDiffPipeline(**{name: part for name, part in parts.items() if name not in NOT_LOADED})
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path | str, kind: str = "sd", seed: int = 0, **changes: object) -> str:
    """Write a checkpoint of random weights into a folder, whole or not at all, and return the folder's name. The
    arguments are those of `pipeline`; a kind that makes clips takes no changes."""
    place = check_folder(folder)
    parent = writable_folder(place.absolute().parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{place.name}.") as temporary:
        new = Path(temporary) / "new"
        made = clips(new, seed) if kind == CLIPS and not changes else pipeline(new, kind, seed, **changes)
        with quietly():
            made.save_pretrained(new)
        if place.exists():
            shutil.copytree(new, place, dirs_exist_ok=True)
        else:
            new.rename(place)
    return str(folder)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are `ValueError`."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def main(words: list[str]) -> int:
    """`python -m toydiff.adapters.tiny FOLDER [KIND]`. What is wrong is one line on stderr, and exit code 2."""
    parser = _Parser(
        prog="python -m toydiff.adapters.tiny",
        description="Write a Stable Diffusion checkpoint of random weights, to try commands on.",
        epilog=TITLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="where to write; it is made where missing")
    parser.add_argument("kind", metavar="KIND", nargs="?", default=KINDS[0], help="what it is like (default: sd)")
    try:
        given = parser.parse_args(words)
        if not given.folder:
            raise ValueError("FOLDER must name a folder, got ''")
        if given.kind not in (*KINDS, CLIPS):
            raise unknown("kind of checkpoint", given.kind, (*KINDS, CLIPS))
        print(f"wrote {save(given.folder, given.kind)}")
    except ValueError as error:
        print(f"tiny: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
