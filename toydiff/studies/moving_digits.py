"""AnimateLCM on clips of digits: few steps beside the video teacher, a first frame that is given, and a style that is
swapped in without any clip of it."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..denoisers import LambdaDenoiser
from ..distill.animatelcm import personal_base, swapped
from ..nets import FirstFrame
from ..problems import ClipsProblem
from ..problems.classifier import Classifier, moved
from ..problems.clips import STYLES, ink, middle, turning_rate
from ..runs import Model, sample
from ..solvers import solve
from ..support.checks import unknown
from ..support.seeds import seeded
from ..training import Draws, Turn, fit

GUIDANCE = 1.5
"""The guidance scale of all samples here, unless another is given."""
SCALES = (1.0, 1.5, 2.0)
STEPS, OF_TEACHER = (1, 2, 4, 8), 25


def sampled(
    model: Model, on: ClipsProblem, steps: int, n: int = 500, seed: int = 0, guidance_scale: float = GUIDANCE
) -> dict[str, float]:
    """The measures of n clips in `steps` steps (`figures`)."""
    path, cond = sample(model, on, n, steps, guidance_scale=guidance_scale, seed=seed)
    return figures(on, path.end, cond)


def advice(model: Model, on: ClipsProblem, n: int = 500) -> list[dict[str, float]]:
    """A row for each number of steps in `STEPS` and guidance scale in `SCALES`: both, and the measures (`sampled`)."""
    return [
        {"steps": steps, "guidance_scale": g} | sampled(model, on, steps, n, guidance_scale=g)
        for steps in STEPS
        for g in SCALES
    ]


def figures(on: ClipsProblem, clips: Tensor, cond: Tensor | None) -> dict[str, float]:
    """A problem's measures of clips by name: distance, those of its parts, accuracy, and each floor by `floor NAME`."""
    found = on.measure(clips, cond)
    parts = {name: (part.value, part.floor) for name, part in found.parts.items()}
    parts = {"distance": (found.distance, found.floor)} | parts
    values = {name: value for name, (value, _) in parts.items()} | {"accuracy": cast(float, found.accuracy)}
    return values | {f"floor {name}": lowest for name, (_, lowest) in parts.items()}


# ---- the first frame given


def from_first_frame(model: Model, first: Tensor, cond: Tensor, steps: int = 4, seed: int = 0) -> Tensor:
    """Clips (n, frames, 1, 28, 28) whose first frames are `first` (n, 1, 28, 28), of the digits cond (n,), by a model
    that was trained with `given` > 0."""
    D = cast(LambdaDenoiser, model.denoiser)
    frames = cast(Any, D.net).config["frames"]
    noise = torch.randn(len(first), frames, *first.shape[1:], generator=torch.Generator().manual_seed(seed))
    sampler = model.about["sampler"]
    return solve(
        FirstFrame(D, first),
        D.schedule.sigma(torch.ones(())) * noise,
        steps,
        solver=sampler["solver"],
        grid=sampler["grid"],
        cond=cond,
        guidance_scale=GUIDANCE,
        generator=seed,
        keep="end",
    ).end


def found_again(clips: Tensor) -> float:
    """The fraction of clips (n, frames, 1, H, H) whose last frame, once its motion is undone, is nearest in its pixels
    to the first frame of its own clip, among the first frames of all. Undone: its ink's middle is put where the
    picture's is, as that of the first frames, and it is turned back as far as the clip turns."""
    mass, side = ink(clips), clips.shape[-1]
    shift = (middle(mass) - (side - 1) / 2) * 2 / side
    turned = (clips.shape[1] - 1) * turning_rate(mass)
    one = torch.ones_like(turned)
    first = moved(clips[:, 0], shift[:, 0], 0 * turned, one).flatten(1)
    last = moved(clips[:, -1], shift[:, -1], turned, one).flatten(1)
    return float((torch.cdist(last, first).argmin(1) == torch.arange(len(clips))).double().mean())


# ---- a style swapped in


def styled_base(student: LambdaDenoiser, style: str, updates: int = 1000, batch: int = 64, seed: int = 0) -> nn.Module:
    """A personal image network: the student's, without its adapter, trained further on single frames in a style of
    `STYLES`. It sees no clip."""
    base = LambdaDenoiser(cast(Any, student.net).base(), student.schedule, student.kind)
    return personal_base(base, ClipsProblem(style), updates, batch, seed=seed).net


def judge_of_styles(updates: int = 200, batch: int = 64, seed: int = 0) -> Classifier:
    """A small classifier that is trained to tell the styles apart, by their number in `STYLES`, on single frames."""
    problems = [ClipsProblem(style) for style in STYLES]
    with seeded(seed):
        net = Classifier().train()

    def loss(step: int, draws: Draws) -> Tensor:
        frames = [draws.rows(on.single_frames, batch // len(problems))[0] for on in problems]
        labels = torch.arange(len(problems)).repeat_interleave(len(frames[0]))
        return F.cross_entropy(net(torch.cat(frames)), labels)

    for _ in fit(Turn(loss, list(net.parameters()), 2e-3), updates, warmup=20, seed=seed):
        pass
    return net.eval()


def in_style(judge: Classifier, clips: Tensor, style: str) -> float:
    """The fraction of the frames of clips (n, frames, 1, 28, 28) that are judged to be in a style. `ValueError` for a
    style that there is not."""
    if style not in STYLES:
        raise unknown("style of digits", style, STYLES)
    return float((judge.features_of(clips.flatten(0, 1))[1] == list(STYLES).index(style)).double().mean())


def swap_figures(
    model: Model, base: nn.Module, style: str, judge: Classifier, steps: int = 4, n: int = 500, seed: int = 0
) -> Mapping[str, float]:
    """The measures of clips with a style swapped in, against true clips in that style, and the fraction of frames
    that are judged to be in it: `style`, beside that of true clips, `floor style`."""
    on = ClipsProblem(style)
    path, cond = sample(
        Model(swapped(cast(LambdaDenoiser, model.denoiser), base), model.about),
        on,
        n,
        steps,
        guidance_scale=GUIDANCE,
        seed=seed,
    )
    judged = {"style": in_style(judge, path.end, style), "floor style": in_style(judge, on.data(n, seed)[0], style)}
    return figures(on, path.end, cond) | judged
