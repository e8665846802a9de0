"""Rectified flow against Rectified Diffusion by training updates: which is ahead, until when, and why.

    python tests/benchmarks/turning.py [--problem digits mixture:ring] [--seeds 0 1 2] [--updates 1600] [--json FILE]

All students have the same eps-teacher and the same pairs. The two methods differ in two things at once, the schedule
(linear, or the teacher's) and the kind (velocity, or the teacher's eps). So all four combinations are trained with the
same loss, mean square in the own kind, and Rectified Diffusion also with its code's loss, the pseudo-Huber distance in
x_0. Every student starts with the same weights; where the kind changes, they mean something else than they did. One
thread; distance by 1, 2 and 4 uniform DDIM steps of the averaged student, over the floor, at updates that double.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from common import versions, write

from toydiff import Linear, runs, solve
from toydiff.distill.rectified_diffusion import own_mse, rectified_diffusion_loss, x0_huber
from toydiff.measure import spread
from toydiff.problems import Problem, problem
from toydiff.problems.digits import TEACHER_ID
from toydiff.problems.pairs import Pairs, Recipe, load_pairs, make_pairs
from toydiff.runs.zoo import PAIR_RECIPES
from toydiff.training import EMA, Draws, Turn, fit

STEPS = (1, 2, 4)
FIRST = 25

# name: schedule (None: the teacher's), kind, loss (None: mean square in the own kind)
STUDENTS = {
    "rectified flow (linear, velocity)": (Linear(), "velocity", None),
    "linear, eps": (None, "eps", "linear"),
    "teacher's schedule, velocity": (None, "velocity", None),
    "Rectified Diffusion (teacher's, eps)": (None, "eps", None),
    "Rectified Diffusion, x0-huber": (None, "eps", "x0-huber"),
}


def teacher_and_pairs(the_problem: Problem, seed: int, work: Path | None) -> tuple[runs.Model, Pairs]:
    """The eps-teacher and its pairs: bundled on digits, trained here on points."""
    if the_problem.conditional:
        model = runs.load(TEACHER_ID)
        if work is not None:
            return model, load_pairs(work)
        return model, make_pairs(the_problem, model.denoiser, PAIR_RECIPES[TEACHER_ID], progress=True)
    model = runs.train("diffusion", the_problem, seed=seed, changes={"kind": "eps"}).finish()
    return model, make_pairs(the_problem, the_problem.teacher, Recipe(n=50_000, seed=seed))


class Below:
    """The random numbers of a training, without times above `top`."""

    def __init__(self, draws: Draws, top: float):
        self.draws, self.top = draws, top

    def uniform(self, n: int, low: float, high: float) -> torch.Tensor:
        return self.draws.uniform(n, low, high).clamp(max=self.top)


def curve(the_problem: Problem, teacher: runs.Model, pairs: Pairs, name: str, seed: int, updates: int) -> list[dict]:
    """One student's distances at updates FIRST, 2 FIRST, ...; constant learning rate after 20 warm-up updates."""
    schedule, kind, how = STUDENTS[name]
    schedule = teacher.denoiser.schedule if schedule is None else schedule
    schedule = Linear() if how == "linear" else schedule
    settings = runs.knobs("rectified-flow", the_problem)
    student = the_problem.student(schedule, kind, start=teacher.denoiser)
    compare = x0_huber if how == "x0-huber" else own_mse
    # on the linear schedule a network that predicts eps says nothing at t = 1: stay a little below
    top = 1.0 if kind != "eps" or float(schedule.alpha(torch.ones(()))) > 0 else 0.998

    def loss(step: int, draws: Draws) -> torch.Tensor:
        drawn = pairs.draw(schedule, settings.batch, draws)
        return rectified_diffusion_loss(student, *drawn, Below(draws, top), compare=compare)

    average = EMA(student, settings.ema)
    sampler = {"solver": "ddim", "grid": "uniform", "steps": STEPS}
    rows, due = [], FIRST
    turn = Turn(loss, list(student.parameters()), settings.lr)
    for record in fit(turn, updates, averages=[average], seed=seed, warmup=20, decay="constant"):
        if record.step == due:
            due *= 2
            about = {
                "method": name,
                "problem": the_problem.name,
                "updates": record.step,
                "teacher_calls": None,
                "sampler": sampler,
            }
            for steps in STEPS:
                row = sample_and_measure(runs.Model(average.module, about), the_problem, steps, top)
                rows.append(row | {"seed": seed, "name": name, "updates": record.step, "problem": the_problem.name})
            print(
                f"{the_problem.name}  seed {seed}  {name:38} {record.step:6} updates  "
                + "  ".join(
                    f"{row['steps']} steps {row['distance'] / row['floor']:8.2f}" for row in rows[-len(STEPS) :]
                ),
                flush=True,
            )
    return rows


def sample_and_measure(model: runs.Model, the_problem: Problem, steps: int, top: float) -> dict:
    """A row, from the times 1 ... 0, the first of them moved to `top` where the kind cannot begin at pure noise."""
    if top == 1.0:
        return runs.evaluate(model, the_problem, steps=(steps,))[0]
    n = 1000 if the_problem.conditional else 8000
    ts = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ts[0] = top
    cond = the_problem.eval_labels(n)
    noise = torch.randn(n, *the_problem.shape, generator=torch.Generator().manual_seed(runs.SEED_OF_NOISE))
    end = solve(model.denoiser, top * noise, ts=ts, solver="ddim", cond=cond, keep="end").end
    measured = the_problem.measure(end, cond)
    return {"steps": steps, "distance": measured.distance, "floor": measured.floor, "accuracy": measured.accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", default=["digits", "mixture:ring"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1600)
    parser.add_argument("--pairs", type=Path, help="a folder with the digits teacher's pairs, made before")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    for name in args.problem:
        the_problem = problem(name)
        for seed in args.seeds:
            teacher, pairs = teacher_and_pairs(the_problem, seed, args.pairs)
            for student in STUDENTS:
                rows += curve(the_problem, teacher, pairs, student, seed, args.updates)
            write({"versions": versions(), "rows": rows, "seconds": time.perf_counter() - began}, args.json)
    groups = defaultdict(list)
    for row in rows:
        groups[row["problem"], row["name"], row["updates"], row["steps"]].append(row["distance"] / row["floor"])
    print("\ndistance over the floor, mean ± standard deviation over seeds")
    for (where, name, updates, steps), values in groups.items():
        text = f"{values[0]:.2f}" if len(values) < 2 else f"{spread(values).mean:.2f} ± {spread(values).std:.2f}"
        print(f"{where:14} {name:38} {updates:6} updates {steps:2} steps  {text}")


if __name__ == "__main__":
    main()
