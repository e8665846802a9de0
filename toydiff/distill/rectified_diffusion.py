"""Rectified Diffusion (arXiv 2410.07303; the deck's algorithm 4, slides 26 and 27).

The pairs of rectified flow, on the teacher's own schedule and in its own kind. What must become constant along a path
is (x_0, eps), not dx/dt: then a jump between any two times is exact, whatever the schedule.

    1  (eps, x_0) a pair of the teacher's ODE
    2  t ~ U(0, 1)
    3  x_t = alpha_t x_0 + sigma_t eps, with the paired eps
    4  loss = |eps_theta(x_t, t) - eps|^2,  or, as the published code has it, pseudo-Huber(x_0 of theta, x_0)

An error of x_0 is NSR times that of eps, so the squares differ by a weight NSR^2: 213 at t = 1 of Stable Diffusion's
table. One-step quality depends on that weight. A fraction `edge` of the times is t = 1 itself.
"""

from dataclasses import dataclass

from ..prediction import Prediction
from ..solvers.registry import BLUE
from ..support.checks import check_edge, unknown
from .base import Card, Training, one_turn, student_like, uniform_times
from .distances import mse, pseudo_huber
from .rectified_flow import ReflowKnobs


def x0_huber(p, true, kind):
    """pseudo-Huber(x_0 student, x_0), (B,): it weighs an error in eps by NSR, and so the noisy end most."""
    return pseudo_huber(p.x0, true.x0)


def own_mse(p, true, kind):
    """|y student - y|^2 of the kind that the student predicts, (B,): the deck's, where that is eps."""
    return mse(p.read(kind), true.read(kind))


LOSSES = {"x0-huber": x0_huber, "own-mse": own_mse}
"""Line 4 by name: the published code's, and the deck's."""


def rectified_diffusion_loss(student, x0, eps, cond, draws, edge=0.0, compare=x0_huber):
    """A scalar. x0, eps (B, ...): pairs on the student's schedule, from `Pairs.draw`; cond (B,) or None; edge: the
    probability of t = 1; compare: line 4, a value of `LOSSES`."""
    t = uniform_times(len(x0), draws, edge)  # 2
    true = Prediction.exact(x0, eps, t, student.schedule)  # 3
    return compare(student(true.x, t, cond), true, student.kind).mean()  # 4


@dataclass(frozen=True)
class RectifiedDiffusionKnobs(ReflowKnobs):
    """Those of reflow, and:"""

    loss: str = "x0-huber"
    """Line 4: "x0-huber", the published code's, or "own-mse", the deck's."""


def rectified_diffusion(problem, knobs, teacher, pairs, start=None) -> Training:
    """A student on the teacher's schedule and in its kind, and its one turn."""
    check_edge(knobs.edge)
    if knobs.loss not in LOSSES:
        raise unknown("loss of rectified diffusion", knobs.loss, LOSSES)
    student = student_like(problem, teacher, start)

    def turn(step, draws):
        x0, eps, cond = pairs.draw(student.schedule, knobs.batch, draws)  # 1
        return rectified_diffusion_loss(student, x0, eps, cond, draws, knobs.edge, LOSSES[knobs.loss])

    return one_turn(student, turn, knobs)


CARD = Card(
    id="rectified-diffusion",
    title="Rectified Diffusion",
    paper="arXiv 2410.07303",
    deck="slides 26, 27, algorithm 4",
    equation="|eps(x_t, t) - eps|^2, (eps, x_0) a pair of the teacher's ODE",
    needs="pairs",
    data=False,
    train=rectified_diffusion,
    knobs=RectifiedDiffusionKnobs,
    color=BLUE,
    recipes={
        "points": {"batch": 512, "lr": 1e-3, "updates": 3600},
        "images": {"batch": 64, "lr": 1e-3, "updates": 1002},
        "latents": {"batch": 16, "lr": 1e-4, "updates": 2000, "ema": 0.99, "warmup": 50, "edge": 0.25},
    },
)
