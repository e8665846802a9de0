"""What identifies denoisers and problems, whatever they are called: digests of their tensors."""

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..mixtures import GaussianMixture, MixtureDenoiser
from ..training.checkpoints import digest
from .base import Problem


def tensors_of(mixture: GaussianMixture) -> dict[str, Tensor]:
    """The tensors that make a mixture again (`mixture_of`), in float64. The axes of a covariance are not kept."""
    cov = mixture.covariances
    diagonal = cov.diagonal(dim1=1, dim2=2)
    spread = {"std": diagonal.sqrt()} if torch.equal(torch.diag_embed(diagonal), cov) else {"cov": (cov + cov.mT) / 2}
    labels = {} if mixture.labels is None else {"labels": mixture.labels}
    return {"means": mixture.means, "weights": mixture.weights, **spread, **labels}


def mixture_of(tensors: dict[str, Tensor]) -> GaussianMixture:
    """The mixture of `tensors_of`."""
    rest = {name: value for name, value in tensors.items() if name != "means"}
    return GaussianMixture(tensors["means"], **rest)


def content_of(D: Denoiser) -> str | None:
    """The digest of a denoiser's weights, or of its mixture. None where it has neither."""
    if isinstance(D, MixtureDenoiser):
        return _digest(tensors_of(D.mixture))
    tensors = {**D.state_dict(), **dict(D.named_parameters())}
    return digest(tensors) if tensors else None


def content_of_problem(problem: Problem) -> str | None:
    """The digest of what makes a problem again, where its name does not (`Problem.definition`)."""
    found = problem.definition()
    return None if found is None else _digest(found[1])


def _digest(tensors: dict[str, Tensor]) -> str:
    """The digest of exact numbers, but for what two machines may round otherwise."""
    return digest({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
