"""What every method has in common: its knobs, its card, and what it hands to `fit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..denoisers import Denoiser, LambdaDenoiser
from ..discrete import Posterior
from ..problems.base import TOKEN_SCALES, Problem
from ..schedules import Schedule
from ..training import EMA, Draws, Loss, Turn

MOVING = {"sequences": "points", "clips": "images"}
"""The scales of problems of clips, and that of their frames."""


@dataclass(frozen=True)
class Knobs:
    """What every method lets one set, by `--set NAME=VALUE` on the command line."""

    updates: int = 4000
    """Updates of the optimizer."""
    batch: int = 1024
    """Samples in an update."""
    lr: float = 1e-3
    """The full learning rate of Adam, > 0."""
    ema: float = 0.999
    """The decay, in [0, 1), of the average of the weights. The average is what is sampled."""
    warmup: int = 100
    """Updates in which the learning rate rises to its full value."""
    clip: float = 1.0
    """The largest norm of a gradient, > 0; a longer gradient is scaled down to it."""
    cycles: int = 1
    """How often, over equally many updates, the learning rate falls from its full value. A second cycle improves a
    result without undoing the first."""


@dataclass
class Training:
    """What a method hands to `fit`: the student, its average, and the turns of an update. The average is what is
    sampled in the end."""

    student: Denoiser | Posterior
    average: EMA
    turns: list[Turn]
    targets: Mapping[str, EMA] = field(default_factory=dict)
    """Other averages that follow the student, by name."""
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    """Everything else that has a state, by name."""
    teacher_calls: int = 0
    """Evaluations of the teacher in an update, summed over its samples."""
    period: int | None = None
    """Updates in a stage; with each stage the learning rate starts again. None for a single stage."""
    steps: tuple[int, ...] = ()
    """The numbers of steps in which to sample the student, if its knobs decide them; () for those of the card."""
    solver: str | None = None
    """The solver with which to sample the student, if its knobs decide it; None for that of the card."""
    guidance_scale: float | None = 1.0
    """The guidance scale that the student is given in training, which matters where it is an input of the network; None
    where it is given many."""
    monitor: Callable[[], dict[str, float]] | None = None
    """Gives figures of the training's state, by name, beside the problem's measures. It draws no random numbers from
    the run's stream."""

    def state(self) -> dict[str, nn.Module]:
        """All modules that a checkpoint holds, by name."""
        return {"student": self.student, "average": self.average, **self.targets, **self.modules}

    def averages(self) -> list[EMA]:
        """All averages that follow an update."""
        return [self.average, *self.targets.values()]


@dataclass(frozen=True)
class Sampler:
    """How a method's result is sampled: with which solver, on which time grid, in which numbers of steps."""

    solver: str | None = "ddim"
    """By name; None is that of the problem (`Problem.walk`), and its grid as well."""
    grid: str | None = "uniform"
    steps: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A method: what it is called, where it is from, how it is trained and sampled, and how it is drawn."""

    id: str
    title: str
    paper: str
    deck: str
    """Its slides, algorithm and reference in the lecture deck "The Principle and Application of Diffusion
    Acceleration"."""
    equation: str
    """What is minimised, as text."""
    needs: str
    """What the training needs: "nothing", "teacher", or "pairs" (made by a teacher)."""
    train: Callable[..., Training]
    """train(problem, knobs, teacher, pairs, start) -> the `Training` that `fit` runs.

    teacher: a `Denoiser`, or of tokens a `Posterior`; None if the method needs nothing. pairs: `Pairs` of the teacher's
    ODE; None unless the method needs them. start: as teacher, with whose weights the student begins; None to begin with
    the teacher's."""
    knobs: type[Knobs]
    recipes: Mapping[str, Mapping[str, object]]
    """The knobs that differ from their defaults, by the scale of the problem: "points", "images", "latents",
    "sequences" (of points, whose recipe is that of points where there is none), "clips" (of images, likewise), "tokens"
    or "token-images". Another scale that is left out has the defaults; one of tokens that is left out is not the
    method's."""
    color: str
    marker: str = "o"
    dash: str = "solid"
    sampler: Sampler = Sampler()
    evaluations: int = 0
    """How many times a run is evaluated on its way, so that its best average is kept. For methods whose losses
    oscillate or say nothing of the samples; 0 for never."""
    data: bool = True
    """Whether the training draws data. If not, the student learns from the teacher's predictions or pairs alone."""
    only: str | None = None
    """The scale of the problems that the method is for, where it is not for all problems of vectors."""

    @property
    def tokens(self) -> bool:
        """Whether it trains models of tokens (`toydiff.discrete.Posterior`). If not, it trains denoisers of vectors."""
        return self.only in TOKEN_SCALES

    def fits(self, scale: str) -> bool:
        """Whether the method is of problems of this scale."""
        if self.tokens:
            return scale in self.recipes
        if self.only is None:
            return scale not in TOKEN_SCALES
        return scale == self.only or (self.only == "sequences" and scale in MOVING)

    def recipe(self, scale: str) -> Mapping[str, object]:
        """The knobs of a scale that differ from their defaults."""
        return self.recipes.get(scale, self.recipes.get(MOVING.get(scale, scale), {}))


def student_like(
    problem: Problem,
    teacher: Denoiser,
    start: Denoiser | None,
    *,
    schedule: Schedule | None = None,
    guided: bool = False,
) -> LambdaDenoiser:
    """A student of the teacher's kind, on the teacher's schedule or the one given. It begins with the weights of
    `start`, or else with the teacher's."""
    on = teacher.schedule if schedule is None else schedule
    return problem.student(on, teacher.kind, start=teacher if start is None else start, guided=guided)


def batch_of(problem: Problem, batch: int, draws: Draws) -> tuple[Tensor, Tensor | None]:
    """A batch of data: x_0 (B, ...), and labels (B,), or None where the problem's samples are drawn without a class."""
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


def one_turn(
    student: Denoiser | Posterior, loss: Loss, knobs: Knobs, targets: Mapping[str, EMA] | None = None, **rest
) -> Training:
    """A training with one turn an update: the student's, with loss(step, draws). rest: fields of `Training`."""
    return Training(
        student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)], targets or {}, **rest
    )
