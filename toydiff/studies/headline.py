"""The deck's table of 17 rows (slide 31), beside a scoreboard: which of its directions hold at toy scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .. import weights
from ..runs.zoo import RECIPES
from ..support.words import plural
from .scoreboard import HOLDS, NOT, RD_CD, TEACHERS, Verdict, summary, verdict

MOST_SEEDS = 1000
"""More are not named."""


@dataclass(frozen=True)
class Row:
    """A row of the deck: its name, steps, FID and CLIP score there, and what stands for it on a scoreboard."""

    name: str
    steps: int
    fid: float
    clip: float
    method: str | None
    """None where a scoreboard has nothing like it: a network twice as wide."""

    @property
    def entry(self) -> tuple[str, int]:
        """(method, steps) on a scoreboard."""
        assert self.method is not None
        return self.method, self.steps


TEACHER, RF, RD = "SDv1-5 + DPM-Solver", "Rectified Flow", "Rectified Diffusion"
DISTILL, CD, PERFLOW = "Rectified Flow (Distill)", "Rectified Diffusion (CD)", "PeRFlow"
PHASED = "Rectified Diffusion (Phased)"
PERFLOW_WIDE, PHASED_WIDE = "PeRFlow-SDXL", "Rectified Diffusion-SDXL (Phased)"

ROWS = (
    Row(TEACHER, 25, 20.1, 0.318, "guided"),
    Row(RF, 25, 21.65, 0.315, "rectified-flow"),
    Row(RF, 1, 47.91, 0.272, "rectified-flow"),
    Row(RF, 2, 31.35, 0.296, "rectified-flow"),
    Row(RD, 25, 21.28, 0.316, "rectified-diffusion"),
    Row(RD, 1, 27.26, 0.295, "rectified-diffusion"),
    Row(RD, 2, 22.98, 0.309, "rectified-diffusion"),
    Row(DISTILL, 1, 23.72, 0.302, "instaflow"),
    Row(DISTILL, 2, 73.49, 0.261, "instaflow"),
    Row(DISTILL, 4, 103.48, 0.245, "instaflow"),
    Row(CD, 1, 22.83, 0.305, RD_CD),
    Row(CD, 2, 21.66, 0.312, RD_CD),
    Row(CD, 4, 21.43, 0.314, RD_CD),
    Row(PERFLOW, 4, 22.97, 0.294, "perflow"),
    Row(PHASED, 4, 20.64, 0.311, "rectified-diffusion-phased"),
    Row(PERFLOW_WIDE, 4, 27.06, 0.335, None),
    Row(PHASED_WIDE, 4, 25.81, 0.341, None),
)
METHODS = tuple(dict.fromkeys(row.method for row in ROWS if row.method is not None))
"""The entries that the table needs of a scoreboard."""
DIRECTIONS = (
    ((RF, 2), (RF, 1)),
    ((RF, 25), (RF, 2)),
    ((RD, 2), (RD, 1)),
    ((RD, 25), (RD, 2)),
    ((RD, 1), (RF, 1)),
    ((RD, 2), (RF, 2)),
    ((DISTILL, 1), (RF, 1)),
    ((DISTILL, 1), (DISTILL, 2)),
    ((DISTILL, 2), (DISTILL, 4)),
    ((CD, 1), (RD, 1)),
    ((CD, 2), (CD, 1)),
    ((CD, 4), (CD, 2)),
    ((PHASED, 4), (PERFLOW, 4)),
    ((TEACHER, 25), (RF, 25)),
    ((TEACHER, 25), (RD, 25)),
)
"""(better, worse) by the deck, each (name, steps)."""


def row(name: str, steps: int) -> Row:
    """The deck's row of a name and a number of steps."""
    return next(row for row in ROWS if (row.name, row.steps) == (name, steps))


def verdicts(board: Mapping) -> list[tuple[Row, Row, Verdict]]:
    """(better, worse, verdict) for each direction of the deck. `ValueError` where the board lacks an entry."""
    return [
        (row(*better), row(*worse), verdict(board, row(*better).entry, row(*worse).entry))
        for better, worse in DIRECTIONS
    ]


EXPERIMENTS = {
    ((RD, 1), (RF, 1)): "updates, loss, the part at t = 1, what the network predicts: one at a time",
    ((RD, 2), (RF, 2)): "updates, loss, the part at t = 1, what the network predicts: one at a time",
}
"""Directions that a controlled experiment turns (`toydiff.studies.reversal`), and what it changes."""
EXPERIMENT = "FINDINGS.md#when-rectified-flow-leads"
"""Where it stands, beside this file."""


BUNDLED = "../distill/README.md#digits"
"""Where the measurements of the bundled students of digits stand."""


def turned(problem: str, better: Row, worse: Row) -> str:
    """What turns a direction that does not hold, as a link, or nothing: a controlled experiment, or, on digits, the
    longer trainings of the bundled students, where they have it beyond two deviations."""
    changed = EXPERIMENTS.get(((better.name, better.steps), (worse.name, worse.steps)))
    if changed:
        return f"[{changed}]({EXPERIMENT})"
    found = [_bundled(problem, one) for one in (better, worse)]
    if None in found:
        return ""
    (a, passes_a), (b, passes_b) = (one for one in found if one is not None)
    if b["distance"] - a["distance"] <= 2 * math.hypot(a["distance_std"], b["distance_std"]):
        return ""
    cost = " and ".join(f"{passes / 1e6:.1f}" for passes in dict.fromkeys((passes_a, passes_b)))
    both = " < ".join(f"{one['distance'] / one['floor']:.1f}" for one in (a, b))
    return f"[longer training: {both} floors, bundled students of {cost} million passes]({BUNDLED})"


def _bundled(problem: str, row_: Row) -> tuple[dict, int] | None:
    """What the bundled student of a row measures in its steps, and its passes in all; None where there is none."""
    method = "cd" if row_.method == RD_CD else row_.method  # digits-cd begins with Rectified Diffusion
    for id_, recipe in RECIPES.items():
        if recipe.method == method and id_.startswith(f"{problem}-") and problem == "digits":
            about = weights.read_about(id_)
            for found in about["rows"]:
                if found["steps"] == row_.steps:
                    return found, about["passes_in_all"]
    return None


def remark(problem: str, seen: Verdict, better: Row, worse: Row) -> str:
    """What follows from a verdict: nothing where a direction holds; else what turns it, or the seeds after which the
    difference would be two standard errors."""
    if seen.word == HOLDS:
        return ""
    if link := turned(problem, better, worse):
        return link
    if seen.word == NOT:
        return "beyond two standard errors, the other way round"
    if abs(seen.errors) > 2:
        return "smaller than the floor's own deviation: more samples of the measure"
    return f"{seen.seeds_needed:,} seeds" if seen.seeds_needed < MOST_SEEDS else f"more than {MOST_SEEDS:,} seeds"


def settled(board: Mapping) -> dict[Row, bool]:
    """For each row of the deck whether all of its directions are settled here: they hold beyond two standard errors, or
    it is known what turns them. Rows that nothing stands for are not."""
    found: dict[Row, bool] = {row_: row_.method is not None for row_ in ROWS}
    for better, worse, seen in verdicts(board):
        if seen.word != HOLDS and not turned(board["plan"]["problem"], better, worse):
            found[better] = found[worse] = False
    return found


def wanted(board: Mapping) -> str:
    """What the rows of the wider network would need: a teacher of their own, as long as the bundled one was trained."""
    teacher = TEACHERS.get(board["plan"]["problem"])
    long = f", {weights.read_about(teacher)['passes']:,} passes of four times the cost" if teacher else ""
    return f"a teacher twice as wide{long}"


def markdown(board: Mapping) -> str:
    """Two tables in Markdown: the deck's rows beside ours, and its directions with their verdicts."""
    ours = {(row["method"], row["steps"]): row for row in summary(board)}
    done = settled(board)
    lines = [
        "| row | steps | FID, deck | CLIP, deck | distance / floor | accuracy | settled |",
        "|---|---|---|---|---|---|---|",
    ]
    for row_ in ROWS:
        found = None if row_.method is None else ours[row_.entry]
        text, accuracy, state = "—", "—", f"no: {wanted(board)}"
        if found is not None:
            text = f"{found['distance'] / found['floor']:.2f} ± {(found['distance_std'] or 0) / found['floor']:.2f}"
            accuracy = "—" if found["accuracy"] is None else f"{100 * found['accuracy']:.1f}%"
            state = "yes" if done[row_] else "no"
        lines.append(f"| {row_.name} | {row_.steps} | {row_.fid:g} | {row_.clip:g} | {text} | {accuracy} | {state} |")
    lines += [
        "",
        f"{sum(done.values())} of {len(ROWS)} rows are settled: all their directions hold beyond two standard errors, "
        "or the last column says what turns them.",
        "",
        "| the deck's direction | FID there | standard errors | here | what it would need, or what turns it |",
        "|---|---|---|---|---|",
    ]
    for better, worse, seen in verdicts(board):
        names = " before ".join(f"{one.name}, {plural(one.steps, 'step')}" for one in (better, worse))
        fids = f"{better.fid:g} < {worse.fid:g}"
        last = remark(board["plan"]["problem"], seen, better, worse)
        lines.append(f"| {names} | {fids} | {seen.errors:+.1f} | {seen.word} | {last} |")
    return "\n".join(lines)
