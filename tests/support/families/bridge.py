"""Models that are not Linen modules."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jdl.models import from_functions, from_nnx
from tests.support.contract_rows import model_row


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.one = nnx.Linear(4, 5, rngs=rngs)
        self.two = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.two(nnx.tanh(self.one(x)))


def _plain_functions() -> Any:
    def init(key: Any, inputs: Any) -> Any:
        return {"w": jax.random.normal(key, (inputs.shape[-1], 3)), "b": jnp.zeros(3)}

    return from_functions(init, lambda params, x: x @ params["w"] + params["b"][None])


ROWS = [
    model_row("from_nnx", from_nnx(NnxNet)),
    model_row("from_functions", _plain_functions()),
]
