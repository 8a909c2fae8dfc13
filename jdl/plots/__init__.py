"""`jdl.plots`: whole figures of a run, and panels to put figures together from.

>>> import numpy as np
>>> x = np.linspace(0, 6, 50)
>>> curve = lines({"sine": (x, np.sin(x))}, "A sine", "x")
>>> whole = figure(overlay(curve, horizontal_lines({"zero": 0})), bars([3, 1, 2]))
>>> len(whole.axes)
2
"""

from jdl.plots.grids import (
    activations,
    attention,
    confusion_of,
    decision_surface,
    generated_samples,
    image,
    image_grid,
    kernels,
    matrices,
    matrix,
    square_grid,
)
from jdl.plots.panels import (
    Panel,
    band,
    bars,
    figure,
    histogram,
    history,
    horizontal_lines,
    lines,
    logged_curve,
    overlay,
    series,
    shaded_spans,
    text,
)
from jdl.plots.points import embedding, embeddings, plane, predicted_vs_true, scatter, strip, strips
from jdl.plots.training import confusion, curves, parity, png, worst_errors

__all__ = [
    "Panel",
    "activations",
    "attention",
    "band",
    "bars",
    "confusion",
    "confusion_of",
    "curves",
    "decision_surface",
    "embedding",
    "embeddings",
    "figure",
    "generated_samples",
    "histogram",
    "history",
    "horizontal_lines",
    "image",
    "image_grid",
    "kernels",
    "lines",
    "logged_curve",
    "matrices",
    "matrix",
    "overlay",
    "parity",
    "plane",
    "png",
    "predicted_vs_true",
    "scatter",
    "series",
    "shaded_spans",
    "square_grid",
    "strip",
    "strips",
    "text",
    "worst_errors",
]
