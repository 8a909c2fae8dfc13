"""Text: readers that name the byte, a split by position, windows of the whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl.data import text
from tests.support.learners import message

STORY = "the cat sat on the mat; the other cat sat on the hat.\nÄpfel — žluté 猫! "


# Files


def test_a_file_is_read_unchanged(tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"one\r\ntwo\xc3\xa4")
    assert text.read_text(path) == "one\r\ntwoä"


def test_files_that_hold_no_text_are_refused(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait")
    said = message(lambda: text.read_text(path))
    assert f"{path}, byte 3" in said and "UTF-8" in said and r"\xe9" in said
    path.write_bytes(b"")
    assert "an empty file" in message(lambda: text.read_text(path))
    said = message(lambda: text.read_text(tmp_path / "none.txt"))
    assert "none.txt" in said and "no such file" in said


def test_a_split_is_by_position():
    whole = STORY * 30
    train, valid = text.split_text(whole)
    assert train + valid == whole and len(train) == int(0.9 * len(whole))
    parts = text.split_text("0123456789", (0.7, 0.2, 0.1))
    assert parts == ("0123456", "78", "9")
    assert "sum to 1" in message(lambda: text.split_text(STORY, (0.9, 0.2)))
    assert "part sizes [1, 0]" in message(lambda: text.split_text("a", (1.0, 0.0)))


# Windows


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12))
def test_every_token_is_predicted_once(n, context):
    tokens = np.arange(n, dtype=np.uint8)
    if n < context + 1:
        assert "shorter context" in message(lambda: text.evaluation_windows(tokens, context))
        return
    parts = text.evaluation_windows(tokens, context)
    targets = parts["x"][:, 1:][parts["mask"] == 1]
    assert sorted(targets) == list(range(1, n))
    assert parts["x"].dtype == np.uint8 and parts["x"].shape[1] == context + 1


def test_windows_reach_every_stretch_for_twice_the_memory():
    tokens, context = np.arange(103, dtype=np.uint8), 5
    found = text.windows(tokens, 2 * context, step=context)
    assert found.nbytes <= 2.2 * tokens.nbytes
    stretches = np.lib.stride_tricks.sliding_window_view(found, context + 1, axis=1)
    stretches = stretches.reshape(-1, context + 1)
    assert set(stretches[:, 0].tolist()) == set(range(103 - context))
    assert (np.diff(stretches.astype(int), axis=1) == 1).all()


def test_windows_of_too_little_text_are_refused():
    assert "at least 9 of them" in message(lambda: text.windows(np.arange(8), 9))
    assert "float64" in message(lambda: text.windows(np.arange(8.0), 4))
    assert "step" in message(lambda: text.windows(np.arange(8), 4, step=0))


def test_counts_of_neighbours_are_those_of_a_loop():
    draw = np.random.default_rng(0)
    train, valid, size = draw.integers(0, 3, 50), draw.integers(0, 3, 20), 3

    def probability(text_so_far, token, n):
        if n == 0:
            return 1 / size
        past = ([0] * n + list(text_so_far))[len(text_so_far) + 1 :]
        padded = [0] * (n - 1) + list(train)
        stretches = [padded[i : i + n] for i in range(len(train))]
        given = sum(stretch[:-1] == past for stretch in stretches)
        both = sum(stretch == [*past, token] for stretch in stretches)
        return (both + 2 * probability(text_so_far, token, n - 1)) / (given + 2)

    for n in (1, 2, 3):
        expected = [probability(valid[:i].tolist(), valid[i], n) for i in range(len(valid))]
        np.testing.assert_allclose(text.ngram_probabilities(train, valid, size, n), expected)
    # For every past the probabilities of all tokens sum to one.
    each = [
        text.ngram_probabilities(train, np.array([1, 2, token]), size, 3)[2]
        for token in range(size)
    ]
    assert abs(sum(each) - 1) < 1e-12
