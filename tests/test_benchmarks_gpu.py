"""The benchmark for a GPU: its sizes, its shares of time; a rehearsal of all of it is slow."""

import json
import sys
import time

import jax
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import gpu
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
    monkeypatch.setattr(gpu, "_device", lambda: "cpu cpu")
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
