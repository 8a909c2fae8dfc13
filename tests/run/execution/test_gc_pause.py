"""Python's collector waits while a run starts, and is then as it was."""

import gc
import subprocess
import sys

import pytest

import jdl
from jdl.cli import main
from jdl.core.types import Learner
from jdl.run.execution.gc_pause import freeze_gc, gc_paused
from tests.support.runs import line, net, quiet


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_afterwards_as_it_was(was_on):
    try:
        (gc.enable if was_on else gc.disable)()
        with gc_paused():
            assert not gc.isenabled()
            with gc_paused():
                pass
            assert not gc.isenabled()
        assert gc.isenabled() is was_on
        with pytest.raises(ZeroDivisionError), gc_paused():
            _ = 1 / 0
        assert gc.isenabled() is was_on
    finally:
        gc.enable()


def noting(seen: list[bool]) -> Learner:
    """A learner that notes whether the collector is on when it is traced."""
    inner = net()

    def step(state, batch, *, axis=None):
        seen.append(gc.isenabled())
        return inner.step(state, batch, axis=axis)

    return inner._replace(step=step)


@pytest.mark.parametrize("form", ["step", "loop"])
def test_a_run_is_traced_without_the_collector_and_trains_with_it(form):
    traced, training = [], []
    options = quiet(dispatch=form, log_every=2)

    def log(row):
        training.append(gc.isenabled())

    jdl.fit(noting(traced), line(), batch_size=8, epochs=1, log=log, options=options)
    assert traced and not any(traced)
    assert training and all(training) and gc.isenabled()


def test_a_run_that_cannot_begin_leaves_the_collector_on():
    with pytest.raises(jdl.InputError):
        jdl.fit(net(), line(), batch_size=0, options=quiet())
    assert gc.isenabled()


def test_a_command_imports_and_loads_without_the_collector(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "import gc\n"
        "from dataclasses import dataclass\n"
        "import jdl\n"
        "from tests.support.runs import line, net\n"
        "found = [gc.isenabled()]\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    epochs: int = 1\n"
        "def experiment(config):\n"
        "    found.append(gc.isenabled())\n"
        "    print(found)\n"
        "    return jdl.Experiment('mine', net(), line(), batch_size=8, epochs=config.epochs)\n"
    )
    monkeypatch.chdir(tmp_path)
    given = ["--run.dir", "run", "--run.no-report", "--run.no-cache"]
    monkeypatch.setenv("JDL_HOST_MEMORY", "off")
    main.command(["train", str(file), *given])
    assert "[False, False]" in capsys.readouterr().out and gc.isenabled()


STAYS = """
import gc
from dataclasses import dataclass
import jdl
from tests.support.runs import line, net

@dataclass(frozen=True)
class Config:
    epochs: int = 1

def init(key, batch):
    print("passed over", gc.get_freeze_count() > 10_000)
    return net().init(key, batch)

def experiment(config):
    print("passed over", gc.get_freeze_count() > 10_000)
    return jdl.Experiment("mine", net()._replace(init=init), line(), batch_size=8, epochs=1)
"""


def test_a_command_s_collector_passes_over_what_was_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(STAYS)
    given = ["train", str(tmp_path / "mine.py"), "--run.dir", str(tmp_path / "run")]
    run = subprocess.run(
        [sys.executable, "-m", "jdl.cli", *given, "--run.no-report", "--run.no-cache"],
        capture_output=True,
        text=True,
    )
    said = [line for line in run.stdout.splitlines() if line.startswith("passed over")]
    assert said[0] == "passed over False" and set(said[1:]) == {"passed over True"}, run.stderr


def test_nothing_is_passed_over_a_second_time():
    freeze_gc()
    made = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    freeze_gc()
    assert 0 < gc.get_freeze_count() <= before and len(made) == 1000


LAST = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))  # the last to be called
from jdl.cli.process import configure_process
configure_process(cache=False, keep_memory=False)
"""


def test_a_command_ends_without_a_last_collection():
    run = subprocess.run([sys.executable, "-c", LAST], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
