"""Tokenizers: text to integer tokens and back.

A tokenizer has `size`, `encode(text) -> tokens` and `decode(tokens) -> text`. It is plain data:
`save` writes JSON, and `load_tokenizer` reads it without executing anything.
"""

import collections
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import error, from_json
from jdl.core.paths import user_path
from jdl.data.prepare import baselines
from jdl.data.readers.text import read_text, split_text

_WORDS = re.compile(r" ?\w+| ?[^\w\s]+|\s+")
"""Words, which no byte pair crosses; joined they are the whole text."""

Pair = tuple[int, int]
_MAX_TOKEN_BYTES = 2**26
"""Limit for the total length of all tokens of a file."""


@dataclass(frozen=True)
class CharacterTokenizer:
    """One token for each character of `alphabet`, in its order; see `character_tokenizer`.

    Tokens have shape (characters,), in the smallest unsigned dtype. `encode` raises `InputError`
    for a character outside the alphabet, `decode` for a token out of range.

    >>> tokenizer = CharacterTokenizer("abc")
    >>> tokenizer.encode("cab"), tokenizer.decode([0, 1])
    (array([2, 0, 1], dtype=uint8), 'ab')
    """

    alphabet: str

    @property
    def size(self) -> int:
        """The number of tokens."""
        return len(self.alphabet)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {character: token for token, character in enumerate(self.alphabet)}

    def encode(self, text: str) -> np.ndarray:
        """Tokens (characters,) in the smallest unsigned dtype, or `InputError`."""
        try:
            tokens = [self._tokens[character] for character in text]
        except KeyError:
            unknown = sorted(set(text) - set(self.alphabet))
            first = min(map(text.index, unknown))
            raise error(
                "text to encode",
                expected=f"the {self.size} characters of the tokenizer",
                got=f"{len(unknown)} others, the first {text[first]!r} at character {first}",
                fix="add them to the alphabet, or use byte_pair_tokenizer, which encodes any text",
            ) from None
        return np.array(tokens, np.min_scalar_type(max(self.size - 1, 0)))

    def decode(self, tokens: Iterable[Any]) -> str:
        """The text of the tokens; `InputError` for one out of range."""
        return "".join(self.alphabet[_check_token(token, self.size)] for token in tokens)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON, for `load_tokenizer`."""
        _write(path, {"kind": "characters", "alphabet": self.alphabet})


@dataclass(frozen=True)
class BytePairTokenizer:
    """Byte pair encoding with the given `merges` (Sennrich et al. 2016); see `byte_pair_tokenizer`.

    Tokens 0 to 255 are the bytes of UTF-8, and token 256 + i is the i-th merged pair. Every text
    that UTF-8 can hold can be encoded, and decoding restores it; `encode` raises `InputError` for a
    lone surrogate, `decode` for a token out of range.

    >>> tokenizer = BytePairTokenizer(merges=((108, 111), (256, 119)))
    >>> tokenizer.size, tokenizer.encode("low slow").tolist()
    (258, [257, 32, 115, 257])
    """

    merges: tuple[Pair, ...]

    @property
    def size(self) -> int:
        """The number of tokens."""
        return 256 + len(self.merges)

    @cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: 256 + rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _bytes(self) -> list[bytes]:
        token_bytes = [bytes([byte]) for byte in range(256)]
        for one, two in self.merges:
            token_bytes.append(token_bytes[one] + token_bytes[two])
        return token_bytes

    def encode(self, text: str) -> np.ndarray:
        """Tokens (time,) in the smallest unsigned dtype; the earliest pairs merge first."""
        _check_utf8(text, "text to encode")
        words = _WORDS.findall(text)
        encoded = {word: self._encode_word(word) for word in set(words)}
        tokens = [token for word in words for token in encoded[word]]
        return np.array(tokens, np.min_scalar_type(self.size - 1))

    def decode(self, tokens: Iterable[Any]) -> str:
        """The text of the tokens; bytes that form no character become U+FFFD."""
        raw = b"".join(self._bytes[_check_token(token, self.size)] for token in tokens)
        return raw.decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON, for `load_tokenizer`."""
        _write(path, {"kind": "byte_pairs", "merges": self.merges})

    def _encode_word(self, word: str) -> tuple[int, ...]:
        tokens = tuple(word.encode("utf-8"))
        while len(tokens) > 1:
            pair = min(itertools.pairwise(tokens), key=lambda p: self._ranks.get(p, self.size))
            if pair not in self._ranks:
                break
            tokens = _merged(tokens, pair, self._ranks[pair])
        return tokens


def character_tokenizer(text: str) -> CharacterTokenizer:
    """A tokenizer of the characters in `text`, in sorted order.

    Raises `InputError` for an empty text.

    >>> tokenizer = character_tokenizer("hello")
    >>> tokenizer.alphabet, tokenizer.encode("hole").tolist()
    ('ehlo', [1, 3, 2, 0])
    """
    _check_not_empty(text)
    return CharacterTokenizer("".join(sorted(set(text))))


class Corpus(NamedTuple):
    """A tokenized text, split by position: `train` and `valid` have shape (time,).

    >>> corpus = Corpus(CharacterTokenizer("ab"), np.array([0, 1] * 9), np.array([0, 1] * 9))
    >>> round(corpus.ngrams()["2-gram"], 2)
    0.15
    """

    tokenizer: CharacterTokenizer
    train: np.ndarray
    valid: np.ndarray

    def ngrams(self) -> dict[str, float]:
        """Validation loss in nats per token of n-gram counts: `jdl.data.baselines.ngram_losses`."""
        return baselines.ngram_losses(self.train, self.valid, self.tokenizer.size)


def character_corpus(source: str | Path | None = None) -> Corpus:
    """A text tokenized by characters, the first 90 % for training and the rest for validation.

    `source` is a text file, or a folder that contains tinyshakespeare.txt; by default the reference
    texts of Python's own help, which need no download. Raises `InputError` for a file that
    `read_text` rejects.

    >>> corpus = character_corpus()
    >>> len(corpus.train) // len(corpus.valid)
    8
    """
    if source is None:
        from pydoc_data.topics import topics

        whole = "\n".join(topics[name] for name in sorted(topics))
    else:
        path = user_path(source)
        whole = read_text(path / "tinyshakespeare.txt" if path.is_dir() else path)
    tokenizer = character_tokenizer(whole)
    train, valid = map(tokenizer.encode, split_text(whole))
    return Corpus(tokenizer, train, valid)


def byte_pair_tokenizer(text: str, size: int) -> BytePairTokenizer:
    """Learn byte pair encoding from `text` until there are `size` tokens (Sennrich et al. 2016).

    Each merge takes the most frequent pair of neighbours within words; ties go to the smaller pair.
    Learning stops early if every word is a single token. Raises `InputError` for an empty text, one
    that UTF-8 cannot hold, and a size below 256.

    >>> tokenizer = byte_pair_tokenizer("low lower lowest", size=258)
    >>> [tokenizer.decode([token]) for token in tokenizer.encode("lower")]
    ['low', 'e', 'r']
    """
    _check_not_empty(text)
    _check_utf8(text, "text")
    if size < 256:
        raise error(
            "size of a vocabulary",
            expected="at least 256, one token for each byte",
            got=str(size),
            fix="512 to 50,000 is usual; character_tokenizer gives smaller ones",
        )
    counts = collections.Counter(_WORDS.findall(text))
    words = [tuple(word.encode("utf-8")) for word in counts]
    frequency = list(counts.values())
    # The frequency of each pair, and the words that contain it: a merge visits only these.
    total: collections.Counter[Pair] = collections.Counter()
    where: dict[Pair, set[int]] = collections.defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            total[pair] += frequency[index]
            where[pair].add(index)
    merges: list[Pair] = []
    while len(merges) < size - 256 and total:
        best = min(total, key=lambda pair: (-total[pair], pair))
        merges.append(best)
        for index in where[best]:
            for pair in itertools.pairwise(words[index]):
                total[pair] -= frequency[index]
            words[index] = _merged(words[index], best, 255 + len(merges))
            for pair in itertools.pairwise(words[index]):
                total[pair] += frequency[index]
                if pair != best:
                    where[pair].add(index)
        del where[best]
        total += collections.Counter()  # drops pairs with count 0
    return BytePairTokenizer(tuple(merges))


def load_tokenizer(path: str | Path) -> CharacterTokenizer | BytePairTokenizer:
    """Load a tokenizer that `save` wrote. Raises `InputError` for any other file.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tokenizer.json"
    >>> character_tokenizer("hello").save(path)
    >>> load_tokenizer(path)
    CharacterTokenizer(alphabet='ehlo')
    """
    wrong = error(
        str(path),
        expected='JSON with kind "characters" and an alphabet, or kind "byte_pairs" and merges',
        got="something else",
        fix="save the tokenizer again",
    )
    try:
        content = from_json(read_text(path))
    except ValueError as bad:
        if type(bad) is type(wrong):
            raise
        raise wrong from None
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "characters":
        alphabet = content.get("alphabet")
        if isinstance(alphabet, str) and 0 < len(set(alphabet)) == len(alphabet):
            return CharacterTokenizer(alphabet)
    merges = content.get("merges") if kind == "byte_pairs" else None
    if isinstance(merges, list) and all(map(_is_merge, range(len(merges)), merges)):
        _check_size(merges, path)
        return BytePairTokenizer(tuple((one, two) for one, two in merges))
    raise wrong


def _merged(tokens: tuple[int, ...], pair: Pair, token: int) -> tuple[int, ...]:
    """The tokens with every occurrence of the pair, from the left, replaced by `token`."""
    result, place = [], 0
    while place < len(tokens):
        is_pair = tokens[place : place + 2] == pair
        result.append(token if is_pair else tokens[place])
        place += 2 if is_pair else 1
    return tuple(result)


def _is_merge(rank: int, pair: Any) -> bool:
    """Whether `pair` is two tokens that exist before this merge."""
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(token) is int and 0 <= token < 256 + rank for token in pair)
    )


def _check_size(merges: list[Pair], path: str | Path) -> None:
    """Reject merges that double the tokens' length again and again, before building any."""
    sizes, total = [1] * 256, 256
    for one, two in merges:
        sizes.append(sizes[one] + sizes[two])
        total += sizes[-1]
        if total > _MAX_TOKEN_BYTES:
            raise error(
                str(path),
                expected=f"tokens of at most {_MAX_TOKEN_BYTES} bytes in total",
                got=f"token {len(sizes) - 1} of {sizes[-1]} bytes",
                fix="download or save the file again, or pass another",
            )


def _check_token(token: Any, size: int) -> int:
    index = int(token)
    if 0 <= index < size:
        return index
    raise error(
        "tokens",
        expected=f"integers from 0 to {size - 1}",
        got=str(index),
        fix="decode with the tokenizer that you encoded with",
    )


def _check_not_empty(text: str) -> None:
    if not text:
        raise error("text", expected="some text", got="an empty text", fix="check the file")


def _check_utf8(text: str, what: str) -> None:
    """Raise `InputError` for half a pair of surrogates, which bad decoding or JSON may leave."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as bad:
        raise error(
            what,
            expected="text that UTF-8 can hold",
            got=f"a lone surrogate, {text[bad.start]!r}, at character {bad.start}",
            fix='replace it: text.encode("utf-8", "replace").decode("utf-8")',
        ) from None


def _write(path: str | Path, content: dict[str, Any]) -> None:
    user_path(path).write_text(json.dumps(content) + "\n", encoding="utf-8")
