"""Solvers and orders: error against network calls, and the slope to guess."""

import math

import plotly.graph_objects as go
import torch

import toydiff
from toydiff.measure import fitted_order, paired_error
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.solvers import SOLVERS
from toydiff.studies.orders import FLOOR, WINDOW

from screen.controls import Choice, Mixture, Several
from screen.lesson import Lesson, remember

STEPS = (5, 10, 20, 40, 80, 160)
INNER, HIDDEN = "inner times", "?"
DETERMINISTIC = tuple(name for name, entry in SOLVERS.items() if not entry.solver.stochastic)


@remember
def truth(mixture: GaussianMixture, schedule: str, grid: str) -> tuple:
    """The exact denoiser, states at the grids' first time, their exact ends, and a grid for each number of steps."""
    on = toydiff.schedule(schedule)
    if grid == INNER:  # between two noise levels at which nothing is singular
        grids = {N: on.t_of_lam(torch.linspace(*WINDOW, N + 1, dtype=torch.float64)) for N in STEPS}
    else:
        grids = {N: toydiff.time_grid(on, N, grid, data_std=mixture.data_std) for N in STEPS}
    D = mixture.denoiser(on)
    t, s = (float(end) for end in grids[STEPS[0]][[0, -1]])
    x = mixture.marginal(on, t).sample(32, 0, dtype=torch.float64)
    return D, x, toydiff.reference(D, x, t, s), grids


@remember
def curve(mixture: GaussianMixture, schedule: str, grid: str, solver: str) -> dict:
    """A solver's error at each number of steps, and the slope of the last three."""
    D, x, exact, grids = truth(mixture, schedule, grid)
    runs = [toydiff.solve(D, x, solver=solver, ts=ts, keep="end") for ts in grids.values()]
    error = [paired_error(run.end, exact).rms for run in runs]
    above = [k for k, e in enumerate(error) if e > FLOOR][-3:]  # below, there is rounding only
    slope = fitted_order([STEPS[k] for k in above], [error[k] for k in above]) if len(above) > 1 else float("nan")
    declared = SOLVERS[solver].solver.order
    return {"solver": solver, "declared": declared, "measured": slope, "nfe": [run.nfe for run in runs], "error": error}


def orders(
    mixture: GaussianMixture, schedule: str, grid: str, solvers: tuple[str, ...], guess: str
) -> tuple[go.Figure, list[dict]]:
    """Error against network calls, both in powers of ten; the slopes are shown once there is a guess."""
    rows = [
        curve(mixture, schedule, grid, solver) | {"schedule": schedule, "grid": grid, "guess": guess}
        for solver in solvers
    ]
    return interactive.work_precision(rows, slopes=guess != HIDDEN, floor=FLOOR), rows


def words(rows: list[dict]) -> str:
    known = [row for row in rows if math.isfinite(row["measured"])]
    if not known:
        return "All errors here are rounding: these solvers are exact on this mixture, and have no slope to measure."
    steepest = max(known, key=lambda row: (row["declared"], row["measured"]))
    name, slope, guess = steepest["solver"], steepest["measured"], rows[0]["guess"]
    said = "On these axes a solver is a line whose slope is its order p: twice the calls divide the error by 2ᵖ. "
    if guess == HIDDEN:
        return (
            said + f"**Which order has {name}?** Read it off the line and choose your guess: then all slopes are shown."
        )
    verdict = "right" if abs(float(guess) - slope) < 0.5 else "not what the line says"
    said += (
        f"You guessed {guess} for **{name}**: {verdict}; its last three points fall with slope **{slope:.2f}**, and "
        f"it declares {steepest['declared']}."
    )
    lost = [row for row in known if row["measured"] < row["declared"] - 0.35]
    if lost:
        where = (
            "from pure noise to clean data, an end of the grid can lower the order"
            if rows[0]["grid"] != INNER
            else "the steps are still too few, or the modes too narrow"
        )
        said += (
            " Below their order here: "
            + ", ".join(f"{row['solver']} ({row['measured']:.2f})" for row in lost)
            + f"; {where}."
        )
    return said


LESSON = Lesson(
    id="orders",
    menu="Solvers and orders",
    icon=":material/trending_down:",
    title="A solver is a line, and its order is the slope",
    equation=r"\|x^{\mathrm{solver}}_0-x_0\|\approx C\,N^{-p}",
    source=(
        "Orders: DPM-Solver, arXiv 2206.00927, theorem 3.2; UniPC, arXiv 2302.04867. Errors: float64, against scipy's "
        "DOP853."
    ),
    controls=(
        Mixture(default="random"),
        Choice("schedule", "Schedule", tuple(toydiff.SCHEDULES), "vp"),
        Choice(
            "grid",
            "Time grid",
            (INNER, *toydiff.GRIDS),
            INNER,
            (
                "*inner times*: uniform in λ between NSR 1 and 0.14, where nothing is singular. The others go from "
                "noise to data"
            ),
        ),
        Several("solvers", "Solvers", DETERMINISTIC, ("ddim", "heun", "dpm++2m", "dpm3")),
        Choice("guess", "Guess the slope", (HIDDEN, "1", "2", "3", "4"), HIDDEN),
    ),
    figure=orders,
    uses=(truth, curve),
    words=words,
    ask=(
        "A solver of order 2 makes twice as many steps. By which factor does its error fall?",
        "By 2² = 4. On these axes that is a line of slope 2: its order can be read off the figure.",
    ),
    presets={
        "Guess the order": {"solvers": ["dpm++3m"], "guess": "?"},
        "What a missing factor 2 costs": {"solvers": ["dpm++3m", "dpm++3m-published"], "guess": "3"},
        "The ends of the grid lower the order": {
            "grid": "shifted-lambda",
            "solvers": ["ddim", "dpm3", "dpm++3m", "ab3"],
            "guess": "3",
        },
    },
)
