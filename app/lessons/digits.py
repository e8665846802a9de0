"""Digits: every bundled student beside the teacher, from the same noise."""

import plotly.graph_objects as go
import torch

from toydiff import runs, weights
from toydiff.plots import interactive
from toydiff.problems import problem
from toydiff.runs.zoo import MEASURED, RECIPES
from toydiff.solvers import DEFAULT_SOLVER, SOLVERS
from toydiff.solvers.learned import bundled

from screen.controls import Choice, Number, Several
from screen.lesson import Lesson, remember

TEACHER, TEACHER_STEPS = "teacher", 25
LEARNED = sorted((name.removeprefix("digits-teacher-") for name in bundled()), key=int)
"""The numbers of steps for which a solver was learned for the teacher."""
NONE = "none"
STUDENTS = tuple(
    id_.removeprefix("digits-") for id_ in RECIPES if id_.startswith("digits-") and id_ != "digits-teacher"
)
SAMPLES, QUALITY = "samples", "quality"


@remember
def sample(name: str, steps: int, seed: int, solver: str | None = None) -> tuple[torch.Tensor, dict]:
    """Ten digits, 0 to 9, from one noise, and what is known of such samples: calls, and quality where it is stored.
    solver: None is that of the model's method."""
    model = runs.load(f"digits-{name}")
    stored = model.about["rows"]
    g = stored[0]["guidance_scale"]
    path, _ = runs.sample(
        model, problem("digits"), 10, steps, solver=solver, cond=torch.arange(10), guidance_scale=g, seed=seed
    )
    walked = SOLVERS.get(solver or model.about["sampler"]["solver"])  # None: a learned one
    known = next((row for row in stored if solver is None and row["steps"] == steps), None)
    quality = None if known is None else known["distance"] / known["floor"]
    return path.end, {
        "seed": seed,
        "student": name,
        "steps": steps,
        "nfe": path.nfe,
        "distance_over_floor": quality,
        "accuracy": known and known["accuracy"],
        "adds_noise": steps > 1 and walked is not None and walked.solver.stochastic,
    }


def digits(
    view: str, steps: int, students: tuple[str, ...], undistilled: str, seed: int
) -> tuple[go.Figure, list[dict]]:
    """Rows of digits from the same noise, the teacher's in 25 steps on top, then, if asked for, in a few with the
    default solver and with one that was learned for it; or each student's quality against calls."""
    if view == QUALITY:
        rows = [
            {
                "student": name,
                "steps": row["steps"],
                "nfe": row["nfe"],
                "distance_over_floor": row["distance"] / row["floor"],
                "accuracy": row["accuracy"],
            }
            for name in (TEACHER, *students)
            for row in weights.read_about(f"digits-{name}")["rows"]
            if name != TEACHER or row["solver"] == DEFAULT_SOLVER  # it was measured with an SDE solver as well
        ]
        return interactive.quality(rows), rows
    sheet, rows = {}, []
    shown = [(TEACHER, TEACHER, TEACHER_STEPS, None)]
    if undistilled != NONE:
        few = {"default": DEFAULT_SOLVER, "learned": f"learned:digits-teacher-{undistilled}"}
        shown += [(f"{TEACHER}, {how}", TEACHER, int(undistilled), solver) for how, solver in few.items()]
    for title, name, n, solver in [*shown, *((student, student, steps, None) for student in students)]:
        images, row = sample(name, n, seed, solver)
        good = f"{row['distance_over_floor']:.1f} floors" if row["distance_over_floor"] else "–"
        sheet[f"{title} · {row['nfe']} call{'s' if row['nfe'] > 1 else ''} · {good}"] = images
        both = torch.stack([sheet[next(iter(sheet))].flatten(), images.flatten()])
        rows.append(row | {"correlation": float(torch.corrcoef(both)[0, 1])})
    return interactive.digits(sheet), rows


def words(rows: list[dict]) -> str:
    measured = [row for row in rows if row["student"] != TEACHER and row["distance_over_floor"]]
    top = [row for row in rows if row["student"] == TEACHER and row["distance_over_floor"]]
    if "seed" in rows[0]:
        text = (
            "Beside each name: network calls a sample, two for each step of the guided teacher, and the Fréchet "
            "distance to real digits in floors (–: not stored for this solver and number of steps). One floor is the "
            "distance of held-out real digits. "
        )
        students = [row for row in rows if row["student"] != TEACHER]
        near, far = (pick(students, key=lambda row: row["correlation"]) for pick in (max, min))
        end = f" Pixels correlate with the teacher's by {near['correlation']:.2f} ({near['student']})"
        end += f" down to {far['correlation']:.2f} ({far['student']})." if far is not near else "."
        noisy = [row["student"] for row in students if row["adds_noise"]]
        if noisy:
            few_names = ", ".join(noisy[:4]) + (f" and {len(noisy) - 4} more" if len(noisy) > 4 else "")
            end += f" Noise is added between the steps of {few_names}: they draw other digits than the teacher."
        few = [row for row in rows if row["student"] == TEACHER and row["steps"] != TEACHER_STEPS]
        if few:
            end += (
                f" The second and third rows are the teacher itself in {few[0]['steps']} steps: with the default "
                "solver, and with one whose times and coefficients were learned for it. No network was trained."
            )
    else:
        text = (
            "Each curve is the teacher or one student: the Fréchet distance to real digits in floors, against network "
            "calls a sample. One floor (dashed) is the distance of held-out real digits. "
        )
        end = ""
    if measured and top:
        best, teacher = (min(group, key=lambda row: row["distance_over_floor"]) for group in (measured, top))
        text += (
            f"Best of the students shown: **{best['student']}**, {best['distance_over_floor']:.1f} floors with "
            f"{best['nfe']} call{'s' if best['nfe'] > 1 else ''}; the guided teacher, "
            f"{teacher['distance_over_floor']:.1f} with {teacher['nfe']}."
        )
    return text + end


LESSON = Lesson(
    id="digits",
    menu="Digits",
    icon=":material/pin:",
    title="Students draw in one call what takes the teacher fifty, less well",
    equation=r"\|m_a-m_b\|^2+\mathrm{tr}\big(C_a+C_b-2\sqrt{C_aC_b}\big)",
    source=(
        f"Fréchet distance, arXiv 1706.08500, eq. 6, on features of a small classifier; {MEASURED:,} samples. Weights: "
        "`toydiff zoo`."
    ),
    controls=(
        Choice("view", "Show", (SAMPLES, QUALITY), SAMPLES),
        Number("steps", "Steps of the students", (1, 2, 4, 25), 1),
        Several(
            "students",
            "Students",
            STUDENTS,
            ("naive", "rectified-diffusion", "cd", "dmd2", "adversarial"),
        ),
        Choice(
            "undistilled",
            "Teacher also in few steps",
            (NONE, *LEARNED),
            NONE,
            "One row with the default solver, one with a solver that was learned for this teacher; for samples only",
        ),
        Number("seed", "Noise", tuple(range(10)), 0),
    ),
    figure=digits,
    uses=(sample,),
    words=words,
    idle={("view", QUALITY): ("steps", "undistilled", "seed")},
    ask=(
        "The teacher needs 25 steps of two calls for a digit. From the same noise, does a student of one step draw the "
        "teacher's digit?",
        "Most come near it; the words below the figure say how near. In more steps those that add noise between steps "
        "draw other digits, as likely.",
    ),
    presets={
        "All students in four steps": {"steps": 4, "students": list(STUDENTS)},
        "One step: naive against the rest": {
            "steps": 1,
            "students": ["naive", "rectified-diffusion", "cd", "vsd", "sim"],
        },
        "No distillation: a solver learned for the teacher": {
            "undistilled": "5",
            "students": ["cd"],
        },
        "Quality against calls": {"view": QUALITY, "students": list(STUDENTS)},
    },
)
