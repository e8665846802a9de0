"""Adversarial post-training: a few-step student is moved on by a discriminator that reads a frozen teacher's features (slides 4, 6, 9)."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import check_count, check_number, check_positive, check_share, unknown
from ..denoisers import Denoiser
from ..nets.discriminator import Discriminator
from ..prediction import jump, noise_travel
from ..problems.base import Problem
from ..solvers.registry import solver_by_name
from ..training import EMA, Draws, Turn
from .base import Knobs, Training
from .distances import mse
from .generator import generator, generator_of

SOLVERS = ("lcm", "ddim")
FEATURES = ("teacher", "own")


@dataclass(frozen=True)
class AdversarialKnobs(Knobs):
    """`adversarial`, the weight of the adversarial loss, and `keep`, that of the squared distance to the student as it was; `lr_d` of the discriminator, and `ratio`, its updates in one of the student; `r1`,
    the weight of its gradient penalty (0: none); `features`, "teacher" for the frozen teacher's (an exact one has none) or "own" for a network trained from scratch; `reach`, how far up
    samples are noised for it, as a share of the time from theirs to 1; `steps` of the student, and its `solver`, "lcm" or "ddim".
    """

    adversarial: float = 1.0
    keep: float = 0.0
    lr_d: float = 1e-3
    ratio: int = 1
    r1: float = 0.0
    features: str = "teacher"
    reach: float = 1.0
    steps: int = 1
    solver: str = "lcm"

    def check(self) -> None:
        """`ValueError` for what no adversarial stage can have."""
        check_positive(self.adversarial, "adversarial")
        check_positive(self.lr_d, "lr_d")
        check_count(self.ratio, "ratio")
        for name in ("keep", "r1"):
            if check_number(getattr(self, name), name) < 0:
                raise ValueError(f"{name}, a weight, must be >= 0, got {getattr(self, name):g}")
        if check_share(self.reach, "reach") == 0:
            raise ValueError("reach must be above 0: a discriminator of samples without noise has nothing to teach")
        for name, allowed in (("solver", SOLVERS), ("features", FEATURES)):
            if getattr(self, name) not in allowed:
                raise unknown(name, getattr(self, name), allowed)


def adversarial(
    problem: Problem, knobs: AdversarialKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Adversarial post-training of a student that is there, `start` (StyleGAN-T, arXiv 2301.09515; with noised samples and a teacher's features, LADD, arXiv 2403.12015).

    D: relu(1 - D(x_u, u)) + relu(1 + D(g_u, u)), data x and the generator's g noised to the same random u, plus r1/2 |grad D(x_u)|^2. G: keep |g - g_start|^2 - lambda D(g_u, u), g_start what
    the student made of the same state before. D is a small head on the frozen teacher's features. A student of N steps is trained at a random one of them, from its own
    state; the samples of a step that ends at s > 0 are compared with data noised to s. Without a start it is the teacher that goes on, as a one-step generator.
    """
    knobs.check()
    student, batch = generator_of(problem, teacher, start), knobs.batch
    schedule, before = student.schedule, copy.deepcopy(student).requires_grad_(False)
    make = generator(problem, student, solver_by_name(knobs.solver), knobs.steps, batch)
    D = Discriminator.on(problem, teacher if knobs.features == "teacher" else None, schedule)

    def noised(x: Tensor, s: Tensor, u: Tensor, draws: Draws) -> Tensor:
        return noise_travel(schedule, x, s, u, draws.normal(batch, *problem.shape))

    def somewhere(s: Tensor, draws: Draws) -> Tensor:
        return s + (1 - s) * knobs.reach * draws.uniform(batch)  # u ~ U[s, 1]

    def generate(step: int, draws: Draws) -> Tensor:
        g = make(draws)
        u = somewhere(g.s, draws)
        fooled = -D(noised(g.x, g.s, u, draws), u, g.cond)
        kept = mse(g.x, jump(before(g.state, g.t, g.cond), g.s)) if knobs.keep else 0.0
        return (knobs.keep * kept + knobs.adversarial * fooled).mean()

    def discriminate(step: int, draws: Draws) -> Tensor:
        with torch.no_grad():
            g = make(draws)
        data, label = draws.rows(problem.data, batch)
        u = somewhere(g.s, draws)
        fake = noised(g.x, g.s, u, draws)
        real = schedule.mix(data, draws.normal(batch, *problem.shape), u)
        loss = F.relu(1 + D(fake, u, g.cond))
        real.requires_grad_(knobs.r1 > 0)
        said = D(real, u, None if g.cond is None else label)
        loss = loss + F.relu(1 - said)
        if knobs.r1:
            [slope] = torch.autograd.grad(said.sum(), real, create_graph=True)
            loss = loss + 0.5 * knobs.r1 * slope.square().flatten(1).sum(1)
        return loss.mean()

    without_momentum = (0.0, 0.999)  # what moves one side is where the other one was
    turns = [
        Turn(generate, list(student.parameters()), knobs.lr, without_momentum),
        Turn(discriminate, list(D.parameters()), knobs.lr_d, without_momentum, knobs.ratio, "discriminator"),
    ]
    return Training(
        student, EMA(student, knobs.ema), turns, modules={"discriminator": D, "before": before}, steps=(knobs.steps,), solver=knobs.solver
    )  # fmt: skip
