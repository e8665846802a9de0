"""Students for diffusers: a LoRA, a motion adapter or a whole network, the scheduler that samples it, and the lines of
Python that load both."""

import copy
import inspect
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..schedules import Linear, PiecewiseLinear, Tabulated
from ..support.files import check_folder, writable_folder, write_json, write_text
from ..training.checkpoints import versions
from . import hub, layout
from .checkpoint import FRAMES, KINDS, table_of
from .families import Family
from .families.animatediff import ADAPTER, PLAIN, motion_of
from .families.base import named
from .lora import with_strength
from .network import Checkpoint, CheckpointNetwork, network_of
from .quiet import one_line, quietly
from .reading import EXPORTED, SINGLE

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

LORA_FILE = "pytorch_lora_weights.safetensors"
SCHEDULERS = {"lcm": "LCMScheduler", "ddim": "DDIMScheduler", "dpm++2m": "DPMSolverMultistepScheduler"}
"""The scheduler of diffusers that does the steps of a solver, by the solver's name."""
TABLE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
"""The settings of a scheduler that make its table of noise levels."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    what: str
    """"lora", "motion_adapter", or the network's part: "unet" or "transformer"."""
    scheduler: str
    """The name of the scheduler's class."""
    steps: tuple[int, ...]
    """The numbers of steps that the student is meant for."""
    code: str
    """Python that makes an image with it."""


def export(D: Denoiser, about: Mapping[str, Any], out: Path | str, *, whole: bool = False) -> Exported:
    """Write a student for diffusers, with its scheduler, into a folder that is empty or is still to be made.

    A LoRA is written where the student is no more than that, a motion adapter where it is no more than the layers
    between frames, and else its network. whole: the network in any case.
    about: what is known of the student (`runs.Model.about`). `ValueError` if D is no student of a checkpoint, if
    diffusers has no such network or scheduler, or if the folder is in use or cannot be written; nothing is left there
    then.

    With these weights diffusers makes the same images as `sample_images` does for the same seed. That holds at whole
    timesteps, and at the numbers of steps that the method is meant for. Where a flow is noised again at each step,
    diffusers draws that noise from torch's global stream, and FLUX's in another order: images are alike in law only.
    """
    if not isinstance(D, LambdaDenoiser) or not isinstance(D.net, CheckpointNetwork):
        raise ValueError(
            "only students of Stable Diffusion checkpoints are exported; this one's network is one of toydiff"
        )
    net, steps = D.net, tuple(about["sampler"]["steps"])
    if net.trained == "none":
        raise ValueError("this is the checkpoint itself: there is nothing of its own to export")
    folder = check_folder(out)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"the folder {str(folder)!r} is not empty; choose another one")
    scheduler = scheduler_of(D, str(about["sampler"]["solver"]), steps)
    base = net.checkpoint.about
    family = net.family
    if net.guided and not family.takes_guidance:
        raise ValueError(
            f"this student has the guidance scale as an input, and diffusers' {family.network_class} has none, "
            f"or {family.pipelines[0]} gives it none"
        )
    what = family.part
    if net.is_lora and not whole and not base["lora"] and base["unet"] is None:
        what = "lora"
    elif net.trained == "motion" and not whole and not net.guided and base["unet"] is None:
        what = ADAPTER
    code = usage(
        D,
        folder,
        what,
        type(scheduler).__name__,
        steps,
        guidance=about["sampler"].get("guidance_scale", family.usual_guidance(net.network)) if net.guided else 1.0,
        frames=(about.get("settings") or {}).get("frames"),
    )
    network = None if what == "lora" else merged(net)
    made = [place for place in folder.parents if not place.exists()]
    try:
        writable_folder(folder.parent)
        # into a folder beside it, which gets its name once it is whole
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-", suffix=".part") as name, quietly():
            part = Path(name)
            if network is None:
                _save_lora(net, part)
            else:
                network = motion_of(network) if what == ADAPTER else network
                network.save_pretrained(part / what, safe_serialization=True)
            scheduler.save_pretrained(part / "scheduler")
            write_text(part / "README.md", _readme(f"{about['method']} on {base['model']}", code))
            write_json(
                part / EXPORTED, {"about": {k: v for k, v in about.items() if k != "denoiser"}, "versions": versions()}
            )
            part.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
            part.mkdir()  # which the context then removes
    except (OSError, ValueError, SafetensorError) as error:
        for place in made:  # the innermost first
            if place.is_dir():
                place.rmdir()
        raise ValueError(f"the student cannot be written into {str(folder)!r}: {one_line(error)}") from None
    return Exported(folder, what, type(scheduler).__name__, steps, code)


def _readme(title: str, code: str) -> str:
    fence = "```"
    while fence in code:  # in the name of a folder
        fence += "`"
    title = " ".join(title.split()).encode(errors="backslashreplace").decode()
    return f"# {title}\n\nMade by toydiff. To use it:\n\n{fence}python\n{code}{fence}\n"


def _save_lora(net: CheckpointNetwork, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    layers: dict[str, Tensor] = {k: v.detach().cpu().float() for k, v in get_peft_model_state_dict(net.network).items()}
    type(net.checkpoint.pipe).save_lora_weights(
        folder, **{f"{net.family.part}_lora_layers": layers}, weight_name=LORA_FILE, safe_serialization=True
    )


def merged(net: CheckpointNetwork) -> Any:
    """A copy of the student's network for diffusers, in float32 on the processor. A LoRA is added to its weights."""
    network = copy.deepcopy(net.network).cpu().float()
    if net.trained == "lora":
        network.fuse_lora()
        network.unload_lora()
    return network


def scheduler_of(D: LambdaDenoiser, solver: str, steps: tuple[int, ...]) -> "SchedulerMixin":
    """The scheduler of diffusers that samples a denoiser as a solver does on the grid `uniform`.

    solver: by name; steps: the numbers of steps that the denoiser is meant for. `ValueError` where there is no such
    scheduler.
    """
    import diffusers

    checkpoint, schedule = network_of(D).checkpoint, D.schedule
    table = schedule.base if isinstance(schedule, PiecewiseLinear) else schedule
    if isinstance(table, Linear) and D.kind == "velocity":
        return checkpoint.family.flow_scheduler(noised=solver == "lcm")
    names = {kind: name for name, kind in KINDS.items()}
    if not isinstance(table, Tabulated) or not table.equals(checkpoint.table):
        raise ValueError(
            f"no scheduler of diffusers has the schedule {schedule!r}; "
            "a student on the checkpoint's own can be exported, or a flow"
        )
    if D.kind not in names:
        raise ValueError(f"no scheduler of diffusers takes predictions of the kind {D.kind!r}")
    if solver not in SCHEDULERS:
        raise ValueError(
            f"no scheduler of diffusers is known to do what {solver!r} does; known are {', '.join(SCHEDULERS)}"
        )
    own: dict[str, Any] = {
        "timestep_spacing": "trailing",
        "prediction_type": names[D.kind],
        "steps_offset": 0,
    }
    if solver == "ddim":
        own |= {"clip_sample": False, "set_alpha_to_one": True}
    if solver == "lcm":
        own["original_inference_steps"] = max(steps)  # the points it picks from are then those of the uniform grid
    # of the checkpoint's scheduler only the table: what else it does (Karras' levels, say) is not the student's
    theirs = checkpoint.pipe.scheduler
    known = inspect.signature(type(theirs).__init__).parameters  # a configuration also keeps what its class ignores
    own |= {key: theirs.config[key] for key in TABLE if key in known}
    with quietly():
        made = getattr(diffusers, SCHEDULERS[solver])(**own)
    # but for the last level, which is 2^-24 instead of 0 in a scheduler that divides by it
    if not table_of(made).equals(checkpoint.table, last=False):
        raise ValueError(f"{SCHEDULERS[solver]} of diffusers cannot have the noise levels of {checkpoint.source!r}")
    return made


def _folder(checkpoint: Checkpoint) -> Path:
    """The folder that a checkpoint was read from, in the hub's cache where it was named by an id."""
    at = Path(checkpoint.source)
    return at if at.is_dir() else hub.checkpoint(checkpoint.source, True, checkpoint.about["unsafe"])


def _arguments(checkpoint: Checkpoint, single: bool) -> str:
    """How diffusers reads again what a checkpoint was read from: arguments, each after a comma."""
    about, arguments = checkpoint.about, []
    if single:
        folder = Path(about["config"] or "")
        arguments.append(f"config={about['config']!r}")
    else:
        folder = _folder(checkpoint)
        if variant := _variant(checkpoint.family, folder, about["unsafe"]):
            arguments += [f"variant={variant!r}", "torch_dtype=torch.float32"]  # else the text encoder stays in half
    index = folder / "model_index.json"
    there = named(layout.read_json(index)) if index.is_file() else layout.NOT_LOADED
    taken = inspect.signature(type(checkpoint.pipe).__init__).parameters
    for name in layout.NOT_LOADED:
        if name in there and name in taken and not (folder / name).is_dir():  # it was not downloaded
            arguments.append(f"{name}=None")
    for name in checkpoint.family.texts:
        if index.is_file() and name in taken and name not in there:  # it is none of the checkpoint's
            arguments.append(f"{name}=None")
    return "".join(f", {argument}" for argument in arguments)


def _variant(family: Family, folder: Path, unsafe: bool) -> str | None:
    """The variant ("fp16") of the weights in a checkpoint's folder, where a network has no others."""
    for name in family.networks:
        files = [file.name for file in (folder / name).glob("*")]
        if files and (variant := layout.choose(files, name, unsafe)[0]):
            return variant
    return None


def usage(
    D: LambdaDenoiser,
    folder: Path,
    what: str,
    scheduler: str,
    steps: tuple[int, ...],
    guidance: float,
    frames: int | None = None,
) -> str:
    """The Python that makes an image, or a clip, with diffusers alone.

    folder: of the student; what: `Exported.what`; scheduler: the name of its class; guidance: the guidance scale;
    frames: of a clip, None for the usual number.
    """
    checkpoint, place = network_of(D).checkpoint, str(folder)
    family, about = checkpoint.family, checkpoint.about
    part, network = family.part, family.network_class
    pipeline = type(checkpoint.pipe).__name__
    single = Path(checkpoint.source).suffix in SINGLE
    arguments = _arguments(checkpoint, single)
    first, then, names = _motion(checkpoint, place if what == ADAPTER else None)
    names += [network] if what == part else []
    vae = about.get("vae")
    names += [] if vae is None else [type(checkpoint.pipe.vae).__name__]
    n = max(steps)
    schedule = D.schedule.base if isinstance(D.schedule, PiecewiseLinear) else D.schedule
    flow = isinstance(schedule, Linear)
    sigmas = f"sigmas=np.linspace(1, 0, {n}, endpoint=False)"
    lines = [
        *(["from functools import partial", ""] if flow and not family.takes_sigmas else ()),
        *(["import numpy as np"] if flow else ()),
        *(["import torch"] if "torch." in arguments else ()),
        f"from diffusers import {', '.join([pipeline, scheduler, *dict.fromkeys(names)])}",
        "",
        f"pipe = {pipeline}.{'from_single_file' if single else 'from_pretrained'}({checkpoint.source!r}"
        f"{arguments}{first})",
        *then,
    ]
    if what == "lora":
        lines.append(f"pipe.load_lora_weights({place!r}, weight_name={LORA_FILE!r})")
    elif what == ADAPTER:
        lines += _loras(about["lora"])
    else:
        lines.append(f'pipe.{part} = {network}.from_pretrained({place!r}, subfolder="{part}")')
    if vae is not None:
        inside = not (Path(vae) / "config.json").exists() and (Path(vae) / "vae").is_dir()
        subfolder = ', subfolder="vae"' if inside else ""
        lines.append(f"pipe.vae = {names[-1]}.from_pretrained({vae!r}{subfolder})")
    lines.append(f'pipe.scheduler = {scheduler}.from_pretrained({place!r}, subfolder="scheduler")')
    walk = sigmas if flow and family.takes_sigmas else f"num_inference_steps={n}"
    if flow and not family.takes_sigmas:
        lines.append(f"pipe.scheduler.set_timesteps = partial(pipe.scheduler.set_timesteps, {sigmas})")
    name, found = ("image", "images") if not family.clips else ("clip", "frames")
    many = f", num_frames={frames or min(FRAMES, family.most_frames(checkpoint.network))}" if family.clips else ""
    lines.append(
        f'{name} = pipe("a photograph of an astronaut riding a horse", {walk}, guidance_scale={guidance}{many})'
        f".{found}[0]"
    )
    return "\n".join(lines) + "\n"


def _motion(checkpoint: Checkpoint, student: str | None) -> tuple[str, list[str], list[str]]:
    """How diffusers gets the layers between frames that are not in the checkpoint itself: an argument of the pipeline
    after a comma, or lines that follow it, and the classes that they name. student: the folder of an export that holds
    such layers."""
    adapter = student or checkpoint.about.get(ADAPTER)
    if adapter is None:
        return "", [], []
    inside = not (Path(adapter) / "config.json").exists() and (student or (Path(adapter) / ADAPTER).is_dir())
    subfolder = f', subfolder="{ADAPTER}"' if inside else ""
    made = f"MotionAdapter.from_pretrained({adapter!r}{subfolder})"
    single = Path(checkpoint.source).suffix in SINGLE
    if single or layout.read_json(_folder(checkpoint) / "model_index.json")["unet"][1] == PLAIN:
        return f", {ADAPTER}={made}", [], ["MotionAdapter"]
    lines = [f"pipe.unet = UNetMotionModel.from_unet2d(pipe.unet, {made})"]
    return "", lines, ["MotionAdapter", "UNetMotionModel"]


def _loras(loras: list[str]) -> list[str]:
    """How diffusers adds the LoRAs of a checkpoint, with their strengths."""
    lines, strengths = [], []
    for k, lora in enumerate(loras):
        place, strength = with_strength(lora)
        path = Path(place)
        where = f"{str(path.parent)!r}, weight_name={path.name!r}" if path.is_file() else repr(place)
        lines.append(f'pipe.load_lora_weights({where}, adapter_name="{k}")')
        strengths.append(strength)
    names = [str(k) for k in range(len(loras))]
    return [*lines, f"pipe.set_adapters({names}, {strengths})"] if loras else []
