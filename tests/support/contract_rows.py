"""The table of the contract: every model, task and learner transform once, in its smallest form.

A new one is done when its row is here or, for a family of models, in `families/`. The properties
that each row must have are in `contract_properties.py`; what a row cannot have stands beside it,
with the reason.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from jdl import tasks
from jdl.core.types import Learner, Mean, Task
from jdl.learn.ema import ema
from jdl.learn.ensemble import ensemble
from jdl.learn.game import Player, game, independent
from jdl.learn.gradient import accumulate, clip_gradient, sharpness_aware
from jdl.learn.guard import guard
from jdl.learn.keep_best import keep_best
from jdl.learn.learner import learner
from jdl.learn.sweep import sweep
from jdl.learn.transforms import jit, loop, resident
from jdl.learn.window import window
from jdl.models import CNN, MLP, from_linen
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.pmap import pmap
from jdl.parallel.shard import shard
from jdl.parallel.shard_map import shard_map
from jdl.parallel.shard_members import shard_members
from jdl.run.execution.batches import from_stack
from jdl.run.execution.block_guard import guard_in_blocks
from tests.support import learners

Around = Callable[[Learner], Learner]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    build: Callable[[Around], Learner]
    """The learner; `around` wraps the part of it that is given batches."""
    batch: Any
    calls: int = 10
    """Calls of `step` that make ten steps."""
    eager: int = 0
    """Calls that are made without compiling, where ten steps would take long."""
    tolerance: float = 1e-5
    without: Mapping[str, str] = MappingProxyType({})
    """Properties that do not hold, and why."""
    mapped: Callable[[Around], Learner] | None = None
    """The learner under pmap where it is built differently there."""
    same_as: Callable[[], Learner] | None = None
    """A learner that gives the same weights; its batch is `PLAIN`."""
    double: bool = False
    """Compare once more in float64, at 1e-9."""


class Seen(NamedTuple):
    """The largest gradient that each parameter has had."""

    largest: Any


def recorded(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, whose state also remembers the gradients that it was given."""

    def init(params: Any) -> Seen:
        return Seen(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, seen: Seen, params: Any = None) -> Any:
        return grads, Seen(jax.tree.map(lambda s, g: jnp.maximum(s, abs(g)), seen.largest, grads))

    return optax.chain(optax.GradientTransformation(init, update), tx)


def _batches() -> tuple[dict[str, Any], ...]:
    rng = np.random.default_rng(0)
    x, images = rng.normal(size=(16, 4)), rng.normal(size=(16, 6, 6, 1))
    # With two examples on each of eight devices some devices have no weight at all.
    mask, classes = (rng.random(16) > 0.4), rng.integers(0, 3, 16)
    dense = {"x": x, "y": classes, "mask": mask}
    real = {"x": x, "y": rng.normal(size=(16, 3)), "mask": mask}
    binary = {"x": x, "y": rng.integers(0, 2, (16, 3)), "mask": mask}
    pictures = {"x": images, "y": classes, "mask": mask}

    def arrays(batch: dict[str, Any]) -> dict[str, Any]:
        kinds = {"f": np.float32, "i": np.int32, "b": np.float32}
        return {name: jnp.asarray(v.astype(kinds[v.dtype.kind])) for name, v in batch.items()}

    return tuple(map(arrays, (dense, real, binary, pictures)))


DENSE, REAL, BINARY, IMAGES = _batches()
PLAIN = jax.tree.map(jnp.asarray, learners.batch())
UNMASKED = {name: value for name, value in IMAGES.items() if name != "mask"}
# Ten batches of the same examples in other orders: the sums are those of PLAIN.
ROLLED = {
    "first": jnp.int32(0),
    "stack": {
        name: jnp.stack([jnp.roll(value, -i, 0) for i in range(10)])
        for name, value in PLAIN.items()
    },
}

MODEL = from_linen(MLP((5,), 3, activation="tanh"))
CLASSES = tasks.classification(MODEL)
# For the transforms a network of plain functions: it is traced faster.
SMALL = learners.network()
# Momentum is linear in the gradient: a gradient that is N times too large shows, as under SGD.
SGD = recorded(optax.sgd(0.1, momentum=0.9))


def plainly(learner: Learner) -> Learner:
    return learner


def base() -> Learner:
    return learner(SMALL, SGD)


def turned(step: Any, size: int) -> Any:
    return (jnp.arange(size) + step) % size


def _bilinear(sign: float) -> Task:
    """A player that pulls a shared prediction, `x (w_one + w_two)`, up or down."""

    def init(key: Any, batch: Any) -> Any:
        return {"w": jax.random.normal(key, (4, 3))}, {}

    def predict(params: Any, model_state: Any, batch: Any) -> Any:
        return jnp.tanh(batch["x"] @ (params["one"]["w"] + params["two"]["w"]))

    def loss(params: Any, model_state: Any, batch: Any, key: Any, *, train: bool) -> Any:
        errors = ((predict(params, model_state, batch) - sign) ** 2).sum(-1)
        mean = Mean((batch["mask"] * errors).sum(), batch["mask"].sum())
        return mean, (model_state, {"loss": mean})

    return Task(init, loss, predict)


def model_row(name: str, model: Any, batch: Any = DENSE, **more: Any) -> Row:
    return task_row(name, tasks.classification(model), batch, **more)


def task_row(name: str, task: Task, batch: Any = DENSE, **more: Any) -> Row:
    return Row(name, lambda around: around(learner(task, SGD)), batch, **more)


def _gradient(name: str, gradient: Any, **more: Any) -> Row:
    return Row(name, lambda around: around(learner(SMALL, SGD, gradient)), PLAIN, **more)


def _transform(name: str, change: Around, batch: Any = PLAIN, **more: Any) -> Row:
    """A transform that is given batches; `around` goes outside it."""
    more = {"same_as": base} | more
    return Row(name, lambda around: around(change(base())), batch, **more)


def _gathering(name: str, change: Around, batch: Any = PLAIN, **more: Any) -> Row:
    """A transform that is given more than a batch; `around` goes inside it."""
    return Row(name, lambda around: change(around(base())), batch, same_as=base, **more)


def _devices(name: str, change: Around) -> Row:
    """A form of running over devices."""
    return _transform(name, change, without=OUTERMOST, eager=2)


def _fed(inner: Learner) -> Learner:
    return resident(window(inner, 4), turned, 16)


def _blocked(inner: Learner) -> Learner:
    return guard_in_blocks(resident(inner, turned, 16), 10, 4)


def _twice(looped: Learner) -> Learner:
    def step(state: Any, batch: Any, *, axis: Any = None) -> Any:
        return looped.step(state, batch, 2, axis=axis)

    return looped._replace(step=step)


def _normalised(axis: str | None) -> Callable[[Around], Learner]:
    model = from_linen(CNN((2,), (4,), 3, activation="tanh", norm="batch", axis_name=axis))
    return lambda around: around(learner(tasks.classification(model), SGD))


def _swept(around: Around) -> Learner:
    def build(learning_rate: Any) -> Learner:
        return learner(SMALL, recorded(optax.sgd(learning_rate, momentum=0.9)))

    return around(sweep(build, {"learning_rate": [0.1, 0.02]}))


def _played(around: Around) -> Learner:
    two = Player(_bilinear(-1.0), recorded(optax.sgd(0.05)), every=2)
    return around(game(one=Player(_bilinear(1.0), recorded(optax.sgd(0.1))), two=two))


def _apart(around: Around) -> Learner:
    nets = {name: from_linen(MLP((3,), 3, name)) for name in ("tanh", "sigmoid")}
    tx = recorded(optax.sgd(0.1))
    return around(
        independent(**{n: Player(tasks.classification(net), tx) for n, net in nets.items()})
    )


OUTERMOST = {
    "vmapped equals single": "it places its own work on devices, so it stands outside ensemble",
    "sharded equals one": "it is the sharded form itself; compared with one device as `same_as`",
    "pmap equals shard": "there is one way over devices at a time",
}
SPLIT = [("out$", PartitionSpec("model"))]
MASKS = {"pmap equals shard": "each device draws for itself, and the masks must differ"}

MODELS = [
    model_row("MLP", MODEL, double=True),
    Row(
        "CNN with BatchNorm", _normalised(None), UNMASKED, tolerance=1e-4,
        mapped=_normalised("data"), double=True,
    ),
    model_row("MLP with dropout", from_linen(MLP((5,), 3, "tanh", dropout=0.5)), without=MASKS),
]  # fmt: skip

TRANSFORMS = [
    Row("adam", lambda around: around(learner(SMALL, recorded(optax.adam(0.01)))), PLAIN),
    _gradient("accumulate", accumulate(2), same_as=base, double=True),
    _gradient("clip_gradient", clip_gradient(0.1)),
    _gradient("sharpness_aware", sharpness_aware(0.05), double=True),
    _gradient("accumulate of clip_gradient", accumulate(2, clip_gradient(0.1))),
    _gradient("nested gradients", clip_gradient(1.0, sharpness_aware(0.05, accumulate(2)))),
    _transform("jit", jit),
    _transform("window", lambda inner: window(inner, 4)),
    _transform("ema", lambda inner: ema(inner, 0.9)),
    _transform("guard", guard),
    _transform("keep_best", lambda inner: keep_best(inner, PLAIN, every=2)),
    _transform("window of ema of guard", lambda inner: window(ema(guard(inner), 0.9), 4)),
    _transform("ensemble", lambda inner: ensemble(inner, 2), same_as=None, double=True),
    Row("sweep", _swept, PLAIN, double=True),
    Row("game", _played, DENSE, double=True),
    Row("independent", _apart, DENSE, eager=2),
    _gathering("resident", lambda inner: resident(inner, turned, 16)),
    _gathering("stacked", from_stack, ROLLED),
    _gathering("loop", lambda inner: _twice(loop(_fed(inner))), calls=5),
    _gathering(
        "guard_in_blocks", lambda inner: _twice(_blocked(inner)), calls=5,
        without={"vmapped equals single": "what it looks at decides how far it goes: outside"},
    ),
    _devices("shard, replicated", lambda inner: shard(inner, mesh(data=8))),
    _devices("shard, fsdp", lambda inner: shard(inner, mesh(data=4), rules.fsdp(smallest=1))),
    _devices("shard, regex", lambda inner: shard(inner, mesh(data=2, model=4), rules.regex(SPLIT))),
    _devices("pmap", pmap),
    _devices("shard_map", lambda inner: shard_map(inner, mesh(data=8))),
    _transform(
        "shard_members", lambda inner: shard_members(ensemble(inner, 8), mesh(members=8)),
        same_as=lambda: ensemble(base(), 8), without=OUTERMOST, eager=2,
    ),
]  # fmt: skip

ROWS = [*MODELS, *TRANSFORMS]
