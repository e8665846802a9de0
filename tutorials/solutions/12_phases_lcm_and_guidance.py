"""Solutions of lesson 12.

3. The scales multiply: 7.5 * 7.5, about 56. Samples leave the region where any network was trained, and few steps
cannot lead back. An input of 1 does not help: that number was never trained, and even a student that knew it would be
guided in its ends, which is not the end of a guided path (section 5: four long jumps go too far). One call a step, and
the 7.5 goes into the input.

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
