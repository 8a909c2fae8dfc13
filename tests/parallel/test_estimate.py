"""Plans on eight devices of this machine, against arithmetic; on TPU slices, where the compiler is.

The TPU compiler is in an environment of its own (`make plan-tpu`): elsewhere its tests skip.
"""

import dataclasses
import importlib.util
from contextlib import nullcontext

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import jdl
from jdl.core import tree
from jdl.core.lowering import lowering_for
from jdl.learn.ema import ema
from jdl.parallel import estimate as plans
from jdl.parallel import topology
from jdl.parallel.estimate import estimate, local_bytes, refused_bytes
from jdl.parallel.hlo import Collective
from jdl.parallel.shard import shard
from tests.support.learners import message

HERE = topology.at_hand()
EIGHT = topology.mesh_on(HERE, {"data": 8})
WIDE = 8 * 64 + 64 * 8  # weights of an MLP of 8, 64 and 8 units
BIASES = 64 + 8
BATCH = {"x": np.ones((16, 8), np.float32), "y": np.zeros(16, np.int32)}

needs_tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: see make plan-tpu"
)


def network():
    model = jdl.from_linen(jdl.models.MLP(features=(64,), outputs=8))
    return jdl.learner(jdl.classification(model), optax.adam(1e-3))


def planned(rule, learner=None, mesh=EIGHT, **more):
    one = learner or network()
    return estimate(shard(one, mesh, rule), BATCH, HERE, mesh, rule, **more)


@pytest.fixture(scope="module")
def replicated():
    return planned(jdl.rules.replicated(), memory=10**6, data_set=1000)


@pytest.fixture(scope="module")
def split():
    return planned(jdl.rules.fsdp(smallest=1), ema(network(), 0.9))


def test_the_bytes_of_a_replicated_state(replicated):
    whole = 4 * (WIDE + BIASES)
    assert replicated.held == {
        "parameters": whole,
        "optimizer": 2 * whole + 4,  # Adam's two moments, and its count
        "model state": 0,
        "averages and sums": 4 + 8,  # the step and the key
        "batch": 2 * (8 * 4 + 4),
        "data set": 1000,
    }
    assert replicated.parameters == WIDE + BIASES
    c = replicated.compiled
    assert c.arguments == sum(replicated.held.values()) - 1000
    assert c.aliased >= 3 * whole, "the new state takes the place of the old one"
    assert replicated.needed == c.needed + 1000
    assert replicated.fits and c.temporaries > 0


def test_an_eighth_of_everything_under_fsdp(split):
    whole = 4 * (WIDE + BIASES)
    assert split.held["parameters"] == whole // 8
    assert split.held["optimizer"] == 2 * whole // 8 + 4
    counts = 4 * 4  # the average of each leaf counts its steps
    assert split.held["averages and sums"] == whole // 8 + counts + 12
    assert split.fits is None, "the memory of this machine's devices is not known"
    kernel = tree.flatten(split.state)["opt_state/0/mu/dense_1/kernel"]
    assert kernel.sharding.spec == P(None, "data") and local_bytes(kernel) == 8 * 64 * 4 // 8


def test_data_parallelism_adds_the_gradient_up(replicated):
    (each,) = replicated.collectives
    gradient, sums = 4 * (WIDE + BIASES), 4 * 3  # and loss, weight and right answers
    assert each.kind == "all-reduce" and each.loops == 0
    assert gradient <= each.bytes <= gradient + sums


def test_fsdp_gathers_weights(split):
    kinds = {each.kind for each in split.collectives}
    assert "all-gather" in kinds and kinds & {"all-reduce", "reduce-scatter"}


def test_one_device_has_no_collectives():
    found = estimate(jdl.learner(network_task(), optax.sgd(0.1)), BATCH, HERE)
    assert found.collectives == () and found.mesh == {}
    assert found.held["parameters"] == 4 * (8 * 4 + 4 + 4 * 8 + 8)


def test_the_work_is_that_of_all_devices(replicated, split):
    first, rest = 8 * 64, 64 * 8
    assert replicated.flops.count == split.flops.count == 2 * 16 * (2 * first + 3 * rest)


def test_the_clock_is_the_callers(replicated):
    assert replicated.seconds == {"trace": 0, "compile": 0}


def test_too_little_memory(replicated):
    short = dataclasses.replace(replicated, memory=10_000)
    assert short.fits is False and short.needed == replicated.needed > 10_000


def test_a_compiler_that_refuses(monkeypatch):
    def refuse(lowered):
        text = "RESOURCE_EXHAUSTED: Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
        raise jax.errors.JaxRuntimeError(f"{text}\nand a long account of it")

    monkeypatch.setattr("jax.stages.Lowered.compile", refuse)
    found = planned(jdl.rules.replicated())
    assert found.fits is False and found.compiled is None and found.collectives == ()
    assert found.needed == round(20.5 * 2**30) and found.refusal.endswith("4.75G.")
    assert refused_bytes("nothing of use") is None


def test_another_error_of_the_compiler_is_raised(monkeypatch):
    def fail(lowered):
        raise jax.errors.JaxRuntimeError("INTERNAL: a mistake in the compiler")

    monkeypatch.setattr("jax.stages.Lowered.compile", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a mistake"):
        planned(jdl.rules.replicated())


def test_accumulation_is_a_loop_where_the_devices_are_no_cpu():
    """Planned here, it must be traced as it is there: on CPU the parts are laid out in a row."""
    one = jdl.learner(network_task(), optax.sgd(0.1), jdl.accumulate(4))
    state = jax.eval_shape(one.init, jax.random.key(0), BATCH)

    def loops():
        step = lambda *given: one.step(*given)  # traced anew each time
        return str(jax.make_jaxpr(step)(state, BATCH)).count("scan[")

    assert loops() == 0
    with lowering_for(platform="tpu"):
        assert loops() == 1


def network_task():
    return jdl.classification(jdl.from_linen(jdl.models.MLP(features=(4,), outputs=8)))


def test_a_mesh_that_is_not_the_target():
    text = message(lambda: topology.mesh_on(HERE, {"data": 3}))
    assert text.startswith("mesh(data=3)\n  expected: axes whose product divides 8")
    two = HERE._replace(slices=2)
    text = message(lambda: topology.mesh_on(two, {"model": 1, "data": 8}))
    assert "the first one a multiple of 2" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e:3x3", "fix:      use the nearest one, 2x4 with 8 chips"),
        ("v6e:many", "v6e with one of 1x1, 2x2"),
        ("v5p:16x16", "use the nearest one, 4x8x8 with 256 chips"),
        ("v5:4x4", 'did you mean "v5'),
        ("v5e", "v5e with one of 1x1"),
        ("h100:8", "choose one of v5e, v5p, v6e"),
    ],
)
def test_a_topology_that_does_not_exist(name, words):
    text = message(lambda: topology.tpu(name))
    assert text.startswith(f"topology {name}\n") and words in text
    assert message(lambda: topology.tpu("v5e:4x4", 0)).startswith("slices\n")


def test_without_the_tpu_compiler_the_way_to_it_is_said(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("Unable to find libtpu")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", missing)
    text = message(lambda: topology.tpu("v5e:4x4"))
    assert "the TPU compiler (libtpu)" in text and "libtpu is not installed" in text
    assert 'pip install "jdl-jax[tpu]"' in text and "make plan-tpu" in text


@needs_tpu
@pytest.mark.parametrize(
    ("name", "slices", "chips"),
    [("v5e:1x1", 1, 1), ("v5e:2x4", 1, 8), ("v5p:2x2x1", 1, 4), ("v6e:2x2", 2, 8)],
)
def test_a_step_for_absent_chips(name, slices, chips):
    target = topology.tpu(name, slices)
    assert len(target.devices) == chips and target.platform == "tpu"
    mesh = topology.mesh_on(target, {"data": chips})
    rule = jdl.rules.fsdp(smallest=1)
    found = estimate(shard(network(), mesh, rule), BATCH, target, mesh, rule)
    assert found.fits and found.held["parameters"] == 4 * (WIDE + BIASES) // chips
    assert bool(found.collectives) == (chips > 1)


@needs_tpu
def test_the_compiler_refuses_what_is_too_large():
    target = topology.tpu("v5e:1x1")
    mesh = topology.mesh_on(target, {"data": 1})
    model = jdl.from_linen(jdl.models.MLP(features=(2**16, 2**15), outputs=8))
    large = jdl.learner(jdl.classification(model), optax.adam(1e-3))
    found = estimate(shard(large, mesh), BATCH, target, mesh)
    assert found.fits is False and found.compiled is None
    assert found.needed > target.memory and "exceed" in found.refusal.lower()
    assert found.held["parameters"] > 2**32


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "control"])
def test_a_table_split_by_its_columns_does_not_pull_the_examples_along(monkeypatch, kept):
    """Its vocabulary is odd, so fsdp splits its width: without the constraint XLA follows it."""
    if not kept:
        monkeypatch.setattr("jdl.parallel.shard.lowering_for", lambda **_: nullcontext())
    network = jdl.models.Decoder(vocabulary=1023, context=32, blocks=1, heads=2, width=64)
    one = jdl.learner(jdl.tasks.language_model(jdl.from_linen(network)), optax.sgd(0.1))
    rule, windows = jdl.rules.fsdp(smallest=1), {"x": np.zeros((8, 33), np.int32)}
    found = estimate(shard(one, EIGHT, rule), windows, HERE, EIGHT, rule)
    logits = 32 * 1023 * 4  # of one example, the share of one device
    assert (found.compiled.temporaries < 10 * logits) is kept


def test_the_list_of_chips_is_one_of_sizes():
    for kind, chip in topology.CHIPS.items():
        dimensions = {shape.count("x") for shape in chip.shapes}
        assert dimensions == {2 if kind == "v5p" else 1}
        assert chip.usable < float(chip.memory.split()[0]) * 2**30 * 1.01
    assert plans.STATE_GROUPS.keys() == set(jdl.TrainState.__dataclass_fields__)


def test_collectives_are_records(replicated):
    assert all(isinstance(each, Collective) for each in replicated.collectives)
