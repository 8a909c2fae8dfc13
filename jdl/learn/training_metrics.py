"""What metrics must be to add up over steps, micro-batches and devices in training."""

from collections.abc import Mapping
from typing import Any

from jdl.core.errors import error
from jdl.core.types import Metrics, Samples


def without_samples(metrics: Mapping[str, Any]) -> Metrics:
    """The metrics that merge by addition; those with `Samples` are left out.

    >>> without_samples({"auc": Samples({}), "steps": 1})
    {'steps': 1}
    """
    return {
        name: without_samples(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if isinstance(value, Mapping) or not Samples.are_in(value)
    }


def refuse_samples(metrics: Mapping[str, Any]) -> None:
    """Raise `InputError` for metrics of a step that hold `Samples`, which do not add up."""
    for name, value in metrics.items():
        if Samples.are_in(value):
            raise error(
                f'metrics["{name}"] of step',
                expected="metrics that merge by addition",
                got="Samples, which are concatenated after an evaluation",
                fix="return this metric from evaluate only",
            )
