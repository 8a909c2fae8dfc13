"""Losses for unequal classes and uncertain targets, and exact zeros behind the optimizer."""

import jax.numpy as jnp
import optax

from jdl import tasks
from jdl.learn.learner import learner
from jdl.models import MLP, from_linen
from jdl.optim import soft_threshold
from tests.support.contract_rows import (
    CLASSES,
    DENSE,
    MODEL,
    PLAIN,
    REAL,
    SGD,
    SMALL,
    Row,
    task_row,
)

HALVES = {**DENSE, "half": (jnp.arange(16) % 2).astype(jnp.float32)}

ROWS = [
    task_row("masked_in_training", tasks.mask_training(CLASSES, "half"), HALVES, eager=1),
    task_row(
        "class-weighted focal loss",
        tasks.classification(MODEL, loss=tasks.class_weighted(tasks.focal(2.0), (0.5, 1.0, 2.0))),
        eager=1,
    ),
    task_row(
        "uncertain_regression",
        tasks.uncertain_regression(from_linen(MLP((5,), 6, activation="tanh"))),
        REAL,
        eager=1,
    ),
    Row(
        "soft_threshold",
        lambda around: around(learner(SMALL, optax.chain(SGD, soft_threshold(0.003)))),
        PLAIN,
        eager=1,
    ),
]
