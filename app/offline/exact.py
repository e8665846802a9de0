"""What a page needs to compute on exact mixtures by itself: the mixtures, and the random numbers that Python draws."""

import base64

import torch

from toydiff.mixtures import MIXTURES, GaussianMixture
from toydiff.plots import style
from toydiff.plots.screen import DARK, DARK_PAPER, DARK_SHADE
from toydiff.schedules import SCHEDULES
from toydiff.solvers import SOLVERS

from lessons.paths import PARTICLES, WIDE
from screen.mixtures import MOST, REACH, STDS, WEIGHTS

MOST_STEPS = 50


def data() -> dict:
    """The ready-made mixtures' components, the numbers from which `paths` draws noise and stochastic solvers theirs,
    and how solvers and densities are coloured."""
    uniforms, normals = draws(PARTICLES)
    return {
        "mixtures": {name: components(make()) for name, make in MIXTURES.items()},
        "power": torch.randn(2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist(),
        "uniforms": uniforms.tolist(),
        "normals": normals.flatten().tolist(),
        "noises": base64.b64encode(noises(PARTICLES, MOST_STEPS).float().numpy().tobytes()).decode(),
        "colors": {name: entry.color for name, entry in SOLVERS.items()},
        "stochastic": [name for name, entry in SOLVERS.items() if entry.solver.stochastic],
        "wide": [name for name, make in SCHEDULES.items() if float(make().sigma(torch.ones(()))) > WIDE],
        "shades": [style.DENSITY_SHADES, (DARK_PAPER, DARK_SHADE)],
        "dark": DARK,
        "ranges": [(-REACH, REACH), (-REACH, REACH), STDS, WEIGHTS, MOST],
    }


def components(mixture: GaussianMixture) -> list[list[float]]:
    """A row a component: x, y, std, weight of a round one; else x, y, weight, the standard deviations along its two
    axes, and the axes (2, 2), one a column."""
    own = mixture.tensors()
    means, weights = mixture.means.tolist(), mixture.weights.tolist()
    if "std" in own and bool((own["std"][:, 0] == own["std"][:, 1]).all()):
        return [[*m, s, w] for m, s, w in zip(means, own["std"][:, 0].tolist(), weights, strict=True)]
    variances, axes = torch.linalg.eigh(mixture.covariances)
    rows = zip(means, weights, variances.sqrt().tolist(), axes.flatten(1).tolist(), strict=True)
    return [[*m, w, *s, *U] for m, w, s, U in rows]


def draws(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What `GaussianMixture.sample(n, 0)` draws: uniform numbers (n,), by which it chooses components, and normal ones
    (n, 2)."""
    rng = torch.Generator().manual_seed(0)
    return torch.rand(n, dtype=torch.float64, generator=rng), torch.randn(n, 2, dtype=torch.float64, generator=rng)


def noises(n: int, steps: int) -> torch.Tensor:
    """The noise of each step of `solve(..., generator=0)`, (steps, n, 2)."""
    rng = torch.Generator().manual_seed(0)
    return torch.stack([torch.randn(n, 2, dtype=torch.float64, generator=rng) for _ in range(steps)])
