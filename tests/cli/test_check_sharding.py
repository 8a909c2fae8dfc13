"""jdl check-sharding: what agrees passes, what does not is named and ends with another code."""

import os
import subprocess
import sys
import types

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import jdl
from jdl.cli import check_sharding, main
from jdl.cli.check_sharding import divisible_feed
from jdl.data.feed import Feed
from jdl.learn.ema import ema
from jdl.parallel import compare
from jdl.parallel.compare import (
    Layout,
    compare_layouts,
    layouts,
    leaf_differences,
    possible_layouts,
)
from jdl.parallel.mesh import mesh
from tests.support.learners import batch, message, network
from tests.support.runs import ROOT

pytestmark = pytest.mark.usefixtures("kept_programs")

DATA = {k: v for k, v in batch(48).items() if k != "mask"}
FEED = Feed(DATA, 16)
BATCHES = [FEED.batch(step) for step in range(4)]
FSDP = next(layout for layout in layouts() if layout.name == "data=8 fsdp")


def adam(noise=0.0):
    return ema(jdl.learner(network(noise=noise), optax.adam(1e-2)), 0.9)


def check(learner, *wanted):
    return list(compare_layouts(learner, wanted, BATCHES))


def summed_twice(inner):
    """What tutorials write: a sum over devices of gradients that shard_map has summed already."""

    def over_devices(call):
        def on_device(state, part):
            return call(state, part)

        mapped = jax.shard_map(
            on_device, mesh=mesh(data=8), in_specs=(P(), P("data")), out_specs=P(), check_vma=False
        )
        return lambda state, batch, *, axis=None: mapped(state, batch)

    def gradient(state, part):
        grads, (model_state, metrics) = inner.gradient(state, part, axis="data")
        return jax.tree.map(lambda g: jax.lax.psum(g, "data"), grads), (model_state, metrics)

    def step(state, part):
        return inner.step(state, part, axis="data")

    return inner._replace(step=over_devices(step), gradient=over_devices(gradient))


def test_a_right_layout_passes():
    (row,) = check(adam(noise=0.1), FSDP)
    assert row.layout == "data=8 fsdp" and row.is_right
    assert max(row.loss, row.gradient, row.evaluation) < 1e-5
    assert row.held < 0.5


def test_a_sum_too_many_is_seen():
    """The control: losses are right, and Adam would hide a gradient eight times too large."""
    (row,) = check(adam(), Layout("mistaken", summed_twice))
    assert not row.is_right and row.loss < 1e-5
    assert row.gradient == pytest.approx(7, rel=0.01) and row.worst in ("in", "out")


def test_a_learner_without_gradient_is_compared_by_its_norms():
    """The control: a step whose gradient is too large reports the norm of it."""
    by_hand = adam()._replace(gradient=None)

    def louder(inner):
        def step(state, batch, *, axis=None):
            state, metrics = inner.step(state, batch)
            norm = metrics["gradient_norm"]
            return state, metrics | {"gradient_norm": jdl.Mean(2 * norm.total, norm.weight)}

        return inner._replace(step=step)

    right, wrong = check(by_hand, FSDP, Layout("mistaken", louder))
    assert right.is_right and right.worst == ""
    assert wrong.gradient == pytest.approx(1) and not wrong.is_right


@pytest.mark.slow
def test_values_drawn_while_tracing_are_seen():
    """The control for an experiment that is not a function of its key."""
    task, draw = network(), np.random.default_rng(0)

    def loss(params, model_state, batch, key, *, train):
        noisy = batch | {"x": batch["x"] + draw.normal()}
        return task.loss(params, model_state, noisy, key, train=train)

    (row,) = check(jdl.learner(task._replace(loss=loss), optax.sgd(0.1)), FSDP)
    assert not row.is_right


def test_values_that_are_not_finite_never_agree():
    nan = np.array([1.0, np.nan])
    assert compare._difference(nan, nan) == np.inf
    assert compare._difference([1e-9, -2.0], [0.0, -2.2]) == pytest.approx(0.1)
    zero, one = np.zeros(2), np.array([3.0, 4.0])
    assert leaf_differences({"a": nan, "b": one}, {"a": nan, "b": one})["a"] == np.inf
    # A leaf of zeros is measured by the whole: five times a thousandth.
    found = leaf_differences({"a": zero, "b": one}, {"a": zero + np.array([0, 5e-6]), "b": 2 * one})
    assert found == pytest.approx({"a": 1e-3, "b": 1.0}, rel=2e-3)


def test_tensor_is_tried_where_there_is_a_transformer():
    possible, why = possible_layouts(adam(), BATCHES[0], layouts())
    assert [layout.name for layout in possible] == [
        "data=8 data",
        "data=8 fsdp",
        "data=4,model=2 fsdp",
    ]
    assert all("needs the layers of a transformer" in reason for reason in why.values())
    decoder = jdl.models.Decoder(vocabulary=6, context=4, blocks=1, heads=2, width=4)
    task = jdl.tasks.language_model(jdl.from_linen(decoder), context=4)
    tokens = {"x": np.zeros((8, 5), np.int32)}
    possible, why = possible_layouts(jdl.learner(task, optax.adam(0.1)), tokens, layouts())
    assert len(possible) == 5 and not why


def test_a_layout_that_must_be_possible_is_not_skipped():
    odd = Layout(
        "odd", lambda inner: jdl.shard(inner, mesh(data=8), jdl.rules.regex([("no", P())]))
    )
    text = message(lambda: possible_layouts(adam(), BATCHES[0], [odd]))
    assert text.startswith("pattern 'no'")


@pytest.mark.parametrize(
    "size, examples, whole", [(12, 48, 24), (16, 48, 16), (12, 20, 8), (3, 9, 8)]
)
def test_batches_that_eight_devices_divide(size, examples, whole):
    made = jdl.Experiment("e", adam(), batch(examples), batch_size=size)
    assert divisible_feed(made).batch_size == whole


FILE = '''
import dataclasses, numpy as np, optax, jdl

@dataclasses.dataclass(frozen=True)
class Config:
    """One of two networks for sequences of six digits."""
    width: int = 8
    batch_size: int = 8
    transformer: bool = False

def experiment(config):
    x = (np.arange(32)[:, None] + np.arange(5)) % 6
    if config.transformer:
        network = jdl.models.Decoder(6, context=4, blocks=1, heads=2, width=config.width)
        task, data = jdl.tasks.language_model(jdl.from_linen(network), context=4), {"x": x}
    else:
        task = jdl.regression(jdl.from_linen(jdl.models.MLP((config.width,), 1)))
        data = {"x": x.astype("float32"), "y": x[:, :1].astype("float32")}
    learner = jdl.learner(task, optax.adam(1e-2))
    return jdl.Experiment("digits", learner, data, batch_size=config.batch_size)
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "digits.py").write_text(FILE)
    return str(tmp_path / "digits.py")


@pytest.mark.slow
def test_the_command_prints_a_table_and_ends_with_1_where_one_differs(file, capsys, monkeypatch):
    some = [layout for layout in layouts() if layout.name != "data=8 data"][1:3]
    monkeypatch.setattr(check_sharding, "layouts", lambda: some)
    main.command(["check-sharding", file, "--batch-size", "4"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("3 steps of 8 examples on 8 devices (cpu) and on one")
    assert out[2].split()[-1] == "ok"
    assert out[2].split()[:2] == ["data=4,model=2", "fsdp"]
    assert out[-2].startswith("skipped data=4,model=2 tensor: tensor('model') needs the layers of")
    assert out[-1] == "every layout agrees with one device within 0.001"
    monkeypatch.setattr(check_sharding, "layouts", lambda: [Layout("mistaken", summed_twice)])
    with pytest.raises(SystemExit) as end:
        main.command(["check-sharding", file])
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "FAIL: mistaken: differs by more than 0.001; the gradient of " in out
    assert "every layout agrees" not in out


@pytest.fixture
def found(monkeypatch):
    """What the command was to compare; each layout is found as far off as `apart` says."""
    seen = types.SimpleNamespace(tried=[], apart=1e-7)

    def compare_layouts(learner, layouts, batches, seed):
        for layout in layouts:
            seen.tried.append(layout.name)
            yield compare.Comparison(
                layout.name, seen.apart, 0.0, 0.0, 0.25, worst="dense_1/kernel"
            )

    monkeypatch.setattr(check_sharding, "compare_layouts", compare_layouts)
    return seen


def test_the_code_says_whether_all_agree(file, capsys, found):
    main.command(["check-sharding", file, "--batch-size", "12"])
    out = capsys.readouterr().out.splitlines()
    assert found.tried == ["data=8 data", "data=8 fsdp", "data=4,model=2 fsdp"]
    assert out[0].startswith("3 steps of 24 examples on 8 devices (cpu) and on one")
    assert out[3].split() == ["data=8", "fsdp", "1.0e-07", "0.0e+00", "0.0e+00", "25%", "ok"]
    assert out[5].startswith("skipped data=4,model=2 tensor: tensor('model') needs the layers of")
    assert out[-1] == "every layout agrees with one device within 0.001"
    found.apart = 0.5
    with pytest.raises(SystemExit) as end:
        main.command(["check-sharding", file])
    assert end.value.code == 1
    out = capsys.readouterr().out
    line = (
        "FAIL: data=8 fsdp: differs by more than 0.001; the gradient of dense_1/kernel differs most"
    )
    assert line in out and "every layout agrees" not in out


def test_a_rule_of_ones_own_is_checked_too(file, capsys, found):
    given = ["--run.mesh", "data=2,model=4", "--run.sharding"]
    main.command(["check-sharding", file, *given, "output/kernel=data+model; fsdp"])
    assert found.tried[-1] == "data=2,model=4 output/kernel=data+model; fsdp"
    with pytest.raises(SystemExit) as end:
        main.command(["check-sharding", file, *given, "ouptut=model"])
    assert end.value.code == 2 and "pattern 'ouptut'" in capsys.readouterr().err


def test_it_starts_anew_where_devices_are_too_few(monkeypatch):
    begun = {}

    def run(words, env):
        begun.update(words=words, env=env)
        return subprocess.CompletedProcess(words, 7)

    monkeypatch.setattr(jax, "devices", lambda: [None])
    monkeypatch.setattr(check_sharding.subprocess, "run", run)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_other=1")
    with pytest.raises(SystemExit) as end:
        main.command(["check-sharding", "any.py", "--width", "4"])
    assert end.value.code == 7
    assert begun["words"][1:] == ["-m", "jdl.cli", "check-sharding", "any.py", "--width", "4"]
    assert begun["env"]["JAX_PLATFORMS"] == "cpu"
    assert begun["env"]["XLA_FLAGS"].split() == [
        "--xla_other=1",
        "--xla_force_host_platform_device_count=8",
    ]


@pytest.mark.slow
def test_the_whole_command_in_a_process_of_its_own(file, program_store):
    """As a user calls it: one device, no flags."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(program_store)}
    environment.pop("XLA_FLAGS")
    words = [sys.executable, "-m", "jdl.cli", "check-sharding", file, "--transformer"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ok\n") == 5 and "8 devices (cpu)" in done.stdout
