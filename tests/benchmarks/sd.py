"""What the driver costs beside a Stable Diffusion UNet of the real size: guided steps here and in diffusers' pipeline.

    python tests/benchmarks/sd.py [--device cpu] [--dtype float32] [--steps 2] [--rounds 3] [--size 512] [--compile]
        [--json FILE]
    python tests/benchmarks/sd.py --small [--steps 10] [--rounds 5] [--size 128]
        the same of a UNet of 60 million weights, in seconds of the processor
    python tests/benchmarks/sd.py --driver [--steps 50] [--rounds 9] [--json FILE]
        the same of a tiny checkpoint, where the driver is much of a step: DDIM, DPM++ 2M and UniPC
    python tests/benchmarks/sd.py --train cd vsd [--batch 1] [--checkpointing] [--full]
        seconds and memory of an update instead
    python tests/benchmarks/sd.py --counts
        weights, and passes through the UNet that an update of each method costs (on a tiny checkpoint, seed 0)
    python tests/benchmarks/sd.py --parity [--layouts sdxl-turbo ...]
        the same latents as diffusers' schedulers, on tiny checkpoints in the layouts of the published ones

The weights are random, built from the configuration of SD 1.5 (860 million in the UNet), so nothing is downloaded. Both
sides take their steps in turn in one run, with a prompt that was encoded before. Of each side the whole and the time
inside the UNet are measured: what is left is the driver's own, and is reported as a fraction of a step. On CUDA also
what two calls cost instead of one of twice the size, and what compilation gains.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import diffusers
import parity
import real_layouts
import tiny_sd
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images

PROMPT = "a photograph of an astronaut riding a horse"
UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}


SMALL = (96, 160, 320, 320)
"""The channels of a UNet of 60 million weights."""


def real_size(device: str, dtype: torch.dtype, small: bool = False) -> StableDiffusionPipeline:
    """Random weights in the configuration of SD 1.5, with a text encoder whose words are few. small: a UNet of fewer
    channels."""
    with tempfile.TemporaryDirectory() as folder:
        words = tiny_sd.tokenizer(Path(folder))
    unet = UNet2DConditionModel(**UNET | ({"block_out_channels": SMALL} if small else {}))
    text = tiny_sd.encoder(CLIPTextModel, len(words), 768)
    pipe = StableDiffusionPipeline(
        unet=unet,
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=text,
        tokenizer=words,
        safety_checker=None,
        feature_extractor=None,
        scheduler=DPMSolverMultistepScheduler(**tiny_sd.TABLE, timestep_spacing="trailing"),
        requires_safety_checker=False,
    )
    pipe.to(device, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Clock:
    """Seconds inside a module's forward."""

    def __init__(self, module: torch.nn.Module, device: str, timer: Callable[[], float] = time.perf_counter):
        self.inside, self.device, self.timer = 0.0, device, timer
        self.hooks = module.register_forward_pre_hook(self._begin), module.register_forward_hook(self._end)

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.timer()

    def _begin(self, *_) -> None:
        self._began = self.now()

    def _end(self, *_) -> None:
        self.inside += self.now() - self._began

    def measure(self, run) -> tuple[float, float]:
        """(seconds in all, seconds inside)."""
        self.inside, began = 0.0, self.now()
        run()
        return self.now() - began, self.inside


def updates(args: argparse.Namespace, checkpoint: StableDiffusion) -> list[dict]:
    """Seconds of the second of two updates of each method, and the most memory that was in use, on random latents."""
    from toydiff import runs
    from toydiff.catalog import METHODS
    from toydiff.problems.pairs import Pairs
    from toydiff.problems.stable_diffusion import StableDiffusionProblem

    rows = []
    for method in args.train:
        on = StableDiffusionProblem(
            checkpoint,
            prompts=[PROMPT],
            size=args.size,
            checkpointing=args.checkpointing,
            trained="full" if args.full else "lora",
        )
        latents = torch.randn(8, *on.shape)
        on.__dict__["_latents"] = lambda i, of=latents: (of[i], None), on.ids.expand(8)
        pairs = Pairs(torch.randn_like(latents), latents, on.ids.expand(8), {"problem": on.name, "nfe": 1})
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        run = runs.train(
            method,
            on,
            changes={"updates": 2, "batch": args.batch, "warmup": 0},
            pairs=pairs if METHODS[method].needs == "pairs" else None,
            watch=0,
            device=args.device,
        )
        own = sum(p.numel() for turn in run.training.turns for p in turn.params)
        seconds = [record.seconds for record in run][-1]
        peak = (
            torch.cuda.max_memory_allocated() / 2**30
            if args.device == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        )
        rows.append(
            {
                "method": method,
                "batch": args.batch,
                "size": args.size,
                "trained_weights": own,
                "seconds_an_update": seconds,
                "peak_GiB": peak,
            }
        )
        print(
            f"{method:28} {own / 1e6:8.1f} M weights trained, {seconds:8.2f} s an update of {args.batch}, "
            f"{peak:6.2f} GiB at most so far",
            flush=True,
        )
        del run
    return rows


XL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def counts() -> None:
    """Weights of UNets and of a LoRA of rank 64, and an update's passes: a backward pass counts two, features half."""
    from toydiff import runs
    from toydiff.adapters.families import FAMILIES
    from toydiff.adapters.network import CheckpointNetwork, _lora_config
    from toydiff.catalog import METHODS
    from toydiff.problems.pairs import Pairs
    from toydiff.problems.stable_diffusion import StableDiffusionProblem

    for name, config in (("SD 1.5", UNET), ("SDXL", XL)):
        with torch.device("meta"):
            unet = UNet2DConditionModel(**config)
            weights = sum(p.numel() for p in unet.parameters())
            unet.add_adapter(_lora_config(FAMILIES[0], 64))
        print(
            f"{name:7} {weights / 1e6:7.0f} M weights, a LoRA of rank 64 "
            f"{sum(p.numel() for p in unet.parameters()) / 1e6 - weights / 1e6:5.0f} M"
        )
    spent, batch = [], 4

    def counted(name: str, passes: float) -> None:
        original = getattr(CheckpointNetwork, name)

        def call(self, x, *args, **settings):
            out = original(self, x, *args, **settings)
            spent.append(passes * (3 if out.requires_grad else 1) * len(x) / batch)
            return out

        setattr(CheckpointNetwork, name, call)

    counted("forward", 1.0)
    counted("features", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        on = StableDiffusionProblem(tiny_sd.save(folder), prompts=[PROMPT], rank=2)
    latents = torch.randn(8, *on.shape, generator=torch.Generator().manual_seed(0))
    on.__dict__["_latents"] = lambda i: (latents[i], None), on.ids.expand(8)
    pairs = Pairs(latents.roll(1), latents, on.ids.expand(8), {"problem": on.name, "nfe": 1})
    for method, card in METHODS.items():
        if card.only is not None:
            continue
        spent.clear()
        updates = 4 if method == "progressive" else 2
        run = runs.train(
            method,
            on,
            changes={"updates": updates, "batch": batch, "warmup": 0},
            pairs=pairs if card.needs == "pairs" else None,
            watch=0,
        )
        run.finish()
        print(f"{method:28} {sum(spent) / updates:5.1f} passes a sample in an update")


DRIVEN = {"ddim": "DDIMScheduler", "dpm++2m": "DPMSolverMultistepScheduler", "unipc2": "UniPCMultistepScheduler"}
"""The solvers whose driver is compared, and their schedulers."""


def driver(args: argparse.Namespace) -> bool:
    """Print the time of a step outside the UNet, here and in diffusers' pipeline, on a tiny checkpoint; whether ours is
    not the longer one. The sides take turns. Whole runs are measured, with all that they prepare, but the encoding of
    the prompt."""
    torch.set_num_threads(1)  # the tensors are small
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = StableDiffusion.load(tiny_sd.save(folder))
        pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    checkpoint.prompts.add([PROMPT])
    embeds = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    settings = {"guidance_scale": 7.5}
    rows = []
    for solver, scheduler in DRIVEN.items():
        kind, made = getattr(diffusers, scheduler), {}

        def theirs(made: dict = made, kind: type = kind) -> None:
            pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing")  # as ours makes it
            made["theirs"] = pipe(
                prompt_embeds=embeds[0],
                negative_prompt_embeds=embeds[1],
                num_inference_steps=args.steps,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                **settings,
            ).images

        def ours(made: dict = made, solver: str = solver) -> None:
            made["ours"] = sample_images(
                checkpoint,
                PROMPT,
                steps=args.steps,
                solver=solver,
                grid="trailing",
                seed=0,
                decode=False,
                **settings,
            ).latents

        # seconds of this thread's processor, which other work on the machine does not lengthen
        clocks = (Clock(unet, "cpu", time.thread_time) for unet in (checkpoint.network, pipe.unet))
        sides = dict(zip(("ours", "theirs"), zip(clocks, (ours, theirs), strict=True), strict=True))
        found = {name: [] for name in sides}
        for number in range(args.rounds + 1):
            for name, (clock, run) in sides.items():
                whole, inside = clock.measure(run)
                if number:  # the first is to warm up
                    found[name].append((whole - inside) / args.steps * 1e3)
        for clock, _ in sides.values():
            clock.stop()
        ms = {name: statistics.median(times) for name, times in found.items()}
        gap = float((made["ours"] - made["theirs"]).abs().max())
        rows.append({"solver": solver, "ours_ms": ms["ours"], "theirs_ms": ms["theirs"], "largest_difference": gap})
        rows[-1]["ratio"] = ms["ours"] / ms["theirs"]
        print(
            f"{solver:8} outside the UNet, a step: ours {ms['ours']:.2f} ms, theirs {ms['theirs']:.2f} ms, "
            f"ratio {rows[-1]['ratio']:.2f}; largest difference of latents {gap:.1e}",
            flush=True,
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    return all(row["ratio"] <= 1 for row in rows)


def parity_table(layouts: Sequence[str]) -> bool:
    """Print the largest differences of latents from those of diffusers' own pipelines, beside what one rounding of the
    start changes in theirs; whether no difference is above 1e-4 and that floor."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, scheduler, spacing, steps, row in parity.table(Path(folder), layouts):
            if isinstance(row, str):
                print(f"{name:10} {scheduler:31} {spacing:9} {steps:3}  refused: {row}")
                continue
            rows.append(row)
            print(
                f"{name:10} {scheduler:31} {spacing:9} {steps:3}  difference {row.gap:.1e}, floor {row.floor:.1e}, "
                f"size of latents {row.size:.1e}{'' if row.same else '  ABOVE 1e-4 AND THE FLOOR'}",
                flush=True,
            )
    above = sum(not row.same for row in rows)
    print(
        f"{len(rows)} compared, largest difference {max(row.gap for row in rows):.1e}, {above} above 1e-4 and the floor"
    )
    return not above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--steps", type=int, help="2, with --driver 50")
    parser.add_argument("--rounds", type=int, help="3, with --driver 9")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--train", nargs="+", metavar="METHOD")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--layouts", nargs="+", choices=real_layouts.NAMES, default=real_layouts.NAMES)
    parser.add_argument("--driver", action="store_true")
    args = parser.parse_args()
    args.steps, args.rounds = args.steps or (50 if args.driver else 2), args.rounds or (9 if args.driver else 3)
    tiny_sd.silent()
    if args.parity:
        sys.exit(not parity_table(args.layouts))
    if args.driver:
        sys.exit(not driver(args))
    if args.counts:
        counts()
        return
    dtype = getattr(torch, args.dtype)
    pipe = real_size(args.device, dtype, args.small)
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    checkpoint = StableDiffusion(pipe, {"model": "SD 1.5's configuration, random weights"}).to(args.device, dtype)
    if args.train:
        rows = updates(args, checkpoint)
        if args.json:
            Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
        return
    if args.compile:
        pipe.unet.compile()
    # seconds of the processor are not lengthened by other work on the machine
    clock = Clock(pipe.unet, args.device, time.process_time if args.small else time.perf_counter)
    settings = {"guidance_scale": 7.5}
    made = {}
    checkpoint.prompts.add([PROMPT])  # encoded before, on both sides
    embeds = pipe.encode_prompt(PROMPT, args.device, 1, True)

    def theirs():
        rng = torch.Generator().manual_seed(0)
        made["theirs"] = pipe(
            prompt_embeds=embeds[0],
            negative_prompt_embeds=embeds[1],
            num_inference_steps=args.steps,
            height=args.size,
            width=args.size,
            generator=rng,
            output_type="latent",
            **settings,
        ).images

    def ours(batches: bool = True):
        D = checkpoint.denoiser()
        D.net.batches_guidance = batches
        made["ours"] = sample_images(
            checkpoint,
            PROMPT,
            denoiser=D,
            steps=args.steps,
            grid="trailing",
            solver="dpm++2m",
            size=args.size,
            seed=0,
            decode=False,
            **settings,
        ).latents

    sides = {"theirs": theirs, "ours": ours, "ours, two calls": lambda: ours(False)}
    found = {name: [] for name in sides}
    for run in sides.values():
        clock.measure(run)  # the first call allocates, and compiles
    for _ in range(args.rounds):
        for name, run in sides.items():
            found[name].append(clock.measure(run))
    gap = float((made["ours"].cpu().float() - made["theirs"].cpu().float()).abs().max())
    rows = []
    for name, times in found.items():
        total = statistics.median(whole for whole, _ in times) / args.steps
        own = statistics.median(whole - inside for whole, inside in times) / args.steps
        rows.append({"side": name, "seconds_a_step": total, "outside_the_unet": own, "share": own / total})
    by = {row["side"]: row for row in rows}
    step = by["theirs"]["seconds_a_step"]
    summary = {
        "unet_parameters": parameters,
        "device": args.device,
        "dtype": args.dtype,
        "size": args.size,
        "steps": args.steps,
        "rounds": args.rounds,
        "ratio": by["ours"]["seconds_a_step"] / step,
        "driver_over_theirs": (by["ours"]["outside_the_unet"] - by["theirs"]["outside_the_unet"]) / step,
        "two_calls_over_one": by["ours, two calls"]["seconds_a_step"] / by["ours"]["seconds_a_step"],
        "largest_difference_of_latents": gap,
        "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    for row in rows:
        print(
            f"{row['side']:16} {row['seconds_a_step']:8.3f} s a step, {row['outside_the_unet'] * 1e3:7.1f} ms of it "
            f"outside the UNet ({row['share']:.2%})"
        )
    print(
        "\n".join(
            f"{key:30} {value:.4g}" if isinstance(value, float) else f"{key:30} {value}"
            for key, value in summary.items()
        )
    )
    if args.json:
        Path(args.json).write_text(json.dumps({"summary": summary, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
