"""The experiments of this family, shrunk and run as their commands do it."""

import re

import jax
import numpy as np
import pytest

import jdl
from jdl.core import tree
from jdl.run.experiment import load_module
from tests.experiments.test_experiments import BY_NAME, run
from tests.support.runs import rows

pytestmark = pytest.mark.usefixtures("kept_programs")

__all__ = ["run"]


@pytest.mark.slow
def test_char_transformer(run, tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("to be, or not to be:\nthat is it. " * 60)
    words = ("--data-dir", str(tmp_path), "--blocks", "1", "--heads", "2", "--width", "16")
    words += ("--context", "16", "--steps", "40", "--learning-rate", "1e-2")
    code, out, _, folder = run("char_transformer", *words)
    assert code == 0
    found = re.search(r"validation loss (\d\.\d+), (\d\.\d+) bits.*1-gram (\d\.\d+)", out)
    loss, bits, unigram = map(float, found.groups())
    assert loss < unigram and abs(bits - loss / np.log(2)) < 2e-3
    assert list((folder / "figures").glob("*attention*.png"))
    assert rows(folder)[-1]["perplexity"] > 1


def test_char_transformer_is_nanogpt_small():
    module = load_module(BY_NAME["char_transformer"])
    config = module.Config()
    made = module.experiment(config)
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), {"x": made.data["x"][:2]})
    corpus = jdl.data.tokenizers.character_corpus()
    assert tree.count(shapes.params) == 804_096 + (corpus.tokenizer.size - 65) * 128
    assert made.valid["mask"].sum() == len(corpus.valid) - 1


@pytest.mark.slow
def test_vit_on_digits(run):
    words = ("--blocks", "1", "--heads", "2", "--width", "16", "--epochs", "2")
    code, out, _, folder = run("vit", *words, "--learning-rate", "1e-2")
    assert code == 0 and re.search(
        r"test accuracy 0\.\d+ .*\nalways predicting the most frequent", out
    )
    assert float(re.match(r"test accuracy (0\.\d+) \(95 %", out)[1]) > 0.15
    assert list((folder / "figures").glob("*attention*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("pretext", ["contrastive", "rotation", "masked"])
def test_self_supervised(run, pretext):
    words = ("--pretext", pretext, "--steps", "3", "--batch-size", "16")
    code, out, _, folder = run("self_supervised", *words)
    assert code == 0
    found = re.search(rf"labels: (0\.\d+) \({pretext}\), (0\.\d+) \(random", out)
    assert all(float(value) > 0.3 for value in found.groups())
    assert list((folder / "figures").glob("*embeddings*.png"))
