"""The generative experiments, shrunk and run as their commands do it."""

import itertools
import re
from pathlib import Path

import jax
import pytest

from jdl.cli import main
from jdl.core import tree
from jdl.run.experiment import load_module
from tests.support.runs import ROOT, rows

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """`jdl.main` of an experiment's file on the digits: (stdout, the folder of the run)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)

    def call(name, *words):
        module = load_module(ROOT / "experiments" / f"{name}.py")
        capfd.readouterr()
        main.main(module.Config, module.experiment, ["--run.dir", "run", *words])
        return capfd.readouterr().out, Path("run")

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["denoising", *(pytest.param(k, marks=pytest.mark.slow) for k in ("dense", "linear", "conv"))],
)
def test_autoencoder(run, kind):
    words = ("--kind", kind, "--code", "4", "--epochs", "12", "--learning-rate", "1e-2")
    out, folder = run("autoencoder", *words)
    found = re.search(
        r"test mse (0\.\d+), loss (0\.\d+); for comparison (0\.\d+) with 4 principal components, "
        r"(0\.\d+) with the mean image",
        out,
    )
    mse, _, best, worst = map(float, found.groups())
    # No linear code does better than principal components; the mean image is no code at all.
    assert best < mse < worst
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= {
        "reconstructions",
        "filters",
    }


def test_the_autoencoder_of_mnist_is_784_32_784(mnist_dir):
    module = load_module(ROOT / "experiments" / "autoencoder.py")
    made = module.experiment(module.Config(data_dir=str(mnist_dir)))
    batch = {name: value[:2] for name, value in made.data.train.items()}
    shapes = jax.eval_shape(made.learner.init, jax.random.key(0), batch)
    assert tree.count(shapes.params) == 50_992 and made.epochs == 50


@pytest.mark.slow
def test_vae(run):
    out, folder = run("vae", "--hidden", "16", "--code", "2", "--epochs", "8")
    found = re.search(
        r"-ELBO (\d+\.\d+) nats: reconstruction (\d+\.\d+), KL divergence (\d+\.\d+); .*"
        r" (\d+\.\d+)",
        out,
    )
    bound, surprise, distance, _ = map(float, found.groups())
    assert abs(bound - surprise - distance) < 0.02 and 15 < bound < 45
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"samples", "latent_walk", "reconstructions"} <= figures


RECIPES = ("plain", "spectral", "wgan_gp", "ttur")
PAIRS = list(itertools.product(("dense", "conv"), ("normalised", *RECIPES)))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "recipe"), PAIRS)
def test_gan_mnist(run, kind, recipe):
    form = "loop" if kind == "dense" else "step"
    words = ("--kind", kind, "--recipe", recipe, "--steps", "6", "--batch-size", "8")
    words += ("--judge-epochs", "4")
    out, folder = run("gan_mnist", *words, form=form)
    assert rows(folder)[-1]["step"] == 6
    line = next(line for line in out.splitlines() if line.startswith("classes 0 to 9"))
    shares = [float(word) for word in line.split(":")[1].split(";")[0].split()]
    assert len(shares) == 10 and abs(sum(shares) - 100) < 1
    noise, real = map(float, re.search(r"noise (\S+), other real images (\S+)\)", line).groups())
    assert real < noise
    assert float(re.search(r"accuracy (0\.\d+)", line)[1]) > 0.5
    assert (folder / "figures" / "samples.png").is_file()


def test_the_pair_of_the_scope_has_its_size():
    module = load_module(ROOT / "experiments" / "gan_mnist.py")
    learner = module.gan_learner(module.Config(recipe="plain"), (28, 28, 1))
    batch = {"x": jax.ShapeDtypeStruct((4, 28, 28, 1), "float32")}
    shapes = jax.eval_shape(learner.init, jax.random.key(0), batch).params
    assert tree.count(shapes["generator"]) == 247_440
    assert tree.count(shapes["discriminator"]) == 233_985
