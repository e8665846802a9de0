"""What the flows of diffusers with a transformer have in common (arXiv 2403.03206): two streams of tokens, latents that
are shifted for the VAE, and a scheduler whose grid is shifted towards noise."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import Family

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

T5_CLASSES = ("T5EncoderModel",)
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")


class Flow(Family):
    """A family on the linear schedule: its network predicts the velocity dx/dt = eps - x_0 at the timestep 1000 t."""

    last_timestep = 1000
    walk = ("ddim", "shifted")

    # ---- latents

    def moments(self, vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        config = vae.config
        shift = like.new_tensor(config.get("shift_factor") or 0.0, dtype=torch.float32)
        return shift, 1 / like.new_tensor(config.scaling_factor, dtype=torch.float32)

    # ---- the network

    def levels(self, network: Any) -> list[nn.Module]:
        """Three blocks, at a quarter, a half and three quarters of the depth."""
        blocks = network.transformer_blocks
        return [blocks[i] for i in sorted({len(blocks) * k // 4 for k in (1, 2, 3)})]

    def feature_width(self, network: Any) -> int:
        return len(self.levels(network)) * network.inner_dim

    def feature(self, out: Tensor | tuple) -> Tensor:
        """The mean over the image's tokens, which a block gives after those of the prompt."""
        return out[1].float().mean(1)

    # ---- schedulers

    def skipped(self, steps: int, strength: float) -> int:
        """Rounded down; with a UNet it is the number of steps taken that is."""
        return int(max(steps - steps * strength, 0))

    def steps(self, pipe: "DiffusionPipeline", steps: int, latent: tuple[int, ...]) -> dict[str, Any]:
        return {"num_inference_steps": steps} | shift_of(pipe, latent)

    def flow_scheduler(self, *, noised: bool) -> "SchedulerMixin":
        from diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler(shift=1.0, stochastic_sampling=noised)


def shift_of(pipe: "DiffusionPipeline", latent: tuple[int, ...]) -> dict[str, float]:
    """The argument mu of `set_timesteps`, where a flow's scheduler is shifted by the size of the image: it rises
    linearly from base_shift to max_shift with the number of patches (arXiv 2403.03206, sec. 5.3.2)."""
    config, patch = pipe.scheduler.config, getattr(pipe, "patch_size", 2)
    if not config.get("use_dynamic_shifting"):
        return {}
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    tokens = (latent[1] // patch) * (latent[2] // patch)
    return {"mu": base + (most - base) / (high - low) * (tokens - low)}


def check_shift(pipe: "DiffusionPipeline", model: str) -> None:
    """`ValueError` where the VAE shifts latents by what is no number."""
    shift = pipe.vae.config.get("shift_factor")
    if shift is not None and not (isinstance(shift, int | float) and math.isfinite(shift)):
        raise ValueError(f"the vae of {model!r} has the shift_factor {shift!r}, which is no number")
