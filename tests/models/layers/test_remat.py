"""Rematerialisation: the same network, fewer activations kept."""

import jax
import jax.numpy as jnp
import pytest

from jdl import tasks
from jdl.core import tree
from jdl.models import Decoder, ResNet, ViT, attention_weights, from_linen, precision
from jdl.models.layers.remat import POLICIES
from tests.support.learners import KEY, assert_close, assert_same_bits, message

IMAGES = jax.random.normal(KEY, (4, 8, 8, 1))
TOKENS = {"x": jnp.arange(12).reshape(2, 6) % 5}


def decoder(remat: str, blocks: int = 2, width: int = 8, dropout: float = 0.1):
    return Decoder(5, 64, blocks, 2, width, dropout, remat=remat)


FAMILIES = {
    "decoder": (lambda remat: decoder(remat, 1), TOKENS["x"]),
    "vit": (lambda remat: ViT(3, 4, 2, 2, 8, remat=remat), IMAGES),
    "resnet": (lambda r: ResNet((1, 1), 4, classes=3, stem="small", remat=r), IMAGES),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_parameters_and_state_keep_their_names_and_shapes(name, policy):
    build, inputs = FAMILIES[name]
    plain, other = (from_linen(build(remat)) for remat in ("none", policy))
    shapes = [jax.eval_shape(model.init, KEY, inputs) for model in (plain, other)]
    assert [list(tree.flatten(s)) for s in shapes[:1]] == [
        list(tree.flatten(s)) for s in shapes[1:]
    ]
    assert shapes[0] == shapes[1]


def _case(name: str, policy: str):
    fast = (name, policy) == ("decoder", "full")
    return pytest.param(name, policy, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "policy"), [_case(n, p) for n in FAMILIES for p in POLICIES])
def test_gradients_state_and_first_weights_are_the_same(name, policy):
    build, inputs = FAMILIES[name]

    def measured(remat):
        model = from_linen(build(remat))
        params, model_state = model.init(KEY, inputs)

        def loss(params):
            outputs, changed = model.apply(params, model_state, inputs, key=KEY, train=True)
            return jnp.mean(outputs**2), (changed, outputs)

        return params, jax.jit(jax.grad(loss, has_aux=True))(params)

    (first, plain), (drawn, made) = measured("none"), measured(policy)
    assert_same_bits(drawn, first)
    assert_close(made, plain, rtol=1e-4, atol=1e-6)


def test_each_policy_keeps_less_than_the_one_before_and_full_keeps_the_inputs_of_blocks():
    """Of six blocks, in bytes between the forward and the backward pass, parameters not counted."""
    kept = {remat: bytes_kept(decoder(remat, 6, 32)) for remat in ("none", "dots", "full")}
    # Measured: 1, 0.19 and 0.05 of what is kept without.
    assert kept["dots"] < 0.3 * kept["none"]
    assert kept["full"] < 0.1 * kept["none"]
    # And in bfloat16 the rest is about half of it.
    assert bytes_kept(decoder("dots", 6, 32), "bfloat16") < 0.6 * kept["dots"]


def bytes_kept(module, dtype: str = "float32") -> int:
    task = tasks.language_model(precision(from_linen(module), dtype))
    batch = {"x": jax.ShapeDtypeStruct((8, 65), jnp.int32)}
    params, _ = jax.eval_shape(task.init, KEY, batch)

    def loss(params, batch):
        return task.loss(params, {}, batch, KEY, train=True)[0].total

    kept = jax.eval_shape(lambda p, b: jax.vjp(lambda p: loss(p, b), p)[1], params, batch)
    return _bytes(kept) - _bytes(params)


def _bytes(values) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(values))


def test_it_computes_the_blocks_a_second_time():
    """The control: a policy that did nothing would cost nothing."""

    def flops(remat):
        model = from_linen(decoder(remat, 1))
        params, _ = jax.eval_shape(model.init, KEY, TOKENS["x"])
        loss = lambda p: model.apply(p, {}, TOKENS["x"])[0].sum()
        return jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]

    assert flops("full") > 1.1 * flops("none")


def test_attention_is_seen_through_it():
    module = decoder("full")
    params, _ = jax.eval_shape(from_linen(module).init, KEY, TOKENS["x"])
    seen = jax.eval_shape(lambda p: attention_weights(module, p, TOKENS["x"]), params)
    assert seen.shape == (2, 2, 2, 6, 6)


def test_a_policy_that_does_not_exist():
    text = message(lambda: from_linen(decoder("ful")).init(KEY, TOKENS["x"]))
    assert text.startswith("remat\n  expected: one of none, dots, full\n  got:      'ful'")
