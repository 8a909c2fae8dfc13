"""Self-supervised tasks for images: predict a rotation, or reconstruct hidden patches."""

from typing import Any

import jax
import jax.numpy as jnp

from jdl import metrics as measures
from jdl.core.errors import check_range, error, require_key
from jdl.core.nouns import check_model
from jdl.core.types import Batch, Key, Mean, Metrics, Model, PyTree, Task
from jdl.metrics.checks import check_one_array
from jdl.metrics.classification import predicted_class
from jdl.tasks.losses import cross_entropy
from jdl.tasks.masks import hide_masked
from jdl.tasks.supervised import examples, refuse_masked_statistics


def rotation_prediction(model: Model) -> Task:
    """Predict by how many quarter turns an image was rotated (RotNet).

    Every image `x` (batch, size, size, channels) is rotated by 0, 90, 180 and 270 degrees, and the
    model returns four logits for each. The loss of an image is the mean over its four rotations.
    The metrics are `loss` and `accuracy`. `predict` returns the logits (batch, 4) of the images
    without rotation. No labels are used.

    Raises `InputError` at `init` for images that are not square, and for a model without four
    outputs.

    >>> from jdl.models import CNN, from_linen
    >>> task = rotation_prediction(from_linen(CNN((2,), (), classes=4)))
    >>> batch = {"x": jnp.ones((3, 6, 6, 1))}
    >>> params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    >>> jax.eval_shape(task.predict, params, model_state, batch).shape
    (3, 4)

    Gidaris, Singh and Komodakis 2018, "Unsupervised representation learning by predicting image
    rotations".
    """
    check_model(model, "rotation_prediction: model")

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        images = _images(batch)
        if images.shape[1] != images.shape[2]:
            raise error(
                'batch["x"]',
                expected="square images, which keep their shape when rotated",
                got=f"shape {images.shape}",
                fix="crop or pad them to a square",
            )
        params, model_state = model.init(key, images)
        outputs = jax.eval_shape(predict, params, model_state, batch)
        check_one_array(outputs, "rotation_prediction")
        shape = outputs.shape
        if shape != (len(images), 4):
            raise error(
                "outputs",
                expected=f"four logits per image, shape {(len(images), 4)}",
                got=f"shape {shape}",
                fix="build the model with four outputs",
            )
        return params, model_state

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        if train:
            refuse_masked_statistics(model_state, batch)
            batch = hide_masked(batch)
        images = _images(batch)
        rotated = jnp.concatenate([jnp.rot90(images, quarters, (1, 2)) for quarters in range(4)])
        labels = jnp.repeat(jnp.arange(4), len(images))
        outputs, model_state = model.apply(params, model_state, rotated, key=key, train=train)
        losses = cross_entropy(outputs, labels).reshape(4, -1).T
        hits = (predicted_class(outputs) == labels).reshape(4, -1).T
        weights = measures.example_weights(batch)
        mean = measures.mean(losses.mean(-1), **weights)
        accuracy = measures.fraction(hits, **weights)
        return mean, (model_state, {"loss": mean, "accuracy": accuracy})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def masked_reconstruction(model: Model, *, patch: int, share: float = 0.5) -> Task:
    r"""Reconstruct hidden patches of an image.

    Images `x` are (batch, height, width, channels), and the model returns the same shape. A `share`
    of the patches of `patch` by `patch` pixels, drawn anew at each step, is set to zero. The loss
    of an image is the mean squared error over its hidden pixels. `predict` returns the model's
    outputs for images without hidden patches.

    Raises `InputError` for a `share` outside [0, 1], at `init` if it hides no patch or if `patch`
    does not divide the image, and for a loss without a key.

    >>> from jdl.models import from_functions
    >>> nothing = from_functions(lambda key, x: {}, lambda params, x: 0 * x)
    >>> task = masked_reconstruction(nothing, patch=2)
    >>> batch = {"x": jnp.full((2, 4, 4, 1), 3.0)}
    >>> print(task.loss({}, {}, batch, jax.random.key(0), train=True)[0].value)
    9.0

    Pathak et al. 2016, "Context encoders: feature learning by inpainting"; He et al. 2022, "Masked
    autoencoders are scalable vision learners".
    """
    check_model(model, "masked_reconstruction: model")
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
        key = require_key(key, "a random key, to draw the hidden patches")
        if train:
            refuse_masked_statistics(model_state, batch)
            batch = hide_masked(batch)
        hidden_key, own_key = jax.random.split(key)
        images = _images(batch)
        hidden = _hidden(hidden_key, images.shape, patch, share)
        outputs, model_state = model.apply(
            params, model_state, jnp.where(hidden, 0, images), key=own_key, train=train
        )
        errors = jnp.where(hidden, jnp.square(outputs - images), 0).sum((1, 2, 3))
        pixels = hidden.sum((1, 2, 3)) * images.shape[3]
        mean = measures.mean(errors / pixels, **measures.example_weights(batch))
        return mean, (model_state, {"loss": mean})

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return model.apply(params, model_state, examples(batch), train=False)[0]

    return Task(init, loss, predict)


def _hidden(key: Key, shape: tuple[int, ...], patch: int, share: float) -> jax.Array:
    """A boolean mask of hidden pixels (batch, height, width, 1), as many in every image."""
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
            expected=f"a share that hides at least one of the {rows * columns} patches",
            got=f"{share}",
            fix="choose 0.5 to 0.75, as is usual",
        )
    places = jax.random.uniform(key, (batch, rows * columns)).argsort(-1).argsort(-1)
    patches = (places < count).reshape(batch, rows, columns, 1)
    return patches.repeat(patch, 1).repeat(patch, 2)


def _images(batch: Batch) -> Any:
    images = examples(batch)
    if jnp.ndim(images) == 4:
        return images
    raise error(
        'batch["x"]',
        expected="images of shape (batch, height, width, channels)",
        got=f"shape {jnp.shape(images)}",
        fix="add a channel axis to grey images: x[..., None]",
    )
