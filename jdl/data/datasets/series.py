"""Data sets of sequences that `jdl.data.load` knows by name."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from jdl.core.errors import error
from jdl.data.datasets.build import finish, rows
from jdl.data.prepare import split
from jdl.data.prepare.scale import standardise
from jdl.data.readers.time_series import pad, read_ts, scale_series, true_steps
from jdl.data.records import Arrays, Data

VALID = 0.2


def japanese_vowels(dir: str | Path | None, seed: int) -> Data:
    """Nine speakers, 12 channels, 7 to 29 steps: 270 training and 370 test series."""
    files = {part: _find(dir, f"JapaneseVowels_{part.upper()}.ts") for part in ("train", "test")}
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
    statistics = standardise.fit(true_steps(train.x[keep], train.lengths[keep]))

    def part(series: Any, index: Any) -> Arrays:
        x, lengths = series.x[index], series.lengths[index]
        x = scale_series(standardise, statistics, x, lengths)
        whole, _ = pad(list(x), steps)
        return {"x": whole, "y": series.y[index], "lengths": lengths}

    info = {
        "name": "japanese_vowels",
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
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise error(
            'data set "mnist1d"',
            expected="the package that makes it",
            got="no module named mnist1d",
            fix="pip install mnist1d",
        ) from None
    # The package sets the seeds of the global generators: put back what they were.
    numbers, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        raw = make_dataset(get_dataset_args())
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(plain)
    train, test = (
        {"x": raw[x].astype(np.float32)[..., None], "y": raw[y].astype(np.int32)}
        for x, y in (("x", "y"), ("x_test", "y_test"))
    )
    keep, valid = split.stratified(train["y"], (1 - VALID / 2, VALID / 2), seed)
    about = {
        "name": "mnist1d",
        "source": "S. Greydanus and D. Kobak, Scaling down deep learning with MNIST-1D, 2024",
        "licence": "Apache 2.0",
        "seed": seed,
    }
    parts = {"train": rows(train, keep), "valid": rows(train, valid), "test": test}
    return finish(parts, None, about, 10)


def _find(dir: str | Path | None, name: str) -> Path:
    folder = dir if dir is not None else os.environ.get("JDL_DATA_DIR")
    places = [Path(folder), Path(folder) / "japanese_vowels"] if folder else []
    for place in places:
        if (place / name).is_file():
            return place / name
    raise error(
        'data set "japanese_vowels"',
        expected=f"a file {name}",
        got=f"none in {' or '.join(map(str, places))}"
        if places
        else "neither dir= nor the environment variable JDL_DATA_DIR",
        fix="give the folder of JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts",
    )
