"""Runs on disk: safetensors and JSON, written so that a process killed at any moment leaves a whole run behind.

A run is a folder. Tensors go to `step-N.safetensors` first; then `run.json`, which names that file and its checksum, is
replaced in one rename. Until then the old pair stands; only afterwards is the old file of tensors deleted. So the
folder always holds one whole checkpoint.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..support.checks import check_count, shape
from ..support.files import check_folder, inside, read_bytes, write_bytes
from ..support.forms import check_form, count, file_name, number, word
from ..support.locks import Lock
from ..support.sealed import VERSION, checksum, contradicts, read_index, write_index
from ..support.words import said
from .loop import Record, State, laid_out_as

FORMAT = "toydiff-run"
INDEX = "run.json"
LONGER = ", or train on from its result in another folder: --start {} --out ANOTHER"
CONTENT = "content"
"""The key of what identifies a run by content and not by name: digests of the weights that it was begun with."""
NEWER = (CONTENT, "definition", "sampler")
"""Keys in which a run of an earlier version may differ: what the first two say is compared by content, and how the
result is sampled changes nothing that is trained."""
FREE = "data_std"
"""A key inside others that is not compared either: it follows from the data, and earlier runs lack it."""
HISTORY = 500
"""About as many points of the loss curve are kept."""


def versions() -> dict[str, str]:
    """What a file was made with."""
    from .. import __version__

    return {"toydiff": __version__, "torch": torch.__version__.split("+")[0], "python": platform.python_version()}


def read_run(folder: Path | str) -> dict:
    """The index of the run in a folder: about, step, steps, file, sha256, seconds, turns, history, measured,
    versions.

    A run may be a stranger's. `ValueError` if there is none, and for values of another type or out of range.
    """
    path = Path(folder) / INDEX
    index = read_index(path, FORMAT, "run of toydiff", tuple(FORM))
    if not isinstance(index["about"], dict):
        raise ValueError(f"{str(path)!r} is not a whole run of toydiff: it does not say what was run")
    check_form(index, FORM, f"the run in {str(path)!r}")
    check_form(
        index.get("measured", []), [{"step": count(), "distance": number}], f"the run in {str(path)!r}", "measured"
    )
    return index


FORM = {
    "about": {},
    "step": count(),
    "steps": count(),
    "file": file_name,
    "sha256": word,
    "seconds": lambda value: number(value) and value >= 0,
    "turns": [word],
    "history": [[number]],
}
"""The form of a run's index."""


def check_out(folder: Path | str, resume: bool) -> Path:
    """The folder, once it is known to take a run: it can be written, and holds no run that would be lost. `ValueError`
    if not. Nothing is created."""
    folder = check_folder(folder)
    if (folder / INDEX).exists() and not resume:
        raise ValueError(
            f"the folder {str(folder)!r} already holds a run; continue it with --resume, or choose another folder"
        )
    return folder


def read_tensors(path: Path | str, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `ValueError` in one line if it is missing, truncated, altered or foreign."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"the file of tensors {str(path)!r} is missing") from None
    if sha256 is not None and checksum(data) != sha256:
        raise ValueError(f"{str(path)!r} is truncated or was altered: its checksum is not the one that was saved")
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{str(path)!r} is truncated or is not a safetensors file ({said(error)})") from None


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file; on the processor, contiguous, each with its own memory."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})


@dataclass
class Checkpoints:
    """Where a run is saved, every `every` updates and at its end, and from where it continues.

    `about` identifies the run (method, problem, hyper-parameters, seed), as JSON; a folder with another run is refused.
    With `resume`, a run in the folder is continued, and an empty folder begins one. Without it, a folder that already
    holds a run is refused, so that none is overwritten by mistake.

    The loop that trains calls `load` before it begins and `after` with each record of `fit`:

        checkpoints = Checkpoints(folder, {"method": "mine", "seed": 0}, resume=True)
        state = State.of(turns, averages=[average], modules={"student": student, "average": average})
        checkpoints.load(state)
        for record in fit(state, 1000):
            checkpoints.after(record, state, 1000)

    From `load` to the last update no other process may train into the folder (`support.locks.Lock`). Work that this
    process began there and left is over once a run with `resume` goes on with it.

    A process may be killed at any moment, by `kill -9` in the middle of a write too. It leaves the update that was last
    saved, whole, from which a new process repeats the uninterrupted run bit for bit. A loop of another kind moves
    `state.step` itself and calls `save(state, steps)`. `ValueError` for settings that are not JSON.
    """

    folder: Path
    about: dict
    every: int = 250
    resume: bool = False
    saved: int | None = field(default=None, init=False)
    _lock: Lock | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_count(self.every, "every")
        try:  # as the file will give it back: its lists are no tuples
            self.about = json.loads(json.dumps(self.about))
        except (TypeError, ValueError) as error:
            raise ValueError(f"about, which identifies a run, must be JSON: {error}") from None
        self.folder = check_out(self.folder, self.resume)

    @property
    def last_good(self) -> str:
        """Where the last whole checkpoint is, for a message."""
        if self.saved is None:
            return f"no checkpoint was saved in {str(self.folder)!r} yet"
        return f"the last good checkpoint is that of update {self.saved} in {str(self.folder)!r}"

    def load(self, state: State) -> None:
        """Put the saved tensors and numbers into `state`; nothing happens if the folder holds no run yet.

        `ValueError` for a run that was begun otherwise, damaged files, a state whose `modules` lack weights that its
        updates change, or a folder in which another process trains.
        """
        state.check_whole()
        if state.draws.rank == 0:
            self._hold()
        if not (self.folder / INDEX).exists():
            return
        index = read_run(self.folder)
        # a key that only one of the two has, such as that of a watch, differs too
        for key in [*self.about, *index["about"]]:
            found, wanted = _compared(index["about"].get(key)), _compared(self.about.get(key))
            if key not in NEWER and found != wanted:
                name, found, wanted = _difference(key, found, wanted)
                raise ValueError(
                    f"the run in {str(self.folder)!r} has {said(name)} = {said(repr(found))}, "
                    f"not {said(repr(wanted))}; resume it as it was begun"
                    + (LONGER.format(str(self.folder)) if name == "updates" else "")
                )
        self._check_content(index["about"])
        tensors = read_tensors(inside(self.folder, index["file"]), index["sha256"])
        restore(state, tensors, index, str(self.folder))
        self.saved = state.step
        self._keep_only(index["file"])

    def _check_content(self, about: dict) -> None:
        """`ValueError` where what the run was begun with has the same name now, and is another thing. A run of an
        earlier version does not say what it was begun with."""
        found, wanted = about.get(CONTENT), self.about.get(CONTENT)
        if not (isinstance(found, dict) and isinstance(wanted, dict)):
            return
        for name, value in wanted.items():
            if contradicts(found.get(name), value):
                raise ValueError(
                    f"the run in {str(self.folder)!r} was begun with {name} of another content than {name} given now, "
                    "whatever the name; resume it as it was begun, or begin another run"
                )

    def _hold(self) -> None:
        """Take the folder's lock, or make sure that it is still held."""
        if self._lock is None:
            self._lock = Lock(self.folder, takeover=self.resume)
            if self.saved is None:  # another run may have ended there since this one was set up
                check_out(self.folder, self.resume)
        self._lock.check()

    def release(self) -> None:
        """Let other processes train into the folder: this run saves no more."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def after(self, record: Record, state: State, steps: int) -> None:
        """Note the record of a run of `steps` updates, and save the state where it is time to; of several processes
        only the first does."""
        if state.draws.rank > 0:
            return
        if record.last:  # a watch may end a run early
            steps = record.step
        if record.last or record.step % max(1, steps // HISTORY) == 0:
            state.history.append([record.step, *record.losses.values()])
        if record.last or record.step % self.every == 0:
            self.save(state, steps, tuple(record.losses))
        if record.last:
            self.release()

    def save(self, state: State, steps: int, turns: tuple[str, ...] = ()) -> None:
        """Write the state, whole or not at all; `ValueError` if its `modules` lack weights that its updates change, or
        if other work was begun in the folder."""
        state.check_whole()
        self._hold()
        data = tensor_bytes(contents(state))
        name = f"step-{state.step:08d}.safetensors"
        write_bytes(self.folder / name, data)
        index = {
            "format": FORMAT,
            "version": VERSION,
            "about": self.about,
            "step": state.step,
            "steps": steps,
            "file": name,
            "sha256": checksum(data),
            "seconds": state.seconds,
            "turns": list(turns),
            "history": state.history,
            "measured": state.measured,
            "versions": versions(),
        }
        write_index(self.folder / INDEX, index)
        self.saved = state.step
        self._keep_only(name)

    def _keep_only(self, name: str) -> None:
        """Remove tensors that no index names: older ones, and those of a process that was killed before it could."""
        for other in self.folder.glob("step-*.safetensors"):
            if other.name != name:
                other.unlink(missing_ok=True)


def _compared(value: object) -> object:
    """What is compared of a value that identifies a run."""
    return {key: part for key, part in value.items() if key != FREE} if isinstance(value, dict) else value


def _difference(name: str, found: object, wanted: object) -> tuple[str, object, object]:
    """The first place, however deep, where two settings differ: what it is called there, and both values."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return name, found, wanted
    key = next(key for key in [*wanted, *found] if found.get(key) != wanted.get(key))
    return _difference(key, found.get(key), wanted.get(key))


def contents(state: State) -> dict[str, Tensor]:
    """Everything that an update depends on, as named tensors."""
    out = {"random": state.draws.generator.get_state(), "global_random": torch.get_rng_state()}
    for name, module in state.modules.items():
        out |= {f"module.{name}.{key}": value for key, value in module.state_dict().items()}
    for k, optimizer in enumerate(state.optimizers):
        for i, slots in optimizer.state_dict()["state"].items():
            out |= {f"optimizer.{k}.{i}.{key}": torch.as_tensor(value) for key, value in slots.items()}
    return out


def restore(state: State, tensors: dict[str, Tensor], index: dict, where: str) -> None:
    """The inverse of `contents`, into a state of the same shape; `ValueError` if it is of another one."""
    try:
        for name, module in state.modules.items():
            prefix = f"module.{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for k, optimizer in enumerate(state.optimizers):
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{k}."):
                    _, _, number, slot = key.split(".")
                    slots.setdefault(int(number), {})[slot] = value
            groups, params = optimizer.state_dict()["param_groups"], optimizer.param_groups[0]["params"]
            if slots and sorted(slots) != list(range(len(params))):
                raise KeyError(f"optimizer {k} has another number of parameters")
            for i, own in slots.items():
                _check_moments(own, params[i], f"optimizer {k}")
                slots[i] = {
                    key: laid_out_as(params[i], v) if v.shape == params[i].shape else v for key, v in own.items()
                }
            optimizer.load_state_dict({"state": slots, "param_groups": groups})
        for name, module in state.modules.items():
            check_weights(dict(module.named_parameters()), f"{name} of the run in {where!r}")
        state.draws.generator.set_state(tensors["random"])
        torch.set_rng_state(tensors["global_random"])
        state.step, state.seconds, state.history = int(index["step"]), float(index["seconds"]), list(index["history"])
        state.measured = list(index.get("measured", ()))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the run in {where!r} does not fit this method: {said(error)}") from None


def check_weights(weights: Mapping[str, Tensor], what: str) -> None:
    """`ValueError` for weights that are NaN or infinite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"the weights of {what} are not finite: {said(name)} has NaN or infinity")


MOMENTS = ("exp_avg", "exp_avg_sq")


def _check_moments(slots: dict[str, Tensor], p: Tensor, what: str) -> None:
    """`ValueError` unless these are Adam's moments of the parameter: a fused optimizer walks their memory by the shape
    of the parameter."""
    if set(slots) != {"step", *MOMENTS}:
        raise ValueError(f"{what} has {', '.join(sorted(slots))} of a parameter, not step, {', '.join(MOMENTS)}")
    for name, value in slots.items():
        wanted = () if name == "step" else tuple(p.shape)
        if tuple(value.shape) != wanted or not value.is_floating_point():
            raise ValueError(f"{what} has {name} of shape {shape(value)} and {value.dtype}, not of shape {wanted}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{what} has {name} that is not finite")
