"""Where a rule puts a leaf, and what it says when it cannot."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jdl import tasks
from jdl.core import tree
from jdl.core.types import TrainState
from jdl.learn.ema import ema
from jdl.learn.learner import learner
from jdl.models import Decoder, from_linen
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.rules import axes_of
from jdl.parallel.shard import shardings
from tests.support.learners import KEY, message

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


def test_fsdp_after_another_rule_splits_what_that_left_whole():
    rule = rules.fsdp(smallest=1, after=rules.regex([("up", P(None, "model")), ("at", P("data"))]))
    assert rule("params/up", (8, 16), MESH) == P("data", "model")
    assert rule("params/up", (6, 16), MESH) == P(None, "model")
    assert rule("params/at", (8, 16), MESH) == P("data")
    assert rule("params/else", (8, 16), MESH) == P(None, "data")


BLOCK = "opt_state/0/mu/stack/block_2"


@pytest.mark.parametrize(
    "path, shape, spec",
    [
        (f"{BLOCK}/attention/qkv/kernel", (8, 24), P(None, "model")),
        (f"{BLOCK}/attention/qkv/bias", (24,), P("model")),
        (f"{BLOCK}/attention/output/kernel", (8, 8), P("model", None)),
        (f"{BLOCK}/attention/output/bias", (8,), P()),
        (f"{BLOCK}/dense_1/kernel", (8, 32), P(None, "model")),
        (f"{BLOCK}/dense_2/kernel", (32, 8), P("model", None)),
        (f"{BLOCK}/dense_2/kernel", (3, 32, 8), P(None, "model", None)),  # members
        ("params/stack/blocks/dense_2/kernel", (3, 32, 8), P(None, "model", None)),  # a scan
        (f"{BLOCK}/dense_2/kernel", (), P()),  # the count of an average
        ("params/tokens/embedding", (64, 8), P("model", None)),
        ("params/tokens/embedding", (65, 8), P(None, "model")),
        ("params/positions/embedding", (16, 8), P()),
        (f"{BLOCK}/norm_1/scale", (8,), P()),
        ("params/dense_1/kernel", (8, 8), P()),  # of an MLP: no block
    ],
)
def test_tensor_splits_a_block_by_columns_and_then_by_rows(path, shape, spec):
    assert rules.tensor()(path, shape, MESH) == spec


def decoder_task():
    network = Decoder(vocabulary=6, context=4, blocks=1, heads=2, width=4)
    return tasks.language_model(from_linen(network), context=4)


def decoder():
    return learner(decoder_task(), optax.adam(0.1))


TOKENS = {"x": jnp.zeros((8, 5), jnp.int32)}


def placed(text, made=None, axes=MESH):
    made = decoder() if made is None else made
    return shardings(jax.eval_shape(made.init, KEY, TOKENS), axes, rules.parse(text))


def test_tensor_finds_the_layers_of_the_transformer():
    params = placed("tensor").params
    split = {path for path, leaf in tree.flatten(params).items() if axes_of(leaf.spec)}
    block = "stack/block_1"
    assert split == {
        *(f"{block}/attention/qkv/kernel", f"{block}/attention/output/kernel"),
        *(f"{block}/dense_1/kernel", f"{block}/dense_2/kernel", "tokens/embedding"),
    }
    moments = placed("tensor").opt_state[0]
    assert moments.mu == moments.nu == params


def test_tensor_of_another_model_says_what_it_looked_for():
    text = message(lambda: shardings(make_state(w=jnp.zeros((8, 8))), MESH, rules.tensor()))
    assert "attention/qkv" in text and "such as params/w" in text and "use fsdp" in text
    inside = rules.fsdp(after=rules.tensor())
    assert message(lambda: shardings(make_state(w=jnp.zeros((8, 8))), MESH, inside)) == text


def test_tensor_wants_an_axis_of_its_own_that_divides():
    assert "add the axis to the mesh: model=2" in message(
        lambda: placed("tensor", axes=mesh(data=8))
    )
    assert "data=1,model=8" in message(lambda: placed("tensor", axes=mesh(model=8)))
    text = message(lambda: placed("tensor", axes=mesh(data=1, model=8)))
    assert text.startswith("params/stack/block_1/attention/output/kernel (4, 4)\n")


def test_a_pattern_found_nowhere_offers_paths():
    text = message(lambda: placed("block_1/atention/qkv=None,model; fsdp"))
    assert text.startswith("pattern 'block_1/atention/qkv'\n  expected: a pattern that matches")
    assert "params/stack/block_1/attention/qkv/kernel" in text
    assert message(lambda: placed("kernel(=model")).startswith("pattern 'kernel('\n")


def test_a_spec_with_too_many_dimensions_names_the_leaf():
    text = message(lambda: placed("norm_1=None,model"))
    assert text.startswith(
        "params/stack/block_1/norm_1/scale (4,)\n  expected: a spec of at most 1"
    )


def test_what_belongs_to_a_parameter_stays_whole_where_its_spec_does_not_fit():
    inner = ema(learner(decoder_task(), optax.adafactor(0.1, min_dim_size_to_factor=2)), 0.9)
    state = placed("qkv/kernel=None,model", inner)
    qkv = "stack/block_1/attention/qkv/kernel"
    found = {path: leaf.spec for path, leaf in tree.flatten(state).items() if path.endswith(qkv)}
    assert found.pop(f"params/{qkv}") == found.pop(f"extra/weights/0/{qkv}") == P(None, "model")
    assert len(found) == 4 and set(found.values()) == {P()}  # factors (4,), (12,), (1,) and a count


@pytest.mark.parametrize(
    "text, path, shape, spec",
    [
        ("data", "params/w", (64, 64), P()),
        ("replicated", "params/w", (64, 64), P()),
        ("fsdp", "params/w", (64, 64), P("data")),
        ("w=None,model", "params/w", (8, 8), P(None, "model")),
        ("w=data+model,None", "params/w", (8, 8), P(("data", "model"))),
        ("zz=model; w{1,2}$=data ;fsdp", "params/w", (8, 8), P("data")),
        ("zz=model; b(=|_)c=data; fsdp", "params/b=c", (8, 8), P("data")),
        ("zz=model; fsdp", "params/w", (64, 64), P("data")),
        ("tensor+fsdp", "stack/block_1/dense_1/kernel", (64, 64), P("data", "model")),
        ("tensor+fsdp", "params/w", (64, 64), P("data")),
    ],
)
def test_rules_in_words(text, path, shape, spec):
    assert rules.parse(text)(path, shape, MESH) == spec


@pytest.mark.parametrize(
    "text, fragments",
    [
        ("fsp", ["--run.sharding", 'did you mean "fsdp"?']),
        ("", ["--run.sharding", "REGEX=SPEC"]),
        ("w=model; fsp", ["'fsp'", "REGEX=SPEC"]),
        ("w=", ["'w='", "as data+model, or None"]),
        ("=model", ["'=model'"]),
        ("w=4", ["'w=4'"]),
        ("w=data+,model", ["'w=data+,model'"]),
    ],
)
def test_words_that_are_no_rule(text, fragments):
    said = message(lambda: rules.parse(text))
    assert all(fragment in said for fragment in fragments), said


def make_state(**params):
    return TrainState(jnp.int32(0), KEY, params, {}, {"moment": params})


@pytest.mark.parametrize(
    "spec, shape",
    [
        (P("data"), (6, 8)),
        (P(None, "nowhere"), (8, 8)),
        (P("data", "data"), (16, 16)),
        (P(("data", "model")), (4, 8)),  # each axis divides 4, their product does not
    ],
)
def test_a_spec_that_does_not_fit_names_the_leaf(spec, shape):
    rule = rules.regex([("params/w", spec)])
    text = message(lambda: shardings(make_state(w=jnp.zeros(shape)), MESH, rule))
    assert text == (
        f"params/w {shape}\n  expected: axes of the mesh {{'data': 4, 'model': 2}} that divide "
        f"the leaf's dimensions, each at most once\n  got:      {spec}\n"
        "  fix:      change the rule for this leaf, or the mesh"
    )


def test_moments_go_by_the_same_rule_and_keys_stay_whole():
    rule = rules.regex([("w", P(("data", "model"))), ("key", P("data"))])
    state = make_state(w=jnp.zeros((8, 3))).replace(key=jax.random.split(KEY, 4))
    placed = shardings(state, MESH, rule)
    assert placed.params["w"].spec == placed.opt_state["moment"]["w"].spec == P(("data", "model"))
    assert placed.key.spec == P() and placed.step.spec == P()
