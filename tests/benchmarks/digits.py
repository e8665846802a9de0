"""What each change of the digits' teacher gives: one at a time, at a fixed budget of seconds, over seeds.

    python tests/benchmarks/digits.py [--seconds 240] [--seeds 3] [--out FOLDER] [--json FILE] [--only NAME ...]

Each row is the one before it with one change. A run gets as many updates as its seconds of processor time allow, which
are measured before it starts, beside the first row's network in turns. `--out` keeps the runs, and what is there is
continued. Distances are of 1,000 samples in 12 steps, guided.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import versions, write

from toydiff import runs
from toydiff.denoisers import LambdaDenoiser
from toydiff.distill.diffusion import diffusion_loss
from toydiff.measure import spread
from toydiff.nets import UNet
from toydiff.problems import DigitsProblem
from toydiff.runs.zoo import GUIDANCE
from toydiff.support.files import write_json
from toydiff.training import Turn, fit

BATCH, STEPS = 128, 12


@dataclass(frozen=True)
class Row:
    """A way to train the teacher: its name, its network's arguments and its knobs."""

    name: str
    network: dict[str, Any]
    knobs: dict[str, Any] = field(default_factory=dict)


WIDE = {"widths": (32, 128), "middle": 1, "attention": False, "embedding": 128}
THIN = {"widths": (16, 96), "middle": 2, "attention": False, "embedding": 192}
ROWS = (
    Row("eps, widths 32 and 128", WIDE, {"kind": "eps"}),
    Row("v", WIDE, {"kind": "v"}),
    Row("widths 16 and 96, two blocks", THIN, {"kind": "v"}),
    Row("attention at 7 x 7", THIN | {"attention": True}, {"kind": "v"}),
    Row("moved digits", THIN | {"attention": True}, {"kind": "v", "augment": 1.0}),
)


class Variant(DigitsProblem):
    """Digits with a network of one's choice."""

    def __init__(self, network: dict[str, Any]):
        super().__init__()
        self._network = network

    def network(self, *, guided: bool = False) -> UNet:
        return UNet(classes=self.classes, guided=guided, **self._network)


def cost(rows: list[Row], rounds: int = 15) -> dict[str, float]:
    """Seconds of processor time of an update: the median over rounds in which the rows take turns."""
    problem, loops = DigitsProblem(), []
    for row in rows:
        D = LambdaDenoiser(Variant(row.network).network(), problem.schedule, "v")

        def loss(step, draws, D=D):
            return diffusion_loss(D, *draws.rows(problem.data, BATCH), draws, 0.1)

        loops.append(fit(Turn(loss, list(D.parameters()), 1e-3), 10**9))
    taken: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(rounds):
        for row, loop in zip(rows, loops, strict=True):
            began = time.process_time()
            next(loop)
            taken[row.name].append(time.process_time() - began)
    return {name: statistics.median(seconds[2:]) for name, seconds in taken.items()}


def measured(row: Row, updates: int, seed: int, folder: Path) -> dict:
    """One run of one row, trained or continued in the folder, and what it measured."""
    problem = Variant(row.network)
    file = folder / "measured.json"
    if not file.exists():
        run = runs.train(
            "diffusion",
            problem,
            out=folder,
            seed=seed,
            changes={"updates": updates, "batch": BATCH, "cycles": 1} | row.knobs,
            resume=True,
            progress=True,
        )
        run.finish()
        (found,) = runs.evaluate(runs.load(folder), problem, steps=(STEPS,), guidance_scale=GUIDANCE, n=1000)
        write_json(file, {"row": row.name, "seed": seed, "updates": updates} | found)
    return json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2, for a spread")
    parser.add_argument("--out", type=Path, default=Path("digits-network"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", choices=[row.name for row in ROWS])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in ROWS if not chosen.only or row.name in chosen.only]
    chosen.out.mkdir(parents=True, exist_ok=True)
    file = chosen.out / "cost.json"
    if not file.exists():  # a run that is continued must have as many updates as before
        write_json(file, cost(list(ROWS)))
    seconds = json.loads(file.read_text())
    report: list[dict] = []
    print("| | weights | ms an update | updates | distance | floor | as asked |\n|---|---|---|---|---|---|---|")
    for row in rows:
        updates = round(chosen.seconds / seconds[row.name])
        found = [measured(row, updates, seed, chosen.out / f"{ROWS.index(row)}-{seed}") for seed in range(chosen.seeds)]
        distance = spread([one["distance"] for one in found])
        weights = sum(p.numel() for p in Variant(row.network).network().parameters())
        report += found
        print(
            f"| {row.name} | {weights:,} | {1e3 * seconds[row.name]:.0f} | {updates} | "
            f"{distance.mean:.2f} ± {distance.std:.2f} | {found[0]['floor']:.2f} | "
            f"{statistics.mean(one['accuracy'] for one in found):.3f} |",
            flush=True,
        )
    write({"versions": versions(), "seconds": seconds, "rows": report}, chosen.json)


if __name__ == "__main__":
    main()
