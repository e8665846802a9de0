"""Distillation through dimensional correlations, Di4C (arXiv 2410.08709).

A posterior draws each position by itself, so what is revealed in one step is independent. The student is a mixture of K
such products, p(x_1 | x_t) = 1/K sum_k prod_i p_k(x_1^i | x_t), whose positions depend on one another through k. It
learns in one step what the teacher does in many:

    1  x_1 ~ data,  t ~ U(0, 1), t = 1 with the probability `edge`;  x_t^i = x_1^i with probability kappa_t, else noise
    2  y ~ the teacher's walk from x_t to data in `walk` steps of exact jumps           no gradient
    3  l_k = sum_i log p_k(y^i | x_t)                                                   over what is not revealed
    4  loss = -log(1/K sum_k exp l_k)

Its optimum is the law of y given x_t, as far as K products hold it: two equal bits need two. With K = 1 the optimum is
the teacher's own posterior again, and a step is no better than it was. The paper's losses also have a product teacher
for one short step, and control variates; here the target is the whole walk.
"""

import math
from dataclasses import dataclass

import torch

from ..discrete.jumps import ExactJumps
from ..solvers.registry import VERMILLION
from ..support.checks import check_count, check_edge
from .base import Card, Knobs, Sampler, Training, one_turn, uniform_times
from .discrete_flow_matching import noised

LEAST = 1e-30
"""A smaller probability counts as this one."""


def di4c_loss(student, teacher, walk, x1, draws, edge=0.25):
    """A scalar. walk: steps of the teacher; x1 (B, L); edge: the fraction of strings at t = 1."""
    B, K = len(x1), student.latents
    t = uniform_times(B, draws, edge)  # 1
    x_t = noised(student.path, x1, t, draws)  # 1
    y = walked(teacher, x_t, t, walk, draws)  # 2
    latent = torch.arange(K, device=x1.device).repeat_interleave(B) if K > 1 else None
    p = student(x_t.repeat(K, 1), t.repeat(K), latent)  # what is revealed has the probability 1
    of_y = p.gather(2, y.repeat(K, 1)[..., None])[..., 0].view(K, B, -1)
    of_products = of_y.clamp(min=LEAST).log().sum(2)  # 3
    return (math.log(K) - torch.logsumexp(of_products, 0)).mean() / x1.shape[1]  # 4


@torch.no_grad()
def walked(teacher, x, t, steps, draws):
    """y (B, L): the end of a walk of exact jumps from x (B, L) at the times t (B,) to 0, in equal steps of each."""
    B, L = x.shape
    for k in range(steps):
        now, then = t * (1 - k / steps), t * (1 - (k + 1) / steps)
        latent = draws.integers(B, teacher.latents) if teacher.latents > 1 else None
        law = ExactJumps().stage(teacher.path, now, then, [x], [teacher(x, now, latent)])
        x = (law.cumsum(2) <= draws.uniform(B, shape=(L, 1)) * law.sum(2, keepdim=True)).sum(2)
        x = x.clamp(max=teacher.path.size - 1)
    return x


@dataclass(frozen=True)
class Di4CKnobs(Knobs):
    """Those of every method, and:"""

    latents: int = 8
    """K, the products that a student mixes."""
    walk: int = 16
    """Steps of the teacher's walk."""
    edge: float = 0.25
    """The fraction of a batch at t = 1, in [0, 1): where sampling in one step starts."""


def di4c(problem, knobs, teacher, pairs=None, start=None) -> Training:
    """A mixture on the teacher's path, and its one turn."""
    check_count(knobs.latents, "latents")
    check_count(knobs.walk, "walk")
    check_edge(knobs.edge)
    student = problem.posterior(teacher.path, start=teacher if start is None else start, latents=knobs.latents)

    def turn(step, draws):
        x1, _ = draws.rows(problem.data, knobs.batch)  # 1
        return di4c_loss(student, teacher, knobs.walk, x1, draws, knobs.edge)

    return one_turn(student, turn, knobs, teacher_calls=knobs.walk * knobs.batch)


CARD = Card(
    id="di4c",
    title="Distillation through dimensional correlations (Di4C)",
    paper="arXiv 2410.08709",
    deck="none",
    equation="-log(1/K sum_k prod_i p_k(y^i | x_t)), y the end of the teacher's walk from x_t",
    needs="teacher",
    train=di4c,
    knobs=Di4CKnobs,
    sampler=Sampler(None, None, (1, 2, 4)),
    color=VERMILLION,
    marker="s",
    only="tokens",
    recipes={
        "tokens": {"batch": 64, "lr": 2e-3, "updates": 1500, "ema": 0.99},
    },
)
