"""The parts of `python -m benchmarks.gpu_check`, run one after another in a worker process.

`python -m benchmarks.gpu_check_parts [--small]` prints the names of the parts as JSON, then reads
names from its standard input and answers each with one line of JSON: {"note"} or {"failed"}.
"""

import functools
import importlib
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from jdl.models.layers.attention_ops import attention
from tests.support import families
from tests.support.contract_rows import MODELS, PLAIN, TRANSFORMS, Row, base, plainly

Part = Callable[[], str]
"""Raises where something is wrong; returns what there is to say."""

STEPS = 3
KEY = jax.random.key(0)


def parts(small: bool) -> dict[str, Part]:
    """Every part by name: rows of the contract's table, then what is no row.

    `small` takes one row of each family of models, no transform of a transform, and evaluates in
    one part only.
    """
    found: dict[str, Part] = {}
    for row in TRANSFORMS:
        is_nested = " of " in row.name or row.name.startswith("nested")
        if "sharded equals one" in row.without or (small and is_nested):
            continue  # the former want eight devices: see below
        found[f"learner: {row.name}"] = functools.partial(train_row, row, small)
    groups = {"mlp and cnn": MODELS}
    for name in _families():
        groups[name] = importlib.import_module(f"{families.__name__}.{name}").ROWS
    for group, rows in groups.items():
        for row in rows[:1] if small else rows:
            found[f"{group}: {row.name}"] = functools.partial(train_row, row, small)
    found |= {
        name: functools.partial(on_devices, change, base())
        for name, change in {
            "shard": lambda inner, n: jdl.shard(inner, jdl.mesh(data=n)),
            "shard, fsdp": lambda inner, n: jdl.shard(
                inner, jdl.mesh(data=n), jdl.rules.fsdp(smallest=1)
            ),
            "pmap": lambda inner, n: jdl.pmap(inner),
            "shard_map": lambda inner, n: jdl.shard_map(inner, jdl.mesh(data=n)),
        }.items()
    }
    return found | {
        "shard_members": members_on_devices,
        "bfloat16": functools.partial(bfloat16, small),
        "remat": functools.partial(remat, small),
        "flash attention": flash_attention,
        "generate": generate,
        "fit, checkpoint, resume": resume,
        "evaluate and predict": evaluate,
        "stream": stream,
    }


def _families() -> list[str]:
    folder = Path(families.__path__[0])
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def train_row(row: Row, small: bool) -> str:
    """A few steps, each with an evaluation; every parameter and the loss stay finite."""
    learner, batch = row.build(plainly), row.batch
    rows = batch if "x" in batch else PLAIN

    def both(state: jdl.TrainState, batch: Any) -> Any:
        state, _ = learner.step(state, batch)
        return state, None if small else learner.evaluate(state, rows)["loss"]

    state, loss = jax.jit(learner.init)(KEY, batch), None
    step = jax.jit(both)
    for _ in range(STEPS):
        state, loss = step(state, batch)
    for path, leaf in jax.tree.leaves_with_path(state.params):
        assert np.isfinite(np.asarray(leaf)).all(), f"{jax.tree_util.keystr(path)} is not finite"
    assert int(state.step) >= STEPS
    if loss is None:
        return f"{int(state.step)} steps"
    total, weight = (np.asarray(part).sum() for part in (loss.total, loss.weight))
    assert np.isfinite(total), "the loss is not finite"
    return f"{int(state.step)} steps, loss {total / weight:.3g}"


def on_devices(change: Callable[[Any, int], jdl.Learner], inner: jdl.Learner) -> str:
    """Over the devices that there are, one perhaps, the weights are those of one device."""
    count = _usable_devices(len(PLAIN["x"]))
    learner = change(inner, count)
    lone = _trained(inner)
    other = _trained(learner)
    for one, two in zip(jax.tree.leaves(lone.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
    return f"{count} device{'s' if count > 1 else ''}"


def members_on_devices() -> str:
    """Members of an ensemble, spread over the devices."""
    count = _usable_devices(8)
    many = jdl.shard_members(jdl.ensemble(base(), 8), jdl.mesh(members=count))
    state = _trained(many)
    assert state.members == (8,)
    return f"8 members on {count}"


def _usable_devices(rows: int) -> int:
    """All of them, where the rows of a batch can be divided by their number."""
    count = jax.device_count()
    return count if rows % count == 0 else 1


def _trained(learner: jdl.Learner) -> jdl.TrainState:
    state = jax.jit(learner.init)(KEY, PLAIN)
    step = jax.jit(learner.step)
    for _ in range(STEPS):
        state, _ = step(state, PLAIN)
    return state


def bfloat16(small: bool) -> str:
    """Computed in bfloat16 around float32 weights, a network has nearly the loss of float32."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 16, 16, 1)).astype(np.float32)
    batch = {"x": x, "y": (x.mean((1, 2, 3)) > 0).astype(np.int32)}
    cnn = jdl.models.CNN((16, 32), (32,), classes=2, padding="SAME")
    model = jdl.from_linen(jdl.models.MLP((32,), outputs=2) if small else cnn)
    losses = []
    for each in (model, jdl.precision(model, "bfloat16")):
        learner = jdl.learner(jdl.classification(each), optax.adam(1e-3))
        state, metrics = jax.jit(learner.init)(KEY, batch), {}
        step = jax.jit(learner.step)
        for _ in range(STEPS):
            state, metrics = step(state, batch)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        losses.append(float(metrics["loss"].total / metrics["loss"].weight))
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    return f"loss {losses[1]:.4f}, float32 {losses[0]:.4f}"


def remat(small: bool) -> str:
    """Gradients of a decoder that computes its blocks twice are those of one that does not."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 32, (4, 33)), jnp.int32)
    found, kinds = {}, ("full",) if small else ("dots", "full")
    blocks = 1 if small else 2
    for kind in ("none", *kinds):
        module = jdl.models.TransformerDecoder(32, 32, blocks, heads=2, width=32, remat=kind)
        learner = jdl.learner(jdl.tasks.language_model(jdl.from_linen(module)), optax.sgd(0.1))
        state = jax.jit(learner.init)(KEY, {"x": tokens})
        assert learner.gradient is not None
        found[kind] = jax.tree.leaves(jax.jit(learner.gradient)(state, {"x": tokens})[0])
    for kind in kinds:
        for one, two in zip(found["none"], found[kind], strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
    return " and ".join(kinds)


def flash_attention() -> str:
    """Causal attention of 1,024 bfloat16 tokens and its gradient, next to float32 written out."""
    rng = np.random.default_rng(0)
    inputs = [jnp.asarray(rng.normal(size=(2, 1_024, 2, 64)), jnp.bfloat16) for _ in range(3)]

    def written_out(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        query, key, value = (each.astype(jnp.float32) for each in (query, key, value))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision="highest") / 8
        scores = jnp.where(
            jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None], scores, -jnp.inf
        )
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value, precision="highest")

    def of(function: Callable[..., jax.Array]) -> Any:
        return jax.jit(
            lambda *inputs: (
                function(*inputs).astype(jnp.float32),
                jax.grad(lambda *i: (function(*i).astype(jnp.float32) ** 2).sum(), (0, 1, 2))(
                    *inputs
                ),
            )
        )

    ours = of(functools.partial(attention, is_causal=True))
    for one, two in zip(
        jax.tree.leaves(ours(*inputs)), jax.tree.leaves(of(written_out)(*inputs)), strict=True
    ):
        one, two = (np.asarray(each, np.float32) for each in (one, two))
        assert abs(one - two).max() < 0.02 * abs(two).max(), abs(one - two).max()
    is_flash = "fmha" in ours.lower(*inputs).compile().as_text()
    assert is_flash or not _has_flash(), "cuDNN's attention was not taken"
    return "cuDNN's" if is_flash else "without cuDNN"


def _has_flash() -> bool:
    (device, *_) = jax.local_devices()
    capability = getattr(device, "compute_capability", "0")
    return device.platform == "gpu" and float(capability) >= 8


def generate() -> str:
    """Tokens drawn from a decoder, beyond its context."""
    module = jdl.models.TransformerDecoder(vocabulary=16, context=8, blocks=1, heads=2, width=16)
    prompt = jnp.ones((2, 3), jnp.int32)
    params = jax.jit(module.init)(KEY, prompt)["params"]
    drawn = jdl.models.generate(module, params, prompt, KEY, steps=12, top_k=4)
    assert drawn.shape == (2, 15) and (drawn >= 0).all() and (drawn < 16).all()
    return f"{drawn.size - prompt.size} tokens"


def _digits() -> tuple[Any, jdl.Learner]:
    data = jdl.data.load("digits")
    model = jdl.from_linen(jdl.models.MLP((64,), outputs=10, dropout=0.1))
    learner = jdl.ema(jdl.learner(jdl.classification(model), optax.adam(3e-3)), 0.9)
    return data, learner


def _fit(epochs: int, run_dir: Path | None = None) -> tuple[Any, jdl.Result]:
    data, learner = _digits()
    options = jdl.Options(bar=False, track=())
    return data, jdl.fit(
        learner, data, batch_size=64, epochs=epochs, run_dir=run_dir, options=options
    )


def resume() -> str:
    """A run that stops after two epochs and is resumed for a third one, and one of three."""
    with tempfile.TemporaryDirectory() as folder:
        _fit(2, Path(folder) / "run")
        _, resumed = _fit(3, Path(folder) / "run")
        _, whole = _fit(3, Path(folder) / "whole")
    for one, two in zip(
        jax.tree.leaves(resumed.state.params), jax.tree.leaves(whole.state.params), strict=True
    ):
        assert np.array_equal(one, two), "a resumed run has other weights"
    return f"{int(whole.state.step)} steps, the same bits"


def evaluate() -> str:
    """Accuracy on the test split, whose size no batch divides, from metrics and from outputs."""
    data, result = _fit(8)
    test = data.test()
    metrics = jdl.evaluate(result, test, batch_size=100)
    by_hand = (np.asarray(jdl.predict(result, test["x"])).argmax(-1) == test["y"]).mean()
    assert abs(metrics["accuracy"] - by_hand) < 1e-6 and by_hand > 0.85, (metrics, by_hand)
    return f"test accuracy {by_hand:.4f}"


def stream() -> str:
    """Rows that are read while the device works."""
    data, learner = _digits()
    train = data.train

    class Rows:
        def __len__(self) -> int:
            return len(train["x"])

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {name: values[index] for name, values in train.items()}

    rows: Any = Rows()
    result = jdl.fit(
        learner, rows, batch_size=64, epochs=1, options=jdl.Options(bar=False, track=())
    )
    return f"{int(result.state.step)} steps"


def main() -> None:
    found = parts("--small" in sys.argv[1:])
    answer = sys.stdout
    sys.stdout = sys.stderr  # what a part prints is no answer
    print(json.dumps({"parts": list(found)}), file=answer, flush=True)
    for line in sys.stdin:
        try:
            told = {"note": found[line.strip()]()}
        except Exception as failure:
            traceback.print_exc()
            told = {"failed": f"{type(failure).__name__}: {failure}".strip().partition("\n")[0]}
        print(json.dumps(told), file=answer, flush=True)


if __name__ == "__main__":
    main()
