"""Every kind of setting comes back from config.json as it was, or is refused before training."""

import datetime
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from jdl.cli.train import train
from jdl.core.errors import InputError
from jdl.run.storage.files import to_json
from jdl.run.storage.run_dir import RunDir
from jdl.run.typed_json import check_settings, config_from_json


class Act(enum.Enum):
    RELU = "relu"
    TANH = "tanh"


class Word(enum.StrEnum):
    A = "first"


@dataclass(frozen=True)
class Inner:
    width: int = 4
    act: Act = Act.RELU


KINDS = [
    (Act, Act.TANH),
    (Word, Word.A),
    (dict[int, float], {1: 0.5}),
    (dict[Act, tuple[int, ...]], {Act.TANH: (1, 2)}),
    (frozenset[str], frozenset("ab")),
    (set[int], {3, 1}),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (tuple[tuple[int, ...], ...], ((1, 2), (3,))),
    (tuple[Path, ...], (Path("a"), Path("b"))),
    (Inner, Inner(8, Act.TANH)),
    (Inner | None, Inner(8)),
    (Inner | None, None),
    (tuple[Inner, ...], (Inner(1), Inner(2))),
    (int | str, "3"),
    (Path | None, Path("a")),
    (Literal["a", 1], 1),
    (float, 3),
    (float, float("nan")),
    (np.float32, np.float32(0.1)),
    (float, np.float32(3)),
    (complex, 1 + 2j),
    (datetime.date, datetime.date(2026, 1, 2)),
    (Any, (1, 2)),
]


@pytest.mark.parametrize(("kind", "value"), KINDS, ids=range(len(KINDS)))
def test_a_setting_comes_back_by_its_type(kind, value):
    config = make_dataclass("Config", [("setting", kind)])(value)
    check_settings(config)
    restored = config_from_json(type(config), json.loads(json.dumps(to_json(config)))).setting
    assert restored == value or value != value
    assert type(restored) is type(value) or isinstance(value, np.generic)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (tuple[int, ...], [1]),
        (Callable, print),
        (object, Act.TANH),
        (Path | str, "a"),
        (int, True),
        (np.ndarray, np.ones(2)),
    ],
    ids=["list", "function", "object", "path or str", "bool", "array"],
)
def test_a_setting_that_comes_back_as_another_is_refused_by_name(kind, value):
    with pytest.raises(InputError, match="setting"):
        check_settings(make_dataclass("Config", [("setting", kind)])(value))


@pytest.mark.parametrize("name", ["run", "fit", "sweep"])
def test_names_that_config_json_uses_are_refused_before_the_experiment_is_built(name):
    def build(config):
        raise AssertionError("built")

    with pytest.raises(InputError, match=f"Config.{name}"):
        train(make_dataclass("Config", [(name, int, 3)]), build, [], prog="jdl train")


def test_a_field_without_init_is_restored_by_the_class():
    @dataclass(frozen=True)
    class Config:
        width: int = 3
        made: int = field(init=False, default=7)

    check_settings(Config(5))
    assert config_from_json(Config, to_json(Config(5))) == Config(5)


def test_integers_and_floats_are_compared_as_numbers(tmp_path):
    run = RunDir(tmp_path / "run").create({"epochs": 3, "rates": [1, 0.5], "flag": True})
    assert not run.changed_settings({"epochs": 3.0, "rates": [1.0, 0.5], "flag": True})
    assert set(run.changed_settings({"epochs": 4.0, "rates": [1, 0.6], "flag": 1})) == {
        "epochs",
        "rates",
        "flag",
    }


FILE = """
import enum
from dataclasses import dataclass, field
import numpy as np, optax
import jdl

class Act(enum.Enum):
    RELU = "relu"
    TANH = "tanh"

@dataclass(frozen=True)
class Config:
    act: Act = Act.RELU
    scale: dict[int, float] = field(default_factory=lambda: {1: 0.5})
    features: tuple[int, ...] = (2,)

def experiment(config):
    x = np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    scale = config.scale.get(1, 100.0)
    model = jdl.from_linen(
        jdl.models.MLP(
            features=config.features,
            outputs=1,
            activation="tanh" if config.act is Act.TANH else "relu",
        )
    )
    data = jdl.data.Data({"x": x, "y": x * scale}, None, lambda: {"x": x, "y": x * scale}, {})
    options = jdl.Options(bar=False)
    return jdl.Experiment(
        "settings", jdl.learner(jdl.regression(model), optax.sgd(0.1)), data, batch_size=8,
        epochs=1, options=options,
    )
"""


@pytest.fixture
def file(call):
    Path("file.py").write_text(FILE)
    return "file.py"


def test_evaluate_gives_what_train_printed(file, call):
    code, out, _ = call("train", file, "--act", "TANH", "--run.dir", "run", "--run.no-report")
    line = next(line for line in out.splitlines() if "test loss" in line)
    assert code == 0 and line in call("evaluate", "run")[1]


@pytest.mark.parametrize(("name", "text"), [("act", "RELU,TANH"), ("features", "2,3")])
def test_a_sweep_can_be_evaluated(file, call, name, text):
    assert call("sweep", file, f"--sweep.{name}", text, "--run.dir", "run")[0] == 0
    rows = json.loads(Path("run/sweep.json").read_text())["rows"]
    values = [["RELU"], ["TANH"]] if name == "act" else [[2], [3]]
    assert sorted([row[name]] if name == "act" else row[name] for row in rows) == values
    assert call("evaluate", "run")[0] == 0
