"""The commands about trained models: train, pairs, sample (of a model), evaluate and zoo. The work is done in `runs`
and `problems.pairs`."""

import argparse
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.files import check_folder, writable_folder, write_bytes
from ..support.words import plural, unknown
from . import sd as cli_sd
from .launchers import is_first_process, runs_with_others
from .terminal import (
    DEVICES,
    MOST_SAMPLES,
    MOST_STEPS,
    SUFFIXES,
    Parser,
    add_device,
    add_json,
    cell,
    finite,
    given,
    output_file,
    place,
    report,
    sample_file,
    sample_text,
    show_progress,
    table,
    usable,
    whole,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..mixtures import GaussianMixture
    from ..plots.style import Density
    from ..problems import Problem, TokenProblem
    from ..solvers import Trajectory

MOST_UPDATES = 100_000_000
MOST_BATCH = 1_000_000
MOST_PAIRS = 10_000_000
MOST_SEED_OF_RUN = 10**12
"""The largest seed of a run or of pairs. Each shard of pairs has a seed that is derived from it, and that has to fit in
64 bits."""
SHORTHANDS = ("updates", "batch", "lr")
"""Knobs that every method has, with options of their own."""
PRECISIONS = ("no", "bf16")
POINTS, IMAGES = 2000, 100
"""How many points, or images, `toydiff sample` makes by default."""
IN_A_ROW = 10
"""Images in a row of its picture."""
MOST_ROWS = 10

MORE = {
    "train": (
        "`toydiff methods` lists the methods, the problems, and the knobs of each method.\n"
        "A method that needs a teacher takes the problem's own, unless --teacher names another. A method that needs\n"
        "pairs makes them first, with that teacher, unless --pairs names a folder of them.\n"
        "RUN, for --teacher and --start: a folder that `toydiff train` wrote, or an id that `toydiff zoo` lists.\n"
        "A run that was interrupted or killed continues with the same command and --resume, and ends with the same\n"
        "bits. Several processes: accelerate launch --module toydiff train ..."
    ),
    "pairs": (
        "A pair is a noise, and the sample that the teacher's ODE makes of it. So the solver must be deterministic.\n"
        "The same command continues where it was interrupted."
    ),
    "evaluate": (
        "RUN is a folder that `toydiff train` wrote, or an id that `toydiff zoo` lists.\n"
        "The distance to true samples is sliced Wasserstein for points, for digits the Fréchet distance of a\n"
        "classifier's features, and for tokens the total variation of n-grams to their exact law. The floor is the\n"
        "distance of true samples among themselves, or of as many true strings to their law."
    ),
    "zoo": (
        "`toydiff zoo` lists the bundled weights. `toydiff zoo build ID ...` trains and measures them again, and\n"
        "`toydiff zoo build` all of them. The same command continues a build that was interrupted;\n"
        "with --missing it leaves out what is done."
    ),
}


# ---- train


def train(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    changes = knob_changes(args)
    accelerator = make_accelerator(args)
    from .. import runs
    from ..training.checkpoints import read_run

    device = usable(args.device or "cpu") if accelerator is None else str(accelerator.device)
    the_problem = args.problem
    if cli_sd.is_checkpoint(args.problem):
        runs.knobs(args.method, args.problem, changes)  # a mistake there is reported before gigabytes are read
        the_problem = cli_sd.problem_of(args, Path(args.out) / "cache")
        cli_sd.prepare(the_problem, args, device.partition(":")[0], training=True)
    else:
        cli_sd.refuse(args, f"and {args.problem} is none")
    try:
        with cli_sd.tidy(args.out):
            run = runs.train(
                args.method,
                the_problem,
                out=args.out,
                seed=args.seed,
                changes=changes,
                teacher=args.teacher,
                start=args.start,
                pairs=args.pairs,
                resume=args.resume,
                every=args.every,
                watch=args.watch,
                patience=args.patience,
                accumulate=args.accumulate,
                device=device,
                accelerator=accelerator,
                progress=show_progress(),
            )
            updates = sum(1 for _ in run)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_continue(args.out)) from None
    if is_first_process():
        index = read_run(args.out)
        row = {
            "method": run.method,
            "problem": run.problem.name,
            "seed": run.seed,
            "updates": index["step"],
            "teacher_calls": run.about["pair_calls"] + index["step"] * run.about["calls_per_update"],
            "seconds": index["seconds"],
            "loss": index["history"][-1][1],
            "folder": args.out,
            **best_of(index.get("measured", ())),
            **cli_sd.skipped(run.problem),
        }
        report(json_to, row, train_text(row, updates) + cli_sd.skipped_text(run.problem))
    if accelerator is not None:
        accelerator.end_training()


def best_of(measured: Sequence[Mapping]) -> dict[str, float]:
    """What a run's watch measured: the update with the smallest distance, whose weights are kept, that distance, the
    first distance, and the floor. Nothing for a run without a watch."""
    if not measured:
        return {}
    best = min(measured, key=lambda row: row["distance"])
    return {
        "best": best["step"],
        "best_distance": best["distance"],
        "first_distance": measured[0]["distance"],
        "floor": best["floor"],
    }


def how_to_continue(out: str) -> str:
    """What an interrupted run left in its folder, and what to do next."""
    from ..training.checkpoints import read_run

    try:
        index = read_run(out)
    except ValueError:
        return "; nothing was saved yet: the same command, with or without --resume, starts again"
    return (
        f"; update {index['step']} of {index['steps']} is saved in {out!r}: "
        "the same command with --resume continues from there"
    )


def train_text(row: Mapping, updates: int) -> str:
    """What a run of `toydiff train` did, for people. updates: how many this call made."""
    already = "" if updates else "the run is finished already; nothing was left to do\n"
    calls = f", {row['teacher_calls']:,} calls of the teacher" if row["teacher_calls"] else ""
    kept = ""
    if "best" in row:
        kept = (
            f"the best on the way is kept, that of update {row['best']}: distance {row['best_distance']:.3g} "
            f"(before training {row['first_distance']:.3g}, floor {row['floor']:.3g})\n"
        )
    if row.get("best") == 0:
        kept += (
            "nothing was better than what it started from: try a smaller learning rate, "
            "and, where there is a second model, more updates of it\n"
        )
    return (
        f"{already}{row['method']} on {row['problem']}: {plural(row['updates'], 'update')} in {row['seconds']:.3g} s, "
        f"last loss {row['loss']:.3g}{calls}\n"
        f"{kept}it is in {row['folder']}; measure it with: toydiff evaluate {row['folder']}"
    )


def knob_changes(args: argparse.Namespace) -> dict[str, object]:
    """The values of knobs that --set, --updates, --batch and --lr give. `ValueError` for a knob that is given twice."""
    changes: dict[str, object] = {}
    for setting in args.set or ():
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes KNOB=VALUE, got {setting!r}")
        if name in changes:
            raise ValueError(f"the knob {name} is given twice")
        changes[name] = value
    for name in SHORTHANDS:
        if getattr(args, name) is not None:
            if name in changes:
                raise ValueError(f"the knob {name} is given twice, by --{name} and by --set")
            changes[name] = getattr(args, name)
    return changes


def make_accelerator(args: argparse.Namespace) -> "Accelerator | None":
    """The `Accelerator` of this process, where an option requests it or accelerate's launcher started the process; else
    None."""
    if "fp16" in (args.mixed_precision, os.environ.get("ACCELERATE_MIXED_PRECISION")):
        raise ValueError("gradients underflow in fp16 without a scale for the loss, which there is none here; use bf16")
    if args.mixed_precision not in (None, *PRECISIONS):
        raise unknown("mixed precision", args.mixed_precision, PRECISIONS)
    # the launcher always sets the precision in the environment
    launched = runs_with_others() or "ACCELERATE_MIXED_PRECISION" in os.environ
    if not (args.accelerate or args.mixed_precision is not None or launched):
        return None
    if args.device is not None:
        usable(args.device)
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError(
            "several processes, and --accelerate, need the package accelerate: pip install accelerate"
        ) from None
    import torch

    # a process that only --mixed-precision brought here stays on the device that it would have without accelerate;
    # and without an accelerator, accelerate does not see the other processes unless it is told to use processors
    processor = not (args.accelerate or launched) or not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=args.device == "cpu" or (processor and args.device is None), mixed_precision=args.mixed_precision
    )
    if args.device not in (None, accelerator.device.type):
        raise ValueError(f"accelerate runs on {accelerator.device.type!r} here, not on the device {args.device!r}")
    return accelerator


def train_arguments(parser: Parser) -> None:
    parser.add_argument(
        "method",
        metavar="METHOD",
        help="what to train; `toydiff methods` lists the methods",
    )
    _problem(parser)
    parser.add_argument(
        "--updates",
        metavar="N",
        type=whole(1, MOST_UPDATES),
        help="updates of the optimizer (a knob)",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=whole(1, MOST_BATCH),
        help="samples in an update (a knob)",
    )
    parser.add_argument(
        "--lr",
        metavar="X",
        type=finite,
        help="learning rate of Adam (a knob)",
    )
    parser.add_argument(
        "--set",
        metavar="KNOB=VALUE",
        action="append",
        help="set a knob of the method; may be given again",
    )
    parser.add_argument(
        "--teacher",
        metavar="RUN",
        type=given,
        help="the model to learn from (default: the problem's own teacher)",
    )
    parser.add_argument(
        "--start",
        metavar="RUN",
        type=given,
        help="the model whose weights the student starts with (default: the teacher, if it has weights)",
    )
    parser.add_argument(
        "--pairs",
        metavar="DIR",
        type=given,
        help="what `toydiff pairs` wrote, for a method that needs pairs",
    )
    _seed(parser, "seed of the first weights and of all that is drawn in training")
    parser.add_argument(
        "--out",
        metavar="RUN",
        type=place,
        required=True,
        help="folder of the run; it is made where missing",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder",
    )
    parser.add_argument(
        "--every",
        metavar="N",
        type=whole(1, MOST_UPDATES),
        default=250,
        help="save every N updates (default: 250)",
    )
    parser.add_argument(
        "--watch",
        metavar="N",
        type=whole(0, MOST_UPDATES),
        help="measure the result every N updates and keep the best; 0 is off "
        "(default: 20 times in a run of a method whose losses tell little, otherwise off)",
    )
    parser.add_argument(
        "--patience",
        metavar="P",
        type=whole(1, MOST_UPDATES),
        help="end the run after P measurements in a row that were no better (default: never)",
    )
    parser.add_argument(
        "--accumulate",
        metavar="N",
        type=whole(1, MOST_BATCH),
        default=1,
        help="compute a batch's gradient in N parts, which takes less memory (default: 1)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help=f"where to compute: {', '.join(DEVICES)} (default: cpu, or accelerate's choice)",
    )
    parser.add_argument(
        "--accelerate",
        action="store_true",
        help="let the package accelerate choose device and precision",
    )
    parser.add_argument(
        "--mixed-precision",
        metavar="NAME",
        help=f"{' or '.join(PRECISIONS)}; with bf16 networks compute in bfloat16, and weights stay as they are",
    )
    add_json(parser)
    cli_sd.arguments(parser, training=True)


# ---- pairs


def pairs(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    import torch

    from ..problems import problem
    from ..problems.pairs import Recipe, save_pairs
    from ..runs import of_vectors, teacher_of, to_device

    settings = {name: value for name in vars(Recipe()) if (value := getattr(args, name)) is not None}
    check_folder(args.out)
    the_problem: Problem
    if cli_sd.is_checkpoint(args.problem):
        Recipe(**settings)  # a mistake there is reported before gigabytes are read
        checkpoint = cli_sd.problem_of(args, Path(args.out) / "cache")
        cli_sd.prepare(checkpoint, args, usable(args.device or "cpu"))
        the_problem = checkpoint
    else:
        cli_sd.refuse(args, f"and {args.problem} is none")
        the_problem = problem(args.problem)
    recipe = Recipe(**{**the_problem.sizes.pairs, **settings})
    name, found = teacher_of(the_problem, args.teacher)
    teacher = of_vectors(found, "pairs are")
    to_device(torch.device(usable(args.device or "cpu")), the_problem, teacher)
    began = time.perf_counter()
    try:
        with cli_sd.tidy(args.out):
            made = save_pairs(the_problem, teacher, recipe, args.out, teacher_name=name, progress=show_progress())
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command continues") from None
    row = {
        "problem": the_problem.name,
        "teacher": name,
        **vars(recipe),
        "nfe": made.about["nfe"],
        "teacher_calls": made.teacher_calls,
        "seconds": time.perf_counter() - began,
        "folder": args.out,
        **cli_sd.skipped(the_problem),
    }
    report(
        json_to,
        row,
        f"{plural(row['n'], 'pair')} of {row['problem']} in {row['folder']}: {row['solver']}, "
        f"{plural(row['steps'], 'step')}, {plural(row['nfe'], 'network call')} each (NFE), "
        f"{row['teacher_calls']:,} in all, {row['seconds']:.3g} s" + cli_sd.skipped_text(the_problem),
    )


def pairs_arguments(parser: Parser) -> None:
    # the defaults are those of `problems.pairs.Recipe`, which is not imported for a page of help, and of a checkpoint
    # those of `problems.stable_diffusion.PAIRS`
    _problem(parser)
    parser.add_argument(
        "--teacher",
        metavar="RUN",
        type=given,
        help="a run's folder or bundled weights (default: the problem's own teacher)",
    )
    parser.add_argument(
        "--n",
        metavar="N",
        type=whole(1, MOST_PAIRS),
        help="number of pairs (default: 10000); for a checkpoint 1000",
    )
    parser.add_argument(
        "--solver",
        metavar="NAME",
        help="a deterministic solver (default: guarded); for a checkpoint dpm++2m",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME",
        help="time grid (default: shifted-lambda); for a checkpoint lambda",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=whole(1, MOST_STEPS),
        help="steps of the solver (default: 32); for a checkpoint 25",
    )
    parser.add_argument(
        "--guidance-scale",
        metavar="G",
        type=finite,
        help="guidance scale; 1 is off (default: 1); for a checkpoint 7.5",
    )
    _seed(parser, "seed of the noise")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        required=True,
        help="folder of the pairs; it is made where missing",
    )
    add_device(parser)
    add_json(parser)
    cli_sd.arguments(parser, training=True)


# ---- sample


def sample(args: argparse.Namespace) -> None:
    """`toydiff sample RUN`: sample a trained model. Without RUN, `command.sample` samples a mixture."""
    sample_file(args.out, args.json, (*SUFFIXES, *cli_sd.MOVING))
    from .. import runs
    from ..grids import DEFAULT_GRID
    from ..problems import TokenProblem
    from ..solvers.registry import is_learned

    model = runs.load(args.model, unsafe=bool(args.unsafe_weights))
    if cli_sd.is_checkpoint(model.about["problem"]):
        if args.label is not None:
            raise ValueError("--label is for classes; a student of a checkpoint has prompts: give --prompt")
        cli_sd.sample(args, model)
        return
    out = sample_file(args.out, args.json)
    cli_sd.refuse(args, f"and {args.model!r} is of the problem {model.about['problem']}")
    args.guidance_scale = 1.0 if args.guidance_scale is None else args.guidance_scale
    model.denoiser.to(usable(args.device or "cpu"))
    the_problem = runs.problem_of(model)
    sampler = model.about["sampler"]
    n = args.n or (IMAGES if len(the_problem.shape) > 1 else POINTS)
    settings: dict[str, Any] = {
        "model": args.model,
        "problem": the_problem.name,
        "solver": sampler["solver"] if args.solver is None else args.solver,
        "grid": args.grid,
        "steps": args.steps or max(sampler["steps"]),
        "n": n,
        "seed": args.seed,
        "guidance_scale": args.guidance_scale,
        "label": args.label,
    }
    if args.grid is None:
        settings["grid"] = DEFAULT_GRID if is_learned(settings["solver"]) else sampler["grid"]
    if n < 2:
        raise ValueError("--n must be at least 2 for a distance to be measured")
    drawn = len(the_problem.shape) != 1 or the_problem.shape == (2,) or isinstance(the_problem, TokenProblem)
    if out.suffix == ".png" and not drawn:
        raise ValueError(f"a picture shows points in the plane, and these are {the_problem.shape}: --out FILE.npz")
    path, cond = runs.sample(
        model,
        the_problem,
        n,
        settings["steps"],
        solver=settings["solver"],
        grid=settings["grid"],
        guidance_scale=args.guidance_scale,
        cond=requested_labels(the_problem, n, args),
        seed=args.seed,
        progress=show_progress(),
    )
    law = None if args.guidance_scale == 0 else cond  # guidance 0 is the unconditional model
    measured = the_problem.measure(path.end, law)
    row = {
        "method": model.about["method"],
        "problem": the_problem.name,
        "steps": settings["steps"],
        "distance": measured.distance,
        "floor": measured.floor,
        "accuracy": measured.accuracy,
        "seed": args.seed,
        "nfe": path.nfe,
        "rounds": path.rounds,
        "updates": model.about["updates"],
        "teacher_calls": model.about["teacher_calls"],
        "seconds": path.seconds,
        **settings,
        "distance_std": measured.distance_std,
        "floor_std": measured.floor_std,
    }
    data = as_npz(path, cond, settings) if out.suffix == ".npz" else as_png(the_problem, path, cond, law, row, settings)
    write_bytes(out, data)
    report(args.json, row, sample_text(row, _distance(the_problem), out))


def requested_labels(the_problem: "Problem", n: int, args: argparse.Namespace) -> "Tensor | None":
    """The labels (n,) of the class of --label, or None for the problem's own choice. `ValueError` for a class that the
    problem does not have."""
    if args.label is None:
        if args.guidance_scale not in (0, 1) and not the_problem.conditional:
            raise ValueError(f"--guidance-scale {args.guidance_scale:g} needs a class to guide towards: give --label")
        return None
    if args.label >= the_problem.classes:
        raise ValueError(
            f"--label {args.label}: {the_problem.name} has "
            + (f"the classes 0 to {the_problem.classes - 1}" if the_problem.classes else "no classes")
        )
    import torch

    return torch.full((n,), args.label)


def as_npz(path: "Trajectory", cond: "Tensor | None", settings: Mapping) -> bytes:
    """A file of the arrays `samples` (n, ...), `labels` (n,) where samples have labels, `ts` (N+1,), and `settings`,
    JSON text. It holds no time of day, so one seed gives one file."""
    import numpy as np

    out = io.BytesIO()
    labels: dict[str, Any] = {} if cond is None else {"labels": cond.numpy()}
    np.savez(out, samples=path.end.numpy(), ts=path.ts.numpy(), settings=np.array(json.dumps(settings)), **labels)
    return out.getvalue()


def as_png(
    the_problem: "Problem",
    path: "Trajectory",
    cond: "Tensor | None",
    law: "Tensor | None",
    row: Mapping,
    settings: Mapping,
) -> bytes:
    """A picture of the samples. The PNG's text field `toydiff` holds the settings as JSON.

    law: the labels of the true samples to compare with; None is the whole distribution.
    """
    from ..plots.static import digits, film_strip
    from ..problems import TokenDigitsProblem, TokenProblem

    title = (
        f"{row['method']} on {row['problem']}, {plural(row['nfe'], 'network call')}: "
        f"distance {row['distance']:.3g}, floor {row['floor']:.3g}"
    )
    if isinstance(the_problem, TokenDigitsProblem):
        figure = digits(rows_of_images(the_problem.pictures(path.end), cond), title=title)
    elif isinstance(the_problem, TokenProblem):
        figure = strings_figure(the_problem, path.end, row)
    elif the_problem.scale == "sequences":
        figure = film_strip(rows_of_clips(path.end, cond), title=title)
    elif the_problem.scale == "clips":
        figure = digits(rows_of_clips(path.end, cond), title=title)
    elif len(the_problem.shape) > 1:
        figure = digits(rows_of_images(path.end, cond), title=title)
    else:
        figure = points_figure(the_problem, path.end, law, row)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi="figure", metadata={"toydiff": json.dumps(settings)})
    return out.getvalue()


def strings_figure(the_problem: "TokenProblem", samples: "Tensor", row: Mapping) -> "Figure":
    """A model's strings beside true ones."""
    from ..plots import static

    drawn = f"{row['nfe']} network call{'s' * (row['nfe'] > 1)}: distance {row['distance']:.3g}"
    true = f"true strings: floor {row['floor']:.3g} ± {row['floor_std']:.1g}"
    panels = {drawn: samples, true: the_problem.data(len(samples), row["seed"])[0]}
    return static.strings(panels, the_problem.vocab, title=f"{row['method']} on {row['problem']}")


def points_figure(the_problem: "Problem", samples: "Tensor", law: "Tensor | None", row: Mapping) -> "Figure":
    """A model's points beside true points, over the density: the mixture's own, or a histogram of true points."""
    from ..plots import static
    from ..problems import MixtureProblem

    drawn = f"{plural(row['nfe'], 'network call')}: distance {row['distance']:.3g}"
    true = f"true samples: floor {row['floor']:.3g} ± {row['floor_std']:.1g}"
    background: GaussianMixture | Density
    if isinstance(the_problem, MixtureProblem):
        background, truth = the_problem.mixture, the_problem.mixture.sample(len(samples), row["seed"], cond=law)
    else:
        background, truth = histogram(the_problem, samples), the_problem.data(len(samples), row["seed"])[0]
    solvers = {drawn: row["solver"].partition(":")[0]}
    return static.samples(
        {drawn: samples, true: truth}, background, solvers=solvers, title=f"{row['method']} on {row['problem']}"
    )


def histogram(the_problem: "Problem", states: "Tensor", n: int = 200_000, cells: int = 90) -> "Density":
    """The density of a problem of points whose density has no formula, as a histogram of n points.

    The histogram has cells x cells cells, and covers all `states` (m, 2).
    """
    import numpy as np

    from ..plots.style import Density

    x = the_problem.data(n, 0)[0].double().numpy()
    everything = np.concatenate([x, states.double().numpy()])
    low, high = everything.min(0), everything.max(0)
    centre, reach = (low + high) / 2, 0.54 * (high - low).max()
    edges = [np.linspace(c - reach, c + reach, cells + 1) for c in centre]
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=edges)
    across, up = ((e[1:] + e[:-1]) / 2 for e in edges)
    return Density(across, up, counts.T)


def rows_of_clips(clips: "Tensor", cond: "Tensor | None", most: int = 8) -> dict[str, "Tensor"]:
    """The first clips (frames, ...) by the name of their row, with their labels."""
    return {
        f"clip {k + 1}" if cond is None else f"clip {k + 1}, label {int(cond[k])}": clip
        for k, clip in enumerate(clips[:most])
    }


def rows_of_images(images: "Tensor", cond: "Tensor | None") -> dict[str, "Tensor"]:
    """At most a hundred images in rows of ten, by the name of the row: images of one class, or a row of each class. A
    row that is too short is filled up with paper."""
    import torch

    classes = [None] if cond is None else cond.unique().tolist()
    groups: dict[str, Tensor] = {}
    for label in classes:
        own = images if label is None else images[cond == label]
        parts = own.split(IN_A_ROW)[: max(1, MOST_ROWS // len(classes))]
        for k, part in enumerate(parts):
            # names are keys: a class that has several rows is named at the first
            groups[("samples" if label is None else f"{label}") if k == 0 else " " * len(groups)] = part
    wide = max(len(part) for part in groups.values())
    return {
        name: torch.cat([part, part.new_full((wide - len(part), *part.shape[1:]), -1.0)])
        for name, part in groups.items()
    }


# ---- evaluate


def evaluate(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    import torch

    from .. import runs

    model = runs.load(args.model, unsafe=bool(args.unsafe_weights))
    the_problem: Problem
    if cli_sd.is_checkpoint(model.about["problem"]):
        the_problem = on_checkpoint = cli_sd.problem_of_run(model)
        device = usable(args.device or "cpu")
        on_checkpoint.checkpoint.to(device, "float16" if device == "cuda" else "float32")
    else:
        the_problem = runs.problem_of(model)
        device = usable(args.device or "cpu")
    runs.to_device(torch.device(device), the_problem, model.denoiser)
    rows = runs.evaluate(
        model,
        the_problem,
        steps=args.steps,
        n=args.n,
        solver=args.solver,
        grid=args.grid,
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        progress=show_progress(),
    )
    report(json_to, rows, evaluate_text(rows, model.about, _distance(the_problem)))


def _distance(the_problem: "Problem") -> str:
    return f"{the_problem.distance_name} to {the_problem.compared_with}"


def evaluate_text(rows: Sequence[Mapping], about: Mapping, distance: str) -> str:
    """Measured rows as a table."""
    first = rows[0]
    parts = first.get("parts", {})
    lines = [
        [
            str(row["steps"]),
            str(row["nfe"]),
            f"{row['distance']:.4g}" + ("" if row["distance_std"] is None else f" ± {row['distance_std']:.1g}"),
            f"{row['floor']:.4g} ± {row['floor_std']:.1g}",
            f"{row['distance'] / row['floor']:.2f}",
            f"{row['distance'] - row['floor']:.3g}",
            *(f"{row['parts'][name]['value']:.3g}" for name in parts),
            cell(row["accuracy"], ".1%"),
            f"{row['seconds']:.3g}",
        ]
        for row in rows
    ]
    guidance = "" if first["guidance_scale"] == 1 else f", guidance scale {first['guidance_scale']:g}"
    calls = f", {about['teacher_calls']:,} calls of the teacher" if about["teacher_calls"] else ""
    head = ["steps", "NFE", "distance", "floor", "distance/floor", "excess", *parts, "accuracy", "s"]
    floors = "".join(f" {name}: floor {part['floor']:.3g} ± {part['floor_std']:.1g}." for name, part in parts.items())
    return (
        f"{first['method']} on {first['problem']}, after {about['updates']} updates{calls}\n"
        f"{first['n']} samples by {first['solver']} on the grid {first['grid']}{guidance}, seed {first['seed']}\n\n"
        f"{table(head, lines, range(len(head)))}\n\n"
        f"distance: {distance}. floor: that of as many true samples. "
        f"excess: distance - floor.{floors}"
    )


def steps_list(text: str) -> list[int]:
    """The type of an argument that is numbers of steps with commas between them."""
    read = whole(1, MOST_STEPS)
    return [read(part.strip()) for part in text.split(",")]


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="RUN",
        type=place,
        help="a run's folder or bundled weights",
    )
    parser.add_argument(
        "--steps",
        metavar="N,N,...",
        type=steps_list,
        help="numbers of steps to measure at (default: those that the method is meant for)",
    )
    parser.add_argument(
        "--n",
        metavar="N",
        type=whole(2, MOST_SAMPLES),
        help="number of samples (default: 8000 points, 1000 digits, or 64 latents of a checkpoint)",
    )
    parser.add_argument(
        "--solver",
        metavar="NAME",
        help="solver (default: the method's)",
    )
    parser.add_argument(
        "--grid",
        metavar="NAME",
        help="time grid (default: the method's)",
    )
    parser.add_argument(
        "--guidance-scale",
        metavar="G",
        type=finite,
        default=1.0,
        help="guidance scale; 1, the default, is off",
    )
    _seed(parser, "seed of the noise")
    cli_sd.add_unsafe(parser)
    add_device(parser)
    add_json(parser)


# ---- zoo


def zoo(args: argparse.Namespace) -> None:
    json_to = output_file(args.json)
    if args.words and args.words[0] != "build":
        raise unknown("word after toydiff zoo", args.words[0], ("build",))
    if not args.words:
        for option in ("work", "out", "missing", "device"):
            if getattr(args, option):
                raise ValueError(f"--{option} is for toydiff zoo build")
    from .. import weights
    from ..runs import zoo as library

    if not args.words:
        found = library.listing()
        report(json_to, found, zoo_text(found) if found else "no weights are bundled; toydiff zoo build makes them")
        return
    ids = args.words[1:]
    for id_ in ids:
        if id_ not in library.ids():
            raise unknown("bundled weights", id_, library.ids())
    work, out = (Path("zoo") if args.work is None else args.work), (weights.FOLDER if args.out is None else args.out)
    for folder, option in ((work, "--work"), (out, "--out")):
        if not str(folder):
            raise ValueError(f"{option} must name a folder, got ''")
        check_folder(folder)
    work, out = writable_folder(work), writable_folder(out)
    built = []
    try:
        for entry in library.build(
            ids or None, work, out, show_progress(), missing=args.missing, device=usable(args.device or "cpu")
        ):
            built.append(entry)
            if json_to != "-":
                print(f"built {entry['id']}", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; the same command continues") from None
    report(json_to, built, zoo_text(built))


def zoo_text(entries: Sequence[Mapping]) -> str:
    """Bundled weights as a table."""
    lines = []
    for entry in entries:
        rows = [row for row in entry["rows"] if "steps" in row]
        accuracies = [row["accuracy"] for row in entry["rows"] if row.get("accuracy") is not None]
        lines.append(
            [
                entry["id"],
                entry["title"],
                f"{entry['bytes'] / 1e6:.2f} MB",
                cell(", ".join(str(row["steps"]) for row in rows) or None),
                cell(", ".join(f"{row['distance'] / row['floor']:.2f}" for row in rows) or None),
                cell(", ".join(f"{value:.1%}" for value in accuracies) or None),
                f"{entry['seconds']:.0f}",
                "" if entry["passes_in_all"] is None else f"{entry['passes_in_all'] / 1e6:.1f}",
            ]
        )
    head = ["id", "what", "size", "steps", "distance/floor", "accuracy", "s of training", "million passes"]
    return (
        f"{table(head, lines, (2, 6, 7))}\n\n"
        "passes: of the networks in training, a sample forwards 1 and backwards 2, with those of the pairs and of the "
        "students that it began with.\nBuild one again with: toydiff zoo build ID"
    )


def zoo_arguments(parser: Parser) -> None:
    parser.add_argument(
        "words",
        metavar="build [ID ...]",
        nargs="*",
        help="train and measure these weights again, or all",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=place,
        help="folder of runs and pairs while building (default: zoo)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        help="folder of the weights and their JSON (default: that of the bundled ones)",
    )
    parser.add_argument(
        "--missing",
        action="store_true",
        help="build only what is not there, or was made by another recipe or of other weights than those there now",
    )
    add_device(parser)
    add_json(parser)


# ---- arguments that several commands have


def _problem(parser: Parser) -> None:
    parser.add_argument(
        "--problem",
        metavar="NAME",
        required=True,
        help="mixture, mixture:NAME, points:NAME, file:PATH, digits, digits:openml, tokens:NAME, or sd with --model; "
        "`toydiff methods` lists the problems",
    )


def _seed(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole(0, MOST_SEED_OF_RUN),
        default=0,
        help=f"{what} (default: 0)",
    )
