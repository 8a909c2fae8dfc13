"""What the tests of learners share: a small task, and ways to run and to compare."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jdl.core import tree
from jdl.core.types import Learner, Mean, Metrics, Task, TrainState
from jdl.learn.extra import find_records

KEY = jax.random.key(0)


def batch(examples: int = 16, seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Three inputs, one number to predict, and a mask that leaves out about a third."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(examples, 3)).astype(dtype),
        "y": rng.normal(size=(examples, 1)).astype(dtype),
        "mask": (rng.random(examples) > 0.35).astype(dtype),
    }


def network(width: int = 8, noise: float = 0.0, dtype: Any = None) -> Task:
    """Regression with one tanh layer, as a triple of plain functions.

    With `noise` the hidden units are disturbed, so that keys matter.
    """

    def init(key: Any, batch: Any) -> Any:
        one, two = jax.random.split(key)
        inputs = batch["x"].shape[-1]
        kind = dtype or batch["x"].dtype
        return {
            "in": jax.random.normal(one, (inputs, width), kind) * 0.5,
            "out": jax.random.normal(two, (width, 1), kind) * 0.5,
        }, {}

    def forward(params: Any, x: Any, key: Any = None) -> Any:
        hidden = jnp.tanh(x @ params["in"])
        if noise and key is not None:
            hidden = hidden + noise * jax.random.normal(key, hidden.shape, hidden.dtype)
        return hidden @ params["out"]

    def loss(params: Any, model_state: Any, batch: Any, key: Any, *, train: bool) -> Any:
        mask = batch.get("mask", jnp.ones(batch["x"].shape[0]))
        errors = (forward(params, batch["x"], key if train else None) - batch["y"])[:, 0] ** 2
        mean = Mean(jnp.sum(mask * errors), jnp.sum(mask))
        return mean, (model_state, {"loss": mean})

    return Task(init, loss, lambda params, model_state, batch: forward(params, batch["x"]))


def train(
    learner: Learner, batch: Any, steps: int = 10, key: Any = KEY, start: TrainState | None = None
) -> tuple[TrainState, Metrics]:
    """`steps` compiled steps on one batch."""
    step = jax.jit(learner.step, static_argnames="axis")
    state = jax.jit(learner.init)(key, batch) if start is None else start
    metrics: Metrics = {}
    for _ in range(steps):
        state, metrics = step(state, batch)
    return state, metrics


def numbers(values: Any) -> Any:
    """The tree in numpy, with keys as their bits."""
    return jax.tree.map(
        lambda leaf: np.asarray(jax.random.key_data(leaf) if tree.is_key(leaf) else leaf), values
    )


def assert_close(one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    chex.assert_trees_all_close(numbers(one), numbers(other), rtol=rtol, atol=atol)


def assert_same_bits(one: Any, other: Any) -> None:
    one, other = numbers(one), numbers(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (name, a), b in zip(tree.flatten(one).items(), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name


def differ(one: Any, other: Any) -> bool:
    """Whether any number of the two trees differs at all."""
    pairs = zip(*(jax.tree.leaves(numbers(side)) for side in (one, other)), strict=True)
    return any(a.tobytes() != b.tobytes() for a, b in pairs)


def doubled(values: Any) -> Any:
    """The tree with its floats in double precision."""
    return jax.tree.map(
        lambda leaf: leaf if tree.is_key(leaf) or not tree.is_float(leaf) else jnp.float64(leaf),
        values,
    )


def member(values: Any, index: int) -> Any:
    """One member of something that has them on the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], values)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs compiled meanwhile; moving a batch to devices is none."""
    names: list[str] = []

    def listen(event: str, seconds: float, **about: Any) -> None:
        name = str(about.get("fun_name"))
        if event.endswith("backend_compile_duration") and "_multi_slice" not in name:
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def message(call: Callable[[], Any]) -> str:
    """The text of the InputError that the call raises."""
    import pytest

    from jdl.core.errors import InputError

    with pytest.raises(InputError) as info:
        call()
    return str(info.value)


def record(state, kind):
    """The record of a transform in a state: the outermost of that type."""
    return find_records(state.extra, kind)[0]
