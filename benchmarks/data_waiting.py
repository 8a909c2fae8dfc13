"""How long steps wait for data: images of MNIST's size, from an .npz file and from PNG files.

A set that fits on the device lives there, as MNIST does, and nothing waits. These sets are
streamed: the arrays as jdl streams those above its limit, the files by random access. The share of
time is the one that the run's own log reports.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import optax

import jdl
from benchmarks.tables import markdown_table
from benchmarks.timing import fit_rows, median_seconds

IMAGES, BATCH = 6_400, 128
"""Random grey pixels, 28 x 28: PNG files are as large as they get."""


class Waiting(NamedTuple):
    """A run over one source."""

    share: float
    """Of the time that steps waited for their batch: the mean over rows of the log."""
    steps_per_second: float
    read_seconds: float
    """For one batch, in one thread."""


class PngFolder:
    """A folder of PNG files, read one at a time."""

    def __init__(self, folder: Path, y: np.ndarray):
        self.folder, self.y = folder, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        from PIL import Image

        with Image.open(self.folder / f"{index}.png") as image:
            pixels = np.asarray(image, np.float32)[..., None] / 255
        return {"x": pixels, "y": self.y[index]}


def write_images(folder: Path, n: int) -> None:
    """The same images as an .npz file and as PNG files."""
    from PIL import Image

    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (n, 28, 28), np.uint8)
    y = draw.integers(0, 10, n).astype(np.int32)
    np.savez(folder / "images.npz", x=x, y=y)
    for number, image in enumerate(x):
        Image.fromarray(image).save(folder / f"{number}.png")


def sources(folder: Path) -> Iterator[tuple[str, Any]]:
    """What a feed is made of."""
    found = np.load(folder / "images.npz")
    yield "npz", {"x": found["x"][..., None].astype(np.float32) / 255, "y": found["y"]}
    yield "PNG files", PngFolder(folder, found["y"])


def waiting(network: Any, data: Any, seconds: float, log_every: int) -> Waiting:
    """Train for some seconds, streaming, and read the log."""
    learner = jdl.learner(jdl.classification(jdl.from_linen(network)), optax.adam(1e-3))
    feed = jdl.Feed(data, BATCH)
    steps = iter(range(2**31))
    read_seconds = median_seconds(lambda: feed.batch(next(steps)), 0.5)
    with mock.patch("jdl.data.feed.RESIDENT_BYTES", 0):
        rows = fit_rows(learner, feed, seconds, log_every=log_every)[1:]
    share = statistics.mean(row.get("wait_share", 0.0) for row in rows)
    speed = statistics.median(row["steps_per_second"] for row in rows)
    return Waiting(share, speed, read_seconds)


def measure(seconds: float) -> dict[str, Waiting]:
    """Every source with a step that takes tens of milliseconds, and with one of about one."""
    networks = {
        "CNN A": (jdl.models.CNN(), 20),
        "MLP 784-128-10": (jdl.models.MLP((128,), 10), 400),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), IMAGES)
        for source, data in sources(Path(folder)):
            for name, (network, log_every) in networks.items():
                found[f"{source}, {name}"] = waiting(network, data, seconds, log_every)
    return found


def table(found: dict[str, Waiting]) -> str:
    """A source is the limit where reading takes longer than a step."""
    head = ["source, network", "share of time waiting", "ms a step"]
    rows = [
        [
            name,
            f"{row.share:.1%}",
            f"{1e3 / row.steps_per_second:.3g}",
            f"{1e3 * row.read_seconds:.3g}",
        ]
        for name, row in found.items()
    ]
    title = f"streamed images of 28 x 28, batch {BATCH}"
    return markdown_table(title, [*head, "ms to read a batch, one thread"], rows)
