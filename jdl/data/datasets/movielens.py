"""Ratings of items by users: generated ones with a known noise, and MovieLens' files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdl.core.errors import InputError, check_range, error
from jdl.data.datasets.build import rows
from jdl.data.prepare import split
from jdl.data.readers.binary import read_lines
from jdl.data.records import Data

PARTS = (0.7, 0.1, 0.2)


class Ratings(NamedTuple):
    """One row for each rating, with the names that users and items have in the file."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray


def load_movielens(path: str | Path, *, parts: Sequence[float] = PARTS, seed: int = 0) -> Data:
    """A MovieLens file as Data, split by rating at random.

    Takes `ratings.csv` (a header, commas), `u.data` (tabs) and `ratings.dat` (`::`): user, item,
    rating, and what follows is left out. x int32 [n, 2] numbers the users and items of the
    training part from 1; one that only occurs elsewhere is 0, and `info["unknown"]` counts these
    in each part. y is float32 [n, 1]; `info["mean"]` is its mean over the training part,
    `info["repeated"]` the number of ratings whose user had rated the item before (they are kept).

    Raises `InputError`, naming file and line, for a missing or empty file, another format, a
    row of too few fields, and a rating that is no finite number.

    Format: F. M. Harper and J. A. Konstan, "The MovieLens Datasets", 2015.
    """
    found = read_ratings(path)
    about = {"name": Path(path).stem, "source": str(path), "seed": seed}
    return split_ratings(found, parts=parts, seed=seed, about=about)


def read_ratings(path: str | Path) -> Ratings:
    """The rows of a MovieLens file, as `load_movielens` takes them."""
    path = Path(path)
    lines = read_lines(path, "a text file of ratings: ratings.csv, u.data or ratings.dat")
    first = next((line for line in lines if line.strip()), "")
    separator = next((mark for mark in ("::", "\t", ",") if mark in first), None)
    if separator is None:
        raise _wrong(path, 1, "user, item, rating between ',', tabs or '::'", first or "nothing")
    found = []
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in line.split(separator)]
        is_header = line is first and [name.lower() for name in fields[2:3]] == ["rating"]
        if not line.strip() or is_header:
            continue
        if len(fields) < 3 or not all(fields[:3]):
            raise _wrong(path, number, "user, item and rating", line)
        if not _is_number(fields[2]):
            raise _wrong(path, number, "a finite number as the rating", fields[2])
        found.append((fields[0], fields[1], float(fields[2])))
    if not found:
        raise _wrong(path, len(lines), "at least one rating", "none")
    users, items, ratings = zip(*found, strict=True)
    return Ratings(np.array(users), np.array(items), np.array(ratings, np.float32))


def split_ratings(
    ratings: Ratings,
    *,
    parts: Sequence[float] = PARTS,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> Data:
    """Ratings split at random; users and items are numbered by the training part."""
    user, item, rating = (np.asarray(values) for values in ratings)
    train, valid, test = split.random(len(rating), parts, seed)
    index = {"train": train, "valid": valid, "test": test}
    names = {"user": np.unique(user[train]), "item": np.unique(item[train])}
    numbered = {"user": _numbers(user, names["user"]), "item": _numbers(item, names["item"])}
    y = rating.astype(np.float32)[:, None]
    whole = {"x": np.stack([numbered["user"], numbered["item"]], 1), "y": y}
    pairs = np.stack([np.unique(v, return_inverse=True)[1] for v in (user, item)], 1)
    info = {
        **(about or {"name": "ratings", "seed": seed}),
        "classes": None,
        "shape": (2,),
        "sizes": {name: len(which) for name, which in index.items()},
        "scaler": None,
        "users": len(names["user"]),
        "items": len(names["item"]),
        "names": names,
        "mean": float(y[train].mean(dtype=np.float64)),
        "unknown": {
            name: {kind: int((numbers[which] == 0).sum()) for kind, numbers in numbered.items()}
            for name, which in index.items()
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

    Biases have standard deviation 0.4, products of the `rank` factors 0.8, and $\epsilon$, which
    nobody can predict, `noise`: no model's RMSE on many new ratings is below it.
    `info["noise"]` says it; `info["floor"]` is the root mean square of the $\epsilon$ that the
    test part has drawn.

    >>> synthetic_ratings(1_000, users=50, items=40).info["sizes"]
    {'train': 700, 'valid': 100, 'test': 200}
    """
    check_range("n", n, 10, users * items)
    check_range("rank", rank, 1)
    rng = np.random.default_rng(seed)
    biases = rng.normal(0, 0.4, users), rng.normal(0, 0.4, items)
    factors = [rng.normal(0, np.sqrt(0.8 / np.sqrt(rank)), (m, rank)) for m in (users, items)]
    user, item = np.divmod(rng.choice(users * items, n, replace=False), items)
    known = 3.5 + biases[0][user] + biases[1][item] + (factors[0][user] * factors[1][item]).sum(1)
    drawn = rng.normal(0, noise, n)
    about = {"name": "low-rank ratings", "source": "generated", "seed": seed, "noise": noise}
    data = split_ratings(Ratings(user, item, known + drawn), parts=PARTS, seed=seed, about=about)
    held_out = drawn[split.random(n, PARTS, seed)[2]]
    floor = float(np.sqrt(np.square(held_out).mean()))
    return data._replace(info={**data.info, "rank": rank, "floor": floor})


def _numbers(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """1, 2, ... by the place among the known values, which are sorted; 0 for others."""
    place = np.searchsorted(known, values).clip(0, len(known) - 1)
    return np.where(known[place] == values, place + 1, 0).astype(np.int32)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _wrong(path: Path, line: int, expected: str, got: str) -> InputError:
    shown = got if len(got) <= 60 else f"{got[:57]}..."
    return error(
        f"{path}, line {line}",
        expected=expected,
        got=repr(shown),
        fix="mend the line, or fetch the file again",
    )
