"""Networks as pairs of pure functions, and the ways to bring your own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.models.autoencoder import Autoencoder, ConvAutoencoder, VariationalAutoencoder
    from jdl.models.bridge import from_functions, from_linen, from_nnx
    from jdl.models.convnet import CNN
    from jdl.models.gan import ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator
    from jdl.models.mlp import MLP

_HOME = {
    "Autoencoder": "autoencoder",
    "CNN": "convnet",
    "ConvAutoencoder": "autoencoder",
    "ConvDiscriminator": "gan",
    "ConvGenerator": "gan",
    "DenseDiscriminator": "gan",
    "DenseGenerator": "gan",
    "MLP": "mlp",
    "VariationalAutoencoder": "autoencoder",
    "from_functions": "bridge",
    "from_linen": "bridge",
    "from_nnx": "bridge",
}
__all__ = [
    "CNN",
    "MLP",
    "Autoencoder",
    "ConvAutoencoder",
    "ConvDiscriminator",
    "ConvGenerator",
    "DenseDiscriminator",
    "DenseGenerator",
    "VariationalAutoencoder",
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
