"""A loop of guarded steps that checks its results once for a block of them."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import count_invalid, is_valid_update, skip_step
from jdl.learn.window import window

BLOCK_STEPS = 64

PACK_BELOW_ELEMENTS = 2**17
"""As in `still_finite`: once for a block, copying more is worth its time."""


def guard_in_blocks(
    inner: Learner, limit: int, every: int, block_steps: int = BLOCK_STEPS
) -> Learner:
    """`loop(window(guard(inner, limit), every))` for less: `step(state, batch, n)`.

    Checking every value after each step, and keeping the state before it, costs a small network
    a quarter of its time. What is not finite stays so, in sums as in moments; so a block of steps
    is taken as if all were valid, and checked once. If it is not, it is taken again from its start,
    one step at a time, and so are `block_steps` steps after each skip. So up to `block_steps` steps
    may be computed from values that are not finite, before they are taken back.

    The results do not depend on `block_steps` nor on the cuts of a run, but for a value that is not
    finite for some steps only, unseen by loss and gradient: a check of each step skips it, and the
    check of a block finds nothing. It has to stand outside `ensemble`.
    """
    counted = count_invalid(inner, limit)

    def skip(state: TrainState, like: Metrics, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return skip_step(state, like, limit)

    taken, skipped = window(counted, every), window(counted._replace(step=skip), every)

    def step(
        state: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        def take(_: Any, state: TrainState) -> TrainState:
            return taken.step(state, batch, axis=axis)[0]

        def block(carry: Any) -> Any:
            state, left, singly = carry
            single = singly > 0
            count = jnp.where(single, 1, jnp.minimum(block_steps, left))
            after = jax.lax.fori_loop(0, count, take, state)
            kept, _ = skipped.step(state, state.extra.sums)
            good = is_valid_update(state, after, pack_below=PACK_BELOW_ELEMENTS)
            whole = good.all()
            # A single step is decided for each member, a block as one.
            good = jnp.where(single, good, whole)
            new = _select(good, after, _select(single, kept, state))
            passed = single | whole
            new = new.replace(
                step=jnp.where(passed, after.step, state.step),
                key=jnp.where(passed, after.key, state.key),
            )
            left = left - jnp.where(passed, count, 0)
            again = jnp.where(single, block_steps, count)
            return new, left, jnp.where(whole, jnp.maximum(singly - 1, 0), again)

        def goes_on(carry: Any) -> jax.Array:
            # By one number alone XLA would try to count the turns, and in each of its passes go
            # through all that the number comes from, the whole step: a sixth of the compilation.
            _, left, singly = carry
            return (left > 0) & (singly >= 0)

        has_skipped = (state.extra.inner.consecutive > 0).any()
        start = state, jnp.int32(n), jnp.where(has_skipped, block_steps, 0)
        state, *_ = jax.lax.while_loop(goes_on, block, start)
        # The sums are the metrics: each further value that is carried would be one more to select.
        return state, state.extra.sums

    return taken._replace(step=step)


def _select(mask: jax.Array, yes: TrainState, no: TrainState) -> TrainState:
    """The contents of one state or the other, for each member; step and key are those of `yes`."""
    return tree.where(mask, yes, no.replace(step=yes.step, key=yes.key))
