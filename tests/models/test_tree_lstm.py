"""Tree networks equal a plain recursion, in double precision to 1e-9."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import tasks
from jdl.core import tree as pytree
from jdl.core.errors import InputError
from jdl.data import evaluation_batches, tree_batches, trees
from jdl.models import ChildSumTreeLSTM, NaryTreeLSTM, RvNN, from_linen
from tests.support import learners

WIDTH, LABELS, CLASSES = 5, 4, 3
NETWORKS = {"rvnn": RvNN, "childsum": ChildSumTreeLSTM, "nary": NaryTreeLSTM}
ONE_FAST = ["childsum", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rvnn", "nary"))]


def random_tree(rng, largest=14, arity=4):
    parents, room = [-1], [arity]
    for _ in range(rng.integers(0, largest)):
        parent = int(rng.choice(np.flatnonzero(room)))
        room[parent] -= 1
        room.append(arity)
        parents.append(parent)
    return trees.from_parents(parents, rng.integers(0, LABELS, len(parents)))


@functools.cache
def random_trees(n):
    rng = np.random.default_rng(7)
    return [random_tree(rng) for _ in range(n)]


def network(name, at="root"):
    return from_linen(NETWORKS[name](WIDTH, CLASSES, LABELS, embedding=3, at=at))


def outputs_of(name, params, batch, at="root"):
    return jax.jit(network(name, at).apply)(params, {}, batch)[0]


def weights(model, batch, seed=0):
    """Parameters of ordinary size, biases too, drawn by numpy."""
    rng = np.random.default_rng(seed)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape)), shapes)


class Plain:
    """The equations of the papers, one node at a time, in PyTorch."""

    def __init__(self, name, params, arity):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        self.name, self.arity = name, arity
        self.weights = {
            path: self.torch.tensor(np.asarray(leaf), requires_grad=True)
            for path, leaf in pytree.flatten(params).items()
        }

    def logits(self, tree):
        states = self.node(tree, 0)
        return states[0] @ self.weights["output/kernel"] + self.weights["output/bias"]

    def node(self, tree, index):
        below = [self.node(tree, int(c)) for c in np.flatnonzero(tree.parents == index)]
        x = self.weights["embed/embedding"][int(tree.labels[index])]
        signal = x @ self.weights["labels/kernel"] + self.weights["labels/bias"]
        return getattr(self, self.name)(signal, below)

    def places(self):
        kernel = self.weights["children_kernel"]
        return kernel.reshape(self.arity, WIDTH, -1)

    def rvnn(self, signal, below):
        for place, (hidden,) in zip(self.places(), below, strict=False):
            signal = signal + hidden @ place
        return (self.torch.tanh(signal),)

    def childsum(self, signal, below):
        i, o, u, f = signal.split(WIDTH)
        total = sum((h for h, _ in below), self.torch.zeros(WIDTH, dtype=self.torch.float64))
        to_i, to_o, to_u = (total @ self.weights["sum_kernel"]).split(WIDTH)
        forget = self.weights["forget_kernel"]
        kept = sum(self.torch.sigmoid(f + h @ forget) * c for h, c in below)
        return self.out(i + to_i, o + to_o, u + to_u, kept)

    def nary(self, signal, below):
        i, o, u, f = signal.split(WIDTH)
        forgets = [f] * self.arity
        for place, (h, _) in zip(self.places(), below, strict=False):
            to_i, to_o, to_u, *to_f = (h @ place).split(WIDTH)
            i, o, u = i + to_i, o + to_o, u + to_u
            forgets = [gate + more for gate, more in zip(forgets, to_f, strict=True)]
        kept = sum(self.torch.sigmoid(g) * c for g, (_, c) in zip(forgets, below, strict=False))
        return self.out(i, o, u, kept)

    def out(self, i, o, u, kept):
        memory = self.torch.sigmoid(i) * self.torch.tanh(u) + kept
        return self.torch.sigmoid(o) * self.torch.tanh(memory), memory


def check_against_a_recursion(name, many, shapes):
    """Outputs, and the gradients of a sum weighted differently for each output."""
    model = network(name)
    groups = tree_batches.group_by_shape(many, shapes)
    batches = {
        shape: tree_batches.pad_trees([many[i] for i in rows], shape)
        for shape, rows in groups.items()
    }
    params = weights(model, batches[shapes[-1]])
    factors = np.random.default_rng(1).normal(size=(len(many), CLASSES))

    @jax.jit
    def value_and_grad(params, batch, factors):
        def total(params):
            outputs, _ = model.apply(params, {}, batch)
            return (outputs * factors).sum(), outputs

        return jax.grad(total, has_aux=True)(params)

    plain = Plain(name, params, shapes[-1].arity)
    outputs, grads = np.zeros((len(many), CLASSES)), jax.tree.map(jnp.zeros_like, params)
    with learners.compilations() as programs:
        for shape, rows in groups.items():
            more, outputs[rows] = value_and_grad(params, batches[shape], factors[rows])
            grads = jax.tree.map(jnp.add, grads, more)
    assert sum("value_and_grad" in program for program in programs) == len(groups) <= 3
    expected = plain.torch.stack([plain.logits(tree) for tree in many])
    (expected * plain.torch.tensor(factors)).sum().backward()
    np.testing.assert_allclose(outputs, expected.detach(), rtol=1e-9, atol=1e-12)
    for path, leaf in pytree.flatten(grads).items():
        assert leaf.dtype == np.float64 and np.abs(leaf).max() > 1e-3
        theirs = plain.weights[path].grad
        np.testing.assert_allclose(leaf, theirs, rtol=1e-9, atol=1e-11, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["childsum", "nary"])
def test_equals_a_plain_recursion(name, x64):
    many = random_trees(50)
    check_against_a_recursion(name, many, tree_batches.shape_buckets(many, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_500_trees_in_three_programs_equal_a_plain_recursion(name, x64):
    many = random_trees(500)
    shapes = tree_batches.shape_buckets(many)
    assert len(tree_batches.group_by_shape(many, shapes)) == 3
    check_against_a_recursion(name, many, shapes)


def test_three_programs_serve_500_trees_in_batches():
    many = random_trees(500)
    model = network("childsum")
    params = weights(model, tree_batches.pad_trees(many[:2]))
    call = jax.jit(lambda params, batch: model.apply(params, {}, batch)[0])
    answers = np.zeros((500, CLASSES))
    with learners.compilations() as programs:
        for shape, rows in tree_batches.group_by_shape(
            many, tree_batches.shape_buckets(many)
        ).items():
            arrays = tree_batches.pad_trees([many[i] for i in rows], shape)
            parts = [call(params, batch) for batch in evaluation_batches(arrays, 64)]
            answers[rows] = np.concatenate(parts)[: len(rows)]
    assert 1 <= len(programs) <= 3, programs
    assert len(np.unique(answers.round(4), axis=0)) > 250


def test_only_the_child_sum_ignores_the_order_of_children():
    tree = trees.from_nested((0, 1, (2, 3, 0), 2, (1, 1, 2, 3)))
    turned = trees.from_nested((0, (1, 3, 2, 1), 2, 1, (2, 0, 3)))
    batch = tree_batches.pad_trees([tree, turned])
    for name, same in {"childsum": True, "nary": False, "rvnn": False}.items():
        one, other = outputs_of(name, weights(network(name), batch), batch)
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6) == same, name


@pytest.mark.parametrize("name", ONE_FAST)
def test_packed_roots_and_all_nodes_are_the_same_states(name):
    many = random_trees(30)
    single, packed = (
        tree_batches.pad_trees(many),
        tree_batches.pack_trees(many, range(30), tree_batches.shape_for(many, 4)),
    )
    params = weights(network(name), single)
    root, roots, nodes = (
        outputs_of(name, params, batch, at)
        for at, batch in {"root": single, "roots": packed, "nodes": single}.items()
    )
    np.testing.assert_allclose(roots[packed["mask"] > 0], root, rtol=1e-5, atol=1e-6)
    at = -single["children"].shape[2]
    np.testing.assert_allclose(nodes[:, at], root, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ONE_FAST)
def test_nan_in_the_padding_is_harmless(name):
    rng = np.random.default_rng(0)
    many = [
        tree._replace(labels=rng.normal(size=(len(tree.labels), 2))) for tree in random_trees(9)
    ]
    clean = tree_batches.pad_trees(many)
    dirty = {**clean, "x": np.where(clean["present"][..., None], clean["x"], np.nan)}
    assert np.isnan(dirty["x"]).any()
    model = from_linen(NETWORKS[name](WIDTH, CLASSES, at="nodes"))
    params = weights(model, clean)

    @jax.jit
    def grads(params, x):
        def loss(params, x):
            outputs, _ = model.apply(params, {}, {**clean, "x": x})
            return (outputs**2 * clean["present"][..., None]).sum()

        return jax.grad(loss, argnums=(0, 1))(params, x)

    expected, found = grads(params, clean["x"]), grads(params, dirty["x"])
    learners.assert_same_bits(found, expected)
    assert not found[1][~clean["present"]].any() and found[1][clean["present"]].all()


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes(name):
    """The counts of the docstrings, arity 4; the embedding, and the output with its bias."""
    batch = tree_batches.pad_trees([trees.from_nested((0, 1, 2, 3, 0))])
    own = {
        "rvnn": 4 * WIDTH + 4 * WIDTH**2,
        "childsum": 4 * 4 * WIDTH + 4 * WIDTH**2,
        "nary": 4 * 4 * WIDTH + 4 * 7 * WIDTH**2,
    }
    shapes, _ = jax.eval_shape(network(name).init, jax.random.key(0), batch)
    assert pytree.count(shapes) == own[name] + LABELS * 3 + (WIDTH + 1) * CLASSES
    kernel = {"childsum": {"sum_kernel", "forget_kernel"}}.get(name, {"children_kernel"})
    assert set(shapes) == {"embed", "labels", "output", *kernel}


def test_errors_of_the_networks():
    batch = tree_batches.pad_trees([trees.from_nested((0, 1, 2))])
    with pytest.raises(InputError, match=r"(?s)at.*root or roots or nodes.*got: +'rots'.*roots"):
        network("rvnn", "rots").init(jax.random.key(0), batch)
    with pytest.raises(InputError, match=r"(?s)x of trees.*integer labels.*float32"):
        network("nary").init(jax.random.key(0), {**batch, "x": batch["x"].astype("float32")})
    model = network("nary")
    wider = tree_batches.pad_trees([trees.from_nested((0, 1, 2, 3))])
    with pytest.raises(InputError, match="the shapes that the parameters were initialised for"):
        model.apply(weights(model, batch), {}, wider)


def test_node_labelling_counts_nodes_and_roots():
    """The label of a node is to be repeated: an untrained network is right by chance only."""
    many = random_trees(20)
    batch = tree_batches.pad_trees(many, targets=[tree.labels % CLASSES for tree in many])
    task = tasks.node_labelling(network("rvnn", "nodes"))
    params, model_state = task.init(jax.random.key(0), batch)
    evaluate = jax.jit(lambda params: task.loss(params, model_state, batch, None, train=False))
    mean, (_, metrics) = evaluate(params)
    said = np.argmax(jax.jit(task.predict)(params, model_state, batch), -1)
    right, used = said == batch["y"], batch["mask"] > 0
    assert metrics["accuracy"].sum.weight == used.sum() == mean.weight
    assert metrics["accuracy"].sum.total == right[used].sum()
    at = -batch["children"].shape[2]
    assert metrics["root_accuracy"].sum.total == right[:, at].sum()
    assert metrics["root_accuracy"].sum.weight == 20


def test_errors_of_the_tasks():
    batch = {**tree_batches.pad_trees([trees.from_nested((0, 1, 2))]), "y": np.array([0])}
    with pytest.raises(InputError, match=r"(?s)mask.*one value per slot.*got: +none"):
        tasks.node_labelling(network("rvnn", "nodes")).init(jax.random.key(0), batch)
    del batch["children"]
    with pytest.raises(InputError, match=r"(?s)trees: entries x, children.*no children"):
        tasks.tree_classification(network("rvnn")).init(jax.random.key(0), batch)
