"""The benchmarks' tables and sums; the times are their output, not tested here."""

import sys

import jax
import pytest

import jdl
from benchmarks import __main__ as benchmarks
from benchmarks import data_waiting, fit_overhead, many_models, start_time, step_time
from benchmarks.step_time import Round, Run
from benchmarks.workloads import WORKLOADS


def parts_of(monkeypatch, *arguments):
    """The parts that a command line would run; none is run."""
    ran = []
    processes = {start_time.first_step: "start", many_models.process_seconds: "many"}
    monkeypatch.setattr(step_time, "measure", lambda *_: ran.append("peers") or {})
    monkeypatch.setattr(
        start_time, "cold_and_warm", lambda seconds, *_: ran.append(processes[seconds]) or {}
    )
    monkeypatch.setattr(
        fit_overhead, "measure", lambda *_: ran.append("overhead") or {"by hand": [1.0]}
    )
    monkeypatch.setattr(data_waiting, "measure", lambda *_: ran.append("waiting") or {})
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    benchmarks.main()
    return ran


def test_all_parts_run_where_none_is_named(monkeypatch):
    rest = ["start", "many", "overhead", "overhead", "waiting"]
    assert parts_of(monkeypatch) == ["peers"] * len(WORKLOADS) + rest


def test_only_the_named_parts_run(monkeypatch):
    assert parts_of(monkeypatch, "many", "peers", "--workloads", "mlp") == ["peers", "many"]


def test_an_unknown_part_is_an_error(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parts_of(monkeypatch, "everything")
    assert "no part is called everything; there are peers, start" in capsys.readouterr().err


def test_a_table_has_medians_and_ratios_within_rounds():
    slow = Run(2.5, 3.0, [Round(10, 2.0, 100.0), Round(10, 1.0, 120.0), Round(10, 4.0, 110.0)])
    fast = Run(2.4, 1.0, [Round(10, 1.0, 50.0), Round(20, 1.0, 60.0), Round(10, 1.0, 55.0)])
    title, _, head, _, *rows = step_time.table("mlp", {"linen": slow, "jdl": fast}).splitlines()
    assert title == "**MLP 784-128-10**"
    assert head == "| peer | ms a step | time / linen | loss | peak MB |"
    assert rows[0] == "| linen | 200 (100–400) | 1.00 | 2.500 | 120 |"
    assert rows[1] == "| jdl | 100 (50–100) | 0.50 | 2.400 | 60 |"


def test_the_speed_of_fit_is_compared_with_the_loop_by_hand_within_rounds():
    speeds = {"by hand": [10.0, 20.0, 40.0], "jdl, default": [20.0, 10.0, 50.0]}
    *_, hand, default = fit_overhead.table("CNN A", speeds).splitlines()
    assert hand == "| by hand | 20 (10–40) | 1 (1–1) |"
    assert default == "| jdl, default | 20 (10–50) | 1.25 (0.5–2) |"


@pytest.mark.slow
def test_the_loop_by_hand_and_fit_both_train():
    *_, network = fit_overhead.networks()
    with jax.numpy_rank_promotion("allow"):  # the loop by hand is plain JAX
        speeds = fit_overhead.measure(network, rounds=1, seconds=0.2)
    assert len(speeds) == 4 and all(speed > 0 for (speed,) in speeds.values())


@pytest.mark.parametrize("name", WORKLOADS)
def test_data_is_the_same_every_time_and_fills_a_batch(name):
    work = WORKLOADS[name]
    (x, y), (again, _) = work.data(), work.data()
    assert (x == again).all() and len(x) == len(y) and len(x) % work.batch == 0


@pytest.mark.slow
def test_images_from_files_are_those_of_the_array_and_are_streamed(tmp_path):
    network = jdl.models.MLP((4,), 10)
    data_waiting.write_images(tmp_path, 256)
    (_, arrays), (_, files) = data_waiting.sources(tmp_path)
    assert len(files) == 256 and (files[7]["x"] == arrays["x"][7]).all()
    assert files[7]["y"] == arrays["y"][7]
    for source in (arrays, files):
        found = data_waiting.waiting(network, source, 0.1, log_every=5)
        assert 0 < found.share < 1 and found.read_seconds > 0 and found.steps_per_second > 0


def test_the_table_of_waiting_has_shares_and_milliseconds():
    lines = data_waiting.table({"npz": data_waiting.Waiting(0.05, 100.0, 2e-3)}).splitlines()
    assert lines[-1] == "| npz | 5.0% | 10 | 2 |"


def test_the_peer_with_a_cache_starts_twice_in_a_folder_of_its_own():
    seen = []

    def seconds(peer, environment):
        seen.append((peer, environment.get("XDG_CACHE_HOME")))
        return float(len(seen))

    found = start_time.cold_and_warm(seconds, ["raw", "jdl_train"], 2)
    assert found == {
        "raw": [1.0, 4.0],
        "jdl_train, empty cache": [2.0, 5.0],
        "jdl_train, warm cache": [3.0, 6.0],
    }
    homes = [home for peer, home in seen if peer == "jdl_train"]
    assert homes[0] == homes[1] != homes[2] == homes[3]


def test_seconds_of_processes_are_compared_with_torch_where_it_is_installed():
    *_, jdl_row, _ = start_time.table("", {"jdl": [1.0, 3.0], "torch": [2.0, 2.0]}).splitlines()
    assert jdl_row == "| jdl | 2 (1–3) | 1.00 |"
    assert start_time.table("", {"jdl": [1.0]}).splitlines()[-1] == "| jdl | 1 (1–1) |"
