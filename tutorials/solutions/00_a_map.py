"""Solutions of lesson 00.

3. At small t, x_t is almost the data itself, and the little noise in it cannot be told from the data's own spread: the
best prediction of eps is nearly its mean, 0, and the loss its variance, 1. At t = 1, x_t is the noise, and nothing is
left to be known. The least loss is the variance of eps given x_t, which no network can reduce. What is learnt is the
distance to E[eps | x_t], and the loss does not show it: at small t it is a small difference of large numbers.
"""

import math


def flow_matching(net, x0, eps, t):
    t_ = t[:, None]
    return (net((1 - t_) * x0 + t_ * eps, t) - (eps - x0)).square().mean()


def spread_when_stopped(c, n):
    return math.sqrt(c**2 + n**2)  # z = x_0 + n eps
