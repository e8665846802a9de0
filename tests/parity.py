"""Latents from this library and from diffusers' own pipeline, on checkpoints in the layouts of the published ones.

`python tests/benchmarks/sd.py --parity` prints the whole table; tests/sd/test_hard_sampling.py holds a part of it.
"""

from dataclasses import dataclass

import diffusers
import real_layouts
import torch

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images

SIDES = {
    "ddim": "DDIMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc2": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
}
SPACINGS = ("trailing", "leading", "linspace")
STEPS = (1, 4, 20)
SIZE = 64
"""Pixels, of latents 8 wide."""


@dataclass(frozen=True)
class Gap:
    """What a row of the table holds: largest differences of latents."""

    gap: float
    """Between this library's and theirs."""
    floor: float
    """Between theirs and theirs from a start whose every number is the next, or the last, one of float32."""
    size: float
    """The largest of their latents."""

    @property
    def same(self) -> bool:
        return self.gap <= max(1e-4, self.floor)


def spacings_of(solver):
    return ("lcm",) if solver == "lcm" else SPACINGS


def theirs(pipe, solver, spacing, steps, prompt="a cat", nudged=0.0, seed=0, guidance_scale=3.0, **options):
    """The latents of their pipeline with the scheduler that their documentation would make."""
    before = pipe.scheduler
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    rng = torch.Generator().manual_seed(seed)
    start = torch.randn(1, 4, SIZE // pipe.vae_scale_factor, SIZE // pipe.vae_scale_factor, generator=rng)
    start = torch.nextafter(start, torch.full_like(start, nudged * torch.inf)) if nudged else start
    try:
        pipe.scheduler = getattr(diffusers, SIDES[solver]).from_config(before.config, **own)
        return pipe(
            prompt,
            num_inference_steps=steps,
            latents=start,
            generator=rng,
            output_type="latent",
            height=SIZE,
            width=SIZE,
            guidance_scale=guidance_scale,
            **options,
        ).images
    finally:
        pipe.scheduler = before


def compare(folder, pipe, solver, spacing, steps) -> Gap | str:
    """A row of the table, or what this library says where it refuses."""
    try:
        ours = sample_images(
            StableDiffusion.load(folder),
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
    want, up, down = (theirs(pipe, solver, spacing, steps, nudged=by) for by in (0.0, 1.0, -1.0))
    return Gap(*(float(x.abs().max()) for x in (ours - want, torch.stack([up - want, down - want]), want)))


def table(folder, names=real_layouts.NAMES):
    """All rows, (layout, solver, spacing, steps, result); the checkpoints are written into the folder."""
    for name in names:
        at = real_layouts.save(folder / name, name)
        pipe = real_layouts.pipeline(at)
        if name == "lcm":  # its own pipeline takes no scheduler but LCM's
            pipe = diffusers.StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
            pipe.set_progress_bar_config(disable=True)
        for solver in SIDES:
            for spacing in spacings_of(solver):
                for steps in STEPS:
                    yield name, solver, spacing, steps, compare(at, pipe, solver, spacing, steps)
