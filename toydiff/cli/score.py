"""`toydiff score`: CLIP score and FID of the images of a checkpoint, or of a student of one."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.files import check_folder
from ..support.words import plural
from . import sd as cli_sd
from .terminal import (
    MOST_SAMPLES,
    MOST_STEPS,
    Parser,
    add_device,
    add_json,
    finite,
    given,
    output_file,
    place,
    report,
    show_progress,
    usable,
    whole,
)

if TYPE_CHECKING:
    from torch import Tensor

MOST_SEED = 10**12
MORE = (
    "Image k has the caption k of --data, or line k of --prompts, and the seed S + k. After the last caption they\n"
    "begin again: the error of the CLIP score is over captions, not images. What was measured is kept in --out: the\n"
    "same command continues where it was interrupted, and a larger --n goes on from there."
)


def run(args: argparse.Namespace) -> None:
    """Make images and measure them."""
    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    if (args.model is None) == (args.problem is None):
        raise ValueError("give a run or a checkpoint (--problem sd --model PATH), one of the two")
    if args.problem is not None and not cli_sd.is_checkpoint(args.problem):
        raise ValueError(f"--problem is for Stable Diffusion checkpoints (sd), got {args.problem!r}")
    if args.clip is None and args.features is None:
        raise ValueError("name the network to measure with: --clip for the CLIP score, --features for FID, or both")
    if (args.pictures is None) == (args.texts is None):
        raise ValueError("give --data, pictures with captions, or --prompts, one of the two")
    if args.features is not None and args.pictures is None:
        raise ValueError("FID compares with real images: --features needs --data")
    if args.skip_bad and args.pictures is None:
        raise ValueError("bad pictures can be skipped where there are pictures (--data)")
    folder = check_folder(args.out)
    from ..adapters.pictures import pictures, read_text
    from ..adapters.sampling import sample_images
    from ..adapters.scores import Clip, network, score
    from ..grids import DEFAULT_GRID
    from ..runs import load
    from ..solvers.registry import is_learned
    from ..training.checkpoints import read_run

    device, unsafe = usable(args.device or "cpu"), bool(args.unsafe_weights)
    bad: list[str] | None = [] if args.skip_bad else None
    found = [] if args.pictures is None else pictures(args.pictures, bad)
    prompts = [text for _, text in found]
    if args.texts is not None:
        prompts = [line.strip() for line in read_text(Path(args.texts)).split("\n") if line.strip()]
        if not prompts:
            raise ValueError(f"the file of prompts {args.texts!r} has none; one a line is needed")
    clip = None if args.clip is None else Clip(args.clip, device)
    features = None if args.features is None else network(args.features, device, unsafe=unsafe)
    model = None if args.model is None else load(args.model, unsafe=unsafe)
    if model is not None and not cli_sd.is_checkpoint(model.about["problem"]):
        raise ValueError(f"{args.model!r} is of the problem {model.about['problem']}, and makes no images of prompts")
    the_problem, D, sampler, usual = cli_sd.chosen(args, model)
    checkpoint = the_problem.checkpoint
    if checkpoint.family.clips:
        raise ValueError(f"toydiff score measures images, and the checkpoint {checkpoint.source!r} makes clips")
    places = the_problem.shape[1:] if args.size is None else checkpoint.latent_shape(args.size)[1:]
    size = (places[0] * checkpoint.scale, places[1] * checkpoint.scale)
    settings = {
        "model": checkpoint.source if model is None else args.model,
        "solver": args.solver or sampler["solver"],
        "grid": args.grid or (DEFAULT_GRID if is_learned(args.solver or "") else sampler["grid"]),
        "steps": args.steps or max(sampler["steps"]),
        "guidance_scale": usual if args.guidance_scale is None else args.guidance_scale,
        "size": list(size),
    }
    at_once = the_problem.sizes.at_once

    def make(texts: Sequence[str], seeds: Sequence[int]) -> "tuple[Tensor, int]":
        made = sample_images(
            checkpoint,
            texts,
            denoiser=D,
            steps=settings["steps"],
            solver=settings["solver"],
            grid=settings["grid"],
            guidance_scale=settings["guidance_scale"],
            size=size,
            seed=seeds,
            at_once=at_once,
            cut=bool(args.cut_prompts),
        )
        assert made.images is not None  # they were decoded
        return made.images, made.trajectory.nfe

    began = time.perf_counter()
    n = args.n or len(prompts)
    weights = None if model is None else read_run(args.model)["sha256"]
    try:
        scores = score(
            make,
            prompts,
            n,
            made_by=[settings, weights, checkpoint.files, str(checkpoint.network.dtype)],
            folder=folder,
            size=size,
            clip=clip,
            features=features,
            real=[one for one, _ in found],
            seed=args.seed,
            at_once=at_once,
            progress=show_progress(),
            bad=bad,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command continues") from None
    row = {
        **settings,
        "n": n,
        "captions": len(set(prompts[:n])),
        "seed": args.seed,
        "nfe": scores.nfe,
        "clip_score": scores.clip_score,
        "clip_score_error": scores.clip_error,
        "clip": args.clip,
        "fid": scores.fid,
        "features": args.features,
        "real": len(found),
        "seconds": time.perf_counter() - began,
        **({} if bad is None else {"skipped": len(bad)}),
    }
    report(json_to, row, text(row))


def text(row: Mapping) -> str:
    """What was measured, for people."""
    error = "" if row["clip_score_error"] is None else f" ± {row['clip_score_error']:.2g} (over captions)"
    lines = [
        f"{plural(row['n'], 'image')} of {row['model']} by {row['solver']}, {plural(row['steps'], 'step')}: "
        f"{plural(row['nfe'], 'network call')} each (NFE), guidance scale {row['guidance_scale']:g}",
        *(
            [f"{plural(row['captions'], 'different caption')}: some have several images, with other seeds"]
            if row["captions"] < row["n"]
            else []
        ),
        *([] if row["clip_score"] is None else [f"CLIP score {row['clip_score']:.2f}{error}, by {row['clip']}"]),
        *(
            []
            if row["fid"] is None
            else [f"FID {row['fid']:.2f} to {plural(row['real'], 'real image')}, by {row['features']}"]
        ),
        *([f"left out: {plural(row['skipped'], 'bad item')}"] if "skipped" in row else []),
    ]
    return "\n".join(lines)


def arguments(parser: Parser) -> None:
    """The options of `toydiff score`."""
    parser.add_argument(
        "model",
        metavar="RUN",
        nargs="?",
        type=place,
        help="the folder of a run that trained on a checkpoint; or else --problem sd",
    )
    parser.add_argument(
        "--problem",
        metavar="NAME",
        help="sd, with --model: the checkpoint itself",
    )
    parser.add_argument(
        "--data",
        dest="pictures",
        metavar="PATH",
        type=given,
        help="pictures with captions, as `toydiff train` takes them: the real images, and the prompts",
    )
    parser.add_argument(
        "--prompts",
        dest="texts",
        metavar="FILE",
        type=given,
        help="prompts, one a line, where there are no real images",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out pictures that cannot be read or have no caption, and count them",
    )
    parser.add_argument(
        "--clip",
        metavar="DIR",
        type=given,
        help="for the CLIP score: the folder of a CLIP model of transformers",
    )
    parser.add_argument(
        "--features",
        metavar="PATH",
        type=given,
        help="for FID: Inception in TorchScript (inception-2015-12-05.pt), or the folder of a CLIP model",
    )
    parser.add_argument(
        "--n",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        help="number of images; above the number of captions these begin again, with other seeds "
        "(default: one of each caption)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=whole(1, MOST_STEPS),
        help="steps of the solver (default: 20 of a checkpoint; of a run the most that its method is meant for)",
    )
    parser.add_argument("--solver", metavar="NAME", help="solver (default: as in `toydiff sample`)")
    parser.add_argument("--grid", metavar="NAME", help="time grid (default: as in `toydiff sample`)")
    parser.add_argument(
        "--guidance-scale",
        metavar="G",
        type=finite,
        help="guidance scale; 1 is off (default: as in `toydiff sample`)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole(0, MOST_SEED),
        default=0,
        help="seed of the first image; the next ones follow (default: 0)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        required=True,
        help="folder that keeps what was measured; it is made where missing",
    )
    cli_sd.arguments(parser)
    add_device(parser)
    add_json(parser)
