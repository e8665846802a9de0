"""What the consistency family shares (slides 12, 13, 16, 17 of the deck): a jump from x_t lands where a jump from its
neighbour x_r on the same trajectory does.

| method | where the neighbour x_r comes from | how near it is | jumps end at |
|---|---|---|---|
| `cd` | a teacher's solver step | the next point of a grid | 0 |
| `ct` | the sample itself | the next point of a grid that gets finer | 0 |
| `ect` | the sample itself | at first half the way to data or all of it, in the end almost none | 0 |
| `sct` | the softmax-weighted reference batch | the same | 0 |
| `multistep` | a teacher's DDIM step | a fraction of a phase that gets smaller | the phase's lower edge |
| `lcm` | a guided teacher's DDIM step | the next point of a grid | 0 |
| `pcm` | the same | the same | the phase's lower edge |

The student's consistency function is a jump of its prediction, f(x_t, t) = jump(D(x_t, t), s). As x_t = alpha x_0 +
sigma eps, f(x_s, s) = x_s holds for every network: the boundary condition needs no c_skip and c_out.
"""

from dataclasses import dataclass
from typing import cast

import torch

from ..denoisers import Denoiser, LambdaDenoiser
from ..prediction import jump
from ..training import EMA
from .base import Knobs, student_like


@torch.no_grad()
def target_jump(target, x_r, r, edge, cond=None, guidance_scale=1.0, *, t):
    """f_theta-(x_r, r), (B, ...): where the target's jump from (x_r, r) to the edge lands, without a gradient. It is
    x_r itself where r = edge.

    edge: the time, () or (B,), where jumps end. t (B,): a time above r. Where r = edge the network is evaluated at t
    and the result discarded, since at t = 0 not every kind is defined.
    """
    inside = r > edge
    y = jump(target(x_r, torch.where(inside, r, t), cond, guidance_scale), edge)
    return torch.where(inside.reshape(-1, *[1] * (x_r.ndim - 1)), y, x_r)


@dataclass(frozen=True)
class ConsistencyKnobs(Knobs):
    """Those of every method, and:"""

    distance: str = "l2"
    """The distance d: "l2", "huber" (pseudo-Huber of the vector) or "element-huber"."""
    c: float = 1e-3
    """c > 0 of the pseudo-Huber distances."""
    target_ema: float = 0.0
    """The decay, in [0, 1), of the target's weights; with 0 the target is the student itself, without a gradient."""


def consistency_student(problem, teacher, start=None, *, guided: bool = False) -> LambdaDenoiser:
    """A student on the teacher's schedule. It begins with the weights of `start`, or else of the teacher, in the
    teacher's kind; if there are none, it is a fresh network that predicts v.

    With v, the first jumps have the right size at every noise level. With eps, an error would count NSR times in x_0,
    which is 15 times at t = 1 of Stable Diffusion.
    """
    if isinstance(teacher if start is None else start, LambdaDenoiser):
        return student_like(problem, teacher, start, guided=guided)
    return problem.student(teacher.schedule, "v", guided=guided)


def target_of(student: Denoiser, decay: float) -> tuple[Denoiser, dict[str, EMA]]:
    """(the target network theta-, the averages to follow). At decay 0 the target is the student itself and there is no
    average; else it is an average of the student's weights."""
    if decay == 0:
        return student, {}
    average = EMA(student, decay, warm=False)
    return cast(Denoiser, average.module), {"target": average}
