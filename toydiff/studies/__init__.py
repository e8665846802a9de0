"""Measurements side by side, each with a table and a figure: orders of solvers, parallel sampling, the demo."""
