"""The receptive field of a sequence model, measured."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from jdl.run.evaluate import Result, predict


def receptive_field(
    result: Result,
    data: Mapping[str, ArrayLike],
    *,
    step: int,
    back: int,
    symbols: int,
    most: int = 200,
) -> np.ndarray:
    """Measure how much the outputs at `step` change with the symbol 0, 1, ... steps before it.

    `data["x"]` (n, time) holds symbols from 0 to `symbols` - 1, and the outputs are (n, time, k).
    For each of `back` steps, the symbol there is raised by one, modulo `symbols`. The result
    (back,) is the mean absolute change over the outputs and the first `most` sequences. It is zero
    outside the receptive field of a causal network.

    >>> import jax, jax.numpy as jnp, jdl, optax
    >>> def add_previous(params, x):  # each output depends on its own step and the one before
    ...     return params["w"] * (x + jnp.roll(x, 1, axis=1))[..., None]
    >>> model = jdl.from_functions(lambda key, x: {"w": jnp.ones(())}, add_previous)
    >>> learner = jdl.learner(jdl.tasks.sequence_labelling(model), optax.sgd(0.1))
    >>> data = {"x": np.zeros((1, 8), np.int32), "y": np.zeros((1, 8), np.int32)}
    >>> result = jdl.Result(learner.init(jax.random.key(0), data), learner, [], None)
    >>> receptive_field(result, data, step=7, back=4, symbols=2) > 0
    array([ True,  True, False, False])

    Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural
    networks", measure the same by gradients.
    """
    arrays = {name: np.asarray(value)[:most] for name, value in data.items()}
    before, changes = predict(result, arrays), []
    for steps in range(back):
        x = arrays["x"].copy()
        x[:, step - steps] = (x[:, step - steps] + 1) % symbols
        difference = predict(result, {**arrays, "x": x}) - before
        changes.append(np.abs(difference[:, step]).mean())
    return np.array(changes)
