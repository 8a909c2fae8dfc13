"""Sharded training: born sharded, moments with their parameters, and the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jdl import tasks
from jdl.learn.ema import EmaState, ema
from jdl.learn.ensemble import ensemble
from jdl.learn.gradient import accumulate
from jdl.learn.guard import guard
from jdl.learn.learner import learner
from jdl.learn.transforms import jit, loop, resident
from jdl.learn.window import window
from jdl.models import Decoder, from_linen
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.pmap import pmap
from jdl.parallel.shard import shard
from jdl.run.execution.placement import placement
from tests.support.learners import (
    KEY,
    assert_close,
    batch,
    compilations,
    message,
    network,
    record,
    train,
)

DATA = jax.tree.map(jnp.asarray, batch())
MESH = mesh(data=4, model=2)
FSDP = rules.fsdp(smallest=1)
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.01),
}


@pytest.mark.parametrize("name", ["sgd", pytest.param("momentum", marks=pytest.mark.slow), "adam"])
@pytest.mark.parametrize("rule", [rules.replicated(), FSDP], ids=["replicated", "fsdp"])
def test_the_numbers_are_those_of_one_device(name, rule):
    one = learner(network(noise=0.1), OPTIMIZERS[name])
    (wide, metrics), (lone, numbers) = (train(each, DATA) for each in (shard(one, MESH, rule), one))
    assert_close(wide, lone)
    assert_close(metrics, numbers)
    assert_close(shard(one, MESH, rule).evaluate(wide, DATA), one.evaluate(lone, DATA))
    assert_close(shard(one, MESH, rule).predict(wide, DATA), one.predict(lone, DATA))


def is_split(leaf):
    return not leaf.sharding.is_fully_replicated


@pytest.mark.parametrize(
    "change",
    [lambda inner: inner, lambda inner: window(ema(guard(inner), 0.9), 3)],
    ids=["plain", "in transforms"],
)
def test_moments_and_averages_are_born_where_their_parameters_are(change):
    wide = change(shard(learner(network(), optax.adam(0.01)), MESH, FSDP))
    for state in (jax.jit(wide.init)(KEY, DATA), train(wide, DATA, 2)[0]):
        moments = state.opt_state[0]
        for params in (moments.mu, moments.nu):
            leaves = map(jax.tree.leaves, (state.params, params))
            for param, moment in zip(*leaves, strict=True):
                assert is_split(param) and is_split(moment)
                assert moment.sharding.is_equivalent_to(param.sharding, param.ndim)
                assert moment.addressable_shards[0].data.size == param.size // 4


@pytest.mark.parametrize(
    "rule",
    [FSDP, pytest.param(rules.parse("in=None,data; out=data"), marks=pytest.mark.slow)],
    ids=["fsdp", "list"],
)
def test_no_device_ever_holds_the_whole(rule):
    """Neither as a result of the compiled init nor on the way to it."""
    one = ema(learner(network(4096), optax.adam(0.01)), 0.9)
    wide = jax.jit(shard(one, mesh(data=8), rule).init).lower(KEY, DATA).compile()
    lone = jax.jit(one.init).lower(KEY, DATA).compile().memory_analysis()
    sizes = wide.memory_analysis()
    assert lone.output_size_in_bytes > 4 * 4 * 4096 * 4
    assert sizes.output_size_in_bytes < lone.output_size_in_bytes / 7
    assert sizes.temp_size_in_bytes < lone.output_size_in_bytes / 4  # less than the parameters
    born = wide(KEY, DATA)
    for leaf in jax.tree.leaves(
        (born.params, born.opt_state[0].mu, record(born, EmaState).weights)
    ):
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 8}
    whole = jax.jit(shard(one, mesh(data=8)).init).lower(KEY, DATA).compile().memory_analysis()
    assert whole.output_size_in_bytes == lone.output_size_in_bytes  # the control


def test_a_resident_set_moves_between_no_devices():
    """Each device gathers its own part of a batch from its copy of the set."""
    held = resident(shard(learner(network(), optax.sgd(0.1)), mesh(data=8)), turned, 8)
    start = jax.jit(held.init)(KEY, DATA)
    data = placement(start)(DATA)
    assert {leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(data)} == {True}
    text = jax.jit(held.step).lower(start, data).compile().as_text()
    assert "all-reduce" in text
    assert not any(kind in text for kind in ("all-gather", "all-to-all", "collective-permute"))


def turned(step, size):
    return (jnp.arange(size) + step) % 16


def test_any_number_of_examples_is_predicted():
    one = learner(network(), optax.sgd(0.1))
    wide = shard(one, MESH, FSDP)
    after = jax.jit(wide.init)(KEY, DATA)
    for examples in (5, 16):
        inputs = {"x": batch(examples, seed=1)["x"]}
        predicted = jax.jit(wide.predict)(after, inputs)
        assert_close(predicted, one.predict(jax.device_put(after, jax.devices()[0]), inputs))
        assert predicted.sharding.is_fully_replicated == (examples == 5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["tensor", "tensor+fsdp", "qkv=model,data; fsdp"])
def test_a_transformer_split_in_any_way_gives_the_same_numbers(rule):
    network = Decoder(vocabulary=6, context=4, blocks=2, heads=2, width=64)
    task = tasks.language_model(from_linen(network), context=4)
    tokens = {"x": jnp.asarray(np.random.default_rng(0).integers(0, 6, (16, 5)), jnp.int32)}
    one = learner(task, optax.sgd(0.1, momentum=0.9))
    wide = shard(one, MESH, rules.parse(rule))
    (after, metrics), (lone, numbers) = (train(each, tokens, 5) for each in (wide, one))
    assert_close(after, lone)
    assert_close(metrics, numbers)
    qkv = after.params["stack"]["block_2"]["attention"]["qkv"]["kernel"]
    assert is_split(qkv)


def test_jax_alone_replicates_the_moments():
    """The control, and the reason for the constraint: nobody asked, so XLA copies them."""
    rows = NamedSharding(MESH, P("data"))
    params = jax.device_put({"w": jnp.zeros((8, 3))}, rows)
    moments = jax.jit(optax.adam(0.1).init)(params)[0]
    assert is_split(params["w"]) and not is_split(moments.mu["w"])


def test_an_average_inside_is_sharded_too():
    wide = shard(ema(learner(network(), optax.adam(0.01)), 0.9), MESH, FSDP)
    average, _ = record(jax.jit(wide.init)(KEY, DATA), EmaState).weights
    assert all(is_split(leaf) for leaf in jax.tree.leaves(average))


def test_accumulated_parts_stay_on_their_devices():
    wide = shard(learner(network(), optax.sgd(0.1), accumulate(4)), mesh(data=4))
    start = jax.jit(wide.init)(KEY, DATA)
    text = jax.jit(wide.step).lower(start, DATA).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text and "all-to-all" not in text


def test_one_program_for_training():
    wide = jit(shard(learner(network(), optax.adam(0.01)), MESH, FSDP), donate=True)
    data = jax.device_put(DATA, NamedSharding(MESH, P()))
    trained = wide.init(KEY, data)
    with compilations() as programs:
        for _ in range(3):
            trained, _ = wide.step(trained, data)
    assert len(programs) == 1, programs


@pytest.mark.slow
def test_members_and_loops_over_a_mesh():
    one = learner(network(noise=0.1), optax.sgd(0.1))
    lone, wide = ensemble(one, 4), shard(ensemble(one, 4), MESH, FSDP)
    assert_close(train(wide, DATA, 3)[0], train(lone, DATA, 3)[0])

    def looped(inner):
        held = loop(resident(window(inner, 4), lambda s, n: (jnp.arange(n) + s) % 16, 8))
        return jax.jit(held.step)(jax.jit(held.init)(KEY, DATA), DATA, 6)

    assert_close(looped(shard(one, MESH, FSDP)), looped(one))


def test_a_batch_that_does_not_divide():
    wide = shard(learner(network(), optax.sgd(0.1)), mesh(data=8))
    odd = batch(examples=12)
    text = message(lambda: wide.step(wide.init(KEY, odd), odd))
    assert text == (
        "batch_size\n  expected: a multiple of 8, the size of mesh axis 'data'\n"
        "  got:      12\n  fix:      use batch_size=8"
    )


def test_the_first_axis_splits_the_batch_where_none_is_called_data():
    wide = shard(learner(network(), optax.sgd(0.1)), mesh(rows=4, columns=2))
    text = message(lambda: wide.step(wide.init(KEY, DATA), batch(examples=6)))
    assert "mesh axis 'rows'" in text


def test_one_form_at_a_time():
    wide = shard(learner(network(), optax.sgd(0.1)), mesh(data=8))
    text = message(lambda: wide.step(wide.init(KEY, DATA), DATA, axis="data"))
    assert text.startswith(
        "shard\n  expected: to be the only transform over devices, and the outermost one\n"
    )
    both = pmap(wide)
    assert message(lambda: both.step(both.init(KEY, DATA), DATA)).startswith("shard\n")


def test_results_are_close_and_not_claimed_to_be_the_same_bits():
    """Sums over devices have another order: tolerances are needed, and small ones do."""
    one = learner(network(64), optax.sgd(0.1))
    wide, lone = (train(each, DATA, 50)[0].params for each in (shard(one, mesh(data=8)), one))
    assert_close(wide, lone, rtol=1e-4, atol=1e-6)
    assert np.isfinite(wide["in"]).all()
