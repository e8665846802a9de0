"""Images from a checkpoint or a student of one, by any solver, grid and parallel sampler of the library, from the noise
that diffusers draws for the same seed."""

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
from .unet import network_of


@dataclass(frozen=True)
class Images:
    """What `sample_images` made, and what it cost."""

    images: Tensor | None
    """(n, 3, H, W) in [0, 1]; None where the latents were not decoded."""
    latents: Tensor
    """(n, C, h, w)."""
    cond: Tensor
    """The labels of their prompts, (n,)."""
    trajectory: Trajectory
    """Counts and seconds. Its states are the ends of all images with keep = "end", and else those of the first batch
    only."""


def whole_times(ts: Tensor, timesteps: int) -> Tensor:
    """A grid ts (N+1,) with each time moved to the nearest k/K, K = `timesteps`; `ValueError` where two times become
    the same."""
    ts = (ts * timesteps).round() / timesteps
    if bool((ts[1:] >= ts[:-1]).any()):
        raise ValueError(
            f"{len(ts) - 1} steps on this grid fall onto the same whole timestep twice; "
            "take fewer steps, another grid, or fractional timesteps"
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
    """`each` images of every prompt: all of the first prompt, then all of the next.

    denoiser: a student; None is the checkpoint itself. grid: a name in `GRIDS`, or a spacing of diffusers' schedulers
    (`schedulers.SPACINGS`). With a spacing the sampler is diffusers' scheduler (`schedulers.like_scheduler`), and the
    same settings give the same images. A solver that draws noise has to make them in one batch for that. ts:
    times (N+1,), which override `steps` and `grid`. guidance_scale: 1 is off; it goes to `denoiser`. size: of an image,
    (height, width) in pixels, or the side of a square; None is the checkpoint's own.

    seed: of the noise. The start is standard normal noise of all images, drawn on the processor, as a pipeline of
    diffusers draws it given torch.Generator("cpu").manual_seed(seed). The solver's own noise comes after it, from the
    same stream. at_once: latents in one network call, twice as many with guidance; a parallel sampler evaluates so many
    (point, image) pairs in one call. rounded: whole timesteps; spacings have them anyway. cut: a prompt that is too
    long loses its end, instead of a `ValueError`. decode: also make the images, not only latents. keep: as `solve` has
    it. progress: show bars. `ValueError` for bad input.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ValueError("give at least one prompt; it may be empty")
    check_count(each, "each")
    check_count(at_once, "at_once")
    D = checkpoint.denoiser() if denoiser is None else _another(denoiser)
    net = network_of(D)
    theirs, ours = net.checkpoint.unet.config, checkpoint.unet.config
    if any(theirs.get(key) != ours.get(key) for key in ("in_channels", "cross_attention_dim", "addition_embed_type")):
        raise ValueError(f"the denoiser is one of {net.checkpoint!r}, and does not fit {checkpoint!r}")
    how, scale = solver_by_name(solver), 1.0
    if ts is None and grid in SPACINGS:
        word = solver.partition(":")[0]
        one_step = "ddim" if word in PARALLEL else solver
        scheduled = like_scheduler(checkpoint, D, one_step, steps, grid)
        D, ts, scale = scheduled.denoiser, scheduled.ts, scheduled.noise_scale
        how, rounded = how if word in PARALLEL else scheduled.solver, net.rounded
    elif ts is None:
        if grid not in GRIDS:
            raise unknown("time grid", grid, [*GRIDS, *SPACINGS])
        ts = time_grid(D.schedule, steps, grid)
        ts = whole_times(ts, checkpoint.timesteps) if rounded and isinstance(D.schedule, Tabulated) else ts
    cond = net.checkpoint.prompts.add(prompts, cut=cut).repeat_interleave(each)
    if negative_prompt is not None and not cut and (lost := checkpoint.too_long(negative_prompt)):
        raise ValueError(f"of the negative prompt: {lost}")
    net.rounded, net.negative = rounded, negative_prompt
    if not isinstance(seed, torch.Generator) and check_count(seed, "seed", 0) >= 2**63:
        raise ValueError(f"seed must be below 2^63, got {seed}")
    rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
    x = scale * torch.randn(len(cond), *checkpoint.latent_shape(size), generator=rng)
    batch = at_once
    if isinstance(how, ParallelSolver):
        assert dataclasses.is_dataclass(how)  # all those with a name are
        how, batch = dataclasses.replace(how, at_once=min(how.at_once, at_once)), len(cond)
    ends, parts = [], []
    for i in range(0, len(cond), batch):
        part = slice(i, i + batch)
        path = solve(
            D,
            x[part].to(checkpoint.device),
            ts=ts,
            solver=how,
            cond=cond[part],
            guidance_scale=guidance_scale,
            generator=rng,
            keep=keep,
            progress=progress,
        )
        parts.append(path)
        ends.append(path.end.cpu())
    latents, first = torch.cat(ends), parts[0]
    if keep == "end":
        first = dataclasses.replace(first, xs=latents[None], x0s=latents.new_empty(0, *latents.shape))
    first = dataclasses.replace(first, seconds=sum(path.seconds for path in parts))
    images = checkpoint.decode(latents, at_once=at_once, progress=progress) if decode else None
    return Images(images, latents, cond, first)


def _another(D: Denoiser) -> LambdaDenoiser:
    """The same student with settings of its own. It shares all weights with the one that was given."""
    return LambdaDenoiser(copy.copy(network_of(D)), D.schedule, D.kind).eval()
