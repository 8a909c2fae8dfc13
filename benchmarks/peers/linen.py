"""Flax Linen and optax, as their own guides show it."""

from typing import Any

import jax
import optax
from flax import linen as nn

from benchmarks.peer_process import Rounds
from benchmarks.peers.jax_loop import drive


def run(peer: str, workload: str, rounds: Rounds) -> None:
    model, text = NETWORKS[workload](), workload == "gpt"

    def init(key: jax.Array, x: jax.Array) -> Any:
        return model.init(key, x[:, :-1] if text else x)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        if text:
            x, y = x[:, :-1], x[:, 1:]
        logits = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    drive(init, loss, workload, rounds)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in (32, 64):
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x)))


class SmallMLP(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(32)(x)))


class LSTM(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        for _ in range(2):
            x = nn.RNN(nn.OptimizedLSTMCell(128))(x)
        return nn.Dense(10)(x[:, -1])


class GPT(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        table = nn.Embed(65, 128, embedding_init=nn.initializers.normal(0.02))
        places = self.param("places", nn.initializers.normal(0.02), (128, 128))
        mask = nn.make_causal_mask(x)
        x = table(x) + places[None]
        for _ in range(4):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
            h = nn.gelu(nn.Dense(512)(nn.LayerNorm()(x)), approximate=False)
            x = x + nn.Dense(128)(h)
        return table.attend(nn.LayerNorm()(x))


NETWORKS = {"cnn": CNN, "mlp": MLP, "lstm": LSTM, "gpt": GPT}
