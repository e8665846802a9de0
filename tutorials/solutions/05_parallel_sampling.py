"""Solutions of lesson 05.

3. (a) After T: one point a sweep, and no help from anywhere else. The deck's bound is attained.
(b) A tolerance bounds the change in a sweep, not the error: where the model multiplies errors, a point that hardly
moved can still be far off. And a method may settle at a path that is not the sequential walk, such as that of a sum
which is one move short: the staircase, not the change, tells.
"""


def scaled_picard(size):
    return lambda path: lambda i, y: size[i + 1] / size[i] * y


def losing_p(T, rounds, nfe):
    return (T - rounds) / (nfe - rounds)
