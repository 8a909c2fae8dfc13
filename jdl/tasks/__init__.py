"""What a model is trained for: tasks from models, and tasks from tasks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.tasks.autoencoding import (
        denoising,
        gaussian_noise,
        masking_noise,
        reconstruction,
        variational,
    )
    from jdl.tasks.criteria import (
        binary_cross_entropy,
        cross_entropy,
        half_squared_error,
        soft_cross_entropy,
        squared_error,
    )
    from jdl.tasks.gan import adversarial
    from jdl.tasks.penalties import augment, l1, l2, label_smoothing, mixup
    from jdl.tasks.supervised import binary_classification, classification, regression, supervised

_HOME = {
    "adversarial": "gan",
    "augment": "penalties",
    "binary_classification": "supervised",
    "binary_cross_entropy": "criteria",
    "classification": "supervised",
    "cross_entropy": "criteria",
    "denoising": "autoencoding",
    "gaussian_noise": "autoencoding",
    "half_squared_error": "criteria",
    "l1": "penalties",
    "l2": "penalties",
    "label_smoothing": "penalties",
    "masking_noise": "autoencoding",
    "mixup": "penalties",
    "reconstruction": "autoencoding",
    "regression": "supervised",
    "soft_cross_entropy": "criteria",
    "squared_error": "criteria",
    "supervised": "supervised",
    "variational": "autoencoding",
}
__all__ = [
    "adversarial",
    "augment",
    "binary_classification",
    "binary_cross_entropy",
    "classification",
    "cross_entropy",
    "denoising",
    "gaussian_noise",
    "half_squared_error",
    "l1",
    "l2",
    "label_smoothing",
    "masking_noise",
    "mixup",
    "reconstruction",
    "regression",
    "soft_cross_entropy",
    "squared_error",
    "supervised",
    "variational",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
