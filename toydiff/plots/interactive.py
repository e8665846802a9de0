"""The figures in plotly, for pages and notebooks: sliders instead of panels, and numbers on hover.

Each returns a `plotly.graph_objects.Figure`. `page(figure)` is a self-contained HTML page that works without a network,
`embedded` a small piece of one, for a notebook's output.
"""

from .clips import film_strip_interactive as film_strip
from .digits import digits_interactive as digits
from .digits import images_interactive as images
from .digits import quality_interactive as quality
from .discriminators import discriminators_interactive as discriminators
from .grids import time_grids_interactive as time_grids
from .on_screen import embedded, page
from .orders import convergence_interactive as convergence
from .orders import work_precision_interactive as work_precision
from .paths import lines_interactive as lines
from .paths import pairs_interactive as pairs
from .paths import reflow_interactive as reflow
from .paths import rescaled_interactive as rescaled
from .paths import samples_interactive as samples
from .paths import trajectories_interactive as trajectories
from .scoreboard import scoreboard_interactive as scoreboard
from .scores import score_coverage_interactive as score_coverage
from .sweeps import spent_interactive as spent
from .sweeps import staircase_interactive as staircase
from .tokens import two_bits_interactive as two_bits
from .training import against_noise_interactive as against_noise
from .training import jump_errors_interactive as jump_errors
from .training import one_step_planes_interactive as one_step_planes
from .training import same_noise_interactive as same_noise

__all__ = [
    "against_noise",
    "convergence",
    "digits",
    "discriminators",
    "embedded",
    "film_strip",
    "images",
    "jump_errors",
    "lines",
    "one_step_planes",
    "page",
    "pairs",
    "quality",
    "reflow",
    "rescaled",
    "same_noise",
    "samples",
    "score_coverage",
    "scoreboard",
    "spent",
    "staircase",
    "time_grids",
    "trajectories",
    "two_bits",
    "work_precision",
]
