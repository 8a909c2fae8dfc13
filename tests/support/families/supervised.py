"""Tasks with labels, tasks from tasks, and a task of the user's own."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl import tasks
from jdl.core.types import Mean, Task
from tests.support.contract_rows import BINARY, CLASSES, MASKS, MODEL, PLAIN, REAL, SMALL, task_row


def _triple() -> Task:
    """A task of the user's own, with model state: a running mean of the inputs, and a count."""

    def init(key: Any, batch: Any) -> Any:
        model_state = {"mean": jnp.zeros(4), "count": jnp.int32(0)}
        return {"w": jax.random.normal(key, (4, 3))}, model_state

    def loss(params: Any, model_state: Any, batch: Any, key: Any, *, train: bool) -> Any:
        if train:
            mean = 0.9 * model_state["mean"] + 0.1 * batch["x"].mean(0)
            model_state = {"mean": mean, "count": model_state["count"] + 1}
        errors = ((predict(params, model_state, batch) - batch["y"]) ** 2).sum(-1)
        mean = Mean((batch["mask"] * errors).sum(), batch["mask"].sum())
        return mean, (model_state, {"loss": mean})

    def predict(params: Any, model_state: Any, batch: Any) -> Any:
        return batch["x"] @ params["w"]

    return Task(init, loss, predict)


ROWS = [
    task_row("regression", tasks.regression(MODEL), REAL),
    task_row("binary_classification", tasks.binary_classification(MODEL), BINARY),
    task_row("a triple of the user's", _triple(), REAL),
    task_row("l1", tasks.l1(SMALL, 0.01), PLAIN),
    task_row("l2", tasks.l2(SMALL, 0.01), PLAIN),
    task_row("label_smoothing", tasks.label_smoothing(CLASSES, 0.1)),
    task_row(
        "mixup", tasks.mixup(CLASSES, 0.3),
        without={"pmap equals shard": "an example's partner is one of its own device's examples"},
    ),
    task_row(
        "augment", tasks.augment(SMALL, lambda key, x: x + 0.1 * jax.random.normal(key, x.shape)),
        PLAIN, without=MASKS,
    ),
]  # fmt: skip
