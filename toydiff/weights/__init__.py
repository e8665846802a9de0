"""Weights that ship with the package: for each id a file of tensors, and a JSON file that says how it was made and what
it measures.

A student that started from other bundled weights is stored as its change of those, in 8 bits a number: half the size of
half precision.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..denoisers import LambdaDenoiser
from ..schedules import schedule_config, schedule_from_config
from ..support.checks import unknown
from ..support.files import write_bytes
from ..training.checkpoints import VERSION, checksum, read_index, read_tensors, tensor_bytes, versions, write_index
from .networks import make_net, name_of

FOLDER = Path(__file__).parent
FORMAT = "toydiff-weights"


def bundled() -> list[str]:
    """The ids that are there, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_about(id_: str, folder: Path = FOLDER) -> dict:
    """The JSON of an id; `ValueError` for one that is not there, or a file that is damaged."""
    if folder == FOLDER and id_ not in bundled():
        raise unknown("bundled weights", id_, bundled())
    return read_index(folder / f"{id_}.json", FORMAT, "file of weights", ("sha256",))


def load(id_: str, folder: Path = FOLDER) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the JSON of an id; `ValueError` as `read_about`."""
    about = read_about(id_, folder)
    return read_tensors(folder / f"{id_}.safetensors", about["sha256"]), about


def save(id_: str, tensors: dict[str, Tensor], about: dict, folder: Path = FOLDER) -> None:
    """Write the tensors of an id and its JSON; the JSON, with the checksum, last."""
    data = tensor_bytes(tensors)
    write_bytes(folder / f"{id_}.safetensors", data)
    header = {"format": FORMAT, "version": VERSION, "id": id_, "sha256": checksum(data), "bytes": len(data)}
    write_index(folder / f"{id_}.json", header | about | {"versions": versions()})


WHOLE, SCALE = 127, ".scale"


def change(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they differ from those of a base, by name: matrices and kernels in whole numbers -127 ... 127 with one
    scale a row.

    What the base lacks, vectors, and the scales are in half precision.
    """
    out = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or name not in base or base[name].shape != tensor.shape:
            out[name] = tensor.half()
            continue
        rows = (tensor.float() - base[name].float()).flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / WHOLE).clamp(min=1e-7).half()
        whole = torch.round(rows / scale.float()).clamp(-WHOLE, WHOLE).to(torch.int8)
        out |= {name: whole.view(tensor.shape), name + SCALE: scale[:, 0]}
    return out


def changed(stored: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors again: what `change` stored, put on the base."""
    out = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scale = stored[name + SCALE].float().reshape(-1, *[1] * (tensor.ndim - 1))
            out[name] = base[name].float() + scale * tensor.float()
        elif not name.endswith(SCALE):
            out[name] = tensor.float()
    return out


def network_tensors(id_: str, folder: Path = FOLDER) -> tuple[dict[str, Tensor], dict]:
    """The weights of an id's network, whole, and its JSON. `ValueError` if the weights that they are a change of
    were built anew since."""
    tensors, about = load(id_, folder)
    if about.get("base") is None:
        return tensors, about
    base, of_base = network_tensors(about["base"], folder)
    if of_base["sha256"] != about["base_sha256"]:
        raise ValueError(
            f"the weights {id_!r} are a change of {about['base']!r}, which were built anew since; run: toydiff zoo build {id_}"
        )
    try:
        return changed(tensors, base), about
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the weights {id_!r} do not fit those that they are a change of, {about['base']!r}: {reason}"
        ) from None


def describe(D: LambdaDenoiser) -> dict:
    """What is needed beside the weights to build a denoiser again: its network, schedule and kind."""
    return {
        "net": name_of(D.net), "config": D.net.config, "schedule": schedule_config(D.schedule), "kind": D.kind,
    }  # fmt: skip


def build(description: dict, tensors: dict[str, Tensor]) -> LambdaDenoiser:
    """The denoiser of a description with these weights, frozen; half-precision ones become float32. `ValueError` if
    they do not fit."""
    try:
        net = make_net(description["net"], description["config"])
        D = LambdaDenoiser(net, schedule_from_config(description["schedule"]), description["kind"])
        D.net.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the weights do not fit their description: {' '.join(str(error).split())[:200]}") from None
    return D.eval().requires_grad_(False)


def load_denoiser(id_: str, folder: Path = FOLDER) -> LambdaDenoiser:
    """The denoiser of an id."""
    tensors, about = network_tensors(id_, folder)
    if "denoiser" not in about:
        raise ValueError(f"the weights {id_!r} are no denoiser, and cannot be sampled from")
    return build(about["denoiser"], tensors)
