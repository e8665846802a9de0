"""AnimateDiff and AnimateLCM: a UNet of SD with layers between the frames of a clip (arXiv 2307.04725, 2402.00769).

A checkpoint is an AnimateDiffPipeline as diffusers saves it, or one of SD together with a motion adapter, which holds
those layers alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..quiet import one_line
from ..text import Encoded
from .base import ENCODERS, TOKENIZERS, VAES
from .unets import UNets

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ADAPTER = "motion_adapter"
"""The component that a checkpoint of SD needs to make clips."""
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""The components without which there is none."""
ANIMATED = ("StableDiffusionPipeline", "AnimateDiffPipeline")
"""The pipelines that a motion adapter is for."""
PLAIN = "UNet2DConditionModel"
"""A UNet without layers between frames."""
SHARED = {"motion_layers_per_block": "layers_per_block", "block_out_channels": "block_out_channels"}
"""The settings of a motion adapter that must be those of the UNet, and what they are called there."""


class AnimateDiff(UNets):
    title = "AnimateDiff (AnimateDiffPipeline, or SD with a motion adapter)"
    network_class = "UNetMotionModel"
    pipelines = (
        "AnimateDiffPipeline",
        "AnimateDiffVideoToVideoPipeline",
        "AnimateDiffControlNetPipeline",
        "AnimateDiffPAGPipeline",
    )
    classes: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "unet": ("UNetMotionModel", PLAIN),
            "vae": VAES,
            "text_encoder": ENCODERS,
            "tokenizer": TOKENIZERS,
            ADAPTER: ("MotionAdapter",),
        }
    )
    lora_parts = ("unet", "text_encoder")
    no_lora = r".*\.motion_modules\.\d+\.proj_(in|out)"
    """diffusers calls these with their argument's name, which peft's layers have not."""
    takes_guidance = False
    takes_sigmas = False
    single_files = False
    clips = True

    # ---- what it consists of

    @property
    def networks(self) -> tuple[str, ...]:
        return (*super().networks, ADAPTER)

    def needed(self, parts: dict[str, Any]) -> list[str]:
        """A UNet that was saved with its layers between frames needs no motion adapter beside it."""
        adapter = [ADAPTER] if parts["unet"][1] == PLAIN else []
        return [*NEEDED, *adapter]

    def pipeline(self, parts: dict[str, Any], made: dict[str, Any]) -> "DiffusionPipeline":
        from diffusers import AnimateDiffPipeline

        adapter = made.get(ADAPTER)
        unet = made["unet"] if adapter is None else with_motion(made["unet"], adapter)
        # what the adapter holds is in the UNet now, and need not be in memory twice
        return AnimateDiffPipeline(**made | {"unet": unet, ADAPTER: None})

    def fitted(self, network: Any, ours: Any) -> Any:
        """A plain UNet, of another style, say, gets the layers between frames of the one whose place it takes."""
        return with_motion(network, motion_of(ours)) if type(network).__name__ == PLAIN else network

    # ---- latents

    def most_frames(self, network: Any) -> int:
        return int(network.config.motion_max_seq_length)

    # ---- the network

    def predict(
        self, network: Any, x: Tensor, timestep: Tensor, text: Encoded, scale: int, guidance: Tensor | None
    ) -> Tensor:
        """All frames of a clip have its timestep and its prompt."""
        frames = x.shape[2]
        if frames > self.most_frames(network):
            raise ValueError(f"a clip of this checkpoint has {self.most_frames(network)} frames at most, got {frames}")
        return super().predict(
            network, x, timestep, Encoded(text.hidden.repeat_interleave(frames, 0), None), scale, guidance
        )

    def temporal(self, network: Any) -> tuple[str, ...]:
        return tuple(name for name, _ in network.named_parameters() if ".motion_modules." in name)


def with_motion(unet: Any, adapter: Any) -> Any:
    """A UNetMotionModel of a UNet's weights and a motion adapter's; what a UNet has between frames already is left out.
    `ValueError` where they do not fit each other."""
    from diffusers import UNetMotionModel

    blocks = len(unet.config.down_block_types)
    for theirs, ours in SHARED.items():
        has, wants = (_each(config[name], blocks) for config, name in ((adapter.config, theirs), (unet.config, ours)))
        if has != wants:
            raise ValueError(f"the motion adapter's {theirs} is {has}, and the unet's {ours} {wants}")
    try:
        if unet.device.type == "meta":
            with torch.device("meta"):
                return UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
        return UNetMotionModel.from_unet2d(unet, adapter)
    except Exception as error:  # of several kinds: the two differ in some setting
        raise ValueError(f"the motion adapter's layers are not the unet's: {one_line(error)[:200]}") from None


def _each(value: Any, blocks: int) -> list:
    """A setting block by block; one number stands for all blocks."""
    return list(value) if isinstance(value, list | tuple) else [value] * blocks


def motion_of(network: Any) -> Any:
    """The motion adapter that holds the layers between frames of a UNetMotionModel, in its dtype."""
    from diffusers import MotionAdapter

    config = network.config
    weights = {name: value for name, value in network.state_dict().items() if ".motion_modules." in name}
    norm = network.down_blocks[0].motion_modules[0].norm
    made = MotionAdapter(
        block_out_channels=config.block_out_channels,
        motion_layers_per_block=config.layers_per_block,
        motion_transformer_layers_per_block=config.temporal_transformer_layers_per_block,
        motion_mid_block_layers_per_block=config.mid_block_layers,
        motion_transformer_layers_per_mid_block=config.temporal_transformer_layers_per_mid_block,
        motion_num_attention_heads=config.motion_num_attention_heads,
        motion_norm_num_groups=norm.num_groups,
        motion_max_seq_length=config.motion_max_seq_length,
        use_motion_mid_block=config.use_motion_mid_block,
    )
    made.load_state_dict({name: value.detach().cpu() for name, value in weights.items()})
    return made.to(network.dtype)
