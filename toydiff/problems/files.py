"""A problem in a file: points of one's own, or a mixture of one's own.

`--problem file:points.npy` takes an array (n, d); of a `.npz` the array `points`, else `samples`, else its only one; of
a `.csv` a row for each point, with commas between the numbers, and a line of names above them or none.
`--problem file:mixture.json` takes an object with the arguments of `toydiff.GaussianMixture`:

    {"means": [[-1, 0], [1, 0]], "std": 0.2, "weights": [0.3, 0.7], "labels": [0, 1]}
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..mixtures import GaussianMixture
from ..support.checks import unknown
from ..support.files import read_bytes
from ..support.forms import parsed
from ..support.words import said
from .base import Entry, Problem
from .mixture import MixtureProblem, PointsProblem

MOST = 2**31
"""A larger file is not read."""
ARRAYS = ("points", "samples")
ARGUMENTS = ("means", "std", "cov", "weights", "labels")


def _npy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _npz(data: bytes) -> np.ndarray:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        names = [name for name in ARRAYS if name in arrays.files] or arrays.files
        if len(names) > 1 and names[0] not in ARRAYS:
            raise ValueError(f"it has the arrays {', '.join(names)}, and none is called {' or '.join(ARRAYS)}")
        if not names:
            raise ValueError("it has no array")
        return arrays[names[0]]


def _csv(data: bytes) -> np.ndarray:
    lines = [line for line in data.decode().splitlines() if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    try:
        return np.loadtxt(lines, delimiter=",", ndmin=2)
    except ValueError:
        if len(lines) == 1:
            raise
        return np.loadtxt(lines[1:], delimiter=",", ndmin=2)  # below a line of names


def _points(name: str, read: Callable[[bytes], np.ndarray], data: bytes) -> Problem:
    array = read(data)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise ValueError(f"points are real numbers, got {getattr(array, 'dtype', type(array).__name__)}")
    return PointsProblem(torch.as_tensor(array.astype(np.float32)), name=name)


def _mixture(name: str, data: bytes) -> Problem:
    given = parsed(data.decode())
    if not isinstance(given, dict):
        raise ValueError(f"a mixture is an object with {', '.join(ARGUMENTS)}, got {type(given).__name__}")
    for key in given:
        if key not in ARGUMENTS:
            raise unknown("argument of a mixture", key, ARGUMENTS)
    if "means" not in given:
        raise ValueError("a mixture needs means, (K, d)")
    return MixtureProblem(GaussianMixture(given.pop("means"), **given), name)


READERS: dict[str, Callable[[str, bytes], Problem]] = {
    ".npy": lambda name, data: _points(name, _npy, data),
    ".npz": lambda name, data: _points(name, _npz, data),
    ".csv": lambda name, data: _points(name, _csv, data),
    ".json": _mixture,
}
"""How a file becomes a problem, by the end of its name."""


def opened(path: str) -> Problem:
    """The problem in a file. `ValueError` in one line, with the file's name, for what is none."""
    ending = Path(path).suffix.lower()
    if ending not in READERS:
        raise ValueError(
            f"a problem in a file is file:PATH with a PATH that ends in {', '.join(READERS)}, got {path!r}"
        )
    try:
        data = read_bytes(path, MOST)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path!r}") from None
    try:
        return READERS[ending](f"file:{path}", data)
    except (
        EOFError,
        LookupError,
        OSError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"the file {path!r} holds no problem: {said(error)}") from None


ENTRY = Entry(
    name="file",
    title=f"file:PATH, points of your own ({', '.join(list(READERS)[:-1])}), or a mixture of your own (.json)",
    scale="points",
    open=lambda which, seed: opened(which),
    path=True,
)
