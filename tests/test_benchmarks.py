"""The benchmarks' own words and sums; what they time is their output, not tested here."""

import functools
import sys

import pytest

import jdl
from benchmarks import __main__ as benchmarks
from benchmarks import feeding, many, overhead, processes, race, start, throughput
from benchmarks.race import Round, Run
from benchmarks.workloads import WORKLOADS


def called(monkeypatch, *words):
    """The parts that a command line would run, none of which is run."""
    ran, one_round = [], {many.seconds: "many", start.seconds: "start"}
    one_round |= {throughput.measured: "throughput", throughput.sweep_seconds: "sweep"}
    monkeypatch.setattr(race, "race", lambda *given: ran.append("peers") or {})
    monkeypatch.setattr(race, "table", lambda *given: "")
    monkeypatch.setattr(
        processes, "measured", lambda seconds, *given, **more: ran.append(one_round[seconds]) or {}
    )
    rest = {
        "families": "measured",
        "growth": "measured",
        "feeding": "measured",
        "overhead": "tables",
    }
    for name, function in rest.items():
        note = functools.partial(lambda name, *given: ran.append(name) or {}, name)
        monkeypatch.setattr(getattr(benchmarks, name), function, note)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    benchmarks.main()
    return ran


def test_all_parts_run_where_none_is_named(monkeypatch):
    rest = ["many", "throughput", "sweep", *benchmarks.PARTS[2:]]
    assert called(monkeypatch) == ["peers"] * len(WORKLOADS) + rest


def test_only_the_named_parts_run(monkeypatch):
    assert called(monkeypatch, "many", "peers", "--workloads", "mlp") == [
        *("peers", "many", "throughput", "sweep")
    ]


def test_an_unknown_part_is_an_error(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        called(monkeypatch, "everything")
    assert "no part is called everything; there are peers, many" in capsys.readouterr().err


def test_a_table_has_medians_and_ratios_within_rounds():
    slow = Run(2.5, 3.0, [Round(10, 2.0, 100.0), Round(10, 1.0, 120.0), Round(10, 4.0, 110.0)])
    fast = Run(2.4, 1.0, [Round(10, 1.0, 50.0), Round(20, 1.0, 60.0), Round(10, 1.0, 55.0)])
    lines = race.table("two", {"linen": slow, "jdl": fast}).splitlines()
    assert lines[-2] == "| linen | 200 (100–400) | 1.00 | 2.500 | 120 |"
    assert lines[-1] == "| jdl | 100 (50–100) | 0.50 | 2.400 | 60 |"


def test_the_loop_s_cost_is_taken_beside_the_same_programs_within_rounds():
    speeds = {
        "by hand": [10.0, 20.0, 40.0],
        "jdl's step, bare": [20.0, 10.0, 50.0],
        "jdl, one step a dispatch": [10.0, 10.0, 40.0],
    }
    *_, bare, step = overhead.table(speeds).splitlines()
    assert bare == "| jdl's step, bare | 20 (10–50) | 1.25 (0.5–2) |  |"
    assert step == "| jdl, one step a dispatch | 10 (10–40) | 1 (0.5–1) | 0.8 (0.5–1) |"


@pytest.mark.parametrize("name", WORKLOADS)
def test_data_is_the_same_every_time_and_fills_a_batch(name):
    work = WORKLOADS[name]
    (x, y), (again, _) = work.data(), work.data()
    assert (x == again).all() and len(x) == len(y) and len(x) % work.batch == 0


@pytest.mark.slow
def test_images_from_files_are_those_of_the_array_and_are_streamed(tmp_path):
    network = jdl.models.MLP((4,), 10)
    feeding.written(tmp_path, 256)
    (_, arrays), (_, files) = feeding.sources(tmp_path)
    assert len(files) == 256 and (files[7]["x"] == arrays["x"][7]).all()
    assert files[7]["y"] == arrays["y"][7]
    for source in (arrays, files):
        found = feeding.waits(network, source, 0.1, every=5)
        assert 0 <= found.share < 1 and found.read > 0 and found.steps_per_second > 0
    assert "| npz | 5.0% | 10 | 2 |" in feeding.table({"npz": feeding.Waits(0.05, 100.0, 2e-3)})


def test_throughput_counts_every_model_and_compares_within_rounds():
    torch = [{"models": 1, "before": 2.0, "seconds": s} for s in (1.0, 2.0, 0.5)]
    many = [{"models": 32, "before": 3.0, "seconds": s} for s in (0.5, 0.5, 0.5)]
    lines = throughput.table({"jdl": many, throughput.TORCH: torch}).splitlines()
    assert lines[-2] == "| jdl | 32 (32–32) | 64 | 3 (3–3) |"
    assert lines[-1].endswith("| 0.5 (0.25–1) | 1 | 2 (2–2) |")


def test_the_peer_with_a_cache_starts_twice_in_a_folder_of_its_own():
    seen = []

    def seconds(peer, environment):
        seen.append((peer, environment.get("XDG_CACHE_HOME")))
        return float(len(seen))

    found = processes.measured(seconds, ["raw", "jdl_train"], 2)
    assert found == {
        "raw": [1.0, 4.0],
        "jdl_train, empty cache": [2.0, 5.0],
        "jdl_train, warm cache": [3.0, 6.0],
    }
    homes = [home for peer, home in seen if peer == "jdl_train"]
    assert homes[0] == homes[1] != homes[2] == homes[3]
