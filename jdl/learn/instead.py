"""Another optimizer in the place of those that learners are made with, to look at gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jdl.core.types import PyTree

_INSTEAD: ContextVar[optax.GradientTransformation | None] = ContextVar("instead", default=None)


@contextmanager
def optimizer_instead(tx: optax.GradientTransformation) -> Iterator[None]:
    """Every learner and player made within trains with `tx`, whatever it is given.

    >>> import jdl
    >>> task = jdl.regression(jdl.from_linen(jdl.models.MLP((), 1)))
    >>> with optimizer_instead(optax.sgd(1.0)):
    ...     line = jdl.learner(task, optax.adam(0.1))
    >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    >>> line.init(jax.random.key(0), batch).opt_state
    (EmptyState(), EmptyState())
    """
    token = _INSTEAD.set(tx)
    try:
        yield
    finally:
        _INSTEAD.reset(token)


def chosen(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer to make a learner with: `tx`, unless there is one instead of all."""
    return _INSTEAD.get() or tx


class Gradients(NamedTuple):
    """The gradients that an optimizer was given last."""

    last: PyTree


def kept() -> optax.GradientTransformation:
    """Passes gradients on and keeps them in its state, as `Gradients`."""

    def init(params: PyTree) -> Gradients:
        return Gradients(jax.tree.map(jnp.zeros_like, params))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        return updates, Gradients(updates)

    return optax.GradientTransformation(init, update)
