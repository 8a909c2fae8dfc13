"""The experiments on imbalance, regularisation and uncertainty, shrunk and run."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.run.experiment import from_file
from tests.experiments.test_experiments import BY_NAME, run
from tests.running import rows

__all__ = ["run"]
pytestmark = pytest.mark.usefixtures("kept_programs")


def numbers(out, name):
    """The numbers of the line of a remark that begins with `name`."""
    line = next(line for line in out.splitlines() if line.startswith(name))
    return [float(found) for found in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]


@pytest.mark.slow
def test_imbalance(run):
    words = ("--seeds", "1", "--epochs", "1", "--strategies", "class weights")
    code, out, _, folder = run("imbalance", *words, "--run.no-report")
    assert code == 0
    found = numbers(out, "class weights")
    assert len(found) == 4 and 0 <= min(found) <= max(found) <= 1
    result = jdl.load(folder)
    module = from_file(BY_NAME["imbalance"])
    config = module.Config(seeds=1, epochs=1, strategies=("class weights",))
    assert set(module.pictures(result, config)) == {"confusion"}


def test_rare_classes_are_rare_and_the_copies_marked():
    module = from_file(BY_NAME["imbalance"])
    train = module.imbalanced(module.Config(kept=4)).train
    originals = train["original"] == 1
    counts = np.bincount(train["y"][originals])
    assert set(counts[[3, 8, 9]]) == {4} and np.delete(counts, [3, 8, 9]).min() > 100
    assert len(set(np.bincount(train["y"]))) == 1
    task = module.originals(jdl.classification(jdl.from_linen(jdl.models.MLP((), 10))))
    batch = {name: jnp.asarray(value[originals][:8]) for name, value in train.items()}
    params, state = task.init(jax.random.key(0), batch)
    loss = lambda batch, train: task.loss(params, state, batch, None, train=train)[0]
    last = batch | {"original": batch["original"].at[4:].set(0)}
    assert (loss(last, True).weight, loss(last, False).weight) == (4, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "methods",
    [
        ("early stopping",),  # sorted by name it would stand before "none"
        pytest.param(
            (
                "plain L1",
                "proximal L1",
                "L2",
                "decoupled decay",
                "dropout",
                "mixup",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_regularisation(run, methods):
    words = ("--seeds", "1", "--steps", "12", "--hidden", "8", "--examples", "70", "--methods")
    code, out, _, folder = run("regularisation", *words, *methods, "--run.no-report")
    assert code == 0
    assert all(0 <= numbers(out, name)[0] <= 1 for name in ("none", *methods))
    assert rows(folder)[-1]["step"] == 12
    module = from_file(BY_NAME["regularisation"])
    config = module.Config(seeds=1, steps=12, hidden=8, examples=70, methods=methods)
    result = jdl.load(folder)
    assert set(module.pictures(result, config)) == {"methods"}
    # Each member's number stands under its own method.
    told = jdl.evaluate(result, jdl.data.load("digits").test())["loss"]
    found = module.scores(result, config)
    for point, loss in zip(module.experiment(config).learner.points, told, strict=True):
        assert found[point["method"]]["loss"][point["seed"]] == pytest.approx(loss)


def test_the_best_weights_are_kept():
    module = from_file(BY_NAME["regularisation"])
    task = jdl.classification(jdl.from_linen(jdl.models.MLP((), 2)))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(16, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    # Trained on the opposite of what is validated, the first evaluation is the best.
    plain = jdl.learner(task, optax.sgd(0.5))
    learner = jdl.jit(module.keep_best(plain, {"x": x, "y": y}, every=2))
    train = learner.init(jax.random.key(0), {"x": x, "y": y})
    for step in range(6):
        train, _ = learner.step(train, {"x": x, "y": 1 - y})
        if step == 1:
            best = train
    expected = plain.evaluate(best.replace(extra={}), {"x": x, "y": y})["loss"].value
    kept = learner.evaluate(train, {"x": x, "y": y})["loss"].value
    now = plain.evaluate(train.replace(extra={}), {"x": x, "y": y})["loss"].value
    np.testing.assert_allclose(kept, expected, rtol=1e-6)
    assert now > kept


@pytest.mark.slow
def test_uncertainty(run):
    words = ("--members", "2", "--steps", "60", "--examples", "200", "--run.no-report")
    code, out, _, folder = run("uncertainty", *words)
    assert code == 0
    module = from_file(BY_NAME["uncertainty"])
    assert set(module.pictures(jdl.load(folder), module.Config(members=2))) == {"uncertainty"}
    told, one = (numbers(out, name)[0] for name in ("loss in nats", "loss with one width"))
    (floor,) = numbers(out, "floor")
    assert floor == pytest.approx(-0.42, abs=0.02) and floor < min(told, one)
