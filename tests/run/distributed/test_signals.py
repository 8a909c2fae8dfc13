"""Ctrl-C and SIGTERM are noticed between dispatches."""

import os
import signal
import threading
import time

import pytest

import jdl
from jdl.learn.extra import inner_state
from jdl.run.distributed.signals import Interrupted, Signals
from tests.support import learners
from tests.support.runs import content, counter, line, net, quiet, saved, target_of

pytestmark = pytest.mark.usefixtures("kept_programs")


def raised(number):
    os.kill(os.getpid(), number)


def test_a_first_ctrl_c_is_noted_and_a_second_interrupts():
    with Signals(terminate=False) as signals:
        raised(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            raised(signal.SIGINT)


def test_sigterm_is_noted_where_there_is_something_to_save():
    before = signal.getsignal(signal.SIGTERM)
    with Signals(terminate=True) as signals:
        raised(signal.SIGTERM)
        raised(signal.SIGTERM)  # a second one changes nothing
        assert signals.received == signal.SIGTERM
    with Signals(terminate=False):
        assert signal.getsignal(signal.SIGTERM) == before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), Signals(terminate=True):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == before


def test_off_the_main_thread_no_handler_is_installed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def body():
        with Signals(terminate=True):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_has_saved_everything(tmp_path, number):
    def stop(row):
        if row["step"] == 10:
            raised(number)

    with pytest.raises(Interrupted) as info:
        jdl.fit(net(), line(), batch_size=8, run_dir=tmp_path / "run", options=quiet(), log=stop)
    stopped = info.value
    # The row of step 10 is read at the next boundary.
    assert stopped.step == 15 and stopped.signal == number
    assert f"stopped by {number.name} after step 15" in str(stopped)
    assert isinstance(stopped, KeyboardInterrupt)
    on_disk = saved(tmp_path / "run", target_of(net(), line()))
    on_disk = inner_state(inner_state(on_disk))  # without the run's sums and its guard
    learners.assert_same_bits(content(on_disk), content(stopped.result.state))
    assert [row["step"] for row in stopped.result.history] == [5, 10, 15]


def test_the_first_row_is_told_at_once():
    def stop(row):
        if row["step"] == 5:
            raised(signal.SIGINT)

    with pytest.raises(Interrupted) as info:
        jdl.fit(net(), line(), batch_size=8, options=quiet(), log=stop)
    assert info.value.step == 5
    assert [row["step"] for row in info.value.result.history] == [5]


def at_the_end(number):
    """Train 12 steps with the best weights at step 5; the last row sends a signal."""

    def stop(row):
        if row["step"] == 12 and row["split"] == "valid":
            raised(number)

    options = quiet(evaluate_every=5)
    return jdl.fit(
        counter(5.0), line(), valid=line(8), batch_size=8, epochs=2, best="min loss",
        options=options, log=stop,
    )  # fmt: skip


def test_a_signal_at_the_very_end_is_raised_with_the_whole_result():
    with pytest.raises(Interrupted) as info:
        at_the_end(signal.SIGINT)
    assert (info.value.step, info.value.signal) == (12, signal.SIGINT)
    assert info.value.result.history[-1]["step"] == 12
    assert float(info.value.result.state.params["w"]) == 5


def test_a_signal_at_the_very_end_goes_to_the_handler_of_the_program():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        assert float(at_the_end(signal.SIGINT).state.params["w"]) == 5
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_passed_on_and_to_whom(number):
    with Signals(terminate=True) as signals:
        pass
    assert signals.pass_on() is None
    with Signals(terminate=True) as signals:
        raised(number)
    assert signals.pass_on() == number  # SIG_DFL, and Python's own handler of SIGINT
    seen = []
    before = signal.signal(number, lambda number, frame: seen.append(number))
    with Signals(terminate=True) as signals:
        raised(number)
    assert signals.pass_on() is None and seen == [number]
    signal.signal(number, before)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_that_is_forked_meanwhile_has_the_handlers_from_before():
    read, write = os.pipe()
    with Signals(terminate=True) as signals:
        child = os.fork()
        if child == 0:
            os.write(write, b"x")  # before this, Python may drop a signal: it clears them in a fork
            while signals.received is None:
                time.sleep(0.01)
            os._exit(0)
        os.read(read, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert signals.received is None


def test_a_second_ctrl_c_ends_a_run_at_once():
    def stop(row):
        raised(signal.SIGINT)
        raised(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as info:
        jdl.fit(net(), line(), batch_size=8, options=quiet(), log=stop)
    assert not isinstance(info.value, Interrupted)
