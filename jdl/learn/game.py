"""Several players, each with its own loss and optimizer, as one learner."""

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jdl.core.errors import error
from jdl.core.types import Batch, Gradient, Key, Learner, Mean, Metrics, PyTree, Task, TrainState
from jdl.learn.gradient import mean_gradient
from jdl.learn.learner import evaluation_key, one, step_key


class Player(NamedTuple):
    """A task, its optimizer, and how often it moves (every `every`-th step, from step 0 on).

    The task's `init` makes this player's own `(params, model_state)`. Its `loss` and `predict` are
    given those of all players, as dictionaries by name; `loss` returns the dictionary of states, of
    which the player's own entry is kept.
    """

    task: Task
    tx: optax.GradientTransformation
    every: int = 1
    gradient: Gradient = mean_gradient


def game(**players: Player) -> Learner:
    """Train players against each other or side by side.

    In a step they move in keyword order, each seeing the earlier ones' updates. A player's loss is
    differentiated in its own parameters only; in its turn all the others stay as they are, bit
    for bit. Metrics are named `player/metric`; `loss` is the sum of the players' losses.
    `predict` is the first player's, `gradient` a dict by player: zero where it is not its turn.

    Goodfellow et al. 2014, "Generative adversarial networks".
    """
    for name, player in players.items():
        if player.every < 1:
            raise error(
                f"{name}: every", expected="1 or more", got=str(player.every), fix="set every=1"
            )

    def init(key: Key, batch: Batch) -> TrainState:
        key, *keys = jax.random.split(key, 1 + len(players))
        made = {n: p.task.init(k, batch) for (n, p), k in zip(players.items(), keys, strict=True)}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params={name: params for name, (params, _) in made.items()},
            model_state={name: model_state for name, (_, model_state) in made.items()},
            opt_state={name: p.tx.init(made[name][0]) for name, p in players.items()},
        )

    def move_all(state: TrainState, batch: Batch, axis: Any) -> Any:
        """The state after every player's turn, all metrics, and the gradients by player."""
        key = step_key(state, axis)
        metrics: Metrics = {}
        grads = {}
        for index, (name, player) in enumerate(players.items()):
            own = jax.random.fold_in(key, index)

            def move(state: TrainState, name=name, player=player, own=own) -> Any:
                return _move(name, player, state, batch, own, axis)

            if player.every == 1:
                state, (moved, grads[name]) = move(state)
            else:
                is_turn = state.step % player.every == 0
                state, (moved, grads[name]) = jax.lax.cond(is_turn, move, _skip(move), state)
            metrics |= {f"{name}/{metric}": value for metric, value in moved.items()}
        metrics |= {n: _total(metrics, n) for n in ("loss", "gradient_norm")}
        return state.replace(step=state.step + 1), metrics, grads

    def step(state: TrainState, batch: Batch, *, axis: Any = None) -> tuple[TrainState, Metrics]:
        state, metrics, _ = move_all(state, batch, axis)
        return state, metrics

    def gradient(state: TrainState, batch: Batch, *, axis: Any = None) -> Any:
        state, metrics, grads = move_all(state, batch, axis)
        return grads, (state.model_state, metrics)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        metrics: Metrics = {}
        for index, (name, player) in enumerate(players.items()):
            key = jax.random.fold_in(evaluation_key(state), index)
            loss = player.task.loss(state.params, state.model_state, batch, key, train=False)
            _, (_, counted) = loss
            metrics |= {f"{name}/{metric}": value for metric, value in counted.items()}
        return metrics | {"loss": _total(metrics, "loss")}

    first = next(iter(players.values())).task

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return first.predict(state.params, state.model_state, batch)

    return Learner(init, step, evaluate, predict, gradient, first.info)


def independent_players(**players: Player) -> Learner:
    """Train tasks that do not meet: the same batches, one program, each with its own network.

    A `game` whose players are ordinary tasks, blind to the others' parameters and state, such as
    one network with each of several normalisations. Metrics are named `player/metric`.

    >>> import jdl
    >>> tasks = {act: jdl.classification(jdl.from_linen(jdl.models.MLP((4,), 2, act)))
    ...          for act in ("relu", "tanh")}
    >>> both = independent_players(**{n: Player(task, optax.sgd(0.1)) for n, task in tasks.items()})
    >>> batch = {"x": jnp.ones((3, 2)), "y": jnp.zeros(3, int)}
    >>> list(jax.eval_shape(both.init, jax.random.key(0), batch).params)
    ['relu', 'tanh']
    """
    return game(
        **{
            name: player._replace(task=_lone_task(player.task, name))
            for name, player in players.items()
        }
    )


def _lone_task(task: Task, name: str) -> Task:
    """An ordinary task as that of a player, who is given the parameters and states of all."""

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        own = params[name], model_state[name]
        mean, (after, metrics) = task.loss(*own, batch, key, train=train)
        return mean, (model_state | {name: after}, metrics)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return task.predict(params[name], model_state[name], batch)

    return task._replace(loss=loss, predict=predict)


def _move(name: str, player: Player, state: TrainState, batch: Batch, key: Key, axis: Any) -> Any:
    """One player's update; everything of the others is passed through untouched."""

    def loss(params: PyTree, model_state: PyTree, batch: Batch, key: Key, *, train: bool) -> Any:
        mean, (after, metrics) = player.task.loss(
            state.params | {name: params},
            state.model_state | {name: model_state},
            batch,
            key,
            train=train,
        )
        return mean, (after[name], metrics)

    grads, (model_state, metrics) = player.gradient(loss)(
        state.params[name], state.model_state[name], batch, key, axis=axis
    )
    tx = optax.with_extra_args_support(player.tx)
    updates, moments = tx.update(
        grads, state.opt_state[name], state.params[name], value=metrics["loss"].value
    )
    after = state.replace(
        params=state.params | {name: optax.apply_updates(state.params[name], updates)},
        model_state=state.model_state | {name: model_state},
        opt_state=state.opt_state | {name: moments},
    )
    return after, (metrics | {"gradient_norm": one(optax.tree.norm(grads))}, grads)


def _skip(move: Any) -> Any:
    """A turn that is not this player's: nothing changes and nothing is counted."""

    def stay(state: TrainState) -> Any:
        shapes = jax.eval_shape(lambda s: move(s)[1], state)
        return state, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)

    return stay


def _total(metrics: Metrics, name: str) -> Mean:
    """Sum over the players of their means; players who did not move add nothing."""
    means = [value for key, value in metrics.items() if key.endswith(f"/{name}")]
    weight = reduce(jnp.maximum, (mean.weight for mean in means))
    values = (jnp.where(m.weight == 0, 0, m.total / jnp.maximum(m.weight, 1e-30)) for m in means)
    return Mean(reduce(jnp.add, values) * weight, weight)
