"""What a family of checkpoints is: the pipelines of diffusers that have the same parts, and whose networks are called
in the same way."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..text import Encoded

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
VAES = ("AutoencoderKL", "AutoencoderTiny")

GUIDANCE_WIDTH = 256
"""Length of the guidance scale's embedding in a student that has the scale as an input (LCM, arXiv 2310.04378)."""


def named(parts: dict[str, Any]) -> list[str]:
    """The components that a checkpoint has, by what its model_index.json says."""
    return [name for name, value in parts.items() if isinstance(value, list) and value and value[0] is not None]


class Family:
    """What the adapter asks of a checkpoint's family. A subclass sets the attributes and writes what raises
    `NotImplementedError`. It holds nothing of a checkpoint: there is one object of it, in `FAMILIES`.

    The network is that of diffusers, and `pipe` the pipeline that it is a part of. A latent is (B, C, h, w), or
    (B, C, F, h, w) where samples are clips of F frames.
    """

    title: str
    """What its checkpoints are, for people."""
    part: str
    """The name of the network among the components."""
    network_class: str
    """The class of the network."""
    pipelines: tuple[str, ...]
    """The classes of the pipelines, as a model_index.json names them. The first is one that a student is exported
    to."""
    classes: Mapping[str, tuple[str, ...]]
    """The classes that a component may have; that of the network is the first. A scheduler may be any of
    diffusers'."""
    lora_layers: tuple[str, ...]
    """The layers that get a LoRA."""
    no_lora: str | None = None
    """Those of them that get none: a regular expression of whole names."""
    lora_parts: tuple[str, ...]
    """The components that diffusers adds a LoRA to."""
    fitting: tuple[str, ...]
    """The settings of a network that are the same in another one that takes its place, or its latents and prompts."""
    last_timestep: float
    """The largest timestep that the network of a flow gets: 1000 t, but no more than this."""
    takes_guidance: bool
    """Whether diffusers has this network with the guidance scale as an input, and a pipeline that gives it one."""
    single_files: bool
    """Whether its checkpoints are read from single .safetensors files."""

    takes_sigmas: bool = True
    """Whether the pipeline is told the sigmas of a flow."""
    clips: bool = False
    """Whether a sample is a clip of F frames, and not an image."""

    walk: tuple[str, str]
    """The solver and the time grid of the checkpoints themselves, by name."""

    # ---- what it consists of

    @property
    def encoders(self) -> tuple[str, ...]:
        """The names of the text encoders."""
        return tuple(name for name in self.classes if name.startswith("text_encoder"))

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of all components that have weights."""
        return (self.part, "vae", *self.encoders)

    @property
    def texts(self) -> tuple[str, ...]:
        """The names of the components that encode prompts."""
        return tuple(name for name in self.classes if name.startswith(("text_encoder", "tokenizer")))

    def needed(self, parts: dict[str, Any]) -> list[str]:
        """The components that a checkpoint must have, by what its model_index.json says."""
        raise NotImplementedError

    def other_task(self, parts: dict[str, Any]) -> str | None:
        """What a checkpoint is for, by its model_index.json, where that is no picture of a prompt."""
        return None

    def pipeline(self, parts: dict[str, Any], made: dict[str, Any]) -> "DiffusionPipeline":
        """The plain pipeline of these components, whichever pipeline the checkpoint was saved by."""
        raise NotImplementedError

    def check_fit(self, pipe: "DiffusionPipeline", model: str) -> None:
        """`ValueError` where the network wants what the other components do not give."""
        raise NotImplementedError

    def fitted(self, network: Any, ours: Any) -> Any:
        """What a network becomes that takes the place of `ours`."""
        return network

    # ---- prompts

    def encode(self, pipe: "DiffusionPipeline", texts: Sequence[str] | None) -> Encoded:
        """Prompts as the pipeline's own encoders have them; None stands for no prompt."""
        raise NotImplementedError

    def readers(self, pipe: "DiffusionPipeline") -> list[tuple[str, str, int]]:
        """(tokenizer, encoder, most tokens) for the text encoders that there are."""
        return [
            (name, name.replace("tokenizer", "text_encoder"), getattr(pipe, name).model_max_length)
            for name in self.texts
            if name.startswith("tokenizer") and getattr(pipe, name, None) is not None
        ]

    def loses(self, pipe: "DiffusionPipeline") -> list[str]:
        """The tokenizers of those encoders that must read all of a prompt: where one does not, it is too long."""
        return [name for name, _, _ in self.readers(pipe)]

    def parts(self, pipe: "DiffusionPipeline", text: str) -> int:
        """How many parts a prompt has that is read by parts. `ValueError` where none is."""
        raise ValueError(
            f"prompts are read by parts by SD 1.x, SD 2.x and SDXL only; of {self.network_class} T5 reads long prompts "
            "as they are"
        )

    def encode_parts(self, pipe: "DiffusionPipeline", text: str | None, n: int) -> Encoded:
        """A prompt as n parts, one after the other; None stands for no prompt."""
        raise NotImplementedError

    def takes_sizes(self, network: Any) -> bool:
        """Whether the network sees sizes beside a prompt (`adapters.sizes`)."""
        return False

    # ---- latents

    def channels(self, network: Any) -> int:
        """C of the latents that a network takes."""
        return int(network.config.in_channels)

    def takes_mask(self, network: Any) -> bool:
        """Whether a mask and the latent of what it leaves are inputs of the network, behind the latent: a model made
        for inpainting."""
        return False

    def places(self, pipe: "DiffusionPipeline") -> tuple[int, int]:
        """(h, w) of the latents that a checkpoint was trained at."""
        raise NotImplementedError

    def multiple(self, network: Any) -> int:
        """What the sides of a latent are multiples of."""
        return 1

    def most_places(self, network: Any) -> float:
        """The longest side of a latent."""
        return math.inf

    def most_frames(self, network: Any) -> int:
        """The longest clip, in frames."""
        raise NotImplementedError

    def moments(self, vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """(shift, factor), each broadcast against latents: a latent z of the network is factor z + shift for the
        VAE."""
        raise NotImplementedError

    # ---- the network

    def dtype(self, network: Any) -> torch.dtype:
        """The dtype of the network's frozen weights."""
        raise NotImplementedError

    def predict(
        self, network: Any, x: Tensor, timestep: Tensor, text: Encoded, scale: int, guidance: Tensor | None
    ) -> Tensor:
        """The network's output, of x's shape, for latents x of its dtype, timesteps (B,), encoded prompts of B rows,
        and guidance scales (B,) where they are an input. scale: pixels that one place of a latent is wide."""
        raise NotImplementedError

    def sees_guidance(self, network: Any) -> bool:
        """Whether the guidance scale is an input of the network."""
        raise NotImplementedError

    def add_guidance(self, network: Any) -> tuple[str, ...]:
        """Make the guidance scale an input that does nothing yet, or, where it is one already, what the family trains
        of it a copy. Returns the names of the weights that are trained, in float32."""
        raise NotImplementedError

    def temporal(self, network: Any) -> tuple[str, ...]:
        """The names of the weights of the layers between the frames of a clip; none where samples are images."""
        return ()

    def usual_guidance(self, network: Any) -> float:
        """The guidance scale that the checkpoint's own pipeline takes where none is given."""
        raise NotImplementedError

    def levels(self, network: Any) -> list[nn.Module]:
        """The blocks whose outputs are the features of a discriminator, in the order in which they are run."""
        raise NotImplementedError

    def feature_width(self, network: Any) -> int:
        """How many numbers `feature` gives for all blocks together."""
        raise NotImplementedError

    def feature(self, out: Tensor | tuple) -> Tensor:
        """A block's output averaged over the image, (B, width); of clips (B F, width), of each frame."""
        raise NotImplementedError

    # ---- schedulers

    def skipped(self, steps: int, strength: float) -> int:
        """How many of the steps the family's img2img pipeline leaves out."""
        return steps - int(steps * strength)

    def steps(self, pipe: "DiffusionPipeline", steps: int, latent: tuple[int, ...]) -> dict[str, Any]:
        """The arguments with which the pipeline calls `set_timesteps` of a flow's scheduler, for a latent (C, h, w)."""
        return {"num_inference_steps": steps}

    def flow_scheduler(self, *, noised: bool) -> "SchedulerMixin":
        """The scheduler that walks over the grid `uniform` of a flow as its pipeline calls it. noised: each step noises
        x_0 again, as the solver lcm does, and else it is Euler's. `ValueError` where there is none."""
        raise NotImplementedError


class Exact(nn.Linear):
    """A layer that is trained in float32, whatever comes in and goes out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def guidance_layer(there: nn.Linear | None, weight: Tensor) -> Exact:
    """The layer for the embedding of a guidance scale: zero, or with the weights of the one that is there. weight
    (n, ...): of a layer whose input or output, of n numbers, it adds to, on whose device it is."""
    width = GUIDANCE_WIDTH if there is None else there.in_features
    made = Exact(width, weight.shape[1], bias=False, device=weight.device)
    with torch.no_grad():
        made.weight.copy_(torch.zeros_like(made.weight) if there is None else there.weight)
    return made


def guidance_embedding(guidance_scale: Tensor, width: int) -> Tensor:
    """The embedding (B, width) of guidance scales g (B,), as LCM's students take it (arXiv 2310.04378).

    It holds the sines and the cosines of 1000 (g - 1) f at width/2 frequencies f from 1 to 1e-4.
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000.0) / (half - 1) * torch.arange(half, dtype=torch.float32, device=guidance_scale.device)
    )
    angle = 1000.0 * (guidance_scale.float() - 1)[:, None] * frequencies
    return nn.functional.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, width % 2))
