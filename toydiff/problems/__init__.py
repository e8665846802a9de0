"""Problems by name: what `--problem` takes."""

from collections.abc import Mapping

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
    "sd": "sd:MODEL, a Stable Diffusion checkpoint: a folder, a hub id or a .safetensors file (the extra sd)",
}
"""The kinds of problem by name, each with how it is written."""


def problem(name: str, seed: int = 0, settings: Mapping[str, object] | None = None) -> Problem:
    """A problem by name: "mixture" (the ring), "mixture:spirals", "points:moons", "digits", "digits:openml", "sd:CHECKPOINT".

    `seed` matters to the mixture `random` and to the split of digits; a problem's own name has it after a comma unless it is 0, as in
    "mixture:random,3", and gives the problem back. `settings`: those of `StableDiffusionProblem`, which the others do not have. `ValueError` with the
    nearest name otherwise.
    """
    check_count(seed, "seed", 0)
    kind, _, which = str(name).partition(":")
    if kind == "sd":
        from .stable_diffusion import StableDiffusionProblem  # its packages are an extra

        if not which:
            raise ValueError(
                "a Stable Diffusion problem is sd:MODEL, with a folder, a hub id or a .safetensors file for MODEL"
            )
        return StableDiffusionProblem(which, **(settings or {}))
    if settings:
        raise ValueError(f"the problem {name} has no settings, got {', '.join(settings)}")
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
