"""Gradient operators against their definitions, in numpy where that is possible."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl import tasks
from jdl.core import tree
from jdl.core.types import Mean, Task
from jdl.learn.gradient import accumulate, clip_gradient, divide, mean_gradient, sharpness_aware
from jdl.learn.learner import learner
from jdl.models import CNN, MLP, from_linen
from tests.support.learners import KEY, assert_close, batch, differ, message, network, train

NET = network()


def gradient_of(operator, task=NET, data=None, key=KEY, params=None):
    data = batch() if data is None else data
    made, model_state = task.init(KEY, data)
    return jax.jit(operator(task.loss))(made if params is None else params, model_state, data, key)


# Accumulation


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 16])
def test_parts_make_the_gradient_of_the_whole_in_double_precision(parts, x64):
    data = batch(dtype="float64")
    whole, part = (gradient_of(g, data=data) for g in (mean_gradient, accumulate(parts)))
    assert {leaf.dtype for leaf in jax.tree.leaves(part[0])} == {np.dtype("float64")}
    assert_close(part, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("parts", [2, 8])
def test_parts_make_the_gradient_of_the_whole_in_single_precision(parts):
    whole, part = (gradient_of(g) for g in (mean_gradient, accumulate(parts)))
    assert_close(part, whole, rtol=1e-5, atol=1e-7)


def test_parts_with_penalties_and_an_empty_part(x64):
    data = batch(dtype="float64")
    # Of four parts the second has no example left.
    data["mask"] = data["mask"] * (np.arange(16) % 4 != 1)
    task = tasks.l2(NET, 0.1, where=lambda path, leaf: True)
    whole, part = (gradient_of(g, task, data) for g in (mean_gradient, accumulate(4)))
    assert_close(part, whole, rtol=1e-12, atol=1e-14)


def test_the_mean_of_means_would_be_seen(x64):
    """The control: what `accumulate` must not compute is far away when parts weigh unequally."""
    data = batch(dtype="float64")
    whole, _ = gradient_of(mean_gradient, data=data)
    parts = [
        gradient_of(mean_gradient, data={k: v[i::4] for k, v in data.items()})[0] for i in range(4)
    ]
    wrong = jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)
    assert np.abs(wrong["in"] - whole["in"]).max() > 1e-3


def test_a_batch_of_no_weight_has_gradient_zero():
    data = batch() | {"mask": np.zeros(16, np.float32)}
    for operator in (mean_gradient, accumulate(4), clip_gradient(1.0), sharpness_aware(0.1)):
        grads, (_, metrics) = gradient_of(operator, data=data)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
        assert metrics["loss"].weight == 0
    assert not np.any(divide(jnp.ones(2), jnp.zeros(())))


def test_one_accumulated_step_is_one_step():
    data = batch()
    one, _ = train(learner(NET, optax.adam(0.1), accumulate(4)), data, steps=3)
    assert (int(one.step), int(one.opt_state[0].count)) == (3, 3)


@pytest.mark.parametrize("parts", [0, 3, 32])
def test_parts_that_do_not_fit(parts):
    text = message(lambda: gradient_of(accumulate(parts)))
    assert text == (
        f"accumulate({parts})\n  expected: a batch that {parts} divides\n  got:      16 examples\n"
        "  fix:      change the batch size or the number of parts"
    )


def recorder():
    """A task that reports which examples each call has seen, and its key's draw."""

    def loss(params, model_state, batch, key, *, train):
        draw = jax.random.uniform(key)
        seen = model_state["seen"].at[model_state["calls"]].set(batch["x"].sum())
        draws = model_state["draws"].at[model_state["calls"]].set(draw)
        model_state = {"seen": seen, "draws": draws, "calls": model_state["calls"] + 1}
        mean = Mean(params * batch["x"].sum(), jnp.float32(batch["x"].shape[0]))
        return mean, (model_state, {"loss": mean})

    model_state = {"seen": jnp.zeros(4), "draws": jnp.zeros(4), "calls": jnp.int32(0)}
    return Task(lambda key, batch: (jnp.float32(1), model_state), loss, lambda *a: None)


def test_part_i_has_every_kth_example_its_own_key_and_the_earlier_state():
    data = {"x": 2.0 ** np.arange(16, dtype=np.float32)}
    _, (model_state, _) = gradient_of(accumulate(4), recorder(), data)
    np.testing.assert_array_equal(model_state["seen"], [data["x"][i::4].sum() for i in range(4)])
    assert model_state["calls"] == 4 and len(set(np.asarray(model_state["draws"]).tolist())) == 4


def compiled(task, data, parts):
    """The gradient's program for a batch of these shapes; nothing is run."""
    shapes = jax.eval_shape(task.init, KEY, data)
    operator = accumulate(parts) if parts > 1 else mean_gradient
    return jax.jit(operator(task.loss)).lower(*shapes, data, KEY).compile()


SHAPE = jax.ShapeDtypeStruct
LARGE = {
    "mlp": (MLP((64,) * 6, 10), {"x": SHAPE((1024, 32), "float32"), "y": SHAPE((1024,), "int32")}),
    "cnn": (
        CNN((4, 4), (), 10),
        {"x": SHAPE((64, 28, 28, 1), "float32"), "y": SHAPE((64,), "int32")},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_activation_memory_shrinks_with_the_number_of_parts(name):
    module, data = LARGE[name]
    task = tasks.classification(from_linen(module))
    programs = {parts: compiled(task, data, parts) for parts in (1, 4, 16)}
    sizes = {n: p.memory_analysis().temp_size_in_bytes for n, p in programs.items()}
    assert sizes[4] < sizes[1] / 2 and sizes[16] < sizes[4] / 1.5, sizes
    # A convolution's gradient in a while body is many times slower on CPU.
    assert " while(" not in programs[4].as_text()


# The other operators


def test_clipping_is_that_of_optax_and_leaves_small_gradients_alone():
    raw, _ = gradient_of(mean_gradient)
    norm = float(optax.tree.norm(raw))
    for limit in (norm / 3, norm * 3):
        ours, _ = gradient_of(clip_gradient(limit))
        theirs, _ = optax.clip_by_global_norm(limit).update(raw, optax.EmptyState())
        assert_close(ours, theirs)
    assert float(optax.tree.norm(gradient_of(clip_gradient(norm / 3))[0])) == pytest.approx(
        norm / 3
    )
    assert not differ(gradient_of(clip_gradient(norm * 3))[0], raw)


def linear():
    def loss(w, model_state, batch, key, *, train):
        errors = (batch["x"] @ w - batch["y"][:, 0]) ** 2
        mean = Mean((batch["mask"] * errors).sum(), batch["mask"].sum())
        return mean, (model_state, {"loss": mean})

    return Task(lambda key, batch: (jnp.arange(1.0, 4.0), {}), loss, lambda *a: None)


def by_hand(w, data):
    """Gradient of the masked mean squared error of x w, in numpy."""
    errors = data["x"] @ w - data["y"][:, 0]
    return 2 * data["x"].T @ (data["mask"] * errors) / data["mask"].sum()


def test_sharpness_aware_against_numpy(x64):
    data, w, rho = batch(dtype="float64"), np.arange(1.0, 4.0), 0.3
    first = by_hand(w, data)
    expected = by_hand(w + rho * first / np.linalg.norm(first), data)
    ours, (_, metrics) = gradient_of(sharpness_aware(rho), linear(), data)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert np.abs(expected - first).max() > 0.1  # rho matters here
    np.testing.assert_allclose(gradient_of(mean_gradient, linear(), data)[0], first, rtol=1e-12)
    plain_loss = gradient_of(mean_gradient, linear(), data)[1][1]["loss"]
    np.testing.assert_allclose(metrics["loss"].value, plain_loss.value, rtol=1e-15)


def test_nested_operators_against_numpy(x64):
    data, w, rho, limit = batch(dtype="float64"), np.arange(1.0, 4.0), 0.3, 2.0

    def clip(g):
        return g * min(1, limit / np.linalg.norm(g))

    parts = [{k: v[i::2] for k, v in data.items()} for i in range(2)]
    weights = [part["mask"].sum() for part in parts]
    expected = sum(n * clip(by_hand(w, p)) for n, p in zip(weights, parts, strict=True)) / sum(
        weights
    )
    ours, _ = gradient_of(accumulate(2, clip_gradient(limit)), linear(), data)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)

    first = clip(by_hand(w, data))
    expected = clip(by_hand(w + rho * first / np.linalg.norm(first), data))
    ours, _ = gradient_of(sharpness_aware(rho, clip_gradient(limit, accumulate(4))), linear(), data)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert np.linalg.norm(by_hand(w, data)) > limit


@pytest.mark.slow
def test_batch_statistics_are_updated_by_each_part():
    """What the docstring says of accumulate: as many updates as parts, each with its own part."""
    model = from_linen(CNN((2,), (), 3, norm="batch"))
    task = tasks.classification(model)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(8, 6, 6, 1)).astype("f"), "y": rng.integers(0, 3, 8)}
    params, model_state = task.init(KEY, data)
    _, (after, _) = accumulate(2)(task.loss)(params, model_state, data, KEY)
    for i in range(2):
        part = {k: v[i::2] for k, v in data.items()}
        _, (model_state, _) = mean_gradient(task.loss)(params, model_state, part, KEY)
    assert_close(after, model_state)
    assert tree.count(model_state) == 4
