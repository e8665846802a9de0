"""A Stable Diffusion checkpoint in this library's terms: a schedule from its table, a kind from its prediction type, a denoiser, prompts, latents.

SD 1.x and 2.x (eps and v prediction, zero terminal SNR) and SDXL, from a folder in diffusers' layout, a hub id, or a single .safetensors file. diffusers
and transformers read the files and hold the networks; what is asked of them, and when, is this library's.
"""

import contextlib
import functools
import inspect
import json
import logging
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from ..checks import check_count, check_finite, check_state, shape, unknown
from ..denoisers import LambdaDenoiser
from ..schedules import Linear, Schedule, Tabulated
from .text import Encoded, Prompts
from .unet import CheckpointUNet

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "velocity"}
"""Kinds of prediction by the `prediction_type` of a scheduler's configuration."""

NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AT_ONCE = 8
"""Images that go through the VAE, or latents through the UNet, in one call, unless told otherwise."""

EXPORTED = "toydiff.json"
"""The file by which a folder is known as one that `toydiff export` wrote."""
INSTALL = "Stable Diffusion checkpoints need the extra `sd`: pip install 'toydiff[sd]'"
UNFILTERED = "the checkpoint's safety checker is not loaded: images are not filtered"
"""Said wherever images are made."""


class StableDiffusion:
    """A checkpoint that was read: `load` makes it. `unet`, `vae`: diffusers' modules, frozen; `schedule`, `kind`: how the UNet was trained; `prompts`;
    `scale`: pixels a latent is wide; `channels`, of a latent; `resolution`, pixels a side it was trained at; `timesteps` K of the `table`.
    """

    def __init__(self, pipe: "DiffusionPipeline", about: dict):
        self.pipe, self.about = pipe, about
        self.unet, self.vae = pipe.unet, pipe.vae
        for module in self._modules():
            module.eval().requires_grad_(False)
        config = pipe.scheduler.config
        prediction = config.get("prediction_type", "epsilon")
        self.flow = "FlowMatch" in type(pipe.scheduler).__name__ or bool(config.get("use_flow_sigmas"))
        if self.flow:
            prediction = "flow_prediction"
        if prediction not in KINDS:
            raise unknown("prediction_type of the scheduler", prediction, KINDS)
        self.kind = KINDS[prediction]
        self.table = Tabulated.scaled_linear() if self.flow else table_of(pipe.scheduler)
        self.timesteps = len(self.table)
        self.schedule: Schedule = Linear() if self.flow else self.table
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.channels = int(self.vae.config.latent_channels)
        if self.unet.config.in_channels != self.channels:
            raise ValueError(
                f"the UNet of {self.source!r} takes {self.unet.config.in_channels} channels where a latent has {self.channels}: "
                "checkpoints for inpainting, depth or editing are not supported"
            )
        self.resolution = int(self.unet.config.sample_size) * self.scale
        self.xl = hasattr(pipe, "text_encoder_2")
        self.prompts = Prompts(self._encode_text, self.too_long)

    @property
    def source(self) -> str:
        """Where it was read from, as it was given."""
        return self.about["model"]

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        config: str | Path | None = None,
        lora: Sequence[str] = (),
        unet: str | Path | None = None,
        local_only: bool = False,
        unsafe: bool = False,
    ) -> "StableDiffusion":
        """A checkpoint from a folder in diffusers' layout, a hub id such as "org/name", or a single .safetensors file.

        config: for a single file, a folder in diffusers' layout (its JSON and tokenizers suffice) or a hub id that says what the file holds; None for
        diffusers' guess, which asks the hub. lora: files or folders of LoRAs, added to the weights for good, in this order. unet: a folder of
        another UNet in the place of the checkpoint's. local_only: never ask the hub. unsafe: also read pickled weights (.bin, .ckpt), which can run code.

        The same arguments give the same object in one process, as long as anyone holds it: `to` moves it for all, and its prompts are everyone's. On the processor, in float32. `ValueError` in
        one line for what is not there, or is no such checkpoint; without the packages of the extra `sd` too.
        """
        config, unet = (None if path is None else str(path) for path in (config, unet))
        key = (str(model), config, tuple(map(str, lora)), unet, bool(local_only), bool(unsafe))
        loaded = _LOADED.get(key)
        if loaded is None:
            loaded = _LOADED[key] = _load(cls, *key)
        return loaded

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> "StableDiffusion":
        """Move networks to a device, and the UNet and text encoders to a dtype; the VAE stays in float32. None leaves what is.

        `ValueError` for a half-precision dtype on the processor.
        """
        device = self.device if device is None else torch.device(device)
        if dtype is None:
            dtype = self.unet.dtype
        elif not isinstance(dtype, torch.dtype):
            if dtype not in DTYPES:
                raise unknown("dtype", dtype, DTYPES)
            dtype = DTYPES[dtype]
        if device.type == "cpu" and dtype == torch.float16:
            raise ValueError("float16 is too slow and too narrow on the processor; use float32 or bfloat16 there")
        with quietly():
            for module in self._modules():
                module.to(device=device, dtype=torch.float32 if module is self.vae else dtype)
        self.prompts.forget_rows()
        return self

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    def denoiser(self, *, rounded: bool = False, negative_prompt: str | None = None) -> LambdaDenoiser:
        """The checkpoint's model behind the contract, frozen: cond is the labels of `prompts.add`.

        rounded: the UNet is told whole timesteps, as it was trained, and as diffusers does; a solver of high order then loses its order.
        """
        net = CheckpointUNet.of(self)
        net.rounded, net.negative = rounded, negative_prompt
        return LambdaDenoiser(net, self.schedule, self.kind).eval().requires_grad_(False)

    def latent_shape(self, size: int | tuple[int, int] | None = None) -> tuple[int, int, int]:
        """(channels, H, W) of a latent for an image of size (height, width) pixels, or a square; None for the checkpoint's own."""
        height, width = (size, size) if isinstance(size, int) else (self.resolution,) * 2 if size is None else size
        step = self.scale * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for side in (check_count(height, "height"), check_count(width, "width")):
            if side % step:
                raise ValueError(
                    f"the height and width of an image must be multiples of {step} here, got {height} x {width}"
                )
        return self.channels, height // self.scale, width // self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor, *, at_once: int = AT_ONCE, progress: bool = False) -> Tensor:
        """Images (n, 3, H, W) in [0, 1] of latents (n, C, H/scale, W/scale), a few at a time; on the processor."""
        check_state(latents, "latents")
        check_finite(latents, "latents")
        shift, factor = self._moments(latents)
        images = []
        for part in tqdm(latents.split(at_once), desc="decode", unit="batch", disable=not progress):
            z = (part.to(self.device, torch.float32) * factor.to(self.device)) + shift.to(self.device)
            images.append((self.vae.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1).cpu())
        return torch.cat(images)

    @torch.no_grad()
    def encode(self, images: Tensor, *, at_once: int = AT_ONCE) -> tuple[Tensor, Tensor]:
        """(mean, std) of the latents (n, C, H/scale, W/scale) of images (n, 3, H, W) in [0, 1]; on the processor."""
        check_state(images, "images")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape (n, 3, H, W), got {shape(images)}")
        means, stds = [], []
        for part in images.split(at_once):
            law = self.vae.encode(2 * part.to(self.device, torch.float32) - 1, return_dict=False)[0]
            shift, factor = self._moments(law.mean)
            means.append(((law.mean - shift) / factor).cpu())
            stds.append((law.std / factor).cpu())
        return torch.cat(means), torch.cat(stds)

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(shift, factor): the VAE's own latents are factor z + shift, z those of the UNet."""
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            mean, std = [0.0] * self.channels, [1.0] * self.channels
        column = functools.partial(torch.tensor, dtype=torch.float32, device=like.device)
        return column(mean).view(1, -1, 1, 1), column(std).view(1, -1, 1, 1) / self.vae.config.scaling_factor

    def _modules(self) -> list[torch.nn.Module]:
        parts = (getattr(self.pipe, name, None) for name in ("unet", "vae", "text_encoder", "text_encoder_2"))
        return [part for part in parts if part is not None]

    def _tokenizers(self) -> list:
        return [t for t in (getattr(self.pipe, name, None) for name in ("tokenizer", "tokenizer_2")) if t is not None]

    @torch.no_grad()
    def _encode_text(self, texts: Sequence[str] | None) -> Encoded:
        """By the pipeline's own encoders; None is what it gives the model for no prompt: of SDXL zeros, if its configuration says so."""
        with quietly():
            if not self.xl:
                found, _ = self.pipe.encode_prompt([""] if texts is None else list(texts), self.device, 1, False)
                return Encoded(found, None)
            none = texts is None
            found, _, pooled, _ = self.pipe.encode_prompt(
                [""] if none else list(texts), device=self.device, do_classifier_free_guidance=False
            )
        if none and self.pipe.config.force_zeros_for_empty_prompt:
            return Encoded(torch.zeros_like(found), torch.zeros_like(pooled))
        return Encoded(found, pooled)

    def too_long(self, text: str) -> str | None:
        """What is wrong with a prompt that has more tokens than the text encoder reads."""
        for tokenizer in self._tokenizers():
            with quietly():
                ids = tokenizer(text).input_ids
            most = tokenizer.model_max_length
            if len(ids) > most:
                lost = tokenizer.decode(ids[most - 1 : -1]).strip()
                return (
                    f"the prompt has {len(ids) - 2} tokens and the text encoder reads {most - 2}: {lost[:80]!r} would be lost; "
                    "shorten it, or allow the cut (--cut-prompts)"
                )
        return None

    def __repr__(self) -> str:
        return f"StableDiffusion({self.source!r}, {'XL, ' if self.xl else ''}{self.kind}, {self.resolution} px)"


def table_of(scheduler: object) -> Tabulated:
    """The schedule of a diffusers scheduler: its table of alphas_cumprod, whose last entry may be 0 (zero terminal SNR)."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"the scheduler {type(scheduler).__name__} has no table of noise levels (alphas_cumprod) to make a schedule of"
        )
    return Tabulated(scheduler.alphas_cumprod.double())


# ---- reading


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """diffusers and transformers speak of what is intended here: no safety checker, CPU, a cut that was agreed to; and their bars are of files that take a second each."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub", "peft")]
    before, bars = (
        [logger.level for logger in loggers],
        [lib.is_progress_bar_enabled() for lib in (of_diffusers, of_transformers)],
    )
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        of_diffusers.disable_progress_bar()
        of_transformers.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        for lib, shown in zip((of_diffusers, of_transformers), bars, strict=True):
            if shown:
                lib.enable_progress_bar()


_LOADED: "weakref.WeakValueDictionary[tuple, StableDiffusion]" = weakref.WeakValueDictionary()
"""What is in memory, by how it was asked for."""


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _load(
    cls: type[StableDiffusion],
    model: str,
    config: str | None,
    lora: tuple[str, ...],
    unet: str | None,
    local_only: bool,
    unsafe: bool,
) -> StableDiffusion:
    try:
        import diffusers
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise ValueError(INSTALL) from None
    about = {
        "model": model,
        "config": config,
        "lora": list(lora),
        "unet": unet,
        "local_only": local_only,
        "unsafe": unsafe,
    }
    path = Path(model)
    with quietly():
        if path.is_dir():
            pipe = _from_folder(path, model, unsafe)
        elif path.suffix in (".safetensors", ".ckpt"):
            pipe = _from_file(path, config, local_only, unsafe)
        else:
            pipe = _from_hub(model, local_only, unsafe)
        if not hasattr(pipe, "unet") or not isinstance(pipe.unet, diffusers.UNet2DConditionModel):
            raise ValueError(
                f"{model!r} is a {type(pipe).__name__}; this adapter takes checkpoints with a UNet: SD 1.x, SD 2.x and SDXL"
            )
        pipe.set_progress_bar_config(disable=True)
        if unet is not None:
            pipe.register_modules(unet=_other_unet(pipe, unet, local_only, unsafe))
        for one in lora:
            _add_lora(pipe, one, local_only, unsafe)
        for student in (unet, *lora):
            _follow_scheduler(pipe, student)
    return cls(pipe, about)


def _settings(unsafe: bool) -> dict:
    return {"use_safetensors": None if unsafe else True, "torch_dtype": torch.float32}


def _from_folder(path: Path, model: str, unsafe: bool) -> "DiffusionPipeline":
    from diffusers import DiffusionPipeline

    index = path / "model_index.json"
    if not index.exists():
        single = next(path.glob("*.safetensors"), None)
        hint = ""
        if (path / "config.json").exists():
            hint = "; a UNet alone goes on top of a whole checkpoint, with --unet"
        elif (path / "unet").is_dir():
            hint = "; it has a unet folder, but a checkpoint also says in model_index.json what it is made of"
        elif single is not None:
            hint = f"; for a single file give the file itself, {str(single)!r}, for a LoRA --lora"
        raise ValueError(
            f"the folder {model!r} is not a checkpoint in diffusers' layout: it has no model_index.json{hint}"
        )
    try:
        parts = json.loads(index.read_text())
    except (OSError, ValueError):
        raise ValueError(f"{str(index)!r} cannot be read, or is not JSON") from None
    named = [name for name, value in parts.items() if isinstance(value, list) and value and value[0] is not None]
    kind = parts.get("_class_name", "?")
    if "unet" not in named:
        raise ValueError(f"{model!r} is a {kind}; this adapter takes checkpoints with a UNet: SD 1.x, SD 2.x and SDXL")
    needed = [*NEEDED, *(name for name in ("text_encoder_2", "tokenizer_2") if name in named)]
    for name in needed:
        if name not in named or not (path / name).is_dir():
            raise ValueError(
                f"the checkpoint {model!r} lacks the component {name!r}; needed are {', '.join(needed)}, a folder each"
            )
    for name in ("unet", "vae", "text_encoder"):
        if not any((path / name).glob("*.safetensors")) and not unsafe:
            pickles = any((path / name).glob("*.bin"))
            raise ValueError(
                f"the component {name!r} of {model!r} has no weights in safetensors"
                + (
                    ", only pickles (.bin), which can run code; convert them, or allow that (--unsafe-weights)"
                    if pickles
                    else ""
                )
            )
    try:
        pipe = DiffusionPipeline.from_pretrained(
            path, local_files_only=True, **_without_safety(parts), **_settings(unsafe)
        )
        _check_whole(pipe.unet, path / "unet")
        return pipe
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the checkpoint {model!r} cannot be read: {one_line(error)}") from None


def _check_whole(unet: "UNet2DConditionModel", folder: Path) -> None:
    """Every weight of a UNet comes from its files: diffusers fills in what is missing with random numbers, and goes on."""
    from safetensors import safe_open

    held: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            held |= set(tensors.keys())
    missing = [name for name in unet.state_dict() if name not in held]
    if held and missing:
        raise ValueError(
            f"its UNet lacks {len(missing)} weights, {missing[0]!r} for one: they are of another model, or of another version"
        )


def _without_safety(parts: dict) -> dict:
    return {name: None for name in NOT_LOADED if name in parts}


def _from_file(path: Path, config: str | None, local_only: bool, unsafe: bool) -> "DiffusionPipeline":
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    if path.suffix != ".safetensors" and not unsafe:
        raise ValueError(
            f"{str(path)!r} is a pickle, which can run code; use a .safetensors file, or allow it (--unsafe-weights)"
        )
    kind = StableDiffusionPipeline
    if config is not None and Path(config).is_dir():
        index = Path(config) / "model_index.json"
        if not index.exists():
            raise ValueError(f"the folder {config!r} says nothing of a checkpoint: it has no model_index.json")
        if "XL" in json.loads(index.read_text()).get("_class_name", ""):
            kind = StableDiffusionXLPipeline
    elif config is None and path.suffix == ".safetensors":
        kind = StableDiffusionXLPipeline if _has_two_encoders(path) else kind
    try:
        parts = inspect.signature(kind.__init__).parameters
        return kind.from_single_file(
            str(path), config=config, local_files_only=local_only or _offline() or (config is not None and Path(config).is_dir()),
            torch_dtype=torch.float32, **{name: None for name in NOT_LOADED if name in parts},
        )  # fmt: skip
    except Exception as error:  # of many kinds, some of diffusers' own
        hint = ""
        if config is None:
            hint = (
                "; a single file does not say how it is built, and the hub that would was not reached: give --config a folder with the JSON "
                "files and tokenizers of its kind (of SD 1.5: stable-diffusion-v1-5/stable-diffusion-v1-5 without its weights)"
            )
        raise ValueError(f"the file {str(path)!r} cannot be read as a checkpoint: {one_line(error)}{hint}") from None


def _has_two_encoders(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith("conditioner.embedders.1") for key in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is truncated or is not a safetensors file ({error})") from None


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")


def _from_hub(model: str, local_only: bool, unsafe: bool) -> "DiffusionPipeline":
    from diffusers import DiffusionPipeline

    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
        raise ValueError(
            f"there is no checkpoint at {model!r}: it is neither a folder, nor a .safetensors file, nor a hub id such as org/name"
        )
    wanted = [f"{name}/*" for name in (*NEEDED, "text_encoder_2", "tokenizer_2")]
    try:
        folder = DiffusionPipeline.download(
            model, local_files_only=local_only or _offline(), safety_checker=None, use_safetensors=None if unsafe else True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        why = (
            "the hub is not to be asked" if local_only or _offline() else "the hub was not reached, or does not have it"
        )
        raise ValueError(
            f"the checkpoint {model!r} is neither a folder here nor in the hub's cache, and {why} ({one_line(error)[:120]}); where there is a network, run: "
            f"hf download {model} model_index.json {' '.join(map(repr, wanted))} --local-dir {model.split('/')[1]}  and give that folder as the model"
        ) from None
    return _from_folder(Path(folder), model, unsafe)


def _other_unet(pipe: "DiffusionPipeline", unet: str, local_only: bool, unsafe: bool):
    """A UNet alone, such as the published students of PeRFlow and Rectified Diffusion, and those that `toydiff export` writes."""
    from diffusers import UNet2DConditionModel

    path = Path(unet)
    inside = (
        {"subfolder": "unet"}
        if not (path / "config.json").exists() and (path / "unet" / "config.json").exists()
        else {}
    )
    if path.exists() and not inside and not (path / "config.json").exists():
        raise ValueError(
            f"{unet!r} holds no UNet: a folder with config.json and weights is needed, or one with such a folder named unet"
        )
    if not path.exists() and (unet.count("/") != 1 or unet.startswith((".", "/", "~"))):
        raise ValueError(f"there is no UNet at {unet!r}")
    try:
        found = UNet2DConditionModel.from_pretrained(
            unet, local_files_only=path.exists() or local_only or _offline(), **inside, **_settings(unsafe)
        )
        if path.exists():
            _check_whole(found, path / inside.get("subfolder", "."))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"the UNet {unet!r} cannot be read: {one_line(error)}") from None
    for name in ("in_channels", "cross_attention_dim", "addition_embed_type"):
        theirs, ours = found.config.get(name), pipe.unet.config.get(name)
        if theirs != ours:
            raise ValueError(f"the UNet {unet!r} does not fit this checkpoint: its {name} is {theirs}, not {ours}")
    return found


def _add_lora(pipe: "DiffusionPipeline", lora: str, local_only: bool, unsafe: bool) -> None:
    """Add a LoRA to the weights for good: LCM-LoRA, PCM-LoRA, those that `toydiff export` writes. `ValueError` if it is not there or does not fit."""
    path = Path(lora)
    if not path.exists() and (lora.count("/") != 1 or lora.startswith((".", "/", "~"))):
        raise ValueError(f"there is no LoRA at {lora!r}")
    where = {"pretrained_model_name_or_path_or_dict": lora}
    if path.is_file():
        if path.suffix != ".safetensors" and not unsafe:
            raise ValueError(
                f"the LoRA {lora!r} is a pickle, which can run code; use a .safetensors file, or allow it (--unsafe-weights)"
            )
        where = {"pretrained_model_name_or_path_or_dict": str(path.parent or "."), "weight_name": path.name}
    elif path.is_dir() and not any(path.glob("*.safetensors")) and not unsafe:
        raise ValueError(f"the folder {lora!r} holds no LoRA: it has no .safetensors file")
    try:
        pipe.load_lora_weights(
            **where, adapter_name="given", local_files_only=path.exists() or local_only or _offline(), use_safetensors=None if unsafe else True,
        )  # fmt: skip
        if "given" not in {name for names in pipe.get_list_adapters().values() for name in names}:
            raise ValueError("none of its weights is one of this checkpoint's")
        pipe.fuse_lora(adapter_names=["given"])
        pipe.unload_lora_weights()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"the LoRA {lora!r} does not fit this checkpoint, or cannot be read: {one_line(error)}"
        ) from None


def _follow_scheduler(pipe: "DiffusionPipeline", student: str | None) -> None:
    """A student that `toydiff export` wrote says how it is sampled: a flow, say, has another schedule and kind than the checkpoint it was made of."""
    if student is None or not (Path(student) / EXPORTED).exists():
        return
    import diffusers

    folder = Path(student) / "scheduler"
    try:
        name = json.loads((folder / "scheduler_config.json").read_text())["_class_name"]
        pipe.register_modules(scheduler=getattr(diffusers, name).from_pretrained(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the scheduler of the student {student!r} cannot be read: {one_line(error)}") from None
