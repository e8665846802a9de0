"""Solutions of lesson 07.

3. (a) A network sees (x, t). Two paths that pass one place at different times are told apart by t; only a meeting at
the same place and the same time is ambiguous. In the figure time is not drawn.
(b) No. The data of each round are the samples of the one before, so at best their distribution stays what it was, and
each round's own errors come on top. What reflow changes is how few steps give these samples. Section 5's five short
rounds show it: each ends farther from the exact flow.
"""


def perfect_velocity(x, t, m, c):
    eps = (x - (1 - t) * m) / ((1 - t) * c + t)  # x = (1 - t)(m + c eps) + t eps
    return eps - (m + c * eps)


def meeting_time(c):
    return c / (1 + c)  # x_t = (t - (1 - t) c) eps
