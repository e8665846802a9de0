"""The `toydiff` command. A wrong word gives one line on stderr, which names what is allowed, and exit code 2, never a
traceback.

Each command imports the heavy packages that it needs itself, and checks that it can write its output before it starts.
"""

import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..support.files import writable_folder, write_bytes
from ..support.words import plural, printable, quoted, shortened, unknown
from . import app as cli_app
from . import doctor as cli_doctor
from . import score as cli_score
from . import scoreboard as cli_scoreboard
from . import sd as cli_sd
from . import site as cli_site
from . import solvers as cli_solvers
from . import training as cli_training
from .launchers import is_first_process
from .terminal import (
    MOST_SAMPLES,
    MOST_SEED,
    MOST_STEPS,
    Parser,
    add_json,
    between,
    cell,
    finite,
    finite_or_none,
    one_thread,
    output_file,
    place,
    refuse_device,
    report,
    sample_file,
    sample_text,
    show_progress,
    table,
    whole,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..mixtures import GaussianMixture
    from ..solvers import Trajectory

MOST_COMPARED = 10_000
"""Distances and their floors use the first so many samples only: computing them costs far more than sampling."""

MOST_COST = 10
"""Seconds by which `toydiff parallel` makes a network call longer: it waits for them."""

EXAMPLES = """\
examples:
  toydiff app                             the lessons in a browser
  toydiff site --out lessons              the lessons as a folder that needs no server: open lessons/index.html
  toydiff demo --out pictures             five pictures with text: open pictures/index.html
  toydiff methods                         all names: solvers, time grids, schedules, mixtures, methods, problems
  toydiff sample --mixture spirals --steps 8 --out spirals.png
  toydiff sample --solver dpm++2m --grid karras --steps 10 --json - --out ring.npz
  toydiff sample --solver picard:window=10 --steps 100 --out ring.png
  toydiff parallel --steps 25 100 --method sequential picard broyden
  toydiff convergence --solver heun unipc2 --schedule vp linear
  toydiff train diffusion --problem mixture:spirals --out teacher
  toydiff pairs --problem mixture:spirals --teacher teacher --n 20000 --out pairs
  toydiff train rectified-diffusion --problem mixture:spirals --teacher teacher --pairs pairs --out run
  toydiff evaluate run --steps 1,2,4      distance to true samples, beside its floor
  toydiff sample run --steps 1 --out run.png
  toydiff sample --problem sd --model PATH --prompt "a red fox" --solver dpm++2m --steps 20 --out fox.png
  toydiff doctor --model PATH             what a Stable Diffusion checkpoint is, and what it takes
  toydiff zoo                             the bundled weights, and what they measured
"""


# ---- commands


def demo(args: argparse.Namespace) -> None:
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    out = writable_folder(args.out)
    from ..studies.demo import run

    one_thread()
    run(out, progress=show_progress())
    print(f"open {out / 'index.html'}")


def measure_orders(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    from ..studies.orders import DEFAULT_SCHEDULES, convergence

    one_thread()
    rows = convergence(
        seeded_mixture(args.mixture, args.seed),
        solvers=args.solver,
        schedules=args.schedule or DEFAULT_SCHEDULES,
        seed=args.seed,
        progress=show_progress(),
    )
    report(json_to, rows, orders_text(rows, args.mixture))


def orders_text(rows: Sequence[Mapping], mixture: str) -> str:
    """Measured orders as a table, with a line for each solver and a column for each schedule."""
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    by_solver: dict[str, dict[str, Mapping]] = {}
    for row in rows:
        by_solver.setdefault(row["solver"], {})[row["schedule"]] = row
    lines = []
    for solver, by_schedule in by_solver.items():
        any_row = by_schedule[schedules[0]]
        error = max(row["error"][-1] for row in by_schedule.values())
        measured = [f"{by_schedule[name]['measured']:.2f}" for name in schedules]
        lines.append([solver, str(any_row["declared"]), *measured, str(any_row["nfe"][-1]), f"{error:.1e}"])
    head = ["solver", "declared", *schedules, "at NFE", "error"]
    worst = min(rows, key=lambda row: row["measured"] - row["declared"])
    return (
        f"order of the error, measured in float64 on the mixture {mixture!r}, by schedule\n\n"
        f"{table(head, lines, range(1, len(head)))}\n\n"
        f"error: the largest over the schedules, at the most steps. "
        f"Furthest below what it declares: {worst['solver']} on {worst['schedule']}, "
        f"by {worst['declared'] - worst['measured']:.2f}."
    )


def compare_parallel(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    from ..studies.parallel_sampling import DEFAULT_STEPS, METHODS, compare

    one_thread()
    rows = compare(
        args.mixture,
        steps=args.steps or DEFAULT_STEPS,
        methods=args.method or METHODS,
        schedule=args.schedule,
        grid=args.grid,
        samples=args.samples,
        tolerance=args.tolerance,
        window=args.window,
        cost=args.cost,
        seed=args.seed,
        progress=show_progress(),
    )
    report(json_to, rows, parallel_text(rows))


def parallel_text(rows: Sequence[Mapping]) -> str:
    """The comparison as a table, with a block for each number of steps, and sentences about wall-clock time."""
    first = rows[0]
    head = [
        *("steps", "solver", "sweeps", "rounds", "calls", "NFE", "s", "s with cost"),
        *("to walk", "p95", "to flow", "p95", "rounds to target", "p95"),
    ]
    lines: list[list[str]] = []
    for row in rows:
        if lines and lines[-1][0] != str(row["steps"]):
            lines.append([""] * len(head))
        counts = [cell(row[key]) for key in ("sweeps", "rounds", "calls", "nfe")]
        seconds = [f"{row[key]:.3g}" for key in ("seconds", "seconds_with_cost")]
        errors = [
            cell(row[key], ".1e")
            for key in ("error_to_sequential", "error_to_sequential_p95", "error_to_exact", "error_to_exact_p95")
        ]
        targets = [cell(row[key]) for key in ("rounds_to_target", "rounds_to_target_p95")]
        name = "sequential" if row["method"] == "sequential" else row["solver"]
        lines.append([str(row["steps"]), name, *counts, *seconds, *errors, *targets])
    return (
        f"parallel samplers on {first['problem']}, {first['schedule']}, grid {first['grid']}: "
        f"{first['samples']} samples, seed {first['seed']}\n\n"
        f"{table(head, lines, [k for k in range(len(head)) if k != 1])}\n\n"
        f"to walk, to flow: distance of the samples to those of the sequential walk and of the exact flow, "
        f"median and 95th percentile.\n"
        f"target: a distance of {first['target']:g} to the sequential walk, "
        f"by the median and by the 95th percentile.\n"
        f"rounds: calls that waited for one another. "
        f"calls: batches through the network, where large ones go in parts.\n"
        f"s with cost: every network call takes {first['cost_per_call']:g} s longer, "
        f"whatever the size of its batch.\n\n" + "\n".join(parallel_verdicts(rows))
    ).rstrip()


def parallel_verdicts(rows: Sequence[Mapping]) -> list[str]:
    """Whether parallel samplers win or lose wall-clock time: a sentence for each kind of network, and none where there
    is nothing to compare."""
    by_steps: dict[int, dict[bool, list[Mapping]]] = {}
    for row in rows:
        by_steps.setdefault(row["steps"], {True: [], False: []})[row["method"] == "sequential"].append(row)
    kinds = {
        "seconds": "Wall-clock with the network as it is",
        "seconds_with_cost": f"With {rows[0]['cost_per_call']:g} s more a call",
    }
    sentences = []
    for key, kind in kinds.items():
        said = []
        for steps, found in by_steps.items():
            if found[True] and found[False]:
                walk = found[True][0][key]
                best = min(found[False], key=lambda row: row[key])
                ratio = walk / best[key]
                slower = [row["solver"] for row in found[False] if row[key] > walk]
                if ratio < 1:
                    said.append(
                        f"T = {steps} lost, the fastest ({best['solver']}) takes "
                        f"{1 / ratio:.1f} times as long as the walk"
                    )
                else:
                    but = f" (but {', '.join(slower)} slower)" if slower else ""
                    said.append(f"T = {steps} won, {ratio:.1f} times faster than the walk with {best['solver']}{but}")
        if said:
            sentences.append(f"{kind}: {'; '.join(said)}.")
    return sentences


def given(word: str | None, default: str) -> str:
    """The word that was given, even an empty one; `default` where none was."""
    return default if word is None else word


def seeded_mixture(name: str, seed: int) -> "GaussianMixture":
    """A ready-made mixture by name. seed: of the mixture `random`."""
    from ..mixtures import mixture, random_mixture

    return random_mixture(seed) if name == "random" else mixture(name)


class Samples(NamedTuple):
    """What `toydiff sample` made of a mixture."""

    start: "Tensor"
    """Where the samples started, (n, 2)."""
    trajectory: "Trajectory"
    truth: "Tensor"
    """True samples to compare with, (m, 2)."""
    row: dict
    """The measured numbers and the settings, for --json."""


def sample(args: argparse.Namespace) -> None:
    if args.problem is not None and not cli_sd.is_checkpoint(args.problem):
        raise ValueError(
            f"--problem is for sampling a Stable Diffusion checkpoint (sd), got {args.problem!r}; "
            "a mixture is named by --mixture, a run or weights as they are"
        )
    if args.model is not None or args.problem is not None:
        what = repr(args.model) if args.problem is None else f"--problem {args.problem}"
        for option in ("mixture", "schedule"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} is for sampling a mixture without a model, and {what} is a model")
        if args.model is not None and args.problem is not None:
            raise ValueError(f"give a run or a checkpoint, not both: {args.model!r} knows its problem")
        if args.problem is not None and args.label is not None:
            raise ValueError("--label is for classes; a checkpoint has prompts: give --prompt")
        (cli_training if args.problem is None else cli_sd).sample(args)
        return
    cli_sd.refuse(args, "and none is given: add --problem sd, or a run on one")
    refuse_device(args)
    from ..discrete import is_sampler
    from ..grids import DEFAULT_GRID
    from ..solvers.registry import DEFAULT_SOLVER

    if args.solver is not None and is_sampler(args.solver):
        raise ValueError(f"--solver {args.solver} samples tokens, and a mixture is of vectors: give a RUN of tokens")
    out = sample_file(args.out, args.json)
    settings = {
        "mixture": given(args.mixture, "ring"),
        "schedule": given(args.schedule, "vp"),
        "solver": given(args.solver, DEFAULT_SOLVER),
        "grid": given(args.grid, DEFAULT_GRID),
        "steps": args.steps or 20,
        "n": args.n or 2000,
        "seed": args.seed,
        "guidance_scale": 1.0 if args.guidance_scale is None else args.guidance_scale,
        "label": args.label,
    }
    mixture = seeded_mixture(settings["mixture"], args.seed)
    result = draw(mixture, settings)
    data = as_npz(result, settings) if out.suffix == ".npz" else as_png(mixture, result, settings)
    write_bytes(out, data)
    report(args.json, result.row, sample_text(result.row, "sliced Wasserstein distance to true samples", out))


def draw(mixture: "GaussianMixture", settings: Mapping[str, Any]) -> Samples:
    """Sample a mixture. The start is drawn from the mixture's own marginal at t = 1, so every error is the solver's."""
    import torch

    from ..measure import floor, sliced_wasserstein
    from ..schedules import schedule
    from ..solvers import solve

    n, label, guidance_scale = settings["n"], settings["label"], settings["guidance_scale"]
    noise_schedule = schedule(settings["schedule"])
    if guidance_scale != 1 and label is None:
        raise ValueError(f"--guidance-scale {guidance_scale:g} needs a class to guide towards: give --label")
    cond = None if label is None else torch.full((n,), label)
    law = None if guidance_scale == 0 else cond  # guidance 0 is the unconditional model
    # one stream of random numbers, so that start, solver's noise and true samples are independent of one another
    rng = torch.Generator().manual_seed(settings["seed"])
    start = mixture.marginal(noise_schedule, 1.0).sample(n, rng, cond=law)
    trajectory = solve(
        mixture.denoiser(noise_schedule),
        start,
        settings["steps"],
        solver=settings["solver"],
        grid=settings["grid"],
        cond=cond,
        guidance_scale=guidance_scale,
        generator=rng,
        keep="end",
        progress=show_progress(),
    )
    m = min(n, MOST_COMPARED)
    law = None if law is None else law[:m]
    truth = mixture.sample(m, rng, cond=law)
    lowest = floor(sliced_wasserstein, lambda m, seed: mixture.sample(m, seed, cond=law), m, seeds=range(10))
    row = {
        "method": settings["solver"],
        "problem": f"mixture:{settings['mixture']}",
        "steps": settings["steps"],
        "distance": sliced_wasserstein(trajectory.end[:m], truth),
        "floor": lowest.mean,
        "accuracy": None if cond is None else mixture.accuracy(trajectory.end, cond),
        "seed": settings["seed"],
        "nfe": trajectory.nfe,
        "rounds": trajectory.rounds,
        "updates": None,
        "teacher_calls": None,
        "seconds": trajectory.seconds,
        **settings,
        "floor_std": lowest.std,
    }
    return Samples(start, trajectory, truth, row)


def as_npz(result: Samples, settings: Mapping) -> bytes:
    """A file of the arrays `samples` (n, 2), `start` (n, 2), `ts` (N+1,), and `settings`, JSON text. It holds no time
    of day, so one seed gives one file."""
    import io

    import numpy as np

    out = io.BytesIO()
    np.savez(
        out,
        samples=result.trajectory.end.numpy(),
        start=result.start.numpy(),
        ts=result.trajectory.ts.numpy(),
        settings=np.array(json.dumps(settings)),
    )
    return out.getvalue()


def as_png(mixture: "GaussianMixture", result: Samples, settings: Mapping) -> bytes:
    """A picture of the samples beside true ones, over the density. The PNG's text field `toydiff` holds the settings as
    JSON."""
    import io

    from ..plots.static import samples

    row = result.row
    drawn = f"{plural(row['nfe'], 'network call')}: distance {row['distance']:.3g}"
    panels = {
        drawn: result.trajectory.end,
        f"true samples: floor {row['floor']:.3g} ± {row['floor_std']:.1g}": result.truth,
    }
    solvers = {drawn: settings["solver"].partition(":")[0]}
    figure = samples(
        panels, mixture, solvers=solvers, title=f"{settings['solver']} on {settings['mixture']}, {settings['schedule']}"
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi="figure", metadata={"toydiff": json.dumps(settings)})
    return out.getvalue()


def methods(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    found = registry()
    report(json_to, found, registry_text(found))


def registry() -> dict[str, list[dict]]:
    """All names of the command line: solvers, parallel samplers, samplers of tokens, grids, schedules, mixtures,
    methods and problems."""
    from ..catalog import METHODS, TOKEN_METHODS
    from ..discrete import DEFAULT_SAMPLER, SAMPLERS
    from ..grids import DEFAULT_GRID, GRIDS
    from ..mixtures import MIXTURES
    from ..problems import ENTRIES, PROBLEMS
    from ..runs import knobs
    from ..schedules import SCHEDULES
    from ..solvers import DEFAULT_SOLVER, PARALLEL, SOLVERS

    def described(makers: Mapping[str, Callable]) -> list[dict]:
        return [
            {"name": name, "title": " ".join((inspect.getdoc(make) or "").split("\n\n")[0].split())}
            for name, make in makers.items()
        ]

    return {
        "solvers": [
            {
                "name": entry.name,
                "title": entry.title,
                "order": entry.solver.order,
                "calls_per_step": entry.solver.nfe_per_step,
                "stochastic": entry.solver.stochastic,
                "paper": entry.paper,
                "elsewhere": entry.elsewhere,
                "default": entry.name == DEFAULT_SOLVER,
            }
            for entry in SOLVERS.values()
        ],
        "parallel": [
            {
                "name": entry.name,
                "title": entry.title,
                "order": entry.solver.order,
                "stochastic": entry.solver.stochastic,
                "paper": entry.paper,
                "elsewhere": entry.elsewhere,
            }
            for entry in PARALLEL.values()
        ],
        "samplers": [
            {
                "name": entry.name,
                "title": entry.title,
                "order": entry.solver.order,
                "sources": list(entry.solver.sources),
                "paper": entry.paper,
                "default": entry.name == DEFAULT_SAMPLER,
            }
            for entry in SAMPLERS.values()
        ],
        "grids": [{"name": name, "title": title, "default": name == DEFAULT_GRID} for name, title in GRIDS.items()],
        "schedules": described(SCHEDULES),
        "mixtures": described(MIXTURES),
        "methods": [
            {
                "id": card.id,
                "title": card.title,
                "needs": card.needs,
                "data": card.data,
                "paper": card.paper,
                "deck": card.deck,
                "equation": card.equation,
                "knobs": {
                    kind: dataclasses.asdict(knobs(card.id, kind))
                    for kind, entry in ENTRIES.items()
                    if card.fits(entry.scale)
                },
                "sampler": dataclasses.asdict(card.sampler),
            }
            for card in (METHODS | TOKEN_METHODS).values()
        ],
        "problems": [{"name": name, "title": title} for name, title in PROBLEMS.items()],
    }


def registry_text(found: Mapping[str, Sequence[Mapping]]) -> str:
    """The registry as tables, for people."""
    from ..studies.demo import DECK

    def named(row: Mapping) -> str:
        return row["name"] + (" *" if row.get("default") else "")

    solvers = [
        [named(s), str(s["order"]), str(s["calls_per_step"]), "yes" if s["stochastic"] else "", s["title"], s["paper"]]
        for s in found["solvers"]
    ]
    parallel = [
        [s["name"], str(s["order"]), "yes" if s["stochastic"] else "", s["title"], s["paper"]]
        for s in found["parallel"]
    ]
    elsewhere = [
        [s["name"], where, name]
        for s in [*found["solvers"], *found["parallel"]]
        for where, name in s["elsewhere"].items()
    ]
    parts = [
        "SOLVERS (--solver; * is the default)",
        table(["name", "order", "calls a step", "noise", "title", "paper"], solvers, (1, 2)),
        "\nPARALLEL SAMPLERS (--solver)",
        table(["name", "order", "noise", "title", "paper"], parallel, (1,)),
        "They compute the path of a one-step solver in fewer rounds, and have its order and noise. That solver is\n"
        "ddim, or one that is named as in picard:solver=ddpm or parareal:fine=heun.",
        "\nSAMPLERS OF TOKENS (--solver of a model of tokens)",
        table(
            ["name", "order", "sources", "title", "paper"],
            [[named(s), str(s["order"]), ", ".join(s["sources"]), s["title"], s["paper"]] for s in found["samplers"]],
            (1,),
        ),
        "\nTHE SAME SOLVERS ELSEWHERE",
        table(["name", "where", "called"], elsewhere),
    ]
    for kind in ("grids", "schedules", "mixtures"):
        parts += [
            f"\n{kind.upper()} (--{kind[:-1]})",
            table(["name", "title"], [[named(row), row["title"]] for row in found[kind]]),
        ]
    methods = [[m["id"], m["needs"], m["title"], m["paper"], m["deck"]] for m in found["methods"]]
    parts += [
        "\nMETHODS (toydiff train)",
        table(["name", "needs", "title", "paper", "deck"], methods),
        f'deck: where the lecture deck "{DECK}" has the method.',
        "\nKNOBS (--set NAME=VALUE)",
        "The values are the defaults. a/b/c: on mixtures and points, on digits, and on Stable Diffusion, where they\n"
        "differ.",
        table(["method", "knobs"], [[m["id"], knobs_text(m["knobs"])] for m in found["methods"]]),
        "\nPROBLEMS (--problem)",
        table(["name", "title"], [[row["name"], row["title"]] for row in found["problems"]]),
    ]
    return "\n".join(parts)


def knobs_text(by_problem: Mapping[str, Mapping]) -> str:
    """A method's knobs in a line, with their defaults: one value, or three where those on digits or checkpoints
    differ."""
    usual = next(iter(by_problem.values()))
    points, digits, sd = (by_problem.get(kind, usual) for kind in ("mixture", "digits", "sd"))

    def shown(value: object) -> str:
        return "''" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)

    return "  ".join(
        f"{name}={shown(value)}"
        + ("" if digits[name] == sd[name] == value else f"/{shown(digits[name])}/{shown(sd[name])}")
        for name, value in points.items()
    )


# ---- the words of the command


class Command(NamedTuple):
    run: Callable[[argparse.Namespace], None]
    summary: str
    arguments: Callable[[Parser], None]


def _demo_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        default="demo",
        help="folder to write into; it is made where missing (default: demo)",
    )


def _convergence_arguments(parser: Parser) -> None:
    # the defaults in a page of help are written out, so that it imports nothing heavy
    add_json(parser)
    parser.add_argument(
        "--solver",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="solvers to measure (default: all deterministic ones)",
    )
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="schedules to measure on (default: vp cosine linear scaled-linear)",
    )
    parser.add_argument(
        "--mixture",
        metavar="NAME",
        default="random",
        help="data (default: random, which depends on the seed)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole(0, MOST_SEED),
        default=0,
        help="seed of the mixture `random` and of the starts (default: 0)",
    )


def _sample_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="RUN",
        type=place,
        nargs="?",
        help="the model: a run's folder or bundled weights; without it, a mixture with its exact denoiser",
    )
    parser.add_argument(
        "--mixture",
        metavar="NAME",
        help="what to sample without a RUN (default: ring); `random` depends on the seed",
    )
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        help="noise schedule without a RUN, a name or MODULE:CLASS (default: vp)",
    )
    parser.add_argument(
        "--solver",
        metavar="NAME",
        help="a step solver or a parallel sampler, NAME or NAME:setting=value,..., "
        "such as ddim, picard:window=10 or parareal:fine=heun; `toydiff methods` lists both "
        "(default: guarded; of a RUN, its method's)",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME",
        help="time grid (default: shifted-lambda; of a RUN, its method's)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=whole(1, MOST_STEPS),
        help="steps of the solver (default: 20; of a RUN, the most that its method is meant for)",
    )
    parser.add_argument(
        "--n",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        help="number of samples (default: 2000; of digits, 100; of a checkpoint, 1 for each prompt)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole(0, MOST_SEED),
        default=0,
        help="seed of the noise; the same seed gives the same samples (default: 0)",
    )
    parser.add_argument(
        "--guidance-scale",
        metavar="G",
        type=finite,
        help="guidance scale g in eps_uncond + g (eps_cond - eps_uncond); 1 is off (default: 1; of a checkpoint, 7.5)",
    )
    parser.add_argument(
        "--label",
        metavar="K",
        type=whole(0, MOST_SEED),
        help="sample this class only",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=place,
        required=True,
        help="FILE.png for a picture, or FILE.npz for the arrays; of clips also FILE.gif or FILE.mp4",
    )
    parser.add_argument(
        "--problem",
        metavar="sd",
        help="sd: sample a Stable Diffusion checkpoint, with --model and --prompt",
    )
    cli_training.add_device(parser)
    add_json(parser)
    cli_sd.arguments(parser, sampling=True)


def _parallel_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--steps",
        metavar="T",
        type=whole(1, MOST_STEPS),
        nargs="+",
        action="extend",
        help="numbers of steps of the sequential walk (default: 25 100 1000)",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="methods to compare, NAME or NAME:setting=value,... "
        "(default: sequential picard window anderson broyden parareal)",
    )
    parser.add_argument(
        "--mixture",
        metavar="NAME",
        default="random",
        help="data (default: random, five modes that depend on the seed)",
    )
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        default="scaled-linear",
        help="noise schedule; `toydiff methods` lists them (default: scaled-linear)",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME",
        default="uniform",
        help="time grid; `toydiff methods` lists them (default: uniform)",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=whole(1, MOST_SAMPLES),
        default=256,
        help="number of samples (default: 256)",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=finite_or_none,
        default=1e-3,
        help="accept a point when a sweep changes it by less than X sigma; "
        "with none, go on until it is exact (default: 0.001)",
    )
    parser.add_argument(
        "--window",
        metavar="W",
        type=whole(1, MOST_STEPS),
        help="points that the method `window` takes at a time (default: T/4)",
    )
    parser.add_argument(
        "--cost",
        metavar="SECONDS",
        type=between(0, MOST_COST),
        default=0.01,
        help="seconds by which a network call is longer in `s with cost`, whatever the size of its batch, "
        f"{MOST_COST} at most (default: 0.01)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole(0, MOST_SEED),
        default=0,
        help="seed of the mixture `random`, the starts and the solvers' noise (default: 0)",
    )


COMMANDS = {
    "demo": Command(
        demo,
        "five pictures of samplers on exact mixtures, and an index.html to read them in",
        _demo_arguments,
    ),
    "convergence": Command(
        measure_orders,
        "declared and measured order of each solver on each schedule",
        _convergence_arguments,
    ),
    "parallel": Command(
        compare_parallel,
        "parallel samplers against the sequential walk: rounds, calls, seconds, errors",
        _parallel_arguments,
    ),
    "sample": Command(
        sample,
        "sample a trained model, or a ready-made mixture with its exact denoiser",
        _sample_arguments,
    ),
    "methods": Command(
        methods,
        "every solver, parallel sampler, time grid, schedule, mixture, method and problem by name",
        add_json,
    ),
    "train": Command(
        cli_training.train,
        "train a method on a problem, into a folder",
        cli_training.train_arguments,
    ),
    "pairs": Command(
        cli_training.pairs,
        "make pairs (noise, sample) of a teacher's ODE, into a folder",
        cli_training.pairs_arguments,
    ),
    "learn-solver": Command(
        cli_solvers.learn,
        "learn the times and coefficients of a solver for one model and number of calls",
        cli_solvers.learn_arguments,
    ),
    "evaluate": Command(
        cli_training.evaluate,
        "measure a trained model: distance to true samples, accuracy, calls",
        cli_training.evaluate_arguments,
    ),
    "scoreboard": Command(
        cli_scoreboard.run,
        "train and measure every method on equal terms, over seeds",
        cli_scoreboard.arguments,
    ),
    "score": Command(
        cli_score.run,
        "CLIP score and FID of the images of a checkpoint or a student, by networks that you name",
        cli_score.arguments,
    ),
    "export": Command(
        cli_sd.export,
        "write a student of a Stable Diffusion checkpoint for diffusers",
        cli_sd.export_arguments,
    ),
    "doctor": Command(
        cli_doctor.run,
        "what a Stable Diffusion checkpoint is, what is missing and what runs, without loading it",
        cli_doctor.arguments,
    ),
    "app": Command(
        cli_app.run,
        "the lessons as pages in a browser: figures, sliders, code",
        cli_app.arguments,
    ),
    "site": Command(
        cli_site.run,
        "the same pages as a folder for any web host: no server, no network",
        cli_site.arguments,
    ),
    "zoo": Command(
        cli_training.zoo,
        "the bundled weights: list them, or build them again",
        cli_training.zoo_arguments,
    ),
}

MORE = {
    "demo": (
        "It writes the pictures as PNG files and as interactive pages, and every number to report.json. It takes\n"
        "about half a minute, trains nothing, and needs no network."
    ),
    "convergence": (
        "An error is the distance to a DOP853 solution in float64. The order is minus the slope of the error over the\n"
        "number of steps on log-log axes. The grids are uniform in lambda between two inner noise levels."
    ),
    "parallel": (
        "A parallel sampler computes the path of a one-step solver, DDIM here, by sweeps over all points at once:\n"
        "it takes more network calls in fewer rounds.\n"
        "Methods: sequential, the walk step by step; picard; window, which is picard on a part of the grid at a time\n"
        "(ParaDiGMS); anderson (ParaTAA); broyden; parareal (SRDS)."
    ),
    "sample": (
        "A RUN starts from noise. A mixture starts from its own marginal at t = 1, so every error is the solver's.\n"
        "The distance to true samples is sliced Wasserstein for points, over 10,000 samples at most, and for digits\n"
        "the Fréchet distance of a classifier's features. With --label the true samples are of that class; guidance\n"
        "leaves their distribution on purpose. The floor is the distance of true samples among themselves.\n"
        "A Stable Diffusion checkpoint, or a student of one, makes images from the noise that diffusers draws for\n"
        "the same seed. Nothing measures them."
    ),
    "learn-solver": (
        "The search begins with the default solver, or --solver, and ends when it improves no more on noises that it\n"
        "does not learn from. Then: toydiff sample MODEL --solver learned:FILE --steps N. The file says for which\n"
        "model, schedule, steps and guidance scale it is, and another is refused. --problem sd needs --model."
    ),
    "score": cli_score.MORE,
    "scoreboard": cli_scoreboard.MORE,
    "site": cli_site.MORE,
    "doctor": (
        "It reads JSON and the headers of .safetensors files: no weight is loaded, and no code of the folder runs.\n"
        "What could not be loaded is refused with the same reason. A value that is not finite is not seen."
    ),
    **cli_training.MORE,
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments. `ValueError` for a misspelt word, with the nearest one."""
    top = Parser(
        prog="toydiff",
        description="How to get a good sample from a diffusion model in fewer, or in parallel, network calls.",
        epilog=EXAMPLES,
    )
    top.add_argument("--version", action="version", version=f"toydiff {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=Parser)
    word = argv[0] if argv else "--help"
    if not word.startswith("-") and word not in COMMANDS:
        raise unknown("command", word, COMMANDS)
    parsers = {}
    for name, command in COMMANDS.items():
        parsers[name] = subparsers.add_parser(
            name, help=command.summary, description=f"{command.summary}\n\n{MORE.get(name, '')}".strip()
        )
        if name == word:
            command.arguments(parsers[name])
    check_options(argv, "toydiff" if word not in COMMANDS else f"toydiff {word}", parsers.get(word, top).options)
    if word in COMMANDS:  # intermixed: an argument may stand after the options
        args, extra = parsers[word].parse_known_intermixed_args(argv[1:], argparse.Namespace(command=word))
    else:
        args, extra = top.parse_known_args(argv or ["--help"])
    if extra:
        raise ValueError(f"unexpected argument {quoted(extra[0])}")
    if word not in COMMANDS:
        raise ValueError(f"the first word is a command, got {quoted(word)}; allowed: {', '.join(COMMANDS)}")
    return args


def check_options(argv: Sequence[str], program: str, options: Sequence[str]) -> None:
    """`ValueError` for a word that begins like an option and is none, with the nearest option. argparse itself would
    first complain of missing arguments, and suggest nothing."""
    for arg in argv:
        name = arg.partition("=")[0]
        if re.match(r"--?[A-Za-z]", name) and name not in [*options, "-h"]:
            raise unknown(f"option of {program}", name, options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 0; 1 for a failure, 2 for bad input, 130 for an interrupt, 141 where the
    reader of its output has left."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(getattr(sys, stream), "reconfigure"):
            getattr(sys, stream).reconfigure(errors="replace")  # an encoding without ± prints ? for it
    try:
        os.getcwd()  # torch cannot be loaded from a folder that is gone
    except OSError as error:
        return complain(f"error: the current folder cannot be looked at: {error.strerror}", 2)
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        with warnings.catch_warnings():
            warnings.showwarning = warned
            COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except ValueError as error:
        return complain(f"error: {error}", 2)
    except FloatingPointError as error:
        return complain(f"error: {error}", 1)
    except KeyboardInterrupt as interrupt:
        return complain(f"interrupted{''.join(map(str, interrupt.args))}", 130)
    except BrokenPipeError:
        abandon_stdout()
        return 141
    except OSError as error:
        abandon_stdout()
        return complain(f"error: {error}", 1)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return complain(f"error: out of memory; {LESS_MEMORY}", 1)
    return 0


MOST_SAID = 1500
"""Characters of a message: the longest lists of what is allowed, and no more of what was given."""
LESS_MEMORY = (
    "lower --batch (or split it: --accumulate), --n or --size; "
    "of a checkpoint also --at-once, --dtype float16 or bfloat16, --gradient-checkpointing, --rank"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the machine, has no memory left."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in said
        or "can't allocate memory" in said
    )


def complain(message: str, code: int) -> int:
    """Print one line on stderr, from the first process only, and return the exit code."""
    if is_first_process():
        with contextlib.suppress(OSError):  # nobody reads it; the code says it too
            print("toydiff: " + shortened(printable(" ".join(message.split())), MOST_SAID), file=sys.stderr, flush=True)
    return code


def warned(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without the line of the program that it comes from."""
    complain(f"warning: {message}", 0)


def abandon_stdout() -> None:
    """Drop what is still buffered for stdout. Otherwise the interpreter would try to write it as it exits, and
    complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
