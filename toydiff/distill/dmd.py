"""Distribution matching distillation, DMD (arXiv 2311.18828, algorithm 1; slide 32 and reference 19 of the deck).

VSD's direction in x_0, normalised for each sample, and a regression on the teacher's pairs. The regression keeps the
modes that reverse KL would drop. theta are the generator's weights, psi the teacher's, phi the fake model's, and sg(y)
is y without a gradient:

    1  x = g_theta(z),  z ~ N(0, sigma_1^2 I)            g(z) = jump(D(z, 1), 0), the student's x_0 at t = 1
    2  t ~ U(0.02, 0.98),  x_t = alpha_t x + sigma_t eps,  eps ~ N(0, I)
    3  delta = (D_phi - D_psi)/mean_i|x - D_psi|         D_phi the fake model's x_0, D_psi the teacher's, at (x_t, t)
    4  loss = |x - sg(x - delta)|^2/2,  a sum over a sample's numbers
    5  loss += lambda |g_theta(z') - y|^2,  a mean over them;  (z', y) a pair of the teacher's ODE (`naive_loss`)
    then, `ratio` times,
    6  phi: diffusion training on x = sg g_theta(z), z fresh (`diffusion_loss`)

D_phi - D_psi = (sigma/alpha)(eps_psi - eps_phi). The paper's distance in line 5 is LPIPS. Pairs and teacher should have
the same guidance.
"""

from dataclasses import dataclass

import torch

from ..prediction import jump
from ..schedules import expand
from ..solvers.registry import BLUE
from ..support.checks import check_number
from .base import Card, Sampler, Training
from .naive import naive_loss
from .scores import EARLIEST, LATEST, ScoreKnobs, generator_and_fake, one_step_noise, one_step_players

LEAST_SCALE = 0.03
"""The least value of DMD's denominator mean_i|x - D_psi|, as a fraction of its mean over the batch.

The denominator makes the direction independent of the data's scale and of t. The paper does not bound it. For an image
it is a mean of many numbers and never near 0. For a sample of few numbers it may be: there 1/|x - D_psi| has no finite
variance (for one number, no mean), and without this bound a Gaussian generator on the line drifts away from its data.
Where a batch is divided among processes or parts, the mean is over each one's own part.
"""


@torch.no_grad()
def dmd_direction(teacher, fake, x, cond, draws, guidance_scale=1.0):
    """delta, (B, ...): lines 2 and 3, as in the paper's listing (algorithm 2); its eq. 7 and 8 have one more factor
    alpha_t.

    x (B, ...): the generator's samples; cond (B,) or None; guidance_scale of the teacher. 0/0 becomes 0.
    """
    t = draws.uniform(len(x), EARLIEST, LATEST)  # 2
    x_t = teacher.schedule.mix(x, draws.normal(*x.shape), t)  # 2
    D_psi, D_phi = teacher(x_t, t, cond, guidance_scale).x0, fake(x_t, t, cond).x0
    scale = (x - D_psi).abs().flatten(1).mean(1)  # 3
    scale = scale.clamp(min=LEAST_SCALE * float(scale.mean()))  # not in the paper, see LEAST_SCALE
    return torch.nan_to_num((D_phi - D_psi) / expand(scale, x), 0.0, 0.0, 0.0)  # 3


def dmd_loss(student, teacher, fake, z, cond, draws, guidance_scale=1.0):
    """A scalar, without the regression. z (B, ...): noise at t = 1; cond (B,) or None; guidance_scale of the
    teacher."""
    x = jump(student(z, 1.0, cond), 0.0)  # 1
    delta = dmd_direction(teacher, fake, x, cond, draws, guidance_scale)  # 2, 3
    return (0.5 * (x - (x - delta).detach()).square().flatten(1).sum(1)).mean()  # 4


@dataclass(frozen=True)
class DMDKnobs(ScoreKnobs):
    """Those of score distillation, and:"""

    ratio: int = 1
    """Updates of the fake model for each update of the generator."""
    regression: float = 0.25
    """lambda >= 0, the weight of the regression on pairs; 0 for none."""

    def __post_init__(self):
        super().__post_init__()
        if check_number(self.regression, "regression") < 0:  # before any pair is made
            raise ValueError(f"regression, a weight, must be >= 0, got {self.regression:g}")


def dmd(problem, knobs, teacher, pairs, start=None) -> Training:
    """The generator, the fake model, and the two turns of an update."""
    student, fake = generator_and_fake(problem, knobs, teacher, start)

    def move(step, draws):
        z, cond = one_step_noise(problem, student, knobs, draws)
        loss = dmd_loss(student, teacher, fake, z, cond, draws, knobs.guidance_scale)
        if knobs.regression:
            y, eps, cond = pairs.draw(student.schedule, knobs.batch, draws)
            loss = loss + knobs.regression * naive_loss(student, y, eps, cond, draws)  # 5
        return loss

    return one_step_players(problem, knobs, teacher, student, fake, move)  # 6


CARD = Card(
    id="dmd",
    title="Distribution matching distillation (DMD)",
    paper="arXiv 2311.18828, alg. 1",
    deck="slide 32, reference 19",
    equation="(D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and |g(z) - ODE(z)|^2",
    needs="pairs",
    data=False,
    train=dmd,
    knobs=DMDKnobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=BLUE,
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
