"""SD 1.x, SD 2.x and SDXL: a UNet that reads prompts by cross-attention."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..quiet import quietly
from ..text import Encoded
from . import parts
from .base import ENCODERS, TOKENIZERS, VAES, Family, guidance_embedding, guidance_layer, named

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

XL = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLPAGPipeline",
)
"""The pipelines of SDXL, which has two text encoders."""


class UNets(Family):
    title = "SD 1.x, SD 2.x and SDXL (StableDiffusionPipeline, StableDiffusionXLPipeline)"
    part = "unet"
    network_class = "UNet2DConditionModel"
    pipelines: tuple[str, ...] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionPAGPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
        *XL,
    )
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "unet": ("UNet2DConditionModel",),
            "vae": VAES,
            "text_encoder": ENCODERS,
            "text_encoder_2": ENCODERS,
            "tokenizer": TOKENIZERS,
            "tokenizer_2": TOKENIZERS,
        }
    )
    lora_layers = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "proj_in",
        "proj_out",
        "ff.net.0.proj",
        "ff.net.2",
        "conv1",
        "conv2",
        "conv_shortcut",
        "downsamplers.0.conv",
        "upsamplers.0.conv",
        "time_emb_proj",
    )
    """As in LCM-LoRA (arXiv 2311.05556) and PCM."""
    lora_parts: tuple[str, ...] = ("unet", "text_encoder", "text_encoder_2")
    fitting = ("in_channels", "cross_attention_dim", "addition_embed_type")
    last_timestep = 999
    takes_guidance = True
    single_files = True
    walk = ("dpm++2m", "uniform")

    # ---- what it consists of

    def needed(self, parts: dict[str, Any]) -> list[str]:
        second = ("text_encoder_2", "tokenizer_2")
        return [
            *("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
            *(name for name in second if name in named(parts) or parts["_class_name"] in XL),
        ]

    def other_task(self, parts: dict[str, Any]) -> str | None:
        return "takes an aesthetic score, a refiner of images" if parts.get("requires_aesthetics_score") else None

    def pipeline(self, parts: dict[str, Any], made: dict[str, Any]) -> "DiffusionPipeline":
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        if parts["_class_name"] in XL:
            zeros = bool(parts.get("force_zeros_for_empty_prompt", True))
            return StableDiffusionXLPipeline(**made, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
        return StableDiffusionPipeline(
            **made, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    def check_fit(self, pipe: "DiffusionPipeline", model: str) -> None:
        config = pipe.unet.config
        encoders = [e for e in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if e is not None]
        for key, what in (
            ("num_class_embeds", "class labels"),
            ("class_embed_type", "class labels or image embeddings"),
        ):
            if config.get(key) is not None:
                raise ValueError(f"the unet of {model!r} takes {what} ({key} = {config[key]!r})")
        if config.get("encoder_hid_dim_type") is not None or config.get("addition_embed_type") != (
            "text_time" if len(encoders) == 2 else None
        ):
            raise ValueError(
                f"the unet of {model!r} has another condition than the prompt (addition_embed_type = "
                f"{config.get('addition_embed_type')!r}, encoder_hid_dim_type = "
                f"{config.get('encoder_hid_dim_type')!r})"
            )
        width = sum(encoder.config.hidden_size for encoder in encoders)
        wants = config.cross_attention_dim
        if any(one != width for one in (wants if isinstance(wants, list | tuple) else [wants])):
            raise ValueError(f"the unet of {model!r} reads {wants} numbers a token, and its text encoders give {width}")
        size = config.sample_size
        for side in size if isinstance(size, list | tuple) and len(size) == 2 else [size]:
            if side is not None and (not isinstance(side, int) or side < 1):
                raise ValueError(f"the unet of {model!r} has the sample_size {size!r}, which is no size of latents")

    # ---- prompts

    def encode(self, pipe: "DiffusionPipeline", texts: Sequence[str] | None) -> Encoded:
        """No prompt is the empty one, or zeros where the configuration of an SDXL checkpoint says so."""
        words, device = [""] if texts is None else list(texts), pipe.unet.device
        with quietly():
            if getattr(pipe, "text_encoder_2", None) is None:
                found, _ = pipe.encode_prompt(words, device, 1, False)
                return Encoded(found, None)
            found, _, pooled, _ = pipe.encode_prompt(words, device=device, do_classifier_free_guidance=False)
        if texts is None and pipe.config.force_zeros_for_empty_prompt:
            return Encoded(torch.zeros_like(found), torch.zeros_like(pooled))
        return Encoded(found, pooled)

    def parts(self, pipe: "DiffusionPipeline", text: str) -> int:
        return parts.count([getattr(pipe, name) for name, _, _ in self.readers(pipe)], text)

    def encode_parts(self, pipe: "DiffusionPipeline", text: str | None, n: int) -> Encoded:
        readers = self.readers(pipe)
        tokenizers, encoders = (
            [getattr(pipe, name) for name, _, _ in readers],
            [getattr(pipe, of) for _, of, _ in readers],
        )
        found = parts.encoded(tokenizers, encoders, text or "", n)
        if text is None and found.pooled is not None and pipe.config.force_zeros_for_empty_prompt:
            return Encoded(torch.zeros_like(found.hidden), torch.zeros_like(found.pooled))
        return found

    def takes_sizes(self, network: Any) -> bool:
        return network.config.addition_embed_type == "text_time"

    # ---- latents

    def channels(self, network: Any) -> int:
        """A model made for inpainting has 2 C + 1."""
        wide = int(network.config.in_channels)
        return wide // 2 if self.takes_mask(network) else wide

    def takes_mask(self, network: Any) -> bool:
        return int(network.config.in_channels) == 2 * int(network.config.out_channels) + 1

    def places(self, pipe: "DiffusionPipeline") -> tuple[int, int]:
        xl = getattr(pipe, "text_encoder_2", None) is not None
        size = pipe.unet.config.sample_size or (128 if xl else 64)
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def moments(self, vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is None or std is None:
            mean, std = [0.0], [1.0]
        shift, factor = (like.new_tensor(one, dtype=torch.float32).view(1, -1, 1, 1) for one in (mean, std))
        return shift, factor / vae.config.scaling_factor

    # ---- the network

    def dtype(self, network: Any) -> torch.dtype:
        return network.conv_in.weight.dtype

    def predict(
        self, network: Any, x: Tensor, timestep: Tensor, text: Encoded, scale: int, guidance: Tensor | None
    ) -> Tensor:
        inputs: dict[str, Any] = {"sample": x, "timestep": timestep, "encoder_hidden_states": text.hidden}
        if text.pooled is not None:
            height, width = (side * scale for side in x.shape[-2:])
            # original size, corner of the crop, target size
            sizes = x.new_tensor([height, width, 0, 0, height, width]).expand(len(x), -1)
            if text.sizes is not None:
                sizes = torch.where(text.sizes < 0, sizes, text.sizes)
            inputs["added_cond_kwargs"] = {"text_embeds": text.pooled, "time_ids": sizes}
        if guidance is not None:
            inputs["timestep_cond"] = guidance_embedding(guidance, network.config.time_cond_proj_dim).to(x)
        return network(**inputs, return_dict=False)[0]

    def sees_guidance(self, network: Any) -> bool:
        return network.config.time_cond_proj_dim is not None

    def add_guidance(self, network: Any) -> tuple[str, ...]:
        embedding = network.time_embedding
        embedding.cond_proj = guidance_layer(embedding.cond_proj, embedding.linear_1.weight)
        network.register_to_config(time_cond_proj_dim=embedding.cond_proj.in_features)
        return ("time_embedding.cond_proj.weight",)

    def usual_guidance(self, network: Any) -> float:
        return 7.5

    def levels(self, network: Any) -> list[nn.Module]:
        """The blocks on the way down, and the middle one, which small UNets lack."""
        return [*network.down_blocks, *(() if network.mid_block is None else (network.mid_block,))]

    def feature_width(self, network: Any) -> int:
        widths = network.config.block_out_channels
        return sum(widths) + (0 if network.mid_block is None else widths[-1])

    def feature(self, out: Tensor | tuple) -> Tensor:
        return (out[0] if isinstance(out, tuple) else out).float().mean((2, 3))

    # ---- schedulers

    def flow_scheduler(self, *, noised: bool) -> "SchedulerMixin":
        """FlowMatchEulerDiscreteScheduler lacks what these pipelines ask of a scheduler; UniPC of order 1 without its
        corrector is Euler's step."""
        from diffusers import UniPCMultistepScheduler

        if noised:
            raise ValueError(
                "no scheduler of diffusers that these pipelines take noises a flow again, as the solver lcm does; "
                "train on the checkpoint's own schedule"
            )
        return UniPCMultistepScheduler(
            solver_order=1,
            disable_corrector=list(range(1000)),
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            final_sigmas_type="zero",
        )
