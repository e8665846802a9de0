"""Improved distribution matching distillation, DMD2 (arXiv 2405.14867; slide 32 and reference 19 of the deck).

DMD without pairs. Three things are new: the fake model gets more updates, a GAN keeps the modes that pairs kept, and a
generator of several steps is trained on the states that its own sampling passes through, not on noised data.

theta are the weights of the generator g, psi those of the teacher, and phi those of the fake model, a diffusion model
of the generator's samples. D_psi and D_phi are their x_0 at (x_t, t). The discriminator C is a head on phi's features,
and is large on data. z is noise at t = 1, and sg(y) is y without a gradient:

    1  (x_k, t_k) = the state before a random step of the generator's own N-step sampling;  (z, 1) if N = 1
    2  x = g_theta(x_k, t_k)                                        g(x, t) = jump(D(x, t), 0)
    3  fooled = softplus(-C(x_t, t)),  x_t = x noised to t ~ U(0.02, 0.98)
    4  delta = DMD's direction (D_phi - D_psi)/mean|x - D_psi|, at x noised anew
    5  loss = |x - sg(x - delta)|^2/2 + lambda fooled
    then, `ratio` times, phi and C together:
    6  separated = softplus(C(x_t, t)) + softplus(-C(y_t, t)),  x = sg g_theta, y ~ data, both noised
    7  loss = diffusion training of phi on fresh x = sg g_theta (`diffusion_loss`) + lambda' separated

Sample with the solver `lcm` at uniform times: x_0 -> noise -> x_0.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..grids import time_grid
from ..nets.discriminator import Discriminator
from ..prediction import jump
from ..solvers.lcm import LCM
from ..solvers.registry import GREEN
from ..support.checks import check_count, check_number
from .base import Card, Sampler, Training
from .diffusion import diffusion_loss
from .dmd import dmd_direction
from .generator import noise_for, own_state
from .scores import EARLIEST, LATEST, ScoreKnobs, generator_and_fake, two_players


def dmd2_loss(student, teacher, fake, C, x_k, t_k, cond, draws, gan=1e-2, guidance_scale=1.0):
    """A scalar. x_k (B, ...), t_k (B,): the generator's own states, from `own_state`; C: the discriminator; cond (B,)
    or None; gan: lambda; guidance_scale of the teacher."""
    x = jump(student(x_k, t_k, cond), 0.0)  # 2
    t = draws.uniform(len(x), EARLIEST, LATEST)  # 3
    x_t = teacher.schedule.mix(x, draws.normal(*x.shape), t)  # 3
    fooled = F.softplus(-C(x_t, t, cond))  # 3
    delta = dmd_direction(teacher, fake, x, cond, draws, guidance_scale)  # 4
    return (0.5 * (x - (x - delta).detach()).square().flatten(1).sum(1) + gan * fooled).mean()  # 5


def dmd2_discriminator_loss(C, schedule, x, cond, data, label, draws):
    """A scalar. x (B, ...): the generator's samples, of the classes cond (B,) or None; data (B, ...) with its labels
    (B,) or None."""
    t = draws.uniform(len(x), EARLIEST, LATEST)
    fake = F.softplus(C(schedule.mix(x, draws.normal(*x.shape), t), t, cond))  # 6
    t = draws.uniform(len(data), EARLIEST, LATEST)
    real = F.softplus(-C(schedule.mix(data, draws.normal(*data.shape), t), t, label))  # 6
    return (fake + real).mean()


@dataclass(frozen=True)
class DMD2Knobs(ScoreKnobs):
    """Those of score distillation, and:"""

    gan: float = 1e-2
    """lambda >= 0, the weight of the GAN loss of the generator."""
    gan_fake: float = 1e-2
    """lambda' >= 0, the weight of the discriminator's loss beside the fake model's own."""
    steps: int = 1
    """N, the steps of the generator's sampling."""


def dmd2(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The generator, the fake model with its head, and the two turns of an update."""
    for name in ("gan", "gan_fake"):
        if check_number(getattr(knobs, name), name) < 0:
            raise ValueError(f"{name}, a weight, must be >= 0, got {getattr(knobs, name):g}")
    student, fake = generator_and_fake(problem, knobs, teacher, start)
    C, on, labelled = Discriminator.shared(fake), teacher.schedule, problem.conditional or knobs.guidance_scale != 1
    ts = time_grid(student.schedule, check_count(knobs.steps, "steps"), "uniform").to(torch.get_default_dtype())

    def own(draws):
        z, cond = noise_for(problem, student, knobs.batch, draws, labelled=labelled)
        x_k, t_k, _ = own_state(student, LCM(), ts.to(draws.device), z, cond, draws)  # 1
        return x_k, t_k, cond

    def generate(draws):
        x_k, t_k, cond = own(draws)
        with torch.no_grad():
            return jump(student(x_k, t_k, cond), 0.0), cond

    def move(step, draws):
        x_k, t_k, cond = own(draws)
        return dmd2_loss(student, teacher, fake, C, x_k, t_k, cond, draws, knobs.gan, knobs.guidance_scale)

    def learn(step, draws):
        x, cond = generate(draws)
        data, label = draws.rows(problem.data, knobs.batch)
        separated = dmd2_discriminator_loss(C, on, x, cond, data, label if labelled else None, draws)
        x, cond = generate(draws)
        return diffusion_loss(fake, x, cond, draws) + knobs.gan_fake * separated  # 7

    heads, steps = {"head": C.head}, (knobs.steps,)
    return two_players(problem, knobs, teacher, student, fake, move, learn, generate, heads, steps=steps)


CARD = Card(
    id="dmd2",
    title="Improved distribution matching distillation (DMD2)",
    paper="arXiv 2405.14867",
    deck="slide 32, reference 19",
    equation="(D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and a GAN on phi's features",
    needs="teacher",
    train=dmd2,
    knobs=DMD2Knobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=GREEN,
    marker="P",
    dash="dash",
    recipes={
        "points": {"batch": 512, "lr": 5e-4, "updates": 600, "ema": 0.99, "ratio": 3},
        "images": {"batch": 64, "lr": 1e-4, "updates": 300, "ema": 0.98, "warmup": 20, "lr_fake": 3e-4, "ratio": 2},
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "lr_fake": 1e-4,
            "ratio": 5,
            "guidance_scale": 4.5,
        },
    },
)
