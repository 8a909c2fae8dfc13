"""What the docstrings of public names tell: examples, shapes, errors, papers."""

import collections
import inspect
import re

import pytest

from tests.support.public_names import (
    can_raise,
    has_example,
    listed,
    public_names,
    takes_arrays,
    tells_errors,
    tells_paper,
    tells_shapes,
)

NAMES = public_names()

METHODS = re.findall(
    r"\w+",
    """
AlexNet Autoencoder CNN CNN1D ChildSumTreeLSTM ConvAutoencoder ConvDiscriminator ConvGenerator
DenseDiscriminator DenseGenerator DenseNet GoogLeNet MLP MatrixFactorization NaryTreeLSTM
NeuralCollaborativeFiltering RNN ResNet RvNN TokenLSTM Decoder Encoder VGG
VariationalAutoencoder ViT WaveNet attention_weights gan_pair generate precision
clip_gradient sharpness_aware ema keep_best ensemble game l1 l2 label_smoothing mixup
schedule soft_threshold clip fsdp tensor
focal pinball gaussian_negative_log_likelihood uncertain_regression contrastive
nt_xent rotation_prediction masked_reconstruction denoising masking_noise
variational gan_tasks node_labelling tree_classification language_model
auc top_k frechet_distance wilson_interval
ImageEvaluator linear_probe receptive_field
Order elastic fences pca_error rating_biases BytePairTokenizer byte_pair_tokenizer
ngram_probabilities load_movielens read_cifar read_ts adding_problem copy_problem
random_expressions class_weights count_modes with_label_noise folds
""",
)
"""Names of methods that a paper or a book introduced."""

DEFINED_TWICE = {"load", "pinball", "precision"}
"""`jdl.load` loads a run, `jdl.data.load` a data set; `jdl.tasks.pinball` is a loss and
`jdl.metrics.pinball` its mean; `jdl.precision` is that of numbers: the package says which."""


def share(names, test) -> tuple[float, list[str]]:
    """The share of names that pass, and the others."""
    names = list(names)
    missing = [name.path for name in names if not test(name)]
    return 1 - len(missing) / len(names), missing


@pytest.mark.parametrize(
    ("least", "among", "test"),
    [
        (1.0, lambda name: True, lambda name: bool(name.doc)),
        (
            0.9,
            lambda name: not inspect.isclass(name.value) or not issubclass(name.value, Exception),
            has_example,
        ),
        (0.9, takes_arrays, tells_shapes),
        (0.6, can_raise, tells_errors),
        (0.9, lambda name: name.short in METHODS, tells_paper),
    ],
    ids=["docstrings", "examples", "shapes", "errors", "papers"],
)
def test_public_docstrings_tell(least, among, test):
    told, missing = share(filter(among, NAMES), test)
    assert told >= least, f"{told:.0%} of them; missing: {' '.join(missing)}"


def test_methods_are_public_names():
    assert set(METHODS) <= {name.short for name in NAMES}


def test_no_public_name_is_defined_twice():
    homes = collections.defaultdict(set)
    for name in [*listed(), *NAMES]:
        if not name.path.startswith("jdl.learn."):
            homes[name.short].add(id(name.value))
    assert {name for name, values in homes.items() if len(values) > 1} == DEFINED_TWICE
