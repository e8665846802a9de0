"""AnimateLCM on clips of points: image first and motion second beside other trainings at equal updates, and the
sampling that the deck advises.

    python tests/benchmarks/clips.py [--seeds 3] [--updates 1000] [--batch 64]
"""

import argparse

from toydiff.cli.terminal import table
from toydiff.studies.clips import MEASURES, advice, compare, trained


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    models = []
    for seed in range(args.seeds):
        models.append(trained(seed, args.updates, batch=args.batch, ema=0.99))
        rows = compare(models)
        floors = ["floor", *(f"{rows[0][f'floor {name}'][0]:.3g}" for name in MEASURES[:-1]), ""]
        lines = [
            [row["training"], *(" ".join(f"{value:.3g}" for value in row[name]) for name in MEASURES)] for row in rows
        ]
        print(table(["training", *MEASURES], [*lines, floors]), flush=True)
    rows = advice([of["decoupled"] for of in models])
    lines = [
        [str(row["steps"]), f"{row['guidance_scale']:g}", *(f"{row[name]:.3g}" for name in MEASURES)] for row in rows
    ]
    print(table(["steps", "g", *MEASURES], lines))


if __name__ == "__main__":
    main()
