"""A checkpoint's network as one of this library: net(x, lam, cond, guidance_scale), with lam the log-SNR lambda and
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
from .families import Family
from .text import Prompts, without

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from peft import LoraConfig


TRAINED = ("none", "lora", "motion", "full")
"""Which weights of a network are its own, and not the checkpoint's: "none" of them, a low-rank change ("lora"), the
layers between the frames of a clip ("motion"), or all ("full")."""


class Checkpoint(Protocol):
    """What the network uses of its checkpoint, which is a `toydiff.adapters.checkpoint.StableDiffusion`."""

    about: dict[str, Any]
    pipe: "DiffusionPipeline"
    network: Any
    family: Family
    table: Tabulated
    prompts: Prompts
    scale: int
    flow: bool
    weight_names: frozenset[str]

    @property
    def source(self) -> str: ...

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> "Checkpoint": ...


class CheckpointNetwork(nn.Module):
    """The UNet or transformer of a checkpoint as a network of this library.

    It takes x, latents over S = sqrt(alpha^2 + sigma^2), (B, C, H, W), or (B, C, F, H, W) of clips of F frames; lam,
    (B,) or a number; and cond (B,), labels of prompts, or None. diffusers' module, `network`, gets
    the timestep k = K t - 1, where t is the time at which the
    checkpoint's own table, of K timesteps, has this lambda. k is a fraction in general; `rounded` makes it whole.

    trained: one of `TRAINED`; rank: of a LoRA. guided: the guidance scale is an input of the module. flow: the network
    is on the linear schedule, as flow models of diffusers are, and the module gets x itself and the timestep 1000 t, at
    most the family's `last_timestep`. shared: the names of the module's weights that are the checkpoint's own.
    `negative` is the prompt that stands for no label; None is what the checkpoint uses for no prompt. `kept`
    (B, 1 + C, H, W), which a model made for inpainting needs, is the mask of B images, 1 where they are made anew, and
    the latent of what is left of each; it is called with these images, or with them several times over.
    """

    name = DIFFUSERS
    batches_guidance = True
    """The conditional and the unconditional prediction of guidance are made in one call."""
    takes_numbers = True
    """lam may be one number for all samples."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Any,
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
        self.checkpoint = checkpoint
        self.add_module(checkpoint.family.part, network)  # as the pipeline calls it, and so do saved weights
        self.trained, self.rank, self.guided, self.flow = trained, rank, guided, flow
        self.rounded, self.table = False, checkpoint.table
        self.negative: str | None = None
        self.kept: Tensor | None = None
        self._shared = shared
        self.register_load_state_dict_post_hook(_shared_is_there)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointNetwork":
        """The checkpoint's own network, frozen. It shares the checkpoint's weights."""
        guided = checkpoint.family.sees_guidance(checkpoint.network)
        return cls(checkpoint, checkpoint.network, guided=guided, flow=checkpoint.flow, shared=checkpoint.weight_names)

    @property
    def is_lora(self) -> bool:
        """Whether all weights of its own are a LoRA's."""
        own = [name for name, _ in self.network.named_parameters() if name not in self._shared]
        return bool(own) and all(".lora_" in name for name in own)

    @property
    def family(self) -> Family:
        """The checkpoint's family."""
        return self.checkpoint.family

    @property
    def network(self) -> Any:
        """diffusers' module."""
        return getattr(self, self.family.part)

    @property
    def config(self) -> dict:
        """The arguments with which `adapters.checkpoint.network_from` makes it again."""
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
        return self._predict(x, lam, cond, guidance_scale).to(x.dtype)

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives for a latent."""
        return self.family.feature_width(self.network)

    def features(self, x: Tensor, lam: Coefficient, cond: Tensor | None = None) -> Tensor:
        """The outputs of some blocks (`Family.levels`), averaged over the image or clip: (B, feature_width)."""
        found: list[Tensor] = []
        levels = self.family.levels(self.network)

        def note(module: nn.Module, args: tuple, out: Tensor | tuple) -> None:
            found.append(self.family.feature(out))
            if module is levels[-1]:
                raise _Enough

        hooks = [block.register_forward_hook(note) for block in levels]
        try:
            self._predict(x, lam, cond, None)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        frames = torch.cat(found, 1)
        return frames.unflatten(0, (len(x), -1)).mean(1).to(x.dtype)

    def _predict(self, x: Tensor, lam: Coefficient, cond: Tensor | None, guidance_scale: Tensor | None) -> Tensor:
        family, network = self.family, self.network
        channels = family.channels(network)
        if x.ndim != (5 if family.clips else 4) or x.shape[1] != channels:
            frames = "F, " if family.clips else ""
            raise ValueError(f"this network takes latents (B, {channels}, {frames}H, W), got {shape(x)}")
        timestep, x = self._timestep(x, lam), self._state(x, lam)
        like = x.to(family.dtype(network))
        text = self.checkpoint.prompts.rows(cond, like, self.negative)
        if guidance_scale is not None and not self.guided:
            raise ValueError("this network does not see a guidance scale; make it with guided=True")
        if self.guided and guidance_scale is None:
            guidance_scale = x.new_ones(len(x))
        if family.takes_mask(network):
            like = torch.cat([like, self._kept(like)], 1)
        return family.predict(network, like, timestep, text, self.checkpoint.scale, guidance_scale)

    def without(self, cond: Tensor) -> Tensor:
        """The labels (B,) that stand for no prompt beside these; see `text.Terms`."""
        return without(cond)

    def _kept(self, x: Tensor) -> Tensor:
        """`kept` for the latents of a batch."""
        if self.kept is None:
            raise ValueError(needs_mask(self.checkpoint.source))
        return self.kept.to(x).repeat(len(x) // len(self.kept), 1, 1, 1)

    def _timestep(self, x: Tensor, lam: Coefficient) -> Tensor:
        """k, (B,). Of a number it is computed in Python: small tensors are slow."""
        K = len(self.table)
        if isinstance(lam, float):
            k = (
                min(1000 * _flow_time(lam), self.family.last_timestep)
                if self.flow
                else max(K * self.table.time_of(lam) - 1, 0)
            )
            dtype = torch.promote_types(x.dtype, torch.float32)
            return x.new_full(x.shape[:1], round(k) if self.rounded else k, dtype=dtype)
        if self.flow:
            timestep = (1000 * torch.sigmoid(-lam)).clamp(max=self.family.last_timestep)
        else:
            timestep = (K * self.table.t_of_lam(lam) - 1).clamp(min=0)
        return timestep.round() if self.rounded else timestep

    def _state(self, x: Tensor, lam: Coefficient) -> Tensor:
        if not self.flow:
            return x
        t = _flow_time(lam) if isinstance(lam, float) else torch.sigmoid(-lam)
        return x * expand(((1 - t) ** 2 + t**2) ** 0.5, x)  # x came over S

    # ---- copies, and what of them is trained

    def __deepcopy__(self, memo: dict) -> "CheckpointNetwork":
        """A copy that shares the checkpoint and the weights that are not its own."""
        memo[id(self.checkpoint)] = self.checkpoint
        memo |= {id(p): p for name, p in self.network.named_parameters() if name in self._shared}
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return new

    def state_dict(self, *args: Any, **settings: Any) -> Any:
        """The network's own weights, called as `torch.nn.Module.state_dict` is. The shared ones are in the
        checkpoint."""
        found = super().state_dict(*args, **settings)
        for name in self._shared:
            found.pop(f"{settings.get('prefix', '')}{self.family.part}.{name}", None)
        return found

    def to_train(
        self, trained: str, rank: int = 0, *, guided: bool = False, flow: bool = False, checkpointing: bool = False
    ) -> "CheckpointNetwork":
        """A trainable copy of this network that starts with its weights.

        trained: the weights that it trains, one of `TRAINED`; rank: of a LoRA. A LoRA that is there already keeps its
        rank, a network whose weights are all its own stays so, and one that has layers between frames of its own gets
        no LoRA. guided: the guidance scale is an input, which does
        nothing before it is trained. flow: see the class. checkpointing: activations are computed twice instead of kept
        in memory. `ValueError` where all weights, or those between frames, are to be trained of a network that has a
        LoRA, and where there are none between frames.
        """
        new = copy.deepcopy(self)
        if trained in ("full", "motion") and new.trained == "lora":
            raise ValueError(
                "these weights are a low-rank change (LoRA) of a checkpoint's; go on with a LoRA, or export them first"
            )
        if trained == "full" or new.trained == "full":
            new._own(new._shared)
            new.network.float()  # an optimizer's small steps vanish in half precision
            new.trained = "full"
        elif trained == "lora" and new.trained == "none":
            new.trained, new.rank = "lora", check_count(rank, "rank")
            before = {name: id(p) for name, p in new.network.named_parameters()}
            new.network.add_adapter(_lora_config(self.family, rank))
            kept = set(before.values())
            new._shared = frozenset(name for name, p in new.network.named_parameters() if id(p) in kept)
            for name, p in new.network.named_parameters():
                if name not in new._shared:  # an optimizer's small steps vanish in half precision
                    p.data = p.data.float()
        elif trained == "motion" and new.trained == "none":
            temporal = self.family.temporal(new.network)
            if not temporal:
                raise ValueError("this checkpoint makes images: it has no layers between frames to train")
            new._own(frozenset(temporal))
            for name in temporal:
                new.network.get_parameter(name).data = new.network.get_parameter(name).data.float()
            new.trained = "motion"
        if guided or new.guided:
            new._shared -= set(self.family.add_guidance(new.network))
            new.guided = True
        new.flow = flow
        for name, p in new.network.named_parameters():
            p.requires_grad_(name not in new._shared)
        if checkpointing and trained != "none":
            new.network.enable_gradient_checkpointing()
        return new

    def low_rank(self, rank: int) -> "CheckpointNetwork":
        """A copy that trains a LoRA of this rank only. A network that has a LoRA is returned as it is."""
        return self if self.trained == "lora" else self.to_train("lora", rank, guided=self.guided, flow=self.flow)

    def _own(self, names: frozenset[str]) -> None:
        """Copy these weights, so that training them changes no other network."""
        for name in names:
            path, _, leaf = name.rpartition(".")
            module = self.network.get_submodule(path)
            setattr(module, leaf, nn.Parameter(getattr(module, leaf).detach().clone()))
        self._shared -= names


def _flow_time(lam: float) -> float:
    """The time of a lambda on the linear schedule."""
    return 1 / (1 + math.exp(min(lam, 700.0)))


def needs_mask(source: str) -> str:
    """What is said of a model made for inpainting where no mask is given, or where it cannot be."""
    return (
        f"{source!r} is made for inpainting: it makes images with an image and a mask only (--image, --mask), and is "
        "not trained here"
    )


class _Enough(Exception):
    """Thrown through a network once its features are known: the rest of it is not needed."""


def network_of(D: Denoiser) -> CheckpointNetwork:
    """The network of a checkpoint's denoiser, or of a student of one; `ValueError` for any other denoiser."""
    if not isinstance(D, LambdaDenoiser) or not isinstance(D.net, CheckpointNetwork):
        raise ValueError(f"a denoiser of a Stable Diffusion checkpoint is needed, got {type(D).__name__}")
    return D.net


def _shared_is_there(net: CheckpointNetwork, keys: Any) -> None:
    """A saved state lacks the weights that are the checkpoint's: they do not count as missing."""
    ends = tuple(f"{net.family.part}.{name}" for name in net._shared)
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(ends)]


def _lora_config(family: Family, rank: int) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        init_lora_weights="gaussian",
        target_modules=list(family.lora_layers),
        exclude_modules=family.no_lora,
    )
