"""The learner of a task and an optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl.core import tree
from jdl.core.nouns import check_optimizer, check_task
from jdl.core.types import (
    Axis,
    Batch,
    Gradient,
    GradsAndAux,
    Key,
    Learner,
    Mean,
    Metrics,
    PyTree,
    Task,
    TrainState,
)
from jdl.learn.check_task import checked_task
from jdl.learn.gradient import check_gradient, mean_gradient


def learner(
    task: Task, tx: optax.GradientTransformation, gradient: Gradient = mean_gradient
) -> Learner:
    r"""Train `task` with the optimizer `tx`: $w \leftarrow w + \mathrm{tx}(\nabla L(w))$.

    `step` returns the task's metrics and `gradient_norm`, the global norm of the gradient that the
    optimizer receives. Optimizers that need the loss, such as `optax.contrib.reduce_on_plateau`,
    receive it as `value`. The shapes of the batch are up to the task.

    Raises `InputError` unless `task` is a `Task` and `tx` an optax optimizer.

    >>> import jdl
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> line = jdl.jit(learner(jdl.regression(model), optax.sgd(0.1)))
    >>> batch = {"x": jnp.array([[0.0], [1.0]]), "y": jnp.array([[1.0], [3.0]])}
    >>> state = line.init(jax.random.key(0), batch)
    >>> for _ in range(300):
    ...     state, metrics = line.step(state, batch)
    >>> print(line.predict(state, {"x": jnp.array([[2.0]])}).round(2))
    [[5.]]
    """
    check_task(task, "learner: task")
    check_optimizer(tx, "learner: tx")
    check_gradient(gradient, "learner: gradient")
    task = checked_task(task)
    gradient_of_loss = gradient(task.loss)
    optimizer = optax.with_extra_args_support(tx)

    def init(key: Key, batch: Batch) -> TrainState:
        # Two new keys, because a run donates its state and must not delete the caller's key.
        key, init_key = jax.random.split(key)
        params, model_state = task.init(init_key, batch)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=params,
            model_state=model_state,
            opt_state=tx.init(params),
        )

    def gradients(state: TrainState, batch: Batch, *, axis: Axis = None) -> GradsAndAux:
        key = step_key(state, axis)
        return gradient_of_loss(state.params, state.model_state, batch, key, axis=axis)

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        grads, (model_state, metrics) = gradients(state, batch, axis=axis)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, value=metrics["loss"].value
        )
        params = optax.apply_updates(state.params, updates)
        metrics = metrics | {"gradient_norm": one(_norm(grads, params))}
        state = state.replace(
            step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state
        )
        return state, metrics

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        key = evaluation_key(state)
        _, (_, metrics) = task.loss(state.params, state.model_state, batch, key, train=False)
        return metrics

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return task.predict(state.params, state.model_state, batch)

    return Learner(init, step, evaluate, predict, gradients, task.info)


def _norm(grads: PyTree, params: PyTree) -> jax.Array:
    """The global norm, computed after the update.

    Without the barrier XLA would share the squares with Adam and write them to memory, and the norm
    would compete with the backward pass for threads.
    """
    grads, _ = jax.lax.optimization_barrier((grads, params))
    return tree.norm(grads)


def step_key(state: TrainState, axis: Axis = None) -> Key:
    """The key of this step, `fold_in(key, step)`; with an `axis`, a different one per device."""
    key = jax.random.fold_in(state.key, state.step)
    return key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))


def evaluation_key(state: TrainState) -> Key:
    """The one key of all evaluations of a run, so that only the weights differ between them."""
    return jax.random.fold_in(state.key, 2**32 - 1)


def one(value: Any) -> Mean:
    """A value of this step as a metric that averages over steps with equal weight."""
    return Mean(value, jnp.ones_like(value))
