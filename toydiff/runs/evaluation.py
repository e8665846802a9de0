"""Sample a model, and measure what comes out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser, LambdaDenoiser
from ..discrete import Posterior, is_sampler, solve_tokens
from ..grids import DEFAULT_GRID
from ..nets import MLP, ClipNet, UNet
from ..problems import Problem, TokenProblem
from ..solvers import Trajectory, solve
from ..solvers.registry import LEARNED, PARALLEL, SOLVERS, is_learned
from ..support.checks import check_count
from .models import Model

SEED_OF_NOISE = 1_000_000
"""It is added to the seed of a measurement, so that no student is measured on noise that it was trained on."""


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
    """n samples of a model in `steps` steps, as a trajectory, and the labels (n,) that they are conditioned on (or
    None).

    The start is standard normal noise times sigma(1), or of a model of tokens its path's source. The noise depends on
    the seed and n alone, so models are compared from the same noise. The trajectory keeps the end only. solver, grid:
    by name; None is the choice of the model's method. guidance_scale: 1 is off. cond: labels (n,); None is the
    problem's choice (`Problem.eval_labels`). batch: the most samples at once; the problem may set a lower number.
    progress: show a bar.
    """
    check_count(n, "n")
    D, sampler = model.denoiser, model.about["sampler"]
    _check_fits(D, the_problem)
    cond = the_problem.eval_labels(n) if cond is None else cond
    x = _start(D, the_problem, n, torch.Generator().manual_seed(SEED_OF_NOISE + seed))
    cond = None if cond is None else cond.to(x.device)
    chosen = sampler["solver"] if solver is None else solver
    if grid is None:
        grid = DEFAULT_GRID if is_learned(chosen) else sampler["grid"]  # a learned solver has its own times
    parts, batch = [], min(batch, the_problem.sizes.at_once)
    for i in range(0, n, batch):
        part = slice(i, i + batch)
        parts.append(
            _walk(
                D,
                x[part],
                steps,
                solver=chosen,
                grid=grid,
                cond=None if cond is None else cond[part],
                guidance_scale=guidance_scale,
                seed=seed + i,
                progress=progress,
            )
        )
    first = parts[0]
    end = torch.cat([part.end for part in parts]).cpu()
    seconds = sum(part.seconds for part in parts)
    path = Trajectory(first.ts, end[None], end.new_empty(0, *end.shape), first.nfe, first.rounds, seconds)
    return path, None if cond is None else cond.cpu()


def _start(D: Denoiser | Posterior, the_problem: Problem, n: int, rng: torch.Generator) -> Tensor:
    """n states at t = 1, on the model's device."""
    device = next((p.device for p in D.parameters()), torch.device("cpu"))
    if isinstance(D, Posterior):
        return D.path.noise(n, the_problem.shape[0], rng).to(device)
    noise = torch.randn(n, *the_problem.shape, generator=rng)
    return (D.schedule.sigma(torch.ones(())).to(noise.dtype) * noise).to(device)


def _walk(
    D: Denoiser | Posterior,
    x: Tensor,
    steps: int,
    *,
    solver: str,
    grid: str,
    cond: Tensor | None,
    guidance_scale: float,
    seed: int,
    progress: bool,
) -> Trajectory:
    """The end of a walk from x (B, ...) to data, by `solve` or `solve_tokens`."""
    if isinstance(D, Posterior):
        return solve_tokens(
            D,
            x,
            steps,
            solver=solver,
            grid=grid,
            cond=cond,
            guidance_scale=guidance_scale,
            generator=seed,
            keep="end",
            progress=progress,
        )
    if is_sampler(solver):
        raise ValueError(
            f"{solver} is a sampler of tokens, and this model is of vectors; allowed: {', '.join(SOLVERS | PARALLEL)}"
        )
    return solve(
        D,
        x,
        steps,
        solver=solver,
        grid=grid,
        cond=cond,
        guidance_scale=guidance_scale,
        generator=seed,
        keep="end",
        progress=progress,
    )


def _check_fits(D: Denoiser | Posterior, the_problem: Problem) -> None:
    """`ValueError` for a network of the library that takes samples of another shape, or other classes, than the
    problem's, and for a model of tokens on a problem of vectors, or the reverse."""
    if isinstance(D, Posterior) != isinstance(the_problem, TokenProblem):
        states = "tokens" if isinstance(D, Posterior) else "vectors"
        raise ValueError(f"the model is of {states}, and {the_problem.name} is not")
    if isinstance(D, Posterior) and isinstance(the_problem, TokenProblem):
        found, wanted = (D.path.vocab, D.length), (the_problem.vocab, the_problem.shape[0])
        if found != wanted:
            raise ValueError(
                f"the model has {found[0]} tokens and strings of {found[1]}, and {the_problem.name} has {wanted[0]} "
                f"and {wanted[1]}: it is another's"
            )
        if D.classes != the_problem.classes:
            raise ValueError(
                f"the model has {D.classes} classes, and {the_problem.name} has {the_problem.classes}: it is another's"
            )
    net = D.net if isinstance(D, LambdaDenoiser) else None
    config: dict = net.config if isinstance(net, MLP | ClipNet | UNet) else {}
    for name, got, due in (
        ("frames", config.get("frames"), the_problem.shape[0]),
        ("dim", config.get("dim"), the_problem.shape[-1]),
        ("channels", config.get("channels"), the_problem.shape[-3:][0]),
        ("classes", config.get("classes") if the_problem.conditional else None, the_problem.classes),
    ):
        if got is not None and got != due:
            raise ValueError(f"the model has {name} = {got}, and {the_problem.name} has {due}: it is another's")


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
    """Measure a model at each number of steps. The result is the rows that `--json` writes.

    steps: the numbers of steps; None is those that the method is meant for. n: samples; None is the problem's
    `Sizes.evaluated`, 8000 points or 1000 images. solver, grid, guidance_scale, seed and progress: as in `sample`.

    A row has the keys method, problem, steps, distance, floor, accuracy, seed, nfe, rounds, updates, teacher_calls,
    seconds, distance_std, floor_std, fractions, solver, grid, guidance_scale and n. `distance_std` and `fractions`, a
    list, are as in `Measured`, and may be None. A problem with other measures adds `parts`: {name: {value, floor,
    floor_std}} (`Measured.parts`). The grid of a learned solver, which has its own times, is "learned".
    """
    n = the_problem.sizes.evaluated if n is None else n
    sampler = model.about["sampler"]
    used = sampler["solver"] if solver is None else solver
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
                "method": model.about["method"],
                "problem": the_problem.name,
                "steps": count,
                "distance": measured.distance,
                "floor": measured.floor,
                "accuracy": measured.accuracy,
                "seed": seed,
                "nfe": path.nfe,
                "rounds": path.rounds,
                "updates": model.about["updates"],
                "teacher_calls": model.about["teacher_calls"],
                "seconds": path.seconds,
                "distance_std": measured.distance_std,
                "floor_std": measured.floor_std,
                "fractions": None if measured.fractions is None else list(measured.fractions),
                "solver": used,
                "grid": LEARNED if is_learned(used) else sampler["grid"] if grid is None else grid,
                "guidance_scale": guidance_scale,
                "n": n,
                **({"parts": {k: vars(part) for k, part in measured.parts.items()}} if measured.parts else {}),
            }
        )
    return rows
