"""Diffusion training (DDPM: arXiv 2006.11239, algorithm 1; the deck's algorithm 2).

A network learns what noise was added to data, at every noise level; its optimum is the score. On any schedule,
predicting any kind:

    1  x_0, c ~ data,  eps ~ N(0, I);  c is dropped now and then, for guidance (arXiv 2207.12598, algorithm 1)
       (images may be moved a little, by less and less, so that more is learnt from few and samples do not show it)
    2  t ~ U(0, 1)
    3  x_t = alpha_t x_0 + sigma_t eps
    4  loss = |y_theta(x_t, t, c) - y|^2,  y = a_t x_0 + b_t eps the kind that the network predicts: eps in DDPM

The kind decides the weight of each noise level in one loss, since the errors of one prediction are proportional:
|error of dx/dt|^2 = (sigma dlambda/dt)^2 |error of eps|^2 = (alpha dlambda/dt)^2 |error of x_0|^2.
"""

from dataclasses import dataclass

from ..denoisers import NO_CLASS
from ..prediction import Prediction, check_kind
from ..schedules import schedule
from ..solvers.registry import BLACK
from ..support.checks import check_fraction
from .base import Card, Knobs, Sampler, Training, one_turn
from .distances import mse

UNTIL = 0.75
"""The fraction of the updates in which data is augmented."""


def diffusion_loss(student, x0, cond, draws, drop=None):
    """A scalar. x0 (B, ...); cond (B,) or None; drop: the probability that a condition is dropped, None to keep all."""
    eps = draws.normal(*x0.shape)  # 1
    if drop is not None and cond is not None:
        cond = cond.masked_fill(draws.uniform(len(x0)) < drop, NO_CLASS)  # 1
    t = draws.uniform(len(x0), 1e-3, 1.0)  # 2; at t = 0 there is nothing to learn, and some kinds are infinite there
    true = Prediction.exact(x0, eps, t, student.schedule)  # 3
    p = student(true.x, t, cond)
    return mse(p.read(student.kind), true.read(student.kind)).mean()  # 4


@dataclass(frozen=True)
class DiffusionKnobs(Knobs):
    """Those of every method, and:"""

    schedule: str = ""
    """The name of a schedule, or its import path; empty for the problem's own."""
    kind: str = "eps"
    """The kind of prediction; empty for that of `start`, or else of the problem's teacher."""
    drop: float = 0.1
    """The probability, in [0, 1], that a label is dropped, as guidance needs."""
    augment: float = 0.0
    """How far data is moved at first, in [0, 1] (`Problem.augmented`). It falls to 0 over the first `UNTIL` of the
    updates: the last ones see the data as it is."""


def diffusion(problem, knobs, teacher=None, pairs=None, start=None) -> Training:
    """A student on a schedule of one's choice, and its one turn."""
    kind = knobs.kind or getattr(start or problem.teacher, "kind", "eps")
    check_kind(kind)
    check_fraction(knobs.drop, "drop")
    check_fraction(knobs.augment, "augment")
    student = problem.student(schedule(knobs.schedule) if knobs.schedule else problem.schedule, kind, start=start)

    def turn(step, draws):
        x0, cond = draws.rows(problem.data, knobs.batch)  # 1
        strength = knobs.augment * (1 - step / (UNTIL * knobs.updates))
        if strength > 0:
            x0 = problem.augmented(x0, strength, draws)  # 1
        return diffusion_loss(student, x0, cond, draws, knobs.drop)

    return one_turn(student, turn, knobs)


CARD = Card(
    id="diffusion",
    title="Diffusion training",
    paper="arXiv 2006.11239, alg. 1",
    deck="slide 25, algorithm 2",
    equation="|eps(x_t, t) - eps|^2, x_t = alpha x_0 + sigma eps",
    needs="nothing",
    train=diffusion,
    knobs=DiffusionKnobs,
    sampler=Sampler(None, None, (10, 20, 25)),
    color=BLACK,
    recipes={
        # the mean square in v weighs all noise levels alike, where that in eps leaves the modes' weights to chance;
        # points are sampled without a class
        "points": {"batch": 512, "lr": 2e-3, "updates": 3600, "kind": "v", "drop": 0.8},
        "images": {"batch": 128, "lr": 3e-3, "updates": 9000, "kind": "v"},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "kind": ""},
    },
)
