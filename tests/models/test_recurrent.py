"""Recurrent networks: equal PyTorch's on packed sequences, blind to padding, of exact sizes."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.core import tree
from jdl.core.errors import InputError
from jdl.models import RNN, from_linen
from jdl.models.layers import recurrent_cells

KEY = jax.random.key(0)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
CELLS = sorted(recurrent_cells.CELLS)


def ragged(rng, lengths, features, fill=np.nan):
    """Sequences with `fill` in the padding, and the mask of true steps."""
    lengths = np.asarray(lengths)
    x = rng.normal(size=(len(lengths), lengths.max(), features))
    mask = np.arange(x.shape[1])[None] < lengths[:, None]
    return np.where(mask[..., None], x, fill), mask


def start(module, x, lengths):
    return from_linen(module).init(KEY, (jnp.asarray(x), jnp.asarray(lengths)))[0]


# PyTorch: each of its layers has a kernel from the inputs and one from the state, transposed, and
# two biases, whose sum is ours but for the GRU's candidate.


def to_torch(params, net, head, torch, rng):
    """Gives PyTorch the weights, each bias cut in two at random."""
    with torch.no_grad():
        for ours, theirs in names(params, net):
            layer, units = params[ours], params[ours]["recurrent_kernel"].shape[0]
            cut = rng.normal(size=layer["bias"].shape)
            if "inner_bias" in layer:
                cut[2 * units :] = layer["inner_bias"]
                own = layer["bias"] - np.where(np.arange(3 * units) < 2 * units, cut, 0)
            else:
                own = layer["bias"] - cut
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            values = (layer["kernel"].T, layer["recurrent_kernel"].T, own, cut)
            for kind, value in zip(kinds, values, strict=True):
                getattr(net, f"{kind}_{theirs}").copy_(torch.from_numpy(np.array(value)))
        head.weight.copy_(torch.from_numpy(np.array(params["output"]["kernel"]).T))
        head.bias.copy_(torch.from_numpy(np.array(params["output"]["bias"])))


def names(params, net):
    for name in params:
        direction, _, index = name.partition("_")
        if index:
            yield name, f"l{int(index) - 1}" + ("_reverse" if direction == "backward" else "")


def torch_gradients(params, net, head):
    found = {
        "output/kernel": head.weight.grad.numpy().T,
        "output/bias": head.bias.grad.numpy(),
    }
    for ours, theirs in names(params, net):
        grad = {
            kind: getattr(net, f"{kind}_{theirs}").grad.numpy()
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        found[f"{ours}/kernel"] = grad["weight_ih"].T
        found[f"{ours}/recurrent_kernel"] = grad["weight_hh"].T
        found[f"{ours}/bias"] = grad["bias_ih"]
        if "inner_bias" in params[ours]:
            units = len(params[ours]["inner_bias"])
            found[f"{ours}/inner_bias"] = grad["bias_hh"][2 * units :]
    return found


def torch_outputs(torch, net, head, x, lengths, read):
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, last = net(packed)
    outputs, _ = rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    last = last[0] if isinstance(last, tuple) else last
    directions = 2 if net.bidirectional else 1
    seen = {
        "each": outputs,
        "mean": outputs.sum(1) / lengths[:, None],
        "last": torch.cat(list(last[-directions:]), -1),
    }
    return head(seen[read])


def compare_with_torch(cell, read, lengths, sizes, layers, bidirectional, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")
    rng = np.random.default_rng(seed)
    features, units, outputs = sizes
    module = RNN((units,) * layers, outputs, cell, bidirectional, read)
    x, mask = ragged(rng, lengths, features)
    params = start(module, x, lengths)
    params = jax.tree.map(lambda leaf: rng.normal(scale=0.5, size=leaf.shape), params)
    net = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](
        features, units, layers, batch_first=True, bidirectional=bidirectional
    ).double()
    head = torch.nn.Linear(units * (1 + bidirectional), outputs).double()
    to_torch(params, net, head, torch, rng)

    theirs_x = torch.from_numpy(np.where(mask[..., None], x, 0)).requires_grad_()
    theirs = torch_outputs(torch, net, head, theirs_x, torch.tensor(lengths), read)
    pull = rng.normal(size=tuple(theirs.shape))
    pull = pull * mask[..., None] if read == "each" else pull
    (theirs * torch.from_numpy(pull)).sum().backward()

    def loss(params, x):
        made = from_linen(module).apply(params, {}, (x, jnp.asarray(lengths)))[0]
        return (made * pull).sum(), made

    (_, ours), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    assert ours.dtype == np.float64
    kept = mask if read == "each" else slice(None)
    np.testing.assert_allclose(ours[kept], theirs.detach().numpy()[kept], **TOLERANCE)
    expected = torch_gradients(params, net, head)
    found = tree.flatten(grads[0])
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], **TOLERANCE, err_msg=name)
    np.testing.assert_allclose(grads[1], theirs_x.grad.numpy(), **TOLERANCE)
    assert (np.asarray(grads[1])[~mask] == 0).all()
    return found


@pytest.mark.parametrize(
    "cell, read, layers, bidirectional",
    [("rnn", "mean", 1, False), ("lstm", "each", 2, True), ("gru", "last", 1, False)],
)
def test_outputs_and_every_gradient_are_pytorchs(cell, read, layers, bidirectional, x64):
    sizes = ([1, 30, 7, 16], (3, 4, 2), layers, bidirectional)
    grads = compare_with_torch(cell, read, *sizes, seed=0)
    assert all(np.abs(grad).max() > 1e-6 for grad in grads.values())


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@settings(max_examples=10, deadline=None)
@given(
    read=st.sampled_from(["last", "mean", "each"]),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_sizes_are_pytorchs(cell, read, lengths, sizes, layers, bidirectional, seed):
    with jax.enable_x64(True):
        compare_with_torch(cell, read, lengths, sizes, layers, bidirectional, seed)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_minimal_gated_unit_by_hand(x64):
    """Forward and backward through time, in loops over steps."""
    rng = np.random.default_rng(0)
    x, pull = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 5, 4))
    params = {
        "kernel": rng.normal(size=(2, 8)),
        "recurrent_kernel": rng.normal(size=(4, 8)),
        "bias": rng.normal(size=8),
    }

    def loss(params, x):
        outputs, _ = recurrent_cells.Recurrent(4, "mgu").apply({"params": params}, x)
        return (outputs * pull).sum(), outputs

    (_, outputs), (grads, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    (wf, wn), (uf, un) = (np.split(params[k], 2, 1) for k in ("kernel", "recurrent_kernel"))
    bf, bn = np.split(params["bias"], 2)
    h, seen = np.zeros((3, 4)), []
    for t in range(5):
        f = sigmoid(x[:, t] @ wf + h @ uf + bf[None])
        n = np.tanh(x[:, t] @ wn + (f * h) @ un + bn[None])
        seen.append((h, f, n))
        h = (1 - f) * h + f * n
        np.testing.assert_allclose(outputs[:, t], h, **TOLERANCE)
    dh, expected = np.zeros((3, 4)), jax.tree.map(np.zeros_like, params)
    for t in reversed(range(5)):
        h, f, n = seen[t]
        dh = dh + pull[:, t]
        dan = dh * f * (1 - n**2)
        daf = (dh * (n - h) + (dan @ un.T) * h) * f * (1 - f)
        both = np.concatenate([daf, dan], 1)
        expected["kernel"] += x[:, t].T @ both
        expected["recurrent_kernel"] += np.concatenate([h.T @ daf, (f * h).T @ dan], 1)
        expected["bias"] += both.sum(0)
        np.testing.assert_allclose(dx[:, t], both @ params["kernel"].T, **TOLERANCE)
        dh = dh * (1 - f) + (dan @ un.T) * f + daf @ uf.T
    for name, value in expected.items():
        np.testing.assert_allclose(grads[name], value, **TOLERANCE, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, read",
    [
        ("mgu", "mean"),
        pytest.param("lstm", "last", marks=pytest.mark.slow),
        pytest.param("gru", "each", marks=pytest.mark.slow),
    ],
)
def test_padded_is_unpadded_and_padding_is_not_looked_at(cell, read):
    module = RNN((4,), 2, cell, bidirectional=True, read=read)
    x, mask = ragged(np.random.default_rng(0), [3, 6], 2, fill=0)
    x, lengths = x.astype("float32"), jnp.array([3, 6])
    params = start(module, x, lengths)
    apply = jax.jit(lambda params, x, n: from_linen(module).apply(params, {}, (x, n))[0])
    alone = jax.jit(lambda params, x: from_linen(module).apply(params, {}, x)[0])
    padded = apply(params, x, lengths)
    short = padded[0, :3] if read == "each" else padded[0]
    np.testing.assert_allclose(short, alone(params, x[:1, :3])[0], rtol=1e-5, atol=1e-6)

    grad = jax.jit(jax.grad(lambda p, x: (apply(p, x, lengths) ** 2).sum(), (0, 1)))
    spoilt = np.where(mask[..., None], x, np.nan)
    assert np.array_equal(apply(params, spoilt, lengths), padded)
    ours, theirs = grad(params, spoilt), grad(params, x)
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))
    assert (ours[1][~mask] == 0).all() and np.abs(ours[1][mask]).min() > 0


SIZES = {"rnn": 1 * 13 * 7, "lstm": 4 * 13 * 7, "gru": 3 * 13 * 7 + 7, "mgu": 2 * 13 * 7}


@pytest.mark.parametrize("cell", CELLS)
def test_exact_sizes(cell):
    shape = jax.ShapeDtypeStruct((2, 9, 5), jnp.float32)
    params, model_state = jax.eval_shape(from_linen(RNN((7,), 3, cell)).init, KEY, shape)
    assert (tree.count(params["forward_1"]), tree.count(params["output"])) == (SIZES[cell], 24)
    assert model_state == {}


def test_two_lstm_layers_have_204_042_parameters():
    shape = jax.ShapeDtypeStruct((10, 10, 10), jnp.float32)
    start = from_linen(RNN((128, 128), 10)).init
    params, _ = jax.eval_shape(start, KEY, shape)
    assert tree.count(params) == 204_042
    assert set(params) == {"forward_1", "forward_2", "output"}
    both, _ = jax.eval_shape(from_linen(RNN((8,), 2, bidirectional=True)).init, KEY, shape)
    assert set(both) == {"forward_1", "backward_1", "output"}


def test_first_weights():
    weights = start(RNN((6,), 2), np.zeros((1, 2, 3), "float32"), [2])["forward_1"]
    for block in np.split(np.asarray(weights["recurrent_kernel"]), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)
    assert weights["bias"].tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12


def test_memory_spreads_the_time_constants():
    """Without inputs a state fades by its share kept at each step: here over 2 to 50 steps."""
    for name, keeping, sign in (("lstm", 1, 1), ("gru", 1, 1), ("mgu", 0, -1)):
        kind = recurrent_cells.cell(name)
        bias = recurrent_cells._first_bias(kind, 64, memory=50)(KEY, (kind.blocks * 64,)).reshape(
            -1, 64
        )
        times = 1 + np.exp(sign * np.asarray(bias[keeping]))
        assert 2 <= times.min() < 8 and 42 < times.max() <= 50
        others = np.delete(bias, [block for block, _ in kind.keeps], axis=0)
        assert (others == 0).all()


def test_the_grus_gate_keeps_the_old_state():
    """With z driven to one the state never changes; the minimal unit's f does the opposite."""
    x = np.random.default_rng(0).normal(size=(1, 4, 2)).astype("float32")
    for name, block, stays in (("gru", 1, True), ("mgu", 0, True), ("mgu", 0, False)):
        kind = recurrent_cells.cell(name)
        bias = np.zeros(kind.blocks * 3, "float32")
        bias[block * 3 : block * 3 + 3] = 50 if (name == "gru") == stays else -50
        weights = recurrent_cells.Weights(
            jnp.ones((2, kind.blocks * 3)), jnp.ones((3, kind.blocks * 3)), bias, np.zeros(3)
        )
        before = jnp.full((1, 3), 0.5)
        (after,) = kind.bind(weights)((before,), x[:, 0])
        assert np.allclose(after, before) == stays


@pytest.mark.parametrize("cell", CELLS)
def test_time_is_a_scan(cell):
    """The program does not grow with the sequence."""

    def operations(steps):
        x = jnp.zeros((2, steps, 3))
        module = RNN((4,), 2, cell)
        shapes = jax.eval_shape(from_linen(module).init, KEY, x)[0]
        apply = lambda params, x: from_linen(module).apply(params, {}, x)[0]
        text = str(jax.make_jaxpr(apply)(shapes, x))
        assert " scan[" in text
        return text.count("\n")

    assert operations(5) == operations(500)


def run_lstm(run, reverse, real, seed=0):
    """A function of weights, first state and inputs, and a point and a direction for it."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 16), (4, 16), (16,), (2, 4), (2, 4), (5, 2, 3)]
    point, way = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    pull = rng.normal(size=(5, 2, 4))

    def loss(kernel, recurrent, bias, h, c, x):
        weights = recurrent_cells.Weights(kernel, recurrent, bias)
        (h, c), outputs = run(weights, (h, c), x, real, reverse)
        return (outputs * pull).sum() + (h * c).sum()

    return loss, point, way


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_lstms_own_derivatives_are_those_of_its_steps(reverse, padded, x64):
    """Forward, backward, of second order and of many at once."""
    kind = recurrent_cells.cell("lstm")
    real = jnp.array([[1, 1], [1, 1], [1, 1], [1, 0], [0, 0]], bool)[..., None] if padded else None
    own, point, way = run_lstm(kind.run, reverse, real)
    steps, _, _ = run_lstm(partial(recurrent_cells._stepwise, kind), reverse, real)
    at = tuple(range(len(point)))

    def derivatives(loss):
        gradient = jax.grad(loss, at)
        second = jax.jvp(gradient, tuple(point), tuple(way))[1]
        reverse_twice = jax.grad(lambda *p: sum((g**2).sum() for g in gradient(*p)), at)(*point)
        many = jax.vmap(gradient)(*[np.stack([p, p + w]) for p, w in zip(point, way, strict=True)])
        forward = jax.jvp(loss, tuple(point), tuple(way))
        inputs_only = jax.jvp(lambda x: loss(*point[:-1], x), (point[-1],), (way[-1],))
        return gradient(*point), second, reverse_twice, many, forward, inputs_only

    ours, theirs = jax.jit(lambda: (derivatives(own), derivatives(steps)))()
    chex.assert_trees_all_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(ours))


def test_the_lstms_gradient_multiplies_by_the_inputs_once():
    """The backward scan makes one product, of the gates' gradient and the recurrent kernel."""
    own, point, _ = run_lstm(recurrent_cells.cell("lstm").run, False, None)
    program = jax.make_jaxpr(jax.grad(own, (0, 1, 2)))(*point).jaxpr
    scans = [each.params["jaxpr"].jaxpr for each in program.eqns if each.primitive.name == "scan"]
    assert [products(part) for part in (*scans, program)] == [1, 1, 1]


def products(jaxpr):
    return sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)


X = np.zeros((2, 5, 3), "float32")


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        (RNN((4,)), (X, np.array([6, 2])), "from 1 to 5.*\n.*6 at index 0"),
        (RNN((4,)), (X, np.array([5, 0])), "0 at index 1"),
        (RNN((4,)), (X, np.array([5.0, 2.0])), "one integer for each sequence"),
        (RNN((4,)), (X, np.array([5])), r"shape \(2,\)"),
        (RNN((4,)), X[0], r"x\[..., None\]"),
        (RNN((4,), cell="lstmm"), X, 'did you mean "lstm"'),
        (RNN((4,), read="first"), X, "one of last, mean, each"),
        (RNN(()), X, "at least one layer"),
        (RNN((4,), dropout=1.0), X, "below 1"),
        (RNN((4,), memory=1), X, "at least 2 steps"),
    ],
)
def test_wrong_inputs_are_refused(module, inputs, words):
    with pytest.raises(InputError, match=words):
        module.init(KEY, inputs)


@pytest.mark.parametrize("cell", recurrent_cells.CELLS)
def test_weights_and_inputs_may_differ_in_type(cell, x64):
    """New weights are float32 with x64 on too, as those of a dense layer are."""
    model, x = RNN((4,), 2, cell), jax.ShapeDtypeStruct((2, 5, 3), "float32")
    variables = jax.eval_shape(model.init, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    double = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, "float64"), variables)
    found = [jax.eval_shape(model.apply, weights, x).dtype for weights in (variables, double)]
    assert found == ["float32", "float64"]
