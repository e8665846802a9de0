"""Latents from this library and from diffusers' own pipeline, on checkpoints in the layouts of the published ones.

`python tests/benchmarks/sd.py --parity` prints the whole table; tests/sd/test_hard_sampling.py holds a part of it.
"""

import copy
import dataclasses
from dataclasses import dataclass

import diffusers
import real_layouts
import torch

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.names import COMPARABLE
from toydiff.adapters.sampling import sample_images

SIDES = {
    "ddim": "DDIMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc2": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "plms": "PNDMScheduler",
    "deis2": "DEISMultistepScheduler",
    "tcd": "TCDScheduler",
    "ddpm": "EulerAncestralDiscreteScheduler",
}
"""The first scheduler of each solver (`toydiff.adapters.names.COMPARABLE`)."""
SPACINGS = ("trailing", "leading", "linspace")
STEPS = (1, 4, 20)
PERTURBED = 6
SIZE = 64
"""Pixels, of latents 8 wide."""


@dataclass(frozen=True)
class Gap:
    """What a row of the table holds: largest differences of latents."""

    gap: float
    """Between this library's and theirs; theirs in float64 where those in float32 are farther away than `same` allows:
    near sigma = infinity their Euler subtracts numbers of some 4000, and rounds."""
    floor: float
    """Between theirs and theirs from a start whose every number is the next, or the last, one of float32: the largest
    of `PERTURBED` starts, all up, all down, and up or down by chance."""
    size: float
    """The largest of their latents."""

    @property
    def same(self) -> bool:
        return self.gap <= max(1e-4, self.floor)


def spacings_of(solver):
    return ("lcm",) if solver in ("lcm", "tcd") else SPACINGS


def theirs(
    pipe,
    scheduler,
    spacing,
    steps,
    prompt="a cat",
    perturbed=None,
    seed=0,
    guidance_scale=3.0,
    dtype=torch.float32,
    **options,
):
    """The latents of their pipeline with the scheduler that their documentation would make. perturbed: which of the
    perturbed starts, or None."""
    before = pipe.scheduler
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    rng = torch.Generator().manual_seed(seed)
    start = torch.randn(1, 4, SIZE // pipe.vae_scale_factor, SIZE // pipe.vae_scale_factor, generator=rng)
    if perturbed is not None:
        chance = torch.rand(start.shape, generator=torch.Generator().manual_seed(perturbed))
        up = {0: chance >= 0, 1: chance < 0}.get(perturbed, chance < 0.5)
        start = torch.nextafter(start, torch.where(up, torch.inf, -torch.inf))
    try:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config, **own)
        return pipe(
            prompt,
            num_inference_steps=steps,
            latents=start.to(dtype),
            generator=rng,
            output_type="latent",
            height=SIZE,
            width=SIZE,
            guidance_scale=guidance_scale,
            **options,
        ).images
    finally:
        pipe.scheduler = before


def compare(folder, pipe, solver, spacing, steps, scheduler=None) -> Gap | str:
    """A row of the table, or what this library says where it refuses. scheduler: theirs, which replaces the
    checkpoint's unless it is its own; None is the solver's first, and replaces nothing."""
    own = scheduler == type(pipe.scheduler).__name__
    try:
        ours = sample_images(
            StableDiffusion.load(folder, scheduler=None if own else scheduler),
            "a cat",
            steps=steps,
            solver=solver,
            grid=spacing,
            guidance_scale=3.0,
            size=SIZE,
            decode=False,
        ).latents
    except ValueError as error:
        return str(error)
    name = scheduler or SIDES[solver]
    options = {"eta": 0.3} if solver == "tcd" else {}  # the pipeline's own default is 0
    want = theirs(pipe, name, spacing, steps, **options)
    others = torch.stack([theirs(pipe, name, spacing, steps, perturbed=k, **options) for k in range(PERTURBED)])
    found = Gap(*(float(x.abs().max()) for x in (ours - want, others - want, want)))
    if found.same:
        return found
    precise = theirs(copy.deepcopy(pipe).to(torch.float64), name, spacing, steps, dtype=torch.float64, **options)
    return dataclasses.replace(found, gap=float((ours - precise).abs().max()))


def table(folder, names=real_layouts.NAMES):
    """All rows, (layout, scheduler, spacing, steps, result); the checkpoints are written into the folder."""
    for name in names:
        at = real_layouts.save(folder / name, name)
        pipe = real_layouts.pipeline(at)
        if name == "lcm":  # its own pipeline takes no scheduler but LCM's
            pipe = diffusers.StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
            pipe.set_progress_bar_config(disable=True)
        for scheduler, solver in COMPARABLE.items():
            for spacing in spacings_of(solver):
                for steps in STEPS:
                    yield name, scheduler, spacing, steps, compare(at, pipe, solver, spacing, steps, scheduler)
