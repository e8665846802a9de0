"""Solvers that were learned for one model: their times and coefficients are numbers in a file.

Learned for a model, a number of steps N, a schedule and a guidance scale g (bespoke non-stationary solvers, arXiv
2403.01329; S4S, arXiv 2502.17423), so that N calls end where the model's exact flow ends. In units w = x/S and F of the
angle (`Angle`), step i is the default's step, and a learned change of it in all that the walk knows by then:

    1. w' = Guarded step from w_i at t_i to t_(i+1)                      the times are learned too
    2. w_(i+1) = w' + a_i w_i + sum_(j <= i) b_ij F_j                    non-stationary: each step has its own numbers

With a = b = 0 and the default's times it is the default. `LearnedTimes` learns the times alone, for any solver, as GITS
(arXiv 2405.06004) and Align Your Steps (arXiv 2404.14507) do: so one sees what each of the two contributes.
`learning.learn_solver` makes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import combine, schedule_config
from ..support.checks import check_grid
from ..support.forms import check_form, count, number, word
from ..support.sealed import VERSION, contradicts, read_index, write_index
from .adams import Angle
from .base import Solver
from .guarded import Guarded

FORMAT = "toydiff-solver"
WHAT = "file of a learned solver"

ABOUT = {
    "solver": word,
    "steps": count(1, 1000),
    "ts": [number],
    "schedule": {},
    "data_std": number,
    "guidance_scale": number,
    "learned_on": word,
    "measured": {"median": [number], "rms": [number], "samples": count(1)},
}
"""The form of a file."""


@dataclass(frozen=True)
class Learned(Guarded):
    """The default with learned times and a learned change of each step.

    times: (N + 1,), decreasing from 1 to 0; scale: a, N numbers; past: b, row i has i + 1 numbers; about: what its file
    says of it, which `check_for` compares with a model.
    """

    times: tuple[float, ...] = (1.0, 0.0)
    scale: tuple[float, ...] = (0.0,)
    past: tuple[tuple[float, ...], ...] = ((0.0,),)
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def memory(self) -> int:
        return len(self.scale)

    def advance(
        self, angle: Angle, base: Prediction, s: Tensor, values: Sequence[Prediction], older: Sequence[Prediction]
    ) -> Tensor:
        x_s = super().advance(angle, base, s, values, older)  # 1
        i, S_s = len(older), angle.size(s)
        terms = [(1.0, x_s), (self.scale[i] * S_s / angle.size(base.t), base.x)]
        for b, p in zip(reversed(self.past[i]), [base, *older], strict=True):  # 2
            terms += angle.F(p, b * S_s)
        return combine(*terms)


@dataclass(frozen=True)
class LearnedTimes(Solver):
    """Any solver of the registry on learned times, (N + 1,)."""

    solver: Solver
    times: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def nfe_per_step(self) -> int:
        return self.solver.nfe_per_step

    @property
    def memory(self) -> int:
        return self.solver.memory

    @property
    def stochastic(self) -> bool:
        return self.solver.stochastic

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        return self.solver.step(D, x, t, s, past, noise)


def check_for(solver: Learned | LearnedTimes, D: Denoiser, guidance_scale: Tensor | float) -> None:
    """`ValueError` where a solver was learned for another model, schedule, scale of the data or guidance scale."""
    about = solver.about
    if not about:
        return
    name = about["learned_on"]
    if about["schedule"] != schedule_config(D.schedule):
        raise ValueError(
            f"this solver was learned for {name} on the schedule {about['schedule']}, not on {D.schedule!r}"
        )
    if contradicts(about.get("content"), D.content()):
        raise ValueError(f"this solver was learned for another model ({name}): learn one for this model")
    if abs(about["data_std"] - D.data_std) > 1e-6 * D.data_std:
        raise ValueError(f"this solver was learned for data_std = {about['data_std']:g}, the model's is {D.data_std:g}")
    scale = torch.as_tensor(guidance_scale, dtype=torch.float64)
    if bool((scale - about["guidance_scale"]).abs().max() > 1e-6):
        raise ValueError(
            f"this solver was learned for guidance scale {about['guidance_scale']:g}, and {float(scale.max()):g} is "
            "given: learn one for it"
        )


def write_solver(path: Path | str, solver: Learned | LearnedTimes) -> None:
    """Write a learned solver to a file of JSON, whole or not at all."""
    numbers: dict[str, Any] = {"ts": list(solver.times)}
    if isinstance(solver, Learned):
        numbers |= {"scale": list(solver.scale), "past": [list(row) for row in solver.past]}
    write_index(path, {"format": FORMAT, "version": VERSION, **numbers, **solver.about})


def read_solver(path: Path | str, by_name: Mapping[str, Solver]) -> Learned | LearnedTimes:
    """The solver of a file. by_name: the solvers that it may be a change of. `ValueError` in one line for a file that
    is none, was altered, or holds no times and coefficients of a solver."""
    about = read_index(path, FORMAT, WHAT, list(ABOUT))
    what = f"the {WHAT} {str(path)!r}"
    check_form(about, ABOUT, what)
    N, times = about["steps"], tuple(map(float, about["ts"]))
    if len(times) != N + 1 or (times[0], times[-1]) != (1.0, 0.0):
        raise ValueError(f"{what} has {len(times)} times, and {N} steps need {N + 1}, from 1 to 0")
    try:
        check_grid(torch.tensor(times, dtype=torch.float64))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    rest = {key: value for key, value in about.items() if key not in ("format", "version", "ts", "scale", "past")}
    if "past" not in about:
        solver = by_name.get(about["solver"])
        if solver is None or solver.stochastic:
            raise ValueError(f"{what} has learned times of {about['solver']!r}, which is no deterministic solver here")
        return LearnedTimes(solver, times, rest)
    check_form(about, {"scale": [number], "past": [[number]]}, what)
    scale, past = tuple(map(float, about["scale"])), tuple(tuple(map(float, row)) for row in about["past"])
    if len(scale) != N or [len(row) for row in past] != list(range(1, N + 1)):
        raise ValueError(f"{what} has coefficients for another number of steps than its {N}")
    return Learned(times=times, scale=scale, past=past, about=rest)
