"""The default solver on problems of many kinds, beside the popular settings of diffusers, in one run.

    python tests/benchmarks/kinds.py [--kinds unit,scaled,anisotropic,guided,points,digits] [--nfe 5,10,20]
        [--particles 128] [--seed 7] [--exponent 0.75] [--json FILE]

Every sampler starts from the same samples of x_1 on Stable Diffusion's table and is given the exact denoiser; its error
is the distance of each end to the end of the exact flow. A row is a kind at a number of network calls (steps, under
guidance). It has, as geometric mean over the kind's problems and as the worst of them: the median error over that of
the best popular setting; the root mean square error over that of DPM++ 2M (trailing); and its, the root mean square and
the 95th percentile over those of DDIM (trailing). --exponent e sets the scale of
the data to r^(1-e) l^e (`toydiff.mixtures.data_std`, e = 0.75).
"""

import argparse
import math
from pathlib import Path

import torch
from common import make, versions, write
from quality import SPACINGS, geometric_mean, longest, walk

from toydiff import Empirical, GaussianMixture, mixtures, reference, schedule, solve
from toydiff.denoisers import Conditioned

S = schedule("scaled-linear")
POPULAR = {
    "DDIM": ("DDIMScheduler", SPACINGS["trailing"] | {"clip_sample": False}),
    "2M": ("DPMSolverMultistepScheduler", SPACINGS["trailing"]),
    "2M karras": ("DPMSolverMultistepScheduler", SPACINGS["karras"]),
    "2M lu": ("DPMSolverMultistepScheduler", SPACINGS["lu-lambdas"]),
    "UniPC": ("UniPCMultistepScheduler", SPACINGS["trailing"]),
    "DEIS": ("DEISMultistepScheduler", SPACINGS["trailing"]),
}


def scaled(m: GaussianMixture, by: torch.Tensor | float) -> GaussianMixture:
    """A mixture with each axis times `by`."""
    by = torch.as_tensor(by, dtype=torch.float64).expand(m.dim)
    return GaussianMixture(m.means * by, cov=m.covariances * by[:, None] * by, weights=m.weights, labels=m.labels)


def overlapping(seed: int, classes: int, dim: int = 2) -> GaussianMixture:
    """A mixture of six components in a few classes that overlap."""
    m = mixtures.random_mixture(seed, modes=6, dim=dim)
    return GaussianMixture(m.means * 0.7, cov=m.covariances, weights=m.weights, labels=[i % classes for i in range(6)])


def problems(kind: str) -> list[tuple[GaussianMixture | Empirical, float]]:
    """The problems of a kind: a distribution, and a guidance scale."""
    ready = [mixtures.mixture(name) for name in mixtures.MIXTURES if name != "random"]
    drawn = [mixtures.random_mixture(1000 + k, modes=3 + k % 5) for k in range(6)]
    if kind == "unit":
        return [(m, 1.0) for m in ready + drawn]
    if kind == "scaled":
        return [(scaled(m, by), 1.0) for by in (0.05, 0.2, 4.0, 20.0) for m in (ready[0], ready[3], ready[4], drawn[1])]
    if kind == "anisotropic":
        shapes = ((2, 5.0), (2, 25.0), (8, 10.0), (16, 100.0), (64, 10.0), (64, 1.0))
        stretch = {shape: torch.logspace(-0.5, 0.5, shape[0], base=shape[1], dtype=torch.float64) for shape in shapes}
        return [(scaled(mixtures.random_mixture(s, dim=d[0]), by), 1.0) for d, by in stretch.items() for s in (0, 1)]
    if kind == "guided":
        wide, own = mixtures.ring(std=0.5), (overlapping(3, 3), overlapping(4, 2), overlapping(5, 3, 8))
        return [(m, g) for g in (1.5, 3.0, 5.0, 7.5, 15.0) for m in (ready[0], wide, ready[2], ready[3], *own)]
    if kind == "points":
        return [(Empirical(ready[5].sample(500, 0)), 1.0), (Empirical(ready[0].sample(64, 1)), 1.0)]
    from toydiff.problems.data import digits

    return [(Empirical(digits().train[:400].double()), 1.0)]


COLUMNS = ("median / best", "RMS / 2M", "median / DDIM", "RMS / DDIM", "p95 / DDIM")


def row(law: GaussianMixture | Empirical, g: float, nfe: int, options: argparse.Namespace) -> list[float]:
    """The errors of the default on one problem, over those of others: `COLUMNS`."""
    D, rng, one = law.denoiser(S), torch.Generator().manual_seed(options.seed), torch.ones((), dtype=torch.float64)
    if options.exponent != 0.75:
        r = law.std if isinstance(law, GaussianMixture) else float(law.points.flatten(1).std(0).square().mean().sqrt())
        D.data_std = r * (D.data_std / r) ** (options.exponent / 0.75)
    cond = law.sample_labelled(options.particles, rng)[1] if g != 1 else None
    x0 = law.sample(options.particles, rng).double()
    x = S.alpha(one) * x0 + S.sigma(one) * torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    rounding = 1e-6 * float(x0.flatten(1).norm(dim=1).median())  # of float32: below it nothing is ahead
    truth, bound = reference(D, x, cond=cond, guidance_scale=g, tolerance=1e-7), Conditioned(D, cond, g)

    def error(end: torch.Tensor) -> tuple[float, float, float]:
        size = (end.double() - truth).flatten(1).norm(dim=1).nan_to_num(nan=math.inf).clamp(min=rounding)
        return float(size.median()), float(size.square().mean().sqrt()), float(size.quantile(0.95))

    theirs = {
        name: error(walk(bound, x.float(), longest(make(cls, **how), nfe), False))
        for name, (cls, how) in POPULAR.items()
    }
    ours = error(solve(D, x.float(), nfe, cond=cond, guidance_scale=g, keep="end").end)
    best = min(median for median, *_ in theirs.values())
    return [ours[0] / best, ours[1] / theirs["2M"][1], *(a / b for a, b in zip(ours, theirs["DDIM"], strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="unit,scaled,anisotropic,guided,points,digits", help="which kinds")
    parser.add_argument("--nfe", default="5,10,20", help="budgets of network calls (default 5,10,20)")
    parser.add_argument("--particles", type=int, default=128, help="samples a problem (default 128)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the starts (default 7)")
    parser.add_argument("--exponent", type=float, default=0.75, help="of l in the scale of the data (default 0.75)")
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = []
    print(f"| kind | calls | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    with torch.no_grad():
        for kind in options.kinds.split(","):
            for nfe in map(int, options.nfe.split(",")):
                rows = [row(law, g, nfe, options) for law, g in problems(kind)]
                cells = [f"{geometric_mean(list(c)):.2f}, {max(c):.2f}" for c in zip(*rows, strict=True)]
                print(f"| {kind} | {nfe} | {' | '.join(cells)} |", flush=True)
                report.append({"kind": kind, "nfe": nfe, "rows": rows})
    write({"settings": {k: str(v) for k, v in vars(options).items()} | versions(), "rows": report}, options.json)


if __name__ == "__main__":
    main()
