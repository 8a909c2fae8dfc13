"""Made-up sequences: their rules hold, and so do the losses that are said to be possible."""

from collections import Counter

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.data import synthetic_sequences


def test_adding():
    batch = synthetic_sequences.adding_problem(4_000, 20, seed=1)
    values, marks = batch["x"][..., 0], batch["x"][..., 1]
    assert (marks[:, :10].sum(1) == 1).all() and (marks[:, 10:].sum(1) == 1).all()
    np.testing.assert_allclose(batch["y"][:, 0], (values * marks).sum(1), rtol=1e-6)
    assert abs(((batch["y"] - 1) ** 2).mean() - synthetic_sequences.ADDING_BASELINE) < 0.01
    assert {v.dtype for v in batch.values()} == {np.dtype("float32")}
    again, other = (synthetic_sequences.adding_problem(4, 20, seed) for seed in (1, 2))
    assert np.array_equal(again["x"], synthetic_sequences.adding_problem(4, 20, 1)["x"])
    assert not np.array_equal(again["x"], other["x"])


def test_copying():
    batch = synthetic_sequences.copy_problem(50, delay=7, symbols=3, length=4)
    x, y = batch["x"], batch["y"]
    assert x.shape == y.shape == (50, 15)
    assert np.array_equal(x[:, :4], y[:, -4:]) and set(np.unique(x[:, :4])) == {1, 2, 3}
    assert (x[:, 4:10] == 0).all() and (x[:, 10] == 4).all() and (x[:, 11:] == 0).all()
    assert (y[:, :-4] == 0).all()
    assert np.isclose(synthetic_sequences.copy_problem_baseline(7, 3, 4), 4 * np.log(3) / 15)


def test_autoregressive_follows_its_rule():
    noise = (0.6, 0.4, 0.0)
    batch = synthetic_sequences.autoregressive(400, 60, lags=(1, 5), noise=noise)
    x, y = batch["x"], batch["y"]
    assert x.shape == y.shape == (400, 60) and np.array_equal(x[:, 1:], y[:, :-1])
    added = (y[:, 4:] - x[:, 4:] - x[:, :-4]) % 3
    share = np.bincount(added.ravel(), minlength=3) / added.size
    np.testing.assert_allclose(share, noise, atol=0.01)
    # Who sees one of the lags only knows nothing: all pairs are equally frequent.
    pairs = Counter(zip(x[:, 4:].ravel().tolist(), y[:, 4:].ravel().tolist(), strict=True))
    assert max(pairs.values()) / min(pairs.values()) < 1.15
    assert np.isclose(synthetic_sequences.entropy(noise), -0.6 * np.log(0.6) - 0.4 * np.log(0.4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: synthetic_sequences.adding_problem(2, 1), "steps"),
        (lambda: synthetic_sequences.copy_problem(2, 0), "delay"),
        (lambda: synthetic_sequences.autoregressive(2, 9, lags=(0, 3)), "smallest lag"),
        (lambda: synthetic_sequences.autoregressive(2, 9, noise=(0.5, 0.4)), "sum to 1"),
    ],
)
def test_what_makes_no_sequence_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
