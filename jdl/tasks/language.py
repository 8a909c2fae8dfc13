"""Language modelling: predict every token of a text from those before it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl.core.errors import error, require_key
from jdl.core.types import Batch, Count, Info, Key, Mean, Metrics, Model, PyTree, Task
from jdl.tasks.losses import cross_entropy
from jdl.tasks.supervised import examples, supervised_task


def language_model(model: Model, *, context: int | None = None) -> Task:
    r"""Minimise $-\frac1n \sum_t \log p(x_{t+1} \mid x_{\le t})$, in nats for each token.

    A batch holds windows of text, `x` integers (batch, context + 1), and where needed a `mask`
    (batch,), or (batch, context) for the tokens that are predicted. The targets are made from
    them: x without its first token, to be predicted from x without its last. `model` returns
    logits (batch, time, vocabulary) and must not look ahead, as `jdl.models.TransformerDecoder`.

    With `context`, longer windows are cut to `context` + 1 tokens, in training at random places.
    On `jdl.data.text.windows(tokens, 2 * context, step=context)` every stretch of the text is then
    equally likely, for twice its memory.

    Beside `loss` it reports `bits_per_token` (loss / log 2; of a text in characters, bits per
    character) and `perplexity` (its exponential). `predict` returns the logits of the token after
    each of x, at most `context` of them. Raises `InputError` at `init` for tokens that the
    vocabulary does not hold, and for windows that are too short.

    >>> from jdl.models import from_functions
    >>> uniform = from_functions(lambda key, x: {}, lambda p, x: jnp.zeros((*x.shape, 8)))
    >>> task, batch = language_model(uniform), {"x": jnp.array([[3, 1, 2]])}
    >>> _, (_, metrics) = task.loss({}, {}, batch, None, train=False)
    >>> print(*(metrics[name].compute().round(4) for name in ("bits_per_token", "perplexity")))
    3.0 8.0
    """
    inner = supervised_task(model, cross_entropy)

    def shifted(batch: Batch, key: Key | None, train: bool) -> Batch:
        windows = _checked(examples(batch), context)
        if context is not None:
            windows = _cut(windows, context + 1, key, train)
        return {**batch, "x": windows[:, :-1], "y": windows[:, 1:]}

    def init(key: Key, batch: Batch) -> tuple[PyTree, PyTree]:
        ready = shifted(batch, None, False)
        params, model_state = inner.init(key, ready)
        outputs = jax.eval_shape(inner.predict, params, model_state, ready)
        _check_vocabulary(batch["x"], outputs.shape[-1])
        return params, model_state

    def loss(
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, train: bool
    ) -> tuple[Mean, tuple[PyTree, Metrics]]:
        # The model keeps the whole key where nothing is drawn here.
        draw, own = (key, key) if key is None or context is None else jax.random.split(key)
        mean, (model_state, metrics) = inner.loss(
            params, model_state, shifted(batch, draw, train), own, train=train
        )
        sums = metrics["loss"]
        told = {"bits_per_token": Count(sums, _bits), "perplexity": Count(sums, _perplexity)}
        return mean, (model_state, metrics | told)

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> PyTree:
        return inner.predict(params, model_state, {**batch, "x": examples(batch)[:, :context]})

    return Task(init, loss, predict, Info(output="token_logits"))


def _cut(windows: jax.Array, length: int, key: Key | None, train: bool) -> jax.Array:
    """`length` tokens of each window: its first ones, in training those from a random place."""
    last = windows.shape[1] - length
    if not train or last == 0:
        return windows[:, :length]
    key = require_key(key, "a random key, to cut windows at random places in training")
    starts = jax.random.randint(key, (windows.shape[0], 1), 0, last + 1)
    return jnp.take_along_axis(windows, starts + jnp.arange(length)[None], axis=1)


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


def _check_vocabulary(tokens: Any, size: int) -> None:
    if isinstance(tokens, Tracer) or not isinstance(tokens, np.ndarray | jax.Array):
        return
    tokens = np.asarray(tokens)
    if tokens.min() < 0 or tokens.max() >= size:
        raise error(
            'batch["x"]',
            expected=f"tokens from 0 to {size - 1}, the vocabulary of the model",
            got=f"tokens from {tokens.min()} to {tokens.max()}",
            fix="give the model tokenizer.size as its vocabulary",
        )
