"""Plain JAX by hand: dicts of arrays, and one jit call for each step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.peer_process import Rounds
from benchmarks.peers.jax_loop import drive

Params = Any


def run(peer: str, workload: str, rounds: Rounds) -> None:
    init, loss = NETWORKS[workload]
    drive(lambda key, x: init(key), loss, workload, rounds)


def _dense(key: jax.Array, rows: int, columns: int) -> Params:
    draw = jax.random.normal(key, (rows, columns)) * (2 / rows) ** 0.5
    return {"w": draw, "b": jnp.zeros(columns)}


def _classes(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def cnn_init(key: jax.Array) -> Params:
    keys = jax.random.split(key, 4)
    conv = [
        {"w": jax.random.normal(k, s) * (2 / (9 * s[2])) ** 0.5, "b": jnp.zeros(s[3])}
        for k, s in zip(keys, ((3, 3, 1, 32), (3, 3, 32, 64)), strict=False)
    ]
    return {"conv": conv, "dense": [_dense(keys[2], 3136, 128), _dense(keys[3], 128, 10)]}


def cnn_loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    names = ("NHWC", "HWIO", "NHWC")
    for layer in params["conv"]:
        x = jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "SAME", dimension_numbers=names)
        x = jax.nn.relu(x + layer["b"])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return mlp_loss(params["dense"], x.reshape(len(x), -1), y)


def mlp_init(key: jax.Array) -> Params:
    one, two = jax.random.split(key)
    return [_dense(one, 784, 128), _dense(two, 128, 10)]


def mlp_loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    one, two = params
    return _classes(jax.nn.relu(x @ one["w"] + one["b"]) @ two["w"] + two["b"], y)


def lstm_init(key: jax.Array) -> Params:
    one, two, three = jax.random.split(key, 3)
    return [_dense(one, 32 + 128, 512), _dense(two, 256, 512), _dense(three, 128, 10)]


def lstm_loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    x = x.swapaxes(0, 1)
    for layer in params[:2]:
        inputs = x @ layer["w"][:-128] + layer["b"]
        zero = jnp.zeros((x.shape[1], 128))

        def cell(state: Any, now: jax.Array, w: jax.Array = layer["w"][-128:]) -> Any:
            h, c = state
            i, f, g, o = jnp.split(now + h @ w, 4, -1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, x = jax.lax.scan(cell, (zero, zero), inputs)
    return _classes(x[-1] @ params[2]["w"] + params[2]["b"], y)


def gpt_init(key: jax.Array) -> Params:
    keys = iter(jax.random.split(key, 40))

    def small(*shape: int) -> jax.Array:
        return 0.02 * jax.random.normal(next(keys), shape)

    def norm() -> Params:
        return {"scale": jnp.ones(128), "bias": jnp.zeros(128)}

    def dense(rows: int, columns: int) -> Params:
        return {"w": small(rows, columns), "b": jnp.zeros(columns)}

    blocks = [
        {
            "norm_1": norm(), "qkv": dense(128, 384), "out": dense(128, 128),
            "norm_2": norm(), "up": dense(128, 512), "down": dense(512, 128),
        }
        for _ in range(4)
    ]  # fmt: skip
    return {"table": small(65, 128), "places": small(128, 128), "blocks": blocks, "norm": norm()}


def gpt_loss(params: Params, tokens: jax.Array, _: jax.Array) -> jax.Array:
    x, y = tokens[:, :-1], tokens[:, 1:]
    x = params["table"][x] + params["places"][None]
    for block in params["blocks"]:
        x = x + _attention(block, _norm(block["norm_1"], x))
        h = jax.nn.gelu(_norm(block["norm_2"], x) @ block["up"]["w"] + block["up"]["b"], False)
        x = x + h @ block["down"]["w"] + block["down"]["b"]
    return _classes(_norm(params["norm"], x) @ params["table"].T, y)


def _norm(weights: Params, x: jax.Array) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
    return x * weights["scale"] + weights["bias"]


def _attention(block: Params, x: jax.Array) -> jax.Array:
    batch, time, width = x.shape
    qkv = (x @ block["qkv"]["w"] + block["qkv"]["b"]).reshape(batch, time, 3, 4, 32)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 32**0.5
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
    return out.reshape(batch, time, width) @ block["out"]["w"] + block["out"]["b"]


NETWORKS = {
    "cnn": (cnn_init, cnn_loss),
    "lstm": (lstm_init, lstm_loss),
    "mlp": (mlp_init, mlp_loss),
    "gpt": (gpt_init, gpt_loss),
}
