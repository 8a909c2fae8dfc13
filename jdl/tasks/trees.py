"""Tasks over trees, from the arrays of `jdl.data.tree_batches`."""

from collections.abc import Mapping
from typing import Any

from jdl import metrics as measures
from jdl.core.errors import error
from jdl.core.types import Batch, Key, Mean, Metric, Model, PyTree, Task
from jdl.tasks import losses
from jdl.tasks.supervised import Criterion, classification


def tree_arrays(batch: Batch) -> dict[str, Any]:
    """What a tree network is called with: labels, places of the children, slots in use."""
    missing = [name for name in ("x", "children", "present") if name not in batch]
    if missing:
        raise error(
            "batch",
            expected="trees: entries x, children and present",
            got=f"no {' and no '.join(missing)}",
            fix="lay the trees out with jdl.data.tree_batches.pad_trees or pack",
        )
    return {name: batch[name] for name in ("x", "children", "present")}


def tree_classification(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
) -> Task:
    """Choose a class for each tree, from its root: cross-entropy and accuracy.

    One tree a row, `y` [n] and a model of logits [n, classes] (`at="root"`), or packed rows, `y`
    and `mask` [n, width] and logits [n, width, classes] (`at="roots"`).

    >>> import jax
    >>> from jdl.data import tree_batches, trees
    >>> from jdl.models import RvNN, from_linen
    >>> tree = trees.from_nested((2, 0, 1))
    >>> batch = {**tree_batches.pad_trees([tree]), "y": jax.numpy.array([1])}
    >>> task = tree_classification(from_linen(RvNN(8, 2, vocabulary=3)))
    >>> params, model_state = task.init(jax.random.key(0), batch)
    >>> task.predict(params, model_state, batch).shape
    (1, 2)
    """
    return classification(model, loss=loss, metrics=metrics, inputs=tree_arrays)


def node_labelling(
    model: Model,
    *,
    loss: Criterion = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
) -> Task:
    """Choose a class for every node, as in a sentiment treebank (Socher et al. 2013).

    `y` and `mask` [n, nodes] are those that `jdl.data.tree_batches.pad_trees` makes of targets, and
    the model gives logits [n, nodes, classes] (`at="nodes"`). Counts `accuracy` over all nodes and
    `root_accuracy`. Raises `InputError` for a batch without a mask, whose padding would count.
    """
    own = {"accuracy": measures.accuracy, "root_accuracy": _root_accuracy}
    task = classification(model, loss=loss, metrics=metrics or own, inputs=tree_arrays)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        if "mask" not in batch or batch["mask"].shape != batch["present"].shape:
            raise error(
                "mask",
                expected="one number for each slot, 0 for padding",
                got=f"shape {batch['mask'].shape}" if "mask" in batch else "none",
                fix="give jdl.data.tree_batches.pad_trees the targets: it adds the mask",
            )
        return task.init(key, batch)

    return task._replace(init=init)


def _at_roots(outputs: Any, batch: Batch) -> Mean:
    width = batch["children"].shape[2]
    root = {name: batch[name][:, -width] for name in ("y", "mask")}
    return measures.accuracy.count(outputs[:, -width], root)


_root_accuracy = Metric(_at_roots, Mean.compute)
