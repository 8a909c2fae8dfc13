"""`Data`: its steps are those of `fit`, and its text is short."""

import numpy as np
import optax
import pytest

import jdl
from jdl.data.records import count_steps

X = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
LINE = jdl.regression(jdl.from_linen(jdl.models.MLP(features=(), outputs=1)))


@pytest.mark.parametrize(
    "epochs, batch_size, steps", [(1, 8, 7), (2, 25, 4), (0.5, 50, 1), (3, 7, 22), (0.01, 10, 1)]
)
def test_a_schedule_has_the_steps_of_the_run(epochs, batch_size, steps):
    data = jdl.Data({"x": X, "y": X}, {}, dict, {})
    assert data.steps(epochs, batch_size) == steps
    learner = jdl.learner(LINE, optax.sgd(0.1))
    quiet = jdl.Options(bar=False)
    result = jdl.fit(learner, data, batch_size=batch_size, epochs=epochs, options=quiet)
    assert int(result.state.step) == steps


def test_the_last_step_of_a_run_has_the_lowest_rate_above_the_end_of_its_schedule():
    data = jdl.Data({"x": X, "y": X}, {}, dict, {})
    steps = data.steps(1, 8)
    for name in ("cosine", "warmup_cosine"):
        rates = [float(jdl.optim.schedule(name, 1.0, steps)(step)) for step in range(steps)]
        assert min(rates) > 0, (name, rates)


def test_rounding_adds_no_step():
    assert count_steps(0.1 * 3, 10, 1) == 3
    assert count_steps(1000 * 7 / 9, 9, 7) == 1000


@pytest.mark.parametrize("epochs, batch_size", [(-1, 8), (float("nan"), 8), (1, 0)])
def test_steps_of_impossible_numbers_are_refused(epochs, batch_size):
    with pytest.raises(jdl.InputError, match=r"epochs|batch_size"):
        jdl.Data({"x": X}, {}, dict, {}).steps(epochs, batch_size)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 1000])
def test_no_warm_up_begins_at_a_rate_of_zero(steps):
    rates = [float(jdl.optim.schedule("warmup_cosine", 0.1, steps)(step)) for step in range(steps)]
    assert rates[0] > 0 and max(rates) == pytest.approx(0.1, rel=0.5)
