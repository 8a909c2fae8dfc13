"""Forty data sets and batches that cannot be trained on, or mean something else than they say.

Each is an InputError that names the array. `tests/test_bad_input.py` has those that a command line
meets; here are the ones that pass a first look: wrong masks, labels, tokens, lengths and sources.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
import pytest

import jdl
from jdl.tasks import class_weighted, cross_entropy, mask_training, sequence_labelling
from tests.faults.catalogue import refused, rows
from tests.support.runs import classes, line, quiet

N = 24
LINE, CLASSES = line(N), classes(N)
TOKENS = np.random.default_rng(0).integers(0, 7, (N, 7)).astype(np.int32)
SERIES = {
    "x": np.zeros((N, 5, 2), np.float32),
    "y": np.arange(N, dtype=np.int32) % 2,
    "lengths": np.full(N, 5, np.int32),
}
PIXELS = {"x": np.zeros((N, 3), np.float32)}


def mlp(outputs: int) -> jdl.Model:
    return jdl.from_linen(jdl.models.MLP((4,), outputs=outputs))


def rnn(**given: Any) -> jdl.Model:
    return jdl.from_linen(jdl.models.RNN((4,), outputs=2, **given))


def decoder() -> jdl.Model:
    small = {"vocabulary": 7, "width": 8, "blocks": 1, "heads": 2, "context": 6}
    return jdl.from_linen(jdl.models.Decoder(**small))


def regression() -> jdl.Task:
    return jdl.regression(mlp(1))


def classification() -> jdl.Task:
    return jdl.classification(mlp(2))


def fit(task: jdl.Task, data: Any, valid: Any = None, batch_size: Any = 8) -> jdl.Result:
    learner = jdl.learner(task, optax.sgd(0.01))
    return jdl.fit(learner, data, valid=valid, batch_size=batch_size, epochs=1, options=quiet())


def line_with(**given: Any) -> Callable[[], Any]:
    return lambda: fit(regression(), LINE | given)


def classes_with(**given: Any) -> Callable[[], Any]:
    return lambda: fit(classification(), CLASSES | given)


def at(data: Mapping[str, Any], name: str, index: Any, value: Any) -> dict[str, Any]:
    """The data with another value in one place."""
    changed = np.array(data[name])
    changed[index] = value
    return {**data, name: changed}


def language(data: Any, valid: Any = None) -> Callable[[], Any]:
    return lambda: fit(jdl.tasks.language_model(decoder()), data, valid)


def series(data: Any) -> Callable[[], Any]:
    return lambda: fit(jdl.tasks.sequence_classification(rnn()), data)


def labelled(data: Any) -> Callable[[], Any]:
    return lambda: fit(sequence_labelling(rnn(read="each")), data)


def pixels(data: Any, valid: Any = None) -> Callable[[], Any]:
    model = jdl.from_linen(jdl.models.Autoencoder(2, shape=(3,)))
    return lambda: fit(jdl.tasks.reconstruction(model), data, valid)


def answers(y: np.ndarray) -> Callable[[], Any]:
    task = jdl.binary_classification(mlp(1))
    return lambda: fit(task, {"x": CLASSES["x"], "y": y[:, None]})


def pair(data: Any) -> Callable[[], Any]:
    makes, judges = jdl.tasks.gan_tasks(mlp(2), mlp(1), latent=2)
    players = [jdl.Player(task, optax.adam(0.1)) for task in (judges, makes)]
    game = jdl.game(discriminator=players[0], generator=players[1])
    return lambda: jdl.fit(game, data, batch_size=8, epochs=1, options=quiet())


class Source:
    """Examples of a straight line, one of them another."""

    def __init__(self, **odd: Any):
        self.odd = odd

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = {name: value[index] for name, value in LINE.items()}
        changed = {**example, **self.odd} if index == 5 else example
        return {name: value for name, value in changed.items() if value is not None}


def source(**odd: Any) -> Callable[[], Any]:
    return lambda: fit(regression(), jdl.Feed(Source(**odd), N))


def trained(task: jdl.Task, data: Any) -> jdl.Result:
    """A learner as it begins, to evaluate and predict with."""
    learner = jdl.learner(task, optax.sgd(0.01))
    state, _ = next(jdl.steps(learner, data, batch_size=8))
    return jdl.Result(state, learner, [], None)


def evaluated(task: jdl.Task, data: Any, given: Any) -> Callable[[], Any]:
    return lambda: jdl.evaluate(trained(task, data), given)


# what is done, and what the message says
TABLE: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    # masks
    "mask of nan": (line_with(mask=np.full(N, np.nan)), ('data["mask"]', "24 of 24 not finite")),
    "mask below zero": (line_with(mask=np.linspace(-1, 1, N)), ('data["mask"]', "from -1 to 1")),
    "mask of nothing": (line_with(mask=np.zeros(N)), ('data["mask"]', "one of them positive")),
    "mask too short": (line_with(mask=np.ones(N - 1)), ("x 24, y 24, mask 23",)),
    "mask of two columns": (line_with(mask=np.ones((N, 2))), ("mask", "(8, 2)")),
    "mask of words": (line_with(mask=np.array(["yes"] * N)), ('["mask"]', "dtype <U3")),
    # kinds of arrays
    "objects": (line_with(x=LINE["x"].astype(object)), ('["x"]', "dtype object")),
    "none among them": (line_with(y=np.array([None] * N)), ('["y"]', "dtype object")),
    "nothing": (line_with(y=None), ('["y"]', "an array of numbers")),
    "ragged lists": (line_with(x=[[1.0] * (i % 3 + 1) for i in range(N)]), ("unequal lengths",)),
    "dates": (line_with(x=np.zeros((N, 3), "M8[s]")), ('["x"]', "datetime64[s]")),
    "spans of time": (line_with(x=np.zeros((N, 3), "m8[s]")), ('["x"]', "timedelta64[s]")),
    "records": (line_with(x=np.zeros(N, [("a", "f4"), ("b", "f4")])), ('["x"]', "an array of num")),
    "bytes": (line_with(x=np.array([b"a"] * N)), ('["x"]', "dtype |S1")),
    "complex": (line_with(x=LINE["x"] + 1j), ("loss", "real numbers", "complex64")),
    "masked array": (line_with(x=np.ma.masked_less(LINE["x"], 0)), ('["x"]', "masked entries")),
    "keys that are numbers": (lambda: fit(regression(), {0: LINE["x"]}), ('batch["x"]',)),
    "arrays within": (line_with(x={"a": LINE["x"]}), ('["x"]', "dtype object")),
    # labels
    "label 255": (classes_with(y=at(CLASSES, "y", 2, 255)["y"].astype("u1")), ("the first 255",)),
    "label of 41 bits": (classes_with(y=CLASSES["y"] + np.int64(2**40)), ("fit in int32",)),
    "labels -1 and 1": (answers(2.0 * CLASSES["y"] - 1), ("y\n", "0 for no", "from -1 to 1")),
    "labels 0 and 2": (answers(2 * CLASSES["y"]), ("y\n", "0 for no", "from 0 to 2")),
    "class weights": (
        lambda: fit(
            jdl.classification(mlp(2), loss=class_weighted(cross_entropy, np.ones(3))), CLASSES
        ),
        ("class weights", "shape (2,), one per class", "(3,)"),
    ),
    "mark that is missing": (
        lambda: fit(mask_training(classification(), "original"), CLASSES),
        ('batch["original"]', "entries x, y"),
    ),
    # sequences and tokens
    "length 0": (series(at(SERIES, "lengths", 3, 0)), ('["lengths"]', "0 at index 3")),
    "lengths of floats": (series(SERIES | {"lengths": np.full(N, 5.0)}), ("dtype float32",)),
    "nan before the padding": (
        series(at(SERIES, "x", (3, 2, 0), np.nan) | {"lengths": np.full(N, 4)}),
        ('["x"]', "1 of 240 not finite", "index [3, 2, 0]"),
    ),
    "a label too few": (labelled(SERIES | {"y": np.zeros((N, 4), int)}), ('["y"]', "(8, 5)")),
    "one label each": (labelled(SERIES), ('["y"]', "one label per step", "shape (8,)")),
    "token 7 of 7": (language({"x": at({"x": TOKENS}, "x", (5, 2), 7)["x"]}), ("from 0 to 7",)),
    "token -1": (language({"x": at({"x": TOKENS}, "x", (5, 2), -1)["x"]}), ("from -1 to 6",)),
    "token 9 later": (language({"x": TOKENS}, {"x": TOKENS + 3}), ("tokens from 0 to 6",)),
    # pixels
    "one pixel of 2": (pixels(at(PIXELS, "x", (N - 1, 0), 2)), ("pixels from 0 to 1", "0 to 2")),
    "pixels later": (pixels(PIXELS, {"x": PIXELS["x"] - 1}), ("pixels from 0 to 1", "-1 to -1")),
    # sources, players, evaluation
    "source of text": (source(x="abc"), ('"x" of a source', "the same shape")),
    "source without y": (source(y=None), ('"y" of a source', "missing")),
    "source of 1e300": (source(x=np.full(3, 1e300)), ('"x" of a source', "fit in float32")),
    "game without x": (pair({"y": LINE["x"][:, :2]}), ('batch["x"]', "entries y")),
    "label -1 evaluated": (
        evaluated(classification(), CLASSES, at(CLASSES, "y", 2, -1)),
        ('evaluation data["y"]', "the first -1 at index [2]"),
    ),
    "batch size 8.0": (
        lambda: fit(regression(), LINE, batch_size=8.0),
        ("batch_size", "a whole number", "8.0"),
    ),
}
FAST = (
    *("mask below zero", "masked array", "spans of time", "labels -1 and 1", "one label each"),
    *("token -1", "source without y", "label -1 evaluated"),
)


@pytest.mark.parametrize("name", rows(TABLE, FAST))
def test_a_bad_batch_is_refused(name):
    call, fragments = TABLE[name]
    refused(call, fragments)


@pytest.mark.slow
def test_what_is_allowed_trains():
    """The controls: padding may hold anything, a mask may be of booleans, answers of integers."""
    spoilt = at(SERIES, "x", (slice(None), slice(4, 5)), np.nan) | {"lengths": np.full(N, 4)}
    assert np.isfinite(series(spoilt)().history[-1]["loss"])
    assert np.isfinite(line_with(mask=np.arange(N) > 3)().history[-1]["loss"])
    assert np.isfinite(answers(CLASSES["y"])().history[-1]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("token", [7, -1])
def test_a_token_that_no_table_has_is_refused_and_counted(token):
    """Deep inside a model nobody looks at values: nan there, never the vector of another token."""
    model = jdl.from_linen(jdl.models.TokenLSTM(7, 4, 2))
    data = {"x": TOKENS, "lengths": np.full(N, 7), "y": np.arange(N) % 2}
    task = jdl.classification(model, inputs=dict)
    result = fit(task, at(data, "x", (5, 2), token))
    assert result.history[-1]["skipped"] == pytest.approx(1 / 3)
