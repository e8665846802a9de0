"""Solutions of lesson 12.

3. An LCM was trained on guided steps: w is in its weights or given as an input, and its one answer is already pushed
away from the unguided one. Guiding it by 7 multiplies: with 7 inside it is like 49 for the teacher. Samples leave the
region where any network was trained. So an LCM gets g = 1 (or up to 2, if little guidance is inside), and the number
that the teacher needs goes into its input for g.

4. With one phase an interval every jump ends at the next grid point, r = edge always, and the target is the teacher's
own step: nothing is bootstrapped. The student is the teacher as a DDIM sampler of N steps. M = 1 is a consistency
model; M trades steps against how far each jump has to reach.
"""

import math


def inverse_ddim(x, t, x_s, s):
    angle, angle_s = t[:, None] * math.pi / 2, s[:, None] * math.pi / 2
    ratio = angle_s.sin() / angle.sin()
    return (x_s - ratio * x) / (angle_s.cos() - ratio * angle.cos())


def missed_edges(N, M):
    return sum((N * m) % M != 0 for m in range(1, M))
