"""CSV files: typed columns, and what is refused, with file and line."""

import csv as python_csv

import numpy as np
import pytest

import jdl
from jdl.core.errors import InputError
from jdl.data import csv, encode

GOOD = "name, size,count,new\nann,1.5,3,yes\n\nbob,,-4,False\n'q,2e3,0,1\n"
TYPES = {"name": str, "size": float, "count": int, "new": bool}


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "table.csv"

    def call(content, types=TYPES, **more):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return csv.read_csv(path, types, **more)

    return call


def test_columns_have_their_types(read):
    table = read(GOOD)
    assert table["name"].tolist() == ["ann", "bob", "'q"]
    np.testing.assert_array_equal(table["size"], [1.5, np.nan, 2000])
    assert table["count"].dtype == np.int64 and table["count"].tolist() == [3, -4, 0]
    assert table["new"].dtype == bool and table["new"].tolist() == [True, False, True]


def test_quotes_marks_and_other_delimiters(read):
    table = read('\ufeffa;b\r\n"1;\n2";x\r\n', str, delimiter=";")
    assert table["a"].tolist() == ["1;\n2"] and table["b"].tolist() == ["x"]


def test_only_the_columns_asked_for_are_read(read):
    assert list(read("a,b\n1,word\n", {"a": float})) == ["a"]


def test_a_table_becomes_data(read):
    rows = "".join(f"{i}.5,{i * i},{'ab'[i % 2]}\n" for i in range(20))
    table = read("x1,x2,kind\n" + rows, {"x1": float, "x2": int, "kind": str})
    y = encode.labels.apply(encode.labels.fit(table["kind"]), table["kind"])
    data = jdl.data.from_arrays(csv.stack_columns(table, ["x1", "x2"]), y)
    assert data.info["classes"] == 2 and data.train["x"].shape == (14, 2)


def test_an_empty_line_of_one_column_is_a_missing_value(read):
    np.testing.assert_array_equal(
        read("\na\n1.5\n\n2.5\n\n", float)["a"], [1.5, np.nan, 2.5, np.nan]
    )
    assert read('a\r\nx\r\n\r\n""', str)["a"].tolist() == ["x", "", ""]
    with pytest.raises(InputError, match=r"line 3\n.*a whole number.*\n.*an empty cell"):
        read("a\n1\n\n2\n", int)


@pytest.mark.timeout(20)  # with a search for each name it takes minutes
def test_many_columns_are_read_in_a_moment(read):
    names = [f"gene{i}" for i in range(10_000)]
    row = ",".join(["1"] * len(names)) + "\n"
    table = read(",".join(names) + "\n" + row * 30, float)
    assert len(table) == 10_000 and table["gene9999"].tolist() == [1.0] * 30


def test_one_long_text_does_not_widen_thousands(read):
    rows = "a,b\n" + "x,1\n" * 20_000 + "y" * 50_000 + ",1\n"
    assert len(read(rows, {"b": int})["b"]) == 20_001  # what the message suggests
    with pytest.raises(InputError) as caught:
        read(rows, str)
    for word in ('column "a"', "50,000 characters in row 20001", "types={...}"):
        assert word in str(caught.value)
    assert len(read("a\n" + "x" * 50_000 + "\n" + "y" * 40_000, str)["a"]) == 2


def test_a_cell_above_the_limit_of_python(read):
    content = "a\n" + "x" * 140_000 + "\n"
    with pytest.raises(InputError, match=r"line 2\n.*131,072 characters.*\n.*a longer one"):
        read(content, str)
    before = python_csv.field_size_limit(2**24)  # what the message suggests
    try:
        assert len(read(content, str)["a"][0]) == 140_000
    finally:
        python_csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD + "eve,1,1\n", ["line 6", "4 cells", "got:      3"]),
        (GOOD + "eve,1,1,1,1\n", ["line 6", "4 cells", "got:      5"]),
        (GOOD + "eve,tall,1,1\n", ["line 6", 'a number in column "size"', '"tall"']),
        (GOOD + "eve,1,1.5,1\n", ["line 6", 'a whole number in column "count"', '"1.5"']),
        (GOOD + "eve,1,,1\n", ["line 6", "an empty cell"]),
        (GOOD + "eve,1,1_000,1\n", ["line 6", '"1_000"']),
        (GOOD + "eve,1,1,maybe\n", ["line 6", 'true or false in column "new"']),
        (GOOD + 'eve,"1,1,1\n', ["line 6", "quoted"]),
        ('name,size,count,new\n"a\nb",1,2,0\nc,x,1,1\n', ["line 4", '"x"']),
        (GOOD + "eve,1,99999999999999999999,1\n", ['column "count"', "64 bits"]),
        (GOOD + "eve,1e400,1,1\n", ["line 6", 'in column "size"', "1e400"]),
        ("name,size,count,count\n", ["line 1", '"count"']),
        ("name,size,,new\n", ["line 1", "no name"]),
        ("name,sise,count,new\n", ['column "size"', 'did you mean "sise"']),
        ("name,size,count,new\n", ["at least one row"]),
        ("", ["an empty file"]),
        (b"name,size\n\xff\xfe,1\n", ["UTF-8"]),
    ],
)
def test_bad_files_are_refused_with_file_and_line(read, content, words):
    with pytest.raises(InputError) as caught:
        read(content)
    for word in ["table.csv", *words]:
        assert word in str(caught.value)


def test_bad_requests(read, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        csv.read_csv(tmp_path / "none.csv", float)
    with pytest.raises(InputError, match="int, float, bool or str"):
        read(GOOD, {"size": complex})
    with pytest.raises(InputError, match="encode it first"):
        csv.stack_columns(read(GOOD), ["size", "name"])
    with pytest.raises(InputError, match=r'column "b"\n.*fit in float32\n.*-1e\+39 at index \[1'):
        csv.stack_columns({"a": np.ones(2), "b": np.array([np.inf, -1e39])}, ["a", "b"])
    for delimiter in ("||", "", '"', "\n", None):
        with pytest.raises(InputError, match=r"delimiter\n.*one character"):
            read(GOOD, delimiter=delimiter)
    with pytest.raises(InputError, match='did you mean "size"'):
        csv.stack_columns(read(GOOD), ["sice"])
