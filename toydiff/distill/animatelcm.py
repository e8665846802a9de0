"""AnimateLCM: decoupled consistency learning of clips, image first, motion second (arXiv 2402.00769; slides 14 and 15
of the deck).

The networks are an image network, seen by every frame alone, and temporal layers between its own (`toydiff.nets`,
`ClipNet`). They are trained in four stages, each with its own parameters, all others frozen:

    1  base:     the image network, as a diffusion model of single frames; it begins as the problem's network is made
    2  teacher:  temporal layers on the base, as a diffusion model of clips: the video teacher
    3  image:    a low-rank adapter (LoRA) on the base, as an LCM of single frames whose teacher is the base
    4  the student is base + LoRA + a copy of the teacher's temporal layers
    5  motion:   the student's temporal layers, as an LCM of clips whose teacher is the video teacher
    6  theta- <- mu theta- + (1 - mu) theta: line 5 begins with the teacher's weights as theta-, so that the LoRA enters
       the target through this average and not at step 0

Lines 1 and 2 minimise the loss of `diffusion`, lines 3 and 5 that of `lcm`; all frames of a clip share t, and each has
its own eps. With `given` > 0 lines 2 and 5 also learn image to video: the first frame of so many clips is seen without
noise, by all networks of the line (`FirstFrame`). So a fast video model is put together from what is learnt of images
and what is learnt of motion, and its base may be exchanged. In the paper base and teacher are given (Stable Diffusion
and AnimateDiff's layers); here too where the training starts from a video teacher: lines 1 and 2 are left out then.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ..denoisers import LambdaDenoiser
from ..nets import ClipNet, FirstFrame
from ..nets.low_rank import stored_name
from ..solvers.registry import SKY
from ..support.checks import check_count, check_fraction, check_number, unknown
from ..training import EMA, Turn, fit
from .base import Card, Sampler, Training, batch_of
from .diffusion import diffusion_loss
from .distances import distance
from .lcm import LCMKnobs, lcm_loss

NAMES = ("base", "teacher", "image", "motion")
STAGES = len(NAMES)
BEGINNINGS = ("teacher", "student")


@dataclass(frozen=True)
class AnimateLCMKnobs(LCMKnobs):
    """Those of LCM, of which `updates` is that of all stages together, and:"""

    updates: int = 4000
    """Updates of the optimizer."""
    fast_updates: int = 0
    """The most updates that line 3 has, and line 5, >= 0; lines 1 and 2 share the rest. 0 for four equal parts."""
    fast_lr: float = 0.0
    """The full learning rate in lines 3 and 5, >= 0; 0 is `lr`. What begins as a good model is soon lost at a high
    one."""
    batch: int = 64
    """Samples in an update: clips, or single frames."""
    lr: float = 4e-3
    """The full learning rate of Adam, > 0, in each stage."""
    ema: float = 0.99
    """The decay, in [0, 1), of the average of the weights, of which a stage hands its result to the next."""
    rank: int = 8
    """The rank, >= 1, of the spatial LoRA."""
    drop: float = 0.1
    """The probability, in [0, 1], that a clip's label is dropped in line 2, as guidance needs."""
    target_start: str = "teacher"
    """What theta- is as line 5 begins: "teacher", so that the LoRA enters through the average, or "student"."""
    frames: int = 1
    """Single frames, >= 1, in an update of lines 1 and 3, for each sample of `batch`."""
    given: float = 0.0
    """The probability, in [0, 1], that a clip's first frame is given in lines 2 and 5."""

    def check(self, problem) -> None:
        """`ValueError` for a value out of range, and for updates that the stages cannot share."""
        super().check(problem)
        check_count(self.fast_updates, "fast_updates", 0)
        if check_number(self.fast_lr, "fast_lr") < 0:
            raise ValueError(f"fast_lr must be 0 or more, got {self.fast_lr:g}")
        check_count(self.rank, "rank")
        check_count(self.frames, "frames")
        check_fraction(self.drop, "drop")
        check_fraction(self.given, "given")
        if self.target_start not in BEGINNINGS:
            raise unknown("target_start", self.target_start, BEGINNINGS)
        if self.updates % STAGES:
            raise ValueError(f"updates must be a multiple of the {STAGES} stages, got {self.updates}")
        if self.target_ema == 0:
            raise ValueError("target_ema must lie above 0: the target of animatelcm is an average of the student")


def train_only(module: nn.Module, params: Sequence[nn.Parameter]) -> None:
    """Freeze all parameters of a module but these, which it then trains."""
    own = {id(p) for p in params}
    for p in module.parameters():
        p.requires_grad_(id(p) in own)


@torch.no_grad()
def load_base(net, base) -> None:
    """Put an image network's weights under the low-rank adapters of another's."""
    own = net.state_dict()
    for name, value in base.state_dict().items():
        own[stored_name(name, own)].copy_(value)


@torch.no_grad()
def without_adapter(net) -> None:
    """Make the low-rank adapters of a network add nothing."""
    for name, p in net.named_parameters():
        if name.endswith(".0.up"):
            p.zero_()


def personal_base(base, on, updates, batch=64, lr=1e-3, seed=0) -> LambdaDenoiser:
    """A personal style: a copy of the image denoiser `base`, trained further on the single frames of the problem `on`
    (line 1). It sees no clip."""
    check_count(updates, "updates")
    image = LambdaDenoiser(copy.deepcopy(base.net).train().requires_grad_(True), base.schedule, base.kind)
    average = EMA(image, 0.99)

    def turn(step, draws):
        x0, cond = draws.rows(on.single_frames, batch)
        return diffusion_loss(image, x0, cond, draws, 0.1)

    for _ in fit(Turn(turn, list(image.parameters()), lr), updates, averages=[average], warmup=50, seed=seed):
        pass
    return cast(LambdaDenoiser, average.module.eval().requires_grad_(False))


def swapped(student, base) -> LambdaDenoiser:
    """A copy of the student with another image network under its adapter and temporal layers."""
    D = copy.deepcopy(student)
    load_base(D.net.image, base)
    return D


def given_first(x0, given, draws, *models):
    """The models, told the first frame of a fraction `given` of the clips x0 (B, frames, ...)."""
    if given == 0:
        return models
    told = draws.uniform(len(x0)) < given
    return [FirstFrame(D, x0[:, 0], told) for D in models]


def _sizes(net) -> dict[str, Any]:
    """A network's arguments, as they are after they were written as JSON."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in net.config.items()}


def animatelcm(problem, knobs, teacher=None, pairs=None, start=None) -> Training:
    """The student, the video teacher, the averages of both and the target, with a turn for each stage. start: a video
    teacher; None to train one. `ValueError` for another model."""
    knobs.check(problem)
    video = problem.student(problem.schedule, "v")
    plain: ClipNet = video.net
    if start is not None:
        if not isinstance(start, LambdaDenoiser) or _sizes(start.net) != _sizes(plain) or start.kind != video.kind:
            raise ValueError(
                "animatelcm starts from a video teacher, such as a training of its own makes, or from nothing"
            )
        video.load_state_dict(start.state_dict())
    half, quarter = knobs.updates // 2, knobs.updates // STAGES
    fast = half if start is not None else min(knobs.fast_updates or quarter, quarter)
    edges = (0, half - fast, 2 * (half - fast), knobs.updates - fast, knobs.updates)
    begins, ends = dict(zip(NAMES, edges, strict=False)), dict(zip(NAMES, edges[1:], strict=True))
    d = distance(knobs.distance, knobs.c)
    net = type(plain)(**plain.config | {"guided": knobs.guidance, "rank": knobs.rank})
    student = LambdaDenoiser(net, problem.schedule, "v", data_std=problem.data_std)
    average, taught, target = EMA(student, knobs.ema), EMA(video, knobs.ema), EMA(student, knobs.target_ema, warm=False)
    slow, sampled, theta_minus = (cast(Any, one.module) for one in (taught, average, target))
    adapter = [p for p in net.image.parameters() if p.requires_grad]
    g = (knobs.g_min, knobs.g_max)

    def image_of(D):
        return LambdaDenoiser(D.net.image, D.schedule, D.kind)

    def base_turn(step, draws):
        train_only(video, list(plain.image.parameters()))
        x0, cond = draws.rows(problem.single_frames, knobs.batch * knobs.frames)
        return diffusion_loss(image_of(video), x0, cond, draws, knobs.drop)  # 1

    def teacher_turn(step, draws):
        if step == begins["teacher"]:
            video.load_state_dict(slow.state_dict())
            taught.reset()
        train_only(video, plain.motion)
        x0, cond = batch_of(problem, knobs.batch, draws)
        (told,) = given_first(x0, knobs.given, draws, video)
        return diffusion_loss(told, x0, cond, draws, knobs.drop)  # 2

    def image_turn(step, draws):
        if step == begins["image"]:
            load_base(net.image, slow.net.image)
            average.reset()
            target.reset()
        train_only(student, adapter)
        x0, cond = draws.rows(problem.single_frames, knobs.batch * knobs.frames)
        own, behind, above = (image_of(D) for D in (student, theta_minus, slow))
        of_images = (1.0, 1.0) if cond is None else g
        return lcm_loss(own, behind, above, knobs.intervals, d, x0, cond, draws, *of_images)  # 3

    def motion_turn(step, draws):
        if step == begins["motion"]:
            net.image.load_state_dict(sampled.net.image.state_dict())
            of_teacher = {k: v for k, v in slow.net.state_dict().items() if not k.startswith("image.")}
            net.load_state_dict(net.state_dict() | of_teacher)  # 4
            average.reset()
            target.reset()
            if knobs.target_start == "teacher":
                without_adapter(theta_minus.net.image)  # 6
        train_only(student, net.motion)
        x0, cond = batch_of(problem, knobs.batch, draws)
        own, behind, above = given_first(x0, knobs.given, draws, student, theta_minus, slow)
        return lcm_loss(own, behind, above, knobs.intervals, d, x0, cond, draws, *g)  # 5

    fast_lr = knobs.fast_lr or knobs.lr
    stages = {
        "base": (base_turn, list(plain.image.parameters()), knobs.lr),
        "teacher": (teacher_turn, plain.motion, knobs.lr),
        "image": (image_turn, adapter, fast_lr),
        "motion": (motion_turn, net.motion, fast_lr),
    }
    turns = [
        Turn(loss, params, lr, name=name, during=(begins[name], ends[name]))
        for name, (loss, params, lr) in stages.items()
        if begins[name] < ends[name]
    ]
    return Training(
        student,
        average,
        turns,
        {"target": target, "teacher average": taught},
        {"teacher": video},
        guidance_scale=None if knobs.guidance else 1.0,
    )


CARD = Card(
    id="animatelcm",
    title="AnimateLCM, image first, motion second",
    paper="arXiv 2402.00769",
    deck="slides 14 and 15, [4] of our works",
    equation="LCM's loss of frames by a LoRA, then of clips by temporal layers alone",
    needs="nothing",
    train=animatelcm,
    knobs=AnimateLCMKnobs,
    sampler=Sampler("lcm", steps=(1, 2, 4, 8)),
    color=SKY,
    marker="^",
    dash="dashdot",
    only="sequences",
    recipes={
        "clips": {
            "updates": 3400,
            "fast_updates": 200,
            "batch": 8,
            "frames": 8,
            "lr": 1e-3,
            "fast_lr": 2e-4,
            "ema": 0.995,
            "given": 0.25,
            "g_max": 2.0,
            "distance": "huber",
            "c": 0.015,
        }
    },
)
