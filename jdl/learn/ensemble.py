"""Many members as one program: vmap over keys."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.errors import error
from jdl.core.nouns import check_learner, describe
from jdl.core.types import Axis, Batch, GradsAndAux, Key, Learner, Metrics, PyTree, TrainState

MEMBER_AXES: Any = TrainState(  # type: ignore
    step=None,  # type: ignore
    key=0,  # type: ignore
    params=0,
    model_state=0,
    opt_state=0,
    extra=0,
)
"""The axis that counts members, for each field of the state; all members share `step`."""


def ensemble(inner: Learner, members: int) -> Learner:
    """Train `members` copies that differ only in their random key, in one compiled program.

    All members see the same batches. Member i trains like a single run with key `fold_in(key, i)`,
    however many members there are. Metrics and predictions have a new leading axis: a prediction
    (batch, ...) becomes (members, batch, ...).

    Raises `InputError` unless `inner` is a `Learner` and `members` an integer of at least 1.

    >>> import jdl, optax
    >>> model = jdl.from_linen(jdl.models.MLP(features=(), outputs=1))
    >>> many = jdl.jit(ensemble(jdl.learner(jdl.regression(model), optax.sgd(0.1)), 32))
    >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
    >>> state, metrics = many.step(many.init(jax.random.key(0), batch), batch)
    >>> state.members, metrics["loss"].value.shape, many.predict(state, batch).shape
    ((32,), (32,), (32, 4, 1))

    Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles".
    """
    check_learner(inner, "ensemble: inner")
    if not isinstance(members, Integral) or members < 1:
        raise error(
            "ensemble: members",
            expected="an integer of at least 1",
            got=describe(members),
            fix="pass the number of members, such as 32",
        )
    together = vmapped(lambda: inner, {})

    def init(key: Key, batch: Batch) -> TrainState:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(members))
        return together.init(keys, batch)

    return together._replace(
        init=init, gradient=inner.gradient and together.gradient, info=inner.info
    )


def vmapped(build: Callable[..., Learner], values: Mapping[str, jax.Array]) -> Learner:
    """Map `build(**values)` over members, the leading axis of all values; `init` takes keys."""

    def each(state: TrainState, call: Callable[[Learner, TrainState], Any], out_axes: Any) -> Any:
        def one(state: TrainState, own: dict[str, Any]) -> Any:
            return call(build(**own), state)

        return jax.vmap(one, (MEMBER_AXES, 0), out_axes)(state, dict(values))

    def init(keys: Key, batch: Batch) -> TrainState:
        def one(key: Key, own: dict[str, Any]) -> TrainState:
            return build(**own).init(key, batch)

        return jax.vmap(one, (0, 0), MEMBER_AXES)(keys, dict(values))

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        call = lambda member, s: member.step(s, batch, axis=axis)
        return each(state, call, (MEMBER_AXES, 0))

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        return each(state, lambda member, s: member.evaluate(s, batch), 0)

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return each(state, lambda member, s: member.predict(s, batch), 0)

    def gradient(state: TrainState, batch: Batch, *, axis: Axis = None) -> GradsAndAux:
        return each(state, lambda member, s: member.gradient(s, batch, axis=axis), 0)  # type: ignore

    return Learner(init, step, evaluate, predict, gradient)
