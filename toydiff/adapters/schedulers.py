"""A sampler that agrees with diffusers' schedulers in all details: which timesteps, where it ends, how the noise is
scaled.

The library's own grids are times, and a model is evaluated at fractions of a timestep. A grid that is named as a
scheduler's `timestep_spacing` gives that scheduler's timesteps, and so the same images from the same seed.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..prediction import Prediction, jump
from ..schedules import Linear, Tabulated, expand
from ..solvers.base import Solver
from ..solvers.ddim import DDIM
from ..solvers.deis import DEIS
from ..solvers.lcm import LCM
from ..solvers.plms import PLMS
from ..solvers.registry import solver_by_name
from ..solvers.tcd import TCD
from .checkpoint import StableDiffusion, table_of
from .names import COMPARABLE
from .network import network_of
from .quiet import one_line, quietly

SHIFTED = "shifted"
SPACINGS = ("trailing", "leading", "linspace", "lcm", SHIFTED)
"""Each `timestep_spacing` of diffusers' schedulers; "lcm" for the timesteps that those of LCM and TCD choose; and
"shifted" for those of a flow's own scheduler (`shifted_times`)."""
OF_LCM = ("LCMScheduler", "TCDScheduler")
"""The schedulers with the spacing "lcm"."""
PLAIN: dict[str, Any] = {
    "thresholding": False,
    "clip_sample": False,
    "algorithm_type": ("dpmsolver++", "deis"),
    "solver_order": 2,
    "solver_type": ("midpoint", "bh2", "logrho"),
    "skip_prk_steps": True,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
    "disable_corrector": [],
    "predict_x0": True,
    "lower_order_final": True,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
}
"""With these settings, or one of a tuple, a scheduler is the algorithm that its paper prints, and the solver here."""
SIGMA_DATA = 0.5
"""The sigma_data of LCM's boundary condition."""


@dataclass(frozen=True)
class LCMScheduler(LCM):
    """Consistency sampling with LCM's boundary condition (arXiv 2310.04378, sec. 3).

    x_0 = c_skip x + c_out x_0' of the model's x_0', with c_skip = s^2/(k'^2 + s^2) and c_out = k'/sqrt(k'^2 + s^2). k'
    is `scaling` times the timestep k = K t - 1, and s = 1/2. At k = 19 already, c_skip is 7e-6 and c_out is 1 to within
    1e-5, so the condition changes large latents only. This library's jump to t = 0 needs none.
    """

    timesteps: int = 1000
    """K."""
    scaling: float = 10.0
    """k'/k."""

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        p = D(x, t)
        k = self.scaling * (self.timesteps * t - 1).clamp(min=0)
        c_skip, c_out = SIGMA_DATA**2 / (k**2 + SIGMA_DATA**2), k / torch.sqrt(k**2 + SIGMA_DATA**2)
        p = Prediction.of("x0", expand(c_skip, x) * x + expand(c_out, x) * p.x0, x, t, D.schedule)
        assert noise is not None  # a stochastic solver is always given noise
        return self.renoise(p, s, D.schedule, noise), p


@dataclass(frozen=True)
class TCDScheduler(TCD):
    """TCD whose jumps end at whole timesteps: k = K t - 1 is rounded down."""

    timesteps: int = 1000
    """K."""

    def beyond(self, s: Tensor) -> Tensor:
        k = (self.timesteps * s - 1).round().float()
        return ((torch.floor((1 - self.eta) * k) + 1) / self.timesteps).to(s)


@dataclass(frozen=True)
class DEISScheduler(DEIS):
    """DEIS whose last step is a jump, as diffusers' is below 15 steps (lower_order_final)."""

    last: float = 0.0
    """Steps to a time at or below this one are jumps."""

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        return jump(p, s) if float(s) <= self.last else super().advance(D, p, s, past, noise)


@dataclass(frozen=True)
class AsScheduled:
    """How a scheduler samples."""

    denoiser: LambdaDenoiser
    """The model on the scheduler's own table."""
    solver: Solver
    ts: Tensor
    """The times, (steps + 1,)."""
    noise_scale: float
    """The start is standard normal noise times this."""


def sampler_of(checkpoint: StableDiffusion) -> dict[str, str]:
    """The solver and the grid, by name, that do what the checkpoint's own scheduler does; `ValueError` where none is
    known."""
    name = type(checkpoint.pipe.scheduler).__name__
    if name not in COMPARABLE:
        raise ValueError(f"no solver here is known to do what {name} does; known are {', '.join(COMPARABLE)}")
    solver = COMPARABLE[name]
    return {"solver": solver, "grid": "lcm" if name in OF_LCM else checkpoint.pipe.scheduler.config.timestep_spacing}


def like_scheduler(
    checkpoint: StableDiffusion, D: LambdaDenoiser, solver: str, steps: int, spacing: str
) -> AsScheduled:
    """How diffusers' scheduler of a solver samples with a spacing, one of `SPACINGS`.

    Where several schedulers do what the solver does (`COMPARABLE`), it is the checkpoint's own, and else the first. The
    rest of its configuration is that of the checkpoint's scheduler. Timesteps, levels, table and scale of the noise
    are read from the scheduler itself. So its peculiarities are kept:

    - DDIM's ends at the table's first level, not at 0, where the configuration says set_alpha_to_one = false.
    - Those of Euler and Heun start from sigma times the noise, not from the noise, at "trailing" and "linspace".
    - A scheduler that works in NSR replaces a last 0 of the table by 2^-24. Heun's has no zero terminal SNR.
    - LCM's has a boundary condition. TCD's jumps to whole timesteps, and ends at the table's first level.
    - PNDM's averages what the network predicts, and one step is a jump. Below 15 steps the last one of DEIS is a jump.

    D: the model, a student or the checkpoint's own, on a table. `ValueError` where a solver has no scheduler, where the
    configuration has a setting that this scheduler follows and the solver here lacks, or where the scheduler does not
    walk over a grid.
    """
    import diffusers

    if not isinstance(D.schedule, Tabulated):
        raise ValueError(
            f"the spacing {spacing!r} is of a table's timesteps, and this model is on {D.schedule!r}; "
            "take one of the library's own grids"
        )
    made, noise_scale = solver_by_name(solver), 1.0
    assert isinstance(made, Solver)  # `SOLVERS` holds no parallel ones
    word = solver.partition(":")[0]
    names = [name for name, ours in COMPARABLE.items() if ours == word]
    if not names:
        raise ValueError(
            f"the spacing {spacing!r} is that of a scheduler of diffusers, and none is known that does what "
            f"{word} does; take one of the library's own grids"
        )
    own_name = type(checkpoint.pipe.scheduler).__name__
    # Euler's has no eta
    name = names[0] if own_name not in names or (own_name == "EulerDiscreteScheduler" and made.stochastic) else own_name
    if (name in OF_LCM) != (spacing == "lcm"):
        raise ValueError(
            f"the spacing of {name} is {'lcm' if name in OF_LCM else ', '.join(SPACINGS[:3])}, not {spacing}"
        )
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    kind = getattr(diffusers, name)
    with quietly():
        try:
            # a configuration's own values are dropped where they are its class's defaults: ours go beside it
            scheduler = kind.from_config(checkpoint.pipe.scheduler.config, **own)
            scheduler.set_timesteps(steps)
        except Exception as error:  # of several kinds: the settings contradict one another, or need another package
            raise ValueError(f"{name} cannot make {steps} steps: {one_line(error)}") from None
    known = inspect.signature(kind.__init__).parameters  # a configuration also keeps the settings of other classes
    for key, plain in PLAIN.items():
        if key not in known:
            continue
        value = scheduler.config[key]
        allowed = plain if isinstance(plain, tuple) else (plain,)
        if value not in allowed and (value or plain):
            raise ValueError(
                f"the checkpoint's scheduler configuration asks {name} for {key} = {value!r}, "
                f"which {word} does not do; take one of the library's own grids"
            )
    table, K = table_of(scheduler), checkpoint.timesteps
    k = torch.unique_consecutive(scheduler.timesteps.double())
    if hasattr(scheduler, "sigmas"):
        ts = table.t_of_lam(-torch.log(torch.unique_consecutive(scheduler.sigmas.double())))
        if name.startswith(("Heun", "Euler")):  # it walks in z = x/alpha
            noise_scale = float(scheduler.init_noise_sigma * table.alpha(ts[0]))
    else:
        to_data = name == "LCMScheduler" or getattr(scheduler, "final_alpha_cumprod", 1.0) == 1
        end = 0.0 if to_data and name != "TCDScheduler" else 1 / K
        ts = torch.cat([(k + 1) / K, torch.tensor([end], dtype=torch.float64)])
        if ts[-1] == ts[-2]:
            ts = ts[:-1]  # it ends where it stands, by a step of no length
        if name in ("DDIMScheduler", "PNDMScheduler") and not bool((-k.diff() == K // steps).all()):
            raise ValueError(
                f"diffusers' {name.removesuffix('Scheduler')} goes down by {K // steps} timesteps a step whatever its "
                f"timesteps are, and at {spacing!r} those of {steps} steps are others: no walk over a grid does that; "
                "take leading, or trailing with a number of steps that divides the table"
            )
    if len(k) < steps:
        raise ValueError(f"{name} has {len(k)} different timesteps here, and cannot make {steps} steps")
    if len(ts) < 2:
        raise ValueError(
            f"with {steps} step(s), {name} at {spacing!r} begins where it ends, and makes nothing; "
            "take more steps, or trailing"
        )
    net = network_of(D)
    net.table, net.rounded = table, bool((k == k.round()).all())
    if isinstance(made, LCM):
        made = LCMScheduler(timesteps=K, scaling=scheduler.config.timestep_scaling)
    elif isinstance(made, TCD):
        made = TCDScheduler(made.eta, timesteps=K)
    elif isinstance(made, DEIS) and steps < 15:
        made = DEISScheduler(made.q, last=float(ts[-2:].mean()))
    elif isinstance(made, PLMS):
        made = DDIM() if steps == 1 else PLMS(D.kind)
    return AsScheduled(LambdaDenoiser(net, table, D.kind), made, ts, noise_scale)


def shifted_times(
    checkpoint: StableDiffusion, D: LambdaDenoiser, solver: str, steps: int, latent: tuple[int, ...]
) -> Tensor:
    """The times (steps + 1,) of a flow's own scheduler, FlowMatchEulerDiscreteScheduler, for a latent (C, h, w): its
    sigmas, with 0 at the end. It is the grid of any solver; ddim's steps on it are those of the scheduler.

    With its setting `shift` m, an even sigma becomes m sigma / (1 + (m - 1) sigma), or, with use_dynamic_shifting, that
    for m = exp(mu), where mu goes by the size of the image (`Family.steps`). `ValueError` where the model or the
    checkpoint is no flow, or where the scheduler does something else than Euler's steps towards data.
    """
    import diffusers

    theirs = checkpoint.pipe.scheduler
    if not isinstance(D.schedule, Linear):
        raise ValueError(
            f"the spacing {SHIFTED!r} is of a flow, and this model is on {D.schedule!r}; take another grid"
        )
    if not type(theirs).__name__.startswith("FlowMatch"):
        raise ValueError(
            f"the spacing {SHIFTED!r} is that of FlowMatchEulerDiscreteScheduler, and the checkpoint has "
            f"{type(theirs).__name__}; take one of the library's own grids"
        )
    with quietly():
        try:
            scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(theirs.config)
            scheduler.set_timesteps(**checkpoint.family.steps(checkpoint.pipe, steps, latent))
        except Exception as error:  # of several kinds: the settings contradict one another, or need another package
            raise ValueError(f"{type(theirs).__name__} cannot make {steps} steps: {one_line(error)}") from None
    word = solver.partition(":")[0]
    for key, wrong in (("invert_sigmas", True), ("stochastic_sampling", word == "ddim")):
        if wrong and scheduler.config[key]:
            raise ValueError(
                f"the checkpoint's scheduler configuration asks for {key} = {scheduler.config[key]!r}, "
                f"which {word} does not do; take one of the library's own grids"
            )
    return scheduler.sigmas.double()
