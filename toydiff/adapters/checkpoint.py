"""A Stable Diffusion checkpoint in this library's terms: a schedule from its table, a kind from its prediction type, a
denoiser, prompts, latents.

It takes the families of `families`, from a folder in diffusers' layout or a hub id, and those with a UNet from a single
.safetensors file, too. diffusers and transformers read the files and hold the networks. This library decides what the
networks are evaluated at, and when.
"""

import functools
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import LambdaDenoiser
from ..schedules import Linear, Schedule, Tabulated
from ..support.checks import check_count, check_finite, check_state, shape, unknown
from .families import SUPPORTED, Family, family_of
from .images import stamps
from .lora import with_strength
from .network import CheckpointNetwork
from .quiet import one_line, quietly
from .reading import latents_of, read, whole
from .text import Encoded, Prompts
from .weights import check_weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "velocity"}
"""Kinds of prediction by the `prediction_type` of a scheduler's configuration."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AT_ONCE = 8
"""The default of how many images go through the VAE, or latents through the network, in one call."""

FRAMES = 16
"""The default of how many frames a clip has, where the network takes so many."""

UNFILTERED = "the checkpoint's safety checker is not loaded: images are not filtered"
"""What is printed wherever images are made."""


def _by_itself(method: Callable) -> Callable:
    """The method computes without gradients, and outside its caller's modes, mixed precision and inference. What it
    returns is kept for later, and a tensor made in inference mode would pass no gradient."""

    @functools.wraps(method)
    def computed(self: "StableDiffusion", *args, **settings):
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return method(self, *args, **settings)

    return computed


_LOADED: "weakref.WeakValueDictionary[str, StableDiffusion]" = weakref.WeakValueDictionary()
"""The checkpoints in memory, by the arguments of `StableDiffusion.load` and the state of their files."""


class StableDiffusion:
    """A checkpoint in memory, as `load` makes it.

    `network`, a UNet or a transformer, and `vae` are diffusers' modules, frozen, and `pipe` is the pipeline that holds
    them; `family` says how they are called. `schedule` and `kind` say how the network was trained; `table` is the
    checkpoint's schedule of K = `timesteps` levels. `weight_names` are those of the network's weights. `prompts`
    encodes prompts. `takes_mask` is whether the network is one made for inpainting. `scale` is how many pixels one
    place of a latent is wide, `channels` a latent's channels, and `resolution` (height, width), in pixels, the size of
    image that it was trained at. `about` holds the arguments of `load`.
    """

    def __init__(self, pipe: "DiffusionPipeline", about: dict[str, Any]):
        self.pipe, self.about, self._files = pipe, about, _state(about)
        self._offloaded_from: torch.device | None = None
        family = family_of(type(pipe).__name__)
        if family is None:
            raise ValueError(f"{about['model']!r} is a {type(pipe).__name__}; {SUPPORTED}")
        self.family: Family = family
        self.network, self.vae = getattr(pipe, family.part), pipe.vae
        for module in self._modules():
            module.eval().requires_grad_(False)
        config = pipe.scheduler.config
        prediction = config.get("prediction_type", "epsilon")
        self.flow = "FlowMatch" in type(pipe.scheduler).__name__ or bool(config.get("use_flow_sigmas"))
        if self.flow:
            prediction = "flow_prediction"
        if not isinstance(prediction, str) or prediction not in KINDS:
            raise unknown("prediction_type of the scheduler", prediction, KINDS)
        self.kind = KINDS[prediction]
        try:
            self.table = Tabulated.scaled_linear() if self.flow else table_of(pipe.scheduler)
        except ValueError as error:
            raise ValueError(f"the scheduler of {self.source!r} gives no schedule: {error}") from None
        self.timesteps = len(self.table)
        self.weight_names = frozenset(name for name, _ in self.network.named_parameters())
        self.schedule: Schedule = Linear() if self.flow else self.table
        self.channels, self.scale = latents_of(self.vae)
        if family.channels(self.network) != self.channels:
            raise ValueError(
                f"the {family.part} of {self.source!r} takes {family.channels(self.network)} channels "
                f"where a latent has {self.channels}: "
                "checkpoints for depth, editing or upscaling are not supported"
            )
        self.takes_mask = family.takes_mask(self.network)
        height, width = family.places(pipe)
        self.resolution = height * self.scale, width * self.scale
        # they hold the pipeline and not this object, so that it is freed as soon as it is dropped
        self.too_long: Callable[[str], str | None] = functools.partial(too_long, pipe, family)
        """too_long(prompt): the message for a prompt that has more tokens than a text encoder reads, or None."""
        self.prompts = Prompts(
            functools.partial(encode_text, pipe, family), self.too_long, functools.partial(_encoders, pipe, family)
        )

    @property
    def source(self) -> str:
        """Where it was read from: the absolute path of a folder or file, or a hub id."""
        return self.about["model"]

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        config: str | Path | None = None,
        lora: Sequence[str] = (),
        unet: str | Path | None = None,
        scheduler: str | None = None,
        prediction_type: str | None = None,
        vae: str | Path | None = None,
        motion_adapter: str | Path | None = None,
        beta_schedule: str | None = None,
        local_only: bool = False,
        unsafe: bool = False,
    ) -> "StableDiffusion":
        """A checkpoint from a folder in diffusers' layout, a hub id such as "org/name", or a single .safetensors file.

        config: for a single file, what the file holds: a folder in diffusers' layout, of which its JSON and tokenizers
        suffice, or a hub id. With None, diffusers guesses, and reads the hub. lora: files or folders of LoRAs, which
        are added to the weights for good, in this order; "style.safetensors:0.8" adds 0.8 times its change. unet: a
        folder or a .safetensors file with another UNet, or transformer, which replaces the checkpoint's; a file has its
        weights alone, and the checkpoint's configuration. scheduler: the class of a scheduler
        of diffusers, one of `names.COMPARABLE`, in place of the checkpoint's, with the same configuration.
        prediction_type: what the UNet predicts, one of `names.PREDICTION_TYPES`, in place of what that configuration
        says. vae: a folder with another VAE, whose latents are of the same shape. motion_adapter: a folder or hub id of
        layers between frames (diffusers' MotionAdapter), with which a checkpoint of SD makes clips, or which take the
        place of an AnimateDiff checkpoint's own. beta_schedule: of the table of noise levels, one of
        `names.BETA_SCHEDULES`, in place of what the configuration says. local_only: never use the hub. unsafe: also
        read pickled weights (.bin, .ckpt), which can run code.

        The checkpoint is on the processor, in float32. In one process the same arguments give the same object, as long
        as it is in use and its files are unchanged: `to` moves it for all its users, and they have its prompts in
        common. `ValueError` in one line for what is not there or is no such checkpoint, and where the packages of the
        extra `sd` are missing. A ControlNet is not read, which a warning says.
        """
        lora = [lora] if isinstance(lora, str | Path) else lora
        about: dict[str, Any] = {
            "model": whole(model),
            "config": None if config is None else whole(config),
            "lora": [_whole_lora(one) for one in lora],
            "unet": None if unet is None else whole(unet),
            "local_only": bool(local_only),
            "unsafe": bool(unsafe),
        }
        about |= {} if scheduler is None else {"scheduler": scheduler}
        about |= {} if prediction_type is None else {"prediction_type": prediction_type}
        about |= {} if vae is None else {"vae": whole(vae)}
        about |= {} if motion_adapter is None else {"motion_adapter": whole(motion_adapter)}
        about |= {} if beta_schedule is None else {"beta_schedule": beta_schedule}
        key = json.dumps([{name: value for name, value in about.items() if name != "local_only"}, _state(about)])
        loaded = _LOADED.get(key)
        if loaded is None:
            loaded = _LOADED[key] = cls(read(**about), about)
        return loaded

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        offload: bool = False,
    ) -> "StableDiffusion":
        """Move the networks to a device, and the network and the text encoders to a dtype. The VAE stays in float32.

        None changes nothing. offload: a network is on the device while it is used only, and else on the processor, by
        diffusers' enable_model_cpu_offload; the next call of `to` ends that. Weights that a narrower dtype has rounded
        are read again for another one. `ValueError` for float16 or offload on the processor, for a device or dtype that
        there is not, for weights that a narrower dtype cannot hold, or where the files to be read again have changed.
        """
        try:
            device = self.device if device is None else torch.device(device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"this machine has no device {str(device)!r} that torch can use: {one_line(error)[:100]}"
            ) from None
        if isinstance(dtype, str) and dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        precision: torch.dtype = (
            self.network.dtype if dtype is None else DTYPES[dtype] if isinstance(dtype, str) else dtype
        )
        if device.type == "cpu" and precision == torch.float16:
            raise ValueError("float16 is too slow and too narrow on the processor; use float32 or bfloat16 there")
        if device.type == "cpu" and offload:
            raise ValueError(
                "offload keeps the networks on the processor that another device is not using, and the device is the "
                "processor already; leave it out (--cpu-offload), or take another device"
            )
        another = precision != self.network.dtype
        if another and self.network.dtype in (torch.float16, torch.bfloat16):
            self._read_again()
        with quietly():
            if self._offloaded_from is not None:
                self.pipe.remove_all_hooks()
            self._offloaded_from = device if offload else None
            for module in self._modules():
                place = "cpu" if offload else device
                module.to(device=place, dtype=torch.float32 if module is self.vae else precision)
            if offload:
                self._offload(device)
        self.prompts.forget(all_=another)
        if another and precision == torch.float16:
            for module in self._modules():
                check_weights(module, f"in float16 the {type(module).__name__} of {self.source!r}")
        return self

    def _read_again(self) -> None:
        """Give all networks the weights of the files again, in float32. Those who share the weights see them, too."""
        if "unsafe" not in self.about or _state(self.about) != self._files:
            raise ValueError(
                f"the weights of {self.source!r} were rounded and are to be read again, but its files have changed, or "
                "it was made without any; load it anew"
            )
        pipe = read(**self.about)
        for name in self.family.networks:
            ours, theirs = getattr(self.pipe, name, None), getattr(pipe, name, None)
            if ours is not None and theirs is not None:
                fresh = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
                for key, weight in [*ours.named_parameters(), *ours.named_buffers()]:
                    weight.data = fresh[key].data.to(weight.device)

    def _offload(self, device: torch.device) -> None:
        self._offloaded_from = device
        self.pipe.enable_model_cpu_offload(device=device)

    def switch_vae(self, *, tiling: bool = False, slicing: bool = False) -> None:
        """Let the VAE work on an image tile by tile, which bounds its memory and changes images a little, and on one
        image after the other: diffusers' own switches, enable_tiling and enable_slicing. False is off. `ValueError`
        for tiles that diffusers' AutoencoderTiny does not have."""
        if tiling and (fits := getattr(self.vae, "spatial_scale_factor", self.scale)) != self.scale:
            raise ValueError(f"the tiles of AutoencoderTiny are of latents {fits} times smaller than an image")
        for name, on in (("tiling", tiling), ("slicing", slicing)):
            getattr(self.vae, f"{'enable' if on else 'disable'}_{name}")()

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._offloaded_from or next(self.network.parameters()).device

    def denoiser(self, *, rounded: bool = False, negative_prompt: str | None = None) -> LambdaDenoiser:
        """The checkpoint's model as a frozen denoiser. Its cond (B,) are labels that `prompts.add` gives.

        rounded: the network gets whole timesteps, as in its training and in diffusers; a solver of high order then
        loses its order. negative_prompt: the prompt that stands for no label, in guidance; None is no prompt.
        """
        net = CheckpointNetwork.of(self)
        net.rounded, net.negative = rounded, negative_prompt
        D = LambdaDenoiser(net, self.schedule, self.kind)
        D.training = net.training = False  # the network is so since it was loaded; eval() would walk through all of it
        return D

    def latent_shape(self, size: int | tuple[int, ...] | None = None, frames: int | None = None) -> tuple[int, ...]:
        """The shape of a latent: (channels, H, W) of an image, (channels, F, H, W) of a clip.

        size: of the image in pixels, (height, width) or the side of a square; None for the checkpoint's own. frames: F;
        None is `FRAMES`, or as many as the network takes. `ValueError` for a size that is not positive whole numbers,
        that is no multiple of what the family has (8 for SD, 16 for SD3), or that is larger than the network takes, for
        more frames than it takes, and for frames of an image.
        """
        if not isinstance(size, int | tuple | None) or (isinstance(size, tuple) and len(size) != 2):
            raise ValueError(f"a size is a number of pixels, or (height, width), got {size!r}")
        height, width = (size, size) if isinstance(size, int) else self.resolution if size is None else size
        multiple = self.scale * self.family.multiple(self.network)
        most = self.scale * self.family.most_places(self.network)
        for side in (check_count(height, "height"), check_count(width, "width")):
            if side % multiple:
                raise ValueError(
                    f"the height and width of an image must be multiples of {multiple} here, got {height} x {width}"
                )
            if side > most:
                raise ValueError(
                    f"the height and width of an image are {most} at most for this checkpoint, got {height} x {width}"
                )
        places = height // self.scale, width // self.scale
        if self.family.clips:
            return self.channels, self._frames(frames), *places
        if frames is not None:
            raise ValueError(
                f"this checkpoint makes images, and frames are of clips ({frames} given): take one of AnimateDiff, or "
                "a motion adapter (--motion-adapter)"
            )
        return self.channels, *places

    def _frames(self, frames: int | None) -> int:
        most = self.family.most_frames(self.network)
        if frames is None:
            return min(FRAMES, most)
        if check_count(frames, "frames") > most:
            raise ValueError(f"a clip of this checkpoint has {most} frames at most (max_seq_length), got {frames}")
        return frames

    @_by_itself
    def decode(self, latents: Tensor, *, at_once: int = AT_ONCE, progress: bool = False) -> Tensor:
        """Images (n, 3, H, W) in [0, 1], on the processor, of latents (n, C, H/scale, W/scale); clips (n, F, 3, H, W)
        of latents (n, C, F, H/scale, W/scale).

        at_once: latents, or frames, in one call of the VAE. progress: show a bar. `ValueError` for another shape, or
        NaN in what comes in or goes out.
        """
        check_state(latents, "latents")
        check_finite(latents, "latents")
        check_count(at_once, "at_once")
        if latents.ndim != (5 if self.family.clips else 4) or latents.shape[1] != self.channels or not len(latents):
            frames = "F, " if self.family.clips else ""
            raise ValueError(f"latents have shape (n, {self.channels}, {frames}H, W) with n >= 1, got {shape(latents)}")
        if self.family.clips:
            n, latents = len(latents), latents.transpose(1, 2).flatten(0, 1)
            return self._decoded(latents, at_once, progress).unflatten(0, (n, -1))
        return self._decoded(latents, at_once, progress)

    def _decoded(self, latents: Tensor, at_once: int, progress: bool) -> Tensor:
        """Images (n, 3, H, W) of latents (n, C, h, w)."""
        shift, factor = self.family.moments(self.vae, latents)
        images = []
        for part in tqdm(latents.split(at_once), desc="decode", unit="batch", disable=not progress):
            z = (part.to(self.device, torch.float32) * factor.to(self.device)) + shift.to(self.device)
            decoded = self.vae.decode(z, return_dict=False)[0]
            if not bool(torch.isfinite(decoded).all()):
                raise ValueError(
                    f"the VAE of {self.source!r} made NaN or infinity of finite latents (up to "
                    f"{float(part.abs().max()):.3g}): its weights are broken, or are of another model"
                )
            images.append((decoded / 2 + 0.5).clamp(0, 1).cpu())
        return torch.cat(images)

    @_by_itself
    def encode(self, images: Tensor, *, at_once: int = AT_ONCE) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (n, C, H/scale, W/scale) each, of the latents of images (n, 3, H, W) in [0, 1];
        (n, C, F, H/scale, W/scale) of clips (n, F, 3, H, W).

        Both are on the processor. The small VAE of TAESD (AutoencoderTiny) gives a latent, and so the deviation 0.
        at_once: images, or frames, in one call of the VAE. `ValueError` for another shape.
        """
        check_state(images, "images")
        if self.family.clips:
            if images.ndim != 5 or images.shape[2] != 3:
                raise ValueError(f"clips have shape (n, F, 3, H, W), got {shape(images)}")
            mean, std = self._encoded(images.flatten(0, 1), at_once)
            return tuple(part.unflatten(0, (len(images), -1)).transpose(1, 2) for part in (mean, std))
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape (n, 3, H, W), got {shape(images)}")
        return self._encoded(images, at_once)

    def _encoded(self, images: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of images (n, 3, H, W)."""
        means, stds = [], []
        for part in images.split(at_once):
            law = self.vae.encode(2 * part.to(self.device, torch.float32) - 1, return_dict=False)[0]
            mean, std = (law, torch.zeros_like(law)) if isinstance(law, Tensor) else (law.mean, law.std)
            shift, factor = self.family.moments(self.vae, mean)
            means.append(((mean - shift) / factor).cpu())
            stds.append((std / factor).cpu())
        check_finite(torch.cat([*means, *stds]), f"what the VAE of {self.source!r} made of images")
        return torch.cat(means), torch.cat(stds)

    @property
    def files(self) -> list:
        """Path, size and time of the last change of the files that it was read from; nothing of a hub id's."""
        return self._files

    def stamp(self, *parts: str) -> list:
        """What the weights of some components were read from, and the state of those files: where this is the same,
        the weights count as unchanged."""
        place = Path(self.source)
        folders = [place / part for part in parts]
        if "vae" in parts and "vae" in self.about:
            folders += [Path(self.about["vae"]), Path(self.about["vae"]) / "vae"]
        files = sorted(p for folder in folders for p in folder.glob("*") if p.is_file())
        files += [place] if place.is_file() else []
        return [self.about, str(self.network.dtype), stamps(files)]

    def _modules(self) -> list[torch.nn.Module]:
        parts = (getattr(self.pipe, name, None) for name in self.family.networks)
        return [part for part in parts if part is not None]

    def __repr__(self) -> str:
        height, width = self.resolution
        return f"StableDiffusion({self.source!r}, {type(self.pipe).__name__}, {self.kind}, {height} x {width} px)"


def encode_text(pipe: "DiffusionPipeline", family: Family, texts: Sequence[str] | None, parts: int = 1) -> Encoded:
    """Prompts as the pipeline's own encoders have them, or one prompt by parts. None stands for no prompt."""
    device = pipe.vae.device
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        return (
            family.encode(pipe, texts)
            if parts == 1
            else family.encode_parts(pipe, None if texts is None else texts[0], parts)
        )


def _encoders(pipe: "DiffusionPipeline", family: Family) -> list[tuple[int, int]]:
    """The weights of the text encoders, by identity and version."""
    parts = (getattr(pipe, name, None) for name in family.encoders)
    weights = [p for part in parts if part is not None for p in part.parameters()]
    return [(id(p), 0 if p.is_inference() else p._version) for p in weights]


def too_long(pipe: "DiffusionPipeline", family: Family, text: str) -> str | None:
    """The message for a prompt that has more tokens than a text encoder of the pipeline reads, of those that must read
    it all (`Family.loses`); None for any other. `ValueError` for a token that an encoder has not."""
    for name, encoder, most in family.readers(pipe):
        tokenizer = getattr(pipe, name)
        with quietly():
            ids = tokenizer(text).input_ids
        words = getattr(pipe, encoder).config.vocab_size
        if max(ids, default=0) >= words:
            raise ValueError(f"the prompt has a token that is none of the {words} of the checkpoint's {encoder}")
        if len(ids) > most and name in family.loses(pipe):
            lost, marks = tokenizer.decode(ids[most - 1 : -1]).strip(), tokenizer.num_special_tokens_to_add()
            return (
                f"the prompt has {len(ids) - marks} tokens and the text encoder reads {most - marks}: "
                f"{lost[:80]!r} would be lost; shorten it, or allow the cut (--cut-prompts)"
            )
    return None


def _whole_lora(lora: str | Path) -> str:
    """A LoRA's absolute path, or hub id, with its strength behind a colon where that is not 1."""
    place, strength = with_strength(lora)
    return whole(place) if strength == 1 else f"{whole(place)}:{strength!r}"


def _state(about: dict[str, Any]) -> list:
    """The state of the files that a checkpoint is read from; of a hub id nothing, since its files do not change."""
    loras = (with_strength(one)[0] for one in about.get("lora", ()))
    given = (*(about.get(name) for name in ("model", "config", "unet", "vae", "motion_adapter")), *loras)
    places = [Path(one) for one in given if one is not None]
    files = [place for place in places if place.is_file()]
    for place in places:
        if place.is_dir():
            files += [file for file in sorted([*place.glob("*"), *place.glob("*/*")]) if file.is_file()]
    return stamps(files)


def table_of(scheduler: object) -> Tabulated:
    """The schedule of a diffusers scheduler, from its table alphas_cumprod. The table's last entry may be 0 (zero
    terminal SNR). `ValueError` where there is no table."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"the scheduler {type(scheduler).__name__} has no table of noise levels (alphas_cumprod) "
            "to make a schedule of"
        )
    return Tabulated(scheduler.alphas_cumprod.double())


def network_from(
    checkpoint: dict, trained: str, rank: int, guided: bool, flow: bool, rounded: bool = False
) -> CheckpointNetwork:
    """A network from its `config`. The weights that were trained are still to be loaded."""
    net = CheckpointNetwork.of(StableDiffusion.load(**checkpoint)).to_train(trained, rank, guided=guided, flow=flow)
    net.rounded = rounded
    return net
