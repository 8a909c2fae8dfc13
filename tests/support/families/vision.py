"""Deep convolutional networks."""

from collections.abc import Callable
from typing import Any

from jdl.core.types import Learner
from jdl.learn.learner import learner
from jdl.models import CNN, VGG, AlexNet, DenseNet, GoogLeNet, ResNet, from_linen
from jdl.tasks import classification
from tests.support.contract_rows import IMAGES, SGD, UNMASKED, Around, Row, model_row

CONVOLUTIONS = {"eager": 1, "tolerance": 1e-4}


def _normalised(build: Callable[[str | None], Any]) -> Row:
    """A network with batch statistics: batches have no mask, and pmap maps an axis by name."""

    def on(axis: str | None) -> Callable[[Around], Learner]:
        task = classification(from_linen(build(axis)))
        return lambda around: around(learner(task, SGD))

    name = type(build(None)).__name__
    return Row(name, on(None), UNMASKED, mapped=on("data"), **CONVOLUTIONS)


ROWS = [
    model_row(
        "AlexNet",
        from_linen(AlexNet((4, 4), (3, 3), 1, (1,), (6,), 2, classes=3, dropout=0.0)),
        IMAGES,
        **CONVOLUTIONS,
    ),
    model_row(
        "VGG",
        from_linen(VGG(((4,), (4,)), hidden=(6,), pooled=1, classes=3, dropout=0.0)),
        IMAGES,
        **CONVOLUTIONS,
    ),
    model_row(
        "GoogLeNet",
        from_linen(GoogLeNet((((2,) * 6,),), 2, 3, stem="small", dropout=0.0, norm="none")),
        IMAGES,
        **CONVOLUTIONS,
    ),
    # One stage each, for uncompiled steps of many layers are slow; whole networks are compared
    # with PyTorch.
    _normalised(lambda axis: ResNet((1,), features=2, classes=3, stem="small", axis_name=axis)),
    _normalised(
        lambda axis: DenseNet((1,), growth=2, features=2, classes=3, stem="small", axis_name=axis)
    ),
    model_row(
        "CNN with group norm",
        from_linen(CNN((4,), (), 3, activation="tanh", norm="group")),
        IMAGES,
        **CONVOLUTIONS,
    ),
]
