"""Scoreboards that are made up: cells by a rule, for figures, tables and pages that have to hold for any board."""

import statistics

from toydiff.studies import scoreboard


def made_up(distances, problem="mixture:ring", begins_with="nothing", teacher_calls=0):
    """A board {plan, cells}: {(method, steps): distances over seeds}, the floor 1 ± 0.1, one call a step."""
    methods = list(dict.fromkeys(method for method, _ in distances))
    steps = sorted({count for _, count in distances})
    seeds = len(next(iter(distances.values())))
    cells = [
        {
            "method": method,
            "seed": seed,
            "passes": 10,
            "updates": 1,
            "begins_with": begins_with,
            "rows": [
                {
                    "steps": count,
                    "nfe": count,
                    "rounds": count,
                    "teacher_calls": teacher_calls,
                    "distance": distances[method, count][seed],
                    "accuracy": None,
                    "floor": 1.0,
                    "floor_std": 0.1,
                }
                for count in steps
            ],
        }
        for method in methods
        for seed in range(seeds)
    ]
    plan = {"problem": problem, "methods": methods, "seeds": seeds, "budget": 10, "steps": steps, "n": 100}
    return {"plan": plan, "cells": cells}


def standard(problem="mixture:ring", first="dmd", later="guided"):
    """A whole board of all entries, seeds and steps: `first` is the best in one step, `later` in all others, and every
    other entry a little worse than the one before it."""
    distances = {}
    for k, method in enumerate(scoreboard.standard()):
        for steps in scoreboard.STEPS:
            best = method == (first if steps == 1 else later)
            middle = 1.5 if best else 3.0 + k + 4 / steps
            distances[method, steps] = [middle - 0.05, middle, middle + 0.05]
    return made_up(distances, problem)


def mean(board, method, steps):
    """The mean distance of an entry, computed anew."""
    at = board["plan"]["steps"].index(steps)
    return statistics.mean(cell["rows"][at]["distance"] for cell in board["cells"] if cell["method"] == method)
