"""Tokenizers: text to numbers and back.

A tokenizer has `size`, `encode(text) -> tokens` and `decode(tokens) -> text`. It is plain data:
`save` writes JSON and `load_tokenizer` reads it, executing nothing.
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
from jdl.data.prepare import baselines
from jdl.data.readers.text import read_text, split_text

_WORDS = re.compile(r" ?\w+| ?[^\w\s]+|\s+")
"""Pieces that no byte pair crosses; together they are the whole text."""

Pair = tuple[int, int]
_SPELLED = 2**26
"""Bytes that all tokens of a file may have together."""


@dataclass(frozen=True)
class CharacterTokenizer:
    """One token for each character of an alphabet, in its order. Made by `character_tokenizer`."""

    alphabet: str

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.alphabet)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.alphabet)}

    def encode(self, text: str) -> np.ndarray:
        """Tokens in the smallest unsigned type; raises for a character outside the alphabet."""
        try:
            numbers = [self._numbers[character] for character in text]
        except KeyError:
            strange = sorted(set(text) - set(self.alphabet))
            first = min(map(text.index, strange))
            raise error(
                "text to encode",
                expected=f"the {self.size} characters of the tokenizer",
                got=f"{len(strange)} others, the first {text[first]!r} at character {first}",
                fix="fit the tokenizer on text that has them, or use byte_pairs, which takes all",
            ) from None
        return np.array(numbers, np.min_scalar_type(max(self.size - 1, 0)))

    def decode(self, tokens: Iterable[Any]) -> str:
        """The text of the tokens."""
        return "".join(self.alphabet[_known(token, self.size)] for token in tokens)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        _write(path, {"kind": "characters", "alphabet": self.alphabet})


@dataclass(frozen=True)
class BytePairTokenizer:
    """Bytes, and pairs of tokens merged in the order of `merges` (Sennrich et al. 2016).

    Tokens 0 to 255 are the bytes of UTF-8, token 256 + i is the i-th pair. Every text can be
    encoded and comes back unchanged. Made by `byte_pair_tokenizer`.
    """

    merges: tuple[Pair, ...]

    @property
    def size(self) -> int:
        """Number of tokens."""
        return 256 + len(self.merges)

    @cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: 256 + rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _bytes(self) -> list[bytes]:
        spelled = [bytes([byte]) for byte in range(256)]
        for one, two in self.merges:
            spelled.append(spelled[one] + spelled[two])
        return spelled

    def encode(self, text: str) -> np.ndarray:
        """Tokens in the smallest unsigned type: in each word, the earliest pair merges first."""
        words = _WORDS.findall(text)
        known = {word: self._word(word) for word in set(words)}
        numbers = [number for word in words for number in known[word]]
        return np.array(numbers, np.min_scalar_type(self.size - 1))

    def decode(self, tokens: Iterable[Any]) -> str:
        """The text of the tokens; bytes that are no whole character become U+FFFD."""
        raw = b"".join(self._bytes[_known(token, self.size)] for token in tokens)
        return raw.decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        _write(path, {"kind": "byte_pairs", "merges": self.merges})

    def _word(self, word: str) -> tuple[int, ...]:
        tokens = tuple(word.encode("utf-8"))
        while len(tokens) > 1:
            pair = min(itertools.pairwise(tokens), key=lambda p: self._ranks.get(p, self.size))
            if pair not in self._ranks:
                break
            tokens = _merged(tokens, pair, self._ranks[pair])
        return tokens


def character_tokenizer(text: str) -> CharacterTokenizer:
    """The tokenizer of all characters in `text`, sorted.

    >>> tokenizer = character_tokenizer("hello")
    >>> tokenizer.alphabet, tokenizer.encode("hole").tolist()
    ('ehlo', [1, 3, 2, 0])
    """
    _refuse_empty(text)
    return CharacterTokenizer("".join(sorted(set(text))))


class Corpus(NamedTuple):
    """A text as tokens: the beginning to train on, the end to validate with."""

    tokenizer: CharacterTokenizer
    train: np.ndarray
    valid: np.ndarray

    def ngrams(self) -> dict[str, float]:
        """The validation loss of counting up to four characters: see `jdl.data.baselines`."""
        return baselines.ngram_losses(self.train, self.valid, self.tokenizer.size)


def character_corpus(source: str | Path | None = None) -> Corpus:
    """A text by its characters, the first 90 % for training and the rest for validation.

    `source` is a text file, or a folder that holds tinyshakespeare.txt; without it, the reference
    texts of Python's own help, for experiments that anybody can run.

    >>> help_texts = character_corpus()
    >>> len(help_texts.train) // len(help_texts.valid)
    8
    """
    if source is None:
        from pydoc_data.topics import topics

        whole = "\n".join(topics[name] for name in sorted(topics))
    else:
        path = Path(source)
        whole = read_text(path / "tinyshakespeare.txt" if path.is_dir() else path)
    tokenizer = character_tokenizer(whole)
    train, valid = map(tokenizer.encode, split_text(whole))
    return Corpus(tokenizer, train, valid)


def byte_pair_tokenizer(text: str, size: int) -> BytePairTokenizer:
    """Learn byte pairs from `text` until there are `size` tokens.

    Again and again the pair of neighbours that is most frequent within words becomes a token, of
    equally frequent ones the smallest. It ends early where every word is one token.

    >>> tokenizer = byte_pair_tokenizer("low lower lowest", size=258)
    >>> [tokenizer.decode([token]) for token in tokenizer.encode("lower")]
    ['low', 'e', 'r']
    """
    _refuse_empty(text)
    if size < 256:
        raise error(
            "size of a vocabulary",
            expected="at least 256, one token for each byte",
            got=str(size),
            fix="512 to 50,000 is usual; characters() makes smaller ones",
        )
    counts = collections.Counter(_WORDS.findall(text))
    words = [tuple(word.encode("utf-8")) for word in counts]
    often = list(counts.values())
    # How often each pair occurs, and in which words: a merge visits only these.
    total: collections.Counter[Pair] = collections.Counter()
    where: dict[Pair, set[int]] = collections.defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            total[pair] += often[index]
            where[pair].add(index)
    merges: list[Pair] = []
    while len(merges) < size - 256 and total:
        best = min(total, key=lambda pair: (-total[pair], pair))
        merges.append(best)
        for index in where[best]:
            for pair in itertools.pairwise(words[index]):
                total[pair] -= often[index]
            words[index] = _merged(words[index], best, 255 + len(merges))
            for pair in itertools.pairwise(words[index]):
                total[pair] += often[index]
                if pair != best:
                    where[pair].add(index)
        del where[best]
        total += collections.Counter()  # drops the pairs that occur no more
    return BytePairTokenizer(tuple(merges))


def load_tokenizer(path: str | Path) -> CharacterTokenizer | BytePairTokenizer:
    """The tokenizer that `save` wrote. Raises `InputError` for any other file."""
    wrong = error(
        str(path),
        expected='JSON with kind "characters" and an alphabet, or kind "byte_pairs" and merges',
        got="something else",
        fix="save the tokenizer again",
    )
    try:
        found = from_json(read_text(path))
    except ValueError as bad:
        if type(bad) is type(wrong):
            raise
        raise wrong from None
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind == "characters":
        alphabet = found.get("alphabet")
        if isinstance(alphabet, str) and 0 < len(set(alphabet)) == len(alphabet):
            return CharacterTokenizer(alphabet)
    merges = found.get("merges") if kind == "byte_pairs" else None
    if isinstance(merges, list) and all(map(_is_merge, range(len(merges)), merges)):
        _check_size(merges, path)
        return BytePairTokenizer(tuple((one, two) for one, two in merges))
    raise wrong


def _merged(tokens: tuple[int, ...], pair: Pair, number: int) -> tuple[int, ...]:
    """The tokens with every occurrence of the pair, from the left, replaced by one number."""
    result, place = [], 0
    while place < len(tokens):
        found = tokens[place : place + 2] == pair
        result.append(number if found else tokens[place])
        place += 2 if found else 1
    return tuple(result)


def _is_merge(rank: int, pair: Any) -> bool:
    """Whether it is two tokens that exist before this one."""
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(token) is int and 0 <= token < 256 + rank for token in pair)
    )


def _check_size(merges: list[Pair], path: str | Path) -> None:
    """Refuse tokens that double and double again, before any of them is spelled."""
    sizes, total = [1] * 256, 256
    for one, two in merges:
        sizes.append(sizes[one] + sizes[two])
        total += sizes[-1]
        if total > _SPELLED:
            raise error(
                str(path),
                expected=f"tokens of at most {_SPELLED} bytes together",
                got=f"a token {len(sizes) - 1} that has {sizes[-1]}",
                fix="fetch or write the file again, or name another",
            )


def _known(token: Any, size: int) -> int:
    number = int(token)
    if 0 <= number < size:
        return number
    raise error(
        "tokens",
        expected=f"numbers from 0 to {size - 1}",
        got=str(number),
        fix="decode with the tokenizer that they were encoded with",
    )


def _refuse_empty(text: str) -> None:
    if not text:
        raise error("text", expected="some text", got="an empty one", fix="check the file")


def _write(path: str | Path, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(content) + "\n", encoding="utf-8")
