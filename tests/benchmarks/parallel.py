"""Parallel sampling: what each device contributes to fewer rounds, and where wall-clock is won and where it is lost.

    python tests/benchmarks/parallel.py [--seeds 6] [--seed 0] [--steps 100] [--samples 256] [--threads 1]
        [--part devices|tail|clock] [--json FILE]

- Devices: the rounds, the starts' calls included, until the samples are within 1e-2 of those of the sequential DDIM
  walk, by the median and by the 95th percentile, on several five-mode mixtures; mean and standard deviation over the
  seeds.
- Tail: how the slowest samples fare, and how often an acceleration is worse than plain Picard after as many rounds.
- Clock: seconds of the same samplers with a network, where large batches take longer, and with a fixed cost per call,
  whatever its batch, side by side in one run. More threads than idle cores make it many times slower.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from common import versions, write
from torch import Tensor, nn

from toydiff import Denoiser, GaussianMixture, NetDenoiser, Trajectory, mixtures, schedule, solve, time_grid
from toydiff.solvers import Anderson, Broyden, Parareal, Picard
from toydiff.studies.parallel_sampling import FixedCost, Watched

TARGET = 1e-2
STEPS_BEFORE = 25
"""Steps of the earlier trajectory that some runs start from."""

COST = 0.01
WIDTH, BLOCKS = 64, 60
DIM = 64
REPEATS, LONG = 5, 1.0
"""Runs that are timed, and the seconds after which there are enough; the median counts."""

CLOCKS = [(100, 1), (1000, 1), (100, 64), (1000, 64)]
"""Steps x samples that are timed."""

Run = Callable[[Denoiser, Tensor, Tensor], tuple[Trajectory, list[Tensor]]]
"""(D, x, ts) to the trajectory, and the samples (B, ...) after each sweep."""


# ---- the problems and the devices


def problems(options: argparse.Namespace) -> dict[str, list[tuple[Denoiser, Tensor, Tensor]]]:
    """Groups of mixtures: denoiser, states at t = 1 and grid of each. The spread over a group is reported."""
    seed, steps, samples = options.seed, options.steps, options.samples
    random = [mixtures.random_mixture(seed + k) for k in range(options.seeds)]
    return {
        "random": [start(m, "scaled-linear", steps, samples, seed) for m in random],
        "ring": [start(mixtures.ring(5), "scaled-linear", steps, samples, seed)],
        "narrow ring": [start(mixtures.ring(5, std=0.02), "scaled-linear", steps, samples, seed)],
        # its full covariances take most of the time
        f"dim {DIM}": [
            start(mixtures.random_mixture(seed, dim=DIM), "scaled-linear", steps, max(samples // 4, 1), seed)
        ],
        "random, ve": [start(m, "ve", steps, samples, seed) for m in random[: max(len(random) // 2, 1)]],
    }


def with_solver(solver: object) -> Run:
    def run(D, x, ts):
        watched = Watched(solver)
        return solve(D, x, solver=watched, ts=ts, keep="end"), watched.ends

    return run


def after(first: object, then: Callable[[Trajectory], object]) -> Run:
    """A solver that starts from an earlier short trajectory, solved by `first`, whose calls and rounds are counted."""

    def run(D, x, ts):
        before = solve(D, x, STEPS_BEFORE, solver=first, grid="uniform")
        return with_solver(then(before))(D, x, ts)

    return run


def devices(steps: int) -> dict[str, Run]:
    """Each device by itself, and together with others."""
    blocks = [b for b in (5, 10, 20, 25, 50) if steps % b == 0]
    return {
        "picard": with_solver(Picard()),
        f"window {max(steps // 4, 1)}": with_solver(Picard(window=max(steps // 4, 1))),
        **{f"picard, coarse start {n}": with_solver(Picard(start=n)) for n in (1, 2, 3)},
        **{f"anderson, memory {m}": with_solver(Anderson(memory=m)) for m in (1, 2, 3)},
        **{f"anderson, coarse start {n}": with_solver(Anderson(start=n)) for n in (1, 2, 3)},
        **{f"broyden, memory {m}": with_solver(Broyden(memory=m)) for m in (1, 2)},
        **{f"broyden, coarse start {n}": with_solver(Broyden(start=n)) for n in (1, 2, 3)},
        f"picard after {STEPS_BEFORE} ddim steps": after("ddim", lambda path: Picard(start=path)),
        f"picard after picard on {STEPS_BEFORE}": after("picard", lambda path: Picard(start=path)),
        f"broyden after broyden on {STEPS_BEFORE}": after("broyden", lambda path: Broyden(start=path)),
        **{f"parareal, {b} blocks": with_solver(Parareal(blocks=b)) for b in blocks},
    }


class Ends:
    """A run seen from its samples.

    errors: those of each sweep to the sequential walk, (K+1, B). spent: the rounds spent by then, (K+1,).
    """

    def __init__(self, path: Trajectory, ends: list[Tensor], walk: Tensor):
        self.errors = (torch.stack(ends) - walk).norm(dim=2)
        self.spent, self.rounds, self.nfe = path.sweep_rounds, path.rounds, path.nfe

    def to_target(self, fraction: float) -> int | None:
        """Rounds until this fraction of the samples was within TARGET; None for never."""
        errors = self.errors.quantile(fraction, dim=1).tolist()
        return next((spent for spent, error in zip(self.spent, errors, strict=True) if error <= TARGET), None)

    def after(self, rounds: int) -> Tensor:
        """The errors (B,) when so many rounds were spent."""
        return self.errors[max(k for k, spent in enumerate(self.spent) if spent <= max(rounds, self.spent[0]))]


def start(mixture: GaussianMixture, name: str, steps: int, samples: int, seed: int) -> tuple[Denoiser, Tensor, Tensor]:
    """The denoiser, the states at t = 1 and the uniform grid, in float64."""
    s = schedule(name)
    x = mixture.marginal(s, 1.0).sample(samples, seed, dtype=torch.float64)
    return mixture.denoiser(s), x, time_grid(s, steps, "uniform")


def measure_devices(options: argparse.Namespace) -> list[dict]:
    """One row a device: for each group of problems the rounds to TARGET, by median and 95th percentile."""
    ready = problems(options)
    walks = {group: [solve(*of[:2], solver="ddim", ts=of[2], keep="end").end for of in ready[group]] for group in ready}
    print(
        f"\nrounds to {TARGET:g}, T = {options.steps}, {options.samples} samples: median | 95th percentile "
        f"(sequential: {options.steps})"
    )
    print(
        f"{'':28s}"
        + "".join(f"{f'{group} ({len(ready[group])})':>25s}" for group in ready)
        + "   rounds, NFE in all (first group)"
    )
    rows = []
    for name, run in devices(options.steps).items():
        row = {"device": name, "groups": {}}
        for group, members in ready.items():
            runs = [Ends(*run(*of), walk) for of, walk in zip(members, walks[group], strict=True)]
            row["groups"][group] = {
                "median": spread([r.to_target(0.5) for r in runs]),
                "p95": spread([r.to_target(0.95) for r in runs]),
                "rounds": spread([r.rounds for r in runs]),
                "nfe": spread([r.nfe for r in runs]),
            }
        rows.append(row)
        cells = [f"{text_of(of['median'])} | {text_of(of['p95'])}" for of in row["groups"].values()]
        of = next(iter(row["groups"].values()))
        print(
            f"{name:28s}"
            + "".join(f"{text:>25s}" for text in cells)
            + f"   {text_of(of['rounds'])}, {of['nfe']['mean']:.0f}",
            flush=True,
        )
    return rows


def spread(values: Sequence[int | None]) -> dict:
    """Mean, standard deviation and extremes; `never` counts those that did not get there."""
    found = [value for value in values if value is not None]
    if not found:
        return {"mean": None, "std": None, "least": None, "most": None, "never": len(values)}
    return {
        "mean": statistics.mean(found),
        "std": statistics.pstdev(found),
        "least": min(found),
        "most": max(found),
        "never": len(values) - len(found),
    }


def text_of(of: dict) -> str:
    """A spread in a few characters."""
    if of["mean"] is None:
        return "never"
    text = f"{of['mean']:.1f}±{of['std']:.1f}" if of["least"] != of["most"] else str(of["least"])
    return text + (f" ({of['never']} never)" if of["never"] else "")


# ---- the tail


def stretch(D: Denoiser, x: Tensor, ts: Tensor, seed: int) -> Tensor:
    """How much the walk stretches a small difference of starts, (B,).

    It is large at decision boundaries, where neighbours part for two modes.
    """
    rng = torch.Generator().manual_seed(seed)
    end, longest = solve(D, x, solver="ddim", ts=ts, keep="end").end, torch.zeros(len(x), dtype=x.dtype)
    for _ in range(4):
        step = 1e-5 * nn.functional.normalize(torch.randn(x.shape, dtype=x.dtype, generator=rng), dim=1)
        moved = solve(D, x + step, solver="ddim", ts=ts, keep="end").end
        longest = longest.maximum((moved - end).norm(dim=1) / 1e-5)
    return longest


def measure_tail(options: argparse.Namespace) -> list[dict]:
    """For a few problems and numbers of rounds: all samples, those stretched most, and how often Picard was better."""
    suite = {
        f"random {options.seed}": (mixtures.random_mixture(options.seed), "scaled-linear"),
        "ring": (mixtures.ring(5), "scaled-linear"),
        "narrow ring": (mixtures.ring(5, std=0.02), "scaled-linear"),
    }
    print(
        "\nthe tail: errors after so many rounds; boundary: median over the 5% of samples that the walk stretches most"
    )
    print(
        f"{'problem':12s} {'solver':10s} {'rounds':>6s} {'median':>9s} {'p95':>9s} {'largest':>9s} {'boundary':>9s} "
        f"{'worse than picard':>18s}"
    )
    rows = []
    for problem, (mixture, name) in suite.items():
        D, x, ts = start(mixture, name, options.steps, options.samples, options.seed)
        walk = solve(D, x, solver="ddim", ts=ts, keep="end").end
        stretched = stretch(D, x, ts, options.seed)
        boundary = stretched >= stretched.quantile(0.95)
        solvers = {"picard": Picard(), "anderson": Anderson(), "broyden": Broyden()}
        runs = {of: Ends(*with_solver(solver)(D, x, ts), walk) for of, solver in solvers.items()}
        for rounds in (3, 4, 6, 8):
            plain = runs["picard"].after(rounds)
            for solver, run in runs.items():
                errors = run.after(rounds)
                row = {
                    "problem": problem,
                    "solver": solver,
                    "rounds": rounds,
                    "median": float(errors.quantile(0.5)),
                    "p95": float(errors.quantile(0.95)),
                    "largest": float(errors.max()),
                    "boundary": float(errors[boundary].quantile(0.5)),
                    "worse_than_picard": float((errors > plain).double().mean()),
                    "stretch_p95": float(stretched.quantile(0.95)),
                }
                rows.append(row)
                numbers = " ".join(f"{row[key]:9.1e}" for key in ("median", "p95", "largest", "boundary"))
                print(f"{problem:12s} {solver:10s} {rounds:6d} {numbers} {row['worse_than_picard']:18.0%}", flush=True)
    return rows


# ---- wall-clock


class Block(nn.Module):
    """A residual block: many small ones in a row keep a processor waiting for one sample, as real networks do."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(nn.functional.silu(self.norm(x)))


class Learned(nn.Module):
    """A network that has learned a mixture up to a small error.

    It takes a network's time, and its paths are as hard as the mixture's: x_0 = E[x_0 | x_t] + 1e-3 times the output of
    an untrained residual network.
    """

    def __init__(self, mixture: GaussianMixture, name: str):
        super().__init__()
        d = mixture.dim
        self.net = nn.Sequential(nn.Linear(d + 1, WIDTH), *(Block() for _ in range(BLOCKS)), nn.Linear(WIDTH, d))
        self.exact = mixture.denoiser(schedule(name))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.exact(x, t).x0 + 1e-3 * self.net(torch.cat([x, t[:, None]], 1))


def timed_solvers(steps: int) -> dict[str, object]:
    return {
        "sequential": "ddim",
        "picard": Picard(),
        f"window {steps // 4}": Picard(window=steps // 4),
        "anderson": Anderson(),
        "broyden": Broyden(),
        "parareal": Parareal(),
    }


def measure_clock(options: argparse.Namespace) -> list[dict]:
    """Seconds of the same solvers on a network and with a fixed cost a call, and the ratio to the sequential walk."""
    torch.manual_seed(options.seed)
    mixture, name = mixtures.random_mixture(options.seed), "cosine"
    network = NetDenoiser(Learned(mixture, name), schedule(name), "x0")
    costly = FixedCost(mixture.denoiser(schedule(name)), COST)
    print(
        f"\nseconds, and the sequential walk's over them; a network on {options.threads} thread(s) ({BLOCKS} "
        f"residual blocks of width {WIDTH}, float32, cosine), and {COST:g} s a call whatever the batch"
    )
    torch.set_num_threads(options.threads)
    for batch in (1, 64, 1000, 16384):
        print(f"network, batch {batch}: {call_seconds(network, batch) * 1e3:.1f} ms a call")
    print(
        f"{'T':>5s} {'samples':>7s} {'solver':12s} {'rounds':>6s} {'NFE':>6s} {'network':>9s} {'ratio':>6s} "
        f"{'error':>8s} {'fixed':>9s} {'ratio':>6s}"
    )
    rows = []
    for steps, samples in CLOCKS:
        x = mixture.marginal(schedule(name), 1.0).sample(samples, options.seed, dtype=torch.float32)
        ts = time_grid(schedule(name), steps, "uniform")
        walked = {}
        for solver_name, solver in timed_solvers(steps).items():
            row = {"steps": steps, "samples": samples, "solver": solver_name}
            for kind, D, threads in (("network", network, options.threads), ("fixed", costly, 1)):
                torch.set_num_threads(threads)  # what only sleeps has no work to divide
                path, seconds = timed(D, x, ts, solver)
                first, walk = walked.setdefault(kind, (path, seconds))
                row[kind] = {
                    "seconds": seconds,
                    "ratio": walk / seconds,
                    "rounds": path.rounds,
                    "nfe": path.nfe,
                    "error": float((path.end - first.end).norm(dim=1).quantile(0.5)),
                }
            rows.append(row)
            a, b = row["network"], row["fixed"]
            print(
                f"{steps:5d} {samples:7d} {solver_name:12s} {a['rounds']:6d} {a['nfe']:6d} {a['seconds']:9.3f} "
                f"{a['ratio']:6.2f} {a['error']:8.1e} {b['seconds']:9.3f} {b['ratio']:6.2f}",
                flush=True,
            )
    return rows


def timed(D: Denoiser, x: Tensor, ts: Tensor, solver: object) -> tuple[Trajectory, float]:
    """A run and its seconds: the median of a few, where they are short."""
    seconds = []
    while len(seconds) < REPEATS and sum(seconds) < LONG:
        path = solve(D, x, solver=solver, ts=ts, keep="end")
        seconds.append(path.seconds)
    return path, statistics.median(seconds)


def call_seconds(D: Denoiser, batch: int) -> float:
    """The median time of a call with so many states."""
    x, times = torch.randn(batch, 2), []
    with torch.no_grad():
        for _ in range(11):
            began = time.perf_counter()
            D(x, 0.5)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


# ---- the command

PARTS = {"devices": measure_devices, "tail": measure_tail, "clock": measure_clock}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="random mixtures in two dimensions (default 6)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first mixture, the starts and the network (default 0)"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps of the devices' walk (default 100)")
    parser.add_argument("--samples", type=int, default=256, help="samples of the devices' runs (default 256)")
    parser.add_argument("--threads", type=int, default=1, help="of the network whose time is taken (default 1)")
    parser.add_argument("--part", choices=list(PARTS), help="this part only")
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()

    began, report = time.perf_counter(), {}
    for part, measure in PARTS.items():
        if options.part in (None, part):
            torch.set_num_threads(1)  # small batches are not worth dividing
            report[part] = measure(options)
    took = time.perf_counter() - began
    print(f"\n{took:.0f} s")
    settings = {key: str(value) for key, value in vars(options).items()} | versions()
    write({"settings": settings, **report, "seconds": took}, options.json)


if __name__ == "__main__":
    main()
