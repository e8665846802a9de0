"""Figures as functions of data containers, by subject; `static` has those in matplotlib, `interactive` those in plotly.

They take trajectories, mixtures and plain tables, and return a figure; nothing here samples. `toydiff` does not import
this package, and the drawing libraries are loaded by the first figure.
"""
