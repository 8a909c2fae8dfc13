"""ListOps: nested operations on lists of digits, whose value a network must predict.

`(MAX 2 9 (MIN 4 7) 0)` is 9. A sequence network has to infer the structure from the brackets; a
tree network is given it (Nangia and Bowman 2018).
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdl.core.errors import check_range, error
from jdl.data.arrays import Arrays
from jdl.data.prepare import tree_batches
from jdl.data.prepare.trees import Tree, node_depths

DIGITS = 10
OPERATORS = ("MAX", "MIN", "MED", "SUM_MOD")
VOCABULARY = {**{str(digit): digit for digit in range(DIGITS)},
              **{name: DIGITS + number for number, name in enumerate(OPERATORS)}}  # fmt: skip
"""The code of each label: digits are themselves, the operators follow."""
CLOSE_TOKEN = len(VOCABULARY)
"""The token of a closing bracket in `to_tokens`; an operator's token opens its list."""


def random_expressions(
    n: int,
    *,
    depth: tuple[int, int] = (1, 4),
    arity: tuple[int, int] = (2, 5),
    nested: float = 0.25,
    seed: int = 0,
) -> list[Tree]:
    """Random ListOps expressions (Nangia and Bowman 2018) as trees, with labels from `VOCABULARY`.

    The depth of an expression is uniform over `depth`, (smallest, largest), and is reached exactly:
    one argument of the root is a list, one of that list's arguments too, and so on. Any other
    argument above the deepest level is a list with probability `nested`, else a digit. A list has
    `arity[0]` to `arity[1]` arguments; operators and digits are uniform. Raises `InputError` for n
    below 1, `nested` outside [0, 1], and for invalid bounds.

    >>> [tree] = random_expressions(1, depth=(2, 2), seed=1)
    >>> to_text(tree), int(expression_values([tree])[0])
    ('(MAX 7 6 1 (SUM_MOD 6 9))', 7)
    """
    check_range("n", n, 1)
    check_range("nested", nested, 0, 1)
    for name, (low, high) in {"depth": depth, "arity": arity}.items():
        if not 1 <= low <= high:
            raise error(
                name,
                expected="(smallest, largest), both at least 1",
                got=f"({low}, {high})",
                fix="for example (1, 4)",
            )
    draw = random.Random(seed)
    return [_expression(draw, draw.randint(*depth), arity, nested) for _ in range(n)]


def expression_values(trees: Sequence[Tree]) -> np.ndarray:
    """Values of the expressions, 0 to 9: int32 (n,).

    MED is the median rounded down, SUM_MOD the sum modulo 10. Raises `InputError` for an unknown
    label, an operator without arguments and a digit with arguments.

    >>> from jdl.data.prepare.trees import encode_labels, from_text
    >>> expression_values(encode_labels([from_text("(MAX 2 9 (MIN 4 7) 0)")], VOCABULARY)).tolist()
    [9]
    """
    tree, parent, depth, _ = tree_batches.to_forest(trees)
    label = np.concatenate([tree.labels for tree in trees])
    start = np.searchsorted(tree, np.arange(len(trees)))
    _check(label, np.bincount(parent[depth > 0], minlength=len(label)), start[tree])
    value = label.astype(np.int64)
    for level in range(depth.max(), 0, -1):
        nodes = np.flatnonzero(depth == level)
        nodes = nodes[np.lexsort((value[nodes], parent[nodes]))]
        above, first, size = np.unique(parent[nodes], return_index=True, return_counts=True)
        ordered = value[nodes]
        middle = ordered[first + (size - 1) // 2] + ordered[first + size // 2]
        results = (
            ordered[first + size - 1],
            ordered[first],
            middle // 2,
            np.add.reduceat(ordered, first) % DIGITS,
        )
        value[above] = np.choose(label[above] - DIGITS, results)
    return value[start].astype(np.int32)


def to_tokens(trees: Sequence[Tree], length: int | None = None) -> Arrays:
    """The expressions as token sequences, for a network that does not use the trees.

    `x` int32 (n, length) holds digits, operators and `CLOSE_TOKEN`, then 0 as padding; `lengths` is
    int32 (n,). Raises `InputError` for a sequence longer than `length`.

    >>> from jdl.data.prepare.trees import encode_labels, from_text
    >>> to_tokens(encode_labels([from_text("(MAX 2 (MIN 4 7) 0)")], VOCABULARY))["x"].tolist()
    [[10, 2, 11, 4, 7, 14, 0, 14]]
    """
    depth, counts = node_depths(trees), np.array([len(tree.parents) for tree in trees])
    last = np.cumsum(counts) - 1
    # A list ends where the next node is less deep, and all lists at the end of the tree.
    after = np.r_[depth[1:], 0]
    after[last] = 0
    closed = np.maximum(depth - after, 0)
    ends = np.cumsum(1 + closed)
    lengths = np.diff(np.r_[0, ends[last]])
    room = int(lengths.max()) if length is None else length
    if lengths.max() > room:
        raise error(
            f"tree {lengths.argmax()}",
            expected=f"at most {room} tokens",
            got=f"{lengths.max()}",
            fix="pass a larger length, or shorter expressions",
        )
    row = np.repeat(np.arange(len(trees)), counts)
    column = ends - closed - 1 - np.repeat(ends[last] - lengths, counts)
    x = np.where(np.arange(room)[None] < lengths[:, None], CLOSE_TOKEN, 0).astype(np.int32)
    x[row, column] = np.concatenate([tree.labels for tree in trees])
    return {"x": x, "lengths": lengths.astype(np.int32)}


def to_text(tree: Tree) -> str:
    """The expression as text that `jdl.data.trees.from_text` reads.

    Raises `InputError` for an invalid tree, as `node_depths` does.

    >>> from jdl.data.prepare.trees import encode_labels, from_text
    >>> to_text(encode_labels([from_text("(MAX 2 (MIN 4 7) 0)")], VOCABULARY)[0])
    '(MAX 2 (MIN 4 7) 0)'
    """
    names = {number: name for name, number in VOCABULARY.items()}
    opening = {number: f"({name}" for name, number in VOCABULARY.items() if number >= DIGITS}
    row = to_tokens([tree])["x"][0].tolist()
    words = [
        ")" if token == CLOSE_TOKEN else opening.get(token, names.get(token, "")) for token in row
    ]
    return " ".join(words).replace(" )", ")")


def sample_groups(
    groups: Mapping[Any, tuple[int, tuple[int, int], int]],
    *,
    arity: tuple[int, int] = (2, 5),
    flat: bool = False,
    per_row: int = 16,
) -> dict[Any, Arrays]:
    """Groups of random expressions with their values `y`, as batches of a common shape.

    A group is (number of expressions, (smallest, largest) depth, seed), as in `random_expressions`.
    By default trees are packed, about `per_row` together (`jdl.data.tree_batches.pack_trees`); with
    `flat=True` they are tokens `x` (n, length) with `lengths` (n,). Since all groups have the same
    shape, a step compiles once. Raises `InputError` for bounds that `random_expressions` rejects.

    >>> data = sample_groups({"train": (4, (1, 3), 0), "valid": (3, (1, 2), 1)}, flat=True)
    >>> data["train"]["x"].shape[1] == data["valid"]["x"].shape[1], data["valid"]["y"].shape
    (True, (3,))
    """
    trees = {
        name: random_expressions(n, depth=depth, arity=arity, seed=seed)
        for name, (n, depth, seed) in groups.items()
    }
    whole = [tree for group in trees.values() for tree in group]
    if flat:
        length = int(to_tokens(whole)["lengths"].max())
        return {
            name: {**to_tokens(group, length), "y": expression_values(group)}
            for name, group in trees.items()
        }
    shape = tree_batches.shape_for(whole, per_row=per_row)
    return {
        name: tree_batches.pack_trees(group, expression_values(group), shape)
        for name, group in trees.items()
    }


def _expression(draw: random.Random, depth: int, arity: tuple[int, int], nested: float) -> Tree:
    parents: list[int] = []
    labels: list[int] = []
    waiting = [(-1, depth, True)]
    while waiting:
        parent, left, must_nest = waiting.pop()
        node = len(labels)
        parents.append(parent)
        if left and (must_nest or draw.random() < nested):
            labels.append(DIGITS + draw.randrange(len(OPERATORS)))
            size = draw.randint(*arity)
            deepest = draw.randrange(size) if must_nest else -1
            waiting += [(node, left - 1, at == deepest) for at in range(size)]
        else:
            labels.append(draw.randrange(DIGITS))
    return Tree(np.array(parents, np.int64), np.array(labels, np.int32))


def _check(label: np.ndarray, arguments: np.ndarray, start: np.ndarray) -> None:
    known = (label >= 0) & (label < CLOSE_TOKEN)
    wrong = np.flatnonzero(~known | ((label >= DIGITS) != (arguments > 0)))
    if len(wrong):
        at = wrong[0]
        raise error(
            f"node {at - start[at]} of tree {np.unique(start).searchsorted(start[at])}",
            expected="a digit without arguments or an operator with some",
            got=f"label {label[at]} with {arguments[at]} arguments",
            fix="encode the labels with jdl.data.listops.VOCABULARY",
        )
