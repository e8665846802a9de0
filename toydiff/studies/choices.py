"""Which method to take: questions that a scoreboard and the bundled weights answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import weights
from ..catalog import METHODS
from ..runs.zoo import RECIPES
from ..support.words import plural
from .scoreboard import FRESH, NOTHING, stages_of, summary, tied

FEW = 4
"""Steps, at most, of what counts as fast."""
WITHIN = 1.5
"""How many times the best student's distance a cheap one may have."""
SAME = 1.02
"""Costs within this factor are the same."""


def no_data(row: Mapping) -> bool:
    """Whether none of an entry's trainings draws data."""
    return not any(METHODS[stage].data for stage in stages_of(row["method"]))


def no_teacher(row: Mapping) -> bool:
    """Whether an entry's training asks no teacher. It may begin with a teacher's weights, as ECT does."""
    return row["teacher_calls"] == 0


def from_nothing(row: Mapping) -> bool:
    """Whether an entry begins with nothing at all."""
    return row["begins_with"] == NOTHING


QUESTIONS: dict[str, tuple[int, Callable[[Mapping], bool]]] = {
    "for one step": (1, lambda row: True),
    "for four steps": (4, lambda row: True),
    "without data, in four steps": (4, no_data),
    "without a teacher's answers, in four steps": (4, no_teacher),
    "with no model before it, in four steps": (4, from_nothing),
}
"""Each: the number of steps, and which rows may answer."""


@dataclass(frozen=True)
class Answer:
    """A question, the best entry's row (as `scoreboard.summary` makes it), and the entries that noise cannot tell from
    it."""

    question: str
    best: dict
    ties: tuple[str, ...]


def answers(board: Mapping) -> list[Answer]:
    """An answer to each question. `ValueError` where a scoreboard lacks what one needs."""
    found, rows = [], summary(board)
    for question, (steps, allowed) in QUESTIONS.items():
        able = [row["method"] for row in rows if row["steps"] == steps and allowed(row)]
        best, *others = tied(board, steps, able)
        found.append(Answer(question, best, tuple(row["method"] for row in others)))
    return found


def cheapest(problem: str, within: float = WITHIN, board: Mapping | None = None) -> tuple[dict, list[dict]]:
    """The student of a problem ("ring", "digits") that cost least, among those that are good in few steps, and all of
    them by rising cost: rows {id, steps, distance, floor, passes}.

    The students are those bundled and, with a scoreboard, its entries. passes: what a student cost in all, pairs and
    the students that it began with included; the teacher is not counted. Good is a distance, in four steps or fewer,
    within `within` times the best student's. `ValueError` for a problem without weights.
    """
    few: dict[tuple[str, int], list[Mapping]] = {}
    for id_, recipe in RECIPES.items():
        if id_.startswith(f"{problem}-") and recipe.method not in FRESH:
            about = weights.read_about(id_)
            few[id_, about["passes_in_all"]] = [row for row in about["rows"] if row["steps"] <= FEW]
    if not few:
        raise ValueError(f"no student of {problem!r} is bundled")
    for row in summary(board) if board else ():
        if row["steps"] <= FEW and not from_nothing(row):
            few.setdefault((row["method"], row["passes"]), []).append(row)
    rows = []
    for (id_, passes), found in few.items():
        if found:
            best = min(found, key=lambda row: row["distance"])
            rows.append({"id": id_, **{key: best[key] for key in ("steps", "distance", "floor")}, "passes": passes})
    rows.sort(key=lambda row: row["passes"])
    # a distance below the floor is luck
    limit = within * max(min(row["distance"] for row in rows), rows[0]["floor"])
    good = [row for row in rows if row["distance"] <= limit]
    # entries of a scoreboard cost the same but for a rest
    least = [row for row in good if row["passes"] <= SAME * good[0]["passes"]]
    return min(least, key=lambda row: row["distance"]), rows


def markdown(board: Mapping) -> str:
    """The answers as a table in Markdown."""
    name = board["plan"]["problem"].removeprefix("mixture:")
    lines = ["| which method | answer | distance / floor | not told apart from it |", "|---|---|---|---|"]
    for answer in answers(board):
        row = answer.best
        distance = f"{row['distance'] / row['floor']:.2f} ± {row['distance_std'] / row['floor']:.2f}"
        lines.append(f"| {answer.question} | `{row['method']}` | {distance} | {_listed(answer.ties)} |")
    cheap, _ = cheapest(name, board=board)
    lines.append(
        f"| cheapest to train, of these and the bundled students, within {WITHIN:g} times the best | `{cheap['id']}`, "
        f"{cheap['passes'] / 1e6:.2f} million passes | {cheap['distance'] / cheap['floor']:.2f} in "
        f"{plural(cheap['steps'], 'step')} | — |"
    )
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "—"
