"""Figures as functions of data containers: `interactive` draws with plotly (pages, notebooks), `static` with matplotlib
(files).

Both modules have the same functions, which take trajectories, mixtures and plain tables and return a figure. Nothing
here samples. `toydiff` does not import this package, and the drawing libraries are loaded by the first figure.
"""
