"""Reading a checkpoint's files by diffusers and transformers, whole or not at all. Whatever is wrong is a `ValueError`
of one line."""

import contextlib
import importlib
import inspect
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
SECOND = ("text_encoder_2", "tokenizer_2")
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
SINGLE = (".safetensors", ".ckpt")
SUPPORTED = "this adapter takes checkpoints with a UNet: SD 1.x, SD 2.x and SDXL"
EXPORTED = "toydiff.json"
"""A folder with this file was written by `toydiff export`."""
INSTALL = "Stable Diffusion checkpoints need the extra `sd`: pip install 'toydiff[sd]'"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within the block, diffusers and transformers print nothing.

    Their warnings are of what is intended here: no safety checker, the CPU, a prompt that is cut. Their bars are for
    files that take a second each.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub", "peft")]
    before = [logger.level for logger in loggers]
    bars = [lib.is_progress_bar_enabled() for lib in (of_diffusers, of_transformers)]
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


def one_line(error: BaseException) -> str:
    """An error's text in one line of 300 characters at most, or its type where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def whole(path: str | Path) -> str:
    """The absolute path, where there is a file or folder. Anything else, such as a hub id, is returned as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else str(path)


def read(
    model: str, config: str | None, lora: Sequence[str], unet: str | None, local_only: bool, unsafe: bool
) -> "DiffusionPipeline":
    """The pipeline of a checkpoint, in float32 on the processor. The arguments, and the errors, are those of
    `StableDiffusion.load`."""
    try:
        import diffusers
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise ValueError(INSTALL) from None
    path = Path(model)
    if config is not None and path.suffix not in SINGLE:
        raise ValueError("a configuration (--config) is for a single file; a folder has its own")
    with quietly():
        if path.is_dir():
            pipe = _from_folder(path, unsafe)
        elif path.suffix in SINGLE:
            pipe = _from_file(path, config, local_only, unsafe)
        else:
            pipe = _from_hub(model, local_only, unsafe)
        if not isinstance(getattr(pipe, "unet", None), diffusers.UNet2DConditionModel):
            raise ValueError(f"{model!r} is a {type(pipe).__name__}; {SUPPORTED}")
        pipe.set_progress_bar_config(disable=True)
        if unet is not None:
            pipe.register_modules(unet=_other_unet(pipe, unet, local_only, unsafe))
        for one in lora:
            _add_lora(pipe, one, local_only, unsafe)
        for student in (unet, *lora):
            _follow_scheduler(pipe, student)
    return pipe


def _settings(unsafe: bool) -> dict:
    return {"use_safetensors": None if unsafe else True, "torch_dtype": torch.float32}


def _from_folder(path: Path, unsafe: bool) -> "DiffusionPipeline":
    from diffusers import DiffusionPipeline

    model, index = str(path), path / "model_index.json"
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
    parts = _parts(index)
    kind = parts.get("_class_name", "?")
    named = [name for name, value in parts.items() if isinstance(value, list) and value and value[0] is not None]
    if "unet" not in named:
        raise ValueError(f"{model!r} is a {kind}; {SUPPORTED}")
    needed = [*NEEDED, *(name for name in SECOND if name in named or "XL" in kind)]
    for name in needed:
        if name not in named or not (path / name).is_dir():
            raise ValueError(
                f"the checkpoint {model!r} lacks the component {name!r}; needed are {', '.join(needed)}, a folder each"
            )
        if name.startswith("tokenizer") and not any(
            (path / name / file).exists() for file in ("tokenizer.json", "vocab.json")
        ):
            raise ValueError(f"the {name} of {model!r} has no vocabulary: neither tokenizer.json nor vocab.json")
    try:
        networks = {name: _network(path / name, parts[name], unsafe) for name in needed if name in NETWORKS}
        return DiffusionPipeline.from_pretrained(
            path,
            local_files_only=True,
            **{name: None for name in NOT_LOADED if name in parts},
            **networks,
            torch_dtype=torch.float32,
        )
    except Exception as error:  # of many kinds, some of safetensors, diffusers and transformers alone
        raise ValueError(f"the checkpoint {model!r} cannot be read: {one_line(error)}") from None


def _parts(index: Path) -> dict:
    """What a checkpoint is made of, by its model_index.json."""
    try:
        parts = json.loads(index.read_text())
        if isinstance(parts, dict):
            return parts
    except (OSError, ValueError):
        pass
    raise ValueError(f"{str(index)!r} cannot be read, or is not what it should be in JSON")


def _network(folder: Path, class_: Sequence[str], unsafe: bool) -> torch.nn.Module:
    """A network of a checkpoint. `ValueError` where a weight is not in its files: the libraries would fill in random
    numbers, and go on."""
    library, name = class_
    if library not in ("diffusers", "transformers"):
        raise ValueError(f"its {folder.name} is a {name} of {library}, which is not known here")
    files = list(folder.glob("*.safetensors"))
    if not files and not unsafe:
        pickles = any(folder.glob("*.bin"))
        raise ValueError(
            f"the component {folder.name!r} has no weights in safetensors"
            + (
                ", only pickles (.bin), which can run code; convert them, or allow that (--unsafe-weights)"
                if pickles
                else ""
            )
        )
    half = files and all(".fp16." in file.name for file in files)
    kind = getattr(importlib.import_module(library), name)
    made, info = kind.from_pretrained(
        folder,
        local_files_only=True,
        output_loading_info=True,
        **({"variant": "fp16"} if half else {}),
        **_settings(unsafe),
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"its {folder.name} lacks {len(missing)} weights, {missing[0]!r} for one: "
            "they are of another model, or of another version"
        )
    return made


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
        if "XL" in _parts(index).get("_class_name", ""):
            kind = StableDiffusionXLPipeline
    elif config is None and path.suffix == ".safetensors":
        kind = StableDiffusionXLPipeline if _has_two_encoders(path) else kind
    try:
        parts = inspect.signature(kind.__init__).parameters
        return kind.from_single_file(
            str(path),
            config=config,
            local_files_only=local_only or _offline() or (config is not None and Path(config).is_dir()),
            torch_dtype=torch.float32,
            **{name: None for name in NOT_LOADED if name in parts},
        )
    except Exception as error:  # of many kinds, some of diffusers' own
        hint = ""
        if config is None:
            hint = (
                "; a single file does not say how it is built, and the hub that would was not reached: give --config a "
                "folder with the JSON files and tokenizers of its kind "
                "(of SD 1.5: stable-diffusion-v1-5/stable-diffusion-v1-5 without its weights)"
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
            f"there is no checkpoint at {model!r}: "
            "it is neither a folder, nor a .safetensors file, nor a hub id such as org/name"
        )
    wanted = [f"{name}/*" for name in (*NEEDED, "text_encoder_2", "tokenizer_2")]
    try:
        folder = DiffusionPipeline.download(
            model,
            local_files_only=local_only or _offline(),
            safety_checker=None,
            use_safetensors=None if unsafe else True,
        )
    except Exception as error:
        why = (
            "the hub is not to be used" if local_only or _offline() else "the hub was not reached, or does not have it"
        )
        raise ValueError(
            f"the checkpoint {model!r} is neither a folder here nor in the hub's cache, "
            f"and {why} ({one_line(error)[:120]}); where there is a network, run: "
            f"hf download {model} model_index.json {' '.join(map(repr, wanted))} --local-dir {model.split('/')[1]}"
            "  and give that folder as the model"
        ) from None
    return _from_folder(Path(folder), unsafe)


def _other_unet(pipe: "DiffusionPipeline", unet: str, local_only: bool, unsafe: bool) -> "UNet2DConditionModel":
    """A UNet alone: a published student of PeRFlow or Rectified Diffusion, or one that `toydiff export` wrote."""
    from diffusers import UNet2DConditionModel

    path = Path(unet)
    inside = not (path / "config.json").exists() and (path / "unet" / "config.json").exists()
    if path.exists() and not inside and not (path / "config.json").exists():
        raise ValueError(
            f"{unet!r} holds no UNet: a folder with config.json and weights is needed, "
            "or one with such a folder named unet"
        )
    if not path.exists() and (unet.count("/") != 1 or unet.startswith((".", "/", "~"))):
        raise ValueError(f"there is no UNet at {unet!r}")
    found: UNet2DConditionModel
    try:
        if path.exists():
            found = _network(path / "unet" if inside else path, ("diffusers", "UNet2DConditionModel"), unsafe)
        else:
            found = UNet2DConditionModel.from_pretrained(
                unet, local_files_only=local_only or _offline(), **_settings(unsafe)
            )
    except Exception as error:
        raise ValueError(f"the UNet {unet!r} cannot be read: {one_line(error)}") from None
    for name in ("in_channels", "cross_attention_dim", "addition_embed_type"):
        theirs, ours = found.config.get(name), pipe.unet.config.get(name)
        if theirs != ours:
            raise ValueError(f"the UNet {unet!r} does not fit this checkpoint: its {name} is {theirs}, not {ours}")
    return found


def _add_lora(pipe: "DiffusionPipeline", lora: str, local_only: bool, unsafe: bool) -> None:
    """Add a LoRA to the weights for good: LCM-LoRA, PCM-LoRA, or one that `toydiff export` wrote. `ValueError` if it is
    not there or does not fit."""
    path = Path(lora)
    if not path.exists() and (lora.count("/") != 1 or lora.startswith((".", "/", "~"))):
        raise ValueError(f"there is no LoRA at {lora!r}")
    where = {"pretrained_model_name_or_path_or_dict": lora}
    if path.is_file():
        if path.suffix != ".safetensors" and not unsafe:
            raise ValueError(
                f"the LoRA {lora!r} is a pickle, which can run code; "
                "use a .safetensors file, or allow it (--unsafe-weights)"
            )
        where = {"pretrained_model_name_or_path_or_dict": str(path.parent or "."), "weight_name": path.name}
    elif path.is_dir() and not any(path.glob("*.safetensors")) and not unsafe:
        raise ValueError(f"the folder {lora!r} holds no LoRA: it has no .safetensors file")
    try:
        pipe.load_lora_weights(
            **where,
            adapter_name="given",
            local_files_only=path.exists() or local_only or _offline(),
            use_safetensors=None if unsafe else True,
        )
        if "given" not in {name for names in pipe.get_list_adapters().values() for name in names}:
            raise ValueError("none of its weights is one of this checkpoint's")
        pipe.fuse_lora(adapter_names=["given"])
        pipe.unload_lora_weights()
    except Exception as error:  # of many kinds, some of safetensors and peft alone
        raise ValueError(
            f"the LoRA {lora!r} does not fit this checkpoint, or cannot be read: {one_line(error)}"
        ) from None


def _follow_scheduler(pipe: "DiffusionPipeline", student: str | None) -> None:
    """Use the scheduler of a student that `toydiff export` wrote. A flow, say, has another schedule and kind than the
    checkpoint that it was made of."""
    if student is None or not (Path(student) / EXPORTED).exists():
        return
    import diffusers

    folder = Path(student) / "scheduler"
    try:
        name = json.loads((folder / "scheduler_config.json").read_text())["_class_name"]
        pipe.register_modules(scheduler=getattr(diffusers, name).from_pretrained(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the scheduler of the student {student!r} cannot be read: {one_line(error)}") from None
