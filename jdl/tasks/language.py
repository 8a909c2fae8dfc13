"""Language modelling: predict every token of a text from the tokens before it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.errors import error, require_key
from jdl.core.nouns import check_model
from jdl.core.types import Batch, Count, Info, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks.losses import cross_entropy
from jdl.tasks.masks import counted
from jdl.tasks.supervised import examples, supervised_task


def language_model(model: Model, *, context: int | None = None) -> Task:
    r"""Minimise $-\frac1n \sum_t \log p(x_{t+1} \mid x_{\le t})$, in nats per token.

    A batch holds windows of text, integers `x` (batch, time + 1). The model sees x without its last
    token and predicts x without its first. It returns logits (batch, time, vocabulary) and must be
    causal, as `jdl.models.Decoder` is. A `mask` or `weight` may be (batch,) or, for single targets,
    (batch, time).

    With `context`, longer windows are cut to `context` + 1 tokens, in training at random positions,
    and a mask of their targets with them. On
    `jdl.data.text.windows(tokens, 2 * context, step=context)` every stretch of the text is then
    equally likely, at twice the memory.

    The metrics are `loss`, `bits_per_token` (loss / log 2; bits per character for a text of
    characters) and `perplexity` (the exponential of the loss). `predict` takes `x` (batch, time),
    cut to `context` tokens, and returns the logits of the token after each of them.

    Raises `InputError` for windows that are too short or not integers, for a mask of other targets
    than those of the windows, and at `init` for tokens outside the vocabulary.

    >>> from jdl.models import from_functions
    >>> uniform = from_functions(lambda key, x: {}, lambda p, x: jnp.zeros((*x.shape, 8)))
    >>> task, batch = language_model(uniform), {"x": jnp.array([[3, 1, 2]])}
    >>> _, (_, metrics) = task.loss({}, {}, batch, None, train=False)
    >>> print(*(metrics[name].compute().round(4) for name in ("bits_per_token", "perplexity")))
    3.0 8.0

    Bengio et al. 2003, "A neural probabilistic language model".
    """
    check_model(model, "language_model: model")
    inner = supervised_task(model, cross_entropy)

    def shifted(batch: Batch, key: Key | None, train: bool) -> Batch:
        windows = _checked(examples(batch), context)
        if context is not None and windows.shape[1] > context + 1:
            batch, windows = _cut(batch, windows, context, key, train)
        return {**batch, "x": windows[:, :-1], "y": windows[:, 1:]}

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        inputs_and_targets = shifted(batch, None, False)
        params, model_state = inner.init(key, inputs_and_targets)
        outputs = jax.eval_shape(inner.predict, params, model_state, inputs_and_targets)
        _check_vocabulary(counted("x", batch), outputs.shape[-1])
        return params, model_state

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        # Without a context nothing is drawn here, and the model gets the key as it is.
        cut_key, own_key = (key, key) if key is None or context is None else jax.random.split(key)
        mean, (model_state, metrics) = inner.loss(
            params, model_state, shifted(batch, cut_key, train), own_key, train=train
        )
        sums = metrics["loss"]
        more = {"bits_per_token": Count(sums, _bits), "perplexity": Count(sums, _perplexity)}
        return mean, (model_state, metrics | more)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return inner.predict(params, model_state, {**batch, "x": examples(batch)[:, :context]})

    return Task(init, loss, predict, Info(output="token_logits"))


def _cut(
    batch: Batch, windows: jax.Array, context: int, key: Key | None, train: bool
) -> tuple[Batch, jax.Array]:
    """`context` targets of each window: the first ones, or in training those from a random start.

    Returns the batch with the mask and the weight of these, and the windows.
    """
    count, time = windows.shape[0], windows.shape[1] - 1
    given = {name: jnp.asarray(batch[name]) for name in ("mask", "weight") if name in batch}
    of_targets = {name: values for name, values in given.items() if values.ndim > 1}
    for name, values in of_targets.items():
        if values.shape != (count, time):
            raise error(
                name,
                expected=f"shape {(count,)}, or {(count, time)} for the targets of whole windows",
                got=f"shape {values.shape}",
                fix="give one value for each token of a window but the first",
            )
    starts: Any = None
    if train:
        key = require_key(key, "a random key, to cut windows at random places in training")
        starts = jax.random.randint(key, (count, 1), 0, time - context + 1)

    def cut(values: jax.Array, length: int) -> jax.Array:
        if starts is None:
            return values[:, :length]
        return jnp.take_along_axis(values, starts + jnp.arange(length)[None], axis=1)

    parts = {name: cut(values, context) for name, values in of_targets.items()}
    return {**batch, **parts}, cut(windows, context + 1)


def _bits(sums: Mean) -> Any:
    return sums.compute() / math.log(2)


def _perplexity(sums: Mean) -> Any:
    with np.errstate(over="ignore"):
        return np.exp(sums.compute())


def _checked(windows: Any, context: int | None) -> Any:
    shape, dtype = jnp.shape(windows), jnp.result_type(windows)
    least = 2 if context is None else context + 1
    if len(shape) == 2 and shape[1] >= least and jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(windows).astype(jnp.int32)
    raise error(
        'batch["x"]',
        expected=f"windows of text, integers of shape (batch, {least} or more)",
        got=f"{dtype} of shape {shape}",
        fix="make them with jdl.data.text.windows(tokens, context + 1)",
    )


def _check_vocabulary(tokens: np.ndarray | None, size: int) -> None:
    if tokens is None or tokens.size == 0:
        return
    if tokens.min() < 0 or tokens.max() >= size:
        raise error(
            'batch["x"]',
            expected=f"tokens from 0 to {size - 1}, the vocabulary of the model",
            got=f"tokens from {tokens.min()} to {tokens.max()}",
            fix="build the model with vocabulary=tokenizer.size",
        )
