"""Straight, or first-order? The same paths in x against t, and in y = x/sigma against alpha/sigma."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff import runs
from toydiff.measure import first_orderness, paired_error, straightness
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive

from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson

STEPS = 100


def lines(mixture: GaussianMixture, schedule: str, paths: int) -> tuple[go.Figure, list[dict]]:
    """Exact paths of one data point and of a mixture, and of the ring's Rectified Diffusion student."""
    on = toydiff.schedule(schedule)
    models = {
        "one data point": toydiff.Empirical(torch.tensor([[1.4, 1.4]], dtype=torch.float64)).denoiser(on),
        "the mixture, exact": mixture.denoiser(on),
        "ring, after Rectified Diffusion": toydiff.Rescheduled(runs.load("ring-rectified-diffusion").denoiser, on),
    }
    noise = on.prior((256, 2), 0, dtype=torch.float64)
    drawn, rows = {}, []
    for name, D in models.items():
        # a trained network works in float32
        x = noise.float() if name.startswith("ring") else noise
        path = toydiff.solve(D, x, STEPS)
        once = toydiff.solve(D, x, 1, solver="ddim")
        drawn[name] = path
        rows.append(
            {
                "model": name,
                "schedule": schedule,
                "S": straightness(path, normalised=True),
                "C": first_orderness(path, on, normalised=True),
                "one_step_error": paired_error(once.end, path.end).rms,
            }
        )
    return interactive.lines(drawn, dict.fromkeys(drawn, on), samples=paths), rows


def words(rows: list[dict]) -> str:
    point, exact, after = rows
    return (
        "S says how bent a path is in x, and C which fraction of ε varies along it. Where C = 0 the path is "
        "*first-order*: it is straight in y, and **one step is exact**, however bent it is in x (one data point: "
        f"S = {point['S']:.2g}). One step is off by {exact['one_step_error']:.2g} on the mixture's exact paths "
        f"(C = {exact['C']:.2g}), and by {after['one_step_error']:.2g} on those of the ring's Rectified Diffusion "
        f"student (C = {after['C']:.2g})."
    )


LESSON = Lesson(
    id="lines",
    menu="Straight or first-order?",
    icon=":material/straighten:",
    title="First-order paths are straight in y = x/σ, and need not be straight in x",
    equation=r"y=\frac{x_t}{\sigma_t}=\frac{\alpha_t}{\sigma_t}\,x_0+\varepsilon",
    source=(
        "Rectified Diffusion, arXiv 2410.07303, sec. 3.3; slides 22 to 26 of the lecture deck *The Principle and "
        "Application of Diffusion Acceleration*."
    ),
    controls=(
        Mixture(),
        Choice("schedule", "Schedule", tuple(toydiff.SCHEDULES), "vp"),
        Number("paths", "Paths", (1, 2, 4, 6, 10, 16, 24), 6),
    ),
    figure=lines,
    words=words,
    ask=(
        "Can one step along a bent path end exactly at the path's end?",
        "Yes, where the path is first-order: x₀ and ε stay constant along it. It is straight in y = x/σ, however bent "
        "it is in x.",
    ),
    presets={
        "One path": {"paths": 1},
        "On the linear schedule both agree": {"schedule": "linear"},
    },
)
