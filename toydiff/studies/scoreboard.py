"""Every method on equal terms: the same teacher, network, noises and total cost, over seeds.

A cell is a method with a seed. It may train as many samples as its budget allows: the network passes of its updates,
of its pairs and of the students that it begins with, where a sample forwards counts 1 and backwards 2
(`runs.cost.passes_of_update`). Cells are independent: they run in any order, in parallel, on many machines, and a cell
that was interrupted goes on.
"""

import functools
import math
import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..catalog import METHODS
from ..denoisers import Denoiser, LambdaDenoiser
from ..distill.progressive import stages
from ..plots import static
from ..problems import Problem, problem
from ..problems.pairs import Pairs, Recipe, save_pairs
from ..runs.cost import passes_of_update
from ..support.checks import check_count, unknown
from ..support.files import check_folder, writable_folder, write_bytes, write_json, write_text
from ..support.sealed import VERSION, read_index, write_index
from ..support.words import plural

FORMAT = "toydiff-scoreboard"
STEPS = (1, 2, 4, 8, 25)
BUDGETS = {"points": 2_000_000, "images": 200_000}
"""Network passes of a cell, by the scale of the problem."""
TEACHERS = {"mixture:ring": "ring-teacher", "digits": "digits-teacher"}
"""Bundled teachers; any other problem has its own, exact one."""
GUIDANCE = {"points": 1.0, "images": 1.5}
"""The guidance scale of the teacher: built into students that take it, and of all others when they are sampled."""
WIDEST = 3.0
"""The largest guidance scale that students learn which are told it."""
BEFORE = {"instaflow": "rectified-flow", "adversarial": "cd"}
"""What a method begins with where it is not the teacher's weights."""
FRESH = ("diffusion", "flow-matching")
"""Methods that train a model from nothing, as the teacher was."""
NOTHING, OWN = "nothing", "the teacher's weights"
"""What entries begin with that are no students of students."""
PAIRS_SHARE = 0.2
"""The part of a budget that pairs may cost."""
PAIR_STEPS = {"points": 20, "images": 10}
PLAN, CELLS, RUNS, RESULT = "plan.json", "cells", "runs", "scoreboard.json"
RD_CD = "rectified-diffusion+cd"
"""The deck's "Rectified Diffusion (CD)"."""
BUNDLED = Path(__file__).parent / "bundled"
"""Scoreboards that come with the library, a file each."""
ANOTHER = "another-teacher"
"""The folder inside it of those whose teacher is not bundled."""
LEAST_SEEDS = 3
"""Of a scoreboard that is bundled."""
IN_A_CELL = ("method", "seed", "begins_with", "updates", "passes")
IN_A_ROW = ("steps", "nfe", "rounds", "teacher_calls", "distance", "accuracy", "floor", "floor_std")
"""What a bundled scoreboard keeps."""


def names() -> list[str]:
    """The methods that may stand on a scoreboard: those for all problems of vectors."""
    return [card.id for card in METHODS.values() if card.only is None]


def standard() -> tuple[str, ...]:
    """What stands on a scoreboard unless methods are named: all of them, and the deck's chain of two."""
    return (*names(), RD_CD)


@dataclass(frozen=True)
class Plan:
    """What a scoreboard compares. `ValueError` for an unknown name, or numbers that are too small."""

    problem: str
    methods: tuple[str, ...]
    """Each a method, or several joined by +, each of which begins with the one before it: rectified-diffusion+cd."""
    seeds: int = 3
    budget: int = 0
    """Network passes; 0 is that of the problem's scale."""
    steps: tuple[int, ...] = STEPS
    n: int = 0
    """The samples of a measurement; 0 is the problem's own number."""
    teacher: str | None = None
    """A run's folder or the id of bundled weights; None is the bundled teacher, or a problem's own exact one."""

    def __post_init__(self) -> None:
        for chain in self.methods:
            for method in chain.split("+"):
                if method not in names():
                    raise unknown("method of the scoreboard", method, names())
        if len(set(self.methods)) < len(self.methods) or not self.methods:
            raise ValueError(f"name each method once, and at least one, got {', '.join(self.methods) or 'none'}")
        check_count(self.seeds, "seeds")
        check_count(self.budget, "budget", 0)
        check_count(self.n, "n", 0)
        for count in self.steps:
            check_count(count, "each of the steps")
        if self.opened.scale not in BUDGETS:
            raise ValueError(
                f"a scoreboard is of points or images, and {self.problem} is of {self.opened.scale}; "
                "allowed: mixture:NAME, digits"
            )

    @property
    def opened(self) -> Problem:
        """The problem."""
        return _problem(self.problem)

    @property
    def passes(self) -> int:
        """The budget, in network passes."""
        return self.budget or BUDGETS[self.opened.scale]

    @property
    def guidance_scale(self) -> float:
        """The teacher's."""
        return GUIDANCE[self.opened.scale] if self.opened.conditional else 1.0

    @property
    def teaches(self) -> tuple[str, Denoiser]:
        """The teacher's name in files, and the teacher. `ValueError` for one that is missing or of another problem."""
        name, model = runs.teacher_of(self.opened, TEACHERS.get(self.problem) if self.teacher is None else self.teacher)
        return name, runs.of_vectors(model, "scoreboards are")

    def cells(self) -> list[tuple[str, int]]:
        """(method, seed) of all cells, in order."""
        return [(method, seed) for method in self.methods for seed in range(self.seeds)]


@functools.cache
def _problem(name: str) -> Problem:
    """The problem of a name. It keeps the floors that it has measured."""
    return problem(name)


def run_cell(plan: Plan, method: str, seed: int, folder: Path) -> dict:
    """Train and measure one cell, and write its file; what is there is not done again. Returns what the file says.

    {rows, method, seed, updates, passes, begins_with, seconds}: rows as those of `runs.evaluate`, without seconds, so
    that the same cell gives the same rows.
    """
    file = folder / CELLS / f"{method}-{seed}.json"
    if file.exists():
        return read_index(file, FORMAT, "cell of a scoreboard", ("rows",))
    chain = stages_of(method)
    work = folder / RUNS / f"{method}-{seed}"
    model, spent = None, 0
    for i, stage in enumerate(chain):
        allowed = (plan.passes - spent) // (len(chain) - i)
        model, passes = _train_stage(plan, stage, seed, allowed, model, work / f"{i}-{stage}")
        spent += passes
    assert model is not None
    guided = _takes_guidance(chain[-1]) or plan.guidance_scale == 1
    rows = runs.evaluate(
        model,
        plan.opened,
        steps=plan.steps,
        n=plan.n or None,
        guidance_scale=1.0 if guided else plan.guidance_scale,
    )
    cell = {
        "format": FORMAT,
        "version": VERSION,
        "method": method,
        "seed": seed,
        "begins_with": _begins_with(chain),
        "updates": model.about["updates"],
        "passes": spent,
        "seconds": model.about["seconds"],
        "seconds_of_sampling": [row["seconds"] for row in rows],
        "rows": [{k: v for k, v in row.items() if k != "seconds"} | {"seed_of_training": seed} for row in rows],
    }
    write_index(file, cell)
    return cell


def stages_of(method: str) -> list[str]:
    """The trainings of an entry, one after another: what it begins with, and what + joins."""
    chain = method.split("+")
    return [BEFORE[chain[0]], *chain] if chain[0] in BEFORE else chain


def _begins_with(chain: Sequence[str]) -> str:
    if len(chain) > 1:
        return " and ".join(chain[:-1])
    return NOTHING if chain[0] in FRESH else OWN


def _takes_guidance(method: str) -> bool:
    """Whether a student has the teacher's guidance built in."""
    fields = METHODS[method].knobs.__dataclass_fields__
    return METHODS[method].needs == "pairs" or "guidance_scale" in fields or method == "pcm"


def _changes(plan: Plan, method: str) -> dict[str, Any]:
    """The knobs that a scoreboard sets: guidance, where there is any."""
    g = plan.guidance_scale
    fields = METHODS[method].knobs.__dataclass_fields__
    if g == 1:  # the teacher of an unconditional problem knows no labels
        return {"g_min": 1.0, "g_max": 1.0} if method == "guided" else {}
    if "guidance_scale" in fields:
        return {"guidance_scale": g}
    if "g_min" in fields:
        return {"g_min": g, "g_max": g} if method == "pcm" else {"g_min": 1.0, "g_max": WIDEST}
    return {}


def _train_stage(
    plan: Plan, method: str, seed: int, allowed: int, before: runs.Model | None, folder: Path
) -> tuple[runs.Model, int]:
    """One training of a cell, and the passes that it cost. before: the result of the last one."""
    on, card = plan.opened, METHODS[method]
    name, own = plan.teaches
    teaches = before is not None and method == "instaflow"  # its pairs are of the flow, which it begins with
    teacher = before.denoiser if before is not None and teaches else own
    start = None if method in FRESH else teacher if before is None else before.denoiser
    pairs: Pairs | None = None
    if card.needs == "pairs":
        g = 1.0 if teaches else plan.guidance_scale
        steps = PAIR_STEPS[on.scale]
        calls = steps * runs.of_vectors(teacher, "pairs are").calls_at(g)
        n = max(int(PAIRS_SHARE * allowed) // calls, 1)
        walk = {"solver": "ddim", "grid": "uniform"} if teaches else {}
        recipe = Recipe(n=n, steps=steps, guidance_scale=g, seed=seed, **walk)
        pairs = save_pairs(
            on,
            runs.of_vectors(teacher, "pairs are"),
            recipe,
            folder / "pairs",
            teacher_name=f"what {method} begins with" if teaches else name,
        )
    given: dict[str, Any] = {
        "seed": seed,
        "teacher": None if card.needs == "nothing" else teacher,
        "start": start if isinstance(start, LambdaDenoiser) else None,
        "pairs": pairs,
    }
    changes = _changes(plan, method)
    per_update = passes_of_update(runs.train(method, on, changes=changes, **given).training)
    paid = 0 if pairs is None else pairs.teacher_calls
    updates = max((allowed - paid) // per_update, 1)
    if method == "progressive":
        settings: Any = runs.knobs(method, on, changes)
        count = len(stages(settings.first, settings.last))
        updates = max(updates // count, 1) * count
    run = runs.train(method, on, out=folder / "run", changes=changes | {"updates": updates}, resume=True, **given)
    model = run.finish()
    return model, paid + updates * per_update


def run(
    plan: Plan, out: Path | str, *, jobs: int = 1, shard: tuple[int, int] = (1, 1), progress: bool = False
) -> list[dict]:
    """Run the cells of a shard that are still to be done, and return all cells that are there.

    out: a folder, which keeps the plan, the cells and their trainings; the same call goes on where it was stopped.
    jobs: processes at a time, by joblib. shard: (i, m), every m-th cell from the i-th on; each of m machines takes one.
    `ValueError` where the folder holds another plan.
    """
    from joblib import Parallel, delayed  # type: ignore[import-untyped]
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]
    from tqdm import tqdm

    i, m = shard
    if not 1 <= i <= check_count(m, "the shards"):
        raise ValueError(f"a shard is i/m with i from 1 to m, got {i}/{m}")
    check_count(jobs, "jobs")
    of = None if plan.teacher is None else plan.teaches[1].content()  # before there is a folder
    folder = writable_folder(out)
    keep_plan(plan, folder, of)
    for name in (CELLS, RUNS):
        (folder / name).mkdir(exist_ok=True)
    left = [cell for cell in plan.cells()[i - 1 :: m] if not _file(folder, *cell).exists()]
    parallel = Parallel(jobs, return_as="generator_unordered")
    work = parallel(delayed(_cell)(plan, *cell, folder) for cell in left)
    try:
        for _ in tqdm(work, total=len(left), desc="scoreboard", unit="cell", disable=not progress):
            pass
    finally:
        if jobs > 1:  # what is interrupted goes on no longer
            get_reusable_executor().shutdown(kill_workers=True)
    return [cell for cell in (read_cell(folder, *cell) for cell in plan.cells()) if cell is not None]


def _cell(plan: Plan, method: str, seed: int, folder: Path) -> None:
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is one of processes, of which an interrupted one would complain
    run_cell(plan, method, seed, folder)


def _file(folder: Path, method: str, seed: int) -> Path:
    return folder / CELLS / f"{method}-{seed}.json"


def read_cell(folder: Path, method: str, seed: int) -> dict | None:
    """What a cell's file says; None where it is not done."""
    file = _file(folder, method, seed)
    return read_index(file, FORMAT, "cell of a scoreboard", ("rows",)) if file.exists() else None


def keep_plan(plan: Plan, folder: Path, teacher_content: str | None = None) -> None:
    """Write the plan into a folder. `ValueError` where there is another one. teacher_content: what the weights of a
    teacher of one's own are, which are others once it is trained on."""
    wanted = {"format": FORMAT, "version": VERSION, **json_of(plan)}
    if teacher_content is not None:
        wanted["teacher_content"] = teacher_content
    file = folder / PLAN
    if file.exists():
        found = read_index(file, FORMAT, "plan of a scoreboard", ("problem",))
        for key, value in wanted.items():
            if found.get(key) != value:
                raise ValueError(
                    f"the folder {str(folder)!r} holds a scoreboard with {key} = {found.get(key)!r}, not {value!r}; "
                    "choose another folder, or the same settings"
                )
    else:
        write_index(file, wanted)


def json_of(plan: Plan) -> dict:
    """A plan as JSON, its defaults resolved."""
    return asdict(plan) | {
        "methods": list(plan.methods),
        "steps": list(plan.steps),
        "budget": plan.passes,
        "n": plan.n or plan.opened.sizes.evaluated,
    }


def planned(folder: Path | str) -> Plan:
    """The plan that a folder holds. `ValueError` where there is none."""
    found = read_index(check_folder(folder) / PLAN, FORMAT, "plan of a scoreboard", ("problem", "methods"))
    return Plan(
        found["problem"],
        tuple(found["methods"]),
        found["seeds"],
        found["budget"],
        tuple(found["steps"]),
        found["n"],
        found.get("teacher"),
    )


def merge(folder: Path | str) -> dict:
    """All cells of a folder as one scoreboard: {plan, cells, rows}, rows as `summary` makes them.

    It is written as JSON, a table in Markdown, and two figures. `ValueError` where cells lack.
    """
    folder = check_folder(folder)
    plan = planned(folder)
    found = {cell: read_cell(folder, *cell) for cell in plan.cells()}
    lacking = [f"{method}, seed {seed}" for (method, seed), cell in found.items() if cell is None]
    if lacking:
        raise ValueError(
            f"{plural(len(lacking), 'cell')} of {len(found)} in {str(folder)!r} not done, such as {lacking[0]}; "
            "run the shards that lack"
        )
    board: dict[str, Any] = {"plan": json_of(plan), "cells": list(found.values())}
    board["rows"] = rows = summary(board)
    title = f"{plan.problem}: {plan.passes:,} network passes each, {plural(plan.seeds, 'seed')}"
    for name, figure in (
        ("quality", static.scoreboard(rows, title=title)),
        ("cost", static.scoreboard_cost(rows, pareto(rows), title=title)),
    ):
        write_bytes(folder / f"{name}.png", static.png(figure))
    write_text(folder / "scoreboard.md", markdown(board) + "\n")
    write_json(folder / RESULT, board)
    return board


def bundle(board: Mapping, into: Path | str = BUNDLED) -> Path:
    """Put a merged scoreboard beside those that come with the library, and return its file.

    One of a teacher of one's own goes into a folder of its own, and says how that teacher was trained: it shows whether
    the order of the other one holds with another teacher, for which one seed will do. `ValueError` where the scoreboard
    lacks a method or a number of steps of the standard one, or has too few seeds.
    """
    plan = dict(board["plan"])
    if lacking := [*(set(standard()) - set(plan["methods"])), *map(str, set(STEPS) - set(plan["steps"]))]:
        raise ValueError(f"a bundled scoreboard has all methods and steps, and this one lacks {', '.join(lacking)}")
    folder = Path(into)
    if plan.get("teacher") is not None:
        about = runs.load(plan["teacher"]).about
        plan["teacher"] = {key: about[key] for key in ("method", "seed", "updates", "knobs")}
        folder = folder / ANOTHER
    elif plan["seeds"] < LEAST_SEEDS:
        raise ValueError(f"a bundled scoreboard has {LEAST_SEEDS} seeds or more, and this one has {plan['seeds']}")
    cells = [
        {key: cell[key] for key in IN_A_CELL} | {"rows": [_short(row) for row in cell["rows"]]}
        for cell in board["cells"]
    ]
    file = writable_folder(folder) / f"{plan['problem'].removeprefix('mixture:')}.json"
    write_index(file, {"format": FORMAT, "version": VERSION, "plan": plan, "cells": cells})
    return file


def _short(row: Mapping) -> dict:
    """What is kept of a row, to six digits."""
    return {key: float(f"{row[key]:.6g}") if isinstance(row[key], float) else row[key] for key in IN_A_ROW}


def bundled_names() -> list[str]:
    """The scoreboards that come with the library, by name."""
    return sorted((file.stem for file in BUNDLED.glob("*.json")), reverse=True)


def bundled(name: str) -> dict:
    """A scoreboard that comes with the library, {plan, cells}, such as "ring". `ValueError` for another name."""
    if name not in bundled_names():
        raise unknown("bundled scoreboard", name, bundled_names() or ["none yet"])
    return read_index(BUNDLED / f"{name}.json", FORMAT, "bundled scoreboard", ("plan", "cells"))


def of_another_teacher(name: str) -> dict:
    """The bundled scoreboard of the same problem whose teacher is another one. `ValueError` where there is none."""
    file = BUNDLED / ANOTHER / f"{name}.json"
    return read_index(file, FORMAT, "bundled scoreboard of another teacher", ("plan", "cells"))


def summary(board: Mapping) -> list[dict]:
    """A row for each method and number of steps: method, steps, nfe, distance and accuracy (mean, std over seeds),
    floor, floor_std, rounds, teacher_calls, passes, updates, begins_with, seeds."""
    rows = []
    for method in board["plan"]["methods"]:
        cells = [cell for cell in board["cells"] if cell["method"] == method]
        for k, steps in enumerate(board["plan"]["steps"]):
            own = [cell["rows"][k] for cell in cells]
            accuracies = [row["accuracy"] for row in own if row["accuracy"] is not None]
            distances = [row["distance"] for row in own]
            rows.append(
                {
                    "method": method,
                    "steps": steps,
                    "nfe": own[0]["nfe"],
                    "rounds": own[0]["rounds"],
                    "teacher_calls": own[0]["teacher_calls"],
                    "distance": statistics.mean(distances),
                    "distance_std": statistics.stdev(distances) if len(own) > 1 else None,
                    "accuracy": statistics.mean(accuracies) if accuracies else None,
                    "floor": own[0]["floor"],
                    "floor_std": own[0]["floor_std"],
                    "passes": max(cell["passes"] for cell in cells),
                    "updates": cells[0]["updates"],
                    "begins_with": cells[0]["begins_with"],
                    "seeds": len(own),
                }
            )
    return rows


def entries(board: Mapping) -> set[tuple[str, int]]:
    """(method, steps) of all that a scoreboard measures."""
    return {(method, steps) for method in board["plan"]["methods"] for steps in board["plan"]["steps"]}


def markdown(board: Mapping) -> str:
    """The scoreboard as a table in Markdown: the distance over its floor, by steps, mean ± deviation over seeds."""
    rows, steps = summary(board), board["plan"]["steps"]
    best = {n: min(row["distance"] for row in rows if row["steps"] == n) for n in steps}
    head = ["method", "begins with", "updates", "million passes", *(f"{plural(n, 'step')}" for n in steps)]
    lines = [head, ["---"] * len(head)]
    for method in board["plan"]["methods"]:
        own = [row for row in rows if row["method"] == method]
        cells = []
        for row in own:
            text = f"{row['distance'] / row['floor']:.2f}"
            if row["distance_std"] is not None:
                text += f" ± {row['distance_std'] / row['floor']:.2f}"
            # none is ahead of another within the floor's own spread
            cells.append(f"**{text}**" if row["distance"] <= best[row["steps"]] + row["floor_std"] else text)
        first = own[0]
        lines.append(
            [f"`{method}`", first["begins_with"], str(first["updates"]), f"{first['passes'] / 1e6:.2f}", *cells]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HOLDS, NOT, WITHIN = "holds", "does not", "within noise"


@dataclass(frozen=True)
class Verdict:
    """Whether one entry is better than another: (method, steps) of both, the difference of their distances in standard
    errors, positive where the first one is better, and the word for it."""

    better: tuple[str, int]
    worse: tuple[str, int]
    difference: float
    errors: float
    word: str
    seeds: int
    """Of each entry."""

    @property
    def seeds_needed(self) -> float:
        """Seeds after which a difference of this size and spread would be two standard errors; infinite for none."""
        return math.inf if self.errors == 0 else max(self.seeds, math.ceil(self.seeds * (2 / self.errors) ** 2))


def verdict(board: Mapping, better: tuple[str, int], worse: tuple[str, int]) -> Verdict:
    """Compare two entries over seeds: the difference of the means over its standard error, sqrt(s_1^2/n + s_2^2/n).

    "holds" above 2, "does not" below -2, else "within noise", as also where the difference is below the floor's own
    deviation. `ValueError` for an entry that is not there, or fewer than two seeds.
    """
    rows = {(row["method"], row["steps"]): row for row in summary(board)}
    for entry in (better, worse):
        if entry not in rows:
            raise ValueError(f"the scoreboard has no {entry[0]} in {plural(entry[1], 'step')}")
        if rows[entry]["seeds"] < 2:
            raise ValueError("a verdict needs two seeds or more")
    a, b = rows[better], rows[worse]
    difference = b["distance"] - a["distance"]
    error = math.sqrt((a["distance_std"] ** 2 + b["distance_std"] ** 2) / a["seeds"])
    errors = difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0
    small = abs(errors) <= 2 or abs(difference) < a["floor_std"]
    word = WITHIN if small else HOLDS if difference > 0 else NOT
    return Verdict(better, worse, difference, errors, word, a["seeds"])


def tied(board: Mapping, steps: int, methods: Sequence[str] | None = None) -> list[dict]:
    """The row with the least distance in a number of steps, and after it those that `verdict` cannot tell from it.

    methods: among which; None is all. `ValueError` where the board has none of them, or one seed.
    """
    rows = [row for row in summary(board) if row["steps"] == steps and (methods is None or row["method"] in methods)]
    if not rows:
        raise ValueError(f"the scoreboard has none of these methods in {plural(steps, 'step')}")
    first, *others = sorted(rows, key=lambda row: row["distance"])
    best = (first["method"], steps)
    return [first, *(row for row in others if verdict(board, best, (row["method"], steps)).word == WITHIN)]


def pareto(rows: Sequence[Mapping], cost: str = "nfe") -> list[Mapping]:
    """The rows that no other row beats in both cost and distance, by rising cost."""
    front: list[Mapping] = []
    for row in sorted(rows, key=lambda row: (row[cost], row["distance"])):
        if not front or row["distance"] < front[-1]["distance"]:
            front.append(row)
    return front
