"""Tasks that make their own labels from images: which way is up, and what was hidden."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core.errors import check_range, error, require_key
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks.losses import cross_entropy
from jdl.tasks.supervised import examples, refuse_masked_statistics


def rotation_prediction(model: Model) -> Task:
    """Say by how many quarters an image was turned (RotNet, Gidaris, Singh & Komodakis 2018).

    Every image of a batch (batch, size, size, channels) is shown four times, turned by 0, 90, 180
    and 270 degrees; the model's outputs are four logits. The cost of an image is the mean of its
    four. Reports `loss` and `accuracy`; `predict` returns the logits of x as it is.

    >>> from jdl.models import CNN, from_linen
    >>> task = rotation_prediction(from_linen(CNN((2,), (), classes=4)))
    >>> batch = {"x": jnp.ones((3, 6, 6, 1))}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (3, 4)
    """

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        images = _images(batch)
        if images.shape[1] != images.shape[2]:
            raise error(
                'batch["x"]',
                expected="square images, which keep their shape when they are turned",
                got=f"shape {images.shape}",
                fix="crop or pad them to a square",
            )
        params, model_state = model.init(key, images)
        shape = jax.eval_shape(predict, params, model_state, batch).shape
        if shape != (len(images), 4):
            raise error(
                "outputs",
                expected=f"four logits for each image, shape {(len(images), 4)}",
                got=f"shape {shape}",
                fix="give the model four outputs",
            )
        return params, model_state

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            refuse_masked_statistics(model_state, batch)
        images = _images(batch)
        turned = jnp.concatenate([jnp.rot90(images, quarters, (1, 2)) for quarters in range(4)])
        answers = jnp.repeat(jnp.arange(4), len(images))
        outputs, model_state = model.apply(params, model_state, turned, key=key, train=train)
        losses = cross_entropy(outputs, answers).reshape(4, -1).T
        hits = (outputs.argmax(-1) == answers).reshape(4, -1).T
        mask = batch.get("mask")
        mean = measures.masked_mean(losses.mean(-1), mask)
        return mean, (model_state, {"loss": mean, "accuracy": measures.masked_fraction(hits, mask)})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def masked_reconstruction(model: Model, *, patch: int, share: float = 0.5) -> Task:
    r"""Fill in hidden squares of an image (Pathak et al. 2016; He et al. 2022).

    A `share` of the squares of `patch` pixels, new ones at each step, is set to zero; the model's
    outputs have the images' shape. The cost of an image is the squared error over its hidden
    pixels, whose number is the same for all. `predict` returns what the model makes of x as it is.

    >>> from jdl.models import from_functions
    >>> nothing = from_functions(lambda key, x: {}, lambda params, x: 0 * x)
    >>> task = masked_reconstruction(nothing, patch=2)
    >>> batch = {"x": jnp.full((2, 4, 4, 1), 3.0)}
    >>> print(task.loss({}, {}, batch, jax.random.key(0), train=True)[0].value)
    9.0
    """
    check_range("share", share, 0, 1)

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        images = _images(batch)
        _hidden(key, images.shape, patch, share)
        params, model_state = model.init(key, images)
        measures.check_same_shape(jax.eval_shape(predict, params, model_state, batch), images)
        return params, model_state

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        key = require_key(key, "a random key, to choose what is hidden")
        if train:
            refuse_masked_statistics(model_state, batch)
        draw, own = jax.random.split(key)
        images = _images(batch)
        hidden = _hidden(draw, images.shape, patch, share)
        outputs, model_state = model.apply(
            params, model_state, jnp.where(hidden, 0, images), key=own, train=train
        )
        errors = jnp.where(hidden, jnp.square(outputs - images), 0).sum((1, 2, 3))
        pixels = hidden.sum((1, 2, 3)) * images.shape[3]
        mean = measures.masked_mean(errors / pixels, batch.get("mask"))
        return mean, (model_state, {"loss": mean})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def _hidden(key: Key, shape: tuple[int, ...], patch: int, share: float) -> jax.Array:
    """Which pixels are hidden, (batch, height, width, 1): as many squares in every image."""
    batch, height, width = shape[:3]
    if patch < 1 or height % patch or width % patch:
        raise error(
            "patch",
            expected=f"a size that divides the image, {height} by {width}",
            got=str(patch),
            fix="choose another size, or pad the images",
        )
    rows, columns = height // patch, width // patch
    count = round(share * rows * columns)
    if not 0 < count <= rows * columns:
        raise error(
            "share",
            expected=f"at least one of the {rows * columns} squares",
            got=f"{share}",
            fix="0.5 to 0.75 is usual",
        )
    places = jax.random.uniform(key, (batch, rows * columns)).argsort(-1).argsort(-1)
    squares = (places < count).reshape(batch, rows, columns, 1)
    return squares.repeat(patch, 1).repeat(patch, 2)


def _images(batch: Batch) -> Any:
    images = examples(batch)
    if jnp.ndim(images) == 4:
        return images
    raise error(
        'batch["x"]',
        expected="images, shape (batch, height, width, channels)",
        got=f"shape {jnp.shape(images)}",
        fix="give grey images a channel axis: x[..., None]",
    )
