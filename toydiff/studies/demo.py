"""Five pictures of the lecture deck "The Principle and Application of Diffusion Acceleration", computed on exact
mixtures. `toydiff demo` makes them: PNG files, interactive pages, an index and a report.

Nothing is trained. The score of a mixture is known, so every error is the sampler's own. It is measured against
`toydiff.reference`.
"""

import dataclasses
import html
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import Denoiser
from ..grids import DEFAULT_GRID, GRIDS, time_grid
from ..measure import first_orderness, fitted_order, paired_error
from ..mixtures import Empirical, GaussianMixture, random_mixture, ring
from ..schedules import VP, schedule
from ..solvers import DEFAULT_SOLVER, PARALLEL, SOLVERS, Trajectory, reference, solve
from ..support.files import writable_folder, write_bytes, write_json, write_text
from .orders import FLOOR, WINDOW, convergence

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

DECK = "The Principle and Application of Diffusion Acceleration"
"""The lecture deck that the pictures are of."""
SEED = 0
SCHEDULE = VP()
FINE = 3e-14
"""The tolerance of a second reference. Its distance to the first reference is the floor: the reference's own error."""


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    samples: int
    """Samples in a measurement."""
    paths: int
    """Paths that are drawn."""
    steps: tuple[int, ...]
    """Steps of the solvers in the picture of orders."""
    mixtures: int
    """Random mixtures in the picture of time grids."""


FULL = Size(samples=256, paths=24, steps=(5, 10, 20, 40, 80, 160, 320), mixtures=9)
FAST = Size(samples=24, paths=8, steps=(20, 40, 80), mixtures=2)


@dataclass
class Picture:
    """One picture: what it shows, in two sentences, as two figures, and as the numbers behind them."""

    name: str
    """Of its files, without ending."""
    topic: str
    """A heading of one or two words."""
    title: str
    """The claim of the figures."""
    sentences: tuple[str, str]
    static: "Figure"
    interactive: "go.Figure"
    numbers: dict[str, Any]


def run(out: Path | str, *, progress: bool = True, fast: bool = False) -> dict[str, Any]:
    """Make the demo in the folder `out`: five PNG files, five pages that need no network, `index.html` and
    `report.json`.

    Returns the report, with the keys deck, seed, schedule, error, versions, seconds and pictures. It holds every number
    that is drawn or written. Files of these names are replaced, each whole or not at all. progress: show a bar. fast:
    compute less, for tests. `ValueError` if the folder cannot be written, before anything is computed.
    """
    folder = writable_folder(out)
    began = time.perf_counter()
    pictures = []
    for make in tqdm(MAKERS, desc="demo", unit="picture", disable=not progress):
        start = time.perf_counter()
        picture = make(FAST if fast else FULL)
        _write(folder, picture)
        sentences = list(picture.sentences)
        seconds = round(time.perf_counter() - start, 2)
        pictures.append(
            {
                "name": picture.name,
                "topic": picture.topic,
                "title": picture.title,
                "sentences": sentences,
                "seconds": seconds,
                **picture.numbers,
            }
        )
    report = {
        "deck": DECK,
        "seed": SEED,
        "schedule": SCHEDULE.name,
        "error": "root mean square distance to the exact end of the same noise, toydiff.reference in float64",
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("toydiff", "torch", "numpy", "scipy", "matplotlib", "plotly")},
        "seconds": round(time.perf_counter() - began, 2),
        "pictures": pictures,
    }
    write_json(folder / "report.json", report)
    write_text(folder / "index.html", _index(report))
    return report


def _write(folder: Path, picture: Picture) -> None:
    from ..plots import interactive, static

    write_bytes(folder / f"{picture.name}.png", static.png(picture.static))
    write_text(folder / f"{picture.name}.html", interactive.page(picture.interactive))


# ---- measuring


@dataclass(frozen=True)
class _Truth:
    """A denoiser, noise to start from, and the exact end of the flow from there."""

    D: Denoiser
    noise: Tensor
    end: Tensor
    floor: float
    """The error of `end` itself."""

    def error(self, path: Trajectory) -> float:
        return paired_error(path.end, self.end).rms


def _noise(n: int) -> Tensor:
    return SCHEDULE.prior((n, 2), SEED, dtype=torch.float64)


def _truth(D: Denoiser, noise: Tensor) -> _Truth:
    end = reference(D, noise)
    return _Truth(D, noise, end, paired_error(end, reference(D, noise, tolerance=FINE)).rms)


def _steps(solver: str, nfe: int) -> int:
    """How many steps a solver makes with `nfe` calls, at least one."""
    return max(1, nfe // SOLVERS[solver].solver.nfe_per_step)


def _first(path: Trajectory, n: int) -> Trajectory:
    """The first n paths of a batch."""
    return dataclasses.replace(path, xs=path.xs[:, :n], x0s=path.x0s[:, :n])


# ---- the pictures


def _trajectories(size: Size) -> Picture:
    from ..plots import interactive, static

    mixture = ring()
    truth = _truth(mixture.denoiser(SCHEDULE), _noise(size.samples))
    few, many = (solve(truth.D, truth.noise, n, solver="ddim") for n in (5, 100))
    target = truth.error(many)
    better = next(
        path
        for path in (solve(truth.D, truth.noise, n, solver=DEFAULT_SOLVER) for n in range(5, 200))
        if truth.error(path) <= target
    )
    named = [("ddim", few), ("ddim", many), (DEFAULT_SOLVER, better)]
    paths = {f"{solver}, {path.nfe} NFE: error {_short(truth.error(path))}": path for solver, path in named}
    solvers = dict(zip(paths, (solver for solver, _ in named), strict=True))
    title = "Few steps miss the exact end; more steps, or a better solver, reach it"
    drawn = {name: _first(path, size.paths) for name, path in paths.items()}
    options: dict[str, Any] = {"solvers": solvers, "exact": truth.end[: size.paths], "title": title}
    return Picture(
        "1-trajectories",
        "Paths",
        title,
        (
            "From given noise the probability-flow ODE has one exact end for each sample (rings). "
            f"DDIM with {few.nfe} calls ends {truth.error(few):.2g} away from it, "
            f"and with {many.nfe} calls {target:.2g} away.",
            f"{SOLVERS[DEFAULT_SOLVER].title} comes as close ({truth.error(better):.2g}) with {better.nfe} calls, "
            "because it uses how the prediction changes along the path.",
        ),
        static.trajectories(drawn, mixture, **options),
        interactive.trajectories(drawn, mixture, **options),
        {
            "mixture": "ring",
            "grid": DEFAULT_GRID,
            "samples": size.samples,
            "floor": truth.floor,
            "rows": [{"solver": solver, "nfe": path.nfe, "error": truth.error(path)} for solver, path in named],
        },
    )


def _lines(size: Size) -> Picture:
    from ..plots import interactive, static

    place, mixture = torch.tensor([[1.4, 1.4]], dtype=torch.float64), ring()
    # a point has no density: a narrow Gaussian marks where it is
    worlds = {
        "one data point": (Empirical(place).denoiser(SCHEDULE), GaussianMixture(place, std=0.08)),
        "ring of eight": (mixture.denoiser(SCHEDULE), mixture),
    }
    paths, backgrounds = {}, {}
    rows: list[dict[str, Any]] = []
    for name, (D, background) in worlds.items():
        truth = _truth(D, _noise(size.samples))
        path = solve(D, truth.noise, 400)
        paths[name], backgrounds[name] = _first(path, 6), background
        rows.append(
            {
                "data": name,
                "solver": DEFAULT_SOLVER,
                "grid": DEFAULT_GRID,
                "nfe": path.nfe,
                "error": truth.error(path),
                "variation_of_x0": first_orderness(path, SCHEDULE, kind="x0", normalised=True),
                "one_step_error": truth.error(solve(D, truth.noise, 1, solver="ddim")),
                "floor": truth.floor,
            }
        )
    point, many = rows
    title = "Rescale the path: first-order means straight, and straight means one step"
    return Picture(
        "2-straight-lines",
        "Straight lines",
        title,
        (
            "Drawn as y = x/σ = (α/σ)·x₀ + ε against α/σ, a path is straight wherever the predicted x₀ and ε stay the "
            "same. With one data point they always do: x itself bends in t, but a single DDIM call is exact "
            f"(error {_short(point['one_step_error'])}).",
            "With eight modes a path bends only while it decides between them, and is straight before and after. "
            f"One call misses by {many['one_step_error']:.2g} there, and {100 * many['variation_of_x0']:.0f}% of the "
            "mean square of the predicted x₀ is its change along the path.",
        ),
        static.rescaled(paths, SCHEDULE, backgrounds, title=title),
        interactive.rescaled(paths, SCHEDULE, backgrounds, title=title),
        {"samples": size.samples, "rows": rows},
    )


def _orders(size: Size) -> Picture:
    from ..plots import interactive, static

    few = size.steps[-3:]
    rows = [
        # the slope of the finest steps: coarse ones are not yet in the range of the power law
        row | {"measured": fitted_order(few, row["error"][-3:], floor=FLOOR)}
        for row in convergence(
            random_mixture(SEED),
            lambdas=WINDOW,
            schedules=[SCHEDULE.name],
            steps=size.steps,
            starts=min(64, size.samples),
            seed=SEED,
        )
    ]
    slopes = {
        p: [row["measured"] for row in rows if row["declared"] == p] for p in sorted({row["declared"] for row in rows})
    }
    measured = "; ".join(f"order {p}: {_between(values)}" for p, values in slopes.items())
    races = [_race(rows, target) for target in (1e-3, 1e-6)]
    easy, hard = races
    title = "On log-log axes a solver is a line, and its order is the slope"
    return Picture(
        "3-convergence",
        "Orders",
        title,
        (
            "Once steps are small, twice the calls divide the error of a solver of order p by 2^p. "
            f"From NSR {math.exp(-WINDOW[0]):.2g} down to {math.exp(-WINDOW[1]):.2g}, "
            f"the slopes over the last three points are, by declared order: {measured}.",
            f"An error of {easy['error']:g} takes {easy['solvers'][0]} the fewest calls, about {easy['nfe'][0]:.0f}, "
            f"and {easy['solvers'][-1]} the most of those that reach it, about {easy['nfe'][-1]:.0f}. "
            f"An error of {hard['error']:g} takes {hard['solvers'][0]} the fewest, about {hard['nfe'][0]:.0f}; "
            f"{len(rows) - len(hard['solvers'])} of the {len(rows)} solvers do not reach it in {size.steps[-1]} steps.",
        ),
        static.convergence(rows, floor=FLOOR, title=title),
        interactive.convergence(rows, floor=FLOOR, title=title),
        {
            "mixture": f"random, seed {SEED}",
            "grid": "uniform in lambda between two inner levels",
            "lambdas": list(WINDOW),
            "samples": min(64, size.samples),
            "fitted_to_steps": list(few),
            "floor": FLOOR,
            "calls_to_reach": races,
            "rows": rows,
        },
    )


def _between(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _race(rows: Sequence[dict], target: float) -> dict:
    """The solvers that reach an error, that with the fewest calls first, and their calls."""
    calls = sorted(
        (n, row["solver"]) for row in rows if (n := calls_to_reach(row["nfe"], row["error"], target)) is not None
    )
    return {"error": target, "solvers": [solver for _, solver in calls], "nfe": [n for n, _ in calls]}


def calls_to_reach(nfe: Sequence[int], error: Sequence[float], target: float) -> float | None:
    """The number of calls at which the error first falls to `target`; None if it never does.

    The curve through the points (nfe, error) is taken as straight between them on log-log axes.
    """
    for k, e in enumerate(error):
        if e <= target:
            if k == 0:
                return float(nfe[0])
            fraction = math.log(error[k - 1] / target) / math.log(error[k - 1] / e)
            return nfe[k - 1] * (nfe[k] / nfe[k - 1]) ** fraction
    return None


def _grids(size: Size) -> Picture:
    from ..plots import interactive, static

    nfe = 10
    noise = _noise(size.samples // 4)
    truths = [_truth(random_mixture(seed).denoiser(SCHEDULE), noise) for seed in range(size.mixtures)]
    grids = {name: time_grid(SCHEDULE, nfe, name) for name in GRIDS}
    rows: list[dict[str, Any]] = []
    for solver in dict.fromkeys(("ddim", DEFAULT_SOLVER)):
        for name in GRIDS:
            steps = _steps(solver, nfe)
            paths = [solve(truth.D, truth.noise, steps, solver=solver, grid=name, keep="end") for truth in truths]
            each = [truth.error(path) for truth, path in zip(truths, paths, strict=True)]
            median = float(torch.tensor(each, dtype=torch.float64).quantile(0.5))
            rows.append(
                {"solver": solver, "grid": name, "nfe": paths[0].nfe, "error": median, "error_by_mixture": each}
            )
    errors: dict[str, dict[str, float]] = {row["solver"]: {} for row in rows}
    for row in rows:
        errors[row["solver"]][row["grid"]] = row["error"]
    ours, simple = (sorted(errors[name].items(), key=lambda pair: pair[1]) for name in (DEFAULT_SOLVER, "ddim"))
    (best, low), (worst, high) = ours[0], ours[-1]
    floor = max(truth.floor for truth in truths)
    title = f"The same {nfe} calls, spent in different places"
    return Picture(
        "4-time-grids",
        "Time grids",
        title,
        (
            f"A time grid sets the noise levels at which calls are spent. With {nfe} calls of {DEFAULT_SOLVER}, the "
            f"grid {worst} ends {high:.2g} from the exact flow, and {best} {low:.2g}, {high / low:.1f} times closer.",
            f"These are medians over {size.mixtures} random mixtures. For ddim the best grid is {simple[0][0]} "
            f"({_short(simple[0][1])}), and the worst grid's error is {simple[-1][1] / simple[0][1]:.1f} times that.",
        ),
        static.time_grids(grids, SCHEDULE, errors=errors, floor=floor, title=title),
        interactive.time_grids(grids, SCHEDULE, errors=errors, floor=floor, title=title),
        {
            "mixture": f"random, seeds 0 to {size.mixtures - 1}; error is the median over them",
            "samples": size.samples // 4,
            "floor": floor,
            "rows": rows,
            "grids": [{"grid": name, "t": ts.tolist(), "nsr": SCHEDULE.nsr(ts).tolist()} for name, ts in grids.items()],
        },
    )


def _picard(size: Size) -> Picture:
    from ..plots import interactive, static

    steps, target, mixture, table = 100, 0.01, random_mixture(SEED), schedule("scaled-linear")
    noise = mixture.marginal(table, 1.0).sample(size.samples, SEED, dtype=torch.float64)
    truth = _truth(mixture.denoiser(table), noise)

    def sample(solver: str) -> Trajectory:
        return solve(truth.D, noise, steps, solver=solver, grid="uniform")

    def spent(path: Trajectory) -> dict:
        return {"rounds": path.rounds, "nfe": path.nfe, "error": truth.error(path)}

    walk = sample("ddim")
    rows: list[dict[str, Any]] = [
        {"method": "sequential", **spent(walk), "error_to_sequential": 0.0, "rounds_to_target": walk.rounds},
    ]
    for name in PARALLEL:
        path = sample(name)
        missed = _missed(path, walk)
        reached = next((n for n, miss in zip(path.sweep_rounds, missed, strict=True) if miss <= target), None)
        rows.append({"method": name, **spent(path), "error_to_sequential": missed[-1], "rounds_to_target": reached})
    # with so small a tolerance, accepted points are as good as exact
    strict = sample("picard:tolerance=1e-8")
    called = {row["method"]: row for row in rows}
    needed = {method: row["rounds_to_target"] for method, row in called.items()}
    title = "After k sweeps the first k points are exact; in practice a few sweeps bring all of them close"
    options: dict[str, Any] = {"exact": walk.xs, "samples": size.paths, "title": title}
    return Picture(
        "5-picard",
        "Parallel sampling",
        title,
        (
            f"Picard iteration guesses the whole path. A sweep improves all its {steps} steps in one round of calls, "
            f"and makes at least one more point exact (the staircase), so {steps} rounds always suffice. "
            f"Here, with five modes and the schedule {table.name}, after {needed['picard']} rounds the median sample "
            f"is within {target:g} of the end of {steps} DDIM steps in a row.",
            f"For that, Anderson acceleration needs {needed['anderson']} rounds, Broyden's secants {needed['broyden']} "
            f"and Parareal {needed['parareal']}; the price is calls. "
            f"Picard with its default tolerance spends {called['picard']['nfe']} a sample, "
            f"in {called['picard']['rounds']} rounds (the figure shows a stricter run, of {strict.rounds}).",
        ),
        static.staircase(strict, mixture, **options),
        interactive.staircase(strict, mixture, **options),
        {
            "mixture": f"random, seed {SEED}",
            "schedule": table.name,
            "grid": "uniform",
            "steps": steps,
            "samples": size.samples,
            "target": target,
            "floor": truth.floor,
            "rows": rows,
            "drawn": {
                "solver": "picard:tolerance=1e-8",
                "accepted": list(strict.fronts),
                "error_to_sequential": _missed(strict, walk),
            },
        },
    )


def _missed(path: Trajectory, walk: Trajectory) -> list[float]:
    """The distance of the median sample from the end of the sequential walk, after each sweep."""
    return path.errors(walk.xs)[:, -1].quantile(0.5, dim=1).tolist()


MAKERS: tuple[Callable[[Size], Picture], ...] = (_trajectories, _lines, _orders, _grids, _picard)


# ---- the index


def _short(value: float) -> str:
    """A measured number in a sentence; a plain 0 where there is no error at all."""
    return "0" if value == 0 else f"{value:.1e}" if value < 1e-3 else f"{value:.2g}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>toydiff: the demo</title>
<style>
:root {{ --ink: #222; --paper: #fafafa; --quiet: #666; --link: #0072b2; --edge: #ddd; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --paper: #17181a; --quiet: #a0a0a0; --link: #56b4e9; --edge: #333; }}
}}
body {{ margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
       font: 1.05rem/1.6 system-ui, sans-serif; }}
h1 {{ line-height: 1.2; margin-bottom: .3em; }}
h2 {{ line-height: 1.25; margin: 3rem 0 .3em; font-size: 1.35rem; }}
p {{ max-width: 46rem; margin: .5em 0; }}
a {{ color: var(--link); }}
a.figure {{ display: block; margin: 1rem 0 .4rem; padding: .6rem; background: #fff;
            border: 1px solid var(--edge); border-radius: 8px; }}
img {{ display: block; width: 100%; height: auto; }}
.quiet {{ color: var(--quiet); font-size: .95rem; }}
</style>
</head>
<body>
<h1>A good sample with fewer calls in a row: five pictures</h1>
<p>These are pictures of the lecture deck “{deck}”, computed anew. A sample is
x<sub>t</sub> = α·x₀ + σ·ε, with t = 1 noise and t = 0 data. The data are two-dimensional mixtures whose score is known
exactly, so every error here is the sampler's own.</p>
{sections}
<p class="quiet">Schedule {schedule} unless another is named, seed {seed}, {seconds:.0f} s. An error is the {error}.
Every number is in <a href="report.json">report.json</a>.</p>
</body>
</html>
"""

_SECTION = """<section>
<h2>{topic}</h2>
<p>{sentences}</p>
<a class="figure" href="{name}.html"><img src="{name}.png" alt="{title}" loading="lazy"></a>
<p><a href="{name}.html">Open the interactive figure</a></p>
</section>"""


def _index(report: dict) -> str:
    sections = [
        _SECTION.format(
            name=html.escape(picture["name"]),
            topic=html.escape(picture["topic"]),
            title=html.escape(picture["title"]),
            sentences=html.escape(" ".join(picture["sentences"])),
        )
        for picture in report["pictures"]
    ]
    return _PAGE.format(
        sections="\n".join(sections),
        deck=html.escape(report["deck"]),
        schedule=html.escape(report["schedule"]),
        seed=report["seed"],
        seconds=report["seconds"],
        error=html.escape(report["error"]),
    )
