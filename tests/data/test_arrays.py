"""Checks and the one visible cast."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data.arrays import as_arrays, check_arrays


def test_64_bits_are_cast_with_one_line(caplog):
    with caplog.at_level(logging.WARNING, logger="jdl"):
        arrays = as_arrays({"x": np.ones((2, 3)), "y": np.array([0, 1]), "z": np.ones(2, np.int8)})
    assert [arrays[key].dtype.name for key in "xyz"] == ["float32", "int32", "int8"]
    assert len(caplog.records) == 1
    assert "x float64 -> float32, y int64 -> int32" in caplog.text


def test_the_line_shows_without_any_logging_set_up(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    as_arrays({"x": np.ones(2)})
    assert "float64 -> float32" in capsys.readouterr().err


def test_no_line_and_no_copy_where_nothing_changes(caplog):
    x = np.ones((2, 3), np.float32)
    assert as_arrays({"x": x})["x"] is x
    assert not caplog.records


def test_x64_keeps_64_bits(x64):
    assert as_arrays({"x": np.ones(2)})["x"].dtype == np.float64


def test_jax_arrays_and_bfloat16_pass():
    check_arrays({"x": jnp.ones((2, 2), jnp.bfloat16), "y": jnp.zeros(2, int), "m": [True, False]})


def test_large_finite_numbers_are_not_taken_for_infinite():
    check_arrays({"x": np.full((4, 4), 3e38, np.float32)})


def test_padding_may_hold_anything():
    x = np.ones((2, 3, 4), np.float32)
    x[0, 2], x[1, 1:] = np.nan, np.inf
    check_arrays({"x": x, "lengths": np.array([2, 1])})
    with pytest.raises(InputError, match=r"4 of 24 not finite, the first nan at index \[0, 2, 0\]"):
        check_arrays({"x": x, "lengths": np.array([3, 1])})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": [[1.0, np.nan], [np.inf, 0]]}, ['"x"', "2 of 4", "first nan at index [0, 1]"]),
        ({"x": np.array([["a"]])}, ["an array of numbers", "<U1", "np.unique"]),
        ({"x": np.array([None, 1.0])}, ["an array of numbers", "object"]),
        ({"x": [[1.0], [1.0, 2.0]]}, ["nested lists of unequal lengths"]),
        ({"x": np.float32(3)}, ["a scalar"]),
        ({"x": np.zeros((0, 2))}, ["at least one example"]),
        ({"x": np.zeros(2), "y": np.zeros(3)}, ["x 2, y 3"]),
        ({"x": np.array([1, 2**40])}, ["values that fit in int32", "1099511627776 at index [1]"]),
        ({"x": np.array([1.0, 1e300])}, ["values that fit in float32", "1e+300"]),
        ({"x": np.zeros(3), "y": np.array([0, 3, -1])}, ["from 0 to 2", "2 out of range", "[1]"]),
        (np.zeros(3), ["a dict of arrays", "ndarray"]),
    ],
)
def test_errors(data, words):
    with pytest.raises(InputError) as caught:
        check_arrays(data, classes=3)
    for word in words:
        assert word in str(caught.value)
