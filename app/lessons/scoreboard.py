"""The scoreboard: every method at the same cost of training, by steps, by calls, and from the same noise."""

from collections.abc import Mapping

import plotly.graph_objects as go
import streamlit as st
import torch

from toydiff import runs
from toydiff.plots import interactive
from toydiff.problems import problem
from toydiff.runs.zoo import RECIPES
from toydiff.studies.scoreboard import RD_CD, STEPS, bundled, bundled_names, pareto, standard, summary, tied

from screen.controls import Choice, Number, Several
from screen.lesson import Lesson, remember

BY_STEPS, BY_CALLS, NOISE = "quality by steps", "quality by calls", "same noise (digits)"
BOARDS = tuple(bundled_names()) or ("ring",)
TEACHER, TEACHER_STEPS = "digits-teacher", 25


@remember
def rows_of(board: str) -> tuple[dict, ...]:
    """A row for each entry and number of steps, distances in floors, and whether it is among the best of its steps."""
    found = bundled(board)
    best = {steps: {row["method"] for row in tied(found, steps)} for steps in found["plan"]["steps"]}
    return tuple(row | {"board": board, "among_best": row["method"] in best[row["steps"]]} for row in summary(found))


def weights_of(method: str) -> str:
    """The bundled weights of digits that stand for an entry; digits-cd begins with Rectified Diffusion."""
    method = "cd" if method == RD_CD else method
    return next(id_ for id_, recipe in RECIPES.items() if id_.startswith("digits-") and recipe.method == method)


@remember
def sample(id_: str, steps: int, seed: int) -> tuple[torch.Tensor, int]:
    """The digits 0 to 9 of bundled weights from one noise, and the calls of each."""
    model = runs.load(id_)
    g = model.about["rows"][0]["guidance_scale"]
    path, _ = runs.sample(model, problem("digits"), 10, steps, cond=torch.arange(10), guidance_scale=g, seed=seed)
    return path.end, path.nfe


def scoreboard(board: str, view: str, methods: tuple[str, ...], steps: int, seed: int) -> tuple[go.Figure, list[dict]]:
    """Every entry's distance in floors against steps or calls, some of them in colour; or digits of some entries'
    bundled weights from one noise, below the teacher's."""
    if view == NOISE:
        sheet, rows = {}, []
        for name, id_, count in [
            ("teacher", TEACHER, TEACHER_STEPS),
            *((method, weights_of(method), steps) for method in methods),
        ]:
            images, nfe = sample(id_, count, seed)
            sheet[f"{name} · {nfe}"] = images
            rows.append({"shown": name, "weights": id_, "steps": count, "nfe": nfe, "seed": seed})
        return interactive.digits(sheet), rows
    rows = sorted(rows_of(board), key=lambda row: (row["steps"] != steps, row["distance"]))
    cost = "steps" if view == BY_STEPS else "nfe"
    least = {count: min(row["distance"] for row in rows if row["steps"] == count) for count in STEPS}
    best = [row for row in rows if row["distance"] == least[row["steps"]]]
    front = sorted(best, key=lambda row: row["steps"]) if view == BY_STEPS else pareto(rows)
    figure = interactive.scoreboard(rows, front, shown=methods, cost=cost)
    return figure, [row | {"view": view} for row in rows]


def words(rows: list[dict]) -> str:
    first = rows[0]
    if "weights" in first:
        return (
            f"Each column is one noise and one digit; beside a name, its network calls a sample. The first row is the "
            f"teacher in {TEACHER_STEPS} steps, the others are bundled students in {plural(rows[-1]['steps'])}. They "
            "were trained for longer than those of the scoreboard, each for its own time. Who adds noise between steps "
            "draws other digits than the teacher."
        )
    here = [row for row in rows if row["steps"] == first["steps"]]
    ties = [row["method"] for row in here if row["among_best"] and row is not first]
    text = (
        f"{len(here)} entries, {first['seeds']} trainings each, {max(row['passes'] for row in rows):,} network passes "
        f"at most. Best in {plural(first['steps'])}: **{first['method']}**, {floors(first)}"
    )
    if ties:
        few = ", ".join(ties[:3]) + (f" and {len(ties) - 3} more" if len(ties) > 3 else "")
        text += f"; noise cannot tell {few} from it"
    if first["view"] == BY_STEPS:
        worst = here[-1]
        return text + f". Last: {worst['method']}, {floors(worst)}. Grey line: the best at each number of steps."
    front = ", ".join(f"{row['method']} ({row['nfe']})" for row in pareto(rows))
    return text + f". On the front, with calls: {front}."


def plural(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def floors(row: Mapping) -> str:
    spread = f" ± {row['distance_std'] / row['floor']:.2f}" if row["distance_std"] is not None else ""
    return f"{row['distance'] / row['floor']:.2f}{spread} floors"


def table(chosen: Mapping) -> None:
    """The rows as a table that sorts by a click on a column's head, whole or filtered by the controls."""
    rows = rows_of(chosen["board"])
    with st.container(horizontal=True):
        only_methods = st.toggle("Only the methods chosen", key="scoreboard-only-methods")
        only_steps = st.toggle("Only this number of steps", value=True, key="scoreboard-only-steps")
    kept = [
        {
            "method": row["method"],
            "steps": row["steps"],
            "NFE": row["nfe"],
            "distance / floor": round(row["distance"] / row["floor"], 3),
            "± over seeds": None if row["distance_std"] is None else round(row["distance_std"] / row["floor"], 3),
            "accuracy": row["accuracy"],
            "begins with": row["begins_with"],
            "updates": row["updates"],
            "passes": row["passes"],
        }
        for row in sorted(rows, key=lambda row: (row["steps"], row["distance"]))
        if (not only_methods or row["method"] in chosen["methods"])
        and (not only_steps or row["steps"] == chosen["steps"])
    ]
    st.dataframe(kept, hide_index=True, key="scoreboard-table")


LESSON = Lesson(
    id="scoreboard",
    menu="Scoreboard",
    icon=":material/leaderboard:",
    title="At one price of training, who is best depends on the number of steps",
    equation=(
        r"\begin{aligned}\text{passes}&=\text{updates}\cdot\text{batch}\\&\quad\cdot(3\,\text{student}+\text{teacher})\\"
        r"&\quad+\text{pairs}+\text{what came before}\end{aligned}"
    ),
    source=(
        "`toydiff scoreboard`: a sample forwards is one pass, backwards two. Distance: sliced Wasserstein (ring), "
        "Fréchet (digits), over that of true samples."
    ),
    controls=(
        Choice("board", "Problem", BOARDS, BOARDS[0]),
        Choice("view", "Show", (BY_STEPS, BY_CALLS, NOISE), BY_STEPS),
        Several("methods", "In colour", standard(), ("naive", "sct", "vsd", "diffusion")),
        Number("steps", "Steps", STEPS, 1),
        Number("seed", "Noise", tuple(range(10)), 0),
    ),
    figure=scoreboard,
    uses=(rows_of, weights_of, sample),
    words=words,
    live=table,
    there=bool(bundled_names()),
    idle={("view", BY_STEPS): ("seed",), ("view", BY_CALLS): ("seed",)},
    together=("board", "view"),
    in_app="The table of all numbers, to sort and to filter, is in the app: `toydiff app`.",
    ask=(
        "All are trained at the same price, pairs and earlier students included. Does the best method in one step stay "
        "the best when you can pay for four, or for twenty-five?",
        "Move the slider and read the name in the words below. Who differs by less than the noise of the seeds and of "
        "the floor is not ranked.",
    ),
    presets={
        "One step": {"steps": 1},
        "Four steps": {"steps": 4},
        "What a call buys": {"view": BY_CALLS, "steps": 4},
        "The deck's table: rectified flow and its relatives": {
            "methods": ["rectified-flow", "instaflow", "rectified-diffusion", RD_CD],
            "steps": 2,
        },
        "Two students from the same noise": {"view": NOISE, "methods": ["rectified-flow", "dmd"], "steps": 1},
    },
)
