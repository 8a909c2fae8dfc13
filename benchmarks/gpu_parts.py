"""The parts of `python -m benchmarks gpu`, each in a process of its own.

`python -m benchmarks.gpu_parts PART JSON` runs one, with the fields of `Call` as JSON. It ends
itself in time, and prints one line of JSON, {"text", "numbers"}, for everything it has found.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import forms, growth, race, trace
from benchmarks.stepping import stepping
from benchmarks.workloads import WORKLOADS

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


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
    steps: int
    """In a profile."""


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
    steps=10,
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
    steps=3,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """What a part is told."""

    began: float
    """When its process was started, in seconds since 1970."""
    seconds: float
    """How long it may take."""
    rehearse: bool
    data_dir: str | None
    """A folder with `mnist/` and `text/`, or the files themselves."""
    out: str

    @property
    def sizes(self) -> Sizes:
        """Those of a device, or small ones."""
        return REHEARSAL if self.rehearse else REAL

    @property
    def spent(self) -> float:
        """Seconds since the process was started."""
        return time.time() - self.began

    def folder(self, *names: str) -> Path | None:
        """The folder of `data_dir` that has one of the files, if any."""
        root = Path(self.data_dir) if self.data_dir else None
        places = [] if root is None else [root, root / "mnist", root / "text"]
        return next((p for p in places for name in names if (p / name).exists()), None)


def say(text: str, **numbers: Any) -> None:
    """Pass on what has been found."""
    print(json.dumps({"text": text, "numbers": numbers}), flush=True)


def table(call: Call) -> None:
    """A step of jdl and of PyTorch, side by side."""
    theirs = ["torch_bf16", "torch_compile", "torch_graphs"]
    if not torch_is_ready(call.rehearse):
        theirs = []
        say("PyTorch's CUDA build is not installed: jdl stands alone.")
    for name in call.sizes.workloads:
        began = call.spent
        racers = started(name, theirs)
        try:
            found = race.in_turns(racers, call.sizes.rounds, call.sizes.seconds)
        finally:
            for racer in racers:
                racer.end()
        say(race.table(WORKLOADS[name].title, found),
            **{name: {peer: run._asdict() for peer, run in found.items()}})  # fmt: skip
        if call.spent + 1.2 * (call.spent - began) > call.seconds:
            break


def started(workload: str, theirs: list[str]) -> list[race.Racer]:
    """Everybody's process, ready for rounds; one that cannot start is named and left out.

    jdl's starts alone, for it times its steps in the beginning; the others compile together.
    """

    def start(peer: str) -> race.Racer | None:
        try:
            return race.Racer(peer, workload)
        except RuntimeError as failure:
            say(f"{workload}: {failure}")

    ours = start("jdl_bf16")
    with ThreadPoolExecutor() as pool:
        return [racer for racer in (ours, *pool.map(start, theirs)) if racer is not None]


def torch_is_ready(rehearse: bool) -> bool:
    """Whether PyTorch is here, and sees the device."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return rehearse or torch.cuda.is_available()


def mnist(call: Call) -> None:
    """From the start of the process to 99 % of the test images, as `jdl train` would get there."""
    module = _experiment("mnist_cnn")
    folder = call.folder("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
    given = None if folder is None else str(folder)
    made = module.experiment(module.Config(data_dir=given, **call.sizes.mnist))
    name, test = made.data.info["name"], made.data.test()
    every = max(1, round(len(made.data.train["x"]) / made.batch_size / 2))
    best = _until(call, made, test, every, lambda row: row.get("accuracy", 0) >= 0.99)
    instead = "" if name == "mnist" else " (no MNIST in --data-dir: the digits in its place)"
    say(
        f"CNN on {name}{instead}: test accuracy {best['accuracy']:.4f} at step {best['step']:.0f}, "
        f"{best['after']:.1f} s after the start of the process"
        f"{'' if best['reached'] else ' (0.99 was not reached)'}.",
        **best, data=name,
    )  # fmt: skip
    profile(call, "mnist", stepping(made.learner, made.data.train, made.batch_size, "auto"))


def characters(call: Call) -> None:
    """The transformer of 10.7 million parameters to nanoGPT's validation loss of 1.47."""
    module = _experiment("char_transformer")
    folder = call.folder("tinyshakespeare.txt")
    made = module.experiment(module.Config(data_dir=folder, **call.sizes.characters))
    every = max(1, call.sizes.characters["steps"] // 20)
    # Told: measuring would compile a second program, for half a minute.
    best = _until(call, made, made.valid, every, lambda row: row["loss"] <= 1.47, "step")
    instead = "" if folder else " (no tinyshakespeare.txt in --data-dir: texts of Python's help)"
    say(
        f"character transformer{instead}: least validation loss {best['loss']:.4f} at step "
        f"{best['step']:.0f}, {best['after']:.1f} s after the start of the process"
        f"{'' if best['reached'] else ' (1.47 was not reached)'}.",
        **best, data="tinyshakespeare" if folder else "help",
    )  # fmt: skip
    profile(call, "characters", stepping(made.learner, made.data, made.batch_size, "step"))


def _experiment(name: str) -> Any:
    from jdl.run import flags
    from jdl.run.experiment import from_file

    flags.set_up()
    return from_file(EXPERIMENTS / f"{name}.py")


def _until(
    call: Call,
    made: Any,
    valid: Any,
    every: int,
    good: Callable[[dict[str, Any]], bool],
    dispatch: str = "auto",
) -> dict[str, Any]:
    """Train until an evaluation is good, or two thirds of the time are over; the best one."""
    import jdl

    best: dict[str, Any] = {"reached": False, "loss": float("inf")}

    class Enough(Exception):
        """The run is over."""

    def note(row: dict[str, Any]) -> None:
        if row["split"] == "valid" and (good(row) or row["loss"] < best["loss"]):
            best.update(row, after=call.spent, reached=good(row))
        if best["reached"] or call.spent > 2 / 3 * call.seconds:
            raise Enough

    data = getattr(made.data, "train", made.data)
    options = jdl.Options(bar=False, evaluate_every=every, dispatch=dispatch)
    with contextlib.suppress(Enough):
        jdl.fit(made.learner, data, valid=valid, batch_size=made.batch_size, epochs=made.epochs,
                log=note, options=options)  # fmt: skip
    return best if "step" in best else best | {"step": 0, "after": call.spent, "accuracy": 0.0}


def gpt2(call: Call) -> None:
    """A step of GPT-2 small: tokens a second, and its share of what the device can compute."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jdl.core.flops import flops
    from jdl.run.flags import set_up
    from jdl.run.timesheet import PEAKS

    set_up()
    learner, batch = gpt2_learner(call.sizes), call.sizes.gpt2_batch
    shape = (4 * batch, call.sizes.gpt2["context"] + 1)
    tokens = np.random.default_rng(0).integers(0, call.sizes.gpt2["vocabulary"], shape)
    data = {"x": tokens.astype(np.int32)}
    # Drawn: a product of ones alone is an eighth faster.
    square = jax.random.normal(jax.random.key(0), (call.sizes.product,) * 2, jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    measured = 2 * call.sizes.product**3 / growth.timed(lambda: product(square, square))
    one = {"x": data["x"][:batch]}
    work = flops(learner.step, jax.eval_shape(learner.init, jax.random.key(0), one), one).count
    run = stepping(learner, data, batch, "loop")  # two programs would take twice the time
    run(3)
    seconds = growth.timed(lambda: run(10), min(5.0, call.seconds / 4)) / 10
    rate, kind = work / seconds, jax.devices()[0].device_kind
    listed = PEAKS.get(kind)
    shares = [f"{rate / measured:.1%} of the product of two matrices of {call.sizes.product}, "
              f"{measured / 1e12:.3g} TFLOP/s"]  # fmt: skip
    if listed:
        shares.insert(0, f"{rate / listed:.1%} of the data sheet's {listed / 1e12:.0f} TFLOP/s")
    say(
        f"GPT-2 small, batch {batch}: {1e3 * seconds:.4g} ms a step, "
        f"{batch * (shape[1] - 1) / seconds:,.0f} tokens a second, {rate / 1e12:.4g} TFLOP/s of "
        f"matrix products: {'; '.join(shares)}.",
        seconds=seconds, flops=work, measured=measured, listed=listed, device=kind,
    )  # fmt: skip
    profile(call, "gpt2", run, steps=1)  # of a loop of large steps the profiler saw one turn only


def gpt2_learner(sizes: Sizes) -> Any:
    """The decoder in bfloat16, AdamW, the gradient clipped."""
    import optax

    import jdl

    model = jdl.precision(jdl.from_linen(jdl.models.Decoder(**sizes.gpt2)))
    adam = optax.adamw(6e-4, b2=0.95, weight_decay=0.1, mask=jdl.optim.decay_mask)
    return jdl.learner(jdl.tasks.language_model(model), jdl.optim.clip(adam, 1.0))


def primitives(call: Call) -> None:
    """The models' primitives beside plain forms of them."""
    found: dict[str, forms.Point] = {}
    for case in forms.ready(forms.cases(call.rehearse)):
        found[case.name] = forms.measured(case, call.sizes.seconds / 20)
        if call.spent > 0.8 * call.seconds:
            break
    say(forms.table(found), **{name: point._asdict() for name, point in found.items()})


def profile(call: Call, name: str, run: Callable[[int], None], steps: int | None = None) -> None:
    """What the device's time of a few steps goes into."""
    folder, steps = Path(call.out) / f"trace-{name}", steps or call.sizes.steps
    run(steps)
    begin = time.perf_counter()
    run(steps)
    spent = time.perf_counter() - begin
    # Under a profiler XLA may launch each kernel for itself: the gaps are not those of a run.
    found = trace.traced(lambda: run(steps), folder)._replace(span=1e6 * spent)
    say(f"{found.text(steps)}\n\nThe trace is in {folder}.",
        **{f"{name}_kernels": dict(list(found.kernels.items())[:20]), f"{name}_idle": found.idle}
        if found.kernels else {})  # fmt: skip


PARTS: dict[str, Callable[[Call], None]] = {
    "mnist": mnist, "gpt2": gpt2, "characters": characters, "table": table, "forms": primitives
}  # fmt: skip

if __name__ == "__main__":
    PARTS[sys.argv[1]](Call(**json.loads(sys.argv[2])))
