"""The commands on Stable Diffusion checkpoints: their own options, images, and students for diffusers. The work is done
in `adapters`."""

import argparse
import contextlib
import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.files import write_bytes
from ..support.words import plural, quoted, unknown
from .terminal import (
    MOST_SAMPLES,
    SUFFIXES,
    Group,
    Parser,
    finite,
    given,
    place,
    report,
    sample_file,
    show_progress,
    usable,
    whole,
)

if TYPE_CHECKING:
    from ..adapters.sampling import Images
    from ..denoisers import Denoiser
    from ..problems import Problem
    from ..problems.stable_diffusion import StableDiffusionProblem
    from ..runs import Model

KIND = "sd"
DTYPES = ("float32", "float16", "bfloat16")
MOST_SIZE = 8192
MOST_FPS = 50
"""GIF counts hundredths of a second, and viewers show no frame for less than two."""
MOVING = (".gif", ".mp4")
"""The files in which clips move."""

TO_LOAD = (
    "checkpoint",
    "config",
    "lora",
    "unet",
    "vae",
    "motion_adapter",
    "scheduler",
    "prediction_type",
    "beta_schedule",
    "local_only",
    "unsafe_weights",
)
TO_RUN = ("size", "frames", "at_once", "dtype", "cut_prompts")
TO_SAMPLE = (
    "prompt",
    "negative_prompt",
    "prompt_parts",
    "guidance_rescale",
    "guidance_interval",
    "round_timesteps",
    "image",
    "mask",
    "strength",
    "fps",
    "original_size",
    "crop",
    "target_size",
    "cpu_offload",
    "vae_tiling",
    "vae_slicing",
    "preview",
    "preview_dir",
)
TO_TRAIN = ("prompts", "data", "rank", "full", "motion_only", "gradient_checkpointing", "cache", "skip_bad")
"""The options that only checkpoints have, by their names in the parsed arguments."""


# ---- arguments


def size_of(text: str) -> int | tuple[int, int]:
    """The type of the argument of --size: 512 or 512x768, height first."""
    sides = _sides(text, "x", 8, MOST_SIZE)
    if not 1 <= len(sides) <= 2:
        raise argparse.ArgumentTypeError(
            f"must be one number, or height x width, as 512 or 512x768, from 8 to {MOST_SIZE}, got {quoted(text)}"
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def two(least: int) -> Callable[[str], tuple[int, int]]:
    """The type of the arguments of --original-size, --crop and --target-size: 768,512 or 768x512, vertical first."""

    def read(text: str) -> tuple[int, int]:
        sides = _sides(text, ",x", least, 2**20)
        if len(sides) != 2:
            raise argparse.ArgumentTypeError(
                "must be two numbers of pixels, vertical and horizontal, as 768,512 or 768x512, "
                f"of at least {least}, got {quoted(text)}"
            )
        return sides[0], sides[1]

    return read


def _sides(text: str, between: str, least: int, most: int) -> list[int]:
    """The whole numbers between some characters; none where one is no number from `least` to `most`."""
    read = whole(least, most)
    try:
        return [read(part) for part in re.split(f"[{between}]", text.lower())]
    except argparse.ArgumentTypeError:
        return []


def interval(text: str) -> tuple[float, float]:
    """The type of the argument of --guidance-interval: 0.2,0.8."""
    ends = [finite(part) for part in text.split(",")]
    if len(ends) != 2:
        raise argparse.ArgumentTypeError(f"must be two times, A,B, got {text!r}")
    return ends[0], ends[1]


def add_unsafe(parser: "Parser | Group") -> None:
    """Add the option --unsafe-weights. A run does not say it for its user."""
    parser.add_argument(
        "--unsafe-weights",
        action="store_true",
        default=None,
        help="also read pickled weights of a checkpoint, which can run code",
    )


def arguments(parser: Parser, *, sampling: bool = False, training: bool = False) -> None:
    """Add the options of a command that can work on a checkpoint (--problem sd)."""
    group = parser.group("Stable Diffusion (--problem sd)")
    group.add_argument(
        "--model",
        dest="checkpoint",
        metavar="PATH",
        type=given,
        help="the checkpoint: a folder in diffusers' layout, a hub id, or a .safetensors file",
    )
    group.add_argument(
        "--config",
        metavar="PATH",
        type=given,
        help="what a .safetensors file holds: a folder with the JSON and tokenizers of its kind, or a hub id",
    )
    group.add_argument(
        "--lora",
        metavar="PATH[:STRENGTH]",
        type=given,
        action="append",
        help="add a LoRA to the weights, style.safetensors:0.8 for 0.8 times its change; may be given again",
    )
    group.add_argument(
        "--unet",
        metavar="PATH",
        type=given,
        help="another UNet, or transformer, in place of the checkpoint's: a folder, or a .safetensors file of weights",
    )
    group.add_argument(
        "--vae",
        metavar="PATH",
        type=given,
        help="another VAE in place of the checkpoint's, AutoencoderKL or AutoencoderTiny, for the same latents",
    )
    group.add_argument(
        "--motion-adapter",
        metavar="PATH",
        type=given,
        help="layers between frames (diffusers' MotionAdapter), with which a checkpoint of SD makes clips",
    )
    group.add_argument(
        "--scheduler",
        metavar="NAME",
        help="a scheduler of diffusers in place of the checkpoint's, with the same configuration; without --solver and "
        "--grid images are made as it makes them",
    )
    group.add_argument(
        "--prediction-type",
        metavar="TYPE",
        help="what the UNet predicts, where the checkpoint's configuration is wrong: epsilon, v_prediction or sample",
    )
    group.add_argument(
        "--beta-schedule",
        metavar="NAME",
        help="the checkpoint's table of noise levels, where its configuration has another: linear (as AnimateDiff was "
        "trained), scaled_linear or squaredcos_cap_v2",
    )
    group.add_argument(
        "--local-only",
        action="store_true",
        default=None,
        help="never use the hub",
    )
    add_unsafe(group)
    group.add_argument(
        "--size",
        metavar="N or HxW",
        type=size_of,
        help="size of an image in pixels (default: the checkpoint's own)",
    )
    group.add_argument(
        "--frames",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        help="frames of a clip, where the checkpoint makes clips (default: 16)",
    )
    group.add_argument(
        "--at-once",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        help="images in one network call while sampling, which changes no image (default: 8)",
    )
    group.add_argument(
        "--dtype",
        metavar="NAME",
        help=f"precision of the frozen weights: {', '.join(DTYPES)} (default: float32; for sampling on CUDA float16)",
    )
    group.add_argument(
        "--cut-prompts",
        action="store_true",
        default=None,
        help="cut the end of a prompt that is too long",
    )
    if sampling:
        group.add_argument(
            "--prompt",
            metavar="TEXT",
            action="append",
            help="what to make images of; may be given again, and each prompt has a row of images; "
            "the image k of them all, counted from 0, has --seed S + k, which makes it alone",
        )
        group.add_argument(
            "--negative-prompt",
            metavar="TEXT",
            action="append",
            help="what guidance leads away from; needs guidance that is not 1; once for all prompts, or as often as "
            "--prompt, one for each",
        )
        group.add_argument(
            "--prompt-parts",
            action="store_true",
            default=None,
            help="read a prompt that is too long by parts, of as many tokens as the encoder reads (SD and SDXL)",
        )
        group.add_argument(
            "--guidance-rescale",
            metavar="R",
            type=finite,
            help="scale guided predictions back to the size of those with the prompt, by R from 0 to 1 (default: 0)",
        )
        group.add_argument(
            "--guidance-interval",
            metavar="A,B",
            type=interval,
            help="guide between the times A < B only, 0 being data and 1 noise (default: everywhere)",
        )
        group.add_argument(
            "--image",
            metavar="FILE",
            type=given,
            help="start from this picture (img2img), scaled and cut to --size",
        )
        group.add_argument(
            "--mask",
            metavar="FILE",
            type=given,
            help="with --image: make only what is white in this picture anew (inpainting), scaled and cut to --size",
        )
        group.add_argument(
            "--strength",
            metavar="S",
            type=finite,
            help="with --image: take the last N * S of N steps; the lower, the nearer to the picture (default: 0.8, "
            "and 1 with --mask)",
        )
        for option, metavar, least, what in (
            (
                "--original-size",
                "H,W",
                1,
                "the size of the picture that it is as if cut from (default: the image's)",
            ),
            ("--crop", "Y,X", 0, "the corner in that picture where it is as if cut out (default: 0,0)"),
            ("--target-size", "H,W", 1, "the size that it is as if cut to (default: the image's)"),
        ):
            group.add_argument(
                option, metavar=metavar, type=two(least), help=f"SDXL sees sizes beside a prompt: {what}"
            )
        group.add_argument(
            "--preview",
            metavar="PATH",
            type=given,
            help="write what is predicted after each step as a picture, decoded by this AutoencoderTiny (TAESD)",
        )
        group.add_argument(
            "--preview-dir",
            metavar="DIR",
            type=given,
            help="with --preview: the folder of its pictures, BATCH-STEP.png; empty, or made where missing",
        )
        for option, what in (
            ("--cpu-offload", "keep each network on the processor while it is not used; needs --device cuda or mps"),
            ("--vae-tiling", "decode an image tile by tile, for less memory; the tiles change it a little"),
            ("--vae-slicing", "decode one image after the other, for less memory"),
        ):
            group.add_argument(option, action="store_true", default=None, help=what)
        group.add_argument(
            "--fps",
            metavar="N",
            type=whole(1, MOST_FPS),
            help="frames a second of a clip in a .gif or .mp4 (default: 8)",
        )
        group.add_argument(
            "--round-timesteps",
            action="store_true",
            default=None,
            help="evaluate the model at whole timesteps, as it was trained; "
            "the grids trailing, leading, linspace and lcm, those of diffusers' schedulers, do so anyway; "
            "the grid shifted is that of a flow's scheduler, whose timesteps are fractions",
        )
    if training:
        group.add_argument(
            "--prompts",
            metavar="FILE",
            type=given,
            help="prompts, one a line",
        )
        group.add_argument(
            "--data",
            metavar="PATH",
            type=given,
            help="a folder of images with captions (metadata.jsonl, .csv or .parquet, or a .txt file each; animated "
            "ones for clips), tar shards or parquet files ('shards/{000..099}.tar'), or what `toydiff pairs` wrote",
        )
        group.add_argument(
            "--skip-bad",
            action="store_true",
            default=None,
            help="leave out pictures that cannot be read or have no caption, and count them",
        )
        group.add_argument(
            "--rank",
            metavar="N",
            type=whole(1, 4096),
            help="rank of the student's LoRA (default: 64)",
        )
        group.add_argument(
            "--full",
            action="store_true",
            default=None,
            help="train all weights, not a LoRA",
        )
        group.add_argument(
            "--motion-only",
            action="store_true",
            default=None,
            help="train the layers between the frames of a clip, not a LoRA",
        )
        group.add_argument(
            "--gradient-checkpointing",
            action="store_true",
            default=None,
            help="use less memory, and a third more time",
        )
        group.add_argument(
            "--cache",
            metavar="DIR",
            type=given,
            help="folder that keeps encoded images and prompts (default: cache in the folder of --out)",
        )


def refuse(args: argparse.Namespace, why: str) -> None:
    """`ValueError` for options of checkpoints, where there is no checkpoint."""
    for name in (*TO_LOAD, *TO_RUN, *TO_SAMPLE, *TO_TRAIN):
        if getattr(args, name, None) is not None:
            option = {"checkpoint": "model"}.get(name, name).replace("_", "-")
            raise ValueError(f"--{option} is for Stable Diffusion checkpoints, {why}")


def is_checkpoint(problem: str | None) -> bool:
    """Whether a problem's name is a checkpoint's."""
    return problem is not None and problem.partition(":")[0] == KIND


def problem_of(args: argparse.Namespace, cache: Path | None = None) -> "StableDiffusionProblem":
    """The problem that the options describe. cache: the folder for encoded images and prompts without --cache."""
    _, _, named = args.problem.partition(":")
    if named and args.checkpoint is not None and named != args.checkpoint:
        raise ValueError(f"the checkpoint is named twice, {named!r} by --problem and {args.checkpoint!r} by --model")
    model = named or args.checkpoint
    if not model:
        raise ValueError("--problem sd needs --model: a folder in diffusers' layout, a hub id, or a .safetensors file")
    if args.dtype is not None and args.dtype not in DTYPES:
        raise unknown("dtype", args.dtype, DTYPES)
    from ..problems.stable_diffusion import StableDiffusionProblem

    settings: dict[str, Any] = {
        "config": args.config,
        "lora": tuple(args.lora or ()),
        "unet": args.unet,
        "vae": args.vae,
        "motion_adapter": args.motion_adapter,
        "scheduler": args.scheduler,
        "prediction_type": args.prediction_type,
        "beta_schedule": args.beta_schedule,
        "local_only": bool(args.local_only),
        "unsafe": bool(args.unsafe_weights),
        "size": args.size,
        "frames": args.frames,
        "cut": bool(args.cut_prompts),
    }
    settings |= {} if args.at_once is None else {"at_once": args.at_once}
    if hasattr(args, "prompts"):
        if args.full and args.motion_only:
            raise ValueError("--full trains all weights, and --motion-only some of them: give one of the two")
        settings |= {
            "prompts": args.prompts or (),
            "data": args.data,
            "trained": "full" if args.full else "motion" if args.motion_only else "lora",
            "checkpointing": bool(args.gradient_checkpointing),
            "cache": args.cache or cache,
            "skip_bad": bool(args.skip_bad),
        }
        if args.rank is not None and settings["trained"] != "lora":
            other = "--full" if args.full else "--motion-only"
            raise ValueError(f"--rank is that of a LoRA, and {other} trains none: give one of the two")
        settings |= {} if args.rank is None else {"rank": args.rank}
    made = StableDiffusionProblem(model, **settings)
    made.progress = show_progress()
    return made


def prepare(
    the_problem: "StableDiffusionProblem", args: argparse.Namespace, device: str, *, training: bool = False
) -> None:
    """Move the checkpoint to a device, in the dtype of --dtype."""
    dtype = args.dtype or ("float16" if device == "cuda" and not training else "float32")
    if training and dtype == "float16":
        raise ValueError("gradients underflow in float16; train with --dtype bfloat16 or float32")
    if device == "cpu" and getattr(args, "cpu_offload", None):
        raise ValueError("--cpu-offload needs --device cuda or mps")
    the_problem.checkpoint.to(device, dtype, offload=bool(getattr(args, "cpu_offload", False)))


@contextlib.contextmanager
def tidy(out: str) -> Iterator[None]:
    """Within the block, what is refused before anything else is in the folder OUT leaves no OUT/cache behind that it
    made, and no OUT. Pictures that were encoded are kept: that takes long, and the next try uses them."""
    folder, cache = Path(out), Path(out) / "cache"
    there = [place for place in (folder, cache) if place.exists()]
    try:
        yield
    except ValueError:
        if cache not in there and not any(cache.glob("latents-*")) and list(folder.glob("*")) == [cache]:
            shutil.rmtree(cache, ignore_errors=True)
            if folder not in there:
                folder.rmdir()
        raise


def skipped(the_problem: "Problem") -> dict[str, int]:
    """How many bad pictures, and captions without one, were left out, where that was allowed (--skip-bad)."""
    from ..problems.stable_diffusion import StableDiffusionProblem

    allowed = isinstance(the_problem, StableDiffusionProblem) and the_problem.settings().get("skip_bad")
    return {"skipped": len(the_problem.skipped)} if allowed else {}  # type: ignore[attr-defined]


def skipped_text(the_problem: "Problem") -> str:
    """The same, for people, with what is wrong with the first of them."""
    count = skipped(the_problem).get("skipped")
    if count is None:
        return ""
    first = f"; the first: {the_problem.skipped[0]}" if count else ""  # type: ignore[attr-defined]
    return f"\nleft out: {plural(count, 'bad item')}{first}"


def usual_guidance(the_problem: "Problem") -> float:
    """The default guidance scale for a checkpoint; 1 for other problems."""
    from ..problems.stable_diffusion import StableDiffusionProblem

    if not isinstance(the_problem, StableDiffusionProblem):
        return 1.0
    return the_problem.checkpoint.family.usual_guidance(the_problem.checkpoint.network)


def usual_of_student(D: "Denoiser") -> float:
    """The default guidance scale for a student that was trained with many, an input of its network. Others have
    guidance built in; where the scale is an input all the same, as of FLUX.1-dev, their run says which they had."""
    from ..adapters.network import network_of

    net = network_of(D)
    return net.family.usual_guidance(net.network)


# ---- sample


def chosen(
    args: argparse.Namespace, model: "Model | None"
) -> "tuple[StableDiffusionProblem, Denoiser | None, Mapping[str, Any], float]":
    """What the options of a command that samples choose, on its device: the problem, the student or None, its usual
    solver, grid and steps, and the usual guidance scale. model: a run's; None is the checkpoint of the options."""
    import torch

    from ..adapters.schedulers import sampler_of
    from ..runs import of_vectors, to_device
    from ..solvers.registry import PARALLEL

    device = usable(args.device or "cpu")
    D: Denoiser | None = None
    if model is None:
        the_problem = problem_of(args)
        usual, spacing = the_problem.checkpoint.family.walk
        sampler: Mapping[str, Any] = {"solver": usual, "grid": spacing, "steps": [20]}
        if args.scheduler is not None:
            sampler = {**sampler, **sampler_of(the_problem.checkpoint)}
            if args.solver is not None and args.solver.partition(":")[0] not in (sampler["solver"], *PARALLEL):
                raise ValueError(
                    f"--scheduler {args.scheduler} is the solver {sampler['solver']} here, "
                    f"and --solver names {args.solver}; leave one of them out"
                )
    else:
        for name in TO_LOAD:
            if getattr(args, name) is not None and name != "unsafe_weights":
                raise ValueError(
                    "a run knows its own checkpoint; --model, --config, --lora, --unet, --vae, --motion-adapter, "
                    "--scheduler, --prediction-type, --beta-schedule and --local-only are for sampling one without a "
                    "run"
                )
        if getattr(args, "cpu_offload", None):
            raise ValueError(
                "--cpu-offload is for sampling a checkpoint without a run; export the run, and give it as --lora or "
                "--unet"
            )
        the_problem, sampler = problem_of_run(model, with_data=False), model.about["sampler"]
        D = of_vectors(model.denoiser, "images are")
    if D is None:
        guidance_scale = usual_guidance(the_problem)
    else:
        guidance_scale = sampler.get("guidance_scale", usual_of_student(D)) if D.scale_conditioned else 1.0
    prepare(the_problem, args, device)
    if D is not None:
        to_device(torch.device(device), the_problem, D)
    return the_problem, D, sampler, guidance_scale


def sample(args: argparse.Namespace, model: "Model | None" = None) -> None:
    """Make images with a checkpoint, or, given a model, with a student of one."""
    from ..adapters.checkpoint import UNFILTERED
    from ..adapters.clips import FPS, check_video
    from ..adapters.images import read_image
    from ..adapters.preview import Preview
    from ..adapters.reading import whole as whole_path
    from ..adapters.sampling import sample_images, usual_strength
    from ..grids import DEFAULT_GRID
    from ..solvers.registry import is_learned

    out = sample_file(args.out, args.json, (*SUFFIXES, *MOVING))
    if out.suffix == ".mp4":
        check_video()
    if args.fps is not None and out.suffix not in MOVING:
        raise ValueError(f"--fps is for clips that move ({', '.join(MOVING)}), and --out is {args.out!r}")
    if (args.preview is None) != (args.preview_dir is None):
        raise ValueError("--preview names a TAESD, and --preview-dir the folder of its pictures: give both, or neither")
    for name in ("mask", "strength"):
        if getattr(args, name) is not None and args.image is None:
            raise ValueError(f"--{name} needs --image, the picture to start from")
    if not args.prompt:
        raise ValueError("give at least one --prompt; it may be empty")
    the_problem, D, sampler, guidance_scale = chosen(args, model)
    the_problem.checkpoint.switch_vae(tiling=bool(args.vae_tiling), slicing=bool(args.vae_slicing))
    negatives = args.negative_prompt or [None]
    negative = negatives[0] if len(negatives) == 1 else negatives
    size = args.size or tuple(side * the_problem.checkpoint.scale for side in the_problem.shape[-2:])
    clips = the_problem.checkpoint.family.clips
    if out.suffix in MOVING and not clips:
        raise ValueError(f"{out.suffix} is for clips, and this checkpoint makes images: --out must end in .png or .npz")
    settings: dict[str, Any] = {
        "model": the_problem.checkpoint.source if model is None else args.model,
        "problem": the_problem.name,
        "prompts": args.prompt,
        "negative_prompt": negative,
        "prompt_parts": bool(args.prompt_parts),
        "solver": args.solver or sampler["solver"],
        "grid": args.grid or (DEFAULT_GRID if is_learned(args.solver or "") else sampler["grid"]),
        "steps": args.steps or max(sampler["steps"]),
        "n": args.n or 1,
        "seed": args.seed,
        "guidance_scale": guidance_scale if args.guidance_scale is None else args.guidance_scale,
        "guidance_rescale": args.guidance_rescale or 0.0,
        "guidance_interval": args.guidance_interval,
        "size": list(size) if isinstance(size, tuple) else [size, size],
        "frames": args.frames or (the_problem.shape[1] if clips else None),
        "original_size": args.original_size,
        "crop": args.crop,
        "target_size": args.target_size,
        "round_timesteps": bool(args.round_timesteps),
        "fps": (args.fps or FPS) if out.suffix in MOVING else None,
        "dtype": str(the_problem.checkpoint.network.dtype).removeprefix("torch."),
        "vae_tiling": bool(args.vae_tiling),
        "vae_slicing": bool(args.vae_slicing),
        "lora": args.lora or [],
        "unet": args.unet,
        "vae": args.vae,
        "motion_adapter": args.motion_adapter,
        "scheduler": args.scheduler,
        "prediction_type": args.prediction_type,
        "beta_schedule": args.beta_schedule,
        "safety": UNFILTERED,
        "image": None if args.image is None else whole_path(args.image),
        "mask": None if args.mask is None else whole_path(args.mask),
        "strength": usual_strength(args.mask) if args.image is not None and args.strength is None else args.strength,
    }
    preview = None
    if args.preview is not None:
        preview = Preview(
            the_problem.checkpoint,
            args.preview,
            args.preview_dir,
            local_only=bool(args.local_only),
            unsafe=bool(args.unsafe_weights),
        )
    made = sample_images(
        the_problem.checkpoint,
        args.prompt,
        denoiser=D,
        each=settings["n"],
        steps=settings["steps"],
        solver=settings["solver"],
        grid=settings["grid"],
        guidance_scale=settings["guidance_scale"],
        guidance_rescale=settings["guidance_rescale"],
        guidance_interval=args.guidance_interval,
        negative_prompt=negative,
        size=tuple(settings["size"]),
        frames=settings["frames"],
        original_size=args.original_size,
        crops_coords_top_left=args.crop,
        target_size=args.target_size,
        image=None if args.image is None else read_image(Path(args.image), tuple(settings["size"])),
        mask=None if args.mask is None else read_image(Path(args.mask), tuple(settings["size"])).mean(0, keepdim=True),
        strength=settings["strength"],
        seed=args.seed,
        rounded=settings["round_timesteps"],
        cut=bool(args.cut_prompts),
        by_parts=bool(args.prompt_parts),
        progress=show_progress(),
        callback=preview,
        **({} if args.at_once is None else {"at_once": args.at_once}),
    )
    if out.suffix in MOVING:
        made_of = as_moving(made, settings, out.suffix)
    else:
        made_of = as_npz(made, settings) if out.suffix == ".npz" else as_png(made, settings)
    write_bytes(out, made_of)
    path = made.trajectory
    row = settings | {"nfe": path.nfe, "rounds": path.rounds, "seconds": path.seconds}
    report(args.json, row, text(row, out))


def problem_of_run(model: "Model", *, with_data: bool = True) -> "StableDiffusionProblem":
    """The problem that a student of a checkpoint was trained on (`runs.problem_of`)."""
    from ..problems.stable_diffusion import StableDiffusionProblem
    from ..runs import problem_of

    found = problem_of(model, with_data=with_data)
    assert isinstance(found, StableDiffusionProblem)  # no other problem has such a name (`is_checkpoint`)
    return found


def text(row: Mapping, out: Path) -> str:
    """What was made, for people."""
    prompts, g = len(row["prompts"]), row["guidance_scale"]
    what = "image" if row["frames"] is None else f"{row['frames']}-frame clip"
    below = (
        f"guidance {g:g} goes {'part of the way to' if g > 0 else 'away from'} the prompt; diffusers turns it off "
        "below 1: --guidance-scale 1\n"
        if g < 1
        else ""
    )
    return (
        f"{plural(row['n'] * prompts, what)} of {plural(prompts, 'prompt')} "
        f"by {row['solver']}, {plural(row['steps'], 'step')}: "
        f"{plural(row['nfe'], 'network call')} each (NFE), {plural(row['rounds'], 'round')}, {row['seconds']:.3g} s\n"
        f"{below}{row['safety']}\nwrote {out}"
    )


def as_png(made: "Images", settings: Mapping) -> bytes:
    """A PNG of the images, a row for each prompt, or of clips as film strips, a row for each clip. Its text field
    `toydiff` holds the settings as JSON."""
    from ..adapters.images import as_bytes, sheet_png

    assert made.images is not None  # they were decoded
    images = as_bytes(made.images)
    if settings["frames"] is not None:
        return sheet_png(images.reshape(-1, *images.shape[2:]), settings["frames"], dict(settings))
    return sheet_png(images, _columns(settings), dict(settings))


def as_moving(made: "Images", settings: Mapping, suffix: str) -> bytes:
    """A GIF or MP4 of the clips, a row for each prompt. Its comment holds the settings as JSON."""
    from ..adapters.clips import gif, mp4
    from ..adapters.images import as_bytes

    assert made.images is not None  # they were decoded
    write = gif if suffix == ".gif" else mp4
    return write(as_bytes(made.images), _columns(settings), dict(settings), settings["fps"])


def _columns(settings: Mapping) -> int:
    return settings["n"] if len(settings["prompts"]) > 1 else min(settings["n"], 8)


def as_npz(made: "Images", settings: Mapping) -> bytes:
    """A file of the arrays `images` (n, H, W, 3), bytes, `latents` (n, C, h, w), `ts` (N+1,), and `settings`, JSON
    text. Of clips `images` is (n, F, H, W, 3) and `latents` (n, C, F, h, w). It holds no time of day, so one seed
    gives one file."""
    import numpy as np

    from ..adapters.images import as_bytes

    assert made.images is not None  # they were decoded
    out = io.BytesIO()
    np.savez(
        out,
        images=as_bytes(made.images),
        latents=made.latents.float().numpy(),
        ts=made.trajectory.ts.cpu().numpy(),
        settings=np.array(json.dumps(settings)),
    )
    return out.getvalue()


# ---- export


def export(args: argparse.Namespace) -> None:
    from .. import runs
    from ..adapters.export import export as write
    from .terminal import output_file

    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    model = runs.load(args.model, unsafe=bool(args.unsafe_weights))
    made = write(runs.of_vectors(model.denoiser, "an export is"), model.about, args.out, whole=args.whole)
    row = {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(made).items()}
    what = {
        "lora": "a LoRA",
        "unet": "a UNet",
        "transformer": "a transformer",
        "motion_adapter": "a motion adapter",
    }[made.what]
    report(json_to, row, f"wrote {what} and {made.scheduler} to {made.folder}; with diffusers alone:\n\n{made.code}")


def export_arguments(parser: Parser) -> None:
    from .terminal import add_json

    parser.add_argument(
        "model",
        metavar="RUN",
        type=place,
        help="the folder of a run that trained on a Stable Diffusion checkpoint",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        required=True,
        help="folder to write into; it is made where missing",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="write the whole network, even if a LoRA would do",
    )
    add_unsafe(parser)
    add_json(parser)
