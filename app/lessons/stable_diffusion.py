"""Stable Diffusion: any checkpoint, or the digits' own UNet, and two solvers from the same noise."""

import functools
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st
import torch
from torch import Tensor

from toydiff import Trajectory, runs
from toydiff.adapters import hub
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.reading import INSTALL
from toydiff.adapters.sampling import sample_images
from toydiff.plots import interactive
from toydiff.problems import problem
from toydiff.solvers import SOLVERS
from toydiff.support.words import unknown

from screen.controls import Choice, Number, Text
from screen.lesson import Lesson
from screen.visitors import class_address, is_open, offered

DIGITS, TINY = "digits", "tiny"
GUIDANCE, ACROSS = 7.5, 3
"""The guidance scale of a checkpoint; how many digits, of the page's own network, are in a row."""


@functools.lru_cache(maxsize=1)
def checkpoint(model: str) -> StableDiffusion:
    """A checkpoint in diffusers' layout (folder, hub id or .safetensors file); `tiny` has random weights."""
    if model != TINY:
        return StableDiffusion.load(model)
    try:
        from toydiff.adapters import tiny
    except ImportError:
        raise ValueError(INSTALL) from None
    with tempfile.TemporaryDirectory() as folder:
        return StableDiffusion.load(tiny.save(Path(folder) / TINY))


@functools.lru_cache(maxsize=1)
def warm(model: str) -> StableDiffusion:
    """The checkpoint after one step of it: a first call sets up what later ones use, and would count as a solver's."""
    sd = checkpoint(model)
    if not sd.family.clips:
        sample_images(sd, "", steps=1, guidance_scale=GUIDANCE, seed=0)
    return sd


ONE, PATIENCE = threading.Lock(), 60.0
"""One reader at a time uses the checkpoint, since two at once would each wait twice as long; the seconds one waits."""


def one_at_a_time(function):
    """Hold the lock while the function runs."""

    @functools.wraps(function)
    def locked(*args, **kwargs):
        if not ONE.acquire(timeout=PATIENCE):
            raise ValueError("other readers are using the checkpoint; try again in a minute")
        try:
            return function(*args, **kwargs)
        finally:
            ONE.release()

    return locked


def sheet_of_digits(solver: str, steps: int) -> tuple[Tensor, Tensor, Trajectory]:
    """Bundled digits' UNet: the digits 1 to 9 of one noise as a picture (3, H, W), their pixels, and the path."""
    model = runs.load("digits-teacher")
    how = {"solver": solver, "guidance_scale": model.about["rows"][0]["guidance_scale"]}
    n = ACROSS * ACROSS
    path, _ = runs.sample(model, problem("digits"), n, steps, cond=torch.arange(1, n + 1), **how)
    ink = path.end.clamp(-1, 1).reshape(ACROSS, ACROSS, 28, 28).transpose(1, 2).reshape(ACROSS * 28, -1)
    return ((1 - ink) / 2).expand(3, -1, -1), path.end, path


def image(model: str, prompt: str, solver: str, steps: int) -> tuple[Tensor, Tensor, Trajectory]:
    """A checkpoint's image (3, H, W) of seed 0, its latents, and the path."""
    if model == DIGITS:
        return sheet_of_digits(solver, steps)
    sd = warm(model)
    if sd.family.clips:
        raise ValueError(f"{model!r} makes clips, and this page shows images; toydiff sample makes the clips")
    sd.prompts.forget(all_=True)  # those of earlier figures: an encoded prompt takes a quarter of a megabyte
    out = sample_images(sd, prompt, steps=steps, solver=solver, guidance_scale=GUIDANCE, seed=0)
    return out.images[0], out.latents, out.trajectory


@one_at_a_time
def images(model: str, prompt: str, a: str, b: str, steps: int) -> tuple[go.Figure, list[dict]]:
    """One prompt, one noise, two solvers; and where their images differ."""
    if not model:
        raise ValueError(
            "name a checkpoint: a folder in diffusers' layout, a hub id or a .safetensors file; or digits, our own, or "
            "tiny, of random weights"
        )
    shown, rows, first = {}, [], None
    for side, solver in (("A", a), ("B", b)):
        picture, latents, path = image(model, prompt, solver, steps)
        first = (picture, latents) if first is None else first
        shown[f"{side}: {solver}, {steps} step{'s' if steps > 1 else ''}, {path.nfe} calls"] = picture
        off = float((latents - first[1]).square().mean().sqrt() / first[1].square().mean().sqrt())
        rows.append(
            {
                "side": side,
                "solver": solver,
                "steps": steps,
                "nfe": path.nfe,
                "seconds": path.seconds,
                "latents_from_A": off,
                "model": model,
            }
        )
    gap = (first[0] - picture).abs()
    most = float(gap.max())
    shown[f"where they differ: |A − B|, black is 0, white {most:.2g}"] = gap / max(most, 1e-12)
    return interactive.images(shown), rows


@dataclass(frozen=True)
class Checkpoint(Text):
    """A checkpoint: any, for this machine's user. On an open address one of those that the app was started with: a
    visitor could fill the disk from the hub, or find out by messages which folders there are. A class chooses none: two
    of them in use at once would fill the memory."""

    @property
    def shown(self) -> bool:
        return not class_address()

    def widget(self, key: str) -> str:
        if not is_open():
            return super().widget(key)
        return st.selectbox(
            self.label, [DIGITS, TINY, *offered()], key=key, help="those that this app was started with"
        )

    def value(self, chosen: str) -> str:
        if is_open() and chosen not in (DIGITS, TINY, *offered()):
            raise unknown("checkpoint", chosen, (DIGITS, TINY, *offered()))
        return super().value(chosen)


def words(rows: list[dict]) -> str:
    a, b = rows
    what = "pixels" if a["model"] == DIGITS else "latents"
    text = "The same digits 1 to 9" if a["model"] == DIGITS else "The same image"
    text += (
        f" from the same noise, by two solvers: **{a['solver']}** took {a['nfe']} calls and {a['seconds']:.1f} s, "
        f"**{b['solver']}** {b['nfe']} and {b['seconds']:.1f} s; their {what} differ by {b['latents_from_A']:.1%} of "
        "their size. "
    )
    if a["model"] == DIGITS:
        text += (
            "**digits** is the UNet that comes with the library: a class in place of a prompt, pixels in place of "
            "latents. Name your checkpoint above."
        )
    else:
        text += f"Guidance {GUIDANCE:g}, seed 0. "
    if a["model"] == TINY:
        text += (
            "**tiny** is a checkpoint of random weights, made on the spot: its images are noise, its layout is the "
            "real one. Name yours above."
        )
    return text


def missing(model: str) -> bool:
    """Whether a name can only be that of a file or folder, and there is none."""
    return not hub.is_id(model) and not os.path.exists(model)  # pathlib's raises for a name that is too long


def long(chosen: dict) -> str | None:
    """A real checkpoint takes seconds a step on a processor. One that is not there is said at once."""
    if chosen["model"] in (DIGITS, TINY, "") or missing(chosen["model"]):
        return None
    return (
        "On a processor a real checkpoint takes some seconds a step. With guidance each solver makes about "
        f"{2 * chosen['steps']} network calls."
    )


LESSON = Lesson(
    id="stable-diffusion",
    menu="Stable Diffusion",
    icon=":material/image:",
    title="A UNet is one more denoiser: the same solvers run on it",
    equation=r"\hat\varepsilon=\varepsilon_\varnothing+g\,(\varepsilon_c-\varepsilon_\varnothing)",
    source=(
        "Latent diffusion, arXiv 2112.10752; guidance, arXiv 2207.12598. No safety checker and no watermark are "
        "applied."
    ),
    controls=(
        Checkpoint(
            "model",
            "Checkpoint",
            DIGITS,
            "a folder in diffusers' layout, a hub id or a .safetensors file; *digits*: ours; *tiny*: random weights",
        ),
        Text("prompt", "Prompt", "a lighthouse by the sea"),
        Choice("a", "Solver A", tuple(SOLVERS), "ddim"),
        Choice("b", "Solver B", tuple(SOLVERS), "dpm++2m"),
        Number("steps", "Steps", (1, 2, 4, 8, 10, 15, 20, 25, 50), 8),
    ),
    figure=images,
    uses=(checkpoint, warm, sheet_of_digits, image),
    words=words,
    idle={("model", DIGITS): ("prompt",)},
    in_app="Your own checkpoint, prompt and solvers need the app: `toydiff app`.",
    ask=(
        "Do solvers need to know that the denoiser is now a UNet with a text prompt?",
        "No. They call D(x, t) as they do on a mixture. Guidance doubles the calls of each step.",
    ),
    presets={"A checkpoint's solvers": {"a": "ddim", "b": "unipc2", "steps": 20}},
    long=long,
)
