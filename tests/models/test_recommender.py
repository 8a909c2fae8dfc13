"""Matrix factorisation and neural collaborative filtering: by hand, sizes, unknown ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import MatrixFactorization, NeuralCollaborativeFiltering, from_linen

USERS, ITEMS, FACTORS = 6, 4, 3
MF = MatrixFactorization(USERS, ITEMS, FACTORS, mean=3.5)
NCF = NeuralCollaborativeFiltering(USERS, ITEMS, FACTORS, 2, (5, 4), mean=3.5)
PAIRS = np.array([[1, 1], [6, 4], [2, 4], [2, 4], [0, 2], [3, 0], [0, 0]], np.int32)
FACTOR = np.arange(1.0, 8.0)


def drawn(module):
    """A model and parameters of ordinary size."""
    rng = np.random.default_rng(0)
    model = from_linen(module)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), PAIRS)
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape)), shapes)


def with_unknown(table):
    """The rows in torch, with zeros for number 0 in front, and their leaf."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    leaf = torch.tensor(np.asarray(table), requires_grad=True)
    return leaf, torch.cat([torch.zeros(1, leaf.shape[1], dtype=leaf.dtype), leaf])


def rating(params, leaves, tables, user, item):
    """The papers' formulas for one pair."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    at = {name: table[user if name.startswith("user") else item] for name, table in tables.items()}
    product = at["user_factors"] * at["item_factors"]
    if "user_bias" in at:
        return 3.5 + at["user_bias"] + at["item_bias"] + product.sum()
    x = torch.cat([at["user_embedding"], at["item_embedding"]])
    for name in ("dense_1", "dense_2"):
        x = torch.relu(x @ leaves[f"{name}/kernel"] + leaves[f"{name}/bias"])
    return 3.5 + torch.cat([product, x]) @ leaves["output/kernel"] + leaves["output/bias"]


@pytest.mark.parametrize("module", [MF, NCF], ids=["mf", "ncf"])
def test_outputs_and_every_gradient_by_hand(module, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model, params = drawn(module)

    def total(params):
        outputs = model.apply(params, {}, PAIRS)[0]
        return (outputs[:, 0] * FACTOR).sum(), outputs

    grads, outputs = jax.jit(jax.grad(total, has_aux=True))(params)
    leaves, tables = {}, {}
    for path, leaf in tree.flatten(params).items():
        if path.endswith("embedding") and path.count("/") == 1:
            leaves[path], tables[path.split("/")[0]] = with_unknown(leaf)
        else:
            leaves[path] = torch.tensor(np.asarray(leaf), requires_grad=True)
    expected = torch.stack([rating(params, leaves, tables, *map(int, pair)) for pair in PAIRS])
    (expected[:, 0] * torch.tensor(FACTOR)).sum().backward()
    np.testing.assert_allclose(outputs, expected.detach(), rtol=1e-9, atol=1e-12)
    for path, leaf in tree.flatten(grads).items():
        assert np.abs(leaf).max() > 1e-3, path
        np.testing.assert_allclose(leaf, leaves[path].grad, rtol=1e-9, atol=1e-12, err_msg=path)


def test_sizes():
    def size(module):
        return tree.count(jax.eval_shape(from_linen(module).init, jax.random.key(0), PAIRS)[0])

    assert size(MF) == (USERS + ITEMS) * (FACTORS + 1)
    assert size(MatrixFactorization(USERS, ITEMS, 0)) == USERS + ITEMS
    dense = 5 * 5 + 6 * 4 + (FACTORS + 4 + 1)
    assert size(NCF) == (USERS + ITEMS) * (FACTORS + 2) + dense


def test_who_is_unknown_adds_nothing():
    model, params = drawn(MF)
    outputs = model.apply(params, {}, PAIRS)[0][:, 0]
    bias = {name: params[f"{name}_bias"]["embedding"][:, 0] for name in ("user", "item")}
    np.testing.assert_allclose(
        outputs[4:], [3.5 + bias["item"][1], 3.5 + bias["user"][2], 3.5], rtol=1e-6
    )


@pytest.mark.parametrize("module", [MF, NCF], ids=["mf", "ncf"])
def test_a_number_beyond_the_table_is_nan_and_no_other_row(module):
    model, params = drawn(module)
    outputs = model.apply(params, {}, np.array([[USERS + 1, 1], [1, ITEMS + 1], [1, 1]]))[0]
    assert np.isnan(outputs[:, 0]).tolist() == [True, True, False]


@pytest.mark.parametrize(
    "inputs", [np.zeros((2, 3), np.int32), np.zeros(2, np.int32), np.zeros((2, 2), np.float32)]
)
def test_what_is_no_pair(inputs):
    with pytest.raises(InputError, match=r"(?s)ratings.*integers of shape \(batch, 2\).*got: "):
        from_linen(MF).init(jax.random.key(0), inputs)
