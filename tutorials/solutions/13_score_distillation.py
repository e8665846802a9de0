"""Solutions of lesson 13.

2. The forward divergence KL(q || p) is infinite in the limit: it averages over data, and where data is, log p has
nothing. That is why maximum likelihood covers modes and score distillation may drop them.

3. Why noise: without it the two densities may not overlap, log p - log q is not defined, and scores between modes say
nothing of the other modes. Noised densities overlap everywhere, and the networks know scores of noised points only.
Averaging over all noise levels gives a push at every distance: coarse at large t, fine at small t. A fake model of
noised data is the teacher once more: the difference is 0 wherever samples are, and nothing moves, as with "nobody's".
"""

import math


def score_implicit_loss(g, teacher, fake, z, t, eps, c=1.0):
    x = g(z)
    angle = t[:, None] * math.pi / 2
    alpha, sigma = angle.cos(), angle.sin()
    x_t = alpha * x + sigma * eps  # keeps its graph
    eps_phi, eps_psi = fake(x_t, t), teacher(x_t, t)
    y = (eps_psi - eps_phi) / sigma  # s_phi - s_psi, as s = -eps/sigma
    u = y / (y.square().sum(1, keepdim=True) + c**2).sqrt()
    D_phi = (x_t - sigma * eps_phi) / alpha
    return -(u * (D_phi - x)).sum(1).mean()


def reverse_kl(k, K):
    return math.log(K / k)
