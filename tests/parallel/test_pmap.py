"""Collectives in plain sight: pmap and the step inside shard_map."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jdl import tasks
from jdl.core.types import Count, Mean, Task
from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.gradient import accumulate, clip_gradient, divide, mean_gradient, sharpness_aware
from jdl.learn.guard import GuardState, guard
from jdl.learn.learner import learner
from jdl.learn.transforms import jit, loop, resident
from jdl.learn.window import window
from jdl.models import CNN, from_linen
from jdl.parallel.mesh import mesh
from jdl.parallel.pmap import pmap
from jdl.parallel.shard import shard
from jdl.parallel.shard_map import shard_map
from tests.support.learners import (
    KEY,
    assert_close,
    batch,
    compilations,
    differ,
    message,
    network,
    record,
    train,
)

DATA = jax.tree.map(jnp.asarray, batch())
FORMS = {
    "mean_gradient": mean_gradient,
    "accumulate": accumulate(2),
    "sharpness_aware": sharpness_aware(0.05),
    "clip_gradient": clip_gradient(0.1, accumulate(2)),
    "accumulate of clip_gradient": accumulate(2, clip_gradient(0.1)),
}


def mapped(inner):
    """The learner whose step runs inside shard_map."""
    return shard_map(inner, mesh(data=8))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("over", [pmap, mapped], ids=["pmap", "shard_map"])
def test_the_numbers_are_those_of_one_device(form, over):
    one = learner(network(), optax.sgd(0.1), FORMS[form])
    (wide, metrics), (lone, numbers) = (train(each, DATA, 5) for each in (over(one), one))
    assert_close(wide.params, lone.params)
    assert_close(metrics, numbers)
    assert differ(lone.params, jax.jit(one.init)(KEY, DATA).params)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "axes", [{"data": 4, "model": 2}, *(pytest.param({n: 8}, marks=SLOW) for n in ("data", "rows"))]
)
def test_shard_map_with_adam_over_any_mesh(axes):
    one = learner(network(), optax.adam(0.01))
    wide = shard_map(one, mesh(**axes))
    (after, metrics), (lone, numbers) = (train(each, DATA, 5) for each in (wide, one))
    assert_close(after, lone)
    assert_close(metrics, numbers)
    assert len(after.params["in"].sharding.device_set) == np.prod(list(axes.values()))
    assert_close(wide.evaluate(after, DATA), one.evaluate(lone, DATA))
    assert_close(wide.predict(after, DATA), one.predict(lone, DATA))


@pytest.mark.slow
@pytest.mark.parametrize("over", [pmap, mapped], ids=["pmap", "shard_map"])
def test_once_in_double_precision(over, x64):
    data = batch(dtype="float64")
    one = guard(learner(network(), optax.sgd(0.1, momentum=0.9), accumulate(2)))
    (wide, _), (lone, _) = (train(each, data, 10) for each in (over(one), one))
    assert_close(wide, lone, rtol=1e-9, atol=1e-12)


def mistaken(loss):
    """What tutorials write: the mean of the devices' gradients, inside shard_map."""

    def gradient(params, model_state, batch, key, *, axis=None):
        def total(params):
            mean, aux = loss(params, model_state, batch, key, train=True)
            return mean.total, (mean.weight, aux)

        grads, (weight, (model_state, metrics)) = jax.grad(total, has_aux=True)(params)
        # Already summed over the devices, because the parameters are the same on all of them.
        grads = jax.lax.pmean(divide(grads, weight), axis)
        return grads, (model_state, jax.lax.psum(metrics, axis))

    return gradient


@pytest.mark.slow
def test_a_mean_after_the_hidden_sum_is_eight_times_too_large():
    """The control: SGD shows it; Adam, which divides by the gradient's size, would not."""
    data = {name: value for name, value in DATA.items() if name != "mask"}
    moved = {}
    for name, tx in {"sgd": optax.sgd(1e-3), "adam": optax.adam(1e-3, eps=0.0)}.items():
        start = jax.jit(learner(network(), tx).init)(KEY, data).params["in"]
        right, wrong = (
            train(mapped(learner(network(), tx, gradient)), data, 1)[0].params["in"] - start
            for gradient in (mean_gradient, mistaken)
        )
        moved[name] = float(jnp.abs(wrong).sum() / jnp.abs(right).sum())
    assert moved["sgd"] == pytest.approx(8, rel=1e-3)
    assert moved["adam"] == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_transforms_inside_and_outside():
    one = learner(network(), optax.sgd(0.1))
    lone, _ = train(one, DATA, 5)
    for change in (
        lambda inner: pmap(window(ema(guard(inner), 0.9), 3)),
        lambda inner: window(ema(guard(pmap(inner)), 0.9), 3),
    ):
        wide, metrics = train(change(one), DATA, 5)
        assert_close(wide.params, lone.params)
        assert int(metrics["skipped"].weight) == 2 and int(metrics["skipped"].total) == 0
    held = loop(resident(pmap(one), lambda s, n: (jnp.arange(n) + s) % 16, 16))
    looped, _ = jax.jit(held.step)(jax.jit(held.init)(KEY, DATA), DATA, 5)
    assert_close(looped.params, lone.params)
    many = ensemble(one, 3)
    assert_close(train(pmap(many), DATA, 3)[0].params, train(many, DATA, 3)[0].params)


def test_guard_refuses_on_all_devices_at_once():
    bad = DATA | {"x": DATA["x"].at[3, 0].set(jnp.nan), "mask": jnp.ones(16)}
    for change in (lambda inner: guard(pmap(inner)), lambda inner: pmap(guard(inner))):
        wide = change(learner(network(), optax.adam(0.1)))
        after, metrics = train(wide, bad, 3)
        assert not differ(after.params, jax.jit(wide.init)(KEY, bad).params)
        assert int(record(after, GuardState).skipped) == 3 and int(metrics["skipped"].total) == 1


def drawing():
    """A task that reports the sum and the sum of squares of the devices' random draws."""
    task = network()

    def loss(params, model_state, batch, key, *, train):
        mean, (model_state, metrics) = task.loss(params, model_state, batch, key, train=train)
        draw = jax.random.normal(key)
        more = {"draw": Mean(draw, jnp.float32(1)), "square": Mean(draw**2, jnp.float32(1))}
        return mean, (model_state, metrics | more)

    return task._replace(loss=loss)


def test_each_device_draws_for_itself_and_each_step_anew():
    step = jax.jit(pmap(learner(drawing(), optax.sgd(0.1))).step)
    start = jax.jit(learner(drawing(), optax.sgd(0.1)).init)(KEY, DATA)
    after, first = step(start, DATA)
    _, second = step(after, DATA)
    assert float(first["draw"].weight) == 8
    # Eight draws of one key would have no spread.
    spread = float(first["square"].value - first["draw"].value ** 2)
    assert spread > 0.05
    assert float(first["draw"].total) != float(second["draw"].total)


class Dropped(nn.Module):
    """What dropout leaves of ones, times a weight."""

    @nn.compact
    def __call__(self, x, train=False):
        weight = self.param("weight", nn.initializers.ones, ())
        return nn.Dropout(0.3, deterministic=not train)(weight * jnp.ones((len(x), 200)))


def masking():
    """A task that reports the dropout mask of each device, (device, example, unit)."""
    model = from_linen(Dropped())

    def loss(params, model_state, batch, key, *, train):
        outputs, model_state = model.apply(params, model_state, batch["x"], key=key, train=train)
        mean = Mean(jnp.sum(outputs**2), jnp.float32(len(outputs)))
        own = jax.nn.one_hot(jax.lax.axis_index("data"), 8)[:, None, None]
        kept = Count(own * (outputs != 0)[None], np.asarray)
        return mean, (model_state, {"loss": mean, "kept": kept})

    return Task(lambda key, batch: model.init(key, batch["x"]), loss, lambda *_: None)


@pytest.mark.parametrize("over", [pmap, mapped], ids=["pmap", "shard_map"])
def test_masks_differ_between_devices_at_the_rate_that_was_asked_for(over):
    wide = over(learner(masking(), optax.sgd(0.0)))
    start = jax.jit(wide.init)(KEY, DATA)
    after, first = jax.jit(wide.step)(start, DATA)
    second = jax.jit(wide.step)(after, DATA)[1]
    masks = np.concatenate([first["kept"].sum, second["kept"].sum]).reshape(16, -1)
    # Two masks of rate 0.7 agree in 0.58 of their places, where they are drawn apart.
    agree = (masks[:, None] == masks[None]).mean(-1)[~np.eye(16, dtype=bool)]
    assert agree.min() > 0.45 and agree.max() < 0.71
    assert abs(masks.mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / masks.size)


def pictures():
    rng = np.random.default_rng(0)
    # Batch statistics of the parts differ from those of the whole.
    x = rng.normal(size=(16, 6, 6, 1)) + np.arange(16)[:, None, None, None] / 4
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(rng.integers(0, 3, 16))}


def normalised(axis):
    model = from_linen(CNN((2,), (), 3, norm="batch", axis_name=axis))
    return learner(tasks.classification(model), optax.sgd(0.1))


@pytest.mark.slow
@pytest.mark.parametrize("over", [pmap, mapped], ids=["pmap", "shard_map"])
def test_batch_statistics_over_all_devices(over):
    data = pictures()
    wide, whole = over(normalised("data")), shard(normalised(None), mesh(data=8))
    (one, _), (other, _) = (train(each, data, 5) for each in (wide, whole))
    assert_close(
        (one.params, one.model_state), (other.params, other.model_state), rtol=1e-4, atol=1e-5
    )
    assert_close(wide.evaluate(one, data), whole.evaluate(other, data), rtol=1e-4)


def test_without_the_axis_name_each_device_has_its_own():
    """The control, and what the docstring of pmap says."""
    data = pictures()
    lone = normalised(None)
    (one, _), (other, _) = (train(each, data, 3) for each in (pmap(lone), lone))
    assert np.abs(one.params["output"]["kernel"] - other.params["output"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("over", [pmap, pytest.param(mapped, marks=SLOW)])
def test_running_averages_are_averaged_over_the_devices(over):
    data, lone = pictures(), normalised(None)
    start = jax.jit(lone.init)(KEY, data)
    after, _ = jax.jit(over(lone).step)(start, data)
    step = jax.jit(lone.step)
    parts = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], data) for i in range(8)]
    own = [step(start, part)[0].model_state for part in parts]
    assert differ(own[0], own[1])
    mean = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), 0), *own)
    assert_close(after.model_state, mean)
    # The control: the statistics of the whole batch are others.
    assert differ_by(after.model_state, step(start, data)[0].model_state) > 1e-3


def differ_by(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


@pytest.mark.parametrize("over", [pmap, mapped], ids=["pmap", "shard_map"])
def test_one_program_from_the_first_step_on(over):
    for change in (lambda inner: inner, lambda inner: window(guard(inner), 3)):
        wide = jit(change(over(learner(network(), optax.adam(0.1)))))
        trained = wide.init(KEY, DATA)
        with compilations() as programs:
            for _ in range(3):
                trained, _ = wide.step(trained, DATA)
        assert len(programs) == 1, programs


def test_fewer_devices():
    one = learner(network(), optax.sgd(0.1))
    wide, _ = train(pmap(one, devices=2), DATA, 3)
    assert len(wide.params["in"].devices()) == 2
    assert_close(wide.params, train(one, DATA, 3)[0].params)


@pytest.mark.parametrize("devices", [0, 9])
def test_devices_that_are_not_there(devices):
    text = message(lambda: pmap(learner(network(), optax.sgd(0.1)), devices=devices))
    assert text == (
        "pmap(devices=...)\n  expected: from 1 to 8, the number of local devices\n"
        f"  got:      {devices}\n"
        "  fix:      pass a smaller number, or leave devices out to use all local devices"
    )


def test_a_batch_that_does_not_divide():
    wide = pmap(learner(network(), optax.sgd(0.1)))
    start = wide.init(KEY, DATA)
    text = message(lambda: wide.step(start, batch(examples=20)))
    assert text == (
        "batch_size\n  expected: a multiple of the 8 devices\n"
        "  got:      20\n  fix:      use batch_size=16"
    )
    assert "use batch_size=8" in message(lambda: wide.step(start, batch(examples=5)))
    assert "use batch_size=16" in message(
        lambda: mapped(learner(network(), optax.sgd(0.1))).step(start, batch(20))
    )


@pytest.mark.parametrize("name, over", [("pmap", pmap), ("shard_map", mapped)])
def test_one_form_at_a_time(name, over):
    wide = over(learner(network(), optax.sgd(0.1)))
    start = wide.init(KEY, DATA)
    assert message(lambda: wide.step(start, DATA, axis="data")).startswith(
        f"{name}\n  expected: to be the only transform over devices"
    )
    assert message(lambda: pmap(wide).step(start, DATA)).startswith(f"{name}\n")
