"""Networks as pairs of pure functions, and the ways to bring your own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.models.autoencoder import Autoencoder, ConvAutoencoder, VariationalAutoencoder
    from jdl.models.bridge import from_functions, from_linen, from_nnx
    from jdl.models.convnet import CNN
    from jdl.models.gan import ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator
    from jdl.models.mlp import MLP
    from jdl.models.recurrent import RNN
    from jdl.models.wavenet import WaveNet
    from jdl.models.sampling import generate
    from jdl.models.transformer import Decoder, Encoder, ViT, attention_weights

_HOME = {
    "Autoencoder": "autoencoder",
    "CNN": "convnet",
    "Decoder": "transformer",
    "Encoder": "transformer",
    "MLP": "mlp",
    "RNN": "recurrent",
    "WaveNet": "wavenet",
    "ViT": "transformer",
    "attention_weights": "transformer",
    from jdl.models.recommender import MatrixFactorization, NeuralCollaborativeFiltering
    from jdl.models.tree import ChildSumTreeLSTM, NaryTreeLSTM, RvNN
    from jdl.models.densenet import DenseNet
    from jdl.models.googlenet import GoogLeNet
    from jdl.models.mlp import MLP
    from jdl.models.resnet import ResNet
    from jdl.models.vgg import VGG, AlexNet

_HOME = {
    "AlexNet": "vgg",
    "CNN": "convnet",
    "ChildSumTreeLSTM": "tree",
    "MLP": "mlp",
    "MatrixFactorization": "recommender",
    "NaryTreeLSTM": "tree",
    "NeuralCollaborativeFiltering": "recommender",
    "RvNN": "tree",
    "ConvAutoencoder": "autoencoder",
    "ConvDiscriminator": "gan",
    "ConvGenerator": "gan",
    "DenseDiscriminator": "gan",
    "DenseGenerator": "gan",
    "MLP": "mlp",
    "VariationalAutoencoder": "autoencoder",
    "DenseNet": "densenet",
    "GoogLeNet": "googlenet",
    "MLP": "mlp",
    "ResNet": "resnet",
    "VGG": "vgg",
    "from_functions": "bridge",
    "from_linen": "bridge",
    "from_nnx": "bridge",
    "generate": "sampling",
}
__all__ = ["CNN", "MLP", "RNN", "WaveNet", "from_functions", "from_linen", "from_nnx"]
__all__ = [
    "CNN",
    "MLP",
    "Decoder",
    "Encoder",
    "ViT",
    "attention_weights",
    "from_functions",
    "from_linen",
    "from_nnx",
    "generate",
__all__ = [
    "CNN",
    "MLP",
    "ChildSumTreeLSTM",
    "MatrixFactorization",
    "NaryTreeLSTM",
    "NeuralCollaborativeFiltering",
    "RvNN",
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
