"""When rectified flow leads Rectified Diffusion: one thing at a time, from few updates to the turn and back.

The deck has Rectified Diffusion ahead in one step and in two (slide 31). After a long training here rectified flow is.
Both begin with the weights of one teacher that predicts eps, and learn from the same exact pairs of the ring; each case
changes one thing of another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .. import runs
from ..measure import paired_error, spread
from ..problems import problem
from ..problems.pairs import Pairs, Recipe, make_pairs
from ..solvers import solve
from ..support.checks import check_count

RF, RD = "rectified-flow", "rectified-diffusion"
PAIRS, PAIR_STEPS, HELD_OUT = 20_000, 20, 4_000
TEACHER_UPDATES = 1000
DECK, PUBLISHED = "own-mse", "x0-huber"


@dataclass(frozen=True)
class Case:
    """What is the same for both methods, and Rectified Diffusion's loss."""

    changed: str
    """What differs from the first case, or from the one before."""
    updates: int
    edge: float = 0.0
    """The part of a batch at t = 1."""
    loss: str = DECK


CASES = (
    Case("few updates, the deck's loss", 30),
    Case("50 times the updates", 1500),
    Case("half of each batch at t = 1", 1500, 0.5),
    Case("the published loss, no such half", 1500, 0.0, PUBLISHED),
    Case("the published loss, few updates", 30, 0.0, PUBLISHED),
)


def reversal(
    cases: Sequence[Case] = CASES, *, seeds: Sequence[int] = (0, 1, 2), steps: Sequence[int] = (1, 2)
) -> list[dict]:
    """Train both methods in each case, with each seed.

    A row: changed, updates, edge, loss, method, seed, steps, distance_to_teacher (the root mean square distance of
    samples to where the exact ODE ends from the same noise), distance and floor (sliced Wasserstein). A seed has a
    teacher, pairs and order of batches of its own. `ValueError` for no seed.
    """
    if not seeds:
        raise ValueError("give at least one seed")
    for count in steps:
        check_count(count, "each of the steps")
    ring, rows = problem("mixture:ring"), []
    assert ring.teacher is not None
    for seed in seeds:
        teacher = runs.train("diffusion", ring, seed=seed, changes={"kind": "eps", "updates": TEACHER_UPDATES}).finish()
        pairs = make_pairs(ring, ring.teacher, Recipe(n=PAIRS, steps=PAIR_STEPS, seed=seed))
        held_out = make_pairs(ring, ring.teacher, Recipe(n=HELD_OUT, steps=PAIR_STEPS, seed=1000 + seed))
        for case in cases:
            for method in (RF, RD):
                rows += _measured(_trained(method, case, seed, teacher, pairs), case, method, seed, held_out, steps)
    return rows


def _trained(method: str, case: Case, seed: int, teacher: runs.Model, pairs: Pairs) -> runs.Model:
    changes: dict[str, object] = {"updates": case.updates, "edge": case.edge, "warmup": 10}
    if method == RD:
        changes["loss"] = case.loss
    given = {"teacher": problem("mixture:ring").teacher, "start": teacher, "pairs": pairs}
    return runs.train(method, "mixture:ring", seed=seed, changes=changes, **given).finish()


def _measured(
    model: runs.Model, case: Case, method: str, seed: int, held_out: Pairs, steps: Sequence[int]
) -> list[dict]:
    ring, D, rows = problem("mixture:ring"), runs.of_vectors(model.denoiser, "a student is"), []
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
                "method": method,
                "seed": seed,
                "steps": count,
                "distance_to_teacher": paired_error(end, held_out.x0).rms,
                "distance": measured.distance,
                "floor": measured.floor,
            }
        )
    return rows


def summary(rows: Sequence[dict]) -> list[dict]:
    """A row for each case and number of steps: both methods' distance to the teacher, mean and deviation over seeds,
    and the difference in standard errors, positive where Rectified Diffusion is ahead."""
    found = []
    for case in dict.fromkeys((row["changed"], row["updates"], row["edge"], row["loss"]) for row in rows):
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
                dict(zip(("changed", "updates", "edge", "loss"), case, strict=True))
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
