"""Pairs (noise, sample) of a teacher's ODE. They are generated once, stored in shards, and drawn in training.

A folder of pairs holds the shards, `pairs-00000.safetensors` and so on, and `pairs.json`, which is written last. A
shard has the tensors `noise` and `x0`, and `cond` where samples have classes. Shard k depends on the seed and k alone,
so an interrupted generation continues with the first shard that is missing.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import Denoiser, LambdaDenoiser
from ..grids import DEFAULT_GRID, GRIDS
from ..prediction import chord
from ..schedules import Schedule
from ..solvers import solve
from ..solvers.registry import DEFAULT_SOLVER, solver_by_name
from ..support.checks import check_count, check_finite, check_number, check_state, shape, unknown
from ..support.files import check_folder, inside, read_bytes, write_bytes
from ..support.forms import check_form, count, place, word
from ..support.locks import Lock
from ..support.sealed import VERSION, checksum, contradicts, read_index, write_index
from ..support.words import said
from ..training import Draws
from ..training.checkpoints import read_tensors, tensor_bytes, versions
from .base import CheckpointProblem, Problem
from .content import content_of_problem

FORMAT = "toydiff-pairs"
INDEX = "pairs.json"
PLAN = "plan.json"
SHARD = 1000
WEIGHTS, DATA = "teacher_content", "problem_content"
CONTENTS = {WEIGHTS: "teacher", DATA: "problem"}
"""The keys of digests in `Pairs.about`, and of what: what has the same name need not be the same thing."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a teacher's ODE: where it starts, and where it ends."""

    noise: Tensor
    """(n, ...), standard normal. The teacher starts at sigma(1) noise."""
    x0: Tensor
    """(n, ...), the samples that the teacher makes of the noise."""
    cond: Tensor | None
    """(n,), the labels that the samples are conditioned on, or None."""
    about: dict
    """How the pairs were made, as JSON: the fields of `Recipe`, the problem, the teacher, and the network calls that a
    sample cost, `nfe`."""

    def __len__(self) -> int:
        return len(self.x0)

    @property
    def teacher_calls(self) -> int:
        """The teacher's evaluations that all pairs cost, counted one sample at a time."""
        return len(self) * self.about["nfe"]

    def draw(self, schedule: Schedule, batch: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor | None]:
        """A batch of pairs on a schedule: (x_0, eps, cond), with x_0 and eps (batch, ...), cond (batch,) or None.

        eps is such that the path x_t = alpha_t x_0 + sigma_t eps starts where the teacher started, x_1 = sigma(1)
        noise: it is that of the `chord` from x_1 to x_0. Where alpha(1) = 0, eps is the noise itself. Where alpha(1) >
        0 it is not: the path would start at alpha(1) x_0 + sigma(1) noise, a state that no sampler starts from.
        """
        i = draws.integers(draws.own(batch), len(self)).cpu()
        noise, x0 = self.noise[i].to(draws.device), self.x0[i].to(draws.device)
        cond = None if self.cond is None else self.cond[i].to(draws.device)
        start = schedule.sigma(torch.ones((), dtype=x0.dtype, device=x0.device)) * noise
        path = chord(schedule, start, 1.0, x0, 0.0)
        return path.x0, path.eps, cond

    def tensors(self) -> dict[str, Tensor]:
        """The pairs as named tensors."""
        return {"noise": self.noise, "x0": self.x0} | ({} if self.cond is None else {"cond": self.cond})

    def shuffled(self, seed: int = 0) -> "Pairs":
        """The same noise and samples, paired at random: a negative control."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return Pairs(self.noise[order], self.x0, self.cond, self.about | {"shuffled": True})


@dataclass(frozen=True)
class Recipe:
    """How pairs are made. `ValueError` for an unknown name, a stochastic solver, or a number out of range."""

    n: int = 10_000
    """How many pairs."""
    solver: str = DEFAULT_SOLVER
    """A deterministic solver, by name."""
    grid: str = DEFAULT_GRID
    """The time grid, by name."""
    steps: int = 32
    """Steps of the solver."""
    guidance_scale: float = 1.0
    """1 is off."""
    seed: int = 0
    """Of the noise and the labels."""

    def __post_init__(self):
        check_count(self.n, "n")
        check_count(self.steps, "steps")
        check_count(self.seed, "seed", 0)
        check_number(self.guidance_scale, "guidance_scale")
        if self.grid not in GRIDS:
            raise unknown("time grid", self.grid, GRIDS)
        if solver_by_name(self.solver).stochastic:
            raise ValueError(
                f"the solver {self.solver!r} is stochastic, and a pair is a point and the one place where it is taken; "
                "choose a deterministic solver"
            )


def shard(problem: Problem, teacher: Denoiser, recipe: Recipe, k: int) -> tuple[dict[str, Tensor], int]:
    """The k-th shard of a set of pairs as named tensors, and the network calls that each of its samples cost."""
    noise, cond = _drawn(problem, recipe, k)
    n = len(noise)
    device = next((p.device for p in teacher.parameters()), noise.device)
    schedule = teacher.schedule
    x = (schedule.sigma(torch.ones(())).to(noise.dtype) * noise).to(device)
    ends = []
    for i in range(0, n, problem.sizes.at_once):
        part = slice(i, i + problem.sizes.at_once)
        path = solve(
            teacher,
            x[part],
            recipe.steps,
            solver=recipe.solver,
            grid=recipe.grid,
            cond=None if cond is None else cond[part].to(device),
            guidance_scale=recipe.guidance_scale,
            keep="end",
        )
        ends.append(path.end.cpu())
    out = {"noise": noise, "x0": torch.cat(ends)}
    return out if cond is None else out | {"cond": cond}, path.nfe


def _drawn(problem: Problem, recipe: Recipe, k: int) -> tuple[Tensor, Tensor | None]:
    """The noise of the k-th shard, and its labels or None."""
    size = shard_size(problem)
    n = min(size, recipe.n - k * size)
    rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + k)
    noise = torch.randn(n, *problem.shape, generator=rng)
    return noise, problem.uniform_labels(n, rng)


def make_pairs(problem: Problem, teacher: Denoiser, recipe: Recipe, *, progress: bool = False) -> Pairs:
    """Generate pairs in memory. `save_pairs` makes the same pairs on disk. `progress` shows a bar."""
    parts, calls = zip(*_shards(problem, teacher, recipe, range(_count(problem, recipe)), progress), strict=True)
    return _joined(parts, _about(problem, teacher, recipe, "in memory", calls[0]))


def save_pairs(
    problem: Problem,
    teacher: Denoiser,
    recipe: Recipe,
    folder: Path | str,
    *,
    teacher_name: str,
    progress: bool = False,
) -> Pairs:
    """Generate pairs into a folder, shard by shard, and load them.

    Shards that are in the folder already are kept. teacher_name: how the folder's files name the teacher. `progress`
    shows a bar. `ValueError` if the folder holds pairs of another recipe, problem or teacher, if another process makes
    pairs there, or if it cannot be written.
    """
    folder = check_folder(folder)
    about = _about(problem, teacher, recipe, teacher_name, None)
    _check_plan(folder, about)
    if not (folder / INDEX).exists():
        with Lock(folder):
            _check_plan(folder, about)  # as other work may have left it
            _finish(problem, teacher, recipe, folder, about, progress)
    return load_pairs(folder)


def _check_plan(folder: Path, about: dict) -> None:
    """`ValueError` where the folder holds pairs, or a part of them, that were planned otherwise."""
    plan = folder / PLAN
    if not plan.exists():
        if (folder / INDEX).exists():
            raise ValueError(f"the folder {str(folder)!r} holds pairs without their plan; choose another folder")
        return
    found = read_index(plan, FORMAT, "plan of pairs", ("about",))["about"]
    check_form(found, {}, f"the plan in {str(plan)!r}")
    _check_content(found, about, f"the pairs in {str(folder)!r} are")
    for key, value in about.items():
        if key not in CONTENTS and found.get(key) != value:
            raise ValueError(
                f"the pairs in {str(folder)!r} have {key} = {said(repr(found.get(key)))}, not {value!r}; "
                "choose another folder, or the same settings"
            )


def _check_content(found: Mapping, about: Mapping, are: str) -> None:
    """`ValueError` where pairs are known to be of another teacher or problem than that of this name."""
    for key, what in CONTENTS.items():
        if contradicts(found.get(key), about.get(key)):
            raise ValueError(
                f"{are} of another {what} than {said(repr(about[what]))} is now: "
                f"its {'weights' if key == WEIGHTS else 'data'} differ; make them again in another folder"
            )


def check_teacher(pairs: Pairs, teacher: Denoiser, name: str) -> None:
    """`ValueError` where pairs are known to be of another teacher than the one named."""
    of, own = pairs.about.get("teacher"), "own"
    if contradicts(pairs.about.get(WEIGHTS), teacher.content()):
        raise ValueError(
            f"the pairs are of another teacher than {said(repr(name))}"
            + (", which has other weights now" if of == name else f": they are of {said(repr(of))}")
            + "; make them again, or name their teacher"
        )
    if WEIGHTS not in pairs.about and of == own and isinstance(teacher, LambdaDenoiser) and name != own:
        raise ValueError(f"the pairs are of the problem's own teacher, not of {said(repr(name))}; name no teacher")


def _finish(problem: Problem, teacher: Denoiser, recipe: Recipe, folder: Path, about: dict, progress: bool) -> None:
    """Make the shards that the folder lacks, and then its index."""
    plan = folder / PLAN
    missing = []
    for k in range(_count(problem, recipe)):
        if os.path.lexists(folder / _name(k)):
            _check_shard(problem, recipe, folder, k)
        else:
            missing.append(k)
    for k, (tensors, nfe) in zip(missing, _shards(problem, teacher, recipe, missing, progress), strict=True):
        if not plan.exists():  # settings that lead nowhere have left nothing behind
            write_index(plan, {"format": FORMAT, "version": VERSION, "about": about})
        tensors["nfe"] = torch.tensor(nfe)
        write_bytes(folder / _name(k), tensor_bytes(tensors))
    sums = {_name(k): checksum(read_bytes(folder / _name(k))) for k in range(_count(problem, recipe))}
    nfe = int(read_tensors(folder / _name(0))["nfe"])
    index = {
        "format": FORMAT,
        "version": VERSION,
        "about": about | {"nfe": nfe},
        "files": sums,
        "versions": versions(),
    }
    write_index(folder / INDEX, index)


def _check_shard(problem: Problem, recipe: Recipe, folder: Path, k: int) -> None:
    """`ValueError` unless a shard that lies in the folder is what this recipe makes, but for the teacher's work: of the
    same noise and labels, with a finite sample for each."""
    what = f"the shard {_name(k)!r} in {str(folder)!r}"
    tensors = read_tensors(inside(folder, _name(k)))
    noise, cond = _drawn(problem, recipe, k)
    wanted = {"noise", "x0", "nfe"} | (set() if cond is None else {"cond"})
    if set(tensors) != wanted:
        raise ValueError(f"{what} has {said(', '.join(sorted(tensors)))}, not {', '.join(sorted(wanted))}")
    _check_samples(Pairs(tensors["noise"], tensors["x0"], tensors.get("cond"), {}), what)
    same = tensors["noise"].shape == noise.shape and torch.allclose(tensors["noise"].to(noise), noise, atol=1e-4)
    if not same or (cond is not None and not torch.equal(tensors["cond"], cond)):
        raise ValueError(f"{what} is not of these pairs: its noise or its labels are of another seed; remove it")
    if tensors["nfe"].numel() != 1 or int(tensors["nfe"]) < 1:
        raise ValueError(f"{what} does not say what its samples cost")


def about_pairs(folder: Path | str) -> dict:
    """How the pairs in a folder were made (`Pairs.about`). `ValueError` if it holds no pairs, or not all of them."""
    return _index(folder)["about"]


def _index(folder: Path | str) -> dict:
    return read_index(Path(folder) / INDEX, FORMAT, "set of pairs", ("files", "about"))


def load_pairs(folder: Path | str) -> Pairs:
    """The pairs in a folder. `ValueError` in one line if it holds no pairs, not all of them, or damaged ones."""
    index = _index(folder)
    what = f"the set of pairs in {str(folder)!r}"
    check_form(index["about"], {"problem": place, "nfe": count(1)}, what)
    if not isinstance(index["files"], dict) or not index["files"]:
        raise ValueError(f"{what} is damaged: it names no files")
    check_form(list(index["files"].values()), [word], what, "files")
    try:
        parts = [read_tensors(inside(folder, name), sha256) for name, sha256 in index["files"].items()]
        found = _joined(parts, index["about"])
        _check_samples(found, what)
        return found
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the folder {str(folder)!r} does not hold a whole set of pairs: {said(error)}") from None


def _check_samples(pairs: Pairs, what: str) -> None:
    """`ValueError` unless there is a finite sample for each noise, and a label where there are labels."""
    if pairs.noise.shape != pairs.x0.shape or pairs.noise.ndim < 2:
        raise ValueError(f"{what} has noise {shape(pairs.noise)} and samples {shape(pairs.x0)}")
    if pairs.cond is not None and (pairs.cond.shape != pairs.x0.shape[:1] or pairs.cond.dtype != torch.int64):
        raise ValueError(f"{what} has labels {shape(pairs.cond)} of {pairs.cond.dtype} for {len(pairs)} samples")
    check_state(pairs.noise, f"the noise of {what}")
    for tensor, name in ((pairs.noise, "noise"), (pairs.x0, "samples")):
        check_finite(tensor, f"{what}, its {name},")


def shard_size(problem: Problem) -> int:
    """The pairs in a shard: as many are lost when a generation is killed."""
    return SHARD if problem.sizes.at_once >= SHARD else 4 * problem.sizes.at_once


def _count(problem: Problem, recipe: Recipe) -> int:
    return math.ceil(recipe.n / shard_size(problem))


def _name(k: int) -> str:
    return f"pairs-{k:05d}.safetensors"


def _about(problem: Problem, teacher: Denoiser, recipe: Recipe, name: str, nfe: int | None) -> dict:
    about = {"problem": problem.name, "teacher": name, **vars(recipe)}
    about |= {
        key: value
        for key, value in ((WEIGHTS, teacher.content()), (DATA, content_of_problem(problem)))
        if value is not None
    }
    if isinstance(problem, CheckpointProblem):
        about |= {
            "settings": problem.settings(),
            "shard": shard_size(problem),
            "texts": problem.texts(),
            **problem.inputs(),
        }
    return about if nfe is None else about | {"nfe": nfe}


def _shards(
    problem: Problem, teacher: Denoiser, recipe: Recipe, which: list[int] | range, progress: bool
) -> Iterator[tuple[dict[str, Tensor], int]]:
    for k in tqdm(which, desc="pairs", unit="shard", disable=not progress):
        tensors, nfe = shard(problem, teacher, recipe, k)
        yield tensors, nfe


def _joined(parts: Sequence[dict[str, Tensor]], about: dict) -> Pairs:
    noise, x0 = (torch.cat([part[key] for part in parts]) for key in ("noise", "x0"))
    cond = torch.cat([part["cond"] for part in parts]) if "cond" in parts[0] else None
    return Pairs(noise, x0, cond, about)
