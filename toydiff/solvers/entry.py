"""What a table of solvers says of one of them, and the colours that figures draw it in."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Offered = TypeVar("Offered")
"""A `Solver` or a `ParallelSolver`."""

# Okabe and Ito's palette, which the colour-blind can tell apart: one colour a family, one marker and dash a member
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#7F7F7F"


@dataclass(frozen=True)
class Entry(Generic[Offered]):
    """A solver as the command, the app and `solve` offer it. `elsewhere`: the names that other libraries and user
    interfaces use for it."""

    name: str
    solver: Offered
    """A `Solver` or a `ParallelSolver`, with its default settings."""
    title: str
    paper: str
    color: str
    marker: str = "o"
    dash: str = "solid"
    elsewhere: dict[str, str] = field(default_factory=dict)
