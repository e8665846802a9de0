"""Score implicit matching, SIM (arXiv 2410.16794, algorithm 1; slides 19, 20 of the deck).

A distance d between two scores, that of the generator's samples and the teacher's, is integrated over noise levels:
E w(t) d(s_phi - s_psi). Its gradient follows from the score divergence gradient theorem:

    E[d'(y)^T ds_phi/dtheta] = -d/dtheta E[d'(y)^T (s_phi - grad log p(x_t | x_0))],  y = s_phi - s_psi

On the left x_t is fixed, and the samples' score depends on theta. On the right the parameters of both scores are fixed,
and x_0 and x_t depend on theta, also inside d'. As s_phi - grad log p(x_t | x_0) = (alpha/sigma^2)(D_phi(x_t) - x_0),
no derivative of a score by theta is needed. psi is the teacher and phi the fake model, which the paper calls psi.

    1  x_0 = g_theta(z),  z ~ N(0, sigma_1^2 I)                   g(z) = jump(D(z, 1), 0), the student's x_0 at t = 1
    2  t ~ U(0.02, 0.98),  x_t = alpha_t x_0 + sigma_t eps        its graph is kept
    3  s_phi, D_phi of the fake model,  s_psi of the teacher, at (x_t, t)
    4  u = d'(s_phi - s_psi)
    5  loss = -w (alpha/sigma^2) u^T (D_phi - x_0),  here with w = sigma^2/alpha
    then, `ratio` times,
    6  phi: diffusion training on x = sg g_theta(z), z fresh (`diffusion_loss`)
"""

from dataclasses import dataclass

import torch

from ..prediction import jump
from ..schedules import expand
from ..solvers.registry import ORANGE
from ..support.checks import check_positive, unknown
from .base import Card, Sampler, Training
from .scores import EARLIEST, LATEST, ScoreKnobs, generator_and_fake, one_step_noise, one_step_players


def l2_slope(y, c):
    """d'(y) = 2 y of d(y) = |y|^2; c has no part in it."""
    return 2 * y


def huber_slope(y, c):
    """d'(y) = y/sqrt(|y|^2 + c^2) of the vector's pseudo-Huber distance sqrt(|y|^2 + c^2) - c."""
    return y / torch.sqrt(expand(y.square().flatten(1).sum(1), y) + c**2)


def element_huber_slope(y, c):
    """d'(y) = y_i/sqrt(y_i^2 + c^2) of sum_i [sqrt(y_i^2 + c^2) - c], which tends to |y|_1 as c -> 0."""
    return y / torch.sqrt(y.square() + c**2)


SLOPES = {"l2": l2_slope, "huber": huber_slope, "element-huber": element_huber_slope}
"""d' by the name of d."""


def sim_loss(student, teacher, fake, slope, z, cond, draws, c=1.0, guidance_scale=1.0):
    """A scalar. slope: d'(y, c), a value of `SLOPES`; z (B, ...): noise at t = 1; cond (B,) or None; c: as the knob;
    guidance_scale of the teacher."""
    x0 = jump(student(z, 1.0, cond), 0.0)  # 1
    t = draws.uniform(len(x0), EARLIEST, LATEST)  # 2
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 2
    phi, psi = fake(x_t, t, cond), teacher(x_t, t, cond, guidance_scale)  # 3
    u = slope(phi.read("score") - psi.read("score"), c)  # 4
    return -(u * (phi.x0 - x0)).flatten(1).sum(1).mean()  # 5


@dataclass(frozen=True)
class SIMKnobs(ScoreKnobs):
    """Those of score distillation, and:"""

    distance: str = "huber"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""
    c: float = 1.0
    """c > 0 of the pseudo-Huber distances, in units of the score."""


def score_implicit_matching(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The generator, the fake model, and the two turns of an update."""
    if knobs.distance not in SLOPES:
        raise unknown("distance", knobs.distance, SLOPES)
    check_positive(knobs.c, "c")
    student, fake = generator_and_fake(problem, knobs, teacher, start)

    def move(step, draws):
        z, cond = one_step_noise(problem, student, knobs, draws)
        return sim_loss(student, teacher, fake, SLOPES[knobs.distance], z, cond, draws, knobs.c, knobs.guidance_scale)

    return one_step_players(problem, knobs, teacher, student, fake, move)  # 6


CARD = Card(
    id="sim",
    title="Score implicit matching (SIM)",
    paper="arXiv 2410.16794, alg. 1",
    deck="slides 19, 20",
    equation="-w (alpha/sigma^2) d'(s_phi - s_psi)^T (D_phi(x_t) - x_0)",
    needs="teacher",
    data=False,
    train=score_implicit_matching,
    knobs=SIMKnobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=ORANGE,
    marker="P",
    dash="dashdot",
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
