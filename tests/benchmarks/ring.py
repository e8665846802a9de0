"""Every method on the ring of eight: distance over its floor, by seeds, and the least and largest fraction of a mode.

    python tests/benchmarks/ring.py [--seeds 0 1 2] [--problem mixture:ring] [--method NAME ...] [--json FILE]

For each seed a teacher is trained (diffusion, v, on Stable Diffusion's table); 50,000 pairs come from its ODE
(DPM-Solver++ 2M, 32 steps), and each student starts with its weights. With `--exact` the exact denoiser makes the pairs
and teaches online methods; the trained one gives the weights to start from only. One thread; 8,000 samples; the seconds
are those of each training alone, without the teacher's and the pairs'.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from common import versions, write

from toydiff import runs
from toydiff.measure import spread
from toydiff.problems import problem
from toydiff.problems.pairs import Recipe, make_pairs

# what is trained: name, method, knobs, who teaches (the teacher, or an earlier result), steps to measure at; and what
# it starts from, if not from who teaches
EARLY = "cd, 400 updates"
PLAN = [
    ("naive", "naive", {}, "teacher", (1,)),
    ("rectified-flow", "rectified-flow", {}, "teacher", (1, 2, 4)),
    ("instaflow", "instaflow", {}, "rectified-flow", (1, 2, 4)),
    ("rectified-diffusion", "rectified-diffusion", {}, "teacher", (1, 2, 4)),
    ("rectified-diffusion, own-mse", "rectified-diffusion", {"loss": "own-mse"}, "teacher", (1, 2, 4)),
    ("progressive, to 4 steps", "progressive", {"first": 16, "last": 4, "updates": 4998}, "teacher", (4,)),
    ("progressive, to 1 step", "progressive", {"first": 16, "last": 1}, "teacher", (1,)),
    ("perflow", "perflow", {}, "teacher", (4, 8)),
    ("rectified-diffusion-phased", "rectified-diffusion-phased", {}, "teacher", (4, 8)),
    ("cd", "cd", {}, "teacher", (1, 2, 4)),
    ("ct", "ct", {}, "teacher", (1, 2, 4)),
    ("ect", "ect", {}, "teacher", (1, 2, 4)),
    ("sct", "sct", {}, "teacher", (1, 2, 4)),
    ("multistep-consistency", "multistep-consistency", {}, "teacher", (4,)),
    ("lcm", "lcm", {}, "teacher", (1, 2, 4)),
    ("pcm", "pcm", {}, "teacher", (4,)),
    ("vsd", "vsd", {}, "teacher", (1,)),
    ("swiftbrush", "swiftbrush", {}, "teacher", (1,)),
    ("dmd", "dmd", {}, "teacher", (1,)),
    ("dmd2", "dmd2", {}, "teacher", (1,)),
    ("sim", "sim", {}, "teacher", (1,)),
    (EARLY, "cd", {"updates": 400}, "teacher", (1,)),
    (f"adversarial, from {EARLY}", "adversarial", {}, "teacher", (1,), EARLY),
    ("adversarial, from cd", "adversarial", {}, "teacher", (1,), "cd"),
]
PAIRS = Recipe(n=50_000)


def measure(the_problem, seed: int, exact: bool, methods: list[str] | None) -> list[dict]:
    """Train and measure everything with one seed."""
    rows = []

    def note(name: str, model: runs.Model, steps: tuple[int, ...]) -> None:
        for row in runs.evaluate(model, the_problem, steps=steps, seed=seed):
            row |= {"name": name, "training_seconds": model.about["seconds"]}
            rows.append(row)
            print(
                f"seed {seed}  {name:32} {row['steps']:3} steps  {row['distance'] / row['floor']:6.2f} of the floor  "
                f"modes {min(row['fractions']):.3f} to {max(row['fractions']):.3f}  {model.about['seconds']:4.0f} s",
                flush=True,
            )

    made = {"teacher": runs.train("diffusion", the_problem, seed=seed).finish()}
    note("teacher, dpm++2m", made["teacher"], (10, 20))
    pairs = {}
    for name, method, changes, teacher, steps, *start in PLAN:
        if methods and name not in methods:
            continue
        tutor = the_problem.teacher if exact and teacher == "teacher" else made[teacher].denoiser
        needs, given = runs.card(method).needs, {}
        if needs == "pairs" and teacher not in pairs:
            pairs[teacher] = make_pairs(the_problem, tutor, PAIRS)
        if needs != "nothing":
            given["teacher"] = tutor
        if needs == "pairs":
            given["pairs"] = pairs[teacher]
        given["start"] = made[start[0] if start else teacher]
        made[name] = runs.train(method, the_problem, seed=seed, changes=changes, **given).finish()
        note(name, made[name], steps)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problem", default="mixture:ring")
    parser.add_argument("--method", nargs="+", help=f"default: all of {', '.join(name for name, *_ in PLAN)}")
    parser.add_argument("--exact", action="store_true", help="the exact denoiser teaches")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    for seed in args.seeds:
        rows += measure(problem(args.problem), seed, args.exact, args.method)
    groups = defaultdict(list)
    for row in rows:
        groups[row["name"], row["steps"]].append(row)
    print(
        f"\n{args.problem}, seeds {args.seeds}: distance over the floor ({rows[0]['floor']:.4f}), mean ± standard "
        "deviation"
    )
    for (name, steps), found in groups.items():
        ratios = [row["distance"] / row["floor"] for row in found]
        text = f"{ratios[0]:.2f}" if len(ratios) < 2 else f"{spread(ratios).mean:.2f} ± {spread(ratios).std:.2f}"
        longest = max(row["training_seconds"] for row in found)
        low, high = (pick(pick(row["fractions"]) for row in found) for pick in (min, max))
        print(
            f"{name:34} {steps:3} steps  {text:14}  modes {low:.3f} to {high:.3f}  {longest:4.0f} s of training at most"
        )
    write({"versions": versions(), "rows": rows, "seconds": time.perf_counter() - began}, args.json)


if __name__ == "__main__":
    main()
