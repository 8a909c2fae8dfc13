"""A `log` callback that raises, and what an interrupt tells."""

import json
import signal

import numpy as np
import optax
import pytest

import jdl
from jdl.run.distributed.signals import Interrupted

X = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
LINE = jdl.learner(
    jdl.regression(jdl.from_linen(jdl.models.MLP(features=(), outputs=1))), optax.sgd(0.1)
)


def train(run_dir, log, epochs=5, **more):
    options = jdl.Options(log_every=4, bar=False, dispatch="step")
    return jdl.fit(
        LINE, {"x": X, "y": X}, batch_size=8, epochs=epochs, run_dir=run_dir, log=log,
        options=options, **more,
    )  # fmt: skip


def raises_at(step):
    def broken_tracker(row):
        if row["step"] == step:
            raise RuntimeError("tracker is down")

    return broken_tracker


@pytest.mark.parametrize("step", [4, 8, 20])
def test_a_callback_that_raises_stops_a_run_that_is_saved(step, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match=r"^tracker is down\n") as info:
        train(run, raises_at(step), valid={"x": X, "y": X}, best="min loss")
    (note,) = info.value.__notes__
    assert "broken_tracker" in note and "log=" in note and str(run) in note
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]["step"]
    assert f"step {last}" in note and {row["split"] for row in rows} == {"train", "valid"}
    assert last == {4: 4, 8: 12, 20: 20}[step]  # rows are read one boundary late
    seen = []
    resumed = train(run, seen.append, valid={"x": X, "y": X}, best="min loss")
    whole = train(None, None, valid={"x": X, "y": X}, best="min loss")
    later = [step for step in (4, 8, 12, 16, 20) if step > last]
    assert [row["step"] for row in seen] == sorted(2 * later)
    np.testing.assert_array_equal(jdl.predict(resumed, X), jdl.predict(whole, X))


def test_without_a_run_directory_the_error_is_raised_too():
    with pytest.raises(RuntimeError, match="tracker") as info:
        train(None, raises_at(4))
    assert "not saved" in info.value.__notes__[0]


def test_a_callback_that_is_no_function_is_refused_before_training(tmp_path):
    with pytest.raises(jdl.InputError, match=r"(?s)^log.*log=print"):
        train(tmp_path / "run", "tracker")
    assert not (tmp_path / "run").exists()


def test_an_interrupt_says_where_the_result_is():
    with pytest.raises(Interrupted, match=r"\.result .*sys\.last_value\.result") as info:
        train(None, lambda row: signal.raise_signal(signal.SIGINT))
    assert info.value.result.history and ".result" not in info.value.reason
