"""Networks as pairs of pure functions, and the ways to bring your own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.models.bridge import from_functions, from_linen, from_nnx
    from jdl.models.convnet import CNN
    from jdl.models.densenet import DenseNet
    from jdl.models.googlenet import GoogLeNet
    from jdl.models.mlp import MLP
    from jdl.models.resnet import ResNet
    from jdl.models.vgg import VGG, AlexNet

_HOME = {
    "AlexNet": "vgg",
    "CNN": "convnet",
    "DenseNet": "densenet",
    "GoogLeNet": "googlenet",
    "MLP": "mlp",
    "ResNet": "resnet",
    "VGG": "vgg",
    "from_functions": "bridge",
    "from_linen": "bridge",
    "from_nnx": "bridge",
}
__all__ = [
    "CNN",
    "MLP",
    "VGG",
    "AlexNet",
    "DenseNet",
    "GoogLeNet",
    "ResNet",
    "from_functions",
    "from_linen",
    "from_nnx",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
