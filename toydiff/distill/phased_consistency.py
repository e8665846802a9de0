"""Consistency in phases and with guidance: multistep consistency, LCM and phased consistency (slide 13).

The same objective as `consistency`: what changes is the edge that both points jump to, and that the teacher's step is guided.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import check_count, check_number, check_positive, check_share
from ..denoisers import Denoiser, Guided
from ..nets.discriminator import Discriminator
from ..prediction import Prediction, chord, jump, noise_travel
from ..problems.base import Problem
from ..schedules import Schedule
from ..training import EMA, Draws, Turn
from .base import Training
from .consistency import (
    Comparison,
    ConsistencyKnobs,
    Neighbours,
    Pairing,
    at_the_edge,
    belief,
    consistency,
    student_of,
    target_of,
    target_state,
)
from .distances import Between, distance
from .guided import guided_x0
from .regression import snr_weight

# ---- multistep consistency

LEAST = 1e-5
"""How far above its phase's lower edge a training time lies at least, as a share of the phase."""


@dataclass(frozen=True)
class MultistepKnobs(ConsistencyKnobs):
    """`phases`, M, equally long in t; the teacher takes `first` steps in a phase at the start of the training, `last` at its end. `edge`, the share
    of a batch at the phases' upper edges, where a sampler with one step a phase calls the student (the paper has none). `guidance_scale` of the
    teacher, which the student then has built in (1 is off).
    """

    phases: int = 4
    first: int = 8
    last: int = 64
    edge: float = 0.25
    guidance_scale: float = 1.0
    distance: str = "huber"
    c: float = 0.03


def in_x0(between: Between, weight: Callable[[Schedule, Tensor], Tensor]) -> Comparison:
    """w_t d(x_0 student, x_0 of the line from x_t to y at the edge): the inverse DDIM step takes the target back to x_0."""

    def compare(p: Prediction, y: Tensor, n: Neighbours) -> Tensor:
        goal = chord(p.schedule, n.x, n.t, y, n.edge).x0  # x_ref = invDDIM(z_ref, z_t, t -> edge)
        return weight(p.schedule, n.t) * between(p.x0, goal)

    return compare


def multistep_consistency(
    problem: Problem, knobs: MultistepKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Multistep consistency distillation (arXiv 2403.06807, alg. 1): consistency within each of M phases; M = 1 is a consistency model.

    z_s = a DDIM step of the teacher, z_ref = DDIM(x_0 student(z_s, s), s -> edge), and max(SNR, 1) |x_0 student(z_t, t) - invDDIM(z_ref, z_t)|^2. The
    number of teacher steps rises log-linearly, the gap falls. The paper's aDDIM correction of the teacher's step is left out: it assumes that
    x_0 and eps are orthogonal, which they are only in high dimensions. Sample with M uniform DDIM steps.
    """
    M, batch = check_count(knobs.phases, "phases"), knobs.batch
    check_count(knobs.first, "first")
    check_count(knobs.last, "last")
    check_share(knobs.edge, "edge")
    student = student_of(problem, teacher, start)
    target, targets = target_of(student, knobs)
    guide, schedule = Guided(teacher, knobs.guidance_scale), student.schedule

    def pairing(step: int, draws: Draws) -> Neighbours:
        N = round(knobs.first * (knobs.last / knobs.first) ** (step / knobs.updates))  # log-linear
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional else None
        edge = draws.integers(batch, M).to(x0.dtype) / M
        # nearer to the edge rounding would leave t and the edge at the same noise level, which no chord joins
        part = torch.where(draws.uniform(batch) < knobs.edge, 1.0, (1 - draws.uniform(batch)).clamp(min=LEAST))
        t = (edge + part / M).clamp(max=1)  # t ~ U(edge, edge + 1/M], and a share at its end
        s = torch.maximum(t - 1 / (M * N), edge)
        x = schedule.mix(x0, draws.normal(batch, *problem.shape), t)
        with torch.no_grad():
            x_s = jump(guide(x, t, cond), s)
        return Neighbours(x, t, x_s, s, edge, cond)

    loss = consistency(student, target, pairing, in_x0(distance(knobs.distance, knobs.c), snr_weight))
    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(student, EMA(student, knobs.ema), [turn], targets, teacher_calls=guide.calls * batch, steps=(M,))


# ---- LCM and phased consistency


@dataclass(frozen=True)
class GuidedConsistencyKnobs(ConsistencyKnobs):
    """`intervals` of the uniform grid, whose points are those of a DDIM sampler; `g_min`, `g_max`: the teacher's guidance scales, drawn uniformly
    (1 and 1: no guidance).
    """

    intervals: int = 40
    g_min: float = 1.0
    g_max: float = 1.0
    distance: str = "element-huber"

    def check(self, problem: Problem) -> None:
        """`ValueError` for scales that are no range of positive numbers, or guidance where there are no classes."""
        check_count(self.intervals, "intervals")
        check_positive(self.g_min, "g_min")
        if check_number(self.g_max, "g_max") < self.g_min:
            raise ValueError(f"g_min must not exceed g_max, got {self.g_min:g} and {self.g_max:g}")
        if self.guidance and not problem.classes:
            raise ValueError(
                f"guidance needs classes to guide towards, and {problem.name} has none; set g_min and g_max to 1"
            )

    @property
    def guidance(self) -> bool:
        """Whether the teacher is guided at all."""
        return (self.g_min, self.g_max) != (1, 1)


@torch.no_grad()
def augmented_step(teacher: Denoiser, x: Tensor, t: Tensor, r: Tensor, cond: Tensor | None, g: Tensor | None) -> Tensor:
    """The CFG-augmented solver: (1 + w) Psi(x, t -> r, c) - w Psi(x, t -> r, none), w = g - 1, Psi one DDIM step (slide 13; arXiv 2310.04378, eq. 13).

    One DDIM step is linear in (x_0, eps), so the predictions may be combined first; of any other Psi that would be something else. g (B,) or
    None for no guidance. A teacher that sees the guidance scale is told it.
    """
    if g is None:
        return jump(teacher(x, t, cond), r)
    if teacher.sees_guidance:
        return jump(teacher.at_guidance(x, t, cond, g), r)
    return jump(Prediction.of("x0", guided_x0(teacher, x, t, cond, g), x, t, teacher.schedule), r)


def guided_pairing(
    problem: Problem, teacher: Denoiser, knobs: GuidedConsistencyKnobs, phases: int, *, seen: bool
) -> Pairing:
    """Neighbours on the uniform grid of N intervals by an augmented step; the edge is the largest m/M below.

    seen: whether the student is told g.
    """
    N, batch = knobs.intervals, knobs.batch
    if N % phases:
        raise ValueError(f"intervals must be a multiple of the {phases} phases, or no sampler meets the edges, got {N}")

    def pairing(step: int, draws: Draws) -> Neighbours:
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional or knobs.guidance else None
        i = draws.integers(batch, N)
        t, r = (i + 1).to(x0.dtype) / N, i.to(x0.dtype) / N
        edge = (i // (N // phases)).to(x0.dtype) / phases  # of the phase that (r, t] lies in
        g = draws.uniform(batch, knobs.g_min, knobs.g_max) if knobs.guidance else None  # g ~ U[g_min, g_max]
        x = teacher.schedule.mix(x0, draws.normal(batch, *problem.shape), t)
        x_r = augmented_step(teacher, x, t, r, cond, g)
        return Neighbours(x, t, x_r, r, edge, cond, g if seen else None)

    return pairing


def _calls(teacher: Denoiser, knobs: GuidedConsistencyKnobs) -> int:
    return teacher.calls * knobs.batch * (2 if knobs.guidance and not teacher.sees_guidance else 1)


@dataclass(frozen=True)
class LCMKnobs(GuidedConsistencyKnobs):
    """Those of `GuidedConsistencyKnobs`; the student sees the guidance scale."""

    intervals: int = 50
    target_ema: float = 0.95


def lcm(
    problem: Problem, knobs: LCMKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Latent consistency model, LCM (arXiv 2310.04378, alg. 1): one phase, skip steps, a guided teacher, and the guidance scale an input.

    50 intervals are a skip of 20 of Stable Diffusion's 1,000 timesteps. The paper's c_skip and c_out, which are 7e-6 and 1 from the first such point on,
    are a jump's own boundary condition here. g is w + 1. Sample with the solver `lcm`, at a guidance scale that the student is told.
    """
    knobs.check(problem)
    student = student_of(problem, teacher, start, guided=knobs.guidance)
    target, targets = target_of(student, knobs)
    pairing = guided_pairing(problem, teacher, knobs, 1, seen=knobs.guidance)
    loss = consistency(student, target, pairing, at_the_edge(distance(knobs.distance, knobs.c)))
    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(student, EMA(student, knobs.ema), [turn], targets, teacher_calls=_calls(teacher, knobs))


@dataclass(frozen=True)
class PhasedConsistencyKnobs(GuidedConsistencyKnobs):
    """`phases`, M, which divide the intervals; `adversarial`, the weight of the adversarial loss (0: none), and `lr_d` of its discriminator."""

    phases: int = 4
    adversarial: float = 0.0
    lr_d: float = 1e-3


def phased_consistency(
    problem: Problem,
    knobs: PhasedConsistencyKnobs,
    teacher: Denoiser,
    pairs: None = None,
    start: Denoiser | None = None,
) -> Training:
    """Phased consistency model, PCM (arXiv 2405.18407, alg. 1; slide 13): d(f^m_theta(x_t, t), f^m_theta-(x_r, r)), f^m a jump to the phase's edge s_m.

    The student is not told g: it learns the guidance that the teacher has. With `adversarial`, hinge losses of D on what both sides become when they are
    noised to the same u in the phase, the target's prediction being the real one (the slide lacks D, and prints D's loss for the generator's).
    Sample with M uniform DDIM steps, without noise. The published code has theta- = theta (`target_ema` 0), the slide an average.
    """
    knobs.check(problem)
    M = check_count(knobs.phases, "phases")
    if check_number(knobs.adversarial, "adversarial") < 0:
        raise ValueError(f"adversarial, a weight, must be >= 0, got {knobs.adversarial:g}")
    student = student_of(problem, teacher, start)
    target, targets = target_of(student, knobs)
    pairing = guided_pairing(problem, teacher, knobs, M, seen=False)
    compare = at_the_edge(distance(knobs.distance, knobs.c))
    plain = consistency(student, target, pairing, compare)
    turns, modules = [Turn(plain, list(student.parameters()), knobs.lr)], {}
    if knobs.adversarial:
        D = Discriminator.on(problem, teacher, student.schedule)
        turns, modules = _adversarial(problem, knobs, student, target, pairing, compare, D), {"discriminator": D}
    return Training(
        student, EMA(student, knobs.ema), turns, targets, modules, teacher_calls=len(turns) * _calls(teacher, knobs), steps=(M,)
    )  # fmt: skip


def _adversarial(
    problem: Problem, knobs: PhasedConsistencyKnobs, student: Denoiser, target: Denoiser, pairing: Pairing, compare: Comparison, D: Discriminator
) -> list[Turn]:  # fmt: skip
    """The student's turn, d + lambda relu(1 - D(f_u)), and the discriminator's, relu(1 + D(f_u)) + relu(1 - D(r_u))."""

    def noised(state: Tensor, n: Neighbours, u: Tensor, draws: Draws) -> Tensor:
        return noise_travel(student.schedule, state, n.edge, u, draws.normal(knobs.batch, *problem.shape))

    def somewhere(n: Neighbours, draws: Draws) -> Tensor:
        return (n.edge + draws.uniform(knobs.batch) / knobs.phases).clamp(max=1)  # u ~ U[s_m, s_m+1]

    def generator(step: int, draws: Draws) -> Tensor:
        n = pairing(step, draws)
        p = belief(student, n, n.x, n.t)
        u = somewhere(n, draws)
        fooled = F.relu(1 - D(noised(jump(p, n.edge), n, u, draws), u, n.cond))
        return (compare(p, target_state(target, n), n) + knobs.adversarial * fooled).mean()

    def discriminator(step: int, draws: Draws) -> Tensor:
        n = pairing(step, draws)
        u = somewhere(n, draws)
        with torch.no_grad():
            fake, real = jump(belief(student, n, n.x, n.t), n.edge), target_state(target, n)
        fake, real = noised(fake, n, u, draws), noised(real, n, u, draws)
        return (F.relu(1 + D(fake, u, n.cond)) + F.relu(1 - D(real, u, n.cond))).mean()

    return [
        Turn(generator, list(student.parameters()), knobs.lr),
        Turn(discriminator, list(D.parameters()), knobs.lr_d, name="discriminator"),
    ]
