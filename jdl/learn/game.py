"""Several players, each with its own loss and optimizer, as one learner."""

import functools
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.nouns import check_optimizer, check_task, describe
from jdl.core.reprs import describe_fields
from jdl.core.types import (
    Axis,
    Batch,
    Gradient,
    GradsAndAux,
    Key,
    Learner,
    Mean,
    Metrics,
    PyTree,
    Task,
    TrainState,
)
from jdl.learn.check_task import checked_task
from jdl.learn.gradient import check_gradient, mean_gradient
from jdl.learn.learner import evaluation_key, one, step_key

Turn = tuple[TrainState, tuple[Metrics, PyTree]]
"""The state after a player's turn, its metrics, and its gradient."""


class Player(NamedTuple):
    """A task and its optimizer, for `game`; it moves at steps 0, `every`, 2 `every`, ...

    The task's `init` returns this player's own `(params, model_state)`. Its `loss` and `predict`
    take dicts of the params and model states of all players, by name. `loss` returns the dict of
    model states; only the player's own entry is used.

    >>> import jdl
    >>> make, judge = (jdl.from_linen(jdl.models.MLP((), outputs=n)) for n in (2, 1))
    >>> tasks = jdl.tasks.gan_tasks(make, judge, latent=3)
    >>> generator, discriminator = (Player(task, optax.adam(1e-3)) for task in tasks)
    >>> line = game(generator=generator, discriminator=discriminator)
    >>> batch = {"x": jnp.ones((4, 2))}
    >>> state = jax.eval_shape(line.init, jax.random.key(0), batch)
    >>> _, metrics = jax.eval_shape(line.step, state, batch)
    >>> sorted(name for name in metrics if name.endswith("loss"))
    ['discriminator/loss', 'generator/loss', 'loss']
    """

    task: Task
    tx: optax.GradientTransformation
    every: int = 1
    gradient: Gradient = mean_gradient

    def __repr__(self) -> str:
        return describe_fields(self, self._asdict())


@struct.dataclass
class SumOfMeans:
    """The sum of one metric of all players; a player that has not moved adds nothing.

    The sums of each player stay apart, because players that move at different steps have different
    weights over a window of steps.
    """

    means: tuple[Mean, ...]

    @property
    def value(self) -> jax.Array:
        """The sum of the players' means."""
        weights = (jnp.where(mean.weight == 0, 1, mean.weight) for mean in self.means)
        values = (mean.total / w for mean, w in zip(self.means, weights, strict=True))
        return functools.reduce(jnp.add, values)

    @property
    def weight(self) -> jax.Array:
        """The largest weight of a player."""
        return functools.reduce(jnp.maximum, (mean.weight for mean in self.means))

    @property
    def total(self) -> jax.Array:
        """`value * weight`."""
        return self.value * self.weight

    def compute(self) -> Any:
        """The sum as numpy float64, on the host."""
        weights = (np.asarray(mean.weight, np.float64) for mean in self.means)
        parts = [
            np.asarray(mean.total, np.float64) / np.where(weight == 0, 1, weight)
            for mean, weight in zip(self.means, weights, strict=True)
        ]
        return np.float64(1) * sum(parts)


def game(**players: Player) -> Learner:
    """Train several players, each with its own loss, parameters and optimizer, as one learner.

    In each step the players move in keyword order, and each sees the updates of those before it. A
    player's loss is differentiated with respect to its own parameters only; its move leaves the
    other players unchanged. Metrics are named `player/metric`, and `loss` is the sum of the
    players' losses, each averaged over the steps at which the player moves. `predict` is that of
    the first player. `gradient` returns a dict by player, with zeros for a player whose turn it is
    not.

    Raises `InputError` without players, for one that is not a `Player`, and if a player's `every`
    is not an integer of at least 1.

    >>> import jdl
    >>> make, judge = (jdl.from_linen(jdl.models.MLP((), outputs=n)) for n in (2, 1))
    >>> generator, discriminator = jdl.tasks.gan_tasks(make, judge, latent=3)
    >>> line = game(
    ...     discriminator=Player(discriminator, optax.adam(1e-3)),
    ...     generator=Player(generator, optax.adam(1e-3), every=2),
    ... )
    >>> list(jax.eval_shape(line.init, jax.random.key(0), {"x": jnp.ones((4, 2))}).params)
    ['discriminator', 'generator']

    Goodfellow et al. 2014, "Generative adversarial nets".
    """
    _check_players(players)
    for name, player in players.items():
        if not isinstance(player.every, Integral) or player.every < 1:
            raise error(
                f"{name}: every", expected="1 or more", got=str(player.every), fix="set every=1"
            )
    players = {n: p._replace(task=checked_task(p.task, n)) for n, p in players.items()}

    def init(key: Key, batch: Batch) -> TrainState:
        key, *keys = jax.random.split(key, 1 + len(players))
        start = {n: p.task.init(k, batch) for (n, p), k in zip(players.items(), keys, strict=True)}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params={name: params for name, (params, _) in start.items()},
            model_state={name: model_state for name, (_, model_state) in start.items()},
            opt_state={name: p.tx.init(start[name][0]) for name, p in players.items()},
        )

    def move_all(
        state: TrainState, batch: Batch, axis: Axis
    ) -> tuple[TrainState, Metrics, dict[str, PyTree]]:
        """The state after every player's turn, all metrics, and the gradients by player."""
        key = step_key(state, axis)
        metrics: Metrics = {}
        grads: dict[str, PyTree] = {}
        for index, (name, player) in enumerate(players.items()):
            own_key = jax.random.fold_in(key, index)

            def move(state: TrainState, name=name, player=player, own_key=own_key) -> Turn:
                return _move(name, player, state, batch, own_key, axis)

            if player.every == 1:
                state, (own, grads[name]) = move(state)
            else:
                is_turn = state.step % player.every == 0
                state, (own, grads[name]) = jax.lax.cond(is_turn, move, _skip(move), state)
            metrics |= {f"{name}/{metric}": value for metric, value in own.items()}
        metrics |= {n: _total(metrics, players, n) for n in ("loss", "gradient_norm")}
        return state.replace(step=state.step + 1), metrics, grads

    def step(state: TrainState, batch: Batch, *, axis: Axis = None) -> tuple[TrainState, Metrics]:
        state, metrics, _ = move_all(state, batch, axis)
        return state, metrics

    def gradient(state: TrainState, batch: Batch, *, axis: Axis = None) -> GradsAndAux:
        state, metrics, grads = move_all(state, batch, axis)
        return grads, (state.model_state, metrics)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        metrics: Metrics = {}
        for index, (name, player) in enumerate(players.items()):
            key = jax.random.fold_in(evaluation_key(state), index)
            loss = player.task.loss(state.params, state.model_state, batch, key, train=False)
            _, (_, own) = loss
            metrics |= {f"{name}/{metric}": value for metric, value in own.items()}
        return metrics | {"loss": _total(metrics, players, "loss")}

    first = next(iter(players.values())).task

    def predict(state: TrainState, batch: Batch) -> PyTree:
        return first.predict(state.params, state.model_state, batch)

    return Learner(init, step, evaluate, predict, gradient, first.info)


def independent(**players: Player) -> Learner:
    """Train several ordinary tasks on the same batches in one program.

    A `game` whose players do not see each other, for example one network with each of several
    activations. Metrics are named `player/metric`. Raises `InputError` if a player's `every` is
    below 1.

    >>> import jdl
    >>> tasks = {act: jdl.classification(jdl.from_linen(jdl.models.MLP((4,), 2, act)))
    ...          for act in ("relu", "tanh")}
    >>> both = independent(**{n: Player(task, optax.sgd(0.1)) for n, task in tasks.items()})
    >>> batch = {"x": jnp.ones((3, 2)), "y": jnp.zeros(3, int)}
    >>> list(jax.eval_shape(both.init, jax.random.key(0), batch).params)
    ['relu', 'tanh']
    """
    return game(
        **{
            name: player._replace(task=_independent(player.task, name))
            for name, player in players.items()
        }
    )


def _check_players(players: Mapping[str, Any]) -> None:
    fix = "pass generator=jdl.Player(task, optax.adam(1e-3))"
    if not players:
        raise error("game", expected="at least one player, by name", got="none", fix=fix)
    for name, player in players.items():
        if not isinstance(player, Player):
            fix = f"pass {name}=jdl.Player(task, optax.adam(1e-3))"
            raise error(f"game: {name}", expected="a jdl.Player", got=describe(player), fix=fix)
        check_task(player.task, f"game: task of {name}")
        check_optimizer(player.tx, f"game: tx of {name}")
        check_gradient(player.gradient, f"game: gradient of {name}")


def _independent(task: Task, name: str) -> Task:
    """An ordinary task as that of the player `name`, which takes dicts by player."""

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        own = params[name], model_state[name]
        mean, (after, metrics) = task.loss(*own, batch, key, train=train)
        return mean, (model_state | {name: after}, metrics)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return task.predict(params[name], model_state[name], batch)

    return task._replace(loss=loss, predict=predict)


def _move(name: str, player: Player, state: TrainState, batch: Batch, key: Key, axis: Axis) -> Turn:
    """One player's update, which leaves the others unchanged."""

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
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
    return after, (metrics | {"gradient_norm": one(tree.norm(grads))}, grads)


def _skip(move: Callable[[TrainState], Turn]) -> Callable[[TrainState], Turn]:
    """The turn of a player that does not move: the same state, metrics and gradient zero."""

    def stay(state: TrainState) -> Turn:
        shapes = jax.eval_shape(lambda s: move(s)[1], state)
        return state, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)

    return stay


def _total(metrics: Metrics, players: Iterable[str], name: str) -> SumOfMeans:
    return SumOfMeans(tuple(metrics[f"{player}/{name}"] for player in players))
