"""Time grids and guidance: the same number of steps, spent at other noise levels."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff.measure import paired_error
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.solvers import DEFAULT_SOLVER

from screen.controls import Choice, Mixture, Number, Several
from screen.lesson import Lesson, remember

SAMPLES = 64
SOLVERS = ("ddim", DEFAULT_SOLVER)


@remember
def classes(mixture: GaussianMixture) -> GaussianMixture:
    """The mixture with classes, which guidance needs: a mixture without them gets one a component."""
    if mixture.labels is not None:
        return mixture
    labels = torch.arange(mixture.components)
    return GaussianMixture(mixture.means, cov=mixture.covariances, weights=mixture.weights, labels=labels)


@remember
def exact_ends(mixture: GaussianMixture, schedule: str, g: int) -> tuple:
    """The exact denoiser, noise, a class for each sample, and the ends of the exact guided ODE."""
    on, known = toydiff.schedule(schedule), classes(mixture)
    D = known.denoiser(on)
    _, cond = known.sample_labelled(SAMPLES, 1)
    noise = float(on.sigma(torch.ones(()))) * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    x = noise.double()
    return D, x, cond, toydiff.reference(D, x, cond=cond, guidance_scale=g, tolerance=1e-9)


def grids(
    mixture: GaussianMixture, schedule: str, grids: tuple[str, ...], steps: int, g: int
) -> tuple[go.Figure, list[dict]]:
    """Where the steps of each grid lie, and the error of two solvers that take them."""
    D, x, cond, exact = exact_ends(mixture, schedule, g)
    spread = {"data_std": D.data_std, "guidance_scale": g}  # by which `solve` places the steps
    places = {name: toydiff.time_grid(D.schedule, steps, name, **spread) for name in grids}
    errors, rows = {solver: {} for solver in SOLVERS}, []
    for name in grids:
        for solver in SOLVERS:
            end = toydiff.solve(
                D, x, steps, solver=solver, grid=name, cond=cond, guidance_scale=g, generator=0, keep="end"
            ).end
            errors[solver][name] = paired_error(end, exact).rms
            rows.append({"grid": name, "solver": solver, "steps": steps, "g": g, "error": errors[solver][name]})
    return interactive.time_grids(places, D.schedule, errors=errors), rows


def words(rows: list[dict]) -> str:
    best, worst = (pick(rows, key=lambda row: row["error"]) for pick in (min, max))
    steps, g = rows[0]["steps"], rows[0]["g"]
    text = (
        f"In {steps} steps the error goes from {worst['error']:.2g} (**{worst['solver']}** on {worst['grid']}) to "
        f"**{best['error']:.2g}** (**{best['solver']}** on {best['grid']}), with the same network. "
    )
    favourite = {
        solver: min((row for row in rows if row["solver"] == solver), key=lambda row: row["error"])["grid"]
        for solver in SOLVERS
    }
    if len({row["grid"] for row in rows}) > 1:
        grids = set(favourite.values())
        text += (
            f"The best of these grids for both is {grids.pop()}. "
            if len(grids) == 1
            else "The best grid of each: " + ", ".join(f"{name} {grid}" for name, grid in favourite.items()) + ". "
        )
    if g > 1:
        return text + "Set guidance to 1 to see what guidance costs: nothing else changes."
    return text + "A grid is good for a solver and a problem, and not by itself."


LESSON = Lesson(
    id="grids",
    menu="Time grids and guidance",
    icon=":material/straighten:",
    title="Badly placed steps undo a better solver",
    equation=r"\begin{aligned}\varepsilon_g&=\varepsilon_\varnothing+g\,(\varepsilon_c-\varepsilon_\varnothing)\\"
    r"t_i&:\ \text{equal steps in } t,\ \lambda,\ \mathrm{NSR}^{1/7},\ \dots\end{aligned}",
    source=(
        "Grids: DPM-Solver, arXiv 2206.00927 (equal steps in λ); EDM, 2206.00364, eq. 5 (karras). Guidance: "
        "2207.12598, with g = 1 + ω. Errors: against scipy's DOP853."
    ),
    controls=(
        Mixture(),
        Choice("schedule", "Schedule", tuple(toydiff.SCHEDULES), "vp"),
        Several("grids", "Time grids", tuple(toydiff.GRIDS), ("shifted-lambda", "lambda", "karras", "uniform")),
        Number("steps", "Steps", (3, 5, 8, 10, 15, 20, 30, 50), 8),
        Number("g", "Guidance", (1, 2, 3, 5, 8), 1, "1 is off; each sample is guided towards a class"),
    ),
    figure=grids,
    uses=(classes, exact_ends),
    words=words,
    together=("steps", "g"),
    ask=(
        "Eight steps from noise to data. Where would you put them: equally over time, or more of them at low noise?",
        "It depends on where the path bends. Equal steps in λ = log(α/σ) suit solvers that are exact in λ for a line; "
        "equal steps in t leave the last decades of NSR to one step.",
    ),
    presets={
        "Guidance asks for more": {"g": 5},
        "Many steps: the grid matters less": {"steps": 50},
        "A straight schedule": {"schedule": "linear"},
    },
)
