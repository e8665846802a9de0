"""One-step distillation of a rectified flow (InstaFlow, arXiv 2309.06380, eq. 5; slide 29 of the deck).

A 2-rectified flow is nearly straight. Its one step from t = 1 is trained to end where its ODE ends:

    1  (eps, x_0) a pair of the flow's ODE
    2  x_1 = eps
    3  loss = |(eps - v_theta(eps, 1)) - x_0|^2

The student sees t = 1 only, so that sampling it in more than one step is worse. The teacher should be a 2-rectified
flow and the pairs its own. The original's distance on images is LPIPS.
"""

from ..prediction import Prediction
from ..schedules import Linear
from ..solvers.registry import ORANGE
from .base import Card, Knobs, Sampler, Training, one_turn
from .distances import mse


def instaflow_loss(student, x0, eps, cond, draws):
    """A scalar. x0, eps (B, ...): pairs of the flow's ODE; cond (B,) or None."""
    t = draws.uniform(len(x0), 1.0, 1.0)  # t = 1; drawn, so that a seed's other numbers stay what they are
    x_1 = Prediction.exact(x0, eps, t, student.schedule).x  # 2
    return mse(student(x_1, t, cond).read("velocity"), eps - x0).mean()  # 3


def instaflow(problem, knobs, teacher, pairs, start=None) -> Training:
    """A student on the linear schedule that predicts the velocity, and its one turn."""
    student = problem.student(Linear(), "velocity", start=teacher if start is None else start)

    def turn(step, draws):
        x0, eps, cond = pairs.draw(student.schedule, knobs.batch, draws)  # 1
        return instaflow_loss(student, x0, eps, cond, draws)

    return one_turn(student, turn, knobs, steps=(1,))


CARD = Card(
    id="instaflow",
    title="One-step distillation of a rectified flow (InstaFlow)",
    paper="arXiv 2309.06380, eq. 5",
    deck="slide 29",
    equation="|eps - v(eps, 1) - x_0|^2, at t = 1 only",
    needs="pairs",
    data=False,
    train=instaflow,
    knobs=Knobs,
    sampler=Sampler(steps=(1,)),
    color=ORANGE,
    marker="v",
    dash="dot",
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1002},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50},
    },
)
