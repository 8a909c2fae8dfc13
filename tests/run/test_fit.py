"""`fit`, `steps`, `evaluate`, `predict`: what they compute, keep, tell and refuse."""

import itertools
import logging
import re
import signal
import threading

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.core.errors import Diverged, InputError
from jdl.learn.extra import find_records
from jdl.learn.guard import GuardState
from jdl.learn.sweep import sweep_table
from jdl.learn.window import window
from jdl.run.setup import init_state, prepare
from tests.support import learners
from tests.support.learners import record
from tests.support.runs import (
    assert_same_run,
    classes,
    content,
    counter,
    dropout_net,
    line,
    net,
    quiet,
    saved,
    target_of,
)

pytestmark = pytest.mark.usefixtures("kept_programs")


def fit(learner, data=None, **given):
    given.setdefault("options", quiet())
    return jdl.fit(learner, line() if data is None else data, **{"batch_size": 8, **given})


@pytest.fixture(scope="module")
def plain_run():
    """48 examples in batches of 8 for 10 epochs: 60 steps."""
    return fit(net(), valid=line(20, seed=1))


# What a run computes and notes


def test_a_run_learns_and_says_so(plain_run):
    valid = [row["loss"] for row in plain_run.history if row["split"] == "valid"]
    assert len(valid) == 10 and valid[-1] < 0.5 * valid[0]
    assert int(plain_run.state.step) == 60
    assert plain_run.run_dir is None


def test_rows_stand_at_fixed_steps_with_all_numbers(plain_run):
    train = [row for row in plain_run.history if row["split"] == "train"]
    assert [row["step"] for row in train] == list(range(5, 61, 5))
    assert [row["step"] for row in plain_run.history if row["split"] == "valid"] == [
        *range(6, 61, 6)
    ]
    for row in train:
        assert row["epoch"] == row["step"] / 6
        assert row["skipped"] == 0.0
        assert {"loss", "gradient_norm", "seconds"} <= set(row)
    assert all(row["steps_per_second"] > 0 for row in train[1:])


def test_a_row_of_training_is_the_mean_over_its_steps(plain_run):
    steps = itertools.islice(jdl.steps(net(), line(), batch_size=8), 20)
    losses = [float(metrics["loss"].value) for _, metrics in steps]
    train = [row["loss"] for row in plain_run.history if row["split"] == "train"]
    np.testing.assert_allclose(train[:4], np.reshape(losses, (4, 5)).mean(1), rtol=1e-4)


def test_the_weights_are_those_of_a_loop_by_hand(plain_run):
    *_, (state, _) = itertools.islice(jdl.steps(net(), line(), batch_size=8), 60)
    learners.assert_close(state.params, plain_run.state.params, rtol=1e-4)


def test_the_last_row_of_a_run_may_cover_fewer_steps():
    result = fit(counter(), epochs=2, options=quiet(log_every=5))
    # The counter's loss is the number of steps before: 10 and 11 in the last row.
    assert [(row["step"], row["loss"]) for row in result.history] == [
        (5, 2.0),
        (10, 7.0),
        (12, 10.5),
    ]


def test_the_same_seed_gives_the_same_bits_and_another_one_others(plain_run):
    again = fit(net(), valid=line(20, seed=1))
    assert_same_run(plain_run, again)
    other = fit(net(), valid=line(20, seed=1), seed=1)
    assert learners.differ(plain_run.state.params, other.state.params)


@pytest.mark.parametrize("module", [jdl.models.MLP((7,), 2), jdl.models.RNN((6,), 2)])
def test_first_weights_are_compiled_for_once_and_have_the_bits_of_any_program(module):
    rows = np.zeros((16, 5, 3), "float32") if isinstance(module, jdl.models.RNN) else line()["x"]
    data = {"x": rows, "y": np.zeros(len(rows), "int32")}
    task = jdl.classification(jdl.from_linen(module))
    learner, feed = jdl.ensemble(jdl.learner(task, optax.adam(0.1)), 3), jdl.Feed(data, 4)
    first = init_state(learner, feed, seed=5)
    plain = jax.jit(learner.init)(jax.random.key(5), feed.batch(0))
    bits = [jax.tree.leaves(t.replace(key=jax.random.key_data(t.key))) for t in (first, plain)]
    assert all(map(np.array_equal, *bits))


def test_log_is_given_plain_numbers(plain_run):
    told = []
    fit(net(), valid=line(20, seed=1), log=told.append)
    assert [row["split"] for row in told] == [row["split"] for row in plain_run.history]
    for row, mine in zip(told, plain_run.history, strict=True):
        assert {type(value) for value in row.values()} <= {int, float, str}
        assert row["loss"] == mine["loss"]


def test_log_gets_mean_and_spread_of_members():
    told = []
    result = fit(jdl.ensemble(net(), 3), epochs=2, log=told.append)
    members = result.history[-1]["loss"]
    assert len(members) == 3
    assert told[-1]["loss"] == pytest.approx(np.mean(members))
    assert told[-1]["loss_std"] == pytest.approx(np.std(members, ddof=1))


# Best weights and patience


@pytest.mark.parametrize("rule", ["min loss", "max score"])
def test_best_gives_the_weights_of_the_best_evaluation(rule):
    given = dict(valid=line(8), epochs=10, options=quiet(evaluate_every=5))
    assert float(fit(counter(), best=rule, **given).state.params["w"]) == 20
    assert float(fit(counter(), **given).state.params["w"]) == 60


@pytest.mark.parametrize("dispatch", ["step", "loop"])
def test_patience_ends_a_run_at_a_fixed_step(dispatch):
    options = quiet(evaluate_every=5, dispatch=dispatch)
    result = fit(counter(), valid=line(8), epochs=10, patience=2, options=options)
    # Best at 20; 25 and 30 bring nothing; that is known at the next boundary.
    assert result.history[-1]["step"] == 35
    assert float(result.state.params["w"]) == 20


def test_patience_that_never_runs_out_ends_nothing():
    options = quiet(evaluate_every=5)
    result = fit(counter(goal=100), valid=line(8), epochs=10, patience=1, options=options)
    assert result.history[-1]["step"] == 60


def test_an_evaluation_of_nan_is_never_the_best():
    options = quiet(evaluate_every=5)
    learner = counter(bad=(5, 20))
    result = fit(learner, valid=line(8), epochs=10, best="min loss", options=options)
    assert float(result.state.params["w"]) == 15


def test_best_by_an_unknown_name_offers_the_nearest():
    text = learners.message(lambda: fit(counter(), valid=line(8), best="max scor"))
    assert "'scor'" in text and 'did you mean "score"?' in text


# Weights to begin from


def test_start_gives_copies_of_weights_and_new_moments(plain_run):
    before = jax.tree.map(np.array, plain_run.state.params)
    result = fit(net(rate=1e-4), start=plain_run.state, epochs=1)
    learners.assert_same_bits(plain_run.state.params, before)  # donation took only copies
    assert int(result.state.step) == 6 and int(result.state.opt_state[0].count) == 6
    first = next(row["loss"] for row in plain_run.history if row["split"] == "train")
    assert result.history[0]["loss"] < 0.5 * first
    learners.assert_close(result.state.params, before, atol=1e-3)
    assert learners.differ(result.state.params, before)


def test_start_from_another_model_names_the_leaf(plain_run):
    wide = jdl.learner(learners.network(width=9), optax.adam(1e-2))
    text = learners.message(lambda: fit(wide, start=plain_run.state))
    assert "params/in" in text and "(3, 9)" in text and "(3, 8)" in text
    text = learners.message(lambda: fit(dropout_net(), classes(), start=plain_run.state))
    assert "no such leaf" in text


@pytest.mark.parametrize("rule", [None, jdl.rules.fsdp(smallest=1)])
def test_start_lands_where_the_state_lives(plain_run, rule):
    wide = jdl.shard(net(rate=1e-4), jdl.mesh(data=8), rule)
    with learners.compilations() as names:
        result = fit(wide, start=plain_run.state, epochs=2)
    assert names.count("jit(step)") == 1
    assert len(result.state.params["in"].sharding.device_set) == 8
    back = fit(net(rate=1e-4), start=result.state, epochs=1)
    assert len(back.state.params["in"].sharding.device_set) == 1


# The caller's arrays


def aligned(data):
    """Copies that start at multiples of 64 bytes, which JAX would use in place on a CPU."""

    def copied(value):
        room = np.empty(value.nbytes + 64, np.uint8)
        start = -room.ctypes.data % 64
        copy = room[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
        copy[:] = value
        return copy

    return {name: copied(value) for name, value in data.items()}


def test_arrays_are_not_changed_and_may_be_changed_meanwhile(plain_run):
    data, valid = aligned(line()), aligned(line(20, seed=1))
    kept = {name: value.copy() for name, value in data.items()}

    def spoil(row):
        data["x"][:] = np.nan
        valid["y"][:] = np.nan

    result = fit(net(), data, valid=valid, log=spoil)
    assert_same_run(result, plain_run)
    data = {name: value.copy() for name, value in kept.items()}
    fit(net(), data, epochs=1)
    learners.assert_same_bits(data, kept)


def test_raw_pictures_are_noticed(caplog):
    x = np.zeros((8, 4, 4, 1), np.uint8)
    x[3] = 200
    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    learner = jdl.learner(jdl.regression(model), optax.sgd(0.0))
    with caplog.at_level(logging.WARNING, "jdl"):
        jdl.fit(
            learner,
            {"x": x, "y": np.zeros((8, 1), np.float32)},
            batch_size=8,
            epochs=1,
            options=quiet(),
        )
    assert 'training data["x"]: 8-bit images with values up to 200' in caplog.text


def test_64_bit_numbers_are_cast_with_one_line(caplog):
    wide = {"x": classes()["x"].astype(np.float64), "y": classes()["y"].astype(np.int64)}
    with caplog.at_level(logging.WARNING, "jdl"):
        result = fit(dropout_net(), wide, epochs=1)
    casts = [record.getMessage() for record in caplog.records if "cast" in record.getMessage()]
    assert len(casts) == 1
    assert "x float64 -> float32" in casts[0] and "y int64 -> int32" in casts[0]
    assert_same_run(result, fit(dropout_net(), classes(), epochs=1))


def test_a_feed_brings_its_own_batch_size_and_order():
    feed = jdl.Feed(line(), batch_size=16, seed=7)
    result = fit(net(), feed, batch_size=5, epochs=2)
    assert int(result.state.step) == 6
    same = fit(net(), jdl.Feed(line(), 16, seed=7), epochs=2)
    learners.assert_same_bits(result.state.params, same.state.params)
    other = fit(net(), jdl.Feed(line(), 16, seed=8), epochs=2)
    assert learners.differ(result.state.params, other.state.params)


def test_a_data_record_brings_its_validation_part():
    data = jdl.data.from_arrays(line()["x"], line()["y"])
    assert {row["split"] for row in fit(net(), data, epochs=1).history} == {"train", "valid"}
    whole = jdl.Data(line(), {}, lambda: line(), {})
    assert {row["split"] for row in fit(net(), whole, epochs=1).history} == {"train"}


# Every kind of learner


def test_eight_devices_agree_with_one():
    one = fit(net(), valid=line(20, seed=1), epochs=2)
    with learners.compilations() as names:
        wide = fit(jdl.shard(net(), jdl.mesh(data=8)), valid=line(20, seed=1), epochs=2)
    assert names.count("jit(step)") == 1
    assert len(wide.state.params["in"].sharding.device_set) == 8
    learners.assert_close(one.state.params, wide.state.params)
    assert [row["loss"] for row in wide.history] == pytest.approx(
        [row["loss"] for row in one.history], rel=1e-5
    )
    assert jdl.evaluate(wide, line(21))["loss"] == pytest.approx(
        jdl.evaluate(one, line(21))["loss"], rel=1e-5
    )


def test_any_number_of_devices_evaluates_and_predicts():
    six = jax.sharding.Mesh(np.array(jax.devices()[:6]), ("data",))
    wide = fit(jdl.shard(net(), six), batch_size=12, epochs=1)
    one = wide._replace(learner=net(), state=jax.device_put(wide.state, jax.devices()[0]))
    for batch_size in (512, 5):
        assert jdl.evaluate(wide, line(21), batch_size=batch_size)["loss"] == pytest.approx(
            jdl.evaluate(one, line(21))["loss"], rel=1e-5
        )
        np.testing.assert_allclose(
            jdl.predict(wide, line(7)["x"], batch_size=batch_size),
            jdl.predict(one, line(7)["x"]),
            rtol=1e-5,
            atol=1e-6,
        )


def test_an_ensemble_has_members_in_every_number():
    result = fit(jdl.ensemble(net(), 3), valid=line(20, seed=1), epochs=2)
    assert all(len(row["loss"]) == 3 for row in result.history)
    assert len({*result.history[-1]["loss"]}) == 3
    assert jdl.predict(result, line(5)["x"]).shape == (3, 5, 1)
    single = fit(jdl.ensemble(net(), 1), valid=line(20, seed=1), epochs=2)
    learners.assert_close(
        learners.member(single.state.params, 0), learners.member(result.state.params, 0)
    )


@pytest.mark.slow
def test_a_sweep_trains_like_any_learner():
    many = jdl.sweep(lambda rate: net(rate=rate), {"rate": [1e-2, 1e-5]}, seeds=2)
    result = fit(many, epochs=5)
    losses = result.history[-1]["loss"]
    assert len(losses) == 4 and max(losses[:2]) < min(losses[2:])
    table = sweep_table(many.points, jdl.evaluate(result, line())["loss"])
    assert [row["rate"] for row in table] == [1e-2, 1e-5] and table[0]["n"] == 2
    (counts,) = find_records(result.state.extra, GuardState)  # the members' own; fit adds none
    assert counts.skipped.shape == (4,)


@pytest.mark.slow
def test_a_game_trains_like_any_learner():
    generator = jdl.from_linen(jdl.models.MLP((4,), outputs=3))
    judge = jdl.from_linen(jdl.models.MLP((4,), outputs=1))
    makes, judges = jdl.tasks.gan_tasks(generator, judge, latent=2)
    pair = jdl.game(
        discriminator=jdl.Player(judges, optax.adam(1e-2)),
        generator=jdl.Player(makes, optax.adam(1e-2), every=2),
    )
    result = fit(pair, {"x": line()["x"]}, epochs=2)
    assert {"generator/loss", "discriminator/loss", "loss"} <= set(result.history[-1])
    counts = [int(result.state.opt_state[name][0].count) for name in ("discriminator", "generator")]
    assert counts == [12, 6]


def test_a_guarded_learner_is_not_guarded_twice():
    setup, state = prepare(jdl.guard(net(), 3), line(), batch_size=8, options=quiet())
    assert setup.guard == 0 and len(find_records(state.extra, GuardState)) == 1
    result = fit(jdl.guard(net(), 3), epochs=1)
    assert type(result.state.extra) is GuardState and result.state.extra.inner is None


@pytest.mark.parametrize("limit", [0, 10])
def test_a_result_has_the_state_of_the_callers_learner(limit):
    """The sums and the guard of a run are its own."""
    learner = jdl.ema(net(), 0.9)
    result = fit(learner, epochs=1, options=quiet(guard=limit))
    assert jax.tree.structure(result.state) == jax.tree.structure(
        learner.init(jax.random.key(0), line(8))
    )
    state, _ = learner.step(result.state, line(8))
    assert int(state.step) == int(result.state.step) + 1


def test_a_learner_with_a_window_trains_and_is_told(caplog):
    result = fit(window(net(), 3), epochs=2)
    plain = fit(net(), epochs=2)
    learners.assert_same_bits(result.state.params, plain.state.params)
    assert "the learner has a window of its own" in caplog.text


def test_fit_works_off_the_main_thread(plain_run):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(net(), valid=line(20, seed=1))))
    thread.start()
    thread.join()
    assert_same_run(results[0], plain_run)


def test_handlers_of_signals_are_put_back(plain_run, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(net(), epochs=1, run_dir=tmp_path / "run")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# Divergence


def poison(data, examples=48):
    """A net whose loss is nan from the first batch on that holds the example marked in `data`."""
    task = learners.network()

    def loss(params, model_state, batch, key, *, train):
        mean, (model_state, metrics) = task.loss(params, model_state, batch, key, train=train)
        bad = jax.numpy.where((batch["x"] > 50).any() | (params["out"] > 1e6).any(), np.inf, 1.0)
        mean = mean.replace(total=mean.total * bad)
        return mean, (model_state, {**metrics, "loss": mean})

    return jdl.learner(task._replace(loss=loss), optax.sgd(1e-2))


def test_a_diverged_run_names_the_first_bad_step_and_its_batch(tmp_path):
    data = line()
    explode = jdl.learner(learners.network(), optax.chain(optax.sgd(1.0), optax.scale(1e6)))
    guarded = jdl.guard(explode)
    states = (state for state, _ in jdl.steps(guarded, data, batch_size=8))
    step = next(n for n, state in enumerate(states) if int(record(state, GuardState).skipped))
    with pytest.raises(Diverged) as info:
        fit(explode, data, run_dir=tmp_path / "run", epochs=100)
    text = str(info.value)
    first = int(re.search(r"first bad step: (\d+)", text)[1])
    assert first == step and 0 < first < 20
    told = [int(n) for n in re.search(r"examples ([\d, ]+)", text)[1].split(",")]
    assert told == jdl.data.Order(48, 0)(first, 8, np).tolist()
    assert "10 steps in a row" in text
    kept = saved(tmp_path / "run", target_of(explode, data))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learners.numbers(kept.params)))
    assert int(kept.step) > first


def test_a_single_bad_batch_is_refused_and_the_run_goes_on():
    data = line()
    data["x"][17] = 100.0
    result = fit(poison(data), data, epochs=10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))
    counts = [row["skipped"] for row in result.history if row["split"] == "train"]
    assert sum(counts) * 5 == pytest.approx(10) and int(result.state.step) == 60
    assert max(row["skipped"] for row in result.history) > 0
    assert all(np.isfinite(row["loss"]) for row in result.history)


def test_one_diverged_member_of_several_ends_nothing():
    many = jdl.sweep(
        lambda rate: jdl.learner(learners.network(), optax.sgd(rate)), {"rate": [1e-2, 1e9]}
    )
    result = fit(many, epochs=10)
    good, bad = result.history[-1]["loss"]
    assert np.isfinite(good) and np.isnan(bad)
    with pytest.raises(Diverged):
        fit(jdl.ensemble(jdl.learner(learners.network(), optax.sgd(1e9)), 2), epochs=10)


def test_the_limit_of_a_learners_own_guard_holds():
    explode = jdl.guard(jdl.learner(learners.network(), optax.sgd(1e9)), 4)
    with pytest.raises(Diverged, match="too many steps in a row"):
        fit(explode, epochs=10)


# Compilations


@pytest.mark.parametrize("dispatch", ["step", "loop"])
@pytest.mark.parametrize("start", [False, True])
def test_one_program_trains_and_one_evaluates(dispatch, start, plain_run):
    given = {"start": plain_run.state} if start else {}
    with learners.compilations() as names:
        options = quiet(dispatch=dispatch, log_every=7, evaluate_every=11)
        fit(net(), valid=line(37, seed=1), best="min loss", options=options, **given)
    assert names.count("jit(step)") == 1
    assert names.count("jit(init)") == 1
    others = [name for name in names if name not in ("jit(step)", "jit(init)", "jit(copy)")]
    assert len(others) == 1, others  # the evaluation


# Evaluation and prediction


@pytest.fixture(scope="module")
def classifier():
    return fit(dropout_net(), classes(), epochs=4)


@pytest.mark.parametrize("batch_size", [5, 37, 512])
def test_an_evaluation_counts_every_example_once(classifier, batch_size):
    data = classes(37, seed=2)
    logits = jdl.predict(classifier, data["x"], batch_size=batch_size).astype(np.float64)
    assert logits.shape == (37, 2)
    right = (logits.argmax(-1) == data["y"]).mean()
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(37), data["y"]]
    numbers = jdl.evaluate(classifier, data, batch_size=batch_size)
    assert numbers["accuracy"] == right
    assert numbers["loss"] == pytest.approx(losses.mean(), rel=1e-6)


def test_an_evaluation_within_a_run_counts_every_example_once():
    valid = line(37, seed=3)
    result = fit(net(), valid=valid, epochs=1)
    error = jdl.predict(result, valid["x"]).astype(np.float64) - valid["y"]
    assert result.history[-1]["loss"] == pytest.approx((error**2).mean(), rel=1e-6)


def test_an_evaluation_refuses_what_is_not_finite(classifier):
    data = classes(5)
    data["x"][2, 1] = np.inf
    assert "evaluation data" in learners.message(lambda: jdl.evaluate(classifier, data))


def test_predict_takes_arrays_and_dicts(classifier):
    x = classes(11)["x"]
    outputs = jdl.predict(classifier, x)
    assert isinstance(outputs, np.ndarray) and outputs.shape == (11, 2)
    np.testing.assert_array_equal(outputs, jdl.predict(classifier, {"x": x}))
    np.testing.assert_allclose(outputs[:3], jdl.predict(classifier, x[:3].tolist()), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (4,), (4, 2, 3, 3)])
def test_predict_of_another_shape_names_the_shape(classifier, shape):
    text = learners.message(lambda: jdl.predict(classifier, np.zeros(shape, np.float32)))
    assert "shape" in text and str(shape) in text


def test_predict_of_a_model_by_hand_names_the_shape(plain_run):
    text = learners.message(lambda: jdl.predict(plain_run, np.zeros((4, 5), np.float32)))
    assert "{'x': (5,)}" in text and "trained on" in text


# The loop as a generator


def test_steps_goes_on_from_a_state_with_the_same_bits():
    *_, (straight, _) = itertools.islice(jdl.steps(net(0.3), line(), batch_size=8), 10)
    *_, (half, _) = itertools.islice(jdl.steps(net(0.3), line(), batch_size=8), 4)
    rest = jdl.steps(net(0.3), line(), batch_size=8, start=half)
    *_, (joined, _) = itertools.islice(rest, 6)
    learners.assert_same_bits(content(straight), content(joined))


def test_steps_donates_only_when_asked():
    kept = [t for t, _ in itertools.islice(jdl.steps(net(), line(), batch_size=8), 3)]
    assert not any(leaf.is_deleted() for t in kept for leaf in jax.tree.leaves(t.params))
    start = kept[-1]
    given = itertools.islice(jdl.steps(net(), line(), batch_size=8, start=start, donate=True), 3)
    donated = [t for t, _ in given]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated[0].params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(start))


@pytest.mark.parametrize(
    "given", [{"log_every": 2.5}, {"log_every": 2**31}, {"evaluate_every": 0.5}, {"patience": 1.5}]
)
def test_steps_are_counted_in_whole_numbers(given):
    name, value = next(iter(given.items()))
    more = given if name == "patience" else {"options": quiet(**given)}
    with pytest.raises(InputError, match=f"{name}.*\n.*an integer.*\n.*{value}"):
        fit(net(), valid=line(8), **more)


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**40 + 7, -3])
def test_the_first_state_is_that_of_the_key_of_the_seed(seed):
    feed = jdl.Feed(line(), 8)
    expected = jax.jit(net().init)(jax.random.key(seed), feed.batch(0))
    learners.assert_same_bits(init_state(net(), feed, seed), expected)


@pytest.mark.parametrize("seed", [1.5, "a", 2**63])
def test_a_seed_is_a_whole_number_beside_a_feed_with_its_own(seed):
    with pytest.raises(InputError, match=r"seed\n.*a signed 64-bit integer"):
        jdl.fit(net(), jdl.Feed(line(), 8), seed=seed, options=quiet())


@pytest.mark.parametrize("seed", [1.5, "a", -1, 2**32])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=r"seed of a data order\n.*an integer from 0"):
        fit(net(), seed=seed)


def test_a_fit_needs_something_to_choose_the_best_by():
    with pytest.raises(InputError, match="validation data"):
        fit(net(), best="min loss")
    with pytest.raises(InputError, match="patience"):
        fit(net(), patience=3)
