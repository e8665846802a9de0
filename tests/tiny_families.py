"""Checkpoints of other families than the UNets', tiny and in the layouts of the published ones.

The JSON files have the keys of the published ones; sizes alone are other, and the real ones stand beside them. The
weights are random. `save` writes a folder, and `pipeline` is what diffusers makes of it.
"""

import json
import string
from pathlib import Path
from typing import Any

import real_layouts
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    FluxTransformer2DModel,
    MotionAdapter,
    SD3Transformer2DModel,
)
from real_layouts import TEXT
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from toydiff.adapters import tiny

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
DYNAMIC = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": False,
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    # stabilityai/stable-diffusion-3-medium-diffusers
    "sd3": FLOW | {"_diffusers_version": "0.29.0.dev0"},
    # stabilityai/stable-diffusion-3.5-medium
    "sd35": FLOW | DYNAMIC | {"_diffusers_version": "0.31.0.dev0"},
    # black-forest-labs/FLUX.1-dev
    "flux-dev": FLOW | DYNAMIC | {"_diffusers_version": "0.30.0.dev0", "use_dynamic_shifting": True},
    # black-forest-labs/FLUX.1-schnell
    "flux-schnell": FLOW | DYNAMIC | {"_diffusers_version": "0.30.0.dev0", "shift": 1.0},
}
SCHEDULERS["sd3-without-t5"] = SCHEDULERS["sd3"]
KINDS = tuple(SCHEDULERS)

MMDIT = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 8,  # 64
    "caption_projection_dim": 16,  # 1536
    "in_channels": 16,
    "joint_attention_dim": 40,  # 4096
    "num_attention_heads": 2,  # 24
    "num_layers": 2,  # 24
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 28,  # 2048
    "pos_embed_max_size": 12,  # 192
    "sample_size": 8,  # 128
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd3": MMDIT | {"_diffusers_version": "0.29.0.dev0"},
    "sd35": MMDIT
    | {
        "_diffusers_version": "0.31.0.dev0",
        "dual_attention_layers": [0],  # 0 to 12
        "pos_embed_max_size": 24,  # 384
        "qk_norm": "rms_norm",
    },
}
TRANSFORMERS["sd3-without-t5"] = TRANSFORMERS["sd3"]

FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "_diffusers_version": "0.30.0.dev0",
    "attention_head_dim": 8,  # 128
    "axes_dims_rope": [2, 2, 4],  # 16, 56, 56, which the published ones do not say
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 40,  # 4096
    "num_attention_heads": 2,  # 24
    "num_layers": 2,  # 19
    "num_single_layers": 2,  # 38
    "patch_size": 1,
    "pooled_projection_dim": 16,  # 768
}
TRANSFORMERS |= {"flux-dev": FLUX, "flux-schnell": FLUX | {"guidance_embeds": False}}

VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.29.0.dev0",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 8, 8],  # 128, 256, 512, 512
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 1,  # 2
    "norm_num_groups": 4,  # 32
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
VAES = dict.fromkeys(TRANSFORMERS, VAE) | {
    kind: VAE | {"scaling_factor": 0.3611, "shift_factor": 0.1159} for kind in ("flux-dev", "flux-schnell")
}
CLIP = {
    "text_encoder": {"hidden_size": 16, "projection_dim": 12},
    "text_encoder_2": {"hidden_size": 16, "projection_dim": 16},
}
"""768 and 768; 1280 and 1280."""


def _t5(folder: Path, number: int, width: int) -> None:
    """A T5 encoder of two layers, and a tokenizer whose pieces are the printable characters."""
    letters = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in letters)]
    words = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    words.save_pretrained(folder / f"tokenizer_{number}")
    config = T5Config(
        vocab_size=len(words),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        tie_word_embeddings=False,
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder_{number}")


def _clip(folder: Path, name: str, kind: type = CLIPTextModelWithProjection) -> None:
    words = tiny.tokenizer(folder / name.replace("text_encoder", "tokenizer"))
    words.save_pretrained(folder / name.replace("text_encoder", "tokenizer"))
    given = {k: v for k, v in TEXT.items() if k not in ("architectures", "torch_dtype", "model_type")} | CLIP[name]
    end = len(words) - 1
    given |= {"vocab_size": len(words), "eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}
    kind(CLIPTextConfig(**given)).save_pretrained(folder / name)


def _made(kind: type, settings: dict[str, Any], folder: Path) -> None:
    """A network of these settings, whose JSON holds them and nothing else."""
    made = kind(**{k: v for k, v in settings.items() if not k.startswith("_")})
    made.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(settings, indent=2))


def save(folder: Path | str, kind: str, seed: int = 0) -> str:
    """Write the checkpoint of this kind, one of `KINDS`, with weights drawn from the seed; return its folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flux, third = kind.startswith("flux"), kind in ("sd3", "sd35")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel if flux else SD3Transformer2DModel
        _made(transformer, TRANSFORMERS[kind], folder / "transformer")
        _made(AutoencoderKL, VAES[kind], folder / "vae")
        if flux:
            _clip(folder, "text_encoder", CLIPTextModel)
            _t5(folder, 2, FLUX["joint_attention_dim"])
        else:
            for name in CLIP:
                _clip(folder, name)
        if third:
            _t5(folder, 3, MMDIT["joint_attention_dim"])
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[kind]))
    parts: dict[str, Any] = {
        "_class_name": "FluxPipeline" if flux else "StableDiffusion3Pipeline",
        "_diffusers_version": SCHEDULERS[kind]["_diffusers_version"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", transformer.__name__],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if flux:
        parts |= {
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer_2": ["transformers", "T5TokenizerFast"],
        }
    else:
        parts |= {
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"] if third else [None, None],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"] if third else [None, None],
        }
    if kind == "sd35":
        parts |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(parts, indent=2))
    return str(folder)


def taesd(checkpoint: Any, folder: Path) -> Path:
    """Write a TAESD of random weights for a checkpoint's latents."""
    levels = checkpoint.scale.bit_length()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        made = AutoencoderTiny(
            encoder_block_out_channels=(8,) * levels,
            decoder_block_out_channels=(8,) * levels,
            num_encoder_blocks=(1,) * levels,
            num_decoder_blocks=(1,) * levels,
            latent_channels=checkpoint.channels,
        )
    made.save_pretrained(folder)
    return folder


WIDTHS = [32, 32, 32, 32]  # 320, 640, 1280, 1280
MOTION = {
    # guoyww/animatediff-motion-adapter-v1-5-2
    "v1-5-2": {
        "_class_name": "MotionAdapter",
        "_diffusers_version": "0.22.0.dev0",
        "block_out_channels": WIDTHS,
        "motion_layers_per_block": 1,  # 2
        "motion_max_seq_length": 32,
        "motion_mid_block_layers_per_block": 1,
        "motion_norm_num_groups": 32,
        "motion_num_attention_heads": 8,
        "use_motion_mid_block": True,
    },
}
# guoyww/animatediff-motion-adapter-v1-5
MOTION["v1-5"] = MOTION["v1-5-2"] | {"motion_max_seq_length": 24, "use_motion_mid_block": False}
DDIM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False, "steps_offset": 1}
"""AnimateDiff's own scheduler, as diffusers' guide has it."""


def save_clips(folder: Path) -> dict[str, Path]:
    """Folders by name: "sd15", with a UNet that motion adapters fit; the motion adapters of `MOTION`; and "saved", what
    diffusers saves of the two and AnimateDiff's scheduler."""
    found = {
        "sd15": real_layouts.save(
            folder / "sd15", "sd15", block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=32
        )
    }
    for k, (name, settings) in enumerate(MOTION.items()):
        found[name] = folder / name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(k)
            _made(MotionAdapter, settings, found[name])
    pipe = pipeline_of_clips(found["sd15"], found["v1-5-2"])
    pipe.scheduler = DDIMScheduler(**DDIM)
    found["saved"] = folder / "saved"
    pipe.save_pretrained(found["saved"])
    return found


def pipeline_of_clips(folder: Path, adapter: Path | None = None) -> AnimateDiffPipeline:
    """What diffusers itself makes of the folder, and of a motion adapter where one is given."""
    parts: dict[str, Any] = {"feature_extractor": None}
    if adapter is not None:
        parts["motion_adapter"] = MotionAdapter.from_pretrained(adapter)
    made = AnimateDiffPipeline.from_pretrained(folder, **parts)
    made.set_progress_bar_config(disable=True)
    return made


def pipeline(folder: Path | str) -> DiffusionPipeline:
    """What diffusers itself makes of the folder."""
    parts = json.loads((Path(folder) / "model_index.json").read_text())
    absent = {name: None for name, part in parts.items() if part == [None, None]}
    made = DiffusionPipeline.from_pretrained(folder, **absent)
    made.set_progress_bar_config(disable=True)
    return made
