"""Solutions of lesson 02.

3. (a) For eta = 0. The ODE is a map: an error made early is carried to the end, stretched or shrunk by the flow. The
SDE keeps adding noise, and its extra score pulls the state back to p_t: what happened earlier is forgotten bit by bit.
(The price is the error that each noisy step makes itself.)
(b) A path lives in (x, t). Through each point at each time there is one velocity, so two paths that meet at the same
time are the same path. In a drawing of the plane the time is not seen: they pass the same place at different times.
"""

import torch

from toydiff import jump


def trapezium(D, x, t, s):
    """EDM's Heun step, in disguise."""
    on, (time, then) = D.schedule, torch.tensor([t, s], dtype=x.dtype)
    at_start = D(x, t)
    at_end = D(jump(at_start, s), s)
    mean = (at_start.eps + at_end.eps) / 2
    return on.alpha(then) * (x / on.alpha(time) - mean * (on.nsr(time) - on.nsr(then)))


def score_factor(eta):
    return (1 + eta**2) / 2
