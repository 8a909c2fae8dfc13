"""The table of where a state lies: what it says is what the devices hold."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

import jdl
from jdl.core import tree
from jdl.learn.ema import ema
from jdl.parallel.describe import describe_layout
from jdl.parallel.mesh import mesh
from jdl.parallel.shard import shardings
from tests.support.learners import KEY, batch, network

MESH = mesh(data=4, model=2)
DATA = jax.tree.map(jnp.asarray, batch())


def born(rule, made=None):
    inner = jdl.learner(network(), optax.adam(0.1)) if made is None else made
    return jax.jit(jdl.shard(inner, MESH, rule).init)(KEY, DATA)


def test_it_says_what_each_device_holds():
    state = born(
        jdl.rules.parse("in=None,data+model; fsdp"),
        ema(jdl.learner(network(), optax.adam(0.1)), 0.9),
    )
    assert describe_layout(state).splitlines() == [
        "layout on the mesh data=4, model=2 (8 × cpu):",
        "leaf                            shape  spec             bytes per device",
        "params/in                       3x8    None,data+model          12 bytes",
        "params/out                      8x1    whole                    32 bytes",
        "opt_state  (5 leaves, 2 split)                                  92 bytes",
        "extra  (4 leaves, 1 split)                                      52 bytes",
        "a device holds 192 bytes of 528 bytes; 4 of 12 leaves are split",
    ]
    device = jax.devices()[5]
    held = [
        shard.data.nbytes
        for leaf in jax.tree.leaves(state)
        if not tree.is_key(leaf)
        for shard in leaf.addressable_shards
        if shard.device == device
    ]
    assert sum(held) == 192


def test_moments_that_lie_apart_from_their_parameter_are_named():
    lines = describe_layout(born(jdl.rules.regex([("mu/in", P(None, "data"))]))).splitlines()
    (line,) = [line for line in lines if "unlike its parameter" in line]
    assert line.startswith("opt_state/0/mu/in  (unlike its parameter)  3x8 ")
    assert line.split()[-3:] == ["None,data", "24", "bytes"]


def planned(blocks, rule):
    """A decoder as it is to lie: nothing is made."""
    network = jdl.models.Decoder(vocabulary=8, context=4, blocks=blocks, heads=2, width=8)
    task = jdl.tasks.language_model(jdl.from_linen(network), context=4)
    shapes = jax.eval_shape(
        jdl.learner(task, optax.sgd(0.1)).init, KEY, {"x": jnp.zeros((8, 5), int)}
    )
    places = shardings(shapes, MESH, rule)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def test_blocks_of_a_stack_are_one_line():
    lines = [line.split() for line in describe_layout(planned(3, jdl.rules.tensor())).splitlines()]
    name = "params/stack/block_*/dense_2/kernel"
    assert [name, "(3", "times)", "32x8", "model,None", "1.5", "kB"] in lines
    assert len(lines) == 2 + 9 + 1


def test_where_lines_are_many_small_leaves_are_summed_up(monkeypatch):
    monkeypatch.setattr("jdl.parallel.describe.MAX_LINES", 8)
    lines = describe_layout(planned(3, jdl.rules.tensor())).splitlines()
    assert len(lines) == 2 + 9 + 1 and lines[-2].startswith("params  (1 smaller leaves)")


def test_a_state_on_no_mesh_has_no_table():
    assert describe_layout(jax.jit(jdl.learner(network(), optax.sgd(0.1)).init)(KEY, DATA)) is None
