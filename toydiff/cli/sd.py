"""The commands on Stable Diffusion checkpoints: what they are told beside the rest, images, and students for
diffusers. Thin: the work is in `adapters`."""

import argparse
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.checks import unknown
from ..support.files import write_bytes
from .terminal import MOST_SAMPLES, Parser, report, sample_file, show_progress, usable, whole

if TYPE_CHECKING:
    from ..adapters.sampling import Images
    from ..problems.stable_diffusion import StableDiffusionProblem
    from ..runs import Model

KIND = "sd"
GUIDANCE_SCALE = 7.5
"""Of a checkpoint that is sampled, and of a student that is told the scale; other students have it built in."""
DTYPES = ("float32", "float16", "bfloat16")
MOST_SIZE = 8192

TO_LOAD = ("checkpoint", "config", "lora", "unet", "local_only", "unsafe_weights")
TO_RUN = ("size", "at_once", "dtype", "cut_prompts")
TO_SAMPLE = ("prompt", "negative_prompt", "round_timesteps")
TO_TRAIN = ("prompts", "data", "rank", "full", "gradient_checkpointing", "cache")
"""The options that only checkpoints have, by their names in the parsed arguments."""


# ---- arguments


def size_of(text: str) -> int | tuple[int, int]:
    """512 or 512x768, height first."""
    read = whole(8, MOST_SIZE)
    sides = [read(part) for part in text.lower().split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must be one number, or height x width, got {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def arguments(parser: Parser, *, sampling: bool = False, training: bool = False) -> None:
    """The options of a command that can work on a checkpoint (--problem sd)."""
    group = parser.group("Stable Diffusion (--problem sd)")
    group.add_argument(
        "--model",
        dest="checkpoint",
        metavar="PATH",
        help="a folder in diffusers' layout, a hub id, or a .safetensors file",
    )
    group.add_argument(
        "--config",
        metavar="PATH",
        help="of a single file: a folder with the JSON and tokenizers of its kind, or a hub id",
    )
    group.add_argument("--lora", metavar="PATH", action="append", help="add a LoRA to the weights; may be given again")
    group.add_argument("--unet", metavar="PATH", help="another UNet in the place of the checkpoint's")
    group.add_argument("--local-only", action="store_true", default=None, help="never ask the hub")
    group.add_argument(
        "--unsafe-weights", action="store_true", default=None, help="also read pickled weights, which can run code"
    )
    group.add_argument("--size", metavar="N or HxW", type=size_of, help="pixels (default: the checkpoint's own)")
    group.add_argument(
        "--at-once",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        help="images in one network call where images are made (default: 8)",
    )
    group.add_argument(
        "--dtype",
        metavar="NAME",
        help=f"of the frozen weights: {', '.join(DTYPES)} (default: float32; sampling on CUDA: float16)",
    )
    group.add_argument(
        "--cut-prompts", action="store_true", default=None, help="let prompts that are too long lose their end"
    )
    if sampling:
        group.add_argument("--prompt", metavar="TEXT", action="append", help="may be given again: a row of images each")
        group.add_argument("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
        group.add_argument(
            "--round-timesteps", action="store_true", default=None,
            help="ask the model at whole timesteps, as it was trained; grids named trailing, leading, linspace and lcm are those of diffusers' schedulers and do so anyway",
        )  # fmt: skip
    if training:
        group.add_argument("--prompts", metavar="FILE", help="prompts, one a line")
        group.add_argument(
            "--data",
            metavar="DIR",
            help="images with captions (metadata.jsonl, or a .txt file each), or what `toydiff pairs` wrote",
        )
        group.add_argument("--rank", metavar="N", type=whole(1, 4096), help="of the student's LoRA (default: 64)")
        group.add_argument("--full", action="store_true", default=None, help="train all weights, not a LoRA")
        group.add_argument(
            "--gradient-checkpointing", action="store_true", default=None, help="less memory for a third more time"
        )
        group.add_argument(
            "--cache", metavar="DIR", help="for encoded images and prompts (default: cache in the folder of the run)"
        )


def refuse(args: argparse.Namespace, why: str) -> None:
    """`ValueError` for options that are for checkpoints only, where there is none."""
    for name in (*TO_LOAD, *TO_RUN, *TO_SAMPLE, *TO_TRAIN):
        if getattr(args, name, None) is not None:
            option = {"checkpoint": "model"}.get(name, name).replace("_", "-")
            raise ValueError(f"--{option} is for Stable Diffusion checkpoints, {why}")


def is_checkpoint(problem: str | None) -> bool:
    """Whether a problem's name is that of a checkpoint."""
    return problem is not None and problem.partition(":")[0] == KIND


def problem_of(args: argparse.Namespace, cache: Path | None = None) -> "StableDiffusionProblem":
    """The problem that the options describe."""
    _, _, named = args.problem.partition(":")
    if named and args.checkpoint is not None and named != args.checkpoint:
        raise ValueError(f"the checkpoint is named twice, {named!r} by --problem and {args.checkpoint!r} by --model")
    model = named or args.checkpoint
    if not model:
        raise ValueError("--problem sd needs --model: a folder in diffusers' layout, a hub id, or a .safetensors file")
    if args.dtype is not None and args.dtype not in DTYPES:
        raise unknown("dtype", args.dtype, DTYPES)
    from ..problems.stable_diffusion import StableDiffusionProblem

    settings = {
        "config": args.config, "lora": tuple(args.lora or ()), "unet": args.unet, "local_only": bool(args.local_only), "unsafe": bool(args.unsafe_weights),
        "size": args.size, "cut": bool(args.cut_prompts),
    }  # fmt: skip
    settings |= {} if args.at_once is None else {"at_once": args.at_once}
    if hasattr(args, "prompts"):
        settings |= {
            "prompts": args.prompts or (), "data": args.data, "trained": "full" if args.full else "lora",
            "checkpointing": bool(args.gradient_checkpointing), "cache": args.cache or cache,
        }  # fmt: skip
        settings |= {} if args.rank is None else {"rank": args.rank}
    made = StableDiffusionProblem(model, **settings)
    made.progress = show_progress()
    return made


def prepare(
    the_problem: "StableDiffusionProblem", args: argparse.Namespace, device: str, *, training: bool = False
) -> None:
    """Move the checkpoint to where it will work, in the dtype that was asked for."""
    dtype = args.dtype or ("float16" if device == "cuda" and not training else "float32")
    if training and dtype == "float16":
        raise ValueError("gradients underflow in float16; train with --dtype bfloat16 or float32")
    the_problem.checkpoint.to(device, dtype)


# ---- sample


def sample(args: argparse.Namespace, model: "Model | None" = None) -> None:
    """Images of a checkpoint, or, given its model, of a student of one."""
    import torch

    from ..adapters.checkpoint import UNFILTERED
    from ..adapters.sampling import sample_images
    from ..runs import problem_of as problem_of_run
    from ..runs import to_device

    out = sample_file(args.out, args.json)
    if not args.prompt:
        raise ValueError("give at least one --prompt; it may be empty")
    device = usable(args.device or "cpu")
    if model is None:
        the_problem, D, sampler, told = (
            problem_of(args),
            None,
            {"solver": "dpm++2m", "grid": "uniform", "steps": [20]},
            True,
        )
    else:
        for name in TO_LOAD:
            if getattr(args, name) is not None:
                raise ValueError(
                    "a run knows its own checkpoint; --model, --config, --lora, --unet, --local-only and --unsafe-weights are for sampling one without a run"
                )
        the_problem, D, sampler = problem_of_run(model, with_data=False), model.denoiser, model.about["sampler"]
        told = D.scale_conditioned
    prepare(the_problem, args, device)
    if D is not None:
        to_device(torch.device(device), the_problem, D)
    size = args.size or tuple(the_problem.shape[k] * the_problem.checkpoint.scale for k in (1, 2))
    settings = {
        "model": the_problem.checkpoint.source if model is None else args.model, "problem": the_problem.name, "prompts": args.prompt,
        "negative_prompt": args.negative_prompt, "solver": args.solver or sampler["solver"], "grid": args.grid or sampler["grid"],
        "steps": args.steps or max(sampler["steps"]), "n": args.n or 1, "seed": args.seed,
        "guidance_scale": args.guidance_scale if args.guidance_scale is not None else GUIDANCE_SCALE if told else 1.0,
        "size": list(size) if isinstance(size, tuple) else [size, size], "round_timesteps": bool(args.round_timesteps), "dtype": str(args.dtype or "default"),
        "lora": args.lora or [], "unet": args.unet, "safety": UNFILTERED,
    }  # fmt: skip
    made = sample_images(
        the_problem.checkpoint, args.prompt, denoiser=D, each=settings["n"], steps=settings["steps"], solver=settings["solver"], grid=settings["grid"],
        guidance_scale=settings["guidance_scale"], negative_prompt=args.negative_prompt, size=tuple(settings["size"]), seed=args.seed,
        rounded=settings["round_timesteps"], cut=bool(args.cut_prompts), progress=show_progress(), **({} if args.at_once is None else {"at_once": args.at_once}),
    )  # fmt: skip
    write_bytes(out, as_npz(made, settings) if out.suffix == ".npz" else as_png(made, settings))
    path = made.trajectory
    row = settings | {"nfe": path.nfe, "rounds": path.rounds, "seconds": path.seconds}
    report(args.json, row, text(row, out))


def text(row: Mapping, out: Path) -> str:
    """What was made, for people."""
    prompts = len(row["prompts"])
    return (
        f"{row['n'] * prompts} image{'s' * (row['n'] * prompts > 1)} of {prompts} prompt{'s' * (prompts > 1)} by {row['solver']}, {row['steps']} steps: "
        f"{row['nfe']} network calls each (NFE), {row['rounds']} rounds, {row['seconds']:.3g} s\n"
        f"{row['safety']}\nwrote {out}"
    )


def as_png(made: "Images", settings: Mapping) -> bytes:
    """The images, a prompt's in a row, with the settings as JSON in the PNG's text field `toydiff`."""
    from ..adapters.images import as_bytes, sheet_png

    return sheet_png(
        as_bytes(made.images), settings["n"] if len(settings["prompts"]) > 1 else min(settings["n"], 8), dict(settings)
    )


def as_npz(made: "Images", settings: Mapping) -> bytes:
    """Arrays `images` (n, H, W, 3) in bytes, `latents` (n, C, h, w), `ts` (N+1,), and `settings`, JSON text. No
    clock."""
    import numpy as np

    from ..adapters.images import as_bytes

    out = io.BytesIO()
    np.savez(
        out, images=as_bytes(made.images), latents=made.latents.float().numpy(), ts=made.trajectory.ts.cpu().numpy(), settings=np.array(json.dumps(settings))
    )  # fmt: skip
    return out.getvalue()


# ---- export


def export(args: argparse.Namespace) -> None:
    from .. import runs
    from ..adapters.export import export as write
    from .terminal import output_file

    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    model = runs.load(args.model)
    made = write(model.denoiser, model.about, args.out, whole=args.whole)
    row = {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(made).items()}
    what = {"lora": "a LoRA", "unet": "a UNet"}[made.what]
    report(json_to, row, f"wrote {what} and {made.scheduler} to {made.folder}; with diffusers alone:\n\n{made.code}")


def export_arguments(parser: Parser) -> None:
    from .terminal import add_json

    parser.add_argument(
        "model", metavar="RUN", help="the folder of a run that trained on a Stable Diffusion checkpoint"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of what is written, made where missing")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="write the whole UNet, also where the student is a LoRA that could be written alone",
    )
    add_json(parser)
