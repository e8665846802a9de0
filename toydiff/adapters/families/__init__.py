"""Families of checkpoints, one file each: what differs between the pipelines of diffusers that the adapter takes.

The rest of the adapter asks the family of a checkpoint. `FAMILIES` lists them all; adding one is a file and a line
here.
"""

from .animatediff import AnimateDiff
from .base import Family
from .flux import Flux
from .sd3 import SD3
from .unets import UNets

FAMILIES: tuple[Family, ...] = (UNets(), SD3(), Flux(), AnimateDiff())

SUPPORTED = "this adapter takes " + ", ".join(family.title for family in FAMILIES)

__all__ = ["FAMILIES", "SUPPORTED", "Family", "family_of"]


def family_of(pipeline: str) -> Family | None:
    """The family of a pipeline, by the name of its class; None where it is of none."""
    return next((family for family in FAMILIES if pipeline in family.pipelines), None)
