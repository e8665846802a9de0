"""Solutions of lesson 08.

3. (a) On VE x = x_0 + sigma eps, with x_0 and eps fixed along a path: straight against sigma, and bent against t, since
sigma is no affine function of t. "Straight" is a property of how time is counted, "first order" is not.
(b) alpha goes from 1 to 0 and sigma from 0 to 1, each linear in t: x_t = (1 - t) x_0 + t eps. It is reflow on the
linear schedule (with pairs made while training; at t = 1 a noised sample is noise).
"""


def rectified_eps(x, alpha, sigma, m, c):
    return (x - alpha * m) / (alpha * c + sigma)  # x = alpha (m + c eps) + sigma eps


def allowed_error(off, nsr):
    return off / nsr  # x_0 = x/alpha - NSR eps
