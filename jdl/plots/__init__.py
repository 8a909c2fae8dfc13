"""`jdl.plots`: the figures of a run, and panels from which you build your own.

>>> import numpy as np
>>> from jdl import plots
>>> x = np.linspace(0, 6, 50)
>>> curve = plots.lines({"sine": (x, np.sin(x))}, "A sine", "x")
>>> zero = plots.horizontal_lines({"zero": 0})
>>> fig = plots.figure(plots.overlay(curve, zero), plots.bars([3, 1, 2]))
>>> len(fig.axes)
2
"""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.plots.grids import activations as activations
    from jdl.plots.grids import attention as attention
    from jdl.plots.grids import confusion_of as confusion_of
    from jdl.plots.grids import decision_surface as decision_surface
    from jdl.plots.grids import generated_samples as generated_samples
    from jdl.plots.grids import image as image
    from jdl.plots.grids import image_grid as image_grid
    from jdl.plots.grids import kernels as kernels
    from jdl.plots.grids import matrices as matrices
    from jdl.plots.grids import matrix as matrix
    from jdl.plots.grids import square_grid as square_grid
    from jdl.plots.panels import Panel as Panel
    from jdl.plots.panels import band as band
    from jdl.plots.panels import bars as bars
    from jdl.plots.panels import figure as figure
    from jdl.plots.panels import histogram as histogram
    from jdl.plots.panels import history as history
    from jdl.plots.panels import horizontal_lines as horizontal_lines
    from jdl.plots.panels import lines as lines
    from jdl.plots.panels import logged_curve as logged_curve
    from jdl.plots.panels import overlay as overlay
    from jdl.plots.panels import series as series
    from jdl.plots.panels import shaded_spans as shaded_spans
    from jdl.plots.panels import text_panel as text_panel
    from jdl.plots.points import embedding as embedding
    from jdl.plots.points import embeddings as embeddings
    from jdl.plots.points import plane as plane
    from jdl.plots.points import predicted_vs_true as predicted_vs_true
    from jdl.plots.points import scatter as scatter
    from jdl.plots.points import strip as strip
    from jdl.plots.points import strips as strips
    from jdl.plots.training import confusion_matrix as confusion_matrix
    from jdl.plots.training import curves as curves
    from jdl.plots.training import parity as parity
    from jdl.plots.training import png as png
    from jdl.plots.training import worst_errors as worst_errors

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
