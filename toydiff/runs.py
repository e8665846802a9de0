"""Runs: train a method on a problem into a folder, load what came out, measure it. What the command, the weights' recipes and notebooks use."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import weights
from .catalog import METHODS, Card
from .checkpoints import INDEX, Checkpoints, check_out, read_run, read_tensors
from .checks import check_count, check_positive, shape, unknown
from .denoisers import Denoiser
from .distill.base import Knobs, Training
from .distill.pairs import Pairs, Recipe, load_pairs, make_pairs, save_pairs
from .grids import time_grid
from .problems import CheckpointProblem, Problem, entry, problem
from .seeds import seeded
from .solvers import Trajectory, solve
from .training import Collapse, Diverged, Look, Record, State, Watch, fit

if TYPE_CHECKING:
    from accelerate import Accelerator

SEED_OF_NOISE = 1_000_000
"""Added to the seed of a measurement, so that no student is measured on noise that it was trained on."""


SEED_OF_LOOKS = 500_000
"""The seed of a watch's noise, so that its choice of the best is not measured on the same samples."""

ABOUT = ("method", "problem", "seed", "denoiser", "sampler", "pair_calls", "calls_per_update")
"""What the file of a run says at least."""


def card(method: str) -> Card:
    """A method's card by its name; `ValueError` with the nearest name otherwise."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return METHODS[method]


def knobs(method: str, on: Problem | str, changes: Mapping[str, object] | None = None) -> Knobs:
    """A method's knobs by its recipe for a problem's scale, with changes; `ValueError` for a knob that it does not have, or a value of another type.

    on: a problem, or its name. Values may be text, as on a command line.
    """
    chosen = card(method)
    settings = dict(chosen.recipes.get(on.scale if isinstance(on, Problem) else entry(on).scale, {}))
    fields = {f.name: f for f in dataclasses.fields(chosen.knobs)}
    for name, value in (changes or {}).items():
        if name not in fields:
            raise unknown(f"knob of {method}", name, fields)
        settings[name] = _typed(value, fields[name].type, f"the knob {name} of {method}")
    made = chosen.knobs(**settings)
    check_count(made.updates, "updates")
    check_count(made.batch, "batch")
    check_count(made.warmup, "warmup", 0)
    check_count(made.cycles, "cycles")
    check_positive(made.lr, "lr")
    check_positive(made.clip, "clip")
    return made


def _typed(value: object, kind: type, what: str) -> object:
    try:
        made = kind(value) if isinstance(value, str) or kind is float else value
    except (TypeError, ValueError):
        made = None
    if not isinstance(made, kind) or isinstance(value, bool) or (kind is float and made != made):
        names = {int: "a whole number", float: "a number", str: "a word"}
        raise ValueError(f"{what} is {names[kind]}, got {value!r}")
    return made


@dataclass(frozen=True)
class Model:
    """Something to sample: a denoiser, and what is known about how it came to be (method, problem, seed, updates, teacher_calls, sampler)."""

    denoiser: Denoiser
    about: Mapping[str, object]


def load(source: str | Path) -> Model:
    """A model by the folder of its run, or by the id of bundled weights; `ValueError` in one line for anything else.

    Of an unfinished run, what was last saved. It is the average of the weights that is loaded, frozen; of a run that was watched, the average at the
    look where its distance was smallest, update `best`.
    """
    folder = Path(source)
    if (folder / INDEX).exists():
        index = read_run(folder)
        about = index["about"]
        missing = [key for key in ABOUT if key not in about]
        if missing:
            raise ValueError(f"the run in {str(source)!r} does not say its {missing[0]!r}, and cannot be loaded")
        tensors = read_tensors(folder / index["file"], index["sha256"])
        watched = bool(about.get("watch"))
        prefix = "module.watch.best.net." if watched else "module.average.module.net."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        done = {
            "updates": index["step"],
            "teacher_calls": about["pair_calls"] + index["step"] * about["calls_per_update"],
        } | ({"best": int(tensors["module.watch.step"])} if watched else {})
        return Model(weights.build(about["denoiser"], own), about | done | {"seconds": index["seconds"]})
    if str(source) in weights.bundled():
        return Model(weights.load_denoiser(str(source)), weights.read_about(str(source)))
    if folder.is_dir():
        raise ValueError(f"the folder {str(source)!r} holds no run of toydiff: it has no {INDEX}")
    raise unknown("run or bundled weights", str(source), weights.bundled())


def problem_of(model: Model, *, with_data: bool = True) -> Problem:
    """The problem that a model was trained on; without its data and prompts, which sampling does not need and which may be gone."""
    settings = model.about.get("settings")
    if settings and not with_data:
        settings = settings | {"data": None, "prompts": []}
    return problem(model.about["problem"], settings=settings)


def teacher_of(the_problem: Problem, name: str | None, role: str = "teacher") -> tuple[str, Denoiser]:
    """A teacher by name: None for the problem's own, otherwise a run's folder or bundled weights; and how it is called in files.

    role: what an error calls it, also "start". `ValueError` if there is none, or it is another problem's.
    """
    if name is None:
        if the_problem.teacher is None:
            raise ValueError(
                f"the problem {the_problem.name} has no teacher of its own: train one (toydiff train diffusion) and name its folder with --teacher"
            )
        return "own", the_problem.teacher
    found = load(name)
    if found.about["problem"] != the_problem.name:
        raise ValueError(f"the {role} {name!r} is of the problem {found.about['problem']}, not {the_problem.name}")
    return name, found.denoiser


@dataclass
class Run:
    """A training run that is set up: iterate it for its records, one an update. `training.average.module` is the result so far, `watch.best` the best.

    It runs once: what iterates it again, or `finish`, goes on where the last loop was left.
    """

    method: str
    problem: Problem
    knobs: Knobs
    training: Training
    about: dict
    checkpoints: Checkpoints | None
    seed: int
    watch: Watch | None = None
    accumulate: int = 1
    accelerator: "Accelerator | None" = None
    progress: bool = False
    seconds: float = field(default=0.0, init=False)
    _records: Iterator[Record] | None = field(default=None, init=False, repr=False)

    def __iter__(self) -> Iterator[Record]:
        if self._records is None:
            self._records = self._run()
        return self._records

    def _run(self) -> Iterator[Record]:
        training, knobs_ = self.training, self.knobs
        watched = {} if self.watch is None else {"watch": self.watch}
        state = State.of(
            training.turns, averages=training.averages(), modules=training.state() | watched, seed=self.seed, accelerator=self.accelerator
        )  # fmt: skip
        if self.checkpoints is not None:
            self.checkpoints.load(state)
        records = fit(
            state, knobs_.updates, clip=knobs_.clip, warmup=knobs_.warmup, period=training.period or -(-knobs_.updates // knobs_.cycles),
            watch=self.watch, accumulate=self.accumulate, progress=self.progress,
        )  # fmt: skip
        try:
            for record in records:
                if self.checkpoints is not None:
                    self.checkpoints.after(record, state, knobs_.updates)
                self.seconds += record.seconds
                yield record
        except Diverged as error:
            saved = "nothing was saved" if self.checkpoints is None else self.checkpoints.last_good
            raise type(error)(error.what, saved) from None

    def finish(self) -> Model:
        """Run to the end. The model's `seconds` are those of the updates that this process made."""
        for _ in self:
            pass
        done, result = (
            {"updates": self.knobs.updates},
            self.training.average.module,
        )  # also where nothing was left to do
        if self.watch is not None:
            done, result = {"updates": int(self.watch.last), "best": int(self.watch.step)}, self.watch.best
        calls = self.about["pair_calls"] + done["updates"] * self.about["calls_per_update"]
        D = result.eval().requires_grad_(False)
        return Model(D, self.about | done | {"teacher_calls": calls, "seconds": self.seconds})


def train(
    method: str,
    on: Problem | str,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    changes: Mapping[str, object] | None = None,
    teacher: str | Model | Denoiser | None = None,
    start: str | Model | Denoiser | None = None,
    pairs: str | Path | Pairs | None = None,
    resume: bool = False,
    every: int = 250,
    watch: int | None = None,
    patience: int | None = None,
    accumulate: int = 1,
    device: str = "cpu",
    accelerator: "Accelerator | None" = None,
    progress: bool = False,
) -> Run:
    """Set up the training of a method on a problem; iterate the result, or call its `finish`.

    teacher, start: a run's folder, bundled weights, or a denoiser; by default the problem's own teacher, whose weights the student starts
    with if it has any. pairs: a folder or `Pairs`, of that teacher; where the method needs them and none are given, they are
    made first, as the problem's `Sizes.pairs` say. out: a folder for checkpoints; with `resume` what is there is continued. watch: measure the average every
    so many updates, and keep the best (`training.Watch`); 0 for not at all, by default what the method's card says. patience: after how many
    measurements in a row that were no better the run ends; None for never. accumulate: in how many parts each batch's gradient is computed. The same seed gives
    the same bits on one machine. `ValueError` for what does not fit.
    """
    the_problem = problem(on) if isinstance(on, str) else on
    chosen, settings = card(method), knobs(method, the_problem, changes)
    check_count(seed, "seed", 0)
    names = {}
    given = {}
    for role, what in (("teacher", teacher), ("start", start)):
        if isinstance(what, Denoiser | Model):
            given[role] = what.denoiser if isinstance(what, Model) else what
            names[role] = type(given[role]).__name__
        elif what is not None or (role == "teacher" and chosen.needs != "nothing"):
            names[role], given[role] = teacher_of(the_problem, what, role)
    if chosen.needs == "nothing" and "start" not in given and isinstance(the_problem, CheckpointProblem):
        names["start"], given["start"] = "own", the_problem.teacher
    if teacher is not None and chosen.needs == "nothing":
        raise ValueError(f"{method} uses no teacher; to start from weights that are there, give them as the start")
    if out is not None:
        check_out(out, resume)  # before any work
    target = torch.device(device)
    to_device(target, the_problem, *given.values())
    if chosen.data and isinstance(the_problem, CheckpointProblem):
        the_problem.ready()
    if chosen.needs == "pairs" and pairs is None:
        pairs = _own_pairs(the_problem, given["teacher"], names["teacher"], out, accelerator, progress)
    if isinstance(pairs, str | Path):
        pairs = load_pairs(pairs)
    if pairs is not None and chosen.needs != "pairs":
        raise ValueError(f"{method} uses no pairs")
    if pairs is not None:
        _check_pairs(pairs, the_problem)
    with seeded(seed):  # fresh weights
        training = chosen.train(the_problem, settings, given.get("teacher"), pairs, given.get("start"))
    for module in training.state().values():
        module.to(target)
    measurable = the_problem.distance_name is not None
    watch = (
        (max(settings.updates // chosen.looks, 1) if chosen.looks and measurable else 0)
        if watch is None
        else check_count(watch, "watch", 0)
    )
    if watch and not measurable:
        raise ValueError(
            f"a watch measures samples, and there is nothing to compare samples of {the_problem.name} with: give it data, or set watch to 0"
        )
    if patience is not None and not watch:
        raise ValueError(
            "patience counts measurements during the run, and none are made: set watch, the updates between them"
        )
    about = {
        "method": method, "problem": the_problem.name, "seed": seed, "knobs": dataclasses.asdict(settings), **names,
        "pairs": None if pairs is None else pairs.about, "pair_calls": 0 if pairs is None else pairs.teacher_calls,
        "calls_per_update": training.teacher_calls, "denoiser": weights.describe(training.student),
        "sampler": dataclasses.asdict(chosen.sampler) | {"solver": training.solver or chosen.sampler.solver, "steps": list(training.steps or chosen.sampler.steps)},
    }  # fmt: skip
    check_count(accumulate, "accumulate")
    if settings.batch % accumulate:
        raise ValueError(f"a batch of {settings.batch} cannot be accumulated in {accumulate} equal parts")
    about |= {"accumulate": accumulate} if accumulate > 1 else {}
    if isinstance(the_problem, CheckpointProblem):
        about |= {"settings": the_problem.settings(), "inputs": the_problem.inputs()}
    mixed = "no" if accelerator is None else str(accelerator.mixed_precision)
    about |= {"mixed_precision": mixed} if mixed != "no" else {}
    watched = None
    if watch:
        about["watch"] = {"watch": watch, "patience": patience}
        watched = Watch(training.average, looker(the_problem, about, training), watch, patience)
    checkpoints = None if out is None else Checkpoints(Path(out), about, every, resume)
    return Run(
        method, the_problem, settings, training, about, checkpoints, seed, watched, accumulate, accelerator, progress
    )


def to_device(device: torch.device, the_problem: Problem, *models: Denoiser) -> None:
    """Move models to a device, and, where the problem is a checkpoint, what encodes its prompts."""
    if isinstance(the_problem, CheckpointProblem):
        the_problem.to(device, *models)
    for D in models:
        D.to(device)


def _check_pairs(pairs: Pairs, the_problem: Problem) -> None:
    """The pairs are of the problem and of its samples, whose prompts are made known to it where it has any; `ValueError` otherwise."""
    if pairs.about["problem"] != the_problem.name:
        raise ValueError(f"the pairs are of the problem {pairs.about['problem']}, not {the_problem.name}")
    if tuple(pairs.x0.shape[1:]) != tuple(the_problem.shape):
        raise ValueError(
            f"the pairs have samples {shape(pairs.x0[0])}, and {the_problem.name} has {tuple(the_problem.shape)}"
        )
    if isinstance(the_problem, CheckpointProblem):
        the_problem.accept(pairs)


def looker(the_problem: Problem, about: Mapping[str, object], training: Training) -> Look:
    """What a run's watch sees of a denoiser: {distance, floor, accuracy, spread, coverage, least_share, shares} and the figures of the method's monitor.

    Of `Sizes.watched` samples by the fewest steps that the method is sampled with, from noise of their own. spread: the root mean square of their distance
    from their mean, over that of data; shares: what lies at each mode.
    """
    n = the_problem.sizes.watched
    steps = min(about["sampler"]["steps"])
    spread_of_data = deviation(the_problem.data(n, SEED_OF_NOISE)[0])

    def look(D: Denoiser) -> dict[str, float | None]:
        path, cond = sample(Model(D, about), the_problem, n, steps, seed=SEED_OF_LOOKS)
        if not bool(torch.isfinite(path.end).all()):
            raise Collapse("the training collapsed: its samples are NaN or infinite")
        measured = the_problem.measure(path.end, cond)
        return {
            "distance": measured.distance, "floor": measured.floor, "accuracy": measured.accuracy, "spread": deviation(path.end) / spread_of_data,
            "coverage": measured.coverage, "least_share": measured.least_share, "shares": measured.shares, **(training.monitor() if training.monitor else {}),
        }  # fmt: skip

    return look


def deviation(samples: Tensor) -> float:
    """The root mean square of the samples' (n, ...) distance from their mean."""
    return float((samples - samples.mean(0)).double().square().flatten(1).sum(1).mean().sqrt())


def _own_pairs(
    the_problem: Problem,
    teacher: Denoiser,
    teacher_name: str,
    out: str | Path | None,
    accelerator: "Accelerator | None",
    progress: bool,
) -> Pairs | Path:
    """Pairs for a run that was given none: in its folder, where a continued run finds them, or in memory if it has none."""
    recipe = Recipe(**the_problem.sizes.pairs)
    if out is None:
        return make_pairs(the_problem, teacher, recipe, progress=progress)
    folder = Path(out) / "pairs"
    if accelerator is None or accelerator.is_main_process:
        save_pairs(the_problem, teacher, recipe, folder, teacher_name=teacher_name, progress=progress)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    return folder


def sample(
    model: Model,
    the_problem: Problem,
    n: int,
    steps: int,
    *,
    solver: str | None = None,
    grid: str | None = None,
    guidance_scale: float = 1.0,
    cond: Tensor | None = None,
    seed: int = 0,
    batch: int = 1000,
    progress: bool = False,
) -> tuple[Trajectory, Tensor | None]:
    """n samples of a model in `steps` steps, from standard noise times sigma(1), and the classes that were asked for (n,) or None.

    solver and grid: by default those of the model's method. The noise depends on the seed and n alone, so that models are compared from the
    same noise. The trajectory keeps the end only.
    """
    check_count(n, "n")
    D, sampler = model.denoiser, model.about["sampler"]
    cond = the_problem.eval_labels(n) if cond is None else cond
    noise = torch.randn(n, *the_problem.shape, generator=torch.Generator().manual_seed(SEED_OF_NOISE + seed))
    device = next((p.device for p in D.parameters()), noise.device)
    x = (D.schedule.sigma(torch.ones(())).to(noise.dtype) * noise).to(device)
    cond = None if cond is None else cond.to(device)
    ts = time_grid(D.schedule, steps, sampler["grid"] if grid is None else grid)
    parts, batch = [], min(batch, the_problem.sizes.at_once)
    for i in range(0, n, batch):
        part = slice(i, i + batch)
        parts.append(
            solve(
                D, x[part], ts=ts, solver=sampler["solver"] if solver is None else solver, cond=None if cond is None else cond[part],
                guidance_scale=guidance_scale, generator=seed + i, keep="end", progress=progress,
            )
        )  # fmt: skip
    first = parts[0]
    end = torch.cat([part.end for part in parts]).cpu()
    seconds = sum(part.seconds for part in parts)
    return Trajectory(
        first.ts, end[None], end.new_empty(0, *end.shape), first.nfe, first.rounds, seconds
    ), None if cond is None else cond.cpu()


def evaluate(
    model: Model,
    the_problem: Problem,
    *,
    steps: Sequence[int] | None = None,
    n: int | None = None,
    solver: str | None = None,
    grid: str | None = None,
    guidance_scale: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> list[dict]:
    """Measure a model at each number of steps: the rows that `--json` writes everywhere.

    n: `Sizes.evaluated` samples unless given, 8000 points or 1000 images. A row is {method, problem, steps, distance, floor, accuracy, seed, nfe, rounds, updates,
    teacher_calls, seconds} and floor_std, shares (of the modes or classes, None where there are none), solver, grid, guidance_scale, n.
    """
    n = the_problem.sizes.evaluated if n is None else n
    sampler = model.about["sampler"]
    rows = []
    for count in sampler["steps"] if steps is None else steps:
        path, cond = sample(
            model,
            the_problem,
            n,
            count,
            solver=solver,
            grid=grid,
            guidance_scale=guidance_scale,
            seed=seed,
            progress=progress,
        )
        measured = the_problem.measure(path.end, cond)
        rows.append(
            {
                "method": model.about["method"], "problem": the_problem.name, "steps": count, "distance": measured.distance, "floor": measured.floor,
                "accuracy": measured.accuracy, "seed": seed, "nfe": path.nfe, "rounds": path.rounds, "updates": model.about["updates"],
                "teacher_calls": model.about["teacher_calls"], "seconds": path.seconds, "floor_std": measured.floor_std,
                "shares": None if measured.shares is None else list(measured.shares),
                "solver": sampler["solver"] if solver is None else solver, "grid": sampler["grid"] if grid is None else grid, "guidance_scale": guidance_scale, "n": n,
            }
        )  # fmt: skip
    return rows
