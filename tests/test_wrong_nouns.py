"""Each function of the README with its likeliest wrong argument: the fix is the right call."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jdl

DATA = {"x": np.ones((8, 2), np.float32), "y": np.arange(8, dtype=np.int32) % 3}
SPLITS = jdl.Data(DATA, {}, lambda: DATA, {})
ADAM = optax.adam(1e-3)
MODULE = jdl.models.MLP(features=(), outputs=3)
MODEL = jdl.from_linen(MODULE)
TASK = jdl.classification(MODEL)
LEARNER = jdl.learner(TASK, ADAM)
STATE = LEARNER.init(jax.random.key(0), DATA)
RESULT = jdl.Result(STATE, LEARNER, [], None)


def fit(learner: Any = LEARNER, data: Any = DATA, **more: Any) -> Any:
    return jdl.fit(learner, data, batch_size=8, epochs=1, **more)


class Two(nn.Module):
    @nn.compact
    def __call__(self, tokens, lengths, deterministic):
        x = nn.Dense(3)(tokens) * lengths[:, None]
        return nn.Dropout(0.5)(x, deterministic=deterministic)


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x, scale):
        return self.dense(x) * scale


def first(batches: Any) -> Any:
    return next(iter(batches))


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # model
    "from_linen class": (lambda: jdl.from_linen(jdl.models.MLP), "jdl.from_linen(MLP(...))"),
    "from_linen nnx": (lambda: jdl.from_linen(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), "jdl.from_nnx"),
    "from_linen function": (lambda: jdl.from_linen(lambda x: x), "jdl.from_functions"),
    "from_linen model": (lambda: jdl.from_linen(MODEL), "jdl.from_linen("),
    "from_linen arguments": (lambda: jdl.from_linen(Two()), "jdl.from_functions"),
    "from_nnx instance": (
        lambda: jdl.from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
        "jdl.from_nnx(lambda rngs: Linear(..., rngs=rngs))",
    ),
    "from_nnx linen": (lambda: jdl.from_nnx(MODULE), "jdl.from_linen(module)"),
    "from_nnx linen class": (lambda: jdl.from_nnx(jdl.models.MLP), "jdl.from_linen(module)"),
    "from_nnx arguments": (lambda: jdl.from_nnx(Plain).init(jax.random.key(0), DATA["x"]), "Own"),
    "from_nnx build": (lambda: jdl.from_nnx(lambda rngs: 3).init(None, None), "NNX module"),
    "from_functions module": (lambda: jdl.from_functions(MODULE, MODULE), "jdl.from_linen(module)"),
    "from_functions value": (lambda: jdl.from_functions({}, lambda p, x: x), "lambda key, x"),
    # task
    "classification module": (
        lambda: jdl.classification(MODULE),
        "jdl.from_linen(module)",
    ),
    "classification class": (
        lambda: jdl.classification(jdl.models.MLP),
        "jdl.from_linen(MLP(...))",
    ),
    "classification nnx": (
        lambda: jdl.regression(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
        "jdl.from_nnx(lambda rngs:",
    ),
    "classification task": (lambda: jdl.classification(TASK), "the model that this task"),
    "classification function": (lambda: jdl.classification(lambda x: x), "jdl.from_functions"),
    "binary classification": (lambda: jdl.binary_classification(MODULE), "jdl.from_linen(module)"),
    "loss name": (lambda: jdl.classification(MODEL, loss="mse"), "loss=jdl.tasks."),
    "metrics list": (
        lambda: jdl.classification(MODEL, metrics=[jdl.metrics.accuracy]),
        'metrics={"accuracy": jdl.metrics.accuracy}',
    ),
    "language model": (lambda: jdl.tasks.language_model(MODULE), "jdl.from_linen(module)"),
    "gan": (lambda: jdl.tasks.gan_tasks(MODULE, MODEL, latent=2), "jdl.from_linen(module)"),
    "precision": (lambda: jdl.precision(MODULE), "jdl.from_linen(module)"),
    "l2": (lambda: jdl.l2(LEARNER, 1e-4), "the task that this learner"),
    "l2 model": (lambda: jdl.l2(MODEL, 1e-4), "jdl.classification(model)"),
    "label_smoothing": (lambda: jdl.label_smoothing(MODEL, 0.1), "jdl.classification(model)"),
    # learner
    "learner model": (lambda: jdl.learner(MODEL, ADAM), "jdl.classification(model)"),
    "learner module": (
        lambda: jdl.learner(MODULE, ADAM),
        "jdl.classification(jdl.from_linen(module))",
    ),
    "learner learner": (lambda: jdl.learner(LEARNER, ADAM), "the task that this learner"),
    "learner loss": (lambda: jdl.learner(lambda p, b: 0.0, ADAM), "jdl.Task(init, loss, predict)"),
    "optimizer name": (lambda: jdl.learner(TASK, "adam"), 'jdl.optim.by_name("adam", 1e-3)'),
    "optimizer rate": (lambda: jdl.learner(TASK, 0.1), "optax.adam(0.1)"),
    "optimizer uncalled": (lambda: jdl.learner(TASK, optax.adam), "adam(1e-3)"),
    "gradient uncalled": (
        lambda: jdl.learner(TASK, ADAM, gradient=jdl.accumulate),
        "jdl.accumulate(4)",
    ),
    "gradient number": (lambda: jdl.learner(TASK, ADAM, gradient=4), "jdl.accumulate(4)"),
    "game task": (lambda: jdl.game(generator=TASK), "generator=jdl.Player(task, optax.adam(1e-3))"),
    "game empty": (lambda: jdl.game(), "jdl.Player(task, optax.adam(1e-3))"),
    "game model": (lambda: jdl.game(a=jdl.Player(MODEL, ADAM)), "jdl.classification(model)"),
    "game optimizer": (lambda: jdl.game(a=jdl.Player(TASK, "adam")), "optax.adam(1e-3)"),
    "ema task": (lambda: jdl.ema(TASK, 0.999), "jdl.learner(task, optax.adam(1e-3))"),
    "ema result": (lambda: jdl.ema(RESULT, 0.999), "result.learner"),
    "ensemble swapped": (lambda: jdl.ensemble(32, LEARNER), "jdl.learner(task"),
    "ensemble members": (lambda: jdl.ensemble(LEARNER, 3.5), "such as 32"),
    "guard task": (lambda: jdl.guard(TASK), "jdl.learner(task, optax.adam(1e-3))"),
    "keep_best task": (lambda: jdl.keep_best(TASK, DATA, 10), "jdl.learner(task"),
    "jit module": (
        lambda: jdl.jit(MODULE),
        "jdl.learner(jdl.classification(jdl.from_linen(module)), optax.adam(1e-3))",
    ),
    "sweep learner": (lambda: jdl.sweep(LEARNER, {"rate": [0.1]}), "lambda rate: jdl.learner"),
    "sweep grid": (lambda: jdl.sweep(lambda rate: LEARNER, [0.1]), '{"rate": [1e-3, 1e-2]}'),
    "shard task": (lambda: jdl.shard(TASK, jdl.mesh(data=1)), "jdl.learner(task"),
    "shard mesh": (lambda: jdl.shard(LEARNER, 8), "jdl.mesh(data=8)"),
    "shard mesh dict": (
        lambda: jdl.shard(LEARNER, {"data": 4, "model": 2}),
        "jdl.mesh(data=4, model=2)",
    ),
    "shard rule": (
        lambda: jdl.shard(LEARNER, jdl.mesh(data=1), jdl.rules.fsdp),
        "jdl.rules.fsdp()",
    ),
    "shard rule name": (
        lambda: jdl.shard(LEARNER, jdl.mesh(data=1), "fsdp"),
        "jdl.rules.parse('fsdp')",
    ),
    "pmap task": (lambda: jdl.pmap(TASK), "jdl.learner(task"),
    # run
    "fit task": (lambda: fit(TASK), "jdl.learner(task, optax.adam(1e-3))"),
    "fit model": (
        lambda: fit(MODEL),
        "jdl.learner(jdl.classification(model), optax.adam(1e-3))",
    ),
    "fit module": (lambda: fit(MODULE), "jdl.from_linen(module)"),
    "fit result": (lambda: fit(RESULT), "result.learner"),
    "fit options": (lambda: fit(options={"bar": False}), "jdl.Options("),
    "fit log": (lambda: fit(log="log.txt"), "log=print"),
    "fit start result": (lambda: fit(start=RESULT), "result.state"),
    "fit start path": (lambda: fit(start="runs/a"), "jdl.load('runs/a').state"),
    "steps task": (lambda: first(jdl.steps(TASK, DATA)), "jdl.learner(task"),
    "steps start": (lambda: first(jdl.steps(LEARNER, DATA, start=RESULT)), "result.state"),
    "evaluate learner": (lambda: jdl.evaluate(LEARNER, DATA), "jdl.fit(learner, data)"),
    "evaluate state": (lambda: jdl.evaluate(STATE, DATA), "jdl.Result(state, learner"),
    "evaluate path": (lambda: jdl.evaluate("runs/a", DATA), "jdl.load('runs/a')"),
    "evaluate splits": (lambda: jdl.evaluate(RESULT, SPLITS), "data.test()"),
    "predict feed": (lambda: jdl.predict(RESULT, jdl.Feed(DATA, 4)), "feed.data"),
    "predict learner": (lambda: jdl.predict(LEARNER, DATA["x"]), "jdl.fit(learner, data)"),
    "load result": (lambda: jdl.load(RESULT), "runs/digits/1"),
    "summary module": (lambda: jdl.summary(MODULE, DATA), "jdl.from_linen(module)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_has_the_right_call(name):
    call, fix = WRONG[name]
    with pytest.raises(jdl.InputError) as caught:
        call()
    assert fix in str(caught.value).split("fix:")[1]


def test_the_fix_for_a_module_of_several_arguments_trains():
    with pytest.raises(jdl.InputError) as caught:
        jdl.from_linen(Two())
    functions, _, inputs = str(caught.value).split("fix:")[1].strip().partition(", and inputs=")
    names = {"jdl": jdl, "module": Two()}
    model = eval(functions, names)
    task = jdl.classification(model, inputs=eval(inputs.removesuffix(" in the task"), names))
    batch = {"tokens": DATA["x"], "lengths": np.ones(8, np.float32), "y": DATA["y"]}
    learner = jdl.learner(task, ADAM)
    state = learner.init(jax.random.key(0), batch)
    after, _ = learner.step(state, batch)
    assert int(after.step) == 1 and learner.predict(state, batch).shape == (8, 3)
