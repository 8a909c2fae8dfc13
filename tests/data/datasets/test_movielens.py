"""Ratings: MovieLens' three forms, numbering, counts, errors by line, the generator's noise."""

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import movielens
from jdl.data.datasets.movielens import Ratings

ROWS = [("7", "31", 2.5), ("7", "1029", 3.0), ("9", "31", 4.0), ("12", "50", 5.0)]
FORMS = {
    "ratings.csv": "userId,movieId,rating,timestamp\r\n"
    + "".join(f"{u},{i},{r},1260759144\r\n" for u, i, r in ROWS),
    "u.data": "".join(f"{u}\t{i}\t{r}\t881250949\n" for u, i, r in ROWS),
    "ratings.dat": "".join(f"{u}::{i}::{r}::978300760\n" for u, i, r in ROWS) + "\n",
    "quoted.csv": '"user","item","stars"\n' + "".join(f'"{u}","{i}","{r}"\n' for u, i, r in ROWS),
    "plain.csv": "\ufeff" + "".join(f"{u},{i},{r}\n" for u, i, r in ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    found = movielens.read_ratings(tmp_path / name)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == ROWS


def test_a_name_may_hold_what_separates(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('"a,b","c::d ""e""",3.5\nf,"g",4\n')
    found = movielens.read_ratings(path)
    assert found.user.tolist() == ["a,b", "f"] and found.item.tolist() == ['c::d "e"', "g"]
    assert found.rating.tolist() == [3.5, 4]


def test_data_of_a_file(tmp_path):
    path = tmp_path / "u.data"
    rng = np.random.default_rng(0)
    user, item = rng.integers(100, 120, 300), rng.integers(1, 200, 300)
    stars = rng.integers(1, 6, 300)
    path.write_text(
        "".join(f"{u}\t{i}\t{s}\t0\n" for u, i, s in zip(user, item, stars, strict=True))
    )
    data = movielens.load_movielens(path, seed=3)
    parts = {"train": data.train, "valid": data.valid, "test": data.test()}
    assert data.info["sizes"] == {"train": 210, "valid": 30, "test": 60}
    names = data.info["names"]
    seen = sorted(
        (names["user"][u - 1] if u else "?", names["item"][i - 1] if i else "?", r)
        for part in parts.values()
        for (u, i), [r] in zip(part["x"], part["y"], strict=True)
    )
    known = {"user": set(names["user"]), "item": set(names["item"])}
    expected = sorted(
        (str(u) if str(u) in known["user"] else "?", str(i) if str(i) in known["item"] else "?", r)
        for u, i, r in zip(user, item, stars, strict=True)
    )
    assert seen == expected
    assert data.train["x"].min() == 1 and data.train["x"].max(0).tolist() == [
        data.info["users"],
        data.info["items"],
    ]
    for name, part in parts.items():
        counted = {"user": (part["x"][:, 0] == 0).sum(), "item": (part["x"][:, 1] == 0).sum()}
        assert data.info["unknown"][name] == counted
    assert data.info["unknown"]["test"]["item"] > 0 == data.info["unknown"]["train"]["item"]
    pairs = set(zip(user.tolist(), item.tolist(), strict=True))
    assert data.info["repeated"] == 300 - len(pairs) > 0
    assert data.info["mean"] == pytest.approx(data.train["y"].mean())


def test_only_the_training_part_numbers_users():
    given = Ratings(np.arange(10), np.zeros(10, int), np.ones(10))
    data = movielens.split_ratings(given)
    assert data.info["users"] == 7 and data.info["items"] == 1
    assert data.test()["x"].tolist() == [[0, 1], [0, 1]]
    assert data.info["unknown"]["test"] == {"user": 2, "item": 0}
    with pytest.raises(InputError, match=r"rating\n.*fit in float32"):
        movielens.split_ratings(given._replace(rating=np.full(10, 1e39)))


BAD = {
    "one field": ("1\n", "line 1.*user, item, rating separated by"),
    "empty": ("", "line 1.*nothing"),
    "a header alone": ("userId,movieId,rating,timestamp\n", "line 1.*at least one rating"),
    "too short": ("1,2,3.0,9\n1,2\n", "line 2.*user, item and rating.*'1,2'"),
    "a name missing": ("1,2,3.0,9\n\n1,,3.0,9\n", "line 3.*user, item and rating"),
    "a word": ("1,2,3.0,9\n1,2,good,9\n", "line 2.*a finite number.*'good'"),
    "a word at first": ("1,2,good,9\n", "line 1.*a finite number.*'good'"),
    "too large": ("1,2,3.0\n1,2,1e39\n", "line 2.*a finite number.*'1e39'"),
    "underscored": ("1,2,1_0\n", "line 1.*a finite number.*'1_0'"),
    "another order": ("rating,user,item\n3,1,2\n", "line 1.*in this order.*'rating,user,item'"),
    "open quotes": ('1,2,3\n1,"2,3\n', "line 2.*RFC 4180"),
    "not finite": ("1::2::nan::9\n", "line 1.*a finite number.*'nan'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_named(tmp_path, name):
    content, words = BAD[name]
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(InputError, match=f"(?s)r.csv, {words}"):
        movielens.load_movielens(tmp_path / "r.csv")


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"(?s)no.csv.*no such file"):
        movielens.load_movielens(tmp_path / "no.csv")
    (tmp_path / "b.dat").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"(?s)b.dat.*a text file.*decode"):
        movielens.load_movielens(tmp_path / "b.dat")


def test_generated_ratings_are_low_rank_with_the_noise_they_say():
    data = movielens.synthetic_ratings(20_000, users=200, items=150, rank=2, noise=0.3, seed=1)
    assert data.info["users"] == 200 and data.info["items"] == 150
    assert data.info["floor"] == pytest.approx(0.3, rel=0.03) and data.info["noise"] == 0.3
    quiet = movielens.synthetic_ratings(30_000, users=200, items=150, rank=2, noise=0.0)
    parts = [quiet.train, quiet.valid, quiet.test()]
    x, y = (np.concatenate([part[name] for part in parts]) for name in ("x", "y"))
    table = np.full((200, 150), np.nan)
    table[tuple((x - 1).T)] = y[:, 0]
    assert not np.isnan(table).any() and quiet.info["repeated"] == 0
    centred = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    values = np.linalg.svd(centred, compute_uv=False)
    assert values[1] > 10 and values[2] < 1e-3
    assert np.std(centred) == pytest.approx(0.8, rel=0.25)
    with pytest.raises(InputError, match="a number from 10 to 6"):
        movielens.synthetic_ratings(601, users=20, items=30)
