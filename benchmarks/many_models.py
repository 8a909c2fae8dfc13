"""32 small networks, each with its own seed and learning rate, from the start of a process.

`python -m benchmarks.many_models PEER` trains them and prints their mean loss. The time is that
of the whole process: importing, compiling and training.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from benchmarks.command_process import command_process
from benchmarks.tables import ROOT
from benchmarks.workloads import MODEL_BATCH, MODEL_STEPS, MODELS, RATES, digits

PEERS = ("jdl", "jdl_train", "linen", "torch")


def process_seconds(peer: str, environment: Mapping[str, str]) -> float:
    """How long a new process takes."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "benchmarks.many_models", peer],
        cwd=ROOT,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - began


def by_jdl(as_command: bool) -> float:
    with command_process() if as_command else nullcontext():
        import optax

        import jdl

        x, y = digits()
    model = jdl.from_linen(jdl.models.MLP((32,), outputs=10))

    def build(learning_rate: Any) -> jdl.Learner:
        return jdl.learner(jdl.classification(model), optax.adam(learning_rate))

    many = jdl.sweep(build, {"learning_rate": RATES.tolist()})
    epochs = MODEL_STEPS * MODEL_BATCH / len(x)
    quiet = jdl.Options(bar=False, log_every=100)
    data = {"x": x, "y": y}
    result = jdl.fit(many, data, batch_size=MODEL_BATCH, epochs=epochs, options=quiet)
    return float(np.mean(result.history[-1]["loss"]))


def by_linen() -> float:
    """One network after the other, in one compiled step that takes the learning rate."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.peers.linen import SmallMLP

    model: Any = SmallMLP()

    def loss(params: Any, x: Any, y: Any) -> Any:
        logits: Any = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    tx = optax.scale_by_adam()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, moments: Any, x: Any, y: Any, rate: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, moments = tx.update(grads, moments)
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), moments, value

    x, y = digits()
    init, values = jax.jit(partial(model.init, x=jnp.zeros((1, 64)))), []
    for seed, rate in enumerate(RATES):
        params = init(jax.random.key(seed))
        moments, draw, value = tx.init(params), np.random.default_rng(seed), None
        for _ in range(MODEL_STEPS):
            rows = draw.integers(0, len(x), MODEL_BATCH)
            params, moments, value = step(params, moments, x[rows], y[rows], np.float32(rate))
        values.append(value)
    return float(np.mean(jax.device_get(values)))


def by_torch() -> float:
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    x, y = digits()
    values = []
    for seed, rate in enumerate(RATES):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        adam = torch.optim.Adam(model.parameters(), lr=float(rate))
        draw, loss = np.random.default_rng(seed), torch.zeros(())
        for _ in range(MODEL_STEPS):
            rows = draw.integers(0, len(x), MODEL_BATCH)
            logits = model(torch.from_numpy(x[rows]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(y[rows]).long())
            adam.zero_grad()
            loss.backward()
            adam.step()
        values.append(loss.item())
    return float(np.mean(values))


def main() -> None:
    peer = sys.argv[1]
    train = {
        "jdl": lambda: by_jdl(as_command=False),
        "jdl_train": lambda: by_jdl(as_command=True),
        "linen": by_linen,
        "torch": by_torch,
    }[peer]
    print(f"{MODELS} models, mean loss {train():.4f}")


if __name__ == "__main__":
    main()
