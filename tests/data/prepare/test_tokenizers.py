"""Tokenizers give every text back, and are saved as plain data."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.data import tokenizers
from tests.support.learners import message

STORY = "the cat sat on the mat; the other cat sat on the hat.\nÄpfel — žluté 猫! "
PAIRS = tokenizers.byte_pair_tokenizer(STORY, 290)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_byte_pairs_give_every_text_back(sample):
    tokens = PAIRS.encode(sample)
    assert PAIRS.decode(tokens) == sample
    assert len(tokens) <= len(sample.encode()) and tokens.dtype == np.uint16


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1))
def test_characters_give_their_text_back(sample):
    tokenizer = tokenizers.character_tokenizer(sample)
    assert tokenizer.decode(tokenizer.encode(sample)) == sample
    assert tokenizer.size == len(set(sample))


@settings(max_examples=10, deadline=None)
@given(st.text(alphabet="abc ", min_size=1, max_size=40), st.integers(256, 264))
def test_pairs_are_those_of_a_plain_count(sample, size):
    """Against a version that counts all pairs anew for each merge."""
    words = [list(word.encode()) for word in tokenizers._WORDS.findall(sample)]
    expected = []
    while len(expected) < size - 256:
        pairs = [pair for word in words for pair in itertools.pairwise(word)]
        if not pairs:
            break
        best = min(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
        expected.append(best)
        words = [list(tokenizers._merged(tuple(word), best, 255 + len(expected))) for word in words]
    assert tokenizers.byte_pair_tokenizer(sample, size).merges == tuple(expected)


def test_pairs_shorten_what_they_were_learned_from():
    tokens = PAIRS.encode(STORY)
    assert PAIRS.size == 290 and len(tokens) < 0.7 * len(STORY.encode())
    assert PAIRS.decode([next(iter(PAIRS.encode(" the")))]) == " the"
    assert tokenizers.byte_pair_tokenizer("ab", 300).size == 257
    # Half a character is shown as such, not raised.
    assert PAIRS.decode(list("é".encode())[:1]) == "�"


@pytest.mark.parametrize("tokenizer", [PAIRS, tokenizers.character_tokenizer(STORY)])
def test_tokenizers_are_saved_as_json(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    assert json.loads(path.read_text())["kind"] in ("characters", "byte_pairs")
    loaded = tokenizers.load_tokenizer(path)
    assert loaded == tokenizer
    np.testing.assert_array_equal(loaded.encode(STORY), tokenizer.encode(STORY))


@pytest.mark.parametrize(
    "content",
    [
        "not json", "[]", '{"kind": "other"}', '{"kind": "characters"}',
        '{"kind": "characters", "alphabet": "aa"}', '{"kind": "characters", "alphabet": ""}',
        '{"kind": "byte_pairs", "merges": [[97, 256]]}',
        '{"kind": "byte_pairs", "merges": [[97]]}',
        '{"kind": "byte_pairs", "merges": [[97, -1]]}',
        '{"kind": "byte_pairs", "merges": [[97, true]]}',
        '{"kind": "byte_pairs", "merges": "ab"}',
    ],
)  # fmt: skip
def test_other_files_are_no_tokenizers(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    said = message(lambda: tokenizers.load_tokenizer(path))
    assert str(path) in said and "save the tokenizer again" in said


def test_what_cannot_be_encoded_is_refused():
    said = message(lambda: tokenizers.character_tokenizer("abc").encode("abzxc"))
    assert "2 others, the first 'z' at character 2" in said
    assert "0 to 2" in message(lambda: tokenizers.character_tokenizer("abc").decode([3]))
    assert "-1" in message(lambda: PAIRS.decode([-1]))
    assert "empty" in message(lambda: tokenizers.character_tokenizer(""))
    assert "empty" in message(lambda: tokenizers.byte_pair_tokenizer("", 300))
    assert "at least 256" in message(lambda: tokenizers.byte_pair_tokenizer("abc", 100))


@pytest.mark.parametrize(
    "call", [PAIRS.encode, lambda text: tokenizers.byte_pair_tokenizer(text, 300)]
)
def test_a_lone_surrogate_is_no_text(call):
    sample = "ab\udc80c"
    text = message(lambda: call(sample))
    assert "a lone surrogate, '\\udc80', at character 2" in text
    call(sample.encode("utf-8", "replace").decode("utf-8"))  # what the message suggests
