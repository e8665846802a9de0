"""Picard and Parareal: the whole path at once, sweep by sweep."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.plots.paths import at_data_scale
from toydiff.solvers import PARALLEL, Parareal
from toydiff.studies.parallel_sampling import compare

from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson

SWEEPS, SPENT = "sweeps", "cost"
STRICT = 1e-8
"""A tolerance so small that what is accepted is as good as exact."""
WIDE = 10.0
"""Noise of a larger standard deviation is drawn at the scale of data: x/√(α²+σ²)."""
NEAR = 0.01
"""How near to the end of the step-by-step walk a sample is taken to be there."""


def picard(
    mixture: GaussianMixture, schedule: str, sampler: str, steps: int, view: str
) -> tuple[go.Figure, list[dict]]:
    """A parallel sampler's sweeps, and their errors to the step-by-step walk; or what all parallel samplers spend."""
    if view == SPENT:
        rows = compare(mixture, steps=(steps,), schedule=schedule, samples=64, cost=0.0)
        return interactive.spent(rows), rows
    on = toydiff.schedule(schedule)
    D = mixture.denoiser(on)
    noise = mixture.marginal(on, 1.0).sample(64, 0, dtype=torch.float64)
    walk = toydiff.solve(D, noise, steps, solver="ddim", grid="uniform")
    blocks = Parareal().blocks_of(steps) if sampler == "parareal" else steps
    path = toydiff.solve(D, noise, steps, solver=f"{sampler}:tolerance={STRICT}", grid="uniform")
    missed = path.errors(walk.xs)[:, -1].quantile(0.5, dim=1).tolist()
    near = next((k for k, error in enumerate(missed) if error <= NEAR), len(missed) - 1)  # the sweep on show
    rows = [
        {
            "sampler": sampler,
            "T": steps,
            "blocks": blocks,
            "sweep": k,
            "rounds": rounds,
            "accepted": front,
            "median_error": error,
            "on_show": k == near,
        }
        for k, (rounds, front, error) in enumerate(zip(path.sweep_rounds, path.fronts, missed, strict=True))
    ]
    if float(on.sigma(torch.ones(()))) > WIDE:
        path, walk = (at_data_scale(one, on) for one in (path, walk))
    drawn = {"samples": 24, "block": steps // blocks, "active": near}
    return interactive.staircase(path, mixture, exact=walk.xs, **drawn), rows


def words(rows: list[dict]) -> str:
    if "method" in rows[0]:
        by = {row["method"]: row for row in rows}
        walk = by.pop("sequential")
        best = min(by.values(), key=lambda row: row["rounds"])
        fewer = "" if best["rounds"] < walk["rounds"] else " With so few steps nothing is gained."
        return (
            f"**{best['method']}** needs {best['rounds']} rounds where the step-by-step walk needs {walk['rounds']}, "
            f"and pays {best['nfe'] / walk['nfe']:.1f} times the calls.{fewer} Here that took {best['seconds']:.3g} s "
            f"against {walk['seconds']:.3g} s. On a device with room to spare a call costs the same for any batch: "
            "the last panel adds 20 ms for each round, which is assumed, not measured."
        )
    last = rows[-1]
    [near] = [row for row in rows if row["on_show"]]
    there = "is" if near["median_error"] <= NEAR else "is not yet"
    if last["sampler"] == "parareal":
        how = (
            f"A coarse walk guesses, and a fine one corrects all {last['blocks']} blocks of "
            f"{last['T'] // last['blocks']} steps at once. After k sweeps the first k blocks are certainly exact "
            "(solid stairs)"
        )
    else:
        how = (
            f"Each sweep improves all {last['T']} steps in one round of calls. After k sweeps the first k points are "
            "certainly exact (solid stairs)"
        )
    return (
        f"{how}, so {last['blocks']} sweeps always suffice. On show: after sweep {near['sweep']}, that is "
        f"**{near['rounds']}** rounds of calls, the median sample {there} within {NEAR:g} of the end of the "
        f"step-by-step walk. All points are accepted to 1e-8 (dashed) after {last['rounds']} rounds."
    )


LESSON = Lesson(
    id="picard",
    menu="Picard and Parareal",
    icon=":material/stairs:",
    title="After k sweeps the first k points are exact: fewer rounds, more calls",
    equation=(
        r"\begin{aligned}x^{k+1}_{i}&=x_0+\textstyle\sum_{j<i}\big(\Phi_j(x^{k}_j)-x^{k}_j\big)\\ "
        r"U^{k+1}_{n+1}&=G(U^{k+1}_n)+F(U^k_n)-G(U^k_n)\end{aligned}"
    ),
    source=(
        "Picard: ParaDiGMS, arXiv 2305.16317, alg. 1; Φ is one step. Parareal: SRDS, arXiv 2412.08292; G and F "
        "are a block's coarse and fine walk."
    ),
    controls=(
        Mixture(default="random"),
        Choice("schedule", "Schedule", tuple(toydiff.SCHEDULES), "scaled-linear"),
        Choice("sampler", "Parallel sampler", tuple(PARALLEL), "picard"),
        Number("steps", "T (steps)", (2, 4, 8, 10, 16, 20, 25, 30, 40, 50, 64, 80, 100), 40),
        Choice(
            "view",
            "Show",
            (SWEEPS, SPENT),
            SWEEPS,
            "*sweeps*: the path after each sweep. *cost*: rounds, calls and seconds of all samplers",
        ),
    ),
    figure=picard,
    words=words,
    idle={("view", SPENT): ("sampler",)},
    together=("sampler", "steps"),
    ask=(
        "Step by step, 40 steps need 40 rounds of calls, one after another. If all 40 are guessed at once and "
        "corrected in each round, how many rounds does it take until the sample is right?",
        "At most 40, since each round makes at least one more point exact. In fact far fewer: the error falls at all "
        "points together, long before the stairs get there.",
    ),
    presets={
        "Picard's staircase": {"sampler": "picard", "steps": 20},
        "Parareal": {"sampler": "parareal", "steps": 64},
        "Rounds, calls, seconds": {"steps": 100, "view": SPENT},
    },
)
