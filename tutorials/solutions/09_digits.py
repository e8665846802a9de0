"""Solutions of lesson 09.

4. With n = 100 the floor alone is about 5, with n = 1000 about 0.7. Above their floors the two are about 2 and 3: the
first model is the better one, as far as one can tell, though its distance is twice as large. One would ask for n, for
the floor at that n, for the spread of both over draws, and for the same n for both models: the excess itself is not
quite free of n.
"""

import torch


def distance_of_features(a, b):
    mean = (a.mean(0) - b.mean(0)).square().sum()
    C_a, C_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(C_a @ C_b).real.clamp(min=0).sqrt().sum()
    return mean + C_a.trace() + C_b.trace() - 2 * root


def unseen_flaw(images):
    return 0.6 * (images + 1) - 1  # paler ink


def pays_from(passes, teacher_nfe, student_nfe):
    return passes / (teacher_nfe - student_nfe)
