"""The command line: what it prints, how it ends, and what it leaves."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jdl
from jdl.cli import main, process
from jdl.run.recorder import RowWriter
from jdl.run.storage.metrics_log import read_metrics
from tests.support import learners
from tests.support.runs import ROOT, content, rows

pytestmark = pytest.mark.usefixtures("kept_programs")

# Raw 8-bit pictures: jdl predict has to do to its inputs what was done to the training set.
FILE = '''"""Two classes in 4x4 pictures, bright and dark."""
import dataclasses, time
from typing import Literal
import numpy as np, optax
import jdl
from jdl.core.errors import check_range

@dataclasses.dataclass(frozen=True)
class Config:
    """A tiny classifier."""

    learning_rate: float = 3e-2
    """Of Adam."""
    epochs: int | None = None
    batch_size: int = 16
    kind: Literal["adam", "sgd"] = "adam"
    members: int = 0
    best: bool = False
    slow: float = 0.0
    """Seconds to sleep for each example that is read."""

    def __post_init__(self):
        check_range("learning_rate", self.learning_rate, 0)

class Slow:
    def __init__(self, data, seconds):
        self.data, self.seconds = data, seconds
    def __len__(self):
        return len(self.data["x"])
    def __getitem__(self, i):
        time.sleep(self.seconds)
        return {k: v[i] for k, v in self.data.items()}

def experiment(config: Config) -> jdl.Experiment:
    draw = np.random.default_rng(0)
    y = (np.arange(120) % 2).astype(np.int32)
    x = (draw.integers(0, 128, (120, 4, 4)) + 127 * y[:, None, None]).astype(np.uint8)
    data = jdl.data.from_arrays(x, y, name="brightness")
    model = jdl.from_linen(jdl.models.MLP((4,), outputs=2))
    tx = getattr(optax, config.kind)(config.learning_rate)
    learner = jdl.learner(jdl.classification(model), tx)
    if config.members:
        learner = jdl.ensemble(learner, config.members)
    train = jdl.Feed(Slow(data.train, config.slow), config.batch_size) if config.slow else data
    return jdl.Experiment(
        name="bright", learner=learner, data=train, batch_size=config.batch_size,
        epochs=config.epochs or 6, best="max accuracy" if config.best else None,
        options=jdl.Options(log_every=5, bar=False, dispatch="step", save_seconds=0.5),
    )

if __name__ == "__main__":
    jdl.main(Config, experiment)
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "bright.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    """The folder of a finished run, and what its command printed."""
    import contextlib
    import io

    folder, screen = tmp_path_factory.mktemp("runs") / "run", io.StringIO()
    with contextlib.redirect_stdout(screen):
        main.command(["train", str(file), "--run.dir", str(folder), "--batch-size", "8"])
    return folder, screen.getvalue()


# Training


def test_train_prints_the_result_first_and_the_folder_last(trained):
    folder, out = trained
    lines = out.splitlines()
    assert re.fullmatch(r"test accuracy \d\.\d+ \(95 % 0\.\d+.[01]\.\d+, n 24\)", lines[0])
    assert lines[-1] == f"run    {folder}"
    assert f"report {folder / 'report.html'}" in lines
    assert re.match(r"time   \d+\.\d s: \w+ \d+ %, .*FLOP a step, .*FLOP/s$", lines[-2])


@pytest.mark.parametrize("kept", [True, False])
def test_a_training_process_keeps_its_memory_unless_told_not_to(call, file, monkeypatch, kept):
    asked = []
    monkeypatch.setenv("JDL_HOST_MEMORY", "on" if kept else "off")
    monkeypatch.setattr(process, "keep_freed_pages", lambda: asked.append("kept") or True)
    assert call("train", file, "--epochs", "1", "--run.no-report")[0] == 0
    assert bool(asked) == kept


@pytest.mark.parametrize("words", [(), ("--run.verbose",)])
def test_how_a_run_is_carried_out_is_for_those_who_ask(call, file, caplog, monkeypatch, words):
    monkeypatch.setattr(process, "keep_freed_pages", lambda: True)
    assert call("train", file, "--epochs", "1", "--run.no-report", *words)[0] == 0
    said = ["host memory" in caplog.text, "dispatch: " in caplog.text]
    assert said == [bool(words)] * 2


@pytest.mark.parametrize(("words", "kind"), [((), "step"), (("--run.dispatch", "loop"), "loop")])
def test_the_dispatch_can_be_chosen(call, file, tmp_path, words, kind):
    call("train", file, "--epochs", "1", "--run.dir", tmp_path / "run", *words)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"]["dispatch"] == kind


def test_train_leaves_a_whole_folder(trained):
    folder, _ = trained
    for name in (
        "config.json",
        "experiment.py",
        "environment.json",
        "metrics.jsonl",
        "report.html",
    ):
        assert (folder / name).stat().st_size > 0
    assert (folder / "checkpoints" / "63").is_dir()  # 84 examples in batches of 8, 6 times
    assert list((folder / "figures").glob("*.png")) and list((folder / "events").iterdir())
    config = json.loads((folder / "config.json").read_text())
    assert config["batch_size"] == 8 and config["epochs"] == 6
    assert config["fit"]["batch_size"] == 8 and config["fit"]["seed"] == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["n"] == 24 and result["accuracy"] > 0.8


def test_folders_are_numbered_and_more_epochs_go_on(call, file):
    assert call("train", file, "--epochs", "1", "--run.no-report")[0] == 0
    code, out, _ = call("train", file, "--epochs", "2", "--run.no-report")
    assert code == 0 and out.splitlines()[-1] == f"run    {Path('runs/bright/2')}"
    assert not Path("runs/bright/2/report.html").exists()
    longer = ("train", file, "--run.dir", "runs/bright/1", "--run.no-report", "--epochs", "2")
    assert call(*longer)[0] == 0
    like = jdl.load("runs/bright/2").state
    learners.assert_same_bits(content(jdl.load("runs/bright/1").state), content(like))
    code, _, err = call(*longer[:-1], "1")
    assert code == 2 and "epochs: 2 in the run, 1 now" in err


def test_epochs_left_open_can_be_raised_later(call, file):
    assert call("train", file, "--run.dir", "a", "--run.no-report")[0] == 0
    assert call("train", file, "--run.dir", "a", "--run.no-report", "--epochs", "7")[0] == 0
    assert read_metrics(Path("a/metrics.jsonl"))[-1]["epoch"] >= 7


def test_another_configuration_is_refused(call, file, trained):
    folder, _ = trained
    code, _, err = call("train", file, "--run.dir", folder, "--kind", "sgd", "--run.seed", "3")
    assert code == 2
    assert 'kind: "adam" in the run, "sgd" now' in err
    assert "fit.batch_size: 8 in the run, 16 now" in err
    assert "fit.seed: 0 in the run, 3 now" in err


@pytest.mark.slow
def test_seeds_are_repeated_and_summed_up(call, file):
    words = (
        "train",
        file,
        "--run.seeds",
        "2",
        "--run.seed",
        "4",
        "--epochs",
        "1",
        "--run.no-report",
    )
    code, out, _ = call(*words)
    assert code == 0
    assert re.search(r"^test accuracy 0\.\d{4} ± 0\.\d{4} \(n 2 seeds\)$", out, re.M)
    folders = [Path("runs/bright/1") / f"seed-{seed}" for seed in (4, 5)]
    values = [json.loads((f / "result.json").read_text())["accuracy"] for f in folders]
    assert f"test accuracy {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in out


def test_a_mesh_and_a_rule(call, file, caplog):
    rule = "dense_1/kernel=None,data; fsdp"
    given = ("--run.mesh", "data=4", "--run.sharding", rule, "--epochs", "2", "--run.no-report")
    assert call("train", file, "--run.dir", "wide", *given)[0] == 0
    assert "layout on the mesh data=4 (4 × cpu):" in caplog.text
    assert re.search(r"params/dense_1/kernel +16x4 +None,data +64 bytes", caplog.text)
    caplog.clear()
    assert call("train", file, "--run.dir", "one", *given[4:])[0] == 0
    wide, one = (jdl.load(name).state.params for name in ("wide", "one"))
    assert "layout" not in caplog.text
    learners.assert_close(wide, one)
    assert call("evaluate", "wide")[0] == 0


def test_a_warm_start(call, file, trained):
    folder, _ = trained
    given = ("--run.start", folder, "--learning-rate", "1e-9", "--epochs", "1", "--run.no-report")
    assert call("train", file, "--run.dir", "warm", *given)[0] == 0
    learners.assert_close(jdl.load("warm").state.params, jdl.load(folder).state.params)
    code, _, err = call("train", file, "--run.start", "absent")
    assert code == 2 and "run directory absent" in err and not Path("runs").exists()


def test_a_fork_states_its_changes_alone(call, file, trained):
    folder, _ = trained  # trained with --batch-size 8
    fork = ("--run.fork", folder, "--learning-rate", "1e-9", "--epochs", "7", "--run.no-report")
    assert call("train", *fork)[0] == 0
    config = json.loads(Path("runs/bright/1/config.json").read_text())
    assert config["batch_size"] == 8 and config["learning_rate"] == 1e-9
    learners.assert_close(jdl.load("runs/bright/1").state.params, jdl.load(folder).state.params)
    _, out, _ = call("list")
    first = int(jdl.load(folder).state.step)
    assert f"fork of {folder}@{first} (learning_rate: 0.03 -> 1e-09; epochs: 6 -> 7)" in out
    again = call("train", file, *fork, "--run.dir", "runs/bright/1")
    assert again[0] == 0  # it resumes, here with the file too


def test_a_fork_that_cannot_be_is_refused(call, file, trained):
    folder, _ = trained
    fork = ("train", "--run.fork", folder, "--epochs", "7")
    code, _, err = call(*fork, "--kind", "sgd")
    assert code == 2 and "opt_state/0/count" in err and not Path("runs").exists()
    code, _, err = call("train", "--run.fork", f"{folder}@1")
    assert code == 2 and "choose one of the steps" in err
    code, _, err = call("train", "--run.fork", "absent")
    assert code == 2 and "run directory absent" in err
    assert call("train", "--run.fork")[0] == 2


def test_an_edited_experiment_is_refused_with_its_diff(call, tmp_path):
    file = tmp_path / "edited.py"
    file.write_text(FILE)
    words = ("train", file, "--run.dir", "run", "--epochs", "1", "--run.no-report")
    assert call(*words)[0] == 0
    file.write_text(FILE.replace("(config.learning_rate)", "(2 * config.learning_rate)"))
    code, _, err = call(*words[:-2], "2", "--run.no-report")
    assert code == 2 and "(2 * config.learning_rate)" in err and "--run.fork run" in err


@pytest.mark.slow
def test_members_are_trained_evaluated_and_predicted_with(call, file):
    given = ("--members", "3", "--epochs", "1", "--run.dir", "many", "--run.no-report")
    code, out, _ = call("train", file, *given)
    assert code == 0 and out.startswith("test accuracy ")
    code, out, _ = call("evaluate", "many", "--json")
    assert len(json.loads(out)["accuracy"]) == 3
    np.save("x.npy", np.zeros((5, 4, 4), np.uint8))
    assert len(call("predict", "many", "x.npy")[1].splitlines()) == 1 + 5


# Help and flags


def test_help_is_quick_and_loads_no_jax():
    began = time.perf_counter()
    program = (
        "import sys; from jdl.cli.main import command; command(['--help']);"
        "print('jax' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    spent = time.perf_counter() - began
    assert "jdl train FILE.py" in out and out.rstrip().endswith("False")
    assert spent < 0.5 + 10 * (os.getloadavg()[0] > os.cpu_count())  # no promise on a busy machine


def test_help_of_an_experiment_lists_fields_and_options(call, file):
    code, out, _ = call("train", file, "--help")
    assert code == 0
    for flag in (
        "--learning-rate",
        "--epochs",
        "--run.dir",
        "--run.seeds",
        "--run.mesh",
        "--run.sharding",
    ):
        assert flag in out
    assert "A tiny classifier" in out and "Of Adam" in out


@pytest.mark.parametrize(
    "words",
    [["train", "--help"], ["check-sharding", "--help"], ["evaluate", "-h"], ["--help"], []],
)
def test_help_of_a_command(call, words):
    code, out, _ = call(*words)
    assert code == 0 and out.startswith(f"usage: jdl {words[0]} " if words[1:] else "jdl: ")


def test_version(call):
    assert call("--version") == (0, f"jdl {jdl.__version__}\n", "")


def test_an_unknown_flag_offers_the_nearest(call, file):
    code, _, err = call("train", file, "--learning-rat", "1")
    assert code == 2 and "--learning-rat" in err and "--learning-rate" in err
    code, _, err = call("evaluate", "run", "--jsn")
    assert code == 2 and 'did you mean "--json"?' in err
    code, _, err = call("check-shading", file)
    assert code == 2 and 'did you mean "check-sharding"?' in err
    code, _, err = call("check-sharding")
    assert code == 2 and "jdl check-sharding FILE.py" in err
    code, _, err = call("trian", file)
    assert code == 2 and 'did you mean "train"?' in err


# Evaluate and predict


def test_evaluate_prints_the_result_first_and_json(call, trained):
    folder, printed = trained
    code, out, _ = call("evaluate", folder)
    assert code == 0 and out.splitlines()[0] == printed.splitlines()[0]
    code, out, _ = call("evaluate", folder, "--json")
    numbers = json.loads(out)
    assert numbers == json.loads((folder / "result.json").read_text())
    assert set(numbers) == {"split", "n", "loss", "accuracy"}


@pytest.fixture(scope="module")
def pictures():
    """Raw 8-bit pictures, three of them bright."""
    x = np.zeros((5, 4, 4), np.uint8)
    x[[0, 2, 3]] = 220
    return x


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.csv", "head.csv", "x.png"])
def test_predict_reads_raw_files(call, trained, pictures, name):
    folder, _ = trained
    if name == "x.npz":
        np.savez(name, x=pictures)
    elif name == "x.npy":
        np.save(name, pictures[..., None])
    elif name == "x.png":
        from PIL import Image

        Image.fromarray(pictures[0]).save(name)
    else:
        header = ",".join(f"p{i}" for i in range(16)) if name == "head.csv" else ""
        np.savetxt(name, pictures.reshape(5, -1), "%d", ",", header=header, comments="")
    code, out, _ = call("predict", folder, name)
    assert code == 0
    found = list(csv.DictReader(out.splitlines()))
    wanted = ["1"] if name == "x.png" else ["1", "0", "1", "1", "0"]
    assert [row["prediction"] for row in found] == wanted
    logits = jdl.predict(jdl.load(folder), pictures[..., None].astype(np.float32) / 255)
    given = [[float(row[f"output_{i}"]) for i in range(2)] for row in found]
    np.testing.assert_allclose(given, logits[: len(given)], rtol=1e-5)


def test_predict_writes_a_file(call, trained, pictures):
    np.save("x.npy", pictures)
    code, out, _ = call("predict", trained[0], "x.npy", "--out", "out.csv")
    assert code == 0 and out == "" and len(Path("out.csv").read_text().splitlines()) == 6
    code, _, err = call("predict", trained[0], "x.npy", "--out", "no/where.csv")
    assert code == 2 and "cannot be written" in err


def broken(name):
    """A file that cannot be predicted from."""
    if name == "truncated.npz":
        np.savez("whole.npz", x=np.zeros((4, 4, 4)))
        Path(name).write_bytes(Path("whole.npz").read_bytes()[:200])
    elif name == "other.npz":
        np.savez(name, y=np.zeros(3))
    elif name == "program.npy":
        np.save(name, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif name == "words.npy":
        np.save(name, np.array([["a"] * 16]))
    elif name == "large.npy":
        np.save(name, np.zeros((2, 8, 8)))  # a multiple of 16 numbers, but not pictures of 4x4
    elif name == "torn.csv":
        Path(name).write_text("1,2\n1,2,3\n")
    elif name == "empty.csv":
        Path(name).write_text("")
    elif name == "noise.png":
        Path(name).write_bytes(b"not a picture")


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("absent.npy", "no such file"),
        ("truncated.npz", "truncated.npz"),
        ("other.npz", "an array x"),
        ("program.npy", "could run code and are never loaded"),
        ("words.npy", "an array of numbers"),
        ("large.npy", "examples of shape (4, 4, 1)"),
        ("torn.csv", "torn.csv, line 2"),
        ("empty.csv", "an empty file"),
        ("noise.png", "cannot identify image"),
    ],
)
def test_predict_refuses_other_files(call, trained, name, fragment):
    folder, _ = trained
    broken_before = set(os.listdir())
    broken(name)
    assert broken_before <= set(os.listdir())
    code, out, err = call("predict", folder, name)
    assert code == 2 and out == "" and fragment in err and "Traceback" not in err


def test_a_changed_program_is_not_run(call, file, trained, tmp_path):
    import shutil

    shutil.copytree(trained[0], tmp_path / "copy")
    own = tmp_path / "copy" / "experiment.py"
    own.write_text(own.read_text() + "\nprint('it ran')\n")
    code, out, err = call("evaluate", "copy")
    assert code == 2 and "was changed after the run started" in err and "it ran" not in out
    code, out, _ = call("evaluate", "copy", "--experiment", file)
    assert code == 0 and out.splitlines()[0] == trained[1].splitlines()[0]


def test_report_and_list(call, trained):
    folder, _ = trained
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, out, _ = call("report", folder)
    assert code == 0 and out == f"report {folder / 'report.html'}\n"
    assert len((folder / "report.html").read_bytes()) > 0.5 * len(page)
    code, out, _ = call("list", folder.parent)
    assert code == 0 and f"{folder}  step 63  " in out and "accuracy" in out
    assert call("list")[1] == "no runs in runs\n"


# Sweep


def test_a_sweep_prints_its_table_best_first(call, file):
    words = (
        "sweep",
        file,
        "--sweep.learning-rate",
        "1e-7,1e-2",
        "--run.seeds",
        "2",
        "--epochs",
        "3",
    )
    code, out, _ = call(*words)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "valid accuracy, best first (n 2 seeds)"
    assert lines[1].startswith("  learning_rate 0.01  ")
    assert lines[2].startswith("  learning_rate 1e-07  ")
    assert "± " in lines[1] and "95 %" in lines[1]
    assert lines[-1] == f"run    {Path('runs/bright-sweep/1')}"
    table = json.loads(Path("runs/bright-sweep/1/sweep.json").read_text())
    assert [row["learning_rate"] for row in table["rows"]] == [1e-2, 1e-7]
    assert table["rows"][0]["mean"] >= table["rows"][1]["mean"]

    code, out, _ = call("evaluate", "runs/bright-sweep/1")
    assert code == 0
    assert "± " in out.splitlines()[0] and "of 4 members, n " in out.splitlines()[0]
    assert len(jdl.load("runs/bright-sweep/1").learner.points) == 4
    code, _, err = call("predict", "runs/bright-sweep/1", "any.npz")
    assert code == 2 and "a sweep, whose members are different learners" in err


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "--sweep.learning-rate 1e-4,1e-3"),
        (["--sweep.learning-rat", "1"], 'did you mean "learning_rate"?'),
        (["--sweep.learning-rate", "1e-3,much"], "much"),
        (["--sweep.kind", "adam,sdg"], "sdg"),
        (["--sweep.best", "true,maybe"], "true,false"),
        (["--sweep.batch-size", "8,16"], "differ in batch_size"),
        (["--sweep.learning-rate", "-1,1"], "a number of at least 0"),
        (["--sweep.learning-rate", "1,2", "--run.start", "run"], "--run.start"),
        (["--sweep.learning-rate"], "values separated by commas"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(call, file, words, fragment):
    code, _, err = call("sweep", file, *words)
    assert code == 2 and fragment in err and not Path("runs").exists()


# Ends


def test_a_diverged_run_ends_with_3_and_keeps_its_folder(call, file):
    code, _, err = call("train", file, "--kind", "sgd", "--learning-rate", "1e30", "--epochs", "30")
    assert code == 3
    assert "training diverged: in 10 steps in a row" in err and "first bad step:" in err
    assert "run:            runs/bright/1" in err
    assert len(rows(Path("runs/bright/1"))) > 1 and Path("runs/bright/1/checkpoints").is_dir()
    loaded = jdl.load("runs/bright/1")
    assert all(
        np.isfinite(leaf).all() for leaf in learners.numbers(loaded.state.params)["output"].values()
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)],
)
def test_a_stopped_command_prints_the_one_that_resumes(
    call,
    file,
    tmp_path,
    program_store,
    number,
    code,
):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(program_store),
        "PYTHONUNBUFFERED": "1",
    }
    words = ["train", str(file), "--slow", "0.002", "--epochs", "20", "--run.no-report"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jdl.cli", *words],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "runs" / "bright" / "1" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not log.is_file():
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"stopped by {number.name} after step" in err and "Traceback" not in err
    resume = shlex.split(next(line for line in err.splitlines() if "--run.dir" in line))
    assert resume == ["jdl", *words, "--run.dir", "runs/bright/1"]
    stopped = read_metrics(log)[-1]["step"]
    assert 0 < stopped < 105
    assert call(*resume[1:])[0] == 0
    assert read_metrics(log)[-1]["step"] == 105
    assert call(*words, "--run.dir", "straight")[0] == 0
    assert rows(log.parent) == rows(tmp_path / "straight")
    learners.assert_same_bits(
        content(jdl.load(log.parent).state), content(jdl.load(tmp_path / "straight").state)
    )


def test_a_signal_at_the_end_of_a_seed_stops_the_next_ones(call, file, monkeypatch):
    plain = RowWriter.write

    def write(self, row):
        plain(self, row)
        if (row["step"], row["split"]) == (6, "valid"):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RowWriter, "write", write)
    code, _, err = call("train", file, "--epochs", "1", "--run.seeds", "3", "--run.no-report")
    assert code == 0 and "stopped by SIGTERM after step 6" in err
    assert [path.name for path in Path("runs/bright/1").iterdir()] == ["seed-0"]


def test_an_experiment_is_a_program_too(file, tmp_path, program_store):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(program_store / "own"),
    }
    words = [sys.executable, str(file), "--epochs", "1", "--run.no-report"]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test accuracy ")
    assert (tmp_path / "runs/bright/1/experiment.py").read_text() == FILE
    assert any((program_store / "own" / "jdl" / "xla").iterdir())  # programs are kept for next time


def test_ctrl_c_before_training_says_no_more_than_that(call, monkeypatch):
    from jdl.cli import list

    def stop(given):
        raise KeyboardInterrupt

    monkeypatch.setattr(list, "command", stop)
    assert call("list") == (130, "", "jdl: interrupted\n")
