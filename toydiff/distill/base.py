"""What every method has in common: its knobs, and what it hands to `fit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..nets import NO_CLASS
from ..problems.base import Problem
from ..schedules import Schedule
from ..training import EMA, Draws, Turn


@dataclass(frozen=True)
class Knobs:
    """What every method lets one set. `updates`, of the optimizer; `batch`; `lr` of Adam; `ema`, decay of the average that is sampled;
    `warmup`, updates until the full learning rate; `clip`, the largest norm of a gradient; `cycles`, of the learning rate, equally long,
    each from its full value down (a second one improves a result without undoing the first).
    """

    updates: int = 4000
    batch: int = 1024
    lr: float = 1e-3
    ema: float = 0.999
    warmup: int = 100
    clip: float = 1.0
    cycles: int = 1


@dataclass
class Training:
    """What a method hands to `fit`: the student, its average, which is what is sampled in the end, and the turns of an update.

    targets: other averages that follow the student, by name. modules: everything else that has a state, by name. teacher_calls:
    evaluations of the teacher, one sample at a time, in an update. period: updates of one stage, where the learning rate starts again.
    steps, solver: how the student is meant to be sampled, where its knobs say so and not its method alone. monitor: figures of how the training goes, by name, beside
    the measures of the problem; without randomness of the run.
    """

    student: Denoiser
    average: EMA
    turns: list[Turn]
    targets: Mapping[str, EMA] = field(default_factory=dict)
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    teacher_calls: int = 0
    period: int | None = None
    steps: tuple[int, ...] = ()
    solver: str | None = None
    monitor: Callable[[], dict[str, float]] | None = None

    def state(self) -> dict[str, nn.Module]:
        """All modules that a checkpoint holds, by name."""
        return {"student": self.student, "average": self.average, **self.targets, **self.modules}

    def averages(self) -> list[EMA]:
        """All averages that follow an update."""
        return [self.average, *self.targets.values()]


def starting_from(teacher: Denoiser, start: Denoiser | None) -> Denoiser:
    """Whose weights a student starts with: `start` where it is given, otherwise the teacher."""
    return teacher if start is None else start


def like_teacher(
    problem: Problem,
    teacher: Denoiser,
    start: Denoiser | None,
    *,
    schedule: Schedule | None = None,
    guided: bool = False,
) -> LambdaDenoiser:
    """A student on the teacher's schedule (or the one given) and in its kind, with its weights (or those of `start`)."""
    on = teacher.schedule if schedule is None else schedule
    return problem.student(on, teacher.kind, start=starting_from(teacher, start), guided=guided)


def drop_labels(cond: Tensor | None, share: float, draws: Draws, batch: int) -> Tensor | None:
    """Labels with a random share of them dropped, so that one network learns the conditional and the unconditional model (arXiv 2207.12598, alg. 1)."""
    if cond is None:
        return None
    return cond.masked_fill(draws.uniform(batch) < share, NO_CLASS)
