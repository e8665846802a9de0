"""Problems by name: what `--problem` takes."""

from ..checks import check_count, unknown
from ..data import POINTS, SOURCES
from ..mixtures import MIXTURES
from .base import Measured, Problem
from .digits import DigitsProblem
from .mixture import MixtureProblem, PointsProblem, mixture

PROBLEMS = {
    "mixture": f"mixture or mixture:NAME, a Gaussian mixture with its exact teacher ({', '.join(MIXTURES)})",
    "points": f"points:NAME, a set of points in the plane, no teacher ({', '.join(POINTS)})",
    "digits": "digits: 5,000 digits of MNIST with the bundled teacher; digits:openml, all 70,000 from the network",
}
"""The kinds of problem by name, each with how it is written."""


def problem(name: str, seed: int = 0) -> Problem:
    """A problem by name: "mixture" (the ring), "mixture:spirals", "points:moons", "digits", "digits:openml".

    `seed` matters to the mixture `random` and to the split of digits; a problem's own name has it after a comma unless it is 0, as in
    "mixture:random,3", and gives the problem back. `ValueError` with the nearest name otherwise.
    """
    check_count(seed, "seed", 0)
    kind, _, which = str(name).partition(":")
    which, _, own_seed = which.partition(",")
    if own_seed:
        seed = check_count(int(own_seed) if own_seed.isdecimal() else own_seed, "the seed in a problem's name", 0)
    if kind == "mixture":
        return mixture(which or "ring", seed)
    if kind == "points":
        return PointsProblem(which)
    if kind == "digits":
        source = which or "embedded"
        if source not in SOURCES:
            raise unknown("source of digits", source, SOURCES)
        return DigitsProblem(source, seed)
    raise unknown("problem", name, PROBLEMS)


__all__ = ["PROBLEMS", "DigitsProblem", "Measured", "MixtureProblem", "PointsProblem", "Problem", "mixture", "problem"]
