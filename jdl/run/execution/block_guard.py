"""A loop of guarded steps that checks for NaN once per block of steps."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.types import Batch, Learner, Metrics, TrainState
from jdl.learn.guard import count_invalid, is_valid_update, skip_step
from jdl.learn.window import window

BLOCK_STEPS = 64
"""Steps between checks."""

PACK_BELOW_ELEMENTS = 2**17
"""As in `still_finite`; larger than its default, because copying once per block costs little."""


def guard_in_blocks(
    inner: Learner, limit: int, every: int, block_steps: int = BLOCK_STEPS
) -> Learner:
    """A faster `loop(window(guard(inner, limit), every))`, with `step(state, batch, n)`.

    Checking every value after each step, and keeping the state from before it, takes a quarter of
    the time of a small network. NaN and infinity stay in sums and moments, so it is enough to check
    once after a block of steps. If the check fails, the block is repeated from its start one step
    at a time, and so are `block_steps` steps after each skip.

    Results do not depend on `block_steps` or on dispatches, with one exception: a parameter that is
    NaN for some steps only and affects neither loss nor gradient is skipped by the check of each
    step, and not noticed by that of a block. Apply it outside `ensemble`.
    """
    counted = count_invalid(inner, limit)

    def skip(state: TrainState, like: Metrics, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        return skip_step(state, like, limit)

    updating, skipping = window(counted, every), window(counted._replace(step=skip), every)

    def step(
        state: TrainState, batch: Batch, n: Any = 1, *, axis: Any = None
    ) -> tuple[TrainState, Metrics]:
        def one_step(_: Any, state: TrainState) -> TrainState:
            return updating.step(state, batch, axis=axis)[0]

        def block(carry: Any) -> Any:
            state, left, single_left = carry
            single = single_left > 0
            count = jnp.where(single, 1, jnp.minimum(block_steps, left))
            after = jax.lax.fori_loop(0, count, one_step, state)
            skipped, _ = skipping.step(state, state.extra.sums)
            valid = is_valid_update(state, after, pack_below=PACK_BELOW_ELEMENTS)
            all_valid = valid.all()
            # A single step is valid or not for each member; a block is for all of them.
            valid = jnp.where(single, valid, all_valid)
            new = _select(valid, after, _select(single, skipped, state))
            advances = single | all_valid
            new = new.replace(
                step=jnp.where(advances, after.step, state.step),
                key=jnp.where(advances, after.key, state.key),
            )
            left = left - jnp.where(advances, count, 0)
            repeat = jnp.where(single, block_steps, count)
            return new, left, jnp.where(all_valid, jnp.maximum(single_left - 1, 0), repeat)

        def has_steps_left(carry: Any) -> jax.Array:
            # With `left` alone XLA would try to find the trip count, and go through the whole step
            # in each of its passes: a sixth of the compile time.
            _, left, single_left = carry
            return (left > 0) & (single_left >= 0)

        has_skipped = (state.extra.inner.consecutive > 0).any()
        start = state, jnp.int32(n), jnp.where(has_skipped, block_steps, 0)
        state, *_ = jax.lax.while_loop(has_steps_left, block, start)
        # The sums are in the state anyway; further metrics would have to be carried and selected.
        return state, state.extra.sums

    return updating._replace(step=step)


def _select(mask: jax.Array, yes: TrainState, no: TrainState) -> TrainState:
    """Select one of two states, for each member; step and key are those of `yes`."""
    return tree.where(mask, yes, no.replace(step=yes.step, key=yes.key))
