"""Trees of any shape as arrays of one shape, for a network that processes them level by level.

An example holds one tree (`pad_trees`) or several (`pack_trees`): first the leaves, then the slots
of each level of inner nodes, with the roots in the last level. One compiled program serves every
tree.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import error
from jdl.data.arrays import Arrays
from jdl.data.prepare.trees import Tree, node_depths


class TreeShape(NamedTuple):
    """The number of slots that an example has for the nodes of its trees.

    >>> TreeShape(leaves=3, levels=2, width=1, arity=2).nodes
    5
    """

    leaves: int
    levels: int
    """Levels of inner nodes; a root counts as one even without children."""
    width: int
    """Slots for inner nodes at each level."""
    arity: int
    """The most children that a node may have."""

    @property
    def nodes(self) -> int:
        """The total number of slots."""
        return self.leaves + self.levels * self.width


def shape_for(trees: Sequence[Tree], per_row: int = 1) -> TreeShape:
    """The smallest shape that holds each of the trees, or about `per_row` trees of average size.

    Raises `InputError` for an invalid tree, as `node_depths` does.

    >>> from jdl.data.prepare.trees import from_nested
    >>> shape_for([from_nested((0, 5, (1, 2, 3)))])
    TreeShape(leaves=3, levels=2, width=1, arity=2)
    """
    counts, arity = _counts(to_forest(trees))
    leaves, levels, width, arity = _shapes(counts, arity).max(0).tolist()
    if per_row > 1:
        mean = np.ceil(per_row * counts.mean(0)).astype(int)
        leaves, width = max(leaves, mean[0]), max(width, *mean[1:])
    return TreeShape(int(leaves), levels, int(width), arity)


def shape_buckets(trees: Sequence[Tree], at_most: int = 3) -> list[TreeShape]:
    """At most `at_most` shapes of increasing size; the last holds every tree.

    The trees are sorted by size and cut into equal parts, one per shape. With a program compiled
    for each shape, small trees are not padded to the size of the largest. All shapes have the same
    arity, because the weights of some networks depend on it.

    >>> from jdl.data.prepare.trees import from_nested
    >>> shapes = shape_buckets([from_nested((0, 1)), from_nested((0, (1, 2, 3), 4))], at_most=2)
    >>> [shape.nodes for shape in shapes]
    [2, 5]
    """
    single = _shapes(*_counts(to_forest(trees)))
    single[:, 3] = single[:, 3].max()
    order = np.argsort(single[:, 0] + single[:, 1] * single[:, 2], kind="stable")
    parts = np.array_split(order, min(at_most, len(trees)))
    largest = np.maximum.accumulate([single[part].max(0) for part in parts])
    return list(dict.fromkeys(TreeShape(*size) for size in largest.tolist()))


def group_by_shape(
    trees: Sequence[Tree], shapes: Sequence[TreeShape]
) -> dict[TreeShape, np.ndarray]:
    """Indices (size,) of the trees that belong to each shape, the first that is large enough.

    Raises `InputError` for a tree that fits none of the shapes.

    >>> from jdl.data.prepare.trees import from_nested
    >>> trees = [from_nested((0, (1, 2, 3), 4)), from_nested((0, 1))]
    >>> [indices.tolist() for indices in group_by_shape(trees, shape_buckets(trees)).values()]
    [[1], [0]]
    """
    single = _shapes(*_counts(to_forest(trees)))
    fits = np.stack([(single <= np.array(shape)).all(1) for shape in shapes])
    _check_fit(fits.any(0), single, shapes[-1])
    first = fits.argmax(0)
    groups = {shape: np.flatnonzero(first == number) for number, shape in enumerate(shapes)}
    return {shape: indices for shape, indices in groups.items() if len(indices)}


def pad_trees(
    trees: Sequence[Tree], shape: TreeShape | None = None, *, targets: Sequence[Any] | None = None
) -> Arrays:
    """One tree per example, padded to `shape`, by default the smallest that holds every tree.

    Slots are the leaves from left to right, then the inner nodes level by level, the deepest first;
    the root is in the first slot of the last level.

    - `x` (n, nodes) or (n, nodes, features): the labels, 0 in empty slots;
    - `children` int32 (n, levels, width, arity): the position of each child among the leaves
      followed by the nodes of the level below; −1 for no child;
    - `present` bool (n, nodes): the slots that hold a node;
    - with `targets`, an array (nodes of the tree,) for each tree: `y` (n, nodes), and `present`
      again as the float32 `mask` of the loss.

    Raises `InputError` for a tree that does not fit, and for labels or targets that are not numbers
    or not one per node.

    >>> from jdl.data.prepare.trees import from_nested
    >>> arrays = pad_trees([from_nested((0, 5, (1, 2, 3)))])
    >>> arrays["x"].tolist(), arrays["children"].tolist()
    ([[5, 2, 3, 1, 0]], [[[[1, 2]], [[0, 3]]]])
    """
    forest = to_forest(trees)
    single = _shapes(*_counts(forest))
    shape = TreeShape(*single.max(0).tolist()) if shape is None else shape
    _check_fit((single <= np.array(shape)).all(1), single, shape)
    arrays, slot = _lay_out(forest, trees, np.arange(len(trees)), shape)
    if targets is not None:
        arrays["y"] = _fill_slots(trees, targets, forest.tree, slot, arrays["present"], "targets")
        arrays["mask"] = arrays["present"].astype(np.float32)
    return arrays


def pack_trees(trees: Sequence[Tree], y: ArrayLike, shape: TreeShape) -> Arrays:
    """Several trees per example, as many as fit, in order; this wastes less space than `pad_trees`.

    `x`, `children` and `present` are as in `pad_trees`, with a root for each tree in the last
    level. `y` (n, width) holds the target of each tree and `mask` float32 (n, width) is 1 where
    there is one; `outputs[mask > 0]` is in the order of the trees. Raises `InputError` for a tree
    that does not fit, and for another number of targets than trees.

    >>> from jdl.data.prepare.trees import from_nested
    >>> three = [from_nested((0, 5, 6)), from_nested((1, 2)), from_nested(4)]
    >>> arrays = pack_trees(three, [7, 8, 9], TreeShape(leaves=3, levels=1, width=2, arity=2))
    >>> arrays["y"].tolist(), arrays["children"][0].tolist()
    ([[7, 8], [9, 0]], [[[0, 1], [2, -1]]])
    """
    forest = to_forest(trees)
    counts, arity = _counts(forest)
    single = _shapes(counts, arity)
    _check_fit((single <= np.array(shape)).all(1), single, shape)
    y = np.asarray(y)
    if len(y) != len(trees):
        raise error("y", expected=f"{len(trees)}, one for each tree", got=f"{len(y)}",
                    fix="pass the targets in the order of the trees")  # fmt: skip
    row = _rows(counts, shape)
    arrays, slot = _lay_out(forest, trees, row, shape)
    root = slot[forest.parent < 0] - (shape.nodes - shape.width)
    mask = np.zeros((row[-1] + 1, shape.width), np.float32)
    mask[row, root] = 1
    targets = np.zeros(mask.shape, y.dtype)
    targets[row, root] = y
    return {**arrays, "y": targets, "mask": mask}


class Forest(NamedTuple):
    """All nodes of several trees, concatenated; every array has shape (nodes,).

    >>> from jdl.data.prepare.trees import from_nested
    >>> forest = to_forest([from_nested((0, 5)), from_nested((1, 2, 3))])
    >>> forest.tree.tolist(), forest.parent.tolist()
    ([0, 0, 1, 1, 1], [-1, 0, -1, 2, 2])
    """

    tree: np.ndarray
    parent: np.ndarray
    """Index among all nodes; −1 for roots."""
    depth: np.ndarray
    is_leaf: np.ndarray
    """Whether the node has no children and is not a root."""


def to_forest(trees: Sequence[Tree]) -> Forest:
    """Concatenate the nodes of the trees; every array has shape (nodes,).

    Raises `InputError` for an invalid tree, as `node_depths` does.

    >>> from jdl.data.prepare.trees import from_nested
    >>> to_forest([from_nested((0, 5, 6)), from_nested(4)]).depth.tolist()
    [0, 1, 1, 0]
    """
    depth = node_depths(trees)
    counts = np.array([len(tree.parents) for tree in trees])
    tree = np.repeat(np.arange(len(trees)), counts)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    parent = np.concatenate([tree.parents for tree in trees])
    parent = np.where(parent >= 0, parent + start, -1)
    has_child = np.bincount(parent[parent >= 0], minlength=len(parent)) > 0
    return Forest(tree, parent, depth, ~has_child & (parent >= 0))


def _counts(forest: Forest) -> tuple[np.ndarray, np.ndarray]:
    """For each tree, its number of leaves and of inner nodes at each depth; and its arity."""
    n, columns = forest.tree[-1] + 1, forest.depth.max() + 2
    column = np.where(forest.is_leaf, 0, forest.depth + 1)
    counts = np.bincount(forest.tree * columns + column, minlength=n * columns)
    siblings = np.bincount(forest.parent[forest.parent >= 0], minlength=len(forest.parent))
    arity = np.ones(n, np.int64)
    np.maximum.at(arity, forest.tree, siblings)
    return counts.reshape(n, columns), arity


def _shapes(counts: np.ndarray, arity: np.ndarray) -> np.ndarray:
    """The shape (n, 4) that each tree needs on its own."""
    inner = counts[:, 1:]
    return np.stack([np.maximum(counts[:, 0], 1), (inner > 0).sum(1), inner.max(1), arity], 1)


def _rows(counts: np.ndarray, shape: TreeShape) -> np.ndarray:
    """The example of each tree: a new one begins at each tree that no longer fits."""
    room = np.array([shape.leaves] + [shape.width] * (counts.shape[1] - 1))
    rows = np.zeros(len(counts), np.int64)
    row, used = 0, np.zeros(len(room), np.int64)
    for index, count in enumerate(counts):
        used = used + count
        if (used > room).any():
            row, used = row + 1, count
        rows[index] = row
    return rows


def _lay_out(
    forest: Forest, trees: Sequence[Tree], row: np.ndarray, shape: TreeShape
) -> tuple[Arrays, np.ndarray]:
    """The arrays of trees assigned to examples by `row`, and the slot of each node."""
    leaves, levels, width, arity = shape
    at, level = row[forest.tree], levels - 1 - forest.depth
    rank = _rank(at * (levels + 1) + np.where(forest.is_leaf, levels, level))
    slot = np.where(forest.is_leaf, rank, leaves + level * width + rank)
    children = np.full((row[-1] + 1, levels, width, arity), -1, np.int32)
    child = np.flatnonzero(forest.parent >= 0)
    above = forest.parent[child]
    seen = rank[child] + np.where(forest.is_leaf[child], 0, leaves)
    children[at[child], level[above], rank[above], _rank(above)] = seen
    present = np.zeros((row[-1] + 1, shape.nodes), bool)
    present[at, slot] = True
    x = _fill_slots(trees, [tree.labels for tree in trees], at, slot, present, "labels")
    return {"x": x, "children": children, "present": present}, slot


def _rank(group: np.ndarray) -> np.ndarray:
    """The position of each entry within its group, in order."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(group)])
    rank = np.empty(len(group), np.int64)
    sizes = np.diff(np.r_[first, len(group)])
    rank[order] = np.arange(len(group)) - np.repeat(first, sizes)
    return rank


def _fill_slots(
    trees: Sequence[Tree],
    values: Sequence[Any],
    row: np.ndarray,
    slot: np.ndarray,
    present: np.ndarray,
    name: str,
) -> np.ndarray:
    """One value per node in the nodes' slots, 0 elsewhere."""
    if [len(value) for value in values] != [len(tree.parents) for tree in trees]:
        raise error(
            name,
            expected="one for each node of each tree",
            got=f"{len(values)} lists for {len(trees)} trees, or one of another length",
            fix="pass one per node, in the order of the tree's nodes",
        )
    flat = np.concatenate([np.asarray(value) for value in values])
    if flat.dtype.kind not in "iufb":
        raise error(
            name,
            expected="numbers",
            got=f"{flat.flat[0]!r}",
            fix="encode the labels with jdl.data.trees.encode_labels",
        )
    kind = np.int32 if flat.dtype.kind in "iub" else np.float32
    filled = np.zeros((*present.shape, *flat.shape[1:]), kind)
    filled[row, slot] = flat
    return filled


def _check_fit(fits: Any, single: np.ndarray, shape: TreeShape) -> None:
    if not np.all(fits):
        index = int(np.argmin(fits))
        raise error(
            f"tree {index}",
            expected=f"room for it in {shape}",
            got=str(TreeShape(*single[index].tolist())),
            fix="use shape_for on all trees, including those that come later",
        )
