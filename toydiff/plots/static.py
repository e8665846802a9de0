"""The figures in matplotlib, for files and papers. Each returns a `matplotlib.figure.Figure` that belongs to nobody
else: save it with `png(figure)` or `figure.savefig`.
"""

from .clips import film_strip_static as film_strip
from .digits import digits_static as digits
from .grids import time_grids_static as time_grids
from .on_paper import png
from .orders import convergence_static as convergence
from .paths import reflow_static as reflow
from .paths import rescaled_static as rescaled
from .paths import samples_static as samples
from .paths import trajectories_static as trajectories
from .scoreboard import scoreboard_cost_static as scoreboard_cost
from .scoreboard import scoreboard_static as scoreboard
from .scores import gradients_static as gradients
from .scores import mode_fractions_static as mode_fractions
from .scores import score_arrows_static as score_arrows
from .sweeps import rounds_static as rounds
from .sweeps import staircase_static as staircase
from .sweeps import sweep_errors_static as sweep_errors
from .sweeps import sweeps_static as sweeps
from .tokens import mismatch_static as mismatch
from .tokens import strings_static as strings
from .training import against_noise_static as against_noise
from .training import one_step_maps_static as one_step_maps
from .training import one_step_planes_static as one_step_planes
from .training import same_noise_static as same_noise

__all__ = [
    "against_noise",
    "convergence",
    "digits",
    "film_strip",
    "gradients",
    "mismatch",
    "mode_fractions",
    "one_step_maps",
    "one_step_planes",
    "png",
    "reflow",
    "rescaled",
    "rounds",
    "same_noise",
    "samples",
    "score_arrows",
    "scoreboard",
    "scoreboard_cost",
    "staircase",
    "strings",
    "sweep_errors",
    "sweeps",
    "time_grids",
    "trajectories",
]
