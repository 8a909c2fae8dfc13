"""The average that `ema` evaluates with, computed by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.core.types import Mean, Task
from jdl.learn.ema import ema
from jdl.learn.learner import learner

DECAY = 0.6


def counting_task() -> Task:
    """Its model state is the mean of the batch, a float, and the number of batches, an integer."""

    def init(key, batch):
        return {"w": jnp.ones(())}, {"mean": jnp.zeros(()), "batches": jnp.int32(0)}

    def loss(params, model_state, batch, key, *, train):
        mean = Mean(jnp.sum((params["w"] * batch["x"]) ** 2), jnp.float32(len(batch["x"])))
        seen = {"mean": batch["x"].mean(), "batches": model_state["batches"] + 1}
        return mean, (seen, {"loss": mean})

    predict = lambda params, model_state, batch: batch["x"] - model_state["mean"]
    return Task(init, loss, predict)


def test_batch_statistics_are_averaged_with_the_parameters():
    averaged = ema(learner(counting_task(), optax.sgd(0.1)), DECAY)
    means = np.array([4.0, -1.0, 2.5], np.float32)
    batches = [{"x": np.full(2, mean)} for mean in means]
    state = averaged.init(jax.random.key(0), batches[0])
    for batch in batches:
        state, _ = averaged.step(state, batch)
    shares = DECAY ** np.arange(3)[::-1]
    expected = (shares * means).sum() / shares.sum()
    predicted = averaged.predict(state, {"x": np.zeros(2, np.float32)})
    np.testing.assert_allclose(predicted, -expected, rtol=1e-6)
    _, model_state = state.extra.weights
    assert int(model_state["batches"]) == 3  # an integer is the latest, not an average
    assert float(state.model_state["mean"]) == means[-1]
