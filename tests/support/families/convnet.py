"""Convolutional networks."""

from jdl.models import CNN, from_linen
from tests.support.contract_rows import IMAGES, model_row

ROWS = [
    model_row("CNN", from_linen(CNN((2,), (4,), 3, activation="tanh")), IMAGES, tolerance=1e-4),
    # CNN B of the scope: no hidden layer.
    model_row(
        "CNN without a hidden layer",
        from_linen(CNN((2,), (), 3, activation="tanh")),
        IMAGES,
        eager=2,
        tolerance=1e-4,
    ),
]
