"""PF-ODE trajectories: two solvers from the same noise."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff.measure import paired_error
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.plots.paths import at_data_scale
from toydiff.solvers import DEFAULT_SOLVER, SOLVERS

from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson, remember
from screen.mixtures import parts_of

PARTICLES = 64
WIDE = 10.0
"""Noise of a larger standard deviation is drawn at the scale of data."""


@remember
def start(mixture: GaussianMixture, schedule: str) -> tuple:
    """The exact denoiser, noise at t = 1, and where the exact flow takes it."""
    D = mixture.denoiser(toydiff.schedule(schedule))
    noise = mixture.marginal(D.schedule, 1.0).sample(PARTICLES, 0, dtype=torch.float64)
    return D, noise, toydiff.reference(D, noise, tolerance=1e-6)


def paths(mixture: GaussianMixture, schedule: str, a: str, b: str, steps: int) -> tuple[go.Figure, list[dict]]:
    """Two solvers from the same noise, over the density; the slider is the time."""
    D, noise, exact = start(mixture, schedule)
    wide = float(D.schedule.sigma(torch.ones(()))) > WIDE
    drawn, solvers, rows = {}, {}, []
    for side, solver in (("A", a), ("B", b)):
        path = toydiff.solve(D, noise, steps, solver=solver, generator=0)
        error = paired_error(path.end, exact).rms
        name = f"{side}: {solver}, {path.nfe} call{'s' if path.nfe > 1 else ''}, error {error:.2g}"
        name += ", drawn as x/√(α²+σ²)" if wide else ""
        drawn[name], solvers[name] = at_data_scale(path, D.schedule) if wide else path, solver
        rows.append(
            {
                "side": side,
                "solver": solver,
                "steps": steps,
                "nfe": path.nfe,
                "rms_error": error,
                "modes": mixture.components,
            }
        )
    return interactive.trajectories(drawn, mixture, solvers=solvers, exact=exact), rows


def layers(mixture: GaussianMixture, schedule: str, a: str, b: str, steps: int) -> dict:
    """The mixture and the levels of the slider, for the score field, the modes and the exact path of a dot."""
    D, *_ = start(mixture, schedule)
    ts = toydiff.time_grid(D.schedule, steps, data_std=D.data_std)
    levels = torch.stack([D.schedule.alpha(ts), D.schedule.sigma(ts)], 1).tolist()
    return {
        "mixture": parts_of(mixture),
        "schedule": schedule,
        "size": D.data_std,
        "levels": [{"alpha": alpha, "sigma": sigma} for alpha, sigma in levels],
        "wide": levels[0][1] > WIDE,
    }


def words(rows: list[dict]) -> str:
    near, far = sorted(rows, key=lambda row: row["rms_error"])
    steps = f"{near['steps']} step{'s' if near['steps'] > 1 else ''}"
    text = "From each noise the ODE has **one** exact end (its ring). "
    if near["solver"] == far["solver"]:
        text += f"With {steps} **{near['solver']}** ends {near['rms_error']:.2g} away from it. "
    else:
        times = far["rms_error"] / max(near["rms_error"], 1e-12)
        text += (
            f"With {steps} **{near['solver']}** ends {near['rms_error']:.2g} away from it, **{far['solver']}** "
            f"{far['rms_error']:.2g}"
        )
        text += f": {times:.1f} times as far. " if 1.05 < times < 1e6 else ". "
    wanders = dict.fromkeys(row["solver"] for row in rows if SOLVERS[row["solver"]].solver.stochastic)
    if wanders:
        return text + (
            f"The noise added by {' and '.join(wanders)} on the way makes another sample of the same density, which "
            "need not end there."
        )
    if near["modes"] == 1:
        return text + "With one mode a particle has nothing to decide."
    return text + "Move the time to see where paths turn: between noise and data, where a particle chooses its mode."


LESSON = Lesson(
    id="paths",
    menu="PF-ODE trajectories",
    icon=":material/timeline:",
    title="From the same noise, a better solver ends nearer to the exact end",
    equation=r"\frac{dx}{dt}=\alpha'_t\,\hat x_0(x,t)+\sigma'_t\,\hat\varepsilon(x,t)",
    source="The probability-flow ODE, arXiv 2011.13456, eq. 13, with x_t = α x₀ + σ ε; t = 1 is noise, t = 0 data.",
    controls=(
        Mixture(),
        Choice("schedule", "Schedule", tuple(toydiff.SCHEDULES), "vp"),
        Choice("a", "Solver A", tuple(SOLVERS), "ddim"),
        Choice("b", "Solver B", tuple(SOLVERS), DEFAULT_SOLVER),
        Number("steps", "Steps", (*range(1, 21), 25, 30, 40, 50), 5),
    ),
    figure=paths,
    uses=(start,),
    layers=layers,
    words=words,
    ask=(
        "Two solvers start from the same noise, and make the same number of network calls. Where does the one of "
        "higher order end: on other modes, or nearer to the exact ends?",
        "Nearer to the exact ends, the rings. Both follow the same differential equation: a better solver makes "
        "another error, not another sample.",
    ),
    presets={
        "Why DDIM with 5 steps is bad": {"a": "ddim", "b": DEFAULT_SOLVER, "steps": 5},
        "An SDE wanders": {"a": "ddpm", "b": "ddim", "steps": 50},
    },
)
