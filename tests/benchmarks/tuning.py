"""SCT against ECT: the same start, updates and random numbers, several seeds; distance over the floor, mean and spread.

    python tests/benchmarks/tuning.py [--problem digits] [--seeds 0 1 2] [--updates 300] [--steps 1 2 4] [--json FILE]

Both start with the bundled teacher's weights. One thread.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from common import versions, write

from toydiff import runs
from toydiff.measure import spread
from toydiff.problems import problem

TEACHERS = {"digits": "digits-teacher", "mixture:ring": "ring-teacher"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=TEACHERS, default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    the_problem, rows = problem(args.problem), []
    for seed in args.seeds:
        for method in ("ect", "sct"):
            changes = {"updates": args.updates}
            run = runs.train(method, the_problem, seed=seed, changes=changes, teacher=TEACHERS[args.problem])
            for row in runs.evaluate(run.finish(), the_problem, steps=args.steps, seed=seed):
                rows.append(row)
                print(f"seed {seed}  {method}  {row['steps']} steps  {row['distance'] / row['floor']:.2f}", flush=True)
    groups = defaultdict(list)
    for row in rows:
        groups[row["steps"], row["method"]].append(row["distance"] / row["floor"])
    print(
        f"\n{args.problem}, {args.updates} updates, seeds {args.seeds}: distance over the floor, mean ± standard "
        "deviation"
    )
    for (steps, method), ratios in sorted(groups.items()):
        text = f"{ratios[0]:.2f}" if len(ratios) < 2 else f"{spread(ratios).mean:.2f} ± {spread(ratios).std:.2f}"
        print(f"{steps} steps  {method}  {text}")
    write({"versions": versions(), "rows": rows}, args.json)


if __name__ == "__main__":
    main()
