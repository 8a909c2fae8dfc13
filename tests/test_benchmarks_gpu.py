"""The benchmark for a GPU: its sizes, its sums, its words; a rehearsal of all of it is slow."""

import json
import sys
import time

import jax
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import gpu, trace
from benchmarks.gpu_parts import PARTS, REAL, Call, gpt2_learner
from jdl.core import tree
from jdl.core.flops import flops
from jdl.models import Decoder, from_linen


def test_every_part_has_a_share_and_there_are_no_others():
    assert list(gpu.SHARES) == list(PARTS)


def test_the_character_transformer_has_ten_point_seven_million_parameters():
    c = REAL.characters
    network = Decoder(65, c["context"], c["blocks"], c["heads"], c["width"], c["dropout"])
    tokens = jax.ShapeDtypeStruct((1, c["context"]), "int32")
    params, _ = jax.eval_shape(from_linen(network).init, jax.random.key(0), tokens)
    assert tree.count(params) == 10_745_088


@pytest.mark.slow
def test_gpt2_has_the_size_and_the_work_it_is_known_by():
    tokens = {"x": jax.ShapeDtypeStruct((1, REAL.gpt2["context"] + 1), "int32")}
    learner = gpt2_learner(REAL)
    state = jax.eval_shape(learner.init, jax.random.key(0), tokens)
    # GPT-2 small has 124,439,808; its table is 47 rows longer here.
    assert tree.count(state.params) == 124_439_808 + 47 * 768
    # Six operations a weight and token, the table's among them once, and attention's products.
    d, blocks, time = 768, 12, 1024
    weights = blocks * 12 * d * d + 50_304 * d
    by_hand = 6 * weights * time + blocks * 12 * time * time * d
    assert flops(learner.step, state, tokens).count == by_hand


def gpu_events():
    """Three kernels on a stream, what the host did, and the same time told by module."""
    names = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "Stream #13"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 8, "args": {"name": "XLA Modules"}},
        {"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "/host:CPU"}},
    ]
    rows = [(7, "gemm", 0, 30), (7, "fusion", 30, 10), (7, "gemm", 60, 40), (8, "jit_step", 0, 100)]
    events = [{"ph": "X", "pid": 1, "tid": t, "name": n, "ts": s, "dur": d} for t, n, s, d in rows]
    host = {"ph": "X", "pid": 2, "tid": 1, "name": "wait", "ts": 0, "dur": 500}
    return [*names, *events, host | {"args": {"hlo_op": "wait"}}]


def test_only_kernels_on_streams_count():
    found = trace.of_events(gpu_events())
    assert found.kernels == {"gemm": 70, "fusion": 10} and list(found.kernels) == ["gemm", "fusion"]
    assert (found.busy, found.span) == (80, 100) and found.idle == pytest.approx(0.2)
    text = found.text(steps=2)
    assert (
        "| `gemm` | 87.5% | 0.035 |" in text
        and "0.04 ms of kernels a step of 0.05 ms; the device is idle for 20% of them." in text
    )
    assert text.endswith("The first thing to fix: `gemm`, 88% of the kernels' time.")


def test_gaps_that_are_longer_than_any_kernel_come_first():
    found = trace.Profile({"gemm": 20.0}, busy=20.0, span=100.0)
    assert found.first.startswith("the gaps between kernels")


def test_a_trace_without_a_device_says_so():
    assert "no event of a device" in trace.of_events([]).text(1)


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_device", lambda: "cpu cpu")
    monkeypatch.setattr(gpu, "measured", lambda *given: pytest.fail("it ran"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu"])
    with pytest.raises(SystemExit) as end:
        benchmarks.main()
    assert end.value.code == gpu.NO_GPU == 4
    assert "There is no GPU here: jax's backend is cpu" in capsys.readouterr().err


def test_an_unknown_part_is_an_error(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["everything"])
    assert "no part is called everything; there are mnist, gpt2" in capsys.readouterr().err


def test_a_part_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)  # where the parts are others
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()  # or an installed one would be found first
    slow = 'import time\nprint(\'{"text": "so far", "numbers": {}}\', flush=True)\n'
    (tmp_path / "benchmarks" / "gpu_parts.py").write_text(f"{slow}time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began, heard = time.monotonic(), []
    call = Call(time.time(), 3.0, True, None, str(tmp_path))
    assert gpu.run("mnist", call, heard.append) == "stopped after 3 s, its share of the time"
    assert heard == [{"text": "so far", "numbers": {}}] and time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_rehearsal_runs_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("XLA_FLAGS")  # one device, as on a machine of its own
    assert gpu.main(["--rehearse", "--minutes", "15", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert not [part for part in PARTS if "failed" in results[part]], results
    assert results["mnist"]["data"] == "digits" and results["mnist"]["step"] > 0
    assert results["gpt2"]["flops"] > 0 and results["characters"]["loss"] < 5
    assert results["table"]["mlp"]["jdl_bf16"]["rounds"][0][0] > 0
    for part in ("mnist", "gpt2", "characters"):
        assert results[part][f"{part}_kernels"] and any((tmp_path / f"trace-{part}").iterdir())
    assert "a rehearsal: the numbers mean nothing" in (tmp_path / "gpu.md").read_text()
