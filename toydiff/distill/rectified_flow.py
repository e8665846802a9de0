"""Rectified flow, reflow (arXiv 2209.03003, algorithm 1; the deck's algorithm 3, slides 21 to 24).

Flow matching again, but noise and data are paired as the previous flow's ODE pairs them; then straight lines hardly
cross, and the flow is straighter:

    1  (eps, x_0) a pair of the teacher's ODE: x_0 is where it ends from eps
    2  t ~ U(0, 1),  t = 1 with probability `edge` (the papers: 0)
    3  x_t = (1 - t) x_0 + t eps, with the paired eps
    4  loss = |v_theta(x_t, t) - (eps - x_0)|^2

To draw eps anew in line 3 would undo the pairing. If the teacher is k-rectified, the result is (k + 1)-rectified: for
more rounds, make pairs with the result and run this again. A teacher of another kind or schedule gives its weights all
the same: the student begins with them, and has to learn that its output is a velocity.
"""

from dataclasses import dataclass

from ..prediction import Prediction
from ..schedules import Linear
from ..solvers.registry import ORANGE
from ..support.checks import check_edge
from .base import Card, Knobs, Training, one_turn, uniform_times
from .distances import mse


def rectified_flow_loss(student, x0, eps, cond, draws, edge=0.0):
    """A scalar. x0, eps (B, ...): pairs of the teacher's ODE; cond (B,) or None; edge: the probability of t = 1."""
    t = uniform_times(len(x0), draws, edge)  # 2
    x_t = Prediction.exact(x0, eps, t, student.schedule).x  # 3
    return mse(student(x_t, t, cond).read("velocity"), eps - x0).mean()  # 4


@dataclass(frozen=True)
class ReflowKnobs(Knobs):
    """Those of every method, and:"""

    edge: float = 0.0
    """The fraction, in [0, 1), of a batch at t = 1. Every sampler begins there, and a one-step sampler evaluates the
    student nowhere else. The papers have 0."""


def rectified_flow(problem, knobs, teacher, pairs, start=None) -> Training:
    """A student on the linear schedule that predicts the velocity, and its one turn."""
    check_edge(knobs.edge)
    student = problem.student(Linear(), "velocity", start=teacher if start is None else start)

    def turn(step, draws):
        x0, eps, cond = pairs.draw(student.schedule, knobs.batch, draws)  # 1
        return rectified_flow_loss(student, x0, eps, cond, draws, knobs.edge)

    return one_turn(student, turn, knobs)


CARD = Card(
    id="rectified-flow",
    title="Rectified flow (reflow)",
    paper="arXiv 2209.03003, alg. 1",
    deck="slides 21, 22, 24, algorithm 3",
    equation="|v(x_t, t) - (eps - x_0)|^2, (eps, x_0) a pair of the teacher's ODE",
    needs="pairs",
    data=False,
    train=rectified_flow,
    knobs=ReflowKnobs,
    color=ORANGE,
    marker="s",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1002},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "edge": 0.25},
    },
)
