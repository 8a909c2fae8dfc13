"""How long steps wait for data: images as large as MNIST's, from an .npz file and from PNG files.

A set that fits on the device, as MNIST does, lives there, and nothing waits. So that there is
something to see, sets are streamed here: arrays as jdl does with those above its limit, files by a
source of random access. The share of the time is the one that a run's own log has.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import optax

import jdl
from benchmarks import growth
from jdl.data import feed as feeding

IMAGES, BATCH = 6_400, 128
"""Of 28 x 28 grey pixels, random ones: PNG files are then as large as they get."""


class Waits(NamedTuple):
    """A run over one source."""

    share: float
    """Of the time, in which a step waited for its batch: the mean over rows of the log."""
    steps_per_second: float
    read: float
    """Seconds that one thread takes for a batch."""


class Files:
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


def written(folder: Path, n: int) -> None:
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
    yield "PNG files", Files(folder, found["y"])


def waits(network: Any, data: Any, seconds: float, every: int) -> Waits:
    """Train for some seconds, streaming, and read the log."""
    rows: list[dict[str, float]] = []

    class Enough(Exception):
        """The run is long enough."""

    def note(row: dict[str, float]) -> None:
        # The first row that can tell the time still has the start of the stream in it.
        if "steps_per_second" in row:
            rows.append(row)
        if len(rows) > 3 and rows[-1]["seconds"] - rows[0]["seconds"] >= seconds:
            raise Enough

    learner = jdl.learner(jdl.classification(jdl.from_linen(network)), optax.adam(1e-3))
    feed = jdl.Feed(data, BATCH)
    steps = iter(range(2**31))
    read = growth.timed(lambda: feed.batch(next(steps)), 0.5)
    with mock.patch.object(feeding, "RESIDENT_BYTES", 0), contextlib.suppress(Enough):
        options = jdl.Options(bar=False, log_every=every)
        jdl.fit(learner, feed, epochs=10**6, log=note, options=options)
    shares = [row.get("wait_share", 0.0) for row in rows[1:]]
    speeds = [row["steps_per_second"] for row in rows[1:]]
    return Waits(statistics.mean(shares), statistics.median(speeds), read)


def measured(seconds: float) -> dict[str, Waits]:
    """Every source with a step that takes tens of milliseconds, and with one of about one."""
    networks = {
        "CNN A": (jdl.models.CNN(), 20),
        "MLP 784-128-10": (jdl.models.MLP((128,), 10), 400),
    }
    found = {}
    with tempfile.TemporaryDirectory() as place:
        written(Path(place), IMAGES)
        for source, data in sources(Path(place)):
            for name, (network, every) in networks.items():
                found[f"{source}, {name}"] = waits(network, data, seconds, every)
    return found


def table(found: dict[str, Waits]) -> str:
    """A Markdown table; a source is the limit where reading takes longer than a step."""
    lines = [
        f"**streamed images of 28 x 28, batch {BATCH}**",
        "",
        "| source, network | share of time waiting | ms a step | ms to read a batch, one thread |",
        "|---|---|---|---|",
    ]
    for name, row in found.items():
        times = f"{1e3 / row.steps_per_second:.3g} | {1e3 * row.read:.3g}"
        lines.append(f"| {name} | {row.share:.1%} | {times} |")
    return "\n".join(lines)
