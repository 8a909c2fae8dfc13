"""Many small images as one picture."""

import numpy as np
import pytest

from jdl.run import mosaics
from tests.small import message

pytest.importorskip("matplotlib", reason="needs the extra report")

IMAGES = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5, 1) / 120


def test_every_image_stands_in_its_row_and_column():
    whole = mosaics.tiled(IMAGES)
    assert whole.shape == (2 * 6, 3 * 7)
    for row, column in np.ndindex(2, 3):
        tile = whole[6 * row : 6 * row + 6, 7 * column : 7 * column + 7]
        np.testing.assert_array_equal(tile[1:-1, 1:-1], IMAGES[row, column, ..., 0])
        assert tile[0].sum() == tile[:, 0].sum() == 0


def test_a_figure_names_its_rows_and_keeps_its_range():
    figure = mosaics.mosaic(IMAGES, "numbers", ["one", "two"])
    (axes,) = figure.axes
    assert axes.get_title() == "numbers"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.images[0].get_clim() == (0, 1)
    signed = mosaics.mosaic(IMAGES - 0.9, signed=True).axes[0].images[0]
    assert signed.get_clim() == (-0.9, 0.9)


def test_colour_images_and_missing_axes_are_refused():
    assert "(rows, columns, height, width, 1)" in message(lambda: mosaics.tiled(np.ones((4, 8, 8))))
