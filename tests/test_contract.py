"""Every row of the core's table has every property of the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl.learn.gradient import mean_gradient
from jdl.learn.learner import learner
from tests.support.contract_properties import (
    PARITY,
    PROPERTIES,
    Case,
    check,
    masks_differ_between_devices,
)
from tests.support.contract_rows import MASKS, PLAIN, ROWS, SGD, SMALL, Row, base, recorded

# Combinations and relatives of rows that are in the fast suite themselves, or long.
COMBINED = {
    *(
        "MLP with dropout",
        "accumulate of clip_gradient",
        "nested gradients",
        "window of ema of guard",
    ),
    *("shard, regex", "shard, replicated", "adam", "jit", "clip_gradient", "sharpness_aware"),
    *("independent", "keep_best", "CNN with BatchNorm", "shard_map"),
}


def marked(row, slow):
    return pytest.param(row, id=row.name, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("row", [marked(row, row.name in COMBINED) for row in ROWS])
def test_contract(row, tmp_path):
    case = Case(row, tmp_path)
    check(case, PROPERTIES)
    if row.without is MASKS:
        masks_differ_between_devices(case)


@pytest.mark.slow
@pytest.mark.parametrize("row", [marked(row, False) for row in ROWS if row.double])
def test_parity_in_float64(row, tmp_path, x64):
    case = Case(row, tmp_path, double=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(case.trained.params)} == {np.dtype("float64")}
    check(case, PARITY)


def _broken():
    """Learners that break one property each, by its name."""
    whole, draws = base(), iter(range(10**6))

    def drifting(state, batch, *, axis=None):
        after, metrics = whole.step(state, batch, axis=axis)
        factor = 1.0 if isinstance(state.step, jax.core.Tracer) else 1.001
        return after.replace(params=jax.tree.map(lambda w: w * factor, after.params)), metrics

    def unseeded(key, batch):  # drawn anew whenever it is traced
        return whole.init(jax.random.fold_in(key, next(draws)), batch)

    def weakly_typed(key, batch):
        return whole.init(key, batch).replace(step=jnp.asarray(0))

    def typed(state, batch, *, axis=None):
        after, metrics = whole.step(state, batch, axis=axis)
        return after.replace(step=state.step + jnp.int32(1)), metrics

    def in_place(state, batch, *, axis=None):
        after, metrics = whole.step(state, batch, axis=axis)
        state.params["in"] = after.params["in"]
        return after, metrics

    def with_an_idle_parameter(key, batch):
        params, model_state = SMALL.init(key, batch)
        return params | {"idle": jnp.ones(2)}, model_state

    def mean_of_means(loss):
        def gradient(*args, axis=None):
            grads, (model_state, metrics) = mean_gradient(loss)(*args)
            if axis is not None:
                grads, metrics = jax.lax.pmean(grads, axis), jax.lax.psum(metrics, axis)
            return grads, (model_state, metrics)

        return gradient

    return {
        "jit equals eager": whole._replace(step=drifting),
        "pmap equals shard": learner(SMALL, SGD, mean_of_means),
        "same as": learner(SMALL, recorded(optax.sgd(0.1))),
        "one program": whole._replace(init=weakly_typed, step=typed),
        "same key": whole._replace(init=unseeded),
        "gradients": learner(SMALL._replace(init=with_an_idle_parameter), SGD),
        "inputs": whole._replace(step=in_place),
    }


@pytest.mark.parametrize("name", _broken())
def test_a_broken_learner_is_seen(name, tmp_path):
    """The controls: each property fails for a learner that breaks it."""
    row = Row("broken", lambda around: around(_broken()[name]), PLAIN, same_as=base)
    case = Case(row, tmp_path)
    with pytest.raises(ExceptionGroup, match="broken breaks the contract") as info:
        check(case, {name: PROPERTIES[name]})
    assert info.value.exceptions[0].__notes__ == [f"the property: {name}"]
