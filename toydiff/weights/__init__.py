"""Weights that ship with the package: for each id a file of tensors, and a JSON file that says how it was made and what it measures."""

from pathlib import Path

from torch import Tensor

from ..checkpoints import VERSION, checksum, read_index, read_tensors, tensor_bytes, versions, write_index
from ..checks import unknown
from ..denoisers import LambdaDenoiser
from ..files import write_bytes
from ..nets import make_net, name_of
from ..schedules import schedule_config, schedule_from_config

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


def describe(D: LambdaDenoiser) -> dict:
    """What is needed beside the weights to build a denoiser again: its network, schedule and kind."""
    return {
        "net": name_of(D.net), "config": D.net.config, "schedule": schedule_config(D.schedule), "kind": D.kind,
    }  # fmt: skip


def build(description: dict, tensors: dict[str, Tensor]) -> LambdaDenoiser:
    """The denoiser of a description with these weights, frozen; half-precision weights become float32 ones. `ValueError` if they do not fit."""
    try:
        net = make_net(description["net"], description["config"])
        D = LambdaDenoiser(net, schedule_from_config(description["schedule"]), description["kind"])
        D.net.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the weights do not fit their description: {' '.join(str(error).split())[:200]}") from None
    return D.eval().requires_grad_(False)


def load_denoiser(id_: str, folder: Path = FOLDER) -> LambdaDenoiser:
    """The denoiser of an id."""
    tensors, about = load(id_, folder)
    if "denoiser" not in about:
        raise ValueError(f"the weights {id_!r} are no denoiser, and cannot be sampled from")
    return build(about["denoiser"], tensors)
