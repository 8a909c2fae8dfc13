"""A loop of guarded steps that looks at its results once for a block of them."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import Trial, chosen, may_stand

SIZE = 64
"""Steps of a block."""

SMALL = 2**17
"""Numbers of a leaf that is copied, once a block, to be looked at together with others, at most."""


def blocks(tried: Trial, size: int = SIZE) -> Learner:
    """`loop(decided(tried))` for less: `step(state, batch, n) -> (state, metrics)`.

    Both learners of `tried` stand in `window`, whose sums are the metrics: each further number that
    is carried from block to block would be one more to choose.

    Looking at every number after each step, and keeping the state before it, costs a small network
    a quarter of its time. What is not finite stays so, in sums as in moments; so a block of steps
    is taken as if all would stand, and looked at once. If it may not stand, it is gone through
    again from its start, one step at a time, and so are `size` steps after each refusal. So up to
    `size` steps may be computed from numbers that are not finite, before they are taken back.

    The results do not depend on `size` nor on the cuts of a run, but for a number that is not
    finite for some steps only, unseen by loss and gradient: a look at each step refuses it, and
    the look at a block finds nothing. It has to stand outside `ensemble`.
    """

    def step(
        state: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        def taken(_: Any, state: TrainState) -> TrainState:
            return tried.taken.step(state, batch, axis=axis)[0]

        def block(carry: Any) -> Any:
            state, left, singly = carry
            single = singly > 0
            count = jnp.where(single, 1, jnp.minimum(size, left))
            after = jax.lax.fori_loop(0, count, taken, state)
            kept, _ = tried.refused.step(state, state.extra["window"])
            fine = may_stand(state, after, SMALL)
            whole = fine.all()
            # A single step is decided for each member, a block as one.
            fine = jnp.where(single, fine, whole)
            then = chosen(fine, after, chosen(single, kept, state))
            passed = single | whole
            then = then.replace(
                step=jnp.where(passed, after.step, state.step),
                key=jnp.where(passed, after.key, state.key),
            )
            left = left - jnp.where(passed, count, 0)
            again = jnp.where(single, size, count)
            return then, left, jnp.where(whole, jnp.maximum(singly - 1, 0), again)

        def goes_on(carry: Any) -> jax.Array:
            # By one number alone XLA would try to count the turns, and in each of its passes go
            # through all that the number comes from, the whole step: a sixth of the compilation.
            _, left, singly = carry
            return (left > 0) & (singly >= 0)

        refused_last = (state.extra["guard"].in_a_row > 0).any()
        start = state, jnp.int32(n), jnp.where(refused_last, size, 0)
        state, *_ = jax.lax.while_loop(goes_on, block, start)
        return state, state.extra["window"]

    return tried.taken._replace(step=step)
