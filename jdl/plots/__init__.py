"""`jdl.plots`: whole figures of a run, and panels to put figures together from.

>>> import numpy as np
>>> x = np.linspace(0, 6, 50)
>>> curve = lines({"sine": (x, np.sin(x))}, "A sine", "x")
>>> whole = figure(overlay(curve, levels({"zero": 0})), bars([3, 1, 2]))
>>> len(whole.axes)
2
"""

from jdl.plots.grids import (
    attention,
    image,
    judged,
    kernels,
    matrices,
    matrix,
    mosaic,
    responses,
    square,
    surface,
    taken_for,
)
from jdl.plots.panels import (
    Panel,
    band,
    bars,
    figure,
    histogram,
    history,
    levels,
    lines,
    logged,
    overlay,
    series,
    spans,
    words,
)
from jdl.plots.points import against, dots, embedding, embeddings, plane, spread, spreads
from jdl.plots.training import agreement, confusion, curves, mistakes, png

__all__ = [
    "Panel",
    "against",
    "agreement",
    "attention",
    "band",
    "bars",
    "confusion",
    "curves",
    "dots",
    "embedding",
    "embeddings",
    "figure",
    "histogram",
    "history",
    "image",
    "judged",
    "kernels",
    "levels",
    "lines",
    "logged",
    "matrices",
    "matrix",
    "mistakes",
    "mosaic",
    "overlay",
    "plane",
    "png",
    "responses",
    "series",
    "spans",
    "spread",
    "spreads",
    "square",
    "surface",
    "taken_for",
    "words",
]
