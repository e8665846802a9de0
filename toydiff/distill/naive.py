"""Naive distillation (Luhman and Luhman, arXiv 2101.02388, eq. 7; slide 10 of the deck).

The student learns to reach in one step where the teacher's ODE ends:

    1  (eps, x_0) a pair of the teacher's ODE: x_0 is where it ends from x_1
    2  x_1 = alpha_1 x_0 + sigma_1 eps
    3  loss = d(G(x_1), x_0),  G the student's x_0 at t = 1, d the squared distance

The student sees t = 1 only. It begins with the teacher's weights, so that at first G is the teacher's own one-step
guess.
"""

from ..prediction import Prediction
from ..solvers.registry import SKY
from .base import Card, Knobs, Sampler, Training, one_turn, student_like
from .distances import mse


def naive_loss(student, x0, eps, cond, draws):
    """A scalar. x0, eps (B, ...): pairs on the student's schedule, from `Pairs.draw`; cond (B,) or None."""
    t = draws.uniform(len(x0), 1.0, 1.0)  # t = 1; drawn, so that a seed's other numbers stay what they are
    x_1 = Prediction.exact(x0, eps, t, student.schedule).x  # 2
    return mse(student(x_1, t, cond).x0, x0).mean()  # 3


def naive(problem, knobs, teacher, pairs, start=None) -> Training:
    """A student on the teacher's schedule, and its one turn."""
    student = student_like(problem, teacher, start)

    def turn(step, draws):
        x0, eps, cond = pairs.draw(student.schedule, knobs.batch, draws)  # 1
        return naive_loss(student, x0, eps, cond, draws)

    return one_turn(student, turn, knobs)


CARD = Card(
    id="naive",
    title="Naive distillation",
    paper="arXiv 2101.02388, eq. 7",
    deck="slide 10",
    equation="|x_0(eps, 1) - ODE(eps)|^2",
    needs="pairs",
    data=False,
    train=naive,
    knobs=Knobs,
    sampler=Sampler(steps=(1,)),
    color=SKY,
    marker="v",
    dash="dot",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1002},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50},
    },
)
