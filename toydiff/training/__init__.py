"""Training: one loop that moves a state (`fit`), its random numbers, averages and watches, and runs on disk
(`checkpoints`)."""

from .average import EMA
from .draws import Draws
from .loop import Record, fit, lr_factor
from .state import Loss, State, Turn, check_processes, laid_out_as
from .watch import Collapse, Diverged, Evaluate, Watch

__all__ = [
    "EMA",
    "Collapse",
    "Diverged",
    "Draws",
    "Evaluate",
    "Loss",
    "Record",
    "State",
    "Turn",
    "Watch",
    "check_processes",
    "fit",
    "laid_out_as",
    "lr_factor",
]
