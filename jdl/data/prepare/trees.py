"""Rooted, ordered trees from parents, nested tuples or text, checked for validity."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdl.core.errors import InputError, error


class Tree(NamedTuple):
    """A rooted, ordered tree; the children of a node are ordered by index.

    `parents` has shape (nodes,) and holds the index of each node's parent, −1 for the root.
    `labels` has shape (nodes,) or (nodes, features).

    >>> Tree(np.array([-1, 0, 0]), np.array([7, 1, 2])).labels.tolist()
    [7, 1, 2]
    """

    parents: np.ndarray
    labels: np.ndarray


def from_parents(parents: Sequence[int], labels: ArrayLike) -> Tree:
    """A tree from the parent of each node, −1 for the root, and a label for each.

    Both have shape (nodes,); labels may be (nodes, features). Raises `InputError` for an empty
    tree, a parent out of range, no root or several, a cycle, and another number of labels than
    nodes.

    >>> from_parents([-1, 0, 0], [7, 1, 2]).parents.tolist()
    [-1, 0, 0]
    """
    indices = np.asarray(parents)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise _invalid_tree(
            "parents", "integers, one for each node", f"{indices.dtype} {parents!r}"
        )
    tree = Tree(indices.astype(np.int64), np.asarray(labels))
    node_depths([tree])
    return tree


def from_nested(nested: Any) -> Tree:
    """A tree from nested tuples: `(label, child, child, ...)` for a node, anything else for a leaf.

    Nodes are numbered depth first, each before its children, from left to right. Raises
    `InputError` for an empty tuple and for a tuple as a label.

    >>> from_nested((0, 5, (1, 2, 3)))
    Tree(parents=array([-1,  0,  0,  2,  2]), labels=array([0, 5, 1, 2, 3]))
    """
    parents: list[int] = []
    labels: list[Any] = []
    waiting = [(nested, -1)]
    while waiting:
        node, parent = waiting.pop()
        if isinstance(node, tuple):
            if not node or isinstance(node[0], tuple):
                raise error(
                    f"node {len(labels)} of a nested tree",
                    expected="(label, child, child, ...)",
                    got="an empty tuple" if not node else "a tuple as the label",
                    fix="start every tuple with a label, and write leaves without a tuple",
                )
            waiting += [(child, len(labels)) for child in node[:0:-1]]
        labels.append(node[0] if isinstance(node, tuple) else node)
        parents.append(parent)
    return from_parents(parents, labels)


def from_text(text: str) -> Tree:
    """A tree from an s-expression, `(label child child ...)`; the labels are strings.

    Raises `InputError`, with the position of the word, for unbalanced brackets, a bracket without a
    label, and text outside the tree.

    >>> from_text("(MAX 5 (MIN 2 3))").labels.tolist()
    ['MAX', '5', 'MIN', '2', '3']
    """
    words = text.replace("(", " ( ").replace(")", " ) ").split()
    parents: list[int] = []
    labels: list[str] = []
    above: list[int] = []
    for number, (before, word) in enumerate(zip(["", *words], words, strict=False), start=1):
        if before == "(" and word in "()":
            raise _invalid_text(text, "a label after each (", f'"{word}" as word {number}')
        if not above and (labels or word == ")"):
            raise _invalid_text(text, "one tree", f'"{word}" outside of it, as word {number}')
        if word == ")":
            above.pop()
        elif word != "(":
            parents.append(above[-1] if above else -1)
            labels.append(word)
            if before == "(":
                above.append(len(labels) - 1)
    if above or words[-1:] == ["("]:
        raise _invalid_text(text, "a ) for each (", "some left open")
    return from_parents(parents, labels)


def encode_labels(trees: Sequence[Tree], vocabulary: Mapping[Any, int]) -> list[Tree]:
    """Replace each label by its integer in `vocabulary`.

    Raises `InputError` for a label that is not in the vocabulary.

    >>> encode_labels([from_text("(MAX 5 7)")], {"MAX": 0, "5": 1, "7": 2})[0].labels
    array([0, 1, 2], dtype=int32)
    """
    encoded = []
    for index, tree in enumerate(trees):
        unknown = [label for label in tree.labels.tolist() if label not in vocabulary]
        if unknown:
            raise error(
                f"tree {index}",
                expected=f"labels of the vocabulary, {len(vocabulary)} in all",
                got=f"{len(unknown)} unknown, the first {unknown[0]!r}",
                fix="build the vocabulary from all labels, or map rare labels to one of them",
            )
        codes = [vocabulary[label] for label in tree.labels.tolist()]
        encoded.append(tree._replace(labels=np.array(codes, np.int32)))
    return encoded


def node_depths(trees: Sequence[Tree]) -> np.ndarray:
    """Distance of each node from its root, concatenated over the trees: (nodes,).

    Raises `InputError` for a tree that is empty, has no root or several, or has a cycle.

    >>> node_depths([from_nested((0, 5, (1, 2, 3))), from_nested(4)]).tolist()
    [0, 1, 1, 2, 2, 0]
    """
    counts = np.array([len(tree.parents) for tree in trees], np.int64)
    if not len(counts) or not counts.all():
        which = f"tree {counts.argmin()}" if len(counts) else "trees"
        raise _invalid_tree(
            which, "at least one node" if len(counts) else "at least one tree", "none"
        )
    owner = np.repeat(np.arange(len(trees)), counts)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    parents = np.concatenate([tree.parents for tree in trees])
    outside = np.flatnonzero((parents < -1) | (parents >= counts[owner]))
    if len(outside):
        at, size = outside[0], counts[owner[outside[0]]]
        node = f"tree {owner[at]}, node {at - start[at]}"
        raise _invalid_tree(node, f"a parent from 0 to {size - 1}, or -1", f"{parents[at]}")
    roots = np.bincount(owner[parents == -1], minlength=len(trees))
    if (roots > 1).any():
        index = int((roots > 1).argmax())
        found = np.flatnonzero(trees[index].parents == -1).tolist()
        raise _invalid_tree(
            f"tree {index}", "one root", f"{len(found)} nodes of parent -1: {found}"
        )
    depth = np.where(parents == -1, 0, -1)
    level, waiting = 0, np.flatnonzero(parents != -1)
    parent = parents + start
    while len(waiting):
        reached = depth[parent[waiting]] == level
        if not reached.any():
            index = owner[waiting[0]]
            found = (waiting[owner[waiting] == index] - start[waiting[0]]).tolist()
            raise _invalid_tree(
                f"tree {index}", "no cycle", f"nodes not connected to the root: {found}"
            )
        level += 1
        depth[waiting[reached]] = level
        waiting = waiting[~reached]
    wrong = [i for i, tree in enumerate(trees) if len(tree.labels) != len(tree.parents)]
    if wrong:
        labels, nodes = (len(part) for part in (trees[wrong[0]].labels, trees[wrong[0]].parents))
        raise _invalid_tree(f"tree {wrong[0]}", f"{nodes} labels, one per node", f"{labels}")
    return depth


def _invalid_tree(what: str, expected: str, got: str) -> InputError:
    fix = "pass a parent for every node, -1 for the root only, and a label for every node"
    return error(what, expected=expected, got=got, fix=fix)


def _invalid_text(text: str, expected: str, got: str) -> InputError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return error(f'tree "{shown}"', expected=expected, got=got, fix="write (label child child)")
