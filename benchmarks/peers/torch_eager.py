"""PyTorch, eager; for the CNN also with its images' channels last in memory."""

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from benchmarks.peer_process import Rounds
from benchmarks.workloads import LEARNING_RATE, WORKLOADS, batches


def run(peer: str, workload: str, rounds: Rounds) -> None:
    torch.manual_seed(0)
    model: Any = NETWORKS[workload]()
    feed = batches(WORKLOADS[workload])
    form: Any = torch.channels_last if peer == "torch_last" else torch.contiguous_format
    model.to(memory_format=form)
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def train(n: int) -> float:
        loss = torch.zeros(())
        for _ in range(n):
            x, y = (torch.from_numpy(part) for part in next(feed))
            x, y = prepared(workload, x, y.long(), form)
            logits = model(x)
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
            adam.zero_grad()
            loss.backward()
            adam.step()
        return loss.item()

    rounds.drive(train, at_once=10)


def prepared(workload: str, x: Any, y: Any, form: Any) -> tuple[Any, Any]:
    """A batch as PyTorch wants it: channels before pixels, and a text's next characters as y."""
    if workload == "cnn":
        return x.permute(0, 3, 1, 2).contiguous(memory_format=form), y
    if workload == "gpt":
        return x[:, :-1].long(), x[:, 1:].long()
    return x, y


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(32, 128, num_layers=2, batch_first=True)
        self.output = nn.Linear(128, 10)

    def forward(self, x: Any) -> Any:
        return self.output(self.cells(x)[0][:, -1])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(128), nn.LayerNorm(128)
        self.qkv, self.out = nn.Linear(128, 384), nn.Linear(128, 128)
        self.up, self.down = nn.Linear(128, 512), nn.Linear(512, 128)

    def forward(self, x: Any) -> Any:
        batch, time, width = x.shape
        parts = self.qkv(self.norm_1(x)).view(batch, time, 3, 4, 32).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(65, 128)
        self.places = nn.Parameter(0.02 * torch.randn(128, 128))
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.norm = nn.LayerNorm(128)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.blocks(self.table(x) + self.places))
        return x @ self.table.weight.T


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "mlp": mlp, "lstm": LSTM, "gpt": GPT}
