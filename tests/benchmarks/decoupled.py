"""AnimateLCM on clips of digits beside joint training, from one video teacher, with equal updates and settings.

    python tests/benchmarks/decoupled.py [--seeds 3] [--updates 400] [--n 200]

Decoupled: half of the updates train a LoRA on single frames, half the temporal layers on clips. Joint: all of the
teacher's weights, as an LCM of clips. Both are sampled in 4 steps; mean and standard deviation over seeds.
"""

import argparse
import statistics
from dataclasses import fields

from toydiff import runs
from toydiff.cli.terminal import table
from toydiff.distill.lcm import LCMKnobs
from toydiff.problems import ClipsProblem
from toydiff.runs.zoo import CLIPS_TEACHER_ID
from toydiff.studies.moving_digits import OF_TEACHER, sampled

MEASURES = ("distance", "frame", "lag-1", "velocity", "turning", "identity", "accuracy")
STEPS = 4


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3g}{spread}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--n", type=int, default=200)
    args = parser.parse_args()
    on, teacher = ClipsProblem(), runs.load(CLIPS_TEACHER_ID)
    settings = runs.knobs("animatelcm", on)
    equal = {field.name: getattr(settings, field.name) for field in fields(LCMKnobs)}
    equal |= {"updates": args.updates, "lr": settings.fast_lr}
    best = sampled(teacher, on, OF_TEACHER, args.n)
    found: dict[str, list[dict[str, float]]] = {"decoupled": [], "joint": []}
    for seed in range(args.seeds):
        apart = runs.train(
            "animatelcm", on, seed=seed, start=teacher, changes={"updates": args.updates}, progress=True
        ).finish()
        joint = runs.train("lcm", on, seed=seed, teacher=teacher, start=teacher, changes=equal, progress=True).finish()
        for name, model in (("decoupled", apart), ("joint", joint)):
            found[name].append(sampled(model, on, STEPS, args.n))
        lines = [[name, *(cell([row[key] for row in rows]) for key in MEASURES)] for name, rows in found.items()]
        floors = ["floor", *(f"{best[f'floor {key}']:.3g}" for key in MEASURES[:-1]), ""]
        whole = [f"teacher, {OF_TEACHER} steps", *(f"{best[key]:.3g}" for key in MEASURES)]
        print(table([f"{STEPS} steps, {seed + 1} seeds", *MEASURES], [floors, whole, *lines]), flush=True)


if __name__ == "__main__":
    main()
