"""A sampler down to the details of diffusers' schedulers: which timesteps, where it ends, how the noise is scaled.

The library's grids are times, and a model is asked at fractions of a timestep. A grid named as a scheduler's
`timestep_spacing` is that scheduler's instead, for who wants the same images from the same seed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..prediction import Prediction
from ..schedules import Tabulated, expand
from ..solvers.base import Solver
from ..solvers.lcm import LCM
from ..solvers.registry import SOLVERS, solver_by_name
from .checkpoint import StableDiffusion, table_of
from .reading import one_line, quietly

SPACINGS = ("trailing", "leading", "linspace", "lcm")
"""`timestep_spacing` of diffusers' schedulers, and the choice that LCM's makes."""
COMPARABLE = (
    "DDIMScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
)
"""The schedulers that a solver can be compared with."""
PLAIN = {
    "thresholding": False, "clip_sample": False, "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero",
    "disable_corrector": [], "predict_x0": True, "lower_order_final": True, "euler_at_final": False, "use_karras_sigmas": False, "use_exponential_sigmas": False,
    "use_beta_sigmas": False, "use_lu_lambdas": False, "use_flow_sigmas": False,
}  # fmt: skip
"""Settings of schedulers with which they are the algorithms that the papers print, and the solvers here."""
BOUNDARY = 10.0, 0.5
"""LCM's scaling of timesteps, and its sigma_data."""


@dataclass(frozen=True)
class LCMScheduler(LCM):
    """Consistency sampling with LCM's boundary condition: x_0 = c_skip x + c_out x_0', c_skip = s^2/(k'^2 + s^2), c_out
    = k'/sqrt(k'^2 + s^2) (arXiv 2310.04378, sec. 3).

    k' = 10 k of the timestep k = K t - 1, s = 1/2: 7e-6 and 1 already at k = 19. A jump to t = 0 needs no such
    condition; the difference is seen in large latents alone.
    """

    timesteps: int = 1000

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        scaling, width = BOUNDARY
        k = scaling * (self.timesteps * t - 1).clamp(min=0)
        c_skip, c_out = width**2 / (k**2 + width**2), k / torch.sqrt(k**2 + width**2)
        p = Prediction.of("x0", expand(c_skip, x) * x + expand(c_out, x) * p.x0, x, t, D.schedule)
        return self.renoise(p, s, D.schedule, noise), p


@dataclass(frozen=True)
class AsScheduled:
    """How a scheduler samples: the model as it sees it, the solver, its times (steps + 1,), and by what standard
    normal noise is multiplied for a start."""

    denoiser: Denoiser
    solver: Solver
    ts: Tensor
    noise_scale: float


def like_scheduler(
    checkpoint: StableDiffusion, D: LambdaDenoiser, solver: str, steps: int, spacing: str
) -> AsScheduled:
    """What diffusers' scheduler of a solver does at a `timestep_spacing` ("lcm": LCM's own choice), with the rest of
    the checkpoint's scheduler configuration.

    The scheduler itself gives its timesteps, its levels, its table and the scale of its noise. So DDIM's ends at the
    table's first level, not at 0, if the configuration says set_alpha_to_one = false; Heun's starts from sigma times
    the noise, not from noise, at "trailing" and "linspace"; schedulers that work in NSR put 2^-24 in the place of a
    table's last 0, and Heun's knows no zero terminal SNR; LCM's has a boundary condition. `ValueError` where a
    scheduler's walk is none over a grid, or where a solver has no scheduler.
    """
    import diffusers

    if not isinstance(D.schedule, Tabulated):
        raise ValueError(
            f"the spacing {spacing!r} is of a table's timesteps, and this model is on {D.schedule!r}; take one of the library's own grids"
        )
    entry = SOLVERS[solver.partition(":")[0]]
    name = re.split(r"[ ,]", entry.elsewhere.get("diffusers", ""))[0]
    if name not in COMPARABLE:
        raise ValueError(
            f"the spacing {spacing!r} is that of a scheduler of diffusers, and none is known that does what {entry.name} does; take one of the library's own grids"
        )
    if (name == "LCMScheduler") != (spacing == "lcm"):
        raise ValueError(
            f"the spacing of {name} is {'lcm' if name == 'LCMScheduler' else ', '.join(SPACINGS[:-1])}, not {spacing}"
        )
    config = dict(checkpoint.pipe.scheduler.config) | ({} if spacing == "lcm" else {"timestep_spacing": spacing})
    with quietly():
        scheduler = getattr(diffusers, name).from_config(config)
        try:
            scheduler.set_timesteps(steps)
        except ValueError as error:
            raise ValueError(f"{name} cannot make {steps} steps: {one_line(error)}") from None
    for key, plain in PLAIN.items():
        asked = scheduler.config.get(key, plain)
        if asked != plain and not (key == "solver_type" and asked == "bh2"):
            raise ValueError(
                f"the checkpoint's scheduler configuration asks {name} for {key} = {asked!r}, which {entry.name} does not do; take one of the library's own grids"
            )
    table, K = table_of(scheduler), checkpoint.timesteps
    k = torch.unique_consecutive(scheduler.timesteps.double())
    made, noise_scale = solver_by_name(solver), 1.0
    if hasattr(scheduler, "sigmas"):
        ts = table.t_of_lam(-torch.log(torch.unique_consecutive(scheduler.sigmas.double())))
        if name.startswith(("Heun", "Euler")):  # it walks in z = x/alpha
            noise_scale = float(scheduler.init_noise_sigma * table.alpha(ts[0]))
    else:
        end = 0.0 if name == "LCMScheduler" or getattr(scheduler, "final_alpha_cumprod", 1.0) == 1 else 1 / K
        ts = torch.cat([(k + 1) / K, torch.tensor([end], dtype=torch.float64)])
        if ts[-1] == ts[-2]:
            ts = ts[:-1]  # it ends where it stands, by a step of no length
        if name == "DDIMScheduler" and not bool((-k.diff() == K // steps).all()):
            raise ValueError(
                f"diffusers' DDIM goes down by {K // steps} timesteps a step whatever its timesteps are, and at {spacing!r} those of {steps} steps are others: "
                "no walk over a grid does that; take leading, or trailing with a number of steps that divides the table"
            )
    if len(k) < steps:
        raise ValueError(f"{name} has {len(k)} different timesteps here, and cannot make {steps} steps")
    if len(ts) < 2:
        raise ValueError(
            f"with {steps} step(s), {name} at {spacing!r} begins where it ends, and makes nothing; take more steps, or trailing"
        )
    D.net.table, D.net.rounded = table, bool((k == k.round()).all())
    made = LCMScheduler(timesteps=K) if isinstance(made, LCM) else made
    return AsScheduled(LambdaDenoiser(D.net, table, D.kind), made, ts, noise_scale)
