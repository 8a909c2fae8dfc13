"""PyTorch on a GPU at its usual best: bfloat16, channels last, fused Adam, data on the device.

"torch_compile" compiles the model too, and "torch_graphs" has its kernels launched together, as
CUDA graphs. Without a GPU they run on the CPU, for rehearsals.
"""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from benchmarks.peer_process import Rounds
from benchmarks.peers.torch_eager import NETWORKS, prepared
from benchmarks.workloads import LEARNING_RATE, WORKLOADS


def run(peer: str, workload: str, rounds: Rounds) -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work, form = WORKLOADS[workload], torch.channels_last
    x, y = (torch.from_numpy(part).to(device) for part in work.data())
    x, y = prepared(workload, x, y.long(), form)
    model: Any = NETWORKS[workload]().to(device)
    model.to(memory_format=form)
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    called = model
    if peer != "torch_bf16":
        mode = "reduce-overhead" if peer == "torch_graphs" else "default"
        called = torch.compile(model, mode=mode)
    feed = _places(len(x), work.batch, device)

    def train(n: int) -> float:
        loss = torch.zeros(())
        for _ in range(n):
            rows = next(feed)
            with torch.autocast(device, torch.bfloat16):
                logits = called(x[rows].contiguous(memory_format=form) if x.ndim == 4 else x[rows])
                loss = F.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]).float(), y[rows].reshape(-1)
                )
            adam.zero_grad()
            loss.backward()
            adam.step()
        return loss.item()

    rounds.drive(train, at_once=50)


def _places(n: int, batch: int, device: str) -> Any:
    """The rows of each batch, drawn on the device: a shuffled pass after another."""
    while True:
        order = torch.randperm(n, device=device)
        for start in range(0, n - batch + 1, batch):
            yield order[start : start + batch]
