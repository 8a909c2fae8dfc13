"""Rooted, ordered trees: made from parents, nested tuples or text, and checked."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import InputError, error


class Tree(NamedTuple):
    """A rooted, ordered tree. The children of a node are those it is the parent of, by index.

    `parents` int [nodes] holds the index of each node's parent, −1 for the root. `labels` are a
    label [nodes] or a vector [nodes, features] for each node.
    """

    parents: np.ndarray
    labels: np.ndarray


def from_parents(parents: Sequence[int], labels: Any) -> Tree:
    """A tree from the parent of each node, −1 for the root, and a label for each.

    Raises `InputError` for an empty tree, a parent that is no node, no root or several, a cycle,
    and a number of labels that is not the number of nodes.

    >>> from_parents([-1, 0, 0], [7, 1, 2]).parents.tolist()
    [-1, 0, 0]
    """
    indices = np.asarray(parents)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise _no_tree("parents", "integers, one for each node", f"{indices.dtype} {parents!r}")
    tree = Tree(indices.astype(np.int64), np.asarray(labels))
    node_depths([tree])
    return tree


def from_nested(nested: Any) -> Tree:
    """A tree from tuples: `(label, child, child, ...)` is an inner node, anything else a leaf.

    Nodes are numbered from the root down, each before its children, from left to right. Raises
    `InputError` for an empty tuple and for a tuple in the place of a label.

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
                    got="an empty tuple" if not node else "a tuple in the place of the label",
                    fix="give every inner node a label, and leaves as they are, without a tuple",
                )
            waiting += [(child, len(labels)) for child in node[:0:-1]]
        labels.append(node[0] if isinstance(node, tuple) else node)
        parents.append(parent)
    return from_parents(parents, labels)


def from_text(text: str) -> Tree:
    """A tree from an s-expression, `(label child child ...)`; the labels are words.

    Raises `InputError`, naming the number of the word, where brackets do not match, no label
    follows a bracket, or more than one tree stands in the text.

    >>> from_text("(MAX 5 (MIN 2 3))").labels.tolist()
    ['MAX', '5', 'MIN', '2', '3']
    """
    words = text.replace("(", " ( ").replace(")", " ) ").split()
    parents: list[int] = []
    labels: list[str] = []
    above: list[int] = []
    for number, (before, word) in enumerate(zip(["", *words], words, strict=False), start=1):
        if before == "(" and word in "()":
            raise _unreadable(text, "a label after each (", f'"{word}" as word {number}')
        if not above and (labels or word == ")"):
            raise _unreadable(text, "one tree", f'"{word}" outside of it, as word {number}')
        if word == ")":
            above.pop()
        elif word != "(":
            parents.append(above[-1] if above else -1)
            labels.append(word)
            if before == "(":
                above.append(len(labels) - 1)
    if above or words[-1:] == ["("]:
        raise _unreadable(text, "a ) for each (", "some left open")
    return from_parents(parents, labels)


def encode_labels(trees: Sequence[Tree], vocabulary: Mapping[Any, int]) -> list[Tree]:
    """The trees with each label replaced by its number.

    >>> encode_labels([from_text("(MAX 5 7)")], {"MAX": 0, "5": 1, "7": 2})[0].labels
    array([0, 1, 2], dtype=int32)
    """
    coded = []
    for index, tree in enumerate(trees):
        unknown = [label for label in tree.labels.tolist() if label not in vocabulary]
        if unknown:
            raise error(
                f"tree {index}",
                expected=f"labels of the vocabulary, which has {len(vocabulary)}",
                got=f"{len(unknown)} unknown, the first {unknown[0]!r}",
                fix="make the vocabulary from all labels, or map rare ones to one of them",
            )
        numbers = [vocabulary[label] for label in tree.labels.tolist()]
        coded.append(tree._replace(labels=np.array(numbers, np.int32)))
    return coded


def node_depths(trees: Sequence[Tree]) -> np.ndarray:
    """How far each node is from its root, over the nodes of all trees; `InputError` for no tree.

    >>> node_depths([from_nested((0, 5, (1, 2, 3))), from_nested(4)]).tolist()
    [0, 1, 1, 2, 2, 0]
    """
    counts = np.array([len(tree.parents) for tree in trees], np.int64)
    if not len(counts) or not counts.all():
        which = f"tree {counts.argmin()}" if len(counts) else "trees"
        raise _no_tree(which, "at least one node" if len(counts) else "at least one tree", "none")
    owner = np.repeat(np.arange(len(trees)), counts)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    given = np.concatenate([tree.parents for tree in trees])
    outside = np.flatnonzero((given < -1) | (given >= counts[owner]))
    if len(outside):
        at, size = outside[0], counts[owner[outside[0]]]
        named = f"tree {owner[at]}, node {at - start[at]}"
        raise _no_tree(named, f"a parent from 0 to {size - 1}, or -1", f"{given[at]}")
    roots = np.bincount(owner[given == -1], minlength=len(trees))
    if (roots > 1).any():
        index = int((roots > 1).argmax())
        found = np.flatnonzero(trees[index].parents == -1).tolist()
        raise _no_tree(f"tree {index}", "one root", f"{len(found)} nodes of parent -1: {found}")
    depth = np.where(given == -1, 0, -1)
    level, waiting = 0, np.flatnonzero(given != -1)
    parent = given + start
    while len(waiting):
        reached = depth[parent[waiting]] == level
        if not reached.any():
            index = owner[waiting[0]]
            found = (waiting[owner[waiting] == index] - start[waiting[0]]).tolist()
            raise _no_tree(f"tree {index}", "no cycle", f"nodes that no root leads to: {found}")
        level += 1
        depth[waiting[reached]] = level
        waiting = waiting[~reached]
    wrong = [i for i, tree in enumerate(trees) if len(tree.labels) != len(tree.parents)]
    if wrong:
        labels, nodes = (len(part) for part in (trees[wrong[0]].labels, trees[wrong[0]].parents))
        raise _no_tree(f"tree {wrong[0]}", f"{nodes} labels, one for each node", f"{labels}")
    return depth


def _no_tree(what: str, expected: str, got: str) -> InputError:
    fix = "give the parent of every node, -1 for the root alone, and a label for every node"
    return error(what, expected=expected, got=got, fix=fix)


def _unreadable(text: str, expected: str, got: str) -> InputError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return error(f'tree "{shown}"', expected=expected, got=got, fix="write (label child child)")
