"""The inputs of `jdl predict`: shapes, channels, scaling."""

import numpy as np
import pytest
from PIL import Image

from jdl.cli.inputs import describe_scaler, example_shape, read_inputs
from jdl.core.errors import InputError
from jdl.data.feed import Feed
from jdl.data.records import Data

RED = (220, 20, 60)
LUMA = round(0.299 * 220 + 0.587 * 20 + 0.114 * 60)


@pytest.fixture
def image(tmp_path):
    def save(mode, size=(4, 4)):
        path = tmp_path / f"{mode}.png"
        new = Image.new("RGB", size, RED)
        (new.quantize(2) if mode == "P" else new.convert(mode)).save(path)
        return path

    return save


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_image_has_the_channels_of_the_training_data(image, mode):
    coloured = read_inputs(image(mode), {"shape": (4, 4, 3)})
    np.testing.assert_allclose(coloured, np.full((1, 4, 4, 3), RED), atol=1)
    grey = read_inputs(image(mode), {"shape": (4, 4, 1)})
    np.testing.assert_allclose(grey, np.full((1, 4, 4, 1), LUMA), atol=1)
    flat = read_inputs(image(mode), {"shape": (48,)})
    np.testing.assert_allclose(flat, np.full((1, 16, 3), RED).reshape(1, 48), atol=1)


def test_a_grey_image_fits_a_model_of_colour_images(image):
    found = read_inputs(image("L"), {}, (4, 4, 3))
    np.testing.assert_allclose(found, np.full((1, 4, 4, 3), LUMA), atol=1)


def test_an_image_of_other_sides_is_not_reshaped(image):
    with pytest.raises(InputError, match=r"shape \(4, 4, 3\)"):
        read_inputs(image("RGB", (2, 8)), {"shape": (4, 4, 3)})
    with pytest.raises(InputError, match="1, 3 or 4 channels"):
        read_inputs(image("RGB"), {"shape": (4, 4, 7)})


@pytest.mark.parametrize(
    "given, shape, fits",
    [
        ((5, 4, 4), (4, 4, 1), True),
        ((4, 4), (4, 4, 1), True),
        ((5, 16), (4, 4, 1), True),
        ((5, 4, 4, 1), (16,), True),
        ((16,), (4, 4), True),
        ((5, 2, 8), (4, 4), False),
        ((2, 8), (4, 4), False),
    ],
)
def test_arrays_are_reshaped_only_from_flat_ones(tmp_path, given, shape, fits):
    np.save(tmp_path / "x.npy", np.ones(given))
    if fits:
        assert read_inputs(tmp_path / "x.npy", {"shape": shape}).shape[1:] == shape
    else:
        with pytest.raises(InputError, match="examples of shape"):
            read_inputs(tmp_path / "x.npy", {"shape": shape})


def test_the_shape_comes_from_the_data_of_the_experiment():
    arrays = {"x": np.zeros((6, 4, 4, 3), np.float32)}
    for data in (arrays, Feed(arrays, 2), Data(arrays, {}, dict, {})):
        assert example_shape(data) == (4, 4, 3)
    assert example_shape([{"x": np.zeros(3)}]) is None


def test_what_is_done_to_raw_values_is_stated():
    assert "divided by 255" in describe_scaler({"divisor": 255.0})
    assert "standardized" in describe_scaler({"mean": 0, "std": 1})
    assert "minimum" in describe_scaler({"low": 0, "high": 1})
    assert "as they are" in describe_scaler({})


def test_rows_of_a_table_are_examples_however_many_numbers_it_has(tmp_path):
    """Two rows of two numbers are no example of four."""
    for text in ("1,2\n3,4\n", "1\n2\n3\n4\n"):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=r"examples of shape \(4,\)"):
            read_inputs(tmp_path / "x.csv", {"shape": (4,)})


@pytest.mark.parametrize("given", [(2, 3, 4, 4), (2, 3, 4), (2, 8), (2, 2)])
def test_other_axes_are_refused_where_the_count_fits(tmp_path, given):
    np.save(tmp_path / "x.npy", np.ones(given))
    for shape in ((4, 4, 3), (4, 3), (4, 4), (4,)):
        if np.prod(shape) in (np.prod(given), np.prod(given[1:])):
            with pytest.raises(InputError, match="examples of shape"):
                read_inputs(tmp_path / "x.npy", {"shape": shape})


@pytest.mark.parametrize(
    "text, rows",
    [
        ("\ufeff1,2\n3,4\n", [[1, 2], [3, 4]]),
        ('"1","2"\n3,4\n', [[1, 2], [3, 4]]),
        ("a,b\n3,4\n", [[3, 4]]),
        ('\ufeff"a, b",c\n3,4\n', [[3, 4]]),
    ],
)
def test_a_header_is_a_line_without_numbers(tmp_path, text, rows):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_inputs(tmp_path / "x.csv", {"shape": (2,)}), rows)


@pytest.mark.parametrize(
    "text, expected",
    [
        (",2\n3,4\n", "line 1\n  expected: 2 numbers"),
        ("NA,2\n3,4\n", "line 1\n  expected: 2 numbers"),
        ("0,1\n3,4\n", "names that pandas gives"),
        ("1;2\n3;4\n", "separated by commas"),
        ("a,b\n", "a header alone"),
        ("", "an empty file"),
    ],
)
def test_first_lines_that_are_neither_are_refused(tmp_path, text, expected):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_inputs(tmp_path / "x.csv", {"shape": (2,)})


def test_complex_and_empty_arrays_are_named(tmp_path):
    for array, got in ((np.ones((2, 4)) * 1j, "complex"), (np.ones((0, 4)), r"shape \(0, 4\)")):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(InputError, match=got):
            read_inputs(tmp_path / "x.npy", {"shape": (4,)})
