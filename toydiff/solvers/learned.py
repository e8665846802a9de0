"""Solvers that were learned for one model: their times and coefficients are numbers in a file.

Such a solver is learned for one model, schedule, number of steps N and guidance scale, so that N steps end where the
exact flow ends (bespoke non-stationary solvers, arXiv 2403.01329; S4S, arXiv 2502.17423). Step i is the default's step,
at learned times, plus learned multiples of the state w_i and of each F_0 ... F_i (w = x/S and F: see `Angle`):

    1. w' = Guarded step from w_i at t_i to t_(i+1)                      the times are learned too
    2. w_(i+1) = w' + a_i w_i + sum_(j <= i) b_ij F_j                    non-stationary: each step has its own numbers

The second call corrects w_1 as in `Guarded`, with a_0 and b_00 again. With a = b = 0 and the default's times it is the
default. `LearnedTimes` learns the times alone, for any solver, as GITS
(arXiv 2405.06004) and Align Your Steps (arXiv 2404.14507) do: so one sees what each of the two contributes.
`learning.learn_solver` makes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction
from ..schedules import combine, schedule_config
from ..support.checks import check_grid, unknown
from ..support.forms import check_form, count, number, word
from ..support.sealed import VERSION, contradicts, read_index, write_index
from ..support.words import quoted
from .adams import Angle
from .base import Around, Solver
from .guarded import Guarded

FORMAT = "toydiff-solver"
WHAT = "file of a learned solver"

MOST_COEFFICIENT = 1e6


def coefficient(value: object) -> bool:
    """A number that states can be multiplied by."""
    return number(value) and abs(cast(float, value)) <= MOST_COEFFICIENT


def positive(value: object) -> bool:
    """A number > 0."""
    return coefficient(value) and cast(float, value) > 0


ABOUT = {
    "solver": word,
    "steps": count(1, 1000),
    "ts": [number],
    "schedule": {},
    "data_std": positive,
    "guidance_scale": number,
    "learned_on": word,
    "measured": {"median": [number], "rms": [number], "samples": count(1)},
}
"""The form of a file; `content`, the digest of the model's weights, may be missing."""


COEFFICIENTS = {"a": [coefficient], "b": [[coefficient]], "trust": positive, "slack": positive}
"""The form of what a file of `Learned` has beside; that of `LearnedTimes` has none of it."""


@dataclass(frozen=True)
class Learned(Guarded):
    """The default with learned times and a learned change of each step.

    times: (N + 1,), decreasing from 1 to 0; a: N numbers; b: row i has i + 1 numbers; about: what its file
    says of it, which `check_for` compares with a model.
    """

    times: tuple[float, ...] = (1.0, 0.0)
    a: tuple[float, ...] = (0.0,)
    b: tuple[tuple[float, ...], ...] = ((0.0,),)
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def memory(self) -> int:
        return len(self.a)

    def advance(
        self, angle: Angle, base: Prediction, s: Tensor, values: Sequence[Prediction], older: Sequence[Prediction]
    ) -> Tensor:
        x_s = super().advance(angle, base, s, values, older)  # 1
        i, S_s = len(older), angle.size(s)
        terms = [(1.0, x_s), (self.a[i] * S_s / angle.size(base.t), base.x)]
        for b_ij, p in zip(reversed(self.b[i]), [base, *older], strict=True):  # 2
            terms += angle.F(p, b_ij * S_s)
        return combine(*terms)


@dataclass(frozen=True)
class LearnedTimes(Around):
    """Any solver of the registry on learned times, (N + 1,)."""

    times: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def check_for(solver: Learned | LearnedTimes, D: Denoiser, guidance_scale: Tensor | float) -> None:
    """`ValueError` where a solver was learned for another model, schedule, scale of the data or guidance scale."""
    about = solver.about
    if not about:
        return
    name = about["learned_on"]
    if not _same(about["schedule"], schedule_config(D.schedule)):
        own_schedule = quoted(str(about["schedule"]))
        raise ValueError(f"this solver was learned for {name} on the schedule {own_schedule}, not on {D.schedule!r}")
    if contradicts(about.get("content"), D.content()):
        raise ValueError(f"this solver was learned for another model ({name}): learn one for this model")
    if abs(about["data_std"] - D.data_std) > 1e-6 * D.data_std:
        raise ValueError(f"this solver was learned for data_std = {about['data_std']:g}, the model's is {D.data_std:g}")
    given, own = torch.as_tensor(in_force(D, guidance_scale), dtype=torch.float64), about["guidance_scale"]
    others = given[(given - own).abs() > 1e-6]
    if others.numel():
        raise ValueError(
            f"this solver was learned for guidance scale {own:g}, and {float(others.flatten()[0]):g} is given: "
            "learn one for it"
        )


def in_force(D: Denoiser, guidance_scale: Tensor | float) -> Tensor | float:
    """The guidance scale of a walk: the one that is bound in the denoiser (`Guided`), or else the one given."""
    return guidance_scale if D.guided_by == 1 else D.guided_by


def _same(one: Mapping, other: Mapping) -> bool:
    """Whether two schedules as JSON are the same; the levels of tables up to rounding."""
    tables = [config.get("alphas_bar") for config in (one, other)]
    if not all(isinstance(table, list) for table in tables):
        return one == other
    mine, its = (torch.tensor(table, dtype=torch.float64) for table in tables)
    return len(mine) == len(its) and torch.allclose(mine, its, rtol=1e-9, atol=0.0)


def write_solver(path: Path | str, solver: Learned | LearnedTimes) -> None:
    """Write a learned solver to a file of JSON, whole or not at all."""
    numbers: dict[str, Any] = {"ts": list(solver.times)}
    if isinstance(solver, Learned):
        numbers |= {"a": list(solver.a), "b": [list(row) for row in solver.b]}
        numbers |= {"trust": solver.trust, "slack": solver.slack}
    write_index(path, {"format": FORMAT, "version": VERSION, **numbers, **solver.about})


BUNDLED = Path(__file__).parent / "bundled"
"""Learned solvers that come with the library, a file each: of the bundled teachers."""


def bundled() -> list[str]:
    """The names of the learned solvers that come with the library."""
    return sorted(file.stem for file in BUNDLED.glob("*.json"))


def file_of(name: str) -> Path:
    """The file of a learned solver: a path, or the name of one that comes with the library. `ValueError` for a name
    that is neither."""
    path = Path(name)
    if name in bundled() and not path.exists():
        return BUNDLED / f"{name}.json"
    if not path.suffix and not path.exists():
        raise unknown("learned solver", name, [*bundled(), "FILE.json"])
    return path


def read_solver(path: Path | str, by_name: Callable[[str], object]) -> Learned | LearnedTimes:
    """The solver of a file. by_name: gives the solver that it is a change of. `ValueError` in one line for a file that
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
    rest = {key: value for key, value in about.items() if key not in ("format", "version", "ts", *COEFFICIENTS)}
    if "b" not in about:
        solver = by_name(about["solver"])
        if not isinstance(solver, Solver) or solver.stochastic:
            raise ValueError(f"{what} has learned times of {about['solver']!r}, which is no deterministic solver here")
        return LearnedTimes(solver, times, rest)
    check_form(about, COEFFICIENTS, what)
    a, b = tuple(map(float, about["a"])), tuple(tuple(map(float, row)) for row in about["b"])
    if len(a) != N or [len(row) for row in b] != list(range(1, N + 1)):
        raise ValueError(f"{what} has coefficients for another number of steps than its {N}")
    return Learned(trust=about["trust"], slack=about["slack"], times=times, a=a, b=b, about=rest)
