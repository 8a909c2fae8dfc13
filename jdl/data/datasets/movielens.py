"""Ratings of items by users: MovieLens files, and synthetic ratings with known noise."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import InputError, check_range, error
from jdl.core.paths import user_path
from jdl.data.arrays import to_float32
from jdl.data.datasets.build import rows
from jdl.data.prepare import split
from jdl.data.readers.binary import read_lines, read_number
from jdl.data.readers.csv import read_rows
from jdl.data.records import Data

PARTS = (0.7, 0.1, 0.2)


class Ratings(NamedTuple):
    """User, item and rating of each entry, as arrays (n,); users and items as named in the file.

    >>> ratings = Ratings(np.array(["ann", "bob"]), np.array(["m1", "m1"]), np.array([4.0, 2.5]))
    >>> ratings.rating.mean().item()
    3.25
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray


def load_movielens(path: str | Path, *, parts: Sequence[float] = PARTS, seed: int = 0) -> Data:
    r"""Load a MovieLens file (Harper and Konstan 2015), split at random by rating.

    Reads `ratings.csv` (commas, quotes as in RFC 4180), `u.data` (tabs) and `ratings.dat` (`::`).
    A first line without a number is a header. `x` int32 (n, 2) numbers the users and items of the
    training split from 1; others are 0, and `info["unknown"]` counts them per split. `y` is float32
    (n, 1), with its mean over the training split in `info["mean"]`. `info["repeated"]` counts
    ratings whose user had rated the item before; they are kept.

    Raises `InputError`, naming file and line, for a missing or empty file, an unknown format, a
    header in which the rating is not third, a line with too few fields, and a rating that is not a
    finite number.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "u.data"
    >>> _ = path.write_text("".join(f"{i % 4}\t{i}\t{i % 5 + 1}\t0\n" for i in range(10)))
    >>> data = load_movielens(path)
    >>> data.train["x"].shape, data.train["y"].shape
    ((7, 2), (7, 1))
    """
    ratings = read_ratings(path)
    about = {"name": Path(path).stem, "source": str(path), "seed": seed}
    return split_ratings(ratings, parts=parts, seed=seed, about=about)


def read_ratings(path: str | Path) -> Ratings:
    """Read a MovieLens file without splitting it; every array has shape (n,).

    Raises `InputError` as `load_movielens` does.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ratings.dat"
    >>> _ = path.write_text("1::1193::5::978300760")
    >>> read_ratings(path).rating
    array([5.], dtype=float32)
    """
    path = user_path(path)
    lines = read_lines(path, "a text file of ratings: ratings.csv, u.data or ratings.dat")
    first = next((line for line in lines if line.strip()), "")
    unquoted = re.sub('"[^"]*"', "", first)
    separator = next((mark for mark in ("::", "\t", ",") if mark in unquoted), None)
    if separator is None:
        raise _wrong(
            path, 1, "user, item, rating separated by ',', tabs or '::'", first or "nothing"
        )
    entries = []
    for place, (number, fields) in enumerate(_rows(path, lines, separator)):
        user, item, rating = (*fields, "", "", "")[:3]
        value = read_number(rating)
        if place == 0 and all(fields[:3]) and not any(map(_is_number, fields[:3])):
            _check_header(path, number, fields)
            continue
        if not (user and item and rating):
            raise _wrong(path, number, "user, item and rating", separator.join(fields))
        if value is None:
            raise _wrong(path, number, "a finite number as the rating", rating)
        entries.append((user, item, value))
    if not entries:
        raise _wrong(path, len(lines), "at least one rating", "none")
    users, items, ratings = zip(*entries, strict=True)
    return Ratings(np.array(users), np.array(items), np.array(ratings, np.float32))


def split_ratings(
    ratings: Ratings,
    *,
    parts: Sequence[float] = PARTS,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> Data:
    """Split ratings (n,) at random, and number users and items by the training split.

    `about` is added to `info`; see `load_movielens` for the arrays. Raises `InputError` for parts
    that `split.random` rejects, and for a rating that float32 cannot hold.

    >>> user, item = np.divmod(np.arange(10), 2)
    >>> data = split_ratings(Ratings(user, item, np.ones(10)))
    >>> data.info["sizes"], data.test()["x"].shape
    ({'train': 7, 'valid': 1, 'test': 2}, (2, 2))
    """
    user, item, rating = (np.asarray(values) for values in ratings)
    train, valid, test = split.random(len(rating), parts, seed)
    index = {"train": train, "valid": valid, "test": test}
    names = {"user": np.unique(user[train]), "item": np.unique(item[train])}
    codes = {"user": _codes(user, names["user"]), "item": _codes(item, names["item"])}
    y = to_float32(rating, "rating")[:, None]
    whole = {"x": np.stack([codes["user"], codes["item"]], 1), "y": y}
    pairs = np.stack([np.unique(v, return_inverse=True)[1] for v in (user, item)], 1)
    info = {
        **(about or {"name": "ratings", "seed": seed}),
        "classes": None,
        "shape": (2,),
        "sizes": {name: len(indices) for name, indices in index.items()},
        "scaler": None,
        "users": len(names["user"]),
        "items": len(names["item"]),
        "names": names,
        "mean": float(y[train].mean(dtype=np.float64)),
        "unknown": {
            name: {kind: int((values[indices] == 0).sum()) for kind, values in codes.items()}
            for name, indices in index.items()
        },
        "repeated": len(pairs) - len(np.unique(pairs, axis=0)),
    }
    return Data(rows(whole, train), rows(whole, valid), lambda: rows(whole, test), info)


def synthetic_ratings(
    n: int = 200_000,
    *,
    users: int = 1_000,
    items: int = 500,
    rank: int = 3,
    noise: float = 0.5,
    seed: int = 0,
) -> Data:
    r"""Ratings $r_{ui} = \mu + b_u + b_i + p_u \cdot q_i + \epsilon$ of n different pairs.

    The biases have standard deviation 0.4, the products of the `rank` factors 0.8, and $\epsilon$
    has `noise`, a lower bound for the RMSE of any model on many new ratings. `info["noise"]` is
    that value, and `info["floor"]` the root mean square of $\epsilon$ in the test split. Raises
    `InputError` for n outside [10, users * items] and rank below 1.

    >>> synthetic_ratings(1_000, users=50, items=40).info["sizes"]
    {'train': 700, 'valid': 100, 'test': 200}
    """
    check_range("n", n, 10, users * items)
    check_range("rank", rank, 1)
    rng = np.random.default_rng(seed)
    biases = rng.normal(0, 0.4, users), rng.normal(0, 0.4, items)
    factors = [rng.normal(0, np.sqrt(0.8 / np.sqrt(rank)), (m, rank)) for m in (users, items)]
    user, item = np.divmod(rng.choice(users * items, n, replace=False), items)
    mean = 3.5 + biases[0][user] + biases[1][item] + (factors[0][user] * factors[1][item]).sum(1)
    epsilon = rng.normal(0, noise, n)
    about = {"name": "low-rank ratings", "source": "generated", "seed": seed, "noise": noise}
    data = split_ratings(Ratings(user, item, mean + epsilon), parts=PARTS, seed=seed, about=about)
    test_epsilon = epsilon[split.random(n, PARTS, seed)[2]]
    floor = float(np.sqrt(np.square(test_epsilon).mean()))
    return data._replace(info={**data.info, "rank": rank, "floor": floor})


def _codes(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """1, 2, ... by position among the sorted known values; 0 for others."""
    place = np.searchsorted(known, values).clip(0, len(known) - 1)
    return np.where(known[place] == values, place + 1, 0).astype(np.int32)


def _rows(path: Path, lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not empty, with its number."""
    if separator == ",":
        rows = read_rows(csv.reader((line + "\n" for line in lines), strict=True), path)
    else:
        rows = enumerate((line.split(separator) for line in lines), start=1)
    for number, fields in rows:
        fields = [field.strip() for field in fields]
        if any(fields):
            yield number, fields


def _check_header(path: Path, number: int, names: list[str]) -> None:
    names = [name.lower() for name in names]
    if "rating" in names and names.index("rating") != 2:
        raise _wrong(path, number, "user, item and rating, in this order", ",".join(names))


def _is_number(text: str) -> bool:
    """Whether a text is meant as a number: nan and infinity, too."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong(path: Path, line: int, expected: str, got: str) -> InputError:
    shown = got if len(got) <= 60 else f"{got[:57]}..."
    return error(
        f"{path}, line {line}",
        expected=expected,
        got=repr(shown),
        fix="correct the line, or download the file again",
    )
