"""Variational score distillation, VSD (arXiv 2305.16213, eq. 9; slide 18 of the deck).

A generator is moved towards where the teacher's score and that of its own samples agree. theta are the generator's
weights, and sg(y) is y without a gradient:

    1  x = g_theta(z),  z ~ N(0, sigma_1^2 I)             g(z) = jump(D(z, 1), 0), the student's x_0 at t = 1
    2  t ~ U(0.02, 0.98),  x_t = alpha_t x + sigma_t eps,  eps ~ N(0, I)
    3  delta = w(t) (eps_psi(x_t, t) - eps_phi(x_t, t))   psi the teacher, phi the fake model, no gradient
    4  loss = |x - sg(x - delta)|^2/2: its gradient by x is delta; its value is not that of a divergence
    then, `ratio` times,
    5  phi: diffusion training on x = sg g_theta(z), z fresh (`diffusion_loss`)

With w = alpha/sigma the gradient is that of KL(p_theta,t || q_t), averaged over t: reverse KL, which may drop modes. On
slide 18 w includes the factor alpha of dx_t/dtheta.
"""

from dataclasses import dataclass

import torch

from ..prediction import jump
from ..schedules import expand
from ..solvers.registry import PURPLE
from ..support.checks import unknown
from .base import Card, Sampler, Training
from .scores import EARLIEST, LATEST, ScoreKnobs, generator_and_fake, one_step_noise, one_step_players


def kl_weight(alpha, sigma):
    """alpha/sigma, with which the gradient is that of KL(p_theta,t || q_t)."""
    return alpha / sigma


def sigma2_weight(alpha, sigma):
    """sigma^2, SwiftBrush's."""
    return sigma**2


def x0_weight(alpha, sigma):
    """sigma/alpha, with which delta = D_phi - D_psi, the difference in x_0."""
    return sigma / alpha


WEIGHTS = {"kl": kl_weight, "sigma2": sigma2_weight, "x0": x0_weight}
"""w(t) of alpha and sigma, by name."""


def vsd_loss(student, teacher, fake, weight, z, cond, draws, guidance_scale=1.0):
    """A scalar. weight: w of (alpha, sigma), a value of `WEIGHTS`; z (B, ...): noise at t = 1; cond (B,) or None;
    guidance_scale of the teacher."""
    on = teacher.schedule
    x = jump(student(z, 1.0, cond), 0.0)  # 1
    with torch.no_grad():
        t = draws.uniform(len(x), EARLIEST, LATEST)  # 2
        x_t = on.mix(x, draws.normal(*x.shape), t)  # 2
        w = expand(weight(on.alpha(t), on.sigma(t)), x)
        delta = w * (teacher(x_t, t, cond, guidance_scale).eps - fake(x_t, t, cond).eps)  # 3
    return (0.5 * (x - (x - delta).detach()).square().flatten(1).sum(1)).mean()  # 4


@dataclass(frozen=True)
class VSDKnobs(ScoreKnobs):
    """Those of score distillation, and:"""

    weight: str = "kl"
    """w(t): "kl" is alpha/sigma, the weight of the KL divergence; "sigma2" is sigma^2; "x0" is sigma/alpha."""


def vsd(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The generator, the fake model, and the two turns of an update."""
    if knobs.weight not in WEIGHTS:
        raise unknown("weight", knobs.weight, WEIGHTS)
    student, fake = generator_and_fake(problem, knobs, teacher, start)

    def move(step, draws):
        z, cond = one_step_noise(problem, student, knobs, draws)
        return vsd_loss(student, teacher, fake, WEIGHTS[knobs.weight], z, cond, draws, knobs.guidance_scale)

    return one_step_players(problem, knobs, teacher, student, fake, move)  # 5


CARD = Card(
    id="vsd",
    title="Variational score distillation (VSD)",
    paper="arXiv 2305.16213, alg. 1",
    deck="slide 18",
    equation="w(t) (eps_psi(x_t, t) - eps_phi(x_t, t)) dg/dtheta, w = alpha/sigma",
    needs="teacher",
    data=False,
    train=vsd,
    knobs=VSDKnobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=PURPLE,
    marker="P",
    recipes={
        "points": {"batch": 512, "lr": 5e-4, "updates": 1000, "ema": 0.99, "ratio": 3},
        "images": {"batch": 64, "lr": 1e-4, "updates": 300, "ema": 0.98, "warmup": 20, "lr_fake": 3e-4, "ratio": 2},
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "lr_fake": 1e-4,
            "ratio": 1,
            "guidance_scale": 4.5,
        },
    },
)
