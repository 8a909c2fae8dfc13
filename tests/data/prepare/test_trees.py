"""Trees from parents, tuples and text, their layout, and what is no tree."""

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import tree_batches, trees
from jdl.data.prepare.tree_batches import TreeShape


def random_tree(rng, largest=12):
    """A tree of any shape: each node hangs on an earlier one, and the numbers are shuffled."""
    n = int(rng.integers(1, largest + 1))
    parents = np.array([-1, *(rng.integers(0, i) for i in range(1, n))])
    order = rng.permutation(n)
    shuffled = np.empty(n, int)
    shuffled[order] = np.where(parents >= 0, order[parents], -1)
    return trees.from_parents(shuffled, rng.integers(0, 5, n))


def read_back(arrays, row, root):
    """The nested form of the tree whose root stands in a slot of the last level, by plain loops."""
    _, levels, width, _ = arrays["children"].shape
    leaves = arrays["x"].shape[1] - levels * width

    def node(level, slot):
        place = leaves + level * width + slot
        assert arrays["present"][row, place]
        found = []
        for child in arrays["children"][row, level, slot]:
            if child >= leaves:
                found.append(node(level - 1, child - leaves))
            elif child >= 0:
                assert arrays["present"][row, child]
                found.append(int(arrays["x"][row, child]))
        return (int(arrays["x"][row, place]), *found)

    return node(levels - 1, root)


def nested(tree, node=None):
    node = int(np.flatnonzero(tree.parents == -1)[0]) if node is None else node
    children = [nested(tree, int(child)) for child in np.flatnonzero(tree.parents == node)]
    label = int(tree.labels[node])
    return (label, *children) if children or tree.parents[node] == -1 else label


def test_three_ways_to_one_tree():
    made = [
        trees.from_parents([-1, 0, 0, 2, 2], ["MAX", "5", "MIN", "2", "3"]),
        trees.from_nested(("MAX", "5", ("MIN", "2", "3"))),
        trees.from_text(" (MAX 5(MIN 2 3 ) )\n"),
    ]
    for tree in made:
        assert tree.parents.tolist() == [-1, 0, 0, 2, 2]
        assert tree.labels.tolist() == ["MAX", "5", "MIN", "2", "3"]
    assert trees.from_text("7").parents.tolist() == [-1]
    words = {"MAX": 0, "MIN": 1, "5": 2, "2": 3, "3": 4}
    assert trees.encode_labels(made, words)[1].labels.tolist() == [0, 2, 1, 3, 4]


BAD_PARENTS = {
    "empty": ([], [], "tree 0.*at least one node.*none"),
    "no root": ([1, 0], [0, 0], r"tree 0.*no cycle.*\[0, 1\]"),
    "a cycle beside the root": ([-1, 0, 3, 4, 2], [0] * 5, r"no cycle.*\[2, 3, 4\]"),
    "its own parent": ([-1, 1], [0, 0], r"no cycle.*\[1\]"),
    "two roots": ([-1, 0, -1], [0] * 3, r"one root.*2 nodes of parent -1: \[0, 2\]"),
    "beyond the last": ([-1, 2], [0, 0], "tree 0, node 1.*from 0 to 1, or -1.*got: +2"),
    "below the root": ([-1, -2], [0, 0], "tree 0, node 1.*got: +-2"),
    "labels missing": ([-1, 0], [0], "2 labels, one per node.*got: +1"),
    "no integers": ([-1, 0.5], [0, 0], "integers.*float64"),
}


@pytest.mark.parametrize("name", BAD_PARENTS)
def test_what_is_no_tree(name):
    parents, labels, words = BAD_PARENTS[name]
    with pytest.raises(InputError, match=f"(?s){words}"):
        trees.from_parents(parents, labels)


def test_the_tree_among_many_is_named():
    good = trees.from_nested((1, 2, 3))
    bad = trees.Tree(np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(InputError, match=r"(?s)tree 2.*no cycle.*\[0, 1\]"):
        tree_batches.pad_trees([good, good, bad])
    with pytest.raises(InputError, match=r"at least one tree"):
        tree_batches.pad_trees([])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one node"),
        ("(a b", "a \\) for each \\("),
        ("(", "a \\) for each \\("),
        ("(a b))", 'one tree.*"\\)" outside of it, as word 5'),
        (") a", "as word 1"),
        ("(a b) c", '"c" outside of it, as word 5'),
        ("((a) b)", "a label after each \\(.*as word 2"),
        ("()", "a label after each \\("),
    ],
)
def test_text_that_is_no_tree(text, words):
    with pytest.raises(InputError, match=f"(?s){words}"):
        trees.from_text(text)


def test_tuples_that_are_no_tree():
    with pytest.raises(InputError, match=r"(?s)node 1.*an empty tuple"):
        trees.from_nested((1, ()))
    with pytest.raises(InputError, match=r"(?s)node 0.*a tuple as the label"):
        trees.from_nested(((1, 2), 3))


def test_unknown_labels_are_counted():
    with pytest.raises(InputError, match=r"(?s)tree 0.*vocabulary, 1 in all.*2 unknown.*'b'"):
        trees.encode_labels([trees.from_text("(a b c)")], {"a": 0})
    with pytest.raises(InputError, match=r"(?s)labels.*numbers.*trees.encode_labels"):
        tree_batches.pad_trees([trees.from_text("(a b c)")])


def test_a_padded_tree_is_the_tree():
    rng = np.random.default_rng(0)
    many = [random_tree(rng) for _ in range(200)]
    room = tree_batches.shape_for(many)
    bigger = TreeShape(room.leaves + 3, room.levels + 1, room.width + 2, room.arity + 1)
    for arrays in (tree_batches.pad_trees(many), tree_batches.pad_trees(many, bigger)):
        assert [read_back(arrays, row, 0) for row in range(200)] == [nested(t) for t in many]
        assert arrays["present"].sum() == sum(len(tree.labels) for tree in many)


def test_packed_trees_are_the_trees_in_order():
    rng = np.random.default_rng(1)
    many = [random_tree(rng) for _ in range(200)]
    shape = tree_batches.shape_for(many, per_row=5)
    arrays = tree_batches.pack_trees(many, np.arange(200), shape)
    assert arrays["y"][arrays["mask"] > 0].tolist() == list(range(200))
    places = np.argwhere(arrays["mask"] > 0)
    assert [read_back(arrays, *place) for place in places] == [nested(tree) for tree in many]
    assert len(arrays["x"]) < 200 / 3 and arrays["children"].shape[1:] == shape[1:]


def test_node_targets_stand_where_their_nodes_do():
    rng = np.random.default_rng(2)
    many = [random_tree(rng) for _ in range(20)]
    arrays = tree_batches.pad_trees(many, targets=[10 * tree.labels + 1 for tree in many])
    used = arrays["mask"] > 0
    assert (used == arrays["present"]).all()
    assert (arrays["y"][used] == 10 * arrays["x"][used] + 1).all() and not arrays["y"][~used].any()


def test_vectors_as_labels():
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    arrays = tree_batches.pad_trees([trees.from_parents([-1, 0, 0], vectors)])
    assert arrays["x"].tolist() == [[[2, 3], [4, 5], [0, 1]]]


def test_three_shapes_hold_all_trees_and_save_room():
    rng = np.random.default_rng(3)
    many = [random_tree(rng, 40) for _ in range(300)]
    shapes = tree_batches.shape_buckets(many)
    assert len(shapes) == 3 and shapes[-1] == tree_batches.shape_for(many)
    groups = tree_batches.group_by_shape(many, shapes)
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(300))
    slots = sum(shape.nodes * len(indices) for shape, indices in groups.items())
    assert slots < 0.75 * 300 * shapes[-1].nodes
    assert len(tree_batches.shape_buckets(many[:1])) == 1
    with pytest.raises(InputError, match=r"(?s)tree 1.*room for it in TreeShape\(leaves=1"):
        tree_batches.group_by_shape(
            [trees.from_nested(4), trees.from_nested((1, 2, 3))], [TreeShape(1, 1, 1, 1)]
        )


def test_too_large_and_unequal():
    tree = trees.from_nested((1, 2, 3))
    with pytest.raises(InputError, match=r"(?s)tree 0.*room for it.*leaves=2, levels=1"):
        tree_batches.pad_trees([tree], TreeShape(1, 1, 1, 2))
    with pytest.raises(InputError, match=r"(?s)targets.*one for each node"):
        tree_batches.pad_trees([tree], targets=[[1, 2]])
    with pytest.raises(InputError, match=r"(?s)y.*1, one for each tree.*got: +2"):
        tree_batches.pack_trees([tree], [1, 2], tree_batches.shape_for([tree]))
