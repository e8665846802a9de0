"""`toydiff doctor`: what a Stable Diffusion checkpoint or LoRA is, what is missing and what runs, before anything is
loaded."""

import argparse
from collections.abc import Mapping

from ..support.words import plural
from .terminal import Parser, add_json, given, output_file, report, table

MISSING_CONFIG = "--config: a folder with the JSON and the tokenizers of its kind, those of {like} by its names"


def arguments(parser: Parser) -> None:
    """The options of `toydiff doctor`."""
    parser.add_argument(
        "--model",
        metavar="PATH",
        type=given,
        required=True,
        help="the checkpoint: a folder in diffusers' layout, or a .safetensors file; or a LoRA",
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        type=given,
        help="what a .safetensors file holds: a folder with the JSON and tokenizers of its kind",
    )
    parser.add_argument(
        "--motion-adapter",
        metavar="PATH",
        type=given,
        help="a folder of layers between frames, with which a checkpoint of SD makes clips",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Look at a checkpoint, and print what it is."""
    json_to = output_file(args.json)
    from ..adapters.summary import summary

    found = summary(args.model, args.config, args.motion_adapter)
    report(json_to, found, text(found))


def text(found: Mapping) -> str:
    """What was found, for people."""
    rows = [
        (name, f"{held['numbers']:,}", ", ".join(held["dtypes"]), _size(held["bytes"]))
        for name, held in found["weights"].items()
    ]
    files = table(("part", "numbers", "dtype", "on disk"), rows, right=(1, 3))
    if "lora" in found:
        parts = ", ".join(f"{plural(count, 'layer')} of the {part}" for part, count in found["layers"].items() if count)
        ranks = ", ".join(f"{rank} ({plural(count, 'layer')})" for rank, count in found["ranks"].items())
        return (
            f"{found['model']}: a {'DoRA' if found['dora'] else 'LoRA'} for {found['lora']}\n\n{files}\n\n"
            f"changes {parts}; rank {ranks}\nadd it to a checkpoint with --lora"
        )
    if "like" in found:
        return (
            f"{found['model']}: a single file, in the layout of {found['like']}\n\n{files}\n\n"
            f"missing: {MISSING_CONFIG.format(like=found['like'])}"
        )
    height, width = found["resolution"]
    schedule = "a flow, on the linear schedule" if found["flow"] else f"a table of {found['timesteps']} noise levels"
    memory, usual, own = found["memory"], found["usual"], found["like_scheduler"]
    image = ", ".join(f"{_size(size)} in {dtype}" for dtype, size in memory["image"].items())
    update = ", ".join(f"{_size(size)} in {dtype}" for dtype, size in memory["lora_update"].items())
    most = found["most_frames"]
    clips = "" if most is None else f"; clips of {found['latent'][1]} frames, {most} at most"
    left_out = [
        f"{name} (its layers are in the UNet already)" if name == "motion_adapter" else name
        for name in found["left_out"]
    ]
    lines = [
        f"{found['model']}: {found['pipeline']}",
        f"family: {found['family']}",
        f"predicts {found['predicts']}, {schedule}; scheduler {found['scheduler']}; {height} x {width} pixels{clips}",
        *(["made for inpainting: it needs --image and --mask, and is not trained"] if found["takes_mask"] else ()),
        f"\n{files}\n",
        f"missing: {', '.join(found['missing']) or 'nothing'}",
        f"left out: {', '.join(left_out) or 'nothing'}",
        f"runs: --solver {usual['solver']} --grid {usual['grid']} is usual"
        + (f"; as its scheduler, --solver {own['solver']} --grid {own['grid']}" if own else ""),
        "spacings: " + (", ".join(f"{grid} ({solver})" for grid, solver in found["spacings"].items()) or "none"),
        *(f"not {spacing}: {why}" for spacing, why in found["refused_spacings"].items()),
        f"memory for an image: {image}; for a LoRA update of rank {memory['lora_rank']}: {update}",
        "  (an estimate: weights times bytes, without activations)",
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
