"""The layouts of published checkpoints, as tiny checkpoints with random weights.

The JSON files have the keys of the published ones, those that are missing there included: a scheduler of SD 1.x and
2.x says nothing of its spacing. The files of weights have the published names, too. Only sizes are other: few and
narrow channels, one token a printable character. The values are facts of the repositories; `save` writes a folder.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from toydiff.adapters import tiny

TABLE = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
OLD = {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False}
"""What the schedulers of 2022 have beside the table: no spacing, and those of SD 1.x no kind of prediction."""
EULER = OLD | {"interpolation_type": "linear", "sample_max_value": 1.0, "prediction_type": "epsilon"}

SCHEDULERS: dict[str, dict[str, Any]] = {
    # CompVis/stable-diffusion-v1-4
    "sd14": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0"} | TABLE | OLD,
    # stable-diffusion-v1-5/stable-diffusion-v1-5
    "sd15": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0"} | TABLE | OLD,
    # stabilityai/stable-diffusion-2, 768 pixels, v
    "sd20": {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "prediction_type": "v_prediction"}
    | TABLE
    | OLD,
    # stabilityai/stable-diffusion-2-1, 768 pixels, v
    "sd21": {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "prediction_type": "v_prediction"}
    | TABLE
    | OLD,
    # stabilityai/stable-diffusion-2-1-base, 512 pixels
    "sd21-base": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.10.0.dev0", "prediction_type": "epsilon"}
    | TABLE
    | OLD,
    # stabilityai/sd-turbo, a distilled 2.1
    "sd-turbo": {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.24.0.dev0",
        "timestep_spacing": "trailing",
        "sigma_max": None,
        "sigma_min": None,
        "timestep_type": "discrete",
        "use_karras_sigmas": False,
    }
    | TABLE
    | EULER,
    # of the kind of ByteDance/sd2.1-base-zsnr-laionaes5: zero terminal SNR, v
    "zsnr": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.17.0.dev0",
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "sample_max_value": 1.0,
        "thresholding": False,
        "timestep_spacing": "trailing",
    }
    | TABLE
    | OLD,
    # SimianLuo/LCM_Dreamshaper_v7, a student of SD 1.5 that has the guidance scale as an input
    "lcm": {
        "_class_name": "LCMScheduler",
        "_diffusers_version": "0.22.0.dev0",
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "original_inference_steps": 50,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "sample_max_value": 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "thresholding": False,
        "timestep_spacing": "leading",
    }
    | TABLE,
    # stabilityai/stable-diffusion-xl-base-1.0
    "sdxl": {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.19.0.dev0",
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    }
    | TABLE
    | EULER,
    # stabilityai/sdxl-turbo
    "sdxl-turbo": {
        "_class_name": "EulerAncestralDiscreteScheduler",
        "_diffusers_version": "0.24.0.dev0",
        "timestep_spacing": "trailing",
    }
    | TABLE
    | EULER,
}
NAMES = tuple(SCHEDULERS)

UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [8, 16, 16, 16],  # 320, 640, 1280, 1280
    "center_input_sample": False,
    "cross_attention_dim": 16,  # 768
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,  # 32
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
"""SD 1.x."""
UNET_2 = UNET | {
    "attention_head_dim": [1, 2, 2, 2],  # 5, 10, 20, 20
    "cross_attention_dim": 32,  # 1024
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": True,
}
"""SD 2.x."""
LATER = {
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "upcast_attention": None,
}
"""What diffusers has written from 2023 on."""
UNET_XL = (
    UNET
    | LATER
    | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,  # 256
        "attention_head_dim": [1, 2, 2],  # 5, 10, 20
        "block_out_channels": [8, 16, 16],  # 320, 640, 1280
        "cross_attention_dim": 48,  # 2048
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "projection_class_embeddings_input_dim": 80,  # 2816
        "sample_size": 128,
        "transformer_layers_per_block": [1, 1, 2],  # 1, 2, 10
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "use_linear_projection": True,
    }
)
UNETS: dict[str, dict[str, Any]] = {
    "sd14": UNET | {"_diffusers_version": "0.2.2"},
    "sd15": UNET | {"_diffusers_version": "0.6.0"},
    "sd20": UNET_2 | {"_diffusers_version": "0.8.0", "sample_size": 96},
    "sd21": UNET_2 | {"_diffusers_version": "0.10.0.dev0", "sample_size": 96, "upcast_attention": True},
    "sd21-base": UNET_2 | {"_diffusers_version": "0.10.0.dev0"},
    "sd-turbo": UNET_2 | LATER | {"_diffusers_version": "0.24.0.dev0"},
    "zsnr": UNET_2 | {"_diffusers_version": "0.17.0.dev0"},
    "lcm": UNET | LATER | {"_diffusers_version": "0.22.0.dev0", "time_cond_proj_dim": 256},
    "sdxl": UNET_XL | {"_diffusers_version": "0.19.0.dev0"},
    "sdxl-turbo": UNET_XL | {"_diffusers_version": "0.24.0.dev0", "sample_size": 64},
}

VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [32, 32, 32, 32],  # 128, 256, 512, 512
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,  # 2
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
"""SD 1.4. It has neither norm_num_groups nor scaling_factor."""
VAES: dict[str, dict[str, Any]] = {
    "sd14": VAE | {"_diffusers_version": "0.2.2"},
    "sd15": VAE | {"_diffusers_version": "0.6.0", "norm_num_groups": 32},
    "sd20": VAE | {"_diffusers_version": "0.8.0", "norm_num_groups": 32, "sample_size": 768},
    "sd21": VAE | {"_diffusers_version": "0.10.0.dev0", "norm_num_groups": 32, "sample_size": 768},
    "sd21-base": VAE | {"_diffusers_version": "0.10.0.dev0", "norm_num_groups": 32, "sample_size": 768},
    "sd-turbo": VAE
    | {
        "_diffusers_version": "0.24.0.dev0",
        "norm_num_groups": 32,
        "sample_size": 768,
        "force_upcast": True,
        "scaling_factor": 0.18215,
    },
    "zsnr": VAE
    | {"_diffusers_version": "0.17.0.dev0", "norm_num_groups": 32, "sample_size": 768, "scaling_factor": 0.18215},
    "lcm": VAE
    | {
        "_diffusers_version": "0.22.0.dev0",
        "norm_num_groups": 32,
        "sample_size": 768,
        "force_upcast": True,
        "scaling_factor": 0.18215,
    },
    "sdxl": VAE
    | {
        "_diffusers_version": "0.20.0.dev0",
        "norm_num_groups": 32,
        "sample_size": 1024,
        "force_upcast": True,
        "scaling_factor": 0.13025,
    },
    "sdxl-turbo": VAE
    | {
        "_diffusers_version": "0.24.0.dev0",
        "norm_num_groups": 32,
        "sample_size": 1024,
        "force_upcast": True,
        "scaling_factor": 0.13025,
    },
}

TEXT = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,  # neither this nor the next is the tokenizer's
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 16,  # 768
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 32,  # 3072
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,  # 12
    "num_hidden_layers": 2,  # 12
    "pad_token_id": 1,
    "torch_dtype": "float32",
}
"""CLIP's large text encoder, without its tokens' number."""
TEXT_2 = TEXT | {"hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 64, "projection_dim": 512}
"""That of SD 2.x, OpenCLIP's."""
TEXT_XL = TEXT_2 | {"architectures": ["CLIPTextModelWithProjection"], "projection_dim": 32}
"""SDXL's second one."""

SECOND = ("sd20", "sd21", "sd21-base", "sd-turbo", "zsnr")
"""Those made of SD 2.x."""
XL = ("sdxl", "sdxl-turbo")


def index(name: str) -> dict[str, Any]:
    """What model_index.json says. The safety checker that it names is in no folder here, as after `hf download`."""
    kind = "StableDiffusionXLPipeline" if name in XL else "StableDiffusionPipeline"
    parts: dict[str, Any] = {
        "_class_name": "LatentConsistencyModelPipeline" if name == "lcm" else kind,
        "_diffusers_version": SCHEDULERS[name]["_diffusers_version"],
        "scheduler": ["diffusers", SCHEDULERS[name]["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if name in XL:
        parts |= {
            "force_zeros_for_empty_prompt": True,
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
        if name == "sdxl-turbo":
            parts |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    elif name == "sd-turbo":
        parts |= {
            "_name_or_path": "stabilityai/stable-diffusion-2-1",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
        }
    elif name in SECOND:
        parts |= {
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
        }
    else:
        parts |= {
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        }
        if name == "lcm":
            parts |= {"_name_or_path": "SimianLuo/LCM_Dreamshaper_v7", "requires_safety_checker": True}
    return parts


def _write(file: Path, what: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(what, indent=2))


def _tokenizer(folder: Path, pad: str, pad_in_config: str) -> int:
    """The files of a tokenizer as they were written in 2022; how many tokens it has."""
    folder.mkdir(parents=True)
    tiny.tokenizer(folder)

    def token(content: str, **more: str) -> dict[str, Any]:
        return more | {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    _write(folder / "special_tokens_map.json", {name: token(word) for name, word in ends.items()} | {"pad_token": pad})
    settings = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14",
        "pad_token": pad_in_config,
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
    }
    marked = {name: token(word, __type="AddedToken") for name, word in ends.items()}
    _write(folder / "tokenizer_config.json", settings | marked)
    return len(json.loads((folder / "vocab.json").read_text()))


def _text(folder: Path, settings: dict[str, Any], vocabulary: int, positions: bool) -> None:
    _write(folder / "config.json", settings | {"vocab_size": vocabulary})
    kind = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}[
        settings["architectures"][0]
    ]
    given = {k: v for k, v in settings.items() if k not in ("architectures", "torch_dtype", "model_type")}
    weights = kind(CLIPTextConfig(**given, vocab_size=vocabulary)).state_dict()
    named = {
        k if k.startswith(("text_model.", "text_projection")) else f"text_model.{k}": v for k, v in weights.items()
    }
    if positions:
        named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file({k: v.contiguous() for k, v in named.items()}, folder / "model.safetensors", metadata={"format": "pt"})


_OLD_NAMES = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
"""The VAE's one attention layer has these in the files of 2022."""


def save(folder: Path | str, name: str, seed: int = 0, **unet: Any) -> Path:
    """Write the checkpoint of this name, one of `NAMES`, with weights drawn from the seed; return its folder. unet:
    what is other of its UNet."""
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write(folder / "model_index.json", index(name))
        _write(folder / "scheduler" / "scheduler_config.json", SCHEDULERS[name])
        pad = "!" if name in SECOND else "<|endoftext|>"
        words = _tokenizer(folder / "tokenizer", pad, "<|endoftext|>")
        first = TEXT_2 if name in SECOND else TEXT | {"projection_dim": 768} if name in ("lcm", *XL) else TEXT
        _text(folder / "text_encoder", first, words, positions=name in ("sd14", "sd15"))
        if name in XL:
            _tokenizer(folder / "tokenizer_2", "!", "!")
            _text(folder / "text_encoder_2", TEXT_XL, words, positions=False)
        for part, kind, settings in (("unet", UNet2DConditionModel, UNETS), ("vae", AutoencoderKL, VAES)):
            own = settings[name] | (unet if part == "unet" else {})
            _write(folder / part / "config.json", own)
            given = {k: v for k, v in own.items() if not k.startswith("_")}
            weights = kind(**given).state_dict()
            if part == "vae" and name in ("sd14", "sd15", "sd20", "sd21", "sd21-base"):
                for new, old in _OLD_NAMES.items():
                    weights = {k.replace(new, old): v for k, v in weights.items()}
            named = {k: v.contiguous() for k, v in weights.items()}
            save_file(named, folder / part / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    return folder


def pipeline(folder: Path | str) -> DiffusionPipeline:
    """What diffusers itself makes of the folder, without the parts that no folder has."""
    named = json.loads((Path(folder) / "model_index.json").read_text())
    made = DiffusionPipeline.from_pretrained(
        folder, **{k: None for k in ("safety_checker", "feature_extractor") if k in named}
    )
    made.set_progress_bar_config(disable=True)
    return made
