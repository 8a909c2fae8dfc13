"""Text files, splits by position, and windows of tokens to train on."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdl.core.errors import error
from jdl.core.paths import user_path
from jdl.data.readers.binary import unreadable


def read_text(path: str | Path) -> str:
    r"""Read a UTF-8 text file, unchanged.

    Raises `InputError`, naming the file, if it cannot be read, is empty or is not UTF-8; the error
    gives the position of the first invalid byte.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "poem.txt"
    >>> _ = path.write_text("to be\n")
    >>> read_text(path)
    'to be\n'
    """
    path = user_path(path)
    try:
        raw = path.read_bytes()
    except OSError as reason:
        raise unreadable(path, reason, "a text file that can be read") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise error(
            f"{path}, byte {bad.start}",
            expected="UTF-8 text",
            got=f"{raw[bad.start : bad.start + 4]!r}: {bad.reason}",
            fix="save the file as UTF-8, or convert it: iconv -f latin1 -t utf-8",
        ) from None
    if not text:
        raise error(
            str(path), expected="some text", got="an empty file", fix="pass a file with text"
        )
    return text


def split_text(text: str, parts: Sequence[float] = (0.9, 0.1)) -> tuple[str, ...]:
    """Cut a text by position into fractions `parts`: train on the beginning, validate on the end.

    Raises `InputError` unless the fractions sum to 1 and every part gets a character.

    >>> split_text("0123456789")
    ('012345678', '9')
    """
    if not parts or abs(sum(parts) - 1) > 1e-6 or min(parts) < 0:
        raise error(
            "parts", expected="fractions that sum to 1", got=str(tuple(parts)), fix="try (0.9, 0.1)"
        )
    # Rounded down, with a margin for the rounding error of sums such as 0.7 + 0.2.
    ends = [int(len(text) * share + 1e-6) for share in itertools.accumulate(parts)]
    pieces = tuple(text[a:b] for a, b in itertools.pairwise([0, *ends[:-1], len(text)]))
    if not all(pieces):
        raise error(
            "a split of text",
            expected="at least one character in each part",
            got=f"part sizes {[len(piece) for piece in pieces]}",
            fix="use a longer text, or fewer parts",
        )
    return pieces


def windows(tokens: np.ndarray, length: int, step: int | None = None) -> np.ndarray:
    """Windows of `length` tokens, one every `step` tokens: (n, length), in the dtype of `tokens`.

    `tokens` has shape (time,). By default `step` is `length` - 1, so that each token is predicted
    once; the last window ends with the text. To train on windows that start at every position
    without `length` times the memory, take windows of 2 * context tokens every `context` tokens and
    let `jdl.tasks.language_model(..., context=context)` crop each at random: all stretches of
    context + 1 tokens are equally likely. Raises `InputError` for too few tokens, or a `step` below
    1.

    >>> windows(np.arange(8), 4).tolist()
    [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]
    """
    tokens = _long_enough(tokens, length)
    return tokens[_starts(len(tokens), length, step)[:, None] + np.arange(length)]


def evaluation_windows(tokens: np.ndarray, context: int) -> dict[str, np.ndarray]:
    """Windows that predict each token of a text once: `x` (n, context + 1) and `mask` (n, context).

    `tokens` has shape (time,); its first token is not predicted. The last window ends with the
    text, and its mask is 0 where it overlaps the one before. Raises `InputError` for fewer than
    context + 1 tokens.

    >>> parts = evaluation_windows(np.arange(8), 3)
    >>> (parts["x"][:, 1:] * parts["mask"]).astype(int).tolist()
    [[1, 2, 3], [4, 5, 6], [0, 0, 7]]
    """
    x = windows(tokens, context + 1)
    starts = _starts(len(tokens), context + 1, None)
    places = starts[:, None] + np.arange(1, context + 1)
    predicted_up_to = np.concatenate([[0], starts[:-1] + context])
    return {"x": x, "mask": (places > predicted_up_to[:, None]).astype(np.float32)}


def ngram_probabilities(train: np.ndarray, valid: np.ndarray, size: int, n: int) -> np.ndarray:
    r"""Probability of each token of `valid` given the n - 1 before it, from counts in `train`.

    $p_n(x \mid h) = \frac{c(h x) + 2\,p_{n-1}(x \mid h')}{c(h) + 2}$, where $h'$ is h without its
    first token and $p_0 = 1 / \text{size}$ (MacKay and Peto 1995): a baseline for language models.
    `train`, `valid` and the result have shape (time,). The text is preceded by tokens 0. Needs
    memory for size ** n counts.

    >>> train, valid = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 1])
    >>> ngram_probabilities(train, valid, size=2, n=2).round(2).tolist()
    [0.33, 0.67]
    """
    if n == 0:
        return np.full(len(valid), 1 / size)
    ends = [_ending(np.asarray(tokens, np.int64), size, n) for tokens in (train, valid)]
    # Without the last token: its context.
    (train_ngrams, ngrams), (train_contexts, contexts) = ends, [end // size for end in ends]
    counts = np.bincount(train_ngrams, minlength=size**n)[ngrams]
    totals = np.bincount(train_contexts, minlength=size ** (n - 1))[contexts]
    return (counts + 2 * ngram_probabilities(train, valid, size, n - 1)) / (totals + 2)


def _ending(tokens: np.ndarray, size: int, n: int) -> np.ndarray:
    """The n tokens up to each position as one integer, with the last token as its last digit."""
    padded = np.concatenate([np.zeros(n - 1, np.int64), tokens])
    digits = (padded[n - 1 - i : len(padded) - i] * size**i for i in range(n))
    return np.sum(list(digits), axis=0)


def _starts(n: int, length: int, step: int | None) -> np.ndarray:
    step = length - 1 if step is None else step
    if step < 1:
        raise error("step", expected="at least 1", got=str(step), fix="leave step out")
    starts = np.arange(0, n - length + 1, step)
    return starts if starts[-1] == n - length else np.append(starts, n - length)


def _long_enough(tokens: np.ndarray, length: int) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.ndim == 1 and tokens.dtype.kind in "iu" and len(tokens) >= length >= 2:
        return tokens
    raise error(
        "tokens",
        expected=f"integers of shape (time,), at least {max(length, 2)} of them for one window",
        got=f"{tokens.dtype} of shape {list(tokens.shape)}, for windows of {length}",
        fix="use a longer text, or a shorter context",
    )
