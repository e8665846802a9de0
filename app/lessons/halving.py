"""Naive and progressive distillation: a student that copies where the teacher ends, at once or by halves."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff import runs, weights
from toydiff.measure import paired_error
from toydiff.plots import interactive

from screen.controls import Number, Several
from screen.lesson import Lesson, remember

TEACHER, COPIED, NAIVE, PROGRESSIVE = "teacher", "teacher, 16 steps", "naive", "progressive"
EXACT = "exact flow"
IDS = {TEACHER: "ring-teacher", COPIED: "ring-teacher", NAIVE: "ring-naive", PROGRESSIVE: "ring-progressive"}


@remember
def noise_and_ends(noises: int) -> tuple:
    """The ring, noise at t = 1 on the students' schedule, and where the exact flow takes it."""
    ring, on = toydiff.mixture("ring"), toydiff.schedule("scaled-linear")
    noise = torch.randn(noises, 2, generator=torch.Generator().manual_seed(0))
    x = float(on.sigma(torch.ones(()))) * noise
    return ring, noise, x, toydiff.reference(ring.denoiser(on), x.double(), tolerance=1e-6)


def halving(models: tuple[str, ...], steps: int, noises: int) -> tuple[go.Figure, list[dict]]:
    """Where models take the same noise: the teacher in so many DDIM steps, the naive student in 1, progressive in 4."""
    ring, noise, x, exact = noise_and_ends(noises)
    shown, rows = {EXACT: exact}, []
    for name in models:
        count = {TEACHER: steps, COPIED: 16, NAIVE: 1, PROGRESSIVE: 4}[name]
        path = toydiff.solve(runs.load(IDS[name]).denoiser, x, count, solver="ddim", grid="uniform", keep="end")
        shown[name if name == COPIED else f"{name}, {count} step{'s' if count > 1 else ''}"] = path.end.double()
        about = weights.read_about(IDS[name])
        rows.append(
            {
                "model": name,
                "nfe": path.nfe,
                "rms_from_exact": paired_error(path.end.double(), exact).rms,
                "million_passes": 0.0 if name in (TEACHER, COPIED) else about["passes_in_all"] / 1e6,
            }
        )
    return interactive.one_step_planes(noise.double(), shown, ring, true=exact), rows


def words(rows: list[dict]) -> str:
    said = []
    for row in rows:
        cost = (
            f", after {row['million_passes']:.2g} million network passes of training" if row["million_passes"] else ""
        )
        said.append(
            f"**{row['model'].partition(',')[0]}** in {row['nfe']} call{'s' if row['nfe'] > 1 else ''} ends "
            f"{row['rms_from_exact']:.2g} from the exact flow (RMS){cost}"
        )
    return (
        "Each noise has the colour of its end, from where a grey line leads to that of the exact flow. "
        + "; ".join(said)
        + ". A student cannot be nearer to the data than the walk that it copies, except by chance."
    )


LESSON = Lesson(
    id="halving",
    menu="Naive and progressive",
    icon=":material/call_split:",
    title="One step of a student does what takes its teacher sixteen",
    equation=(
        r"\begin{aligned}\text{naive: }&\|x_0^\theta(x_1)-\mathrm{ODE}_N(x_1)\|^2\\"
        r"\text{progressive: }&\|\mathrm{jump}_\theta(x_t,t\to t'')\\&\quad-\mathrm{DDIM}^2(x_t,t\to t'\to t'')\|^2"
        r"\end{aligned}"
    ),
    source="Naive: arXiv 2101.02388. Progressive: arXiv 2202.00512, algorithm 2. Bundled weights of the ring.",
    controls=(
        Several("models", "Models", tuple(IDS), tuple(IDS)),
        Number("steps", "Teacher's steps", (1, 2, 4, 8, 16, 32, 64), 1),
        Number("noises", "Noises", (200, 400, 800, 1600), 400),
    ),
    figure=halving,
    uses=(noise_and_ends,),
    words=words,
    together=("models", "steps"),
    ask=(
        "In one DDIM step the teacher sends every noise to nearly the same blob. What does a student have to learn "
        "that does as well in one call as the teacher in many?",
        "The map from noise to the end of the teacher's walk, with its sharp borders between modes. Naive "
        "distillation regresses it at once; progressive distillation halves the number of steps, again and again.",
    ),
    presets={
        "What one student step has to match": {"models": ["teacher", "progressive"], "steps": 8},
        "How many steps the teacher needs itself": {"models": ["teacher"], "steps": 16},
    },
)
