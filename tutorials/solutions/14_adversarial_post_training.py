"""Solutions of lesson 14.

2. TV is the share, so the loss is 2 (1 - share): the discriminator notices, and says +1 on the missing mode. The
student does not feel it: its gradient is D's slope *at its samples*, and far from the mode D is flat. Noise helps,
where it makes the modes overlap; pairs help (DMD's regression); a distillation before the stage helps most.

3. (a) The fake model's answer, the score of the samples, is a gradient by itself: the better it is, the better the
push. A discriminator's answer is turned into a push by its slope, and the best one is a step, with none. What is wanted
is one that is a little ahead of the student: few updates, noise, a penalty on the slope. (b) D learns to tell noised
from clean, at every u the easiest difference there is. The student can lessen it only by samples that look clean after
noise was added: it shrinks their spread, and where the two agree, it is not the data's.
"""

import torch


def r1_penalty(D, x_u, u, gamma):
    x_u = x_u.detach().requires_grad_()
    [slope] = torch.autograd.grad(D(x_u, u).sum(), x_u, create_graph=True)
    return gamma / 2 * slope.square().sum(1).mean()


def loss_of_a_dropped_mode(share):
    return 2 * (1 - share)
