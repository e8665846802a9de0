"""What a page needs to compute on exact mixtures by itself: the mixtures, and the random numbers that Python draws."""

import base64

import torch

from toydiff.mixtures import MIXTURES
from toydiff.plots import style
from toydiff.plots.grids import FINEST, ROUND
from toydiff.plots.orders import AIR, APART
from toydiff.plots.screen import DARK, DARK_PAPER, DARK_SHADE
from toydiff.schedules import SCHEDULES
from toydiff.solvers import SOLVERS
from toydiff.studies.orders import FLOOR, WINDOW

from lessons.grids import SAMPLES
from lessons.grids import SOLVERS as PAIR
from lessons.orders import HIDDEN, INNER, STEPS
from lessons.paths import PARTICLES, WIDE
from screen.mixtures import MOST, REACH, STDS, WEIGHTS, parts_of

MOST_STEPS = 50
"""For which a page has noise."""


def data(page: str) -> dict:
    """What a page's script takes (`live-PAGE.js`): the ready-made mixtures' components, the numbers that Python draws
    for the same seeds, and how solvers and densities are drawn."""
    uniforms, normals = draws({"orders": 32}.get(page, PARTICLES))
    shared = {
        "mixtures": {name: parts_of(make()) for name, make in MIXTURES.items()},
        "ranges": [(-REACH, REACH), (-REACH, REACH), STDS, WEIGHTS, MOST],
        "power": torch.randn(2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist(),
        "uniforms": uniforms.tolist(),
        "normals": normals.flatten().tolist(),
        "dark": DARK,
    }
    return shared | OWN[page]()


def _paths() -> dict:
    return {
        "noises": base64.b64encode(noises(PARTICLES, MOST_STEPS).float().numpy().tobytes()).decode(),
        "colors": {name: entry.color for name, entry in SOLVERS.items()},
        "stochastic": [name for name, entry in SOLVERS.items() if entry.solver.stochastic],
        "wide": [name for name, make in SCHEDULES.items() if float(make().sigma(torch.ones(()))) > WIDE],
        "shades": [style.DENSITY_SHADES, (DARK_PAPER, DARK_SHADE)],
    }


def _orders() -> dict:
    return {
        "markings": {
            name: {"color": entry.color, "symbol": seen.symbol, "dash": seen.dash, "order": entry.solver.order}
            for name, entry in SOLVERS.items()
            for seen in [style.marking(name)]
        },
        "orders": {
            "steps": STEPS,
            "inner": INNER,
            "hidden": HIDDEN,
            "window": WINDOW,
            "floor": FLOOR,
            "tolerance": 1e-12,
            "apart": APART.tolist(),
            "air": AIR,
        },
    }


def _grids() -> dict:
    uniforms, _ = draws(SAMPLES, 1)
    noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    made = {name: make() for name, make in MIXTURES.items()}
    return {
        "uniforms": uniforms.tolist(),
        "noise": base64.b64encode(noise.numpy().tobytes()).decode(),
        "labels": {name: one.labels.tolist() for name, one in made.items() if one.labels is not None},
        "room": (FINEST, ROUND),
        "solvers": [
            {"name": name, "color": SOLVERS[name].color, "symbol": style.marking(name).symbol} for name in PAIR
        ],
    }


OWN = {"paths": _paths, "orders": _orders, "grids": _grids}
"""The pages whose figures the browser computes, and what each needs besides."""


def draws(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What `GaussianMixture.sample(n, seed)` draws: uniform numbers (n,), by which it chooses components, and normal
    ones (n, 2)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, dtype=torch.float64, generator=rng), torch.randn(n, 2, dtype=torch.float64, generator=rng)


def noises(n: int, steps: int) -> torch.Tensor:
    """The noise of each step of `solve(..., generator=0)`, (steps, n, 2)."""
    rng = torch.Generator().manual_seed(0)
    return torch.stack([torch.randn(n, 2, dtype=torch.float64, generator=rng) for _ in range(steps)])
