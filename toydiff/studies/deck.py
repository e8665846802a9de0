"""The deck's table of 17 rows (slide 31) on labelled mixtures with guidance, and what turns the directions that differ.

All rows approximate one map: from noise to where the guided teacher's ODE ends. So the measure is paired, the root mean
square distance of a row's samples to these ends from the same noise, which tells rows apart that a distance between two
sets of samples cannot. In a case all rows have one budget of network passes, pairs and the models that a row begins
with included. A seed has a teacher, pairs and noise of its own, and rows are compared within a seed. A case differs in
one thing from another.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import mixtures, runs
from ..denoisers import Denoiser
from ..measure import Spread, paired_error, spread
from ..nets import MLP
from ..problems import MixtureProblem
from ..problems.mixture import distance_and_floor
from ..problems.pairs import Pairs, Recipe, make_pairs
from ..runs.cost import passes_of_update
from ..solvers import solve
from ..support.words import plural
from . import headline
from .headline import CD, DISTILL, PERFLOW, PERFLOW_WIDE, PHASED, PHASED_WIDE, RD, RF, TEACHER
from .scoreboard import HOLDS, NOT, PAIRS_SHARE, WITHIN

GUIDANCE_SCALE = 1.5
SEEDS = (0, 1, 2)
TEACHER_UPDATES = 800
PAIR_STEPS, EXACT_STEPS, HELD_OUT = 20, 60, 2_000
HELD_OUT_SEED = 1000
WIDTH, BUDGET, WARMUP = 64, 250_000, 10
"""Of the network's hidden layers; the network passes of a row; the updates in which a student's learning rate rises."""
PLACE = "FINDINGS.md#what-turns-the-decks-directions"
"""Where the experiments stand, beside this file."""
DECKS, PUBLISHED = "own-mse", "x0-huber"
"""The losses of Rectified Diffusion: the deck's algorithm 4, and that of the published code."""
RESULT = Path(__file__).parent / "deck.json"
"""What the command measured, which comes with the library."""
WIDE_NAMES = {PERFLOW_WIDE: PERFLOW, PHASED_WIDE: PHASED}
"""The deck's rows of a larger network, and the rows of the small one that they repeat."""
DIRECTIONS = (*headline.DIRECTIONS, ((PHASED_WIDE, 4), (PERFLOW_WIDE, 4)))
"""(better, worse) by the deck, each (name, steps)."""
STEPS = {row.name: tuple(other.steps for other in headline.ROWS if other.name == row.name) for row in headline.ROWS}

METHODS = {
    RF: "rectified-flow",
    RD: "rectified-diffusion",
    DISTILL: "instaflow",
    CD: "cd",
    PERFLOW: "perflow",
    PHASED: "rectified-diffusion-phased",
}

Entry = tuple[str, int]


class Labelled(MixtureProblem):
    """A ready-made mixture whose samples are drawn for a class, and a network of a width of one's own."""

    conditional = True

    def __init__(self, mixture: str, width: int):
        super().__init__(mixtures.mixture(mixture), f"labelled {mixture}")
        self.width = width

    def network(self, *, guided: bool = False) -> nn.Module:
        return MLP(self.mixture.dim, hidden=self.width, classes=self.classes, guided=guided)


@dataclass(frozen=True)
class Case:
    """What all rows of a case have in common."""

    changed: str
    """In words."""
    names: tuple[str, ...]
    """The rows that are trained, by their names in the deck."""
    mixture: str = "ring"
    width: int = WIDTH
    """Of the hidden layers."""
    kind: str = "eps"
    """What the teacher predicts, as Stable Diffusion does."""
    loss: str = DECKS
    """Of Rectified Diffusion."""
    passes: int = BUDGET
    cd_teacher: str = RD
    """Who teaches CD, which begins with Rectified Diffusion: Rectified Diffusion itself, or the guided teacher."""
    measured: bool = False
    """Whether samples are compared with true samples too."""

    def but(self, changed: str, **fields: Any) -> "Case":
        """The same case with other values of fields."""
        return dataclasses.replace(self, changed=changed, measured=False, **fields)


BASE = Case(
    "as in the table: a teacher of eps, the deck's loss", (TEACHER, RF, RD, DISTILL, CD, PERFLOW, PHASED), measured=True
)
WIDE = Case(
    "a network twice as wide, checkerboard",
    (PERFLOW_WIDE, PHASED_WIDE),
    mixture="checkerboard",
    width=2 * WIDTH,
    measured=True,
)
TABLE = (BASE, WIDE)
"""The cases that the table of 17 rows is of."""
OF_V = BASE.but("a teacher of v", names=(RF, RD, DISTILL), kind="v")
LONG = BASE.but("four times the cost", names=(RF,), passes=4 * BUDGET)
LATE = BASE.but(
    "as on the ring's scoreboard: a teacher of v, the published loss, 8 times the cost, CD of the guided teacher",
    names=(RD, CD),
    kind="v",
    loss=PUBLISHED,
    passes=8 * BUDGET,
    cd_teacher=TEACHER,
)
CD_CASES = (
    LATE,
    LATE.but("the same at an eighth of the cost", passes=BUDGET),
    LATE.but("the same with CD of Rectified Diffusion itself", cd_teacher=RD),
)
"""Each changes one thing of the first."""
CASES = (*TABLE, OF_V, LONG, *CD_CASES)
EXPERIMENTS: Mapping[tuple[Entry, Entry], tuple[Case, ...]] = {
    ((RF, 25), (RF, 2)): (BASE, OF_V, LONG),
    ((RD, 1), (RF, 1)): (BASE, OF_V),
    ((RD, 2), (RF, 2)): (BASE, OF_V),
    ((DISTILL, 2), (DISTILL, 4)): (BASE, OF_V),
    ((CD, 1), (RD, 1)): (BASE, *CD_CASES),
}
"""Directions, and the cases that they are measured in."""


class Models:
    """The models of one seed on labelled mixtures. What cases have in common is made once."""

    def __init__(self, seed: int, teacher_updates: int = TEACHER_UPDATES):
        self.seed, self.teacher_updates = seed, teacher_updates
        self._made: dict[tuple, Any] = {}

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def problem(self, case: Case) -> MixtureProblem:
        """The case's mixture, sampled with labels, with a network of the case's width."""
        return self._once(("problem", case.mixture, case.width), lambda: Labelled(case.mixture, case.width))

    def teacher(self, case: Case) -> Denoiser:
        """Trained as diffusion models are, with a tenth of the labels left out."""
        changes = {"kind": case.kind, "updates": self.teacher_updates, "drop": 0.1, "ema": 0.995}
        key = "teacher", case.mixture, case.width, case.kind
        return self._once(
            key, lambda: runs.train("diffusion", self.problem(case), seed=self.seed, changes=changes).finish().denoiser
        )

    def ends(self, case: Case, n: int = HELD_OUT) -> Pairs:
        """Noise, labels, and where the guided teacher's ODE ends, solved finely."""
        recipe = Recipe(n=n, steps=EXACT_STEPS, guidance_scale=GUIDANCE_SCALE, seed=HELD_OUT_SEED + self.seed)
        key = "ends", case.mixture, case.width, case.kind, n
        return self._once(key, lambda: make_pairs(self.problem(case), self.teacher(case), recipe))

    def model(self, case: Case, name: str) -> Denoiser:
        """The model of a row of the deck."""
        return self._model(case, WIDE_NAMES.get(name, name), case.passes)

    def _model(self, case: Case, name: str, passes: int) -> Denoiser:
        g, teacher = GUIDANCE_SCALE, self.teacher(case)
        if name == TEACHER:
            return teacher
        if name in (RF, RD):
            recipe = Recipe(
                n=int(PAIRS_SHARE * passes) // (PAIR_STEPS * teacher.calls_at(g)),
                steps=PAIR_STEPS,
                guidance_scale=g,
                seed=self.seed,
            )
            return self._trained(case, name, passes, {"loss": case.loss} if name == RD else {}, teacher, recipe)
        if name == DISTILL:
            flow = self._model(case, RF, passes // 2)
            n = int(PAIRS_SHARE * passes / 2) // PAIR_STEPS
            euler = Recipe(n=n, steps=PAIR_STEPS, solver="ddim", grid="uniform", seed=self.seed)
            return self._trained(case, name, passes // 2, {}, flow, euler)
        if name == CD:
            half = self._model(case, RD, passes // 2)
            # Rectified Diffusion has the guidance built in
            tutor, scale = (half, 1.0) if case.cd_teacher == RD else (teacher, g)
            return self._trained(case, name, passes // 2, {"guidance_scale": scale}, tutor, start=half)
        return self._trained(case, name, passes, {"guidance_scale": g}, teacher)

    def _trained(
        self,
        case: Case,
        name: str,
        passes: int,
        changes: Mapping[str, object],
        teacher: Denoiser,
        recipe: Recipe | None = None,
        start: Denoiser | None = None,
    ) -> Denoiser:
        """A student of a teacher whose pairs, if any, and updates cost so many passes."""

        def make() -> Denoiser:
            on, method = self.problem(case), METHODS[name]
            given: dict[str, Any] = {"seed": self.seed, "teacher": teacher, "start": start}
            if recipe is not None:
                given["pairs"] = make_pairs(on, teacher, recipe)
            set_ = {"warmup": WARMUP, **changes}
            per_update = passes_of_update(runs.train(method, on, changes=set_, **given).training)
            left = passes - (given["pairs"].teacher_calls if recipe is not None else 0)
            updates = max(left // per_update, 1)
            trained = runs.train(method, on, changes=set_ | {"updates": updates}, **given).finish()
            return runs.of_vectors(trained.denoiser, "a student is")

        key = (name, case.mixture, passes, tuple(changes.items()), recipe, id(teacher), id(start))
        return self._once(key, make)


def deck(
    cases: Sequence[Case] = CASES,
    *,
    seeds: Sequence[int] = SEEDS,
    teacher_updates: int = TEACHER_UPDATES,
    n: int = HELD_OUT,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Train and measure the rows of each case with each seed.

    A row: changed, name, steps, seed, passes (the budget), rms (the root mean square distance of n samples to where the
    guided teacher's ODE ends from the same noise); and where the case is measured distance (sliced Wasserstein, to true
    samples of the same labels), floor and accuracy. report: is given each row as a line. `ValueError` for no seed.
    """
    if not seeds:
        raise ValueError("give at least one seed")
    rows: list[dict] = []
    floors: dict[str, dict[int, Spread]] = {case.mixture: {} for case in cases}
    for seed in seeds:
        models = Models(seed, teacher_updates)
        for case in cases:
            for name in case.names:
                for steps in STEPS[name]:
                    row = _measured(models, case, name, steps, n, floors[case.mixture])
                    report(f"seed {seed}  {case.changed}: {name}, {plural(steps, 'step')}  {row['rms']:.4f}")
                    rows.append(row)
    return rows


def _measured(models: Models, case: Case, name: str, steps: int, n: int, floors: dict[int, Spread]) -> dict:
    on, D, ends = models.problem(case), models.model(case, name), models.ends(case, n)
    walk: dict[str, Any] = {"solver": "ddim", "grid": "uniform"}
    if name == TEACHER:
        walk = {"solver": "dpm++2m", "grid": "lambda", "guidance_scale": GUIDANCE_SCALE}
    noise = D.schedule.sigma(torch.ones(())) * ends.noise
    end = solve(D, noise, steps, cond=ends.cond, keep="end", **walk).end
    row = {
        "changed": case.changed,
        "name": name,
        "steps": steps,
        "seed": models.seed,
        "passes": case.passes,
        "rms": paired_error(end, ends.x0).rms,
    }
    if case.measured:
        assert ends.cond is not None  # the problem is conditional
        distance, floor = distance_and_floor(
            end, lambda k, seed: on.mixture.sample(k, seed, cond=ends.cond, dtype=end.dtype), floors
        )
        row |= {"distance": distance, "floor": floor.mean, "accuracy": on.mixture.accuracy(end, ends.cond)}
    return row


# ---- what follows from it


def values(rows: Sequence[Mapping], case: Case, entry: Entry, key: str = "rms") -> list[float]:
    """A measure of one entry, by seeds. `ValueError` where the rows lack it."""
    found = [row[key] for row in rows if (row["changed"], row["name"], row["steps"]) == (case.changed, *entry)]
    if not found:
        raise ValueError(f"no {entry[0]} in {plural(entry[1], 'step')} was measured with {case.changed}")
    return found


def errors(rows: Sequence[Mapping], case: Case, better: Entry, worse: Entry) -> float:
    """By how many standard errors the first entry is nearer to the teacher's ends than the second: the mean over seeds
    of the difference within a seed, over its standard error. `ValueError` for fewer than two seeds."""
    apart = [b - a for a, b in zip(values(rows, case, better), values(rows, case, worse), strict=True)]
    if len(apart) < 2:
        raise ValueError("a verdict needs two seeds or more")
    mean, error = statistics.mean(apart), statistics.stdev(apart) / math.sqrt(len(apart))
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def word(found: float) -> str:
    """The verdict on a number of standard errors."""
    return WITHIN if abs(found) <= 2 else HOLDS if found > 0 else NOT


def case_of(entry: Entry) -> Case:
    """The case of the table that an entry stands in."""
    return WIDE if entry[0] in WIDE_NAMES else BASE


def turned(rows: Sequence[Mapping], better: Entry, worse: Entry) -> Case | None:
    """The first case in which a direction holds that does not hold in the table; None where there is none."""
    for case in EXPERIMENTS.get((better, worse), ()):
        if case not in TABLE and errors(rows, case, better, worse) > 2:
            return case
    return None


def settled(rows: Sequence[Mapping]) -> dict[Entry, bool]:
    """For each row of the deck whether all of its directions are settled: they hold beyond two standard errors, or a
    case says what turns them."""
    found = {(row.name, row.steps): True for row in headline.ROWS}
    for better, worse in DIRECTIONS:
        if errors(rows, case_of(better), better, worse) <= 2 and turned(rows, better, worse) is None:
            found[better] = found[worse] = False
    return found


def needs(rows: Sequence[Mapping], better: Entry, worse: Entry) -> str:
    """What a direction would need that does not hold: nothing where it holds; else the case that turns it, or the seeds
    after which the difference would be two standard errors."""
    seen = errors(rows, case_of(better), better, worse)
    if word(seen) == HOLDS:
        return ""
    if case := turned(rows, better, worse):
        return f"[{case.changed}: {errors(rows, case, better, worse):+.1f}]({PLACE})"
    if word(seen) == NOT:
        return f"the other way round; [no case tried turns it]({PLACE})"
    count = len(values(rows, case_of(better), better))
    return f"{math.ceil(count * (2 / seen) ** 2):,} seeds" if seen else "no number of seeds"


def table(rows: Sequence[Mapping]) -> str:
    """Two tables in Markdown: the deck's rows beside ours, and its directions with their verdicts."""
    done = settled(rows)
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"{values(rows, BASE, (TEACHER, 25), 'passes')[0]:,} network passes each, {seeds} seeds:",
        "",
        "| row | steps | FID, deck | CLIP, deck | to the teacher's ends | distance / floor | accuracy | settled |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in headline.ROWS:
        entry = row.name, row.steps
        case = case_of(entry)
        floor = values(rows, case, entry, "floor")[0]
        apart, distance = spread(values(rows, case, entry)), spread(values(rows, case, entry, "distance"))
        accuracy = statistics.mean(values(rows, case, entry, "accuracy"))
        lines.append(
            f"| {row.name} | {row.steps} | {row.fid:g} | {row.clip:g} | {apart.mean:.3f} ± {apart.std:.3f} | "
            f"{distance.mean / floor:.2f} ± {distance.std / floor:.2f} | {100 * accuracy:.1f}% | "
            f"{'yes' if done[entry] else 'no'} |"
        )
    lines += [
        "",
        f"{sum(done.values())} of {len(done)} rows are settled: all their directions hold beyond two standard errors, "
        "or the last column says what turns them.",
        "",
        "| the deck's direction | FID there | standard errors | here | what turns it, or what it would need |",
        "|---|---|---|---|---|",
    ]
    for better, worse in DIRECTIONS:
        seen = errors(rows, case_of(better), better, worse)
        fids = " < ".join(f"{headline.row(*entry).fid:g}" for entry in (better, worse))
        lines.append(
            f"| {_direction(better, worse)} | {fids} | {seen:+.1f} | {word(seen)} | {needs(rows, better, worse)} |"
        )
    return "\n".join(lines)


def experiments(rows: Sequence[Mapping]) -> str:
    """A table in Markdown: directions of the deck in each case of their experiments."""
    lines = ["| direction | case | first | second | standard errors |", "|---|---|---|---|---|"]
    for (better, worse), cases in EXPERIMENTS.items():
        for case in cases:
            a, b = (spread(values(rows, case, entry)) for entry in (better, worse))
            lines.append(
                f"| {_direction(better, worse)} | {case.changed} | {a.mean:.4f} ± {a.std:.4f} | "
                f"{b.mean:.4f} ± {b.std:.4f} | {errors(rows, case, better, worse):+.1f} |"
            )
    return "\n".join(lines)


def _direction(better: Entry, worse: Entry) -> str:
    return " before ".join(f"{name}, {plural(steps, 'step')}" for name, steps in (better, worse))


def bundled() -> list[dict]:
    """The rows that come with the library."""
    return json.loads(RESULT.read_text())["rows"]
