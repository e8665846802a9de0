"""Solutions of lesson 16.

3. The mismatch is half the sum of squares of the increments of kappa, which sum to 1. By Cauchy and Schwarz it is least
where all are equal: 1/(2N), the linear scheduler on equal steps. Any other scheduler with the same values of kappa is
the same sampler; only the values count. Strings are another matter. Where the first tokens decide the rest, positions
that are revealed together early on are nearly independent of what they would have seen, or not, depending on the data:
the cosine scheduler reveals few tokens at first, when each says most of the others, and many at the end, when little is
left to agree on.
"""

import itertools


def mismatch_by(kappas, K):
    # both in one step, and then the second is right by luck alone, once in K
    return (1 - 1 / K) * sum((later - earlier) ** 2 for earlier, later in itertools.pairwise(kappas))


def mismatch_of_three(N):
    # the earliest step reveals all three with probability 1/N^2, of which 3/4 are not all equal; or exactly two, and
    # the third later, with 3 (N - 1)/(2 N^2), of which 1/2 differ
    return 3 / (4 * N)
