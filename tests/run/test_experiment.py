"""Experiments as files, and runs that are loaded again."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import jdl
from jdl.run import experiment, typed_json
from jdl.run.storage.run_dir import RunDir
from tests.support import learners
from tests.support.runs import content, counter, line, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")

FILE = '''"""A tiny experiment."""
import dataclasses
from pathlib import Path
import jdl
from tests.support.runs import line, net, quiet

@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 1e-2
    epochs: int = 2
    widths: tuple[int, ...] = (1, 2)
    place: Path | None = None

def experiment(config):
    assert isinstance(config.widths, tuple)
    return jdl.Experiment("tiny", net(rate=config.rate), line(), valid=line(20, seed=1),
                          batch_size=8, epochs=config.epochs, best="min loss", options=quiet())
'''


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def run(file, tmp_path):
    """A finished run of the file, as the command line makes it."""
    module = experiment.load_module(file)
    config = module.Config(rate=2e-2)
    folder = RunDir(tmp_path / "run", config, experiment.source_file(module.experiment))
    return module.experiment(config).fit(run_dir=folder)


def test_a_loaded_run_evaluates_and_predicts_as_it_did(run):
    loaded = jdl.load(run.run_dir)
    learners.assert_same_bits(content(loaded.state), content(run.state))
    assert jdl.evaluate(loaded, line(21)) == jdl.evaluate(run, line(21))
    x = line(7, seed=3)["x"]
    np.testing.assert_array_equal(jdl.predict(loaded, x), jdl.predict(run, x))
    assert loaded.history == run.history and loaded.run_dir == run.run_dir


def test_a_loaded_run_can_be_gone_on_with(run):
    loaded = jdl.load(run.run_dir)
    more = jdl.fit(
        loaded.learner, line(), batch_size=8, epochs=1, start=loaded.state, options=quiet()
    )
    assert more.history[0]["loss"] < run.history[0]["loss"]
    assert int(loaded.state.step) > 0  # its arrays are still there


def test_a_loaded_run_has_the_best_weights(tmp_path):
    path = tmp_path / "count.py"
    path.write_text(
        "import dataclasses, jdl\n"
        "from tests.support.runs import counter, line, quiet\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Config:\n    epochs: int = 10\n"
        "def experiment(config):\n"
        "    return jdl.Experiment('count', counter(), line(), valid=line(8), batch_size=8,\n"
        "        epochs=config.epochs, best='min loss', options=quiet(evaluate_every=5))\n"
    )
    module = experiment.load_module(path)
    folder = RunDir(tmp_path / "run", module.Config(), path)
    module.experiment(module.Config()).fit(run_dir=folder)
    assert float(jdl.load(tmp_path / "run").state.params["w"]) == 20


def test_a_changed_program_is_not_run(run, file):
    own = run.run_dir / "experiment.py"
    own.write_text(own.read_text() + "\nraise SystemExit('it ran')\n")
    text = learners.message(lambda: jdl.load(run.run_dir))
    assert "was changed after the run started; it is not executed" in text
    assert "--experiment FILE.py" in text
    loaded = jdl.load(run.run_dir, experiment=file)
    learners.assert_same_bits(content(loaded.state), content(run.state))


def test_a_run_without_a_program_asks_for_one(tmp_path, file):
    jdl.fit(counter(), line(), batch_size=8, epochs=1, run_dir=tmp_path / "plain", options=quiet())
    assert "--experiment FILE.py" in learners.message(lambda: jdl.load(tmp_path / "plain"))


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert "no such directory" in learners.message(lambda: jdl.load(tmp_path / "absent"))
    assert "without one" in learners.message(lambda: jdl.load(tmp_path))


def test_a_run_of_another_model_is_refused(run, file, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        FILE.replace(
            "net(rate=config.rate)",
            "__import__('tests.support.runs', fromlist=['counter']).counter()",
        )
    )
    text = learners.message(lambda: jdl.load(run.run_dir, experiment=other))
    assert "checkpoint" in text and "in the learner" in text


@pytest.mark.parametrize(
    ("name", "source", "fragment"),
    [
        ("absent.py", None, "no such file"),
        ("bare.py", "x = 1\n", "no Config and no experiment"),
        ("half.py", "class Config: pass\n", "no experiment"),
        ("text.txt", "x = 1\n", "a Python file"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path, name, source, fragment):
    if source is not None:
        (tmp_path / name).write_text(source)
    assert fragment in learners.message(lambda: experiment.load_module(tmp_path / name))


def test_a_configuration_survives_json(file):
    module = experiment.load_module(file)
    config = module.Config(rate=0.5, widths=(3,), place=Path("some") / "where")
    from jdl.run.storage.files import to_json

    values = json.loads(json.dumps(to_json(config) | {"fit": {"seed": 1}}))
    assert typed_json.config_from_json(module.Config, values) == config
    assert typed_json.config_from_json(module.Config, {}) == module.Config()


def test_nested_configurations_survive_json():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        sizes: tuple[int, ...] = (1,)

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()

    Outer.__annotations__["inner"] = Inner
    config = Outer(Inner((4, 5)))
    assert typed_json.config_from_json(Outer, {"inner": {"sizes": [4, 5]}}) == config


def test_the_source_of_an_experiment_is_found(file):
    assert experiment.source_file(experiment.load_module(file).experiment) == file
    assert experiment.source_file(eval("lambda config: None")) is None


def test_an_experiment_takes_another_learner_in_its_place(file):
    module = experiment.load_module(file)
    made = module.experiment(module.Config())
    wide = made.fit(learner=jdl.shard(made.learner, jdl.mesh(data=8)))
    assert len(wide.state.params["in"].sharding.device_set) == 8
    learners.assert_close(wide.state.params, made.fit().state.params)
