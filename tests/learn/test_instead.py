"""An optimizer in the place of those that learners are given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.learn.game import Player, apart
from jdl.learn.gradient import mean_gradient
from jdl.learn.instead import Gradients, kept, optimizer_instead
from jdl.learn.learner import learner
from jdl.learn.transforms import ema
from tests.small import KEY, assert_close, batch, network, train

DATA = jax.tree.map(jnp.asarray, batch())


def test_a_learner_made_within_is_one_with_that_optimizer():
    with optimizer_instead(optax.sgd(0.1)):
        within = ema(learner(network(), optax.adam(0.5)), 0.9)
    assert_close(
        train(within, DATA, 3)[0].params,
        train(learner(network(), optax.sgd(0.1)), DATA, 3)[0].params,
    )
    after = learner(network(), optax.adam(0.5))
    assert "mu" in str(jax.eval_shape(after.init, KEY, DATA).opt_state)


def test_players_too():
    with optimizer_instead(kept()):
        both = apart(one=Player(network(), optax.adam(0.1)), two=Player(network(), optax.sgd(0.1)))
    states = jax.eval_shape(both.init, KEY, DATA).opt_state
    assert all(isinstance(state, Gradients) for state in states.values()) and len(states) == 2


def test_what_is_kept_is_the_gradient():
    one = learner(network(), optax.chain(kept(), optax.sgd(0.1)))
    start = one.init(KEY, DATA)
    after, _ = one.step(start, DATA)
    grads, _ = mean_gradient(network().loss)(start.params, start.model_state, DATA, None)
    assert_close(after.opt_state[0].last, grads)
    moved = jax.tree.map(lambda a, b: (a - b) / -0.1, after.params, start.params)
    assert_close(moved, grads, rtol=1e-4, atol=1e-5)
    assert np.abs(grads["in"]).max() > 1e-3
