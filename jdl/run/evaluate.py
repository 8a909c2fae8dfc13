"""Evaluation and prediction with a finished run, over any number of examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import jax
import numpy as np
from numpy.typing import ArrayLike

from jdl import metrics as measure
from jdl.core import tree
from jdl.core.errors import InputError, check_count, error
from jdl.core.nouns import check_result, describe
from jdl.core.text import metrics_of
from jdl.core.types import (
    Batch,
    Learner,
    Metrics,
    PyTree,
    Row,
    Samples,
    TrainState,
    is_samples,
)
from jdl.data.arrays import as_arrays, check_arrays, check_labels, labels_that_count
from jdl.data.feed import Feed, evaluation_batches
from jdl.data.records import Data
from jdl.run.check_mask import check_same_metrics, with_other_padding
from jdl.run.distributed.collectives import is_multiprocess
from jdl.run.execution.placement import mesh_of, placement, readable_sharding
from jdl.run.host_metrics import check_gathered, gathered_bytes
from jdl.run.identity.processes import check_same_data
from jdl.run.named_sets import sets_of
from jdl.run.storage.leaf_io import is_distributed
from jdl.run.storage.metrics_log import scalars_of
from jdl.run.telemetry.clock import TimeBreakdown
from jdl.run.telemetry.recompilation import CompilationMonitor

SHOWN_METRICS = 4
"""Metrics of each split that the text of a `Result` shows."""


class Result(NamedTuple):
    """The result of `fit` or `load`, which `evaluate` and `predict` take.

    Build one yourself for a state from your own loop:

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> data = {"x": np.ones((4, 1), np.float32), "y": np.ones((4, 1), np.float32)}
    >>> result = Result(learner.init(jax.random.key(0), data), learner, [], None)
    >>> predict(result, data["x"]).shape
    (4, 1)
    """

    state: TrainState
    learner: Learner
    history: list[Row]
    """The rows of the log: a dict for each, with `step`, `epoch`, `split` and the metrics."""
    run_dir: Path | None
    """The run directory; None if the run was not saved."""

    def __repr__(self) -> str:
        last = {row.get("split"): row for row in self.history}
        shown = [f"step {int(self.state.step)}"]
        for split, row in last.items():
            metrics = list(metrics_of(scalars_of(row)).items())[:SHOWN_METRICS]
            shown.append(f"{split} " + " ".join(f"{name} {value:.4g}" for name, value in metrics))
        shown.append(f"run_dir {self.run_dir}" if self.run_dir else "not saved")
        return f"Result({', '.join(shown)})"


def evaluate(result: Result, data: Mapping[str, Any], *, batch_size: int = 512) -> dict[str, Any]:
    """Compute every metric of the task over all of `data`, a dict of arrays `(examples, ...)`.

    Values are Python scalars, or lists of shape `(members,)` for a learner with members. No example
    is dropped or counted twice: the last batch is padded and masked, and totals of batches are
    added in float64. `batch_size` does not change the result beyond rounding.

    Metrics that need all examples at once, such as `jdl.metrics.auc`, gather them in host memory,
    at most 1 GiB.

    Raises `InputError` for data that are not finite or have other shapes than the learner takes,
    for labels that are no class of the model, for a `batch_size` below 1, and if metrics would
    gather more than 1 GiB.

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> data = {"x": np.ones((5, 1), np.float32), "y": np.ones((5, 1), np.float32)}
    >>> result = Result(learner.init(jax.random.key(0), data), learner, [], None)
    >>> evaluate(result, data, batch_size=2)
    {'loss': 1.0}
    """
    check_result(result, "evaluate: result")
    check_count("evaluate: batch_size", batch_size)
    check_split(data, "evaluate: data")
    data = as_arrays(data, name="evaluation data")
    check_arrays(data, name="evaluation data")
    count = jax.jit(result.learner.evaluate, out_shardings=readable_sharding(result.state))
    put = placement(result.state)
    size = _whole(min(batch_size, len(next(iter(data.values())))), result.state)
    _check_same_in_all_processes(result.state, data, "evaluation data")
    sample = next(evaluation_batches(data, size))
    check_classes(result.learner, result.state, sample, data, "evaluation data")
    batch = sample
    batches, parts = -(-tree.leading(data) // size), []
    for batch in evaluation_batches(data, size):
        parts.append(count(result.state, put(batch)))
        if len(parts) == 1:
            sizes = gathered_bytes(parts[0])
            check_gathered({name: n * batches for name, n in sizes.items()}, "evaluate: data")
    _check_padding(lambda other: count(result.state, put(other)), batch, parts[-1])
    return measure.compute(add_on_host(parts))


def check_split(data: Any, where: str) -> None:
    """Raise `InputError` for a `Data` record or a `Feed`, which hold more than one split needs."""
    if not isinstance(data, Data | Feed):
        return
    is_feed = isinstance(data, Feed)
    raise error(
        where,
        expected="a dict of arrays (examples, ...)",
        got=describe(data),
        fix="pass its arrays: feed.data" if is_feed else "pass one split: data.valid, data.test()",
    )


def check_classes(
    learner: Learner, state: TrainState, sample: Batch, data: Mapping[str, Any], name: str
) -> None:
    """Raise `InputError` for a class label that the outputs have no logit for.

    Integer labels are classes if the outputs have one axis more. `sample` is a batch of `data`.
    """
    classes = count_classes(learner, state, sample)
    if classes is not None and "y" in data:
        counts = labels_that_count(data, learner.info.ignore)
        check_labels(data["y"], classes, f'{name}["y"]', counts)


def count_classes(learner: Learner, state: TrainState, sample: Batch) -> int | None:
    """The classes that the integer labels of a batch name; None where they name none."""
    labels = sample.get("y")
    if labels is None or labels.dtype.kind not in "iu":
        return None
    outputs = jax.eval_shape(learner.predict, state, sample)
    is_array = isinstance(outputs, jax.ShapeDtypeStruct)
    if is_array and outputs.shape[len(state.members) : -1] == labels.shape:
        return outputs.shape[-1]
    return None


def predict(
    result: Result, data: ArrayLike | Mapping[str, Any], *, batch_size: int = 512
) -> PyTree:
    """Compute the outputs for `data`: an array, which is used as `x`, or a dict of arrays.

    `data` holds what the model takes, as in `data.train`: if the training data were scaled, scale
    these in the same way. (`jdl predict` reads raw values from a file and scales them itself.)
    Arrays have shapes `(examples, ...)`. Outputs are numpy arrays of shape `(examples, ...)`, or
    `(members, examples, ...)` for a learner with members.

    Raises `InputError` for values that are not finite, for examples of another shape than the model
    was trained on, and for a `batch_size` below 1.

    >>> import jdl, optax
    >>> model = jdl.from_functions(lambda key, x: {"w": 2.0}, lambda params, x: params["w"] * x)
    >>> learner = jdl.learner(jdl.regression(model), optax.sgd(0.1))
    >>> x = np.array([[1.0], [3.0]], np.float32)
    >>> result = Result(learner.init(jax.random.key(0), {"x": x, "y": x}), learner, [], None)
    >>> predict(result, x)
    array([[2.],
           [6.]], dtype=float32)
    """
    check_result(result, "predict: result")
    check_count("predict: batch_size", batch_size)
    check_split(data, "predict: data")
    data = data if isinstance(data, Mapping) else {"x": data}
    data = as_arrays(data, name="inputs")
    check_arrays(data, name="inputs")
    examples = tree.leading(data)
    size = _whole(min(batch_size, examples), result.state)
    _check_same_in_all_processes(result.state, data, "inputs")
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
    """The result for use in one process alone, with the unsharded `learner`.

    Every process calls it. None if no process holds the whole state; with one process, `result`.
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


def _check_same_in_all_processes(state: TrainState, data: Mapping[str, Any], name: str) -> None:
    """Raise `InputError` if several processes that compute together hold other arrays."""
    mesh = mesh_of(state)
    if mesh is not None and mesh.is_multi_process:
        check_same_data(data, name)


def _whole(batch_size: int, state: TrainState) -> int:
    """The batch size, rounded up to a multiple of the devices."""
    devices = len(jax.tree.leaves(state.params)[0].sharding.device_set)
    return -(-batch_size // devices) * devices


def evaluator(
    learner: Learner,
    state: TrainState,
    valid: Mapping[str, Any] | None,
    batch_size: int,
    clock: TimeBreakdown,
) -> Callable[[TrainState], dict[str, list[Metrics]]]:
    """A function that evaluates a state without waiting: the metrics of each batch, by set.

    The sets stay on the device.
    """
    put = placement(state)
    count = CompilationMonitor(
        jax.jit(learner.evaluate, out_shardings=readable_sharding(state)),
        clock,
        "state",
        "batch",
    )
    sets: dict[str, list[Any]] = {}
    for name, data in sets_of(valid).items():
        last: Batch = {}
        sets[name] = [put(last := batch) for batch in _batches(data, batch_size, 1024)]
        _check_padding(lambda other: count(state, put(other)), last)
    return lambda state: {
        name: [count(state, batch) for batch in batches] for name, batches in sets.items()
    }


def _check_padding(
    count: Callable[[Batch], Metrics], batch: Batch, found: Metrics | None = None
) -> None:
    """Raise unless the last, padded batch counts the same whatever fills its other rows."""
    other = with_other_padding(batch)
    if other is not None:
        check_same_metrics(count(batch) if found is None else found, count(other))


def add_on_host(parts: Sequence[Metrics]) -> Metrics:
    """The sum of metrics in float64 and int64, exact over any number of batches.

    `Samples` are concatenated.
    """
    wide = {"f": np.float64, "i": np.int64, "u": np.uint64, "b": np.int64}
    # On CPU the arrays are in host memory already; `device_get` would take ten times as long.
    host = list(parts) if jax.default_backend() == "cpu" else jax.device_get(list(parts))

    def total(*leaves: Any) -> Any:
        if is_samples(leaves[0]):
            return Samples.concatenate(leaves)
        values = [np.asarray(leaf) for leaf in leaves]
        # To numpy the 16-bit floats of JAX are of no kind that it knows.
        kind = np.float64 if tree.is_float(values[0]) else wide.get(values[0].dtype.kind)
        return sum(value.astype(kind or value.dtype) for value in values)

    return jax.tree.map(total, *host, is_leaf=is_samples)


def _batches(data: Mapping[str, Any], batch_size: int, target_size: int) -> Iterator[Batch]:
    """Padded batches of about `target_size`; a multiple of `batch_size`, so a mesh divides it."""
    limit = min(target_size, tree.leading(data))
    return evaluation_batches(data, batch_size * max(1, -(-limit // batch_size)))


def _check_fit(result: Result, batch: Batch) -> None:
    """Raise `InputError` for examples that the model does not take, with the shape of one."""
    try:
        jax.eval_shape(result.learner.predict, result.state, batch)
    except InputError:
        raise
    except (flax.errors.FlaxError, TypeError, ValueError) as bad:
        shapes = {name: tuple(np.shape(x)[1:]) for name, x in batch.items()}
        raise error(
            "predict",
            expected="examples of the shapes that the model was trained on",
            got=f"{shapes} ({str(bad).splitlines()[0][:200]})",
            fix="reshape the inputs, or load the run that was trained on such examples",
        ) from bad
