"""Transformers: PyTorch's numbers, exact sizes, masks that hide, and refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core import tree
from jdl.models import Decoder, Encoder, ViT, attention_weights, from_linen
from jdl.models.layers import attention, attention_ops, primitives
from tests.support.learners import message

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
HEADS, WIDTH, HIDDEN = 2, 6, 8


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: the extra is `parity`")


# Parity


def attention_layer(torch):
    layer = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    names = {
        "in_proj_weight": "qkv/kernel", "in_proj_bias": "qkv/bias",
        "out_proj.weight": "output/kernel", "out_proj.bias": "output/bias",
    }  # fmt: skip

    def call(x, mask, hidden):
        return layer(x, x, x, attn_mask=mask, key_padding_mask=hidden, need_weights=False)[0]

    return layer, names, call


def block(torch):
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    names = {
        "self_attn.in_proj_weight": "attention/qkv/kernel",
        "self_attn.in_proj_bias": "attention/qkv/bias",
        "self_attn.out_proj.weight": "attention/output/kernel",
        "self_attn.out_proj.bias": "attention/output/bias",
        "linear1.weight": "dense_1/kernel", "linear1.bias": "dense_1/bias",
        "linear2.weight": "dense_2/kernel", "linear2.bias": "dense_2/bias",
        "norm1.weight": "norm_1/scale", "norm1.bias": "norm_1/bias",
        "norm2.weight": "norm_2/scale", "norm2.bias": "norm_2/bias",
    }  # fmt: skip
    return layer, names, lambda x, mask, hidden: layer(x, mask, hidden)


LAYERS = {
    "attention": (attention.SelfAttention(HEADS), attention_layer),
    "block": (attention.Block(HEADS, HIDDEN), block),
}
SIZES = [(1, 1), (2, 5), (3, 4)]


def nested(flat):
    result = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        functools.reduce(lambda folder, step: folder.setdefault(step, {}), folders, result)[
            name
        ] = value
    return result


@pytest.mark.parametrize(
    ("name", "masked"),
    [("attention", "nothing"), ("attention", "both"), ("block", "future"), ("block", "padding")],
)
def test_equals_pytorch(torch, x64, name, masked):
    module, make = LAYERS[name]
    layer, names, call = make(torch)
    layer = layer.double().train()
    rng = np.random.default_rng(3)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.from_numpy(rng.normal(scale=0.5, size=tuple(weight.shape))))

    def read(of):
        values = {names[n]: of(w).detach().numpy() for n, w in layer.named_parameters()}
        return {n: v.T if n.endswith("kernel") else v for n, v in values.items()}

    params = nested({n: jnp.asarray(v) for n, v in read(lambda w: w).items()})
    batch, time = SIZES[{"nothing": 0, "future": 2}.get(masked, 1)]
    x = rng.normal(size=(batch, time, WIDTH))
    weigh = rng.normal(size=x.shape)
    lengths = rng.integers(1, time + 1, batch)
    future, hidden, mask = None, None, None
    if masked in ("future", "both"):
        future = torch.ones(time, time).triu(1).bool()
        mask = attention_ops.causal_mask(time)
    if masked in ("padding", "both"):
        hidden = torch.arange(time)[None] >= torch.from_numpy(lengths)[:, None]
        padding = attention_ops.padding_mask(jnp.asarray(lengths), time)
        mask = padding if mask is None else mask & padding

    @jax.jit
    def ours(params, x):
        def total(params, x):
            y = module.apply({"params": params}, x, mask)[0]
            return (y * weigh).sum(), y

        return jax.grad(total, argnums=(0, 1), has_aux=True)(params, x)

    (grads, slope), y = ours(params, jnp.asarray(x))
    their_x = torch.from_numpy(x).requires_grad_()
    theirs = call(their_x, future, hidden)
    (theirs * torch.from_numpy(weigh)).sum().backward()
    np.testing.assert_allclose(y, theirs.detach(), **TOLERANCE)
    np.testing.assert_allclose(slope, their_x.grad, **TOLERANCE)
    expected, found = read(lambda w: w.grad), tree.flatten(grads)
    assert found.keys() == expected.keys()
    for path, grad in found.items():
        assert grad.dtype == np.float64
        np.testing.assert_allclose(grad, expected[path], **TOLERANCE, err_msg=path)


@pytest.mark.parametrize("time", [1, 31, 64, 130])
def test_causal_attention_in_parts_is_that_of_the_whole(x64, time):
    rng = np.random.default_rng(0)
    query, key, value, weigh = (jnp.asarray(rng.normal(size=(2, time, 3, 4))) for _ in range(4))

    def both(form):
        def total(*inputs):
            y = form(*inputs)
            return (y * weigh).sum(), y

        return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(query, key, value)

    found = both(functools.partial(attention_ops.attention, is_causal=True))
    expected = both(functools.partial(attention_ops._whole, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), found, expected)
    products = str(jax.make_jaxpr(attention_ops._in_parts)(query, key, value)).count("dot_general")
    assert products == 2 * {1: 1, 31: 1, 64: 2, 130: 4}[time]


def test_a_decoder_that_shows_its_weights_computes_the_same():
    """It lays the whole matrix of weights out; otherwise parts of it."""
    module = Decoder(vocabulary=5, context=80, blocks=1, heads=2, width=8)
    tokens = jax.random.randint(jax.random.key(0), (2, 80), 0, 5)
    params = {"params": jax.jit(module.init)(jax.random.key(1), tokens)["params"]}
    apply = jax.jit(module.apply, static_argnames="mutable")
    logits = apply(params, tokens)
    shown, _ = apply(params, tokens, mutable=("intermediates",))
    np.testing.assert_allclose(logits, shown, rtol=1e-5, atol=1e-6)
    later = apply(params, tokens.at[:, 40:].set(0))
    np.testing.assert_allclose(later[:, :40], logits[:, :40], rtol=1e-5, atol=1e-6)
    assert np.abs(later[:, 40:] - logits[:, 40:]).max() > 1e-3


def test_no_token_has_no_logits():
    module = Decoder(vocabulary=5, context=4, blocks=1, heads=1, width=2)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1), int))
    assert jax.jit(module.apply)(params, jnp.zeros((1, 0), int)).shape == (1, 0, 5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 4e-3)])
def test_gelu_is_the_exact_one(dtype, tolerance):
    """In bfloat16 relative to the value too: 1 + erf would lose all digits at -3."""
    x = jnp.linspace(-6, 6, 97).astype(dtype)
    phi = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.asarray(x, np.float64)])
    true = np.asarray(x, np.float64) * phi
    found = np.asarray(primitives.gelu(x), np.float64)
    np.testing.assert_allclose(found, true, rtol=tolerance, atol=1e-6)
    slope = jax.vmap(jax.grad(primitives.gelu))(x.astype(jnp.float32))
    x = np.asarray(x, np.float64)
    expected = phi + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_epsilon_of_flax_would_be_seen(x64):
    """The negative control: with 1e-6 in place of 1e-5 the comparison above fails."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)))
    ours = attention.norm().apply({"params": {"scale": jnp.ones(6), "bias": jnp.zeros(6)}}, x)
    other = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    assert np.abs(ours / other - 1).max() > 1e-7


def test_normalisation_keeps_digits_at_a_large_mean():
    x = jnp.asarray(1e4 + np.random.default_rng(0).normal(size=(4, 64)), jnp.float32)
    params = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(
        exact.var(-1, keepdims=True) + attention.EPSILON
    )
    np.testing.assert_allclose(attention.norm().apply({"params": params}, x), exact, atol=2e-3)


# Sizes


def size(module, inputs):
    params, model_state = jax.eval_shape(from_linen(module).init, jax.random.key(0), inputs)
    assert model_state == {}
    return tree.count(params)


@pytest.mark.parametrize(
    ("vocabulary", "context", "blocks", "width"), [(65, 64, 4, 128), (65, 256, 6, 384)]
)
def test_sizes_of_nanogpt(vocabulary, context, blocks, width):
    # Query, key, value and output: 4 d²; d to 4 d and back: 8 d²; two scales of d.
    block = 4 * width**2 + 8 * width**2 + 2 * width
    expected = vocabulary * width + context * width + blocks * block + width
    assert expected == {128: 804_096, 384: 10_745_088}[width]
    heads = {128: 4, 384: 6}[width]
    decoder = Decoder(vocabulary, context, blocks, heads, width)
    assert size(decoder, jnp.zeros((1, context), int)) == expected
    # nanoGPT counts without positions and prints 0.80 M and 10.65 M.
    assert round((expected - context * width) / 1e6, 2) == {128: 0.80, 384: 10.65}[width]


def test_biases_of_the_decoder():
    """3 d, d, 4 d and d in a block, d for each of its norms, d for the last."""
    plain, biased = (
        size(Decoder(7, 5, 3, 2, 8, use_bias=flag), jnp.zeros((1, 5), int))
        for flag in (False, True)
    )
    assert biased - plain == 3 * (3 + 1 + 4 + 1 + 2) * 8 + 8


def test_size_of_vit_b_16():
    """The published 86,567,656: patches, class token, positions, 12 blocks, norm, classes."""
    d = 768
    block = 12 * d * d + (3 + 1 + 4 + 1) * d + 2 * 2 * d
    expected = (3 * 16 * 16 + 1) * d + d + 197 * d + 12 * block + 2 * d + (d + 1) * 1000
    assert expected == 86_567_656
    vit = ViT(1000, patch=16, blocks=12, heads=12, width=d)
    assert size(vit, jnp.zeros((1, 224, 224, 3))) == expected


def test_size_of_the_encoder():
    d, block = 8, 12 * 8 * 8 + (3 + 1 + 4 + 1 + 4) * 8
    encoder = Encoder(outputs=3, context=5, vocabulary=11, blocks=2, heads=2, width=d)
    expected = 11 * d + 5 * d + 2 * block + 2 * d + (d + 1) * 3
    assert size(encoder, jnp.zeros((2, 5), int)) == expected


# What each may see


def test_the_decoder_does_not_see_the_future():
    module = Decoder(vocabulary=5, context=6, blocks=2, heads=1, width=4)
    tokens = np.random.default_rng(0).integers(0, 5, (2, 6))
    params = jax.jit(module.init)(jax.random.key(0), tokens)["params"]
    call = jax.jit(lambda tokens: module.apply({"params": params}, tokens))
    before = call(tokens)
    for place in (1, 4):
        changed = tokens.copy()
        changed[:, place] = (changed[:, place] + 1) % 5
        moved = np.abs(np.asarray(call(changed) - before)).max(-1)
        assert (moved[:, :place] == 0).all() and (moved[:, place:] > 0).all()
    weights = attention_weights(module, params, jnp.asarray(tokens))
    assert weights.shape == (2, 2, 1, 6, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (np.triu(np.asarray(weights), 1) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("pool", [True, False])
def test_padding_changes_nothing_in_the_encoder(pool):
    module = Encoder(outputs=3, context=7, blocks=1, heads=2, width=4, pool=pool)
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(3, 7, 2)).astype(np.float32), np.array([1, 4, 7])
    params = jax.jit(module.init)(jax.random.key(0), {"x": x, "lengths": lengths})["params"]

    @jax.jit
    def outputs(x, lengths):
        def total(x):
            y = module.apply({"params": params}, {"x": x, "lengths": lengths})
            true = jnp.arange(7)[None] < lengths[:, None]
            y = y if pool else jnp.where(true[..., None], y, 0)
            return (y**2).sum(), y

        return jax.grad(total, has_aux=True)(x)

    behind = np.arange(7)[None] >= lengths[:, None]
    slope, plain = outputs(x, lengths)
    assert (np.asarray(slope)[behind] == 0).all() and (np.asarray(slope)[~behind] != 0).any()
    spoilt = x.copy()
    spoilt[behind] = np.nan
    again, y = outputs(spoilt, lengths)
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_array_equal(again, slope)
    short = jax.jit(module.apply)({"params": params}, {"x": x[1:2, :4]})
    np.testing.assert_allclose(short[0], plain[1] if pool else plain[1, :4], rtol=1e-4, atol=1e-6)


def test_a_query_that_may_see_nothing_stays_finite():
    x = jnp.ones((1, 2, 1, 3))
    weights = attention_ops.attention_weights(x, x, jnp.zeros((1, 1, 2, 2), bool))
    np.testing.assert_array_equal(weights, np.full((1, 1, 2, 2), 0.5))


def test_dropout_is_for_training():
    plain, dropping = (Decoder(5, 6, 1, 2, 8, dropout=rate) for rate in (0.0, 0.5))
    tokens = jnp.zeros((2, 6), int)
    params, _ = from_linen(plain).init(jax.random.key(0), tokens)
    apply = jax.jit(from_linen(dropping).apply, static_argnames="train")
    calm = jax.jit(from_linen(plain).apply)(params, {}, tokens)[0]
    keys = [jax.random.key(k) for k in (1, 1, 2)]
    first, again, other = (apply(params, {}, tokens, key=k, train=True)[0] for k in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_allclose(apply(params, {}, tokens)[0], calm, rtol=1e-6)


# Refusals


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        (
            Decoder(5, context=4),
            jnp.zeros((1, 5), int),
            ("sequence", "4 positions", "5"),
        ),
        (Decoder(5), jnp.zeros((1, 5)), ("tokens", "integers", "float32")),
        (Decoder(5), jnp.zeros(5, int), ("tokens", "(batch, time)", "(5,)")),
        (
            Decoder(5, heads=3, width=8),
            jnp.zeros((1, 5), int),
            ("heads", "divides", "3"),
        ),
        (ViT(patch=3), jnp.zeros((1, 8, 8, 1)), ("patch", "8 by 8", "3")),
        (ViT(), jnp.zeros((1, 8, 8)), ("images", "x[..., None]")),
        (Encoder(2, 4), jnp.zeros((1, 4)), ("sequence", "features", "(1, 4)")),
        (Encoder(2, 4, dropout=1.0), jnp.zeros((1, 4, 2)), ("dropout", "1.0")),
    ],
)
def test_what_does_not_fit_is_refused(module, inputs, words):
    said = message(lambda: from_linen(module).init(jax.random.key(0), inputs))
    assert all(word in said for word in words), said


def test_a_scan_over_blocks_is_the_stack_of_them():
    sizes = {"vocabulary": 11, "context": 8, "blocks": 3, "heads": 2, "width": 12}
    scanned, stacked = Decoder(**sizes, scan=True), Decoder(**sizes)
    tokens = jnp.arange(8)[None]
    params = scanned.init(jax.random.key(0), tokens)["params"]
    blocks = params["stack"]["blocks"]
    rows = {f"block_{i + 1}": jax.tree.map(lambda v, i=i: v[i], blocks) for i in range(3)}
    kernel = blocks["dense_1"]["kernel"]
    assert not np.array_equal(kernel[0], kernel[1]), "each block draws its own weights"
    same = {**params, "stack": {"norm": params["stack"]["norm"], **rows}}
    one = scanned.apply({"params": params}, tokens)
    np.testing.assert_allclose(one, stacked.apply({"params": same}, tokens), rtol=1e-5, atol=1e-6)
    cache = scanned.empty_cache(1)
    text = message(lambda: scanned.apply({"params": params}, tokens, cache=cache))
    assert text.startswith("cache\n") and "scan=False" in text
