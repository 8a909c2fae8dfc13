"""Metrics for regression."""

from typing import Any

import jax.numpy as jnp

from jdl.core.types import Batch, Mean, Metric
from jdl.metrics.checks import check_same_shape
from jdl.metrics.masked import example_weights, mean


def _error(outputs: Any, batch: Batch) -> Any:
    check_same_shape(outputs, batch["y"])
    outputs = jnp.asarray(outputs)
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)) - batch["y"]


def _squared_error(outputs: Any, batch: Batch) -> Mean:
    return mean(jnp.square(_error(outputs, batch)), **example_weights(batch))


mean_squared_error = Metric(_squared_error, Mean.compute)
"""The mean squared error over all elements; outputs and labels have the same shape."""


def _absolute_error(outputs: Any, batch: Batch) -> Mean:
    return mean(jnp.abs(_error(outputs, batch)), **example_weights(batch))


mean_absolute_error = Metric(_absolute_error, Mean.compute)
"""The mean absolute error over all elements; outputs and labels have the same shape."""
