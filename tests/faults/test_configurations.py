"""Sixty configurations that cannot be: exit code 2, one message, and nothing left on the disk."""

import pytest

from jdl.cli import main
from tests.faults.catalogue import check_message, rows
from tests.support.runs import ROOT

ONE = ("--epochs", "1", "--run.no-report")
STEP = ("--steps", "1", "--run.no-report")
FRACTION = "a number from 0 to 0.99"
BATCH = "from 1 to 1258, the number of examples"
SEED = "an integer from 0 to 4294967295"
HUGE = "99999999999999999999"

# experiment, its flags, and what the message says
TABLE: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # numbers
    "rate nan": ("digits_mlp", ("--learning-rate", "nan", *ONE), ("learning_rate", "nan")),
    "rate inf": ("digits_mlp", ("--learning-rate", "inf", *ONE), ("learning_rate", "inf")),
    "rate too large": ("digits_mlp", ("--learning-rate", "1e400", *ONE), ("learning_rate", "inf")),
    "rate negative": ("digits_mlp", ("--learning-rate", "-1", *ONE), ("learning_rate", "-1.0")),
    "rate a word": ("digits_mlp", ("--learning-rate", "fast", *ONE), ("--learning-rate", "fast")),
    "rate empty": ("digits_mlp", ("--learning-rate", "", *ONE), ("--learning-rate",)),
    "dropout nan": ("digits_mlp", ("--dropout", "nan", *ONE), ("dropout", FRACTION, "nan")),
    "dropout negative": ("digits_mlp", ("--dropout", "-0.1", *ONE), ("dropout", FRACTION)),
    "dropout one": ("digits_mlp", ("--dropout", "1", *ONE), ("dropout", FRACTION, "1.0")),
    "dropout a word": ("digits_mlp", ("--dropout", "half", *ONE), ("--dropout", "half")),
    "decay inf": ("recommender", ("--decay", "inf", *ONE), ("decay", "inf")),
    "average one": ("mnist_cnn", ("--average", "1", *ONE), ("average", "0 to 0.999999")),
    "average nan": ("mnist_cnn", ("--average", "nan", *ONE), ("average", "nan")),
    "certainty": ("wavenet", ("--certainty", "2", *STEP), ("certainty", "from 0 to 1")),
    # counts
    "batch zero": ("digits_mlp", ("--batch-size", "0", *ONE), ("batch_size", "at least 1")),
    "batch negative": ("digits_mlp", ("--batch-size", "-8", *ONE), ("batch_size", "-8")),
    "batch a fraction": ("digits_mlp", ("--batch-size", "1.5", *ONE), ("--batch-size", "1.5")),
    "batch of ratings": ("recommender", ("--batch-size", "0", *ONE), ("batch_size", "at least 1")),
    "batch of trees": ("listops", ("--batch-size", "0", *STEP), ("batch_size", "at least 1")),
    "epochs zero": ("digits_mlp", ("--epochs", "0"), ("epochs", "at least 1")),
    "epochs negative": ("digits_mlp", ("--epochs", "-3"), ("epochs", "-3")),
    "epochs a fraction": ("digits_mlp", ("--epochs", "1.5"), ("--epochs", "1.5")),
    "epochs without end": ("digits_mlp", ("--epochs", HUGE), ("at most 2147483647 steps",)),
    "steps zero": ("gan_ring", ("--steps", "0"), ("steps", "at least 1")),
    "members zero": ("gan_ring", ("--members", "0", *STEP), ("members", "at least 1")),
    "ratings none": ("recommender", ("--n", "0", *ONE), ("n\n", "at least 1")),
    "depth zero": ("listops", ("--depth", "0", *STEP), ("depth", "at least 1")),
    "arity one": ("listops", ("--arity", "1", "--expressions", "200", *STEP), ("arity",)),
    # widths and shapes
    "width zero": ("digits_mlp", ("--features", "0", *ONE), ("layer dense_1", "got:      0")),
    "width negative": ("digits_mlp", ("--features", "-4", *ONE), ("layer dense_1", "-4")),
    "width a word": ("digits_mlp", ("--features", "wide", *ONE), ("--features", "wide")),
    "dense zero": ("mnist_cnn", ("--hidden", "0", *ONE), ("layer ", "at least one unit")),
    "channels zero": ("wavenet", ("--features", "0", *STEP), ("layer ", "at least one unit")),
    "dilation zero": ("wavenet", ("--dilations", "0", *STEP), ("dilations of at least 1",)),
    "heads zero": ("vit", ("--heads", "0", *ONE), ("heads", "divides the width")),
    "heads odd": ("char_transformer", ("--heads", "3", *STEP), ("heads", "the width, 128")),
    "vit of nothing": ("vit", ("--width", "0", *ONE), ("layer ", "at least one unit")),
    "context huge": ("char_transformer", ("--context", "100000000", *STEP), ("tokens",)),
    "code of one": ("vae", ("--code", "1", *ONE), ("code", "at least 2")),
    # names
    "recipe": ("mnist_cnn", ("--recipe", "worst", *ONE), ("--recipe", "worst")),
    "cell": ("adding_problem", ("--cell", "transformer", *STEP), ("--cell", "transformer")),
    "digit eleven": ("imbalance", ("--rare", "11", *ONE), ("rare", "from 0 to 9", "11")),
    "digit negative": ("imbalance", ("--rare", "-1", *ONE), ("rare", "-1")),
    "stray word": ("digits_mlp", ("stray", *ONE), ("stray",)),
    "unknown flag": ("digits_mlp", ("--epoch", "1"), ("--epoch",)),
    "flag without value": ("digits_mlp", ("--epochs",), ("--epochs",)),
    # places
    "data nowhere": ("mnist_cnn", ("--data-dir", "/nowhere", *ONE), ("train-images", "/nowhere")),
    "data empty": ("mnist_cnn", ("--data-dir", "", *ONE), ('data set "mnist"', "folder")),
    "ratings nowhere": ("recommender", ("--ratings", "/nowhere", *ONE), ("/nowhere", "no such")),
    "folder empty": ("digits_mlp", ("--run.dir", "", *ONE), ("--run.dir", "a directory")),
    "folder in a device": ("digits_mlp", ("--run.dir", "/dev/null/x", *ONE), ("written",)),
    "start nowhere": ("digits_mlp", ("--run.start", "absent", *ONE), ("run directory absent",)),
    "fork nowhere": ("digits_mlp", ("--run.fork", "absent@3", *ONE), ("run directory absent",)),
    "fork of no step": ("digits_mlp", ("--run.fork", "absent@x", *ONE), ("absent@x",)),
    # options of a run
    "seed negative": ("digits_mlp", ("--run.seed", "-1", *ONE), ("seed", SEED, "-1")),
    "seed too large": ("digits_mlp", ("--run.seed", "4294967296", *ONE), ("seed", SEED)),
    "split negative": ("digits_mlp", ("--split", "-1", *ONE), ("seed", SEED, "-1")),
    "mesh twice": ("digits_mlp", ("--run.mesh", "data=8,data=1", *ONE), ("--run.mesh", "once")),
    "mesh of none": ("digits_mlp", ("--run.mesh", "data=0", *ONE), ("mesh(data=0)", "8 devices")),
    "dispatch": ("digits_mlp", ("--run.dispatch", "fast", *ONE), ("--run.dispatch", "fast")),
}
FAST = (
    *("rate inf", "rate a word", "dropout nan", "epochs without end"),
    *("width zero", "data empty", "folder empty", "mesh twice", "unknown flag"),
)


@pytest.mark.parametrize("name", rows(TABLE, FAST))
def test_a_bad_configuration_is_refused_and_leaves_nothing(name, tmp_path, capfd, monkeypatch):
    experiment, words, fragments = TABLE[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)
    with pytest.raises(SystemExit) as end:
        main.command(["train", str(ROOT / "experiments" / f"{experiment}.py"), *words])
    out, err = capfd.readouterr()
    assert end.value.code == 2, err
    assert out == "" and list(tmp_path.rglob("*")) == []
    if err.startswith("jdl: "):
        check_message(err, fragments)
        return
    # What is wrong with a flag itself is said by the parser, in a frame of its own.
    assert "Traceback" not in err and err.count("╭") == 1, err
    for fragment in fragments:
        assert fragment in err, err
