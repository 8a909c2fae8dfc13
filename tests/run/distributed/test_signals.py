"""Ctrl-C and SIGTERM are noticed between dispatches."""

import os
import signal
import threading

import pytest

import jdl
from jdl.learn.extra import inner_state
from jdl.run.distributed.signals import Interrupted, Signals
from tests.support import learners
from tests.support.runs import content, line, net, quiet, saved, target_of

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


def test_a_signal_at_the_very_end_loses_nothing():
    def stop(row):
        if row["step"] == 60:
            raised(signal.SIGINT)

    result = jdl.fit(net(), line(), batch_size=8, options=quiet(), log=stop)
    assert int(result.state.step) == 60


def test_a_second_ctrl_c_ends_a_run_at_once():
    def stop(row):
        raised(signal.SIGINT)
        raised(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as info:
        jdl.fit(net(), line(), batch_size=8, options=quiet(), log=stop)
    assert not isinstance(info.value, Interrupted)
