"""`jdl plan`: what it prints, its verdict, and the changes that it tries."""

import dataclasses
import importlib.util
import json
import re

import jax
import numpy as np
import pytest

import jdl
from jdl.cli import main, plan, plan_changes
from jdl.cli.plan import attempts, parse_bytes, verdict
from jdl.core import tree
from jdl.core.errors import error
from jdl.core.flops import Flops
from jdl.core.types import TrainState
from jdl.parallel.estimate import Compiled, MemoryEstimate
from jdl.run.imports import load_module
from tests.support.learners import message
from tests.support.runs import ROOT

DECODER = ROOT / "experiments" / "decoder_7b.py"
SMALL = ("--vocabulary", "64", "--blocks", "1", "--heads", "2", "--width", "32", "--context", "8",
         "--batch-size", "16")  # fmt: skip


@pytest.fixture
def run(capsys):
    """`jdl plan` of the decoder, shrunk: (exit code, what it printed, its complaint)."""

    def call(*words, file=DECODER, sizes=SMALL):
        capsys.readouterr()
        try:
            main.command(["plan", str(file), *sizes, *words])
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_a_plan_is_printed(run):
    code, out, _ = run("--run.mesh", "data=8", "--memory", "1GB")
    assert code == 0
    count = (64 + 8 + 1) * 32 + 12 * 32**2 + 2 * 32
    assert f"step: {count:,} parameters, batch x 16x9; " in out
    assert re.search(rf"  parameters +{4 * count / 1000:.1f} kB", out)
    assert re.search(r"fits: [\d.]+ .B of 1.0 GB, [\d.]+ MB to spare", out)
    assert re.search(r"all-reduce +\d+ times", out)
    assert re.search(r"params/stack/blocks/dense_1/kernel +1x32x128 +whole", out)
    assert "not how fast it runs" in out and "try " not in out


def test_what_does_not_fit_and_the_change_that_makes_it_fit(run):
    words = ("--run.mesh", "data=8", "--remat", "none", "--json")
    whole = json.loads(run(*words)[1])
    assert whole["fits"] is None and whole["tries"] == []
    # Between what it takes whole and what it takes split over 8 devices.
    words = (*words[:-1], "--memory", f"{whole['needed'] * 3 // 4 // 1000}kB")
    code, out, _ = run(*words)
    assert code == 1
    assert re.search(r"^does not fit: .* too much$", out, re.M)
    lines = [line for line in out.splitlines() if line.startswith("try ")]
    assert re.fullmatch(r"try --run.sharding fsdp: fits: .* to spare", lines[-1])
    assert out.splitlines()[-1] == "it fits with --run.sharding fsdp"


def test_a_plan_without_tries_is_one_compilation(run):
    code, out, _ = run("--run.mesh", "data=8", "--memory", "1kB", "--no-suggestions")
    assert code == 1 and "does not fit" in out and "try " not in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--memory", "16"), "--memory\n  expected: a number and one of B, kB"),
        (("--memory", "1.2.3GB"), "--memory\n"),
        (("--slices", "2"), "--slices\n  expected: a number of slices, together with --topology"),
        (("--topology", "v5e:5x5"), "topology v5e:5x5\n"),
        (("--run.mesh", "data=16"), "mesh(data=16)\n  expected: axes whose product divides 8"),
        (("--run.mesh", "data=8", "--batch-size", "12"), "batch_size\n  expected: a multiple of"),
        (("--run.mesh", "data=8", "--run.sharding", "fdsp"), 'did you mean "fsdp"?'),
    ],
)
def test_words_that_cannot_be_used(run, words, complaint):
    code, _, err = run(*words)
    assert code == 2 and complaint in err


def test_a_file_is_needed(capsys):
    with pytest.raises(SystemExit) as end:
        main.command(["plan"])
    assert end.value.code == 2 and "jdl plan FILE.py" in capsys.readouterr().err


def test_the_units_of_memory():
    assert parse_bytes("15.75GiB") == 15.75 * 2**30 and parse_bytes("900 kB") == 900_000
    assert "--memory" in message(lambda: parse_bytes("."))


@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 64
    accumulate: int = 1
    remat: str = "none"
    precision: str = "float32"


FIRST = plan_changes.MemorySetup(Config(), {"data": 8}, "data")
EMPTY = TrainState((), (), {}, {}, (), {})


def made(needed=None, memory=100, refusal=None):
    """A plan that takes so many bytes."""
    compiled = None if needed is None else Compiled(0, 0, 0, needed, 0)
    held = dict.fromkeys(("parameters", "data set"), 0)
    return MemoryEstimate(
        "here", {}, {}, EMPTY, held, compiled, refusal, None, memory, (), Flops(0), {}
    )


def flags(setups):
    return [setup.flags() for setup in setups]


def test_the_changes_and_their_order():
    assert flags(plan_changes.single_changes(FIRST, 8)) == [
        "--run.sharding fsdp",
        "--run.mesh data=1,model=8 --run.sharding tensor+fsdp",
        "--remat dots",
        "--remat full",
        "--precision bfloat16",
        "--accumulate 2",
        "--accumulate 4",
        "--accumulate 8",
        "--batch-size 32",
        "--batch-size 16",
        "--batch-size 8",
    ]
    every = plan_changes.combined_change(FIRST, 8)
    assert every.flags() == "--run.sharding fsdp --remat full --precision bfloat16 --accumulate 8"
    assert every.config == Config(64, 8, "full", "bfloat16") and every.rule == "fsdp"


def test_changes_that_are_made_already_or_cannot_be_made_are_left_out():
    config = Config(8, 1, "full", "bfloat16")
    assert (
        flags(
            plan_changes.single_changes(
                plan_changes.MemorySetup(config, {"data": 8}, "tensor+fsdp"), 8
            )
        )
        == []
    )
    one = dataclasses.make_dataclass("One", [("width", int, 3)], frozen=True)()
    assert flags(plan_changes.single_changes(plan_changes.MemorySetup(one, None, "data"), 1)) == []
    assert flags(plan_changes.single_changes(plan_changes.MemorySetup(one, None, "data"), 4)) == [
        "--run.mesh data=4 --run.sharding fsdp"
    ]
    model = plan_changes.MemorySetup(one, {"data": 4, "model": 2}, "fsdp")
    assert flags(plan_changes.single_changes(model, 8)) == ["--run.sharding tensor+fsdp"]


def test_the_first_change_that_fits_ends_the_search():
    def build(setup):
        if "tensor" in setup.rule:
            raise error("rule", expected="a", got="b", fix="c")
        return made(50 if setup.config.remat == "full" else 200)

    found = list(attempts(FIRST, build, 8))
    assert [each.fits for each in found] == [False, False, False, True]
    assert found[1].reason.startswith("rule;") and found[-1].setup.flags() == "--remat full"
    assert plan._conclusion(found) == "it fits with --remat full"


def test_where_no_change_alone_is_enough_all_are_taken_together():
    def build(setup):
        c = setup.config
        return made(50 if (c.remat, c.precision) == ("full", "bfloat16") else 200)

    *alone, last = attempts(FIRST, build, 8)
    assert len(alone) == 11 and not any(each.fits for each in alone) and last.fits
    hopeless = list(attempts(FIRST, lambda setup: made(200), 8))
    assert "use more devices" in plan._conclusion(hopeless)


def test_the_verdict_in_numbers():
    assert verdict(made(40)) == "fits: 40 bytes of 100 bytes, 60 bytes to spare"
    assert verdict(made(140)) == "does not fit: 140 bytes of 100 bytes, 40 bytes too much"
    assert "pass --memory" in verdict(made(40, memory=None))
    refused = dataclasses.replace(made(refusal="HLO temporaries (9G) exceeds"), refused_at=900)
    assert verdict(refused) == (
        "does not fit: 900 bytes of 100 bytes for temporaries alone, according to the compiler's "
        "error, 800 bytes too much"
    )
    assert verdict(made(refusal="no room")) == "does not fit: no room"


def test_the_large_decoder_has_6_7_billion_parameters():
    module = load_module(DECODER)
    experiment = module.experiment(module.Config(batch_size=2))
    batch = {"x": jax.ShapeDtypeStruct((2, 2049), "int32")}
    state = jax.eval_shape(experiment.learner.init, jax.random.key(0), batch)
    d = 4096
    assert tree.count(state.params) == (50_304 + 2048 + 1) * d + 32 * (12 * d * d + 2 * d)
    assert tree.count(state.params) == 6_657_150_976
    assert state.params["stack"]["blocks"]["dense_1"]["kernel"].shape == (32, d, 4 * d)


def test_tokens_from_a_file(tmp_path):
    module = load_module(DECODER)
    np.save(tmp_path / "t.npy", np.arange(40, dtype=np.uint16) % 7)
    small = module.Config(tmp_path / "t.npy", 7, 1, 1, 4, 4, 2, 3)
    assert module.experiment(small).data["x"].shape == (10, 5)
    np.save(tmp_path / "f.npy", np.ones((2, 3)))
    for name, words in (("f.npy", "float64 of shape"), ("none.npy", "no such file")):
        wrong = dataclasses.replace(small, tokens=tmp_path / name)
        assert words in message(lambda wrong=wrong: module.experiment(wrong))


@pytest.mark.slow
def test_the_decoder_trains_shrunk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = load_module(DECODER)
    words = [*SMALL, "--steps", "60", "--learning-rate", "1e-2", "--run.dir", "run"]
    main.main(module.Config, module.experiment, [*words, "--run.no-report"])
    losses = [row["loss"] for row in jdl.load("run").history if row["split"] == "train"]
    assert losses[-1] < losses[0] < 4.2  # the logarithm of 64 is 4.16


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: see make plan-tpu"
)
def test_a_plan_for_absent_chips(run):
    code, out, _ = run("--topology", "v5e:2x2", "--run.sharding", "fsdp")
    assert code == 0 and "plan for v5e:2x2, 4 chips: mesh data=4, rule fsdp" in out
    assert "of 16.9 GB" in out and "4 × TPU v5 lite" in out
