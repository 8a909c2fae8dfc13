"""What a model is trained for: tasks from models, and tasks from tasks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.tasks.criteria import (
        binary_cross_entropy,
        class_weighted,
        cross_entropy,
        focal,
        gaussian_negative_log_likelihood,
        half_squared_error,
        pinball,
        soft_cross_entropy,
        squared_error,
    )
    from jdl.tasks.gan import adversarial
    from jdl.tasks.penalties import augment, l1, l2, label_smoothing, mixup
    from jdl.tasks.supervised import (
        binary_classification,
        classification,
        regression,
        supervised,
        uncertain_regression,
    )

_HOME = {
    "adversarial": "gan",
    "augment": "penalties",
    "binary_classification": "supervised",
    "binary_cross_entropy": "criteria",
    "class_weighted": "criteria",
    "classification": "supervised",
    "cross_entropy": "criteria",
    "focal": "criteria",
    "gaussian_negative_log_likelihood": "criteria",
    "half_squared_error": "criteria",
    "l1": "penalties",
    "l2": "penalties",
    "label_smoothing": "penalties",
    "mixup": "penalties",
    "pinball": "criteria",
    "regression": "supervised",
    "soft_cross_entropy": "criteria",
    "squared_error": "criteria",
    "supervised": "supervised",
    "uncertain_regression": "supervised",
}
__all__ = [
    "adversarial",
    "augment",
    "binary_classification",
    "binary_cross_entropy",
    "class_weighted",
    "classification",
    "cross_entropy",
    "focal",
    "gaussian_negative_log_likelihood",
    "half_squared_error",
    "l1",
    "l2",
    "label_smoothing",
    "mixup",
    "pinball",
    "regression",
    "soft_cross_entropy",
    "squared_error",
    "supervised",
    "uncertain_regression",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
