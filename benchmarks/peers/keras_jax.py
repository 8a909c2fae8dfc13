"""Keras on JAX: `fit` with 32 steps for each execution."""

import os
import time
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import keras  # pyright: ignore[reportMissingImports]
from keras import layers  # pyright: ignore[reportMissingImports]

from benchmarks.peer_process import EARLY_STEPS, Rounds
from benchmarks.workloads import LEARNING_RATE, WORKLOADS


def run(peer: str, workload: str, rounds: Rounds) -> None:
    work, model = WORKLOADS[workload], NETWORKS[workload]()
    x, y = work.data()
    if workload == "gpt":
        x, y = x[:, :-1], x[:, 1:]
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=32,
    )
    model.fit(x[: work.batch], y[: work.batch], batch_size=work.batch, verbose=0)
    rounds.first()

    def passes(n: int, examples: int | None = None) -> float:
        some = x[:examples], y[:examples]
        return model.fit(*some, batch_size=work.batch, epochs=n, verbose=0).history["loss"][-1]

    early = passes(1, EARLY_STEPS * work.batch)
    passes(1)
    began = time.perf_counter()
    passes(1)
    one = time.perf_counter() - began
    for seconds in rounds.ready(early):
        began, n = time.perf_counter(), max(1, round(seconds / one))
        passes(n)
        spent = time.perf_counter() - began
        one = spent / n
        rounds.done(n * (len(x) // work.batch), spent)


def cnn() -> Any:
    parts = [keras.Input((28, 28, 1))]
    for width in (32, 64):
        parts += [layers.Conv2D(width, 3, padding="same", activation="relu"), layers.MaxPool2D()]
    parts += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10)]
    return keras.Sequential(parts)


def mlp() -> Any:
    dense = [layers.Dense(128, activation="relu"), layers.Dense(10)]
    return keras.Sequential([keras.Input((784,)), *dense])


def lstm() -> Any:
    cells = [layers.LSTM(128, return_sequences=True), layers.LSTM(128)]
    return keras.Sequential([keras.Input((64, 32)), *cells, layers.Dense(10)])


def gpt() -> Any:
    tokens = keras.Input((128,), dtype="int32")
    x = layers.Embedding(65, 128)(tokens)
    x = x + layers.Embedding(128, 128)(keras.ops.arange(128))[None]
    for _ in range(4):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 32)(h, h, use_causal_mask=True)
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(128)(layers.Dense(512, activation="gelu")(h))
    return keras.Model(tokens, layers.Dense(65)(layers.LayerNormalization()(x)))


NETWORKS: dict[str, Callable[[], Any]] = {"cnn": cnn, "mlp": mlp, "lstm": lstm, "gpt": gpt}
