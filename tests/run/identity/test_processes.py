"""Processes that hold something else than the others are told what it is."""

import jax
import numpy as np
import pytest

import jdl
from jdl.run.distributed import collectives
from jdl.run.identity import processes
from jdl.run.setup import make_setup
from jdl.run.storage.files import flatten_config
from tests.support.learners import message
from tests.support.runs import line, net, quiet


def own_key(seed):
    """A learner whose first weights come from a key of its own."""
    inner = net()
    return inner._replace(init=lambda key, batch: inner.init(jax.random.key(seed), batch))


def own_metric(scale):
    """A learner that trains alike and evaluates by a metric of its own."""
    inner = net()

    def evaluate(state, batch):
        metrics = inner.evaluate(state, batch)
        loss = metrics["loss"]
        return metrics | {"scaled": loss.replace(total=scale * loss.total)}

    return inner._replace(evaluate=evaluate)


def setup_of(learner=None, data=None, valid=None):
    feed = jdl.Feed(data or line(), 8)
    return make_setup(learner or net(), feed, valid or line(8, seed=1), options=quiet())


def refusal(monkeypatch, theirs, mine, check):
    """The error where this process holds `mine` and process 0 `theirs`."""
    for module in (collectives, processes):
        monkeypatch.setattr(module, "is_multiprocess", lambda: True)
    monkeypatch.setattr(collectives, "all_gather", lambda mine: [flatten_config(theirs), mine])
    return message(lambda: check(mine))


CASES = {
    "training data": ({}, {"data": line(seed=2)}, "data.train x: 'float32 [48, 3] "),
    "labels": ({}, {"data": line() | {"y": line()["y"][::-1]}}, "got:      data.train y"),
    "validation rows": ({}, {"valid": line(6, seed=1)}, "data.valid x: 'float32 [8, 3] "),
    "rate": ({}, {"learner": net(rate=0.5)}, "-0.5 in process 1"),
    "program": ({}, {"learner": net(noise=0.1)}, "program.step: '"),
    "key": ({"learner": own_key(0)}, {"learner": own_key(1)}, "constants.init."),
    "metric": ({"learner": own_metric(1)}, {"learner": own_metric(3)}, "constants.evaluate."),
}


@pytest.mark.parametrize("case", CASES)
def test_other_data_or_another_program_is_refused(monkeypatch, case):
    theirs, mine, told = CASES[case]
    text = refusal(
        monkeypatch,
        processes.describe_start(setup_of(**theirs)),
        setup_of(**mine),
        lambda setup: processes.check_same_start(setup, None),
    )
    assert "the data and program of 2 processes\n" in text and told in text
    assert "sort sets and directory listings" in text


def test_other_weights_are_refused_by_leaf(monkeypatch):
    state = net().init(jax.random.key(0), line(8))
    other = net().init(jax.random.key(1), line(8))
    text = refusal(monkeypatch, processes.describe_values(state), other, processes.check_same_state)
    assert "the first state of 2 processes\n" in text and "opt_state" not in text
    assert "key: '" in text and "params/in: 'float32 [3, 8] " in text
    given = [processes.describe_start(setup_of(), start) for start in (state.params, other.params)]
    assert {name for name in given[0] if given[0][name] != given[1][name]} == {"start"}


def test_other_examples_to_evaluate_are_refused(monkeypatch):
    x = np.zeros((8, 2), np.float32)
    text = refusal(
        monkeypatch,
        {"x": processes.describe_values({"x": x})["x"]},
        {"x": x[:6]},
        lambda data: processes.check_same_data(data, "evaluation data"),
    )
    assert "the evaluation data of 2 processes\n" in text
    assert "x: 'float32 [8, 2] " in text and "'float32 [6, 2] " in text


def test_the_same_start_is_described_alike():
    """Functions made anew, as every process makes them, have the same identity."""
    start = net().init(jax.random.key(0), line(8))
    one, other = (processes.describe_start(setup_of(own_key(3)), start) for _ in range(2))
    assert one == other
