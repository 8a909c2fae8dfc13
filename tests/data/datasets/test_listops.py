"""ListOps: exact values by hand and by a plain recursion, the distribution, the flat form."""

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import listops, trees


def read(text):
    return trees.encode_labels([trees.from_text(text)], listops.VOCABULARY)[0]


HAND = {
    "7": 7,
    "(MAX 2 9 (MIN 4 7) 0)": 9,
    "(MIN 2 9 4)": 2,
    "(MED 1 9 3)": 3,
    "(MED 1 9 3 4)": 3,  # 3.5, rounded down
    "(MED 8 9)": 8,
    "(SUM_MOD 9 9 9)": 7,
    "(SUM_MOD 5 5)": 0,
    "(MAX 0)": 0,
    "(SUM_MOD (MAX 1 2 3) (MED 4 8 (MIN 9 6)) (SUM_MOD 7 7 7 7 7))": 4,  # 3 + 6 + 5
}


def test_values_by_hand():
    assert listops.expression_values([read(text) for text in HAND]).tolist() == list(HAND.values())


def plain(tree, node=0):
    """The value of a node, by recursion over lists."""
    below = [plain(tree, child) for child in np.flatnonzero(tree.parents == node)]
    name = listops.OPERATORS[tree.labels[node] - 10] if below else None
    results = {
        "MAX": lambda: max(below),
        "MIN": lambda: min(below),
        "MED": lambda: int(np.median(below)),
        "SUM_MOD": lambda: sum(below) % 10,
        None: lambda: int(tree.labels[node]),
    }
    return results[name]()


def test_generated_trees_are_as_described():
    made = listops.random_expressions(400, depth=(1, 4), arity=(2, 5), nested=0.3, seed=3)
    assert listops.expression_values(made).tolist() == [plain(tree) for tree in made]
    depth = np.array([trees.node_depths([tree]).max() for tree in made])
    assert np.bincount(depth)[1:].min() > 70 and depth.max() == 4
    sizes = np.concatenate([np.bincount(t.parents[1:], minlength=len(t.parents)) for t in made])
    labels = np.concatenate([tree.labels for tree in made])
    assert set(sizes[labels >= 10]) == {2, 3, 4, 5} and set(sizes[labels < 10]) == {0}
    assert np.bincount(labels, minlength=14)[10:].min() > 0.2 * (labels >= 10).sum()
    assert np.bincount(labels)[:10].min() > 0.08 * (labels < 10).sum()


def test_the_seed_decides():
    one, same, other = (listops.random_expressions(30, seed=seed) for seed in (0, 0, 1))
    words = [[listops.to_text(tree) for tree in made] for made in (one, same, other)]
    assert words[0] == words[1] != words[2]


def test_text_and_tokens_say_the_same():
    made = listops.random_expressions(50, seed=5)
    assert [listops.to_text(read(listops.to_text(tree))) for tree in made] == [
        *map(listops.to_text, made)
    ]
    flat = listops.to_tokens(made, 200)
    for tree, row, length in zip(made, flat["x"], flat["lengths"], strict=True):
        opened = listops.to_text(tree).count("(")
        assert length == len(tree.labels) + opened and not row[length:].any()
        assert (
            (row[:length] == listops.CLOSE_TOKEN).sum()
            == opened
            == (row[:length] // 10 > 0).sum() / 2
        )


def test_bad_input():
    with pytest.raises(InputError, match=r"(?s)node 2 of tree 1.*label 12 with 0 arguments"):
        listops.expression_values([read("7"), read("(MAX 1 MED)")])
    with pytest.raises(InputError, match=r"label 3 with 1 arguments"):
        listops.expression_values([read("(3 1)")])
    with pytest.raises(InputError, match=r"label 99"):
        listops.expression_values([trees.from_nested(99)])
    with pytest.raises(InputError, match=r"(?s)depth.*got: +\(3, 2\)"):
        listops.random_expressions(1, depth=(3, 2))
    with pytest.raises(InputError, match=r"(?s)arity.*both at least 1"):
        listops.random_expressions(1, arity=(0, 2))
    with pytest.raises(InputError, match=r"(?s)tree 1.*at most 3 tokens.*got: +4"):
        listops.to_tokens([read("7"), read("(MAX 1 2)")], 3)
