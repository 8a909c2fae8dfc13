"""Networks as pairs of pure functions, and the ways to bring your own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdl.models.adapters.linen import from_functions, from_linen
    from jdl.models.adapters.nnx import from_nnx
    from jdl.models.adapters.precision import precision
    from jdl.models.autoencoder import Autoencoder, ConvAutoencoder, VariationalAutoencoder
    from jdl.models.cnn import CNN
    from jdl.models.cnn1d import CNN1D
    from jdl.models.densenet import DenseNet
    from jdl.models.features import Headed, encoder_of, layer_outputs
    from jdl.models.gan import (
        ConvDiscriminator,
        ConvGenerator,
        DenseDiscriminator,
        DenseGenerator,
        gan_pair,
    )
    from jdl.models.googlenet import GoogLeNet
    from jdl.models.mlp import MLP
    from jdl.models.recommender import MatrixFactorization, NeuralCollaborativeFiltering
    from jdl.models.recurrent import RNN, TokenLSTM
    from jdl.models.resnet import ResNet
    from jdl.models.sampling import generate
    from jdl.models.transformer import Decoder, Encoder, ViT, attention_weights
    from jdl.models.tree_lstm import ChildSumTreeLSTM, NaryTreeLSTM, RvNN
    from jdl.models.vgg import VGG, AlexNet
    from jdl.models.wavenet import WaveNet

_HOME = {
    "AlexNet": "vgg",
    "Autoencoder": "autoencoder",
    "CNN": "cnn",
    "CNN1D": "cnn1d",
    "ChildSumTreeLSTM": "tree_lstm",
    "ConvAutoencoder": "autoencoder",
    "ConvDiscriminator": "gan",
    "ConvGenerator": "gan",
    "Decoder": "transformer",
    "DenseDiscriminator": "gan",
    "DenseGenerator": "gan",
    "DenseNet": "densenet",
    "Encoder": "transformer",
    "GoogLeNet": "googlenet",
    "Headed": "features",
    "MLP": "mlp",
    "MatrixFactorization": "recommender",
    "NaryTreeLSTM": "tree_lstm",
    "NeuralCollaborativeFiltering": "recommender",
    "RNN": "recurrent",
    "ResNet": "resnet",
    "RvNN": "tree_lstm",
    "TokenLSTM": "recurrent",
    "VGG": "vgg",
    "VariationalAutoencoder": "autoencoder",
    "ViT": "transformer",
    "WaveNet": "wavenet",
    "attention_weights": "transformer",
    "encoder_of": "features",
    "from_functions": "adapters.linen",
    "from_linen": "adapters.linen",
    "from_nnx": "adapters.nnx",
    "gan_pair": "gan",
    "generate": "sampling",
    "layer_outputs": "features",
    "precision": "adapters.precision",
}
__all__ = [
    "CNN",
    "CNN1D",
    "MLP",
    "RNN",
    "VGG",
    "AlexNet",
    "Autoencoder",
    "ChildSumTreeLSTM",
    "ConvAutoencoder",
    "ConvDiscriminator",
    "ConvGenerator",
    "Decoder",
    "DenseDiscriminator",
    "DenseGenerator",
    "DenseNet",
    "Encoder",
    "GoogLeNet",
    "Headed",
    "MatrixFactorization",
    "NaryTreeLSTM",
    "NeuralCollaborativeFiltering",
    "ResNet",
    "RvNN",
    "TokenLSTM",
    "VariationalAutoencoder",
    "ViT",
    "WaveNet",
    "attention_weights",
    "encoder_of",
    "from_functions",
    "from_linen",
    "from_nnx",
    "gan_pair",
    "generate",
    "layer_outputs",
    "precision",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
