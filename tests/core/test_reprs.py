"""What a notebook shows of jdl's records is short."""

import jax
import numpy as np
import optax
import pytest

import jdl

X = np.zeros((32, 2), np.float32)
MODEL = jdl.from_linen(jdl.models.MLP(features=(256, 256), outputs=3))
TASK = jdl.classification(MODEL, metrics={"top": jdl.metrics.top_k(2)})
LEARNER = jdl.ensemble(jdl.learner(TASK, optax.adam(0.1)), 2)
DATA = {"x": X, "y": np.zeros(32, np.int32)}
STATE = jax.jit(LEARNER.init)(jax.random.key(0), DATA)
HISTORY = [
    {"step": 4, "epoch": 1.0, "split": "train", "loss": [0.5, 0.25], "seconds": 1.0},
    {"step": 4, "epoch": 1.0, "split": "valid", "loss": [2.0, 1.0]},
]
PLAYER = jdl.Player(TASK, optax.adam(0.1))


@pytest.mark.parametrize(
    "record",
    [
        MODEL, TASK, LEARNER, STATE, PLAYER, jdl.metrics.top_k(2), jdl.Feed(DATA, 4),
        jdl.Data(DATA, DATA, lambda: DATA, {"name": "zeros"}), jdl.data.load("digits"),
        jdl.Result(STATE, LEARNER, HISTORY, None),
        jdl.Experiment("zeros", LEARNER, jdl.Data(DATA, {}, dict, {})),
        jdl.sweep(
            lambda rate: jdl.learner(TASK, optax.sgd(rate)), {"rate": [*range(50)]}, seeds=8
        ),
    ],
    ids=lambda record: type(record).__name__,
)  # fmt: skip
def test_records_have_short_texts(record):
    text = repr(record)
    assert len(text) < 1000 and "0x" not in text and "rray(" not in text, text
    assert text.startswith(type(record).__name__ + "(")


def test_a_result_shows_steps_metrics_and_directory(tmp_path):
    state = STATE.replace(step=np.int32(118))
    text = repr(jdl.Result(state, LEARNER, HISTORY, tmp_path))
    assert text == (
        f"Result(step 118, train loss 0.375 loss_std 0.1768, valid loss 1.5 loss_std 0.7071, "
        f"run_dir {tmp_path})"
    )
    assert repr(jdl.Result(state, LEARNER, [], None)) == "Result(step 118, not saved)"


def test_a_state_shows_its_step_and_size():
    size = 2 * (2 * 256 + 256 + 256 * 256 + 256 + 256 * 3 + 3)
    assert repr(STATE) == f"TrainState(step 0, parameters {size:,}, members (2,))"


def test_a_state_has_a_text_inside_a_program_and_with_other_leaves():
    jax.jit(lambda state: print(repr(state)) or state.step).lower(STATE)
    assert "step" in repr(jax.eval_shape(LEARNER.init, jax.random.key(0), DATA))
    assert "step" in repr(jax.tree.map(lambda leaf: None, STATE))
    assert "step" in repr(jax.tree.map(lambda leaf: "spec", STATE))
