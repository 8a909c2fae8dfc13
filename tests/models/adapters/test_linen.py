"""Linen, NNX and plain functions become the same pair of pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import CNN, MLP, from_functions, from_linen, from_nnx

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(5, name="dense")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dropout(0.5, deterministic=not train, name="dropout")(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(5, 5, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        x = self.dropout(self.norm(self.dense(x)))
        for block in self.blocks:
            x = block(x)
        return x


def plain_init(key, inputs):
    return {"w": jax.random.normal(key, (inputs.shape[-1], 5))}


def full_apply(params, model_state, inputs, *, key=None, train=False):
    outputs = inputs @ params["w"]
    if train:
        outputs = outputs * jax.random.bernoulli(key, 0.5, outputs.shape)
        model_state = {"seen": model_state["seen"] + 1}
    return outputs, model_state


MODELS = {
    "linen": lambda: from_linen(LinenNet()),
    "nnx": lambda: from_nnx(NnxNet),
    "functions": lambda: from_functions(
        lambda key, inputs: (plain_init(key, inputs), {"seen": jnp.int32(0)}), full_apply
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_training_draws_by_key_changes_state_and_mutates_nothing(model):
    params, model_state = model.init(KEY, X)
    before = jax.tree.map(np.asarray, (params, model_state))
    train = jax.jit(lambda key: model.apply(params, model_state, X, key=key, train=True))
    (one, new), (again, _), (other, _) = (train(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert jax.tree.structure(new) == jax.tree.structure(model_state)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (new, model_state)), strict=True)
    )
    jax.tree.map(np.testing.assert_array_equal, before, (params, model_state))


def test_evaluation_needs_no_key_and_returns_the_same_state(model):
    params, model_state = model.init(KEY, X)
    outputs, same = model.apply(params, model_state, X)
    assert same is model_state
    np.testing.assert_array_equal(outputs, model.apply(params, model_state, X)[0])


def test_same_key_same_bits_and_another_key_differs(model):
    one, two, other = (model.init(key, X)[0] for key in (KEY, KEY, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert any(
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def test_jit_and_vmap_pass_through(model):
    keys = jax.random.split(KEY, 3)
    params, model_state = jax.vmap(lambda key: model.init(key, X))(keys)
    lone, lone_model_state = model.init(keys[1], X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-6), params, lone)

    @jax.jit
    def apply(params, model_state):
        return jax.vmap(lambda p, s: model.apply(p, s, X, key=KEY, train=True))(params, model_state)

    outputs, _ = apply(params, model_state)
    expected, _ = model.apply(lone, lone_model_state, X, key=KEY, train=True)
    np.testing.assert_allclose(outputs[1], expected, rtol=1e-5, atol=1e-6)


def test_nnx_equals_linen():
    linen, module = from_linen(LinenNet()), from_nnx(NnxNet)
    params, model_state = linen.init(KEY, X)
    same, same_model_state = module.init(KEY, X)
    same = {**same, "dense": params["dense"], "norm": params["norm"]}
    eye = {"kernel": jnp.eye(5), "bias": jnp.zeros(5)}
    same["blocks"] = {"0": eye, "1": eye}
    assert tree.flatten(model_state).keys() == tree.flatten(same_model_state).keys()
    np.testing.assert_allclose(
        module.apply(same, same_model_state, X)[0],
        linen.apply(params, model_state, X)[0],
        rtol=1e-6,
    )
    # The statistics do not depend on the dropout after them.
    after = [
        m.apply(p, s, X, key=KEY, train=True)[1]
        for m, p, s in ((linen, params, model_state), (module, same, same_model_state))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *after)


def test_nnx_state_has_plain_arrays_under_string_names_and_no_keys():
    params, model_state = from_nnx(NnxNet).init(KEY, X)
    assert set(tree.flatten(params)) == {
        "blocks/0/bias", "blocks/0/kernel", "blocks/1/bias", "blocks/1/kernel",
        "dense/bias", "dense/kernel", "norm/bias", "norm/scale",
    }  # fmt: skip
    assert set(tree.flatten(model_state)) == {"batch_stats/norm/mean", "batch_stats/norm/var"}
    assert all(
        type(leaf).__name__ == "ArrayImpl" for leaf in jax.tree.leaves((params, model_state))
    )


def test_short_functions():
    model = from_functions(plain_init, lambda params, inputs: inputs @ params["w"])
    params, model_state = model.init(KEY, X)
    assert model_state == {}
    np.testing.assert_array_equal(
        model.apply(params, model_state, X, key=KEY, train=True)[0], X @ params["w"]
    )


def test_short_functions_are_told_key_and_train_if_they_take_them():
    model = from_functions(
        plain_init, lambda params, inputs, *, key=None, train=False: (key is not None, train)
    )
    params, model_state = model.init(KEY, X)
    assert model.apply(params, model_state, X)[0] == (False, False)
    assert model.apply(params, model_state, X, key=KEY, train=True)[0] == (True, True)


def test_full_functions_must_return_params_and_state():
    model = from_functions(plain_init, full_apply)
    with pytest.raises(
        InputError, match=r"(?s)\(params, model_state\).*leave model_state out of apply"
    ):
        model.init(KEY, X)


def test_every_random_stream_of_linen_is_fed():
    class Streams(nn.Module):
        @nn.compact
        def __call__(self, x):
            names = ("dropout", "noise", "sample")
            return jnp.stack([jax.random.normal(self.make_rng(name)) for name in names])

    outputs, _ = from_linen(Streams()).apply({}, {}, X, key=KEY, train=True)
    assert len(set(outputs.tolist())) == 3


@pytest.mark.parametrize("name, drops", [("training", True), ("deterministic", False)])
def test_other_words_for_train_are_understood(name, drops):
    class Other(nn.Module):
        @nn.compact
        def __call__(self, x, **flags):
            return x

    def call(self, x, training=None, deterministic=None):
        on = training if name == "training" else deterministic
        return jnp.zeros_like(x) if on is drops else x

    # One word each: a module with both would be told both.
    arguments = {
        "training": lambda self, x, training: call(self, x, training=training),
        "deterministic": lambda self, x, deterministic: call(self, x, None, deterministic),
    }
    Other.__call__ = arguments[name]
    model = from_linen(Other())
    assert not model.apply({}, {}, X, train=True, key=KEY)[0].any()
    assert model.apply({}, {}, X, train=False)[0].any()


def test_training_without_a_key_says_so():
    for make in (from_linen(LinenNet()), from_nnx(NnxNet)):
        params, model_state = make.init(KEY, X)
        with pytest.raises(InputError, match="expected: a random key"):
            make.apply(params, model_state, X, train=True)


def test_inputs_that_do_not_fit_the_parameters():
    model = from_linen(MLP())
    params, model_state = model.init(KEY, X)
    with pytest.raises(InputError, match=r"(?s)shapes that the parameters.*got: +shape \(6, 3\)"):
        model.apply(params, model_state, X[:, :3])


def test_an_image_too_small_for_the_network_names_layer_and_size():
    with pytest.raises(InputError) as caught:
        from_linen(CNN()).init(KEY, jnp.zeros((2, 8, 8, 1)))
    message = str(caught.value)
    assert "layer pool_2" in message and "(2, 0, 0, 64)" in message
    assert "image is too small" in message
    from_linen(CNN(hidden=())).init(KEY, jnp.zeros((2, 10, 10, 1)))
    with pytest.raises(InputError, match="layer conv_2"):
        from_linen(CNN(hidden=())).init(KEY, jnp.zeros((2, 4, 4, 1)))


def test_flax_alone_would_accept_it():
    """The negative control: this network's output does not depend on the image."""

    class Summed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), padding="VALID", name="conv")(x).sum((1, 2))
            return nn.Dense(3, name="dense")(x)

    images = jax.random.normal(KEY, (2, 2, 2, 1))
    outputs, _ = Summed().init_with_output(KEY, images)
    assert not outputs.any()
    with pytest.raises(InputError, match="layer conv"):
        from_linen(Summed()).init(KEY, images)


def test_empty_operations_of_other_models():
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), padding="VALID", rngs=rngs)

        def __call__(self, x):
            return jax.jit(self.conv)(x).mean((1, 2))

    with pytest.raises(InputError, match=r"(?s)conv_general_dilated.*\(2, 0, 0, 4\)"):
        from_nnx(Small).init(KEY, jnp.zeros((2, 2, 2, 1)))
    from_nnx(Small).init(KEY, jnp.zeros((2, 3, 3, 1)))


@pytest.mark.parametrize("make", [lambda: from_linen(MLP()), lambda: from_nnx(NnxNet)])
def test_an_empty_batch_is_refused(make):
    with pytest.raises(InputError, match="at least one example"):
        make().init(KEY, X[:0])


def test_numpy_inputs_of_double_precision_give_float32_parameters():
    params, _ = from_linen(MLP()).init(KEY, np.zeros((2, 3)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
