"""`jdl.pictures`: whole figures of a run, and panels to put figures together from.

>>> import numpy as np
>>> x = np.linspace(0, 6, 50)
>>> curve = lines({"sine": (x, np.sin(x))}, xlabel="x")
>>> whole = figure(overlay(curve, levels({"zero": 0}), title="A sine"), bars([3, 1, 2]))
>>> len(whole.axes)
2
"""

from jdl.run.figures import agreement, confusion, curves, mistakes, png
from jdl.run.grids import image, matrix, mosaic, square, surface
from jdl.run.panels import (
    Panel,
    against,
    band,
    bars,
    dots,
    figure,
    histogram,
    levels,
    lines,
    logged,
    overlay,
    spans,
    spread,
    words,
)

__all__ = [
    "Panel",
    "against",
    "agreement",
    "band",
    "bars",
    "confusion",
    "curves",
    "dots",
    "figure",
    "histogram",
    "image",
    "levels",
    "lines",
    "logged",
    "matrix",
    "mistakes",
    "mosaic",
    "overlay",
    "png",
    "spans",
    "spread",
    "square",
    "surface",
    "words",
]
