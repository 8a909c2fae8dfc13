"""Examples to feed from: arrays, and a source of the same that counts what is read."""

import numpy as np


def numbers(n: int) -> dict[str, np.ndarray]:
    """Three inputs and a label, each its own number."""
    return {
        "x": np.arange(n * 3, dtype=np.float32).reshape(n, 3),
        "y": np.arange(n, dtype=np.int32),
    }


class Source:
    """Random access to examples, as Grain defines it; counts what is read."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def __len__(self):
        return len(self.data["x"])

    def __getitem__(self, index):
        self.reads += 1
        return {name: value[index] for name, value in self.data.items()}
