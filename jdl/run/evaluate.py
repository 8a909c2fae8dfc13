"""A finished run at work: evaluation and prediction over any number of examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import jax
import numpy as np

from jdl import metrics as measure
from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.types import Batch, Learner, Metrics, Row, TrainState
from jdl.data.arrays import as_arrays, check_arrays, check_labels
from jdl.data.feed import evaluation_batches
from jdl.run.distributed.collectives import is_multiprocess
from jdl.run.execution.placement import placement, readable_sharding
from jdl.run.storage.leaf_io import is_distributed
from jdl.run.telemetry.clock import TimeBreakdown
from jdl.run.telemetry.recompilation import CompilationMonitor


class Result(NamedTuple):
    """What a run leaves: its state, the learner that made it, its log, and its folder if any."""

    state: TrainState
    learner: Learner
    history: list[Row]
    run_dir: Path | None


def evaluate(result: Result, data: Mapping[str, Any], *, batch_size: int = 512) -> dict[str, Any]:
    """Every metric of the task over the whole of `data`, as plain numbers.

    No example is dropped and none counts twice; sums are exact over any number of batches. A
    learner with members gives a list for each metric.
    """
    data = as_arrays(data, name="evaluation data")
    check_arrays(data, name="evaluation data")
    count = jax.jit(result.learner.evaluate, out_shardings=readable_sharding(result.state))
    put = placement(result.state)
    size = _whole(min(batch_size, len(next(iter(data.values())))), result.state)
    sample = next(evaluation_batches(data, size))
    check_classes(result.learner, result.state, sample, data, "evaluation data")
    parts = [count(result.state, put(b)) for b in evaluation_batches(data, size)]
    return measure.compute(add_on_host(parts))


def check_classes(
    learner: Learner, state: TrainState, sample: Batch, data: Mapping[str, Any], name: str
) -> None:
    """Integer labels beside outputs with one axis more are classes: all must lie within them.

    `sample` is a batch of the kind that `data` holds.
    """
    labels = data.get("y")
    if labels is None or labels.dtype.kind not in "iu":
        return
    outputs = jax.eval_shape(learner.predict, state, sample)
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        return
    if outputs.shape[len(state.members) : -1] == sample["y"].shape:
        check_labels(labels, outputs.shape[-1], f'{name}["y"]')


def predict(result: Result, data: Any, *, batch_size: int = 512) -> Any:
    """The outputs for raw inputs (an array, taken as `x`) or for a dict of arrays, as numpy.

    A learner with members puts them on the leading axis.
    """
    data = data if isinstance(data, Mapping) else {"x": data}
    data = as_arrays(data, name="inputs")
    examples = tree.leading(data)
    size = _whole(min(batch_size, examples), result.state)
    _check_fit(result, {name: value[np.zeros(size, int)] for name, value in data.items()})
    call = jax.jit(result.learner.predict, out_shardings=readable_sharding(result.state))
    put = placement(result.state)
    axis = len(result.state.members)
    outputs = []
    for batch in evaluation_batches(data, size):
        batch = batch if "mask" in data else {k: v for k, v in batch.items() if k != "mask"}
        outputs.append(jax.device_get(call(result.state, put(batch))))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis), *outputs)
    return jax.tree.map(lambda out: np.take(out, np.arange(examples), axis), joined)


def local_result(result: Result, learner: Learner) -> Result | None:
    """A result that one of several processes can use by itself, with the unsharded `learner`.

    All of them call it. None where no process holds the whole state; with one process nothing
    changes.
    """
    if not is_multiprocess():
        return result
    if any(is_distributed(leaf) for leaf in jax.tree.leaves(result.state)):
        return None

    def here(leaf: jax.Array) -> jax.Array:
        if tree.is_key(leaf):
            return jax.random.wrap_key_data(here(jax.random.key_data(leaf)))
        return leaf.addressable_data(0)

    return result._replace(state=jax.tree.map(here, result.state), learner=learner)


def _whole(batch_size: int, state: TrainState) -> int:
    """The batch size, raised to a multiple of the devices, which then divide it."""
    devices = len(jax.tree.leaves(state.params)[0].sharding.device_set)
    return -(-batch_size // devices) * devices


def evaluator(
    learner: Learner,
    state: TrainState,
    data: Mapping[str, Any] | None,
    batch_size: int,
    clock: TimeBreakdown,
) -> Callable[[TrainState], list[Metrics]]:
    """A function that evaluates a state on `data`, kept on the device, without waiting for it."""
    if data is None:
        return lambda state: []
    put = placement(state)
    count = CompilationMonitor(
        jax.jit(learner.evaluate, out_shardings=readable_sharding(state)),
        clock,
        "state",
        "batch",
    )
    batches = [put(batch) for batch in _batches(data, batch_size, 1024)]
    return lambda state: [count(state, batch) for batch in batches]


def add_on_host(parts: Sequence[Metrics]) -> Metrics:
    """The sum of metrics in float64 and int64, exact over any number of batches."""
    wide = {"f": np.float64, "i": np.int64, "u": np.uint64}
    # What is in the host's own memory is read in a tenth of the time that `device_get` takes.
    host = list(parts) if jax.default_backend() == "cpu" else jax.device_get(list(parts))

    def total(*leaves: Any) -> Any:
        values = [np.asarray(leaf) for leaf in leaves]
        return sum(value.astype(wide.get(value.dtype.kind, value.dtype)) for value in values)

    return jax.tree.map(total, *host)


def _batches(data: Mapping[str, Any], batch_size: int, wanted: int) -> Iterator[Batch]:
    """Padded batches of a multiple of `batch_size` near `wanted`: a mesh still divides it."""
    limit = min(wanted, tree.leading(data))
    return evaluation_batches(data, batch_size * max(1, -(-limit // batch_size)))


def _check_fit(result: Result, batch: Batch) -> None:
    """Refuse examples of another shape, named by their own sizes, not a padded batch's."""
    try:
        jax.eval_shape(result.learner.predict, result.state, batch)
    except InputError:
        raise
    except (flax.errors.FlaxError, TypeError, ValueError) as bad:
        shapes = {name: tuple(np.shape(x)[1:]) for name, x in batch.items()}
        raise error(
            "predict",
            expected="examples of the shape that the model was trained on",
            got=f"{shapes} ({str(bad).splitlines()[0][:200]})",
            fix="reshape the inputs, or load the run that was trained on them",
        ) from bad
