"""The benchmark and the check for a GPU: sizes, shares of time; a rehearsal of all is slow."""

import json
import pkgutil
import sys
import time

import jax
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import gpu, gpu_check
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


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "device_name", lambda: "cpu cpu")
    monkeypatch.setattr(gpu, "measure", lambda *given: pytest.fail("it ran"))
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
    slow = 'import time\nprint(\'{"text": "so far", "results": {}}\', flush=True)\n'
    (tmp_path / "benchmarks" / "gpu_parts.py").write_text(f"{slow}time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began, heard = time.monotonic(), []
    call = Call(time.time(), 3.0, True, None)
    assert gpu.run("mnist", call, heard.append) == "stopped after 3 s, its share of the time"
    assert heard == [{"text": "so far", "results": {}}] and time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_rehearsal_runs_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("XLA_FLAGS")  # one device, as on a machine of its own
    assert gpu.main(["--rehearse", "--minutes", "15", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert not [part for part in PARTS if "failed" in results[part]], results
    assert results["mnist"]["data"] == "digits" and results["mnist"]["step"] > 0
    assert results["gpt2"]["flops"] > 0 and results["characters"]["loss"] < 5
    assert results["peers"]["mlp"]["jdl_bf16"]["rounds"][0][0] > 0
    assert "a rehearsal: the times mean nothing" in (tmp_path / "gpu.md").read_text()


def broken_worker(tmp_path, monkeypatch):
    """A checkout whose worker has a good part, one that fails, one that dies, one that hangs."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "gpu_check_parts.py").write_text(
        "import json, os, sys, time\n"
        'print(json.dumps({"parts": ["good", "bad", "dies", "hangs", "last"]}), flush=True)\n'
        "for line in sys.stdin:\n"
        "    name = line.strip()\n"
        '    if name == "dies": os._exit(7)\n'
        '    if name == "hangs": time.sleep(60)\n'
        '    told = {"failed": "it is bad"} if name == "bad" else {"note": "fine"}\n'
        "    print(json.dumps(told), flush=True)\n"
    )
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "PART_SECONDS", 3.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    broken_worker(tmp_path, monkeypatch)
    monkeypatch.setattr(gpu, "device_name", lambda: "cpu cpu")
    monkeypatch.setattr(
        gpu_check, "headline", lambda name, *_: gpu_check.Outcome(name, 1.0, "2 ms", False)
    )
    out = tmp_path / "out"
    assert gpu_check.main(["--small", "--workers", "1", "--out", str(out)]) == 1
    told = {
        part["name"]: part for part in json.loads((out / "gpu-check.json").read_text())["parts"]
    }
    assert list(told) == ["good", "bad", "dies", "hangs", "last", *gpu_check.HEADLINES]
    assert {name for name, part in told.items() if part["failed"]} == {"bad", "dies", "hangs"}
    assert told["dies"]["note"] == "the process ended with code 7"
    assert told["hangs"]["note"] == "stopped after 3 s"
    printed = capsys.readouterr().out
    assert printed.endswith("5 parts passed, 3 failed: bad, dies, hangs\n")
    assert "GPT-2 small, bfloat16: 2 ms" in printed


def test_parts_for_which_no_time_is_left_have_failed(tmp_path, monkeypatch):
    broken_worker(tmp_path, monkeypatch)
    outcomes = list(gpu_check.capabilities(True, 1, time.monotonic() + 0.5, ""))
    assert all(outcome.failed for outcome in outcomes[-4:])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_check_covers_every_transform_and_family_and_passes(tmp_path, monkeypatch):
    from tests.support import families

    monkeypatch.delenv("XLA_FLAGS")
    options = ["--small", "--minutes", "15", "--out", str(tmp_path)]
    assert gpu_check.main(options) == 0, (tmp_path / "gpu-check.md").read_text()
    parts = json.loads((tmp_path / "gpu-check.json").read_text())["parts"]
    names = [part["name"] for part in parts]
    for transform in ("ema", "guard", "sweep", "ensemble", "window", "keep_best", "game"):
        assert f"learner: {transform}" in names
    for module in pkgutil.iter_modules(families.__path__):
        assert any(name.startswith(f"{module.name}: ") for name in names), module.name
    assert names[-3:] == list(gpu_check.HEADLINES)
    assert all(part["note"].endswith("ms a step") for part in parts[-3:])
