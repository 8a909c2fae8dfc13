"""Encoders, their heads, and what layers inside return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.models import CNN, MLP, EncoderWithHead, batched_encoder, layer_outputs

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def test_a_layer_returns_what_it_computes():
    module = MLP((4, 3), 2)
    params = module.init(jax.random.key(0), X)["params"]
    hidden = jax.nn.relu(X @ params["dense_1"]["kernel"] + params["dense_1"]["bias"][None])
    expected = hidden @ params["dense_2"]["kernel"] + params["dense_2"]["bias"][None]
    found = layer_outputs(module, params, X, "dense_2")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match='did you mean "dense_2"'):
        layer_outputs(module, params, X, "dens_2")


def test_a_layer_behind_batch_statistics():
    module, images = CNN((2,), (4,), 3, norm="batch"), jnp.ones((2, 6, 6, 1))
    variables = module.init(jax.random.key(0), images)
    model_state = {name: value for name, value in variables.items() if name != "params"}
    found = layer_outputs(module, variables["params"], images, "dense_1", model_state=model_state)
    assert found.shape == (2, 4)


def test_an_encoder_serves_alone_after_training_with_its_head():
    encoder = MLP((), 8)
    module = EncoderWithHead(encoder, (2, 3), (4,))
    params = module.init(jax.random.key(0), X)["params"]
    assert module.apply({"params": params}, X).shape == (5, 2, 3)
    inside = layer_outputs(module, params, X, "encoder")
    alone = batched_encoder(encoder, params["encoder"], size=2)(X)
    np.testing.assert_allclose(alone, inside, rtol=1e-5, atol=1e-6)
    head = MLP((4,), 6).apply({"params": params["head"]}, jax.nn.relu(inside))
    np.testing.assert_allclose(
        module.apply({"params": params}, X), head.reshape(5, 2, 3), rtol=1e-5, atol=1e-6
    )
