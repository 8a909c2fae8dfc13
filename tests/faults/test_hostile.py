"""Forty hostile files against every reader: no code runs, no path escapes, memory stays bounded.

Each case runs with at most 256 MB more address space than the process has, beside a folder in which
nothing may appear; whatever starts a program, unpickles or writes elsewhere fails the test.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdl
from jdl.cli import main
from jdl.cli.inputs import read_inputs
from jdl.data import read_cifar, read_csv, read_idx, read_npz, text, tokenizers
from jdl.data.readers import images
from jdl.run.experiment import load
from jdl.run.storage.metrics_log import read_metrics as read_log
from jdl.run.storage.run_dir import RunDir
from tests.faults import hostile as make
from tests.faults.catalogue import check_message, refused, rows
from tests.support.runs import line, net, quiet

MORE = 2**28
INFO = {"shape": (2,)}
Reader = Callable[[Path], Any]


def predicted(path: Path) -> Any:
    return read_inputs(path, INFO)


def folder_of(path: Path) -> Any:
    """A folder of pictures of two classes, of which one is the file."""
    for name in ("a", "b"):
        (path.parent / "pictures" / name).mkdir(parents=True)
        shutil.copy(path, path.parent / "pictures" / name / path.name)
    return images.read_images(path.parent / "pictures")


def columns(path: Path) -> Any:
    return read_csv(path, float)


def settings(path: Path) -> Any:
    """The file as the config.json of a run."""
    shutil.copy(path, path.parent / "config.json")
    return RunDir(path.parent).open()


def started(path: Path) -> Any:
    """Weights to begin from: only a run's folder is taken."""
    return load(path)


# name of the file, its bytes (given a path that must not come to be), its reader, what is said
TABLE: dict[str, tuple[str, Callable[[Path], bytes], Reader, tuple[str, ...]]] = {
    # npy and npz
    "npy of objects": ("x.npy", make.objects, predicted, ("never loaded", "object")),
    "npy that is a pickle": (
        "x.npy",
        lambda mark: make.pickle.dumps(make.Touch(mark)),
        predicted,
        ("no array in x.npy",),
    ),
    "npy of a terabyte": ("x.npy", lambda _: make.npy(shape=(2**38,)), predicted, ("8 bytes",)),
    "npy of 2**80": (
        "x.npy",
        lambda _: make.npy(shape=(0, 2**80), data=b""),
        predicted,
        ("2 dim",),
    ),
    "npy of 100 axes": ("x.npy", lambda _: make.npy(shape=(1,) * 99 + (2,)), predicted, ("100 d",)),
    "npy below zero": ("x.npy", lambda _: make.npy(shape=(-1, -2)), predicted, ("[-1, -2]",)),
    "npy of nothing": (
        "x.npy",
        lambda _: make.npy("|V0", (2**62,), b""),
        predicted,
        ("a numeric array", "|V0"),
    ),
    "npy of arrays": ("x.npy", lambda _: make.npy(("<f4", (10**6,))), predicted, ("numeric arr",)),
    "npy with a long header": (
        "x.npy",
        lambda _: b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"{" * 1000,
        predicted,
        ("no array in x.npy",),
    ),
    "npy nested": ("x.npy", lambda _: make.npy(head="-" * 9_000 + "1"), predicted, ("no array",)),
    "npy half a header": (
        "x.npy",
        lambda _: make.npy(head="{'shape': ("),
        predicted,
        ("no array",),
    ),
    "npz of objects": (
        "x.npz",
        lambda mark: make.archive(x__npy=make.objects(mark), y__npy=make.npy()),
        jdl.data.load,
        ("member x.npy", "never loaded"),
    ),
    "npz of weights": ("x.npz", make.torch, jdl.data.load, ("no array in archive/data.pkl",)),
    "npz that leads out": (
        "x.npz",
        lambda mark: make.packed([(f"../../{mark.name}", make.npy()), (str(mark), make.npy())]),
        jdl.data.load,
        ("arrays x and y",),
    ),
    "npz with a name twice": (
        "x.npz",
        lambda _: make.packed([("x.npy", make.npy()), ("x.npy", make.npy("<i4"))]),
        predicted,
        ("member x.npy", "twice"),
    ),
    "npz with a password": ("x.npz", lambda _: make.encrypted(), predicted, ("encrypted",)),
    "npz otherwise packed": (
        "x.npz",
        lambda _: make.packed([("x.npy", make.npy(shape=(2**23,), data=bytes(2**25)))], 12),
        predicted,
        ("another compression",),
    ),
    "npz of false sizes": ("x.npz", lambda _: make.false_sizes(2**31), predicted, ("x.npz",)),
    "npz on the same bytes": ("x.npz", lambda _: make.overlapping(), read_npz, ("x.npz",)),
    "npz with a wrong checksum": (
        "x.npz",
        lambda _: make.packed([("x.npy", make.npy())], 0).replace(bytes(8), b"\x01" + bytes(7)),
        predicted,
        ("Bad CRC-32",),
    ),
    # IDX, gzip, CIFAR
    "idx of 255 axes": ("x", lambda _: make.idx((1,) * 255, b"\0"), read_idx, ("255 dimensions",)),
    "idx of 2**96": ("x", lambda _: make.idx((0, *(2**32 - 1,) * 3)), read_idx, ("4 dimensions",)),
    "gzip that promises": (
        "x.gz",
        lambda _: make.gzip_bomb((500_000_000,), 0) + bytes(2**20),
        read_idx,
        ("500000000 bytes of data", "0 bytes: cut short"),
    ),
    "gzip that goes on": (
        "x.gz",
        lambda _: make.gzip_bomb((4,), 300_000_000),
        read_idx,
        ("4 bytes of data", "more bytes"),
    ),
    "cifar of a tar": ("x.bin", lambda mark: make.tar(mark.parent), read_cifar, ("3073 bytes",)),
    # pictures
    "picture of 900 megapixels": (
        "x.png",
        lambda _: make.png(30_000, 30_000),
        predicted,
        ("x.png",),
    ),
    "picture of 100 megapixels": (
        "x.png",
        lambda _: make.png(10_000, 10_000),
        folder_of,
        ("x.png",),
    ),
    "picture with a bomb of text": (
        "x.png",
        lambda _: make.png(4, 4, (b"zTXt", b"a\0\0" + make.zlib.compress(bytes(2**27)))),
        predicted,
        ("x.png",),
    ),
    "picture that is a program": ("x.png", make.postscript, predicted, ("cannot identify",)),
    # text
    "csv of one field": ("x.csv", lambda _: b"a\n" + b"1" * 2**20, columns, ("x.csv, line 2",)),
    "csv of zeros": ("x.csv", lambda _: bytes(1000), predicted, ("x.csv", "at least one line")),
    "text of no language": ("x.txt", lambda _: b"\xff" * 1000, text.read_text, ("byte 0",)),
    # formats that are not read
    "tar that leads out": (
        "x.tar.gz",
        lambda mark: make.tar(mark.parent),
        jdl.data.load,
        ("a path that ends in .npz",),
    ),
    "safetensors": (
        "x.safetensors",
        lambda _: make.safetensors(
            {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**60]}}
        ),
        predicted,
        ("a file that ends in .npz", ".safetensors"),
    ),
    "safetensors of an endless header": (
        "x.safetensors",
        lambda _: make.safetensors({}, 2**62),
        started,
        ("a directory with the config.json of a run",),
    ),
    "msgpack": ("x.msgpack", lambda _: make.msgpack(), predicted, ("a file that ends in .npz",)),
    # JSON
    "settings nested": (
        "x",
        lambda _: make.nested(),
        settings,
        ("config.json", "nested too deeply"),
    ),
    "settings of 20 MB": (
        "x",
        lambda _: b'{"a": "' + b"b" * 2**25 + b'"}',
        settings,
        ("more than",),
    ),
    "log nested": ("m.jsonl", lambda _: make.nested() + b"\n", read_log, ("m.jsonl, line 1",)),
    "tokens that double": (
        "t.json",
        lambda _: make.doubling(),
        tokenizers.load_tokenizer,
        ("bytes",),
    ),
}
FAST = (
    *("npy of objects", "npy nested", "npz with a name twice", "gzip that promises"),
    *("picture that is a program", "picture of 900 megapixels", "safetensors", "settings nested"),
    "tokens that double",
)
watched: list[list[tuple[str, str]]] = []


def _watch(event: str, args: Any) -> None:
    if not watched:
        return
    if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"):
        watched[-1].append((event, str(args)[:400]))
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        watched[-1].append((event, str(args)[:400]))


@contextmanager
def bounded() -> Iterator[list[tuple[str, str]]]:
    """Little more memory than there is now, and a list of every program, pickle and file made."""
    if not hasattr(_watch, "added"):
        sys.addaudithook(_watch)
        _watch.added = True  # pyright: ignore[reportFunctionMemberAccess]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    watched.append([])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE, before[1]))
    try:
        yield watched[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        watched.pop()


@pytest.mark.parametrize("name", rows(TABLE, FAST))
def test_a_hostile_file_is_refused(name, tmp_path):
    file, content, reader, fragments = TABLE[name]
    mark = tmp_path / "outside" / "escaped"
    mark.parent.mkdir()
    path = tmp_path / "inside" / file
    path.parent.mkdir()
    path.write_bytes(content(mark))
    import PIL.Image  # noqa: F401  (loading it starts nothing, but opens files)

    with bounded() as seen:
        message = refused(lambda: reader(path), fragments)
    assert str(path.parent) in message or path.name in message
    here = [event for event in seen if str(path.parent) not in event[1]]
    assert not here and not list(mark.parent.iterdir())
    assert not (tmp_path / "escaped").exists() and not (tmp_path.parent / "escaped").exists()


def test_a_device_is_no_log(tmp_path):
    """It would be read until the memory ends."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    with bounded():
        refused(lambda: read_log(tmp_path / "metrics.jsonl"), ("metrics.jsonl", "a device"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_the_limits_are_felt(tmp_path):
    """The controls: a gigabyte is refused, and a pickle and a program are noticed."""
    mark = tmp_path / "escaped"
    with bounded() as seen:
        with pytest.raises(MemoryError):
            np.ones(2**27)
        np.load(make.io.BytesIO(make.objects(mark)), allow_pickle=True)
        os.system("true")
    assert mark.exists()
    assert {event for event, _ in seen} >= {"pickle.find_class", "os.system"}


# The folder of a run that somebody else gave


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    jdl.fit(net(), line(), batch_size=8, epochs=1, run_dir=folder, options=quiet())
    return folder


def resigned(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the newest manifest, and its digest with it, as only a person would."""
    from jdl.run.storage.manifest import _digest

    path = max(folder.glob("checkpoints/*/manifest.json"))
    body = json.loads(path.read_text())["body"]
    change(body)
    path.write_text(json.dumps({"sha256": _digest(body), "body": body}))


FOREIGN: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "settings nested": (
        lambda run: (run / "config.json").write_bytes(make.nested()),
        ("config.json", "nested too deeply"),
    ),
    "settings that are a list": (
        lambda run: (run / "config.json").write_text("[1, 2]"),
        ("config.json",),
    ),
    "manifest nested": (
        lambda run: max(run.glob("checkpoints/*/manifest.json")).write_bytes(make.nested()),
        ("no good checkpoint", "nested too deeply"),
    ),
    "manifest that names a device": (
        lambda run: resigned(run, lambda body: body["files"].update({"/dev/zero": "0"})),
        ("no good checkpoint", "it names '/dev/zero'"),
    ),
    "manifest that leads out": (
        lambda run: resigned(run, lambda body: body["files"].update({"../../x": "0"})),
        ("no good checkpoint", "it names '../../x'"),
    ),
    "manifest without files": (
        lambda run: resigned(run, lambda body: body.update(files=[1])),
        ("no good checkpoint", "manifest.json cannot be read"),
    ),
    "manifest of odd leaves": (
        lambda run: resigned(run, lambda body: body["leaves"].update(step={})),
        ("no good checkpoint", "describe leaf 'step'"),
    ),
    "log of words": (
        lambda run: (run / "metrics.jsonl").write_text('{"step": "many"}\n'),
        ("metrics.jsonl, line 1",),
    ),
}


@pytest.mark.parametrize("name", rows(FOREIGN, ("settings nested", "manifest that leads out")))
def test_a_hostile_run_folder_is_refused(name, finished, tmp_path):
    harm, fragments = FOREIGN[name]
    run = shutil.copytree(finished, tmp_path / "run")
    harm(run)
    again = {"batch_size": 8, "epochs": 2, "run_dir": run, "options": quiet()}
    refused(lambda: jdl.fit(net(), line(), **again), fragments)


def test_a_changed_experiment_is_never_run(finished, tmp_path, capfd):
    """Nor one whose hash nobody recorded."""
    run = shutil.copytree(finished, tmp_path / "run")
    mark = tmp_path / "it ran"
    (run / "experiment.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for command in ("evaluate", "report"):
        with pytest.raises(SystemExit) as end:
            main.command([command, str(run)])
        out, err = capfd.readouterr()
        assert end.value.code == 2 and out == ""
        check_message(err, ("experiment.py",))
    assert not mark.exists()
