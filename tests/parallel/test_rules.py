"""Where a rule puts a leaf, and what it says when it cannot."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jdl.core.types import TrainState
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.shard import shardings
from tests.small import KEY, message

MESH = mesh(data=4, model=2)


@pytest.mark.parametrize(
    "shape, smallest, spec",
    [
        ((30, 8000), 1024, P(None, "data")),
        ((8000, 30), 1024, P("data")),
        ((64, 64), 1024, P("data")),
        ((16, 16), 1024, P()),
        ((16, 16), 256, P("data")),
        ((63, 65), 1, P()),
        ((3, 3, 64, 128), 1024, P(None, None, None, "data")),
        ((), 1, P()),
        ((0, 4), 1, P()),
    ],
)
def test_fsdp_splits_the_largest_dimension_that_divides(shape, smallest, spec):
    assert rules.fsdp(smallest=smallest)("params/w", shape, MESH) == spec


def test_fsdp_over_another_axis():
    assert rules.fsdp("model", 1)("w", (6, 3), MESH) == P("model")
    text = message(lambda: rules.fsdp("modle")("w", (64, 64), MESH))
    assert text.startswith("fsdp('modle')") and 'did you mean "model"?' in text


def test_replicated_is_everywhere_the_same():
    assert rules.replicated()("w", (64, 64), MESH) == P()


def test_regex_takes_the_first_pattern_and_then_the_rest():
    rule = rules.regex(
        [("query/kernel", P(None, "model")), ("kernel", P("data"))],
        otherwise=rules.fsdp(smallest=1),
    )
    assert rule("params/query/kernel", (4, 4), MESH) == P(None, "model")
    assert rule("params/dense/kernel", (4, 4), MESH) == P("data")
    assert rule("params/dense/bias", (8,), MESH) == P("data")
    assert rules.regex([])("params/dense/bias", (8,), MESH) == P()


def state(**params):
    return TrainState(jnp.int32(0), KEY, params, {}, {"moment": params})


@pytest.mark.parametrize(
    "spec, shape",
    [
        (P("data"), (6, 8)),
        (P(None, "nowhere"), (8, 8)),
        (P(("data", "model")), (4, 8)),  # each axis divides 4, their product does not
    ],
)
def test_a_spec_that_does_not_fit_names_the_leaf(spec, shape):
    rule = rules.regex([("params/w", spec)])
    text = message(lambda: shardings(state(w=jnp.zeros(shape)), MESH, rule))
    assert text == (
        f"params/w {shape}\n  expected: axes of {{'data': 4, 'model': 2}} that divide its "
        f"dimensions\n  got:      {spec}\n  fix:      change the rule for this leaf or the mesh"
    )


def test_moments_go_by_the_same_rule_and_keys_stay_whole():
    rule = rules.regex([("w", P(("data", "model"))), ("key", P("data"))])
    train = state(w=jnp.zeros((8, 3))).replace(key=jax.random.split(KEY, 4))
    placed = shardings(train, MESH, rule)
    assert placed.params["w"].spec == placed.opt_state["moment"]["w"].spec == P(("data", "model"))
    assert placed.key.spec == P() and placed.step.spec == P()
