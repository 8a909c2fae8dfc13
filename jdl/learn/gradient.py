"""Gradient operators: from the loss of a task to the function that computes its gradient.

A loss is a `Mean`. Its total is differentiated; gradient and weight are summed over micro-batches
and devices, and divided once. So masks, parts of unequal weight and the number of devices do not
change the result.
"""

from collections.abc import Callable, Hashable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from jdl.core import tree
from jdl.core.errors import check_range, error
from jdl.core.lowering import platform
from jdl.core.nouns import describe
from jdl.core.types import (
    Axis,
    Batch,
    Gradient,
    GradsAndAux,
    Key,
    Loss,
    LossGradient,
    Metrics,
    PyTree,
)
from jdl.learn.training_metrics import summable, without_samples

Part = Callable[[Any, PyTree, PyTree], tuple[PyTree, PyTree, Metrics]]
"""`part(i, params, model_state) -> (grads, model_state, metrics)`, for micro-batch i."""


def mean_gradient(loss: Loss) -> LossGradient:
    r"""The gradient of the mean loss, $\nabla \sum_i w_i \ell_i / \sum_i w_i$.

    The gradient has the shapes of `params`. With an `axis` (inside `pmap` or `shard_map`) the sums
    and the metrics run over that device axis too, and floating-point model state is averaged.

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
        params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, axis: Axis = None
    ) -> GradsAndAux:
        def total(params: PyTree) -> Any:
            mean, (after, metrics) = loss(params, model_state, batch, key, train=True)
            return mean.total, (mean.weight, (after, without_samples(metrics)))

        if axis is not None:
            # Otherwise shard_map, unlike pmap, would already sum the gradient of replicated
            # parameters over the devices.
            params = _varying(params, axis)
        grads, (weight, (new_model_state, metrics)) = jax.grad(total, has_aux=True)(params)
        grads, weight, new_model_state, metrics = reduce(
            grads, weight, new_model_state, metrics, axis
        )
        return divide(grads, weight), (new_model_state, metrics)

    return gradient


def clip_gradient(norm: float, inner: Gradient = mean_gradient) -> Gradient:
    r"""Scale the gradient down to a global norm of at most `norm`.

    $g \min(1, c / \lVert g \rVert)$ with $c$ = `norm`. `optax.clip_by_global_norm` in the optimizer
    does the same; as an operator it can be nested in `accumulate` or `sharpness_aware`. Shapes stay
    those of `params`. Raises `InputError` unless `norm` is above 0.

    >>> from jdl.core.types import Mean
    >>> def loss(w, model_state, batch, key, *, train):
    ...     mean = Mean(3 * w[0] + 4 * w[1], 1.0)
    ...     return mean, (model_state, {"loss": mean})
    >>> grads, _ = clip_gradient(1.0)(loss)(jnp.zeros(2), {}, {}, None)
    >>> print(grads.round(3))
    [0.6 0.8]

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks".
    """

    if isinstance(norm, Real) and not norm > 0:
        raise error(
            "clip_gradient: norm",
            expected="a number above 0",
            got=repr(norm),
            fix="choose 1, as is usual",
        )

    def operator(loss: Loss) -> LossGradient:
        gradient_of_loss = inner(loss)

        def gradient(
            params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, axis: Axis = None
        ) -> GradsAndAux:
            grads, aux = gradient_of_loss(params, model_state, batch, key, axis=axis)
            scale = jnp.minimum(1.0, norm / jnp.maximum(tree.norm(grads), 1e-30))
            return _scale(grads, scale), aux

        return gradient

    return operator


def check_gradient(gradient: Any, where: str) -> None:
    """Raise `InputError` unless `gradient` computes gradients of a loss.

    >>> check_gradient(accumulate, "learner: gradient")
    Traceback (most recent call last):
    jdl.core.errors.InputError: learner: gradient
      expected: a function of a loss, such as jdl.mean_gradient
      got:      the function accumulate
      fix:      call it: jdl.accumulate(4)
    """
    calls = {accumulate: "accumulate(4)", clip_gradient: "clip_gradient(1.0)"}
    calls[sharpness_aware] = "sharpness_aware(0.05)"
    is_hashable = isinstance(gradient, Hashable)
    if callable(gradient) and not (is_hashable and gradient in calls):
        return
    call = calls.get(gradient) if is_hashable else None
    raise error(
        where,
        expected="a function of a loss, such as jdl.mean_gradient",
        got=describe(gradient),
        fix=f"call it: jdl.{call}" if call else "pass jdl.mean_gradient, or jdl.accumulate(4)",
    )


def accumulate(parts: int, inner: Gradient = mean_gradient) -> Gradient:
    """Split each batch into `parts` equal micro-batches and sum their gradients.

    One step stays one optimizer update. The gradient equals that of the whole batch up to rounding,
    masks included, but only the activations of one part are in memory. Sums are float32 or wider,
    whatever the type of `params`. Part i holds the examples i, i + parts, i + 2 parts, ..., so that
    each device keeps its part of a sharded batch.

    What depends on the whole batch sees the parts instead: batch normalisation uses the statistics
    of each part and updates its running averages `parts` times, dropout draws a mask per part, and
    a nonlinear `inner` such as `clip_gradient` acts on each part. `accumulate(1, inner)` is
    `inner`. Raises `InputError` in the step if `parts` does not divide the batch size.

    >>> from jdl.core.types import Mean
    >>> def loss(w, model_state, batch, key, *, train):
    ...     mean = Mean(jnp.sum((w * batch["x"] - batch["y"]) ** 2), jnp.float32(len(batch["x"])))
    ...     return mean, (model_state, {"loss": mean})
    >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([1.0, 2.0])}
    >>> grads, _ = accumulate(2)(loss)(jnp.float32(0), {}, batch, None)
    >>> float(grads)
    -5.0
    """
    if parts == 1:
        return inner

    def operator(loss: Loss) -> LossGradient:
        gradient_of_loss = inner(loss)

        def gradient(
            params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, axis: Axis = None
        ) -> GradsAndAux:
            pieces = _split(batch, parts)
            keys = None if key is None else jax.random.split(key, parts)
            # Sums of a linear inner gradient run over the devices once, after the last part.
            within = None if inner is mean_gradient else axis
            at = params if axis is None or within is not None else _varying(params, axis)

            def part(i: Any, at: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree, Metrics]:
                piece = jax.tree.map(lambda x: x[i], pieces)
                own_key = None if keys is None else keys[i]
                grads, (model_state, metrics) = gradient_of_loss(
                    at, model_state, piece, own_key, axis=within
                )
                metrics = summable(metrics)
                return _scale(_wide(grads), metrics["loss"].weight), model_state, metrics

            grads, model_state, metrics = _sum(part, at, model_state, parts)
            weight = metrics["loss"].weight
            if within is None:
                grads, weight, model_state, metrics = reduce(
                    grads, weight, model_state, metrics, axis
                )
            grads = jax.tree.map(
                lambda g, w: g.astype(jnp.result_type(w)), divide(grads, weight), params
            )
            return grads, (model_state, metrics)

        return gradient

    return operator


def sharpness_aware(rho: float, inner: Gradient = mean_gradient) -> Gradient:
    r"""The gradient at the worst nearby point, $\nabla L(w + \rho\, g / \lVert g \rVert)$.

    $g = \nabla L(w)$ is computed first, so a step costs two gradients, on the same batch with the
    same key. Metrics and model state are those at $w$. The gradient has the shapes of `params`.
    Raises `InputError` for a negative `rho`.

    >>> from jdl.core.types import Mean
    >>> def loss(w, model_state, batch, key, *, train):
    ...     mean = Mean(w**2, 1.0)
    ...     return mean, (model_state, {"loss": mean})
    >>> grads, (_, metrics) = sharpness_aware(0.5)(loss)(jnp.float32(1), {}, {}, None)
    >>> float(grads), float(metrics["loss"].value)  # the gradient at 1.5, the loss at 1
    (3.0, 1.0)

    Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization".
    """

    check_range("sharpness_aware: rho", rho, 0)

    def operator(loss: Loss) -> LossGradient:
        gradient_of_loss = inner(loss)

        def gradient(
            params: PyTree, model_state: PyTree, batch: Batch, key: Key | None, *, axis: Axis = None
        ) -> GradsAndAux:
            first, aux = gradient_of_loss(params, model_state, batch, key, axis=axis)
            scale = rho / jnp.maximum(tree.norm(first), 1e-30)
            nearby = tree.add(params, _scale(first, scale))
            grads, _ = gradient_of_loss(nearby, model_state, batch, key, axis=axis)
            return grads, aux

        return gradient

    return operator


def reduce(
    grads: PyTree, weight: Any, model_state: PyTree, metrics: Metrics, axis: Axis
) -> tuple[PyTree, Any, PyTree, Metrics]:
    """Sum over a mapped device axis, and average floating-point model state; no axis, no change."""
    if axis is None:
        return grads, weight, model_state, metrics
    grads, weight, metrics = jax.lax.psum((grads, weight, metrics), axis)
    model_state = jax.tree.map(
        lambda x: jax.lax.pmean(x, axis) if tree.is_float(x) else jax.lax.pmax(x, axis), model_state
    )
    return grads, weight, model_state, metrics


def divide(grads: PyTree, weight: Any) -> PyTree:
    """Divide the gradient of the total by the weight; zero if the weight is zero."""
    empty = weight == 0
    return _scale(grads, jnp.where(empty, 0.0, 1.0 / jnp.where(empty, 1.0, weight)))


def _scale(grads: PyTree, factor: Any) -> PyTree:
    return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)


def _wide(grads: PyTree) -> PyTree:
    return jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), grads)


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


def _sum(
    part: Part, params: PyTree, model_state: PyTree, parts: int
) -> tuple[PyTree, PyTree, Metrics]:
    """The sums of gradients and metrics over all parts; each takes the model state of the last.

    Unrolled on CPU, where the gradient of a convolution is many times slower in a while loop.
    """
    grads, model_state, metrics = part(0, params, model_state)
    if platform() != "cpu":

        def body(i: Any, carry: Any) -> Any:
            grads, model_state, metrics = carry
            more_grads, model_state, more_metrics = part(i, params, model_state)
            return tree.add(grads, more_grads), model_state, tree.add(metrics, more_metrics)

        return jax.lax.fori_loop(1, parts, body, (grads, model_state, metrics))
    for i in range(1, parts):
        own = _after(grads, (jnp.int32(i), params))
        more_grads, model_state, more_metrics = part(*own, model_state)
        grads, metrics = tree.add(grads, more_grads), tree.add(metrics, more_metrics)
    return grads, model_state, metrics


def _after(results: PyTree, values: PyTree) -> PyTree:
    """`values`, available only after all of `results` are computed.

    Otherwise XLA computes all parts in parallel and holds the activations of all of them; on CPU it
    removes an `optimization_barrier` before it schedules. It cannot remove a comparison of a number
    with itself, which fails for nan only, and then the gradient is nan already.
    """
    number = sum(jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(results) if leaf.size)

    def wait(x: jax.Array) -> jax.Array:
        return jnp.where(number == number, x, jnp.nan if tree.is_float(x) else 0).astype(x.dtype)

    return jax.tree.map(wait, values)
