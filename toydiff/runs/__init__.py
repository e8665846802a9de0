"""Runs: train a method on a problem into a folder, load the model that came out, measure it. The command, the recipes
of the bundled weights and the notebooks use these functions."""

from .evaluation import SEED_OF_NOISE, evaluate, sample
from .models import Model, card, knobs, load, of_vectors, problem_of, teacher_of
from .run import SEED_OF_EVALUATIONS, Run, deviation, evaluator, teacher_of_run, to_device, train

__all__ = [
    "SEED_OF_EVALUATIONS",
    "SEED_OF_NOISE",
    "Model",
    "Run",
    "card",
    "deviation",
    "evaluate",
    "evaluator",
    "knobs",
    "load",
    "of_vectors",
    "problem_of",
    "sample",
    "teacher_of",
    "teacher_of_run",
    "to_device",
    "train",
]
