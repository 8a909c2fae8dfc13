"""Bad input: one clear message and exit code 2, before training starts and with nothing lost."""

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import optax
import pytest
from flax import linen as nn

import jdl
from jdl.cli import main
from jdl.core.errors import check_range
from tests.support import learners
from tests.support.runs import ROOT, classes, counter, line, net, quiet

pytestmark = pytest.mark.usefixtures("kept_programs")

MNIST = ROOT / "experiments" / "mnist_cnn.py"


@pytest.fixture
def refused(capfd, monkeypatch, tmp_path):
    """Runs a command that has to be refused; its one message. Nothing may be left behind."""
    monkeypatch.chdir(tmp_path)
    kept = {"before": set(tmp_path.rglob("*"))}

    def run(start, *words):
        kept["before"] = set(tmp_path.rglob("*"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            start([str(word) for word in words])
        out, err = capfd.readouterr()
        assert end.value.code == 2, err
        assert err.startswith("jdl: ") and err.count("expected: ") == 1 and "fix: " in err
        for inside in ("Traceback", "jax._src", "XlaRuntimeError", "ConcretizationTypeError"):
            assert inside not in err
        made = {p for p in set(tmp_path.rglob("*")) - kept["before"] if p.is_file()}
        assert not made and out == ""
        return err

    return run


# Files


def idx(array, magic=None):
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Four IDX files of nine pictures each; returns a function that writes one of them anew."""
    folder = tmp_path / "mnist"
    folder.mkdir()

    def write(stem, content):
        (folder / stem).write_bytes(content)
        return folder

    for part in ("train", "t10k"):
        write(f"{part}-images-idx3-ubyte", idx(np.zeros((9, 28, 28))))
        write(f"{part}-labels-idx1-ubyte", idx(np.arange(9)))
    return write


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
# Without the time of day, which would give the case another content in each test process.
PACKED = gzip.compress(idx(np.zeros((9, 28, 28))), mtime=0)


@pytest.mark.parametrize(
    ("stem", "content", "fragments"),
    [
        (IMAGES, None, ["a file train-images-idx3-ubyte or", "none in"]),
        (IMAGES, idx(np.zeros((9, 28, 28)))[:-5], [IMAGES, "7056 bytes", "cut short"]),
        (IMAGES, idx(np.zeros((9, 28, 28)), b"\x7fELF"), [IMAGES, "magic number 7f454c46"]),
        (IMAGES, idx(np.zeros((9, 28))), [IMAGES, "images: 3 dimensions", "2 dimensions"]),
        (IMAGES, PACKED[:-9], [IMAGES, "an intact gzip file"]),
        (LABELS, idx(np.arange(8)), [LABELS, "9 labels, one for each image", "8 labels"]),
        (
            LABELS,
            idx(np.arange(9) + 3),
            [LABELS, "labels from 0 to 9", "2 out of range, the first 10"],
        ),
        (LABELS, b"", [LABELS, "magic number missing"]),
    ],
    ids=["missing", "cut", "magic", "rank", "gzip", "count", "range", "empty"],
)
def test_a_bad_idx_file_is_named(refused, mnist, stem, content, fragments):
    folder = mnist(stem, content or b"")
    if content is None:
        (folder / stem).unlink()
    err = refused(main.command, "train", MNIST, "--data-dir", folder)
    assert all(fragment in err for fragment in fragments), err


def test_a_set_too_small_to_validate_on_is_refused(refused, mnist):
    err = refused(main.command, "train", MNIST, "--data-dir", mnist(LABELS, idx(np.arange(9))))
    assert "more than 5000 images" in err and "9 images" in err


# Arrays and networks


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment that goes wrong in the way it is told to."""

    trouble: str = "none"
    batch_size: int = 8
    epochs: float = 1.0
    share: float = 0.5
    log_every: int = 5

    def __post_init__(self):
        check_range("share", self.share, 0, 1)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, use_bias=False, name="dense")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(2, name="output")(x)


def troubled(name):
    """Task and data in which something is wrong."""
    line_model = jdl.from_linen(jdl.models.MLP((4,), outputs=1))
    class_model = jdl.from_linen(jdl.models.MLP((4,), outputs=2))
    pictures = np.zeros((24, 8, 8, 1), np.float32)
    labels = np.arange(24, dtype=np.int32) % 2
    regression, classification = jdl.regression(line_model), jdl.classification(class_model)
    cnn = jdl.from_linen(jdl.models.CNN(features=(4, 4), hidden=(), classes=2))
    flat, two = line(24), classes(24)
    hole = flat["x"].copy()
    hole[5, 2] = np.nan
    return {
        "none": (classification, two),
        "flat y": (regression, {"x": flat["x"], "y": flat["y"][:, 0]}),
        "columns": (classification, {"x": two["x"], "y": two["y"][:, None]}),
        "one-hot": (classification, {"x": two["x"], "y": np.eye(2, dtype=np.int32)[two["y"]]}),
        "floats": (classification, {"x": two["x"], "y": two["y"].astype(np.float32)}),
        "words": (classification, {"x": two["x"], "y": np.array(["a", "b"] * 12)}),
        "labels": (classification, {"x": two["x"], "y": np.where(np.arange(24) == 21, 7, 1)}),
        "negative": (classification, {"x": two["x"], "y": np.where(np.arange(24) == 21, -1, 1)}),
        "nan": (regression, {"x": hole, "y": flat["y"]}),
        "infinite": (regression, {"x": flat["x"], "y": np.full_like(flat["y"], np.inf)}),
        "huge": (regression, {"x": flat["x"].astype(np.float64) * 1e300, "y": flat["y"]}),
        "lengths": (regression, {"x": flat["x"], "y": flat["y"][:-1]}),
        "empty": (regression, {"x": flat["x"][:0], "y": flat["y"][:0]}),
        "no y": (regression, {"x": flat["x"]}),
        "no x": (regression, {"images": flat["x"], "y": flat["y"]}),
        "scalar": (regression, {"x": flat["x"], "y": 1.0}),
        "list": (regression, [flat["x"], flat["y"]]),
        "small image": (jdl.classification(cnn), {"x": pictures, "y": labels}),
        "no channel": (jdl.classification(cnn), {"x": np.zeros((24, 28, 28), "f4"), "y": labels}),
        "mask": (
            jdl.classification(jdl.from_linen(Normed())),
            two | {"mask": (np.arange(24) > 0).astype(np.float32)},
        ),
    }[name]


def experiment(config):
    task, data = troubled(config.trouble)
    return jdl.Experiment(
        "troubled",
        jdl.learner(task, optax.sgd(0.01)),
        data,
        batch_size=config.batch_size,
        epochs=config.epochs,
        options=quiet(log_every=config.log_every),
    )


def train(words):
    main.main(Config, experiment, words)


@pytest.mark.parametrize(
    ("trouble", "fragments"),
    [
        ("flat y", ["y\n", "the outputs' shape (8, 1)", "shape (8,)", "y[..., None]"]),
        ("columns", ["integer class labels of shape (8,)", "(8, 1)", "y[..., 0]"]),
        ("one-hot", ["y.argmax(-1)", "soft_cross_entropy"]),
        ("floats", ["integer class labels", "float32", "y.astype(int)"]),
        ("words", ['["y"]', "an array of numbers", "dtype <U1"]),
        ("labels", ['training data["y"]', "labels from 0 to 1", "1 out of range, the first 7"]),
        ("negative", ["labels from 0 to 1", "the first -1 at index [21]"]),
        ("nan", ['training data["x"]', "1 of 72 not finite", "the first nan at index [5, 2]"]),
        ("infinite", ['training data["y"]', "24 of 24 not finite", "inf at index [0, 0]"]),
        ("huge", ["values that fit in float32"]),
        ("lengths", ["arrays of the same length", "x 24, y 23"]),
        ("empty", ["at least one example", "an empty set"]),
        ("no y", ['batch["y"]', "entries x"]),
        ("no x", ['batch["x"]', "entries images, y"]),
        ("scalar", ['["y"]', "a scalar"]),
        ("list", ["examples that are dicts", "ndarray"]),
        ("small image", ["layer pool_2", "(8, 1, 1, 4)", "(8, 0, 0, 4)", 'padding="SAME"']),
        ("no channel", ["[..., None]"]),
        ("mask", ["mask", "batch statistics"]),
    ],
)
def test_data_that_does_not_fit_is_refused(refused, trouble, fragments):
    err = refused(train, "--trouble", trouble)
    assert all(fragment in err for fragment in fragments), err


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--batch-size", "0"], ["batch_size", "from 1 to 24"]),
        (["--epochs", "0"], ["epochs", "a finite number above 0"]),
        (["--epochs", "nan"], ["epochs", "a finite number above 0", "nan"]),
        (["--log-every", "0"], ["log_every", "a finite number above 0"]),
        (["--share", "1.5"], ["share", "a number from 0 to 1", "1.5"]),
        (["--run.mesh", "data=3"], ["mesh(data=3)", "divides the 8 devices", "a product of 3"]),
        (["--run.mesh", "data=16"], ["mesh(data=16)", "8 devices"]),
        (["--run.mesh", "8"], ["--run.mesh", "name=size", "data=8"]),
        (["--run.mesh", "data=8", "--batch-size", "12"], ["batch_size", "a multiple of 8"]),
        (["--run.sharding", "fsp"], ["--run.sharding", 'did you mean "fsdp"?']),
        (["--run.sharding", "fsdp"], ["--run.sharding fsdp", "no --run.mesh"]),
        (["--run.mesh", "data=4,data=2"], ["--run.mesh", "each axis once"]),
        (
            ["--run.mesh", "data=4,model=2", "--run.sharding", "tensor"],
            ["tensor('model')", "attention/qkv", "params/"],
        ),
        (
            ["--run.mesh", "data=4,model=2", "--run.sharding", "dnse=None,model"],
            ["pattern 'dnse'", "params/"],
        ),
        (
            ["--run.mesh", "data=8", "--run.sharding", "output/bias=data; fsdp"],
            ["params/output/bias (", "divide the leaf's dimensions"],
        ),
        (["--run.seeds", "0"], ["--run.seeds", "1 or more"]),
        (["--run.start", "nowhere"], ["run directory nowhere", "no such directory"]),
        (["--run.seed", "-1"], ["seed", "an integer from 0"]),
    ],
)
def test_settings_that_cannot_be_are_refused(refused, words, fragments):
    err = refused(train, *words)
    assert all(fragment in err for fragment in fragments), err


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["tran"], ["a command: train", 'did you mean "train"?']),
        (["train"], ["jdl train FILE.py", "nothing"]),
        (["train", "absent.py"], ["absent.py", "no such file"]),
        (["evaluate", "absent"], ["run directory absent", "no such directory"]),
        (["predict", "run"], ["an input file", "nothing"]),
        (["evaluate", "run", "--experiment"], ["--experiment", "a value"]),
        (["report", "."], ["a directory without one"]),
    ],
)
def test_commands_that_cannot_be_are_refused(refused, words, fragments):
    err = refused(main.command, *words)
    assert all(fragment in err for fragment in fragments), err


@pytest.mark.parametrize("flag", ["--batch-siz", "--bacth-size"])
def test_an_unknown_flag_names_the_nearest(capfd, flag):
    with pytest.raises(SystemExit) as end:
        train([flag, "3"])
    err = capfd.readouterr().err
    assert end.value.code == 2 and flag in err and "--batch-size" in err


def test_a_value_of_the_wrong_kind_names_the_flag(capfd):
    with pytest.raises(SystemExit) as end:
        train(["--batch-size", "many"])
    err = capfd.readouterr().err
    assert end.value.code == 2 and "--batch-size" in err and "many" in err


# Folders of runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(["--run.dir", str(folder), "--run.no-report"])
    return folder


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_of_another_configuration_lists_every_change(refused, finished):
    before = content(finished)
    err = refused(train, "--run.dir", finished, "--batch-size", "6", "--epochs", "0.5")
    assert "batch_size: 8 in the run, 6 now" in err and "epochs: 1.0 in the run, 0.5 now" in err
    assert "only epochs may grow" in err
    err = refused(train, "--run.dir", finished, "--run.mesh", "data=8")
    assert 'run.mesh: null in the run, "data=8" now' in err
    assert content(finished) == before


def test_a_run_without_a_good_checkpoint_is_refused(refused, finished, tmp_path):
    import shutil

    copy = shutil.copytree(finished, tmp_path / "copy")
    for path in (copy / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}")
    err = refused(train, "--run.dir", copy, "--run.no-report")
    assert "no good checkpoint left" in err and "manifest.json cannot be read" in err
    err = refused(main.command, "report", copy, "--experiment", Path(__file__))
    assert "no good checkpoint left" in err


def test_a_damaged_configuration_is_refused(refused, finished, tmp_path):
    import shutil

    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "config.json").write_text('{"epochs": ')
    assert "config.json" in refused(train, "--run.dir", copy)
    (copy / "config.json").write_text("[1]")
    assert "a JSON object" in refused(main.command, "evaluate", copy)


def test_a_folder_that_cannot_be_made_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(train, "--run.dir", tmp_path / "file" / "run")


def test_a_folder_in_use_is_refused(refused, tmp_path):
    from jdl.run.storage.run_dir import RunDir

    with RunDir(tmp_path / "run").lock():
        err = refused(train, "--run.dir", tmp_path / "run")
    assert "in use by process" in err


# The same through the library


def test_validation_data_is_looked_at_before_training():
    told = []
    hole = classes(20)
    hole["x"][3, 1] = np.inf
    _, data = troubled("none")
    learner = jdl.learner(troubled("none")[0], optax.sgd(0.1))

    def fit(valid):
        jdl.fit(learner, data, valid=valid, batch_size=8, options=quiet(), log=told.append)

    assert 'validation data["x"]' in learners.message(lambda: fit(hole))
    wrong = classes(20) | {"y": np.full(20, 2, np.int32)}
    assert 'validation data["y"]' in learners.message(lambda: fit(wrong))
    assert "(8, 1)" in learners.message(
        lambda: fit(classes(20) | {"y": np.zeros((20, 1), np.int32)})
    )
    assert "an empty set" in learners.message(
        lambda: fit({k: v[:0] for k, v in classes(4).items()})
    )
    assert not told


def test_whole_numbers_are_no_labels_where_numbers_are_predicted():
    data = {"x": line(24)["x"], "y": np.arange(24, dtype=np.int32)[:, None] % 5}
    members = jdl.ensemble(jdl.learner(troubled("nan")[0], optax.sgd(0.01)), 2)
    assert len(jdl.fit(members, data, batch_size=8, epochs=1, options=quiet()).history) == 1


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"options": quiet(dispatch="fast")}, '"auto", "step" or "loop"'),
        ({"best": "lowest loss", "valid": line(8)}, "lowest loss"),
        ({"patience": 0, "valid": line(8)}, "patience"),
        ({"options": quiet(evaluate_every=-1), "valid": line(8)}, "evaluate_every"),
    ],
)
def test_fit_refuses_settings(given, fragment):
    given = {"options": quiet()} | given
    assert fragment in learners.message(lambda: jdl.fit(counter(), line(), batch_size=8, **given))


def test_a_user_without_a_learner_is_told():
    feed = {"x": np.zeros((4, 3), np.float32)}
    assert "batch_size" in learners.message(lambda: jdl.fit(net(), jdl.Feed(feed, 128)))
