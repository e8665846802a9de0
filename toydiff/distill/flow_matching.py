"""Flow matching, or 1-rectified flow (arXiv 2210.02747, eq. 23; arXiv 2209.03003, eq. 1; the deck's algorithm 1).

A network learns the velocity of straight lines between data and noise that were paired at random:

    1  x_0, c ~ data,  eps ~ N(0, I)
    2  t ~ U(0, 1)
    3  x_t = (1 - t) x_0 + t eps
    4  loss = |v_theta(x_t, t, c) - (eps - x_0)|^2

The deck prints x_0 - eps, which is the same with time reversed. This is diffusion training on the linear schedule with
the kind velocity: an error of the velocity is that of eps, divided by 1 - t.
"""

from dataclasses import dataclass

from ..denoisers import NO_CLASS
from ..prediction import Prediction
from ..schedules import Linear
from ..solvers.registry import GREY
from ..support.checks import check_fraction
from .base import Card, Knobs, Sampler, Training, one_turn
from .distances import mse


def flow_matching_loss(student, x0, cond, draws, drop=None):
    """A scalar. x0 (B, ...); cond (B,) or None; drop: the probability that a condition is dropped, None to keep all."""
    eps = draws.normal(*x0.shape)  # 1
    if drop is not None and cond is not None:
        cond = cond.masked_fill(draws.uniform(len(x0)) < drop, NO_CLASS)
    t = draws.uniform(len(x0), 1e-3, 1.0)  # 2
    x_t = Prediction.exact(x0, eps, t, student.schedule).x  # 3
    return mse(student(x_t, t, cond).read("velocity"), eps - x0).mean()  # 4


@dataclass(frozen=True)
class FlowMatchingKnobs(Knobs):
    """Those of every method, and:"""

    drop: float = 0.1
    """The probability, in [0, 1], that a label is dropped, as guidance needs."""


def flow_matching(problem, knobs, teacher=None, pairs=None, start=None) -> Training:
    """A student on the linear schedule that predicts the velocity, and its one turn."""
    check_fraction(knobs.drop, "drop")
    student = problem.student(Linear(), "velocity", start=start)

    def turn(step, draws):
        x0, cond = draws.rows(problem.data, knobs.batch)  # 1
        return flow_matching_loss(student, x0, cond, draws, knobs.drop)

    return one_turn(student, turn, knobs)


CARD = Card(
    id="flow-matching",
    title="Flow matching = 1-rectified flow",
    paper="arXiv 2210.02747, eq. 23",
    deck="slide 24, algorithm 1",
    equation="|v(x_t, t) - (eps - x_0)|^2, x_t = (1 - t) x_0 + t eps",
    needs="nothing",
    train=flow_matching,
    knobs=FlowMatchingKnobs,
    sampler=Sampler(None, None, (10, 20, 25)),
    color=GREY,
    marker="s",
    dash="dash",
    recipes={
        "points": {"batch": 512, "lr": 2e-3, "updates": 3600, "drop": 0.8},  # points are sampled without a class
        "images": {"batch": 128, "lr": 2e-3, "updates": 9000, "cycles": 2},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50},
    },
)
