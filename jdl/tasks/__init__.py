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
    from jdl.tasks.gan import adversarial
    from jdl.tasks.language import language_model
    from jdl.tasks.losses import (
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
    from jdl.tasks.pretext import masked_reconstruction, rotation
    from jdl.tasks.sequence import sequence_classification, sequence_labelling, sequence_regression
    from jdl.tasks.simclr import contrastive, nt_xent
    from jdl.tasks.supervised import (
        binary_classification,
        classification,
        regression,
        supervised_task,
        uncertain_regression,
    )
    from jdl.tasks.transforms import augment, l1, l2, label_smoothing, masked_in_training, mixup
    from jdl.tasks.trees import node_labelling, tree_arrays, tree_classification

_HOME = {
    "adversarial": "gan",
    "augment": "transforms",
    "binary_classification": "supervised",
    "binary_cross_entropy": "losses",
    "class_weighted": "losses",
    "classification": "supervised",
    "contrastive": "simclr",
    "cross_entropy": "losses",
    "denoising": "autoencoding",
    "focal": "losses",
    "gaussian_negative_log_likelihood": "losses",
    "gaussian_noise": "autoencoding",
    "half_squared_error": "losses",
    "l1": "transforms",
    "l2": "transforms",
    "label_smoothing": "transforms",
    "language_model": "language",
    "masked_in_training": "transforms",
    "masked_reconstruction": "pretext",
    "masking_noise": "autoencoding",
    "mixup": "transforms",
    "node_labelling": "trees",
    "nt_xent": "simclr",
    "pinball": "losses",
    "reconstruction": "autoencoding",
    "regression": "supervised",
    "rotation": "pretext",
    "sequence_classification": "sequence",
    "sequence_labelling": "sequence",
    "sequence_regression": "sequence",
    "soft_cross_entropy": "losses",
    "squared_error": "losses",
    "supervised_task": "supervised",
    "tree_arrays": "trees",
    "tree_classification": "trees",
    "uncertain_regression": "supervised",
    "variational": "autoencoding",
}
__all__ = [
    "adversarial",
    "augment",
    "binary_classification",
    "binary_cross_entropy",
    "class_weighted",
    "classification",
    "contrastive",
    "cross_entropy",
    "denoising",
    "focal",
    "gaussian_negative_log_likelihood",
    "gaussian_noise",
    "half_squared_error",
    "l1",
    "l2",
    "label_smoothing",
    "language_model",
    "masked_in_training",
    "masked_reconstruction",
    "masking_noise",
    "mixup",
    "node_labelling",
    "nt_xent",
    "pinball",
    "reconstruction",
    "regression",
    "rotation",
    "sequence_classification",
    "sequence_labelling",
    "sequence_regression",
    "soft_cross_entropy",
    "squared_error",
    "supervised_task",
    "tree_arrays",
    "tree_classification",
    "uncertain_regression",
    "variational",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
