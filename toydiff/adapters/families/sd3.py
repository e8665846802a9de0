"""SD3 and SD3.5: a transformer that reads an image's patches and a prompt's tokens in one attention (arXiv 2403.03206),
a flow on the linear schedule, and three text encoders, of which T5 may be absent."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..quiet import quietly
from ..text import Encoded
from .base import GUIDANCE_WIDTH, TOKENIZERS, VAES, guidance_embedding, guidance_layer, named
from .flows import T5_CLASSES, T5_TOKENIZERS, Flow, check_shift

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T5 = "text_encoder_3"
T5_READS = 256
"""Tokens of a prompt that T5 reads: the pipeline's own `max_sequence_length`. The two CLIP encoders read 77."""


class TimeTextScale(nn.Module):
    """The embedding of a timestep and a prompt, with the guidance scale as a third input.

    It takes the place of diffusers' CombinedTimestepTextProjEmbeddings and has its layers, by their names. The scale's
    embedding stands behind the prompt's vector, in one tensor (B, width + `GUIDANCE_WIDTH`), and is added to the
    timestep's, as in a UNet of LCM.
    """

    def __init__(self, plain: Any):
        super().__init__()
        self.time_proj, self.timestep_embedder = plain.time_proj, plain.timestep_embedder
        self.text_embedder = plain.text_embedder

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        text, scale = pooled.split([pooled.shape[1] - GUIDANCE_WIDTH, GUIDANCE_WIDTH], 1)
        return self.timestep_embedder(self.time_proj(timestep).to(text), scale) + self.text_embedder(text)


class SD3(Flow):
    title = "SD3 and SD3.5 (StableDiffusion3Pipeline)"
    part = "transformer"
    network_class = "SD3Transformer2DModel"
    pipelines = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3ControlNetPipeline",
        "StableDiffusion3PAGPipeline",
        "StableDiffusion3PAGImg2ImgPipeline",
    )
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "transformer": ("SD3Transformer2DModel",),
            "vae": VAES,
            "text_encoder": ("CLIPTextModelWithProjection",),
            "text_encoder_2": ("CLIPTextModelWithProjection",),
            "text_encoder_3": T5_CLASSES,
            "tokenizer": TOKENIZERS,
            "tokenizer_2": TOKENIZERS,
            "tokenizer_3": T5_TOKENIZERS,
        }
    )
    lora_layers = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_out"),
    )
    """The attentions and feed-forward layers of both streams, and the last layer."""
    lora_parts = ("transformer", "text_encoder", "text_encoder_2")
    fitting = ("in_channels", "patch_size", "joint_attention_dim", "pooled_projection_dim")
    takes_guidance = False
    single_files = True

    # ---- what it consists of

    def needed(self, parts: dict[str, Any]) -> list[str]:
        """T5 is needed where model_index.json names it or its tokenizer."""
        third = ("text_encoder_3", "tokenizer_3")
        with_t5 = any(name in named(parts) for name in third)
        return [name for name in (*self.classes, "scheduler") if with_t5 or name not in third]

    def pipeline(self, parts: dict[str, Any], made: dict[str, Any]) -> "DiffusionPipeline":
        from diffusers import StableDiffusion3Pipeline

        return StableDiffusion3Pipeline(**{name: made.get(name) for name in (*self.classes, "scheduler")})

    def check_fit(self, pipe: "DiffusionPipeline", model: str) -> None:
        config, clips = pipe.transformer.config, [pipe.text_encoder.config, pipe.text_encoder_2.config]
        pooled, width = sum(clip.projection_dim for clip in clips), sum(clip.hidden_size for clip in clips)
        if pooled != config.pooled_projection_dim:
            raise ValueError(
                f"the transformer of {model!r} reads {config.pooled_projection_dim} numbers of a whole prompt, and its "
                f"text encoders give {pooled}"
            )
        t5 = config.joint_attention_dim if pipe.text_encoder_3 is None else pipe.text_encoder_3.config.d_model
        if t5 != config.joint_attention_dim or width > t5:
            raise ValueError(
                f"the transformer of {model!r} reads {config.joint_attention_dim} numbers a token, and its text "
                f"encoders give {width} and {t5}"
            )
        size = config.sample_size
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"the transformer of {model!r} has the sample_size {size!r}, which is no size of latents")
        check_shift(pipe, model)

    # ---- prompts

    def encode(self, pipe: "DiffusionPipeline", texts: Sequence[str] | None) -> Encoded:
        """77 tokens of both CLIP encoders, then 256 of T5, zeros where it is absent. No prompt is the empty one."""
        words = [""] if texts is None else list(texts)
        with quietly():
            found, _, pooled, _ = pipe.encode_prompt(
                words, None, None, device=pipe.vae.device, do_classifier_free_guidance=False
            )
        return Encoded(found, pooled)

    def readers(self, pipe: "DiffusionPipeline") -> list[tuple[str, str, int]]:
        return [(name, of, T5_READS if of == T5 else most) for name, of, most in super().readers(pipe)]

    def loses(self, pipe: "DiffusionPipeline") -> list[str]:
        """With T5 a prompt may be longer than CLIP reads: T5 is there to read it all."""
        readers = self.readers(pipe)
        return [name for name, of, _ in readers if of == T5] or [name for name, _, _ in readers]

    # ---- latents

    def places(self, pipe: "DiffusionPipeline") -> tuple[int, int]:
        return pipe.transformer.config.sample_size, pipe.transformer.config.sample_size

    def multiple(self, network: Any) -> int:
        return network.config.patch_size

    def most_places(self, network: Any) -> int:
        return network.config.pos_embed_max_size * network.config.patch_size

    # ---- the network

    def dtype(self, network: Any) -> torch.dtype:
        return network.pos_embed.proj.weight.dtype

    def predict(
        self, network: Any, x: Tensor, timestep: Tensor, text: Encoded, scale: int, guidance: Tensor | None
    ) -> Tensor:
        pooled = text.pooled
        assert pooled is not None  # `encode` gives it
        if guidance is not None:
            pooled = torch.cat([pooled, guidance_embedding(guidance, GUIDANCE_WIDTH).to(pooled)], 1)
        return network(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=text.hidden,
            pooled_projections=pooled,
            return_dict=False,
        )[0]

    def sees_guidance(self, network: Any) -> bool:
        return isinstance(network.time_text_embed, TimeTextScale)

    def add_guidance(self, network: Any) -> tuple[str, ...]:
        if not self.sees_guidance(network):
            network.time_text_embed = TimeTextScale(network.time_text_embed)
        embedder = network.time_text_embed.timestep_embedder
        embedder.cond_proj = guidance_layer(getattr(embedder, "cond_proj", None), embedder.linear_1.weight)
        return ("time_text_embed.timestep_embedder.cond_proj.weight",)

    def usual_guidance(self, network: Any) -> float:
        return 7.0
