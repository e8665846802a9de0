"""Checkpoints on the hub: what a repository has is looked at first, and only files that are read are fetched."""

import os
from collections.abc import Sequence
from pathlib import Path

from . import layout
from .families import FAMILIES
from .quiet import one_line

WORDS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
SETTINGS = ("config.json", "scheduler_config.json")


def is_id(name: str) -> bool:
    """Whether this can be the name of a repository: org/name."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def offline(local_only: bool) -> bool:
    """Whether the hub is not to be used."""
    return local_only or os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")


def names(repository: str, local_only: bool) -> list[str]:
    """The files of a repository, or, where the hub is not used or not reached, those of its copy here. `ValueError`
    where there is neither."""
    import huggingface_hub

    error: Exception = OSError("the hub is not to be used")
    if not offline(local_only):
        try:
            return [file.rfilename for file in huggingface_hub.HfApi().model_info(repository).siblings or []]
        except Exception as raised:  # of many kinds, those of its client for HTTP among them
            error = raised
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
    except Exception:
        raise ValueError(one_line(error)[:120]) from None
    return [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]


def file(repository: str, name: str, local_only: bool) -> Path:
    """A file of a repository, fetched where it is not here."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=offline(local_only)))
    except Exception:
        if not offline(local_only):
            try:  # the hub may be out of reach, and the file be here
                return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
            except Exception as error:
                raise ValueError(one_line(error)[:120]) from None
        raise ValueError(f"{name} of {repository!r} is not in the hub's cache") from None


def checkpoint(model: str, local_only: bool, unsafe: bool) -> Path:
    """The folder of a checkpoint. Its model_index.json comes first: what is not supported is refused before any weight
    is fetched. `ValueError` with what to do where the hub is not reached."""
    if not is_id(model):
        raise ValueError(
            f"there is no checkpoint at {model!r}: "
            "it is neither a folder, nor a .safetensors file, nor a hub id such as org/name"
        )
    try:
        there = names(model, local_only)
        index = file(model, "model_index.json", local_only) if "model_index.json" in there else None
    except ValueError as error:
        every = dict.fromkeys(name for family in FAMILIES for name in (*family.classes, "scheduler"))
        wanted = [f"{name}/*" for name in every]
        why = "the hub is not to be used" if offline(local_only) else "the hub was not reached, or does not have it"
        raise ValueError(
            f"the checkpoint {model!r} is neither a folder here nor in the hub's cache, and {why} ({error}); where "
            f"there is a network, run: hf download {model} model_index.json {' '.join(map(repr, wanted))} "
            f"--local-dir {model.split('/')[1]}  and give that folder as the model"
        ) from None
    if index is None:
        raise ValueError(
            f"{model!r} is no checkpoint in diffusers' layout: it has no model_index.json; for a single file, fetch it "
            "and give the file, for a LoRA --lora, for a UNet alone --unet"
        )
    family, parts = layout.parts_of(index.parent, model)
    wanted = ["model_index.json"]
    for name in family.needed(parts):
        own = [one.removeprefix(f"{name}/") for one in there if one.startswith(f"{name}/")]
        wanted += [f"{name}/{one}" for one in own if one in (*WORDS, *SETTINGS)]
        if name in family.networks:
            wanted += [f"{name}/{one}" for one in _weights(own, name, unsafe, repr(model))]
    for one in wanted:
        index = file(model, one, local_only)
    return _root(index, wanted[-1])


def _weights(own: Sequence[str], component: str, unsafe: bool, of: str) -> list[str]:
    """The files of a component's weights, and those that say which shard holds what."""
    try:
        _, chosen = layout.choose(own, component, unsafe)
    except ValueError as error:
        raise ValueError(f"of {of}, {error}") from None
    return [*chosen, *(one for one in own if ".index." in one and one.endswith(".json"))]


def _root(path: Path, name: str) -> Path:
    """The folder in which a file of this name lies."""
    return path.parents[name.count("/")]


def network(model: str, part: str, local_only: bool, unsafe: bool) -> Path:
    """The folder of a component alone: a UNet, a transformer, or a VAE."""
    there = names(model, local_only)
    inside = "" if "config.json" in there else f"{part}/"
    own = [one.removeprefix(inside) for one in there if one.startswith(inside) and "/" not in one.removeprefix(inside)]
    if "config.json" not in own:
        raise ValueError("it has no config.json")
    path = file(model, inside + "config.json", local_only)
    for one in _weights(own, part, unsafe, repr(model)):
        file(model, inside + one, local_only)
    return path.parent


def configuration(model: str, local_only: bool, of: str = "") -> Path:
    """The folder with the JSON files and the words of a checkpoint, without its weights. of: what they are needed for,
    where the user did not name this checkpoint."""
    try:
        there = names(model, local_only)
        index = file(model, "model_index.json", local_only)
        family, parts = layout.parts_of(index.parent, model)
        for name in family.needed(parts):
            for one in there:
                if one.rpartition("/")[0] == name and one.rpartition("/")[2] in (*WORDS, *SETTINGS):
                    file(model, one, local_only)
    except ValueError as error:
        if of:
            raise ValueError(
                f"{of} does not say how it is built, and {model!r} on the hub, which would, was not reached ({error}): "
                "give --config a folder with the JSON files and tokenizers of its kind "
                "(of SD 1.5: stable-diffusion-v1-5/stable-diffusion-v1-5 without its weights)"
            ) from None
        raise ValueError(f"the configuration {model!r} is neither a folder, nor reached on the hub ({error})") from None
    return index.parent
