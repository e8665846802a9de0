"""Training: one loop that moves a state (`fit`), its random numbers, averages and watches, and runs on disk
(`checkpoints`)."""

from .average import EMA
from .draws import Draws
from .loop import Record, fit, lr_share
from .state import Loss, State, Turn, laid_out_as
from .watch import Collapse, Diverged, Look, Watch

__all__ = [
    "EMA", "Collapse", "Diverged", "Draws", "Look", "Loss", "Record", "State", "Turn", "Watch", "fit", "laid_out_as", "lr_share",
]  # fmt: skip
