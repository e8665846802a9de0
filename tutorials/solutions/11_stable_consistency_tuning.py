"""Solutions of lesson 11.

3. In diffusion training the target is x_0 itself, whatever the network says. Its noise is a constant in the loss, and
the average over many updates finds the mean. In consistency training the target at t is the network's value at r, and
the network at t is what the next time sees: an error made at one gap is copied to all times above it. Moreover the gap
is small: f(x_t) and f(x_r) differ by O(h), one draw's noise is O(h) too, and there are 1/h gaps to cross. So what is
learnt at each gap is as small as its noise, and has to be right everywhere below before it is of use above.

4. Distillation, in all but name. The softmax over a whole data set is the ideal denoiser of that data set, a function
of (x_t, t) without any randomness: a teacher without a network, and x_r is its DDIM step. CT (one source) and CD (a
teacher) are the two ends, n = 1 and n = all, and SCT lies between them. The teacher is that of the training set: with
enough gaps a perfect student would return training points, as a diffusion model trained to the end would.
"""

import torch


def labelled_neighbour(x_t, t, r, label, references, labels):
    log_w = -((x_t - references.T) ** 2) / (2 * t**2)
    w = torch.softmax(log_w.masked_fill(labels != label[:, None], -torch.inf), 1)
    x0_mean = w @ references
    return x_t + (r - t) * (x_t - x0_mean) / t


def weights_with_the_source_twice(w):
    twice = w.clone()
    twice[:, 0] = 2 * w[:, 0]
    return twice / twice.sum(1, keepdim=True)
