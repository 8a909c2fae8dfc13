"""Gradient operators: `gradient(loss) -> (grads, (model_state, metrics))` at a batch. They nest.

A loss is a `Mean`. The gradient is taken of its total; gradient and weight are summed over
micro-batches and devices, and divided once. So neither a mask, nor an uneven part, nor the number
of devices changes the result.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.lowering import platform
from jdl.core.types import Batch, Gradient, PyTree


def mean_gradient(loss: Any) -> Any:
    r"""The gradient of the mean loss, $\nabla \sum_i \ell_i / \sum_i w_i$.

    With `axis` given (inside `pmap` or `shard_map`) sums run over that device axis too, floating
    model state is averaged over it, and metrics are added.

    >>> from jdl.core.types import Mean
    >>> def loss(w, model_state, batch, key, *, train):
    ...     mean = Mean(jnp.sum((w * batch["x"] - batch["y"]) ** 2), 2.0)
    ...     return mean, (model_state, {"loss": mean})
    >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([1.0, 2.0])}
    >>> grads, (_, metrics) = mean_gradient(loss)(jnp.float32(0), {}, batch, None)
    >>> float(grads), float(metrics["loss"].value)
    (-5.0, 2.5)
    """

    def gradient(
        params: PyTree, model_state: PyTree, batch: Batch, key: Any, *, axis: Any = None
    ) -> Any:
        def total(params: PyTree) -> Any:
            mean, aux = loss(params, model_state, batch, key, train=True)
            return mean.total, (mean.weight, aux)

        if axis is not None:
            # Without this, shard_map has already summed the gradient of replicated parameters
            # over the devices, while pmap has not.
            params = _varying(params, axis)
        grads, (weight, (new_model_state, metrics)) = jax.grad(total, has_aux=True)(params)
        grads, weight, new_model_state, metrics = reduce(
            grads, weight, new_model_state, metrics, axis
        )
        return divide(grads, weight), (new_model_state, metrics)

    return gradient


def clip_gradient(norm: float, inner: Gradient = mean_gradient) -> Gradient:
    r"""Scale the gradient down to a global norm of at most `norm`.

    $g \min(1, c / \lVert g \rVert)$ (Pascanu et al. 2013). `optax.clip_by_global_norm` in the
    optimizer does the same; here it can stand inside `accumulate` or `sharpness_aware`.
    """

    def operator(loss: Any) -> Any:
        def gradient(*args: Any, axis: Any = None) -> Any:
            grads, aux = inner(loss)(*args, axis=axis)
            scale = jnp.minimum(1.0, norm / jnp.maximum(optax.tree.norm(grads), 1e-30))
            return _scale(grads, scale), aux

        return gradient

    return operator


def accumulate(parts: int, inner: Gradient = mean_gradient) -> Gradient:
    """The same gradient from `parts` equal micro-batches, one after the other, in one step.

    One optimizer step, one `step`. Equal to the large batch's gradient up to rounding, masks
    included, while the activations of only one part are alive. Part i holds examples i,
    i + parts, i + 2 parts, ...: strided, so that a sharded batch stays where it is.

    What depends on the batch as a whole sees the parts instead: batch normalisation uses the
    statistics of each part and updates its running averages `parts` times; dropout draws a mask
    for each part; an `inner` that is not linear, such as `clip_gradient`, acts on each part. One
    part is `inner` itself.
    """
    if parts == 1:
        return inner

    def operator(loss: Any) -> Any:
        def gradient(
            params: PyTree, model_state: PyTree, batch: Batch, key: Any, *, axis: Any = None
        ) -> Any:
            pieces = _split(batch, parts)
            keys = None if key is None else jax.random.split(key, parts)
            # A linear inner gradient is summed over the devices once, at the end.
            within = None if inner is mean_gradient else axis
            at = params if axis is None or within is not None else _varying(params, axis)

            def part(i: Any, at: PyTree, model_state: PyTree) -> Any:
                piece = jax.tree.map(lambda x: x[i], pieces)
                own = None if keys is None else keys[i]
                grads, (model_state, metrics) = inner(loss)(
                    at, model_state, piece, own, axis=within
                )
                return _scale(grads, metrics["loss"].weight), model_state, metrics

            grads, model_state, metrics = _sum(part, at, model_state, parts)
            weight = metrics["loss"].weight
            if within is None:
                grads, weight, model_state, metrics = reduce(
                    grads, weight, model_state, metrics, axis
                )
            return divide(grads, weight), (model_state, metrics)

        return gradient

    return operator


def sharpness_aware(rho: float, inner: Gradient = mean_gradient) -> Gradient:
    r"""The gradient at the worst nearby point, $\nabla L(w + \rho\, g / \lVert g \rVert)$.

    Two gradients a step, on the same batch with the same key. Metrics and model state are those
    of the first, at $w$ itself (Foret et al. 2021, "Sharpness-Aware Minimization").
    """

    def operator(loss: Any) -> Any:
        def gradient(
            params: PyTree, model_state: PyTree, batch: Batch, key: Any, *, axis: Any = None
        ) -> Any:
            first, aux = inner(loss)(params, model_state, batch, key, axis=axis)
            scale = rho / jnp.maximum(optax.tree.norm(first), 1e-30)
            nearby = tree.add(params, _scale(first, scale))
            grads, _ = inner(loss)(nearby, model_state, batch, key, axis=axis)
            return grads, aux

        return gradient

    return operator


def reduce(grads: PyTree, weight: Any, model_state: PyTree, metrics: PyTree, axis: Any) -> Any:
    """Sum over a mapped device axis; floating model state is averaged. Without an axis, nothing."""
    if axis is None:
        return grads, weight, model_state, metrics
    grads, weight, metrics = jax.lax.psum((grads, weight, metrics), axis)
    model_state = jax.tree.map(
        lambda x: jax.lax.pmean(x, axis) if tree.is_float(x) else jax.lax.pmax(x, axis), model_state
    )
    return grads, weight, model_state, metrics


def divide(grads: PyTree, weight: Any) -> PyTree:
    """Gradient of the total to gradient of the mean; zero where a batch has no weight at all."""
    empty = weight == 0
    return _scale(grads, jnp.where(empty, 0.0, 1.0 / jnp.where(empty, 1.0, weight)))


def _scale(grads: PyTree, factor: Any) -> PyTree:
    return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)


def _varying(params: PyTree, axis: str) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.pcast(x, axis, to="varying"), params)


def _split(batch: Batch, parts: int) -> PyTree:
    examples = tree.leading(batch)
    if parts < 1 or examples % parts:
        raise error(
            f"accumulate({parts})",
            expected=f"a batch that {parts} divides",
            got=f"{examples} examples",
            fix="change the batch size or the number of parts",
        )
    return jax.tree.map(
        lambda x: jnp.moveaxis(jnp.reshape(x, (examples // parts, parts, *x.shape[1:])), 1, 0),
        batch,
    )


def _sum(part: Any, params: PyTree, model_state: PyTree, parts: int) -> Any:
    """Sum of `part(i, params, model_state)` over i, with `model_state` passed along.

    On CPU a convolution's gradient is many times slower inside a while loop, so there the parts are
    laid out one after the other.
    """
    grads, model_state, metrics = part(0, params, model_state)
    if platform() != "cpu":

        def body(i: Any, carry: Any) -> Any:
            grads, model_state, metrics = carry
            more, model_state, counted = part(i, params, model_state)
            return tree.add(grads, more), model_state, tree.add(metrics, counted)

        return jax.lax.fori_loop(1, parts, body, (grads, model_state, metrics))
    for i in range(1, parts):
        more, model_state, counted = part(*_once(grads, (jnp.int32(i), params)), model_state)
        grads, metrics = tree.add(grads, more), tree.add(metrics, counted)
    return grads, model_state, metrics


def _once(done: PyTree, values: PyTree) -> PyTree:
    """`values`, which cannot be had before all of `done` is computed.

    Without it XLA computes all parts side by side and keeps the activations of all of them; on CPU
    it drops an `optimization_barrier` before it decides on the order. It cannot know that a number
    equals itself, which fails for nan alone, and then the gradient is nan already.
    """
    number = sum(jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(done) if leaf.size)

    def after(x: jax.Array) -> jax.Array:
        return jnp.where(number == number, x, jnp.nan if tree.is_float(x) else 0).astype(x.dtype)

    return jax.tree.map(after, values)
