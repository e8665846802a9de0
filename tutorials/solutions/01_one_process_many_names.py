"""Solutions of lesson 01.

3. (a) The weight is 1/(1 - t)^2: 25 at t = 0.8, 1.5625 at t = 0.2, so 16 times.
(b) The loss: a network that is not perfect spends its effort where its loss puts weight, and the two losses weight the
noise levels differently. The grid: ten uniform steps in t are ten different sets of noise levels on the two schedules.
(With the same denoiser and the same levels the two samplers are the same, up to a factor of the state.)
(c) p_theta(x_{k-1} | x_k) is one Gaussian; the true reverse step, a mean of q(x_{k-1} | x_k, x_0) over all x_0 that
may lie behind x_k, is a mixture. It is nearly Gaussian only if the step is small.
"""


def solve_v(x, v, alpha, sigma):
    det = alpha**2 + sigma**2  # of x = alpha x_0 + sigma eps, v = -sigma x_0 + alpha eps
    return (alpha * x - sigma * v) / det, (sigma * x + alpha * v) / det


def eps_of_deck(x, v_deck, t):
    return x - (1 - t) * v_deck  # x_0 = v_deck + eps
