"""What was measured once for a program is known to its next run on this machine."""

import json
import logging

import jax
import pytest

import jdl
from jdl.cli import process
from jdl.core.lowering import in_single_step_program
from jdl.data.feed import Feed
from jdl.run.execution import choosing, remembered
from jdl.run.execution.executor import DispatchMode
from tests.support.runs import classes, line, net, quiet


@pytest.fixture(autouse=True)
def no_cache():
    """None but that of a test, whatever an earlier one has left in this process."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def cache(tmp_path, no_cache):
    """A compilation cache's folder, which only these tests use."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jdl-dispatch.json"


def measured(monkeypatch, is_for_all=True) -> list[int]:
    """How often a run measured."""
    calls = []

    def measure(programs, state, steps):
        calls.append(1)
        return DispatchMode("loop", 3), is_for_all

    monkeypatch.setattr("jdl.run.execution.choosing.autotune", measure)
    return calls


def run(batch_size=8, epochs=1):
    options = quiet(dispatch="auto")
    return jdl.fit(net(), line(), batch_size=batch_size, epochs=epochs, options=options)


def test_the_second_run_of_a_program_does_not_measure(cache, monkeypatch, caplog):
    calls = measured(monkeypatch)
    with caplog.at_level(logging.INFO, "jdl"):
        run()
        run()
    assert calls == [1]
    said = [text for text in caplog.messages if text.startswith("dispatch")]
    assert said == [
        "dispatch: loop, 3 steps at a time (measured)",
        "dispatch: loop, 3 steps at a time (as measured by an earlier run)",
    ]


def test_what_was_found_for_a_short_run_is_not_taken_for_a_longer_one(cache, monkeypatch, caplog):
    calls = measured(monkeypatch, is_for_all=False)
    with caplog.at_level(logging.INFO, "jdl"):
        for epochs in (2, 1, 3, 3):
            run(epochs=epochs)
    assert len(calls) == 2  # of two and of three epochs
    assert "dispatch: loop, 3 steps at a time (the other form is not worth compiling" in caplog.text
    measured(monkeypatch)
    run(epochs=4)
    assert "steps" not in next(iter(json.loads(cache.read_text()).values()))


def test_a_cache_that_the_user_has_chosen_keeps_small_programs_too(cache):
    names = [f"jax_persistent_cache_min_{of}" for of in ("compile_time_secs", "entry_size_bytes")]
    before = [getattr(jax.config, name) for name in names]
    level = logging.getLogger("jdl").level
    try:
        for start, found in (((1.0, 0), [0.0, -1]), ((3.0, 100), [3.0, 100])):
            for name, value in zip(names, start, strict=True):
                jax.config.update(name, value)
            process.configure_process(host_memory="off")
            assert [getattr(jax.config, name) for name in names] == found
            assert jax.config.jax_compilation_cache_dir == str(cache.parent)
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
        logging.getLogger("jdl").setLevel(level)


def test_another_program_is_measured_anew(cache, monkeypatch):
    calls = measured(monkeypatch)
    run()
    run(batch_size=4)
    assert calls == [1, 1] and len(json.loads(cache.read_text())) == 4


def traced(monkeypatch, found) -> list[str]:
    """The forms that a run's step is traced in, where measuring finds `found`."""
    forms = []

    def measure(programs, state, steps):
        return found, True

    def seen(learner):
        def step(state, batch, *, axis=None):
            forms.append("step" if in_single_step_program() else "loop")
            return learner.step(state, batch, axis=axis)

        return learner._replace(step=step)

    monkeypatch.setattr("jdl.run.execution.choosing.autotune", measure)
    options = quiet(dispatch="auto")
    jdl.fit(seen(net()), line(), batch_size=8, epochs=1, options=options)
    return forms


@pytest.mark.parametrize(("form", "other"), [("step", "loop"), ("loop", "step")])
def test_the_form_of_the_last_run_with_such_data_is_the_only_one_traced(
    cache, monkeypatch, form, other
):
    found = DispatchMode(form, 2)
    assert set(traced(monkeypatch, found)) == {"loop", form}  # nothing is known: a loop is likely
    assert traced(monkeypatch, found) == [form]
    # Another program was the last one with such data: the guess is wrong, what is known is found.
    remembered.remember([choosing._kind(Feed(line(), 8))], {"form": other, "size": 5})
    calls = measured(monkeypatch)
    run()
    assert calls == []
    assert traced(monkeypatch, found) == [form]


def test_another_number_of_examples_a_batch_is_another_kind_of_data():
    kinds = [
        choosing._kind(Feed(data, size))
        for data, size in ((line(), 8), (line(), 4), (line(20), 8), (classes(), 8))
    ]
    assert kinds[0] == kinds[2] and len(set(kinds)) == 3


def test_without_a_cache_nothing_is_remembered(monkeypatch):
    calls = measured(monkeypatch)
    run()
    run()
    assert calls == [1, 1]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"KEY": 3}', '{"KEY": {"form": "fast", "size": 1}}']
)
def test_a_file_that_is_not_understood_is_as_good_as_none(cache, text):
    cache.parent.mkdir()
    cache.write_text(text.replace("KEY", remembered._key("program")))
    assert remembered.recall("program") is None
    remembered.remember(["program"], {"form": "step", "size": 1})
    assert remembered.recall("program") == {"form": "step", "size": 1}


def test_addresses_in_a_printed_program_do_not_count():
    one, two = ("pjit[f=<function g at 0x7f00> n=1]", "pjit[f=<function g at 0x7fff> n=1]")
    assert remembered._key(one) == remembered._key(two)
    assert remembered._key(one) != remembered._key(two.replace("n=1", "n=2"))


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path, cache):
    cache.parent.write_text("a file where the folder should be")
    remembered.remember(["program"], {"form": "step", "size": 1})
    assert remembered.recall("program") is None
