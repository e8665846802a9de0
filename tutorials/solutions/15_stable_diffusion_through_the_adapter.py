"""Solutions of lesson 15.

2. With 25 steps at 961, t = 0.962: there the table's alpha is not 0, so x_t holds some of the image, and the model was
trained to find it there. Pure noise has none: the brightness that the model reads in it is accidental, and images come
out at middling brightness. With 4 steps it is 751, and worse.

3. (a) Two calls a step but for the last, which is a jump, and each with and without the prompt: 2 (2 * 20 - 1) = 78.
(b) 2 * 64 * 1280 of 1280^2: 0.1. (c) A sampler is arithmetic on the network's answers; any network that depends on x,
the timestep and the prompt shows a mistake in a coefficient, and this one is no milder than a trained one. It proves
nothing of images: not that a trained UNet is good between timesteps, nor that a student of one is any good.
"""

import math

import numpy as np


def timestep_of(lam, alphas_bar):
    log_alpha = -0.5 * math.log1p(math.exp(-2 * lam))  # alpha^2 = sigmoid(2 lambda)
    table = 0.5 * np.log(np.asarray(alphas_bar, dtype=float))
    return float(np.interp(-log_alpha, -table, np.arange(len(table))))


def first_timestep(N, offset=1):
    return (N - 1) * (1000 // N) + offset
