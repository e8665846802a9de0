"""FLUX.1: a transformer of two streams and then one, on latents packed in patches of 2 x 2. The guidance scale is an
input of FLUX.1-dev, which is distilled from guidance, and none of FLUX.1-schnell."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..quiet import quietly
from ..text import Encoded
from .base import TOKENIZERS, VAES, Exact
from .flows import T5_CLASSES, T5_TOKENIZERS, Flow, check_shift, shift_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T5_READS = 512
"""Tokens of a prompt that T5 reads: the pipeline's own `max_sequence_length`. CLIP gives one vector of 77."""
PATCH = 2
"""The side of a patch. The transformer's channels are those of a patch."""
SIDE = 128
"""The side of a latent that the pipeline makes where no size is given. The configuration says none."""


class Flux(Flow):
    title = "FLUX.1 (FluxPipeline)"
    part = "transformer"
    network_class = "FluxTransformer2DModel"
    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxControlNetPipeline", "FluxControlNetImg2ImgPipeline")
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "transformer": ("FluxTransformer2DModel",),
            "vae": VAES,
            "text_encoder": ("CLIPTextModel",),
            "text_encoder_2": T5_CLASSES,
            "tokenizer": TOKENIZERS,
            "tokenizer_2": T5_TOKENIZERS,
        }
    )
    lora_layers = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    )
    """The attentions and feed-forward layers of all streams, and the last layer."""
    lora_parts = ("transformer", "text_encoder")
    fitting = ("in_channels", "joint_attention_dim", "pooled_projection_dim")
    takes_guidance = True
    single_files = False

    # ---- what it consists of

    def needed(self, parts: dict[str, Any]) -> list[str]:
        return [*self.classes, "scheduler"]

    def pipeline(self, parts: dict[str, Any], made: dict[str, Any]) -> "DiffusionPipeline":
        from diffusers import FluxPipeline

        return FluxPipeline(**made)

    def check_fit(self, pipe: "DiffusionPipeline", model: str) -> None:
        config = pipe.transformer.config
        for what, wants, gives in (
            ("a whole prompt", config.pooled_projection_dim, pipe.text_encoder.config.hidden_size),
            ("a token", config.joint_attention_dim, pipe.text_encoder_2.config.d_model),
        ):
            if wants != gives:
                raise ValueError(
                    f"the transformer of {model!r} reads {wants} numbers of {what}, and its text encoder gives {gives}"
                )
        check_shift(pipe, model)

    # ---- prompts

    def encode(self, pipe: "DiffusionPipeline", texts: Sequence[str] | None) -> Encoded:
        """512 tokens of T5, and CLIP's vector. No prompt is the empty one."""
        with quietly():
            found, pooled, _ = pipe.encode_prompt([""] if texts is None else list(texts), device=pipe.vae.device)
        return Encoded(found, pooled)

    def readers(self, pipe: "DiffusionPipeline") -> list[tuple[str, str, int]]:
        return [(name, of, T5_READS if name == "tokenizer_2" else most) for name, of, most in super().readers(pipe)]

    def loses(self, pipe: "DiffusionPipeline") -> list[str]:
        """A prompt may be longer than CLIP reads: T5 is there to read it all."""
        return ["tokenizer_2"]

    # ---- latents

    def channels(self, network: Any) -> int:
        return network.config.in_channels // PATCH**2

    def places(self, pipe: "DiffusionPipeline") -> tuple[int, int]:
        return SIDE, SIDE

    def multiple(self, network: Any) -> int:
        return PATCH

    # ---- the network

    def dtype(self, network: Any) -> torch.dtype:
        return network.x_embedder.weight.dtype

    def predict(
        self, network: Any, x: Tensor, timestep: Tensor, text: Encoded, scale: int, guidance: Tensor | None
    ) -> Tensor:
        height, width = x.shape[2] // PATCH, x.shape[3] // PATCH
        ids = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in (1, height, width))).to(x)
        out = network(
            hidden_states=packed(x),
            timestep=timestep / 1000,
            guidance=guidance,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.hidden,
            txt_ids=x.new_zeros(text.hidden.shape[1], 3),
            img_ids=ids,
            return_dict=False,
        )[0]
        return unpacked(out, height, width)

    def sees_guidance(self, network: Any) -> bool:
        return network.config.guidance_embeds

    def add_guidance(self, network: Any) -> tuple[str, ...]:
        """The input of FLUX.1-dev stays as it is. That of another student is two layers, the second of zeros."""
        if self.sees_guidance(network):
            return ()
        from diffusers.models.embeddings import CombinedTimestepGuidanceTextProjEmbeddings

        plain = network.time_text_embed
        text = plain.text_embedder.linear_1
        made = CombinedTimestepGuidanceTextProjEmbeddings(text.out_features, text.in_features)
        made.timestep_embedder, made.text_embedder = plain.timestep_embedder, plain.text_embedder
        for name in ("linear_1", "linear_2"):
            fresh = getattr(made.guidance_embedder, name)
            layer = Exact(fresh.in_features, fresh.out_features, device=text.weight.device)
            layer.load_state_dict(fresh.state_dict())
            setattr(made.guidance_embedder, name, layer)
        for weight in made.guidance_embedder.linear_2.parameters():
            weight.data.zero_()
        network.time_text_embed = made
        network.register_to_config(guidance_embeds=True)
        return tuple(f"time_text_embed.guidance_embedder.{n}" for n, _ in made.guidance_embedder.named_parameters())

    def usual_guidance(self, network: Any) -> float:
        """FLUX.1-schnell is used without."""
        return 3.5 if self.sees_guidance(network) else 1.0

    # ---- schedulers

    def steps(self, pipe: "DiffusionPipeline", steps: int, latent: tuple[int, ...]) -> dict[str, Any]:
        """Unlike SD3's, the pipeline gives the scheduler its sigmas, from 1 to 1/steps."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)} | shift_of(pipe, latent)


def packed(x: Tensor) -> Tensor:
    """Latents (B, C, 2 h, 2 w) as patches (B, h w, 4 C), row by row; a patch is in order of channel, row, column."""
    patches = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(patches: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `packed`, for h = height and w = width."""
    x = patches.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height, width))
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
