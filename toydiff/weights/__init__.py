"""Weights that ship with the package. Each id has a file of tensors and a JSON file, which says how the weights were
made and what they measured.

A large student that started from other bundled weights is stored as its change of those, in 8 bits a number, which is
half the size of half precision.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..discrete import NetPosterior, Posterior, path_from_config
from ..nets import StringGRU, TokenUNet
from ..nets.low_rank import stored_name
from ..schedules import schedule_config, schedule_from_config
from ..support.checks import unknown
from ..support.files import write_bytes
from ..support.sealed import VERSION, checksum, read_index, write_index
from ..training.checkpoints import read_tensors, tensor_bytes, versions
from .networks import make_net, name_of

FOLDER = Path(__file__).parent
FORMAT = "toydiff-weights"


def bundled() -> list[str]:
    """The ids of the bundled weights, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_about(id_: str, folder: Path = FOLDER) -> dict:
    """The JSON of an id. `ValueError` for an unknown id, or a damaged file."""
    if folder == FOLDER and id_ not in bundled():
        raise unknown("bundled weights", id_, bundled())
    return read_index(folder / f"{id_}.json", FORMAT, "file of weights", ("sha256",))


def load(id_: str, folder: Path = FOLDER) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the JSON of an id, as they are stored. `ValueError` for an unknown id, or a damaged file."""
    about = read_about(id_, folder)
    return read_tensors(folder / f"{id_}.safetensors", about["sha256"]), about


def save(id_: str, tensors: dict[str, Tensor], about: dict, folder: Path = FOLDER) -> None:
    """Write the tensors of an id, and then its JSON with their checksum."""
    data = tensor_bytes(tensors)
    write_bytes(folder / f"{id_}.safetensors", data)
    header = {"format": FORMAT, "version": VERSION, "id": id_, "sha256": checksum(data), "bytes": len(data)}
    write_index(folder / f"{id_}.json", header | about | {"versions": versions()})


def change_about(id_: str, changes: Mapping[str, object], folder: Path = FOLDER) -> None:
    """Write an id's JSON again, with other values of some keys. The tensors stay."""
    about = {key: value for key, value in read_about(id_, folder).items() if key != "seal"}
    write_index(folder / f"{id_}.json", about | dict(changes))


WHOLE, SCALE = 127, ".scale"
"""The largest whole number of a change, and the end of the name of its scales."""


IMAGE = "image."
"""What the names of the image network inside a network of clips begin with."""


def change(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The difference of tensors from those of a base, in small numbers, by name.

    A matrix or kernel becomes whole numbers from -127 to 127, with one scale for each row. Vectors are stored whole, in
    half precision, and so are tensors that the base lacks. A matrix below a low-rank adapter, which is frozen, is left
    out where it is the base's, but for the rounding of a stored base. The base of a network of clips may be its image
    network.
    """
    out, base = {}, _aligned(base, tensors)
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or name not in base or base[name].shape != tensor.shape:
            out[name] = tensor.half()
            continue
        rows = (tensor.float() - base[name].float()).flatten(1)
        largest = rows.abs().amax(1, keepdim=True)
        if name.endswith(FROZEN) and float(largest.max()) <= float(tensor.abs().max()) / WHOLE:
            continue
        scale = (largest / WHOLE).clamp(min=1e-7).half()
        whole = torch.round(rows / scale.float()).clamp(-WHOLE, WHOLE).to(torch.int8)
        out |= {name: whole.view(tensor.shape), name + SCALE: scale[:, 0]}
    return out


def changed(stored: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `change`: the tensors, from their stored difference and the base."""
    out, base = {}, _aligned(base, stored)
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scale = stored[name + SCALE].float().reshape(-1, *[1] * (tensor.ndim - 1))
            out[name] = base[name].float() + scale * tensor.float()
        elif not name.endswith(SCALE):
            out[name] = tensor.float()
            frozen = name.removesuffix(ADAPTER) + FROZEN
            if name.endswith(ADAPTER) and frozen not in stored:
                out[frozen] = base[frozen].float()
    return out


FROZEN, ADAPTER = ".original", ".0.down"
"""The ends of the names of a matrix below a low-rank adapter, and of one of the adapter's own."""


def _aligned(base: Mapping[str, Tensor], names: Mapping[str, object]) -> dict[str, Tensor]:
    """A base's tensors by the names that they have in a network of `names`: an image network inside one of clips and
    below low-rank adapters, or the one inside for an image network."""
    of_clips, inside = (any(name.startswith(IMAGE) for name in one) for one in (base, names))
    if of_clips and not inside:
        base = {name.removeprefix(IMAGE): tensor for name, tensor in base.items() if name.startswith(IMAGE)}
    elif inside and not of_clips:
        base = {IMAGE + name: tensor for name, tensor in base.items()}
    return {stored_name(name, names): tensor for name, tensor in base.items()}


def network_tensors(id_: str, folder: Path = FOLDER) -> tuple[dict[str, Tensor], dict]:
    """The weights of an id's network and its JSON. A stored change is added to its base. `ValueError` if the base was
    built again since, or for what `load` refuses."""
    tensors, about = load(id_, folder)
    if about.get("base") is None:
        return tensors, about
    base, of_base = network_tensors(about["base"], folder)
    if of_base["sha256"] != about["base_sha256"]:
        raise ValueError(
            f"the weights {id_!r} are a change of {about['base']!r}, which were built anew since; "
            f"run: toydiff zoo build {id_}"
        )
    try:
        return changed(tensors, base), about
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the weights {id_!r} do not fit those that they are a change of, {about['base']!r}: {reason}"
        ) from None


POSTERIOR = "posterior"
"""The kind of a model of tokens in a description. Its schedule is its path."""


def storable(D: Denoiser | Posterior) -> LambdaDenoiser | NetPosterior:
    """The model as it is. `ValueError` for one that cannot be stored: only a `LambdaDenoiser` or `NetPosterior` can."""
    if not isinstance(D, LambdaDenoiser | NetPosterior):
        raise ValueError(f"only a LambdaDenoiser can be stored, or a NetPosterior, got {type(D).__name__}")
    return D


def describe(D: Denoiser | Posterior) -> dict:
    """What `build` needs beside the weights to build a model again: its network, schedule and kind, as JSON.
    `ValueError` for a model that cannot be stored."""
    D = storable(D)
    net = D.net
    if isinstance(D, NetPosterior):
        return {"net": name_of(net), "config": net.config, "schedule": D.path.config(), "kind": POSTERIOR}
    return {
        "net": name_of(net),
        "config": net.config,
        "schedule": schedule_config(D.schedule),
        "kind": D.kind,
        "data_std": D.data_std,
    }


def build(description: dict, tensors: dict[str, Tensor]) -> LambdaDenoiser | NetPosterior:
    """The model of a `describe` with these weights, frozen, in float32. `ValueError` if they do not fit."""
    D: LambdaDenoiser | NetPosterior
    try:
        net = make_net(description["net"], description["config"])
        if isinstance(net, StringGRU | TokenUNet) != (description["kind"] == POSTERIOR):
            raise KeyError(f"the network {description['net']} does not predict {description['kind']}")
        if isinstance(net, StringGRU | TokenUNet):
            D = NetPosterior(net, path_from_config(description["schedule"]), net.length)
        else:
            D = LambdaDenoiser(net, schedule_from_config(description["schedule"]), description["kind"])
            D.data_std = description.get("data_std", 1.0)  # of files that are older than it: 1
        D.net.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the weights do not fit their description: {' '.join(str(error).split())[:200]}") from None
    return D.eval().requires_grad_(False)


def load_model(id_: str, folder: Path = FOLDER) -> LambdaDenoiser | NetPosterior:
    """The model of an id, a denoiser or a posterior of tokens. `ValueError` for what `network_tensors` refuses, or
    weights that are neither's."""
    tensors, about = network_tensors(id_, folder)
    if "denoiser" not in about:
        raise ValueError(f"the weights {id_!r} are no denoiser, and cannot be sampled from")
    return build(about["denoiser"], tensors)


def load_denoiser(id_: str, folder: Path = FOLDER) -> LambdaDenoiser:
    """The denoiser of an id. `ValueError` for what `load_model` refuses, or a model of tokens."""
    D = load_model(id_, folder)
    if isinstance(D, NetPosterior):
        raise ValueError(f"the weights {id_!r} are a model of tokens, and no denoiser")
    return D
