"""A checkpoint's UNet as a network of this library: net(x, lam, cond, guidance_scale), with lam the log-SNR lambda and
cond the labels of prompts.

So `LambdaDenoiser` takes it like the small networks of `nets`, on any schedule and for any kind of prediction. Copies
of it share the weights that are not trained, and a saved run holds only those that are.
"""

import copy
import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..nets import DIFFUSERS
from ..schedules import Coefficient, Tabulated, expand
from ..support.checks import check_count, shape, unknown
from .text import Encoded, Prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig


TRAINED = ("none", "lora", "full")
"""Which weights of a network are its own, and not the checkpoint's: "none" of them, a low-rank change ("lora"), or all
("full")."""

LORA_LAYERS = (
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
"""The layers that get a LoRA, as in LCM-LoRA (arXiv 2311.05556) and PCM."""

GUIDANCE_WIDTH = 256
"""Length of the guidance scale's embedding in a student that has the scale as an input (LCM, arXiv 2310.04378)."""


class Checkpoint(Protocol):
    """What the network uses of its checkpoint, which is a `toydiff.adapters.checkpoint.StableDiffusion`."""

    about: dict[str, Any]
    pipe: "DiffusionPipeline"
    unet: "UNet2DConditionModel"
    table: Tabulated
    prompts: Prompts
    scale: int
    flow: bool
    weight_names: frozenset[str]

    @property
    def source(self) -> str: ...

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> "Checkpoint": ...


class CheckpointUNet(nn.Module):
    """The UNet of a Stable Diffusion checkpoint as a network of this library.

    It takes x (B, C, H, W), latents over S = sqrt(alpha^2 + sigma^2), lam, (B,) or a number, and cond (B,), labels of
    prompts, or None. The UNet gets the timestep k = K t - 1, where t is the time at which the checkpoint's own table,
    of K timesteps, has this lambda. k is a fraction in general; `rounded` makes it whole.

    trained: one of `TRAINED`; rank: of a LoRA. guided: the guidance scale is an input of the UNet. flow: the network is
    on the linear schedule, as flow models of diffusers are, and the UNet gets x itself and the timestep 1000 t, 999 at
    most. shared: the names of the UNet's weights that are the checkpoint's own. `negative` is the prompt that stands
    for no label; None is what the checkpoint uses for no prompt.
    """

    name = DIFFUSERS
    batches_guidance = True
    """The conditional and the unconditional prediction of guidance are made in one call."""
    takes_numbers = True
    """lam may be one number for all samples."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        unet: "UNet2DConditionModel",
        *,
        trained: str = "none",
        rank: int = 0,
        guided: bool = False,
        flow: bool = False,
        shared: frozenset[str] = frozenset(),
    ):
        super().__init__()
        if trained not in TRAINED:
            raise unknown("choice of the weights to train", trained, TRAINED)
        self.checkpoint, self.unet = checkpoint, unet
        self.trained, self.rank, self.guided, self.flow = trained, rank, guided, flow
        self.rounded, self.table = False, checkpoint.table
        self.negative: str | None = None
        self._shared = shared
        self.register_load_state_dict_post_hook(_shared_is_there)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointUNet":
        """The checkpoint's own network, frozen. It shares the checkpoint's weights."""
        unet = checkpoint.unet
        guided = unet.config.time_cond_proj_dim is not None
        return cls(checkpoint, unet, guided=guided, flow=checkpoint.flow, shared=checkpoint.weight_names)

    @property
    def config(self) -> dict:
        """The arguments with which `adapters.checkpoint.unet_from` makes it again."""
        return {
            "checkpoint": self.checkpoint.about,
            "trained": self.trained,
            "rank": self.rank,
            "guided": self.guided,
            "flow": self.flow,
            "rounded": self.rounded,
        }

    # ---- what is called

    def forward(
        self, x: Tensor, lam: Coefficient, cond: Tensor | None = None, guidance_scale: Tensor | None = None
    ) -> Tensor:
        return self.unet(**self._inputs(x, lam, cond, guidance_scale), return_dict=False)[0].to(x.dtype)

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives for a latent."""
        widths = self.unet.config.block_out_channels
        return sum(widths) + (0 if self.unet.mid_block is None else widths[-1])

    def _levels(self) -> list[nn.Module]:
        """The blocks on the way down, and the middle one, which small UNets lack."""
        return [*self.unet.down_blocks, *(() if self.unet.mid_block is None else (self.unet.mid_block,))]

    def features(self, x: Tensor, lam: Coefficient, cond: Tensor | None = None) -> Tensor:
        """The outputs of every block on the way down and of the middle one, averaged over the image: (B,
        feature_width)."""
        found: list[Tensor] = []

        def note(module: nn.Module, args: tuple, out: Tensor | tuple) -> None:
            found.append((out[0] if isinstance(out, tuple) else out).float().mean((2, 3)))
            if module is self._levels()[-1]:
                raise _Enough

        hooks = [block.register_forward_hook(note) for block in self._levels()]
        try:
            self.unet(**self._inputs(x, lam, cond, None), return_dict=False)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(found, 1).to(x.dtype)

    def _inputs(
        self, x: Tensor, lam: Coefficient, cond: Tensor | None, guidance_scale: Tensor | None
    ) -> dict[str, Any]:
        """The arguments of the UNet."""
        unet = self.unet
        channels = unet.config.in_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"this UNet takes latents (B, {channels}, H, W), got {shape(x)}")
        timestep, x = self._timestep(x, lam), self._state(x, lam)
        like = x.to(unet.conv_in.weight.dtype)
        text: Encoded = self.checkpoint.prompts.rows(cond, like, self.negative)
        inputs: dict[str, Any] = {"sample": like, "timestep": timestep, "encoder_hidden_states": text.hidden}
        if text.pooled is not None:
            height, width = (side * self.checkpoint.scale for side in x.shape[2:])
            # original size, corner of the crop, target size
            size = like.new_tensor([height, width, 0, 0, height, width])
            inputs["added_cond_kwargs"] = {"text_embeds": text.pooled, "time_ids": size.expand(len(x), -1)}
        if guidance_scale is not None and not self.guided:
            raise ValueError("this UNet does not see a guidance scale; make it with guided=True")
        if self.guided:
            g = x.new_ones(len(x)) if guidance_scale is None else guidance_scale
            inputs["timestep_cond"] = guidance_embedding(g, self.unet.config.time_cond_proj_dim).to(like)
        return inputs

    def _timestep(self, x: Tensor, lam: Coefficient) -> Tensor:
        """k, (B,). Of a number it is computed in Python: small tensors are slow."""
        K = len(self.table)
        if isinstance(lam, float):
            k = min(1000 * _flow_time(lam), 999) if self.flow else max(K * self.table.time_of(lam) - 1, 0)
            dtype = torch.promote_types(x.dtype, torch.float32)
            return x.new_full(x.shape[:1], round(k) if self.rounded else k, dtype=dtype)
        if self.flow:
            timestep = (1000 * torch.sigmoid(-lam)).clamp(max=999)
        else:
            timestep = (K * self.table.t_of_lam(lam) - 1).clamp(min=0)
        return timestep.round() if self.rounded else timestep

    def _state(self, x: Tensor, lam: Coefficient) -> Tensor:
        if not self.flow:
            return x
        t = _flow_time(lam) if isinstance(lam, float) else torch.sigmoid(-lam)
        return x * expand(((1 - t) ** 2 + t**2) ** 0.5, x)  # x came over S

    # ---- copies, and what of them is trained

    def __deepcopy__(self, memo: dict) -> "CheckpointUNet":
        """A copy that shares the checkpoint and the weights that are not its own."""
        memo[id(self.checkpoint)] = self.checkpoint
        memo |= {id(p): p for name, p in self.unet.named_parameters() if name in self._shared}
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return new

    def state_dict(self, *args: Any, **settings: Any) -> Any:
        """The network's own weights, called as `torch.nn.Module.state_dict` is. The shared ones are in the
        checkpoint."""
        found = super().state_dict(*args, **settings)
        for name in self._shared:
            found.pop(f"{settings.get('prefix', '')}unet.{name}", None)
        return found

    def to_train(
        self, trained: str, rank: int = 0, *, guided: bool = False, flow: bool = False, checkpointing: bool = False
    ) -> "CheckpointUNet":
        """A trainable copy of this network that starts with its weights.

        trained: the weights that it trains, one of `TRAINED`; rank: of a LoRA. A LoRA that is there already keeps its
        rank, and a network whose weights are all its own stays so. guided: the guidance scale is an input, which does
        nothing before it is trained. flow: see the class. checkpointing: activations are computed twice instead of kept
        in memory. `ValueError` where all weights are to be trained of a network that has a LoRA.
        """
        new = copy.deepcopy(self)
        if trained == "full" or new.trained == "full":
            if new.trained == "lora":
                raise ValueError(
                    "these weights are a low-rank change (LoRA) of a checkpoint's; "
                    "go on with a LoRA, or export them first"
                )
            new._own(new._shared)
            new.unet.float()  # an optimizer's small steps vanish in half precision
            new.trained = "full"
        elif trained == "lora" and new.trained == "none":
            new.trained, new.rank = "lora", check_count(rank, "rank")
            before = {name: id(p) for name, p in new.unet.named_parameters()}
            new.unet.add_adapter(_lora_config(rank))
            kept = set(before.values())
            new._shared = frozenset(name for name, p in new.unet.named_parameters() if id(p) in kept)
            for name, p in new.unet.named_parameters():
                if name not in new._shared:  # an optimizer's small steps vanish in half precision
                    p.data = p.data.float()
        if guided or new.guided:
            new._see_guidance()
        new.flow = flow
        for name, p in new.unet.named_parameters():
            p.requires_grad_(name not in new._shared)
        if checkpointing and trained != "none":
            new.unet.enable_gradient_checkpointing()
        return new

    def low_rank(self, rank: int) -> "CheckpointUNet":
        """A copy that trains a LoRA of this rank only. A network that has a LoRA is returned as it is."""
        return self if self.trained == "lora" else self.to_train("lora", rank, guided=self.guided, flow=self.flow)

    def _own(self, names: frozenset[str]) -> None:
        """Copy these weights, so that training them changes no other network."""
        for name in names:
            path, _, leaf = name.rpartition(".")
            module = self.unet.get_submodule(path)
            setattr(module, leaf, nn.Parameter(getattr(module, leaf).detach().clone()))
        self._shared -= names

    def _see_guidance(self) -> None:
        """Add the guidance scale as an input that does nothing yet; or, where it is there already, make it
        trainable."""
        embedding = self.unet.time_embedding
        there, weight = embedding.cond_proj, embedding.linear_1.weight
        width = GUIDANCE_WIDTH if there is None else there.in_features
        embedding.cond_proj = _Exact(width, weight.shape[1], bias=False, device=weight.device)
        with torch.no_grad():
            embedding.cond_proj.weight.copy_(
                torch.zeros_like(embedding.cond_proj.weight) if there is None else there.weight
            )
        self._shared -= {"time_embedding.cond_proj.weight"}
        self.unet.register_to_config(time_cond_proj_dim=width)
        self.guided = True


def _flow_time(lam: float) -> float:
    """The time of a lambda on the linear schedule."""
    return 1 / (1 + math.exp(min(lam, 700.0)))


class _Exact(nn.Linear):
    """A layer that is trained in float32, whatever comes in and goes out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class _Enough(Exception):
    """Thrown through a UNet once its features are known: the way up is not needed."""


def network_of(D: Denoiser) -> CheckpointUNet:
    """The network of a checkpoint's denoiser, or of a student of one; `ValueError` for any other denoiser."""
    if not isinstance(D, LambdaDenoiser) or not isinstance(D.net, CheckpointUNet):
        raise ValueError(f"a denoiser of a Stable Diffusion checkpoint is needed, got {type(D).__name__}")
    return D.net


def _shared_is_there(net: CheckpointUNet, keys: Any) -> None:
    """A saved state lacks the weights that are the checkpoint's: they do not count as missing."""
    ends = tuple(f"unet.{name}" for name in net._shared)
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(ends)]


def _lora_config(rank: int) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(LORA_LAYERS))


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
