"""Phased consistency model, PCM (arXiv 2405.18407, algorithm 1; slide 13 of the deck).

Consistency within each of M phases of time, with a guided teacher: both neighbours jump to the lower edge of the phase
that they lie in.

    1  x_0, c ~ data,  i ~ U{0 ... N-1},  t = (i + 1)/N,  r = i/N,  s_m = the greatest m/M <= r,  g ~ U[g_min, g_max]
    2  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    3  x_r = (1 + w) Psi(x_t, t -> r, c) - w Psi(x_t, t -> r, none),  w = g - 1,  Psi one DDIM step of the teacher
    4  y = f^m_theta-(x_r, c, r),  no gradient through x_r and y;  x_r itself where r = s_m
    5  fake = f^m_theta(x_t, c, t),  f^m a jump of the network's prediction to s_m
    6  loss = d(fake, y)
       and with a discriminator D:  u ~ U[s_m, s_m + 1/M],  fake_u and real_u = fake and y noised from s_m to u
    7  loss += lambda relu(1 - D(fake_u, u, c)),    in turn with
    8  loss_D = relu(1 + D(fake_u, u, c)) + relu(1 - D(real_u, u, c))

The student has no input for g: it learns the guidance that the teacher has. real_u comes from y, the target's
prediction, not from data. The edges must be points of the grid, so M divides N (the paper skips k timesteps). Sample
with M uniform DDIM steps, without noise.

The published code has theta- = theta (`target_ema` 0), slide 13 an average. The slide has no update of D, and gives D's
loss to the generator.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..nets.discriminator import Discriminator
from ..prediction import jump, noise_travel
from ..solvers.registry import VERMILLION
from ..support.checks import check_count, check_number
from ..training import EMA, Turn
from .base import Card, Sampler, Training
from .consistency import consistency_student, target_jump, target_of
from .distances import distance
from .lcm import GuidedConsistencyKnobs


def phase_neighbours(teacher, N, M, x0, cond, draws, g_min=1.0, g_max=1.0):
    """(x_t, t, x_r, r, edge), lines 1 to 3: two neighbours on the uniform grid of N intervals, and edge = s_m, the
    lower edge of the phase, one of M, that holds (r, t]."""
    i = draws.integers(len(x0), N)  # 1
    t, r = (i + 1).to(x0.dtype) / N, i.to(x0.dtype) / N  # 1
    edge = (i // (N // M)).to(x0.dtype) / M  # 1
    g = 1.0 if g_min == g_max == 1 else draws.uniform(len(x0), g_min, g_max)  # 1
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 2
    with torch.no_grad():
        x_r = jump(teacher(x_t, t, cond, g), r)  # 3: Psi is linear in (x_0, eps), so one jump of the guided prediction
    return x_t, t, x_r, r, edge


def pcm_loss(student, target, teacher, N, M, d, x0, cond, draws, g_min=1.0, g_max=1.0, D=None, adversarial=0.0):
    """A scalar. N: intervals; M: phases, a divisor of N; d: a distance; x0 (B, ...); cond (B,) or None; g_min and
    g_max: as the knobs; D: a discriminator with the weight `adversarial`, or None."""
    x_t, t, x_r, r, edge = phase_neighbours(teacher, N, M, x0, cond, draws, g_min, g_max)  # 1, 2, 3
    y = target_jump(target, x_r, r, edge, cond, t=t)  # 4
    fake = jump(student(x_t, t, cond), edge)  # 5
    loss = d(fake, y)  # 6
    if D is not None:
        u = (edge + draws.uniform(len(x0)) / M).clamp(max=1)
        fake_u = noise_travel(student.schedule, fake, edge, u, draws.normal(*x0.shape))
        loss = loss + adversarial * F.relu(1 - D(fake_u, u, cond))  # 7
    return loss.mean()


def pcm_discriminator_loss(D, student, target, teacher, N, M, x0, cond, draws, g_min=1.0, g_max=1.0):
    """A scalar, for the discriminator's turn; the arguments are those of `pcm_loss`."""
    x_t, t, x_r, r, edge = phase_neighbours(teacher, N, M, x0, cond, draws, g_min, g_max)  # 1, 2, 3
    u = (edge + draws.uniform(len(x0)) / M).clamp(max=1)
    with torch.no_grad():
        fake, real = jump(student(x_t, t, cond), edge), target_jump(target, x_r, r, edge, cond, t=t)  # 4, 5
    fake_u = noise_travel(student.schedule, fake, edge, u, draws.normal(*x0.shape))
    real_u = noise_travel(student.schedule, real, edge, u, draws.normal(*x0.shape))
    return (F.relu(1 + D(fake_u, u, cond)) + F.relu(1 - D(real_u, u, cond))).mean()  # 8


@dataclass(frozen=True)
class PCMKnobs(GuidedConsistencyKnobs):
    """Those of guided consistency, and:"""

    phases: int = 4
    """M, the number of phases, which must divide `intervals`."""
    adversarial: float = 0.0
    """lambda >= 0, the weight of the adversarial loss; 0 for none, and no discriminator."""
    lr_d: float = 1e-3
    """The learning rate of the discriminator, > 0."""


def phased_consistency(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """The student, its target, its turn, and that of the discriminator where there is one."""
    knobs.check(problem)
    M, N = check_count(knobs.phases, "phases"), knobs.intervals
    if check_number(knobs.adversarial, "adversarial") < 0:
        raise ValueError(f"adversarial, a weight, must be >= 0, got {knobs.adversarial:g}")
    if N % M:
        raise ValueError(f"intervals must be a multiple of the {M} phases, or no sampler meets the edges, got {N}")
    d, scales = distance(knobs.distance, knobs.c), (knobs.g_min, knobs.g_max)
    student = consistency_student(problem, teacher, start)
    target, targets = target_of(student, knobs.target_ema)
    D = Discriminator.on(problem, teacher, student.schedule) if knobs.adversarial else None

    def data(draws):
        x0, cond = draws.rows(problem.data, knobs.batch)
        return x0, cond if problem.conditional or knobs.guidance else None

    def turn(step, draws):
        x0, cond = data(draws)
        return pcm_loss(student, target, teacher, N, M, d, x0, cond, draws, *scales, D=D, adversarial=knobs.adversarial)

    def turn_of_discriminator(step, draws):
        x0, cond = data(draws)
        return pcm_discriminator_loss(D, student, target, teacher, N, M, x0, cond, draws, *scales)

    turns = [Turn(turn, list(student.parameters()), knobs.lr)]
    if D is not None:
        turns.append(Turn(turn_of_discriminator, list(D.parameters()), knobs.lr_d, name="discriminator"))
    return Training(
        student,
        EMA(student, knobs.ema),
        turns,
        targets,
        modules={} if D is None else {"discriminator": D},
        teacher_calls=len(turns) * teacher.calls_at(2.0 if knobs.guidance else 1.0) * knobs.batch,
        steps=(M,),
    )


CARD = Card(
    id="pcm",
    title="Phased consistency model (PCM)",
    paper="arXiv 2405.18407, alg. 1",
    deck="slide 13, algorithm 1",
    equation="d(f_m(x_t, t), f_m(x_r, r)), f_m a jump to the lower edge of phase m",
    needs="teacher",
    train=phased_consistency,
    knobs=PCMKnobs,
    sampler=Sampler(steps=(4,)),
    color=VERMILLION,
    marker="D",
    dash="dash",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 2500, "intervals": 80},
        "images": {
            "batch": 64,
            "lr": 3e-4,
            "updates": 300,
            "ema": 0.99,
            "warmup": 20,
            "distance": "huber",
            "c": 0.015,
            "target_ema": 0.95,
        },
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "distance": "element-huber",
            "c": 1e-3,
            "intervals": 40,
            "g_min": 5.0,
            "g_max": 6.0,
        },
    },
)
