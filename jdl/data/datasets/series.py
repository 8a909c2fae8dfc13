"""Data sets of sequences that `jdl.data.load` knows by name."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import error, require_package
from jdl.data.datasets.build import data_folder, find_file, finish, hold_out
from jdl.data.prepare import split
from jdl.data.prepare.scale import standard_scaler
from jdl.data.readers.time_series import pad_sequences, read_ts, scale_series, true_steps
from jdl.data.records import Arrays, Data

VALID = 0.2


def japanese_vowels(dir: str | Path | None, seed: int) -> Data:
    """Nine speakers, 12 channels, 7 to 29 steps: 270 training and 370 test series."""
    name, fix = "japanese_vowels", "give the folder of the two files as dir= or JDL_DATA_DIR"
    folder = data_folder(name, dir, "two .ts files")
    files = {
        part: find_file(name, folder, [f"JapaneseVowels_{part.upper()}.ts"], fix)
        for part in ("train", "test")
    }
    train, test = (read_ts(files[part]) for part in ("train", "test"))
    if train.y is None or train.labels != test.labels or train.x.shape[2] != test.x.shape[2]:
        raise error(
            str(files["test"]),
            expected=f"channels and classes of {files['train']}",
            got=f"{test.x.shape[2]} channels, classes {', '.join(test.labels) or 'none'}",
            fix="take both files from the same set",
        )
    keep, valid = split.stratified(train.y, (1 - VALID, VALID), seed)
    steps = max(train.x.shape[1], test.x.shape[1])
    statistics = standard_scaler.fit(true_steps(train.x[keep], train.lengths[keep]))

    def part(series: Any, index: Any) -> Arrays:
        x, lengths = series.x[index], series.lengths[index]
        x = scale_series(standard_scaler, statistics, x, lengths)
        whole, _ = pad_sequences(list(x), steps)
        return {"x": whole, "y": series.y[index], "lengths": lengths}

    info = {
        "name": name,
        "source": "M. Kudo, J. Toyama and M. Shimbo, 1999; UCI Machine Learning Repository",
        "licence": "CC BY 4.0 (UCI)",
        "files": {part: str(path) for part, path in files.items()},
        "labels": list(train.labels),
        "seed": seed,
        "classes": len(train.labels),
        "shape": (steps, train.x.shape[2]),
        "sizes": {"train": len(keep), "valid": len(valid), "test": len(test.x)},
        "scaler": statistics,
        "target": "class labels",
    }
    return Data(part(train, keep), part(train, valid), lambda: part(test, slice(None)), info)


def mnist1d(seed: int) -> Data:
    """Digits as series of 40 numbers, made by the package of the same name."""
    package = require_package("mnist1d.data", "mnist1d", 'data set "mnist1d"')
    # The package sets the seeds of the global generators: put back what they were.
    numbers, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        raw = package.make_dataset(package.get_dataset_args())
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(plain)
    train, test = (
        {"x": raw[x].astype(np.float32)[..., None], "y": raw[y].astype(np.int32)}
        for x, y in (("x", "y"), ("x_test", "y_test"))
    )
    about = {
        "name": "mnist1d",
        "source": "S. Greydanus and D. Kobak, Scaling down deep learning with MNIST-1D, 2024",
        "licence": "Apache 2.0",
        "seed": seed,
    }
    parts = hold_out(train, test, (1 - VALID / 2, VALID / 2), seed)
    return finish(parts, None, about, 10)
