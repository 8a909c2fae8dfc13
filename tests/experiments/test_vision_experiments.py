"""The experiments of the deep convolutional networks, shrunk and run."""

import re

import jax
import numpy as np
import pytest

import jdl
from jdl.core import tree
from jdl.run.experiment import load_module
from tests.experiments.test_experiments import BY_NAME, run

__all__ = ["run"]
pytestmark = pytest.mark.usefixtures("kept_programs")
slow = lambda *names: [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vgg", *slow("alexnet", "googlenet", "resnet", "densenet")])
def test_deep_cnns(run, model):
    words = ("--model", model, "--epochs", "1", "--run.no-report")
    code, out, _, folder = run("deep_cnns", *words)
    assert code == 0
    assert re.search(rf"{model}: \d\d?,\d\d\d parameters", out)
    assert float(re.match(r"test accuracy (0\.\d+) \(95 %", out)[1]) > 0.12
    figure = load_module(BY_NAME["deep_cnns"]).figures(
        jdl.load(folder), np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    )["filters"]
    # The filters, and each digit with its maps; the corner names the first row.
    assert len(figure.axes) % 4 == 0 and len(figure.axes) >= 4 * 13


def test_deep_cnns_on_mnist_are_the_same_networks(mnist_dir):
    module = load_module(BY_NAME["deep_cnns"])
    made = module.experiment(module.Config(model="resnet", data_dir=str(mnist_dir)))
    assert (made.name, made.epochs) == ("resnet_mnist", 3)
    batch = {name: value[:2] for name, value in made.data.train.items()}
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), batch)
    assert 10_000 < tree.count(shapes.params) < 50_000


def test_cnn_b_of_mnist(mnist_dir):
    module = load_module(BY_NAME["mnist_cnn"])
    made = module.experiment(module.Config(data_dir=str(mnist_dir), hidden=()))
    batch = {name: value[:2] for name, value in made.data.train.items()}
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), batch)
    assert tree.count(shapes.params) == 34_826


def test_normalisation_plays_five_networks_that_do_not_meet():
    module = load_module(BY_NAME["normalisation"])
    made = module.experiment(module.Config())
    batch = {name: value[:4] for name, value in made.data.train.items()}
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), batch)
    assert set(shapes.params) == {"none", "batch", "layer", "instance", "group"}
    sizes = {name: tree.count(params) for name, params in shapes.params.items()}
    # A scale for each of 3 x 16 + 3 x 32 channels; the norm's bias stands for the convolution's.
    assert {size - sizes["none"] for name, size in sizes.items() if name != "none"} == {144}
    assert shapes.model_state["batch"] and not shapes.model_state["group"]


@pytest.mark.slow
def test_normalisation(run):
    code, out, _, folder = run("normalisation", "--epochs", "1")
    assert code == 0
    found = re.findall(r"(none|batch|layer|instance|group) (0\.\d+)", out)
    assert [name for name, _ in found] == ["none", "batch", "layer", "instance", "group"]
    assert list((folder / "figures").glob("*normalisation*.png"))
