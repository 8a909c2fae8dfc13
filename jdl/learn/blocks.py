"""A loop of guarded steps that looks at its results once for a block of them."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import Trial, chosen, may_stand
from jdl.learn.transforms import loop

SIZE = 64
"""Steps of a block."""


def blocks(tried: Trial, size: int = SIZE) -> Learner:
    """`loop(decided(tried))` for less: `step(train, batch, n) -> (train, metrics)`.

    Looking at every number after each step, and keeping the state before it, costs a small network
    a quarter of its time. What is not finite stays so, in sums as in moments; so a block of steps
    is taken as if all would stand, and looked at once. If it may not stand, it is gone through
    again from its start, one step at a time, and so are `size` steps after each refusal. So up to
    `size` steps may be computed from numbers that are not finite, before they are taken back.

    The results do not depend on `size` nor on the cuts of a run, but for a number that is not
    finite for some steps only, unseen by loss and gradient: a look at each step refuses it, and
    the look at a block finds nothing. It has to stand outside `ensemble`.
    """
    several = loop(tried.taken)

    def step(
        train: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        shapes = jax.eval_shape(lambda t: tried.taken.step(t, batch, axis=axis)[1], train)
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)

        def block(carry: Any) -> Any:
            train, metrics, left, singly = carry
            single = singly > 0
            count = jnp.where(single, 1, jnp.minimum(size, left))
            after, sums = several.step(train, batch, count, axis=axis)
            kept, none = tried.refused.step(train, sums)
            fine = may_stand(train, after)
            whole = fine.all()
            # A single step is decided for each member, a block as one.
            fine = jnp.where(single, fine, whole)
            state = chosen(fine, after, chosen(single, kept, train))
            goes_on = single | whole
            state = state.replace(
                step=jnp.where(goes_on, after.step, train.step),
                key=jnp.where(goes_on, after.key, train.key),
            )
            sums = tree.where(fine, sums, tree.where(single, none, metrics))
            left = left - jnp.where(goes_on, count, 0)
            again = jnp.where(single, size, count)
            return state, sums, left, jnp.where(whole, jnp.maximum(singly - 1, 0), again)

        refused_last = (train.extra["guard"].in_a_row > 0).any()
        start = train, nothing, jnp.int32(n), jnp.where(refused_last, size, 0)
        train, metrics, *_ = jax.lax.while_loop(lambda now: now[2] > 0, block, start)
        return train, metrics

    return tried.taken._replace(step=step)
