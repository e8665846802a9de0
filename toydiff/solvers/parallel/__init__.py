"""Parallel-in-time samplers: they improve a whole path sweep by sweep, and pay in calls for fewer rounds.

"The deck" is the lecture that they follow, "The Principle and Application of Diffusion Acceleration" (Fu-Yun Wang).
"""

from .base import AT_ONCE, Job, ParallelSolver, Points, Sweep

__all__ = ["AT_ONCE", "Job", "ParallelSolver", "Points", "Sweep"]
