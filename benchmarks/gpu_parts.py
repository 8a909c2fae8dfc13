"""The parts of `python -m benchmarks gpu`, each in a process of its own.

`python -m benchmarks.gpu_parts PART JSON` runs one, with the fields of `Call` as JSON. It ends
itself in time, and prints one line of JSON, {"text", "results"}, for everything it has found.
"""

import contextlib
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import step_time
from benchmarks.command_process import command_process

DATA_SHEET = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}
"""Operations a second in bfloat16."""


class Sizes(NamedTuple):
    """How large everything is."""

    workloads: tuple[str, ...]
    rounds: int
    seconds: float
    mnist: dict[str, Any]
    """Fields of experiments/mnist_cnn.py."""
    characters: dict[str, Any]
    """Fields of experiments/char_transformer.py."""
    gpt2: dict[str, Any]
    """Fields of `jdl.models.Decoder`."""
    gpt2_batch: int
    product: int
    """Side of the matrices whose product gives the measured peak."""


REAL = Sizes(
    workloads=("cnn", "lstm", "gpt"),
    rounds=3,
    seconds=1.0,
    mnist={"epochs": 20},
    # nanoGPT's configuration for Shakespeare's characters: 10,745,088 parameters.
    characters={"blocks": 6, "heads": 6, "width": 384, "context": 256, "dropout": 0.2,
                "steps": 5_000, "batch_size": 64, "learning_rate": 1e-3,
                "precision": "bfloat16"},
    # GPT-2 small, 124,475,904 parameters: its vocabulary of 50,257 rounded up to a multiple of 64.
    gpt2={"vocabulary": 50_304, "context": 1_024, "blocks": 12, "heads": 12, "width": 768,
          "use_bias": True},
    gpt2_batch=32,
    product=8_192,
)  # fmt: skip
REHEARSAL = REAL._replace(
    workloads=("mlp",),
    rounds=1,
    seconds=0.3,
    mnist={"epochs": 2},
    characters=REAL.characters | {"blocks": 1, "heads": 2, "width": 32, "context": 16, "steps": 6},
    gpt2=REAL.gpt2 | {"vocabulary": 128, "context": 32, "blocks": 1, "heads": 2, "width": 32},
    gpt2_batch=2,
    product=512,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """What a part is given."""

    began: float
    """When its process was started, in seconds since 1970."""
    seconds: float
    """How long it may take."""
    rehearse: bool
    data_dir: str | None
    """A folder with `mnist/` and `text/`, or the files themselves."""

    @property
    def sizes(self) -> Sizes:
        """Those of a device, or small ones."""
        return REHEARSAL if self.rehearse else REAL

    @property
    def spent(self) -> float:
        """Seconds since the process was started."""
        return time.time() - self.began

    def folder_with(self, *names: str) -> str | None:
        """The folder of `data_dir` that has one of the files, if any."""
        if not self.data_dir:
            return None
        root = Path(self.data_dir)
        folders = (root, root / "mnist", root / "text")
        found = (folder for folder in folders for name in names if (folder / name).exists())
        return next(map(str, found), None)


def report(text: str, **results: Any) -> None:
    """Pass on what has been found."""
    print(json.dumps({"text": text, "results": results}), flush=True)


def mnist(call: Call) -> None:
    """From the start of the process to 99 % of the test images, as `jdl train` would get there."""
    folder = call.folder_with("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
    made = _experiment("mnist_cnn", data_dir=folder, **call.sizes.mnist)
    half_epoch = max(1, round(len(made.data.train["x"]) / made.batch_size / 2))
    found = train_until(
        call, made, made.data.test(), half_epoch, lambda row: row.get("accuracy", 0) >= 0.99
    )
    name = made.data.info["name"]
    report(
        f"CNN on {name}: test accuracy {found['accuracy']:.4f} at step {found['step']:.0f}, "
        f"{found['after']:.1f} s after the start of the process"
        f"{'' if found['reached'] else ' (0.99 was not reached)'}.",
        **found,
        data=name,
    )


def characters(call: Call) -> None:
    """The transformer of 10.7 million parameters to nanoGPT's validation loss of 1.47."""
    folder = call.folder_with("tinyshakespeare.txt")
    made = _experiment("char_transformer", data_dir=folder, **call.sizes.characters)
    every = max(1, call.sizes.characters["steps"] // 20)
    found = train_until(call, made, made.valid, every, lambda row: row["loss"] <= 1.47)
    data = "tinyshakespeare" if folder else "Python's help"
    report(
        f"character transformer on {data}: validation loss {found['loss']:.4f} at step "
        f"{found['step']:.0f}, {found['after']:.1f} s after the start of the process"
        f"{'' if found['reached'] else ' (1.47 was not reached)'}.",
        **found,
        data=data,
    )


def _experiment(name: str, **fields: Any) -> Any:
    with command_process():
        module = importlib.import_module(f"experiments.{name}")
    return module.experiment(module.Config(**fields))


def train_until(
    call: Call, made: Any, valid: Any, every: int, good: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Train until an evaluation is good, or two thirds of the time are over; the best row."""
    import jdl

    best: dict[str, Any] = {"reached": False, "loss": float("inf"), "accuracy": 0.0, "step": 0}

    class RunIsOver(Exception):
        """Ends the run."""

    def note(row: dict[str, Any]) -> None:
        if row["split"] == "valid" and (good(row) or row["loss"] < best["loss"]):
            best.update(row, after=call.spent, reached=good(row))
        if best["reached"] or call.spent > 2 / 3 * call.seconds:
            raise RunIsOver

    with contextlib.suppress(RunIsOver):
        jdl.fit(
            made.learner,
            getattr(made.data, "train", made.data),
            valid=valid,
            batch_size=made.batch_size,
            epochs=made.epochs,
            log=note,
            options=jdl.Options(bar=False, evaluate_every=every),
        )
    return {"after": call.spent} | best


def gpt2(call: Call) -> None:
    """A step of GPT-2 small: tokens a second, and its share of what the device can compute."""
    with command_process():
        import jax
        import jax.numpy as jnp
        import numpy as np

        import jdl
        from benchmarks.timing import fit_rows, median_seconds, steps_per_second
        from jdl.core.flops import flops

    learner, batch = gpt2_learner(call.sizes), call.sizes.gpt2_batch
    context = call.sizes.gpt2["context"]
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, call.sizes.gpt2["vocabulary"], (4 * batch, context + 1), np.int32)
    # Random values: a product of ones alone is an eighth faster.
    square = jax.random.normal(jax.random.key(0), (call.sizes.product,) * 2, jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    peak = 2 * call.sizes.product**3 / median_seconds(lambda: product(square, square), 1.0)
    one = {"x": tokens[:batch]}
    state = jax.eval_shape(learner.init, jax.random.key(0), one)
    work = flops(learner.step, state, one).count
    feed, seconds = jdl.Feed({"x": tokens}, batch), min(5.0, call.seconds / 4)
    speed = steps_per_second(fit_rows(learner, feed, seconds, log_every=10))
    kind = jax.devices()[0].device_kind
    shares = [
        f"{work * speed / peak:.1%} of the {peak / 1e12:.3g} TFLOP/s of one large matrix product"
    ]
    if kind in DATA_SHEET:
        shares.append(f"{work * speed / DATA_SHEET[kind]:.1%} of the data sheet's peak")
    report(
        f"GPT-2 small, batch {batch}: {1e3 / speed:.4g} ms a step, "
        f"{batch * context * speed:,.0f} tokens a second, {work * speed / 1e12:.4g} TFLOP/s of "
        f"matrix products: {'; '.join(shares)}.",
        seconds=1 / speed,
        flops=work,
        peak=peak,
        device=kind,
    )


def gpt2_learner(sizes: Sizes) -> Any:
    """The decoder in bfloat16, AdamW, the gradient clipped."""
    import optax

    import jdl

    model = jdl.precision(jdl.from_linen(jdl.models.Decoder(**sizes.gpt2)))
    adam = optax.adamw(6e-4, b2=0.95, weight_decay=0.1, mask=jdl.optim.decay_mask)
    return jdl.learner(jdl.tasks.language_model(model), jdl.optim.clip(adam, 1.0))


def peers(call: Call) -> None:
    """A step of jdl and of PyTorch, side by side."""
    names = ["torch_bf16", "torch_compile", "torch_graphs"]
    if not torch_is_ready(call.rehearse):
        names = []
        report("PyTorch's CUDA build is not installed: jdl is measured alone.")
    for workload in call.sizes.workloads:
        began = call.spent
        ready = started(workload, names)
        try:
            found = step_time.in_turns(ready, call.sizes.rounds, call.sizes.seconds)
        finally:
            for peer in ready:
                peer.end()
        results = {name: run._asdict() for name, run in found.items()}
        report(step_time.table(workload, found), **{workload: results})
        if call.spent + 1.2 * (call.spent - began) > call.seconds:
            break


def started(workload: str, names: list[str]) -> list[step_time.Peer]:
    """Every peer's process, ready for rounds; one that cannot start is reported and left out.

    jdl's starts alone; the others compile at the same time.
    """

    def start(name: str) -> step_time.Peer | None:
        try:
            return step_time.Peer(name, workload)
        except RuntimeError as failure:
            report(f"{workload}: {failure}")

    ours = start("jdl_bf16")
    with ThreadPoolExecutor() as pool:
        return [peer for peer in (ours, *pool.map(start, names)) if peer is not None]


def torch_is_ready(rehearse: bool) -> bool:
    """Whether PyTorch is installed, and finds the device."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return rehearse or torch.cuda.is_available()


PARTS: dict[str, Callable[[Call], None]] = {
    "mnist": mnist,
    "gpt2": gpt2,
    "characters": characters,
    "peers": peers,
}

if __name__ == "__main__":
    PARTS[sys.argv[1]](Call(**json.loads(sys.argv[2])))
