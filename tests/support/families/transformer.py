"""Transformers: the encoder, the decoder, the one for images."""

import jax.numpy as jnp
import numpy as np

from jdl import tasks
from jdl.models import Decoder, Encoder, ViT, from_linen
from tests.support.contract_rows import DENSE, IMAGES, model_row, task_row


def _texts() -> dict:
    """Sixteen windows of five tokens out of four, and a mask."""
    tokens = np.random.default_rng(1).integers(0, 4, (16, 5))
    return {"x": jnp.asarray(tokens, jnp.int32), "mask": DENSE["mask"]}


def _ragged() -> dict:
    """Sixteen sequences of three vectors, with their true lengths."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(16, 3, 2)).astype(np.float32)
    lengths = rng.integers(1, 4, 16).astype(np.int32)
    return {**DENSE, "x": jnp.asarray(x), "lengths": jnp.asarray(lengths)}


DECODER = from_linen(Decoder(vocabulary=4, context=4, blocks=1, heads=2, width=4))
ENCODER = tasks.classification(
    from_linen(Encoder(outputs=3, context=3, blocks=1, heads=2, width=4)),
    inputs=lambda batch: {"x": batch["x"], "lengths": batch["lengths"]},
)
TEXTS = _texts()

ROWS = [
    task_row("Encoder", ENCODER, _ragged(), eager=1),
    model_row("ViT", from_linen(ViT(3, patch=3, blocks=1, heads=2, width=4)), IMAGES, eager=1),
    task_row(
        "language_model", tasks.language_model(DECODER, context=4), TEXTS, eager=1, double=True
    ),
]
