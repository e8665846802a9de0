"""Students for diffusers: a LoRA or a UNet, the scheduler that samples it, and the lines of Python that load both."""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..schedules import Linear, PiecewiseLinear, Tabulated
from ..support.files import check_folder, writable_folder, write_json, write_text
from ..training.checkpoints import versions
from .checkpoint import KINDS
from .reading import EXPORTED, quietly
from .unet import CheckpointUNet, network_of

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel

LORA_FILE = "pytorch_lora_weights.safetensors"
SCHEDULERS = {"lcm": "LCMScheduler", "ddim": "DDIMScheduler", "dpm++2m": "DPMSolverMultistepScheduler"}
"""The scheduler of diffusers that does the steps of a solver, by the solver's name."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    what: str
    """"lora" or "unet"."""
    scheduler: str
    """The name of the scheduler's class."""
    steps: tuple[int, ...]
    """The numbers of steps that the student is meant for."""
    code: str
    """Python that makes an image with it."""


def export(D: Denoiser, about: Mapping[str, Any], out: Path | str, *, whole: bool = False) -> Exported:
    """Write a student for diffusers, with its scheduler, into a folder that is empty or is still to be made.

    A LoRA is written where the student is no more than that, and else its UNet. whole: the UNet in any case. about:
    what is known of the student (`runs.Model.about`). `ValueError` if D is no student of a checkpoint, if no scheduler
    has its schedule, or if the folder is in use.

    With these weights diffusers makes the same images as `sample_images` does for the same seed. That holds at whole
    timesteps, and at the numbers of steps that the method is meant for.
    """
    if not isinstance(D, LambdaDenoiser) or not isinstance(D.net, CheckpointUNet):
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
    as_lora = net.trained == "lora" and not net.guided and not whole and not base["lora"] and base["unet"] is None
    code = usage(
        D,
        folder,
        "lora" if as_lora else "unet",
        type(scheduler).__name__,
        steps,
        guidance=1.0 if not net.guided else 7.5,
    )
    writable_folder(folder.parent)
    # into a folder beside it, which gets its name once it is whole
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part") as name, quietly():
        part = Path(name)
        if as_lora:
            _save_lora(net, part)
        else:
            merged(net).save_pretrained(part / "unet", safe_serialization=True)
        scheduler.save_pretrained(part / "scheduler")
        write_text(
            part / "README.md",
            f"# {about['method']} on {base['model']}\n\nMade by toydiff. To use it:\n\n```python\n{code}```\n",
        )
        write_json(
            part / EXPORTED, {"about": {k: v for k, v in about.items() if k != "denoiser"}, "versions": versions()}
        )
        part.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
        part.mkdir()  # which the context then removes
    return Exported(folder, "lora" if as_lora else "unet", type(scheduler).__name__, steps, code)


def _save_lora(net: CheckpointUNet, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    layers: dict[str, Tensor] = {k: v.detach().cpu().float() for k, v in get_peft_model_state_dict(net.unet).items()}
    type(net.checkpoint.pipe).save_lora_weights(
        folder, unet_lora_layers=layers, weight_name=LORA_FILE, safe_serialization=True
    )


def merged(net: CheckpointUNet) -> "UNet2DConditionModel":
    """A copy of the student's UNet for diffusers, in float32 on the processor. A LoRA is added to its weights."""
    unet = copy.deepcopy(net.unet).cpu().float()
    if net.trained == "lora":
        unet.fuse_lora()
        unet.unload_lora()
    return unet


def scheduler_of(D: LambdaDenoiser, solver: str, steps: tuple[int, ...]) -> "SchedulerMixin":
    """The scheduler of diffusers that samples a denoiser as a solver does on the grid `uniform`.

    solver: by name; steps: the numbers of steps that the denoiser is meant for. `ValueError` where there is no such
    scheduler.
    """
    import diffusers

    checkpoint, schedule = network_of(D).checkpoint, D.schedule
    if isinstance(schedule, Linear) and D.kind == "velocity":
        if solver == "lcm":
            raise ValueError(
                "no scheduler of diffusers that these pipelines take noises a flow again, as the solver lcm does; "
                "train on the checkpoint's own schedule"
            )
        # FlowMatchEulerDiscreteScheduler lacks what these pipelines ask of a scheduler; UniPC of order 1 without its
        # corrector is Euler's step
        return diffusers.UniPCMultistepScheduler(
            solver_order=1,
            disable_corrector=list(range(1000)),
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            final_sigmas_type="zero",
        )
    names = {kind: name for name, kind in KINDS.items()}
    table = schedule.base if isinstance(schedule, PiecewiseLinear) else schedule
    if not isinstance(table, Tabulated) or not torch.equal(table._log_alpha, checkpoint.table._log_alpha):
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
    own = {
        "timestep_spacing": "trailing",
        "prediction_type": names[D.kind],
        "steps_offset": 0,
        "clip_sample": False,
        "set_alpha_to_one": True,
        "thresholding": False,
    }
    if solver == "lcm":
        own["original_inference_steps"] = max(steps)  # the points it picks from are then those of the uniform grid
    with quietly():
        return getattr(diffusers, SCHEDULERS[solver]).from_config(dict(checkpoint.pipe.scheduler.config) | own)


def usage(D: LambdaDenoiser, folder: Path, what: str, scheduler: str, steps: tuple[int, ...], guidance: float) -> str:
    """The Python that makes an image with diffusers alone.

    folder: of the student; what: "lora" or "unet"; scheduler: the name of its class; guidance: the guidance scale.
    """
    checkpoint = network_of(D).checkpoint
    pipeline = type(checkpoint.pipe).__name__
    reading = f'pipe = {pipeline}.from_pretrained("{checkpoint.source}")'
    if Path(checkpoint.source).suffix == ".safetensors":
        reading = f'pipe = {pipeline}.from_single_file("{checkpoint.source}", config={checkpoint.about["config"]!r})'
    n = max(steps)
    flow = isinstance(D.schedule, Linear)
    lines = [
        *(["import numpy as np"] if flow else ()),
        f"from diffusers import {pipeline}, {scheduler}" + (", UNet2DConditionModel" if what == "unet" else ""),
        "",
        reading,
    ]
    if what == "lora":
        lines.append(f'pipe.load_lora_weights("{folder}", weight_name="{LORA_FILE}")')
    else:
        lines.append(f'pipe.unet = UNet2DConditionModel.from_pretrained("{folder}", subfolder="unet")')
    lines.append(f'pipe.scheduler = {scheduler}.from_pretrained("{folder}", subfolder="scheduler")')
    walk = f"num_inference_steps={n}"
    if flow:
        walk = f"sigmas=np.linspace(1, 0, {n}, endpoint=False)"
    lines.append(
        f'image = pipe("a photograph of an astronaut riding a horse", {walk}, guidance_scale={guidance}).images[0]'
    )
    return "\n".join(lines) + "\n"
