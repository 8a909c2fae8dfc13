"""Rows come back as they were written, and TensorBoard finds them."""

import errno
import json
import logging
import math
import os
import threading

import numpy as np
import pytest

from jdl.core.errors import InputError
from jdl.core.text import is_timing, without_timings
from jdl.run.storage.metrics_log import MetricsLog, read_metrics
from jdl.run.trackers import tensorboard
from jdl.run.trackers.tensorboard import TensorBoard

# Rows


def test_rows_come_back_exactly(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    rows = [
        {
            "step": 1,
            "split": "train",
            "loss": 0.1 + 0.2,
            "tiny": 5e-324,
            "big": 1.7976931348623157e308,
        },
        {"step": 2, "loss": math.nan, "up": math.inf, "down": -math.inf},
        {"step": 3, "members": [[0.1, 1 / 3], [2, 3]], "name": "Größe\n"},
    ]
    for row in rows:
        log.append(row)
    log.sync()
    got = read_metrics(log.path)
    assert repr(got) == repr(rows)
    assert '"loss": NaN, "up": Infinity, "down": -Infinity' in log.path.read_text()
    log.close()
    assert repr(read_metrics(log.path)) == repr(rows)


def test_numpy_numbers_become_plain_ones(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": np.int64(1), "loss": np.float32(0.1), "all": np.array([[1.5], [np.nan]])})
    log.close()
    (row,) = read_metrics(log.path)
    assert repr(row) == "{'step': 1, 'loss': 0.10000000149011612, 'all': [[1.5], [nan]]}"
    with pytest.raises(TypeError, match="a row holds numbers, strings and lists, not object"):
        log.append({"step": object()})


def test_no_file_is_no_rows(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []
    assert MetricsLog(tmp_path / "none.jsonl").cut(5) == []
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3}', "{", "\x00\x00"])
def test_a_torn_last_line_is_left_out_and_spoils_no_later_row(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1}\n{"step": 2}\n'
    path.write_text(whole + torn)
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    log = MetricsLog(path)
    log.append({"step": 4})
    log.close()
    assert path.read_text() == whole + '{"step": 4}\n'
    path.write_text(torn)
    log.append({"step": 4})
    log.close()
    assert read_metrics(path) == [{"step": 4}]


@pytest.mark.parametrize("line", ["{'step': 2}", "", "7", "\x00"])
def test_a_damaged_line_in_the_middle_is_an_error(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError) as info:
        read_metrics(path)
    assert str(info.value) == (
        f"{path}, line 2\n"
        '  expected: a JSON object with an integer "step"\n'
        f"  got:      {line!r}\n"
        "  fix:      delete the line, or restore the file from a backup"
    )


def test_cut_back_to_a_step_and_go_on(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        log.append({"step": step, "split": "train", "loss": 1 / step, "bad": math.nan})
        log.append({"step": step, "split": "valid"})
    whole = [row for step in range(1, 4) for row in read_rows(log, step)]

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            log.cut(3)
    assert len(read_metrics(log.path)) == 10  # a cut that is killed leaves the file as it was
    assert repr(log.cut(3)) == repr(whole) == repr(read_metrics(log.path))
    log.append({"step": 4, "split": "again"})
    log.close()
    assert [row["step"] for row in read_metrics(log.path)] == [1, 1, 2, 2, 3, 3, 4]
    assert log.cut(-1) == [] == read_metrics(log.path)


def read_rows(log, step):
    log.sync()
    return [row for row in read_metrics(log.path) if row["step"] == step]


def test_a_cut_log_has_the_bytes_of_one_that_was_never_longer(tmp_path):
    row = {"step": 1, "loss": 0.1, "list": [1.0, math.inf]}
    for name in ("short", "long"):
        log = MetricsLog(tmp_path / name)
        log.append(row)
        if name == "long":
            log.append({**row, "step": 2})
            log.cut(1)
        log.close()
    assert (tmp_path / "short").read_bytes() == (tmp_path / "long").read_bytes()


def test_sync_makes_rows_durable(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle)))
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1})
    assert synced == []
    log.sync()
    assert len(synced) == 1 and read_metrics(log.path) == [{"step": 1}]


def test_a_full_disk_is_said_plainly(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError) as info:
            log.sync()
    assert str(info.value) == (
        f"{log.path} cannot be written\n"
        "  expected: free space on the disk\n"
        "  got:      No space left on device\n"
        "  fix:      free some space"
    )
    log.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected: a writable directory"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl").append({})


def test_clocks():
    clocks = {"seconds": 1, "steps_per_second": 2, "time": 3, "wait_feed": 4, "wall_time": 5}
    assert all(map(is_timing, clocks))
    kept = {"step": 1, "loss": 2.0, "weight": 3, "epoch": 1.5, "gradient_norm": 4.0}
    assert without_timings({**kept, **clocks}) == kept


# TensorBoard


def events_in(folder) -> list:
    """What every event file holds, read with tensorboardX's own record format."""
    import struct

    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def scalars_in(folder) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events_in(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_events_hold_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    events = TensorBoard(tmp_path / "events")
    assert not (tmp_path / "events").exists()
    events.write({"step": 1, "split": "train", "loss": 0.5})
    events.write({"step": 1, "split": "valid", "accuracy": [0.0, 0.5]})
    events.write({"step": 2, "split": "train", "loss": math.nan, "top 5": 0.75})
    events.close()
    events.close()
    got = scalars_in(tmp_path / "events")
    assert got["valid/accuracy"] == [(1, 0.25)]
    assert got["train/top_5"] == [(2, 0.75)]  # as TensorBoard wants its names
    assert got["train/loss"][0] == (1, 0.5)
    assert got["train/loss"][1][0] == 2 and math.isnan(got["train/loss"][1][1])
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_a_resumed_run_tells_tensorboard_to_drop_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    for first in (1, 7):
        events = TensorBoard(tmp_path)
        events.write({"step": first, "split": "train", "loss": 1.0})
        events.close()
    assert scalars_in(tmp_path) == {"train/loss": [(1, 1.0), (7, 1.0)]}
    starts = [event.step for event in events_in(tmp_path) if event.session_log.status == 1]
    assert starts == [7]


def test_events_need_no_thread_and_sync_makes_them_durable(tmp_path, monkeypatch):
    """A thread that begins while a profiler does can be lost, and the run would wait for it."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    synced, before = [], threading.active_count()
    real = os.fsync
    events = TensorBoard(tmp_path)
    events.write({"step": 1, "split": "train", "loss": 1.0})
    assert threading.active_count() == before
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle)))
    events.sync()
    assert len(synced) == 1 and scalars_in(tmp_path) == {"train/loss": [(1, 1.0)]}
    events.close()


def test_events_that_cannot_be_written_are_said_plainly(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    events = TensorBoard(tmp_path)
    events.write({"step": 1, "split": "train", "loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            InputError, match="cannot be written\n  expected: free space on the disk"
        ):
            events.sync()
    events.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected: a writable directory"):
        TensorBoard(tmp_path / "file" / "events").write({"step": 1, "split": "train", "loss": 1.0})


def test_without_tensorboard_one_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.DEBUG, "jdl"):
        events = TensorBoard(tmp_path / "events")
        for step in range(3):
            events.write({"step": step, "split": "train", "loss": 1.0})
        events.close()
    assert [record.getMessage() for record in caplog.records] == [
        'no TensorBoard events; for these: pip install "jdl-jax[tensorboard]"'
    ]
    assert not (tmp_path / "events").exists()


def test_rows_are_json_lines_for_others_too(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1, "loss": 0.5})
    log.close()
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5}
    ]
