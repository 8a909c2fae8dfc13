"""`python -m benchmarks gpu`: what is worth knowing of a GPU, in under ten minutes.

- CNN on MNIST from the start of the process to 99 % of the test images;
- GPT-2 small's step: tokens a second and model-FLOPs utilisation;
- the character transformer of 10.7 million parameters to a validation loss of 1.47;
- steps of three workloads next to PyTorch's, compiled, in bfloat16 and with channels last.

Each part has a process of its own and a share of the time that is left; one that does not end in
time is stopped, and what it has printed until then counts. Exit code 4 where there is no GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import Call
from benchmarks.tables import ROOT

NO_GPU = 4
SHARES = {"mnist": 60, "gpt2": 130, "characters": 125, "peers": 225}
"""Of the time, for each part; what one leaves over goes to the next."""

DEVICE = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind)"


def main(given: list[str]) -> int:
    """Run the parts; 0, or `NO_GPU`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(SHARES)}; all if none")
    parser.add_argument("--data-dir", help="folder with MNIST's IDX files and tinyshakespeare.txt")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"), help="results' folder")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on any device")
    options = parser.parse_args(given)
    for unknown in set(options.parts) - set(SHARES):
        parser.error(f"no part is called {unknown}; there are {', '.join(SHARES)}")
    backend, _, device = device_name().partition(" ")
    if backend not in ("gpu", "cuda", "rocm") and not options.rehearse:
        print(
            f"There is no GPU here: jax's backend is {backend} ({device}). Nothing was measured.\n"
            'On a machine with one: pip install "jdl-jax[cuda12]". To try the program itself with '
            "small sizes: --rehearse.",
            file=sys.stderr,
        )
        return NO_GPU
    where = f"{device}{', a rehearsal: the times mean nothing' if options.rehearse else ''}"
    measure(options.parts or list(SHARES), options, where)
    return 0


def measure(parts: list[str], options: argparse.Namespace, device: str) -> None:
    """Run some parts, print what they find, and write it to `options.out`."""
    options.out.mkdir(parents=True, exist_ok=True)
    lines, end = [device], time.time() + 60 * options.minutes
    results: dict[str, Any] = {"device": device}
    print(device, flush=True)

    def report(found: dict[str, Any]) -> None:
        lines.append(found["text"])
        results.setdefault(part, {}).update(found["results"])
        print(f"\n{found['text']}", flush=True)

    for place, part in enumerate(parts):
        share = SHARES[part] / sum(SHARES[name] for name in parts[place:])
        seconds = share * (end - time.time())
        call = Call(time.time(), seconds, options.rehearse, options.data_dir)
        failed = run(part, call, report)
        if failed:
            report({"text": f"{part}: {failed}", "results": {"failed": failed}})
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1))
        (options.out / "gpu.md").write_text("\n\n".join(lines) + "\n")


def run(part: str, call: Call, report: Callable[[dict[str, Any]], None]) -> str | None:
    """Run a part and report its lines; returns what went wrong, if anything did."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_parts", part, json.dumps(vars(call))],
        cwd=ROOT,
        # Peers share the device: none may reserve all of its memory.
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(call.seconds, end_group, [process])
    late.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                report(json.loads(line))
        code = process.wait()
    finally:
        over = not late.is_alive()
        late.cancel()
        end_group(process)  # and whatever it has started
    if over:
        return f"stopped after {call.seconds:.0f} s, its share of the time"
    return f"ended with code {code}, see above" if code else None


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def device_name() -> str:
    """Backend and device, asked in another process: this one must hold no memory there."""
    done = subprocess.run(
        [sys.executable, "-c", DEVICE], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()
