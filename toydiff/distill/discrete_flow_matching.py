"""Discrete flow matching (arXiv 2407.15595).

A network learns each position's data token from a string in which some positions hold noise. The paper's time is 1 - t:

    1  x_1, c ~ data,  t ~ U(0, 1);  c is dropped now and then, for guidance, where there are classes
    2  x_t^i = x_1^i with probability kappa_t, else x_0^i ~ the source        each position by itself
    3  p^i = p_theta(x_1^i | x_t, c)
    4  loss = -log p^i(x_1^i)                                                 cross-entropy
    5  or loss = a_t (delta - p^i(x_t^i) - (1 - delta) log p^i(x_1^i)),       generalised KL (arXiv 2412.06264)
       delta = 1 where x_t^i = x_1^i, a_t = -kappa'_t/(1 - kappa_t)

Both have the posterior as their optimum. The second weighs times near data more: it bounds -log p of the data, and with
the mask the bound of an exact posterior is tight. With the mask, a position that is revealed adds nothing: its token is
known.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..denoisers import NO_CLASS
from ..discrete import TokenPath, scheduler
from ..solvers.registry import BLUE
from ..support.checks import check_fraction, unknown
from .base import Card, Knobs, Sampler, Training, batch_of, one_turn, uniform_times

MOST_RATE = 1e3
"""The largest a_t that weighs a loss: it is infinite at t = 0."""


def noised(path, x1, t, draws):
    """x_t, (B, L): x1 (B, L) data, t (B,)."""
    B, L = x1.shape
    noise = torch.full_like(x1, path.mask) if path.masked else draws.integers(B, path.vocab, (L,))
    return path.mix(x1, noise, draws.uniform(B, shape=(L,)), t)


def cross_entropy_loss(student, x1, draws, cond=None):
    """A scalar. x1 (B, L); cond (B,) or None."""
    t = uniform_times(len(x1), draws)  # 1
    x_t = noised(student.path, x1, t, draws)  # 2
    logits = student.logits(x_t, t, cond=cond)  # 3
    each = F.cross_entropy(logits.transpose(1, 2), x1, reduction="none")  # 4
    unknown_still = x_t == student.path.mask if student.path.masked else torch.ones_like(each)
    return (each * unknown_still).mean()


def generalised_kl_loss(student, x1, draws, cond=None):
    """A scalar. x1 (B, L); cond (B,) or None."""
    t = uniform_times(len(x1), draws)  # 1
    x_t = noised(student.path, x1, t, draws)  # 2
    log_p = torch.log_softmax(student.logits(x_t, t, cond=cond), 2)  # 3
    same = x_t == x1
    stays = same if student.path.masked else log_p.exp().gather(2, x_t[..., None])[..., 0]  # 5: p of what is known is 1
    a = student.path.rate(t).clamp(max=MOST_RATE)
    each = same.float() - stays.float() - (~same).float() * log_p.gather(2, x1[..., None])[..., 0]  # 5
    return (a[:, None] * each).mean()  # 5


LOSSES = {"cross-entropy": cross_entropy_loss, "kl": generalised_kl_loss}


@dataclass(frozen=True)
class DiscreteFlowMatchingKnobs(Knobs):
    """Those of every method, and:"""

    source: str = "mask"
    """What strings are at t = 1: mask or uniform."""
    kappa: str = "linear"
    """The scheduler: linear, cosine, or power:A for (1 - t)^A."""
    loss: str = "cross-entropy"
    """cross-entropy, or kl, the generalised KL."""
    drop: float = 0.1
    """The probability, in [0, 1], that a label is dropped, as guidance needs."""


def discrete_flow_matching(problem, knobs, teacher=None, pairs=None, start=None) -> Training:
    """A posterior on a path of one's choice, and its one turn."""
    if knobs.loss not in LOSSES:
        raise unknown("loss of discrete-flow-matching", knobs.loss, LOSSES)
    loss = LOSSES[knobs.loss]
    check_fraction(knobs.drop, "drop")
    student = problem.posterior(TokenPath(problem.vocab, knobs.source, scheduler(knobs.kappa)), start=start)

    def turn(step, draws):
        x1, cond = batch_of(problem, knobs.batch, draws)  # 1
        if cond is not None:
            cond = cond.masked_fill(draws.uniform(len(x1)) < knobs.drop, NO_CLASS)  # 1
        return loss(student, x1, draws, cond)

    return one_turn(student, turn, knobs)


CARD = Card(
    id="discrete-flow-matching",
    title="Discrete flow matching",
    paper="arXiv 2407.15595",
    deck="reference 7",
    equation="-log p(x_1^i | x_t), x_t^i = x_1^i with probability kappa_t, else the source's",
    needs="nothing",
    train=discrete_flow_matching,
    knobs=DiscreteFlowMatchingKnobs,
    sampler=Sampler(None, None, (1, 2, 4, 8, 16, 32)),
    color=BLUE,
    only="tokens",
    recipes={
        "tokens": {"batch": 128, "lr": 3e-3, "updates": 3000, "ema": 0.995},
        "token-images": {"batch": 64, "lr": 3e-3, "updates": 24_000},
    },
)
