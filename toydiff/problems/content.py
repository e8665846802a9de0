"""What identifies a problem, whatever it is called: the digest of its tensors."""

from torch import Tensor

from ..mixtures import GaussianMixture
from ..support.sealed import rounded_digest
from .base import Problem


def mixture_of(tensors: dict[str, Tensor]) -> GaussianMixture:
    """The mixture of `GaussianMixture.tensors`."""
    rest = {name: value for name, value in tensors.items() if name != "means"}
    return GaussianMixture(tensors["means"], **rest)


def content_of_problem(problem: Problem) -> str | None:
    """The digest of what makes a problem again, where its name does not (`Problem.definition`)."""
    found = problem.definition()
    return None if found is None else rounded_digest(found[1])
