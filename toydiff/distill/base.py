"""What every method has in common: its knobs, its card, and what it hands to `fit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..problems.base import Problem
from ..schedules import Schedule
from ..training import EMA, Draws, Loss, Turn


@dataclass(frozen=True)
class Knobs:
    """What every method lets one set, by `--set NAME=VALUE` on the command line."""

    updates: int = 4000
    """Updates of the optimizer."""
    batch: int = 1024
    """Samples in an update."""
    lr: float = 1e-3
    """The full learning rate of Adam."""
    ema: float = 0.999
    """Decay of the average of the weights that is sampled in the end."""
    warmup: int = 100
    """Updates until the full learning rate."""
    clip: float = 1.0
    """The largest norm of a gradient."""
    cycles: int = 1
    """Cycles of the learning rate, equally long, each from its full value down: a second one improves a result
    without undoing the first."""


@dataclass
class Training:
    """What a method hands to `fit`: the student, its average, which is what is sampled in the end, and the turns of
    an update."""

    student: Denoiser
    average: EMA
    turns: list[Turn]
    targets: Mapping[str, EMA] = field(default_factory=dict)
    """Other averages that follow the student, by name."""
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    """Everything else that has a state, by name."""
    teacher_calls: int = 0
    """Evaluations of the teacher, one sample at a time, in an update."""
    period: int | None = None
    """Updates of one stage, where the learning rate starts again."""
    steps: tuple[int, ...] = ()
    """How many steps the student is meant to be sampled in, where its knobs say so and not its method alone."""
    solver: str | None = None
    """By which solver, likewise."""
    monitor: Callable[[], dict[str, float]] | None = None
    """Figures of how the training goes, by name, beside the measures of the problem; without randomness of the run."""

    def state(self) -> dict[str, nn.Module]:
        """All modules that a checkpoint holds, by name."""
        return {"student": self.student, "average": self.average, **self.targets, **self.modules}

    def averages(self) -> list[EMA]:
        """All averages that follow an update."""
        return [self.average, *self.targets.values()]


@dataclass(frozen=True)
class Sampler:
    """How a method's result is meant to be sampled: solver, time grid, and the numbers of steps to measure it at."""

    solver: str = "ddim"
    grid: str = "uniform"
    steps: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A method: what it is called, where it is from, how it is trained and sampled, and how it is drawn."""

    id: str
    title: str
    paper: str
    deck: str
    """Where the source deck has it."""
    equation: str
    """What is minimised, as text."""
    needs: str
    """"nothing", "teacher", or "pairs" (of a teacher)."""
    train: Callable[..., Training]
    """train(problem, knobs, teacher, pairs, start) -> the `Training` that `fit` runs.

    teacher, a `Denoiser`, is None if nothing is needed; pairs, `Pairs` of the teacher's ODE, are None unless they are
    needed; start, a `Denoiser` whose weights the student starts with, is None for the teacher's."""
    knobs: type[Knobs]
    recipes: Mapping[str, Mapping[str, object]]
    """Knobs that differ from their own defaults, by the problem's scale: "points", "images", "latents"; a scale that is
    left out has the defaults."""
    color: str
    marker: str = "o"
    dash: str = "solid"
    sampler: Sampler = Sampler()
    evaluations: int = 0
    """How often a run is measured on its way, where its losses oscillate or say nothing, so that the best is kept; 0
    for never."""
    data: bool = True
    """Whether it is trained on data; without, what it learns from is a teacher's answers and pairs alone."""


def student_like(
    problem: Problem,
    teacher: Denoiser,
    start: Denoiser | None,
    *,
    schedule: Schedule | None = None,
    guided: bool = False,
) -> LambdaDenoiser:
    """A student on the teacher's schedule (or the one given) and in its kind, with the weights of `start`, or else
    the teacher's."""
    on = teacher.schedule if schedule is None else schedule
    return problem.student(on, teacher.kind, start=teacher if start is None else start, guided=guided)


def batch_of(problem: Problem, batch: int, draws: Draws) -> tuple[Tensor, Tensor | None]:
    """A batch of data, x_0 (B, ...) and cond (B,): None where samples are drawn from the whole distribution."""
    x0, cond = draws.rows(problem.data, batch)
    return x0, cond if problem.conditional else None


def uniform_times(n: int, draws: Draws, edge: float = 0.0, least: float = 1e-3) -> Tensor:
    """t ~ U(least, 1), (n,), and t = 1 itself with probability `edge` < 1. At t = 0 there is nothing to learn, and
    some kinds are infinite there."""
    beyond = least + (1 - least) / (1 - edge)  # what would lie beyond t = 1 is at the edge
    return draws.uniform(n, least, beyond).clamp(max=1.0)


def snr_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """max(SNR, 1), SNR = alpha^2/sigma^2, (B,): progressive distillation's weight of errors in x_0 (arXiv
    2202.00512, sec. 4)."""
    return (schedule.alpha(t) / schedule.sigma(t)).square().clamp(min=1)


def one_turn(student: Denoiser, loss: Loss, knobs: Knobs, targets: Mapping[str, EMA] | None = None, **rest) -> Training:
    """The training of a student that alone moves in an update, by loss(step, draws); rest: fields of `Training`."""
    return Training(
        student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)], targets or {}, **rest
    )
