"""Learner -> Learner: the weights with the best validation loss, chosen inside the program."""

import jax
import jax.numpy as jnp
from flax import struct

from jdl.core import tree
from jdl.core.errors import InputError, check_count, error
from jdl.core.nouns import check_learner
from jdl.core.types import Axis, Batch, Key, Learner, Metrics, PyTree, TrainState
from jdl.learn.extra import evaluate_with_own_weights, evaluation_weights, inner_state


@struct.dataclass
class BestState:
    """The lowest validation loss so far, one per member, and the weights that had it."""

    loss: jax.Array
    weights: PyTree
    inner: PyTree


def keep_best(inner: Learner, valid: Batch, every: int) -> Learner:
    """Evaluate and predict with the weights that had the lowest validation loss so far.

    All of `valid`, arrays (examples, ...), is evaluated after every `every`-th step inside the
    compiled program, so each member of an ensemble or a sweep keeps its own best. The best weights
    are chosen among those that `inner` evaluates with: `keep_best(ema(l, 0.99), ...)` keeps the
    best average. Before the first evaluation they are the initial weights.
    `fit(..., best="min loss")` does the same outside the program, and can stop early.

    Apply it inside transforms over devices: `shard(keep_best(l, valid, 10), mesh)`.

    Raises `InputError` unless `inner` is a `Learner` and `every` an integer of at least 1, and in
    `step` if `inner` splits `valid` over devices that do not divide it.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    >>> line = jdl.learner(jdl.regression(model), optax.sgd(3.0))  # diverges
    >>> line = jdl.jit(keep_best(line, valid=batch, every=1))
    >>> state = line.init(jax.random.key(0), batch)
    >>> for _ in range(3):
    ...     state, metrics = line.step(state, batch)
    >>> bool(line.evaluate(state, batch)["loss"].value == state.extra.loss)
    True

    Prechelt 1998, "Early stopping - but when?".
    """
    check_learner(inner, "keep_best: inner")
    check_count("keep_best: every", every)

    def init(key: Key, batch: Batch) -> TrainState:
        state = inner.init(key, batch)
        weights = jax.tree.map(jnp.copy, evaluation_weights(state))
        loss = jnp.full(state.members, jnp.inf, jnp.float32)
        return state.replace(extra=BestState(loss, weights, state.extra))

    def validation_loss(state: TrainState) -> jax.Array:
        try:
            return inner.evaluate(state, valid)["loss"].value.astype(jnp.float32)
        except InputError as wrong:
            subject, expected, *_ = [*str(wrong).splitlines(), ""]
            if subject != "batch_size":  # of a transform over devices
                raise
            raise error(
                "keep_best: valid",
                expected=expected.partition(": ")[2],
                got=f"{tree.leading(valid)} examples",
                fix="apply shard outside: shard(keep_best(learner, valid, every), mesh)",
            ) from wrong

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        best: BestState = state.extra
        state, metrics = inner.step(inner_state(state), batch, axis=axis)
        loss = jax.lax.cond(
            state.step % every == 0,
            lambda: validation_loss(state),
            lambda: jnp.full_like(best.loss, jnp.inf),
        )
        is_better = loss < best.loss
        weights = tree.where(is_better, evaluation_weights(state), best.weights)
        best = BestState(jnp.where(is_better, loss, best.loss), weights, state.extra)
        return state.replace(extra=best), metrics

    return evaluate_with_own_weights(inner)._replace(init=init, step=step)
