"""Learning without labels: contrastive, rotations, hidden squares."""

from typing import Any

import jax

from jdl import tasks
from jdl.models import MLP, EncoderWithHead, from_functions, from_linen
from tests.support.contract_rows import DENSE, IMAGES, MASKS, MODEL, task_row


def _noisy(key: Any, x: Any) -> Any:
    return x + 0.3 * jax.random.normal(key, x.shape)


def _painter() -> Any:
    """Images from images: every pixel from all others."""

    def init(key: Any, x: Any) -> Any:
        pixels = x[0].size
        return {"w": 0.1 * jax.random.normal(key, (pixels, pixels))}

    def apply(params: Any, x: Any) -> Any:
        return (x.reshape(len(x), -1) @ params["w"]).reshape(x.shape)

    return from_functions(init, apply)


NEGATIVES = {"pmap equals shard": "an example's negatives are those of its own device"}

ROWS = [
    task_row(
        "Headed", tasks.classification(from_linen(EncoderWithHead(MLP((), 5), (3,), (4,)))), eager=1
    ),
    # Stretching short embeddings to length one enlarges their rounding; in float64 1e-9 holds.
    task_row(
        "contrastive",
        tasks.contrastive(MODEL, _noisy),
        DENSE,
        tolerance=1e-4,
        without=NEGATIVES,
        double=True,
    ),
    task_row("rotation", tasks.rotation_prediction(from_linen(MLP((5,), 4, "tanh"))), IMAGES),
    task_row(
        "masked_reconstruction",
        tasks.masked_reconstruction(_painter(), patch=2, share=0.4),
        IMAGES,
        without=MASKS,
    ),
]
