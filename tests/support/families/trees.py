"""Networks over trees, and recommenders."""

import jax.numpy as jnp
import numpy as np

from jdl import tasks
from jdl.data import tree_batches, trees
from jdl.models import (
    ChildSumTreeLSTM,
    MatrixFactorization,
    NaryTreeLSTM,
    NeuralCollaborativeFiltering,
    RvNN,
    from_linen,
)
from tests.support.contract_rows import task_row

SHAPES = [(0, 1), (1, 0, (2, 1, 0)), (2, (0, 1), 2), 1, (0, (1, (2, 0), 1), 2)]


def _batches():
    rng = np.random.default_rng(0)
    many = [trees.from_nested(SHAPES[i % len(SHAPES)]) for i in range(16)]
    mask = (rng.random(16) > 0.4).astype(np.float32)
    single = {
        **tree_batches.pad_trees(many),
        "y": rng.integers(0, 3, 16).astype(np.int32),
        "mask": mask,
    }
    nodes = tree_batches.pad_trees(
        many, targets=[rng.integers(0, 3, len(tree.labels)) for tree in many]
    )
    pairs = {"x": rng.integers(0, 4, (16, 2)).astype(np.int32), "mask": mask}
    rated = {**pairs, "y": rng.normal(3, 1, (16, 1)).astype(np.float32)}
    return [{name: jnp.asarray(v) for name, v in b.items()} for b in (single, nodes, rated)]


TREES, NODES, RATED = _batches()


def network(module, **more):
    return from_linen(module(4, 3, vocabulary=3, embedding=2, **more))


ROWS = [
    task_row(
        "child-sum Tree-LSTM",
        tasks.tree_classification(network(ChildSumTreeLSTM)),
        TREES,
        eager=1,
        double=True,
    ),
    task_row("N-ary Tree-LSTM", tasks.tree_classification(network(NaryTreeLSTM)), TREES, eager=1),
    task_row(
        "RvNN, node_labelling", tasks.node_labelling(network(RvNN, at="nodes")), NODES, eager=1
    ),
    task_row(
        "matrix factorisation", tasks.regression(from_linen(MatrixFactorization(3, 3, 2))), RATED
    ),
    task_row(
        "neural collaborative filtering",
        tasks.regression(
            from_linen(NeuralCollaborativeFiltering(3, 3, 2, 2, (4,), activation="tanh"))
        ),
        RATED,
    ),
]
