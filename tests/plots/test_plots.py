"""Panels show the numbers that they are given, and figures lay them out."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra report")

from matplotlib import rc_context, rcParams

from jdl import plots as draw
from jdl.plots import grids, training
from tests.support.learners import message

IMAGES = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5, 1) / 120
X = np.arange(5)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(training, "DPI", 30)


def only(panel):
    """The axes of a figure of one panel."""
    (axes,) = draw.figure(panel).axes
    return axes


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# Figures


def test_panels_stand_in_rows_and_the_rest_stays_empty():
    line = draw.lines({"a": (X, X)}, "first", "x", "y")
    figure = draw.figure(line, draw.text_panel("b"), line, columns=2, title="whole")
    assert [axes.get_title("left") for axes in figure.axes] == ["first", "", "first"]
    assert figure.get_suptitle() == "whole" and figure.axes[0].get_xlabel() == "x"
    assert figure.get_size_inches()[0] == line.width + 1.0 or figure.get_size_inches()[0] == 6.0
    assert "at least one panel" in message(draw.figure)


def test_the_users_style_neither_enters_nor_changes():
    panel = draw.overlay(draw.lines({"a": (X, X)}), draw.horizontal_lines({"b": 2.0}))
    plain = draw.png(draw.figure(panel))
    with rc_context({"axes.facecolor": "black", "lines.linewidth": 9, "axes.grid": False}):
        before = dict(rcParams)
        assert draw.png(draw.figure(panel)) == plain
        assert dict(rcParams) == before


def test_every_public_panel_and_figure_is_named():
    assert sorted(draw.__all__) == draw.__all__ or set(draw.__all__) <= set(dir(draw))


# Over x


def test_an_overlay_has_all_curves_and_one_legend():
    axes = only(
        draw.overlay(
            draw.lines({"up": (X, X**2), "_hidden": (X, -X)}, "t"),
            draw.horizontal_lines({"five": 5.0}),
            draw.shaded_spans({"late": (3, 4)}),
            draw.band(X, X - 1, X + 1, "between"),
            ylim=(-9, 20),
        )
    )
    assert legend(axes) == ["up", "five", "late", "between"]
    assert axes.get_lines()[0].get_ydata().tolist() == (X**2).tolist()
    assert axes.get_ylim() == (-9, 20) and axes.get_title("left") == "t"


def test_several_columns_are_curves_of_one_colour():
    axes = only(draw.lines({"members": (X, np.stack([X, 2 * X], 1))}, written="{:.1f}"))
    assert len({line.get_color() for line in axes.get_lines()}) == 1
    assert legend(axes) == ["members"]
    assert [text.get_text() for text in axes.texts] == ["0.0", "1.0", "2.0", "3.0", "4.0"]


def test_the_log_of_a_run_gives_a_curve_for_each_split():
    rows = [{"split": s, "step": i, "loss": i / 2} for i in (1, 2) for s in ("train", "valid")]
    rows.append({"split": "test", "step": 3})
    at, values = draw.logged_curve(rows, "loss", split="valid")
    assert (at.tolist(), values.tolist()) == ([1, 2], [0.5, 1.0])
    assert legend(only(draw.history(rows))) == ["train", "valid"]
    assert legend(only(draw.history(rows[::2][:2]))) == ["train"]


def test_bars_and_histograms():
    axes = only(draw.bars([3, 1], "t", places=[5, 7]))
    assert [(bar.get_center()[0], bar.get_height()) for bar in axes.patches] == [(5, 3), (7, 1)]
    axes = only(draw.histogram(np.linspace(-1, 1, 100), normal=0.5, bins=10))
    area = sum(bar.get_height() * bar.get_width() for bar in axes.patches)
    np.testing.assert_allclose(area, 1)
    curve = axes.get_lines()[0]
    np.testing.assert_allclose(np.trapezoid(curve.get_ydata(), curve.get_xdata()), 1, rtol=1e-3)


# Points


def test_points_are_coloured_by_class():
    points = np.random.default_rng(0).normal(size=(20, 2))
    figure = draw.figure(draw.scatter(points, classes=np.arange(20) % 3))
    assert len(figure.axes) == 2 and figure.axes[1].get_ylabel() == "class"
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), points)
    whole = draw.overlay(draw.plane(2.0), draw.scatter(points, faint=True))
    assert only(whole).get_xlim() == (-2, 2) and whole.width == draw.plane(2.0).width


@pytest.mark.parametrize("n", [50, 3_000])
def test_many_predictions_are_drawn_as_their_density(n):
    truth = np.linspace(0, 1, n)
    figure = draw.figure(draw.predicted_vs_true(truth, truth / 2))
    assert len(figure.axes) == (1 if n == 50 else 2)
    assert legend(figure.axes[0]) == ["equal"]


def test_a_spread_has_a_row_for_each_name():
    rows = {"none": {"loss": [1.0, 3.0], "zeros": [0, 0]}, "l2": {"loss": [0.5], "zeros": [1]}}
    figure = draw.strips(rows, compared="none")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "l2"]
    means = [line.get_xdata()[0] for line in axes.get_lines()[1::2]]
    assert means == [2.0, 0.5] and len(figure.axes) == 2
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    np.testing.assert_allclose((band.x0, band.x1), (1, 3))


def test_features_lie_on_their_main_axes():
    features = np.random.default_rng(0).normal(size=(30, 4)) * [3.0, 1.0, 0.1, 0.1]
    axes = draw.figure(draw.embedding(features, np.zeros(30, int))).axes[0]
    places = np.asarray(axes.collections[0].get_offsets())
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))[::-1]
    np.testing.assert_allclose(np.cov(places.T), np.diag(values[:2]), atol=1e-9)
    assert len(draw.embeddings({"a": np.asarray, "b": np.sin}, features, [0] * 30).axes) == 4


# Grids


def test_every_image_stands_in_its_row_and_column():
    whole = grids.tile_images(IMAGES)
    assert whole.shape == (2 * 6, 3 * 7)
    for row, column in np.ndindex(2, 3):
        tile = whole[6 * row : 6 * row + 6, 7 * column : 7 * column + 7]
        np.testing.assert_array_equal(tile[1:-1, 1:-1], IMAGES[row, column, ..., 0])
        assert tile[0].sum() == tile[:, 0].sum() == 0


def test_a_mosaic_names_its_rows_and_keeps_its_range():
    for images, rows in ((IMAGES, ["one", "two"]), ({"one": IMAGES[0], "two": IMAGES[1]}, ())):
        axes = only(draw.image_grid(images, "numbers", rows))
        assert axes.get_title("left") == "numbers"
        assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
        assert axes.images[0].get_clim() == (0, 1)
    assert only(draw.image_grid(IMAGES - 0.9, signed=True)).images[0].get_clim() == (-0.9, 0.9)
    assert only(draw.image_grid(np.ones((20, 4, 4, 1)))).images[0].get_array().shape == (12, 60)
    assert "(rows, columns, height, width, 1)" in message(
        lambda: grids.tile_images(np.ones((4, 8, 8)))
    )


def test_kernels_of_convolutions_and_of_dense_layers():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    drawn = only(draw.kernels(kernel, (8, 8, 1))).images[0].get_array()
    np.testing.assert_array_equal(drawn[1:4, 1:4], kernel[:, :, 0, 0])
    dense = np.random.default_rng(0).normal(size=(6, 12))
    for weights in (dense, dense.T):
        drawn = only(draw.kernels(weights, (4, 3, 1))).images[0].get_array()
        np.testing.assert_array_equal(drawn[1:5, 1:4], dense[0].reshape(4, 3))


def test_responses_are_those_of_the_convolution():
    kernel, images = np.zeros((3, 3, 1, 2), np.float32), IMAGES[0].astype(np.float32)
    kernel[1, 1, 0, 0], kernel[1, 1, 0, 1] = 1, -2
    figure = draw.activations(kernel, images)
    assert len(figure.axes) == (1 + 3) * (1 + 2) and figure.axes[0].texts[0].get_text() == "filters"
    maps = [axes.images[0].get_array() for axes in figure.axes[4:6]]
    np.testing.assert_allclose(maps[0], images[0, ..., 0], rtol=1e-6)
    np.testing.assert_allclose(maps[1], -2 * images[0, ..., 0], rtol=1e-6)


def test_matrices_are_averaged_over_their_members():
    counts = np.stack([np.eye(3), 3 * np.eye(3)])
    figure = draw.matrices({"a": counts, "b": np.eye(3)}, "said", "true", names="xyz")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), 2 * np.eye(3))
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["x", "y", "z"]
    maps = draw.attention(np.ones((3, 2, 2)) / 2, "a\n")
    assert [t.get_text() for t in maps.axes[2].get_yticklabels()] == ["a", "↵"]
    assert [axes.get_title("left") for axes in maps.axes] == ["Head 1", "Head 2", "Head 3"]


def test_confusion_of_members_is_their_mean():
    outputs = np.stack([np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 0, 2]]])
    figure = draw.confusion_of(outputs, np.array([0, 1, 2]), ["a", "b", "c"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1", "0.5", "0.5", "1"]


def test_a_surface_is_asked_for_on_a_square():
    at = draw.square_grid(-1, 1, side=21)
    axes = only(draw.decision_surface(at[:, 0] > 0, -1, 1, "half", points=[[0, 0]], classes=[1]))
    assert axes.get_title("left") == "half" and axes.get_xlim() == (-1, 1)
    line = axes.collections[1].get_paths()[0].vertices
    assert (np.abs(line[:, 0]) < 0.11).all()


def test_a_judged_generator_shows_a_hundred_images_and_the_shares():
    figure = draw.generated_samples(
        np.zeros((120, 4, 4, 1)), lambda images: (np.array([0.25, 0.75]), 12.34)
    )
    grid, counts = figure.axes
    assert grid.images[0].get_array().shape == (60, 60)
    assert [bar.get_height() for bar in counts.patches] == [25, 75]
    assert counts.get_title("left") == "FID 12.3" and legend(counts) == ["uniform"]
