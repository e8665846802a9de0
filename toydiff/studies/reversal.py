"""When rectified flow leads Rectified Diffusion: one thing at a time, from few updates to the turn and back.

The deck has Rectified Diffusion ahead in one step and in two (slide 31). After a long training here rectified flow is.
Both begin with the weights of one teacher, and learn from the same exact pairs of the ring. A case differs in one thing
from another: the updates, the loss, the part of a batch at t = 1, or what the teacher predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import mixtures, runs
from ..measure import paired_error, spread
from ..problems import MixtureProblem
from ..problems.pairs import Pairs, Recipe, make_pairs
from ..solvers import solve
from ..support.checks import check_count

RF, RD = "rectified-flow", "rectified-diffusion"
PAIRS, PAIR_STEPS, HELD_OUT = 20_000, 20, 4_000
EPS, V = "eps", "v"
START_UPDATES = 600
"""Of the network that both begin with, which predicts what the teacher predicts."""
DECK, PUBLISHED = "own-mse", "x0-huber"
FEW, MANY = 30, 800
SETTINGS = ("changed", "updates", "edge", "loss", "teacher")
"""What a row says of its case."""


@dataclass(frozen=True)
class Case:
    """What is the same for both methods, and Rectified Diffusion's loss."""

    changed: str
    """In words."""
    updates: int
    edge: float = 0.0
    """The part of a batch at t = 1."""
    loss: str = DECK
    teacher: str = EPS
    """What it predicts, and so the network that both begin with and the student of Rectified Diffusion."""


CASES = (
    Case("few updates, the deck's loss on eps", FEW),
    Case("many updates", MANY),
    Case("many updates, half of each batch at t = 1", MANY, edge=0.5),
    Case("many updates, the published loss on x_0", MANY, loss=PUBLISHED),
    Case("few updates, the published loss, a teacher of v", FEW, loss=PUBLISHED, teacher=V),
    Case("many updates, the published loss, a teacher of v", MANY, loss=PUBLISHED, teacher=V),
)


def reversal(
    cases: Sequence[Case] = CASES,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    steps: Sequence[int] = (1, 2),
    start_updates: int = START_UPDATES,
) -> list[dict]:
    """Train both methods in each case, with each seed.

    A row: changed, updates, edge, loss, method, seed, steps, distance_to_teacher (the root mean square distance of
    samples to where the exact ODE ends from the same noise), distance and floor (sliced Wasserstein). A seed has an
    eps-teacher, pairs and an order of batches of its own. `ValueError` for no seed.
    """
    if not seeds:
        raise ValueError("give at least one seed")
    for count in steps:
        check_count(count, "each of the steps")
    ring, rows = MixtureProblem(mixtures.ring(), "the ring"), []
    for seed in seeds:
        exact = ring.mixture.denoiser(ring.schedule, EPS)
        held_out = make_pairs(ring, exact, Recipe(n=HELD_OUT, steps=PAIR_STEPS, seed=1000 + seed))
        for kind in dict.fromkeys(case.teacher for case in cases):
            teacher = ring.mixture.denoiser(ring.schedule, kind)
            given = {
                "teacher": teacher,
                "start": runs.train(
                    "diffusion", ring, seed=seed, changes={"kind": kind, "updates": start_updates}
                ).finish(),
                "pairs": make_pairs(ring, teacher, Recipe(n=PAIRS, steps=PAIR_STEPS, seed=seed)),
            }
            flows: dict[tuple[int, float], runs.Model] = {}  # rectified flow has one loss
            for case in (case for case in cases if case.teacher == kind):
                place = case.updates, case.edge
                if place not in flows:
                    flows[place] = _trained(RF, case, ring, seed, given)
                rows += _measured(flows[place], case, RF, ring, seed, held_out, steps)
                rows += _measured(_trained(RD, case, ring, seed, given), case, RD, ring, seed, held_out, steps)
    return rows


def _trained(method: str, case: Case, ring: MixtureProblem, seed: int, given: dict[str, Any]) -> runs.Model:
    changes: dict[str, object] = {"updates": case.updates, "edge": case.edge, "warmup": 10}
    if method == RD:
        changes["loss"] = case.loss
    return runs.train(method, ring, seed=seed, changes=changes, **given).finish()


def _measured(
    model: runs.Model,
    case: Case,
    method: str,
    ring: MixtureProblem,
    seed: int,
    held_out: Pairs,
    steps: Sequence[int],
) -> list[dict]:
    D, rows = runs.of_vectors(model.denoiser, "a student is"), []
    for count in steps:
        noise = D.schedule.sigma(torch.ones(())) * held_out.noise
        end = solve(D, noise, count, solver="ddim", grid="uniform", keep="end").end
        measured = ring.measure(end)
        rows.append(
            {
                "changed": case.changed,
                "updates": case.updates,
                "edge": case.edge,
                "loss": case.loss,
                "teacher": case.teacher,
                "method": method,
                "seed": seed,
                "steps": count,
                "distance_to_teacher": paired_error(end, held_out.x0).rms,
                "distance": measured.distance,
                "floor": measured.floor,
            }
        )
    return rows


def markdown(rows: Sequence[dict]) -> str:
    """A table in Markdown of what `summary` says."""
    lines = [
        "| case | steps | rectified flow | Rectified Diffusion | standard errors by which the second leads |",
        "|---|---|---|---|---|",
    ]
    for row in summary(rows):
        flow, own = (f"{row[method]:.3f} ± {row[f'{method}_std']:.3f}" for method in (RF, RD))
        lines.append(f"| {row['changed']} | {row['steps']} | {flow} | {own} | {row['errors']:+.1f} |")
    return "\n".join(lines)


def summary(rows: Sequence[dict]) -> list[dict]:
    """A row for each case and number of steps: both methods' distance to the teacher, mean and deviation over seeds,
    and the difference in standard errors, positive where Rectified Diffusion is ahead."""
    found = []
    for case in dict.fromkeys(tuple(row[key] for key in SETTINGS) for row in rows):
        for steps in sorted({row["steps"] for row in rows}):
            of = {
                method: spread(
                    [
                        row["distance_to_teacher"]
                        for row in rows
                        if (row["changed"], row["steps"], row["method"]) == (case[0], steps, method)
                    ]
                )
                for method in (RF, RD)
            }
            error = ((of[RF].std ** 2 + of[RD].std ** 2) / len(of[RF].values)) ** 0.5
            found.append(
                dict(zip(SETTINGS, case, strict=True))
                | {
                    "steps": steps,
                    RF: of[RF].mean,
                    f"{RF}_std": of[RF].std,
                    RD: of[RD].mean,
                    f"{RD}_std": of[RD].std,
                    "errors": (of[RF].mean - of[RD].mean) / error,
                }
            )
    return found
