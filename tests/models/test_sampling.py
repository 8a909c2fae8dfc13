"""Sampling: the cache gives the numbers of the whole text, and each filter keeps what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.models import Decoder, generate, sampling
from tests.support.learners import compilations, message

VOCABULARY, CONTEXT = 7, 8
MODULE = Decoder(VOCABULARY, CONTEXT, blocks=2, heads=2, width=8)


@pytest.fixture(scope="module")
def params():
    made = jax.jit(MODULE.init)(jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    # First weights are so small that all tokens are about as likely: larger ones tell them apart.
    return jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim > 1 else leaf, made)


@pytest.fixture(scope="module")
def whole(params):
    return jax.jit(lambda tokens: MODULE.apply({"params": params}, tokens))


TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (3, CONTEXT))


@pytest.fixture(scope="module")
def read(params):
    return jax.jit(lambda new, cache: MODULE.apply({"params": params}, new, cache=cache))


@pytest.fixture(scope="module")
def steps(read):
    """Logits and cache after the first four tokens together, and after each of the others."""
    logits, cache = read(TOKENS[:, :4], MODULE.empty_cache(3))
    found = [(logits, cache)]
    for place in range(4, CONTEXT):
        logits, cache = read(TOKENS[:, place : place + 1], cache)
        found.append((logits, cache))
    return found


def test_cached_logits_equal_those_of_the_whole_text(whole, steps):
    expected = whole(TOKENS)
    assert np.ptp(expected) > 1
    logits = np.concatenate([logits for logits, _ in steps], 1)
    assert int(steps[-1][1].length) == CONTEXT
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_into_a_cache_is_nan_and_changes_nothing_before_it(whole, read, steps):
    _, cache = steps[2]
    assert int(cache.length) == CONTEXT - 2
    logits, after = read(np.concatenate([TOKENS[:, -2:], TOKENS[:, :2]], 1), cache)
    np.testing.assert_allclose(logits[:, :2], whole(TOKENS)[:, -2:], rtol=1e-5, atol=1e-5)
    assert np.isnan(logits[:, 2:]).all()
    for past in (after, steps[-1][1]):  # token by token
        assert np.isnan(read(TOKENS[:, :1], past)[0]).all()


@pytest.mark.parametrize(("place", "new"), [(2, 3), (-1, 1)])
def test_outside_of_a_program_it_is_refused(params, steps, place, new):
    cache = steps[place][1]
    said = message(lambda: MODULE.apply({"params": params}, TOKENS[:, :new], cache=cache))
    assert said.startswith(f"cache\n  expected: room for {new} more of {CONTEXT} tokens")


def by_hand(whole, prompt, steps):
    """Greedy text without a cache; the memory is refilled as `generate` says."""
    text, start = list(prompt), 0
    for _ in range(steps):
        seen = np.zeros((1, CONTEXT), int)
        part = text[start:]
        seen[0, : len(part)] = part
        text.append(int(whole(seen)[0, len(part) - 1].argmax()))
        if len(text) - start > CONTEXT:
            start = len(text) - CONTEXT // 2
    return text


@pytest.mark.parametrize("steps", [6, 15])
def test_greedy_text_is_the_most_likely_one(params, whole, steps):
    prompts = np.array([[1, 2], [5, 3]])
    made = generate(MODULE, params, prompts, jax.random.key(0), steps, temperature=0)
    again = generate(MODULE, params, prompts, jax.random.key(9), steps, temperature=0)
    np.testing.assert_array_equal(made, again)
    assert made.tolist() == [by_hand(whole, prompt, steps) for prompt in prompts]


def test_a_long_prompt_is_cut(params, whole):
    prompt = np.random.default_rng(1).integers(0, VOCABULARY, (1, 11))
    made = generate(MODULE, params, prompt, jax.random.key(0), 1, temperature=0)
    assert made.shape == (1, 12) and (made[0, :11] == prompt[0]).all()
    assert int(made[0, -1]) == int(whole(prompt[:, -CONTEXT:])[0, -1].argmax())


def test_one_program_serves_every_key_and_temperature(params):
    with compilations() as programs:
        texts = {
            tuple(generate(
                MODULE, params, [[1]], jax.random.key(k), 5, temperature=t, top_p=0.9
            )[0].tolist())
            for k, t in ((0, 1.0), (1, 1.0), (2, 0.5), (3, 2.0))
        }  # fmt: skip
    assert sum("_generate" in name for name in programs) == 1
    assert len(texts) > 1


DRAWS = 4_000


def frequencies(logits, **how):
    rows = jnp.broadcast_to(jnp.asarray(logits)[None], (DRAWS, len(logits)))
    drawn = sampling.choose(jax.random.key(0), rows, **how)
    return np.bincount(drawn, minlength=len(logits)) / DRAWS


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.1, 0.4, 0.3, 0.2]),
        ({"temperature": 0.5}, np.array([1, 16, 9, 4]) / 30),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 9}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_p": 0.6}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 3 / 7, 0]),
    ],
)
def test_tokens_are_drawn_by_their_probabilities(how, expected):
    found = frequencies(np.log([0.1, 0.4, 0.3, 0.2]).astype(np.float32), **how)
    assert (found[np.asarray(expected) == 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / DRAWS**0.5)


def test_draws_from_16_bits_have_a_tail():
    """Half of the probability is spread over 500 tokens."""
    logits = jnp.log(jnp.full(501, 1e-3)).at[0].set(jnp.log(0.5)).astype("bfloat16")
    shares = np.exp(np.asarray(logits, np.float64))
    found = frequencies(logits)[0]
    np.testing.assert_allclose(found, shares[0] / shares.sum(), atol=4 * 0.5 / DRAWS**0.5)


def test_of_equal_tokens_the_first_ones_stay():
    kept = lambda logits: np.isfinite(logits)[0].tolist()
    assert kept(sampling.keep_top_k(jnp.array([[1.0, 0.0, 1.0, 1.0]]), 2)) == [1, 0, 1, 0]
    top_p = jax.jit(sampling.keep_top_p)
    for p in (0.1, 0.3, 0.7):
        assert kept(top_p(jnp.zeros((1, 1000)), p)) == [i < 1000 * p for i in range(1000)]
    assert all(kept(top_p(jnp.zeros((1, 1000)).at[0, 0].set(40), 1.0)))


def test_it_can_be_traced_in_double_precision_too(params, x64):
    make = lambda params: generate(MODULE, params, [[1, 2]], jax.random.key(0), 9, top_k=2)
    assert jax.eval_shape(make, params).shape == (1, 11)


@pytest.mark.parametrize(
    ("prompt", "steps", "how", "words"),
    [
        ([1, 2], 3, {}, ("prompt", "(batch, time)")),
        (np.zeros((1, 0), int), 3, {}, ("prompt", "at least one token")),
        ([[1.0]], 3, {}, ("prompt", "integers")),
        ([[7]], 3, {}, ("prompt", "0 to 6", "7 to 7")),
        ([[1]], 0, {}, ("steps", "1 or more")),
        ([[1]], 3, {"temperature": -1.0}, ("temperature", "-1.0")),
        ([[1]], 3, {"top_k": 0}, ("top_k", "0")),
        ([[1]], 3, {"top_p": 1.5}, ("top_p", "1.5")),
    ],
)
def test_what_cannot_be_sampled_is_refused(params, prompt, steps, how, words):
    said = message(lambda: generate(MODULE, params, prompt, jax.random.key(0), steps, **how))
    assert all(word in said for word in words), said
