"""An experiment imports what lies beside its file, as a program of Python does."""

import json
import sys
from pathlib import Path

import pytest

import jdl

pytestmark = pytest.mark.usefixtures("kept_programs")

FILE = '''"""A line."""
import dataclasses, numpy as np, optax, jdl
from beside_%(name)s import SLOPE

print("building")

@dataclasses.dataclass(frozen=True)
class Config:
    """A line."""
    rate: float = 0.1

def experiment(config):
    print("hello from C", flush=True)
    x = np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    data = jdl.Data({"x": x, "y": SLOPE * x}, {}, lambda: {"x": x, "y": SLOPE * x}, {})
    task = jdl.regression(jdl.from_linen(jdl.models.MLP(features=(), outputs=1)))
    return jdl.Experiment(
        "line", jdl.learner(task, optax.sgd(config.rate)), data, batch_size=4, epochs=1,
        options=jdl.Options(bar=False),
    )

if __name__ == "__main__":
    jdl.main(Config, experiment)
'''


@pytest.fixture
def trained(call, request, monkeypatch):
    """A run whose experiment imports a module of its own, and the names of both."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"m{abs(hash(request.node.name))}"  # no test finds the module of another
    Path("src").mkdir()
    Path(f"src/beside_{name}.py").write_text("SLOPE = 2\n")
    Path("src/line.py").write_text(FILE % {"name": name})
    code, _, err = call("train", "src/line.py", "--run.dir", "run", "--run.no-report")
    assert code == 0, err
    yield Path(f"src/beside_{name}.py")
    sys.modules.pop(f"beside_{name}", None)


def test_commands_of_a_run_find_the_modules_of_its_experiment(call, trained):
    sys.modules.pop(trained.stem)
    code, out, err = call("evaluate", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 16 and "hello" in err and "building" in err


def test_only_the_answer_is_on_standard_output(call, trained):
    Path("x.csv").write_text("1\n2\n")
    code, out, err = call("predict", "run", "x.csv")
    assert code == 0 and "hello" in err
    assert [line.count(",") for line in out.splitlines()] == [0, 0, 0]
    code, out, err = call("plan", "src/line.py", "--json")
    assert "building" in err and json.loads(out)["parameters"] == 2


def test_a_module_that_was_changed_is_not_used(call, trained):
    trained.write_text("SLOPE = 3\n")
    code, _, err = call("evaluate", "run")
    assert code == 2 and trained.stem in err and "another content" in err
    trained.unlink()
    code, _, err = call("evaluate", "run")
    assert code == 2 and "no such module" in err
    with pytest.raises(jdl.InputError, match=trained.stem):
        jdl.load("run")


def test_a_module_of_that_name_from_elsewhere_is_refused(call, trained):
    Path("other").mkdir()
    Path(f"other/{trained.name}").write_text("SLOPE = 9\n")
    Path("other/line.py").write_text(Path("src/line.py").read_text())
    code, _, err = call("train", "other/line.py", "--run.dir", "new")
    assert code == 2 and "new process" in err and not Path("new").exists()


@pytest.mark.parametrize(
    "line, words",
    [
        ("from .helper import W", ["line 3", "without the dot"]),
        ("import no_such_package_of_anyone", ["line 3", "no_such_package_of_anyone", "install"]),
    ],
)
def test_imports_that_fail_are_one_message(call, line, words):
    Path("bad.py").write_text(f'"""Bad."""\n\n{line}\n')
    code, _, err = call("train", "bad.py")
    assert code == 2 and "Traceback" not in err
    assert all(word in err for word in words), err
