"""A training run: a method on a problem, into a folder."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import weights
from ..denoisers import Denoiser
from ..discrete import Posterior
from ..distill.base import Knobs, Training
from ..problems import CheckpointProblem, Problem, content_of_problem, problem
from ..problems.pairs import DATA, Pairs, Recipe, check_teacher, load_pairs, make_pairs, save_pairs
from ..support.checks import check_count, shape
from ..support.locks import check_free
from ..support.sealed import digest
from ..support.seeds import seeded
from ..training import Collapse, Diverged, Evaluate, Record, State, Watch, check_processes, fit
from ..training.checkpoints import CONTENT, Checkpoints, check_out
from .evaluation import SEED_OF_NOISE, sample
from .models import KEPT, PROBLEM, Model, card, knobs, of_vectors, same_problem, teacher_of

if TYPE_CHECKING:
    from accelerate import Accelerator

SEED_OF_EVALUATIONS = 500_000
"""The seed of a watch's noise. It differs from that of an evaluation, so the weights that a watch chose are measured on
other samples."""


@dataclass
class Run:
    """A training run that is set up. Iterating it trains, and gives a `Record` after each update.

    `training.average.module` is the result so far, and `watch.best` the best one. A run runs once: a second loop, or
    `finish`, goes on where the last loop was left.
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
    data: Mapping[str, Tensor] = field(default_factory=dict)
    """What the run keeps of its problem, where the problem's name does not make it again (`Problem.definition`)."""
    seconds: float = field(default=0.0, init=False)
    _records: Iterator[Record] | None = field(default=None, init=False, repr=False)

    def __iter__(self) -> Iterator[Record]:
        if self._records is None:
            self._records = self._run()
        return self._records

    def _run(self) -> Iterator[Record]:
        training, knobs_ = self.training, self.knobs
        watched: dict[str, nn.Module] = {} if self.watch is None else {"watch": self.watch}
        kept: dict[str, nn.Module] = {KEPT: _Kept(self.data)} if self.data else {}
        state = State.of(
            training.turns,
            averages=training.averages(),
            modules=training.state() | watched | kept,
            seed=self.seed,
            accelerator=self.accelerator,
        )
        records = fit(
            state,
            knobs_.updates,
            clip=knobs_.clip,
            warmup=knobs_.warmup,
            period=training.period or -(-knobs_.updates // knobs_.cycles),
            watch=self.watch,
            accumulate=self.accumulate,
            progress=self.progress,
        )
        try:
            if self.checkpoints is not None:
                self.checkpoints.load(state)
            for record in records:
                if self.checkpoints is not None:
                    self.checkpoints.after(record, state, knobs_.updates)
                self.seconds += record.seconds
                yield record
        except Diverged as error:
            saved = "nothing was saved" if self.checkpoints is None else self.checkpoints.last_good
            raise type(error)(error.what, saved) from None
        finally:
            if self.checkpoints is not None:
                self.checkpoints.release()

    def finish(self) -> Model:
        """Train to the end. The model's `about["seconds"]` are those of the updates that this process made."""
        for _ in self:
            pass
        # also where nothing was left to do
        done, result = {"updates": self.knobs.updates}, self.training.average.module
        if self.watch is not None:
            done, result = {"updates": int(self.watch.last), "best": int(self.watch.step)}, self.watch.best
        calls = self.about["pair_calls"] + done["updates"] * self.about["calls_per_update"]
        D = result.eval().requires_grad_(False)
        assert isinstance(D, Denoiser | Posterior)  # an average of the student
        return Model(D, self.about | done | {"teacher_calls": calls, "seconds": self.seconds}, self.data)


TAUGHT = "teacher average"
"""The name, among a training's targets, of the average of a teacher that it trains first."""


def teacher_of_run(run: Run, steps: int = 25) -> Model:
    """The teacher that a run trains first, as `animatelcm` does a video teacher, once the run has ended. It is sampled
    in `steps` steps, as the problem's undistilled models are. `ValueError` for a run that trains none."""
    if TAUGHT not in run.training.targets:
        raise ValueError(f"{run.method} trains no teacher of its own")
    teacher = run.training.targets[TAUGHT].module.eval().requires_grad_(False)
    assert isinstance(teacher, Denoiser)
    solver, grid = run.problem.walk
    own: dict[str, Any] = {
        "denoiser": weights.describe(teacher),
        "sampler": {"solver": solver, "grid": grid, "steps": [steps]},
    }
    return Model(teacher, dict(run.finish().about) | own, run.data)


class _Kept(nn.Module):
    """Tensors that a checkpoint keeps and that nothing changes."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def train(
    method: str,
    on: Problem | str,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    changes: Mapping[str, object] | None = None,
    teacher: str | Model | Denoiser | Posterior | None = None,
    start: str | Model | Denoiser | Posterior | None = None,
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
    """Set up the training of a method on a problem. Iterate the result, or call its `finish`.

    on: a problem, or its name. changes: values of knobs, as in `knobs`. The same seed gives the same bits on one
    machine.

    teacher: a run's folder, the id of bundled weights, a model or a denoiser; None is the problem's own teacher, where
    the method needs one. start: likewise, what the student's weights start as; None is the teacher. pairs: a folder of
    pairs or `Pairs`, of that teacher. A method that needs pairs and is given none makes them first, as the problem's
    `Sizes.pairs` say.

    out: a folder for checkpoints, one every `every` updates; None saves nothing. resume: continue the run that the
    folder holds. watch: measure the average every so many updates, and keep the best (`training.Watch`); 0 is never,
    and None is what the method's card says. patience: end the run after so many measurements in a row that were no
    better; None is never. accumulate: compute each batch's gradient in so many parts. device: of torch. accelerator: of
    several processes (`training.State.of`). progress: show a bar. `ValueError` for what does not fit.
    """
    the_problem = problem(on) if isinstance(on, str) else on
    chosen, settings = card(method), knobs(method, the_problem, changes)
    check_count(seed, "seed", 0)
    names: dict[str, str] = {}
    given: dict[str, Denoiser | Posterior] = {}
    for role, what in (("teacher", teacher), ("start", start)):
        if isinstance(what, Denoiser | Posterior | Model):
            given[role] = what.denoiser if isinstance(what, Model) else what
            names[role] = type(given[role]).__name__
        elif what is not None or (role == "teacher" and chosen.needs != "nothing"):
            names[role], given[role] = teacher_of(the_problem, what, role)
    if chosen.needs == "nothing" and "start" not in given and isinstance(the_problem, CheckpointProblem):
        names["start"], given["start"] = teacher_of(the_problem, None, "start")
    for role, D in given.items():
        if isinstance(D, Posterior) != chosen.tokens:
            found, wanted = ("vectors", "tokens") if chosen.tokens else ("tokens", "vectors")
            raise ValueError(f"the {role} is a model of {found}, and {method} trains models of {wanted}")
    if teacher is not None and chosen.needs == "nothing":
        raise ValueError(f"{method} uses no teacher; to start from weights that are there, give them as the start")
    check_processes(accelerator)
    first = accelerator is None or accelerator.is_main_process
    if out is not None:  # before any work
        check_out(out, resume)
        if first:  # the first process may be at work by now, and the others are with it
            check_free(out, takeover=resume)
    parts = check_count(accumulate, "accumulate")
    if settings.batch % parts:
        raise ValueError(f"a batch of {settings.batch} cannot be accumulated in {parts} equal parts")
    processes = 1 if accelerator is None else accelerator.num_processes
    if settings.batch % (parts * processes):
        raise ValueError(
            f"a batch of {settings.batch} cannot be shared evenly by {processes} processes"
            + (f", each with {parts} parts that are accumulated" if parts > 1 else "")
        )
    measurable = the_problem.distance_name is not None
    watch = (
        (max(settings.updates // chosen.evaluations, 1) if chosen.evaluations and measurable else 0)
        if watch is None
        else check_count(watch, "watch", 0)
    )
    if watch and not measurable:
        raise ValueError(
            f"a watch measures samples, and there is nothing to compare samples of {the_problem.name} with: "
            "give it data, or set watch to 0"
        )
    if patience is not None and not watch:
        raise ValueError(
            "patience counts measurements during the run, and none are made: set watch, the updates between them"
        )
    target = torch.device(device)
    to_device(target, the_problem, *given.values())
    if chosen.data and isinstance(the_problem, CheckpointProblem):
        the_problem.ready()
    if pairs is not None and chosen.needs != "pairs":
        raise ValueError(f"{method} uses no pairs")
    if chosen.needs == "pairs" and pairs is None:
        with seeded(seed):  # a mistake in a knob is reported before the pairs are made
            tried = chosen.train(the_problem, settings, given["teacher"], _no_pairs(the_problem), given.get("start"))
        weights.describe(tried.student)
        del tried
        own = of_vectors(given["teacher"], "pairs are")
        pairs = _own_pairs(the_problem, own, names["teacher"], out, accelerator, progress)
    if isinstance(pairs, str | Path):
        pairs = load_pairs(pairs)
    if pairs is not None:
        _check_pairs(pairs, the_problem)
        if "teacher" in given:
            check_teacher(pairs, of_vectors(given["teacher"], "pairs are"), names["teacher"])
    with seeded(seed):  # fresh weights
        training = chosen.train(the_problem, settings, given.get("teacher"), pairs, given.get("start"))
    for module in training.state().values():
        module.to(target)
    fixed = getattr(training.student, "scale_conditioned", False) and training.guidance_scale is not None
    about = {
        "method": method,
        "problem": the_problem.name,
        "seed": seed,
        "knobs": dataclasses.asdict(settings),
        **names,
        "pairs": None if pairs is None else pairs.about,
        "pair_calls": 0 if pairs is None else pairs.teacher_calls,
        "calls_per_update": training.teacher_calls,
        "denoiser": weights.describe(training.student),
        "sampler": {
            "solver": training.solver or chosen.sampler.solver or the_problem.walk[0],
            "grid": chosen.sampler.grid or the_problem.walk[1],
            "steps": list(training.steps or chosen.sampler.steps),
            **({"guidance_scale": training.guidance_scale} if fixed else {}),
        },
    }
    about |= {"accumulate": accumulate} if accumulate > 1 else {}
    description, data = the_problem.definition() or ({}, {})
    about |= {"definition": description} if description else {}
    content = {
        PROBLEM: content_of_problem(the_problem),
        **{f"a {role}": D.content() for role, D in given.items()},
        "pairs": None if pairs is None else digest(pairs.tensors()),
    }
    about[CONTENT] = {name: value for name, value in content.items() if value is not None}
    if isinstance(the_problem, CheckpointProblem):
        about |= {"settings": the_problem.settings(), "inputs": the_problem.inputs()}
    mixed = "no" if accelerator is None else str(accelerator.mixed_precision)
    about |= {"mixed_precision": mixed} if mixed != "no" else {}
    watched = None
    if watch:
        about["watch"] = {"watch": watch, "patience": patience}
        watched = Watch(training.average, evaluator(the_problem, about, training), watch, patience)
    checkpoints = None if out is None else Checkpoints(Path(out), about, every, resume)
    return Run(
        method,
        the_problem,
        settings,
        training,
        about,
        checkpoints,
        seed,
        watched,
        accumulate,
        accelerator,
        progress,
        data,
    )


def to_device(device: torch.device, the_problem: Problem, *models: Denoiser | Posterior) -> None:
    """Move models to a device. Where the problem is a checkpoint, its text encoders move with them."""
    if isinstance(the_problem, CheckpointProblem):
        the_problem.to(device, *(D for D in models if isinstance(D, Denoiser)))
    for D in models:
        D.to(device)


def _check_pairs(pairs: Pairs, the_problem: Problem) -> None:
    """`ValueError` where the pairs are not of the problem, or their samples have another shape. A problem with prompts
    gets those of the pairs."""
    same_problem("the pairs are", pairs.about["problem"], pairs.about.get(DATA), the_problem)
    if tuple(pairs.x0.shape[1:]) != tuple(the_problem.shape):
        raise ValueError(
            f"the pairs have samples {shape(pairs.x0[0])}, and {the_problem.name} has {tuple(the_problem.shape)}"
        )
    if isinstance(the_problem, CheckpointProblem):
        the_problem.accept(pairs)


def evaluator(the_problem: Problem, about: Mapping[str, Any], training: Training) -> Evaluate:
    """The function that measures a run's average for its `training.Watch`.

    It draws `Sizes.watched` samples in the fewest steps that the method is sampled with, of those that are at least
    `Sizes.watched_steps`. Their noise is always the same, and no other measurement has it. It returns distance, floor,
    accuracy, coverage, least_fraction and fractions (`Measured`), spread, and the figures of the method's
    `Training.monitor`, by name. spread is the root mean square distance of the samples from their mean, over that of
    data.
    """
    n = the_problem.sizes.watched
    allowed = about["sampler"]["steps"]
    steps = min([few for few in allowed if few >= the_problem.sizes.watched_steps], default=max(allowed))
    spread_of_data = deviation(the_problem.data(n, SEED_OF_NOISE)[0])

    def evaluate_average(average: nn.Module) -> dict[str, Any]:
        assert isinstance(average, Denoiser | Posterior)  # an average of the student
        path, cond = sample(Model(average, about), the_problem, n, steps, seed=SEED_OF_EVALUATIONS)
        if not bool(torch.isfinite(path.end).all()):
            raise Collapse("the training collapsed: its samples are NaN or infinite")
        measured = the_problem.measure(path.end, cond)
        return {
            "distance": measured.distance,
            "floor": measured.floor,
            "accuracy": measured.accuracy,
            "spread": deviation(path.end) / spread_of_data,
            "coverage": measured.coverage,
            "least_fraction": measured.least_fraction,
            "fractions": measured.fractions,
            **(training.monitor() if training.monitor else {}),
        }

    return evaluate_average


def deviation(samples: Tensor) -> float:
    """The root mean square distance of samples (n, ...) from their mean."""
    samples = samples if samples.is_floating_point() else samples.double()
    return float((samples - samples.mean(0)).double().square().flatten(1).sum(1).mean().sqrt())


def _no_pairs(the_problem: Problem) -> Pairs:
    """A pair of zeros, to set up a training with that is never begun."""
    zeros = torch.zeros(1, *the_problem.shape)
    return Pairs(zeros, zeros, the_problem.uniform_labels(1, 0), {"problem": the_problem.name, "nfe": 0})


def _own_pairs(
    the_problem: Problem,
    teacher: Denoiser,
    teacher_name: str,
    out: str | Path | None,
    accelerator: "Accelerator | None",
    progress: bool,
) -> Pairs | Path:
    """Pairs for a run that was given none. They lie in the run's folder, where a continued run finds them, or in memory
    if the run has no folder."""
    recipe = Recipe(**the_problem.sizes.pairs)
    if out is None:
        return make_pairs(the_problem, teacher, recipe, progress=progress)
    folder = Path(out) / "pairs"
    if accelerator is None or accelerator.is_main_process:
        save_pairs(the_problem, teacher, recipe, folder, teacher_name=teacher_name, progress=progress)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    return folder
