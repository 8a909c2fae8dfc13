"""A learning rate that follows evaluations, exact on resume, and the rate among the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl.optim import observe_evaluation, reduce_on_plateau
from jdl.optim.plateau import plateaus
from tests.support.runs import assert_same_run, line, quiet

DATA, VALID = line(48), line(16, seed=1)
VALID["y"] = VALID["y"] + np.random.default_rng(0).normal(size=(16, 1)).astype("float32")


def learner(rate=0.3, **how):
    inject = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    how = {"patience": 1, "factor": 0.5, "rtol": 0.9, **how}
    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    return jdl.learner(jdl.regression(model), reduce_on_plateau(inject, **how))


def fit(made=None, **how):
    how = {"valid": VALID, "batch_size": 8, "epochs": 8, "options": quiet(log_every=2), **how}
    return jdl.fit(made or learner(), DATA, **how)


def scales(values, **how):
    """The scale after each value of the loss."""
    state, found = reduce_on_plateau(optax.sgd(1.0), **how).init(jnp.zeros(2)), []
    for value in values:
        state = observe_evaluation(state, {"loss": value, "gain": -value})
        found.append(float(state.scale))
    return found


@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("patience", [1, 3])
def test_scales_are_those_of_optax(patience, cooldown):
    values = np.abs(np.random.default_rng(patience).normal(size=40)).astype("float32")
    values[5] = np.nan
    how = {"factor": 0.7, "patience": patience, "cooldown": cooldown, "min_scale": 0.2}
    theirs = optax.contrib.reduce_on_plateau(**how)
    state, expected = theirs.init(jnp.zeros(2)), []
    update = jax.jit(lambda state, value: theirs.update(jnp.zeros(2), state, value=value)[1])
    for value in values:
        state = update(state, value)
        expected.append(float(state.scale))
    assert scales(values, **how) == pytest.approx(expected, rel=1e-5)
    assert min(expected) == pytest.approx(0.2)


def test_more_is_better_with_max_whatever_the_sign():
    values = [3.0, 2.0, 2.5, 1.0, -1.0, -1.0, -0.9, -2.0]
    how = {"patience": 2, "factor": 0.5}
    assert scales(values, by="max gain", **how) == scales(values, **how)
    assert scales([1.0, 0.9, 0.9], patience=1, rtol=0.2, factor=0.5) == [1.0, 0.5, 0.25]


def test_fit_lowers_the_rate_and_logs_it(straight):
    result = straight
    rates = {r["step"]: r["learning_rate"] for r in result.history if r["split"] == "train"}
    losses = {r["step"]: r["loss"] for r in result.history if r["split"] == "valid"}
    falls = scales(losses.values(), patience=1, factor=0.5, rtol=0.9)
    expected, seen = {}, dict(zip(losses, falls, strict=True))
    for step in rates:  # an evaluation counts from the next step
        expected[step] = np.float32(0.3) * next(
            (seen[at] for at in sorted(seen, reverse=True) if at < step), 1.0
        )
    assert rates == pytest.approx(expected)
    assert len(set(rates.values())) > 1 and seen[max(seen)] < 1
    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    plain = jdl.learner(jdl.regression(model), optax.sgd(0.3))
    assert all("learning_rate" not in row for row in fit(plain, epochs=1).history)


def test_a_schedule_is_logged_as_it_was_used():
    model = jdl.from_linen(jdl.models.MLP((), outputs=1))
    schedule = optax.linear_schedule(0.1, 0.0, 24)
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(learning_rate=schedule))
    result = fit(jdl.learner(jdl.regression(model), tx), epochs=4)
    rates = {r["step"]: r["learning_rate"] for r in result.history if r["split"] == "train"}
    assert rates == pytest.approx({step: float(schedule(step - 1)) for step in rates}, rel=1e-5)


class Stop(Exception):
    pass


SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def straight():
    return fit(best="min loss")


@pytest.mark.parametrize("last", [16, pytest.param(6, marks=SLOW), pytest.param(30, marks=SLOW)])
def test_a_resume_is_exact(straight, tmp_path, last):
    def stop(row):
        if row["step"] >= last:
            raise Stop

    with pytest.raises(Stop):
        fit(run_dir=tmp_path, best="min loss", log=stop)
    with pytest.raises(jdl.InputError, match="reduce_on_plateau"):
        fit(learner(factor=0.4), run_dir=tmp_path, best="min loss")
    assert_same_run(fit(run_dir=tmp_path, best="min loss"), straight)


def build(width):
    model = jdl.from_linen(jdl.models.MLP((width,), outputs=1))
    return jdl.learner(
        jdl.regression(model), reduce_on_plateau(optax.sgd(0.3), patience=1, factor=0.5, rtol=0.9)
    )


@pytest.mark.parametrize("form", ["ensemble", pytest.param("sweep", marks=SLOW), "shard"])
def test_members_fall_separately_and_devices_agree(form):
    forms = {
        "ensemble": lambda: jdl.ensemble(build(2), 3),
        "sweep": lambda: jdl.sweep(build, {"width": [2, 3]}, seeds=2),
        "shard": lambda: jdl.shard(build(2), jdl.mesh(data=4)),
    }
    result = fit(forms[form]())
    rows = [row["loss"] for row in result.history if row["split"] == "valid"]
    losses = np.array(rows).reshape(len(rows), -1).T
    how = {"patience": 1, "factor": 0.5, "rtol": 0.9}
    expected = [scales(own, **how)[-1] for own in losses]
    found = np.concatenate([np.ravel(s.scale) for s in plateaus(result.state.opt_state)])
    np.testing.assert_allclose(found, expected)
    assert min(expected) < 1


def test_wrong_uses_name_a_fix_that_works():
    with pytest.raises(jdl.InputError, match=r"optax.contrib.reduce_on_plateau"):
        fit(valid=None)
    with pytest.raises(jdl.InputError, match="clean/loss"):
        fit(valid={"clean": VALID})
    fit(learner(by="min clean/loss"), valid={"clean": VALID}, epochs=1)
    with pytest.raises(jdl.InputError, match='"loss"'):
        fit(learner(by="min los"))
    for wrong in ({"by": "loss"}, {"factor": 1}, {"patience": 0}, {"rtol": -1}, {"cooldown": -1}):
        with pytest.raises(jdl.InputError, match=next(iter(wrong))):
            reduce_on_plateau(optax.sgd(1.0), **wrong)
