"""The predictions of `jdl predict`: classes by the kind of output, members by their votes."""

import numpy as np
import pytest

from jdl.cli.predictions import predicted_classes, prediction_table
from jdl.run.members import mean_over_members


def table(outputs, output, names=(), classes=None):
    header, rows = prediction_table(np.asarray(outputs, np.float32), output, names, classes)
    return header, list(rows)


@pytest.mark.parametrize("column", [False, True])
def test_one_logit_predicts_by_its_sign(column):
    logits = np.array([2.1, -0.5, 0.0, np.nan])
    header, rows = table(logits[:, None] if column else logits, "binary_logits", classes=2)
    assert header == ["prediction", "output_0"]
    assert [row[0] for row in rows] == [1, 0, 0, "nan"]


def test_several_binary_labels_have_a_column_each():
    header, rows = table([[1.0, -1.0], [-1.0, 3.0]], "binary_logits")
    assert header[:2] == ["prediction_0", "prediction_1"]
    assert [row[:2] for row in rows] == [[1, 0], [0, 1]]


def test_a_sequence_has_one_class_for_each_token():
    logits = np.random.default_rng(0).normal(size=(4, 5, 3))
    header, rows = table(logits, "class_logits", ("a", "b", "c"), 3)
    assert header[:5] == [f"prediction_{t}" for t in range(5)] and len(header) == 5 + 15
    for row, example in zip(rows, logits, strict=True):
        assert row[:5] == ["abc"[k] for k in example.argmax(-1)]


def test_values_have_no_classes():
    header, rows = table([[1.0, 2.0]], "values", classes=2)
    assert header == ["output_0", "output_1"] and rows == [["1", "2"]]
    assert predicted_classes(np.ones((2, 1)), None, 2) is None
    assert predicted_classes(np.eye(3), None, 3).tolist() == [0, 1, 2]


def test_members_vote_by_their_mean_probability():
    """By hand: softmax and sigmoid in float64, which the mean of logits does not follow."""
    logits = np.random.default_rng(1).normal(scale=4, size=(3, 200, 4))
    powers = np.exp(logits)
    mean = (powers / powers.sum(-1, keepdims=True)).mean(0)
    found = mean_over_members(logits, "class_logits")
    np.testing.assert_allclose(np.exp(found), mean, rtol=1e-12)
    assert (logits.mean(0).argmax(-1) != mean.argmax(-1)).any()

    chance = (1 / (1 + np.exp(-logits))).mean(0)
    binary = mean_over_members(logits, "binary_logits")
    np.testing.assert_allclose(1 / (1 + np.exp(-binary)), chance, rtol=1e-12)
    np.testing.assert_array_equal(mean_over_members(logits, "values"), logits.mean(0))


def test_sure_members_stay_finite():
    assert np.isfinite(mean_over_members(np.full((2, 1), 800.0), "binary_logits")).all()
    assert np.isfinite(mean_over_members(np.array([[[900.0, 0.0]]]), "class_logits").max())
