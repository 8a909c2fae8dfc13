"""Tasks for trees, which `jdl.data.tree_batches` lays out in arrays."""

from collections.abc import Mapping
from typing import Any

from jdl import metrics as measures
from jdl.core.errors import error
from jdl.core.types import Batch, Key, Mean, Metric, Model, PyTree, Task
from jdl.metrics.checks import check_one_array
from jdl.tasks import losses
from jdl.tasks.supervised import Criterion, classification


def tree_arrays(batch: Batch) -> dict[str, Any]:
    """The inputs of a tree network: the entries `x`, `children` and `present` of a batch.

    Labels `x` and flags `present` are (batch, nodes), indices `children`
    (batch, levels, width, arity). Raises `InputError` if one of them is missing.

    >>> sorted(tree_arrays({"x": 0, "children": 1, "present": 2, "y": 3}))
    ['children', 'present', 'x']
    """
    missing = [name for name in ("x", "children", "present") if name not in batch]
    if missing:
        raise error(
            "batch",
            expected="trees: entries x, children and present",
            got=f"no {' and no '.join(missing)}",
            fix="build the batch with jdl.data.tree_batches.pad_trees or pack",
        )
    return {name: batch[name] for name in ("x", "children", "present")}


def tree_classification(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
) -> Task:
    """Predict one class per tree from its root: cross-entropy and accuracy.

    With one tree per row, labels `y` are (batch,) and the model, built with `at="root"`, returns
    logits (batch, classes). With packed rows, `y` and `mask` are (batch, width) and logits
    (batch, width, classes), with `at="roots"`. Raises `InputError` if the labels do not fit the
    outputs, or if an array of the trees is missing.

    >>> import jax
    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import RvNN, from_linen
    >>> tree = trees.from_nested((2, 0, 1))
    >>> batch = {**tree_batches.pad_trees([tree]), "y": jax.numpy.array([1])}
    >>> task = tree_classification(from_linen(RvNN(8, 2, vocabulary=3)))
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (1, 2)

    Tai, Socher and Manning 2015, "Improved semantic representations from tree-structured long
    short-term memory networks".
    """
    return classification(model, loss=loss, metrics=metrics, inputs=tree_arrays)


def node_labelling(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
) -> Task:
    """Predict one class per node of a tree, as in a sentiment treebank.

    Labels `y` and `mask` (batch, nodes) come from `jdl.data.tree_batches.pad_trees` with targets,
    and the model, built with `at="nodes"`, returns logits (batch, nodes, classes). The metrics are
    `accuracy` over all nodes and `root_accuracy`. Raises `InputError` for a batch without a mask,
    whose padding would count.

    >>> import jax
    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import RvNN, from_linen
    >>> batch = tree_batches.pad_trees([trees.from_nested((2, 0, 1))], targets=[[0, 1, 1]])
    >>> task = node_labelling(from_linen(RvNN(8, 2, vocabulary=3, at="nodes")))
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape[-1]
    2

    Socher et al. 2013, "Recursive deep models for semantic compositionality over a sentiment
    treebank".
    """
    own = {"accuracy": measures.accuracy, "root_accuracy": _root_accuracy}
    task = classification(model, loss=loss, metrics=metrics or own, inputs=tree_arrays)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        if "mask" not in batch or batch["mask"].shape != batch["present"].shape:
            raise error(
                "mask",
                expected=f"shape {batch['present'].shape}, one value per slot, 0 for padding",
                got=f"shape {batch['mask'].shape}" if "mask" in batch else "none",
                fix="pass targets to jdl.data.tree_batches.pad_trees, which adds the mask",
            )
        return task.init(key, batch)

    return task._replace(init=init)


def _at_roots(outputs: Any, batch: Batch) -> Mean:
    check_one_array(outputs, "node_labelling")
    width = batch["children"].shape[2]
    root = {name: batch[name][:, -width] for name in ("y", "mask")}
    root |= {"weight": batch["weight"]} if "weight" in batch else {}
    return measures.accuracy.count(outputs[:, -width], root)


_root_accuracy = Metric(_at_roots, Mean.compute)
