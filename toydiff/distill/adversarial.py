"""Adversarial post-training (StyleGAN-T, arXiv 2301.09515; with noised samples and a teacher's features LADD, arXiv
2403.12015; slides 4, 6, 9 of the deck).

A few-step student, `start`, is trained further against a discriminator D, a small head on a frozen teacher's features:

    1  (x_k, t) = the state before a random step of the student's own N-step sampling;  s = 0, or the step's end
    2  g = jump(student(x_k, t), s)
    3  u ~ U[s, s + reach (1 - s)],  g_u = g noised from s to u
    4  loss = -lambda D(g_u, u) + keep |g - g_start|^2,  g_start = jump(start(x_k, t), s)
    then, `ratio` times,
    5  g_u as in lines 1 to 3, without a gradient;  x_u = data x noised to the same u
    6  loss_D = relu(1 - D(x_u, u)) + relu(1 + D(g_u, u)) + r1/2 |grad D(x_u, u)|^2

With the solver `lcm`, whose every step predicts a sample of the data, s = 0; with `ddim` s is the step's end. Without a
`start` the student begins as the teacher, taken as a one-step generator.
"""

import copy
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..grids import time_grid
from ..nets.discriminator import Discriminator
from ..prediction import jump, noise_travel
from ..solvers.registry import BLACK, solver_by_name
from ..support.checks import check_count, check_fraction, check_number, check_positive, unknown
from ..training import EMA, Turn
from .base import Card, Knobs, Sampler, Training
from .distances import mse
from .generator import generator_of, noise_for, own_state

SOLVERS = ("lcm", "ddim")
FEATURES = ("teacher", "own")


def adversarial_loss(student, before, D, x_k, t, s, cond, draws, reach=1.0, adversarial=1.0, keep=0.0):
    """A scalar. x_k (B, ...), t and s (B,): the student's own states, from `own_state`. before: the student as it was
    at the start. D: the discriminator. cond (B,) or None. adversarial: lambda. reach and keep: as the knobs."""
    g = jump(student(x_k, t, cond), s)  # 2
    u = s + (1 - s) * reach * draws.uniform(len(g))  # 3
    g_u = noise_travel(student.schedule, g, s, u, draws.normal(*g.shape))  # 3
    kept = mse(g, jump(before(x_k, t, cond), s)) if keep else 0.0
    return (keep * kept - adversarial * D(g_u, u, cond)).mean()  # 4


def discriminator_loss(D, student, x_k, t, s, cond, data, label, draws, reach=1.0, r1=0.0):
    """A scalar, for the discriminator's turn. data (B, ...) with its labels (B,) or None; the other arguments are those
    of `adversarial_loss`."""
    u = s + (1 - s) * reach * draws.uniform(len(data))  # 5
    with torch.no_grad():
        g = jump(student(x_k, t, cond), s)
    g_u = noise_travel(student.schedule, g, s, u, draws.normal(*g.shape))  # 5
    x_u = student.schedule.mix(data, draws.normal(*data.shape), u).requires_grad_(r1 > 0)  # 5
    loss, real = F.relu(1 + D(g_u, u, cond)), D(x_u, u, label)  # 6
    loss = loss + F.relu(1 - real)  # 6
    if r1:
        [slope] = torch.autograd.grad(real.sum(), x_u, create_graph=True)
        loss = loss + 0.5 * r1 * slope.square().flatten(1).sum(1)  # 6
    return loss.mean()


@dataclass(frozen=True)
class AdversarialKnobs(Knobs):
    """Those of every method, and:"""

    adversarial: float = 1.0
    """lambda > 0, the weight of the adversarial loss."""
    keep: float = 0.0
    """The weight, >= 0, of the squared distance to what the student made at the start; 0 for none."""
    lr_d: float = 1e-3
    """The learning rate of the discriminator, > 0."""
    ratio: int = 1
    """Updates of the discriminator for each update of the student."""
    r1: float = 0.0
    """The weight, >= 0, of the penalty |grad D|^2 on data; 0 for none."""
    features: str = "teacher"
    """The network whose features D reads. "teacher": the teacher's, frozen. "own": a fresh one, trained with D. An
    exact teacher has no network, and D gets a fresh one."""
    reach: float = 1.0
    """How far samples are noised before D reads them, in (0, 1], as a fraction of the time from s to 1."""
    steps: int = 1
    """N, the steps of the student's sampling."""
    solver: str = "lcm"
    """The solver of the student's sampling, "lcm" or "ddim"."""

    def check(self) -> None:
        """`ValueError` for values outside these ranges."""
        check_positive(self.adversarial, "adversarial")
        check_positive(self.lr_d, "lr_d")
        check_count(self.ratio, "ratio")
        for name in ("keep", "r1"):
            if check_number(getattr(self, name), name) < 0:
                raise ValueError(f"{name}, a weight, must be >= 0, got {getattr(self, name):g}")
        if check_fraction(self.reach, "reach") == 0:
            raise ValueError("reach must be above 0: a discriminator of samples without noise has nothing to teach")
        for name, allowed in (("solver", SOLVERS), ("features", FEATURES)):
            if getattr(self, name) not in allowed:
                raise unknown(name, getattr(self, name), allowed)


def adversarial(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its frozen copy from the start, the discriminator, and the two turns of an update."""
    knobs.check()
    student, solver = generator_of(problem, teacher, start), solver_by_name(knobs.solver)
    before = copy.deepcopy(student).requires_grad_(False)
    ts = time_grid(student.schedule, check_count(knobs.steps, "steps"), "uniform").to(torch.get_default_dtype())
    D = Discriminator.on(problem, teacher if knobs.features == "teacher" else None, student.schedule)

    def own(draws):
        z, cond = noise_for(problem, student, knobs.batch, draws, labelled=problem.conditional)
        return *own_state(student, solver, ts.to(draws.device), z, cond, draws), cond  # 1

    def turn(step, draws):
        x_k, t, s, cond = own(draws)
        return adversarial_loss(student, before, D, x_k, t, s, cond, draws, knobs.reach, knobs.adversarial, knobs.keep)

    def turn_of_discriminator(step, draws):
        x_k, t, s, cond = own(draws)
        data, label = draws.rows(problem.data, knobs.batch)
        label = label if problem.conditional else None
        return discriminator_loss(D, student, x_k, t, s, cond, data, label, draws, knobs.reach, knobs.r1)

    without_momentum = (0.0, 0.999)  # what moves one side is where the other one was
    return Training(
        student,
        EMA(student, knobs.ema),
        [
            Turn(turn, list(student.parameters()), knobs.lr, without_momentum),
            Turn(
                turn_of_discriminator, list(D.parameters()), knobs.lr_d, without_momentum, knobs.ratio, "discriminator"
            ),
        ],
        modules={"discriminator": D, "before": before},
        steps=(knobs.steps,),
        solver=knobs.solver,
    )


CARD = Card(
    id="adversarial",
    title="Adversarial post-training",
    paper="arXiv 2301.09515; arXiv 2403.12015",
    deck="slides 4, 6, 9, reference 16",
    equation="-D(x_u, u), D on the frozen teacher's features, x_u a student's sample noised",
    needs="teacher",
    train=adversarial,
    knobs=AdversarialKnobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=BLACK,
    marker="X",
    dash="dash",
    recipes={
        "points": {"batch": 512, "lr": 2e-4, "updates": 1000, "ema": 0.99, "reach": 0.5},
        "images": {  # on images D sees little at first, and a quick student runs away from it
            "batch": 64,
            "lr": 1e-5,
            "updates": 100,
            "ema": 0.98,
            "warmup": 20,
            "reach": 0.5,
            "lr_d": 3e-3,
            "ratio": 4,
        },
        "latents": {"batch": 16, "lr": 1e-5, "updates": 2000, "ema": 0.99, "warmup": 50, "reach": 0.5, "lr_d": 1e-3},
    },
)
