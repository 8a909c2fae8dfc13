"""A run's page says what the run came to, needs nothing else, and its pictures show the numbers."""

import base64
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra report")

from matplotlib import rc_context, rcParams

import jdl
from jdl.core.errors import InputError
from jdl.metrics import wilson_interval
from jdl.plots import training
from jdl.report.predictions import Predictions, predict_test_set
from jdl.report.report import result_line, write_report
from jdl.run.storage.metrics_log import MetricsLog
from jdl.run.storage.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[2]
NAN = math.nan


@pytest.fixture(autouse=True)
def coarse(request, monkeypatch):
    """Drawing sharp pictures takes most of the time, and only some tests look at that."""
    if "sharp" not in request.node.name:
        monkeypatch.setattr(training, "DPI", 30)


def row(step, split="train", **numbers):
    return {"step": step, "epoch": step / 10, "split": split, **numbers}


def falling(steps=10, floor=0.001):
    """A loss over three decades, and an accuracy, for both splits."""
    rows = []
    for i in range(1, steps + 1):
        loss = 3 * (floor / 3) ** (i / steps)
        rows.append(row(10 * i, loss=loss, accuracy=1 - loss / 4, gradient_norm=0.5, seconds=i))
        rows.append(row(10 * i, "valid", loss=2 * loss, accuracy=1 - loss / 3))
    return rows


def lines(axis):
    return {line.get_label().split(" (")[0]: line for line in axis.get_lines()}


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


# Curves


def test_curves_show_every_number_of_both_splits():
    figure = training.curves(falling(), best=70)
    assert [axis.get_title("left") for axis in figure.axes] == ["loss", "accuracy", "gradient norm"]
    loss, accuracy, norm = figure.axes
    assert set(lines(loss)) == {"train", "valid", "best weights"}
    assert set(lines(norm)) == {"train"}
    np.testing.assert_array_equal(lines(accuracy)["valid"].get_xdata(), np.arange(1, 11))
    wanted = [r["accuracy"] for r in falling() if r["split"] == "valid"]
    np.testing.assert_array_equal(lines(accuracy)["valid"].get_ydata(), wanted)
    assert list(lines(loss)["best weights"].get_xdata()) == [7, 7]
    assert lines(loss)["train"].get_color() == lines(norm)["train"].get_color()
    assert lines(loss)["train"].get_color() != lines(loss)["valid"].get_color()
    legend = [text.get_text() for text in loss.get_legend().get_texts()]
    assert legend == ["train (last 0.001)", "valid (last 0.002)", "best weights"]
    assert {axis.get_xlabel() for axis in figure.axes} == {"epoch"}


def test_a_loss_over_decades_has_a_logarithmic_axis_and_nothing_else_has():
    scales = {a.get_title("left"): a.get_yscale() for a in training.curves(falling()).axes}
    assert scales == {"loss": "log", "accuracy": "linear", "gradient norm": "linear"}
    assert training.curves(falling(floor=1.0)).axes[0].get_yscale() == "linear"
    below = [row(1, loss=5.0), row(2, loss=-0.1), row(3, loss=0.01)]
    assert training.curves(below).axes[0].get_yscale() == "linear"


def test_members_are_a_mean_with_a_band():
    rows = [row(i, loss=[1.0 / i, 3.0 / i], table=[[1, 2], [3, 4]]) for i in (1, 2, 3)]
    (axis,) = training.curves(rows).axes
    line = lines(axis)["train, mean of 2"]
    np.testing.assert_allclose(line.get_ydata(), [2, 1, 2 / 3])
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(1 / 3), 3)


def test_what_is_not_finite_is_left_out_and_marked():
    rows = [row(10, loss=[1.0, 2.0]), row(20, loss=[1.0, NAN]), row(30, loss=[math.inf, NAN])]
    (axis,) = training.curves(rows).axes
    np.testing.assert_array_equal(lines(axis)["train, mean of 2"].get_ydata(), [1.5, 1, NAN])
    np.testing.assert_array_equal(lines(axis)["not finite"].get_xdata(), [2, 3])
    training.png(training.curves([row(1, loss=NAN)]))  # nothing finite at all is drawn too


def test_refusals_are_shown_only_where_there_are_any():
    none, some = [row(1, loss=1.0, skipped=0.0)], [row(1, loss=1.0, skipped=[0.0, 0.5])]
    assert len(training.curves(none).axes) == 1
    titles = [axis.get_title("left") for axis in training.curves(some).axes]
    assert titles == ["loss", "share of steps skipped"]


def test_the_players_of_a_game_share_a_panel():
    numbers = {"generator/loss": 1.0, "discriminator/loss": 2.0, "loss": 3.0}
    (axis,) = training.curves([row(1, **numbers), row(1, "valid", **numbers)]).axes
    who = ("generator", "discriminator", "all")
    assert set(lines(axis)) == {f"{name}, {s}" for name in who for s in ("train", "valid")}


def test_rows_without_epochs_or_numbers():
    (axis,) = training.curves([{"step": 5, "loss": 1.0}, {"step": 9, "loss": 0.5}]).axes
    assert axis.get_xlabel() == "step" and list(lines(axis)["train"].get_xdata()) == [5, 9]
    message = "curves\n  expected: rows with at least one metric\n  got:      1 rows without any"
    with pytest.raises(InputError, match=message):
        training.curves([row(1, seconds=3.0)])


# Confusion matrix


def test_counts_are_written_and_colours_are_shares_of_the_row():
    figure = training.confusion_matrix([[90, 10], [0, 4]], ["no", "yes"])
    axis = figure.axes[0]
    assert texts(figure)[:3] == ["90", "10", "4"]
    shown = axis.get_images()[0].get_array()
    np.testing.assert_allclose(shown, [[0.9, 0.1], [0, 1]])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["no", "yes"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


def test_a_confusion_matrix_may_be_large_and_have_empty_rows():
    figure = training.confusion_matrix(np.zeros((100, 100), int))
    assert texts(figure) == []
    assert np.isfinite(figure.axes[0].get_images()[0].get_array()).all()
    assert len(figure.axes[0].get_xticklabels()) <= 25


@pytest.mark.parametrize(
    ("matrix", "labels", "message"),
    [
        (np.zeros((2, 3)), None, r"expected: shape \(classes, classes\)\n  got:      shape \(2,"),
        (np.zeros((2, 2, 2)), None, r"got:      shape \(2, 2, 2\)"),
        (np.zeros((2, 2)), ["a"], "expected: 2 names, one for each class\n  got:      1"),
    ],
)
def test_what_is_no_confusion_matrix(matrix, labels, message):
    with pytest.raises(InputError, match=message):
        training.confusion_matrix(matrix, labels)


def test_names_are_words_and_not_formulas():
    names = ["$x_{$", r"$\frac$"]
    training.png(training.confusion_matrix(np.eye(2), names))
    training.png(training.curves([row(1, **{"$cost_{$": 1.0})]))
    images = np.zeros((1, 4, 4, 1))
    training.png(training.worst_errors(images, [0], [1], [0.5], names=names))


# Mistakes


def test_the_most_confident_errors_come_first():
    images = np.arange(5 * 4).reshape(5, 2, 2, 1) / 20
    sure = [0.5, 0.99, 0.97, 0.6, 0.2]
    figure = training.worst_errors(images, [3, 1, 2, 5, 6], [8, 1, 0, 4, 0], sure, limit=3)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "true 2\npredicted 0 (0.97)",
        "true 5\npredicted 4 (0.60)",
        "true 3\npredicted 8 (0.50)",
    ]
    shown = [axis.get_images()[0].get_array() for axis in figure.axes]
    assert shown[0][0, 0] == pytest.approx(8 / 15) and shown[1].max() == 1 and shown[2].min() == 0


def test_coloured_and_constant_pictures():
    training.png(training.worst_errors(np.full((1, 3, 3, 3), -2.0), [0], [1], [1.0]))
    names = ["automobile", "airplane"]
    figure = training.worst_errors(np.zeros((1, 3, 3)), [0], [1], [1.0], names=names)
    assert figure.axes[0].get_title() == "true automobile\npredicted airplane (1.00)"


def test_no_mistake_is_said():
    figure = training.worst_errors(np.zeros((3, 2, 2, 1)), [0, 1, 2], [0, 1, 2], [1, 1, 1])
    assert figure.texts[0].get_text() == "no errors among 3 examples"


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 3, 7), (3, 2, 2, 1)])
def test_mistakes_need_pictures_and_a_number_for_each(shape):
    with pytest.raises(InputError, match="worst_errors\n  expected: images"):
        training.worst_errors(np.zeros(shape), [0, 1], [1, 0], [1.0, 1.0])


# Numbers


def test_predicted_against_true():
    figure = training.parity([[1.0], [2.0], [NAN]], [[1.5], [2.5], [0.0]])
    dots = figure.axes[0].get_lines()[1]
    assert list(dots.get_xdata()) == [1, 2] and list(dots.get_ydata()) == [1.5, 2.5]
    with pytest.raises(InputError, match=r"expected: shape \(3, 1\)"):
        training.parity(np.zeros(3), np.zeros((3, 1)))
    lost = training.parity([1.0], [NAN])
    assert lost.texts[0].get_text() == "no finite prediction"


# What figures leave alone


def test_pictures_are_sharp_and_the_same_each_time():
    one, two = (training.png(training.curves(falling())) for _ in range(2))
    assert one == two and one[:4] == b"\x89PNG"
    assert int.from_bytes(one[16:20], "big") >= 2000


def test_the_users_style_neither_enters_nor_changes():
    plain = training.png(training.curves(falling()))
    with rc_context({"axes.facecolor": "black", "savefig.dpi": 10, "axes.grid": False}):
        before = dict(rcParams)
        assert training.png(training.curves(falling())) == plain
        assert dict(rcParams) == before


def test_pyplot_is_not_loaded_and_matplotlib_only_when_needed():
    code = (
        "import sys, jdl.report.report as r, jdl.plots.training as f;"
        "print('matplotlib' in sys.modules);"
        "f.png(f.curves([{'step': 1, 'loss': 1.0}])); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(InputError) as info:
        training.curves(falling())
    assert str(info.value) == (
        "figures\n"
        "  expected: the package matplotlib\n"
        "  got:      no module named matplotlib\n"
        '  fix:      pip install "jdl-jax[report]"'
    )


# The result in a line


@pytest.mark.parametrize(
    ("numbers", "n", "line"),
    [
        (
            {"loss": 0.1, "accuracy": 0.9912},
            10000,
            "test accuracy 0.9912 (95 % 0.9892–0.9929, n 10000)",
        ),
        ({"accuracy": 1.0}, 10, "test accuracy 1.0000 (95 % 0.7225–1.0000, n 10)"),
        ({"accuracy": 0.5}, None, "test accuracy 0.5000"),
        ({"accuracy": NAN}, 10, "test accuracy nan (n 10)"),
        ({"loss": 0.1234}, 100, "test loss 0.1234 (n 100)"),
        ({"loss": 1.25e-7}, 100, "test loss 1.25e-07 (n 100)"),
        ({"rmse": 0.5, "confusion": [[1, 2], [3, 4]]}, 3, "test rmse 0.5000 (n 3)"),
        (
            {"loss": [1.0, 1.0], "accuracy": [0.5, 0.7]},
            9,
            "test accuracy 0.6000 ± 0.1414 (mean and standard deviation of 2 members, n 9)",
        ),
        (
            {"loss": [1.0, NAN]},
            9,
            "test loss 1.0000 (mean of 1 member, 1 not finite, n 9)",
        ),
    ],
)
def test_result_line(numbers, n, line):
    assert result_line(numbers, n) == line


def test_result_line_without_a_number():
    with pytest.raises(InputError, match="result\n  expected: a dict with at least one metric"):
        result_line({"confusion": [[1]]}, 3)
    assert result_line({"loss": 1.0}, 3, "valid").startswith("valid loss")


# The page


class Page(HTMLParser):
    """Tags must be closed in order; text, and whatever could ask a server, is collected."""

    VOID = ("meta", "img", "!doctype")

    def __init__(self, path):
        super().__init__()
        self.open, self.words, self.asks, self.images, self.tags = [], [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if tag == "img" and name == "src":
                assert value.startswith("data:image/png;base64,")
                self.images.append(base64.b64decode(value.split(",")[1]))
            elif name in ("src", "href", "srcset", "action") or "url(" in (value or ""):
                self.asks.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


CONFIG = {
    "learning_rate": 0.002,
    "name": "<b>&'\"",
    "fit": {"examples": 100, "batch_size": 10, "epochs": 10, "seed": 7, "best": "max accuracy"},
}


@pytest.fixture
def make(tmp_path):
    def make(rows, config=CONFIG, name="run", command=("train.py", "--name", "a b")):
        source = tmp_path / "mine.py"
        source.write_text('print("</pre><script>alert(1)</script>")\n')
        folder = RunDir(tmp_path / name).create(config, source, command=list(command))
        log = MetricsLog(folder.metrics)
        for each in rows:
            log.append(each)
        log.close()
        return folder

    return make


def image_answers(n=40, members=None):
    """Ten classes, of which every fourth example is taken for the next one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    said = (labels + (np.arange(n) % 4 == 0)) % 10
    outputs = 5 * np.eye(10, dtype=np.float32)[said]
    if members:
        outputs = np.stack([outputs] * members)
    return Predictions(rng.random((n, 8, 8, 1), np.float32), labels, outputs)


def test_the_page_of_a_finished_run(make):
    folder = make(falling())
    numbers = {"accuracy": 0.75, "loss": 0.5, "confusion": [[1, 2], [3, 4]]}
    path = write_report(folder, result=numbers, evaluation=image_answers(), note="One <note>.")
    page = Page(path)
    assert path == folder.report
    low, high = wilson_interval(30, 40)
    headline = f"test accuracy 0.7500 (95 % {low:.4f}–{high:.4f}, n 40)"
    assert page.text.count(headline) == 2 and f"<h1>{headline}</h1>" in page.source
    for said in (
        "test loss 0.5000",
        "finished: 100 of 100 steps. The best weights are those of step 100.",
        "One <note>.",
        "10 of 40 test examples are misclassified",
        "learning_rate 0.002",
        "fit.best max accuracy",
        "name <b>&'\"",
        f"python {sys.version.split()[0]}",
        "8 × cpu",
        "python train.py --name 'a b'",
        f"jdl evaluate {folder.path}",
        "Seed 7.",
        "experiment.py (SHA-256",
        '</pre><script>alert(1)</script>")',
    ):
        assert said in page.text, said
    assert page.asks == [] and "script" not in page.tags and "link" not in page.tags
    assert "http" not in page.source.replace("https", "http") and "@import" not in page.source
    assert "prefers-color-scheme: dark" in page.source
    names = ["curves", "confusion", "mistakes"]
    assert page.images == [(folder.figures / f"{name}.png").read_bytes() for name in names]
    assert sorted(p.stem for p in folder.figures.iterdir()) == sorted(names)
    assert page.text.count("Refused steps") == 0


def test_the_rows_of_the_log_are_the_last_ones(make):
    page = Page(write_report(make(falling())))
    table = page.source.split("Last rows of the log")[1].split("</table>")[0]
    assert table.count("<tr>") == 13 and "<td>100</td>" in table and "<td>40</td>" not in table


def test_members_answer_together(make):
    numbers = {"accuracy": [0.7, 0.8], "loss": [0.5, 0.7]}
    rows = [row(10 * i, loss=[1.0 / i, 2.0 / i], accuracy=[0.5, 0.6]) for i in range(1, 11)]
    page = Page(write_report(make(rows), result=numbers, evaluation=image_answers(members=2)))
    assert f"{result_line(numbers, 40)}" in page.text
    assert "Predictions use the mean probability of the 2 members." in page.text
    assert "A band runs from the lowest to the highest member." in page.text
    assert "0.15 (mean of 2)" in page.text and len(page.images) == 3


def test_a_regression_shows_predicted_against_true(make):
    labels = np.linspace(0, 1, 30)[:, None]
    rows = [row(10 * i, loss=1.0 / i) for i in range(1, 11)]
    evaluation = Predictions(np.zeros((30, 4)), labels, labels + 0.1, split="valid")
    folder = make(rows)
    page = Page(write_report(folder, result={"loss": 0.01}, evaluation=evaluation))
    assert "valid loss 0.0100 (n 30)" in page.text and "Predicted against true values" in page.text
    assert sorted(p.stem for p in folder.figures.iterdir()) == ["agreement", "curves"]
    many = evaluation._replace(outputs=np.stack([labels, labels + 0.2]))
    write_report(folder, evaluation=many)


@pytest.mark.parametrize(
    ("labels", "outputs", "matrix"),
    [
        ([0, 1, 1], [[2.0, 1.0], [3.0, 1.0], [0.0, 1.0]], [[1, 0], [1, 1]]),  # integers
        ([[1, 0], [0, 1], [0, 1]], [[2.0, 1], [3, 1], [0, 1]], [[1, 0], [1, 1]]),  # one-hot
        ([[0.0], [1.0], [1.0]], [[-1.0], [-2.0], [3.0]], [[1, 0], [1, 1]]),  # yes or no
        ([[0, 1], [1, -1]], [[[2.0, 1], [0, 1]], [[3, 1], [9, 9]]], [[1, 0], [1, 1]]),  # padded
        ([0, 1, 1], [[2.0, 1.0], [NAN, 1.0], [0.0, 1.0]], [[1, 0], [0, 1]]),  # not finite
    ],
)
def test_every_kind_of_label_is_counted(make, monkeypatch, labels, outputs, matrix):
    seen = []
    draw = training.confusion_matrix
    monkeypatch.setattr(
        training, "confusion_matrix", lambda m, names: seen.append(m) or draw(m, names)
    )
    evaluation = Predictions(None, np.array(labels), np.array(outputs))
    write_report(make(falling()), evaluation=evaluation)
    np.testing.assert_array_equal(seen[0], matrix)


def test_labels_that_are_not_predicted_make_no_matrix(make):
    rows = [row(10, loss=1.0)]
    folder = make(rows)
    inputs = np.zeros((5, 8, 8, 3))
    write_report(folder, evaluation=Predictions(inputs, np.arange(5), inputs))
    write_report(folder, evaluation=Predictions(inputs, np.arange(5), {"mean": inputs}))
    assert [p.stem for p in folder.figures.iterdir()] == ["curves"]


def test_outputs_of_other_examples_are_refused(make):
    folder = make(falling())
    with pytest.raises(InputError, match="expected: one output for each of 3 labels"):
        write_report(folder, evaluation=Predictions(None, np.arange(3), np.zeros((4, 10))))
    assert not folder.report.exists()


def test_without_a_result_the_accuracy_is_counted_from_the_outputs(make):
    page = Page(write_report(make(falling()), evaluation=image_answers()))
    assert "test accuracy 0.7500 (95 %" in page.text


@pytest.mark.slow
def test_the_recorded_result_is_used(make):
    folder = make(falling())
    numbers = {"split": "test", "n": 359, "accuracy": 0.9916, "loss": NAN}
    (folder.path / "result.json").write_text(json.dumps(numbers))
    text = Page(write_report(folder)).text
    assert "test accuracy 0.9916 (95 % 0.9757–0.9972, n 359)" in text and "test loss nan" in text
    (folder.path / "result.json").write_text("{")
    assert "valid accuracy 0.9997 at step 100" in Page(write_report(folder)).text


def test_an_unfinished_run(make):
    rows = falling()[:8]
    page = Page(write_report(make(rows)))
    assert "unfinished: 40 of 100 steps. The best weights are those of step 40." in page.text
    assert "valid accuracy 0.9593 at step 40" in page.text
    patient = {"fit": {**CONFIG["fit"], "patience": 3}}
    page = Page(write_report(make(rows, patient, "patient")))
    assert "stopped early or unfinished: 40 of 100 steps" in page.text


def test_a_run_without_rows_and_settings(make):
    folder = make([], {}, command=[])
    page = Page(write_report(folder))
    assert "no metrics yet" in page.text and "no step logged yet" in page.text
    assert page.images == []


def test_a_diverged_run_names_its_refused_steps(make):
    rows = [
        row(5, loss=1.0, skipped=0.0),
        row(10, loss=2.0, skipped=0.4),
        row(15, loss=NAN, gradient_norm=NAN, skipped=1.0),
    ]
    page = Page(write_report(make(rows)))
    assert "diverged: the loss is no longer finite, 15 of 100 steps" in page.text
    assert "6–10 2" in page.text and "11–15 5" in page.text and "1–5 0" not in page.text
    rows = [row(5, loss=[1.0, NAN, NAN], skipped=[0.0, 0.4, 1.0])]
    page = Page(write_report(make(rows, name="many")))
    assert "1–5 member 1: 2, member 2: 5" in page.text and "diverged:" not in page.text


def test_the_end_of_a_shorter_run_is_counted_once(make):
    """`epochs` grew at step 25; the row of step 30 covers it. A fork began at step 2."""
    skipped = {10: 0.5, 20: 0.0, 25: 0.4, 30: 0.2, 35: 0.2}
    rows = [row(step, loss=1.0, skipped=share) for step, share in skipped.items()]
    fit = {"examples": 100, "batch_size": 10, "epochs": 3.5, "log_every": 10}
    page = Page(write_report(make(rows, {"fit": fit})))
    assert "1–10 5" in page.text and "21–30 2" in page.text and "31–35 1" in page.text
    assert "25" not in page.text[page.text.index("Skipped steps") :].partition("31–35")[0]
    folder = make(rows, {"fit": fit}, "fork")
    folder.parent_file.write_text('{"run": "a", "step": 2}')
    assert "3–10 4" in Page(write_report(folder)).text


def test_the_best_step_is_not_the_end_of_a_shorter_run(make):
    rows = [row(5, loss=2.0), row(9, loss=1.0), row(10, loss=3.0), row(12, loss=1.5)]
    rows = [{**each, "split": "valid"} for each in rows]
    fit = {"examples": 100, "batch_size": 10, "epochs": 1.2, "best": "min loss"}
    page = Page(write_report(make(rows, {"fit": fit | {"evaluate_every": 5}})))
    assert "The best weights are those of step 12" in page.text


def test_other_pictures_are_added(make):
    folder = make(falling())
    extra = {"Modes found / ../x": training.parity([1.0, 2.0], [1.0, 2.0])}
    page = Page(write_report(folder, figures=extra))
    assert "Modes found / ../x" in page.text and len(page.images) == 2
    assert sorted(p.name for p in folder.figures.iterdir()) == [
        "Modes_found______x.png",
        "curves.png",
    ]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["/usr/bin/jdl", "train", "x.py"], "jdl train x.py"),
        (["lib/jdl/cli/__main__.py", "train"], "jdl train"),
        (["tool", "--flag"], "tool --flag"),
    ],
)
def test_the_command_can_be_typed(make, command, line):
    assert f"<pre>{line}</pre>" in write_report(make([], {}, command=command)).read_text()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="expected: a directory with the config"):
        write_report(RunDir(tmp_path / "none"))


def test_a_real_run_from_data_to_page(tmp_path):
    import optax

    x = np.random.default_rng(0).random((60, 8, 8, 1), np.float32)
    part = {"x": x, "y": (x[:, 0, 0, 0] > 0.5).astype(np.int32)}
    data = jdl.Data(part, part, lambda: part, {"labels": ["dark", "light"]})
    model = jdl.from_linen(jdl.models.MLP((), outputs=2))
    learner = jdl.ensemble(jdl.learner(jdl.classification(model), optax.sgd(0.1)), 2)
    options = jdl.Options(bar=False, log_every=2, dispatch="step")
    result = jdl.fit(
        learner, data, batch_size=20, epochs=2, run_dir=tmp_path / "run", options=options
    )
    evaluation = predict_test_set(data, result)
    assert evaluation is not None and evaluation.labels_names == ["dark", "light"]
    assert evaluation.outputs.shape == (2, 60, 2)
    numbers = jdl.evaluate(result, part)
    page = Page(write_report(RunDir(tmp_path / "run"), result=numbers, evaluation=evaluation))
    assert result_line(numbers, 60) in page.text
    assert "finished: 6 of 6 steps" in page.text and len(page.images) == 3
    assert predict_test_set(part, result) is None
