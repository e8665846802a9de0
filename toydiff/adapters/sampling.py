"""Images from a checkpoint or a student of one: any solver, grid and parallel sampler of the library, from the noise
that diffusers would draw."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..grids import GRIDS, time_grid
from ..schedules import Tabulated
from ..solvers import Trajectory, solve
from ..solvers.parallel import ParallelSolver
from ..solvers.registry import PARALLEL, solver_by_name
from ..support.checks import check_count, unknown
from .checkpoint import AT_ONCE, StableDiffusion
from .schedulers import SPACINGS, like_scheduler
from .unet import CheckpointUNet


@dataclass(frozen=True)
class Images:
    """What was made: images (n, 3, H, W) in [0, 1], None where only latents were asked for; latents (n, C, h, w); the
    labels of their prompts, (n,); what it cost.

    The trajectory keeps the states of the first batch only where all were asked for, and the end of all otherwise.
    """

    images: Tensor | None
    latents: Tensor
    cond: Tensor
    trajectory: Trajectory


def whole_times(ts: Tensor, timesteps: int) -> Tensor:
    """A grid at whole timesteps, each time moved to the nearest of K; `ValueError` where two fall onto the same."""
    ts = (ts * timesteps).round() / timesteps
    if bool((ts[1:] >= ts[:-1]).any()):
        raise ValueError(
            f"{len(ts) - 1} steps on this grid fall onto the same whole timestep twice; take fewer steps, another grid, or fractional timesteps"
        )
    return ts


def sample_images(
    checkpoint: StableDiffusion,
    prompts: str | Sequence[str],
    *,
    denoiser: Denoiser | None = None,
    each: int = 1,
    steps: int = 20,
    solver: str = "dpm++2m",
    grid: str = "uniform",
    ts: Tensor | None = None,
    guidance_scale: float = 7.5,
    negative_prompt: str | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int | torch.Generator = 0,
    at_once: int = AT_ONCE,
    rounded: bool = False,
    cut: bool = False,
    decode: bool = True,
    keep: str = "end",
    progress: bool = False,
) -> Images:
    """`each` images of every prompt, one prompt's after the other's.

    denoiser: a student; None for the checkpoint itself. The start is standard normal noise of all images, drawn on the
    processor from the seed, as a pipeline of diffusers does given torch.Generator("cpu").manual_seed(seed); the
    solver's own noise follows from the same stream. grid: one of `GRIDS`, or a spacing of diffusers' schedulers, with
    which the sampler is theirs in all details (`schedulers.like_scheduler`): the same settings then give the same
    images, as long as a solver that draws noise makes them in one batch. at_once: latents in one network call, twice as
    many with guidance; a parallel sampler evaluates so many points x images at once. rounded: whole timesteps, as
    spacings have them anyway. ts: times that override `steps` and `grid`. cut: a prompt that is too long loses its end,
    instead of `ValueError`.

    A student that sees the guidance scale is told it. `ValueError` for bad input.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ValueError("give at least one prompt; it may be empty")
    check_count(each, "each")
    check_count(at_once, "at_once")
    D = checkpoint.denoiser() if denoiser is None else _another(denoiser)
    theirs, ours = (c.unet.config for c in (D.net.checkpoint, checkpoint))
    if any(theirs.get(key) != ours.get(key) for key in ("in_channels", "cross_attention_dim", "addition_embed_type")):
        raise ValueError(f"the denoiser is one of {D.net.checkpoint!r}, and does not fit {checkpoint!r}")
    how, scale = solver_by_name(solver), 1.0
    if ts is None and grid in SPACINGS:
        word = solver.partition(":")[0]
        one_step = "ddim" if word in PARALLEL else solver
        scheduled = like_scheduler(checkpoint, D, one_step, steps, grid)
        D, ts, scale = scheduled.denoiser, scheduled.ts, scheduled.noise_scale
        how, rounded = how if word in PARALLEL else scheduled.solver, D.net.rounded
    elif ts is None:
        if grid not in GRIDS:
            raise unknown("time grid", grid, [*GRIDS, *SPACINGS])
        ts = time_grid(D.schedule, steps, grid)
        ts = whole_times(ts, checkpoint.timesteps) if rounded and isinstance(D.schedule, Tabulated) else ts
    cond = D.net.checkpoint.prompts.add(prompts, cut=cut).repeat_interleave(each)
    if negative_prompt is not None and not cut and (lost := checkpoint.too_long(negative_prompt)):
        raise ValueError(f"of the negative prompt: {lost}")
    D.net.rounded, D.net.negative = rounded, negative_prompt
    if not isinstance(seed, torch.Generator) and check_count(seed, "seed", 0) >= 2**63:
        raise ValueError(f"seed must be below 2^63, got {seed}")
    rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
    x = scale * torch.randn(len(cond), *checkpoint.latent_shape(size), generator=rng)
    batch = at_once
    if isinstance(how, ParallelSolver):
        how, batch = dataclasses.replace(how, at_once=min(how.at_once, at_once)), len(cond)
    ends, parts = [], []
    for i in range(0, len(cond), batch):
        part = slice(i, i + batch)
        path = solve(
            D, x[part].to(checkpoint.device), ts=ts, solver=how, cond=cond[part], guidance_scale=guidance_scale, generator=rng, keep=keep, progress=progress
        )  # fmt: skip
        parts.append(path)
        ends.append(path.end.cpu())
    latents, first = torch.cat(ends), parts[0]
    if keep == "end":
        first = dataclasses.replace(first, xs=latents[None], x0s=latents.new_empty(0, *latents.shape))
    first = dataclasses.replace(first, seconds=sum(path.seconds for path in parts))
    images = checkpoint.decode(latents, at_once=at_once, progress=progress) if decode else None
    return Images(images, latents, cond, first)


def _another(D: Denoiser) -> LambdaDenoiser:
    """A student with settings of its own: a copy that shares all its weights."""
    if not isinstance(D, LambdaDenoiser) or not isinstance(D.net, CheckpointUNet):
        raise ValueError(f"a denoiser of a Stable Diffusion checkpoint is needed, got {type(D).__name__}")
    return LambdaDenoiser(copy.copy(D.net), D.schedule, D.kind).eval()
