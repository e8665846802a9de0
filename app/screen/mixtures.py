"""A mixture as one word that fits into a link.

The word is a ready-made name, `random:SEED`, or components `x,y,std,weight;x,y,std,weight`.
"""

import functools
import math

import numpy as np
import sklearn.mixture
import torch

from toydiff.mixtures import MIXTURES, GaussianMixture, mixture, random_mixture
from toydiff.support.checks import unknown

MOST = 128
"""Components at most: every call compares every particle with each of them."""
LONGEST = 64 * MOST
"""Characters of a word at most."""
REACH, STDS, WEIGHTS = 20.0, (0.02, 10.0), (1e-3, 1e3)
"""Ranges of a component's place, width and weight: schedules and grids are made for data of about size 1."""
COLUMNS = ("x", "y", "std", "weight")
MOST_FITTED = 12
"""Components at most of a mixture that is drawn."""


@functools.lru_cache(maxsize=64)
def mixture_of(word: str) -> GaussianMixture:
    """The mixture of a word; `ValueError` in one line for anything else.

    The same word gives the same object, so that results are remembered by it.
    """
    if len(word) > LONGEST:
        raise ValueError(f"a mixture's word has {LONGEST} characters at most, got {len(word)}")
    name, _, seed = word.partition(":")
    if name == "random" and seed:
        if not seed.isdecimal() or len(seed) > 9:
            raise ValueError(f"the seed of a random mixture is a whole number below 10^9, got {seed[:20]!r}")
        return random_mixture(int(seed))
    if "," not in word:
        if word not in MIXTURES:
            raise unknown("mixture", word[:60], [*MIXTURES, "random:SEED", "x,y,std,weight;..."])
        return mixture(word)
    rows = components_of(word)
    total = sum(row[3] for row in rows)
    return GaussianMixture(
        [row[:2] for row in rows],
        std=[row[2] for row in rows],
        weights=[row[3] / total for row in rows],
        labels=range(len(rows)),
    )


def components_of(word: str) -> list[tuple[float, float, float, float]]:
    """The components (x, y, std, weight) of a word.

    Those of a ready-made mixture are made round: std is the root of a component's mean variance.
    """
    if "," not in word:
        made = mixture_of(word)
        stds = (made.covariances.diagonal(dim1=1, dim2=2).mean(1)).sqrt()
        heaviest = float(made.weights.max())
        return [
            (round(float(x), 3) + 0.0, round(float(y), 3) + 0.0, round(float(std), 3), round(float(w) / heaviest, 3))
            for (x, y), std, w in zip(made.means, stds, made.weights, strict=True)
        ]
    return check([part.split(",") for part in word[: LONGEST + 1].split(";")])


def parts_of(mixture: GaussianMixture) -> list[list[float]]:
    """A mixture as `offline/mixtures.js` takes it, a row a component: x, y, std, weight of a round one; else x, y,
    weight, the standard deviations along its two axes, and the axes (2, 2), one a column."""
    own = mixture.tensors()
    means, weights = mixture.means.tolist(), mixture.weights.tolist()
    if "std" in own and bool((own["std"][:, 0] == own["std"][:, 1]).all()):
        return [[*m, s, w] for m, s, w in zip(means, own["std"][:, 0].tolist(), weights, strict=True)]
    variances, axes = torch.linalg.eigh(mixture.covariances)
    rows = zip(means, weights, variances.sqrt().tolist(), axes.flatten(1).tolist(), strict=True)
    return [[*m, w, *s, *U] for m, w, s, U in rows]


def check(rows: list) -> list[tuple[float, float, float, float]]:
    """Rows of four numbers, each within what is allowed; `ValueError` names the row and the range."""
    if not 1 <= len(rows) <= MOST:
        raise ValueError(f"a mixture has 1 to {MOST} components, got {len(rows)}")
    ranges = ((-REACH, REACH), (-REACH, REACH), STDS, WEIGHTS)
    out = []
    for k, row in enumerate(rows, 1):
        if len(row) != len(COLUMNS):
            raise ValueError(f"component {k} needs {len(COLUMNS)} numbers x,y,std,weight, got {len(row)}")
        values = []
        for name, text, (low, high) in zip(COLUMNS, row, ranges, strict=True):
            try:
                value = float(text)
            except (TypeError, ValueError):
                value = math.nan
            if not low <= value <= high:
                shown = "nothing" if text is None else repr(text if isinstance(text, float) else str(text)[:20])
                raise ValueError(f"{name} of component {k} is a number from {low:g} to {high:g}, got {shown}")
            values.append(value)
        out.append(tuple(values))
    return out


def fitted(places: list[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """The components of the mixture of round Gaussians that places come from, by maximum likelihood.

    There are as many as the Bayesian information criterion takes, `MOST_FITTED` at most.
    """
    found = [
        sklearn.mixture.GaussianMixture(k, covariance_type="spherical", reg_covar=1e-3, random_state=0).fit(places)
        for k in range(1, min(MOST_FITTED, len(places)) + 1)
    ]
    best = min(found, key=lambda fit: fit.bic(np.array(places)))
    scale = best.weights_.max()
    rows = zip(best.means_, best.covariances_, best.weights_, strict=True)
    return [(*(round(float(v), 3) for v in (*mean, var**0.5, weight / scale)),) for mean, var, weight in rows]


def word_of(rows: list) -> str:
    """Components as a word."""
    return ";".join(",".join(f"{value:.4g}" for value in row) for row in check(rows))


def code_of(word: str) -> str:
    """The Python that makes a word's mixture."""
    name, _, seed = word.partition(":")
    if name == "random" and seed:
        return f"toydiff.mixtures.random_mixture({int(seed)})"
    if "," not in word:
        return f"toydiff.mixture({word!r})"
    rows = components_of(word)
    total = sum(row[3] for row in rows)
    means, stds, weights = ([list(row[:2]) for row in rows], [row[2] for row in rows], [row[3] / total for row in rows])
    return f"toydiff.GaussianMixture({means}, std={stds}, weights={weights}, labels=range({len(rows)}))"
