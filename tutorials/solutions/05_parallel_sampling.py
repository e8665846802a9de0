"""Solutions of lesson 05.

3. (a) G_i is evaluated at the new points, one after the other: it would need a call of the network at each, which is
the sequential walk. A G helps where it is cheap.
(b) A tolerance bounds the change in a sweep, not the error: where the model multiplies errors, a point that hardly
moved can still be far off. And a method may settle at a path that is not the sequential walk, such as that of a sum
which is one move short: the staircase, not the change, tells.
(c) A block is then one step, which the coarse solver takes as the fine one does: the first guess, T rounds of coarse
steps one after the other, is the sequential walk already, and there is nothing left to correct.
"""


def gaussian_guess(alpha, sigma, c):
    x0, eps = (level / (alpha**2 * c**2 + sigma**2) for level in (alpha * c**2, sigma))  # the predictions, over x
    factor = alpha[1:] * x0[:-1] + sigma[1:] * eps[:-1]  # a DDIM step multiplies by it
    return lambda path: lambda i, y: factor[i] * y


def losing_p(T, rounds, nfe):
    return (T - rounds) / (nfe - rounds)
