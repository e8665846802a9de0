"""`toydiff learn-solver`: times and coefficients of a solver, learned for one model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.words import quoted
from . import sd as cli_sd
from .terminal import (
    MOST_SEED,
    MOST_STEPS,
    Parser,
    add_device,
    add_json,
    finite,
    output_file,
    place,
    report,
    show_progress,
    usable,
    whole,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoisers import Denoiser
    from ..problems import Problem

MOST_NOISES, NUMBERS = 512, 40_000
"""The most noises to learn from and to validate with, and how many numbers they have in all, by default."""


def learn(args: argparse.Namespace) -> None:
    """`toydiff learn-solver`."""
    json_to = output_file(args.json)
    out = output_file(args.out)
    if out is None or not out.endswith(".json"):
        raise ValueError(f"--out must name a .json file, got {quoted(args.out)}")
    if json_to not in (None, "-") and Path(out).resolve() == Path(str(json_to)).resolve():
        raise ValueError("--out and --json must name two files")
    device = usable(args.device or "cpu")
    from tqdm import tqdm

    from ..solvers.learned import write_solver
    from ..solvers.learning import learn_solver

    name, the_problem, D = opened(args)
    usual = cli_sd.usual_guidance(the_problem) if args.model_run is None else 1.0
    g = usual if args.guidance_scale is None else args.guidance_scale
    x, cond = noises(the_problem, D, args.n, g, args.seed)
    found = None
    search = learn_solver(
        D,
        x.to(device),
        args.steps,
        cond=None if cond is None else cond.to(device),
        guidance_scale=g,
        solver=args.solver,
        times_only=args.times_only,
        name=name,
        truth_steps=args.truth_steps,
        at_once=the_problem.sizes.at_once,
        seconds=args.seconds,
    )
    try:
        with tqdm(desc="learn-solver", unit="step", disable=not show_progress()) as bar:
            for found in search:
                bar.set_postfix_str(f"median {found.median:.3f}, RMS {found.rms:.3f} of the start's", refresh=False)
                bar.update(found.step - bar.n)
    except KeyboardInterrupt:
        if found is None:
            raise
        write_solver(out, found.solver)
        raise KeyboardInterrupt(f"; the best solver so far is in {out!r}") from None
    assert found is not None  # the start itself is found first
    write_solver(out, found.solver)
    row = {
        "model": name,
        "problem": the_problem.name,
        "solver": args.solver,
        "steps": args.steps,
        "guidance_scale": g,
        "seed": args.seed,
        "n": len(x),
        "median": found.median,
        "rms": found.rms,
        "seconds": found.seconds,
        "file": out,
    }
    report(
        json_to,
        row,
        f"{row['file']}: {args.solver} in {args.steps} steps, learned for {name} at guidance scale {g:g}; on "
        f"{len(x) - len(x) // 2} other noises the median error is {found.median:.3g} and the RMS error {found.rms:.3g} "
        f"of {args.solver}'s; {found.seconds:.3g} s",
    )


def opened(args: argparse.Namespace) -> "tuple[str, Problem, Denoiser]":
    """The model's name, its problem, and the denoiser: of a run or bundled weights, or the problem's own teacher."""
    import torch

    from .. import runs
    from ..problems import problem
    from ..runs import of_vectors, teacher_of, to_device

    device = torch.device(usable(args.device or "cpu"))
    the_problem: Problem
    if args.model_run is not None:
        if args.problem is not None:
            raise ValueError(f"a run knows its problem: give {args.model_run!r} or --problem, not both")
        model = runs.load(args.model_run, unsafe=bool(args.unsafe_weights))
        if not cli_sd.is_checkpoint(model.about["problem"]):
            cli_sd.refuse(args, f"and {args.model_run!r} is of the problem {model.about['problem']}")
        the_problem = runs.problem_of(model)
        D = of_vectors(model.denoiser, "a solver is")
        to_device(device, the_problem, D)
        return args.model_run, the_problem, D
    kind = "mixture:ring" if args.problem is None else args.problem
    if cli_sd.is_checkpoint(kind):
        checkpoint = cli_sd.problem_of(args, Path(args.out).parent / "cache")
        cli_sd.prepare(checkpoint, args, str(device))
        the_problem = checkpoint
    else:
        cli_sd.refuse(args, f"and {kind} is none")
        the_problem = problem(kind)
    name, found = teacher_of(the_problem, None)
    teacher = of_vectors(found, "a solver is")
    to_device(device, the_problem, teacher)
    return the_problem.name if name == "own" else name, the_problem, teacher


def noises(
    the_problem: "Problem", D: "Denoiser", n: int | None, guidance_scale: float, seed: int
) -> "tuple[Tensor, Tensor | None]":
    """Noise at t = 1, (n, ...), as sampling starts from, and the labels (n,) or None."""
    import torch

    from ..mixtures import MixtureDenoiser

    size = 1
    for length in the_problem.shape:
        size *= length
    n = max(32, min(MOST_NOISES, NUMBERS // size)) if n is None else n
    rng = torch.Generator().manual_seed(seed)
    cond = the_problem.uniform_labels(n, rng)
    if cond is None and guidance_scale != 1:
        cond = the_problem.data_labels(n, rng)
        if cond is None:
            raise ValueError(f"--guidance-scale {guidance_scale:g} needs classes, and {the_problem.name} has none")
    if isinstance(D, MixtureDenoiser):
        return D.mixture.marginal(D.schedule, 1.0).sample(n, rng, dtype=torch.float64), cond
    return D.schedule.sigma(torch.ones(())) * torch.randn(n, *the_problem.shape, generator=rng), cond


def learn_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model_run",
        metavar="MODEL",
        nargs="?",
        type=place,
        help="a run's folder or bundled weights (default: the teacher of --problem)",
    )
    parser.add_argument(
        "--problem",
        metavar="P",
        type=place,
        help="the problem whose own teacher is the model (default: mixture:ring)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=whole(1, 64),
        required=True,
        help="the number of steps, and of network calls",
    )
    parser.add_argument(
        "--guidance-scale",
        metavar="G",
        type=finite,
        help="the guidance scale that the solver is for; 1 is off (default: 1, and 7.5 for a checkpoint)",
    )
    parser.add_argument(
        "--solver",
        metavar="NAME",
        default="guarded",
        help="what the search begins with (default: guarded); of another solver the times alone are learned",
    )
    parser.add_argument(
        "--times-only",
        action="store_true",
        help="learn the times alone, and no coefficients",
    )
    parser.add_argument(
        "--n",
        metavar="N",
        type=whole(4, 10_000),
        help="noises, half of them held out (default: 512 points, fewer of what is larger)",
    )
    parser.add_argument(
        "--truth-steps",
        metavar="N",
        type=whole(2, MOST_STEPS),
        default=100,
        help="steps of the default solver whose ends are learned (default: 100)",
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=finite,
        default=60.0,
        help="about how long to search (default: 60)",
    )
    parser.add_argument("--seed", metavar="N", type=whole(0, MOST_SEED), default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", metavar="FILE", type=place, required=True, help="the file, .json")
    add_device(parser)
    add_json(parser)
    cli_sd.arguments(parser)
