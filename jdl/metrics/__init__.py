"""Metrics that merge by addition.

A `Metric` counts in the compiled step and turns the sum of all counts into values on the host, so
the result does not depend on how the data is split into batches or over devices. Examples whose
`batch["mask"]` is zero do not count. Values keep leading axes, such as that of ensemble members.
"""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.metrics.checks import check_integer_labels as check_integer_labels
    from jdl.metrics.checks import check_same_shape as check_same_shape
    from jdl.metrics.class_counts import balanced_accuracy as balanced_accuracy
    from jdl.metrics.class_counts import f1 as f1
    from jdl.metrics.class_counts import matthews as matthews
    from jdl.metrics.class_counts import precision as precision
    from jdl.metrics.class_counts import recall as recall
    from jdl.metrics.classification import accuracy as accuracy
    from jdl.metrics.classification import binary_accuracy as binary_accuracy
    from jdl.metrics.classification import confusion as confusion
    from jdl.metrics.classification import perplexity as perplexity
    from jdl.metrics.classification import top_k as top_k
    from jdl.metrics.distances import frechet_distance as frechet_distance
    from jdl.metrics.host import compute as compute
    from jdl.metrics.intervals import wilson_interval as wilson_interval
    from jdl.metrics.masked import example_weights as example_weights
    from jdl.metrics.masked import fraction as fraction
    from jdl.metrics.masked import mean as mean
    from jdl.metrics.masked import mean_of as mean_of
    from jdl.metrics.probabilities import brier_score as brier_score
    from jdl.metrics.probabilities import expected_calibration_error as expected_calibration_error
    from jdl.metrics.probabilities import log_loss as log_loss
    from jdl.metrics.ranking import auc as auc
    from jdl.metrics.ranking import average_precision as average_precision
    from jdl.metrics.regression import mean_absolute_error as mean_absolute_error
    from jdl.metrics.regression import mean_squared_error as mean_squared_error
    from jdl.metrics.regression import median_absolute_error as median_absolute_error
    from jdl.metrics.regression import pinball as pinball
    from jdl.metrics.regression import r2 as r2

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
