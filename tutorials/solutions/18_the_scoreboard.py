"""Solutions of lesson 18.

4. That all had the same price, pairs and earlier students counted; several seeds and the spread over them, so that the
difference can be counted in standard errors; and one measure on the same noises with its floor, so that what is smaller
than the measure sees is not ranked. A fourth: how the order changes with the budget, since who leads early may not lead
late.
"""

import statistics


def best_method(rows, steps, allowed=lambda row: True):
    able = [row for row in rows if row["steps"] == steps and allowed(row)]
    return min(able, key=lambda row: row["distance"])["method"]


def cheapest_student(students, within):
    best = min(row["distance"] for row in students)
    good = [row for row in students if row["distance"] <= within * best]
    return min(good, key=lambda row: row["passes"])["id"]


def standard_errors(a, b):
    error = ((statistics.variance(a) + statistics.variance(b)) / len(a)) ** 0.5
    return (statistics.mean(b) - statistics.mean(a)) / error
