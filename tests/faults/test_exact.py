"""A run stopped at any of four steps and gone on with has every bit of the run that was not.

For a CNN with dropout, batch statistics and augmentation, an LSTM and a GAN; and five runs in which
one thing is not put back, each of which has to differ.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jdl
from jdl.core.types import Learner, TrainState
from jdl.run.distributed.signals import Interrupted
from jdl.run.recorder import Recorder
from tests.support import learners
from tests.support.runs import assert_same_run, content, force, quiet

pytestmark = [pytest.mark.usefixtures("kept_programs")]
DRAW = np.random.default_rng(0)
PICTURES = {
    "x": DRAW.random((24, 6, 6, 1), np.float32),
    "y": np.arange(24, dtype=np.int32) % 3,
}
SERIES = {
    "x": DRAW.normal(size=(24, 5, 2)).astype(np.float32),
    "y": np.arange(24, dtype=np.int32) % 2,
    "lengths": DRAW.integers(1, 6, 24).astype(np.int32),
}
POINTS_IN_A_PLANE = {"x": DRAW.normal(size=(24, 2)).astype(np.float32)}


def cnn() -> Learner:
    model = jdl.models.CNN(
        features=(2,), hidden=(4,), classes=3, padding="SAME", dropout=0.3, norm="batch"
    )
    task = jdl.augment(
        jdl.classification(jdl.from_linen(model)),
        jdl.data.augmentations.affine(degrees=20, shift=1.0),
    )
    return jdl.ema(jdl.learner(task, optax.adam(1e-2)), 0.9)


def lstm() -> Learner:
    model = jdl.models.RNN((4,), outputs=2, cell="lstm", dropout=0.2)
    task = jdl.tasks.sequence_classification(jdl.from_linen(model))
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 12)
    return jdl.learner(task, jdl.optim.clip(optax.adamw(rate), 1.0))


def gan() -> Learner:
    networks = [jdl.from_linen(jdl.models.MLP((8,), outputs)) for outputs in (2, 1)]
    makes, judges = jdl.tasks.gan_tasks(*networks, latent=3)
    adam = optax.adam(1e-2, b1=0.5)
    players = {"discriminator": jdl.Player(judges, adam), "generator": jdl.Player(makes, adam)}
    return jdl.game(**players)


LEARNERS: dict[str, tuple[Callable[[], Learner], dict[str, np.ndarray]]] = {
    "cnn": (cnn, PICTURES),
    "lstm": (lstm, SERIES),
    "gan": (gan, POINTS_IN_A_PLANE),
}
POINTS = (1, 4, 6, 11)
"""Steps of twelve: the first, in an epoch, after a row of the log, the last but one."""


@pytest.fixture
def stop_at(monkeypatch):
    """Make the next runs stop, by a real signal, once they have come to a step."""
    plain = Recorder.progress
    force(monkeypatch, "step", 1)

    def set_up(step: int | None) -> None:
        def progress(self: Recorder, at: int) -> None:
            plain(self, at)
            if step is not None and at >= step:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Recorder, "progress", progress)

    return set_up


def fit(name: str, folder: Path | None, **given: Any) -> jdl.Result:
    build, data = LEARNERS[name]
    options = quiet(log_every=3, save_seconds=1e9)
    return jdl.fit(
        build(), given.pop("data", data), batch_size=8, epochs=4, run_dir=folder, options=options
    )


@pytest.fixture(scope="module")
def straight() -> Callable[[str], jdl.Result]:
    """The runs that are never stopped, by name."""
    known: dict[str, jdl.Result] = {}

    def run(name: str) -> jdl.Result:
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                force(patch, "step", 1)
                known[name] = fit(name, None)
        return known[name]

    return run


def cases() -> list[Any]:
    return [
        pytest.param(name, point, marks=() if (name, point) == ("gan", 4) else pytest.mark.slow)
        for name in LEARNERS
        for point in POINTS
    ]


@pytest.mark.parametrize(("name", "point"), cases())
def test_a_resumed_run_has_every_bit(name, point, stop_at, straight, tmp_path):
    whole = straight(name)
    stop_at(point)
    with pytest.raises(Interrupted) as info:
        fit(name, tmp_path / "run")
    assert info.value.step == point
    stop_at(None)
    assert_same_run(fit(name, tmp_path / "run"), whole)


# What must be put back: without it the end is another


def fresh(state: TrainState) -> TrainState:
    """A state as it begins, of the same tree."""
    return jax.tree.map(lambda leaf: leaf if learners.tree.is_key(leaf) else leaf * 0, state)


CONTROLS: dict[str, Callable[[TrainState], TrainState]] = {
    "moments": lambda state: state.replace(opt_state=fresh(state).opt_state),
    "key": lambda state: state.replace(key=jax.random.key(7)),
    "step": lambda state: state.replace(step=state.step + 1),
    "batch statistics": lambda state: state.replace(model_state=fresh(state).model_state),
    "order": lambda state: state,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_a_run_without_it_differs(name, stop_at, straight, tmp_path, monkeypatch):
    whole = straight("cnn")
    stop_at(6)
    with pytest.raises(Interrupted):
        fit("cnn", tmp_path / "run")
    stop_at(None)
    plain = Recorder.resume

    def resume(self: Recorder, state: TrainState) -> TrainState:
        return CONTROLS[name](plain(self, state))

    monkeypatch.setattr(Recorder, "resume", resume)
    data = PICTURES
    if name == "order":
        config = tmp_path / "run" / "config.json"
        config.write_text(config.read_text().replace('"feed_seed": 0', '"feed_seed": 1'))
        data = jdl.Feed(PICTURES, 8, seed=1)
    ended = fit("cnn", tmp_path / "run", data=data)
    differs = learners.differ(content(ended.state)["params"], content(whole.state)["params"])
    statistics = learners.differ(
        content(ended.state)["model_state"], content(whole.state)["model_state"]
    )
    assert differs or (name == "batch statistics" and statistics)
