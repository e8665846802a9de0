"""Solutions of lesson 10.

3. (a) 1/h gaps of h^2 each: h, DDIM's global order.
(b) CT: the sample itself is the neighbour. With two independent noises x_t and x_r lie on different paths, and the best
answer is the mean of all ends, as with shuffled pairs in lesson 06.
"""

import math


def spread_of_ct(N):
    return math.cos(math.pi / (2 * N)) ** N  # its fixed point is that walk


def jump_to_itself(x, eps_hat, alpha, sigma):
    return alpha * (x - sigma * eps_hat) / alpha + sigma * eps_hat  # x, whatever eps_hat is
