"""Images from a checkpoint or a student of one, by any solver, grid and parallel sampler of the library, from the noise
that diffusers draws for the same seed, or from an image."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser, GuidanceInterval, GuidanceRescale, LambdaDenoiser
from ..grids import DEFAULT_GRID, GRIDS, time_grid
from ..schedules import Tabulated, as_time
from ..solvers import Solver, Trajectory, solve
from ..solvers.driver import Callback
from ..solvers.heun import Heun
from ..solvers.parallel import ParallelSolver
from ..solvers.plms import PLMS
from ..solvers.registry import PARALLEL, is_learned, solver_by_name
from ..support.checks import check_count, check_grid, check_number, unknown
from ..support.words import plural
from .checkpoint import AT_ONCE, StableDiffusion
from .families import Family
from .inpainting import Inpainting
from .network import CheckpointNetwork, needs_mask, network_of
from .schedulers import SHIFTED, SPACINGS, like_scheduler, shifted_times
from .sizes import Six, sizes_of_call
from .starts import checked_image, from_image, noise_of, streams
from .text import Terms, check_text, label_of


def usual_strength(mask: object) -> float:
    """How much of the way from noise is walked where an image is to start from, with a mask or None: diffusers'
    defaults."""
    return 0.8 if mask is None else 1.0


@dataclass(frozen=True)
class Images:
    """What `sample_images` made, and what it cost."""

    images: Tensor | None
    """(n, 3, H, W) in [0, 1], of clips (n, F, 3, H, W); None where the latents were not decoded."""
    latents: Tensor
    """(n, C, h, w), of clips (n, C, F, h, w)."""
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
    guidance_rescale: float = 0.0,
    guidance_interval: tuple[float, float] | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    frames: int | None = None,
    original_size: tuple[int, int] | None = None,
    crops_coords_top_left: tuple[int, int] | None = None,
    target_size: tuple[int, int] | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    strength: float | None = None,
    seed: int | torch.Generator | Sequence[int | torch.Generator] = 0,
    at_once: int = AT_ONCE,
    rounded: bool = False,
    cut: bool = False,
    by_parts: bool = False,
    decode: bool = True,
    keep: str = "end",
    progress: bool = False,
    callback: Callback | None = None,
) -> Images:
    """`each` images of every prompt: all of the first prompt, then all of the next.

    denoiser: a student; None is the checkpoint itself. grid: a name in `GRIDS`, or a spacing of diffusers' schedulers
    (`schedulers.SPACINGS`). With a spacing the sampler is diffusers' scheduler (`schedulers.like_scheduler`), and the
    same settings give the same images; "shifted" is the grid of a flow's scheduler, for any solver, and with ddim it
    gives the same images. ts: times (N+1,), which override `steps` and `grid`. guidance_scale: 1 is off;
    it goes to `denoiser`. Below 1 guidance goes from the prediction without a prompt only part of the way; diffusers
    turns it off there, and guidance_scale=0.0 on the pages of its Turbo models is 1 here. guidance_rescale: in [0, 1],
    how far a guided prediction is scaled back (`denoisers.GuidanceRescale`). guidance_interval: (low, high), the times
    between which there is guidance (`denoisers.GuidanceInterval`); None is everywhere. negative_prompt: what guidance
    leads away from, one for all prompts or one for each; None is no prompt. size: of an image, (height, width) in
    pixels, or the side of a square; None is that of `image`, or the checkpoint's own. frames: of a clip, where the
    checkpoint makes clips (AnimateDiff); None is 16, or as many as it can. A clip is made from noise: it takes no
    image. original_size, crops_coords_top_left, target_size: what SDXL sees beside a prompt, as the arguments of
    diffusers' pipeline (`sizes.sizes_of_call`); `ValueError` for other checkpoints.

    image: to start from (img2img), (3, H, W), or one for each image that is made, (n, 3, H, W), in [0, 1]. Of its
    latent and noise the state at the first time is mixed. strength: in (0, 1], 0.8 where it is not given: of the N
    steps only the last int(N strength) are taken, or, of a flow with a transformer, all but int(N - N strength), as
    diffusers does. ts may begin below t = 1 with an image only, and takes no strength.

    mask: of the image (inpainting), (1, H, W), or one for each image that is made, (n, 1, H, W), in [0, 1]: where it is
    at least 1/2, the image is made anew, and elsewhere the latent of the image is kept (`inpainting.Inpainting`).
    strength is 1 then where it is not given, and of strength 1 the start is noise alone. A model made for inpainting
    (`StableDiffusion.takes_mask`) needs a mask, sees it and the latent of the image without what is masked, and makes
    the whole latent. `ValueError` for a parallel sampler, and for any other model on a spacing with solvers that
    evaluate the model twice in a step.

    seed: of the noise, which is drawn on the processor: of the start and then of the steps; with an image of its latent
    first. Image k of all has a stream of its own, torch.Generator().manual_seed(seed + k), so it is the same whatever
    else is in its batch, and seed + k makes it alone; a pipeline of diffusers takes a list of such generators. A list
    has a seed or a generator for each image. One torch.Generator is one stream for all, as in diffusers, where a
    stochastic solver's images depend on their batch.

    at_once: latents in one network call, twice as many with guidance; a parallel sampler evaluates so many (point,
    image) pairs in one call. rounded: whole timesteps; spacings have them anyway. cut: a prompt that is too long loses
    its end, instead of a `ValueError`. by_parts: it is read part by part instead, by SD and SDXL
    (`families.parts.encoded`), and what guidance leads away from has as many parts. decode: also make the images, not
    only latents. keep: as `solve` has it. progress: show bars. callback: f(i, t, x0), called after step i, counted from
    0, with the time at which it began and the x_0 that was predicted there, of latents (B, C, h, w); once for each
    batch of `at_once` images, and not with a parallel sampler (`ValueError`).

    `ValueError` for bad input, and for settings without effect: a negative prompt where guidance is off or is an input
    of the model, rescaling or an interval where guidance is off, and guidance_scale = 0, which leaves the prompt out.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ValueError("give at least one prompt; it may be empty")
    check_count(each, "each")
    check_count(at_once, "at_once")
    D = checkpoint.denoiser() if denoiser is None else _another(denoiser)
    net = network_of(D)
    theirs, ours, family = net.checkpoint.network.config, checkpoint.network.config, checkpoint.family
    if net.family is not family or any(theirs.get(key) != ours.get(key) for key in family.fitting):
        raise ValueError(f"the denoiser is one of {net.checkpoint!r}, and does not fit {checkpoint!r}")
    check_guidance_has_effect(D, check_number(guidance_scale, "guidance_scale"), negative_prompt)
    if strength is not None and (image is None or ts is not None):
        raise ValueError("strength says how many of the steps are taken from an image on: it needs image, and no ts")
    if mask is not None and image is None:
        raise ValueError("a mask says what of an image is made anew: it needs image")
    if image is not None and checkpoint.family.clips:
        raise ValueError("this checkpoint makes clips, from noise: it takes no image to start from")
    sees_mask = checkpoint.takes_mask
    if sees_mask and mask is None:
        raise ValueError(needs_mask(checkpoint.source))
    image = None if image is None else checked_image(image, len(prompts) * each)
    how, scale, of_steps = solver_by_name(solver), 1.0, ts is None
    if mask is not None and isinstance(how, ParallelSolver):
        raise ValueError(f"a parallel sampler takes no mask; take a sequential solver, not {solver.partition(':')[0]}")
    if ts is not None:
        check_grid(ts := as_time(ts))
        if image is None and ts[0] < 1:
            raise ValueError(
                f"ts begins at {float(ts[0]):g}, where a state holds part of an image: "
                "give one to start from (image), or begin at 1"
            )
    elif is_learned(solver) and grid in ("uniform", DEFAULT_GRID):  # its own times, whatever is the usual grid here
        if image is not None or rounded:
            raise ValueError(
                "a learned solver walks its own times from noise: it takes no image and no whole timesteps"
            )
    elif grid == SHIFTED:
        latent = checkpoint.latent_shape(_pixels(checkpoint, image, size))
        ts = shifted_times(checkpoint, D, solver, steps, latent)
    elif grid in SPACINGS:
        word = solver.partition(":")[0]
        one_step = "ddim" if word in PARALLEL else solver
        scheduled = like_scheduler(checkpoint, D, one_step, steps, grid)
        D, ts, scale = scheduled.denoiser, scheduled.ts, scheduled.noise_scale
        how, rounded = how if word in PARALLEL else scheduled.solver, net.rounded
        if mask is not None and not sees_mask and isinstance(how, Heun | PLMS):
            raise ValueError(
                f"diffusers puts the image back after each of the two calls of a step of {word}, "
                "and this library after the step; take another solver, or a grid of the library"
            )
    else:
        if grid not in GRIDS:
            raise unknown("time grid", grid, [*GRIDS, *SPACINGS])
        ts = time_grid(D.schedule, steps, grid, data_std=D.data_std, guidance_scale=guidance_scale)
        ts = whole_times(ts, checkpoint.timesteps) if rounded and isinstance(D.schedule, Tabulated) else ts
    if image is not None and ts is not None and of_steps:
        strength = usual_strength(mask) if strength is None else strength
        ts = _last_part(ts, checkpoint.family, steps, strength)
        if grid in SPACINGS and isinstance(how, PLMS) and len(ts) <= steps:
            raise ValueError(
                "diffusers' PNDM repeats its second timestep, and from an image on evaluates the model at other times "
                "than those of the state: no walk over a grid does that; take another solver, or a grid of the library"
            )
    if cut and by_parts:
        raise ValueError("a prompt that is too long is either cut or read by parts (--cut-prompts, --prompt-parts)")
    labels = net.checkpoint.prompts.add(prompts, cut=cut or by_parts).repeat_interleave(each)
    negatives = _negatives(checkpoint, negative_prompt, len(prompts), cut or by_parts)
    sizes = sizes_of_call(original_size, crops_coords_top_left, target_size, _pixels(checkpoint, image, size))
    terms = _terms(net, prompts, negatives, sizes, by_parts)
    plain = sizes is None and negative_prompt is None and not by_parts
    cond = labels if plain else torch.tensor([label_of(one) for one in terms]).repeat_interleave(each)
    guided = _guided(D, guidance_scale, guidance_rescale, guidance_interval)
    net.rounded, net.negative = rounded, None
    rng, kept = streams(seed, len(cond)), None
    if image is None or ts is None:
        x = scale * noise_of((len(cond), *checkpoint.latent_shape(size, frames)), rng)
    else:
        checkpoint.latent_shape(size, frames)
        from_noise = mask is not None and strength == 1
        start = from_image(checkpoint, image, mask, size, len(cond), rng, at_once, from_noise)
        z, kept = start.z, start.kept
        x = scale * start.noise if z is None or from_noise else D.schedule.mix(z, start.noise, ts[0].to(z))
        if start.anew is not None and z is not None and kept is None:
            assert isinstance(how, Solver)  # parallel ones were refused
            how = Inpainting(how, start.anew, z, start.noise, last=float(ts[-2:].mean()))
    batch = at_once
    if isinstance(how, ParallelSolver):
        assert dataclasses.is_dataclass(how)  # all those with a name are
        how, batch = dataclasses.replace(how, at_once=min(how.at_once, at_once)), len(cond)
    ends, parts = [], []
    lengths = [one.parts for one in terms for _ in range(each)]
    for part in _batches(lengths, batch):
        net.kept = None if kept is None else kept[part].to(checkpoint.device)
        path = solve(
            guided,
            x[part].to(checkpoint.device),
            steps,
            ts=ts,
            solver=how.part(part, checkpoint.device) if isinstance(how, Inpainting) else how,
            cond=cond[part],
            guidance_scale=guidance_scale,
            generator=rng if isinstance(rng, torch.Generator) else rng[part],
            keep=keep,
            progress=progress,
            callback=callback,
        )
        parts.append(path)
        ends.append(path.end.cpu())
    latents, first = torch.cat(ends), parts[0]
    if keep == "end":
        first = dataclasses.replace(first, xs=latents[None], x0s=latents.new_empty(0, *latents.shape))
    nfe, rounds = max(path.nfe for path in parts), max(path.rounds for path in parts)
    first = dataclasses.replace(first, nfe=nfe, rounds=rounds, seconds=sum(path.seconds for path in parts))
    images = checkpoint.decode(latents, at_once=at_once, progress=progress) if decode else None
    return Images(images, latents, labels, first)


def _negatives(
    checkpoint: StableDiffusion, given: str | Sequence[str] | None, n: int, cut: bool
) -> Sequence[str | None]:
    """The negative prompts of n prompts; `ValueError` for another number, for what is no text, and for one that is too
    long and not to be cut."""
    if given is None:
        return [None] * n
    texts = [given] * n if isinstance(given, str) else list(given)
    if len(texts) != n:
        raise ValueError(
            f"there are {len(texts)} negative prompts for {plural(n, 'prompt')}; give one for all, or one for each"
        )
    for text in texts:
        check_text(text, "the negative prompt")
        if not cut and (lost := checkpoint.too_long(text)):
            raise ValueError(f"of the negative prompt: {lost}")
    return texts


def _terms(
    net: CheckpointNetwork, prompts: Sequence[str], negatives: Sequence[str | None], sizes: Six | None, by_parts: bool
) -> list[Terms]:
    """What stands beside each prompt; `ValueError` for what the network does not see."""
    family, pipe = net.family, net.checkpoint.pipe
    if sizes is not None and not family.takes_sizes(net.network):
        raise ValueError(
            f"{net.checkpoint.source!r} sees no sizes beside a prompt, as SDXL does: leave out original_size, "
            "crops_coords_top_left and target_size (--original-size, --crop, --target-size)"
        )
    terms = [Terms(text, negative, sizes) for text, negative in zip(prompts, negatives, strict=True)]
    if not by_parts:
        return terms
    numbers = [max(family.parts(pipe, text or "") for text in (one.prompt, one.negative)) for one in terms]
    return [one._replace(parts=number) for one, number in zip(terms, numbers, strict=True)]


def _batches(lengths: Sequence[int], most: int) -> list[slice]:
    """Neighbours that go into one call, `most` of them: those whose prompts are of the same length."""
    found, first = [], 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or i - first == most or lengths[i] != lengths[first]:
            found.append(slice(first, i))
            first = i
    return found


def _pixels(checkpoint: StableDiffusion, image: Tensor | None, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of what is made."""
    if size is None and image is not None:
        return int(image.shape[-2]), int(image.shape[-1])
    *_, height, width = checkpoint.latent_shape(size)
    return height * checkpoint.scale, width * checkpoint.scale


def check_guidance_has_effect(D: Denoiser, guidance_scale: float, negative_prompt: str | Sequence[str] | None) -> None:
    """`ValueError` for settings of guidance that leave out what was given: the prompt, or the negative prompt."""
    if guidance_scale == 0 and not D.scale_conditioned:
        raise ValueError(
            "guidance_scale = 0 leaves the prompt out; where diffusers writes guidance_scale=0.0, as for its Turbo "
            "models, it means that guidance is off, and that is 1 here"
        )
    if negative_prompt is not None and D.scale_conditioned:
        raise ValueError(
            "the negative prompt has no effect: this model has the guidance scale as an input, and makes no "
            "prediction without the prompt"
        )
    if negative_prompt is not None and guidance_scale == 1:
        raise ValueError("the negative prompt has no effect at guidance scale 1, where guidance is off; leave it out")


def _guided(D: Denoiser, scale: float, rescale: float, interval: tuple[float, float] | None) -> Denoiser:
    """The denoiser with these settings of guidance; `ValueError` where they have no effect."""
    if scale == 1 and (rescale != 0 or interval is not None):
        raise ValueError("to rescale guidance, or to give it an interval, has no effect at scale 1, where it is off")
    D = D if rescale == 0 else GuidanceRescale(D, rescale)
    return D if interval is None else GuidanceInterval(D, *interval)


def _last_part(ts: Tensor, family: Family, steps: int, strength: float) -> Tensor:
    """The times of the last steps that `strength` leaves of N; `ValueError` for none."""
    if not 0 < check_number(strength, "strength") <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength:g}")
    ts = ts[family.skipped(steps, strength) :]
    if len(ts) < 2:
        raise ValueError(f"strength {strength:g} of {steps} step(s) leaves no step; give more steps, or a higher one")
    return ts


def _another(D: Denoiser) -> LambdaDenoiser:
    """The same student with settings of its own. It shares all weights with the one that was given."""
    return LambdaDenoiser(copy.copy(network_of(D)), D.schedule, D.kind).eval()
