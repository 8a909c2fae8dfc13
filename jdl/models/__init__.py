"""Networks as pairs of pure functions, and the ways to bring your own."""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.models.adapters.linen import from_functions as from_functions
    from jdl.models.adapters.linen import from_linen as from_linen
    from jdl.models.adapters.nnx import from_nnx as from_nnx
    from jdl.models.adapters.precision import precision as precision
    from jdl.models.autoencoder import Autoencoder as Autoencoder
    from jdl.models.autoencoder import ConvAutoencoder as ConvAutoencoder
    from jdl.models.autoencoder import VariationalAutoencoder as VariationalAutoencoder
    from jdl.models.cnn import CNN as CNN
    from jdl.models.cnn1d import CNN1D as CNN1D
    from jdl.models.densenet import DenseNet as DenseNet
    from jdl.models.features import EncoderWithHead as EncoderWithHead
    from jdl.models.features import batched_encoder as batched_encoder
    from jdl.models.features import layer_outputs as layer_outputs
    from jdl.models.gan import ConvDiscriminator as ConvDiscriminator
    from jdl.models.gan import ConvGenerator as ConvGenerator
    from jdl.models.gan import DenseDiscriminator as DenseDiscriminator
    from jdl.models.gan import DenseGenerator as DenseGenerator
    from jdl.models.gan import gan_pair as gan_pair
    from jdl.models.googlenet import GoogLeNet as GoogLeNet
    from jdl.models.mlp import MLP as MLP
    from jdl.models.recommender import MatrixFactorization as MatrixFactorization
    from jdl.models.recommender import NeuralCollaborativeFiltering as NeuralCollaborativeFiltering
    from jdl.models.recurrent import RNN as RNN
    from jdl.models.recurrent import TokenLSTM as TokenLSTM
    from jdl.models.resnet import ResNet as ResNet
    from jdl.models.sampling import generate as generate
    from jdl.models.transformer import Decoder as Decoder
    from jdl.models.transformer import Encoder as Encoder
    from jdl.models.transformer import ViT as ViT
    from jdl.models.transformer import attention_weights as attention_weights
    from jdl.models.tree_lstm import ChildSumTreeLSTM as ChildSumTreeLSTM
    from jdl.models.tree_lstm import NaryTreeLSTM as NaryTreeLSTM
    from jdl.models.tree_lstm import RvNN as RvNN
    from jdl.models.vgg import VGG as VGG
    from jdl.models.vgg import AlexNet as AlexNet
    from jdl.models.wavenet import WaveNet as WaveNet

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
