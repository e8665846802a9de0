"""Quality at few calls: the error to the exact flow, ours against diffusers', on many exact mixtures in one run.

    python tests/benchmarks/quality.py [--mixtures 12] [--seed 1000] [--schedule scaled-linear] [--nfe 5,10,20]
        [--particles 256] [--json FILE]

Every sampler starts from the same exact samples of x_1 and is given the exact denoiser; its error is the distance of
each end to the end of the exact flow, and the median over the particles is reported. On each mixture at each budget of
network calls:

- best of diffusers: the least error over all its deterministic schedulers x their orders and variants x spacings,
  chosen per mixture;
- best of ours: the same over our solvers x our grids;
- our default: `solve(D, x, steps=NFE)`, which knows nothing of the mixture.

diffusers' schedulers run in float32, as their tables are, and get the model's prediction at the timestep that they
name, as in its pipelines; `--exact-times` gives them the prediction at their own noise level instead, without the
rounding to whole timesteps of some spacings.
"""

import argparse
import copy
import itertools
import math
import time
from pathlib import Path

import torch
from common import IN_Z, TABLES, TIMESTEPS, make, versions, write

from toydiff import GRIDS, MIXTURES, SOLVERS, Denoiser, Prediction, mixtures, reference, schedule, solve

LIMIT = 0.5

SPACINGS = {
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "leading": {"timestep_spacing": "leading"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu-lambdas": {"use_lu_lambdas": True},
}
LEVELS = ("karras", "exponential", "beta")
TIMES = ("trailing", "linspace", "leading")


def variants(scheduler: str, spacings: tuple[str, ...], **choices: tuple) -> list[tuple[str, str, dict]]:
    """A scheduler x its spacings x every combination of the settings in `choices`: (scheduler, spacing, settings)."""
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    return [(scheduler, spacing, SPACINGS[spacing] | more) for spacing in spacings for more in combinations]


def all_of_diffusers() -> list[tuple[str, str, dict]]:
    """Every deterministic scheduler of diffusers for this table, with every setting that changes its samples."""
    ends, either = ("zero", "sigma_min"), (True, False)
    multistep = {"solver_order": (2, 3), "lower_order_final": either}
    return [
        *variants("DDIMScheduler", TIMES, clip_sample=(False,), set_alpha_to_one=either),
        *variants("PNDMScheduler", ("leading", "trailing", "linspace"), skip_prk_steps=either, set_alpha_to_one=either),
        *variants("EulerDiscreteScheduler", TIMES + LEVELS, final_sigmas_type=ends),
        *variants("HeunDiscreteScheduler", TIMES + LEVELS),
        *variants("KDPM2DiscreteScheduler", TIMES + LEVELS),
        *variants("LMSDiscreteScheduler", TIMES + LEVELS),
        *variants("DEISMultistepScheduler", TIMES + LEVELS, **multistep),
        *variants(
            "UniPCMultistepScheduler",
            TIMES + LEVELS,
            final_sigmas_type=ends,
            solver_type=("bh1", "bh2"),
            predict_x0=either,
            **multistep,
        ),
        *variants(
            "DPMSolverMultistepScheduler",
            tuple(SPACINGS),
            final_sigmas_type=ends,
            solver_type=("midpoint", "heun"),
            **multistep,
        ),
        *variants(
            "DPMSolverMultistepScheduler",
            tuple(SPACINGS),
            algorithm_type=("dpmsolver",),
            final_sigmas_type=("sigma_min",),
            solver_type=("midpoint", "heun"),
            **multistep,
        ),
        *variants(
            "DPMSolverSinglestepScheduler",
            ("linspace", *LEVELS),
            final_sigmas_type=ends,
            solver_type=("midpoint", "heun"),
            **multistep,
        ),
        *variants(
            "DPMSolverSinglestepScheduler",
            ("linspace", *LEVELS),
            algorithm_type=("dpmsolver",),
            final_sigmas_type=("sigma_min",),
            solver_type=("midpoint", "heun"),
            **multistep,
        ),
    ]


def for_class(name: str, spacing: str, settings: dict) -> dict:
    """The settings without the spacing in t, where a class has one only and no word for it."""
    return {
        key: value
        for key, value in settings.items()
        if (name, key) != ("DPMSolverSinglestepScheduler", "timestep_spacing")
    }


class Side(Denoiser):
    """Several mixtures side by side in one batch: block i of the samples belongs to denoiser i.

    Samplers treat each sample by itself, so one run samples from all.
    """

    def __init__(self, denoisers: list[Denoiser]):
        super().__init__(denoisers[0].schedule)
        self.denoisers = denoisers

    def forward(self, x, t, cond=None):
        parts = [D(part, t) for D, part in zip(self.denoisers, x.chunk(len(self.denoisers)), strict=True)]
        return Prediction(x, t, torch.cat([p.x0 for p in parts]), torch.cat([p.eps for p in parts]), self.schedule)


def walked(D: Side, x: torch.Tensor, steps: int, **how: str) -> tuple[torch.Tensor, int]:
    """The ends of our solver, mixture by mixture, since each has the scale of its data; and the calls of a sample."""
    parts = zip(D.denoisers, x.chunk(len(D.denoisers)), strict=True)
    paths = [solve(each, part, steps=steps, keep="end", **how) for each, part in parts]
    return torch.cat([path.end for path in paths]), paths[0].nfe


def label(name: str, spacing: str, settings: dict) -> str:
    """A setting of diffusers in a few words: what differs from the spacing and from what is always so."""
    differing = {key: value for key, value in settings.items() if key not in SPACINGS[spacing] and key != "clip_sample"}
    words = [f"{key}={value}" if isinstance(value, bool) else str(value) for key, value in differing.items()]
    return " ".join([name.removesuffix("Scheduler"), spacing, *words])


def longest(prototype: object, budget: int) -> object:
    """A scheduler set to the most steps that cost no more network calls than the budget."""
    scheduler = copy.deepcopy(prototype)
    for steps in range(budget, 0, -1):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) <= budget:
            return scheduler
    raise ValueError("no number of steps fits")


def walk(D: Denoiser, x: torch.Tensor, scheduler, exact_times: bool) -> torch.Tensor:
    """A scheduler's loop as its pipelines write it, from x_1: its end."""
    if type(scheduler).__name__ in IN_Z:
        x = x * torch.sqrt(scheduler.sigmas[0] ** 2 + 1)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, timestep)
        t = min(max((float(timestep) + 1) / TIMESTEPS, 0.0), 1.0)
        if exact_times and hasattr(scheduler, "sigmas"):
            if scheduler.step_index is None:
                scheduler._init_step_index(timestep)
            t = float(D.schedule.t_of_lam(-torch.log(scheduler.sigmas[scheduler.step_index].double())))
        x = scheduler.step(D(scaled, t).eps, timestep, x, return_dict=False)[0]
    return x


def most_steps(schedule_, solver: str, grid: str, budget: int) -> int:
    """The most steps of our solver on a grid within a budget of calls, found on one particle; 0 if none."""
    D = mixtures.GaussianMixture([[0.0]], std=1.0).denoiser(schedule_)
    for steps in range(budget, 0, -1):
        if solve(D, torch.zeros(1, 1), steps=steps, solver=solver, grid=grid, keep="end").nfe <= budget:
            return steps
    return 0


def errors(end: torch.Tensor, truth: torch.Tensor, blocks: int) -> list[float]:
    """The median distance to the truth on each mixture; infinite where the run did not stay finite."""
    gaps = (end.double() - truth).norm(dim=1).nan_to_num(nan=math.inf)
    return [float(part.median()) for part in gaps.chunk(blocks)]


def measure(
    D: Side, x: torch.Tensor, truth: torch.Tensor, budget: int, names: list[str], prototypes: dict, exact: bool
) -> list[dict]:
    """One row a mixture: all errors at this budget, and the best of each side."""
    x = x.float()
    ends, failed = {"diffusers": {}, "ours": {}}, {}
    for name, prototype in prototypes.items():
        try:
            scheduler = longest(prototype, budget)
            ends["diffusers"][name] = (walk(D, x, scheduler, exact), len(scheduler.timesteps))
        except Exception as error:  # what diffusers itself does not support goes into the report
            failed[name] = repr(error)
    deterministic = [name for name, entry in SOLVERS.items() if not entry.solver.stochastic]
    for solver, grid in itertools.product(deterministic, GRIDS):
        if steps := most_steps(D.schedule, solver, grid, budget):
            ends["ours"][f"{solver} {grid}"] = walked(D, x, steps, solver=solver, grid=grid)
    end, nfe = walked(D, x, budget)
    default = errors(end, truth, len(names))
    table = {side: {name: errors(end, truth, len(names)) for name, (end, _) in of.items()} for side, of in ends.items()}

    rows = []
    for i, mixture in enumerate(names):
        row = {"mixture": mixture, "nfe": budget, "default": default[i], "default_nfe": nfe, "failed": failed}
        for side, of in table.items():
            here = {name: values[i] for name, values in of.items() if math.isfinite(values[i])}
            best = min(here, key=here.get)
            row[side] = {"best": best, "error": here[best], "nfe": ends[side][best][1], "all": here}
        row["best_ratio"] = row["ours"]["error"] / row["diffusers"]["error"]
        row["default_ratio"] = row["default"] / row["diffusers"]["error"]
        rows.append(row)
        print(
            f"{budget:4d}  {mixture:18s} {row['diffusers']['error']:9.5f} {row['ours']['error']:9.5f} "
            f"{row['default']:9.5f}"
            f" {row['best_ratio']:6.2f} {row['default_ratio']:8.2f}   {row['diffusers']['best']} | "
            f"{row['ours']['best']}",
            flush=True,
        )
    return rows


def geometric_mean(values: list[float]) -> float:
    """exp of the mean logarithm."""
    return math.exp(sum(map(math.log, values)) / len(values))


def fixed(rows: list[dict], side: str) -> dict:
    """The one setting of a side that does best over all mixtures, by the geometric mean of its errors."""
    means = {
        name: geometric_mean([row[side]["all"][name] for row in rows])
        for name in rows[0][side]["all"]
        if all(name in row[side]["all"] for row in rows)
    }
    best = min(means, key=means.get)
    return {"best": best, "geometric_mean": means[best]}


def ends_at_0(setting: str) -> bool:
    """Whether a setting of diffusers, by its label, walks to clean data; others stop at the table's NSR of 0.029."""
    return not (setting.startswith("DEIS") or "sigma_min" in setting or "set_alpha_to_one=False" in setting)


def summary(rows: list[dict]) -> dict:
    """Geometric mean and worst of both ratios, chosen per mixture; and one setting for all mixtures on each side."""
    out = {"fixed": {side: fixed(rows, side) for side in ("diffusers", "ours")}}
    out["fixed"]["default"] = {
        "best": "solve(D, x, steps=NFE)",
        "geometric_mean": geometric_mean([row["default"] for row in rows]),
    }
    for key in ("best_ratio", "default_ratio"):
        values = [row[key] for row in rows]
        out[key] = {"geometric_mean": geometric_mean(values), "worst": max(values)}
        out[key]["worst_mixture"] = max(rows, key=lambda row: row[key])["mixture"]
        out[key]["met"] = sum(value <= LIMIT for value in values)
    to_0 = [
        row["ours"]["error"] / min(error for name, error in row["diffusers"]["all"].items() if ends_at_0(name))
        for row in rows
    ]
    met = sum(value <= LIMIT for value in to_0)
    out["best_ratio_to_0"] = {"geometric_mean": geometric_mean(to_0), "worst": max(to_0), "met": met}
    return out


def problems(count: int, seed: int) -> dict[str, mixtures.GaussianMixture]:
    """The ready-made mixtures, and `count` random ones of 3 to 7 modes from consecutive seeds."""
    ready = {name: build() for name, build in MIXTURES.items() if name != "random"}
    return ready | {
        f"random {seed + k} ({3 + k % 5})": mixtures.random_mixture(seed + k, modes=3 + k % 5) for k in range(count)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixtures", type=int, default=12, help="random mixtures, beside the ready-made (default 12)")
    parser.add_argument(
        "--seed", type=int, default=1000, help="seed of the first random mixture and of the start (default 1000)"
    )
    parser.add_argument(
        "--schedule", default="scaled-linear", choices=list(TABLES), help="diffusers' betas must be the same"
    )
    parser.add_argument("--nfe", default="5,10,20", help="budgets of network calls (default 5,10,20)")
    parser.add_argument("--particles", type=int, default=256, help="samples a mixture (default 256)")
    parser.add_argument("--exact-times", action="store_true", help="give diffusers the model at its exact noise levels")
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()

    torch.set_num_threads(1)  # the batches are too small to divide
    began, S = time.perf_counter(), schedule(options.schedule)
    suite = problems(options.mixtures, options.seed)
    starts = {
        name: m.marginal(S, 1.0).sample(options.particles, options.seed, dtype=torch.float64)
        for name, m in suite.items()
    }
    truth = torch.cat([reference(m.denoiser(S), starts[name], tolerance=1e-9) for name, m in suite.items()])
    D, x = Side([m.denoiser(S) for m in suite.values()]), torch.cat(list(starts.values()))
    print(f"{len(suite)} mixtures; {len(all_of_diffusers())} settings of diffusers; median error to the exact flow")
    print(
        f"{'NFE':>4s}  {'mixture':18s} {'diffusers':>9s} {'ours':>9s} {'default':>9s} {'ratio':>6s} {'default/':>8s} "
        "  best of diffusers | best of ours"
    )
    prototypes = {
        label(*setting): make(setting[0], options.schedule, **for_class(*setting)) for setting in all_of_diffusers()
    }
    with torch.no_grad():
        rows = {
            n: measure(D, x, truth, n, list(suite), prototypes, options.exact_times)
            for n in map(int, options.nfe.split(","))
        }
    print("\n NFE   best/best: geometric mean, worst        default/best of diffusers: geometric mean, worst")
    report = {n: summary(of) for n, of in rows.items()}
    for n, of in report.items():
        ratios = [of["best_ratio"], of["default_ratio"]]
        cells = [f"{r['geometric_mean']:.2f}   {r['worst']:.2f} ({r['worst_mixture']})" for r in ratios]
        print(
            f"{n:4d}   {cells[0]:40s} {cells[1]}   best/best at most {LIMIT}: {of['best_ratio']['met']} of "
            f"{len(rows[n])}"
        )
    print(f"\n NFE   best/best against the runs of diffusers that end at 0: geometric mean, worst, at most {LIMIT}")
    for n, of in report.items():
        r = of["best_ratio_to_0"]
        print(f"{n:4d}   {r['geometric_mean']:.2f}   {r['worst']:.2f}   {r['met']} of {len(rows[n])}")
    print("\n NFE   one setting for all mixtures: geometric mean of its errors")
    for n, of in report.items():
        print(
            f"{n:4d}   "
            + "   ".join(f"{side}: {r['geometric_mean']:.5f} ({r['best']})" for side, r in of["fixed"].items())
        )
    met = all(of["best_ratio"]["worst"] <= LIMIT for of in report.values())
    took = time.perf_counter() - began
    print(f"best/best at most {LIMIT} on every mixture: {'yes' if met else 'no'}; {took:.0f} s")
    settings = {key: str(value) for key, value in vars(options).items()} | versions()
    write(
        {
            "settings": settings,
            "summary": report,
            "rows": list(itertools.chain(*rows.values())),
            "met": met,
            "seconds": took,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
