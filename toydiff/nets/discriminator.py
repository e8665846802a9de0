"""A discriminator of noised samples: a small head on the features of a denoiser's network (arXiv 2403.12015; PCM's,
arXiv 2405.18407)."""

import copy
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..denoisers import Denoiser, Featured, LambdaDenoiser
from ..prediction import with_sigma_data
from ..schedules import Schedule

HIDDEN = 128


class Discriminator(nn.Module):
    """D(x, t, cond) -> (B,), positive for real. x (B, ...) at the time t (B,) of `schedule`; cond (B,) or None.

    The trunk is a denoiser's network, which sees what it sees in a denoiser of this kind. Its features, averaged over
    pixels, are read by a small network, the head.
    """

    def __init__(self, trunk: nn.Module, schedule: Schedule, kind: str = "eps"):
        super().__init__()
        self.denoiser = LambdaDenoiser(trunk, schedule, kind)
        self.head = nn.Sequential(
            nn.Linear(cast(Featured, trunk).feature_width, HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, 1),
        )

    @classmethod
    def on(cls, problem, teacher: Denoiser | None, schedule: Schedule) -> "Discriminator":
        """With a frozen copy of the teacher's network as the trunk. If the teacher has none, the trunk is a fresh
        network, which is trained with the head. schedule: that of the samples."""
        if isinstance(teacher, LambdaDenoiser):
            return cls(copy.deepcopy(teacher.net).requires_grad_(False), schedule, teacher.kind)
        return cls(problem.network(), schedule, with_sigma_data("eps", problem.sigma_data))

    @classmethod
    def shared(cls, denoiser: LambdaDenoiser) -> "Discriminator":
        """With a denoiser's own network as the trunk, which goes on being trained (DMD2)."""
        return cls(denoiser.net, denoiser.schedule, denoiser.kind)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.head(F.silu(self.denoiser.features(x, t, cond))).squeeze(1)
