"""What evaluates an average during training, keeps the best, and stops a training that collapsed or diverged."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..support.checks import check_count
from .average import EMA

Evaluate = Callable[[nn.Module], dict[str, float | None]]
"""evaluate(average) -> figures by name: "distance", smaller is better, and, where they are known, "spread" and
"coverage" of the samples."""


class Diverged(FloatingPointError):
    """A training that cannot go on: a loss or a gradient is not finite.

    what: what happened, and when. saved: the checkpoint that is left, given by a caller that saves.
    """

    ADVICE = "try a smaller learning rate"

    def __init__(self, what: str, saved: str | None = None):
        super().__init__(what, saved)
        self.what, self.saved = what, saved

    def __str__(self) -> str:
        return "; ".join(part for part in (self.what, self.saved, self.ADVICE) if part is not None)


class Collapse(Diverged):
    """A training whose samples fell together or lost their modes."""

    ADVICE = f"{Diverged.ADVICE}, and, where there is a second model, more updates of it in each of the student"


class Watch(nn.Module):
    """Evaluates an average every `every` updates. It keeps the best weights, ends a training that gets no better, and
    stops one that collapsed.

    - best: a copy of the average at its smallest distance, `distance`, which was at update `step`;
    - patience: the training ends after so many evaluations in a row that were no better; None for no end;
    - last: the update of the last evaluation.

    A collapse is one of two things. The spread of the samples, relative to the data's, falls to half or less of the
    largest one found (or of 1, if that is smaller). Or half or fewer of the modes are left of the most that were found.

    All that a watch knows is in its state, so that a continued run goes on as if it had not been interrupted.
    """

    LEAST = 0.5

    distance: Tensor
    spread: Tensor
    coverage: Tensor
    step: Tensor
    missed: Tensor
    last: Tensor

    def __init__(self, average: EMA, evaluate: Evaluate, every: int, patience: int | None = None):
        super().__init__()
        self.best, self._average, self.evaluate = copy.deepcopy(average.module), [average], evaluate
        self.every = check_count(every, "every")
        self.patience = None if patience is None else check_count(patience, "patience")
        for name, value in (
            ("distance", math.inf),
            ("spread", 0.0),
            ("coverage", 0.0),
            ("step", 0),
            ("missed", 0),
            ("last", 0),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    @property
    def over(self) -> bool:
        """Whether the last `patience` evaluations were no better."""
        return self.patience is not None and int(self.missed) >= self.patience

    def __call__(self, step: int) -> dict[str, float | None]:
        """The figures at update `step`, from 0; raises `Collapse` if the training collapsed."""
        figures = {"step": step, **self.evaluate(self._average[0].module)}
        for name in ("spread", "coverage"):
            value, most = figures.get(name), getattr(self, name)
            if value is None:
                continue
            if float(most) and not value > self.LEAST * min(float(most), 1.0):
                what = {"spread": "the spread of the samples", "coverage": "the part of the modes that were found"}[
                    name
                ]
                raise Collapse(
                    f"the training collapsed: at update {step} {what} is {value:.3g}, and was {float(most):.3g}"
                )
            most.clamp_(min=value)
        distance = figures["distance"]
        if distance is None:
            raise ValueError("a watch needs the figure 'distance', a number, got None")
        if distance < float(self.distance):
            self.best.load_state_dict(self._average[0].module.state_dict())
            for mark, value in ((self.distance, distance), (self.step, step), (self.missed, 0)):
                mark.fill_(value)
        else:
            self.missed += 1
        self.last.fill_(step)
        return figures
