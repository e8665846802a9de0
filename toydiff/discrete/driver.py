"""`solve_tokens`: the one loop that runs every sampler of tokens. It is `toydiff.solve` for strings."""

import time
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from ..schedules import as_time
from ..solvers import Trajectory
from ..support.checks import as_generator, check_count, check_grid, unknown
from ..support.words import quoted
from .base import TokenSampler, at
from .paths import TokenPath
from .posteriors import Posterior
from .registry import DEFAULT_SAMPLER, sampler_by_name

GRIDS = ("uniform", "cosine")
"""The time grids of tokens: equal steps in t, or t = cos(pi/2 i/N), whose first steps are short (MaskGIT, arXiv
2202.04200, sec. 3.3): few tokens are revealed while little is known. The posterior of a mask does not depend on t, so a
model can be sampled on either."""


def token_grid(steps: int, grid: str = "uniform") -> Tensor:
    """The times of a walk, (N+1,) from 1 to 0 in float64. `ValueError` for another grid than `GRIDS` names."""
    if grid not in GRIDS:
        raise unknown("grid of tokens", grid, GRIDS)
    N = check_count(steps, "steps")
    if grid == "uniform":
        return torch.linspace(1, 0, N + 1, dtype=torch.float64)
    ts = torch.cos(torch.pi / 2 * torch.linspace(0, 1, N + 1, dtype=torch.float64))
    ts[-1] = 0
    return ts


def draw(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A symbol for each position: probs (B, L, S) gives (B, L). A symbol of probability 0 is never drawn.

    Of S exponential clocks with the rates probs, the first to ring. They run in float64, where the generator is.
    """
    device = "cpu" if generator is None else generator.device
    clocks = torch.empty(probs.shape, dtype=torch.float64, device=device).exponential_(generator=generator)
    return (probs.to(clocks) / clocks.clamp(min=1e-300)).argmax(2).to(probs.device)


def calls_of(sampler: TokenSampler, path: TokenPath, ts: Tensor) -> int:
    """The evaluations of the posterior in a walk over the times ts (N+1,)."""
    return sum(when is not None for t, s in pairwise(ts) for when in at(sampler, s).times(path, t, s))


def latent_of(P: Posterior, n: int, generator: torch.Generator | None = None) -> Tensor | None:
    """The latents (n,) of n strings for one step of a mixture, each alike; None of any other posterior."""
    if P.latents == 1:
        return None
    device = next((p.device for p in P.parameters()), torch.device("cpu"))
    return torch.randint(P.latents, (n,), generator=generator).to(device)


@torch.no_grad()
def solve_tokens(
    P: Posterior,
    x: Tensor,
    steps: int = 32,
    *,
    solver: str | TokenSampler = DEFAULT_SAMPLER,
    grid: str = "uniform",
    ts: Tensor | None = None,
    cond: Tensor | None = None,
    guidance_scale: float = 1.0,
    generator: torch.Generator | int | None = None,
    keep: str = "path",
    progress: bool = False,
) -> Trajectory:
    """Sample: walk strings x (B, L) from the first time of a grid to its last, normally from the source at t = 1 to
    data at t = 0.

    - x: of the law at the first time; `TokenPath.noise` draws it;
    - steps, grid: N >= 1 steps from 1 to 0, a name of `GRIDS`;
    - ts: the times themselves instead, (N+1,), strictly decreasing in [0, 1];
    - solver: a name of `SAMPLERS`, with settings after a colon ("jump-corrector:eta=2"), or an object;
    - cond, guidance_scale: the labels (B,) that the strings are conditioned on, and g; 1 is off (`Posterior`);
    - generator: a torch.Generator or a seed;
    - keep: "path" for all states, "end" for the last only;
    - progress: whether to show a bar.

    The result's x0s (N, B, L) are the most likely tokens at the beginning of each step. Runs without gradients.
    `ValueError` for bad input, and for a sampler that cannot start from the source of the model; `FloatingPointError`
    for a model whose probabilities are not finite.
    """
    if not isinstance(P, Posterior):
        raise ValueError(f"a Posterior is needed, such as toydiff.discrete.TablePosterior, got {type(P).__name__}")
    sampler = sampler_by_name(solver) if isinstance(solver, str) else solver
    if not isinstance(sampler, TokenSampler):
        raise ValueError(f"solver must be a name or a TokenSampler, got {quoted(solver)}")
    if P.path.source not in sampler.sources:
        raise ValueError(
            f"{type(sampler).__name__} starts from the source {' or '.join(sampler.sources)}, and this model has the "
            f"source {P.path.source}"
        )
    P.path.check(x)
    if keep not in ("path", "end"):
        raise unknown("keep", keep, ("path", "end"))
    ts = as_time(token_grid(steps, grid) if ts is None else ts).detach().to("cpu", torch.float64)
    check_grid(ts)
    rng = as_generator(generator)
    began, rounds, xs, x0s = time.perf_counter(), calls_of(sampler, P.path, ts), [x], []
    for t, s in tqdm(pairwise(ts), total=len(ts) - 1, desc="sample", disable=not progress, mininterval=0.5):
        latent = latent_of(P, len(x), rng)
        rule, states, ps = at(sampler, s), [x], list[Tensor | None]()
        for when in rule.times(P.path, t, s):
            ps.append(None if when is None else P(states[-1], when, latent, cond, guidance_scale))
            law = rule.stage(P.path, t, s, states, ps)
            if not bool(torch.isfinite(law).all()):
                raise FloatingPointError(f"the probabilities of this model are not finite at t = {float(t):g}")
            states.append(draw(law, rng))
        x = states[-1]
        if keep == "path":
            xs.append(x)
            x0s.append(ps[0].argmax(2) if ps[0] is not None else x)
    path = torch.stack(xs) if keep == "path" else x[None]
    guesses = torch.stack(x0s) if keep == "path" else x.new_empty(0, *x.shape)
    nfe = rounds * P.calls_at(guidance_scale)
    return Trajectory(ts.clone(), path, guesses, nfe, rounds, time.perf_counter() - began)
