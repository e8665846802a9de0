"""What a solver's own arithmetic costs beside the network: the time of a step, ours against diffusers' in one run.

    python tests/benchmarks/cost.py [--steps 999] [--repeats 9] [--json FILE]

The denoiser costs nothing (it returns numbers made before), so what is left is the driver. Each line runs one algorithm
on both sides, with the same number of network calls, in turns, and gives the median over the repeats in microseconds
per call. Then the import: `import toydiff` in a new process, less `import torch` in another.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import make, versions, write

from toydiff import Denoiser, Prediction, Tabulated, solve

LIMIT_RATIO, LIMIT_IMPORT = 0.5, 0.3

# our solver, network calls a step, the scheduler that runs the same algorithm, its settings
PAIRS = [
    ("ddim", 1, "DDIMScheduler", {}),
    ("ddim", 1, "EulerDiscreteScheduler", {}),
    ("heun", 2, "HeunDiscreteScheduler", {}),
    ("dpm2m", 1, "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ("dpm++2s", 2, "DPMSolverSinglestepScheduler", {"solver_order": 2}),
    ("dpm++3s", 3, "DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("dpm++2m", 1, "DPMSolverMultistepScheduler", {"solver_order": 2}),
    ("dpm++3m-published", 1, "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("unipc2", 1, "UniPCMultistepScheduler", {"solver_order": 2}),
    ("unipc3", 1, "UniPCMultistepScheduler", {"solver_order": 3}),
    ("deis2", 1, "DEISMultistepScheduler", {"solver_order": 2}),
    ("deis3", 1, "DEISMultistepScheduler", {"solver_order": 3}),
    ("ddpm", 1, "DDPMScheduler", {"clip_sample": False}),
    ("sde-dpm++2m", 1, "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
]


class Free(Denoiser):
    """A denoiser that costs nothing."""

    def __init__(self, x: torch.Tensor):
        super().__init__(Tabulated.scaled_linear(), "eps")
        self.zeros = torch.zeros_like(x)

    def forward(self, x, t, cond=None):
        return Prediction(x, t, x, self.zeros, self.schedule)


def ours(solver: str, x: torch.Tensor, steps: int) -> Callable[[], int]:
    """A run of `solve` over `steps` times, which returns its number of network calls."""
    D, ts = Free(x), torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return lambda: solve(D, x, ts=ts, solver=solver, keep="end", generator=0).nfe


def theirs(name: str, settings: dict, x: torch.Tensor, steps: int) -> tuple[Callable, Callable[..., int]]:
    """What makes a scheduler and its grid (not timed; ours is), and a run of its loop as its pipelines write it."""
    zeros, rng = torch.zeros_like(x), torch.Generator().manual_seed(0)
    noise = {"generator": rng} if name == "DDPMScheduler" or "sde" in settings.get("algorithm_type", "") else {}

    def prepare():
        scheduler = make(name, **settings)
        scheduler.set_timesteps(steps)
        return scheduler

    def run(scheduler) -> int:
        state = x
        with torch.no_grad():
            for t in scheduler.timesteps:
                scheduler.scale_model_input(state, t)
                state = scheduler.step(zeros, t, state, **noise, return_dict=False)[0]
        return len(scheduler.timesteps)

    return prepare, run


def seconds(run: Callable[..., int], *args) -> tuple[float, int]:
    """Seconds per network call, and the calls."""
    began = time.perf_counter()
    calls = run(*args)
    return (time.perf_counter() - began) / calls, calls


def compare(steps: int, repeats: int) -> list[dict]:
    """One row a pair: microseconds per network call on both sides, medians of interleaved repeats."""
    x = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    rows = []
    for solver, calls, scheduler, settings in PAIRS:
        run_ours = ours(solver, x, steps // calls)
        # Heun's scheduler makes two calls a step; the others count calls as steps
        prepare, run_theirs = theirs(scheduler, settings, x, steps // 2 if scheduler.startswith("Heun") else steps)
        measured = {"ours": [], "diffusers": []}
        for repeat in range(repeats + 1):
            pair = seconds(run_ours), seconds(run_theirs, prepare())
            if repeat:  # the first is to warm up
                for side, (each, spent) in zip(measured, pair, strict=True):
                    measured[side].append((each * 1e6, spent))
        us, them = (statistics.median(each for each, _ in measured[side]) for side in measured)
        row = {"solver": solver, "scheduler": scheduler, "settings": settings, "ours_us": us, "diffusers_us": them}
        row |= {"ratio": us / them, "calls": {side: runs[0][1] for side, runs in measured.items()}}
        rows.append(row)
        print(f"{solver:18s} {describe(scheduler, settings):58s} {us:9.1f} {them:11.1f} {us / them:7.2f}", flush=True)
    return rows


def describe(scheduler: str, settings: dict) -> str:
    """A scheduler with the settings that differ from its defaults."""
    listed = ", ".join(str(value) for value in settings.values() if value is not False)
    return f"{scheduler}({listed})" if listed else scheduler


def import_seconds(module: str) -> float:
    """The time that `import module` takes in a new process, which measures it itself."""
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def compare_imports(repeats: int) -> dict:
    """Seconds for both imports, in turns, and the median of the difference."""
    pairs = [(import_seconds("toydiff"), import_seconds("torch")) for _ in range(repeats + 1)][1:]
    extra = statistics.median(ours - torchs for ours, torchs in pairs)
    return {"toydiff": [a for a, _ in pairs], "torch": [b for _, b in pairs], "extra_s": extra}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps",
        type=int,
        default=999,
        help="network calls a run (default 999; of 1,000 one step of UniPC's scheduler has no length)",
    )
    parser.add_argument("--repeats", type=int, default=9, help="interleaved runs of each (default 9)")
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two particles: threads have nothing to do

    print(f"{'solver':18s} {'diffusers':58s} {'ours, us':>9s} {'theirs, us':>11s} {'ratio':>7s}")
    rows = compare(options.steps, options.repeats)
    imports = compare_imports(options.repeats)
    worst = max(rows, key=lambda row: row["ratio"])
    print(f"\nworst ratio {worst['ratio']:.2f} ({worst['solver']}; allowed {LIMIT_RATIO})")
    print(f"import toydiff adds {imports['extra_s']:.2f} s to import torch (allowed {LIMIT_IMPORT} s)")
    met = worst["ratio"] <= LIMIT_RATIO and imports["extra_s"] <= LIMIT_IMPORT
    write(
        {
            "settings": {"steps": options.steps, "repeats": options.repeats, "particles": 2, **versions()},
            "pairs": rows,
            "worst_ratio": worst["ratio"],
            "import": imports,
            "limits": {"ratio": LIMIT_RATIO, "import_s": LIMIT_IMPORT},
            "met": met,
        },
        options.json,
    )
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
